//! The directory of keystore files: one per version of the master key, and markers beside them.
//!
//! ```text
//! <master id, 32 hex digits>-<version, 8 digits>.kms1hsm     the key under the PIN, mode 0600
//! <the same>.kms1hsm.disabled                                 empty: this version refuses every use
//! <the same>.kms1hsm.destroyed                                empty: this version is gone for good
//! wrong-pin                                                   how often the PIN did not fit: see `attempts`
//! exports                                                     which copies left this directory: see `export`
//! ```
//! A state is a fact added beside the key file, so the file itself is written once and overwritten
//! once, and a copy that somebody puts back changes nothing. A `destroyed` marker stays for ever: it
//! is why a version number is never used twice, although the file that bore it is gone.
//! The master id is made with the first version and lives in the names: there is nothing else to
//! keep, and no state in which an id exists without a key.
//!
//! Everything here blocks; the software HSM calls it from blocking threads only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::backend::MasterKeyRef;
use crate::crypto::keystore_file::FILE_BYTES;
use crate::noun::{EpochNumber, Random, Uid};

use super::error::SoftwareError;
use super::private_file::{self, Link, TEMPORARY};
use super::{attempts, export};

/// Which version of which master key: the name of its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct VersionName {
    pub(super) master_id: Uid,
    pub(super) version: EpochNumber,
}

impl VersionName {
    /// Takes a reference that came from outside; nothing but the exact name of a keystore file
    /// is one, so it cannot lead out of the directory.
    pub(super) fn parse(reference: &MasterKeyRef) -> Result<Self, SoftwareError> {
        Self::of_file(&reference.0)
            .ok_or_else(|| SoftwareError::Reference(reference.0.chars().take(REFERENCE_SHOWN_CHARS).collect()))
    }

    pub(super) fn reference(self) -> MasterKeyRef {
        MasterKeyRef(format!("{}-{:08}{KEYSTORE}", self.master_id, self.version.get()))
    }

    fn of_file(file_name: &str) -> Option<Self> {
        let (id, number) = file_name.strip_suffix(KEYSTORE)?.split_once('-')?;
        let mut master_id = [0; 16];
        hex::decode_to_slice(id, &mut master_id).ok()?;
        let name = Self { master_id: Uid::from_bytes(master_id), version: EpochNumber::new(number.parse().ok()?)? };
        // One spelling only: no capitals, signs or further zeros.
        (name.reference().0 == file_name).then_some(name)
    }
}

/// Whether a version can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FileState {
    Absent,
    Enabled,
    Disabled,
    Destroyed,
}

/// What there is of a version, by the names in the directory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) keystore: bool,
    disabled: bool,
    destroyed: bool,
}

impl Seen {
    pub(super) fn state(self) -> FileState {
        match self {
            Seen { destroyed: true, .. } => FileState::Destroyed,
            Seen { disabled: true, .. } => FileState::Disabled,
            Seen { keystore: true, .. } => FileState::Enabled,
            Seen { keystore: false, disabled: false, destroyed: false } => FileState::Absent,
        }
    }
}

/// All that lies in the directory.
pub(super) struct Contents {
    pub(super) master_id: Option<Uid>,
    pub(super) versions: BTreeMap<EpochNumber, Seen>,
    /// Files that are none of ours: a copy of a keystore file under another name outlives its destruction.
    pub(super) others: usize,
    unfinished: Vec<PathBuf>,
}

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct KeystoreDir(pub(super) PathBuf);

impl KeystoreDir {
    pub(super) fn keystore(&self, name: VersionName) -> PathBuf {
        self.0.join(name.reference().0)
    }

    pub(super) fn disabled_marker(&self, name: VersionName) -> PathBuf {
        self.0.join(name.reference().0 + DISABLED)
    }

    pub(super) fn destroyed_marker(&self, name: VersionName) -> PathBuf {
        self.0.join(name.reference().0 + DESTROYED)
    }

    /// Waits until no other process changes the directory; the answer ends with the file.
    pub(super) fn lock(&self) -> Result<File, SoftwareError> {
        private_file::check_directory(&self.0)?;
        let directory = File::open(&self.0).map_err(SoftwareError::io("open", &self.0))?;
        directory.lock().map_err(SoftwareError::io("lock", &self.0))?;
        Ok(directory)
    }

    pub(super) fn list(&self) -> Result<Contents, SoftwareError> {
        private_file::check_directory(&self.0)?;
        let mut contents = Contents { master_id: None, versions: BTreeMap::new(), others: 0, unfinished: Vec::new() };
        for entry in fs::read_dir(&self.0).map_err(SoftwareError::io("list", &self.0))? {
            let file_name = entry.map_err(SoftwareError::io("list", &self.0))?.file_name();
            let file_name = file_name.to_string_lossy();
            let is_note = |note| file_name == note || file_name == format!(".{note}{TEMPORARY}");
            if is_note(attempts::FILE_NAME) || is_note(export::FILE_NAME) {
                continue;
            }
            let (keystore, seen) = if let Some(keystore) = file_name.strip_suffix(DISABLED) {
                (keystore, Seen { disabled: true, ..Seen::default() })
            } else if let Some(keystore) = file_name.strip_suffix(DESTROYED) {
                (keystore, Seen { destroyed: true, ..Seen::default() })
            } else {
                (&*file_name, Seen { keystore: true, ..Seen::default() })
            };
            let Some(name) = VersionName::of_file(keystore) else {
                if file_name.starts_with('.') && file_name.ends_with(&format!("{KEYSTORE}{TEMPORARY}")) {
                    contents.unfinished.push(self.0.join(&*file_name));
                } else {
                    contents.others += 1;
                }
                continue;
            };
            if let Some(one) = contents.master_id.replace(name.master_id)
                && one != name.master_id
            {
                return Err(SoftwareError::TwoMasterKeys { path: self.0.clone(), one, other: name.master_id });
            }
            let known = contents.versions.entry(name.version).or_default();
            known.keystore |= seen.keystore;
            known.disabled |= seen.disabled;
            known.destroyed |= seen.destroyed;
        }
        Ok(contents)
    }

    /// Tells what there is of a version. In a directory without any master key it tells nothing:
    /// that is one which was not mounted.
    pub(super) fn seen(&self, name: VersionName) -> Result<Seen, SoftwareError> {
        let contents = self.list()?;
        match contents.master_id {
            None => Err(SoftwareError::Empty { path: self.0.clone() }),
            Some(master_id) if master_id != name.master_id => Ok(Seen::default()),
            Some(_) => Ok(contents.versions.get(&name.version).copied().unwrap_or_default()),
        }
    }

    pub(super) fn read(&self, name: VersionName) -> Result<Zeroizing<Vec<u8>>, SoftwareError> {
        private_file::read(&self.keystore(name), Link::Refused, FILE_BYTES)
    }

    /// Adds the file of a new version, under the lock.
    pub(super) fn add(&self, name: VersionName, file: &[u8]) -> Result<(), SoftwareError> {
        // What an attempt left that ended half way. No epoch was ever wrapped under that key, and
        // the file may be a second name of a finished one: the name goes, nothing is overwritten.
        for path in self.list()?.unfinished {
            private_file::remove_if_there(&path)?;
        }
        private_file::create(&self.keystore(name), file)
    }

    /// Makes a version refuse every use, under the lock.
    pub(super) fn disable(&self, name: VersionName) -> Result<(), SoftwareError> {
        private_file::create_marker(&self.disabled_marker(name))
    }

    /// Ends that, under the lock.
    pub(super) fn enable(&self, name: VersionName) -> Result<(), SoftwareError> {
        private_file::remove_if_there(&self.disabled_marker(name))?;
        private_file::sync_directory_of(&self.keystore(name))
    }

    /// Destroys a version's file, under the lock. The marker comes first: whatever interrupts this,
    /// the version already refuses, and doing it again ends it.
    pub(super) fn destroy(&self, name: VersionName, rng: &dyn Random) -> Result<(), SoftwareError> {
        private_file::create_marker(&self.destroyed_marker(name))?;
        if self.seen(name)?.keystore {
            private_file::overwrite_and_remove(&self.keystore(name), rng)?;
        }
        private_file::remove_if_there(&self.disabled_marker(name))
    }
}

const KEYSTORE: &str = ".kms1hsm";
const DISABLED: &str = ".disabled";
const DESTROYED: &str = ".destroyed";
const REFERENCE_SHOWN_CHARS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_of_a_keystore_file_is_a_reference() {
        let good = "0f1e2d3c4b5a69788796a5b4c3d2e1f0-00000007.kms1hsm";
        let name = VersionName::parse(&MasterKeyRef(good.into())).unwrap();
        assert_eq!(name.version.get(), 7);
        assert_eq!(name.reference().0, good);
        for bad in [
            "",
            ".kms1hsm",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-00000007",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-7.kms1hsm",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-+0000007.kms1hsm",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-00000000.kms1hsm",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-16777216.kms1hsm",
            "0F1E2D3C4B5A69788796A5B4C3D2E1F0-00000007.kms1hsm",
            "0f1e2d3c4b5a69788796a5b4c3d2e1-00000007.kms1hsm",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-00000007.kms1hsm.destroyed",
            "../0f1e2d3c4b5a69788796a5b4c3d2e1f0-00000007.kms1hsm",
            "x/0f1e2d3c4b5a69788796a5b4c3d2e1f0-00000007.kms1hsm",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-00000007.kms1hsm\0",
        ] {
            assert!(VersionName::parse(&MasterKeyRef(bad.into())).is_err(), "{bad:?}");
        }
    }
}
