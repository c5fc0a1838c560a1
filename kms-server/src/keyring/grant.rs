//! Grants: what one principal may do because a second one agreed. A role in a tenant for a time, or one exact operation
//! once. Asked for, approved, taken back, used.
//!
//! Not here: who may ask and approve, and what a role lets do (`policy`); what an operation looks like (`rpc`). The
//! walk-through of every crash is in the decision page `0015-grants-and-two-persons.md`.
//!
//! **Invariants:**
//! - who approves is never who asked (`nobody_approves_what_he_asked_for`);
//! - a grant of an operation is used at most once, in the batch that carries the operation out
//!   (`an_approved_operation_is_carried_out_once`);
//! - what is in force is told only after the approval's outcome is durable, and no more before a revocation's
//!   ([`super::mutation`]).

mod in_force;
mod view;

use std::collections::BTreeMap;

use crate::noun::{TenantName, Uid, UnixMillis};
use crate::rows;
use crate::store::{PAGE_ROWS_MAX, Precondition, RowKey, Write};

use super::list::Listed;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::terms::Etag;
use super::{Error, Keyring, Who, row, row_key};

pub(super) use in_force::GrantsInForce;
pub use in_force::{RoleInForce, RolesInForce};
pub use view::{ContentHash, GrantFor, GrantState, GrantView};

/// The use of a grant, on its way into the batch of what it allows.
pub(super) struct GrantUse {
    at: RowKey,
    before: Vec<u8>,
    used: Vec<u8>,
    view: GrantView,
}

/// A grant's row that was verified, with what it was read from.
struct OpenGrant {
    tenant: Option<Uid>,
    at: RowKey,
    record: Vec<u8>,
    row: rows::Grant,
    view: GrantView,
}

impl Keyring {
    pub(super) async fn plan_request_grant(
        &self,
        place: Option<&TenantName>,
        (what, hash): (&GrantFor, ContentHash),
        reason: &str,
        who: &Who,
    ) -> Result<Plan, Error> {
        if let GrantFor::Role { duration_ms, .. } = what
            && *duration_ms > self.settings.grant_ms_max
        {
            return Err(Error::GrantTooLong(self.settings.grant_ms_max));
        }
        let tenant = self.tenant_of_place(place).await?;
        let now = self.clock.now();
        let requester = who.sub.as_deref().unwrap_or_default();
        let (mut live, mut mine, mut over) = (0, 0, Vec::new());
        self.each_grant(&row_key::grants(tenant), now, |OpenGrant { at, view: grant, .. }| {
            if matches!(grant.state, GrantState::Pending | GrantState::Approved) {
                live += 1;
                mine += usize::from(grant.state == GrantState::Pending && &*grant.requester == requester);
            } else {
                over.push((grant.ended.unwrap_or(grant.end), at));
            }
        })
        .await?;
        if mine >= WAITING_MAX || live >= LIVE_MAX {
            return Err(Error::TooManyGrants);
        }
        // What is over makes room, the oldest first: nobody fills a place by asking and taking back.
        over.sort();
        let kept = over.partition_point(|(ended, _)| ended.saturating_add(KEPT_MS) <= now);
        let outdated = kept.max((live + 1 + over.len()).saturating_sub(GRANTS_MAX)).min(over.len());
        let writes = over.drain(..outdated).map(|(_, at)| Write::Delete(at)).collect();
        let (uid, tenant_name) = (Uid::generate(&*self.rng), place.map(TenantName::to_string));
        let mut grant = rows::Grant {
            rev: 1,
            state: rows::GrantState::Pending.into(),
            requester: requester.to_owned(),
            reason: reason.to_owned(),
            requested_ms: now,
            end_ms: now + REQUEST_MS,
            tenant: tenant_name.unwrap_or_default(),
            operation_hash: hash.0.to_vec(),
            ..rows::Grant::default()
        };
        match what {
            GrantFor::Role { role, duration_ms } => (grant.role, grant.duration_ms) = (role.to_string(), *duration_ms),
            GrantFor::Operation { operation, request } => {
                (grant.operation, grant.request) = (operation.to_string(), request.to_vec());
            }
        }
        self.plan_grant((tenant, uid), None, &grant, "RequestGrant", None, writes)
    }

    pub(super) async fn plan_approve_grant(
        &self,
        place: Option<&TenantName>,
        uid: Uid,
        hash: ContentHash,
        who: &Who,
    ) -> Result<Plan, Error> {
        let OpenGrant { tenant, record, row: grant, view, .. } = self.grant_row(place, uid).await?;
        let approver = who.sub.as_deref().unwrap_or_default();
        if &*view.requester == approver {
            return Err(Error::SecondPersonRequired);
        }
        if view.state != GrantState::Pending {
            return Err(Error::GrantState(view.state));
        }
        let lasts_ms = match &view.what {
            // The setting may have been shortened since it was asked for.
            GrantFor::Role { duration_ms, .. } if *duration_ms <= self.settings.grant_ms_max => *duration_ms,
            GrantFor::Role { .. } => return Err(Error::GrantTooLong(self.settings.grant_ms_max)),
            GrantFor::Operation { .. } => OPERATION_MS,
        };
        if hash != view.hash {
            return Err(Error::GrantChanged);
        }
        let now = self.clock.now();
        let next = rows::Grant {
            rev: grant.rev + 1,
            state: rows::GrantState::Approved.into(),
            approver: approver.to_owned(),
            approved_ms: Some(now),
            end_ms: now + lasts_ms,
            ..grant
        };
        self.plan_grant((tenant, uid), Some(record), &next, "ApproveGrant", Some(&view.requester), Vec::new())
    }

    pub(super) async fn plan_revoke_grant(
        &self,
        place: Option<&TenantName>,
        uid: Uid,
        who: &Who,
    ) -> Result<Plan, Error> {
        let OpenGrant { tenant, record, row: grant, view, .. } = self.grant_row(place, uid).await?;
        // One that was approved by a clock that was ahead will hold when that time comes: it can be taken back before.
        let may_hold = view.revoker.is_none() && view.ended.is_none() && self.clock.now() < view.end;
        if !may_hold {
            return Err(Error::GrantState(view.state));
        }
        let revoker = who.sub.as_deref().unwrap_or_default();
        let approver = view.approved.as_ref().map(|(approver, _)| &**approver);
        let other = if *revoker == *view.requester { approver } else { Some(&*view.requester) };
        let next = rows::Grant {
            rev: grant.rev + 1,
            state: rows::GrantState::Revoked.into(),
            revoker: revoker.to_owned(),
            ended_ms: Some(self.clock.now()),
            ..grant
        };
        self.plan_grant((tenant, uid), Some(record), &next, "RevokeGrant", other, Vec::new())
    }

    /// Plans to use the grant of an operation that is not a change of the store itself.
    pub(super) async fn plan_use_grant(&self, hash: ContentHash, who: &Who) -> Result<Plan, Error> {
        let GrantUse { at, before, used, view } =
            self.approved(None, None, hash, who).await?.ok_or(Error::ApprovalRequired)?;
        let intent = view.leaf("UseGrant", None, view.approved.as_ref().map(|(approver, _)| &**approver));
        let (etag, used_etag) = (Etag::of(&before), Etag::of(&used));
        let effect = move |placed: &Placed| Effect {
            preconditions: vec![Precondition::Equals(at.clone(), before)],
            writes: vec![Write::Put(at, used.clone())],
            main_row: used,
            after: After::Nothing,
            object: Object::Grant(GrantView {
                state: GrantState::Used,
                ended: Some(placed.now),
                etag: used_etag,
                ..view
            }),
        };
        Ok(Plan { intent, before: Some(etag), lease_ms: None, effect: Box::new(effect) })
    }

    /// Returns the grant that lets this principal carry out just this operation, if there is one.
    pub(super) async fn approved(
        &self,
        tenant: Option<Uid>,
        tenant_name: Option<&TenantName>,
        hash: ContentHash,
        who: &Who,
    ) -> Result<Option<GrantUse>, Error> {
        let now = self.clock.now();
        let requester = who.sub.as_deref().unwrap_or_default();
        let mut found: Option<OpenGrant> = None;
        self.each_grant(&row_key::grants(tenant), now, |open| {
            let grant = &open.view;
            let is_it = grant.state == GrantState::Approved
                && &*grant.requester == requester
                && grant.tenant.as_ref() == tenant_name
                && matches!(grant.what, GrantFor::Operation { .. })
                && grant.hash == hash;
            // Of several the one that ends first.
            if is_it && found.as_ref().is_none_or(|found| grant.end < found.view.end) {
                found = Some(open);
            }
        })
        .await?;
        let Some(OpenGrant { at, record: before, row: grant, view, .. }) = found else { return Ok(None) };
        let used =
            rows::Grant { rev: grant.rev + 1, state: rows::GrantState::Used.into(), ended_ms: Some(now), ..grant };
        let used = self.seal_cluster_row(&at, &used);
        Ok(Some(GrantUse { at, before, used, view }))
    }

    /// Returns a grant.
    pub async fn grant(&self, place: Option<&TenantName>, uid: Uid) -> Result<GrantView, Error> {
        Ok(self.grant_row(place, uid).await?.view)
    }

    /// Lists the grants in a tenant, or else the cluster, in the order of their uids, those after `after` only.
    pub async fn grants(
        &self,
        place: Option<&TenantName>,
        after: Option<Uid>,
        items_max: usize,
    ) -> Result<Listed<GrantView>, Error> {
        let tenant = self.tenant_of_place(place).await?;
        let prefix = row_key::grants(tenant);
        let after = after.map(|uid| row_key::grant(tenant, uid).key);
        let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), items_max).await?;
        let now = self.clock.now();
        let items = page.rows.iter().map(|(at, record)| Ok::<_, Error>(self.open_grant(at, record, now)?.view));
        Ok(Listed { items: items.collect::<Result<_, _>>()?, more: page.more })
    }

    /// Reads which roles are in force by grants, at the start. What is damaged gives nothing.
    pub(super) async fn put_grants_in_force(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let mut roles = BTreeMap::new();
        self.each_grant(&row_key::all_grants(), now, |OpenGrant { view, .. }| {
            roles.extend(view.in_force().map(|role| (view.uid, role)));
        })
        .await?;
        self.grants.change(now, |known| *known = roles);
        Ok(())
    }

    /// Puts in force what a change granted. Its outcome is durable.
    pub(super) fn begin_grant(&self, after: &After) {
        if let After::GrantBegan(role) = after {
            self.grants.change(self.clock.now(), |roles| {
                roles.insert(role.uid, role.clone());
            });
        }
    }

    /// Ends what a change took back, before anything is said of it.
    pub(super) fn end_grant(&self, after: &After) {
        if let After::GrantEnded(uid) = after {
            self.grants.change(self.clock.now(), |roles| {
                roles.remove(uid);
            });
        }
    }

    fn plan_grant(
        &self,
        (tenant, uid): (Option<Uid>, Uid),
        before: Option<Vec<u8>>,
        next: &rows::Grant,
        operation: &'static str,
        other: Option<&str>,
        mut writes: Vec<Write>,
    ) -> Result<Plan, Error> {
        let at = row_key::grant(tenant, uid);
        let record = self.seal_cluster_row(&at, next);
        let view = GrantView::of_row(uid, next, Etag::of(&record), self.clock.now())?;
        let intent = view.leaf(operation, tenant, other);
        let after = match view.state {
            GrantState::Approved => view.in_force().map_or(After::Nothing, After::GrantBegan),
            GrantState::Revoked => After::GrantEnded(uid),
            GrantState::Pending | GrantState::Used | GrantState::Expired => After::Nothing,
        };
        let etag = before.as_deref().map(Etag::of);
        writes.push(Write::Put(at.clone(), record.clone()));
        let effect = move |_: &Placed| Effect {
            preconditions: vec![Precondition::of(at, before)],
            writes,
            main_row: record,
            after,
            object: Object::Grant(view),
        };
        Ok(Plan { intent, before: etag, lease_ms: None, effect: Box::new(effect) })
    }

    /// Returns the uid of the tenant that grants lie in, which must live; none for the cluster.
    async fn tenant_of_place(&self, place: Option<&TenantName>) -> Result<Option<Uid>, Error> {
        match place {
            Some(name) => Ok(Some(self.open_tenant(name).await?.uid)),
            None => Ok(None),
        }
    }

    async fn grant_row(&self, place: Option<&TenantName>, uid: Uid) -> Result<OpenGrant, Error> {
        let at = row_key::grant(self.tenant_of_place(place).await?, uid);
        let record = self.store.get(&at).await?.ok_or(Error::GrantNotFound)?;
        self.open_grant(&at.key, &record, self.clock.now())
    }

    /// Hands out the grants under a prefix. What is damaged gives nothing.
    async fn each_grant(&self, prefix: &RowKey, now: UnixMillis, mut each: impl FnMut(OpenGrant)) -> Result<(), Error> {
        self.each_row(prefix, |at, record| {
            match self.open_grant(at, record, now) {
                Ok(grant) => each(grant),
                Err(error) => tracing::error!(%error, "a grant cannot be read, and gives nothing"),
            }
            Ok(())
        })
        .await
    }

    fn open_grant(&self, at: &[u8], record: &[u8], now: UnixMillis) -> Result<OpenGrant, Error> {
        let (tenant, uid) = row_key::parse_grant(at).ok_or(Error::Damaged("a row among the grants that is none"))?;
        let at = row_key::grant(tenant, uid);
        let row: rows::Grant = row::open(&self.cluster.record_mac, &at, record)?;
        let view = GrantView::of_row(uid, &row, Etag::of(record), now)?;
        Ok(OpenGrant { tenant, at, record: record.to_vec(), row, view })
    }
}

impl Plan {
    /// Says in the plan that two persons agreed, and uses their grant up in its batch; where the batch deletes all grants
    /// of the tenant, that is the use.
    pub(super) fn by_grant(mut self, grant: Option<GrantUse>, deletes_grants: bool) -> Self {
        let Some(GrantUse { at, before, used, view }) = grant else { return self };
        self.intent.by2 = view.approved.as_ref().map(|(approver, _)| approver.to_string().into());
        self.intent.ev = Some(view.evidence().into());
        let effect = self.effect;
        self.effect = Box::new(move |placed: &Placed| {
            let mut effect = effect(placed);
            effect.preconditions.push(Precondition::Equals(at.clone(), before));
            if !deletes_grants {
                effect.writes.push(Write::Put(at, used));
            }
            effect
        });
        self
    }
}

/// How long a request waits for a second person.
const REQUEST_MS: u64 = 24 * 3600 * 1000;
/// How long after its approval an operation can be carried out.
const OPERATION_MS: u64 = 3600 * 1000;
/// How long what is over is kept to be looked at. The audit log has it for ever.
const KEPT_MS: u64 = 30 * 24 * 3600 * 1000;
/// The most requests of one principal that wait in one place.
const WAITING_MAX: usize = 100;
/// The most grants in one place that wait or are in force.
const LIVE_MAX: usize = 500;
/// The most grants in one place, those included that are over.
const GRANTS_MAX: usize = 1_000;
const _: () = assert!(GRANTS_MAX < PAGE_ROWS_MAX, "one look of the store has all of a place");
