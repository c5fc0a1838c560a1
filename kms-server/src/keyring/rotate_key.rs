//! Rotates a key: a new version seals from now on, the old ones still open.

use crate::noun::{KeyName, TenantName};
use crate::rows;
use crate::store::{Precondition, Write};

use super::create_key::key_leaf;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::state::KeyState;
use super::terms::Etag;
use super::view::{KeyPurpose, KeyView};
use super::{Error, Keyring, VERSIONS_MAX, row, row_key};

impl Keyring {
    pub(super) async fn plan_rotate_key(&self, tenant_name: &TenantName, name: &KeyName) -> Result<Plan, Error> {
        let tenant = self.open_tenant_for_change(tenant_name).await?;
        let (before, key) = self.read_key(&tenant.record_mac, tenant.uid, name).await?;
        let view = KeyView::of_row(tenant_name, &key, Etag::of(&before))?;
        if view.state != KeyState::Enabled {
            return Err(Error::KeyState(view.state));
        }
        // The primary is the newest version there is.
        let version =
            view.primary.next().filter(|version| version.get() <= VERSIONS_MAX).ok_or(Error::VersionsExhausted)?;
        let made = self.make_version(&tenant, view.uid, version)?;
        let (mut preconditions, mut writes) = (Vec::new(), Vec::new());
        if view.purpose == KeyPurpose::Managed {
            let (unchanged, job) = self.new_rewrap_job((tenant_name, tenant.uid), (name, view.uid)).await?;
            preconditions.push(unchanged);
            writes.extend([self.new_dek_count(tenant.uid, view.uid, version), job]);
        }
        let intent = key_leaf("RotateKey", tenant_name, &tenant, name, view.uid, Some(version));
        let (at, at_version) =
            (row_key::key(tenant.uid, view.uid), row_key::key_version(tenant.uid, view.uid, version));
        let (tenant_name, name) = (tenant_name.clone(), name.clone());
        let effect = move |placed: &Placed| {
            let next = rows::Key { rev: key.rev + 1, primary: version.get(), updated_ms: placed.now, ..key };
            let record = row::seal(&tenant.record_mac, tenant.version, &at, &next);
            let key_view =
                KeyView::of_row(&tenant_name, &next, Etag::of(&record)).expect("the row was read as a key before");
            let (version_write, version_view) = made.write(&tenant, view.uid, placed.now);
            preconditions.extend([Precondition::Equals(at.clone(), before), Precondition::Absent(at_version)]);
            writes.extend([Write::Put(at, record.clone()), version_write]);
            Effect {
                preconditions,
                writes,
                main_row: record,
                after: After::ForgetKey(name),
                object: Object::Version(key_view, version_view),
            }
        };
        Ok(Plan { intent, before: Some(view.etag), lease_ms: None, effect: Box::new(effect) })
    }
}
