//! GetKey.

use kms_proto::v1::{GetKeyRequest, GetKeyResponse};

use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use super::{convert, parse};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct GetKey(TenantName, KeyName);

impl Operation for GetKey {
    type Wire = GetKeyRequest;
    type Reply = GetKeyResponse;
    const NAME: &'static str = "GetKey";

    fn parse(wire: GetKeyRequest) -> Result<Self, Error> {
        parse::key("name", &wire.name).map(|(tenant, key)| Self(tenant, key))
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetKey, Resource::Key(self.0.clone(), self.1.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GetKeyResponse>, Failed> {
        let key = call.keyring().key(&self.0, &self.1).await?;
        Ok(Done::read(GetKeyResponse { key: Some(convert::key(&key)) }))
    }
}
