//! Fan-out: how many different tenants one principal reaches by one binding in a window of time.
//!
//! Off unless a binding says `fan_out`. Counted for each principal apart, so that one stolen credential does not
//! shut out the others of its group. What was counted outlives a reload of the policy, and not a restart.
//!
//! **Invariant:** in every window of the limit's length at most `tenants` different tenants are let pass. Each has
//! the time of its last use; it counts until that is longer ago than the window, and while `tenants` of them count,
//! no other one is taken. The test is `no_window_ever_has_more_tenants_than_the_limit`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::noun::{Principal, TenantName};

/// The most tenants that a limit may allow: each that counts costs some hundred bytes.
pub const FAN_OUT_TENANTS_MAX: u32 = 10_000;
/// The shortest window.
pub const FAN_OUT_PER_MS_MIN: u64 = 1_000;
/// The longest window: 30 days.
pub const FAN_OUT_PER_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// The most tenants that count for all principals and bindings together.
const COUNTED_MAX: usize = 500_000;
/// How seldom one refusal of the same binding and principal is told again.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The limit of a binding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FanOut {
    /// The most different tenants.
    pub tenants: u32,
    /// In any window of so many milliseconds.
    pub per_ms: u64,
}

/// Whether a tenant may be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Reach {
    /// It may.
    Within,
    /// It would be one too many.
    Exceeded {
        /// Whether a person should be told now: not told of the same binding and principal for a minute.
        tell: bool,
    },
}

/// The tenants that one principal used by one binding, the one whose use is longest ago first.
///
/// A list through the nodes of a slab, so that each step costs the same whatever the limit is.
#[derive(Default)]
struct Window {
    places: HashMap<TenantName, u32>,
    nodes: Vec<Node>,
    oldest: Option<u32>,
    newest: Option<u32>,
    free: Vec<u32>,
    told: Option<Duration>,
}

struct Node {
    tenant: Option<TenantName>,
    used: Duration,
    older: Option<u32>,
    newer: Option<u32>,
}

impl Window {
    fn node(&mut self, place: u32) -> Option<&mut Node> {
        self.nodes.get_mut(place as usize)
    }

    fn unlink(&mut self, place: u32) {
        let Some((older, newer)) = self.node(place).map(|node| (node.older, node.newer)) else { return };
        match older.and_then(|older| self.node(older)) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|newer| self.node(newer)) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }

    fn link_as_newest(&mut self, place: u32, now: Duration) {
        let before = self.newest.replace(place);
        if let Some(node) = self.node(place) {
            (node.older, node.newer, node.used) = (before, None, now);
        }
        match before.and_then(|before| self.node(before)) {
            Some(node) => node.newer = Some(place),
            None => self.oldest = Some(place),
        }
    }

    /// Forgets what was used longer ago than the window. Returns how many those were.
    fn forget(&mut self, now: Duration, per_ms: u64) -> usize {
        let per = Duration::from_millis(per_ms);
        let mut count = 0;
        while let Some(place) = self.oldest {
            let Some(node) = self.node(place) else { break };
            if now.saturating_sub(node.used) <= per {
                break;
            }
            let tenant = node.tenant.take();
            self.unlink(place);
            if let Some(tenant) = tenant {
                self.places.remove(&tenant);
            }
            self.free.push(place);
            count += 1;
        }
        count
    }

    fn take(&mut self, tenant: &TenantName, now: Duration) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node { tenant: None, used: now, older: None, newer: None });
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(node) = self.node(place) {
            node.tenant = Some(tenant.clone());
        }
        self.places.insert(tenant.clone(), place);
        self.link_as_newest(place, now);
    }

    fn exceeded(&mut self, now: Duration) -> Reach {
        let tell = self.told.is_none_or(|told| now.saturating_sub(told) >= TOLD_EVERY);
        if tell {
            self.told = Some(now);
        }
        Reach::Exceeded { tell }
    }
}

/// What one binding lets each of its principals reach.
struct OfBinding {
    limit: FanOut,
    windows: HashMap<Principal, Arc<Mutex<Window>>>,
}

/// What counts, of all bindings and principals.
#[derive(Default)]
pub(super) struct FanOuts {
    of: RwLock<HashMap<Arc<str>, OfBinding>>,
    /// How many tenants count in all. A principal counts as one more.
    counted: AtomicUsize,
    /// The second in which all windows were gone through for want of room.
    swept: AtomicU64,
}

impl FanOuts {
    /// Lets a principal use a tenant by a binding, if that is not one too many. `now` never steps back.
    pub fn reach(
        &self,
        binding: &Arc<str>,
        limit: FanOut,
        principal: &Principal,
        tenant: &TenantName,
        now: Duration,
    ) -> Reach {
        let window = match self.window(binding, principal) {
            Some(window) => window,
            None => self.new_window(binding, limit, principal),
        };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&place) = window.places.get(tenant) {
            // One that does not count any more takes its own place again.
            window.unlink(place);
            window.link_as_newest(place, now);
            return Reach::Within;
        }
        self.uncount(window.forget(now, limit.per_ms));
        if window.places.len() >= limit.tenants as usize || !self.has_room(now) {
            return window.exceeded(now);
        }
        window.take(tenant, now);
        self.counted.fetch_add(1, Ordering::Relaxed);
        Reach::Within
    }

    fn window(&self, binding: &str, principal: &Principal) -> Option<Arc<Mutex<Window>>> {
        let of = self.of.read().unwrap_or_else(PoisonError::into_inner);
        of.get(binding)?.windows.get(principal).map(Arc::clone)
    }

    fn new_window(&self, binding: &Arc<str>, limit: FanOut, principal: &Principal) -> Arc<Mutex<Window>> {
        let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
        let of =
            of.entry(Arc::clone(binding)).or_insert_with(|| OfBinding { limit, windows: HashMap::with_capacity(1) });
        of.limit = limit;
        Arc::clone(of.windows.entry(principal.clone()).or_insert_with(|| {
            self.counted.fetch_add(1, Ordering::Relaxed);
            Arc::default()
        }))
    }

    /// Counts fewer. A request that still holds the window of a limit that a reload took away counts its places down a second
    /// time: that must not become a number that lets nobody in.
    fn uncount(&self, gone: usize) {
        let fewer = |counted: usize| Some(counted.saturating_sub(gone));
        let _ = self.counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// Tells whether one more may count. Called with a window locked: so nothing is waited for here.
    fn has_room(&self, now: Duration) -> bool {
        let is_full = || self.counted.load(Ordering::Relaxed) >= COUNTED_MAX;
        if is_full() && self.swept.swap(now.as_secs(), Ordering::Relaxed) != now.as_secs() {
            self.sweep(now);
        }
        !is_full()
    }

    /// Forgets all that does not count any more, but for what is in use.
    fn sweep(&self, now: Duration) {
        let Ok(mut of) = self.of.try_write() else { return };
        for OfBinding { limit, windows } in of.values_mut() {
            windows.retain(|_, shared| {
                let mut gone = 0;
                let mut is_empty = false;
                if let Ok(mut window) = shared.try_lock() {
                    gone = window.forget(now, limit.per_ms);
                    is_empty = window.places.is_empty();
                }
                // Whoever holds it is about to use it, and nobody else can get it now.
                let drop = is_empty && Arc::strong_count(shared) == 1;
                self.uncount(gone + usize::from(drop));
                !drop
            });
        }
    }

    /// Keeps what counts for bindings that have a limit, and forgets the others.
    pub fn keep(&self, limit_of: impl Fn(&str) -> Option<FanOut>) {
        let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
        of.retain(|binding, of| {
            let Some(limit) = limit_of(binding) else {
                let places = |window: &Arc<Mutex<Window>>| {
                    window.lock().unwrap_or_else(PoisonError::into_inner).places.len() + 1
                };
                self.uncount(of.windows.values().map(places).sum());
                return false;
            };
            of.limit = limit;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn who(name: &str) -> Principal {
        format!("spiffe://example.com/{name}").parse().unwrap()
    }

    fn tenant(number: usize) -> TenantName {
        format!("t{number}").parse().unwrap()
    }

    fn reach(all: &FanOuts, binding: &str, limit: (u32, u64), name: &str, number: usize, now: Duration) -> bool {
        let limit = FanOut { tenants: limit.0, per_ms: limit.1 };
        all.reach(&binding.into(), limit, &who(name), &tenant(number), now) == Reach::Within
    }

    #[test]
    fn no_window_ever_has_more_tenants_than_the_limit() {
        let (mut seed, all) = (7_u64, FanOuts::default());
        let mut below = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % end
        };
        let (limit, mut now, mut log, mut refused) = ((5, 10_000), Duration::ZERO, Vec::new(), 0);
        for _ in 0..20_000 {
            now += Duration::from_millis(below(1_500));
            let number = below(9) as usize;
            // Told plainly: what was let pass in the last ten seconds, to the millisecond.
            let of_window = |log: &[(Duration, usize)]| -> std::collections::HashSet<usize> {
                let recent = log.iter().rev().take_while(|(used, _)| now - *used <= 10 * SECOND);
                recent.map(|(_, number)| *number).collect()
            };
            let before = of_window(&log);
            let expected = before.contains(&number) || before.len() < 5;
            let got = reach(&all, "b", limit, "a", number, now);
            assert_eq!(got, expected, "{now:?} {number}");
            if got {
                log.push((now, number));
            } else {
                refused += 1;
            }
            assert!(of_window(&log).len() <= 5, "{now:?}");
        }
        assert!(refused > 1_000, "{refused}");
    }

    #[test]
    fn a_tenant_counts_to_the_very_end_of_the_window() {
        let all = FanOuts::default();
        let limit = (1, 1_000);
        assert!(reach(&all, "b", limit, "a", 1, SECOND));
        assert!(!reach(&all, "b", limit, "a", 2, 2 * SECOND));
        assert!(reach(&all, "b", limit, "a", 2, 2 * SECOND + Duration::from_millis(1)));
        assert!(!reach(&all, "b", limit, "a", 1, 3 * SECOND));
        // A tenant in use never falls out.
        for n in 0..100 {
            assert!(reach(&all, "b", limit, "a", 2, 3 * SECOND + SECOND * n / 2));
        }
        assert!(!reach(&all, "b", limit, "a", 1, 53 * SECOND));
    }

    #[test]
    fn principals_and_bindings_count_apart() {
        let all = FanOuts::default();
        for (binding, name) in [("b", "a"), ("b", "x"), ("c", "a")] {
            for number in 0..10 {
                assert_eq!(reach(&all, binding, (3, 60_000), name, number, SECOND), number < 3);
            }
        }
        assert_eq!(all.counted.load(Ordering::Relaxed), 12);
    }

    #[test]
    fn what_counts_outlives_a_reload_but_for_bindings_that_are_gone() {
        let all = FanOuts::default();
        let limit = (2, 60_000);
        for binding in ["b", "c"] {
            for number in 0..2 {
                assert!(reach(&all, binding, limit, "a", number, SECOND));
            }
        }
        all.keep(|id| (id == "b").then_some(FanOut { tenants: 2, per_ms: 60_000 }));
        assert!(!reach(&all, "b", limit, "a", 2, SECOND));
        assert!(reach(&all, "b", (3, 60_000), "a", 2, SECOND), "a wider limit holds at once");
        assert!(!reach(&all, "b", limit, "a", 3, SECOND), "and so does a narrower one");
        assert_eq!(all.counted.load(Ordering::Relaxed), 4);
        assert!(reach(&all, "c", limit, "a", 2, SECOND));
    }

    #[test]
    fn a_refusal_is_told_once_a_minute() {
        let all = FanOuts::default();
        let limit = FanOut { tenants: 1, per_ms: 3_600_000 };
        let ask = |n, second| all.reach(&"b".into(), limit, &who("a"), &tenant(n), SECOND * second);
        assert_eq!(ask(0, 0), Reach::Within);
        assert_eq!(ask(1, 1), Reach::Exceeded { tell: true });
        for second in 1..61 {
            assert_eq!(ask(2, second), Reach::Exceeded { tell: false });
        }
        assert_eq!(ask(2, 61), Reach::Exceeded { tell: true });
    }

    #[test]
    fn all_windows_together_are_bounded_and_room_comes_back() {
        let all = FanOuts::default();
        let each = FAN_OUT_TENANTS_MAX as usize;
        let limit = (FAN_OUT_TENANTS_MAX, 10_000);
        let mut taken = 0;
        for caller in 0..=COUNTED_MAX / each {
            taken += (0..each).filter(|&n| reach(&all, "b", limit, &format!("p{caller}"), n, SECOND)).count();
        }
        // A principal's own place is taken in any case.
        assert!(all.counted.load(Ordering::Relaxed) <= COUNTED_MAX + 51 && taken > COUNTED_MAX * 9 / 10, "{taken}");
        assert!(!reach(&all, "b", limit, "late", 0, 5 * SECOND), "what cannot be counted is refused");
        assert!(reach(&all, "b", limit, "p0", 0, 5 * SECOND));
        assert!(reach(&all, "b", limit, "late", 0, 12 * SECOND));
        // The one tenant in use, both who asked late, and their windows.
        assert!(all.counted.load(Ordering::Relaxed) <= 5, "{}", all.counted.load(Ordering::Relaxed));
    }

    #[test]
    fn several_threads_share_one_limit() {
        let all = FanOuts::default();
        let passed: usize = std::thread::scope(|scope| {
            let each = |thread: usize| {
                let all = &all;
                scope.spawn(move || {
                    (0..5_000_usize).filter(|n| reach(all, "b", (100, 60_000), "a", thread * 5_000 + n, SECOND)).count()
                })
            };
            let running: Vec<_> = (0..4).map(each).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 100);
    }
}
