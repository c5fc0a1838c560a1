//! Changes the lease of a tenant, which is all that can be updated of it.

use crate::audit::Leaf;
use crate::noun::TenantName;
use crate::rows;

use super::lease::with_lease;
use super::mutation::Plan;
use super::{Error, Keyring};

impl Keyring {
    pub(super) async fn plan_update_tenant(&self, name: &TenantName, lease_ms: u64) -> Result<Plan, Error> {
        let tenant = self.open_tenant_for_change(name).await?;
        let row = rows::Tenant { rev: tenant.row.rev + 1, ..tenant.row.clone() };
        let row = with_lease(row, lease_ms, self.clock.now(), self.clock_is_held());
        tenant.plan_row(name, Leaf::of("UpdateTenant"), row, Vec::new())
    }
}
