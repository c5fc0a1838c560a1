//! An epoch key as it is stored: wrapped by a version of the master key, with its key check value.
//!
//! A backend is foreign: what it answers is believed only when the key check value agrees.

use subtle::ConstantTimeEq as _;

use super::{BackendError, EpochContext, MasterKeyBackend, MasterKeyRef};
use crate::crypto::EpochKey;

/// An epoch key under the master key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EpochWrap {
    /// The version that wraps it.
    pub version: MasterKeyRef,
    /// What the wrap is bound to.
    pub context: EpochContext,
    /// The wrap, as the backend gave it.
    pub ciphertext: Vec<u8>,
    /// The key's check value; see [`EpochKey::kcv`].
    pub kcv: [u8; 32],
}

impl EpochWrap {
    /// Wraps a key, and proves that the backend gives it back, before anything hangs on it.
    pub async fn make(
        backend: &dyn MasterKeyBackend,
        version: MasterKeyRef,
        context: EpochContext,
        key: &EpochKey,
    ) -> Result<Self, BackendError> {
        let ciphertext = backend.wrap(&version, &context, key).await?;
        let made = Self { version, context, ciphertext, kcv: key.kcv(&context.epoch_id, context.epoch) };
        made.open(backend).await?;
        Ok(made)
    }

    /// Unwraps the key; another one is a [`BackendError::WrongAnswer`].
    pub async fn open(&self, backend: &dyn MasterKeyBackend) -> Result<EpochKey, BackendError> {
        let key = backend.unwrap(&self.version, &self.context, &self.ciphertext).await?;
        let kcv = key.kcv(&self.context.epoch_id, self.context.epoch);
        if bool::from(kcv.ct_eq(&self.kcv)) { Ok(key) } else { Err(BackendError::WrongAnswer) }
    }
}
