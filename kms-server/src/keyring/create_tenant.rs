//! Makes a tenant: its tenant key, its index root, its name for ever.

use crate::audit::Leaf;
use crate::crypto::{IndexRoot, TenantKey, TenantPlace};
use crate::noun::{KeyVersion, TenantName, Uid};
use crate::rows;
use crate::store::{Precondition, RowKey, Write};

use super::load::Named;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::state::TenantState;
use super::terms::Etag;
use super::view::TenantView;
use super::{Error, Keyring, LEASE_MS_DEFAULT, row, row_key};

impl Keyring {
    pub(super) async fn plan_create_tenant(&self, name: &TenantName, lease_ms: Option<u64>) -> Result<Plan, Error> {
        match self.named(name).await?.0 {
            Named::Nothing => {}
            Named::Tenant(_) => return Err(Error::TenantExists),
            Named::Tombstone(..) => return Err(Error::NameWasDestroyed),
        }
        let (name, uid, version) = (name.clone(), Uid::generate(&*self.rng), KeyVersion::FIRST);
        let place = TenantPlace { name: &name, uid, version };
        let key = self.with_room(|| Ok(TenantKey::generate(&*self.rng)?))?;
        let root = self.with_room(|| Ok(IndexRoot::generate(&*self.rng)?))?;
        let record_mac = self.with_room(|| Ok(key.record_mac_key()?))?;
        let wrapped_key = self.epoch.key.wrap_tenant_key(self.epoch.place, place, &key, &*self.rng);
        let wrapped_root = key.wrap_index_root(place, &root, &*self.rng);

        let (at, at_name, at_counters) =
            (row_key::tenant(uid), row_key::tenant_name(&name), row_key::tenant_counters(uid));
        let name_record = self
            .seal_cluster_row(&at_name, &rows::TenantName { rev: 1, uid: uid.as_bytes().to_vec(), tombstone: None });
        let counters =
            self.seal_cluster_row(&at_counters, &rows::TenantCounters { rev: 1, ..rows::TenantCounters::default() });
        let intent =
            Leaf { ten: Some(name.to_string().into()), tuid: Some(uid.to_string().into()), ..Leaf::of("CreateTenant") };
        let effect = move |placed: &Placed| {
            let tenant = rows::Tenant {
                rev: 1,
                uid: uid.as_bytes().to_vec(),
                name: name.to_string(),
                state: TenantState::Active.to_row(),
                tenant_keys: vec![rows::WrappedTenantKey {
                    version: version.get(),
                    blob: wrapped_key.as_bytes().to_vec(),
                    birth_index: placed.intent_index,
                }],
                wrapped_index_root: wrapped_root.as_bytes().to_vec(),
                created_ms: placed.now,
                destroy_ms: None,
                lease_ms: Some(lease_ms.unwrap_or(LEASE_MS_DEFAULT)),
                longest_lease_ms: 0,
                longest_until_ms: 0,
            };
            let record = row::seal(&record_mac, version, &at, &tenant);
            let view = TenantView::of_row(&name, &tenant, Etag::of(&record))
                .expect("the row was just made of a tenant's parts");
            Effect {
                preconditions: vec![Precondition::Absent(at_name.clone()), Precondition::Absent(at.clone())],
                writes: vec![
                    Write::Put(at, record.clone()),
                    Write::Put(at_name, name_record),
                    Write::Put(at_counters, counters),
                ],
                main_row: record,
                after: After::Nothing,
                object: Object::Tenant(view),
            }
        };
        Ok(Plan { intent, before: None, lease_ms: None, effect: Box::new(effect) })
    }

    /// Makes the record of a row that the cluster secret authenticates.
    pub(super) fn seal_cluster_row(&self, place: &RowKey, message: &impl prost::Message) -> Vec<u8> {
        row::seal(&self.cluster.record_mac, self.cluster.secret_version, place, message)
    }
}
