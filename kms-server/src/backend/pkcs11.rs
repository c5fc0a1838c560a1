//! PKCS#11: the token of a hardware module, whose library runs in a process of its own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::{
    BackendError, BackendStatus, Destruction, EpochContext, MasterKeyBackend, MasterKeyRef, Pkcs11Settings,
    VersionState,
};
use crate::crypto::EpochKey;
use crate::noun::{Random, Uid};

/// A token.
pub(super) struct Pkcs11Hsm;

impl Pkcs11Hsm {
    pub(super) async fn init(_dir: &Path, _settings: &Pkcs11Settings) -> Result<(), BackendError> {
        Err(not_yet())
    }

    pub(super) fn open(
        _dir: &Path,
        _settings: &Pkcs11Settings,
        _cluster: Uid,
        _launcher: Launcher,
        _rng: Arc<dyn Random>,
    ) -> Self {
        Self
    }
}

/// The process that starts, and starts again, the process of a module.
#[derive(Clone)]
pub struct Launcher;

impl Launcher {
    /// Starts it: this program, anew.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self)
    }
}

/// What a process does that was started as a launcher.
pub fn serve_launcher() -> std::io::Result<()> {
    Ok(())
}

/// What a process does that was started for a module.
pub fn serve_module() -> std::io::Result<()> {
    Ok(())
}

#[async_trait]
impl MasterKeyBackend for Pkcs11Hsm {
    async fn create_version(&self, _: &EpochContext) -> Result<MasterKeyRef, BackendError> {
        Err(not_yet())
    }

    async fn wrap(&self, _: &MasterKeyRef, _: &EpochContext, _: &EpochKey) -> Result<Vec<u8>, BackendError> {
        Err(not_yet())
    }

    async fn unwrap(&self, _: &MasterKeyRef, _: &EpochContext, _: &[u8]) -> Result<EpochKey, BackendError> {
        Err(not_yet())
    }

    async fn disable_version(&self, _: &MasterKeyRef) -> Result<(), BackendError> {
        Err(not_yet())
    }

    async fn enable_version(&self, _: &MasterKeyRef) -> Result<(), BackendError> {
        Err(not_yet())
    }

    async fn destroy_version(&self, _: &MasterKeyRef) -> Result<Destruction, BackendError> {
        Err(not_yet())
    }

    async fn cancel_destruction(&self, _: &MasterKeyRef) -> Result<(), BackendError> {
        Err(not_yet())
    }

    async fn describe_version(&self, _: &MasterKeyRef) -> Result<VersionState, BackendError> {
        Err(not_yet())
    }

    async fn status(&self) -> Result<BackendStatus, BackendError> {
        Err(not_yet())
    }
}

fn not_yet() -> BackendError {
    BackendError::Unavailable("it is not built yet".into())
}
