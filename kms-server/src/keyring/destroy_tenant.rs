//! Destroys a tenant: sets the date, or fences it.
//!
//! The fence, before the reply: intent durable -> gate closed and drained -> one batch: the tenant
//! row (tenant key, index root) goes, each family's rows of the tenant go by one range, the name
//! becomes a tombstone -> keys wiped from memory, gate fenced -> outcome durable. It does not
//! depend on how many keys there are. Purge and epoch rolls go on from the tombstone.
//!
//! **Invariant:** no success of the tenant has a log index above its FENCED record: whoever is
//! inside leaves with an index before the gate is drained, and nobody enters after
//! (`no_success_after_the_fence`).

use std::sync::Arc;

use crate::audit::Leaf;
use crate::noun::{TenantName, UnixMillis};
use crate::rows;
use crate::store::{Precondition, Write};

use super::load::OpenTenant;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::row_key::ScheduleTarget;
use super::state::TenantState;
use super::terms::{Asked, Etag};
use super::view::TenantView;
use super::{Error, Keyring, Who, row, row_key};

impl Keyring {
    pub(super) async fn plan_destroy_tenant(
        &self,
        name: &TenantName,
        wait_ms: Option<u64>,
        asked: &Asked,
    ) -> Result<Plan, Error> {
        let wait_ms = self.wait_ms(wait_ms)?;
        let tenant = self.open_tenant(name).await?;
        let grant = self.grant_of_short_wait((tenant.uid, name), wait_ms, asked).await?;
        let state = TenantState::of_row(tenant.row.state)?;
        if state == TenantState::PendingDestruction {
            // Neither a second date nor an end of the wait: cancel first.
            return Err(Error::Transition { what: "a tenant", from: state.as_str(), to: state.as_str() });
        }
        if wait_ms == 0 {
            return Ok(self.plan_fence(name, tenant).await?.by_grant(grant, true));
        }
        let next = state.to(TenantState::PendingDestruction)?;
        let due = self.clock.now() + wait_ms;
        let row =
            rows::Tenant { rev: tenant.row.rev + 1, state: next.to_row(), destroy_ms: Some(due), ..tenant.row.clone() };
        let scheduled = self.schedule_write(ScheduleTarget::Tenant(tenant.uid), due, &asked.who);
        let lease_ms = self.longest_lease_ms(&tenant);
        let intent = Leaf { to: Some(due), why: Some(SCHEDULED.into()), ..Leaf::of("DestroyTenant") };
        Ok(tenant.plan_row(name, intent, row, vec![scheduled])?.takes_away(lease_ms).by_grant(grant, false))
    }

    pub(super) async fn plan_destroy_due_tenant(&self, name: &TenantName, by: UnixMillis) -> Result<Plan, Error> {
        let tenant = self.open_tenant(name).await?;
        let state = TenantState::of_row(tenant.row.state)?;
        let is_due = tenant.row.destroy_ms.is_some_and(|due| due <= by);
        if state != TenantState::PendingDestruction || !is_due {
            return Err(Error::Transition { what: "a tenant", from: state.as_str(), to: TenantState::Fenced.as_str() });
        }
        self.plan_fence(name, tenant).await
    }

    async fn plan_fence(&self, name: &TenantName, tenant: OpenTenant) -> Result<Plan, Error> {
        let fenced = TenantState::of_row(tenant.row.state)?.to(TenantState::Fenced)?;
        let (at, at_name) = (row_key::tenant(tenant.uid), row_key::tenant_name(name));
        let named = self.read_cluster_row::<rows::TenantName>(&at_name).await?;
        let (name_record, named) = named.ok_or(Error::Damaged("a tenant without its name"))?;
        let (_, _, counters) = self.counters(tenant.uid).await?;
        let lease_ms = self.longest_lease_ms(&tenant);

        let commitment = tenant.wrapped.commitment();
        let mut writes = vec![Write::Delete(at.clone())];
        writes.extend(row_key::everything_of_tenant(tenant.uid).map(Write::DeletePrefix));
        let tombstone = rows::Tombstone {
            state: fenced.to_row(),
            tkc_complement: vec![commitment.map(|byte| !byte).to_vec()],
            epoch: self.epoch.place.number.get(),
            created_ms: tenant.row.created_ms,
            keys: counters.keys,
            deks: counters.deks,
            intent_index: 0,
            fenced_ms: 0,
        };
        let intent = Leaf {
            ten: Some(name.to_string().into()),
            tuid: Some(tenant.uid.to_string().into()),
            tkc: Some(hex::encode(commitment).into()),
            keys: Some(tombstone.keys),
            deks: Some(tombstone.deks),
            epoch: Some(tombstone.epoch),
            ..Leaf::of("DestroyTenant")
        };
        let (uid, name) = (tenant.uid, name.clone());
        let (record_mac, secret_version) = (Arc::clone(&self.cluster.record_mac), self.cluster.secret_version);
        let etag = Etag::of(&tenant.record);
        let effect = move |placed: &Placed| {
            let tombstone = rows::Tombstone { intent_index: placed.intent_index, fenced_ms: placed.now, ..tombstone };
            let message = rows::TenantName {
                rev: named.rev + 1,
                uid: uid.as_bytes().to_vec(),
                tombstone: Some(tombstone.clone()),
            };
            let record = row::seal(&record_mac, secret_version, &at_name, &message);
            let view = TenantView::of_tombstone(&name, uid, &tombstone, Etag::of(&record))
                .expect("the tombstone was just made of a tenant's parts");
            writes.push(Write::Put(at_name.clone(), record.clone()));
            Effect {
                preconditions: vec![
                    Precondition::Equals(at, tenant.record),
                    Precondition::Equals(at_name, name_record),
                ],
                writes,
                main_row: record,
                after: After::Fence,
                object: Object::Tenant(view),
            }
        };
        Ok(Plan { intent, before: Some(etag), lease_ms: Some(lease_ms), effect: Box::new(effect) })
    }

    /// The write that sets a destruction's date.
    pub(super) fn schedule_write(&self, target: ScheduleTarget, due_ms: u64, who: &Who) -> Write {
        let place = row_key::schedule(target);
        let record = self.seal_cluster_row(
            &place,
            &rows::Schedule { rev: 1, due_ms, principal: who.sub.as_deref().unwrap_or_default().to_owned() },
        );
        Write::Put(place, record)
    }
}

/// What an intent of `DestroyTenant` says that only sets a date.
pub(super) const SCHEDULED: &str = "SCHEDULED";
