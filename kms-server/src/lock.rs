//! Whether this daemon is locked by an operator, and what locks it. See doc/decisions/0012.
//!
//! The marker `locked` in the data directory outlives the process: a service manager that restarts a daemon does not
//! undo what an operator did. What is in it is for people: a marker that is there is one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::audit::{Leaf, Log, LogFailed, Unrecorded};
use crate::backend::watch::LockCause;

/// The marker's name in the data directory.
pub const MARKER: &str = "locked";

/// What asks a serving daemon to lock itself, and the marker of an operator's lock.
#[derive(Debug)]
pub struct Lock {
    data_dir: PathBuf,
    unrecorded: Arc<Unrecorded>,
    /// Looked at by every request.
    is_asked: AtomicBool,
    asked: watch::Sender<Option<LockCause>>,
}

impl Lock {
    /// Begins unlocked, for one session.
    pub fn new(data_dir: &Path, unrecorded: Arc<Unrecorded>) -> Self {
        Self {
            unrecorded,
            data_dir: data_dir.to_owned(),
            is_asked: AtomicBool::new(false),
            asked: watch::Sender::new(None),
        }
    }

    /// Asks for the end of the session. The first cause stays, but an operator's goes before any other.
    pub fn ask(&self, cause: LockCause) {
        self.is_asked.store(true, Ordering::Release);
        self.asked.send_modify(|asked| {
            if asked.is_none() || cause == LockCause::Operator {
                *asked = Some(cause);
            }
        });
    }

    /// Returns once it was asked for.
    pub async fn asked(&self) -> LockCause {
        let mut asked = self.asked.subscribe();
        loop {
            if let Some(cause) = *asked.borrow_and_update() {
                return cause;
            }
            if asked.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tells whether it was asked for: then nothing new is begun.
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// Appends the record of a lock; if the log does not take it now, the next one begins with it.
    pub fn record(&self, log: &Log, leaf: Leaf) -> Result<u64, LogFailed> {
        log.append(leaf.clone()).inspect_err(|_| {
            if !self.unrecorded.add(leaf) {
                tracing::error!("the record of a lock is lost");
            }
        })
    }

    /// Returns the data directory, where the marker goes.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

/// Returns what is in the marker, for the record of its end.
pub fn marked_by(data_dir: &Path) -> Option<String> {
    let text = fs::read(data_dir.join(MARKER)).ok()?;
    Some(String::from_utf8_lossy(&text).chars().take(MARKER_CHARS_SHOWN).collect())
}

/// Makes the marker, durably; one that is there gets another line. Blocks.
pub fn mark(data_dir: &Path, by: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(data_dir.join(MARKER))?;
    writeln!(file, "{by} locked this node. It serves again after `kms operator unlock`, and not before.")?;
    file.sync_all()?;
    File::open(data_dir)?.sync_all()
}

/// Tells whether an operator locked this node. What is in the marker does not count: one that is there is one.
pub fn is_marked(data_dir: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(data_dir.join(MARKER)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the marker, durably. No error if there is none. Blocks.
pub fn unmark(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(MARKER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => File::open(data_dir)?.sync_all(),
    }
}

const MARKER_CHARS_SHOWN: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_stays_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_marked(dir.path()).unwrap());
        for _ in 0..2 {
            mark(dir.path(), "spiffe://example.com/op").unwrap();
            assert!(is_marked(dir.path()).unwrap());
        }
        for _ in 0..2 {
            unmark(dir.path()).unwrap();
            assert!(!is_marked(dir.path()).unwrap());
        }
        // A link that leads nowhere is a marker too.
        std::os::unix::fs::symlink("nowhere", dir.path().join(MARKER)).unwrap();
        assert!(is_marked(dir.path()).unwrap());
    }

    #[tokio::test]
    async fn an_operators_lock_goes_before_any_other() {
        let lock = Lock::new(Path::new("."), Arc::default());
        lock.ask(LockCause::Refused);
        lock.ask(LockCause::Offline);
        assert_eq!(lock.asked().await, LockCause::Refused);
        lock.ask(LockCause::Operator);
        lock.ask(LockCause::Refused);
        assert_eq!(lock.asked().await, LockCause::Operator);
        assert!(lock.is_asked());
    }
}
