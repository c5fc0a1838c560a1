//! The users' own policies: Cedar files beside the bindings, with all that Cedar can say about who, what, from where,
//! how proved and with which context.
//!
//! They are static: each has its `@id`, which is the `rule` in the audit log. What forbids is asked before anything
//! that permits; what permits comes after the bindings, in the order of files and policies.
//!
//! **Invariant:** a policy is left out of what is asked only where its scope cannot match. What is remembered beside
//! such policies is keyed by all that they may read. The test is `a_remembered_decision_is_the_decision_of_the_whole_set`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Context, Effect, EntityUid, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint,
    RestrictedExpression, Schema, ValidationMode, Validator,
};
use miette::Diagnostic;

use super::bindings::RESERVED_IDS;
use super::pairs::PairNames;
use super::templates::{Level, action_bit};
use super::{Action, Request, Resource};
use crate::mistake::{Mistake, Source, quoted};
use crate::noun::{KeyName, Principal, Strength};

/// The most own policies, in all files together.
pub const OWN_POLICIES_MAX: usize = 1_000;
/// The most bytes of one file of them.
pub const OWN_FILE_BYTES_MAX: usize = 1 << 20;
/// The most files of them.
pub const OWN_FILES_MAX: usize = 100;

/// A policy of the users, ready to be asked alone.
pub(super) struct OwnPolicy {
    pub id: Arc<str>,
    pub forbids: bool,
    pub who: WhoScope,
    pub what: WhatScope,
    /// A bit for each action of its scope.
    pub actions: u64,
    pub policies: PolicySet,
}

/// Whom the scope of a policy can match.
pub(super) enum WhoScope {
    Anyone,
    One(Principal),
    Group(Arc<str>),
    /// A scope that no principal fits.
    Nobody,
}

/// What the scope of a policy can match.
pub(super) enum WhatScope {
    Anything,
    Of(Level),
    Exactly(Resource),
    In(Resource),
    OfIn(Level, Resource),
    /// A scope that no resource fits.
    Nothing,
}

impl WhatScope {
    pub fn matches(&self, resource: &Resource) -> bool {
        match self {
            Self::Anything => true,
            Self::Of(level) => Level::of(resource) == *level,
            Self::Exactly(one) => one == resource,
            Self::In(whole) => is_in(resource, whole),
            Self::OfIn(level, whole) => Level::of(resource) == *level && is_in(resource, whole),
            Self::Nothing => false,
        }
    }
}

fn is_in(resource: &Resource, whole: &Resource) -> bool {
    match whole {
        Resource::Cluster => true,
        Resource::Tenant(tenant) => resource.tenant() == Some(tenant),
        Resource::Key(..) | Resource::Index(..) => whole == resource,
    }
}

/// All own policies.
pub(super) struct Own {
    all: Vec<OwnPolicy>,
    anyone: Vec<usize>,
    by_principal: HashMap<Principal, Vec<usize>>,
    by_group: HashMap<Arc<str>, Vec<usize>>,
    names: PairNames,
}

/// Those own policies that could matter to a request, in their order.
#[derive(Default)]
pub(super) struct OwnSlice<'a> {
    pub forbids: Vec<&'a OwnPolicy>,
    pub permits: Vec<&'a OwnPolicy>,
}

impl OwnSlice<'_> {
    pub fn is_empty(&self) -> bool {
        self.forbids.is_empty() && self.permits.is_empty()
    }
}

impl Own {
    pub fn new(all: Vec<OwnPolicy>, names: PairNames) -> Self {
        let mut own =
            Self { all: Vec::new(), anyone: Vec::new(), by_principal: HashMap::new(), by_group: HashMap::new(), names };
        for (number, policy) in all.iter().enumerate() {
            match &policy.who {
                WhoScope::Anyone => own.anyone.push(number),
                WhoScope::One(principal) => own.by_principal.entry(principal.clone()).or_default().push(number),
                WhoScope::Group(name) => own.by_group.entry(Arc::clone(name)).or_default().push(number),
                WhoScope::Nobody => {}
            }
        }
        own.all = all;
        own
    }

    pub fn all(&self) -> &[OwnPolicy] {
        &self.all
    }

    /// Returns the policies whose scope can match.
    pub fn slice(
        &self,
        principal: &Principal,
        groups: &[Arc<str>],
        action: Action,
        resource: &Resource,
    ) -> OwnSlice<'_> {
        let of_principal = self.by_principal.get(principal);
        let of_groups = groups.iter().filter_map(|name| self.by_group.get(name));
        let mut numbers: Vec<usize> = Vec::new();
        for number in of_principal.into_iter().chain(of_groups).chain([&self.anyone]).flatten() {
            let matches =
                |policy: &OwnPolicy| policy.actions & action_bit(action) != 0 && policy.what.matches(resource);
            if self.all.get(*number).is_some_and(matches) {
                numbers.push(*number);
            }
        }
        numbers.sort_unstable();
        let mut slice = OwnSlice::default();
        for policy in numbers.into_iter().filter_map(|number| self.all.get(number)) {
            let list = if policy.forbids { &mut slice.forbids } else { &mut slice.permits };
            list.push(policy);
        }
        slice
    }

    /// Returns what the policies may read of a request beside its names.
    pub fn context(&self, request: &Request<'_>) -> Option<Context> {
        let flag = |one| RestrictedExpression::new_bool(request.strength.has(one));
        let auth = [
            ("certificate".to_owned(), flag(Strength::CERTIFICATE)),
            ("token".to_owned(), flag(Strength::TOKEN)),
            ("mfa".to_owned(), flag(Strength::MFA)),
        ];
        let value = |name: &Arc<str>| request.pairs?.get(&**name).map(|value| (name.to_string(), value.clone()));
        let pairs = self.names.iter().filter_map(value);
        let pairs = pairs.map(|(name, value)| (name, RestrictedExpression::new_string(value)));
        Context::from_pairs([
            ("net".to_owned(), RestrictedExpression::new_ip(request.net.to_canonical().to_string())),
            ("auth".to_owned(), RestrictedExpression::new_record(auth).ok()?),
            ("pairs".to_owned(), RestrictedExpression::new_record(pairs).ok()?),
        ])
        .ok()
    }
}

/// Returns the schema that own policies are held to: with the pairs that policy may see, and without what only the
/// shipped templates speak of.
pub(super) fn schema(names: &PairNames) -> String {
    let pairs: Vec<String> = names.iter().map(|name| format!("\"{name}\"?: String")).collect();
    let shipped =
        include_str!("schema.cedarschema").replace("pairs: {}", &format!("pairs: {{ {} }}", pairs.join(", ")));
    let mut text = shipped.replace(" in [Cluster, TenantScope]", " in [Cluster]");
    for (scope, kept) in [("KeyScope", "Key in [Tenant"), ("IndexScope", "Index in [Tenant")] {
        text = text.replace(&format!("{kept}, {scope}]"), &format!("{kept}]"));
    }
    ["TenantScope", "KeyScope", "IndexScope"]
        .iter()
        .fold(text, |text, scope| text.replace(&format!("entity {scope};\n"), ""))
}

/// Reads files of own policies, past their mistakes.
pub(super) struct OwnReader<'a> {
    validator: Validator,
    groups: &'a [Arc<str>],
    /// Ids that are taken, and by what.
    taken: HashMap<Arc<str>, String>,
    pub found: Vec<OwnPolicy>,
    pub mistakes: Vec<Mistake>,
}

impl<'a> OwnReader<'a> {
    /// Begins, with what the bindings have: ids that are taken, and groups.
    pub fn new(
        names: &PairNames,
        bindings: impl Iterator<Item = Arc<str>>,
        groups: &'a [Arc<str>],
    ) -> Result<Self, String> {
        let (schema, _warnings) = Schema::from_cedarschema_str(&schema(names)).map_err(|error| error.to_string())?;
        let taken = bindings.map(|id| (id, "a binding has it".to_owned())).collect();
        Ok(Self { validator: Validator::new(schema), groups, taken, found: Vec::new(), mistakes: Vec::new() })
    }

    /// Reads a file.
    pub fn file(&mut self, source: Source<'_>) {
        if source.text.len() > OWN_FILE_BYTES_MAX {
            self.mistakes.push(source.mistake(
                None,
                format!("the file has {} bytes", source.text.len()),
                format!("a file of policies has at most {OWN_FILE_BYTES_MAX}"),
                "write fewer policies, or bindings",
            ));
            return;
        }
        for span in statements(source.text) {
            if self.found.len() >= OWN_POLICIES_MAX {
                self.mistakes.push(source.mistake(
                    Some(span),
                    "one policy too many",
                    format!("there are at most {OWN_POLICIES_MAX} in all files"),
                    "say it with fewer policies, or with bindings",
                ));
                return;
            }
            match self.policy(source, span) {
                Ok(policy) => self.found.push(policy),
                Err(mistake) => self.mistakes.push(*mistake),
            }
        }
    }

    fn policy(&mut self, source: Source<'_>, span: Range<usize>) -> Result<OwnPolicy, Box<Mistake>> {
        let text = source.text.get(span.clone()).unwrap_or_default();
        let told = |place: Range<usize>, what: &str, why: String, remedy: &str| {
            Box::new(source.mistake(Some(place), what, why, remedy))
        };
        let parsed = cedar_policy::Policy::parse(None, text).map_err(|errors| {
            let place = place_of(&errors, &span);
            if errors.to_string().contains("template") {
                let remedy = "name the principal and the resource; a binding gives a role to many";
                return told(place, "a template", "an own policy has no slots".into(), remedy);
            }
            told(
                place,
                "not a policy",
                said(&errors),
                "a policy is @id(\"...\") and then permit or forbid, as the Cedar language has it",
            )
        })?;
        let Some(id) = parsed.annotation("id") else {
            let why = "its id is the rule that the audit log names".to_owned();
            return Err(told(span, "a policy without @id", why, "write @id(\"name\") before permit or forbid"));
        };
        if let Err(why) = id.parse::<KeyName>() {
            return Err(told(span, &format!("bad id {}", quoted(id)), why.to_string(), "choose another"));
        }
        let id: Arc<str> = id.into();
        if RESERVED_IDS.contains(&&*id) {
            let why = "the audit log uses it for decisions that no policy made".to_owned();
            return Err(told(span, &format!("id {id:?} is taken"), why, "choose another"));
        }
        if let Some(by) = self.taken.get(&id) {
            return Err(told(span, &format!("id {id:?} is taken"), by.clone(), "rename or remove one of the two"));
        }
        let (line, _) = source.place(span.start).unwrap_or((1, 1));
        self.taken.insert(Arc::clone(&id), format!("it stands in {} line {line}", source.file));
        let policy = parsed.new_id(PolicyId::new(&*id));
        let mut policies = PolicySet::new();
        policies.add(policy).map_err(|error| told(span.clone(), "not a policy", error.to_string(), "correct it"))?;
        let result = self.validator.validate(&policies, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            let remedy = "the schema is in the service's documents: kms-server/src/policy/schema.cedarschema";
            let remedy = error.help().map_or(remedy.to_owned(), |help| help.to_string());
            let what = format!("policy {id:?} does not fit the schema");
            return Err(told(place_of(error, &span), &what, said(error), &remedy));
        }
        // A policy that can never apply was meant otherwise.
        if let Some(warning) = result.validation_warnings().next() {
            let what = format!("policy {id:?} is suspect");
            return Err(told(place_of(warning, &span), &what, said(warning), "correct or remove it"));
        }
        let Some(policy) = policies.policy(&PolicyId::new(&*id)) else {
            return Err(told(span, "not a policy", "it is lost".into(), "correct it"));
        };
        let who = self
            .who(policy.principal_constraint())
            .map_err(|(what, why, remedy)| told(span.clone(), &what, why, remedy))?;
        let what = what(policy.resource_constraint()).map_err(|uid| {
            let remedy = "write Cluster::\"cluster\", Tenant::\"tenants/t\", Key::\"tenants/t/keys/k\" or Index::\"tenants/t/indexes/i\"";
            told(span.clone(), &format!("policy {id:?}: {} is no resource", quoted(&uid)), "it would never match".into(), remedy)
        })?;
        // Cedar knows types and not names: a forbid about a group that nobody is in would forbid nothing.
        for uid in policy.entity_literals() {
            let id = uid.id().unescaped();
            let can_be = match uid.type_name().to_string().as_str() {
                "Group" => self.groups.iter().any(|name| **name == *id),
                "Principal" => id.parse::<crate::noun::Principal>().is_ok(),
                "Cluster" | "Tenant" | "Key" | "Index" => resource_named(&uid).is_ok(),
                _ => true,
            };
            if !can_be {
                let what = format!("a policy names {}", quoted(&uid.to_string()));
                let remedy = "write a [[group]] of the file of bindings, a SPIFFE ID, Tenant::\"tenants/t\", Key::\"tenants/t/keys/k\" or Index::\"tenants/t/indexes/i\"";
                return Err(told(span, &what, "it would never match".into(), remedy));
            }
        }
        let actions = match policy.action_constraint() {
            ActionConstraint::Any => u64::MAX,
            ActionConstraint::In(uids) => bits(&uids),
            ActionConstraint::Eq(uid) => bits(&[uid]),
        };
        let forbids = policy.effect() == Effect::Forbid;
        Ok(OwnPolicy { id, forbids, who, what, actions, policies })
    }

    fn who(&self, scope: PrincipalConstraint) -> Result<WhoScope, (String, String, &'static str)> {
        let (uid, is_in) = match scope {
            PrincipalConstraint::Any => return Ok(WhoScope::Anyone),
            PrincipalConstraint::Is(of) if of.to_string() == "Principal" => return Ok(WhoScope::Anyone),
            PrincipalConstraint::Is(_) => return Ok(WhoScope::Nobody),
            PrincipalConstraint::Eq(uid) => (uid, false),
            PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => (uid, true),
        };
        let id = uid.id().unescaped();
        match uid.type_name().to_string().as_str() {
            "Principal" => id.parse().map(WhoScope::One).map_err(|why: crate::noun::principal::InvalidPrincipal| {
                (format!("bad principal {}", quoted(id)), why.to_string(), "write the SPIFFE ID of the workload")
            }),
            "Group" if is_in => match self.groups.iter().find(|name| ***name == *id) {
                Some(name) => Ok(WhoScope::Group(Arc::clone(name))),
                None => Err((
                    format!("unknown group {}", quoted(id)),
                    "no [[group]] in the file of bindings has that name".to_owned(),
                    "add the group there, or correct the name",
                )),
            },
            _ => Ok(WhoScope::Nobody),
        }
    }
}

fn bits(uids: &[EntityUid]) -> u64 {
    let named = |action: &&Action| uids.iter().any(|uid| uid.id().unescaped() == action.as_str());
    Action::ALL.iter().filter(named).fold(0, |bits, &action| bits | action_bit(action))
}

/// Returns the resource that an entity of a policy is.
fn resource_named(uid: &EntityUid) -> Result<Resource, String> {
    let read = || {
        let of = level_of(uid.type_name())?;
        let resource = Resource::read(uid.id().unescaped())?;
        (Level::of(&resource) == of).then_some(resource)
    };
    read().ok_or_else(|| uid.to_string())
}

fn level_of(of: &cedar_policy::EntityTypeName) -> Option<Level> {
    match of.to_string().as_str() {
        "Cluster" => Some(Level::Cluster),
        "Tenant" => Some(Level::Tenants),
        "Key" => Some(Level::Keys),
        "Index" => Some(Level::Indexes),
        _ => None,
    }
}

fn what(scope: ResourceConstraint) -> Result<WhatScope, String> {
    Ok(match scope {
        ResourceConstraint::Any => WhatScope::Anything,
        ResourceConstraint::Is(of) => level_of(&of).map_or(WhatScope::Nothing, WhatScope::Of),
        ResourceConstraint::Eq(uid) => WhatScope::Exactly(resource_named(&uid)?),
        ResourceConstraint::In(uid) => WhatScope::In(resource_named(&uid)?),
        ResourceConstraint::IsIn(of, uid) => {
            let whole = resource_named(&uid)?;
            level_of(&of).map_or(WhatScope::Nothing, |level| WhatScope::OfIn(level, whole))
        }
    })
}

/// Returns where the first label of an error points, in the file.
fn place_of(error: &dyn Diagnostic, statement: &Range<usize>) -> Range<usize> {
    let label = error.labels().and_then(|mut labels| labels.next());
    let start = label.map_or(statement.start, |label| (statement.start + label.offset()).min(statement.end));
    start..start
}

/// Returns what an error says, on one line and not too long.
fn said(error: &dyn Diagnostic) -> String {
    let label = error.labels().and_then(|mut labels| labels.next());
    let label = label.and_then(|label| label.label().map(|text| format!(" ({text})"))).unwrap_or_default();
    let text = format!("{error}{label}");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
}

const MESSAGE_CHARS_MAX: usize = 400;

/// Returns where each policy of a text lies: from its first word to its semicolon, or to the end. Comments and
/// strings are Cedar's.
fn statements(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut start, mut chars) = (Vec::new(), None, text.char_indices().peekable());
    let mut last = 0;
    while let Some((at, c)) = chars.next() {
        match c {
            '/' if chars.peek().is_some_and(|(_, next)| *next == '/') => {
                while chars.next_if(|(_, c)| *c != '\n').is_some() {}
                continue;
            }
            '"' => {
                start.get_or_insert(at);
                while let Some((_, c)) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            ';' => found.push(start.take().unwrap_or(at)..at + 1),
            c if c.is_whitespace() => continue,
            _ => drop(start.get_or_insert(at)),
        }
        last = chars.peek().map_or(text.len(), |(next, _)| *next);
    }
    found.extend(start.map(|start| start..last));
    found
}

#[cfg(test)]
impl OwnPolicy {
    /// Takes policies that no schema has seen, to show what happens when one fails. Their scopes are taken to match.
    pub fn unvalidated(text: &str) -> Vec<Self> {
        let set: PolicySet = text.parse().unwrap();
        let own = |policy: &cedar_policy::Policy| {
            let id = policy.annotation("id").unwrap();
            let mut policies = PolicySet::new();
            policies.add(policy.new_id(PolicyId::new(id))).unwrap();
            let forbids = policy.effect() == Effect::Forbid;
            let (who, what) = (WhoScope::Anyone, WhatScope::Anything);
            Self { id: id.into(), forbids, who, what, actions: u64::MAX, policies }
        };
        let mut all: Vec<Self> = set.policies().map(own).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_the_semicolons_that_end_policies() {
        let cut = |text: &'static str| statements(text).into_iter().map(|span| &text[span]).collect::<Vec<_>>();
        assert_eq!(cut(""), [""; 0]);
        assert_eq!(cut(" // only; this\n"), [""; 0]);
        assert_eq!(cut("a; b ;"), ["a;", "b ;"]);
        assert_eq!(cut("// x;\na \";\\\";\" b; // c;\n\nd"), ["a \";\\\";\" b;", "d"]);
        assert_eq!(cut(";a"), [";", "a"]);
        assert_eq!(cut("a // b"), ["a"]);
        assert_eq!(cut("a \"b"), ["a \"b"]);
    }

    #[test]
    fn the_schema_of_own_policies_has_the_pairs_and_no_scopes() {
        let names = PairNames::of(&["purpose", "a b", "Ünit:7"]).unwrap();
        for names in [PairNames::default(), names] {
            let text = schema(&names);
            let (schema, warnings) = Schema::from_cedarschema_str(&text).unwrap();
            assert_eq!(warnings.count(), 0);
            let types: Vec<String> = schema.entity_types().map(ToString::to_string).collect();
            assert_eq!(types.len(), 6, "{types:?}");
            for name in names.iter() {
                assert!(text.contains(&format!("\"{name}\"?: String")));
            }
        }
    }
}
