//! Grants as they come and go on the wire.

use kms_proto::v1;
use prost::Message as _;

use super::convert::{duration, timestamp};
use super::error::Error;
use crate::keyring::{ContentHash, GrantFor, GrantState, GrantView};
use crate::noun::{TenantName, Uid};
use crate::policy::Resource;

/// Where a grant lies, and which it is.
pub(super) struct GrantPath {
    pub(super) tenant: Option<TenantName>,
    pub(super) uid: Uid,
}

impl GrantPath {
    /// Reads `tenants/{tenant}/grants/{uid}` or `grants/{uid}`.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let rule = "must be tenants/{tenant}/grants/{uid} or grants/{uid}, with a uid of 32 of 0-9 a-f";
        let read = || {
            let (tenant, uid) = match text.strip_prefix("tenants/") {
                Some(rest) => {
                    let (tenant, uid) = rest.split_once("/grants/")?;
                    (Some(tenant.parse().ok()?), uid)
                }
                None => (None, text.strip_prefix("grants/")?),
            };
            // There is one spelling.
            let uid = Uid::from_hex(uid).filter(|parsed| parsed.to_string() == uid)?;
            Some(Self { tenant, uid })
        };
        read().ok_or(Error::Field { field: "name", rule })
    }

    /// Returns what permission is asked for.
    pub(super) fn resource(&self) -> Resource {
        resource_of(self.tenant.as_ref())
    }
}

/// Returns what permission is asked for, of the grants of a tenant or the cluster.
pub(super) fn resource_of(tenant: Option<&TenantName>) -> Resource {
    tenant.map_or(Resource::Cluster, |tenant| Resource::Tenant(tenant.clone()))
}

/// Reads the hash of what was looked at.
pub(super) fn content_hash(text: &str) -> Result<ContentHash, Error> {
    let rule = "must be the content_hash of the grant that was looked at: 64 of 0-9 a-f";
    let hash = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(ContentHash);
    hash.filter(|hash| hex::encode(hash.0) == text).ok_or(Error::Field { field: "content_hash", rule })
}

/// Returns a grant as it is told.
pub(super) fn grant(view: &GrantView) -> v1::Grant {
    let what = match &view.what {
        GrantFor::Role { role, duration_ms } => Some(v1::grant::What::Role(v1::RoleGrant {
            tenant: view.tenant.as_ref().map(|tenant| format!("tenants/{tenant}")).unwrap_or_default(),
            role: role.to_string(),
            duration: Some(duration(*duration_ms)),
        })),
        GrantFor::Operation { request, .. } => v1::Operation::decode(&**request).ok().map(v1::grant::What::Operation),
    };
    v1::Grant {
        name: match &view.tenant {
            Some(tenant) => format!("tenants/{tenant}/grants/{}", view.uid),
            None => format!("grants/{}", view.uid),
        },
        state: state(view.state).into(),
        requester: view.requester.to_string(),
        reason: view.reason.to_string(),
        what,
        content_hash: hex::encode(view.hash.0),
        request_time: Some(timestamp(view.requested)),
        expire_time: Some(timestamp(view.end)),
        approver: view.approved.as_ref().map(|(approver, _)| approver.to_string()).unwrap_or_default(),
        approve_time: view.approved.as_ref().map(|(_, at)| timestamp(*at)),
        revoker: view.revoker.as_deref().unwrap_or_default().to_owned(),
        end_time: view.ended.map(timestamp),
    }
}

fn state(state: GrantState) -> v1::GrantState {
    match state {
        GrantState::Pending => v1::GrantState::Pending,
        GrantState::Approved => v1::GrantState::Approved,
        GrantState::Used => v1::GrantState::Used,
        GrantState::Revoked => v1::GrantState::Revoked,
        GrantState::Expired => v1::GrantState::Expired,
    }
}
