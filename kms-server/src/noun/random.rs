//! Randomness, passed in so that a test can fix it.

use ring::rand::{SecureRandom, SystemRandom};

/// A source of uniform bytes, fit for keys.
pub trait Random: Send + Sync {
    /// Fills the whole slice.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's generator (`getrandom`).
#[derive(Debug)]
pub struct OsRandom(SystemRandom);

impl OsRandom {
    /// Returns the generator.
    #[allow(clippy::disallowed_methods, clippy::new_without_default)] // The one place that may make one.
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Random for OsRandom {
    fn fill(&self, out: &mut [u8]) {
        // Without randomness nothing here may go on: a key made of anything else is worse than none.
        self.0.fill(out).expect("getrandom answers on every supported system once it has started");
    }
}
