//! PKCS#11: each version of the master key is a key of a token, which never leaves it.
//!
//! A module is foreign code: it crashes, hangs and leaks. It runs in a process of its own, with one thread and one
//! session; a launcher starts that process, and starts it anew (`launcher`); the daemon keeps a queue to it (`queue`). A
//! crash or a hang there is an *Unavailable* here. What such a process gets is the PIN and, while it wraps and unwraps,
//! epoch keys: that cannot be otherwise. Nothing else of the daemon is in its memory, and it inherits no descriptors.
//!
//! Real tokens lock themselves after a few wrong PINs: there is one login for each value of the PIN (`login_note`).
//!
//! # What a module must have
//! - `CKM_AES_KEY_GEN` for 32 bytes; and for such keys `CKM_AES_GCM` with a tag of 128 bits, an IV of 12 bytes, ours or
//!   its own, and aad of 57 bytes; or else `CKM_AES_CBC_PAD`. Both by `C_EncryptInit`, `C_Encrypt`, `C_DecryptInit`,
//!   `C_Decrypt` in one part.
//! - Token objects that are private, with `CKA_LABEL`, and `CKA_ID` of 16 bytes; `C_FindObjects` by class, label and id.
//! - In the template of a key: `CKA_SENSITIVE`, `CKA_EXTRACTABLE` (false), `CKA_ENCRYPT`, `CKA_DECRYPT`, and `CKA_SIGN`,
//!   `CKA_VERIFY`, `CKA_WRAP`, `CKA_UNWRAP`, `CKA_DERIVE` (false), `CKA_MODIFIABLE`. `CKA_COPYABLE` (false) is left out
//!   where it is refused.
//! - To be read back: `CKA_TOKEN`, `CKA_PRIVATE`, `CKA_LOCAL`, `CKA_SENSITIVE`, `CKA_ALWAYS_SENSITIVE`,
//!   `CKA_EXTRACTABLE`, `CKA_NEVER_EXTRACTABLE`, `CKA_WRAP`, `CKA_KEY_TYPE`, `CKA_VALUE_LEN`, `CKA_ID`, `CKA_ENCRYPT`,
//!   `CKA_DECRYPT`.
//! - `C_SetAttributeValue` of `CKA_ENCRYPT` and `CKA_DECRYPT` to disable a key, `C_DestroyObject` to destroy it: a token
//!   that does not let them serves, and refuses that.
//! - A user with a PIN for `C_Login`, in a session that reads and writes; `C_GetSessionInfo`, `C_GetTokenInfo`.

mod destroyed;
mod error;
mod launcher;
mod login_note;
mod message;
mod module;
mod queue;
mod stored;
mod token_key;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::settings::PKCS11;
use super::software::private_file;
use super::{
    Assurance, BackendError, BackendStatus, Destruction, EpochContext, MasterKeyBackend, MasterKeyRef, Pkcs11Mechanism,
    Pkcs11Settings, VersionState,
};
use crate::crypto::EpochKey;
use crate::noun::{Random, Uid};

use destroyed::{DestroyedNote, Progress};
use error::Pkcs11Error;
pub use launcher::serve_launcher;
use message::{Answer, Choice, Refusal, Request, TokenInfo};
pub use module::serve_module;
pub use queue::Launcher;
use queue::Site;
use stored::{KeyName, bound, label_of};

/// A token.
pub(super) struct Pkcs11Hsm {
    site: Arc<Site>,
    cluster: Uid,
    launcher: Launcher,
}

impl Pkcs11Hsm {
    /// Makes the directory of notes, and sees that the token is there. The PIN is tried by the first version.
    pub(super) async fn init(
        dir: &Path,
        settings: &Pkcs11Settings,
        launcher: Launcher,
        rng: Arc<dyn Random>,
    ) -> Result<(), BackendError> {
        Self::open(dir, settings, Uid::from_bytes([0; 16]), launcher, rng).look().await?;
        let dir = dir.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            private_file::create_directory(&dir)?;
            private_file::replace(&dir.join("README"), README.as_bytes())
        });
        match made.await {
            Ok(made) => Ok(made.map_err(Pkcs11Error::note)?),
            Err(ended) => Err(BackendError::Unavailable(ended.into())),
        }
    }

    pub(super) fn open(
        dir: &Path,
        settings: &Pkcs11Settings,
        cluster: Uid,
        launcher: Launcher,
        rng: Arc<dyn Random>,
    ) -> Self {
        let site = Site { dir: dir.to_owned(), settings: settings.clone(), rng };
        Self { site: Arc::new(site), cluster, launcher }
    }

    /// Asks the token for something about a key.
    async fn ask(&self, label: &str, request: Request) -> Result<(Answer, TokenInfo), Pkcs11Error> {
        let (answer, token) = self.launcher.call(&self.site, request).await?;
        let (place, label) = (self.site.place(), label.to_owned());
        match answer {
            Answer::Refused { refusal, text: why } => Err(match refusal {
                Refusal::Absent => Pkcs11Error::Absent { place, label },
                Refusal::Several => Pkcs11Error::Several { place, label },
                Refusal::Disabled => Pkcs11Error::Disabled { place, label },
                Refusal::Unfit => Pkcs11Error::Unfit { place, label, why },
                Refusal::NotAllowed => Pkcs11Error::NotAllowed { place, label, why },
            }),
            Answer::Trouble { step, code } => Err(Pkcs11Error::Trouble { place, step, code }),
            answer => Ok((answer, token)),
        }
    }

    async fn look(&self) -> Result<TokenInfo, Pkcs11Error> {
        match self.ask("", Request::Look).await? {
            (Answer::Token(token), _) => Ok(*token),
            _ => Err(self.garbled()),
        }
    }

    fn garbled(&self) -> Pkcs11Error {
        Pkcs11Error::Garbled { place: self.site.place() }
    }

    fn mechanism(&self) -> Choice {
        match self.site.settings.mechanism {
            Pkcs11Mechanism::Auto => Choice::Auto,
            Pkcs11Mechanism::AesGcm => Choice::Gcm,
            Pkcs11Mechanism::AesCbcPad => Choice::CbcPad,
        }
    }

    async fn destroyed(&self, label: &str) -> Result<Progress, Pkcs11Error> {
        self.noted(label, |note| note.read()).await
    }

    /// Does something with the note of a key's destruction.
    async fn noted<T: Send + 'static>(
        &self,
        label: &str,
        work: impl FnOnce(&DestroyedNote) -> Result<T, Pkcs11Error> + Send + 'static,
    ) -> Result<T, Pkcs11Error> {
        let note = DestroyedNote::of(&self.site.dir, label);
        tokio::task::spawn_blocking(move || work(&note)).await.unwrap_or(Err(Pkcs11Error::Ended))
    }

    /// Refuses a key whose destruction was ordered here: also when a copy of the token has it back.
    async fn not_destroyed(&self, label: &str) -> Result<(), Pkcs11Error> {
        match self.destroyed(label).await? {
            Progress::None => Ok(()),
            Progress::Begun { .. } | Progress::Done { .. } => {
                Err(Pkcs11Error::Destroyed { note: DestroyedNote::of(&self.site.dir, label).path })
            }
        }
    }

    async fn permit(&self, version: &MasterKeyRef, on: bool) -> Result<(), Pkcs11Error> {
        let KeyName { label, id } = KeyName::parse(version)?;
        self.not_destroyed(&label).await?;
        self.ask(&label.clone(), Request::Permit { label, id, on }).await.map(drop)
    }

    /// Destroys a key. The note comes first: whatever interrupts this, the version already refuses, and doing it again
    /// ends it.
    async fn destroy(&self, KeyName { label, id }: KeyName) -> Result<(), Pkcs11Error> {
        let before = self.destroyed(&label).await?;
        let serial = self.look().await?.serial;
        match self.ask(&label, Request::Find { label: label.clone() }).await {
            // Also one that is not fit.
            Ok(_) | Err(Pkcs11Error::Unfit { .. }) => {
                let ours = serial.clone();
                self.noted(&label, move |note| note.begin(&ours)).await?;
                self.ask(&label, Request::Destroy { label: label.clone(), id }).await?;
                self.noted(&label, move |note| note.end(&serial)).await
            }
            Err(Pkcs11Error::Absent { place, label }) => match before {
                Progress::Done { .. } => Ok(()),
                // It ended between the two notes, if this is the token that it was on.
                Progress::Begun { serial: begun } if !serial.is_empty() && serial == begun => {
                    self.noted(&label, move |note| note.end(&serial)).await
                }
                Progress::Begun { .. } | Progress::None => Err(Pkcs11Error::NothingToDestroy { place, label }),
            },
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl MasterKeyBackend for Pkcs11Hsm {
    /// An epoch has one key by its label, whatever its uid: a roll that is begun a second time finds the key of the
    /// first, as in the software HSM.
    async fn create_version(&self, context: &EpochContext) -> Result<MasterKeyRef, BackendError> {
        if context.cluster != self.cluster {
            return Err(Pkcs11Error::OtherCluster { ours: self.cluster, asked: context.cluster }.into());
        }
        let label = label_of(context.cluster, context.epoch);
        self.not_destroyed(&label).await?;
        // First only looked for: that there is none is believed from a new session alone, and only then one is made.
        let found = match self.ask(&label, Request::Find { label: label.clone() }).await {
            Err(Pkcs11Error::Absent { .. }) => {
                let (id, mechanism) = (context.epoch_id.as_bytes().to_vec(), self.mechanism());
                self.ask(&label, Request::Create { label: label.clone(), id, mechanism }).await?
            }
            found => found?,
        };
        match found {
            (Answer::Key { id, enabled: true }, token) => Ok(KeyName { label, id }.reference(&token.label)),
            (Answer::Key { enabled: false, .. }, _) => {
                Err(Pkcs11Error::Disabled { place: self.site.place(), label }.into())
            }
            _ => Err(self.garbled().into()),
        }
    }

    async fn wrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        key: &EpochKey,
    ) -> Result<Vec<u8>, BackendError> {
        let KeyName { label, id } = KeyName::parse(version)?;
        if context.cluster != self.cluster {
            return Err(Pkcs11Error::OtherCluster { ours: self.cluster, asked: context.cluster }.into());
        }
        if label != label_of(context.cluster, context.epoch) {
            return Err(Pkcs11Error::OtherEpoch { label, epoch: context.epoch }.into());
        }
        self.not_destroyed(&label).await?;
        let key = Zeroizing::new(key.expose_to_backend().to_vec());
        let (mechanism, bound) = (self.mechanism(), bound(context));
        match self.ask(&label.clone(), Request::Wrap { label, id, mechanism, bound, key }).await? {
            (Answer::Wrapped(wrap), _) => Ok(wrap),
            _ => Err(self.garbled().into()),
        }
    }

    async fn unwrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        wrapped: &[u8],
    ) -> Result<EpochKey, BackendError> {
        let KeyName { label, id } = KeyName::parse(version)?;
        self.not_destroyed(&label).await?;
        // What is too long to be one is asked for as if it were none: the token is reached first.
        let wrap = wrapped.get(..wrapped.len().min(WRAP_BYTES_MAX)).unwrap_or_default().to_vec();
        match self.ask(&label.clone(), Request::Unwrap { label, id, bound: bound(context), wrap }).await? {
            (Answer::Unwrapped(key), _) => {
                EpochKey::from_backend(&key.0).map_err(|source| Pkcs11Error::NoRoom { source }.into())
            }
            (Answer::WrongKey, _) => Err(BackendError::WrongKey),
            _ => Err(self.garbled().into()),
        }
    }

    async fn disable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        let KeyName { label, .. } = KeyName::parse(version)?;
        if self.destroyed(&label).await? != Progress::None {
            // It refuses every use already.
            return Ok(());
        }
        Ok(self.permit(version, false).await?)
    }

    async fn enable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        Ok(self.permit(version, true).await?)
    }

    async fn destroy_version(&self, version: &MasterKeyRef) -> Result<Destruction, BackendError> {
        self.destroy(KeyName::parse(version)?).await?;
        Ok(Destruction::Done)
    }

    async fn cancel_destruction(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        let KeyName { label, .. } = KeyName::parse(version)?;
        self.not_destroyed(&label).await?;
        Err(Pkcs11Error::NothingScheduled.into())
    }

    async fn describe_version(&self, version: &MasterKeyRef) -> Result<VersionState, BackendError> {
        let KeyName { label, .. } = KeyName::parse(version)?;
        let destroyed = self.destroyed(&label).await?;
        if let Progress::Done { .. } = destroyed {
            return Ok(VersionState::Destroyed);
        }
        match self.ask(&label, Request::Find { label: label.clone() }).await {
            // What is ordered to be destroyed and still there refuses every use, and is not destroyed.
            Ok((Answer::Key { .. }, _)) if destroyed != Progress::None => Ok(VersionState::Disabled),
            Ok((Answer::Key { enabled: true, .. }, _)) => Ok(VersionState::Enabled),
            Ok((Answer::Key { enabled: false, .. }, _)) => Ok(VersionState::Disabled),
            Ok(_) => Err(self.garbled().into()),
            Err(Pkcs11Error::Absent { .. }) => Ok(VersionState::Absent),
            Err(error) => Err(error.into()),
        }
    }

    /// Logs nobody in: whoever checks settings must not use up a try of the PIN.
    async fn status(&self) -> Result<BackendStatus, BackendError> {
        let TokenInfo { label, maker, model, serial, firmware, final_try, locked } = self.look().await?;
        let pin = match (locked, final_try) {
            (true, _) => ", its user's PIN is locked",
            (false, true) => ", one wrong PIN locks it",
            (false, false) => "",
        };
        let module = self.site.settings.module.display();
        let detail =
            format!("token {label:?} (serial {serial}, {maker} {model}, firmware {firmware}{pin}) of {module}");
        Ok(BackendStatus { kind: PKCS11, detail, assurance: Assurance::HsmToken })
    }
}

/// No wrap of ours is as long.
const WRAP_BYTES_MAX: usize = 128;

const README: &str = "\
The master key is in a token of a hardware module. Here are notes about it, which belong to the
cluster's data and are kept with it:
  pkcs11-login           a login that has not ended, or a PIN that the token did not take
  <label>.destroyed      a key that was destroyed
";
