//! How much at once and how often: rates of each principal and for each tenant, and requests at the same time.
//!
//! Rates are those of the generic cell rate algorithm: a second's worth may come at once, then it is one by one. Who comes
//! too soon is told when to come again. Whose message is complete while too many others are at work is refused at once: a
//! queue would only make all of them slow.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::error::Error;
use crate::noun::{Principal, TenantName};

/// How much, as the settings have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoadLimits {
    /// Requests at the same time.
    pub in_flight: usize,
    /// Operations of one principal in a second; none for no limit.
    pub per_principal: Option<NonZeroU32>,
    /// Operations for one tenant in a second; none for no limit.
    pub per_tenant: Option<NonZeroU32>,
}

/// What keeps to them.
pub struct Limits {
    in_flight_max: usize,
    in_flight: Arc<AtomicUsize>,
    principals: Option<Rates<Principal>>,
    tenants: Option<Rates<TenantName>>,
}

impl Limits {
    /// Begins with nobody at work.
    pub fn new(limits: LoadLimits) -> Self {
        Self {
            in_flight_max: limits.in_flight,
            in_flight: Arc::default(),
            principals: limits.per_principal.map(|rate| Rates::new("principal", rate)),
            tenants: limits.per_tenant.map(|rate| Rates::new("tenant", rate)),
        }
    }

    /// Lets a request in, if not too many are at work.
    pub(super) fn enter(&self) -> Option<AtWork> {
        if self.in_flight.fetch_add(1, Ordering::AcqRel) < self.in_flight_max {
            return Some(AtWork(Arc::clone(&self.in_flight)));
        }
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        None
    }

    /// Counts operations of a principal.
    pub(super) fn of_principal(&self, principal: &Principal, operations: usize) -> Result<(), Error> {
        self.principals.as_ref().map_or(Ok(()), |rates| rates.count(principal, operations))
    }

    /// Counts operations for a tenant. Only what is allowed: who may do nothing there takes nothing from it.
    pub(super) fn for_tenant(&self, tenant: &TenantName, operations: usize) -> Result<(), Error> {
        self.tenants.as_ref().map_or(Ok(()), |rates| rates.count(tenant, operations))
    }

    /// Forgets whoever did not come of late.
    pub fn forget_idle(&self) {
        if let Some(rates) = &self.principals {
            rates.forget_idle();
        }
        if let Some(rates) = &self.tenants {
            rates.forget_idle();
        }
    }
}

/// A request at work.
pub(super) struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

type Plain = NoOpMiddleware<<MonotonicClock as governor::clock::Clock>::Instant>;

/// The rates of all keys of one kind.
struct Rates<K: Clone + Eq + Hash> {
    limiter: RateLimiter<K, DashMapStateStore<K>, MonotonicClock, Plain>,
    of: &'static str,
}

impl<K: Clone + Eq + Hash> Rates<K> {
    fn new(of: &'static str, rate: NonZeroU32) -> Self {
        // There from the start: what appears only with the first refusal has no rate.
        metrics::counter!("kms_rate_limited_total", "of" => of).increment(0);
        Self { limiter: RateLimiter::dashmap_with_clock(Quota::per_second(rate), MonotonicClock), of }
    }

    fn count(&self, key: &K, operations: usize) -> Result<(), Error> {
        let operations = u32::try_from(operations).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        match self.limiter.check_key_n(key, operations) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                metrics::counter!("kms_rate_limited_total", "of" => self.of).increment(1);
                Err(Error::RateLimited { of: self.of, wait: not_until.wait_time_from(MonotonicClock.now()) })
            }
            // More than a second's worth at once: no time to come back would help.
            Err(_) => Err(Error::Field { field: "items", rule: BATCH_RULE }),
        }
    }

    fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

const BATCH_RULE: &str =
    "must be no more than the operations a second that limits.rate_per_principal and limits.rate_per_tenant allow";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(per_principal: u32, per_tenant: u32) -> Limits {
        let (per_principal, per_tenant) = (NonZeroU32::new(per_principal), NonZeroU32::new(per_tenant));
        Limits::new(LoadLimits { in_flight: 2, per_principal, per_tenant })
    }

    fn principal(name: &str) -> Principal {
        format!("spiffe://example.com/{name}").parse().unwrap()
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_there_is_a_wait() {
        let limits = limits(10, 0);
        let (ada, bob) = (principal("ada"), principal("bob"));
        for _ in 0..10 {
            limits.of_principal(&ada, 1).unwrap();
        }
        let Err(Error::RateLimited { of: "principal", wait }) = limits.of_principal(&ada, 1) else { panic!("let in") };
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        limits.of_principal(&bob, 10).unwrap();
        assert!(limits.of_principal(&bob, 1).is_err(), "items of a batch count");
        // A batch larger than the rate is told so, instead of a time to come back.
        let refused = limits.of_principal(&principal("eve"), 11);
        assert!(matches!(refused, Err(Error::Field { field: "items", .. })), "{refused:?}");
        limits.for_tenant(&"acme".parse().unwrap(), 1_000_000).unwrap();
    }

    #[test]
    fn who_did_not_come_of_late_is_forgotten() {
        let limits = limits(1_000_000, 1_000_000);
        for number in 0..1_000 {
            limits.of_principal(&principal(&number.to_string()), 1).unwrap();
        }
        let rates = limits.principals.as_ref().unwrap();
        assert_eq!(rates.limiter.len(), 1_000);
        while !rates.limiter.is_empty() {
            limits.forget_idle();
        }
    }

    #[test]
    fn no_more_are_at_work_than_may_be_and_places_come_back() {
        let limits = limits(0, 0);
        let first = limits.enter().unwrap();
        let _second = limits.enter().unwrap();
        assert!(limits.enter().is_none() && limits.enter().is_none());
        drop(first);
        assert!(limits.enter().is_some());
    }
}
