//! RequestGrant: asks a second person for a role in a tenant for a time, or for one exact operation.

use kms_proto::v1;
use kms_proto::v1::operation::Operation as Asked;
use kms_proto::v1::request_grant_request::What;
use prost::Message as _;

use super::change::{changed_grant, terms};
use super::destroy_tenant::DestroyTenant;
use super::error::Error;
use super::export_keystore::ExportKeystore;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use super::schedule_key_destruction::ScheduleKeyDestruction;
use crate::keyring::{Change, ContentHash, GrantFor, Terms};
use crate::noun::TenantName;
use crate::policy::{Action, Resource, Role};

pub(super) struct RequestGrant {
    tenant: Option<TenantName>,
    what: GrantFor,
    hash: ContentHash,
    reason: Box<str>,
    asks: Vec<(Action, Resource)>,
    terms: Terms,
}

impl Operation for RequestGrant {
    type Wire = v1::RequestGrantRequest;
    type Reply = v1::RequestGrantResponse;
    const NAME: &'static str = "RequestGrant";

    fn parse(wire: v1::RequestGrantRequest) -> Result<Self, Error> {
        let terms = terms(&wire.request_id, wire.validate_only, ("etag", ""))?;
        let reason = reason(&wire.reason)?;
        match wire.what {
            Some(What::Role(role)) => of_role(&role, reason, terms),
            Some(What::Operation(operation)) => of_operation(&operation, reason, terms),
            None => Err(Error::Field { field: "what", rule: "must be a role or an operation" }),
        }
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        self.asks.clone()
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::RequestGrantResponse>, Failed> {
        let Self { tenant, what, hash, reason, terms, .. } = self;
        let changed = call.change(Change::RequestGrant { tenant, what, hash, reason }, terms).await?;
        Ok(Done::changed(v1::RequestGrantResponse { grant: changed_grant(&changed) }, &changed))
    }
}

fn of_role(wire: &v1::RoleGrant, reason: Box<str>, terms: Terms) -> Result<RequestGrant, Error> {
    let tenant = parse::tenant("role.tenant", &wire.tenant)?;
    let role = wire.role.parse().ok().filter(|role: &Role| role.can_be_granted()).ok_or(Error::Field {
        field: "role.role",
        rule: "must be one of encrypter, decrypter, reencrypter, key-admin, tenant-admin, auditor",
    })?;
    let rule = "must be from 1 s to 7 days, and no longer than the server allows, in whole seconds";
    let duration = wire.duration.as_ref().filter(|duration| duration.nanos == 0);
    let seconds = duration.and_then(|duration| u64::try_from(duration.seconds).ok());
    let seconds = seconds.filter(|seconds| (1..=DURATION_S_MAX).contains(seconds));
    let duration_ms = seconds.ok_or(Error::Field { field: "role.duration", rule })? * 1000;
    Ok(RequestGrant {
        hash: ContentHash::of_role(&tenant, role.as_str(), duration_ms, &reason),
        asks: vec![(Action::RequestGrant, Resource::Tenant(tenant.clone()))],
        what: GrantFor::Role { role: role.as_str().into(), duration_ms },
        tenant: Some(tenant),
        reason,
        terms,
    })
}

/// Takes an operation with all that it is, by the parser of its own call; it needs what that call needs.
fn of_operation(wire: &v1::Operation, reason: Box<str>, terms: Terms) -> Result<RequestGrant, Error> {
    let request = wire.encode_to_vec().into_boxed_slice();
    let (operation, asks, hash) = match wire.operation.clone() {
        Some(Asked::DestroyTenant(wire)) => {
            of_one_call(&wire.request_id, wire.validate_only)?;
            let asked = DestroyTenant::parse(wire)?;
            (DestroyTenant::NAME, asked.asks(), hash_of(asked.into_change()))
        }
        Some(Asked::ScheduleKeyDestruction(wire)) => {
            of_one_call(&wire.request_id, wire.validate_only)?;
            let asked = ScheduleKeyDestruction::parse(wire)?;
            (ScheduleKeyDestruction::NAME, asked.asks(), hash_of(asked.into_change()))
        }
        Some(Asked::ExportKeystore(wire)) => {
            of_one_call("", wire.validate_only)?;
            let asked = ExportKeystore::parse(wire)?;
            (ExportKeystore::NAME, asked.asks(), ExportKeystore::content_hash())
        }
        None => return Err(Error::Field { field: "operation", rule: "must be one of those that take two persons" }),
    };
    let tenant = asks.first().and_then(|(_, resource)| resource.tenant()).cloned();
    Ok(RequestGrant {
        tenant,
        what: GrantFor::Operation { operation: operation.into(), request },
        hash,
        reason,
        asks,
        terms,
    })
}

fn hash_of((change, terms): (Change, Terms)) -> ContentHash {
    ContentHash::of_change(change, terms.etag)
}

/// What belongs to one call of an operation is not part of what is approved.
fn of_one_call(request_id: &str, validate_only: bool) -> Result<(), Error> {
    if request_id.is_empty() && !validate_only {
        return Ok(());
    }
    Err(Error::Field {
        field: "operation",
        rule: "must have neither request_id nor validate_only: the call itself has them",
    })
}

fn reason(text: &str) -> Result<Box<str>, Error> {
    let rule = "must be 1 to 256 characters that can be seen, without those that turn the direction of writing";
    let count = text.chars().count();
    if (1..=REASON_CHARS_MAX).contains(&count) && !text.chars().any(is_hidden) && !text.trim().is_empty() {
        Ok(text.into())
    } else {
        Err(Error::Field { field: "reason", rule })
    }
}

/// Tells whether a character is not seen, or makes others look like what they are not.
fn is_hidden(char: char) -> bool {
    let is_format = matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    char.is_control() || is_format
}

const REASON_CHARS_MAX: usize = 256;
const DURATION_S_MAX: u64 = 7 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_something_that_can_be_read() {
        for good in ["ticket 4711", "a", "caf\u{e9} \u{1f511}", &"x".repeat(256)] {
            assert!(reason(good).is_ok(), "{good:?}");
        }
        for bad in ["", " ", "a\nb", "a\0", "\u{202e}4711 tekcit", "a\u{200b}", "\u{feff}a", &"x".repeat(257)] {
            assert!(matches!(reason(bad), Err(Error::Field { field: "reason", .. })), "{bad:?}");
        }
    }

    fn asked_for(role: &str, seconds: i64, nanos: i32) -> Result<RequestGrant, Error> {
        let duration = Some(prost_types::Duration { seconds, nanos });
        let role = v1::RoleGrant { tenant: "tenants/acme".into(), role: role.into(), duration };
        RequestGrant::parse(v1::RequestGrantRequest {
            what: Some(What::Role(role)),
            reason: "ticket 4711".into(),
            ..v1::RequestGrantRequest::default()
        })
    }

    #[test]
    fn roles_that_could_lead_to_more_cannot_be_granted() {
        for role in Role::ALL {
            assert_eq!(asked_for(role.as_str(), 60, 0).is_ok(), role.can_be_granted(), "{role}");
        }
        for (seconds, nanos) in [(0, 0), (-1, 0), (604_801, 0), (60, 1), (60, -1), (i64::MAX, 0)] {
            assert!(asked_for("decrypter", seconds, nanos).is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn everything_of_an_operation_is_in_its_hash_and_nothing_of_one_call() {
        let base = v1::DestroyTenantRequest { name: "tenants/acme".into(), ..v1::DestroyTenantRequest::default() };
        let wait = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let etag = "0123456789abcdef0123456789abcdef";
        let of = |wire: v1::DestroyTenantRequest| {
            let operation = v1::Operation { operation: Some(Asked::DestroyTenant(wire)) };
            of_operation(&operation, "r".into(), Terms::default()).map(|request| request.hash.0)
        };
        let hashes = [
            of(base.clone()),
            of(v1::DestroyTenantRequest { name: "tenants/acmf".into(), ..base.clone() }),
            of(v1::DestroyTenantRequest { wait: wait(0), ..base.clone() }),
            of(v1::DestroyTenantRequest { wait: wait(1), ..base.clone() }),
            of(v1::DestroyTenantRequest { etag: etag.into(), ..base.clone() }),
        ];
        let different: std::collections::BTreeSet<_> = hashes.into_iter().map(Result::unwrap).collect();
        assert_eq!(different.len(), 5);
        assert!(of(v1::DestroyTenantRequest { request_id: "1".into(), ..base.clone() }).is_err());
        assert!(of(v1::DestroyTenantRequest { validate_only: true, ..base }).is_err());
    }
}
