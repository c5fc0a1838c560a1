//! CreateTenant.

use kms_proto::v1::{CreateTenantRequest, CreateTenantResponse};

use super::change::{changed_tenant, terms};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::keyring::{Change, Terms};
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

pub(super) struct CreateTenant(TenantName, Option<u64>, Terms);

impl Operation for CreateTenant {
    type Wire = CreateTenantRequest;
    type Reply = CreateTenantResponse;
    const NAME: &'static str = "CreateTenant";

    fn parse(wire: CreateTenantRequest) -> Result<Self, Error> {
        let rule = "must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit";
        let tenant = wire.tenant_id.parse().map_err(|_| Error::Field { field: "tenant_id", rule })?;
        let lease_ms = parse::lease_ms("data_key_lease", wire.data_key_lease)?;
        Ok(Self(tenant, lease_ms, terms(&wire.request_id, wire.validate_only, ("etag", ""))?))
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::CreateTenant, Resource::Tenant(self.0.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<CreateTenantResponse>, Failed> {
        let changed = call.change(Change::CreateTenant { tenant: self.0, lease_ms: self.1 }, self.2).await?;
        Ok(Done::changed(CreateTenantResponse { tenant: changed_tenant(&changed) }, &changed))
    }
}
