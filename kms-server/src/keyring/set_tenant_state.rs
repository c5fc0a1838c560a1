//! Suspends and resumes a tenant, and takes its scheduled destruction back.

use crate::audit::Leaf;
use crate::noun::TenantName;
use crate::rows;
use crate::store::{Precondition, Write};

use super::lease::longest_ms;
use super::load::OpenTenant;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::row_key::ScheduleTarget;
use super::state::TenantState;
use super::terms::Etag;
use super::view::TenantView;
use super::{Error, Keyring, row, row_key};

impl Keyring {
    /// Plans the change from just that state: what cancels must not resume, what resumes not cancel.
    pub(super) async fn plan_tenant_state(
        &self,
        name: &TenantName,
        op: &'static str,
        from: TenantState,
        to: TenantState,
    ) -> Result<Plan, Error> {
        let tenant = self.open_tenant(name).await?;
        let state = TenantState::of_row(tenant.row.state)?;
        if state != from {
            return Err(Error::Transition { what: "a tenant", from: state.as_str(), to: to.as_str() });
        }
        let next = state.to(to)?;
        let row =
            rows::Tenant { rev: tenant.row.rev + 1, state: next.to_row(), destroy_ms: None, ..tenant.row.clone() };
        let unscheduled = tenant
            .row
            .destroy_ms
            .is_some()
            .then(|| Write::Delete(row_key::schedule(ScheduleTarget::Tenant(tenant.uid))));
        let lease_ms = (from == TenantState::Active).then(|| self.longest_lease_ms(&tenant));
        let plan = tenant.plan_row(name, Leaf::of(op), row, unscheduled.into_iter().collect())?;
        Ok(Plan { lease_ms, ..plan })
    }

    /// Returns how long somebody may now hold a key of the tenant, in milliseconds.
    pub(super) fn longest_lease_ms(&self, tenant: &OpenTenant) -> u64 {
        longest_ms(&tenant.row, self.clock.now(), self.clock_is_held())
    }
}

impl OpenTenant {
    /// Plans to write the tenant's row anew, with what else belongs to it.
    pub(super) fn plan_row(
        self,
        name: &TenantName,
        intent: Leaf,
        row: rows::Tenant,
        mut writes: Vec<Write>,
    ) -> Result<Plan, Error> {
        let at = row_key::tenant(self.uid);
        let record = row::seal(&self.record_mac, self.version, &at, &row);
        let view = TenantView::of_row(name, &row, Etag::of(&record))?;
        let intent = Leaf { ten: Some(name.to_string().into()), tuid: Some(self.uid.to_string().into()), ..intent };
        writes.push(Write::Put(at.clone(), record.clone()));
        let before = self.record;
        let etag = Etag::of(&before);
        let effect = move |_: &Placed| Effect {
            preconditions: vec![Precondition::Equals(at, before)],
            writes,
            main_row: record,
            // In memory are only active tenants; whatever it is now is loaded anew.
            after: After::ForgetTenant,
            object: Object::Tenant(view),
        };
        Ok(Plan { intent, before: Some(etag), lease_ms: None, effect: Box::new(effect) })
    }
}
