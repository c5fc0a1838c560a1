//! Destroys a key or one of its versions: sets the date, takes it back, or does it.
//!
//! What is destroyed leaves its shell: the rows stay for ever without the wrapped KEKs, with the
//! complement of their commitments for a later purge.

use std::sync::Arc;

use crate::audit::Leaf;
use crate::crypto::chain::commitment_of;
use crate::noun::{KeyName, KeyVersion, TenantName, Uid, UnixMillis};
use crate::rows;
use crate::store::{Precondition, Write};

use super::create_key::IMPOSSIBLE_COUNT;
use super::key_target::KeyTarget;
use super::load::OpenTenant;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::row_key::{KeyRow, ScheduleTarget};
use super::state::KeyState;
use super::terms::{Asked, Etag};
use super::view::{KeyPurpose, KeyView, VersionView};
use super::{Error, Keyring, VERSIONS_MAX, row, row_key};

impl Keyring {
    pub(super) async fn plan_schedule_key(
        &self,
        tenant: &TenantName,
        (name, version): (&KeyName, Option<KeyVersion>),
        wait_ms: Option<u64>,
        asked: &Asked,
    ) -> Result<Plan, Error> {
        let (wait_ms, tenant_name) = (self.wait_ms(wait_ms)?, tenant);
        let tenant = self.open_tenant_for_change(tenant).await?;
        let grant = self.grant_of_short_wait((tenant.uid, tenant_name), wait_ms, asked).await?;
        let lease_ms = self.longest_lease_ms(&tenant);
        let target = self.key_target(tenant, name, version).await?;
        let state = target.state()?;
        let to = if wait_ms == 0 { KeyState::Destroyed } else { KeyState::PendingDestruction };
        if state == KeyState::PendingDestruction || state.to(to).is_err() {
            // Neither a second date nor an end of the wait: cancel first.
            return Err(target.transition(to)?);
        }
        if version == Some(target.view.primary) {
            return Err(Error::PrimaryVersion);
        }
        if wait_ms == 0 {
            return Ok(self.plan_destroy_now(target).await?.by_grant(grant, false));
        }
        if let (Some(version), KeyPurpose::Managed) = (version, target.view.purpose) {
            self.refuse_version_in_use(target.tenant.uid, target.view.uid, version).await?;
        }
        let due = self.clock.now() + wait_ms;
        let scheduled = self.schedule_write(target.schedule(), due, &asked.who);
        let intent = Leaf { to: Some(due), ..target.leaf("ScheduleKeyDestruction") };
        Ok(target.plan_state(intent, to, Some(due), vec![scheduled])?.takes_away(lease_ms).by_grant(grant, false))
    }

    pub(super) async fn plan_cancel_key(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<Plan, Error> {
        let tenant = self.open_tenant_for_change(tenant).await?;
        let target = self.key_target(tenant, name, version).await?;
        target.must_be(KeyState::PendingDestruction, KeyState::Disabled)?;
        let unscheduled = Write::Delete(row_key::schedule(target.schedule()));
        let intent = target.leaf("CancelKeyDestruction");
        target.plan_state(intent, KeyState::Disabled, None, vec![unscheduled])
    }

    pub(super) async fn plan_destroy_due_key(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
        by: UnixMillis,
    ) -> Result<Plan, Error> {
        // A suspended tenant's dates come all the same.
        let tenant = self.open_tenant(tenant).await?;
        let target = self.key_target(tenant, name, version).await?;
        let is_due = target.destroy_ms().is_some_and(|due| due <= by);
        if target.state()? != KeyState::PendingDestruction || !is_due {
            return Err(target.transition(KeyState::Destroyed)?);
        }
        self.plan_destroy_now(target).await
    }

    async fn plan_destroy_now(&self, target: KeyTarget) -> Result<Plan, Error> {
        let whole_key = target.version.is_none();
        let intent = target.leaf(if whole_key { "DestroyKey" } else { "DestroyKeyVersion" });
        if let (Some(version), KeyPurpose::Managed) = (target.number(), target.view.purpose) {
            self.refuse_version_in_use(target.tenant.uid, target.view.uid, version).await?;
        }
        self.plan_destroy_target(target, intent, None).await
    }

    /// Plans to destroy what is meant; `recounted` says how many keys and managed data keys the tenant
    /// has then, where what its counters count is not known.
    pub(super) async fn plan_destroy_target(
        &self,
        target: KeyTarget,
        intent: Leaf,
        recounted: Option<(u64, u64)>,
    ) -> Result<Plan, Error> {
        let whole_key = target.version.is_none();
        let (etag, lease_ms) = (target.etag(), self.longest_lease_ms(&target.tenant));
        let of_version = target.number();
        let KeyTarget { tenant, view, row: key, record: key_record, version } = target;
        let victims = match version {
            Some(version) => vec![(version.record, version.row)],
            None => self.all_versions(&tenant, view.uid).await?,
        };
        // What a certificate names: the wrap of the newest KEK among them.
        let newest = victims.iter().rev().find_map(|(_, row)| commitment_of(&row.wrapped_kek));
        let at = row_key::key(tenant.uid, view.uid);
        let mut preconditions = vec![Precondition::Equals(at.clone(), key_record)];
        let mut writes = Vec::with_capacity(victims.len() * 2 + 3);
        let (mut destroyed, mut last_shell) = (0, None);
        for (record, victim) in victims {
            let number = row::version(victim.version)?;
            let place = row_key::key_version(tenant.uid, view.uid, number);
            preconditions.push(Precondition::of(place.clone(), record));
            let shell = shell_of(victim);
            let shell_record = row::seal(&tenant.record_mac, tenant.version, &place, &shell);
            writes.push(Write::Put(place, shell_record.clone()));
            writes.push(Write::Delete(row_key::schedule(ScheduleTarget::KeyVersion(tenant.uid, view.uid, number))));
            destroyed += 1;
            last_shell = Some((VersionView::of_row(&shell, Etag::of(&shell_record))?, shell_record));
        }
        let (last_version, last_record) = last_shell.ok_or(Error::Damaged("a key without versions"))?;
        let (counters_at, counters_before, counters) = self.counters(tenant.uid).await?;
        preconditions.push(Precondition::Equals(counters_at.clone(), counters_before));
        if whole_key {
            writes.push(Write::Delete(row_key::schedule(ScheduleTarget::Key(tenant.uid, view.uid))));
        }
        let deks = match view.purpose {
            KeyPurpose::Managed => {
                self.deks_to_destroy(&tenant, view.uid, of_version, &mut preconditions, &mut writes).await?
            }
            KeyPurpose::Encrypt | KeyPurpose::Mac => 0,
        };
        let fewer = |count: u64, by: u64| count.checked_sub(by).ok_or(IMPOSSIBLE_COUNT);
        let (keys, deks_left) = match recounted {
            Some(recounted) => recounted,
            None => (fewer(counters.keys, u64::from(whole_key))?, fewer(counters.deks, deks)?),
        };

        let (record_mac, secret_version) = (Arc::clone(&self.cluster.record_mac), self.cluster.secret_version);
        let intent = Leaf {
            tkc: newest.map(|commitment| hex::encode(commitment).into()),
            keys: Some(destroyed),
            deks: Some(deks),
            epoch: Some(self.epoch.place.number.get()),
            ..intent
        };
        let effect = move |placed: &Placed| {
            let counters = rows::TenantCounters {
                rev: counters.rev + 1,
                keys,
                deks: deks_left,
                last_destruction_index: Some(placed.intent_index),
            };
            let counters_record = row::seal(&record_mac, secret_version, &counters_at, &counters);
            writes.push(Write::Put(counters_at, counters_record));
            let name = view.name.clone();
            // The main row is that of what was destroyed: the key, or its one version.
            let (main_row, object) = if whole_key {
                let state = KeyState::Destroyed.to_row();
                let next = rows::Key { rev: key.rev + 1, state, updated_ms: placed.now, destroy_ms: None, ..key };
                let record = row::seal(&tenant.record_mac, tenant.version, &at, &next);
                writes.push(Write::Put(at, record.clone()));
                let next =
                    KeyView::of_row(tenant.name(), &next, Etag::of(&record)).expect("the row was read as a key before");
                (record, Object::Key(next))
            } else {
                (last_record, Object::Version(view, last_version))
            };
            Effect { preconditions, writes, main_row, after: After::ForgetKey(name), object }
        };
        Ok(Plan { intent, before: Some(etag), lease_ms: Some(lease_ms), effect: Box::new(effect) })
    }

    /// Plans what goes of managed data keys with their key, or with one version of it; returns how many
    /// go.
    async fn deks_to_destroy(
        &self,
        tenant: &OpenTenant,
        key: Uid,
        version: Option<KeyVersion>,
        preconditions: &mut Vec<Precondition>,
        writes: &mut Vec<Write>,
    ) -> Result<u64, Error> {
        let Some(version) = version else {
            writes.extend([
                Write::DeletePrefix(row_key::deks(tenant.uid, key)),
                Write::DeletePrefix(row_key::dek_counts(tenant.uid, key)),
                Write::Delete(row_key::rewrap_job(tenant.uid, key)),
            ]);
            return Ok(self.deks_of_key(tenant.uid, key).await?.iter().map(|(_, deks)| deks).sum());
        };
        let place = row_key::dek_count(tenant.uid, key, version);
        let read = self.store.get(&place).await?;
        preconditions.push(Precondition::of(place.clone(), read));
        writes.push(Write::Delete(place));
        // None, unless it came back with them and is destroyed again.
        self.deks_of_version(tenant.uid, key, version).await
    }

    /// Refuses to destroy a version while data keys may be on it: as long as it counts some, or while
    /// those of its key are being moved.
    async fn refuse_version_in_use(&self, tenant: Uid, key: Uid, version: KeyVersion) -> Result<(), Error> {
        let deks = self.deks_of_version(tenant, key, version).await?;
        let is_moving = self.store.get(&row_key::rewrap_job(tenant, key)).await?.is_some();
        if deks > 0 || is_moving { Err(Error::VersionInUse(deks)) } else { Ok(()) }
    }

    /// Reads all versions of a key: there are never more than fit one batch.
    async fn all_versions(
        &self,
        tenant: &OpenTenant,
        key: Uid,
    ) -> Result<Vec<(Option<Vec<u8>>, rows::KeyVersion)>, Error> {
        let prefix = row_key::key_versions(tenant.uid, key);
        let page = self.store.list(prefix.family, &prefix.key, None, VERSIONS_MAX as usize).await?;
        if page.more {
            return Err(Error::Damaged("a key with more versions than a key may have"));
        }
        let mut versions = Vec::with_capacity(page.rows.len());
        for (place, record) in page.rows {
            let Some(KeyRow::Version(_, _, number)) = row_key::parse_key_row(&place) else {
                return Err(Error::Damaged("a row among a key's versions that is none"));
            };
            let row: rows::KeyVersion =
                row::open(&tenant.record_mac, &row_key::key_version(tenant.uid, key, number), &record)?;
            versions.push((Some(record), row));
        }
        Ok(versions)
    }
}

fn shell_of(version: rows::KeyVersion) -> rows::KeyVersion {
    // A version destroyed before keeps the complement that it has.
    let complement =
        commitment_of(&version.wrapped_kek).map_or(version.kekc_complement, |c| c.map(|byte| !byte).to_vec());
    rows::KeyVersion {
        rev: version.rev + 1,
        state: KeyState::Destroyed.to_row(),
        wrapped_kek: Vec::new(),
        kekc_complement: complement,
        destroy_ms: None,
        ..version
    }
}
