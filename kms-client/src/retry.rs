//! Which failures are repeated, how often, and after which wait: gRPC's A6, written down for this service in
//! `kms-server/doc/decisions/0009-client-retries.md`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::random::{Random, jittered};

/// What a failure says about repeating the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Not.
    No,
    /// After a wait: the server's, or ours.
    Later(Option<Duration>),
    /// At another address at once. Here too after a wait, if that may help.
    Elsewhere { later_here: bool },
}

impl Again {
    /// Takes what the server asked for beside its status: `grpc-retry-pushback-ms` and `google.rpc.RetryInfo`.
    pub(crate) fn asked(self, pushback: Option<&str>, retry_info: Option<Duration>) -> Self {
        let asked = match pushback.map(str::parse::<u64>) {
            Some(Ok(milliseconds)) => Some(Duration::from_millis(milliseconds)),
            // Negative, or not a number: A6 takes both for "do not".
            Some(Err(_)) => return Self::No,
            None => retry_info,
        };
        match (self, asked) {
            (Self::Later(_), Some(wait)) => Self::Later(Some(wait)),
            (unchanged, _) => unchanged,
        }
    }
}

/// Returns how long to wait before the nth repetition, from 1.
pub(crate) fn back_off(repetition: u32, random: &dyn Random) -> Duration {
    let doubled = BACK_OFF_FIRST.saturating_mul(1 << (repetition.saturating_sub(1)).min(16));
    jittered(doubled.min(BACK_OFF_MAX), random)
}

/// Bounds what repeating adds to the load of a service in trouble: a bucket of tokens, of which each failure takes one
/// and each answer puts back a tenth. While it is half empty or less, nothing is repeated.
pub(crate) struct Budget(Mutex<u32>);

impl Budget {
    pub(crate) fn full() -> Self {
        Self(Mutex::new(TENTHS_MAX))
    }

    pub(crate) fn answered(&self) {
        let mut tenths = self.tenths();
        *tenths = (*tenths + 1).min(TENTHS_MAX);
    }

    /// Takes a token, and returns whether the call may be repeated.
    pub(crate) fn failed(&self) -> bool {
        let mut tenths = self.tenths();
        *tenths = tenths.saturating_sub(10);
        *tenths > TENTHS_MAX / 2
    }

    fn tenths(&self) -> std::sync::MutexGuard<'_, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a call is made, the first time included, unless set.
pub(crate) const ATTEMPTS_DEFAULT: u32 = 3;
/// What A6 allows.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// Ten tokens.
const TENTHS_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::Fixed;

    #[test]
    fn the_wait_doubles_from_20_ms_to_a_second() {
        let waits = [1, 2, 3, 6, 7, 100].map(|n| back_off(n, &Fixed(1 << 19)).as_millis());
        assert_eq!(waits, [20, 40, 80, 640, 1000, 1000]);
    }

    #[test]
    fn the_budget_stops_repeating_at_half_and_answers_fill_it_again() {
        let budget = Budget::full();
        assert_eq!([(); 6].map(|()| budget.failed()), [true, true, true, true, false, false]);
        for _ in 0..20 {
            budget.answered();
        }
        // 4 + 2 tokens, and one is taken.
        assert!(!budget.failed());
        for _ in 0..11 {
            budget.answered();
        }
        assert!(budget.failed());
        for _ in 0..1000 {
            budget.answered();
        }
        assert_eq!([(); 5].map(|()| budget.failed()), [true, true, true, true, false], "it holds no more than ten");
    }

    #[test]
    fn the_server_says_how_long_to_wait_or_not_to_repeat() {
        let later = Again::Later(None);
        let info = Some(Duration::from_secs(3));
        assert_eq!(later.asked(Some("250"), info), Again::Later(Some(Duration::from_millis(250))));
        assert_eq!(later.asked(None, info), Again::Later(info));
        assert_eq!(later.asked(Some("-1"), info), Again::No);
        assert_eq!(later.asked(Some("soon"), info), Again::No);
        assert_eq!(Again::No.asked(Some("0"), info), Again::No);
        let elsewhere = Again::Elsewhere { later_here: true };
        assert_eq!(elsewhere.asked(None, info), elsewhere);
    }
}
