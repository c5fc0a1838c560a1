//! Replaces the labels of a key.

use crate::noun::{KeyName, TenantName};

use super::create_key::{key_leaf, label_rows};
use super::mutation::Plan;
use super::set_key_state::plan_key_row;
use super::state::KeyState;
use super::view::Labels;
use super::{Error, Keyring, row};

impl Keyring {
    pub(super) async fn plan_update_key(
        &self,
        tenant_name: &TenantName,
        name: &KeyName,
        labels: &Labels,
    ) -> Result<Plan, Error> {
        let tenant = self.open_tenant_for_change(tenant_name).await?;
        let (before, mut key) = self.read_key(&tenant.record_mac, tenant.uid, name).await?;
        let state = KeyState::of_row(key.state)?;
        if state == KeyState::Destroyed {
            return Err(Error::KeyState(state));
        }
        let intent = key_leaf("UpdateKey", tenant_name, &tenant, name, row::uid(&key.uid)?, None);
        key.labels = label_rows(labels);
        plan_key_row(intent, tenant_name, name, tenant, before, key, Vec::new())
    }
}
