//! CreateTenant.

use kms_proto::v1::{CreateTenantRequest, CreateTenantResponse};

use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use super::tenant_state::changed_tenant;
use crate::keyring::Change;
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

pub(super) struct CreateTenant(TenantName);

impl Operation for CreateTenant {
    type Wire = CreateTenantRequest;
    type Reply = CreateTenantResponse;
    const NAME: &'static str = "CreateTenant";

    fn parse(wire: CreateTenantRequest) -> Result<Self, Error> {
        let rule = "must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit";
        wire.tenant_id.parse().map(Self).map_err(|_| Error::Field { field: "tenant_id", rule })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::CreateTenant, Resource::Tenant(self.0.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<CreateTenantResponse>, Failed> {
        let changed = call.change(Change::CreateTenant { tenant: self.0 }).await?;
        Ok(Done::changed(CreateTenantResponse { tenant: changed_tenant(&changed) }, &changed))
    }
}
