//! The list of exports: which copies of keystore files left their directory on purpose.
//!
//! ```text
//! exports = "kms1-exports 1\n" || (serial || " " || versions, separated by commas || "\n")*      mode 0600
//! ```
//! Serials count from 1. One is used up before its copies exist, so that two copies that differ never bear the same.
//! Whoever destroys a version reads here which copies of it are still to be destroyed.

use std::path::{Path, PathBuf};

use super::error::SoftwareError;
use super::private_file::{self, Link};
use crate::noun::EpochNumber;

/// The file's name in the directory of keystore files.
pub(super) const FILE_NAME: &str = "exports";

/// The file, in its directory.
#[derive(Clone, Copy)]
pub(super) struct Exports<'a>(pub(super) &'a Path);

impl Exports<'_> {
    fn path(self) -> PathBuf {
        self.0.join(FILE_NAME)
    }

    /// Notes an export of these versions, durably, and returns its serial. Under the directory's lock.
    pub(super) fn add(self, versions: &[EpochNumber]) -> Result<u32, SoftwareError> {
        let mut all = self.read()?;
        let none = || SoftwareError::Exports { path: self.path() };
        let serial = all.last().map_or(Some(1), |(last, _)| last.checked_add(1)).ok_or_else(none)?;
        all.push((serial, versions.to_vec()));
        private_file::replace(&self.path(), text_of(&all).as_bytes())?;
        Ok(serial)
    }

    /// Returns the serials of the exports that hold a version of which this is true.
    pub(super) fn of_versions(self, is_meant: impl Fn(EpochNumber) -> bool) -> Result<Vec<u32>, SoftwareError> {
        let all = self.read()?;
        let meant = all.iter().filter(|(_, versions)| versions.iter().any(|version| is_meant(*version)));
        Ok(meant.map(|(serial, _)| *serial).collect())
    }

    fn read(self) -> Result<Vec<(u32, Vec<EpochNumber>)>, SoftwareError> {
        let bytes = match private_file::read(&self.path(), Link::Refused, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(SoftwareError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            Err(other) => return Err(other),
        };
        let text = std::str::from_utf8(&bytes).ok();
        text.and_then(parse).ok_or_else(|| SoftwareError::Exports { path: self.path() })
    }
}

fn parse(text: &str) -> Option<Vec<(u32, Vec<EpochNumber>)>> {
    let lines = text.strip_prefix(HEAD)?;
    let mut all = Vec::new();
    for (serial, line) in (1..).zip(lines.split_terminator('\n')) {
        let (number, versions) = line.split_once(' ')?;
        let versions = versions.split(',').filter(|version| !version.is_empty());
        let versions = versions.map(|version| EpochNumber::new(version.parse().ok()?)).collect::<Option<_>>()?;
        all.push((number.parse().ok().filter(|number| *number == serial)?, versions));
    }
    // One spelling only.
    (text_of(&all) == text).then_some(all)
}

fn text_of(all: &[(u32, Vec<EpochNumber>)]) -> String {
    let line = |(serial, versions): &(u32, Vec<EpochNumber>)| {
        let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
        format!("{serial} {}\n", versions.join(","))
    };
    HEAD.to_owned() + &all.iter().map(line).collect::<String>()
}

const HEAD: &str = "kms1-exports 1\n";
const BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_count_up_and_name_their_versions() {
        let dir = tempfile::tempdir().unwrap();
        let exports = Exports(dir.path());
        let [one, two, three] = [1, 2, 3].map(|number| EpochNumber::new(number).unwrap());
        assert_eq!(exports.of_versions(|_| true).unwrap(), [] as [u32; 0]);
        assert_eq!(exports.add(&[one]).unwrap(), 1);
        assert_eq!(exports.add(&[one, two]).unwrap(), 2);
        assert_eq!(exports.add(&[]).unwrap(), 3);
        assert_eq!(exports.of_versions(|version| version == one).unwrap(), [1, 2]);
        assert_eq!(exports.of_versions(|version| version == two).unwrap(), [2]);
        assert_eq!(exports.of_versions(|version| version == three).unwrap(), [] as [u32; 0]);
    }

    #[test]
    fn a_list_that_was_changed_is_not_begun_anew() {
        for bad in ["", "kms1-exports 2\n", "kms1-exports 1\n2 1\n", "kms1-exports 1\n1 1", "kms1-exports 1\n1 0\n"] {
            let dir = tempfile::tempdir().unwrap();
            private_file::replace(&dir.path().join(FILE_NAME), bad.as_bytes()).unwrap();
            assert!(matches!(Exports(dir.path()).add(&[]), Err(SoftwareError::Exports { .. })), "{bad:?}");
        }
    }
}
