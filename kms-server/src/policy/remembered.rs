//! Permissions that were given, remembered so that the next same question costs a look-up.
//!
//! Not a denial: those are cheap already, and their names come from whoever makes them up. Not an
//! invalidation either: the table lives in one [`Policy`](super::Policy) and goes with it, whole,
//! when that is replaced.
//!
//! **Invariant:** what is found here is what would be decided anew. A permission depends on who
//! asks and how strongly that was proved, what for, of what, from which of the networks that its
//! bindings name, with which of the pairs that they name, and on which of them have expired; all of
//! that is in the entry. The users' own policies may read the address and every pair that policy
//! sees: where there are any, it is those. The test is
//! `a_remembered_decision_is_the_decision_of_the_whole_set`.
//!
//! # How it is bounded
//!
//! A fixed number of places, four for each value of the hash's low bits. A new permission takes the
//! place of one other at most, chosen by its own hash: names that somebody makes up cost the price
//! of a decision, but neither memory nor a sweep. Nothing is locked. A core that reads takes part
//! in no write that another core would wait for, but for the count of who holds the rule's name.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;

use super::fan_out::FanOut;
use super::pairs::Seen;
use super::{Action, Resource};
use crate::noun::{Strength, UnixMillis};

/// The places of the table: with their entries some 5 MB when all are taken by the longest names, and as
/// much again where they have pairs.
pub(super) const PLACES: usize = 1 << 14;
/// The places that one hash value has.
const WAYS: usize = 4;

/// All that a decision depends on, but for the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// The number of the caller.
    pub caller: usize,
    pub strength: Strength,
    pub action: Action,
    pub resource: &'a Resource,
    pub place: Place,
    pub seen: Seen<'a>,
}

/// What of an address the bindings of a caller can tell.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Place {
    /// In which of its networks it lies, one bit each.
    Inside(u64),
    /// There are too many networks for that: the address itself.
    At(IpAddr),
}

/// A permission, with what it depends on.
struct Permission {
    caller: usize,
    strength: Strength,
    action: Action,
    resource: Resource,
    place: Place,
    /// The value of each pair that counts.
    values: Box<[Option<Box<str>>]>,
    /// When none of its bindings expires.
    lasts: Range<UnixMillis>,
    given: Given,
}

/// What was allowed by: the rule, and the limit it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Given {
    pub rule: Arc<str>,
    pub fan_out: Option<FanOut>,
}

impl Permission {
    fn answers(&self, question: &Question<'_>, now: UnixMillis) -> bool {
        self.caller == question.caller
            && self.action == question.action
            && self.strength == question.strength
            && self.place == question.place
            && self.lasts.contains(&now)
            && self.resource == *question.resource
            && question.seen.values().eq(self.values.iter().map(Option::as_deref))
    }
}

/// One place. The tag saves following the pointer to an entry that is another's.
#[derive(Default)]
struct Slot {
    /// High bits of the hash. A stale one costs a look-up or a decision, never a wrong answer.
    tag: AtomicU32,
    permission: ArcSwapOption<Permission>,
}

/// The table.
pub(super) struct Remembered {
    /// Keyed at random, so that nobody can choose names that meet in one place.
    hasher: RandomState,
    slots: Box<[Slot]>,
}

impl Remembered {
    pub fn new() -> Self {
        Self { hasher: RandomState::new(), slots: (0..PLACES).map(|_| Slot::default()).collect() }
    }

    /// Returns the rule that allows this now, if that is remembered.
    pub fn find(&self, question: &Question<'_>, now: UnixMillis) -> Option<Given> {
        let hash = self.hash(question);
        self.ways(hash).iter().filter(|slot| slot.tag.load(Ordering::Acquire) == tag(hash)).find_map(|slot| {
            let permission = slot.permission.load();
            let found = permission.as_ref().filter(|permission| permission.answers(question, now))?;
            Some(found.given.clone())
        })
    }

    /// Remembers what was allowed, for as long as that lasts.
    pub fn keep(&self, question: &Question<'_>, lasts: Range<UnixMillis>, given: Given) {
        if !question.seen.is_short() {
            return;
        }
        let hash = self.hash(question);
        let ways = self.ways(hash);
        let of_tag = |wanted| ways.iter().find(|slot| slot.tag.load(Ordering::Acquire) == wanted);
        // The same question at another time, else a free place, else whoever is there.
        let chosen = of_tag(tag(hash)).or_else(|| of_tag(FREE)).or_else(|| ways.get((hash >> 30) as usize % WAYS));
        let Some(slot) = chosen else { return };
        slot.permission.store(Some(Arc::new(Permission {
            caller: question.caller,
            strength: question.strength,
            action: question.action,
            resource: question.resource.clone(),
            place: question.place,
            values: question.seen.values().map(|value| value.map(Box::from)).collect(),
            lasts,
            given,
        })));
        slot.tag.store(tag(hash), Ordering::Release);
    }

    fn hash(&self, question: &Question<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        (question.caller, question.strength, question.action, question.resource, question.place).hash(&mut hasher);
        question.seen.values().for_each(|value| value.hash(&mut hasher));
        hasher.finish()
    }

    fn ways(&self, hash: u64) -> &[Slot] {
        let first = hash as usize % (PLACES / WAYS) * WAYS;
        self.slots.get(first..first + WAYS).unwrap_or_default()
    }
}

/// Returns the tag of a hash, which is never that of a free place.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

const FREE: u32 = 0;

#[cfg(test)]
impl Remembered {
    /// Returns how many permissions are remembered.
    pub fn len(&self) -> usize {
        self.slots.iter().filter(|slot| slot.permission.load().is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::pairs::Pairs;

    fn key(name: &str) -> Resource {
        Resource::Key("acme".parse().unwrap(), name.parse().unwrap())
    }

    fn question(resource: &Resource) -> Question<'_> {
        let (strength, seen) = (Strength::CERTIFICATE, Seen { names: &[], pairs: None });
        Question { caller: 7, strength, action: Action::Encrypt, resource, place: Place::Inside(0), seen }
    }

    fn given(rule: &str) -> Given {
        Given { rule: rule.into(), fan_out: None }
    }

    #[test]
    fn what_is_kept_answers_its_own_question_only() {
        let table = Remembered::new();
        let (k, other) = (key("k"), key("K"));
        table.keep(&question(&k), 10..20, given("b"));
        assert_eq!(table.find(&question(&k), 10).map(|given| given.rule).as_deref(), Some("b"));
        assert_eq!(table.find(&question(&k), 19).map(|given| given.rule).as_deref(), Some("b"));
        for (why, question, now) in [
            ("too early", question(&k), 9),
            ("too late", question(&k), 20),
            ("another key", question(&other), 10),
            ("another caller", Question { caller: 8, ..question(&k) }, 10),
            ("another action", Question { action: Action::Decrypt, ..question(&k) }, 10),
            ("another strength", Question { strength: Strength::MFA, ..question(&k) }, 10),
            ("another network", Question { place: Place::Inside(1), ..question(&k) }, 10),
            ("an address", Question { place: Place::At("0.0.0.0".parse().unwrap()), ..question(&k) }, 10),
        ] {
            assert_eq!(table.find(&question, now), None, "{why}");
        }
    }

    #[test]
    fn the_pairs_that_count_are_part_of_the_question_and_no_others() {
        let (table, k, names) = (Remembered::new(), key("k"), [Arc::from("p"), Arc::from("q")]);
        let pairs = |of: &[(&str, &str)]| -> Pairs { of.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect() };
        let kept = pairs(&[("p", "1"), ("other", "x")]);
        let with = |pairs| Question { seen: Seen { names: &names, pairs }, ..question(&k) };
        table.keep(&with(Some(&kept)), 0..10, given("b"));
        for (of, found) in [
            (&[("p", "1")][..], true),
            (&[("p", "1"), ("other", "y")], true),
            (&[("p", "2")], false),
            (&[("p", "")], false),
            (&[("p", "1"), ("q", "")], false),
            (&[("q", "1")], false),
            (&[], false),
        ] {
            let asked = pairs(of);
            let question = Question { seen: Seen { names: &names, pairs: Some(&asked) }, ..question(&k) };
            assert_eq!(table.find(&question, 0).is_some(), found, "{of:?}");
        }
        assert!(table.find(&with(None), 0).is_none());
        // What somebody makes up is not kept beyond some bytes.
        let long = pairs(&[("p", &"x".repeat(257))]);
        table.keep(&with(Some(&long)), 0..10, given("b"));
        assert!(table.find(&with(Some(&long)), 0).is_none());
    }

    #[test]
    fn the_same_question_at_another_time_takes_its_own_place() {
        let (table, k) = (Remembered::new(), key("k"));
        for start in 0..100 {
            table.keep(&question(&k), start..start + 1, given("b"));
            assert!(table.find(&question(&k), start).is_some());
        }
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn names_that_somebody_makes_up_do_not_make_it_larger() {
        let table = Remembered::new();
        for number in 0..PLACES * 4 {
            let made_up = key(&format!("k{number}"));
            table.keep(&question(&made_up), 0..u64::MAX, given("b"));
            // Whatever it displaced: the last one is there.
            assert!(table.find(&question(&made_up), 0).is_some());
        }
        assert_eq!(table.slots.len(), PLACES);
        assert!(table.len() <= PLACES && table.len() > PLACES * 9 / 10, "{}", table.len());
    }

    #[test]
    fn several_threads_find_only_what_was_kept() {
        let table = Remembered::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    for number in 0..20_000_usize {
                        let name = format!("k{}", (number * 7 + thread) % 30_000);
                        let (of, rule) = (key(&name), Arc::<str>::from(name));
                        if let Some(found) = table.find(&question(&of), 0) {
                            assert_eq!(found.rule, rule);
                        }
                        table.keep(&question(&of), 0..u64::MAX, given(&rule));
                    }
                });
            }
        });
    }
}
