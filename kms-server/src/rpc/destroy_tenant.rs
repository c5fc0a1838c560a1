//! DestroyTenant: sets the date of a tenant's end, or fences it in the call.

use kms_proto::v1::{DestroyTenantRequest, DestroyTenantResponse};

use super::change::{changed_tenant, terms};
use super::convert::timestamp;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::keyring::{Change, Terms};
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

pub(super) struct DestroyTenant {
    tenant: TenantName,
    wait_ms: Option<u64>,
    terms: Terms,
}

impl DestroyTenant {
    /// Returns what is to be changed, and on which terms.
    pub(super) fn into_change(self) -> (Change, Terms) {
        (Change::DestroyTenant { tenant: self.tenant, wait_ms: self.wait_ms }, self.terms)
    }
}

impl Operation for DestroyTenant {
    type Wire = DestroyTenantRequest;
    type Reply = DestroyTenantResponse;
    const NAME: &'static str = "DestroyTenant";

    fn parse(wire: DestroyTenantRequest) -> Result<Self, Error> {
        Ok(Self {
            tenant: parse::tenant("name", &wire.name)?,
            wait_ms: parse::wait_ms(wire.wait)?,
            terms: terms(&wire.request_id, wire.validate_only, ("etag", &wire.etag))?,
        })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::DestroyTenant, Resource::Tenant(self.tenant.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<DestroyTenantResponse>, Failed> {
        let (change, terms) = self.into_change();
        let changed = call.change(change, terms).await?;
        let lease_end_time = changed.lease_end.map(timestamp);
        Ok(Done::changed(DestroyTenantResponse { tenant: changed_tenant(&changed), lease_end_time }, &changed))
    }
}
