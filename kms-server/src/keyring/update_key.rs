//! Replaces the labels of a key.

use crate::noun::{KeyName, TenantName};

use super::create_key::label_rows;
use super::mutation::Plan;
use super::state::KeyState;
use super::view::Labels;
use super::{Error, Keyring};

impl Keyring {
    pub(super) async fn plan_update_key(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        labels: &Labels,
    ) -> Result<Plan, Error> {
        let tenant = self.open_tenant_for_change(tenant).await?;
        let mut target = self.key_target(tenant, name, None).await?;
        let state = target.state()?;
        if state == KeyState::Destroyed {
            return Err(Error::KeyState(state));
        }
        target.row.labels = label_rows(labels);
        let intent = target.leaf("UpdateKey");
        Ok(target.plan_key(intent, Vec::new()))
    }
}
