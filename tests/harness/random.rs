//! Random choices that can be made again: all of them follow from a seed, which a test prints.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A generator of choices (SplitMix64). Not for keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns another generator, whose choices have nothing to do with these.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns any number.
    #[allow(clippy::should_implement_trait)] // It has no end.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Returns one of several, or nothing of none.
    pub fn one_of<'a, T>(&mut self, several: &'a [T]) -> Option<&'a T> {
        if several.is_empty() { None } else { several.get(self.below(several.len())) }
    }
}

/// Returns the seed of this run: `KMS_TESTS_SEED`, to make a run again, else another each time.
pub fn seed() -> u64 {
    let given = std::env::var("KMS_TESTS_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("KMS_TESTS_SEED is a number"));
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish() % 1_000_000_000)
}
