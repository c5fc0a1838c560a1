//! What a grant is, and how it looks in a row.

use crate::audit::Leaf;
use crate::keyring::answered::Parts;
use crate::keyring::terms::{Asked, Etag, Terms};
use crate::keyring::{Change, Error, Who, row};
use crate::noun::{TenantName, Uid, UnixMillis};
use crate::rows;

use super::RoleInForce;

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

impl GrantView {
    pub(in crate::keyring) fn of_row(uid: Uid, row: &rows::Grant, etag: Etag, now: UnixMillis) -> Result<Self, Error> {
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

    pub(in crate::keyring) fn to_answer(&self) -> rows::AnsweredGrant {
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

    pub(in crate::keyring) fn of_answer(answer: &rows::AnsweredGrant) -> Result<Self, Error> {
        let grant = answer.grant.as_ref().ok_or(Error::Damaged("an answer about nothing"))?;
        let etag = Etag::from_slice(&answer.etag).ok_or(Error::Damaged("an etag that has not 16 bytes"))?;
        // As it was when that was answered.
        let then = grant.ended_ms.or(grant.approved_ms).unwrap_or(grant.requested_ms);
        Self::of_row(row::uid(&answer.uid)?, grant, etag, then)
    }

    /// Says in a record which grant it is, and what for.
    pub(super) fn evidence(&self) -> String {
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

    pub(super) fn in_force(&self) -> Option<RoleInForce> {
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

    pub(super) fn leaf(&self, operation: &'static str, tenant: Option<Uid>, other: Option<&str>) -> Leaf {
        Leaf {
            ten: self.tenant.as_ref().map(|tenant| tenant.to_string().into()),
            tuid: tenant.map(|uid| uid.to_string().into()),
            by2: other.map(|other| other.to_owned().into()),
            ev: Some(self.evidence().into()),
            ..Leaf::of(operation)
        }
    }
}
