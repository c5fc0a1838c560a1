//! SuspendTenant, ResumeTenant, CancelTenantDestruction: one tenant, one change of its state.

use kms_proto::v1;

use super::change::{changed_tenant, terms};
use super::convert::timestamp;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::keyring::{Change, Terms};
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

macro_rules! tenant_state {
    ($Rpc:ident, $Request:ident, $Response:ident $(, $lease_end_time:ident)?) => {
        pub(super) struct $Rpc(TenantName, Terms);

        impl Operation for $Rpc {
            type Wire = v1::$Request;
            type Reply = v1::$Response;
            const NAME: &'static str = stringify!($Rpc);

            fn parse(wire: v1::$Request) -> Result<Self, Error> {
                Ok(Self(
                    parse::tenant("name", &wire.name)?,
                    terms(&wire.request_id, wire.validate_only, ("etag", &wire.etag))?,
                ))
            }

            fn asks(&self) -> Vec<(Action, Resource)> {
                vec![(Action::$Rpc, Resource::Tenant(self.0.clone()))]
            }

            async fn perform(self, call: &Call<'_>) -> Result<Done<v1::$Response>, Failed> {
                let changed = call.change(Change::$Rpc { tenant: self.0 }, self.1).await?;
                $(let $lease_end_time = changed.lease_end.map(timestamp);)?
                Ok(Done::changed(v1::$Response { tenant: changed_tenant(&changed) $(, $lease_end_time)? }, &changed))
            }
        }
    };
}

tenant_state!(SuspendTenant, SuspendTenantRequest, SuspendTenantResponse, lease_end_time);
tenant_state!(ResumeTenant, ResumeTenantRequest, ResumeTenantResponse);
tenant_state!(CancelTenantDestruction, CancelTenantDestructionRequest, CancelTenantDestructionResponse);
