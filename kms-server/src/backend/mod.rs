//! The joint to what holds the master key: create, wrap, unwrap, disable, destroy, status.
//!
//! All the service ever asks of a master key. Used at start, at an epoch roll, and by a periodic
//! probe: never on the request path. Vendors are joined in [`Prepared`].
//!
//! What every implementation promises (and `contract.rs` tests):
//! - `unwrap(wrap(key))` is the key; another context or another master key version is
//!   [`BackendError::WrongKey`];
//! - a backend that cannot be reached is [`BackendError::Unavailable`], never `WrongKey`;
//! - `create_version` may be called again for the same epoch and returns the same version;
//! - credentials that are not accepted are [`BackendError::Credentials`];
//! - a disabled or destroyed version is [`BackendError::Denied`]; what `destroy_version` destroyed
//!   never unwraps again, also after a restart;
//! - `Ok` of `destroy_version` means that this backend destroyed it, now or before: never that it
//!   was not found;
//! - a call that is dropped half way leaves a state from which the same call goes on.

mod aws_kms;
mod epoch_wrap;
mod pkcs11;
mod prepared;
mod probed;
mod settings;
pub mod software;
pub mod watch;

#[cfg(any(test, feature = "contract"))]
pub mod contract;

use async_trait::async_trait;

use crate::crypto::EpochKey;
use crate::noun::{EpochNumber, Uid, UnixMillis};

pub use epoch_wrap::EpochWrap;
pub use pkcs11::{Launcher, serve_launcher, serve_module};
pub use prepared::{Prepared, prepare};
pub use probed::{LastProbe, Probed};
pub use settings::{AwsKmsSettings, BackendKind, BackendSettings, Pkcs11Mechanism, Pkcs11Settings};

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
    /// A key that a cloud provider says it deleted.
    CloudKms,
    /// A key object that a hardware module destroyed.
    HsmToken,
}

impl Assurance {
    /// Returns the word for it in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Assurance::SoftwareFile => "software-file",
            Assurance::CloudKms => "cloud-kms",
            Assurance::HsmToken => "hsm-token",
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

/// What a backend says of a version of its master key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VersionState {
    /// It wraps and unwraps.
    Enabled,
    /// It refuses every use until it is enabled again.
    Disabled,
    /// It refuses every use, and is destroyed at a time.
    DestructionScheduled {
        /// When.
        at: UnixMillis,
    },
    /// It was destroyed here.
    Destroyed,
    /// It is not there, and the backend does not say why.
    Absent,
}

/// How far the destruction of a version has come when it was ordered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Destruction {
    /// It is destroyed.
    Done,
    /// It refuses every use, and is destroyed at a time unless that is cancelled.
    Scheduled {
        /// When.
        at: UnixMillis,
    },
}

/// Copies of keys that leave their backend on purpose.
pub struct Export {
    /// Its number: copies of another export have another.
    pub serial: u32,
    /// The files, by name; each is as secret as the PIN makes it.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Why a backend did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The ciphertext is not of this master key version and context.
    #[error("wrapped key does not belong to this master key or context")]
    WrongKey,
    /// It answered with another key than was wrapped.
    #[error("the backend answered with another key than it was given")]
    WrongAnswer,
    /// It cannot be reached, or does not work now.
    #[error("the backend is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not accept who we are: PIN, access key, token. That says nothing about the key.
    #[error("the backend did not accept our credentials")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was reached, knew us, and refused: missing permission, disabled or destroyed version.
    #[error("the backend refused")]
    Denied(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BackendError {
    /// Returns the word for it in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            BackendError::WrongKey => "wrong_key",
            BackendError::WrongAnswer => "wrong_answer",
            BackendError::Unavailable(_) => "unavailable",
            BackendError::Credentials(_) => "credentials",
            BackendError::Denied(_) => "denied",
        }
    }

    /// Returns it with its causes on one line.
    pub fn chain(&self) -> String {
        chain_of(self)
    }
}

/// Returns an error with its causes on one line.
pub(crate) fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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

    /// Makes a version refuse every use until it is enabled again.
    async fn disable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError>;

    /// Ends that.
    async fn enable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError>;

    /// Destroys a version for good, now or at a date; doing it again is no error. It refuses every use from now on.
    async fn destroy_version(&self, version: &MasterKeyRef) -> Result<Destruction, BackendError>;

    /// Takes a destruction back whose date has not come: the version is disabled then. `Denied` where
    /// destroyed is destroyed.
    async fn cancel_destruction(&self, version: &MasterKeyRef) -> Result<(), BackendError>;

    /// Says what a version is in now.
    async fn describe_version(&self, version: &MasterKeyRef) -> Result<VersionState, BackendError>;

    /// Gives out copies of all versions that live; nothing where keys never leave the backend.
    async fn export(&self) -> Result<Option<Export>, BackendError> {
        Ok(None)
    }

    /// Says what it is and whether it can be reached.
    async fn status(&self) -> Result<BackendStatus, BackendError>;
}
