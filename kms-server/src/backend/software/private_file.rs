//! A private file: readable by its owner alone, made whole or not at all, overwritten before it goes.
//!
//! Everything here blocks; the software HSM calls it from blocking threads only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::noun::Random;

use super::error::SoftwareError;

/// What a temporary file's name ends with. It begins with a dot.
pub(in crate::backend) const TEMPORARY: &str = ".tmp";

/// Whether a path may end in a symbolic link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::backend) enum Link {
    /// It may: mounted secrets are links.
    Followed,
    /// It may not: what is overwritten must be the file that was read.
    Refused,
}

/// Reads a private file of up to `bytes_max` bytes; of a longer one, one byte more than that.
pub(in crate::backend) fn read(path: &Path, link: Link, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, SoftwareError> {
    // Not blocking: otherwise a pipe put in the file's place would hold the backend for ever.
    let file = open(OpenOptions::new().read(true), path, link, "read")?;
    let mode = file.metadata().map_err(SoftwareError::io("read", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SoftwareError::FileMode { path: path.to_owned(), mode });
    }
    let limit = bytes_max + 1;
    // Room for all of it from the start, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(SoftwareError::io("read", path))?;
    Ok(bytes)
}

/// Makes a private file with these bytes, whole and durable; one that is there is never replaced.
pub(in crate::backend) fn create(path: &Path, bytes: &[u8]) -> Result<(), SoftwareError> {
    let temporary = temporary_of(path);
    // What an earlier attempt left. Only the name goes: it may be a second name of the finished file.
    remove_if_there(&temporary)?;
    let made = write_new(&temporary, bytes).and_then(|()| fs::hard_link(&temporary, path));
    let removed = remove_if_there(&temporary);
    made.map_err(SoftwareError::io("create", path))?;
    removed?;
    sync_directory_of(path)
}

/// Puts a private file with these bytes in the place of one that may be there, whole and durable.
pub(in crate::backend) fn replace(path: &Path, bytes: &[u8]) -> Result<(), SoftwareError> {
    let temporary = temporary_of(path);
    remove_if_there(&temporary)?;
    let made = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if made.is_err() {
        // What is reported is why it was not made, whatever becomes of its beginning.
        drop(remove_if_there(&temporary));
    }
    made.map_err(SoftwareError::io("write", path))?;
    sync_directory_of(path)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn temporary_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMPORARY}"))
}

/// Makes an empty private file that states a fact by its name; durable, and no error if it is there.
pub(in crate::backend) fn create_marker(path: &Path) -> Result<(), SoftwareError> {
    let marker = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    marker.and_then(|file| file.sync_all()).map_err(SoftwareError::io("create", path))?;
    // Also when it was there: the attempt that made it may have ended before this line.
    sync_directory_of(path)
}

/// Overwrites a file's blocks through its open descriptor, syncs, and only then removes its name.
pub(in crate::backend) fn overwrite_and_remove(path: &Path, rng: &dyn Random) -> Result<(), SoftwareError> {
    let mut file = open(OpenOptions::new().write(true), path, Link::Refused, "overwrite")?;
    overwrite(&mut file, rng).map_err(SoftwareError::io("overwrite", path))?;
    remove_if_there(path)?;
    sync_directory_of(path)
}

fn overwrite(file: &mut File, rng: &dyn Random) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    file.rewind()?;
    // Random, not zero: some file systems turn zeros into a hole and leave the old block as it was.
    let mut noise = [0; 4096];
    while left > 0 {
        let part = noise.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        rng.fill(&mut noise[..part]);
        file.write_all(&noise[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

/// Makes a directory that only its owner may enter; no error if it is there.
pub(in crate::backend) fn create_directory(path: &Path) -> Result<(), SoftwareError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(SoftwareError::io("create", path))?;
    sync_directory_of(path)
}

/// Refuses a directory in which others could put or replace files.
pub(in crate::backend) fn check_directory(path: &Path) -> Result<(), SoftwareError> {
    let found = fs::metadata(path).map_err(SoftwareError::io("enter", path))?;
    let mode = found.mode() & 0o7777;
    if !found.is_dir() {
        Err(SoftwareError::NotDirectory { path: path.to_owned() })
    } else if mode & 0o022 != 0 {
        Err(SoftwareError::DirectoryMode { path: path.to_owned(), mode })
    } else {
        Ok(())
    }
}

/// Removes a name, if it is there.
pub(in crate::backend) fn remove_if_there(path: &Path) -> Result<(), SoftwareError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SoftwareError::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the names in a file's directory durable.
pub(in crate::backend) fn sync_directory_of(path: &Path) -> Result<(), SoftwareError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(SoftwareError::io("sync", directory))
}

fn open(options: &mut OpenOptions, path: &Path, link: Link, doing: &'static str) -> Result<File, SoftwareError> {
    let follow = match link {
        Link::Followed => 0,
        Link::Refused => libc::O_NOFOLLOW,
    };
    let file = match options.custom_flags(libc::O_NONBLOCK | follow).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(SoftwareError::NotFile { path: path.to_owned() });
        }
        opened => opened.map_err(SoftwareError::io(doing, path))?,
    };
    let found = file.metadata().map_err(SoftwareError::io(doing, path))?;
    if found.is_file() { Ok(file) } else { Err(SoftwareError::NotFile { path: path.to_owned() }) }
}
