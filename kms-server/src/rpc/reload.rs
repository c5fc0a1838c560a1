//! Reload: reads settings, certificates and policy again, as SIGHUP does.

use kms_proto::v1;

use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::policy::{Action, Resource};

pub(super) struct Reload {
    validate_only: bool,
}

impl Operation for Reload {
    type Wire = v1::ReloadRequest;
    type Reply = v1::ReloadResponse;
    const NAME: &'static str = "Reload";

    fn parse(wire: v1::ReloadRequest) -> Result<Self, Error> {
        Ok(Self { validate_only: wire.validate_only })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Reload, Resource::Cluster)]
    }

    async fn perform(self, _: &Call<'_>) -> Result<Done<v1::ReloadResponse>, Failed> {
        let _ = self.validate_only;
        Err(Error::ReloadFailed("a trial daemon has nothing to read again".into()).into())
    }
}
