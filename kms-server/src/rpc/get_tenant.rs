//! GetTenant: also of one that was destroyed.

use kms_proto::v1::{GetTenantRequest, GetTenantResponse};

use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use super::{convert, parse};
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

pub(super) struct GetTenant(TenantName);

impl Operation for GetTenant {
    type Wire = GetTenantRequest;
    type Reply = GetTenantResponse;
    const NAME: &'static str = "GetTenant";

    fn parse(wire: GetTenantRequest) -> Result<Self, Error> {
        parse::tenant("name", &wire.name).map(Self)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetTenant, Resource::Tenant(self.0.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GetTenantResponse>, Failed> {
        let tenant = call.keyring().tenant(&self.0).await?;
        Ok(Done::read(GetTenantResponse { tenant: Some(convert::tenant(&tenant)) }))
    }
}
