//! MAY: whether a principal may ask an action of a resource. Deny by default.
//!
//! Pure: no I/O, no await, no clock. It sees names only and does not know what exists.
//!
//! **Invariant:** every permission was allowed by Cedar: of a binding from templates that were
//! validated strictly against the schema, of the users' own policies from these, validated likewise.
//! What is in front of it (principal, tenant, names, networks, expiry, strength, pairs of the
//! encryption context) only leaves bindings *out* of what Cedar is asked, and what Cedar cannot
//! evaluate is denied. The test is `an_evaluation_error_denies`.
//!
//! # How it decides
//!
//! What forbids comes before all that permits: the users' own policies ([`own`]) can. Then the
//! bindings are asked, then the own policies that permit, and after them what staff was granted
//! ([`InForce`]). At last the fan-out limit of the binding that allowed it is looked at ([`fan_out`]).
//!
//! Each binding is linked once per principal or group that it lists, at load. A request is put to
//! the few of them that give this action to this principal on this resource, here and now, in file
//! order, until one allows: so the rule is always the first. Where none is left Cedar is not asked.
//!
//! What was allowed is remembered ([`remembered`]): the same question is then answered without
//! Cedar, until the next of the caller's bindings expires or the policy is replaced.
//!
//! # What a binding gives
//!
//! A role is a set of actions, and each action is asked of a resource of one level. What a binding
//! covers is said for each level apart, and no level gives another:
//!
//! | level | actions, for instance | a binding covers |
//! | --- | --- | --- |
//! | key | Encrypt, CreateKey, GetKey | the keys that `keys` names, in the tenants that `tenants` names; none without `keys` |
//! | index | GetIndexKey | the indexes that `indexes` names, in those tenants; none without `indexes` |
//! | tenant | CreateTenant, GetTenant, ListKeys | the tenants that `tenants` names, whatever `keys` says |
//! | cluster | ListTenants, GetStatus, Lock, Reload | the cluster, if `tenants` is `["*"]`; else nothing |
//!
//! So `keys = ["pay-*"]` with `key-admin` lets CreateKey make `pay-7` and nothing else, but ListKeys
//! shows the names of all keys of the tenant. `"*"` covers tenants and keys to come, too. A role
//! that would give nothing, and a list that would limit nothing, are refused at load.
//!
//! A binding is in force while `now < expires`, for peers inside `networks`, for principals that
//! were proved by all of `strength`, and where the encryption context has one of the values of each
//! pair of `context`; so that one with `context` gives nothing to an action without a context. If several
//! bindings allow, the first in the file is the one that decided. `GetCallerIdentity` tells a
//! principal about itself and needs no binding.

mod action;
mod assemble;
pub mod bindings;
pub mod check;
mod entities;
mod error;
mod explain;
pub mod fan_out;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod in_force;
mod names;
mod network;
pub mod own;
mod pairs;
mod remembered;
mod resource;
mod role;
mod rule;
mod templates;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use cedar_policy::{Authorizer, Context, Entities, Entity, EntityUid, PolicySet};

pub use crate::mistake::Mistake;
pub use action::{Action, UnknownAction};
pub use check::check;
pub use error::PolicyError;
pub use explain::{Considered, Explanation, Verdict, Whose};
pub use fan_out::{FanOut, Reach};
pub use in_force::{Granted, InForce};
pub use names::Names;
pub use pairs::{InvalidPairNames, PairNames, Pairs};
pub use resource::Resource;
pub use role::{Role, UnknownRole};

#[cfg(test)]
use crate::mistake::Source;
use crate::noun::{Principal, Strength, TenantName, UnixMillis};
use entities::Vocabulary;
#[cfg(test)]
use own::OwnPolicy;
use own::{Own, OwnSlice};
use pairs::Seen;
use remembered::{Given, Place, Question, Remembered};
use rule::{Caller, Grant, Grantee, Rule, Slice};
use templates::{Level, Templates};

/// The rule of a decision that no binding made: a denial.
pub const RULE_DEFAULT: &str = "default";

/// The rule that allows every principal to ask about itself.
pub const RULE_SELF: &str = "self";

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// How that was proved.
    pub strength: Strength,
    /// The peer's address.
    pub net: IpAddr,
    /// The time of the question.
    pub now: UnixMillis,
    /// What is asked for.
    pub action: Action,
    /// What it is asked of.
    pub resource: &'a Resource,
    /// The pairs of its encryption context, if it carries one. Policy looks only at those that the settings list.
    pub pairs: Option<&'a Pairs>,
}

/// An answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Decision {
    /// Whether the principal may. Nothing but `true` is permission.
    pub allowed: bool,
    /// The id of the binding, policy or grant that decided, [`RULE_SELF`], or [`RULE_DEFAULT`].
    pub rule: Arc<str>,
    /// Whether a policy failed to evaluate. Then it is a denial, and a fault of ours to be logged.
    pub errors: bool,
    /// How many tenants the principal may reach by this rule: whoever asks counts them, by [`InForce::reach`].
    pub fan_out: Option<FanOut>,
}

impl Decision {
    /// Tells whether nothing allowed it, and nothing forbade it either.
    fn is_by_default(&self) -> bool {
        !self.allowed && !self.errors && &*self.rule == RULE_DEFAULT
    }
}

/// The files that make a policy.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The bindings.
    pub bindings: File<'a>,
    /// The users' own policies.
    pub own: &'a [File<'a>],
    /// The pairs of encryption contexts that they may see.
    pub pairs: &'a PairNames,
}

/// A file.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// How mistakes call it.
    pub label: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// All that decides, ready to be asked. Replaced as a whole.
pub struct Policy {
    authorizer: Authorizer,
    vocabulary: Vocabulary,
    /// The users' own policies, if there are any.
    own: Option<Own>,
    /// The pairs that policy sees.
    pairs: PairNames,
    /// In file order; a number elsewhere is an index into it.
    bindings: Vec<Rule>,
    /// Who may be allowed anything at all by bindings.
    callers: HashMap<Principal, Caller>,
    /// Principals and groups that bindings list.
    grantees: Vec<Grantee>,
    /// For each tenant the bindings that name it, in file order.
    by_tenant: HashMap<TenantName, Vec<usize>>,
    remembered: Remembered,
    /// The hash of all that it was made of.
    print: [u8; 32],
    rule_default: Arc<str>,
    rule_self: Arc<str>,
}

/// A binding, as a caller may see its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BindingView {
    /// Its id.
    pub id: Arc<str>,
    /// Its roles.
    pub roles: Arc<[Role]>,
    /// Names of tenants, or `*`.
    pub tenants: Vec<String>,
    /// Names of keys, `prefix*`, or `*`.
    pub keys: Vec<String>,
    /// When it ends.
    pub expires: Option<UnixMillis>,
}

/// All that could allow or forbid a request.
struct Candidates<'a> {
    slice: Slice<'a>,
    own: OwnSlice<'a>,
}

impl Policy {
    /// The largest file of bindings, in bytes.
    pub const BINDINGS_BYTES_MAX: u64 = bindings::BINDINGS_FILE_BYTES_MAX as u64;

    /// Reads a file of bindings alone. All or nothing: a file with a mistake is no policy.
    pub fn load(text: &str, file_label: &str) -> Result<Self, PolicyError> {
        let bindings = File { label: file_label, text };
        Self::read(&Files { bindings, own: &[], pairs: &PairNames::default() })
    }

    /// Reads files. All or nothing: with a mistake in any of them it is no policy.
    pub fn read(files: &Files<'_>) -> Result<Self, PolicyError> {
        let templates = Templates::shipped()?;
        let read = check::read(files, templates)?;
        if let Some(first) = read.bindings.mistakes.into_iter().next() {
            return Err(PolicyError::Bindings(Box::new(first)));
        }
        if let Some(first) = read.own_mistakes.into_iter().next() {
            return Err(PolicyError::Own(Box::new(first)));
        }
        let own = (!read.own.is_empty()).then(|| Own::new(read.own, files.pairs.clone()));
        let print = check::print(files);
        let bindings::Read { bindings, groups, .. } = read.bindings;
        Ok(Self { print, ..Self::assemble(bindings, groups, own, files.pairs.clone(), templates)? })
    }

    /// Returns every mistake in files: the first is the one that [`Policy::read`] refuses them for.
    pub fn mistakes(files: &Files<'_>) -> Vec<Mistake> {
        let read = Templates::shipped().and_then(|templates| check::read(files, templates));
        read.map_or_else(|_| Vec::new(), |read| read.bindings.mistakes.into_iter().chain(read.own_mistakes).collect())
    }

    #[cfg(test)]
    fn build(files: &Files<'_>, templates: &Templates, own: Vec<OwnPolicy>) -> Result<Self, PolicyError> {
        let read =
            bindings::read(Source { file: files.bindings.label, text: files.bindings.text }, templates, files.pairs);
        if let Some(first) = read.mistakes.into_iter().next() {
            return Err(PolicyError::Bindings(Box::new(first)));
        }
        let own = (!own.is_empty()).then(|| Own::new(own, files.pairs.clone()));
        Self::assemble(read.bindings, read.groups, own, files.pairs.clone(), templates)
    }

    /// Returns the hash of all that it was made of: bindings, own policies with the names of their files, templates,
    /// schema, and the names of the pairs it sees.
    pub fn print(&self) -> [u8; 32] {
        self.print
    }

    /// Tells whether it looks at any pair of an encryption context.
    pub fn sees_pairs(&self) -> bool {
        !self.pairs.is_empty()
    }

    /// Decides. What nothing allows is denied.
    pub fn authorize(&self, request: &Request<'_>) -> Decision {
        if request.action == Action::GetCallerIdentity {
            return self.allow(Given { rule: Arc::clone(&self.rule_self), fan_out: None });
        }
        let caller = self.callers.get(request.principal);
        let question = caller.map(|caller| self.question(caller, request));
        if let Some(given) = question.and_then(|question| self.remembered.find(&question, request.now)) {
            return self.allow(given);
        }
        let candidates = self.candidates(caller, request);
        let decision = self.decide(caller, request, &candidates);
        if let Some(question) = question.filter(|_| decision.allowed) {
            let given = Given { rule: Arc::clone(&decision.rule), fan_out: decision.fan_out };
            self.remembered.keep(&question, candidates.slice.lasts, given);
        }
        decision
    }

    /// Decides without what is remembered.
    pub fn anew(&self, request: &Request<'_>) -> Decision {
        let caller = self.callers.get(request.principal);
        self.decide(caller, request, &self.candidates(caller, request))
    }

    /// Returns all that a decision depends on, but for the time.
    fn question<'a>(&'a self, caller: &'a Caller, request: &Request<'a>) -> Question<'a> {
        let Request { strength, net, action, resource, pairs, .. } = *request;
        let (place, names) = match self.own {
            // They may read all of it.
            Some(_) => (Place::At(net.to_canonical()), self.pairs.as_slice()),
            None => (caller.place(net), &caller.pairs[..]),
        };
        Question { caller: caller.number, strength, action, resource, place, seen: Seen { names, pairs } }
    }

    fn candidates(&self, caller: Option<&Caller>, request: &Request<'_>) -> Candidates<'_> {
        let groups = caller.map_or(&[][..], |caller| &caller.groups);
        let own = self.own.as_ref();
        let own = own.map(|own| own.slice(request.principal, groups, request.action, request.resource));
        let slice = caller.map(|caller| self.slice(caller, request));
        Candidates { slice: slice.unwrap_or_default(), own: own.unwrap_or_default() }
    }

    /// Decides by asking Cedar.
    fn decide(&self, caller: Option<&Caller>, request: &Request<'_>, candidates: &Candidates<'_>) -> Decision {
        let Candidates { slice, own } = candidates;
        if slice.grants.is_empty() && own.permits.is_empty() {
            return self.deny(false);
        }
        let Some(asked) = self.ask(caller, request, candidates) else {
            return self.deny(true);
        };
        if let Some(forbidden) = self.forbidden(&asked, own) {
            return forbidden;
        }
        for (rule, policies) in &slice.grants {
            match asked.of(&self.authorizer, policies) {
                Some(true) => return self.allow(Given { rule: Arc::clone(&rule.id), fan_out: rule.fan_out }),
                Some(false) => {}
                None => return self.deny(true),
            }
        }
        for policy in &own.permits {
            match asked.of(&self.authorizer, &policy.policies) {
                Some(true) => return self.allow(Given { rule: Arc::clone(&policy.id), fan_out: None }),
                Some(false) => {}
                None => return self.deny(true),
            }
        }
        self.deny(false)
    }

    fn forbidden(&self, asked: &Asked, own: &OwnSlice<'_>) -> Option<Decision> {
        own.forbids.iter().find_map(|policy| match asked.forbids(&self.authorizer, &policy.policies) {
            Some(false) => None,
            Some(true) => Some(Decision { rule: Arc::clone(&policy.id), ..self.deny(false) }),
            None => Some(self.deny(true)),
        })
    }

    /// Returns the denial by what forbids this, if anything does, for something else that would permit it.
    fn forbids(&self, request: &Request<'_>) -> Option<Decision> {
        self.own.as_ref()?;
        let caller = self.callers.get(request.principal);
        let candidates = Candidates { slice: Slice::default(), ..self.candidates(caller, request) };
        if candidates.own.forbids.is_empty() {
            return None;
        }
        match self.ask(caller, request, &candidates) {
            Some(asked) => self.forbidden(&asked, &candidates.own),
            None => Some(self.deny(true)),
        }
    }

    /// Returns the bindings in force for a principal at this address and time, in file order: what
    /// a caller may be told of itself.
    pub fn bindings_of(&self, principal: &Principal, net: IpAddr, now: UnixMillis) -> Vec<BindingView> {
        let rules = self.rules_of(principal).into_iter().filter_map(|number| self.bindings.get(number));
        rules.filter(|rule| rule.lasts(now) && rule.reaches(net)).map(Rule::view).collect()
    }

    /// Returns the fan-out limit of a binding.
    fn fan_out_of(&self, id: &str) -> Option<FanOut> {
        self.bindings.iter().find(|rule| *rule.id == *id)?.fan_out
    }

    /// Returns the bindings that list a principal, itself or by a group, in file order.
    fn rules_of(&self, principal: &Principal) -> Vec<usize> {
        let Some(caller) = self.callers.get(principal) else { return Vec::new() };
        let mut numbers: Vec<usize> =
            self.grantees_of(caller).flat_map(Grantee::grants).map(|grant| grant.binding).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn allow(&self, given: Given) -> Decision {
        Decision { allowed: true, rule: given.rule, errors: false, fan_out: given.fan_out }
    }

    fn deny(&self, errors: bool) -> Decision {
        Decision { allowed: false, rule: Arc::clone(&self.rule_default), errors, fan_out: None }
    }

    fn grantees_of(&self, caller: &Caller) -> impl Iterator<Item = &Grantee> {
        caller.grantees.iter().filter_map(|&index| self.grantees.get(index))
    }

    /// Returns the grants that could allow: those of this principal and its groups that give this
    /// action on this resource, here and now. The cost does not depend on how many bindings other
    /// principals have, nor on how many tenants this one has.
    fn slice(&self, caller: &Caller, request: &Request<'_>) -> Slice<'_> {
        let of_tenant = request.resource.tenant().and_then(|tenant| self.by_tenant.get(tenant));
        let of_tenant = of_tenant.map_or(&[][..], Vec::as_slice);
        let mut grants: Vec<&Grant> = Vec::new();
        for grantee in self.grantees_of(caller) {
            grants.extend(&grantee.everywhere);
            // Both lists are sorted: walk the shorter one, search the longer one.
            if of_tenant.len() < grantee.somewhere.len() {
                grants.extend(of_tenant.iter().filter_map(|number| {
                    let found = grantee.somewhere.binary_search_by_key(number, |grant| grant.binding);
                    grantee.somewhere.get(found.ok()?)
                }));
            } else {
                let names_it = |grant: &&Grant| of_tenant.binary_search(&grant.binding).is_ok();
                grants.extend(grantee.somewhere.iter().filter(names_it));
            }
        }
        grants.sort_by_key(|grant| grant.binding);
        let level = Level::of(request.resource);
        let mut slice = Slice { grants: Vec::with_capacity(grants.len()), lasts: 0..UnixMillis::MAX };
        for grant in grants {
            let Some(rule) = self.bindings.get(grant.binding) else { continue };
            rule.narrow(request.now, &mut slice.lasts);
            let link = grant.links.iter().find(|link| link.is_about(request.action, level));
            if let Some(link) = link
                && rule.holds(request)
                && rule.scope_with(request.resource).is_some()
            {
                slice.grants.push((rule, &link.policies));
            }
        }
        slice
    }

    /// Returns the question in Cedar's words: the request, and the entities it speaks of.
    fn ask(&self, caller: Option<&Caller>, request: &Request<'_>, candidates: &Candidates<'_>) -> Option<Asked> {
        let Candidates { slice, own } = candidates;
        // The whole chain stands in the resource's own parents: Cedar sees its closure only.
        let mut parents: HashSet<EntityUid> =
            slice.grants.iter().filter_map(|(rule, _)| rule.scope_with(request.resource)).cloned().collect();
        match request.resource {
            Resource::Cluster => parents.clear(),
            Resource::Tenant(_) => {
                parents.insert(self.vocabulary.cluster());
            }
            Resource::Key(tenant, _) | Resource::Index(tenant, _) => {
                parents.extend([self.vocabulary.tenant(tenant), self.vocabulary.cluster()]);
            }
        }
        let who = match caller {
            Some(caller) => caller.entity.clone(),
            None => Entity::new_no_attrs(self.vocabulary.principal(request.principal), HashSet::new()),
        };
        let resource = self.vocabulary.resource(request.resource);
        let (principal, entity) = (who.uid(), Entity::new_no_attrs(resource.clone(), parents));
        let entities = Entities::from_entities([who, entity], None).ok()?;
        let action = self.vocabulary.action(request.action)?.clone();
        let context = match &self.own {
            Some(all) if !own.is_empty() => all.context(request)?,
            Some(_) | None => Context::empty(),
        };
        let question = cedar_policy::Request::new(principal, action, resource, context, None).ok()?;
        Some(Asked { question, entities })
    }
}

/// A question in Cedar's words.
struct Asked {
    question: cedar_policy::Request,
    entities: Entities,
}

impl Asked {
    /// Returns whether policies permit this, or nothing: Cedar skips a policy that fails to evaluate, and we do not
    /// know what it would have said.
    fn of(&self, authorizer: &Authorizer, policies: &PolicySet) -> Option<bool> {
        let answer = authorizer.is_authorized(&self.question, policies, &self.entities);
        let errors = answer.diagnostics().errors().next().is_some();
        (!errors).then(|| answer.decision() == cedar_policy::Decision::Allow)
    }

    /// As [`Asked::of`], of policies that all forbid.
    fn forbids(&self, authorizer: &Authorizer, policies: &PolicySet) -> Option<bool> {
        let answer = authorizer.is_authorized(&self.question, policies, &self.entities);
        let errors = answer.diagnostics().errors().next().is_some();
        // Nothing here permits, so that a reason is what forbids.
        (!errors).then(|| answer.diagnostics().reason().next().is_some())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("bindings", &self.bindings.len())
            .field("callers", &self.callers.len())
            .finish_non_exhaustive()
    }
}
