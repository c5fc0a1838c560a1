//! Grants, permissions and reloads: what is asked arrives, and what is answered is understood.

use std::time::{Duration, SystemTime};

use kms_client::{
    Context, ErrorKind, GrantRef, GrantState, GrantWhat, Operation, PageRequest, PermissionTest, TenantRef,
    VersionNumber,
};

use crate::fake::access::{CONTENT_HASH, EXPORT_UID, MISSING_UID, NEWER_UID, ROLE_UID, TENANT_UID, VERSION_UID};
use crate::fake::{Fake, Fault, TIME, refusal};
use crate::{builder, key};

fn acme() -> TenantRef {
    TenantRef::new("acme").unwrap()
}

fn named(uid: &str) -> GrantRef {
    GrantRef::new(Some(&acme()), uid).unwrap()
}

#[tokio::test]
async fn a_role_is_asked_for_approved_and_taken_back() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    fake.take_calls();
    let asked = kms.request_role(&acme(), "decrypter", Duration::from_secs(5_400), "ticket 1").await.unwrap();
    assert_eq!((asked.name.clone(), asked.state), (Some(named(ROLE_UID)), GrantState::Pending));
    assert_eq!((asked.requester.as_str(), asked.reason.as_str()), ("spiffe://example.com/alice", "ticket 1"));
    assert_eq!((asked.approver, asked.revoker, asked.end_time), (None, None, None));
    let GrantWhat::Role(role) = &asked.what else { panic!("{:?}", asked.what) };
    assert_eq!((&role.tenant, role.role.as_str()), (&acme(), "decrypter"));
    assert_eq!(role.duration, Duration::from_secs(5_400));

    let approved = kms.approve_grant(&named(ROLE_UID), &asked.content_hash).await.unwrap();
    let now = SystemTime::try_from(TIME).unwrap();
    assert_eq!((approved.state, approved.approve_time), (GrantState::Approved, Some(now)));
    assert_eq!(approved.approver.as_deref(), Some("spiffe://example.com/test"));
    let changed = kms.approve_grant(&named(ROLE_UID), &"0".repeat(64).parse().unwrap()).await.unwrap_err();
    assert_eq!((changed.kind(), changed.reason()), (ErrorKind::Conflict, Some("GRANT_CHANGED")));
    let revoked = kms.revoke_grant(&named(ROLE_UID)).await.unwrap();
    assert_eq!((revoked.state, revoked.end_time), (GrantState::Revoked, Some(now)));

    let requests = fake.requests();
    assert!(requests[0].contains(r#"reason: "ticket 1""#) && requests[0].contains("seconds: 5400"), "{}", requests[0]);
    assert!(requests[1].contains(&format!("content_hash: \"{CONTENT_HASH}\"")), "{}", requests[1]);
}

#[tokio::test]
async fn an_operation_is_asked_for_with_all_that_its_call_has_and_nothing_of_one_call() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    let (wait, etag) = (Some(Duration::ZERO), Some("e7".parse().unwrap()));
    for operation in [
        Operation::DestroyTenant { tenant: acme(), wait, etag: etag.clone() },
        Operation::ScheduleKeyDestruction {
            key: key("app"),
            version: Some(VersionNumber::new(3).unwrap()),
            wait,
            etag,
        },
        Operation::ExportKeystore,
    ] {
        fake.take_calls();
        let id = "my-request".parse().unwrap();
        let asked = kms.request_operation(&operation, "4711").request_id(id).await.unwrap();
        assert_eq!(asked.what, GrantWhat::Operation(operation.clone()));
        let request = fake.requests().pop().unwrap();
        assert_eq!(request.matches("request_id: \"my-request\"").count(), 1, "{request}");
        assert_eq!(request.matches("validate_only: false").count(), 2, "{request}");
        if operation != Operation::ExportKeystore {
            assert!(request.contains(r#"etag: "e7""#) && request.contains("seconds: 0"), "{request}");
        }
    }
    let tried = kms.request_operation(&Operation::ExportKeystore, "4711").validate_only().await.unwrap();
    assert_eq!(tried.name, None);
}

#[tokio::test]
async fn grants_are_found_by_name_and_listed_of_a_tenant_or_of_the_cluster() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    let found = kms.get_grant(&named(TENANT_UID)).await.unwrap();
    let etag = Some("e1".parse().unwrap());
    let destruction = Operation::DestroyTenant { tenant: acme(), wait: Some(Duration::ZERO), etag };
    assert_eq!(found.what, GrantWhat::Operation(destruction));
    let found = kms.get_grant(&named(VERSION_UID)).await.unwrap();
    let GrantWhat::Operation(Operation::ScheduleKeyDestruction { key: of, version, .. }) = found.what else { panic!() };
    assert_eq!((of, version), (key("app"), Some(VersionNumber::new(3).unwrap())));
    assert_eq!(kms.get_grant(&named(NEWER_UID)).await.unwrap().what, GrantWhat::Unknown);
    let missing = kms.get_grant(&named(MISSING_UID)).await.unwrap_err();
    assert_eq!((missing.kind(), missing.reason()), (ErrorKind::NotFound, Some("GRANT_NOT_FOUND")));

    fake.take_calls();
    let first = kms.list_grants(Some(&acme()), PageRequest::first().size(3)).await.unwrap();
    assert_eq!((first.items.len(), first.next.is_some()), (3, true));
    let rest = kms.list_all_grants(Some(&acme()), 100, first.next).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (2, None));
    let of_cluster = kms.list_all_grants(None, 1, None).await.unwrap().items;
    assert_eq!(of_cluster[0].name, Some(GrantRef::new(None, EXPORT_UID).unwrap()));
    let parents: Vec<bool> =
        fake.requests().iter().map(|request| request.contains(r#"parent: "tenants/acme""#)).collect();
    assert_eq!(parents, [true, true, false]);
}

#[tokio::test]
async fn what_is_changed_of_a_grant_is_repeated_under_one_id() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    let hash = CONTENT_HASH.parse().unwrap();
    for number in 0..3 {
        fake.take_calls();
        fake.fail([Fault::Status(refusal(tonic::Code::Unavailable, "OVERLOADED", "not now"))]);
        match number {
            0 => kms.request_role(&acme(), "auditor", Duration::from_secs(1), "4711").await.unwrap(),
            1 => kms.approve_grant(&named(ROLE_UID), &hash).await.unwrap(),
            _ => kms.revoke_grant(&named(ROLE_UID)).await.unwrap(),
        };
        let calls = fake.take_calls();
        assert_eq!((calls.len(), calls[0].request_id()), (2, calls[1].request_id()));
        assert_eq!(calls[0].request_id().len(), 36);
        // The budget is for a service in trouble, which this one is not.
        for _ in 0..10 {
            kms.get_grant(&named(ROLE_UID)).await.unwrap();
        }
    }
    let id = "c-1".parse().unwrap();
    fake.take_calls();
    kms.approve_grant(&named(ROLE_UID), &hash).request_id(id).validate_only().await.unwrap();
    let request = fake.requests().pop().unwrap();
    assert!(request.contains(r#"request_id: "c-1""#) && request.contains("validate_only: true"), "{request}");
}

#[tokio::test]
async fn permissions_are_tested_with_all_that_is_asked() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    fake.take_calls();
    let tested = kms.test_permissions(PermissionTest::new(["Encrypt", "Decrypt"])).await.unwrap();
    assert_eq!((tested[0].allowed, tested[0].rule.as_str(), &tested[0].needed), (true, "test-all", &None));
    assert_eq!((tested[1].allowed, tested[1].rule.as_str()), (false, "default"));
    assert_eq!(tested[1].needed.as_deref(), Some("a binding with the role decrypter"));
    assert_eq!((tested[1].considered.len(), tested[1].considered[1].verdict.as_str()), (2, "expired"));
    let test = PermissionTest::new(["Decrypt"])
        .on(key("app"))
        .principal("spiffe://example.com/bob")
        .address("2001:db8::1".parse().unwrap())
        .strength(["certificate", "mfa"])
        .context(Context::from([("table", "users")]).aad("aad"));
    kms.test_permissions(test).await.unwrap();
    let requests = fake.requests();
    for part in [r#"principal: """#, r#"resource: """#, r#"address: """#, "strength: []", "encryption_context: {}"] {
        assert!(requests[0].contains(part), "{part} is not in {}", requests[0]);
    }
    for part in [
        r#"principal: "spiffe://example.com/bob""#,
        r#"resource: "tenants/acme/keys/app""#,
        r#"address: "2001:db8::1""#,
        r#"strength: ["certificate", "mfa"]"#,
        r#"encryption_context: {"table""#,
    ] {
        assert!(requests[1].contains(part), "{part} is not in {}", requests[1]);
    }
}

#[tokio::test]
async fn a_reload_is_ordered_or_only_tried_and_tells_what_is_different() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    fake.take_calls();
    let reloaded = kms.reload().await.unwrap();
    assert_eq!((reloaded.changed.len(), reloaded.need_restart), (2, vec!["listen".to_owned()]));
    // It may be done twice.
    fake.fail([Fault::Status(refusal(tonic::Code::Unavailable, "OVERLOADED", "not now"))]);
    assert_eq!(kms.rehearse_reload().await.unwrap().changed, reloaded.changed);
    let tried: Vec<bool> = fake.requests().iter().map(|request| request.contains("validate_only: true")).collect();
    assert_eq!(tried, [false, true, true]);
    fake.fail([Fault::Status(refusal(tonic::Code::FailedPrecondition, "RELOAD_FAILED", "bindings.toml:3:1: no"))]);
    let error = kms.reload().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, Some("RELOAD_FAILED")));
}
