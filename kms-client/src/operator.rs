//! What operators order a node to do: to lock itself, to serve again, to read its settings again, to give out copies of its
//! keystore.

use std::fmt;

use kms_proto::v1;
use kms_proto::v1::operator_service_client::OperatorServiceClient;
use tonic::transport::Channel;

use crate::client::ANSWER_BYTES_MAX;
use crate::{Client, Error};

/// Answer of [`Client::export_keystore`]: copies of the software HSM's keystore files.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeystoreExport {
    /// Its number, which the audit log has; counts from 1.
    pub serial: u32,
    /// The files.
    pub files: Vec<KeystoreFile>,
}

/// A copy of a keystore file. Who has it and the PIN has that version of the master key.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeystoreFile {
    /// The name that it must have in the directory of keystore files.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl fmt::Debug for KeystoreExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        f.debug_struct("KeystoreExport").field("serial", &self.serial).field("files", &names).finish()
    }
}

impl fmt::Debug for KeystoreFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeystoreFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Answer of [`Client::reload`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// What was different, such as `bindings` or `certificate`.
    pub changed: Vec<String>,
    /// Settings that are different now and need a restart.
    pub need_restart: Vec<String>,
}

/// All of them are asked at the node's operator listener
/// ([`ClientBuilder::operator_endpoint`](crate::ClientBuilder)).
impl Client {
    /// Lets a node wipe its keys and refuse every call with the reason `LOCKED`, until it is unlocked, also over restarts.
    /// Calls under way have two seconds to end. Again for a node that is locked: no error.
    pub async fn lock(&self) -> Result<(), Error> {
        self.order_lock(false).await
    }

    /// Answers whether the caller may do that, and does nothing.
    pub async fn rehearse_lock(&self) -> Result<(), Error> {
        self.order_lock(true).await
    }

    /// Lets a locked node serve again; no error for one that serves. Fails with the reason `LOCKED` while its master key
    /// backend does not give it its key.
    pub async fn unlock(&self) -> Result<(), Error> {
        self.order_unlock(false).await
    }

    /// Answers whether the caller may do that and the backend would, as far as it can be asked, and does nothing.
    pub async fn rehearse_unlock(&self) -> Result<(), Error> {
        self.order_unlock(true).await
    }

    /// Makes copies of the software HSM's keystore files. Each call uses up a serial number.
    pub async fn export_keystore(&self) -> Result<KeystoreExport, Error> {
        let request = v1::ExportKeystoreRequest { validate_only: false };
        let answer = self
            .call_operator("ExportKeystore", request, |c, r| async move { stub(c).export_keystore(r).await })
            .await?;
        let files = answer.files.into_iter().map(|file| KeystoreFile { name: file.name, content: file.content });
        Ok(KeystoreExport { serial: answer.serial, files: files.collect() })
    }

    /// Answers whether that is allowed, and does nothing.
    pub async fn rehearse_export_keystore(&self) -> Result<(), Error> {
        let request = v1::ExportKeystoreRequest { validate_only: true };
        self.call_operator("ExportKeystore", request, |c, r| async move { stub(c).export_keystore(r).await })
            .await
            .map(drop)
    }

    /// Lets a node read its settings, certificates and policy again, as SIGHUP does: all or nothing. Once this returns,
    /// everything that begins is judged by what was read. Fails with the reason `RELOAD_FAILED` where something is not in
    /// order; then all stays as it was.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.order_reload(false).await
    }

    /// Answers what that would change, or why it would fail, and puts nothing in force.
    pub async fn rehearse_reload(&self) -> Result<Reloaded, Error> {
        self.order_reload(true).await
    }

    async fn order_reload(&self, validate_only: bool) -> Result<Reloaded, Error> {
        let request = v1::ReloadRequest { validate_only };
        let answer = self.call_operator("Reload", request, |c, r| async move { stub(c).reload(r).await }).await?;
        Ok(Reloaded { changed: answer.changed, need_restart: answer.need_restart })
    }

    async fn order_lock(&self, validate_only: bool) -> Result<(), Error> {
        let request = v1::LockRequest { validate_only };
        self.call_operator("Lock", request, |c, r| async move { stub(c).lock(r).await }).await.map(drop)
    }

    async fn order_unlock(&self, validate_only: bool) -> Result<(), Error> {
        let request = v1::UnlockRequest { validate_only };
        self.call_operator("Unlock", request, |c, r| async move { stub(c).unlock(r).await }).await.map(drop)
    }
}

fn stub(channel: Channel) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
