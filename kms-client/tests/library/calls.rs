//! Every method asks what it says, and gives back what was answered.

use std::time::{Duration, SystemTime};

use kms_client::{
    AuthMethod, Client, Context, ErrorKind, KeyPurpose, KeyState, Labels, PageRequest, ServerState, TenantRef,
    TenantSettings, TenantState, VersionNumber,
};

use crate::fake::{Fake, LEASE_END, TIME};
use crate::{builder, key};

async fn start() -> (Fake, Client) {
    let fake = Fake::start().await;
    let client = builder(&fake).connect().await.unwrap();
    (fake, client)
}

fn context() -> Context {
    Context::from([("table", "users"), ("id", "42")]).aad("aad")
}

#[tokio::test]
async fn what_was_encrypted_decrypts_with_the_same_key_and_context_only() {
    let (_fake, kms) = start().await;
    let sealed = kms.encrypt(&key("app"), b"hello", &context()).await.unwrap();
    assert_eq!(sealed.key_version.get(), 1);

    let opened = kms.decrypt(&key("app"), &sealed.ciphertext, &context()).await.unwrap();
    assert_eq!((opened.plaintext.expose(), opened.stale), (&b"hello"[..], false));
    for (key, context) in [
        (key("other"), context()),
        (key("app"), Context::new()),
        (key("app"), context().pair("id", "43")),
        (key("app"), context().aad("other")),
    ] {
        let error = kms.decrypt(&key, &sealed.ciphertext, &context).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidArgument, Some("DECRYPT_FAILED")));
    }
}

#[tokio::test]
async fn re_encrypt_keeps_key_and_context_and_re_encrypt_to_changes_them() {
    let (_fake, kms) = start().await;
    let sealed = kms.encrypt(&key("app"), b"hello", &context()).await.unwrap().ciphertext;

    let moved = kms.re_encrypt(&key("app"), &sealed, &context()).await.unwrap();
    assert_eq!((moved.key_version.get(), moved.source_key_version.get()), (2, 1));
    kms.decrypt(&key("app"), &moved.ciphertext, &context()).await.unwrap();

    let to = Context::from([("table", "people")]);
    let moved = kms.re_encrypt_to(&key("app"), &sealed, &context(), &key("other"), &to).await.unwrap();
    kms.decrypt(&key("other"), &moved.ciphertext, &to).await.unwrap();
    kms.decrypt(&key("app"), &moved.ciphertext, &context()).await.unwrap_err();
}

#[tokio::test]
async fn data_keys_come_in_the_clear_or_wrapped_only_and_can_be_moved() {
    let (_fake, kms) = start().await;
    let made = kms.generate_data_key(&key("app"), &context()).await.unwrap();
    assert_eq!(made.data_key.expose(), &[7; 32]);
    let opened = kms.decrypt_data_key(&key("app"), &made.wrapped_data_key, &context()).await.unwrap();
    assert_eq!(opened.data_key.expose(), made.data_key.expose());

    let wrapped = kms.generate_wrapped_data_key(&key("app"), &context()).await.unwrap().wrapped_data_key;
    let moved = kms.re_encrypt_data_key(&key("app"), &wrapped, &context()).await.unwrap();
    kms.decrypt_data_key(&key("app"), &moved.wrapped_data_key, &context()).await.unwrap();
    let moved = kms.re_encrypt_data_key_to(&key("app"), &wrapped, &context(), &key("other")).await.unwrap();
    kms.decrypt_data_key(&key("other"), &moved.wrapped_data_key, &context()).await.unwrap();
}

#[tokio::test]
async fn tenants_live_and_are_destroyed() {
    let (fake, kms) = start().await;
    let acme = TenantRef::new("acme").unwrap();
    let created = kms.create_tenant(&acme).await.unwrap();
    assert_eq!((&created.name, created.state), (&acme, TenantState::Active));
    assert_eq!(created.create_time, SystemTime::try_from(TIME).unwrap());
    assert_eq!(kms.get_tenant(&acme).await.unwrap(), created);
    assert_eq!(kms.suspend_tenant(&acme).await.unwrap().state, TenantState::Suspended);
    assert_eq!(kms.resume_tenant(&acme).await.unwrap().state, TenantState::Active);

    let pending = kms.destroy_tenant(&acme, Some(Duration::from_secs(7 * 86_400))).await.unwrap();
    assert_eq!(pending.state, TenantState::PendingDestruction);
    assert!(pending.destroy_time.is_some() && pending.fence_time.is_none());
    assert_eq!(kms.destroy_tenant(&acme, None).await.unwrap().state, TenantState::PendingDestruction);
    assert_eq!(kms.destroy_tenant(&acme, Some(Duration::ZERO)).await.unwrap().state, TenantState::Fenced);
    assert_eq!(kms.cancel_tenant_destruction(&acme).await.unwrap().state, TenantState::Suspended);
    let lease_end = Some(SystemTime::try_from(LEASE_END).unwrap());
    assert_eq!(pending.lease_end_time, lease_end);
    assert_eq!(kms.suspend_tenant(&acme).await.unwrap().lease_end_time, lease_end);

    let waits: Vec<bool> = ["seconds: 604800", "wait: None", "seconds: 0"]
        .map(|wait| fake.requests().iter().any(|request| request.contains(wait)))
        .into();
    assert_eq!(waits, [true; 3], "no wait, a wait of zero and a wait are three things");
}

#[tokio::test]
async fn the_lease_of_a_tenant_is_set_at_its_creation_and_later() {
    let (fake, kms) = start().await;
    let acme = TenantRef::new("acme").unwrap();
    let minutes = |n: u64| Duration::from_secs(60 * n);
    assert_eq!(kms.create_tenant(&acme).await.unwrap().data_key_lease, Some(minutes(5)));
    let made = kms.create_tenant_with(&acme, TenantSettings::new().data_key_lease(minutes(7))).await.unwrap();
    assert_eq!(made.data_key_lease, Some(minutes(7)));
    let settings = TenantSettings::new().data_key_lease(Duration::from_millis(1_500));
    let updated = kms.update_tenant(&acme, settings).etag("e7".parse().unwrap()).validate_only().await.unwrap();
    assert_eq!(updated.data_key_lease, Some(Duration::from_millis(1_500)));
    let asked = fake.requests().pop().unwrap();
    assert!(asked.contains(r#"etag: "e7""#) && asked.contains("validate_only: true"), "{asked}");
    assert!(asked.contains("seconds: 1, nanos: 500000000"), "{asked}");
    let fenced = kms.destroy_tenant(&acme, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(fenced.data_key_lease, None);
}

#[tokio::test]
async fn an_update_that_says_nothing_is_refused_before_it_is_sent() {
    let (fake, kms) = start().await;
    fake.take_calls();
    let error = kms.update_tenant(&TenantRef::new("acme").unwrap(), TenantSettings::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidArgument, Some("FIELD_INVALID")));
    assert_eq!((error.operation(), error.attempts()), (Some("UpdateTenant"), 0));
    assert!(error.to_string().contains("say nothing"), "{error}");
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn lists_come_by_the_page_or_all_up_to_a_bound() {
    let (_fake, kms) = start().await;
    let acme = TenantRef::new("acme").unwrap();
    let first = kms.list_tenants(PageRequest::first()).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let second = kms.list_tenants(PageRequest::first().size(1).after(first.next.unwrap())).await.unwrap();
    assert_eq!(second.items[0].name.tenant(), "t2");

    let all = kms.list_all_tenants(100, None).await.unwrap();
    assert_eq!((all.items.len(), all.next), (5, None));
    let some = kms.list_all_keys(&acme, 3, None).await.unwrap();
    assert_eq!(some.items.len(), 3);
    let rest = kms.list_all_keys(&acme, 3, some.next).await.unwrap();
    assert_eq!(rest.items.iter().map(|key| key.name.key()).collect::<Vec<_>>(), ["k3", "k4"]);
    let versions = kms.list_all_key_versions(&key("app"), 100, None).await.unwrap();
    assert_eq!(versions.items.iter().map(|version| version.version.get()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(kms.list_keys(&acme, PageRequest::first()).await.unwrap().items.len(), 2);
    assert_eq!(kms.list_key_versions(&key("app"), PageRequest::first()).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn keys_and_versions_change_apart() {
    let (fake, kms) = start().await;
    let labels = Labels::from([("team".to_owned(), "billing".to_owned())]);
    let created = kms.create_key(&key("app"), KeyPurpose::Encrypt, labels.clone()).await.unwrap();
    assert_eq!((created.purpose, created.state, &created.labels), (KeyPurpose::Encrypt, KeyState::Enabled, &labels));
    assert_eq!(kms.get_key(&key("app")).await.unwrap().name, key("app"));
    assert_eq!(kms.update_labels(&key("app"), labels.clone()).await.unwrap().labels, labels);
    let rotated = kms.rotate_key(&key("app")).await.unwrap();
    assert_eq!((rotated.key.primary_version, rotated.version.version.get()), (rotated.version.version, 2));

    let two = VersionNumber::new(2).unwrap();
    assert_eq!(kms.disable_key(&key("app")).await.unwrap().state, KeyState::Disabled);
    assert_eq!(kms.enable_key(&key("app")).await.unwrap().state, KeyState::Enabled);
    let disabled = kms.disable_key_version(&key("app"), two).await.unwrap();
    assert_eq!((disabled.key.state, disabled.version.state), (KeyState::Enabled, KeyState::Disabled));
    assert_eq!(kms.enable_key_version(&key("app"), two).await.unwrap().version.state, KeyState::Enabled);
    let wait = Some(Duration::from_secs(60));
    assert_eq!(kms.schedule_key_destruction(&key("app"), wait).await.unwrap().state, KeyState::PendingDestruction);
    let scheduled = kms.schedule_key_version_destruction(&key("app"), two, None).await.unwrap();
    assert_eq!(scheduled.version.state, KeyState::PendingDestruction);
    assert!(scheduled.version.destroy_time.is_some());
    assert_eq!(kms.cancel_key_destruction(&key("app")).await.unwrap().state, KeyState::Disabled);
    let cancelled = kms.cancel_key_version_destruction(&key("app"), two).await.unwrap();
    assert_eq!((cancelled.version.key, cancelled.version.version), (key("app"), two));

    let lease_end = Some(SystemTime::try_from(LEASE_END).unwrap());
    assert_eq!((disabled.lease_end_time, scheduled.lease_end_time), (lease_end, lease_end));
    let managed = kms.create_key(&key("managed"), KeyPurpose::Managed, Labels::new()).await.unwrap();
    assert_eq!(managed.purpose, KeyPurpose::Managed);
    let kms = &kms;
    let counts = async |name| {
        let versions = kms.list_all_key_versions(&key(name), 2, None).await.unwrap().items;
        versions.iter().map(|version| version.data_key_count).collect::<Vec<_>>()
    };
    assert_eq!(counts("managed").await, [Some(0), Some(100)]);
    assert_eq!(counts("app").await, [None, None]);

    let named = r#"name: "tenants/acme/keys/app/versions/2""#;
    assert_eq!(fake.requests().iter().filter(|request| request.contains(named)).count(), 4);
}

#[tokio::test]
async fn identity_and_status_are_told() {
    let (_fake, kms) = start().await;
    let me = kms.whoami().await.unwrap();
    assert_eq!((me.principal.as_str(), me.auth_method), ("spiffe://example.com/test", AuthMethod::MtlsAndToken));
    assert_eq!(me.strength, ["certificate", "token", "mfa"]);
    assert_eq!((me.bindings.len(), me.bindings[1].id.starts_with("grant/")), (2, true));
    assert_eq!((me.bindings[0].id.as_str(), me.bindings[0].expire_time), ("test-all", None));
    let status = kms.status().await.unwrap();
    assert_eq!((status.state, status.audit_log.unwrap().size), (ServerState::Serving, 42));
    assert_eq!(status.warnings.len(), 1);
}

#[tokio::test]
async fn a_refusal_carries_kind_reason_and_request() {
    let (_fake, kms) = start().await;
    for (name, kind, reason, retryable) in [
        ("missing", ErrorKind::NotFound, "KEY_NOT_FOUND", false),
        ("denied", ErrorKind::PermissionDenied, "POLICY_DENIED", false),
        ("disabled", ErrorKind::FailedPrecondition, "KEY_DISABLED", false),
        ("overloaded", ErrorKind::Unavailable, "OVERLOADED", true),
    ] {
        let error = kms.encrypt(&key(name), b"", &Context::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (kind, Some(reason)));
        assert_eq!((error.request_id(), error.operation()), (Some("r-1"), Some("Encrypt")));
        assert_eq!((error.attempts(), error.change_id()), (if retryable { 3 } else { 1 }, None), "{name}");
        assert_eq!(error.is_retryable(), retryable, "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_is_an_error() {
    let (_fake, kms) = start().await;
    let sealed = kms.encrypt(&key("malformed"), b"", &Context::new()).await.unwrap_err();
    assert_eq!(sealed.kind(), ErrorKind::Internal);
    let made = kms.generate_data_key(&key("malformed"), &Context::new()).await.unwrap_err();
    assert_eq!(made.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn the_time_limit_is_told_to_the_server_and_kept_here() {
    let fake = Fake::start().await;
    let kms = builder(&fake).timeout(Duration::from_secs(1)).connect_lazy().unwrap();
    let error = kms.encrypt(&key("slow"), b"", &Context::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.message().ends_with("within 1s"), "{error}");
    let calls = fake.take_calls();
    assert_eq!(calls.len(), 1, "what took too long is not repeated");
    let told = calls[0].timeout.clone().unwrap();
    let microseconds: u32 = told.strip_suffix('u').unwrap().parse().unwrap();
    assert!((1..=1_000_000).contains(&microseconds), "{told}");
}
