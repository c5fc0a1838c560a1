//! Enables and disables a key or one of its versions.

use crate::noun::{KeyName, KeyVersion, TenantName};

use super::mutation::Plan;
use super::state::KeyState;
use super::{Error, Keyring};

impl Keyring {
    pub(super) async fn plan_key_state(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
        enabled: bool,
    ) -> Result<Plan, Error> {
        let (op, to, from) = if enabled {
            ("EnableKey", KeyState::Enabled, KeyState::Disabled)
        } else {
            ("DisableKey", KeyState::Disabled, KeyState::Enabled)
        };
        let tenant = self.open_tenant_for_change(tenant).await?;
        let lease_ms = (!enabled).then(|| self.longest_lease_ms(&tenant));
        let target = self.key_target(tenant, name, version).await?;
        target.must_be(from, to)?;
        let intent = target.leaf(op);
        let plan = target.plan_state(intent, to, None, Vec::new())?;
        Ok(Plan { lease_ms, ..plan })
    }
}
