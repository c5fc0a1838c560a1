//! A binding in force, and who has it: what is needed to find those that could allow a request.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use cedar_policy::{Entity, EntityUid, PolicySet};

use super::bindings::Tenants;
use super::fan_out::FanOut;
use super::names::Names;
use super::network::Network;
use super::pairs::Wanted;
use super::remembered::Place;
use super::templates::{Link, Scopes};
use super::{BindingView, Request, Resource, Role};
use crate::noun::{Strength, UnixMillis};

/// What of a binding is needed to decide.
pub(super) struct Rule {
    pub id: Arc<str>,
    pub roles: Arc<[Role]>,
    pub tenants: Tenants,
    pub keys: Option<Names>,
    pub indexes: Option<Names>,
    pub networks: Option<Vec<Network>>,
    pub from: Option<UnixMillis>,
    pub expires: Option<UnixMillis>,
    pub strength: Strength,
    pub context: Box<[Wanted]>,
    pub fan_out: Option<FanOut>,
    pub scopes: Scopes,
}

/// A principal that some binding lists, itself or by a group.
pub(super) struct Caller {
    pub number: usize,
    /// With its groups as parents.
    pub entity: Entity,
    pub grantees: Vec<usize>,
    /// The groups that it is in, by name; only if own policies can ask for them.
    pub groups: Vec<Arc<str>>,
    /// All networks that its bindings name, each once.
    pub networks: Vec<Network>,
    /// All pairs that its bindings name, each once.
    pub pairs: Vec<Arc<str>>,
}

/// A principal or a group, with what it was granted, both lists in file order.
#[derive(Default)]
pub(super) struct Grantee {
    /// By bindings with `tenants = ["*"]`.
    pub everywhere: Vec<Grant>,
    /// By bindings that name tenants.
    pub somewhere: Vec<Grant>,
}

/// The templates of one binding, linked for one grantee.
pub(super) struct Grant {
    pub binding: usize,
    pub links: Vec<Link>,
}

/// The grants that could allow a request, in file order.
pub(super) struct Slice<'a> {
    pub grants: Vec<(&'a Rule, &'a PolicySet)>,
    /// When no binding that could be among them expires: so long it is the same.
    pub lasts: Range<UnixMillis>,
}

impl Default for Slice<'_> {
    /// None, for ever.
    fn default() -> Self {
        Self { grants: Vec::new(), lasts: 0..UnixMillis::MAX }
    }
}

impl Caller {
    /// Returns what its bindings can tell of an address.
    pub fn place(&self, net: IpAddr) -> Place {
        if self.networks.len() > NETWORKS_TOLD_MAX {
            return Place::At(net);
        }
        let told = self.networks.iter().enumerate().filter(|(_, network)| network.contains(net));
        Place::Inside(told.fold(0, |bits, (number, _)| bits | 1 << number))
    }
}

/// The most networks of one caller that are told apart by a bit each.
pub(super) const NETWORKS_TOLD_MAX: usize = 64;

impl Grantee {
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.everywhere.iter().chain(&self.somewhere)
    }
}

impl Rule {
    /// Tells whether it is in force at this time.
    pub fn lasts(&self, now: UnixMillis) -> bool {
        self.from.is_none_or(|from| from <= now) && self.expires.is_none_or(|end| now < end)
    }

    /// Narrows a range of time around `now` to that in which this stays as it is.
    pub fn narrow(&self, now: UnixMillis, lasts: &mut Range<UnixMillis>) {
        for moment in self.from.into_iter().chain(self.expires) {
            if moment <= now {
                lasts.start = lasts.start.max(moment);
            } else {
                lasts.end = lasts.end.min(moment);
            }
        }
    }

    /// Tells whether it holds for this request, whatever it asks for: for its time, its place, how its principal was
    /// proved, and the pairs of its context.
    pub fn holds(&self, request: &Request<'_>) -> bool {
        self.lasts(request.now)
            && self.reaches(request.net)
            && request.strength.has(self.strength)
            && self.context.iter().all(|wanted| wanted.is_missed_by(request.pairs).is_none())
    }

    pub fn reaches(&self, net: IpAddr) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.iter().any(|n| n.contains(net)))
    }

    pub fn view(&self) -> BindingView {
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
    pub fn scope_with(&self, resource: &Resource) -> Option<&EntityUid> {
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
