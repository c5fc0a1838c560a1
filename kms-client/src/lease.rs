//! How long a key in the clear may be held, on a clock that goes on while the machine sleeps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::wire::duration_or_none;

/// For how long a key that the service gave out may be held, counted from **before the request for it was sent**, all
/// attempts included. It is a setting of the tenant ([`Tenant::data_key_lease`](crate::Tenant::data_key_lease)).
///
/// Whoever drops the key when the lease [is over](Self::is_over), and asks again if it is needed still, makes it true what
/// the service says when keys are taken out of use: from when on nobody holds one any more. Nothing here enforces it.
///
/// The time is that of `CLOCK_BOOTTIME`, which also counts while the machine is suspended and which nobody sets. On Unix
/// systems without it, it is `CLOCK_MONOTONIC`, which counts that on macOS and may not elsewhere; on others it is the clock of
/// [`std::time::Instant`].
///
/// An answer with a key but without a lease, which no server of this API gives, counts as a lease of zero: it is over.
#[derive(Clone)]
pub struct Lease {
    length: Duration,
    /// On the clock.
    end: Duration,
    clock: Arc<dyn Clock>,
}

impl Lease {
    /// Returns how long the key may still be held; zero when the lease is over.
    pub fn remaining(&self) -> Duration {
        self.end.saturating_sub(self.clock.since_boot())
    }

    /// Returns whether the key must no longer be used.
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Returns how long the lease was from its beginning, as the service said.
    pub fn length(&self) -> Duration {
        self.length
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("length", &self.length).field("remaining", &self.remaining()).finish()
    }
}

/// An answer that may have a lease, with the moment from which leases count. Made by `Client::call_leased` alone, so that no
/// lease can begin later than it should.
pub(crate) struct Leased<R> {
    pub(crate) answer: R,
    began: Began,
}

/// When a request was about to be sent for the first time.
#[derive(Clone)]
pub(crate) struct Began {
    at: Duration,
    clock: Arc<dyn Clock>,
}

impl Began {
    pub(crate) fn now(clock: &Arc<dyn Clock>) -> Self {
        Self { at: clock.since_boot(), clock: clock.clone() }
    }

    pub(crate) fn answered<R>(self, answer: R) -> Leased<R> {
        Leased { answer, began: self }
    }

    /// Reads a lease that counts from here.
    pub(crate) fn lease(&self, field: Option<prost_types::Duration>) -> Result<Lease, Error> {
        let length = duration_or_none(field, "lease")?.unwrap_or_default();
        Ok(Lease { length, end: self.at.saturating_add(length), clock: self.clock.clone() })
    }
}

impl<R> Leased<R> {
    pub(crate) fn into_parts(self) -> (R, Began) {
        (self.answer, self.began)
    }
}

/// The clock of leases.
pub(crate) trait Clock: Send + Sync {
    /// Returns how long it is since some beginning, suspension included.
    fn since_boot(&self) -> Duration;
}

/// The best that this system has.
pub(crate) struct SystemClock(#[cfg(not(unix))] std::time::Instant);

impl SystemClock {
    #[cfg(unix)]
    pub(crate) fn new() -> Self {
        Self()
    }

    #[cfg(not(unix))]
    #[expect(clippy::disallowed_methods, reason = "this system has no better clock")]
    pub(crate) fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for SystemClock {
    #[cfg(unix)]
    fn since_boot(&self) -> Duration {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(CLOCK);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(unix))]
    #[expect(clippy::disallowed_methods, reason = "this system has no better clock")]
    fn since_boot(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A clock that a test moves.
    #[derive(Default)]
    pub(crate) struct Set(Mutex<Duration>);

    impl Set {
        pub(crate) fn advance(&self, by: Duration) {
            *self.0.lock().unwrap() += by;
        }
    }

    impl Clock for Set {
        fn since_boot(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn began() -> (Arc<Set>, Began) {
        let clock = Arc::new(Set::default());
        clock.advance(1000 * SECOND);
        let began = Began::now(&(clock.clone() as Arc<dyn Clock>));
        (clock, began)
    }

    fn wire(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos })
    }

    #[test]
    fn a_lease_counts_from_before_the_request_and_ends_on_time() {
        let (clock, began) = began();
        // The answer was slow.
        clock.advance(3 * SECOND);
        let lease = began.lease(wire(10, 0)).unwrap();
        assert_eq!((lease.length(), lease.remaining(), lease.is_over()), (10 * SECOND, 7 * SECOND, false));
        clock.advance(7 * SECOND - Duration::from_nanos(1));
        assert_eq!((lease.remaining(), lease.is_over()), (Duration::from_nanos(1), false));
        clock.advance(Duration::from_nanos(1));
        assert_eq!((lease.remaining(), lease.is_over()), (Duration::ZERO, true));
        clock.advance(SECOND);
        assert!(lease.is_over() && lease.length() == 10 * SECOND);
        assert_eq!(format!("{lease:?}"), "Lease { length: 10s, remaining: 0ns }");
    }

    #[test]
    fn an_answer_that_took_longer_than_the_lease_brings_one_that_is_over() {
        let (clock, began) = began();
        clock.advance(11 * SECOND);
        assert!(began.lease(wire(10, 0)).unwrap().is_over());
    }

    #[test]
    fn no_lease_is_over_at_once_and_a_wrong_one_is_malformed() {
        let (_, began) = began();
        assert!(began.lease(None).unwrap().is_over() && began.lease(wire(0, 0)).unwrap().is_over());
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, i32::MIN)] {
            assert!(began.lease(wire(seconds, nanos)).is_err(), "{seconds} {nanos}");
        }
        assert!(!began.lease(wire(315_576_000_000, 0)).unwrap().is_over());
    }

    #[test]
    fn the_clock_goes_on() {
        let clock = SystemClock::new();
        let then = clock.since_boot();
        assert!(!then.is_zero() || !cfg!(unix));
        assert!(clock.since_boot() >= then);
    }
}
