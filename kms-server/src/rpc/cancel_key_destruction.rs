//! CancelKeyDestruction: the key or version lands in DISABLED.

use kms_proto::v1::{CancelKeyDestructionRequest, CancelKeyDestructionResponse};

use super::change::{changed_key, terms};
use super::error::Error;
use super::parse::{self, KeyPath};
use super::pipeline::{Call, Done, Failed, Operation};
use crate::audit::Leaf;
use crate::keyring::{Change, Terms};
use crate::policy::{Action, Resource};

pub(super) struct CancelKeyDestruction(KeyPath, Terms);

impl Operation for CancelKeyDestruction {
    type Wire = CancelKeyDestructionRequest;
    type Reply = CancelKeyDestructionResponse;
    const NAME: &'static str = "CancelKeyDestruction";

    fn parse(wire: CancelKeyDestructionRequest) -> Result<Self, Error> {
        let path = parse::key_or_version("name", &wire.name)?;
        Ok(Self(path, terms(&wire.request_id, wire.validate_only, ("etag", &wire.etag))?))
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::CancelKeyDestruction, self.0.resource())]
    }

    fn about(&self) -> Leaf {
        self.0.about()
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<CancelKeyDestructionResponse>, Failed> {
        let KeyPath { tenant, key, version } = self.0;
        let changed = call.change(Change::CancelKeyDestruction { tenant, key, version }, self.1).await?;
        let (key, version) = changed_key(&changed);
        Ok(Done::changed(CancelKeyDestructionResponse { key, version }, &changed))
    }
}
