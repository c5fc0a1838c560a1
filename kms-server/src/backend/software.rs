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

mod attempts;
pub(super) mod error;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod keystore_dir;
mod pin;
pub(super) mod private_file;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};
use zeroize::Zeroizing;

use crate::crypto::keystore_file::{self, KeystoreError, KeystoreHead, PinCost};
use crate::crypto::{EpochKey, MasterKey, WrappedKey};
use crate::noun::{EpochNumber, Random, Uid};

use super::{
    Assurance, BackendError, BackendStatus, Destruction, EpochContext, Export, MasterKeyBackend, MasterKeyRef,
    VersionState,
};

use attempts::{Attempts, Counted};
pub use attempts::{Pause, TimerPause};
use error::SoftwareError;
use export::Exports;
use keystore_dir::{FileState, KeystoreDir, VersionName};
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
    pause: Arc<dyn Pause>,
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
    /// `cost` is that of versions to be made; files bring their own. `pause` is what a try of the PIN
    /// waits with after tries that did not fit.
    pub fn open(
        dir: &Path,
        pin_file: &Path,
        cluster: Uid,
        cost: PinCost,
        rng: Arc<dyn Random>,
        pause: Arc<dyn Pause>,
    ) -> Self {
        let keystore = Keystore {
            dir: KeystoreDir(dir.to_owned()),
            pin_file: pin_file.to_owned(),
            cluster,
            cost,
            rng: Arc::clone(&rng),
        };
        Self { keystore: Arc::new(keystore), rng, turn: Arc::new(Mutex::new(())), pause }
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Keystore) -> Result<T, SoftwareError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let turn = Arc::new(Arc::clone(&self.turn).lock_owned().await);
        self.within(&turn, work).await
    }

    /// Does blocking work in a turn that was taken.
    async fn within<T: Send + 'static>(
        &self,
        turn: &Arc<OwnedMutexGuard<()>>,
        work: impl FnOnce(&Keystore) -> Result<T, SoftwareError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let (keystore, turn) = (Arc::clone(&self.keystore), Arc::clone(turn));
        blocking(move || {
            let done = work(&keystore);
            drop(turn);
            done
        })
        .await
    }

    async fn master_of(&self, version: &MasterKeyRef) -> Result<(VersionName, MasterKey), BackendError> {
        let name = VersionName::parse(version)?;
        Ok((name, self.master(name).await?))
    }

    /// Opens the key of a version, for one call. In one turn: tries side by side would wait side by side.
    async fn master(&self, name: VersionName) -> Result<MasterKey, BackendError> {
        let turn = Arc::new(Arc::clone(&self.turn).lock_owned().await);
        let counted = self.within(&turn, move |keystore| keystore.count_try(name)).await?;
        if counted.failed > 0 {
            let (failed, seconds) = (counted.failed, counted.wait_before().as_secs_f64());
            tracing::warn!(failed, seconds, "the PIN did not fit the last times: this try waits before it is made");
            self.pause.pause(counted.wait_before()).await;
        }
        let opened = self.within(&turn, move |keystore| keystore.try_pin(name, counted)).await;
        if opened.as_ref().is_err_and(is_wrong_pin) && !counted.kept {
            self.pause.pause(attempts::WAIT_UNKEPT).await;
        }
        opened
    }
}

fn is_wrong_pin(error: &BackendError) -> bool {
    let BackendError::Credentials(source) = error else { return false };
    matches!(source.downcast_ref(), Some(SoftwareError::WrongPin { .. }))
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
        let (name, is_new) = self.in_turn(move |keystore| keystore.create(&context)).await?;
        if !is_new {
            // Made before for the same epoch. It is given out again only if it opens, and is durable:
            // the attempt that made it may have ended before its last sync.
            self.master(name).await?;
            self.in_turn(move |keystore| private_file::sync_directory_of(&keystore.dir.keystore(name))).await?;
        }
        Ok(name.reference())
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

    async fn enable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        let name = VersionName::parse(version)?;
        self.in_turn(move |keystore| keystore.enable(name)).await
    }

    async fn destroy_version(&self, version: &MasterKeyRef) -> Result<Destruction, BackendError> {
        let name = VersionName::parse(version)?;
        self.in_turn(move |keystore| keystore.destroy(name)).await?;
        Ok(Destruction::Done)
    }

    async fn cancel_destruction(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        let name = VersionName::parse(version)?;
        self.in_turn(move |keystore| keystore.no_way_back(name)).await
    }

    async fn describe_version(&self, version: &MasterKeyRef) -> Result<VersionState, BackendError> {
        let name = VersionName::parse(version)?;
        let state = self.in_turn(move |keystore| Ok(keystore.dir.seen(name)?.state())).await?;
        Ok(match state {
            FileState::Enabled => VersionState::Enabled,
            FileState::Disabled => VersionState::Disabled,
            FileState::Destroyed => VersionState::Destroyed,
            FileState::Absent => VersionState::Absent,
        })
    }

    async fn export(&self) -> Result<Option<Export>, BackendError> {
        let names = self.in_turn(Keystore::living).await?;
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            keys.push((name, self.master(name).await?));
        }
        self.in_turn(move |keystore| keystore.export(&keys)).await.map(Some)
    }

    async fn status(&self) -> Result<BackendStatus, BackendError> {
        let detail = self.in_turn(Keystore::detail).await?;
        Ok(BackendStatus { kind: KIND, detail, assurance: Assurance::SoftwareFile })
    }
}

impl Keystore {
    /// Makes the version of an epoch, or finds the one made before, which is not new.
    fn create(&self, context: &EpochContext) -> Result<(VersionName, bool), SoftwareError> {
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
            FileState::Enabled => return Ok((name, false)),
            FileState::Disabled => return Err(SoftwareError::Disabled { marker: self.dir.disabled_marker(name) }),
            FileState::Destroyed => {
                return Err(SoftwareError::Destroyed { marker: self.dir.destroyed_marker(name) });
            }
            FileState::Absent => {
                if let Some((&highest, _)) =
                    contents.versions.last_key_value().filter(|(highest, _)| **highest > version)
                {
                    return Err(SoftwareError::NumberUsed { version, highest });
                }
                let pin = Pin::read(&self.pin_file)?;
                let make = |source: KeystoreError| SoftwareError::Make { source };
                let master = MasterKey::generate(&*self.rng).map_err(|full| make(full.into()))?;
                let head = KeystoreHead::new(master_id, version, self.cost, keystore_file::ORIGINAL, &*self.rng);
                let file = keystore_file::seal(&master, &head, self.cluster, pin.bytes(), &*self.rng).map_err(make)?;
                self.dir.add(name, &file)?;
            }
        }
        Ok((name, true))
    }

    /// Reads the file of a version: all that shows without the PIN.
    fn sealed(&self, name: VersionName) -> Result<Zeroizing<Vec<u8>>, SoftwareError> {
        let path = self.dir.keystore(name);
        match self.dir.seen(name)?.state() {
            FileState::Enabled => {}
            FileState::Absent => return Err(SoftwareError::Missing { path }),
            FileState::Disabled => return Err(SoftwareError::Disabled { marker: self.dir.disabled_marker(name) }),
            FileState::Destroyed => {
                return Err(SoftwareError::Destroyed { marker: self.dir.destroyed_marker(name) });
            }
        }
        let file = self.dir.read(name)?;
        let head = KeystoreHead::parse(&file).map_err(|source| self.refused(name, source))?;
        if head.master_id != name.master_id || head.version != name.version {
            return Err(self.refused(name, KeystoreError::Other));
        }
        Ok(file)
    }

    fn refused(&self, name: VersionName, source: KeystoreError) -> SoftwareError {
        let (path, pin_file, cluster) = (self.dir.keystore(name), self.pin_file.clone(), self.cluster);
        SoftwareError::Keystore { path, pin_file, cluster, source }
    }

    /// Counts a try of the PIN that is about to be made. What shows without the PIN is no try of it.
    fn count_try(&self, name: VersionName) -> Result<Counted, SoftwareError> {
        self.sealed(name)?;
        Pin::read(&self.pin_file)?;
        let _lock = self.dir.lock()?;
        Ok(Attempts(&self.dir.0).count())
    }

    /// Makes a try that was counted. Reads file and PIN again: either may have been put right meanwhile.
    fn try_pin(&self, name: VersionName, counted: Counted) -> Result<MasterKey, SoftwareError> {
        let opened = self.sealed(name).and_then(|file| {
            let pin = Pin::read(&self.pin_file)?;
            keystore_file::open(&file, self.cluster, pin.bytes()).map_err(|source| self.refused(name, source))
        });
        // Without it the file is changed all the same: what is lost then is one count.
        let _lock = self.dir.lock();
        let attempts = Attempts(&self.dir.0);
        match opened {
            Ok((_, master)) => {
                attempts.forget();
                Ok(master)
            }
            Err(SoftwareError::Keystore { path, pin_file, cluster, source: source @ KeystoreError::PinOrDamage }) => {
                let failed = counted.failed.saturating_add(1);
                Err(SoftwareError::WrongPin { path, pin_file, cluster, failed, source })
            }
            Err(other) => {
                // The PIN was not tried.
                attempts.keep(counted.failed);
                Err(other)
            }
        }
    }

    fn disable(&self, name: VersionName) -> Result<(), SoftwareError> {
        let _lock = self.dir.lock()?;
        match self.dir.seen(name)?.state() {
            FileState::Absent => Err(SoftwareError::Missing { path: self.dir.keystore(name) }),
            // Again when it is disabled: the marker may not be durable yet.
            FileState::Enabled | FileState::Disabled => self.dir.disable(name),
            // It refuses every use already.
            FileState::Destroyed => Ok(()),
        }
    }

    fn enable(&self, name: VersionName) -> Result<(), SoftwareError> {
        let _lock = self.dir.lock()?;
        let seen = self.dir.seen(name)?;
        match seen.state() {
            FileState::Absent => Err(SoftwareError::Missing { path: self.dir.keystore(name) }),
            FileState::Disabled if !seen.keystore => Err(SoftwareError::Missing { path: self.dir.keystore(name) }),
            // Again when it is enabled: that the marker is gone may not be durable yet.
            FileState::Enabled | FileState::Disabled => self.dir.enable(name),
            FileState::Destroyed => Err(SoftwareError::Destroyed { marker: self.dir.destroyed_marker(name) }),
        }
    }

    /// Nothing was scheduled here: destroyed is destroyed.
    fn no_way_back(&self, name: VersionName) -> Result<(), SoftwareError> {
        match self.dir.seen(name)?.state() {
            FileState::Destroyed => Err(SoftwareError::Destroyed { marker: self.dir.destroyed_marker(name) }),
            FileState::Absent => Err(SoftwareError::Missing { path: self.dir.keystore(name) }),
            FileState::Enabled | FileState::Disabled => Err(SoftwareError::NothingScheduled),
        }
    }

    /// Returns the versions that can be used.
    fn living(&self) -> Result<Vec<VersionName>, SoftwareError> {
        let contents = self.dir.list()?;
        let Some(master_id) = contents.master_id else { return Err(SoftwareError::Empty { path: self.dir.0.clone() }) };
        let enabled = contents.versions.iter().filter(|(_, seen)| seen.state() == FileState::Enabled);
        Ok(enabled.map(|(version, _)| VersionName { master_id, version: *version }).collect())
    }

    /// Makes copies of keystore files that bear a number of their own. The number is used up before a copy exists.
    fn export(&self, keys: &[(VersionName, MasterKey)]) -> Result<Export, SoftwareError> {
        let _lock = self.dir.lock()?;
        let pin = Pin::read(&self.pin_file)?;
        let exports = Exports(&self.dir.0);
        let versions: Vec<EpochNumber> = keys.iter().map(|(name, _)| name.version).collect();
        let serial = exports.add(&versions)?;
        let mut files = Vec::with_capacity(keys.len());
        for (name, master) in keys {
            // Whoever destroyed it since does not get a copy of it.
            if self.dir.seen(*name)?.state() != FileState::Enabled {
                continue;
            }
            let head = KeystoreHead::new(name.master_id, name.version, self.cost, serial, &*self.rng);
            let file = keystore_file::seal(master, &head, self.cluster, pin.bytes(), &*self.rng)
                .map_err(|source| SoftwareError::Make { source })?;
            files.push((name.reference().0, file.to_vec()));
        }
        Ok(Export { serial, files })
    }

    fn destroy(&self, name: VersionName) -> Result<(), SoftwareError> {
        let _lock = self.dir.lock()?;
        let seen = self.dir.seen(name)?;
        // A file that somebody moved away was not destroyed, and no certificate may say so.
        if !seen.keystore && seen.state() != FileState::Destroyed {
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
                FileState::Enabled => {
                    if let Some(master_id) = contents.master_id {
                        self.dir.read(VersionName { master_id, version: *version })?;
                    }
                    enabled += 1;
                }
                FileState::Disabled => disabled += 1,
                FileState::Destroyed => {
                    destroyed += 1;
                    if seen.keystore {
                        back.push(version.to_string());
                    }
                }
                FileState::Absent => {}
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
        let exports = Exports(&self.dir.0).of_versions(|version| {
            contents
                .versions
                .get(&version)
                .is_some_and(|seen| matches!(seen.state(), FileState::Enabled | FileState::Disabled))
        })?;
        if !exports.is_empty() {
            let serials: Vec<String> = exports.iter().map(ToString::to_string).collect();
            detail += &format!("; exports that outlive the destruction of a version: {}", serials.join(", "));
        }
        match Attempts(&self.dir.0).read() {
            Some(0) | None => {}
            Some(failed) => detail += &format!("; the PIN did not fit {failed} times since it last did"),
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
