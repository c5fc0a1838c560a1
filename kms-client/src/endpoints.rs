//! The addresses of one service, and which of them is asked.
//!
//! One is asked until it fails. Then the next is, and the one that failed has a rest, a longer one each time. Nobody
//! goes back when the rest is over: the address only may be asked again when the present one fails, so a server that
//! returns is not overrun by all callers at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::random::{Random, jittered};

/// Addresses, with what is behind each.
pub(crate) struct Endpoints<T> {
    list: Vec<T>,
    health: Mutex<Health>,
}

struct Health {
    current: usize,
    each: Vec<Rest>,
}

#[derive(Clone, Copy, Default)]
struct Rest {
    /// How often it failed in a row.
    failures: u32,
    /// Until when it is asked only if all others are at rest too.
    until: Duration,
}

impl<T> Endpoints<T> {
    /// Takes at least one.
    pub(crate) fn new(list: Vec<T>) -> Self {
        assert!(!list.is_empty(), "a service has an address");
        let each = vec![Rest::default(); list.len()];
        Self { list, health: Mutex::new(Health { current: 0, each }) }
    }

    pub(crate) fn list(&self) -> &[T] {
        &self.list
    }

    pub(crate) fn get(&self, index: usize) -> &T {
        &self.list[index]
    }

    /// Returns which to ask: the present one if it is not at rest, else the next that is not. When all are, they are
    /// asked in turn.
    pub(crate) fn choose(&self, now: Duration) -> usize {
        let mut health = self.health();
        let count = self.list.len();
        let from = health.current;
        let awake = (0..count).map(|step| (from + step) % count).find(|index| health.each[*index].until <= now);
        let chosen = awake.unwrap_or((from + 1) % count);
        health.current = chosen;
        chosen
    }

    /// Returns one that is not at rest, if there is one among those that were not asked yet.
    pub(crate) fn another(&self, now: Duration, asked: &[usize]) -> Option<usize> {
        let mut health = self.health();
        let count = self.list.len();
        let from = health.current;
        let other = (0..count)
            .map(|step| (from + step) % count)
            .find(|index| !asked.contains(index) && health.each[*index].until <= now)?;
        health.current = other;
        Some(other)
    }

    /// One answered.
    pub(crate) fn answered(&self, index: usize) {
        self.health().each[index] = Rest::default();
    }

    /// One could not be reached, or is leaving.
    pub(crate) fn failed(&self, index: usize, now: Duration, random: &dyn Random) {
        let mut health = self.health();
        let rest = &mut health.each[index];
        // Calls that fail together are one failure.
        if rest.until > now {
            return;
        }
        let wait = REST_FIRST.saturating_mul(1 << rest.failures.min(16)).min(REST_MAX);
        rest.failures = rest.failures.saturating_add(1);
        rest.until = now + jittered(wait, random);
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const REST_FIRST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::Fixed;

    const EXACT: Fixed = Fixed(1 << 19);
    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_is_asked_until_it_fails_and_nobody_goes_back_by_itself() {
        let endpoints = Endpoints::new(vec!["a", "b"]);
        assert_eq!(endpoints.choose(seconds(0)), 0);
        endpoints.failed(0, seconds(0), &EXACT);
        assert_eq!(endpoints.choose(seconds(0)), 1);
        assert_eq!(endpoints.choose(seconds(100)), 1, "its rest is over, but there is no reason to go back");
        endpoints.failed(1, seconds(100), &EXACT);
        assert_eq!(endpoints.choose(seconds(100)), 0);
    }

    #[test]
    fn a_rest_doubles_up_to_its_most_and_is_forgotten_with_an_answer() {
        let endpoints = Endpoints::new(vec!["a", "b"]);
        let mut now = Duration::ZERO;
        for rest in [1, 2, 4, 8, 16, 30, 30] {
            endpoints.failed(0, now, &EXACT);
            assert_eq!(endpoints.another(now + seconds(rest) - Duration::from_nanos(1), &[1]), None, "{rest}");
            now += seconds(rest);
            assert_eq!(endpoints.another(now, &[1]), Some(0), "{rest}");
        }
        endpoints.answered(0);
        endpoints.failed(0, now, &EXACT);
        assert_eq!(endpoints.another(now + seconds(1), &[1]), Some(0));
    }

    #[test]
    fn calls_that_fail_together_are_one_failure() {
        let endpoints = Endpoints::new(vec!["a", "b"]);
        for _ in 0..100 {
            endpoints.failed(0, seconds(0), &EXACT);
        }
        assert_eq!(endpoints.another(seconds(1), &[1]), Some(0));
    }

    #[test]
    fn when_all_are_at_rest_they_are_asked_in_turn() {
        let endpoints = Endpoints::new(vec!["a", "b", "c"]);
        for index in 0..3 {
            endpoints.failed(index, seconds(0), &EXACT);
        }
        assert_eq!([(); 4].map(|()| endpoints.choose(seconds(0))), [1, 2, 0, 1]);
        assert_eq!(endpoints.another(seconds(0), &[]), None);
        let alone = Endpoints::new(vec!["a"]);
        alone.failed(0, seconds(0), &EXACT);
        assert_eq!(alone.choose(seconds(0)), 0, "a rest never keeps the only one from being asked");
    }

    #[test]
    fn a_rest_is_spread() {
        let [early, late] = [Fixed(0), Fixed(u128::MAX)].map(|random| {
            let endpoints = Endpoints::new(vec!["a", "b"]);
            endpoints.failed(0, seconds(0), &random);
            endpoints.another(Duration::from_millis(900), &[1])
        });
        assert_eq!((early, late), (Some(0), None));
    }
}
