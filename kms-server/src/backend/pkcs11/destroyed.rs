//! Which keys of tokens were destroyed here. A token says nothing of a key that is gone, and a key that was never there
//! must not count as destroyed.
//!
//! ```text
//! <label>.destroyed = "kms1-pkcs11-destroyed 1 " || ("begun" | "done") || " " || token's serial number in hex || "\n"
//! ```
//! `begun` is durable before the key is destroyed, so that the version refuses every use from there on, whatever comes in
//! between. `done` follows once the token has been asked again and has no such key. A key that is gone although only
//! `begun` is noted was destroyed in between if it is the same token.
//!
//! Everything here blocks.

use std::path::{Path, PathBuf};

use super::error::Pkcs11Error;
use crate::backend::software::error::SoftwareError;
use crate::backend::software::private_file::{self, Link};

/// The note of one key.
pub(super) struct DestroyedNote {
    pub(super) path: PathBuf,
}

/// How far a destruction has come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// None was ordered.
    None,
    /// It was ordered.
    Begun { serial: String },
    /// The key is gone.
    Done { serial: String },
}

impl DestroyedNote {
    pub(super) fn of(dir: &Path, label: &str) -> Self {
        Self { path: dir.join(format!("{label}{SUFFIX}")) }
    }

    pub(super) fn read(&self) -> Result<Progress, Pkcs11Error> {
        match private_file::read(&self.path, Link::Refused, FILE_BYTES_MAX) {
            // Whatever is in it: who made such a file meant that the key is not to be used.
            Ok(bytes) => Ok(parse(&bytes).unwrap_or(Progress::Begun { serial: String::new() })),
            Err(SoftwareError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Progress::None)
            }
            Err(error) => Err(Pkcs11Error::note(error)),
        }
    }

    pub(super) fn begin(&self, serial: &str) -> Result<(), Pkcs11Error> {
        private_file::replace(&self.path, line("begun", serial).as_bytes()).map_err(Pkcs11Error::note)
    }

    pub(super) fn end(&self, serial: &str) -> Result<(), Pkcs11Error> {
        private_file::replace(&self.path, line("done", serial).as_bytes()).map_err(Pkcs11Error::note)
    }
}

fn line(word: &str, serial: &str) -> String {
    format!("{HEAD}{word} {}\n", hex::encode(serial))
}

fn parse(bytes: &[u8]) -> Option<Progress> {
    let rest = std::str::from_utf8(bytes).ok()?.strip_prefix(HEAD)?.strip_suffix('\n')?;
    let (word, serial) = rest.split_once(' ')?;
    let serial = String::from_utf8(hex::decode(serial).ok()?).ok()?;
    match word {
        "begun" => Some(Progress::Begun { serial }),
        "done" => Some(Progress::Done { serial }),
        _ => None,
    }
}

const SUFFIX: &str = ".destroyed";
const HEAD: &str = "kms1-pkcs11-destroyed 1 ";
const FILE_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destruction_is_noted_before_and_after() {
        let dir = tempfile::tempdir().unwrap();
        let note = DestroyedNote::of(dir.path(), "kms1-aa-00000001");
        assert_eq!(note.read().unwrap(), Progress::None);
        for serial in ["77 a\u{fc}", ""] {
            note.begin(serial).unwrap();
            assert_eq!(note.read().unwrap(), Progress::Begun { serial: serial.into() });
            note.end(serial).unwrap();
            assert_eq!(note.read().unwrap(), Progress::Done { serial: serial.into() });
        }
        for odd in ["", "kms1-pkcs11-destroyed 1 done\n", "kms1-pkcs11-destroyed 1 done zz\n"] {
            private_file::replace(&note.path, odd.as_bytes()).unwrap();
            // It refuses every use, and proves no destruction.
            assert_eq!(note.read().unwrap(), Progress::Begun { serial: String::new() }, "{odd:?}");
        }
    }
}
