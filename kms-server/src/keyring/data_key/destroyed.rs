//! Which managed data keys of a tenant were destroyed of late: tells whoever read rows outside the
//! gate whether to read them again.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::noun::DekUid;

/// The last destructions of managed data keys, each with its number.
#[derive(Debug, Default)]
pub(in crate::keyring) struct DestroyedDeks {
    /// How many times some were destroyed.
    generation: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    uids: VecDeque<(u64, DekUid)>,
    /// Of this one and those before not all are known any more.
    forgotten: u64,
}

impl DestroyedDeks {
    /// Returns how many times some were destroyed.
    pub(in crate::keyring) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Notes some that are destroyed now.
    pub(in crate::keyring) fn note(&self, uids: &[DekUid]) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire) + 1;
        recent.uids.extend(uids.iter().map(|uid| (generation, *uid)));
        while recent.uids.len() > RECENT_MAX {
            if let Some((forgotten, _)) = recent.uids.pop_front() {
                recent.forgotten = forgotten;
            }
        }
        self.generation.store(generation, Ordering::Release);
    }

    /// Tells whether any of these was destroyed since a generation, or may have been.
    pub(in crate::keyring) fn any_since<'a>(&self, generation: u64, uids: impl Iterator<Item = &'a DekUid>) -> bool {
        if self.generation() == generation {
            return false;
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.forgotten > generation {
            return true;
        }
        let wanted: HashSet<&DekUid> = uids.collect();
        recent.uids.iter().any(|(number, uid)| *number > generation && wanted.contains(uid))
    }
}

const RECENT_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(number: u32) -> DekUid {
        DekUid::of(1, [0; 6], number)
    }

    #[test]
    fn what_was_destroyed_since_is_known_and_nothing_else() {
        let destroyed = DestroyedDeks::default();
        let before = destroyed.generation();
        assert!(!destroyed.any_since(before, [uid(1)].iter()));
        destroyed.note(&[uid(1), uid(2)]);
        assert!(destroyed.any_since(before, [uid(9), uid(2)].iter()));
        assert!(!destroyed.any_since(before, [uid(3)].iter()));
        assert!(!destroyed.any_since(destroyed.generation(), [uid(1)].iter()));
    }

    #[test]
    fn what_is_forgotten_counts_as_destroyed() {
        let destroyed = DestroyedDeks::default();
        let before = destroyed.generation();
        destroyed.note(&[uid(1)]);
        let after = destroyed.generation();
        let many: Vec<_> = (10..10 + RECENT_MAX as u32).map(uid).collect();
        destroyed.note(&many);
        assert!(destroyed.any_since(before, [uid(3)].iter()));
        assert!(!destroyed.any_since(after, [uid(3)].iter()));
    }
}
