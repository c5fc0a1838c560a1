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
    const FOR_OPERATORS: bool = true;

    fn parse(wire: v1::ReloadRequest) -> Result<Self, Error> {
        Ok(Self { validate_only: wire.validate_only })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Reload, Resource::Cluster)]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::ReloadResponse>, Failed> {
        let Some(reload) = &call.api.reload else {
            return Err(Error::ReloadFailed("a trial daemon has nothing to read again".into()).into());
        };
        let done = if self.validate_only { reload.check().await } else { reload.reload().await };
        let done = done.map_err(Error::ReloadFailed)?;
        let told = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let reply = v1::ReloadResponse { changed: told(done.changed), need_restart: told(done.restart) };
        Ok(if self.validate_only { Done::rehearsed(reply) } else { Done::read(reply) })
    }
}
