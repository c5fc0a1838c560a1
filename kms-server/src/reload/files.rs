//! Whether the files that a reload reads are others than they were.
//!
//! By name, through links: what is mounted into a container is replaced by turning a link, which a watch of the file that
//! was there would not see. First by what the directory says of them, and by their bytes only where that is different.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::crypto::sha256;

/// What files were at one look.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Look(Vec<Seen>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    path: PathBuf,
    /// None of a file that is not there.
    stat: Option<Stat>,
    /// SHA-256 of its bytes; none of a file that cannot be read.
    bytes: Option<[u8; 32]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also of a file whose time was set back to what it was.
    changed: (i64, i64),
    /// Who may read and write it is part of whether it is taken.
    mode: u32,
    owner: (u32, u32),
}

impl Look {
    /// Looks at files, and takes the bytes of those from an earlier look that look the same.
    pub(crate) fn at(paths: &[PathBuf], earlier: &Look) -> Self {
        let look = |path: &PathBuf| {
            let stat = std::fs::metadata(path).ok().map(|found| Stat {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
                mode: found.mode(),
                owner: (found.uid(), found.gid()),
            });
            let before = earlier.0.iter().find(|seen| seen.path == *path && seen.stat == stat);
            let bytes = match before {
                Some(before) => before.bytes,
                None => stat.and_then(|_| read(path)),
            };
            Seen { path: path.clone(), stat, bytes }
        };
        Self(paths.iter().map(look).collect())
    }

    /// Tells whether a reload would read something else than at another look.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let read = |seen: &Seen| {
            let may = seen.stat.map(|stat| (stat.mode, stat.owner));
            (seen.path.clone(), seen.bytes, may)
        };
        !self.0.iter().map(read).eq(other.0.iter().map(read))
    }
}

fn read(path: &Path) -> Option<[u8; 32]> {
    // A pipe that nobody writes to must not be waited for.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblock).open(path).ok()?;
    let found = file.metadata().ok().filter(|found| found.is_file())?;
    // One of them is a private key.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len().min(FILE_BYTES_MAX)).ok()? + 1));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(sha256(&bytes))
}

/// The largest file that a reload takes: a revocation list.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_would_read_is_what_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let paths = [a.clone(), b.clone()];
        std::fs::write(&a, "one").unwrap();
        let first = Look::at(&paths, &Look::default());
        assert!(!Look::at(&paths, &first).differs(&first));
        // The same bytes in another file are no change, a file that appears is one.
        std::fs::write(folder.path().join("c"), "one").unwrap();
        std::fs::rename(folder.path().join("c"), &a).unwrap();
        let renamed = Look::at(&paths, &first);
        assert!(renamed != first && !renamed.differs(&first));
        std::fs::write(&b, "two").unwrap();
        assert!(Look::at(&paths, &renamed).differs(&renamed));
        // Through a link, as volumes are replaced in a container.
        std::fs::remove_file(&b).unwrap();
        std::os::unix::fs::symlink(&a, &b).unwrap();
        let linked = Look::at(&paths, &first);
        std::fs::write(folder.path().join("c"), "three").unwrap();
        std::fs::remove_file(&b).unwrap();
        std::os::unix::fs::symlink(folder.path().join("c"), &b).unwrap();
        assert!(Look::at(&paths, &linked).differs(&linked));
    }
}
