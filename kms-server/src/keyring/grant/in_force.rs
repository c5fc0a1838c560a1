//! The roles that are in force by grants, and who is told of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::noun::{TenantName, Uid, UnixMillis};

/// A role that is in force by a grant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoleInForce {
    /// The grant.
    pub uid: Uid,
    /// Where.
    pub tenant: TenantName,
    /// For whom.
    pub principal: Box<str>,
    /// The role's name.
    pub role: Box<str>,
    /// From when: a clock that was set back past it gives nothing.
    pub from: UnixMillis,
    /// Until when.
    pub end: UnixMillis,
}

/// Is told of all roles that are in force by grants, each time they change.
pub type RolesInForce = dyn Fn(Vec<RoleInForce>) + Send + Sync;

/// The roles that are in force by grants.
pub(in crate::keyring) struct GrantsInForce {
    roles: Mutex<InForce>,
    tell: Box<RolesInForce>,
}

#[derive(Default)]
struct InForce {
    by_uid: BTreeMap<Uid, RoleInForce>,
    /// None ever again: nothing can be taken back any more.
    ended: bool,
}

impl GrantsInForce {
    pub(in crate::keyring) fn new(tell: Box<RolesInForce>) -> Self {
        Self { roles: Mutex::default(), tell }
    }

    /// Ends all of them.
    pub(in crate::keyring) fn end_all(&self) {
        self.with(UnixMillis::MAX, |roles| roles.ended = true);
    }

    /// Changes what is in force. What is over goes, too.
    pub(super) fn change(&self, now: UnixMillis, change: impl FnOnce(&mut BTreeMap<Uid, RoleInForce>)) {
        self.with(now, |roles| change(&mut roles.by_uid));
    }

    fn with(&self, now: UnixMillis, change: impl FnOnce(&mut InForce)) {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut roles);
        let ended = roles.ended;
        roles.by_uid.retain(|_, role| !ended && now < role.end);
        // Under the lock, so that the last one told is the last one.
        (self.tell)(roles.by_uid.values().cloned().collect());
    }
}
