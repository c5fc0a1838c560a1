//! RotateKey: a new version seals from now on.

use kms_proto::v1::{RotateKeyRequest, RotateKeyResponse};

use super::change::{changed_key, terms};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::keyring::{Change, Terms};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct RotateKey(TenantName, KeyName, Terms);

impl Operation for RotateKey {
    type Wire = RotateKeyRequest;
    type Reply = RotateKeyResponse;
    const NAME: &'static str = "RotateKey";

    fn parse(wire: RotateKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("name", &wire.name)?;
        Ok(Self(tenant, key, terms(&wire.request_id, wire.validate_only, ("etag", &wire.etag))?))
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::RotateKey, Resource::Key(self.0.clone(), self.1.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<RotateKeyResponse>, Failed> {
        let changed = call.change(Change::RotateKey { tenant: self.0, key: self.1 }, self.2).await?;
        let (key, version) = changed_key(&changed);
        Ok(Done::changed(RotateKeyResponse { key, version }, &changed))
    }
}
