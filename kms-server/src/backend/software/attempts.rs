//! How many tries in a row the PIN did not open a keystore file, kept over restarts, and how long the next try waits.
//!
//! ```text
//! wrong-pin = "kms1-wrong-pin 1 " || decimal || "\n"      the tries since one that worked; mode 0600
//! ```
//! A try is counted before it is made: whoever kills the process in between has used it up all the same. A crash-loop is
//! thus no faster at guessing than a daemon that stays up. It is a delay and never a lock: no number shuts anybody out,
//! and whatever is wrong with the file counts as no tries. See doc/decisions/0008-wrong-pin.md.
//!
//! Everything here blocks but the waiting itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::error::SoftwareError;
use super::private_file::{self, Link};

/// The file's name in the directory of keystore files.
pub(super) const FILE_NAME: &str = "wrong-pin";

/// The longest that a try waits.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a try that did not work and was not counted waits before it says so.
pub(super) const WAIT_UNKEPT: Duration = Duration::from_secs(4);

/// Waits. A test's does not, but remembers how long it should have.
#[async_trait]
pub trait Pause: Send + Sync {
    /// Returns after this time.
    async fn pause(&self, time: Duration);
}

/// Waits by tokio's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimerPause;

#[async_trait]
impl Pause for TimerPause {
    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A try that was counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Counted {
    /// The tries before it that did not work.
    pub(super) failed: u32,
    /// Whether the number was kept. Else nothing slows the next process down, so that this one must:
    /// by [`WAIT_UNKEPT`], before it says that the try did not work.
    pub(super) kept: bool,
}

impl Counted {
    /// Returns how long to wait before the try.
    pub(super) fn wait_before(self) -> Duration {
        wait_after(self.failed)
    }
}

/// Returns how long a try waits after so many that did not work: twice as long after each, and at most half a minute.
pub(super) fn wait_after(failed: u32) -> Duration {
    if failed == 0 { Duration::ZERO } else { (WAIT_UNIT * (1 << failed.min(DOUBLINGS_MAX))).min(WAIT_MAX) }
}

/// The file, in its directory.
#[derive(Clone, Copy)]
pub(super) struct Attempts<'a>(pub(super) &'a Path);

impl Attempts<'_> {
    fn path(self) -> PathBuf {
        self.0.join(FILE_NAME)
    }

    /// Returns the number of tries that did not work; nothing where the file is none of ours.
    pub(super) fn read(self) -> Option<u32> {
        match private_file::read(&self.path(), Link::Refused, FILE_BYTES_MAX) {
            Ok(bytes) => parse(&bytes),
            Err(SoftwareError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Some(0),
            Err(_) => None,
        }
    }

    /// Counts a try that is about to be made, under the directory's lock.
    pub(super) fn count(self) -> Counted {
        let failed = self.read().unwrap_or_else(|| {
            tracing::warn!(file = %self.path().display(), "the count of wrong PINs cannot be read: it begins anew");
            0
        });
        Counted { failed, kept: self.keep(failed.saturating_add(1)) }
    }

    /// Sets the number, and returns whether it is durable.
    pub(super) fn keep(self, failed: u32) -> bool {
        let kept = private_file::replace(&self.path(), &line(failed));
        if let Err(error) = &kept {
            let why = crate::backend::chain_of(error);
            tracing::warn!(why, "tries of the PIN cannot be counted: a wrong one is answered late");
        }
        kept.is_ok()
    }

    /// Forgets the tries: one worked.
    pub(super) fn forget(self) {
        let forgotten = private_file::remove_if_there(&self.path()).and_then(|()| {
            // Not before it is known to be gone is the next try free again.
            private_file::sync_directory_of(&self.path())
        });
        if let Err(error) = forgotten {
            let why = crate::backend::chain_of(&error);
            tracing::warn!(why, "the count of wrong PINs stays, though this one was right: the next start waits");
        }
    }
}

fn line(failed: u32) -> Vec<u8> {
    format!("{MAGIC}{failed}\n").into_bytes()
}

fn parse(bytes: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(bytes).ok()?.strip_prefix(MAGIC)?.strip_suffix('\n')?;
    let failed = digits.parse().ok()?;
    // One spelling only: no sign, no further zeros.
    (line(failed) == bytes).then_some(failed)
}

const MAGIC: &str = "kms1-wrong-pin 1 ";
const FILE_BYTES_MAX: usize = 64;
const WAIT_UNIT: Duration = Duration::from_millis(250);
const DOUBLINGS_MAX: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_has_an_end() {
        let waits: Vec<u128> = (0..9).map(|failed| wait_after(failed).as_millis()).collect();
        assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(wait_after(u32::MAX), WAIT_MAX);
    }

    #[test]
    fn only_the_one_spelling_is_a_count() {
        for failed in [0, 1, 77, u32::MAX] {
            assert_eq!(parse(&line(failed)), Some(failed));
        }
        for bad in ["", "1", "kms1-wrong-pin 1 ", "kms1-wrong-pin 1 7", "kms1-wrong-pin 2 7\n", "kms1-wrong-pin 1 07\n"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        for bad in [
            &b"kms1-wrong-pin 1 +7\n"[..],
            b"kms1-wrong-pin 1 -7\n",
            b"kms1-wrong-pin 1 4294967296\n",
            b"\0\0\0",
            b"\xff\n",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
