//! The messages of `kms.v1.AccessService`, and of `kms.v1.OperatorService.Reload`.

use kms_client as kms;
use serde::Serialize;

use super::{Enum, Length, Time, next};

/// `kms.v1.GetCallerIdentityResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallerIdentity<'a> {
    principal: &'a str,
    auth_method: Enum,
    bindings: Vec<Binding<'a>>,
    strength: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Binding<'a> {
    id: &'a str,
    roles: &'a [String],
    tenants: &'a [String],
    keys: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<Time>,
}

impl<'a> From<&'a kms::CallerIdentity> for CallerIdentity<'a> {
    fn from(caller: &'a kms::CallerIdentity) -> Self {
        Self {
            principal: &caller.principal,
            auth_method: match caller.auth_method {
                kms::AuthMethod::Unknown(number) => Enum::Number(number),
                method => Enum::name("AUTH_METHOD_", method.as_str()),
            },
            bindings: caller
                .bindings
                .iter()
                .map(|binding| Binding {
                    id: &binding.id,
                    roles: &binding.roles,
                    tenants: &binding.tenants,
                    keys: &binding.keys,
                    expire_time: binding.expire_time.map(Time),
                })
                .collect(),
            strength: &caller.strength,
        }
    }
}

/// `kms.v1.TestPermissionsResponse`
#[derive(Serialize)]
pub struct TestedPermissions<'a> {
    permissions: Vec<TestedPermission<'a>>,
}

#[derive(Serialize)]
struct TestedPermission<'a> {
    action: &'a str,
    allowed: bool,
    rule: &'a str,
    needed: &'a str,
    considered: Vec<ConsideredRule<'a>>,
}

#[derive(Serialize)]
struct ConsideredRule<'a> {
    rule: &'a str,
    verdict: &'a str,
}

impl<'a> From<&'a [kms::TestedPermission]> for TestedPermissions<'a> {
    fn from(tested: &'a [kms::TestedPermission]) -> Self {
        let considered = |near: &'a kms::ConsideredRule| ConsideredRule { rule: &near.rule, verdict: &near.verdict };
        let permissions = tested.iter().map(|tested| TestedPermission {
            action: &tested.action,
            allowed: tested.allowed,
            rule: &tested.rule,
            needed: tested.needed.as_deref().unwrap_or_default(),
            considered: tested.considered.iter().map(considered).collect(),
        });
        Self { permissions: permissions.collect() }
    }
}

/// `kms.v1.Grant`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant<'a> {
    name: String,
    state: Enum,
    requester: &'a str,
    reason: &'a str,
    #[serde(flatten)]
    what: Option<What<'a>>,
    content_hash: &'a str,
    request_time: Time,
    expire_time: Time,
    approver: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    approve_time: Option<Time>,
    revoker: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Time>,
}

/// One of them, by its name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum What<'a> {
    Role { tenant: String, role: &'a str, duration: Length },
    Operation(Operation<'a>),
}

/// `kms.v1.Operation`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Operation<'a> {
    DestroyTenant(Destruction<'a>),
    ScheduleKeyDestruction(Destruction<'a>),
    #[serde(rename_all = "camelCase")]
    ExportKeystore {
        validate_only: bool,
    },
}

/// `kms.v1.DestroyTenantRequest` and `kms.v1.ScheduleKeyDestructionRequest`. What belongs to one call is empty in a grant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Destruction<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<Length>,
    etag: &'a str,
    request_id: &'a str,
    validate_only: bool,
}

impl<'a> What<'a> {
    /// Nothing for what a newer server knows.
    fn of(what: &'a kms::GrantWhat) -> Option<Self> {
        match what {
            kms::GrantWhat::Role(role) => {
                Some(Self::Role { tenant: role.tenant.to_string(), role: &role.role, duration: Length(role.duration) })
            }
            kms::GrantWhat::Operation(operation) => Operation::of(operation).map(Self::Operation),
            _ => None,
        }
    }
}

impl<'a> Operation<'a> {
    fn of(operation: &'a kms::Operation) -> Option<Self> {
        let destruction = |name, wait: &Option<std::time::Duration>, etag| Destruction {
            name,
            wait: wait.map(Length),
            etag: super::etag(etag),
            request_id: "",
            validate_only: false,
        };
        match operation {
            kms::Operation::DestroyTenant { tenant, wait, etag } => {
                Some(Self::DestroyTenant(destruction(tenant.to_string(), wait, etag)))
            }
            kms::Operation::ScheduleKeyDestruction { key, version, wait, etag } => {
                let name = version.map_or_else(|| key.to_string(), |version| format!("{key}/versions/{version}"));
                Some(Self::ScheduleKeyDestruction(destruction(name, wait, etag)))
            }
            kms::Operation::ExportKeystore => Some(Self::ExportKeystore { validate_only: false }),
            _ => None,
        }
    }
}

impl<'a> From<&'a kms::Grant> for Grant<'a> {
    fn from(grant: &'a kms::Grant) -> Self {
        Self {
            name: grant.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            state: match grant.state {
                kms::GrantState::Unknown(number) => Enum::Number(number),
                state => Enum::name("GRANT_STATE_", state.as_str()),
            },
            requester: &grant.requester,
            reason: &grant.reason,
            what: What::of(&grant.what),
            content_hash: grant.content_hash.as_str(),
            request_time: Time(grant.request_time),
            expire_time: Time(grant.expire_time),
            approver: grant.approver.as_deref().unwrap_or_default(),
            approve_time: grant.approve_time.map(Time),
            revoker: grant.revoker.as_deref().unwrap_or_default(),
            end_time: grant.end_time.map(Time),
        }
    }
}

/// `kms.v1.ListGrantsResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grants<'a> {
    grants: Vec<Grant<'a>>,
    next_page_token: &'a str,
}

impl<'a> From<&'a kms::Page<kms::Grant>> for Grants<'a> {
    fn from(page: &'a kms::Page<kms::Grant>) -> Self {
        Self { grants: page.items.iter().map(Into::into).collect(), next_page_token: next(page) }
    }
}

/// `kms.v1.ReloadResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded<'a> {
    changed: &'a [String],
    need_restart: &'a [String],
}

impl<'a> From<&'a kms::Reloaded> for Reloaded<'a> {
    fn from(reloaded: &'a kms::Reloaded) -> Self {
        Self { changed: &reloaded.changed, need_restart: &reloaded.need_restart }
    }
}
