//! What was taken out of use, and until when somebody may still hold keys from before.

use std::ops::Deref;
use std::time::SystemTime;

use crate::Error;
use crate::wire::time_or_none;

/// Answer of a call that takes a tenant, a key or a version out of use: the object as it is now, and when the last lease from
/// before ends. It reads as the object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Withdrawn<T> {
    /// The object as it is now.
    pub object: T,
    /// From then on, nobody who keeps to leases ([`Lease`](crate::Lease)) holds a data key under it in the clear. `None` if the
    /// server does not say it.
    pub lease_end_time: Option<SystemTime>,
}

impl<T> Withdrawn<T> {
    pub(crate) fn new(object: T, lease_end_time: Option<prost_types::Timestamp>) -> Result<Self, Error> {
        Ok(Self { object, lease_end_time: time_or_none(lease_end_time, "lease_end_time")? })
    }
}

impl<T> Deref for Withdrawn<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}
