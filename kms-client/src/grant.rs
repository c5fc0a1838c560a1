//! Grants: what one person may do because a second one agreed. A role in a tenant for a time, or one exact operation once.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use kms_proto::v1;
use kms_proto::v1::access_service_client::AccessServiceClient;
use tonic::transport::Channel;

use crate::change::Said;
use crate::client::ANSWER_BYTES_MAX;
use crate::page::collect;
use crate::wire::{duration, duration_or_none, required, time, time_or_none};
use crate::{
    Client, Creation, Decision, Error, Etag, GrantRef, KeyRef, Page, PageRequest, PageToken, TenantRef, VersionNumber,
};

/// What one person may do because a second one agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Its name. `None` in the answer to a request that was only tried ([`Creation::validate_only`]).
    pub name: Option<GrantRef>,
    /// What its life has come to.
    pub state: GrantState,
    /// Who asked for it, and may use it.
    pub requester: String,
    /// Why.
    pub reason: String,
    /// What it is for.
    pub what: GrantWhat,
    /// Tells what is asked for from everything else. Whoever approves it says by this what he looked at.
    pub content_hash: ContentHash,
    /// When it was asked for.
    pub request_time: SystemTime,
    /// Until when it can be approved, or holds.
    pub expire_time: SystemTime,
    /// Who approved it.
    pub approver: Option<String>,
    /// When.
    pub approve_time: Option<SystemTime>,
    /// Who took it back.
    pub revoker: Option<String>,
    /// When it was taken back, or used.
    pub end_time: Option<SystemTime>,
}

/// What a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrantWhat {
    /// A role.
    Role(RoleGrant),
    /// An operation.
    Operation(Operation),
    /// Something that this version of the library does not know. Nobody should approve what he cannot read.
    Unknown,
}

/// A role in a tenant for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoleGrant {
    /// Where.
    pub tenant: TenantRef,
    /// The name of a set of permissions, such as `decrypter`.
    pub role: String,
    /// For how long from the approval.
    pub duration: Duration,
}

/// An operation that takes two persons, with all that its call has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// [`Client::destroy_tenant`], with a wait below the server's setting `destruction.wait_min`.
    DestroyTenant {
        /// Which.
        tenant: TenantRef,
        /// The wait; `None` for the server's default.
        wait: Option<Duration>,
        /// The etag that the call will have.
        etag: Option<Etag>,
    },
    /// [`Client::schedule_key_destruction`] or [`Client::schedule_key_version_destruction`], with a wait below the server's
    /// setting `destruction.wait_min`.
    ScheduleKeyDestruction {
        /// Which.
        key: KeyRef,
        /// Only this version of it.
        version: Option<VersionNumber>,
        /// The wait; `None` for the server's default.
        wait: Option<Duration>,
        /// The etag that the call will have.
        etag: Option<Etag>,
    },
    /// [`Client::export_keystore`].
    ExportKeystore,
}

/// What a grant's life has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// One that this version of the library does not know, with its number.
    Unknown(i32),
}

impl GrantState {
    /// Returns the state as the API names it, such as `PENDING`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Used => "USED",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    fn from_wire(number: i32) -> Self {
        match v1::GrantState::try_from(number) {
            Ok(v1::GrantState::Pending) => Self::Pending,
            Ok(v1::GrantState::Approved) => Self::Approved,
            Ok(v1::GrantState::Used) => Self::Used,
            Ok(v1::GrantState::Revoked) => Self::Revoked,
            Ok(v1::GrantState::Expired) => Self::Expired,
            Ok(v1::GrantState::Unspecified) | Err(_) => Self::Unknown(number),
        }
    }
}

/// Tells what is asked for by a grant from everything else. Opaque, and never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(String);

impl ContentHash {
    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Takes a hash as it was kept. An empty one is refused.
impl FromStr for ContentHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() { Err(Error::invalid("a content hash is not empty")) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Grant {
    pub(crate) fn from_wire(grant: Option<v1::Grant>) -> Result<Self, Error> {
        let grant = required(grant, "grant")?;
        let name = text_or_none(grant.name).map(|name| name.parse().map_err(|_| Error::malformed("grant.name")));
        Ok(Self {
            name: name.transpose()?,
            state: GrantState::from_wire(grant.state),
            requester: grant.requester,
            reason: grant.reason,
            what: match grant.what {
                Some(v1::grant::What::Role(role)) => GrantWhat::Role(RoleGrant::from_wire(role)?),
                Some(v1::grant::What::Operation(operation)) => {
                    Operation::from_wire(operation)?.map_or(GrantWhat::Unknown, GrantWhat::Operation)
                }
                None => GrantWhat::Unknown,
            },
            content_hash: grant.content_hash.parse().map_err(|_| Error::malformed("grant.content_hash"))?,
            request_time: time(grant.request_time, "grant.request_time")?,
            expire_time: time(grant.expire_time, "grant.expire_time")?,
            approver: text_or_none(grant.approver),
            approve_time: time_or_none(grant.approve_time, "grant.approve_time")?,
            revoker: text_or_none(grant.revoker),
            end_time: time_or_none(grant.end_time, "grant.end_time")?,
        })
    }
}

fn text_or_none(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl RoleGrant {
    fn from_wire(role: v1::RoleGrant) -> Result<Self, Error> {
        let length = duration_or_none(role.duration, "grant.role.duration")?;
        Ok(Self {
            tenant: role.tenant.parse().map_err(|_| Error::malformed("grant.role.tenant"))?,
            role: role.role,
            duration: required(length, "grant.role.duration")?,
        })
    }
}

impl Operation {
    /// Returns the call that it is, such as `DestroyTenant`: the name of its RPC.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::DestroyTenant { .. } => "DestroyTenant",
            Self::ScheduleKeyDestruction { .. } => "ScheduleKeyDestruction",
            Self::ExportKeystore => "ExportKeystore",
        }
    }

    fn from_wire(operation: v1::Operation) -> Result<Option<Self>, Error> {
        use v1::operation::Operation as Wire;
        let wait = |wait| duration_or_none(wait, "grant.operation.wait");
        Ok(match operation.operation {
            None => None,
            Some(Wire::DestroyTenant(asked)) => Some(Self::DestroyTenant {
                tenant: asked.name.parse().map_err(|_| Error::malformed("grant.operation.destroy_tenant.name"))?,
                wait: wait(asked.wait)?,
                etag: Etag::from_wire(asked.etag),
            }),
            Some(Wire::ScheduleKeyDestruction(asked)) => {
                let malformed = |_| Error::malformed("grant.operation.schedule_key_destruction.name");
                let (key, version) = match asked.name.split_once("/versions/") {
                    Some((key, version)) => (key, Some(version.parse().map_err(malformed)?)),
                    None => (&*asked.name, None),
                };
                Some(Self::ScheduleKeyDestruction {
                    key: key.parse().map_err(malformed)?,
                    version,
                    wait: wait(asked.wait)?,
                    etag: Etag::from_wire(asked.etag),
                })
            }
            Some(Wire::ExportKeystore(_)) => Some(Self::ExportKeystore),
        })
    }

    /// What belongs to one call (its `request_id`, `validate_only`) is no part of what is approved.
    fn to_wire(&self) -> v1::Operation {
        use v1::operation::Operation as Wire;
        let text = |etag: &Option<Etag>| etag.as_ref().map(ToString::to_string).unwrap_or_default();
        let operation = match self {
            Self::DestroyTenant { tenant, wait, etag } => Wire::DestroyTenant(v1::DestroyTenantRequest {
                name: tenant.to_string(),
                wait: duration(*wait),
                etag: text(etag),
                ..v1::DestroyTenantRequest::default()
            }),
            Self::ScheduleKeyDestruction { key, version, wait, etag } => {
                Wire::ScheduleKeyDestruction(v1::ScheduleKeyDestructionRequest {
                    name: version.map_or_else(|| key.to_string(), |version| format!("{key}/versions/{version}")),
                    wait: duration(*wait),
                    etag: text(etag),
                    ..v1::ScheduleKeyDestructionRequest::default()
                })
            }
            Self::ExportKeystore => Wire::ExportKeystore(v1::ExportKeystoreRequest::default()),
        };
        v1::Operation { operation: Some(operation) }
    }
}

impl Client {
    /// Asks a second person for a role in a tenant, such as `decrypter`, for a time from the approval. The reason is for
    /// whoever approves it, and for the tenant.
    pub fn request_role(&self, tenant: &TenantRef, role: &str, length: Duration, reason: &str) -> Creation<Grant> {
        let role =
            v1::RoleGrant { tenant: tenant.to_string(), role: role.to_owned(), duration: duration(Some(length)) };
        self.request_grant(v1::request_grant_request::What::Role(role), reason)
    }

    /// Asks a second person to approve one exact operation. Once that is done, the call itself is made, by who asked for it
    /// and with nothing changed: within an hour, unless the server is set otherwise.
    pub fn request_operation(&self, operation: &Operation, reason: &str) -> Creation<Grant> {
        self.request_grant(v1::request_grant_request::What::Operation(operation.to_wire()), reason)
    }

    fn request_grant(&self, what: v1::request_grant_request::What, reason: &str) -> Creation<Grant> {
        let (client, reason) = (self.clone(), reason.to_owned());
        Creation::new(move |said| async move {
            let Said { request_id, validate_only, .. } = said;
            let request = v1::RequestGrantRequest { what: Some(what), reason, request_id, validate_only };
            let send = |c, r| async move { stub(c).request_grant(r).await };
            Grant::from_wire(client.call("RequestGrant", request, send).await?.grant)
        })
    }

    /// Approves a grant that somebody else asked for: what was looked at, by its [`Grant::content_hash`]. Fails with the reason
    /// `GRANT_CHANGED` if it is for something else, and with `SECOND_PERSON_REQUIRED` for who asked for it.
    pub fn approve_grant(&self, grant: &GrantRef, seen: &ContentHash) -> Decision<Grant> {
        let (client, name, content_hash) = (self.clone(), grant.to_string(), seen.to_string());
        Decision::new(move |said| async move {
            let Said { request_id, validate_only, .. } = said;
            let request = v1::ApproveGrantRequest { name, content_hash, request_id, validate_only };
            let send = |c, r| async move { stub(c).approve_grant(r).await };
            Grant::from_wire(client.call("ApproveGrant", request, send).await?.grant)
        })
    }

    /// Takes a grant back, or a request for one. Once this returns, nothing begins by it any more.
    pub fn revoke_grant(&self, grant: &GrantRef) -> Decision<Grant> {
        let (client, name) = (self.clone(), grant.to_string());
        Decision::new(move |said| async move {
            let Said { request_id, validate_only, .. } = said;
            let request = v1::RevokeGrantRequest { name, request_id, validate_only };
            let send = |c, r| async move { stub(c).revoke_grant(r).await };
            Grant::from_wire(client.call("RevokeGrant", request, send).await?.grant)
        })
    }

    /// Returns a grant.
    pub async fn get_grant(&self, grant: &GrantRef) -> Result<Grant, Error> {
        let request = v1::GetGrantRequest { name: grant.to_string() };
        let answer = self.call("GetGrant", request, |c, r| async move { stub(c).get_grant(r).await }).await?;
        Grant::from_wire(answer.grant)
    }

    /// Returns one page of the grants of a tenant, or with `None` of the cluster: those of the last 30 days, in the order of
    /// their uids.
    pub async fn list_grants(&self, tenant: Option<&TenantRef>, page: PageRequest) -> Result<Page<Grant>, Error> {
        let parent = tenant.map(ToString::to_string).unwrap_or_default();
        let request = v1::ListGrantsRequest { parent, page_size: page.wire_size(), page_token: page.wire_token() };
        let answer = self.call("ListGrants", request, |c, r| async move { stub(c).list_grants(r).await }).await?;
        read_page(answer)
    }

    /// Returns up to `items_max` grants, from all pages there are after a token. Where that was not all, `next` goes on
    /// exactly after the last.
    pub async fn list_all_grants(
        &self,
        tenant: Option<&TenantRef>,
        items_max: usize,
        after: Option<PageToken>,
    ) -> Result<Page<Grant>, Error> {
        collect(items_max, after, |page| self.list_grants(tenant, page)).await
    }
}

pub(crate) fn read_page(answer: v1::ListGrantsResponse) -> Result<Page<Grant>, Error> {
    let grants: Result<_, Error> = answer.grants.into_iter().map(|grant| Grant::from_wire(Some(grant))).collect();
    Ok(Page::new(grants?, answer.next_page_token))
}

fn stub(channel: Channel) -> AccessServiceClient<Channel> {
    AccessServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Timestamp;

    #[test]
    fn every_state_of_the_api_is_known_and_another_keeps_its_number() {
        for number in 1..=5 {
            let name = v1::GrantState::try_from(number).unwrap().as_str_name();
            assert_eq!(format!("GRANT_STATE_{}", GrantState::from_wire(number).as_str()), name);
        }
        assert!(v1::GrantState::try_from(6).is_err(), "teach GrantState the new one");
        assert_eq!(GrantState::from_wire(0), GrantState::Unknown(0));
        assert_eq!(GrantState::from_wire(6), GrantState::Unknown(6));
    }

    #[test]
    fn an_operation_survives_its_way_to_the_server_and_back() {
        let (tenant, key) = (TenantRef::new("acme").unwrap(), KeyRef::new("acme", "app").unwrap());
        let (wait, etag) = (Some(Duration::from_secs(7)), Some("e1".parse::<Etag>().unwrap()));
        let version = Some(VersionNumber::new(3).unwrap());
        for operation in [
            Operation::DestroyTenant { tenant: tenant.clone(), wait, etag: etag.clone() },
            Operation::DestroyTenant { tenant, wait: Some(Duration::ZERO), etag: None },
            Operation::ScheduleKeyDestruction { key: key.clone(), version: None, wait: None, etag: None },
            Operation::ScheduleKeyDestruction { key, version, wait, etag },
            Operation::ExportKeystore,
        ] {
            assert_eq!(Operation::from_wire(operation.to_wire()).unwrap(), Some(operation));
        }
    }

    fn wire() -> v1::Grant {
        let time = Some(Timestamp { seconds: 1, nanos: 0 });
        v1::Grant {
            name: format!("tenants/acme/grants/{}", "0".repeat(32)),
            state: 1,
            content_hash: "a".repeat(64),
            request_time: time,
            expire_time: time,
            ..v1::Grant::default()
        }
    }

    #[test]
    fn what_a_newer_server_knows_is_unknown_and_what_cannot_be_is_an_error() {
        let read = |change: fn(&mut v1::Grant)| {
            let mut grant = wire();
            change(&mut grant);
            Grant::from_wire(Some(grant))
        };
        let plain = read(|_| {}).unwrap();
        assert_eq!((&plain.what, &plain.approver), (&GrantWhat::Unknown, &None));
        assert_eq!(plain.name.unwrap().uid(), "0".repeat(32));
        let of_newer = |grant: &mut v1::Grant| {
            grant.what = Some(v1::grant::What::Operation(v1::Operation::default()));
        };
        assert_eq!(read(of_newer).unwrap().what, GrantWhat::Unknown);
        assert_eq!(read(|grant| grant.name.clear()).unwrap().name, None);
        for (what, change) in [
            ("name", (|grant| grant.name = "tenants/acme".to_owned()) as fn(&mut v1::Grant)),
            ("hash", |grant| grant.content_hash.clear()),
            ("time", |grant| grant.expire_time = None),
            ("role", |grant| {
                let tenant = "tenants/acme".to_owned();
                let role = v1::RoleGrant { tenant, role: "decrypter".to_owned(), duration: None };
                grant.what = Some(v1::grant::What::Role(role));
            }),
            ("operation", |grant| {
                let asked = v1::DestroyTenantRequest { name: "acme".to_owned(), ..Default::default() };
                let operation = Some(v1::operation::Operation::DestroyTenant(asked));
                grant.what = Some(v1::grant::What::Operation(v1::Operation { operation }));
            }),
        ] {
            assert!(read(change).is_err(), "{what}");
        }
        assert!(Grant::from_wire(None).is_err());
    }
}
