//! Why the software HSM did not do it: what was found, what was expected, what to do.
//!
//! **Invariant:** paths, modes and numbers are fine here; a PIN or a key never is.

use std::io;
use std::path::{Path, PathBuf};

use crate::backend::BackendError;
use crate::crypto::keystore_file::KeystoreError;
use crate::noun::{EpochNumber, Uid};

use super::attempts;
use super::pin::PIN_BYTES_MAX;

#[derive(Debug, thiserror::Error)]
pub(in crate::backend) enum SoftwareError {
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },

    #[error(
        "the keystore directory {path} holds no master key: mount the right one, or restore the export of the master key there"
    )]
    Empty { path: PathBuf },

    #[error("there is no keystore file {path}, though there are others of this backend: restore it from its export")]
    Missing { path: PathBuf },

    #[error(
        "there is no keystore file {path} to destroy, nor a sign that it was destroyed: put it back, so that it can be overwritten; or, if every copy of it is gone, say so with an empty file {marker}"
    )]
    NothingToDestroy { path: PathBuf, marker: PathBuf },

    #[error("this version of the master key is disabled: {marker} says so")]
    Disabled { marker: PathBuf },

    #[error("this version of the master key was destroyed: {marker} says so")]
    Destroyed { marker: PathBuf },

    #[error("{path} has mode {mode:04o}, so others than its owner may use it: chmod 0600 {path}")]
    FileMode { path: PathBuf, mode: u32 },

    #[error(
        "the keystore directory {path} has mode {mode:04o}, so others than its owner may replace its files: chmod 0700 {path}"
    )]
    DirectoryMode { path: PathBuf, mode: u32 },

    #[error("the keystore directory {path} is no directory")]
    NotDirectory { path: PathBuf },

    #[error("{path} is no regular file: put the file itself there")]
    NotFile { path: PathBuf },

    #[error("the PIN in {path} has {} bytes without its line end, but must have 1 to {PIN_BYTES_MAX}", size(*.bytes))]
    PinSize { path: PathBuf, bytes: usize },

    #[error("cannot open the keystore file {path}, with the PIN of {pin_file}, for cluster {cluster}")]
    Keystore { path: PathBuf, pin_file: PathBuf, cluster: Uid, source: KeystoreError },

    #[error(
        "cannot open the keystore file {path}, with the PIN of {pin_file}, for cluster {cluster}; {failed} {} in a row did not fit by now: check that {pin_file} is the PIN of this cluster and that the keystore file is as it was made. {}. This is a delay and not a lock: the right PIN opens at any time",
        if *.failed == 1 { "try" } else { "tries" }, next_wait(*.failed)
    )]
    WrongPin { path: PathBuf, pin_file: PathBuf, cluster: Uid, failed: u32, source: KeystoreError },

    #[error("cannot make a master key")]
    Make { source: KeystoreError },

    #[error("the keystore directory {path} has files of two master keys, {one} and {other}: leave only those of one")]
    TwoMasterKeys { path: PathBuf, one: Uid, other: Uid },

    #[error("{0:?} is not the name of a keystore file")]
    Reference(String),

    #[error("this backend serves cluster {ours}, not cluster {asked}")]
    OtherCluster { ours: Uid, asked: Uid },

    #[error("version {version} of the master key is not that of epoch {epoch}")]
    OtherEpoch { version: EpochNumber, epoch: EpochNumber },

    #[error("the master key has had version {highest}, so version {version} is never made: numbers only go up")]
    NumberUsed { version: EpochNumber, highest: EpochNumber },

    #[error("nothing is scheduled here: a keystore file is destroyed at once, or not at all")]
    NothingScheduled,

    #[error(
        "{path} is not the list of exports that was written here: put it back as it was; without it the numbers of exports would begin anew"
    )]
    Exports { path: PathBuf },
}

impl SoftwareError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| SoftwareError::Io { doing, path: path.to_owned(), source }
    }
}

fn size(bytes: usize) -> String {
    if bytes > PIN_BYTES_MAX { format!("more than {PIN_BYTES_MAX}") } else { bytes.to_string() }
}

fn next_wait(failed: u32) -> String {
    format!("The next try waits {} s first", attempts::wait_after(failed).as_secs_f64())
}

/// The one table. *Unavailable* is what time or an operator's mount may mend, and says nothing
/// about the key: the disk, the directory, the PIN file's absence, locked memory. *Credentials* is a PIN
/// that is none or does not fit. *Denied* is an answer: permission, state, a file that is not what it must be. An empty directory counts as
/// one that is not mounted: a service that runs must not take a lost mount for a revoked key.
impl From<SoftwareError> for BackendError {
    fn from(error: SoftwareError) -> Self {
        match &error {
            SoftwareError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                BackendError::Denied(error.into())
            }
            SoftwareError::Io { .. }
            | SoftwareError::Empty { .. }
            | SoftwareError::NotDirectory { .. }
            | SoftwareError::Keystore { source: KeystoreError::ArenaFull, .. }
            | SoftwareError::Make { source: KeystoreError::ArenaFull } => BackendError::Unavailable(error.into()),
            SoftwareError::PinSize { .. } | SoftwareError::WrongPin { .. } => BackendError::Credentials(error.into()),
            SoftwareError::Missing { .. }
            | SoftwareError::NothingToDestroy { .. }
            | SoftwareError::Disabled { .. }
            | SoftwareError::Destroyed { .. }
            | SoftwareError::FileMode { .. }
            | SoftwareError::DirectoryMode { .. }
            | SoftwareError::NotFile { .. }
            | SoftwareError::Keystore { .. }
            | SoftwareError::Make { .. }
            | SoftwareError::TwoMasterKeys { .. }
            | SoftwareError::Reference(_)
            | SoftwareError::OtherCluster { .. }
            | SoftwareError::OtherEpoch { .. }
            | SoftwareError::NumberUsed { .. }
            | SoftwareError::NothingScheduled
            | SoftwareError::Exports { .. } => BackendError::Denied(error.into()),
        }
    }
}
