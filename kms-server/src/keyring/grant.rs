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

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::audit::Leaf;
use crate::noun::{TenantName, Uid, UnixMillis};
use crate::rows;
use crate::store::{PAGE_ROWS_MAX, Precondition, RowKey, Write};

use super::answered::Parts;
use super::list::Listed;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::terms::{Asked, Etag, Terms};
use super::{Change, Error, Keyring, Who, row, row_key};

/// What a grant's life has come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GrantState {
    /// It waits for a second person.
    Pending,
    /// It is in force.
    Approved,
    /// Its operation was carried out.
    Used,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

impl GrantState {
    /// Returns its name, as errors have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            GrantState::Pending => "PENDING",
            GrantState::Approved => "APPROVED",
            GrantState::Used => "USED",
            GrantState::Revoked => "REVOKED",
            GrantState::Expired => "EXPIRED",
        }
    }
}

/// Tells what a grant is asked for from everything else: one operation with all its parameters, or a role with its place,
/// time and reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Of a change that is asked for, whatever its request id.
    pub fn of_change(change: Change, etag: Option<Etag>) -> Self {
        let terms = Terms { etag, ..Terms::default() };
        Self(Asked { change, terms, who: Who::service() }.hash())
    }

    /// Of an operation that is no change of the store, and has no parameters.
    pub fn of_operation(operation: &str) -> Self {
        let mut parts = Parts::default();
        parts.add(operation);
        Self(parts.hash())
    }

    /// Of a role that is asked for.
    pub fn of_role(tenant: &TenantName, role: &str, duration_ms: u64, reason: &str) -> Self {
        let mut parts = Parts::default();
        for part in ["role", tenant.as_str(), role, &duration_ms.to_string(), reason] {
            parts.add(part);
        }
        Self(parts.hash())
    }
}

/// What a grant is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GrantFor {
    /// A role, for so long from its approval.
    Role {
        /// The role's name.
        role: Box<str>,
        /// In milliseconds.
        duration_ms: u64,
    },
    /// One operation.
    Operation {
        /// Its name: the RPC's.
        operation: Box<str>,
        /// The request, as the API has it.
        request: Box<[u8]>,
    },
}

/// A grant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GrantView {
    /// Its uid.
    pub uid: Uid,
    /// Its tenant, or else it is the cluster's.
    pub tenant: Option<TenantName>,
    /// Its state, when it was looked at.
    pub state: GrantState,
    /// Who asked for it, and may use it.
    pub requester: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// What it is for.
    pub what: GrantFor,
    /// Of all that was asked for: who approves it says what he looked at.
    pub hash: ContentHash,
    /// When it was asked for.
    pub requested: UnixMillis,
    /// Until when it can be approved, or holds.
    pub end: UnixMillis,
    /// Who approved it, and when.
    pub approved: Option<(Box<str>, UnixMillis)>,
    /// Who took it back.
    pub revoker: Option<Box<str>>,
    /// When it was taken back, or used.
    pub ended: Option<UnixMillis>,
    /// Its row among all it had.
    pub etag: Etag,
}

/// A role that is in force by a grant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoleInForce {
    /// The grant.
    pub uid: Uid,
    /// Where.
    pub tenant: TenantName,
    /// For whom.
    pub principal: Box<str>,
    /// The role's name.
    pub role: Box<str>,
    /// From when: a clock that was set back past it gives nothing.
    pub from: UnixMillis,
    /// Until when.
    pub end: UnixMillis,
}

/// Is told of all roles that are in force by grants, each time they change.
pub type RolesInForce = dyn Fn(Vec<RoleInForce>) + Send + Sync;

/// The roles that are in force by grants.
pub(super) struct GrantsInForce {
    roles: Mutex<BTreeMap<Uid, RoleInForce>>,
    tell: Box<RolesInForce>,
}

impl GrantsInForce {
    pub(super) fn new(tell: Box<RolesInForce>) -> Self {
        Self { roles: Mutex::default(), tell }
    }

    /// Ends all of them.
    pub(super) fn end_all(&self) {
        self.change(UnixMillis::MAX, |_| {});
    }

    /// Changes what is in force. What is over goes, too.
    fn change(&self, now: UnixMillis, change: impl FnOnce(&mut BTreeMap<Uid, RoleInForce>)) {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut roles);
        roles.retain(|_, role| now < role.end);
        // Under the lock, so that the last one told is the last one.
        (self.tell)(roles.values().cloned().collect());
    }
}

/// The use of a grant, on its way into the batch of what it allows.
pub(super) struct GrantUse {
    at: RowKey,
    before: Vec<u8>,
    used: Vec<u8>,
    view: GrantView,
}

impl GrantView {
    pub(super) fn of_row(uid: Uid, row: &rows::Grant, etag: Etag, now: UnixMillis) -> Result<Self, Error> {
        let state = match rows::GrantState::try_from(row.state) {
            Ok(rows::GrantState::Pending | rows::GrantState::Approved) if row.end_ms <= now => GrantState::Expired,
            // Approved by a clock that was ahead: it must not hold until that time comes again.
            Ok(rows::GrantState::Approved) if row.approved_ms.is_none_or(|at| now < at) => GrantState::Expired,
            Ok(rows::GrantState::Pending) => GrantState::Pending,
            Ok(rows::GrantState::Approved) => GrantState::Approved,
            Ok(rows::GrantState::Used) => GrantState::Used,
            Ok(rows::GrantState::Revoked) => GrantState::Revoked,
            Ok(rows::GrantState::Unspecified) | Err(_) => {
                return Err(Error::Damaged("a state of a grant that does not exist"));
            }
        };
        let tenant = Some(&row.tenant).filter(|name| !name.is_empty()).map(|name| name.parse()).transpose();
        let what = if row.operation.is_empty() {
            GrantFor::Role { role: row.role.as_str().into(), duration_ms: row.duration_ms }
        } else {
            GrantFor::Operation { operation: row.operation.as_str().into(), request: row.request.as_slice().into() }
        };
        let hash = row.operation_hash[..].try_into().map_err(|_| Error::Damaged("a hash that has not 32 bytes"))?;
        Ok(Self {
            uid,
            tenant: tenant.map_err(|_| Error::Damaged("a tenant name that is none"))?,
            state,
            requester: row.requester.as_str().into(),
            reason: row.reason.as_str().into(),
            what,
            hash: ContentHash(hash),
            requested: row.requested_ms,
            end: row.end_ms,
            approved: row.approved_ms.map(|at| (row.approver.as_str().into(), at)),
            revoker: (!row.revoker.is_empty()).then(|| row.revoker.as_str().into()),
            ended: row.ended_ms,
            etag,
        })
    }

    pub(super) fn to_answer(&self) -> rows::AnsweredGrant {
        let (role, duration_ms, operation, request) = match &self.what {
            GrantFor::Role { role, duration_ms } => (role.to_string(), *duration_ms, String::new(), vec![]),
            GrantFor::Operation { operation, request } => (String::new(), 0, operation.to_string(), request.to_vec()),
        };
        let state = match self.state {
            GrantState::Pending | GrantState::Expired => rows::GrantState::Pending,
            GrantState::Approved => rows::GrantState::Approved,
            GrantState::Used => rows::GrantState::Used,
            GrantState::Revoked => rows::GrantState::Revoked,
        };
        let grant = rows::Grant {
            rev: 0,
            state: state.into(),
            requester: self.requester.to_string(),
            reason: self.reason.to_string(),
            requested_ms: self.requested,
            end_ms: self.end,
            tenant: self.tenant.as_ref().map(TenantName::to_string).unwrap_or_default(),
            role,
            duration_ms,
            operation,
            operation_hash: self.hash.0.to_vec(),
            request,
            approver: self.approved.as_ref().map(|(approver, _)| approver.to_string()).unwrap_or_default(),
            approved_ms: self.approved.as_ref().map(|(_, at)| *at),
            revoker: self.revoker.as_deref().unwrap_or_default().to_owned(),
            ended_ms: self.ended,
        };
        let (uid, etag) = (self.uid.as_bytes().to_vec(), self.etag.as_bytes().to_vec());
        rows::AnsweredGrant { uid, grant: Some(grant), etag }
    }

    pub(super) fn of_answer(answer: &rows::AnsweredGrant) -> Result<Self, Error> {
        let grant = answer.grant.as_ref().ok_or(Error::Damaged("an answer about nothing"))?;
        let etag = Etag::from_slice(&answer.etag).ok_or(Error::Damaged("an etag that has not 16 bytes"))?;
        // As it was when that was answered.
        let then = grant.ended_ms.or(grant.approved_ms).unwrap_or(grant.requested_ms);
        Self::of_row(row::uid(&answer.uid)?, grant, etag, then)
    }

    /// Says in a record which grant it is, and what for.
    fn evidence(&self) -> String {
        let Self { uid, reason, hash: ContentHash(hash), .. } = self;
        match &self.what {
            GrantFor::Role { role, duration_ms } => {
                format!("grant {uid}: role {role} for {} s: {reason}", duration_ms / 1000)
            }
            GrantFor::Operation { operation, .. } => {
                format!("grant {uid}: {operation} {}: {reason}", hex::encode(hash))
            }
        }
    }

    fn in_force(&self) -> Option<RoleInForce> {
        let (GrantState::Approved, GrantFor::Role { role, .. }, Some(tenant)) = (self.state, &self.what, &self.tenant)
        else {
            return None;
        };
        Some(RoleInForce {
            uid: self.uid,
            tenant: tenant.clone(),
            principal: self.requester.clone(),
            role: role.clone(),
            from: self.approved.as_ref()?.1,
            end: self.end,
        })
    }

    fn leaf(&self, operation: &'static str, tenant: Option<Uid>, other: Option<&str>) -> Leaf {
        Leaf {
            ten: self.tenant.as_ref().map(|tenant| tenant.to_string().into()),
            tuid: tenant.map(|uid| uid.to_string().into()),
            by2: other.map(|other| other.to_owned().into()),
            ev: Some(self.evidence().into()),
            ..Leaf::of(operation)
        }
    }
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
        self.each_grant(tenant, now, |at, grant| {
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
        let (tenant, record, grant, view) = self.grant_row(place, uid).await?;
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
        let (tenant, record, grant, view) = self.grant_row(place, uid).await?;
        if !matches!(view.state, GrantState::Pending | GrantState::Approved) {
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
        let mut found = None;
        self.each_grant(tenant, now, |at, grant| {
            let is_it = grant.state == GrantState::Approved
                && &*grant.requester == requester
                && grant.tenant.as_ref() == tenant_name
                && matches!(grant.what, GrantFor::Operation { .. })
                && grant.hash == hash;
            // Of several the one that ends first.
            if is_it && found.as_ref().is_none_or(|(end, _)| grant.end < *end) {
                found = Some((grant.end, at));
            }
        })
        .await?;
        let Some((_, at)) = found else { return Ok(None) };
        let (before, grant) =
            self.read_cluster_row::<rows::Grant>(&at).await?.ok_or(Error::Damaged("a grant that is listed only"))?;
        let (_, uid) = row_key::parse_grant(&at.key).ok_or(Error::Damaged("a row among the grants that is none"))?;
        let view = GrantView::of_row(uid, &grant, Etag::of(&before), now)?;
        let used =
            rows::Grant { rev: grant.rev + 1, state: rows::GrantState::Used.into(), ended_ms: Some(now), ..grant };
        let used = self.seal_cluster_row(&at, &used);
        Ok(Some(GrantUse { at, before, used, view }))
    }

    /// Returns a grant.
    pub async fn grant(&self, place: Option<&TenantName>, uid: Uid) -> Result<GrantView, Error> {
        Ok(self.grant_row(place, uid).await?.3)
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
        let items = page.rows.iter().map(|(at, record)| self.open_grant(at, record, now));
        Ok(Listed { items: items.collect::<Result<_, _>>()?, more: page.more })
    }

    /// Reads which roles are in force by grants, at the start. What is damaged gives nothing.
    pub(super) async fn put_grants_in_force(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let mut roles = BTreeMap::new();
        self.each_row(&row_key::all_grants(), |at, record| {
            match self.open_grant(at, record, now) {
                Ok(grant) => roles.extend(grant.in_force().map(|role| (grant.uid, role))),
                Err(error) => tracing::error!(%error, "a grant cannot be read, and gives nothing"),
            }
            Ok(())
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

    async fn grant_row(
        &self,
        place: Option<&TenantName>,
        uid: Uid,
    ) -> Result<(Option<Uid>, Vec<u8>, rows::Grant, GrantView), Error> {
        let tenant = self.tenant_of_place(place).await?;
        let found = self.read_cluster_row::<rows::Grant>(&row_key::grant(tenant, uid)).await?;
        let (record, grant) = found.ok_or(Error::GrantNotFound)?;
        let view = GrantView::of_row(uid, &grant, Etag::of(&record), self.clock.now())?;
        Ok((tenant, record, grant, view))
    }

    /// Hands out the grants of a place. What is damaged gives nothing.
    async fn each_grant(
        &self,
        tenant: Option<Uid>,
        now: UnixMillis,
        mut each: impl FnMut(RowKey, GrantView),
    ) -> Result<(), Error> {
        let prefix = row_key::grants(tenant);
        self.each_row(&prefix, |at, record| {
            match self.open_grant(at, record, now) {
                Ok(grant) => each(row_key::grant(tenant, grant.uid), grant),
                Err(error) => tracing::error!(%error, "a grant cannot be read, and gives nothing"),
            }
            Ok(())
        })
        .await
    }

    fn open_grant(&self, at: &[u8], record: &[u8], now: UnixMillis) -> Result<GrantView, Error> {
        let (tenant, uid) = row_key::parse_grant(at).ok_or(Error::Damaged("a row among the grants that is none"))?;
        let grant: rows::Grant = row::open(&self.cluster.record_mac, &row_key::grant(tenant, uid), record)?;
        GrantView::of_row(uid, &grant, Etag::of(record), now)
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
