//! GetIndexKey: gives out the key of a blind index, which is derived and need not be created.

use kms_proto::v1::{GetIndexKeyRequest, GetIndexKeyResponse};

use super::convert::duration;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::audit::Leaf;
use crate::noun::{IndexName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct GetIndexKey {
    tenant: TenantName,
    index: IndexName,
}

impl Operation for GetIndexKey {
    type Wire = GetIndexKeyRequest;
    type Reply = GetIndexKeyResponse;
    const NAME: &'static str = "GetIndexKey";

    fn parse(wire: GetIndexKeyRequest) -> Result<Self, Error> {
        let (tenant, index) = parse::index("index", &wire.index)?;
        Ok(Self { tenant, index })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetIndexKey, Resource::Index(self.tenant.clone(), self.index.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GetIndexKeyResponse>, Failed> {
        let in_use = call.keyring().enter(&self.tenant, &[]).await?;
        let key = in_use.index_root().index_key(&self.tenant, &self.index);
        let leaf = Leaf { tuid: Some(in_use.tenant_uid().to_string().into()), ..Leaf::default() };
        let lease = Some(duration(in_use.lease_ms()));
        Ok(Done::used(GetIndexKeyResponse { plaintext: key.expose_to_caller(), lease }, leaf, in_use))
    }
}
