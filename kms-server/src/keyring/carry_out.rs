//! Destroys again what the ledger says was destroyed, where the store does not show it: somebody
//! put old rows back. The decision page `0010-ledger.md` has the whole protocol.
//!
//! **Invariant:** nothing is served before this is done (`what_was_destroyed_does_not_come_back`).

use std::collections::HashSet;
use std::sync::Arc;

use crate::audit::{Leaf, StoredLeaf};
use crate::crypto::chain::commitment_of;
use crate::noun::{KeyVersion, TenantName, Uid, UnixMillis};
use crate::rows;
use crate::store::{Precondition, Write};

use super::key_target::{KeyTarget, VersionTarget};
use super::mutation::{After, Effect, Mutator, Object, Placed, Plan};
use super::open::OpenClusterError;
use super::row_key::{self, KeyRow};
use super::state::{KeyState, TenantState};
use super::terms::Etag;
use super::view::{KeyView, TenantView};
use super::{Change, Error, Keyring, LEASE_MS_MAX, Who, row};

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

impl Mutator {
    /// Destroys again what the ledger says was destroyed and the store does not show: tenants first,
    /// then what was destroyed of others. Returns how much that was.
    pub(super) async fn carry_out(&mut self) -> Result<usize, OpenClusterError> {
        let mut destroyed_tenants = HashSet::new();
        let noted = |entry: &Destroyed| {
            let is_tenant = entry.is_tenant();
            if is_tenant {
                destroyed_tenants.insert(entry.tenant);
            }
            is_tenant
        };
        let of_tenants = self.undone(noted).await?;
        let mut carried_out = self.carry_out_all(of_tenants).await?;
        let of_keys = self.undone(|entry| !entry.is_tenant() && !destroyed_tenants.contains(&entry.tenant)).await?;
        carried_out += self.carry_out_all(of_keys).await?;
        Ok(carried_out)
    }

    /// Returns those of the ledger's entries that the store does not show.
    async fn undone(
        &self,
        mut which: impl FnMut(&Destroyed) -> bool,
    ) -> Result<Vec<(TenantName, Arc<Destroyed>)>, OpenClusterError> {
        let mut undone = Vec::new();
        let mut entries = self.ledger().entries()?;
        while let Some(stored) = entries.next_entry()? {
            let failed = |source| OpenClusterError::CarryOut { index: stored.index, source };
            let told = Destroyed::of(&stored);
            let (tenant, entry) =
                told.ok_or(Error::Damaged("an entry of the ledger that tells of no destruction")).map_err(failed)?;
            if which(&entry) && !self.keyring().shows(&tenant, &entry).await.map_err(failed)? {
                undone.push((tenant, Arc::new(entry)));
            }
        }
        Ok(undone)
    }

    async fn carry_out_all(&mut self, undone: Vec<(TenantName, Arc<Destroyed>)>) -> Result<usize, OpenClusterError> {
        let mut carried_out = 0;
        for (tenant, destroyed) in undone {
            let index = destroyed.index;
            let failed = |source| OpenClusterError::CarryOut { index, source };
            // The one before may have been about the same object.
            if self.keyring().shows(&tenant, &destroyed).await.map_err(failed)? {
                continue;
            }
            tracing::warn!(index, "what was destroyed has come back in the store: it is destroyed again");
            let is_tenant = destroyed.is_tenant();
            match self.make_one(Change::CarryOut { tenant, destroyed }, Who::service()).await {
                Ok(_) => carried_out += 1,
                // Of a tenant or key that cannot be opened nothing is of use to anybody.
                Err(error @ Error::Damaged(_)) if !is_tenant => {
                    tracing::error!(index, %error, "a destroyed key has come back beside damaged rows, and cannot be used");
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(carried_out)
    }
}

impl Keyring {
    /// Tells whether the store shows what was destroyed as destroyed. What cannot be opened has not
    /// come back: it is left as it is.
    async fn shows(&self, tenant: &TenantName, destroyed: &Destroyed) -> Result<bool, Error> {
        match &destroyed.what {
            What::Tenant { .. } => self.shows_tenant(tenant, destroyed.tenant).await,
            What::Key { key, version } => self.shows_key(destroyed.tenant, *key, *version).await,
        }
    }

    /// A destroyed tenant has no row, and a tombstone.
    async fn shows_tenant(&self, name: &TenantName, uid: Uid) -> Result<bool, Error> {
        let tombstone = match self.under_name(name, uid).await? {
            UnderName::Tombstone(..) => true,
            UnderName::Other => {
                tracing::error!(tenant = %name, "the name of a destroyed tenant is another tenant's: names are never used again");
                true
            }
            UnderName::Nothing | UnderName::Live(..) | UnderName::Damaged(_) => false,
        };
        Ok(tombstone && self.store.get(&row_key::tenant(uid)).await?.is_none())
    }

    /// A destroyed key says so, and so does a destroyed version, unless all its tenant had is dead.
    async fn shows_key(&self, tenant: Uid, key: Uid, version: Option<KeyVersion>) -> Result<bool, Error> {
        if self.store.get(&row_key::tenant(tenant)).await?.is_none() {
            return Ok(true);
        }
        // Not verified: a row that does not verify is of no use, and one that does says the truth of
        // some time. A key without its row cannot be reached.
        let destroyed = KeyState::Destroyed.to_row();
        let Some(record) = self.store.get(&row_key::key(tenant, key)).await? else { return Ok(true) };
        let is_gone = row::peek::<rows::Key>(&record).is_ok_and(|row| row.state == destroyed);
        let Some(version) = version else { return Ok(is_gone) };
        // Its shell must be there, or the number could be given again.
        let record = self.store.get(&row_key::key_version(tenant, key, version)).await?;
        let version = record.map(|record| row::peek::<rows::KeyVersion>(&record));
        Ok(is_gone || version.is_some_and(|row| row.is_ok_and(|row| row.state == destroyed)))
    }

    /// Reads what lies under the name of a tenant that had this uid.
    async fn under_name(&self, name: &TenantName, uid: Uid) -> Result<UnderName, Error> {
        let place = row_key::tenant_name(name);
        let Some(record) = self.store.get(&place).await? else { return Ok(UnderName::Nothing) };
        let Ok(named) = row::open::<rows::TenantName>(&self.cluster.record_mac, &place, &record) else {
            return Ok(UnderName::Damaged(record));
        };
        Ok(match named.tombstone {
            _ if named.uid != uid.as_bytes() => UnderName::Other,
            Some(tombstone) => UnderName::Tombstone(record, named.rev, tombstone),
            None => UnderName::Live(record, named.rev),
        })
    }

    pub(super) async fn plan_carry_out(&self, name: &TenantName, destroyed: &Destroyed) -> Result<Plan, Error> {
        match &destroyed.what {
            What::Tenant { .. } => self.plan_carry_out_tenant(name, destroyed).await,
            What::Key { key, version } => self.plan_carry_out_key(name, destroyed, *key, *version).await,
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
        let mut complements: Vec<Vec<u8>> = commitment.as_deref().map(inverted).into_iter().collect();
        let (mut found, mut created_ms) = (None, 0);
        match self.store.get(&at).await? {
            None => preconditions.push(Precondition::Absent(at.clone())),
            Some(record) => {
                if let Ok(tenant) = row::peek::<rows::Tenant>(&record) {
                    let wraps: Vec<_> = tenant.tenant_keys.iter().filter_map(|key| commitment_of(&key.blob)).collect();
                    found = wraps.last().copied();
                    complements.extend(wraps.iter().map(inverted));
                    created_ms = tenant.created_ms;
                }
                preconditions.push(Precondition::Equals(at.clone(), record));
            }
        }
        let (mut rev, mut names_it) = (0, true);
        match self.under_name(name, uid).await? {
            UnderName::Nothing => preconditions.push(Precondition::Absent(at_name.clone())),
            UnderName::Other => names_it = false,
            UnderName::Damaged(record) => preconditions.push(Precondition::Equals(at_name.clone(), record)),
            UnderName::Live(record, at_rev) => {
                rev = at_rev;
                preconditions.push(Precondition::Equals(at_name.clone(), record));
            }
            UnderName::Tombstone(record, at_rev, tombstone) => {
                rev = at_rev;
                created_ms = tombstone.created_ms;
                complements.extend(tombstone.tkc_complement);
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
            if names_it {
                writes.push(Write::Put(at_name, record.clone()));
            }
            Effect {
                preconditions,
                writes,
                main_row: record,
                after: if names_it { After::Fence } else { After::Nothing },
                object: Object::Tenant(view),
            }
        };
        Ok(Plan { intent, before: None, lease_ms: Some(LEASE_MS_MAX), effect: Box::new(effect) })
    }

    async fn plan_carry_out_key(
        &self,
        name: &TenantName,
        destroyed: &Destroyed,
        key: Uid,
        version: Option<KeyVersion>,
    ) -> Result<Plan, Error> {
        let tenant = self.open_tenant(name).await?;
        if tenant.uid != destroyed.tenant {
            return Err(Error::Damaged("the name of a destroyed key's tenant is another's"));
        }
        let (record, row) = self.read_key_by_uid(&tenant.record_mac, tenant.uid, key).await?;
        let view = KeyView::of_row(name, &row, Etag::of(&record))?;
        let version = match version {
            None => None,
            Some(number) => {
                let found = self.read_version(&tenant.record_mac, tenant.uid, key, number).await?;
                let (record, row) = found.map_or((None, destroyed.shell(number)), |(record, row)| (Some(record), row));
                Some(VersionTarget { number, row, record })
            }
        };
        // What the counter counts is not known: rows were put back.
        let keys = self.count_living_keys(tenant.uid, version.is_none().then_some(key)).await?;
        let number = version.as_ref().map(|version| version.number);
        let deks = self.count_deks(tenant.uid, |of, counted| of == key && number.is_none_or(|n| n == counted)).await?;
        let op = if version.is_none() { "DestroyKey" } else { "DestroyKeyVersion" };
        let target = KeyTarget { tenant, view, row, record, version };
        let intent = destroyed.sign(target.leaf(op));
        self.plan_destroy_target(target, intent, Some((keys, deks))).await
    }

    /// Counts the keys of a tenant that are not destroyed, but for one.
    async fn count_living_keys(&self, tenant: Uid, but: Option<Uid>) -> Result<u64, Error> {
        let mut living = 0;
        self.each_row(&row_key::keys(tenant), |place, record| {
            if let Some(KeyRow::Key(_, key)) = row_key::parse_key_row(place)
                && Some(key) != but
                && row::peek::<rows::Key>(record).is_ok_and(|key| key.state != KeyState::Destroyed.to_row())
            {
                living += 1;
            }
            Ok(())
        })
        .await?;
        Ok(living)
    }
}

/// What lies under the name of a destroyed tenant.
enum UnderName {
    Nothing,
    /// Something that does not verify.
    Damaged(Vec<u8>),
    /// A tenant of another uid.
    Other,
    /// The tenant, as if it lived: the record and its rev.
    Live(Vec<u8>, u64),
    Tombstone(Vec<u8>, u64, rows::Tombstone),
}

impl Destroyed {
    /// Tells whether all of the tenant was destroyed.
    fn is_tenant(&self) -> bool {
        matches!(self.what, What::Tenant { .. })
    }

    /// Reads an entry of the ledger.
    fn of(stored: &StoredLeaf) -> Option<(TenantName, Self)> {
        let StoredLeaf { index, time, leaf } = stored;
        let uid = |text: Option<&str>| Uid::from_hex(text?);
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

    /// Returns the shell of a version of which nothing is there any more.
    fn shell(&self, version: KeyVersion) -> rows::KeyVersion {
        rows::KeyVersion {
            rev: 0,
            version: version.get(),
            state: KeyState::Destroyed.to_row(),
            wrapped_kek: Vec::new(),
            kekc_complement: Vec::new(),
            created_ms: 0,
            destroy_ms: None,
        }
    }

    fn sign(&self, leaf: Leaf) -> Leaf {
        Leaf { by: Some(self.index), why: Some("CARRIED_OUT".into()), ..leaf }
    }
}

fn inverted(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    bytes.as_ref().iter().map(|byte| !byte).collect()
}
