//! The data directory: who has it, and what is in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why a data directory cannot be used. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be read or written.
    #[error("the data directory {0} cannot be used: {1}; check that it exists and belongs to this user")]
    Unusable(PathBuf, std::io::Error),
    /// Somebody else has it.
    #[error(
        "another kms-server has the data directory {0} open: stop it first, or give this one a directory of its own"
    )]
    Taken(PathBuf),
    /// There is a cluster already.
    #[error("{0} holds a cluster already: start it with `kms-server serve`, or give `init` an empty directory")]
    Made(PathBuf),
    /// There is half a cluster.
    #[error(
        "{0} is an unfinished `init`: nothing was ever stored in it; remove its hsm, seg and store directories and run `kms-server init` again"
    )]
    Unfinished(PathBuf),
    /// There is nothing.
    #[error("{0} holds no cluster: make one with `kms-server init`, or check data_dir")]
    Empty(PathBuf),
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

/// What a data directory holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Contents {
    Nothing,
    Part,
    Cluster,
}

impl DataDir {
    /// Takes a directory to make a cluster in; makes it if there is none.
    pub fn take_for_init(dir: &Path) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable(dir.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        let taken = Self::take(dir)?;
        match contents(dir) {
            Contents::Nothing => Ok(taken),
            Contents::Part => Err(DataDirError::Unfinished(dir.to_owned())),
            Contents::Cluster => Err(DataDirError::Made(dir.to_owned())),
        }
    }

    /// Takes a directory to serve the cluster in it.
    pub fn take_to_serve(dir: &Path) -> Result<Self, DataDirError> {
        if contents(dir) == Contents::Nothing {
            return Err(DataDirError::Empty(dir.to_owned()));
        }
        let taken = Self::take(dir)?;
        match contents(dir) {
            Contents::Cluster => Ok(taken),
            Contents::Part => Err(DataDirError::Unfinished(dir.to_owned())),
            Contents::Nothing => Err(DataDirError::Empty(dir.to_owned())),
        }
    }

    fn take(dir: &Path) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable(dir.to_owned(), error);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::Taken(dir.to_owned())),
            Err(error) => Err(unusable(error.into())),
        }
    }
}

fn contents(dir: &Path) -> Contents {
    match ["hsm", "seg", "store"].map(|part| dir.join(part).exists()) {
        [false, false, false] => Contents::Nothing,
        [true, true, true] => Contents::Cluster,
        _ => Contents::Part,
    }
}
