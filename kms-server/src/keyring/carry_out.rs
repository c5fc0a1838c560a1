//! Destroys again what the ledger says was destroyed, where the store does not show it: somebody
//! put old rows back. The decision page `0010-ledger.md` has the whole protocol.
//!
//! **Invariant:** nothing is served before this is done (`what_was_destroyed_does_not_come_back`).

use std::sync::Arc;

use crate::audit::{Leaf, StoredLeaf};
use crate::crypto::chain::commitment_of;
use crate::noun::{KeyName, KeyVersion, TenantName, Uid, UnixMillis};
use crate::rows;
use crate::store::{Precondition, Write};

use super::mutation::{After, Effect, Object, Placed, Plan};
use super::row_key::{self, KeyRow};
use super::state::{KeyState, TenantState};
use super::terms::Etag;
use super::view::TenantView;
use super::{Change, Error, Keyring, LEASE_MS, VERSIONS_MAX, row};

/// A destruction as the ledger has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destroyed {
    /// Its index in the log.
    index: u64,
    /// When it was recorded.
    time: UnixMillis,
    tenant: Uid,
    what: What,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum What {
    Tenant { commitment: Option<Vec<u8>>, epoch: u32, keys: u64, deks: u64 },
    Key { key: Uid, version: Option<KeyVersion> },
}

impl Keyring {
    /// Returns the change that carries out a destruction again, if the store does not show it.
    pub(super) async fn undone(&self, stored: &StoredLeaf) -> Result<Option<Change>, Error> {
        let (tenant, destroyed) =
            Destroyed::of(stored).ok_or(Error::Damaged("an entry of the ledger that tells of no destruction"))?;
        let shown = match &destroyed.what {
            What::Tenant { .. } => self.shows_tenant(&tenant, destroyed.tenant).await?,
            What::Key { key, version } => self.shows_key(destroyed.tenant, *key, *version).await?,
        };
        Ok((!shown).then(|| Change::CarryOut { tenant, destroyed: Arc::new(destroyed) }))
    }

    /// A destroyed tenant has a tombstone, and no row.
    async fn shows_tenant(&self, name: &TenantName, uid: Uid) -> Result<bool, Error> {
        let place = row_key::tenant_name(name);
        let Some((_, named)) = self.read_cluster_row::<rows::TenantName>(&place).await? else { return Ok(false) };
        if row::uid(&named.uid)? != uid {
            return Err(Error::Damaged("the name of a destroyed tenant is another's"));
        }
        Ok(named.tombstone.is_some() && self.store.get(&row_key::tenant(uid)).await?.is_none())
    }

    /// A destroyed key has no wrapped KEK, unless all its tenant had is dead.
    async fn shows_key(&self, tenant: Uid, key: Uid, version: Option<KeyVersion>) -> Result<bool, Error> {
        if self.store.get(&row_key::tenant(tenant)).await?.is_none() {
            return Ok(true);
        }
        // Not verified: whatever it says, what it would have to hold to be of use is not there.
        if version.is_none()
            && let Some(record) = self.store.get(&row_key::key(tenant, key)).await?
            && row::peek::<rows::Key>(&record)?.state != KeyState::Destroyed.to_row()
        {
            return Ok(false);
        }
        let prefix = match version {
            Some(version) => row_key::key_version(tenant, key, version),
            None => row_key::key_versions(tenant, key),
        };
        let page = self.store.list(prefix.family, &prefix.key, None, VERSIONS_MAX as usize).await?;
        for (_, record) in &page.rows {
            let row: rows::KeyVersion = row::peek(record)?;
            if !row.wrapped_kek.is_empty() || row.state != KeyState::Destroyed.to_row() {
                return Ok(false);
            }
        }
        Ok(!page.more)
    }

    pub(super) async fn plan_carry_out(&self, name: &TenantName, destroyed: &Destroyed) -> Result<Plan, Error> {
        match &destroyed.what {
            What::Tenant { .. } => self.plan_carry_out_tenant(name, destroyed).await,
            What::Key { key, version } => {
                let tenant = self.open_tenant(name).await?;
                if tenant.uid != destroyed.tenant {
                    return Err(Error::Damaged("the name of a destroyed key's tenant is another's"));
                }
                let (_, row) = self.read_key_by_uid(&tenant.record_mac, tenant.uid, *key).await?;
                let key_name: KeyName = row.name.parse().map_err(|_| Error::Damaged("a key name that is none"))?;
                let keys = self.count_living_keys(tenant.uid, (version.is_none()).then_some(*key)).await?;
                let target = self.key_target(tenant, &key_name, *version).await?;
                let intent =
                    destroyed.sign(target.leaf(if version.is_none() { "DestroyKey" } else { "DestroyKeyVersion" }));
                self.plan_destroy_target(target, intent, |_| Ok(keys)).await
            }
        }
    }

    async fn plan_carry_out_tenant(&self, name: &TenantName, destroyed: &Destroyed) -> Result<Plan, Error> {
        let What::Tenant { commitment, epoch, keys, deks } = destroyed.what.clone() else {
            return Err(Error::Damaged("no destruction of a tenant"));
        };
        let uid = destroyed.tenant;
        let (at, at_name) = (row_key::tenant(uid), row_key::tenant_name(name));
        let mut preconditions = Vec::new();

        // What was put back may be wrapped otherwise than what was destroyed; a purge looks for both.
        let mut complements: Vec<Vec<u8>> = Vec::new();
        let mut found = None;
        let mut created_ms = 0;
        match self.store.get(&at).await? {
            None => preconditions.push(Precondition::Absent(at.clone())),
            Some(record) => {
                if let Ok(tenant) = row::peek::<rows::Tenant>(&record) {
                    created_ms = tenant.created_ms;
                    found = tenant.tenant_keys.iter().rev().find_map(|key| commitment_of(&key.blob));
                    complements.extend(
                        tenant.tenant_keys.iter().filter_map(|key| commitment_of(&key.blob)).map(|c| inverted(&c)),
                    );
                }
                preconditions.push(Precondition::Equals(at.clone(), record));
            }
        }
        complements.extend(commitment.as_deref().map(inverted));
        let mut rev = 0;
        match self.read_cluster_row::<rows::TenantName>(&at_name).await? {
            None => preconditions.push(Precondition::Absent(at_name.clone())),
            Some((record, named)) => {
                rev = named.rev;
                if let Some(tombstone) = named.tombstone {
                    created_ms = tombstone.created_ms;
                    complements.extend(tombstone.tkc_complement);
                }
                preconditions.push(Precondition::Equals(at_name.clone(), record));
            }
        }
        complements.sort_unstable();
        complements.dedup();

        let intent = destroyed.sign(Leaf {
            ten: Some(name.to_string().into()),
            tuid: Some(uid.to_string().into()),
            tkc: found.map(hex::encode).or(commitment.map(hex::encode)).map(Into::into),
            keys: Some(keys),
            deks: Some(deks),
            epoch: Some(epoch),
            ..Leaf::of("DestroyTenant")
        });
        let mut writes = vec![Write::Delete(at)];
        writes.extend(row_key::everything_of_tenant(uid).map(Write::DeletePrefix));
        let (name, fenced_ms) = (name.clone(), destroyed.time);
        let (record_mac, secret_version) = (Arc::clone(&self.cluster.record_mac), self.cluster.secret_version);
        let effect = move |placed: &Placed| {
            let tombstone = rows::Tombstone {
                state: TenantState::Fenced.to_row(),
                tkc_complement: complements,
                intent_index: placed.intent_index,
                fenced_ms,
                epoch,
                created_ms,
                keys,
                deks,
            };
            let message =
                rows::TenantName { rev: rev + 1, uid: uid.as_bytes().to_vec(), tombstone: Some(tombstone.clone()) };
            let record = row::seal(&record_mac, secret_version, &at_name, &message);
            let view = TenantView::of_tombstone(&name, uid, &tombstone, Etag::of(&record))
                .expect("the tombstone was just made of a tenant's parts");
            writes.push(Write::Put(at_name, record.clone()));
            Effect {
                preconditions,
                writes,
                lease: Some(placed.now + LEASE_MS),
                main_row: record,
                after: After::Fence,
                object: Object::Tenant(view),
            }
        };
        Ok(Plan { intent, before: None, effect: Box::new(effect) })
    }

    /// Counts the keys of a tenant that are not destroyed, but for one.
    async fn count_living_keys(&self, tenant: Uid, but: Option<Uid>) -> Result<u64, Error> {
        let prefix = row_key::keys(tenant);
        let (mut after, mut living) = (None, 0);
        loop {
            let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), VERSIONS_MAX as usize).await?;
            for (place, record) in &page.rows {
                if let Some(KeyRow::Key(_, key)) = row_key::parse_key_row(place)
                    && Some(key) != but
                    && row::peek::<rows::Key>(record)?.state != KeyState::Destroyed.to_row()
                {
                    living += 1;
                }
            }
            match page.rows.last() {
                Some((place, _)) if page.more => after = Some(place.clone()),
                Some(_) | None => return Ok(living),
            }
        }
    }
}

impl Destroyed {
    /// Reads an entry of the ledger.
    fn of(stored: &StoredLeaf) -> Option<(TenantName, Self)> {
        let StoredLeaf { index, time, leaf } = stored;
        let uid = |text: Option<&str>| Uid::from_slice(&hex::decode(text?).ok()?);
        let what = match leaf.op.as_deref()? {
            "DestroyTenant" => What::Tenant {
                commitment: leaf.tkc.as_deref().and_then(|text| hex::decode(text).ok()),
                epoch: leaf.epoch?,
                keys: leaf.keys.unwrap_or(0),
                deks: leaf.deks.unwrap_or(0),
            },
            "DestroyKey" => What::Key { key: uid(leaf.key.as_deref())?, version: None },
            "DestroyKeyVersion" => {
                What::Key { key: uid(leaf.key.as_deref())?, version: Some(KeyVersion::new(leaf.kv?)?) }
            }
            _ => return None,
        };
        let tenant = uid(leaf.tuid.as_deref())?;
        Some((leaf.ten.as_deref()?.parse().ok()?, Self { index: *index, time: *time, tenant, what }))
    }

    fn sign(&self, leaf: Leaf) -> Leaf {
        Leaf { by: Some(self.index), why: Some("CARRIED_OUT".into()), ..leaf }
    }
}

fn inverted(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    bytes.as_ref().iter().map(|byte| !byte).collect()
}
