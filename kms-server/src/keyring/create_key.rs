//! Makes a key with its first version.

use crate::audit::Leaf;
use crate::crypto::Kek;
use crate::noun::{KeyName, KeyVersion, TenantName, Uid, UnixMillis};
use crate::rows;
use crate::store::{Precondition, RowKey, Write};

use super::load::OpenTenant;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::state::{KeyState, TenantState};
use super::terms::Etag;
use super::view::{KeyPurpose, KeyView, Labels, VersionView};
use super::{Error, Keyring, row, row_key};

impl Keyring {
    pub(super) async fn plan_create_key(
        &self,
        tenant_name: &TenantName,
        name: &KeyName,
        purpose: KeyPurpose,
        labels: &Labels,
    ) -> Result<Plan, Error> {
        let tenant = self.open_tenant_for_change(tenant_name).await?;
        if let Some(uid) = self.key_uid(&tenant.record_mac, tenant.uid, name).await? {
            let (_, key) = self.read_key_by_uid(&tenant.record_mac, tenant.uid, uid).await?;
            let destroyed = KeyState::of_row(key.state)? == KeyState::Destroyed;
            return Err(if destroyed { Error::NameWasDestroyed } else { Error::KeyExists });
        }
        let uid = Uid::generate(&*self.rng);
        let made = self.make_version(&tenant, uid, KeyVersion::FIRST)?;
        let (counters, counted) = self.count_key(tenant.uid).await?;
        let dek_count =
            (purpose == KeyPurpose::Managed).then(|| self.new_dek_count(tenant.uid, uid, KeyVersion::FIRST));

        let (at, at_name) = (row_key::key(tenant.uid, uid), row_key::key_name(tenant.uid, name));
        let name_record = row::seal(
            &tenant.record_mac,
            tenant.version,
            &at_name,
            &rows::KeyName { rev: 1, uid: uid.as_bytes().to_vec() },
        );
        let intent = key_leaf("CreateKey", tenant_name, &tenant, name, uid, Some(KeyVersion::FIRST));
        let labels = label_rows(labels);
        let (tenant_name, name) = (tenant_name.clone(), name.clone());
        let effect = move |placed: &Placed| {
            let key = rows::Key {
                rev: 1,
                uid: uid.as_bytes().to_vec(),
                name: name.to_string(),
                purpose: purpose.to_row(),
                state: KeyState::Enabled.to_row(),
                primary: KeyVersion::FIRST.get(),
                created_ms: placed.now,
                updated_ms: placed.now,
                destroy_ms: None,
                labels,
            };
            let record = row::seal(&tenant.record_mac, tenant.version, &at, &key);
            let view =
                KeyView::of_row(&tenant_name, &key, Etag::of(&record)).expect("the row was just made of a key's parts");
            Effect {
                preconditions: vec![Precondition::Absent(at_name.clone()), Precondition::Absent(at.clone()), counted],
                writes: vec![
                    Write::Put(at_name, name_record),
                    Write::Put(at, record.clone()),
                    made.write(&tenant, uid, placed.now).0,
                    counters,
                ]
                .into_iter()
                .chain(dek_count)
                .collect(),
                main_row: record,
                after: After::Nothing,
                object: Object::Key(view),
            }
        };
        Ok(Plan { intent, before: None, lease_ms: None, effect: Box::new(effect) })
    }

    /// Opens a tenant whose keys may be changed.
    pub(super) async fn open_tenant_for_change(&self, name: &TenantName) -> Result<OpenTenant, Error> {
        let tenant = self.open_tenant(name).await?;
        let state = TenantState::of_row(tenant.row.state)?;
        if state == TenantState::Active { Ok(tenant) } else { Err(Error::TenantState(state)) }
    }

    /// Makes the secret of a new version and wraps it under the tenant key.
    pub(super) fn make_version(&self, tenant: &OpenTenant, key: Uid, version: KeyVersion) -> Result<NewVersion, Error> {
        let kek = self.with_room(|| Ok(Kek::generate(&*self.rng)?))?;
        let wrapped = tenant.key.wrap_kek(tenant.place(), key, version, &kek, &*self.rng);
        Ok(NewVersion { version, wrapped_kek: wrapped.as_bytes().to_vec() })
    }

    /// Plans to count one more key of the tenant: the write, and what must still hold.
    async fn count_key(&self, tenant: Uid) -> Result<(Write, Precondition), Error> {
        let (place, before, counters) = self.counters(tenant).await?;
        let keys = counters.keys.checked_add(1).ok_or(IMPOSSIBLE_COUNT)?;
        let next = self.seal_cluster_row(&place, &rows::TenantCounters { rev: counters.rev + 1, keys, ..counters });
        Ok((Write::Put(place.clone(), next), Precondition::Equals(place, before)))
    }

    /// Reads the tenant's counters: where they lie, their record as stored, and what they say.
    pub(super) async fn counters(&self, tenant: Uid) -> Result<(RowKey, Vec<u8>, rows::TenantCounters), Error> {
        let place = row_key::tenant_counters(tenant);
        let (record, counters) =
            self.read_cluster_row(&place).await?.ok_or(Error::Damaged("a tenant without its counters"))?;
        Ok((place, record, counters))
    }
}

/// A count that went below none or beyond all numbers.
pub(super) const IMPOSSIBLE_COUNT: Error = Error::Damaged("a count of keys that cannot be");

/// A version that was made and is not stored yet.
pub(super) struct NewVersion {
    version: KeyVersion,
    wrapped_kek: Vec<u8>,
}

impl NewVersion {
    pub(super) fn row(&self, now: UnixMillis) -> rows::KeyVersion {
        rows::KeyVersion {
            rev: 1,
            version: self.version.get(),
            state: KeyState::Enabled.to_row(),
            wrapped_kek: self.wrapped_kek.clone(),
            kekc_complement: Vec::new(),
            created_ms: now,
            destroy_ms: None,
        }
    }

    pub(super) fn write(&self, tenant: &OpenTenant, key: Uid, now: UnixMillis) -> (Write, VersionView) {
        let (place, row) = (row_key::key_version(tenant.uid, key, self.version), self.row(now));
        let record = row::seal(&tenant.record_mac, tenant.version, &place, &row);
        let view = VersionView::of_row(&row, Etag::of(&record)).expect("the row was just made of a version's parts");
        (Write::Put(place, record), view)
    }
}

/// Begins the leaf of a change of a key.
pub(super) fn key_leaf(
    op: &'static str,
    tenant_name: &TenantName,
    tenant: &OpenTenant,
    name: &KeyName,
    key: Uid,
    version: Option<KeyVersion>,
) -> Leaf {
    Leaf {
        ten: Some(tenant_name.to_string().into()),
        tuid: Some(tenant.uid.to_string().into()),
        kn: Some(name.to_string().into()),
        key: Some(key.to_string().into()),
        kv: version.map(KeyVersion::get),
        ..Leaf::of(op)
    }
}

/// Labels as rows have them: sorted by name, as a map gives them.
pub(super) fn label_rows(labels: &Labels) -> Vec<rows::Label> {
    labels.iter().map(|(name, value)| rows::Label { name: name.clone(), value: value.clone() }).collect()
}
