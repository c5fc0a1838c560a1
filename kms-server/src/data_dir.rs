//! The data directory: who has it, and what is in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::audit::replay::read_unverified;

/// Why a data directory cannot be used. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be read or written.
    #[error("{0} cannot be used: {1}; check that it is a directory, that it belongs to this user, and data_dir")]
    Unusable(PathBuf, std::io::Error),
    /// Somebody else has it.
    #[error(
        "another kms-server has the data directory {0} open: stop it first, or give this one a directory of its own"
    )]
    Taken(PathBuf),
    /// There is a cluster already.
    #[error("{0} holds a cluster already: start it with `kms-server serve`, or give `init` an empty directory")]
    Made(PathBuf),
    /// An init did not come to its end.
    #[error(
        "{0} is an unfinished `init`: nothing was ever stored in it; remove its hsm, seg and store directories and run `kms-server init` again"
    )]
    Unfinished(PathBuf),
    /// A part of a cluster that was in use is not there.
    #[error(
        "{0} has no {1} directory, but the cluster in it was in use: a disk is not mounted, or a restore forgot it; put {1} back as it was, nothing was changed"
    )]
    Missing(PathBuf, &'static str),
    /// A part by name, and nothing that belongs to it.
    #[error(
        "{0} has a {1} directory that is not of a cluster: the data directory is somebody else's; give `init` an empty one, or check data_dir"
    )]
    Foreign(PathBuf, &'static str),
    /// It holds something else.
    #[error("{0} holds {1:?}, which is not of a cluster: give `init` a directory of its own")]
    Strange(PathBuf, std::ffi::OsString),
    /// Others could change what is in it.
    #[error("{0} can be written by others (mode {1:04o}): take that away with `chmod go-w`")]
    Writable(PathBuf, u32),
    /// It is something else.
    #[error("the data directory {0} is no directory: give the path of one, or check data_dir")]
    NotDirectory(PathBuf),
    /// It is another user's.
    #[error(
        "the data directory {dir} belongs to the user with id {owner}, and kms-server runs as {us}: run it as its owner, or give the whole directory to the user that it runs as with `chown -R {us}`"
    )]
    Owner {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// There is nothing.
    #[error("{0} holds no cluster: make one with `kms-server init`, or check data_dir")]
    Empty(PathBuf),
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Takes a directory to make a cluster in; makes it if there is none. Beside what a cluster is
    /// made of it may hold only `ours`, files that the settings name.
    pub fn take_for_init(dir: &Path, ours: &[&Path]) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable(dir.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        refuse_if_of_others(dir)?;
        if look(dir)? {
            return Err(DataDirError::Made(dir.to_owned()));
        }
        refuse_strangers(dir, ours)?;
        Self::take(dir)
    }

    /// Takes a directory to serve the cluster in it.
    pub fn take_to_serve(dir: &Path) -> Result<Self, DataDirError> {
        // Before the lock is made: a directory that is none of ours stays as it is.
        if !Self::look(dir)? {
            return Err(DataDirError::Empty(dir.to_owned()));
        }
        let taken = Self::take(dir)?;
        if look(dir)? { Ok(taken) } else { Err(DataDirError::Empty(dir.to_owned())) }
    }

    /// Answers whether there is a cluster that can be served, without taking the directory; nothing where nobody has
    /// made one.
    pub fn look(dir: &Path) -> Result<bool, DataDirError> {
        if !dir.try_exists().map_err(|error| DataDirError::Unusable(dir.to_owned(), error))? {
            return Ok(false);
        }
        refuse_if_of_others(dir)?;
        look(dir)
    }

    /// Takes a directory for this process alone, whatever is in it.
    pub fn take(dir: &Path) -> Result<Self, DataDirError> {
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

/// Whoever owns a directory, or can write it, can put other files into it. And what a daemon of another user leaves
/// there, the right one cannot use.
fn refuse_if_of_others(dir: &Path) -> Result<(), DataDirError> {
    let found = std::fs::metadata(dir).map_err(|error| DataDirError::Unusable(dir.to_owned(), error))?;
    if !found.is_dir() {
        return Err(DataDirError::NotDirectory(dir.to_owned()));
    }
    let (owner, us) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        return Err(DataDirError::Owner { dir: dir.to_owned(), owner, us });
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(DataDirError::Writable(dir.to_owned(), mode)) }
}

fn refuse_strangers(dir: &Path, ours: &[&Path]) -> Result<(), DataDirError> {
    let unusable = |error| DataDirError::Unusable(dir.to_owned(), error);
    for entry in std::fs::read_dir(dir).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name();
        let known = PARTS.iter().chain(&["ledger", "lock", "lost+found"]).any(|known| name == *known);
        if !known && !ours.iter().any(|path| **path == entry.path()) {
            return Err(DataDirError::Strange(dir.to_owned(), name));
        }
    }
    Ok(())
}

/// Answers whether there is a cluster, or nothing; all else is told apart, because the advice for one
/// would lose everything in another.
fn look(dir: &Path) -> Result<bool, DataDirError> {
    let mut parts = PARTS.map(|part| (part, false));
    for (part, there) in &mut parts {
        *there = is_filled(&dir.join(*part))?;
    }
    if parts.iter().all(|(_, there)| *there) {
        return Ok(true);
    }
    let there: Vec<&'static str> = parts.iter().filter(|(_, there)| *there).map(|(part, _)| *part).collect();
    let missing = parts.iter().find(|(_, there)| !*there).map_or("store", |(part, _)| *part);
    // `init` leaves two records; whoever served has left more.
    let log = read_unverified(&dir.join("seg")).unwrap_or_default();
    match &there[..] {
        [] if is_filled(&dir.join("ledger"))? => Err(DataDirError::Missing(dir.to_owned(), missing)),
        [] => Ok(false),
        _ if log.len() > RECORDS_OF_INIT => Err(DataDirError::Missing(dir.to_owned(), missing)),
        [one @ ("store" | "seg")] if log.is_empty() => Err(DataDirError::Foreign(dir.to_owned(), one)),
        [.., "store"] => Err(DataDirError::Missing(dir.to_owned(), missing)),
        _ => Err(DataDirError::Unfinished(dir.to_owned())),
    }
}

/// What cannot be looked into is neither there nor missing.
fn is_filled(part: &Path) -> Result<bool, DataDirError> {
    match std::fs::read_dir(part) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DataDirError::Unusable(part.to_owned(), error)),
    }
}

const PARTS: [&str; 3] = ["hsm", "seg", "store"];
const RECORDS_OF_INIT: usize = 2;
