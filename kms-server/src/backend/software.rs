//! The software HSM: a master key in keystore files, each version in one of its own, under a PIN.
//!
//! Not an HSM: whoever copied both a keystore file and the PIN keeps that version for ever. That is
//! what [`Assurance::SoftwareFile`] says in every certificate.
//!
//! A version's number is its epoch's number; the format of the file has no place for more. So
//! `create_version` knows what it made before by the number alone. A wrap (kind 11) is bound to the
//! cluster and to that number. The epoch's *uid* is bound by the key check value in the epoch's
//! record, in every backend alike.
//!
//! **Invariant:** nothing secret outlives a call. A call reads the PIN from its file and the key from
//! its own; Argon2id then takes 64 MiB and a fifth of a second. That is spent at a start, at an
//! epoch roll and at a probe, and buys that a process in service holds neither PIN nor master key.
//! For the same reason calls go one at a time: a burst must not take 64 MiB for each.

mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod keystore_dir;
mod pin;
mod private_file;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::crypto::keystore_file::{self, KeystoreError, KeystoreHead, PinCost};
use crate::crypto::{EpochKey, MasterKey, WrappedKey};
use crate::noun::{EpochNumber, Random, Uid};

use super::{Assurance, BackendError, BackendStatus, EpochContext, MasterKeyBackend, MasterKeyRef};

use error::SoftwareError;
use keystore_dir::{KeystoreDir, VersionName, VersionState};
pub use pin::{PIN_BYTES_MAX, Pin};

/// The kind of this backend, as epoch records and the log call it.
pub const KIND: &str = "software";

/// A master key in a directory of keystore files.
pub struct SoftwareHsm {
    keystore: Arc<Keystore>,
    rng: Arc<dyn Random>,
    /// One call at a time. The turn goes with the blocking work, so that a caller who gives up
    /// does not let the next one in early.
    turn: Arc<Mutex<()>>,
}

/// What the blocking half needs.
struct Keystore {
    dir: KeystoreDir,
    pin_file: PathBuf,
    cluster: Uid,
    cost: PinCost,
    rng: Arc<dyn Random>,
}

impl SoftwareHsm {
    /// Makes what must be there before the first version: the directory, and a new PIN unless the
    /// PIN file is there already. May be called again.
    pub async fn init(dir: &Path, pin_file: &Path, rng: Arc<dyn Random>) -> Result<(), BackendError> {
        let (dir, pin_file) = (dir.to_owned(), pin_file.to_owned());
        blocking(move || {
            private_file::create_directory(&dir)?;
            private_file::check_directory(&dir)?;
            if !std::fs::exists(&pin_file).map_err(SoftwareError::io("find", &pin_file))? {
                if let Some(parent) = pin_file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    private_file::create_directory(parent)?;
                }
                Pin::generate(&*rng).write_new(&pin_file)?;
            }
            Pin::read(&pin_file).map(drop)
        })
        .await
    }

    /// Names the directory and the PIN file. Touches neither yet: each call says what it finds.
    /// `cost` is that of versions to be made; files bring their own.
    pub fn open(dir: &Path, pin_file: &Path, cluster: Uid, cost: PinCost, rng: Arc<dyn Random>) -> Self {
        let keystore = Keystore {
            dir: KeystoreDir(dir.to_owned()),
            pin_file: pin_file.to_owned(),
            cluster,
            cost,
            rng: Arc::clone(&rng),
        };
        Self { keystore: Arc::new(keystore), rng, turn: Arc::new(Mutex::new(())) }
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Keystore) -> Result<T, SoftwareError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let keystore = Arc::clone(&self.keystore);
        blocking(move || {
            let done = work(&keystore);
            drop(turn);
            done
        })
        .await
    }

    async fn master_of(&self, version: &MasterKeyRef) -> Result<(VersionName, MasterKey), BackendError> {
        let name = VersionName::parse(version)?;
        let master = self.in_turn(move |keystore| keystore.master(name)).await?;
        Ok((name, master))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SoftwareError> + Send + 'static,
) -> Result<T, BackendError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        // It panicked, or the runtime is going down: neither says anything about the key.
        Err(error) => Err(BackendError::Unavailable(error.into())),
    }
}

#[async_trait]
impl MasterKeyBackend for SoftwareHsm {
    async fn create_version(&self, context: &EpochContext) -> Result<MasterKeyRef, BackendError> {
        let context = *context;
        self.in_turn(move |keystore| keystore.create(&context)).await
    }

    async fn wrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        key: &EpochKey,
    ) -> Result<Vec<u8>, BackendError> {
        let (name, master) = self.master_of(version).await?;
        if context.cluster != self.keystore.cluster {
            return Err(SoftwareError::OtherCluster { ours: self.keystore.cluster, asked: context.cluster }.into());
        }
        if context.epoch != name.version {
            return Err(SoftwareError::OtherEpoch { version: name.version, epoch: context.epoch }.into());
        }
        Ok(master.wrap_epoch_key(name.master_id, context.cluster, context.epoch, key, &*self.rng).as_bytes().to_vec())
    }

    async fn unwrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        wrapped: &[u8],
    ) -> Result<EpochKey, BackendError> {
        // First the file, then the wrap: what cannot be reached is never called a wrong key.
        let (name, master) = self.master_of(version).await?;
        let wrapped = WrappedKey::from_slice(wrapped).ok_or(BackendError::WrongKey)?;
        master.unwrap_epoch_key(name.master_id, context.cluster, context.epoch, &wrapped).map_err(|error| {
            if error.is_for_want_of_room() { BackendError::Unavailable(error.into()) } else { BackendError::WrongKey }
        })
    }

    async fn disable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        let name = VersionName::parse(version)?;
        self.in_turn(move |keystore| keystore.disable(name)).await
    }

    async fn destroy_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        let name = VersionName::parse(version)?;
        self.in_turn(move |keystore| keystore.destroy(name)).await
    }

    async fn status(&self) -> Result<BackendStatus, BackendError> {
        let detail = self.in_turn(Keystore::detail).await?;
        Ok(BackendStatus { kind: KIND, detail, assurance: Assurance::SoftwareFile })
    }
}

impl Keystore {
    fn create(&self, context: &EpochContext) -> Result<MasterKeyRef, SoftwareError> {
        if context.cluster != self.cluster {
            return Err(SoftwareError::OtherCluster { ours: self.cluster, asked: context.cluster });
        }
        let version = context.epoch;
        let _lock = self.dir.lock()?;
        let contents = self.dir.list()?;
        let master_id = match contents.master_id {
            Some(master_id) => master_id,
            // Only the first epoch begins a master key. Later, an empty directory is a lost mount,
            // and a new master key in it would hide that.
            None if version == EpochNumber::FIRST => Uid::generate(&*self.rng),
            None => return Err(SoftwareError::Empty { path: self.dir.0.clone() }),
        };
        let name = VersionName { master_id, version };
        match contents.versions.get(&version).copied().unwrap_or_default().state() {
            // Made before for the same epoch. It is given out again only if it opens, and is durable:
            // the attempt that made it may have ended before its last sync.
            VersionState::Enabled => {
                self.master(name)?;
                private_file::sync_directory_of(&self.dir.keystore(name))?;
            }
            VersionState::Disabled => return Err(SoftwareError::Disabled { marker: self.dir.disabled_marker(name) }),
            VersionState::Destroyed => {
                return Err(SoftwareError::Destroyed { marker: self.dir.destroyed_marker(name) });
            }
            VersionState::Absent => {
                if let Some((&highest, _)) =
                    contents.versions.last_key_value().filter(|(highest, _)| **highest > version)
                {
                    return Err(SoftwareError::NumberUsed { version, highest });
                }
                let pin = Pin::read(&self.pin_file)?;
                let make = |source: KeystoreError| SoftwareError::Make { source };
                let master = MasterKey::generate(&*self.rng).map_err(|full| make(full.into()))?;
                let file =
                    keystore_file::seal(&master, master_id, version, self.cluster, pin.bytes(), self.cost, &*self.rng)
                        .map_err(make)?;
                self.dir.add(name, &file)?;
            }
        }
        Ok(name.reference())
    }

    /// Opens the key of a version, for one call.
    fn master(&self, name: VersionName) -> Result<MasterKey, SoftwareError> {
        let path = self.dir.keystore(name);
        match self.dir.seen(name)?.state() {
            VersionState::Enabled => {}
            VersionState::Absent => return Err(SoftwareError::Missing { path }),
            VersionState::Disabled => return Err(SoftwareError::Disabled { marker: self.dir.disabled_marker(name) }),
            VersionState::Destroyed => {
                return Err(SoftwareError::Destroyed { marker: self.dir.destroyed_marker(name) });
            }
        }
        let file = self.dir.read(name)?;
        let refused =
            |source| SoftwareError::Keystore { path, pin_file: self.pin_file.clone(), cluster: self.cluster, source };
        let head = match KeystoreHead::parse(&file) {
            Ok(head) => head,
            Err(source) => return Err(refused(source)),
        };
        if head.master_id != name.master_id || head.version != name.version {
            return Err(refused(KeystoreError::Other));
        }
        let pin = Pin::read(&self.pin_file)?;
        let (_, master) = keystore_file::open(&file, self.cluster, pin.bytes()).map_err(refused)?;
        Ok(master)
    }

    fn disable(&self, name: VersionName) -> Result<(), SoftwareError> {
        let _lock = self.dir.lock()?;
        match self.dir.seen(name)?.state() {
            VersionState::Absent => Err(SoftwareError::Missing { path: self.dir.keystore(name) }),
            // Again when it is disabled: the marker may not be durable yet.
            VersionState::Enabled | VersionState::Disabled => self.dir.disable(name),
            // It refuses every use already.
            VersionState::Destroyed => Ok(()),
        }
    }

    fn destroy(&self, name: VersionName) -> Result<(), SoftwareError> {
        let _lock = self.dir.lock()?;
        let seen = self.dir.seen(name)?;
        // A file that somebody moved away was not destroyed, and no certificate may say so.
        if !seen.keystore && seen.state() != VersionState::Destroyed {
            return Err(SoftwareError::NothingToDestroy {
                path: self.dir.keystore(name),
                marker: self.dir.destroyed_marker(name),
            });
        }
        // Also when it was destroyed before: that may have been interrupted, or a copy put back.
        self.dir.destroy(name, &*self.rng)
    }

    /// Looks at everything that a use would need, short of trying the PIN: a probe that unwraps
    /// the epoch key does that.
    fn detail(&self) -> Result<String, SoftwareError> {
        let contents = self.dir.list()?;
        Pin::read(&self.pin_file)?;
        let (mut enabled, mut disabled, mut destroyed) = (0, 0, 0);
        let mut back = Vec::new();
        for (version, seen) in &contents.versions {
            match seen.state() {
                VersionState::Enabled => {
                    if let Some(master_id) = contents.master_id {
                        self.dir.read(VersionName { master_id, version: *version })?;
                    }
                    enabled += 1;
                }
                VersionState::Disabled => disabled += 1,
                VersionState::Destroyed => {
                    destroyed += 1;
                    if seen.keystore {
                        back.push(version.to_string());
                    }
                }
                VersionState::Absent => {}
            }
        }
        let newest = contents.versions.last_key_value().map_or("none yet".to_owned(), |(newest, _)| newest.to_string());
        let mut detail = format!(
            "keystore directory {}: newest version {newest}; {enabled} enabled, {disabled} disabled, {destroyed} destroyed",
            self.dir.0.display()
        );
        if !back.is_empty() {
            detail +=
                &format!("; keystore files of destroyed versions came back, destroy them again: {}", back.join(", "));
        }
        if contents.others > 0 {
            detail += &format!(
                "; {} files that are not the keystore's: a copy outlives the destruction of a version",
                contents.others
            );
        }
        Ok(detail)
    }
}
