//! CancelKeyDestruction: the key or version lands in DISABLED.

use kms_proto::v1::{CancelKeyDestructionRequest, CancelKeyDestructionResponse};

use super::error::Error;
use super::parse::{self, KeyPath};
use super::pipeline::{Call, Done, Failed, Operation};
use super::set_key_state::changed_key;
use crate::audit::Leaf;
use crate::keyring::Change;
use crate::policy::{Action, Resource};

pub(super) struct CancelKeyDestruction(KeyPath);

impl Operation for CancelKeyDestruction {
    type Wire = CancelKeyDestructionRequest;
    type Reply = CancelKeyDestructionResponse;
    const NAME: &'static str = "CancelKeyDestruction";

    fn parse(wire: CancelKeyDestructionRequest) -> Result<Self, Error> {
        parse::key_or_version("name", &wire.name).map(Self)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::CancelKeyDestruction, self.0.resource())]
    }

    fn about(&self) -> Leaf {
        self.0.about()
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<CancelKeyDestructionResponse>, Failed> {
        let KeyPath { tenant, key, version } = self.0;
        let changed = call.change(Change::CancelKeyDestruction { tenant, key, version }).await?;
        let (key, version) = changed_key(&changed);
        Ok(Done::changed(CancelKeyDestructionResponse { key, version }, &changed))
    }
}
