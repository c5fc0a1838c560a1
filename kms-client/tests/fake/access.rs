//! Who may do what, as the service in this process has it: the test may all but Decrypt, and what a grant is for is said by
//! its uid.

use kms_proto::v1::access_service_server::AccessService;
use kms_proto::v1::*;
use tonic::{Code, Request, Response, Status};

use super::{Rules, TIME, page, refusal};

/// A role.
pub const ROLE_UID: &str = "00000000000000000000000000000000";
/// The destruction of a tenant.
pub const TENANT_UID: &str = "11111111111111111111111111111111";
/// The destruction of a version of a key.
pub const VERSION_UID: &str = "22222222222222222222222222222222";
/// An export of the keystore.
pub const EXPORT_UID: &str = "33333333333333333333333333333333";
/// What no client knows.
pub const NEWER_UID: &str = "44444444444444444444444444444444";
/// There is none.
pub const MISSING_UID: &str = "99999999999999999999999999999999";

/// Of every grant.
pub const CONTENT_HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn asked(what: Option<grant::What>) -> Grant {
    let tenant = match &what {
        Some(grant::What::Role(role)) => Some(&*role.tenant),
        Some(grant::What::Operation(operation)) => match operation.operation.as_ref().unwrap() {
            operation::Operation::DestroyTenant(asked) => Some(&*asked.name),
            operation::Operation::ScheduleKeyDestruction(asked) => asked.name.split("/keys/").next(),
            operation::Operation::ExportKeystore(_) => None,
        },
        None => None,
    };
    Grant {
        name: tenant.map_or(format!("grants/{ROLE_UID}"), |tenant| format!("{tenant}/grants/{ROLE_UID}")),
        state: GrantState::Pending.into(),
        requester: "spiffe://example.com/alice".to_owned(),
        reason: "ticket 4711".to_owned(),
        what,
        content_hash: CONTENT_HASH.to_owned(),
        request_time: Some(TIME),
        expire_time: Some(prost_types::Timestamp { seconds: TIME.seconds + 86_400, nanos: 0 }),
        ..Grant::default()
    }
}

fn role(tenant: &str) -> grant::What {
    let duration = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    grant::What::Role(RoleGrant { tenant: tenant.to_owned(), role: "decrypter".to_owned(), duration })
}

/// The grant of a name.
fn named(name: &str) -> Result<Grant, Status> {
    let (place, uid) = name.rsplit_once("grants/").unwrap();
    let operation = |operation| Some(grant::What::Operation(Operation { operation: Some(operation) }));
    let wait = Some(prost_types::Duration { seconds: 0, nanos: 0 });
    let tenant = place.trim_end_matches('/');
    let what = match uid {
        MISSING_UID => return Err(refusal(Code::NotFound, "GRANT_NOT_FOUND", "there is no such grant")),
        TENANT_UID => operation(operation::Operation::DestroyTenant(DestroyTenantRequest {
            name: tenant.to_owned(),
            wait,
            etag: "e1".to_owned(),
            ..Default::default()
        })),
        VERSION_UID => operation(operation::Operation::ScheduleKeyDestruction(ScheduleKeyDestructionRequest {
            name: format!("{tenant}/keys/app/versions/3"),
            wait,
            ..Default::default()
        })),
        EXPORT_UID => operation(operation::Operation::ExportKeystore(ExportKeystoreRequest::default())),
        NEWER_UID => None,
        _ => Some(role(tenant)),
    };
    Ok(Grant { name: name.to_owned(), ..asked(what) })
}

#[tonic::async_trait]
impl AccessService for Rules {
    async fn get_caller_identity(
        &self,
        request: Request<GetCallerIdentityRequest>,
    ) -> Result<Response<GetCallerIdentityResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(GetCallerIdentityResponse {
            principal: "spiffe://example.com/test".to_owned(),
            auth_method: AuthMethod::MtlsAndToken.into(),
            strength: ["certificate", "token", "mfa"].map(str::to_owned).into(),
            bindings: vec![
                Binding {
                    id: "test-all".to_owned(),
                    roles: vec!["encrypter".to_owned(), "decrypter".to_owned()],
                    tenants: vec!["*".to_owned()],
                    keys: vec!["app*".to_owned()],
                    expire_time: None,
                },
                Binding {
                    id: format!("grant/{ROLE_UID}"),
                    roles: vec!["auditor".to_owned()],
                    tenants: vec!["acme".to_owned()],
                    keys: vec!["*".to_owned()],
                    expire_time: Some(TIME),
                },
            ],
        }))
    }

    async fn test_permissions(
        &self,
        request: Request<TestPermissionsRequest>,
    ) -> Result<Response<TestPermissionsResponse>, Status> {
        let r = self.meet(request).await?;
        let test = |action: String| {
            if action != "Decrypt" {
                let rule = "test-all".to_owned();
                return TestedPermission { action, allowed: true, rule, ..Default::default() };
            }
            let considered = |rule: &str, verdict: &str| ConsideredRule { rule: rule.into(), verdict: verdict.into() };
            TestedPermission {
                action,
                allowed: false,
                rule: "default".to_owned(),
                needed: "a binding with the role decrypter".to_owned(),
                considered: vec![considered("at-night", "outside its networks"), considered("old", "expired")],
            }
        };
        Ok(Response::new(TestPermissionsResponse { permissions: r.actions.into_iter().map(test).collect() }))
    }

    async fn request_grant(
        &self,
        request: Request<RequestGrantRequest>,
    ) -> Result<Response<RequestGrantResponse>, Status> {
        let r = self.meet(request).await?;
        let what = r.what.map(|what| match what {
            request_grant_request::What::Role(role) => grant::What::Role(role),
            request_grant_request::What::Operation(operation) => grant::What::Operation(operation),
        });
        let mut grant = Grant { reason: r.reason, ..asked(what) };
        if grant.name.contains("/denied/") {
            return Err(refusal(Code::PermissionDenied, "POLICY_DENIED", "not allowed"));
        }
        if r.validate_only {
            grant.name.clear();
        }
        Ok(Response::new(RequestGrantResponse { grant: Some(grant) }))
    }

    async fn approve_grant(
        &self,
        request: Request<ApproveGrantRequest>,
    ) -> Result<Response<ApproveGrantResponse>, Status> {
        let r = self.meet(request).await?;
        let mut grant = named(&r.name)?;
        if r.content_hash != grant.content_hash {
            return Err(refusal(Code::Aborted, "GRANT_CHANGED", "the grant is for something else"));
        }
        grant.state = GrantState::Approved.into();
        (grant.approver, grant.approve_time) = ("spiffe://example.com/test".to_owned(), Some(TIME));
        Ok(Response::new(ApproveGrantResponse { grant: Some(grant) }))
    }

    async fn revoke_grant(
        &self,
        request: Request<RevokeGrantRequest>,
    ) -> Result<Response<RevokeGrantResponse>, Status> {
        let r = self.meet(request).await?;
        let mut grant = named(&r.name)?;
        grant.state = GrantState::Revoked.into();
        (grant.revoker, grant.end_time) = ("spiffe://example.com/test".to_owned(), Some(TIME));
        Ok(Response::new(RevokeGrantResponse { grant: Some(grant) }))
    }

    async fn get_grant(&self, request: Request<GetGrantRequest>) -> Result<Response<GetGrantResponse>, Status> {
        let r = self.meet(request).await?;
        Ok(Response::new(GetGrantResponse { grant: Some(named(&r.name)?) }))
    }

    async fn list_grants(&self, request: Request<ListGrantsRequest>) -> Result<Response<ListGrantsResponse>, Status> {
        let r = self.meet(request).await?;
        let (numbers, next_page_token) = page(r.page_size, &r.page_token);
        let place = if r.parent.is_empty() { String::new() } else { format!("{}/", r.parent) };
        // Of the cluster there are only operations.
        let uid = |n: usize| if place.is_empty() { EXPORT_UID.to_owned() } else { n.to_string().repeat(32) };
        let grants = numbers.map(|n| named(&format!("{place}grants/{}", uid(n)))).collect::<Result<_, _>>()?;
        Ok(Response::new(ListGrantsResponse { grants, next_page_token }))
    }
}
