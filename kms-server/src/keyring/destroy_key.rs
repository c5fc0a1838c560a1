//! Destroys a key or one of its versions: sets the date, takes it back, or does it.
//!
//! What is destroyed leaves its shell: the rows stay for ever without the wrapped KEKs, with the
//! complement of their commitments for a later purge.

use std::sync::Arc;

use crate::audit::{Leaf, Phase};
use crate::crypto::chain::commitment_of;
use crate::noun::{KeyName, KeyVersion, TenantName, Uid};
use crate::rows;
use crate::store::{Precondition, Write};

use super::create_key::key_leaf;
use super::load::OpenTenant;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::row_key::{KeyRow, ScheduleTarget};
use super::set_key_state::KeyTarget;
use super::state::KeyState;
use super::view::{KeyView, VersionView};
use super::{Error, Keyring, LEASE_MS, VERSIONS_MAX, Who, row, row_key};

impl Keyring {
    pub(super) async fn plan_schedule_key(
        &self,
        tenant_name: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
        wait_ms: Option<u64>,
        who: &Who,
    ) -> Result<Plan, Error> {
        let wait_ms = self.wait_ms(wait_ms)?;
        let tenant = self.open_tenant_for_change(tenant_name).await?;
        let target = self.key_target(&tenant, tenant_name, name, version).await?;
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
            return self.plan_destroy_now(tenant_name, name, tenant, target).await;
        }
        let due = self.clock.now() + wait_ms;
        let scheduled = self.schedule_write(schedule_of(&tenant, &target), due, who);
        let intent = Leaf {
            to: Some(due),
            ..key_leaf("ScheduleKeyDestruction", tenant_name, &tenant, name, target.uid(), version)
        };
        target.plan_state(intent, tenant_name, name, tenant, to, Some(due), vec![scheduled])
    }

    pub(super) async fn plan_cancel_key(
        &self,
        tenant_name: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<Plan, Error> {
        let tenant = self.open_tenant_for_change(tenant_name).await?;
        let target = self.key_target(&tenant, tenant_name, name, version).await?;
        target.must_be(KeyState::PendingDestruction, KeyState::Disabled)?;
        let unscheduled = Write::Delete(row_key::schedule(schedule_of(&tenant, &target)));
        let intent = key_leaf("CancelKeyDestruction", tenant_name, &tenant, name, target.uid(), version);
        target.plan_state(intent, tenant_name, name, tenant, KeyState::Disabled, None, vec![unscheduled])
    }

    pub(super) async fn plan_destroy_due_key(
        &self,
        tenant_name: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<Plan, Error> {
        // A suspended tenant's dates come all the same.
        let tenant = self.open_tenant(tenant_name).await?;
        let target = self.key_target(&tenant, tenant_name, name, version).await?;
        let is_due = target.destroy_ms().is_some_and(|due| due <= self.clock.now());
        if target.state()? != KeyState::PendingDestruction || !is_due {
            return Err(target.transition(KeyState::Destroyed)?);
        }
        self.plan_destroy_now(tenant_name, name, tenant, target).await
    }

    async fn plan_destroy_now(
        &self,
        tenant_name: &TenantName,
        name: &KeyName,
        tenant: OpenTenant,
        target: KeyTarget,
    ) -> Result<Plan, Error> {
        let uid = target.uid();
        let version = target.version.as_ref().map(|(version, _, _)| *version);
        let victims = match &target.version {
            Some((_, record, row)) => vec![(record.clone(), row.clone())],
            None => self.all_versions(&tenant, uid).await?,
        };
        // What a certificate names: the wrap of the newest KEK among them.
        let newest = victims.iter().rev().find_map(|(_, row)| commitment_of(&row.wrapped_kek));
        let mut preconditions = Vec::with_capacity(victims.len() + 2);
        let mut writes = Vec::with_capacity(victims.len() * 2 + 3);
        let mut shells = Vec::with_capacity(victims.len());
        let mut newest_shell = Vec::new();
        for (record, victim) in victims {
            let number = row::version(victim.version)?;
            let place = row_key::key_version(tenant.uid, uid, number);
            preconditions.push(Precondition::Equals(place.clone(), record));
            let shell = shell_of(&victim);
            newest_shell = row::seal(&tenant.record_mac, tenant.version, &place, &shell);
            writes.push(Write::Put(place.clone(), newest_shell.clone()));
            writes.push(Write::Delete(row_key::schedule(ScheduleTarget::KeyVersion(tenant.uid, uid, number))));
            shells.push(shell);
        }
        let counters_at = row_key::tenant_counters(tenant.uid);
        let counters = self.read_cluster_row::<rows::TenantCounters>(&counters_at).await?;
        let (counters_before, counters) = counters.ok_or(Error::Damaged("a tenant without its counters"))?;
        preconditions.push(Precondition::Equals(counters_at.clone(), counters_before));
        let whole_key = version.is_none();
        let keys_left = if whole_key {
            counters.keys.checked_sub(1).ok_or(Error::Damaged("a count of keys that cannot be"))?
        } else {
            counters.keys
        };
        if whole_key {
            writes.push(Write::Delete(row_key::schedule(ScheduleTarget::Key(tenant.uid, uid))));
        }

        let op = if whole_key { "DestroyKey" } else { "DestroyKeyVersion" };
        let intent = key_leaf(op, tenant_name, &tenant, name, uid, version);
        let at = row_key::key(tenant.uid, uid);
        let (record_mac, secret_version, epoch) =
            (Arc::clone(&self.cluster.record_mac), self.cluster.secret_version, self.epoch.place.number.get());
        let (tenant_name, name) = (tenant_name.clone(), name.clone());
        let destroyed_versions = shells.len() as u64;
        let effect = move |placed: &Placed| {
            let next_counters = rows::TenantCounters {
                rev: counters.rev + 1,
                keys: keys_left,
                last_destruction_index: Some(placed.intent_index),
            };
            writes.push(Write::Put(
                counters_at.clone(),
                row::seal(&record_mac, secret_version, &counters_at, &next_counters),
            ));
            preconditions.push(Precondition::Equals(at.clone(), target.record));
            // The main row is that of what was destroyed: the key, or its one version.
            let (mut key, mut main_row) = (target.row, newest_shell);
            if whole_key {
                key = rows::Key {
                    rev: key.rev + 1,
                    state: KeyState::Destroyed.to_row(),
                    updated_ms: placed.now,
                    destroy_ms: None,
                    ..key
                };
                main_row = row::seal(&tenant.record_mac, tenant.version, &at, &key);
                writes.push(Write::Put(at, main_row.clone()));
            }
            let view = KeyView::of_row(&tenant_name, &key).expect("the row was read as a key before");
            let object = match (whole_key, shells.first()) {
                (false, Some(shell)) => {
                    Object::Version(view, VersionView::of_row(shell).expect("the row was read as a version before"))
                }
                (true, _) | (false, None) => Object::Key(view),
            };
            Effect {
                preconditions,
                writes,
                outcome: Leaf {
                    ph: Some(Phase::Fenced),
                    tkc: newest.map(|commitment| hex::encode(commitment).into()),
                    keys: Some(destroyed_versions),
                    deks: Some(0),
                    lease: Some(placed.now + LEASE_MS),
                    epoch: Some(epoch),
                    ..Leaf::default()
                },
                main_row,
                is_destruction: true,
                after: After::ForgetKey(name),
                object,
            }
        };
        Ok(Plan { intent, effect: Box::new(effect) })
    }

    /// Reads all versions of a key: there are never more than fit one batch.
    async fn all_versions(&self, tenant: &OpenTenant, key: Uid) -> Result<Vec<(Vec<u8>, rows::KeyVersion)>, Error> {
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
            versions.push((record, row));
        }
        Ok(versions)
    }
}

fn schedule_of(tenant: &OpenTenant, target: &KeyTarget) -> ScheduleTarget {
    match &target.version {
        None => ScheduleTarget::Key(tenant.uid, target.uid()),
        Some((version, _, _)) => ScheduleTarget::KeyVersion(tenant.uid, target.uid(), *version),
    }
}

fn shell_of(version: &rows::KeyVersion) -> rows::KeyVersion {
    // A version destroyed before keeps the complement that it has.
    let complement = commitment_of(&version.wrapped_kek)
        .map_or_else(|| version.kekc_complement.clone(), |c| c.map(|byte| !byte).to_vec());
    rows::KeyVersion {
        rev: version.rev + 1,
        state: KeyState::Destroyed.to_row(),
        wrapped_kek: Vec::new(),
        kekc_complement: complement,
        destroy_ms: None,
        ..version.clone()
    }
}
