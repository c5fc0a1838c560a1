//! AWS KMS: one KMS key per epoch.

use std::path::Path;

use async_trait::async_trait;

use super::{
    AwsKmsSettings, BackendError, BackendStatus, Destruction, EpochContext, MasterKeyBackend, MasterKeyRef,
    VersionState,
};
use crate::crypto::EpochKey;
use crate::noun::Uid;

/// AWS KMS.
pub(super) struct AwsKms;

impl AwsKms {
    pub(super) async fn init(_dir: &Path, _settings: &AwsKmsSettings) -> Result<(), BackendError> {
        Err(not_yet())
    }

    pub(super) fn open(_settings: &AwsKmsSettings, _cluster: Uid) -> Self {
        Self
    }
}

#[async_trait]
impl MasterKeyBackend for AwsKms {
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
