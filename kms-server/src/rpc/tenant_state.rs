//! SuspendTenant, ResumeTenant, CancelTenantDestruction: one tenant, one change of its state.

use kms_proto::v1;

use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use super::{convert, parse};
use crate::keyring::{Change, Changed, Object};
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

macro_rules! tenant_state {
    ($Rpc:ident, $Request:ident, $Response:ident) => {
        pub(super) struct $Rpc(TenantName);

        impl Operation for $Rpc {
            type Wire = v1::$Request;
            type Reply = v1::$Response;
            const NAME: &'static str = stringify!($Rpc);

            fn parse(wire: v1::$Request) -> Result<Self, Error> {
                parse::tenant("name", &wire.name).map(Self)
            }

            fn asks(&self) -> Vec<(Action, Resource)> {
                vec![(Action::$Rpc, Resource::Tenant(self.0.clone()))]
            }

            async fn perform(self, call: &Call<'_>) -> Result<Done<v1::$Response>, Failed> {
                let changed = call.change(Change::$Rpc { tenant: self.0 }).await?;
                Ok(Done::changed(v1::$Response { tenant: changed_tenant(&changed) }, &changed))
            }
        }
    };
}

tenant_state!(SuspendTenant, SuspendTenantRequest, SuspendTenantResponse);
tenant_state!(ResumeTenant, ResumeTenantRequest, ResumeTenantResponse);
tenant_state!(CancelTenantDestruction, CancelTenantDestructionRequest, CancelTenantDestructionResponse);

/// Returns the tenant that a change was about.
pub(super) fn changed_tenant(changed: &Changed) -> Option<v1::Tenant> {
    match &changed.object {
        Object::Tenant(tenant) => Some(convert::tenant(tenant)),
        Object::Key(_) | Object::Version(..) => None,
    }
}
