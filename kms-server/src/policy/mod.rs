//! MAY: whether a principal may ask an action of a resource. Deny by default.
//!
//! Pure: no I/O, no await, no clock. It sees names only and does not know what exists.
//!
//! **Invariant:** every permission that a binding gives was allowed by Cedar, from templates that
//! were validated strictly against the schema. What is in front of it (principal, tenant, names,
//! networks, expiry) only leaves bindings *out* of what Cedar is asked, and what Cedar cannot
//! evaluate is denied. The test is `an_evaluation_error_denies`.
//!
//! # How it decides
//!
//! A policy that forbids comes before all that permit, so those are asked first, all of them. The
//! service ships none; `Policy::build` is where they would come in.
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
//! | cluster | ListTenants, GetStatus, Lock, Unlock, ExportKeystore | the cluster, if `tenants` is `["*"]`; else nothing |
//!
//! So `keys = ["pay-*"]` with `key-admin` lets CreateKey make `pay-7` and nothing else, but ListKeys
//! shows the names of all keys of the tenant. `"*"` covers tenants and keys to come, too. A role
//! that would give nothing, and a list that would limit nothing, are refused at load.
//!
//! A binding is in force while `now < expires` and for peers inside `networks`. If several
//! bindings allow, the first in the file is the one that decided. `GetCallerIdentity` tells a
//! principal about itself and needs no binding.

mod action;
pub mod bindings;
mod entities;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod names;
mod network;
mod remembered;
mod resource;
mod role;
mod templates;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use cedar_policy::{Authorizer, Context, Entities, Entity, EntityUid, PolicyId, PolicySet};

pub use crate::mistake::Mistake;
pub use action::{Action, UnknownAction};
pub use error::PolicyError;
pub use resource::Resource;
pub use role::{Role, UnknownRole};

use crate::mistake::Source;
use crate::noun::{Principal, Strength, TenantName, UnixMillis};
use bindings::{Read, Tenants};
use entities::Vocabulary;
use names::Names;
use network::Network;
use remembered::{Place, Question, Remembered};
use templates::{Level, Link, Scopes, Templates};

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
}

/// An answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Decision {
    /// Whether the principal may. Nothing but `true` is permission.
    pub allowed: bool,
    /// The id of the binding or policy that decided, [`RULE_SELF`], or [`RULE_DEFAULT`].
    pub rule: Arc<str>,
    /// Whether a policy failed to evaluate. Then it is a denial, and a fault of ours to be logged.
    pub errors: bool,
}

/// All that decides, ready to be asked. Replaced as a whole.
pub struct Policy {
    authorizer: Authorizer,
    vocabulary: Vocabulary,
    /// What forbids, whatever permits.
    forbids: PolicySet,
    /// In file order; a number elsewhere is an index into it.
    bindings: Vec<Rule>,
    /// Who may be allowed anything at all.
    callers: HashMap<Principal, Caller>,
    /// Principals and groups that bindings list.
    grantees: Vec<Grantee>,
    /// For each tenant the bindings that name it, in file order.
    by_tenant: HashMap<TenantName, Vec<usize>>,
    remembered: Remembered,
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

/// What of a binding is needed to decide.
struct Rule {
    id: Arc<str>,
    roles: Arc<[Role]>,
    tenants: Tenants,
    keys: Option<Names>,
    indexes: Option<Names>,
    networks: Option<Vec<Network>>,
    expires: Option<UnixMillis>,
    scopes: Scopes,
}

/// A principal that some binding lists, itself or by a group.
struct Caller {
    number: usize,
    /// With its groups as parents.
    entity: Entity,
    grantees: Vec<usize>,
    /// All networks that its bindings name, each once.
    networks: Vec<Network>,
}

/// A principal or a group, with what it was granted, both lists in file order.
#[derive(Default)]
struct Grantee {
    /// By bindings with `tenants = ["*"]`.
    everywhere: Vec<Grant>,
    /// By bindings that name tenants.
    somewhere: Vec<Grant>,
}

/// The templates of one binding, linked for one grantee.
struct Grant {
    binding: usize,
    links: Vec<Link>,
}

/// The grants that could allow a request, in file order.
struct Slice<'a> {
    grants: Vec<(&'a Rule, &'a PolicySet)>,
    /// When no binding that could be among them expires: so long it is the same.
    lasts: Range<UnixMillis>,
}

impl Policy {
    /// The largest file of bindings, in bytes.
    pub const BINDINGS_BYTES_MAX: u64 = bindings::BINDINGS_FILE_BYTES_MAX as u64;

    /// Reads a file of bindings. All or nothing: a file with a mistake is no policy.
    pub fn load(text: &str, file_label: &str) -> Result<Self, PolicyError> {
        Self::build(text, file_label, &Templates::shipped()?, PolicySet::new())
    }

    /// Returns every mistake in a file of bindings: the first is the one that [`Policy::load`] refuses it for.
    pub fn mistakes(text: &str, file_label: &str) -> Vec<Mistake> {
        match Templates::shipped() {
            Ok(templates) => bindings::read(Source { file: file_label, text }, &templates).mistakes,
            Err(_) => Vec::new(),
        }
    }

    fn build(text: &str, file: &str, templates: &Templates, forbids: PolicySet) -> Result<Self, PolicyError> {
        let Read { bindings, groups, mistakes } = bindings::read(Source { file, text }, templates);
        if let Some(first) = mistakes.into_iter().next() {
            return Err(first.into());
        }
        let vocabulary = Vocabulary::new();
        let mut rules = Vec::with_capacity(bindings.len());
        let mut by_tenant: HashMap<TenantName, Vec<usize>> = HashMap::new();
        let mut grantees: Vec<Grantee> = Vec::new();
        let mut grantee_of: HashMap<EntityUid, usize> = HashMap::new();
        let mut callers: HashMap<Principal, (HashSet<EntityUid>, Vec<usize>)> = HashMap::new();
        for (number, binding) in bindings.into_iter().enumerate() {
            let id = &*binding.id;
            let everywhere = matches!(binding.tenants, Tenants::Every);
            let scopes = Scopes {
                cluster: everywhere.then(|| vocabulary.cluster()),
                tenants: Some(vocabulary.tenant_scope(id)),
                keys: binding.keys.as_ref().map(|_| vocabulary.key_scope(id)),
                indexes: binding.indexes.as_ref().map(|_| vocabulary.index_scope(id)),
            };
            let of_principals = binding.principals.iter().map(|p| (vocabulary.principal(p), Some(p)));
            let of_groups = binding.groups.iter().map(|name| (vocabulary.group(name), None));
            for (uid, principal) in of_principals.chain(of_groups) {
                let links = templates.link(id, &binding.roles, &uid, &scopes)?;
                let index = *grantee_of.entry(uid).or_insert_with(|| {
                    grantees.push(Grantee::default());
                    grantees.len() - 1
                });
                if let Some(principal) = principal {
                    let (_, own) = callers.entry(principal.clone()).or_default();
                    if !own.contains(&index) {
                        own.push(index);
                    }
                }
                let grant = Grant { binding: number, links };
                if let Some(grantee) = grantees.get_mut(index) {
                    let list = if everywhere { &mut grantee.everywhere } else { &mut grantee.somewhere };
                    list.push(grant);
                }
            }
            if let Tenants::Named(tenants) = &binding.tenants {
                for tenant in tenants {
                    by_tenant.entry(tenant.clone()).or_default().push(number);
                }
            }
            rules.push(Rule {
                id: binding.id,
                roles: binding.roles,
                tenants: binding.tenants,
                keys: binding.keys,
                indexes: binding.indexes,
                networks: binding.networks,
                expires: binding.expires,
                scopes,
            });
        }
        for group in groups {
            let uid = vocabulary.group(&group.name);
            // A group that no binding lists gives nothing: who is only there stays unknown.
            let Some(&index) = grantee_of.get(&uid) else { continue };
            for member in group.members {
                let (parents, of) = callers.entry(member).or_default();
                parents.insert(uid.clone());
                of.push(index);
            }
        }
        let networks_of = |of: &[usize]| {
            let grants = of.iter().filter_map(|&index| grantees.get(index)).flat_map(Grantee::grants);
            let mut networks: Vec<Network> = Vec::new();
            for network in grants.filter_map(|grant| rules.get(grant.binding)?.networks.as_deref()).flatten() {
                // One more than can be told apart is as good as all of them.
                if networks.len() <= NETWORKS_TOLD_MAX && !networks.contains(network) {
                    networks.push(*network);
                }
            }
            networks
        };
        let callers = callers
            .into_iter()
            .enumerate()
            .map(|(number, (principal, (groups, grantees)))| {
                let entity = Entity::new_no_attrs(vocabulary.principal(&principal), groups);
                let networks = networks_of(&grantees);
                (principal, Caller { number, entity, grantees, networks })
            })
            .collect();
        Ok(Self {
            authorizer: Authorizer::new(),
            vocabulary,
            forbids,
            bindings: rules,
            callers,
            grantees,
            by_tenant,
            remembered: Remembered::new(),
            rule_default: RULE_DEFAULT.into(),
            rule_self: RULE_SELF.into(),
        })
    }

    /// Decides. What nothing allows is denied.
    pub fn authorize(&self, request: &Request<'_>) -> Decision {
        if request.action == Action::GetCallerIdentity {
            return Decision { allowed: true, rule: Arc::clone(&self.rule_self), errors: false };
        }
        let Some(caller) = self.callers.get(request.principal) else {
            return self.deny(false);
        };
        let (action, resource, place) = (request.action, request.resource, caller.place(request.net));
        let question = Question { caller: caller.number, action, resource, place };
        if let Some(rule) = self.remembered.find(&question, request.now) {
            return Decision { allowed: true, rule, errors: false };
        }
        let slice = self.slice(caller, request);
        let decision = self.decide(caller, request, &slice.grants);
        if decision.allowed {
            self.remembered.keep(&question, slice.lasts, &decision.rule);
        }
        decision
    }

    /// Decides by asking Cedar.
    fn decide(&self, caller: &Caller, request: &Request<'_>, grants: &[(&Rule, &PolicySet)]) -> Decision {
        if grants.is_empty() {
            return self.deny(false);
        }
        let Some((question, entities)) = self.ask(caller, request, grants) else {
            return self.deny(true);
        };
        let ask = |policies: &PolicySet| {
            let answer = self.authorizer.is_authorized(&question, policies, &entities);
            // Cedar skips a policy that fails to evaluate. We do not know what it would have said.
            let errors = answer.diagnostics().errors().next().is_some();
            (!errors).then_some(answer)
        };
        if !self.forbids.is_empty() {
            let Some(answer) = ask(&self.forbids) else { return self.deny(true) };
            // Nothing here permits, so that its reasons are what forbids.
            let forbidding = answer.diagnostics().reason().min_by_key(|id| <PolicyId as AsRef<str>>::as_ref(id));
            if let Some(id) = forbidding {
                return Decision { allowed: false, rule: AsRef::<str>::as_ref(id).into(), errors: false };
            }
        }
        for (rule, policies) in grants {
            let Some(answer) = ask(policies) else { return self.deny(true) };
            if answer.decision() == cedar_policy::Decision::Allow {
                return Decision { allowed: true, rule: Arc::clone(&rule.id), errors: false };
            }
        }
        self.deny(false)
    }

    /// Returns the bindings in force for a principal at this address and time, in file order: what
    /// a caller may be told of itself.
    pub fn bindings_of(&self, principal: &Principal, net: IpAddr, now: UnixMillis) -> Vec<BindingView> {
        let Some(caller) = self.callers.get(principal) else {
            return Vec::new();
        };
        let mut numbers: Vec<usize> =
            self.grantees_of(caller).flat_map(Grantee::grants).map(|grant| grant.binding).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let rules = numbers.into_iter().filter_map(|number| self.bindings.get(number));
        rules.filter(|rule| rule.lasts(now) && rule.reaches(net)).map(Rule::view).collect()
    }

    fn deny(&self, errors: bool) -> Decision {
        Decision { allowed: false, rule: Arc::clone(&self.rule_default), errors }
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
            match rule.expires {
                Some(end) if end <= request.now => slice.lasts.start = slice.lasts.start.max(end),
                Some(end) => slice.lasts.end = slice.lasts.end.min(end),
                None => {}
            }
            let link = grant.links.iter().find(|link| link.is_about(request.action, level));
            if let Some(link) = link
                && rule.lasts(request.now)
                && rule.reaches(request.net)
                && rule.scope_with(request.resource).is_some()
            {
                slice.grants.push((rule, &link.policies));
            }
        }
        slice
    }

    /// Returns the question in Cedar's words: the request, and the entities it speaks of.
    fn ask(
        &self,
        caller: &Caller,
        request: &Request<'_>,
        slice: &[(&Rule, &PolicySet)],
    ) -> Option<(cedar_policy::Request, Entities)> {
        // The whole chain stands in the resource's own parents: Cedar sees its closure only.
        let mut parents: HashSet<EntityUid> =
            slice.iter().filter_map(|(rule, _)| rule.scope_with(request.resource)).cloned().collect();
        match request.resource {
            Resource::Cluster => parents.clear(),
            Resource::Tenant(_) => {
                parents.insert(self.vocabulary.cluster());
            }
            Resource::Key(tenant, _) | Resource::Index(tenant, _) => {
                parents.extend([self.vocabulary.tenant(tenant), self.vocabulary.cluster()]);
            }
        }
        let resource = self.vocabulary.resource(request.resource);
        let entity = Entity::new_no_attrs(resource.clone(), parents);
        let entities = Entities::from_entities([caller.entity.clone(), entity], None).ok()?;
        let action = self.vocabulary.action(request.action)?.clone();
        let principal = caller.entity.uid();
        let question = cedar_policy::Request::new(principal, action, resource, Context::empty(), None).ok()?;
        Some((question, entities))
    }
}

impl Caller {
    /// Returns what its bindings can tell of an address.
    fn place(&self, net: IpAddr) -> Place {
        if self.networks.len() > NETWORKS_TOLD_MAX {
            return Place::At(net);
        }
        let told = self.networks.iter().enumerate().filter(|(_, network)| network.contains(net));
        Place::Inside(told.fold(0, |bits, (number, _)| bits | 1 << number))
    }
}

/// The most networks of one caller that are told apart by a bit each.
const NETWORKS_TOLD_MAX: usize = 64;

impl Grantee {
    fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.everywhere.iter().chain(&self.somewhere)
    }
}

impl Rule {
    fn lasts(&self, now: UnixMillis) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    fn reaches(&self, net: IpAddr) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.iter().any(|n| n.contains(net)))
    }

    fn view(&self) -> BindingView {
        BindingView {
            id: Arc::clone(&self.id),
            roles: Arc::clone(&self.roles),
            tenants: self.tenants.entries(),
            keys: self.keys.as_ref().map(Names::entries).unwrap_or_default(),
            expires: self.expires,
        }
    }

    /// Returns the scope that the resource lies in. This alone says what a binding covers; the
    /// index by tenant only saves asking it of every binding.
    fn scope_with(&self, resource: &Resource) -> Option<&EntityUid> {
        let names = |list: &Option<Names>, name: &str| list.as_ref().is_some_and(|n| n.covers(name));
        let (scope, covered) = match resource {
            Resource::Cluster => (&self.scopes.cluster, true),
            Resource::Tenant(tenant) => (&self.scopes.tenants, self.tenants.covers(tenant)),
            Resource::Key(tenant, key) => {
                (&self.scopes.keys, self.tenants.covers(tenant) && names(&self.keys, key.as_str()))
            }
            Resource::Index(tenant, index) => {
                (&self.scopes.indexes, self.tenants.covers(tenant) && names(&self.indexes, index.as_str()))
            }
        };
        scope.as_ref().filter(|_| covered)
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
