//! What probes of the current version of the master key mean for a daemon that serves.
//!
//! Serving needs no backend, so an outage is an alarm and nothing else, unless somebody has set how long one may
//! last. A *refusal* is an answer: whoever holds the master key has taken this daemon's right to it away, and it
//! locks itself. It must be given three times over some minutes, so that a mistake can be taken back; and an
//! outage in between is no reason to forget one.
//!
//! **Invariant:** only an answer that is the key itself takes anything back (`an_outage_forgets_no_refusal`).

use std::time::Duration;

use super::BackendError;

/// When a daemon locks itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WatchSettings {
    /// How often the current version is tried.
    pub probe_every: Duration,
    /// How long it must have been refused.
    pub lock_after: Duration,
    /// How long the backend may be out of reach; nothing for as long as it takes.
    pub offline_grace: Option<Duration>,
}

/// Why a daemon is locked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LockCause {
    /// The backend refuses the current version.
    Refused,
    /// The backend was out of reach for longer than allowed.
    Offline,
    /// An operator said so.
    Operator,
}

impl LockCause {
    /// Returns the word for it in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            LockCause::Refused => "BACKEND_REFUSED",
            LockCause::Offline => "BACKEND_OFFLINE",
            LockCause::Operator => "OPERATOR",
        }
    }

    /// Returns what people are told.
    pub const fn describe(self) -> &'static str {
        match self {
            LockCause::Refused => "the master key backend refuses the current master key version",
            LockCause::Offline => "the master key backend was out of reach for longer than backend.offline_grace",
            LockCause::Operator => "an operator locked it",
        }
    }
}

/// What a probe came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The key came back.
    Works,
    /// It did not; the daemon serves on.
    Trouble,
    /// The daemon must lock itself.
    Lock(LockCause),
}

/// Remembers what probes came to. Times are since boot, on a clock that does not stop.
#[derive(Debug)]
pub struct Watch {
    settings: WatchSettings,
    refusals: Option<Refusals>,
    failures: u32,
    worked: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Refusals {
    first: Duration,
    times: u32,
}

impl Watch {
    /// Begins where the backend has just answered.
    pub fn new(settings: WatchSettings, now: Duration) -> Self {
        Self { settings, refusals: None, failures: 0, worked: now }
    }

    /// Takes in what a probe came to: nothing when the key came back.
    pub fn heard(&mut self, failed: Option<&BackendError>, now: Duration) -> Verdict {
        match failed {
            None => {
                (self.refusals, self.failures, self.worked) = (None, 0, now);
                return Verdict::Works;
            }
            Some(BackendError::Denied(_)) => {
                let refusals = self.refusals.get_or_insert(Refusals { first: now, times: 0 });
                refusals.times = refusals.times.saturating_add(1);
                if refusals.times >= TIMES_MIN && now.saturating_sub(refusals.first) >= self.settings.lock_after {
                    return Verdict::Lock(LockCause::Refused);
                }
            }
            Some(
                BackendError::Unavailable(_)
                | BackendError::Credentials(_)
                | BackendError::WrongKey
                | BackendError::WrongAnswer,
            ) => {}
        }
        self.failures = self.failures.saturating_add(1);
        match self.settings.offline_grace {
            // Not at the first: the machine may have slept.
            Some(grace) if self.failures >= TIMES_MIN && now.saturating_sub(self.worked) >= grace => {
                Verdict::Lock(LockCause::Offline)
            }
            Some(_) | None => Verdict::Trouble,
        }
    }
}

/// How often a probe must have failed.
const TIMES_MIN: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn watch(offline_grace: Option<Duration>) -> Watch {
        Watch::new(WatchSettings { probe_every: MINUTE, lock_after: 5 * MINUTE, offline_grace }, Duration::ZERO)
    }

    fn denied() -> BackendError {
        BackendError::Denied("no".into())
    }

    fn others() -> [BackendError; 4] {
        let (gone, strange) = (BackendError::Unavailable("gone".into()), BackendError::Credentials("who".into()));
        [gone, strange, BackendError::WrongKey, BackendError::WrongAnswer]
    }

    #[test]
    fn a_refusal_locks_after_three_times_and_the_time() {
        let mut watch = watch(None);
        for minute in 1..=5 {
            assert_eq!(watch.heard(Some(&denied()), minute * MINUTE), Verdict::Trouble);
        }
        assert_eq!(watch.heard(Some(&denied()), 6 * MINUTE), Verdict::Lock(LockCause::Refused));
    }

    #[test]
    fn two_refusals_do_not_lock_however_long() {
        let mut watch = watch(None);
        assert_eq!(watch.heard(Some(&denied()), MINUTE), Verdict::Trouble);
        assert_eq!(watch.heard(Some(&denied()), 600 * MINUTE), Verdict::Trouble);
        assert_eq!(watch.heard(Some(&denied()), 601 * MINUTE), Verdict::Lock(LockCause::Refused));
    }

    #[test]
    fn an_answer_takes_refusals_back() {
        let mut watch = watch(None);
        for minute in 1..=5 {
            watch.heard(Some(&denied()), minute * MINUTE);
        }
        assert_eq!(watch.heard(None, 6 * MINUTE), Verdict::Works);
        for minute in 7..=11 {
            assert_eq!(watch.heard(Some(&denied()), minute * MINUTE), Verdict::Trouble);
        }
        assert_eq!(watch.heard(Some(&denied()), 12 * MINUTE), Verdict::Lock(LockCause::Refused));
    }

    #[test]
    fn an_outage_forgets_no_refusal() {
        let mut watch = watch(None);
        watch.heard(Some(&denied()), MINUTE);
        watch.heard(Some(&denied()), 2 * MINUTE);
        for error in others() {
            assert_eq!(watch.heard(Some(&error), 20 * MINUTE), Verdict::Trouble);
        }
        assert_eq!(watch.heard(Some(&denied()), 21 * MINUTE), Verdict::Lock(LockCause::Refused));
    }

    #[test]
    fn an_outage_locks_nothing_unless_it_was_set() {
        for error in others() {
            let mut watch = watch(None);
            assert_eq!(watch.heard(Some(&error), 1_000_000 * MINUTE), Verdict::Trouble);
        }
        for error in others() {
            let mut watch = watch(Some(10 * MINUTE));
            assert_eq!(watch.heard(None, MINUTE), Verdict::Works);
            assert_eq!(watch.heard(Some(&error), 9 * MINUTE), Verdict::Trouble);
            assert_eq!(watch.heard(Some(&error), 10 * MINUTE), Verdict::Trouble);
            assert_eq!(watch.heard(Some(&error), 11 * MINUTE), Verdict::Lock(LockCause::Offline));
            let mut slept = self::watch(Some(10 * MINUTE));
            assert_eq!(slept.heard(Some(&error), 600 * MINUTE), Verdict::Trouble);
            assert_eq!(slept.heard(Some(&error), 601 * MINUTE), Verdict::Trouble);
            assert_eq!(slept.heard(None, 602 * MINUTE), Verdict::Works);
        }
    }
}
