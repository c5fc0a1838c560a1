//! The joint to what holds the master key: create, wrap, unwrap, disable, destroy, status.
//!
//! All the service ever asks of a master key. Used at start, at an epoch roll, and by a periodic
//! probe: never on the request path. No vendor is named here but in [`init`] and [`open`].
//!
//! What every implementation promises (and `contract.rs` tests):
//! - `unwrap(wrap(key))` is the key; another context or another master key version is
//!   [`BackendError::WrongKey`];
//! - a backend that cannot be reached is [`BackendError::Unavailable`], never `WrongKey`;
//! - `create_version` may be called again for the same epoch and returns the same version;
//! - a disabled or destroyed version is [`BackendError::Denied`]; what `destroy_version` destroyed
//!   never unwraps again, also after a restart;
//! - `Ok` of `destroy_version` means that this backend destroyed it, now or before: never that it
//!   was not found;
//! - a call that is dropped half way leaves a state from which the same call goes on.

pub mod software;

#[cfg(test)]
pub mod contract;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::crypto::EpochKey;
use crate::crypto::keystore_file::PinCost;
use crate::noun::{EpochNumber, Random, Uid};

use software::{SoftwareHsm, TimerPause};

/// Which backend holds the master key, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackendSettings {
    /// Keystore files under a PIN.
    Software {
        /// The directory of the keystore files.
        dir: PathBuf,
        /// The file with the PIN: best on another disk, or a credential of the service manager.
        pin_file: PathBuf,
        /// What a try of the PIN costs, for keystore files made from now on.
        pin_cost: PinCost,
    },
}

impl BackendSettings {
    /// Returns the backend's kind, as epoch rows and the audit log name it.
    pub fn kind(&self) -> &'static str {
        match self {
            BackendSettings::Software { .. } => software::KIND,
        }
    }
}

/// Makes what a backend needs before its first version; the master key itself comes with the first
/// `create_version`. May be called again: what is there stays.
pub async fn init(settings: &BackendSettings, rng: Arc<dyn Random>) -> Result<(), BackendError> {
    match settings {
        BackendSettings::Software { dir, pin_file, .. } => SoftwareHsm::init(dir, pin_file, rng).await,
    }
}

/// Opens the backend of a cluster. The one place that names vendors. It is reached for only when
/// it is used: an outage shows in the first call, and in `status`.
pub fn open(
    settings: &BackendSettings,
    cluster: Uid,
    rng: Arc<dyn Random>,
) -> Result<Arc<dyn MasterKeyBackend>, BackendError> {
    match settings {
        BackendSettings::Software { dir, pin_file, pin_cost } => {
            Ok(Arc::new(SoftwareHsm::open(dir, pin_file, cluster, *pin_cost, rng, Arc::new(TimerPause))))
        }
    }
}

/// What a wrapped epoch key is bound to, in every backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EpochContext {
    /// The cluster's uid.
    pub cluster: Uid,
    /// The epoch's uid.
    pub epoch_id: Uid,
    /// The epoch's number.
    pub epoch: EpochNumber,
}

/// A version of the master key, as its backend calls it: a file's name, an ARN, a token's label.
/// Not secret; at most 2,048 bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MasterKeyRef(pub String);

/// How an auditor may take the destruction of a version. Goes into certificates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Assurance {
    /// A file that was overwritten: holds only if nobody copied it before.
    SoftwareFile,
}

impl Assurance {
    /// Returns the word for it in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Assurance::SoftwareFile => "software-file",
        }
    }
}

/// What a backend says of itself.
#[derive(Clone, Debug)]
pub struct BackendStatus {
    /// The backend's kind, such as `software`.
    pub kind: &'static str,
    /// One line for people, without secrets.
    pub detail: String,
    /// What the destruction of a version is worth.
    pub assurance: Assurance,
}

/// Why a backend did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The ciphertext is not of this master key version and context.
    #[error("wrapped key does not belong to this master key or context")]
    WrongKey,
    /// It cannot be reached, or does not work now.
    #[error("the backend is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was reached and refused: wrong PIN, missing permission, disabled or destroyed version.
    #[error("the backend refused")]
    Denied(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Wraps epoch keys under versions of a master key that never leaves it.
#[async_trait]
pub trait MasterKeyBackend: Send + Sync {
    /// Makes the master key version of an epoch, or finds the one made before for the same epoch.
    async fn create_version(&self, context: &EpochContext) -> Result<MasterKeyRef, BackendError>;

    /// Wraps an epoch key; the answer is bound to the context.
    async fn wrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        key: &EpochKey,
    ) -> Result<Vec<u8>, BackendError>;

    /// Unwraps an epoch key into locked memory.
    async fn unwrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        wrapped: &[u8],
    ) -> Result<EpochKey, BackendError>;

    /// Makes a version refuse every use until it is destroyed.
    async fn disable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError>;

    /// Destroys a version for good; doing it again is no error.
    async fn destroy_version(&self, version: &MasterKeyRef) -> Result<(), BackendError>;

    /// Says what it is and whether it works.
    async fn status(&self) -> Result<BackendStatus, BackendError>;
}
