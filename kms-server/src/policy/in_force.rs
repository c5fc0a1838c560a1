//! What is in force: the policy, what staff was granted beside it, and what counts towards fan-out limits. Each is
//! replaced by itself; requests take what is there when they start.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::bindings::{Binding, Tenants};
use super::fan_out::{FanOuts, Reach};
use super::pairs::PairNames;
use super::templates::Templates;
use super::{Action, BindingView, Decision, Explanation, Names, Policy, PolicyError, Request, Resource, Role, Whose};
use crate::noun::{Principal, Strength, TenantName, UnixMillis};

/// What was granted to one principal, case by case.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The grant's id: the rule in the audit log.
    pub id: Arc<str>,
    /// To whom.
    pub principal: Principal,
    /// Which roles.
    pub roles: Arc<[Role]>,
    /// On which tenant.
    pub tenant: TenantName,
    /// On which of its keys; nothing for roles that need none.
    pub keys: Option<Names>,
    /// On which of its blind indexes.
    pub indexes: Option<Names>,
    /// From when on; nothing is at once.
    pub from: Option<UnixMillis>,
    /// Until when.
    pub expires: UnixMillis,
}

/// All that decides, while it decides.
pub struct InForce {
    policy: ArcSwap<Policy>,
    /// A policy of its own, made of grants alone; nothing while there are none.
    grants: ArcSwapOption<Policy>,
    fan_outs: FanOuts,
}

/// What was in force when a request began.
pub struct Held {
    pub(super) policy: Guard<Arc<Policy>>,
    pub(super) grants: Guard<Option<Arc<Policy>>>,
}

impl InForce {
    /// Puts a policy in force.
    pub fn new(policy: Policy) -> Self {
        Self { policy: ArcSwap::from_pointee(policy), grants: ArcSwapOption::empty(), fan_outs: FanOuts::default() }
    }

    /// Puts another policy in force. Grants stay, and so does what counts towards limits that stay.
    pub fn replace(&self, policy: Policy) {
        let policy = Arc::new(policy);
        self.policy.store(Arc::clone(&policy));
        self.fan_outs.keep(|id| policy.fan_out_of(id));
    }

    /// Puts these grants in force, in place of all before.
    pub fn set_grants(&self, grants: Vec<Granted>) -> Result<(), PolicyError> {
        if grants.is_empty() {
            self.grants.store(None);
            return Ok(());
        }
        let bindings = grants.into_iter().map(Granted::binding).collect();
        let made = Templates::shipped()
            .and_then(|templates| Policy::assemble(bindings, Vec::new(), None, PairNames::default(), templates));
        // Where they cannot be put in force none of those before is.
        let (grants, done) = match made {
            Ok(made) => (Some(Arc::new(made)), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.grants.store(grants);
        done
    }

    /// Returns what is in force now, for several questions of one request.
    pub fn hold(&self) -> Held {
        Held { policy: self.policy.load(), grants: self.grants.load() }
    }

    /// Decides one question.
    pub fn authorize(&self, request: &Request<'_>) -> Decision {
        self.hold().authorize(request)
    }

    /// Counts the tenant that a decision lets a principal reach, if the rule has a fan-out limit. `since_boot` is
    /// asked for only then, and never steps back.
    pub fn reach(
        &self,
        decision: &Decision,
        principal: &Principal,
        resource: &Resource,
        since_boot: impl FnOnce() -> Duration,
    ) -> Reach {
        match (decision.fan_out, resource.tenant()) {
            (Some(limit), Some(tenant)) => self.fan_outs.reach(&decision.rule, limit, principal, tenant, since_boot()),
            (None, _) | (_, None) => Reach::Within,
        }
    }

    /// Returns the bindings in force for a principal, and after them what it was granted.
    pub fn bindings_of(&self, principal: &Principal, net: IpAddr, now: UnixMillis) -> Vec<BindingView> {
        let held = self.hold();
        let mut views = held.policy.bindings_of(principal, net, now);
        views.extend(held.grants.iter().flat_map(|grants| grants.bindings_of(principal, net, now)));
        views
    }

    /// Says why a request is allowed or not, and what would be needed.
    pub fn explain(&self, request: &Request<'_>, whose: Whose) -> Explanation {
        super::explain::explain(&self.hold(), request, whose)
    }

    /// Returns the hash of the policy in force.
    pub fn print(&self) -> [u8; 32] {
        self.policy.load().print()
    }
}

impl Held {
    /// Decides. The policy decides first; where it has nothing to say, what was granted is asked. A grant counts while
    /// the policy itself lets its principal ask for grants to that tenant, here and now and so strongly proved: to take
    /// that binding away ends them. What forbids beats grants too.
    pub fn authorize(&self, request: &Request<'_>) -> Decision {
        let decision = self.policy.authorize(request);
        // With the uids that an auditor sees, a key-admin's DestroyDataKey would be a destruction at once: two grants would
        // add up to what takes two persons.
        let can_be_granted = decision.is_by_default() && request.action != Action::DestroyDataKey;
        let Some(grants) = self.grants.as_deref().filter(|_| can_be_granted) else { return decision };
        let granted = grants.authorize(request);
        if granted.errors {
            return granted;
        }
        if !granted.allowed || !self.is_staff(request) {
            return decision;
        }
        self.policy.forbids(request).unwrap_or(granted)
    }

    /// Tells whether the policy lets the principal ask for grants to the tenant.
    pub(super) fn is_staff(&self, request: &Request<'_>) -> bool {
        request.resource.tenant().is_some_and(|tenant| {
            let resource = &Resource::Tenant(tenant.clone());
            let asks = Request { action: Action::RequestGrant, resource, pairs: None, ..*request };
            self.policy.authorize(&asks).allowed
        })
    }

    /// Tells whether policy looks at any pair of an encryption context.
    pub fn sees_pairs(&self) -> bool {
        self.policy.sees_pairs()
    }
}

impl Granted {
    fn binding(self) -> Binding {
        Binding {
            id: self.id,
            roles: self.roles,
            principals: vec![self.principal],
            groups: Vec::new(),
            tenants: Tenants::Named(vec![self.tenant]),
            keys: self.keys,
            indexes: self.indexes,
            networks: None,
            from: self.from,
            expires: Some(self.expires),
            strength: Strength::NONE,
            context: Box::default(),
            fan_out: None,
        }
    }
}
