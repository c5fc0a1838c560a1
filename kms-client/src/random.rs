//! Randomness: ids of changes and the jitter of waits. Passed in where a test has to know it.

use ring::rand::{SecureRandom, SystemRandom};

/// Where random bits come from.
pub(crate) trait Random: Send + Sync {
    /// Returns 128 of them.
    fn bits(&self) -> u128;
}

/// The operating system's.
pub(crate) struct OsRandom;

impl Random for OsRandom {
    fn bits(&self) -> u128 {
        let mut bytes = [0; 16];
        #[expect(clippy::disallowed_methods, reason = "the one place of this library where randomness begins")]
        SystemRandom::new().fill(&mut bytes).expect("the operating system has random bytes");
        u128::from_be_bytes(bytes)
    }
}

/// Spreads a wait by up to a fifth to either side, so that callers that failed together do not come back together.
pub(crate) fn jittered(wait: std::time::Duration, random: &dyn Random) -> std::time::Duration {
    const STEPS: u32 = 1 << 20;
    let step = (random.bits() % u128::from(STEPS)) as u32;
    wait.mul_f64(0.8 + 0.4 * f64::from(step) / f64::from(STEPS))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    /// Always the same bits.
    pub(crate) struct Fixed(pub u128);

    impl Random for Fixed {
        fn bits(&self) -> u128 {
            self.0
        }
    }

    #[test]
    fn a_wait_is_spread_by_a_fifth_to_either_side() {
        let wait = Duration::from_secs(1);
        assert_eq!(jittered(wait, &Fixed(0)), Duration::from_millis(800));
        assert_eq!(jittered(wait, &Fixed(1 << 19)), Duration::from_secs(1));
        assert!(jittered(wait, &Fixed(u128::MAX)) < Duration::from_millis(1200));
    }

    #[test]
    fn the_operating_systems_bits_differ() {
        assert_ne!(OsRandom.bits(), OsRandom.bits());
    }
}
