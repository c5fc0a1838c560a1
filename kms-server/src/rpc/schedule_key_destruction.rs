//! ScheduleKeyDestruction: sets the date of a key's or version's end, or destroys it in the call.

use kms_proto::v1::{ScheduleKeyDestructionRequest, ScheduleKeyDestructionResponse};

use super::change::{changed_key, terms};
use super::convert::timestamp;
use super::error::Error;
use super::parse::{self, KeyPath};
use super::pipeline::{Call, Done, Failed, Operation};
use crate::audit::Leaf;
use crate::keyring::{Change, Terms};
use crate::policy::{Action, Resource};

pub(super) struct ScheduleKeyDestruction {
    path: KeyPath,
    wait_ms: Option<u64>,
    terms: Terms,
}

impl ScheduleKeyDestruction {
    /// Returns what is to be changed, and on which terms.
    pub(super) fn into_change(self) -> (Change, Terms) {
        let KeyPath { tenant, key, version } = self.path;
        (Change::ScheduleKeyDestruction { tenant, key, version, wait_ms: self.wait_ms }, self.terms)
    }
}

impl Operation for ScheduleKeyDestruction {
    type Wire = ScheduleKeyDestructionRequest;
    type Reply = ScheduleKeyDestructionResponse;
    const NAME: &'static str = "ScheduleKeyDestruction";

    fn parse(wire: ScheduleKeyDestructionRequest) -> Result<Self, Error> {
        Ok(Self {
            path: parse::key_or_version("name", &wire.name)?,
            wait_ms: parse::wait_ms(wire.wait)?,
            terms: terms(&wire.request_id, wire.validate_only, ("etag", &wire.etag))?,
        })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ScheduleKeyDestruction, self.path.resource())]
    }

    fn about(&self) -> Leaf {
        self.path.about()
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<ScheduleKeyDestructionResponse>, Failed> {
        let (change, terms) = self.into_change();
        let changed = call.change(change, terms).await?;
        let (key, version) = changed_key(&changed);
        let lease_end_time = changed.lease_end.map(timestamp);
        Ok(Done::changed(ScheduleKeyDestructionResponse { key, version, lease_end_time }, &changed))
    }
}
