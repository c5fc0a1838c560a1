//! Why a request is allowed or not, and what would be needed: for people, and never on the way of a request.
//!
//! It speaks of names alone, as the policy does. It is for those who may see the policy: a caller who is denied is not
//! told of bindings of others.

use std::fmt;
use std::sync::Arc;

use super::in_force::Held;
use super::own::{OwnPolicy, WhoScope};
use super::rule::Rule;
use super::templates::{Level, Templates, action_bit};
use super::{Action, Decision, Request, Resource, Role};
use crate::noun::Strength;

/// An answer with its reasons.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What is decided.
    pub decision: Decision,
    /// What could have decided and why it did not, the nearest first; at most [`CONSIDERED_MAX`]. What decided is the
    /// first of all.
    pub reasons: Vec<Considered>,
    /// What would be needed, in a sentence without a full stop; empty if it is allowed.
    pub needed: String,
}

/// The most reasons of one explanation.
pub const CONSIDERED_MAX: usize = 20;

/// A binding, an own policy, or a grant, and what it said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Considered {
    /// Its id.
    pub rule: Arc<str>,
    /// What it said.
    pub verdict: Verdict,
}

/// What one rule said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It allows it.
    Allows,
    /// It forbids it.
    Forbids,
    /// It could not be evaluated, so that all is denied.
    Fails,
    /// It would allow it, but what forbids comes first.
    Overruled,
    /// It would allow it, but is over, since this moment.
    Over(u64),
    /// It would allow it, but is not yet in force.
    NotYet(u64),
    /// It holds in other networks only.
    OtherNetwork,
    /// It asks for these proofs, which were not all shown.
    Weak(Strength),
    /// It asks for this pair in the encryption context, which has none of the name.
    NoPair(Arc<str>),
    /// It asks for other values of this pair.
    OtherPair(Arc<str>),
    /// None of its roles gives the action.
    OtherActions,
    /// It does not cover the resource.
    OtherResource,
    /// It is for others.
    OtherPrincipal,
    /// Its scope fits and its conditions are not met.
    Unmet,
    /// A grant whose principal may not ask for grants to this tenant any more.
    NotStaff,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allows => f.write_str("allows it"),
            Self::Forbids => f.write_str("forbids it"),
            Self::Fails => f.write_str("cannot be evaluated, so that all is denied"),
            Self::Overruled => f.write_str("would allow it, but something forbids it"),
            Self::Over(at) => write!(f, "ended at {}", moment(*at)),
            Self::NotYet(at) => write!(f, "begins at {}", moment(*at)),
            Self::OtherNetwork => f.write_str("holds in other networks only"),
            Self::Weak(needs) => write!(f, "asks for {needs}, which was not shown"),
            Self::NoPair(name) => write!(f, "asks for the pair {name:?} in the encryption context"),
            Self::OtherPair(name) => write!(f, "asks for another value of the pair {name:?} in the encryption context"),
            Self::OtherActions => f.write_str("has no role that gives this action"),
            Self::OtherResource => f.write_str("does not cover this resource"),
            Self::OtherPrincipal => f.write_str("is for other principals"),
            Self::Unmet => f.write_str("has conditions that are not met"),
            Self::NotStaff => f.write_str("was granted to somebody who may not ask for grants to this tenant"),
        }
    }
}

fn moment(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(|| "no moment".to_owned(), |at| at.to_string())
}

/// Whose rules an explanation may tell of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whose {
    /// Those that list the principal, and what decided.
    TheirOwn,
    /// All, for who may see the policy.
    Everybodys,
}

pub(super) fn explain(held: &Held, request: &Request<'_>, whose: Whose) -> Explanation {
    let policy = &*held.policy;
    let decision = held.authorize(request);
    let forbidden = policy.forbids(request).is_some();
    // How many things are wrong, and in which order they came: the nearest is the first.
    let mut found: Vec<(usize, Considered)> = Vec::new();
    let mut consider = |wrong: Vec<Verdict>, rule: &Arc<str>, fits: Verdict| {
        let near = wrong.len();
        let verdict = wrong.into_iter().next().unwrap_or(fits);
        found.push((near, Considered { rule: Arc::clone(rule), verdict }));
    };
    let fits = if forbidden { Verdict::Overruled } else { Verdict::Allows };
    // Asked of the templates once: there may be ten thousand bindings.
    let giving = roles_that_give(request);
    let own = policy.rules_of(request.principal);
    let is_told = |number: usize, own: &[usize]| whose == Whose::Everybodys || own.binary_search(&number).is_ok();
    for (number, rule) in policy.bindings.iter().enumerate().filter(|(number, _)| is_told(*number, &own)) {
        let wrong = wrong_with(rule, own.binary_search(&number).is_ok(), &giving, request);
        consider(wrong, &rule.id, fits.clone());
    }
    if let Some(grants) = held.grants.as_deref() {
        let own = grants.rules_of(request.principal);
        let is_staff = held.is_staff(request);
        for (number, rule) in grants.bindings.iter().enumerate().filter(|(number, _)| is_told(*number, &own)) {
            let mut wrong = wrong_with(rule, own.binary_search(&number).is_ok(), &giving, request);
            wrong.extend((request.action == Action::DestroyDataKey).then_some(Verdict::OtherActions));
            wrong.extend((!is_staff).then_some(Verdict::NotStaff));
            consider(wrong, &rule.id, fits.clone());
        }
    }
    if let Some(all) = &policy.own {
        let caller = policy.callers.get(request.principal);
        let asked = policy.ask(caller, request, &policy.candidates(caller, request));
        for one in all.all() {
            let mut wrong = wrong_with_own(one, caller.map_or(&[][..], |caller| &caller.groups), request);
            // Cedar is asked only where its answer counts.
            let asked = asked.as_ref().filter(|_| wrong.is_empty());
            let says = asked.and_then(|asked| match one.forbids {
                true => asked.forbids(&policy.authorizer, &one.policies),
                false => asked.of(&policy.authorizer, &one.policies),
            });
            match (says, one.forbids) {
                _ if !wrong.is_empty() => {}
                (None, _) => wrong.push(Verdict::Fails),
                (Some(false), _) => wrong.push(Verdict::Unmet),
                (Some(true), _) => {}
            }
            let is_told = whose == Whose::Everybodys || wrong.is_empty() || wrong == [Verdict::Fails];
            if is_told && (!one.forbids || wrong.is_empty() || wrong == [Verdict::Fails]) {
                consider(wrong, &one.id, if one.forbids { Verdict::Forbids } else { fits.clone() });
            }
        }
    }
    // A rule that is wrong in all that can be is no miss.
    found.retain(|(wrong, _)| *wrong < FAR);
    found.sort_by_key(|(wrong, of)| (of.rule != decision.rule, *wrong));
    let mut reasons: Vec<Considered> = found.into_iter().map(|(_, considered)| considered).collect();
    reasons.truncate(CONSIDERED_MAX);
    let needed = if decision.allowed { String::new() } else { needed(&decision, &reasons, &giving, request) };
    Explanation { decision, reasons, needed }
}

const FAR: usize = 3;

/// Returns the roles that give the action on a resource of this level.
fn roles_that_give(request: &Request<'_>) -> Vec<Role> {
    let level = Level::of(request.resource);
    let of = |templates: &Templates| {
        Role::ALL.into_iter().filter(|&role| templates.gives(role, level, request.action)).collect()
    };
    Templates::shipped().map_or_else(|_| Vec::new(), of)
}

/// Returns all that keeps a binding from allowing this, what is hardest to change first.
fn wrong_with(rule: &Rule, is_its_own: bool, giving: &[Role], request: &Request<'_>) -> Vec<Verdict> {
    let mut wrong = Vec::new();
    if !is_its_own {
        wrong.push(Verdict::OtherPrincipal);
    }
    if !rule.roles.iter().any(|role| giving.contains(role)) {
        wrong.push(Verdict::OtherActions);
    }
    if rule.scope_with(request.resource).is_none() {
        wrong.push(Verdict::OtherResource);
    }
    match (rule.from, rule.expires) {
        (Some(from), _) if from > request.now => wrong.push(Verdict::NotYet(from)),
        (_, Some(end)) if end <= request.now => wrong.push(Verdict::Over(end)),
        (_, _) => {}
    }
    if !rule.reaches(request.net) {
        wrong.push(Verdict::OtherNetwork);
    }
    if !request.strength.has(rule.strength) {
        wrong.push(Verdict::Weak(rule.strength));
    }
    wrong.extend(rule.context.iter().find_map(|wanted| match wanted.is_missed_by(request.pairs)? {
        Some(_) => Some(Verdict::OtherPair(Arc::clone(&wanted.name))),
        None => Some(Verdict::NoPair(Arc::clone(&wanted.name))),
    }));
    wrong
}

fn wrong_with_own(one: &OwnPolicy, groups: &[Arc<str>], request: &Request<'_>) -> Vec<Verdict> {
    let mut wrong = Vec::new();
    let is_its_own = match &one.who {
        WhoScope::Anyone => true,
        WhoScope::One(principal) => principal == request.principal,
        WhoScope::Group(name) => groups.contains(name),
        WhoScope::Nobody => false,
    };
    if !is_its_own {
        wrong.push(Verdict::OtherPrincipal);
    }
    if one.actions & action_bit(request.action) == 0 {
        wrong.push(Verdict::OtherActions);
    }
    if !one.what.matches(request.resource) {
        wrong.push(Verdict::OtherResource);
    }
    wrong
}

fn needed(decision: &Decision, reasons: &[Considered], giving: &[Role], request: &Request<'_>) -> String {
    let (action, resource) = (request.action, request.resource);
    if decision.errors {
        return "a policy cannot be evaluated, and until it can all it could be about is denied".to_owned();
    }
    if let Some(forbids) = reasons.iter().find(|reason| reason.verdict == Verdict::Forbids) {
        return format!("the policy {:?} forbids it: nothing that permits helps against that", &*forbids.rule);
    }
    let roles: Vec<&str> = giving.iter().map(|role| role.as_str()).collect();
    if roles.is_empty() {
        return format!("{action} is not asked of {resource}: no role gives it there");
    }
    let whole = format!(
        "a role that gives {action}: {}, in a binding for {} that covers {resource}",
        roles.join(" or "),
        request.principal
    );
    let also = match reasons.first().map(|near| (&near.verdict, &near.rule)) {
        Some((Verdict::Over(_) | Verdict::NotYet(_), rule)) => format!("; {:?} would do while it lasts", &**rule),
        Some((Verdict::OtherNetwork, rule)) => format!("; {:?} would do from its networks", &**rule),
        Some((Verdict::Weak(needs), rule)) => format!("; {:?} would do with a proof by {needs}", &**rule),
        Some((Verdict::NoPair(name) | Verdict::OtherPair(name), rule)) => {
            format!("; {:?} would do with the right pair {name:?} in the encryption context", &**rule)
        }
        Some((Verdict::NotStaff, rule)) => {
            format!("; the grant {:?} would do if its holder still had the role staff there", &**rule)
        }
        Some(_) | None => String::new(),
    };
    let pattern = if *resource == Resource::Cluster { " (tenants = [\"*\"])" } else { "" };
    format!("{whole}{pattern}{also}")
}
