//! UpdateTenant: changes the lease of a tenant, which is all that can be updated.

use kms_proto::v1::{UpdateTenantRequest, UpdateTenantResponse};

use super::change::{changed_tenant, terms};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::keyring::{Change, Terms};
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

pub(super) struct UpdateTenant {
    tenant: TenantName,
    lease_ms: u64,
    terms: Terms,
}

impl Operation for UpdateTenant {
    type Wire = UpdateTenantRequest;
    type Reply = UpdateTenantResponse;
    const NAME: &'static str = "UpdateTenant";

    fn parse(wire: UpdateTenantRequest) -> Result<Self, Error> {
        let update = wire.tenant.ok_or(Error::Field { field: "tenant", rule: "must be set" })?;
        let tenant = parse::tenant("tenant.name", &update.name)?;
        let paths = wire.update_mask.map(|mask| mask.paths);
        if paths.is_some_and(|paths| !paths.is_empty() && paths != ["data_key_lease"]) {
            return Err(Error::Field {
                field: "update_mask",
                rule: "must be just `data_key_lease`: nothing else of a tenant can be updated",
            });
        }
        let lease_ms = parse::lease_ms("tenant.data_key_lease", update.data_key_lease)?
            .ok_or(Error::Field { field: "tenant.data_key_lease", rule: "must be set" })?;
        let terms = terms(&wire.request_id, wire.validate_only, ("tenant.etag", &update.etag))?;
        Ok(Self { tenant, lease_ms, terms })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::UpdateTenant, Resource::Tenant(self.tenant.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<UpdateTenantResponse>, Failed> {
        let Self { tenant, lease_ms, terms } = self;
        let changed = call.change(Change::UpdateTenant { tenant, lease_ms }, terms).await?;
        Ok(Done::changed(UpdateTenantResponse { tenant: changed_tenant(&changed) }, &changed))
    }
}
