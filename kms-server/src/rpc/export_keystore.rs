//! ExportKeystore: copies of the software HSM's keystore files, for a safe.

use kms_proto::v1;

use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::audit::Leaf;
use crate::backend::Export;
use crate::keyring::{self, Change, ContentHash, How, Terms};
use crate::policy::{Action, Resource};

pub(super) struct ExportKeystore {
    validate_only: bool,
}

impl ExportKeystore {
    /// Returns what a second person approves.
    pub(super) fn content_hash() -> ContentHash {
        ContentHash::of_operation(Self::NAME)
    }
}

impl Operation for ExportKeystore {
    type Wire = v1::ExportKeystoreRequest;
    type Reply = v1::ExportKeystoreResponse;
    const NAME: &'static str = "ExportKeystore";
    const FOR_OPERATORS: bool = true;

    fn parse(wire: v1::ExportKeystoreRequest) -> Result<Self, Error> {
        Ok(Self { validate_only: wire.validate_only })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ExportKeystore, Resource::Cluster)]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::ExportKeystoreResponse>, Failed> {
        if call.api.backend_kind != SOFTWARE {
            return Err(Error::ExportNotSupported.into());
        }
        // A copy outlives the destruction of its version: that takes two persons, but where things are tried. The grant is
        // used up before anything leaves, and without a request id: what was answered is not kept for a repetition.
        if !call.api.facts.is_trial {
            let terms = Terms { rehearse: self.validate_only, ..Terms::default() };
            let used = call.change(Change::UseGrant { hash: Self::content_hash() }, terms).await?;
            match used.how {
                How::Made(index) => call.written(index),
                How::Rehearsed { .. } => {}
                How::Before(_) => return Err(Error::Keyring(keyring::Error::ApprovalRequired).into()),
            }
        }
        if self.validate_only {
            return Ok(Done::rehearsed(v1::ExportKeystoreResponse::default()));
        }
        let exported =
            call.api.backend.export().await.map_err(|error| Error::Keyring(keyring::Error::Backend(error)))?;
        let Some(Export { serial, files }) = exported else { return Err(Error::ExportNotSupported.into()) };
        let leaf = Leaf {
            backup: Some(format!("keystore-export-{serial}").into()),
            cnt: u64::try_from(files.len()).ok(),
            backend: Some(call.api.backend_kind.into()),
            ..Leaf::default()
        };
        let files = files.into_iter().map(|(name, content)| v1::KeystoreFile { name, content }).collect();
        Ok(Done::said(v1::ExportKeystoreResponse { serial, files }, leaf))
    }
}

/// The kind of backend whose keys are files.
const SOFTWARE: &str = "software";
