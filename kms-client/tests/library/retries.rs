//! Which calls are repeated, how often, and with which id. The waits themselves are tested in `src/call.rs`, where time
//! is passed in.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use kms_client::{
    Client, Context, DataKeyUid, Error, ErrorKind, KeyPurpose, Labels, NewDataKey, PageRequest, RequestId, TenantRef,
    TenantSettings, VersionNumber,
};
use tonic::{Code, Status};

use crate::fake::wire::Wire;
use crate::fake::{Call, Fake, Fault, refusal, refusal_until};
use crate::{builder, key};

type Calling<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// Every call that changes something, by the name of its RPC.
fn changes(kms: &Client) -> Vec<(&'static str, Calling<'_>)> {
    fn change<'a, T>(
        name: &'static str,
        call: impl IntoFuture<Output = Result<T, Error>> + 'a,
    ) -> (&'static str, Calling<'a>) {
        (name, Box::pin(async move { call.await.map(drop) }))
    }
    let (acme, app, two) = (TenantRef::new("acme").unwrap(), key("app"), VersionNumber::new(2).unwrap());
    let (nothing, uid) = (Context::new(), DataKeyUid::from([0; 16]));
    vec![
        change("CreateTenant", kms.create_tenant(&acme)),
        change("UpdateTenant", kms.update_tenant(&acme, TenantSettings::new().data_key_lease(Duration::from_secs(1)))),
        change("SuspendTenant", kms.suspend_tenant(&acme)),
        change("ResumeTenant", kms.resume_tenant(&acme)),
        change("DestroyTenant", kms.destroy_tenant(&acme, None)),
        change("CancelTenantDestruction", kms.cancel_tenant_destruction(&acme)),
        change("CreateKey", kms.create_key(&app, KeyPurpose::Encrypt, Labels::new())),
        change("UpdateKey", kms.update_labels(&app, Labels::new())),
        change("EnableKey", kms.enable_key(&app)),
        change("EnableKey", kms.enable_key_version(&app, two)),
        change("DisableKey", kms.disable_key(&app)),
        change("DisableKey", kms.disable_key_version(&app, two)),
        change("RotateKey", kms.rotate_key(&app)),
        change("ScheduleKeyDestruction", kms.schedule_key_destruction(&app, None)),
        change("ScheduleKeyDestruction", kms.schedule_key_version_destruction(&app, two, None)),
        change("CancelKeyDestruction", kms.cancel_key_destruction(&app)),
        change("CancelKeyDestruction", kms.cancel_key_version_destruction(&app, two)),
        change("CreateDataKey", kms.create_data_key(&app, &nothing)),
        change("CreateDataKey", kms.create_data_key_uid(&app, &nothing)),
        change("CreateDataKey", kms.create_data_key(&app, &nothing).validate_only()),
        change("BatchCreateDataKeys", kms.create_data_key_batch(&app, &nothing, [NewDataKey::default()])),
        change("BatchCreateDataKeys", kms.create_data_key_uid_batch(&app, &nothing, [NewDataKey::default()])),
        change("DestroyDataKey", kms.destroy_data_key(&app, uid)),
        change("BatchDestroyDataKeys", kms.destroy_data_key_batch(&app, [uid])),
    ]
}

fn overloaded() -> Fault {
    Fault::Status(refusal(Code::Unavailable, "OVERLOADED", "too much work at once"))
}

/// One client each, so that no call finds the budget that another used up.
async fn connected(fake: &Fake) -> Client {
    let kms = builder(fake).connect().await.unwrap();
    fake.take_calls();
    kms
}

fn previous(calls: &[Call]) -> Vec<Option<&str>> {
    calls.iter().map(|call| call.previous.as_deref()).collect()
}

#[tokio::test]
async fn a_change_is_repeated_with_the_id_that_it_had_and_each_change_has_its_own() {
    let fake = Fake::start().await;
    let mut ids = BTreeSet::new();
    for index in 0..changes(&connected(&fake).await).len() {
        let kms = connected(&fake).await;
        let (name, call) = changes(&kms).swap_remove(index);
        fake.fail([overloaded(), overloaded()]);
        call.await.unwrap();
        let calls = fake.take_calls();
        assert!(calls.iter().all(|call| call.request.starts_with(&format!("{name}Request"))), "{name}: {calls:?}");
        assert_eq!(previous(&calls), [None, Some("1"), Some("2")], "{name}");
        let own: BTreeSet<String> = calls.iter().map(|call| call.request_id().to_owned()).collect();
        assert_eq!(own.len(), 1, "{name}: {own:?}");
        assert_eq!(own.first().unwrap().len(), 36, "{name}: {own:?}");
        ids.extend(own);
    }
    assert_eq!(ids.len(), 24);
}

#[tokio::test]
async fn a_change_whose_connection_breaks_is_repeated_with_the_id_that_it_had() {
    let fake = Fake::start().await;
    let wire = Wire::to(&fake.address).await;
    let kms = crate::builder_at(&fake, &wire.address).connect().await.unwrap();
    fake.take_calls();
    fake.fail([Fault::Cut(wire.clone())]);
    kms.rotate_key(&key("app")).await.unwrap();
    let calls = fake.take_calls();
    assert_eq!((calls.len(), calls[0].request_id()), (2, calls[1].request_id()));
}

#[tokio::test]
async fn reads_and_the_data_plane_are_repeated_when_the_connection_breaks() {
    let fake = Fake::start().await;
    let wire = Wire::to(&fake.address).await;
    let kms = crate::builder_at(&fake, &wire.address).connect().await.unwrap();
    let (app, nothing) = (key("app"), Context::new());
    // More often than the budget has tokens: a lost connection is not the service's trouble.
    for _ in 0..8 {
        fake.take_calls();
        fake.fail([Fault::Cut(wire.clone())]);
        let sealed = kms.encrypt(&app, b"hello", &nothing).await.unwrap();
        assert_eq!(previous(&fake.take_calls()), [None, Some("1")]);
        fake.fail([Fault::Cut(wire.clone())]);
        kms.decrypt(&app, &sealed.ciphertext, &nothing).await.unwrap();
        fake.fail([Fault::Cut(wire.clone())]);
        kms.list_keys(app.tenant(), PageRequest::first()).await.unwrap();
        assert_eq!(fake.take_calls().len(), 4);
    }
}

#[tokio::test]
async fn what_will_not_pass_is_asked_once() {
    let fake = Fake::start().await;
    for (code, reason, kind) in [
        (Code::Aborted, "CONFLICT", ErrorKind::Conflict),
        (Code::Aborted, "ETAG_MISMATCH", ErrorKind::Conflict),
        (Code::Internal, "INTERNAL", ErrorKind::Internal),
        (Code::DeadlineExceeded, "DEADLINE", ErrorKind::DeadlineExceeded),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE", ErrorKind::ResourceExhausted),
        (Code::InvalidArgument, "REQUEST_ID_REUSED", ErrorKind::InvalidArgument),
        (Code::PermissionDenied, "POLICY_DENIED", ErrorKind::PermissionDenied),
        (Code::NotFound, "KEY_NOT_FOUND", ErrorKind::NotFound),
        (Code::FailedPrecondition, "KEY_DISABLED", ErrorKind::FailedPrecondition),
        (Code::Unimplemented, "METHOD_UNKNOWN", ErrorKind::Unimplemented),
    ] {
        let kms = connected(&fake).await;
        fake.fail([Fault::Status(refusal(code, reason, "no"))]);
        let error = kms.rotate_key(&key("app")).await.unwrap_err();
        assert_eq!((error.kind(), error.reason(), error.attempts()), (kind, Some(reason), 1));
        assert!(!error.is_retryable(), "{reason}");
        let calls = fake.take_calls();
        assert_eq!(calls.len(), 1, "{reason}");
        assert_eq!(error.change_id().map(RequestId::as_str), Some(calls[0].request_id()), "{reason}");
    }
}

#[tokio::test]
async fn too_much_is_repeated_if_the_server_says_when() {
    let fake = Fake::start().await;
    let kms = connected(&fake).await;
    let wait = Duration::from_millis(1);
    fake.fail([Fault::Status(refusal_until(Code::ResourceExhausted, "RATE_LIMITED", wait))]);
    kms.get_key(&key("app")).await.unwrap();
    assert_eq!(fake.take_calls().len(), 2);
    // Longer than the call has: told at once.
    fake.fail([Fault::Status(refusal_until(Code::ResourceExhausted, "RATE_LIMITED", Duration::from_secs(3600)))]);
    let error = kms.get_key(&key("app")).await.unwrap_err();
    assert_eq!((error.attempts(), error.is_retryable()), (1, true), "{error:?}");
}

#[tokio::test]
async fn a_server_that_pushes_back_is_obeyed() {
    let fake = Fake::start().await;
    let kms = connected(&fake).await;
    for (pushback, attempts) in [("1", 2), ("-1", 1), ("never", 1)] {
        let mut status = Status::new(Code::Unavailable, "not now");
        status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
        fake.fail([Fault::Status(status)]);
        assert_eq!(kms.get_key(&key("app")).await.is_ok(), attempts == 2, "{pushback}");
        assert_eq!(fake.take_calls().len(), attempts, "{pushback}");
    }
}

#[tokio::test]
async fn each_attempt_is_told_what_is_left() {
    let fake = Fake::start().await;
    let kms = connected(&fake).await;
    fake.fail([overloaded(), overloaded()]);
    kms.get_key(&key("app")).await.unwrap();
    let left: Vec<u64> = fake
        .take_calls()
        .iter()
        .map(|call| call.timeout.as_deref().unwrap().strip_suffix('u').unwrap().parse().unwrap())
        .collect();
    assert!(left.len() == 3 && left[0] <= 2_000_000 && left.is_sorted_by(|a, b| a > b), "{left:?}");
}
