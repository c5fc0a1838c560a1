//! The Rust client library against the daemon: what it sends is understood, what it gets it understands.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kms_client::{
    Client, Context, ErrorKind, KeyPurpose, KeyRef, KeyState, Labels, PageRequest, ServerState, TenantRef, TenantState,
    VersionNumber,
};

use crate::World;

#[tokio::test]
async fn every_call_of_the_library_is_answered() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (world.daemon.client("admin").await?, world.daemon.client("app").await?);
    let (tenant, key) = (TenantRef::new("initech")?, KeyRef::new("initech", "app")?);
    let context = Context::new().pair("table", "users").pair("id", "42").aad("row version 7");

    let created = admin.create_tenant(&tenant).await?;
    assert_eq!((created.name.clone(), created.state), (tenant.clone(), TenantState::Active));
    assert_eq!(admin.get_tenant(&tenant).await?, created);
    let labels = Labels::from([("team".to_owned(), "billing".to_owned())]);
    let made = admin.create_key(&key, KeyPurpose::Encrypt, labels).await?;
    assert_eq!(admin.get_key(&key).await?, made);
    assert!(admin.update_labels(&key, Labels::new()).await?.labels.is_empty());

    let sealed = app.encrypt(&key, b"078-05-1120", &context).await?;
    assert_eq!(app.decrypt(&key, &sealed.ciphertext, &context).await?.plaintext.expose(), b"078-05-1120");
    let data_key = app.generate_data_key(&key, &context).await?;
    let unwrapped = app.decrypt_data_key(&key, &data_key.wrapped_data_key, &context).await?;
    assert_eq!(unwrapped.data_key.expose(), data_key.data_key.expose());
    app.generate_wrapped_data_key(&key, &context).await?;

    let rotated = admin.rotate_key(&key).await?;
    assert_eq!((rotated.key.primary_version.get(), rotated.version.version.get()), (2, 2));
    assert!(app.decrypt(&key, &sealed.ciphertext, &context).await?.stale);
    let moved = app.re_encrypt(&key, &sealed.ciphertext, &context).await?;
    assert_eq!((moved.source_key_version.get(), moved.key_version.get()), (1, 2));
    let opened = app.decrypt(&key, &moved.ciphertext, &context).await?;
    assert_eq!((opened.plaintext.expose(), opened.stale), (&b"078-05-1120"[..], false));
    let moved = app.re_encrypt_data_key(&key, &data_key.wrapped_data_key, &context).await?;
    let unwrapped = app.decrypt_data_key(&key, &moved.wrapped_data_key, &context).await?;
    assert_eq!((unwrapped.data_key.expose(), unwrapped.stale), (data_key.data_key.expose(), false));
    let elsewhere = Context::from([("table", "archive")]);
    let archived = app.re_encrypt_to(&key, &sealed.ciphertext, &context, &key, &elsewhere).await?;
    assert_eq!(app.decrypt(&key, &archived.ciphertext, &elsewhere).await?.plaintext.expose(), b"078-05-1120");
    let other = KeyRef::new("initech", "other")?;
    admin.create_key(&other, KeyPurpose::Encrypt, Labels::new()).await?;
    let moved = app.re_encrypt_data_key_to(&key, &data_key.wrapped_data_key, &context, &other).await?;
    assert_eq!(app.decrypt_data_key(&other, &moved.wrapped_data_key, &context).await?.key_version.get(), 1);

    let first = VersionNumber::new(1)?;
    assert_eq!(admin.disable_key_version(&key, first).await?.version.state, KeyState::Disabled);
    assert_eq!(admin.enable_key_version(&key, first).await?.version.state, KeyState::Enabled);
    let scheduled = admin.schedule_key_version_destruction(&key, first, Some(Duration::from_secs(3600))).await?;
    assert!(scheduled.version.destroy_time.is_some());
    assert_eq!(admin.cancel_key_version_destruction(&key, first).await?.version.state, KeyState::Disabled);
    let versions = admin.list_key_versions(&key, PageRequest::first()).await?;
    assert_eq!(versions.items.iter().map(|version| version.version.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(admin.list_all_key_versions(&key, 10, None).await?.items, versions.items);
    assert_eq!(admin.disable_key(&key).await?.state, KeyState::Disabled);
    assert_eq!(admin.enable_key(&key).await?.state, KeyState::Enabled);
    assert_eq!(admin.schedule_key_destruction(&key, None).await?.state, KeyState::PendingDestruction);
    assert_eq!(admin.cancel_key_destruction(&key).await?.state, KeyState::Disabled);
    assert_eq!(admin.list_keys(&tenant, PageRequest::first()).await?.items.len(), 2);
    assert_eq!(admin.list_all_keys(&tenant, 1, None).await?.items.len(), 1);
    let tenants = admin.list_all_tenants(10, None).await?;
    assert_eq!(tenants.items.len(), 3);
    assert_eq!(admin.list_tenants(PageRequest::first()).await?.items, tenants.items);
    assert_eq!(admin.suspend_tenant(&tenant).await?.state, TenantState::Suspended);
    assert_eq!(admin.resume_tenant(&tenant).await?.state, TenantState::Active);
    assert_eq!(admin.destroy_tenant(&tenant, None).await?.state, TenantState::PendingDestruction);
    assert_eq!(admin.cancel_tenant_destruction(&tenant).await?.state, TenantState::Suspended);
    assert_eq!(admin.destroy_tenant(&tenant, Some(Duration::ZERO)).await?.state, TenantState::Fenced);

    assert_eq!(app.whoami().await?.principal, world.daemon.site().principal("app"));
    assert_eq!(admin.status().await?.state, ServerState::Serving);
    world.finish().await
}

#[tokio::test]
async fn errors_say_what_sort_they_are_why_and_which_request() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (world.daemon.client("admin").await?, world.daemon.client("app").await?);
    let (key, nothing) = (KeyRef::new("acme", "app")?, Context::new());
    let sealed = app.encrypt(&key, b"x", &nothing).await?.ciphertext;
    let of = |tenant: &str, key: &str| KeyRef::new(tenant, key);
    let acme = TenantRef::new("acme")?;
    let cases = [
        (
            app.decrypt(&key, &sealed, &Context::from([("a", "b")])).await.err(),
            ErrorKind::InvalidArgument,
            "DECRYPT_FAILED",
        ),
        (app.encrypt(&of("nobody", "app")?, b"x", &nothing).await.err(), ErrorKind::NotFound, "TENANT_NOT_FOUND"),
        (app.encrypt(&of("acme", "nothing")?, b"x", &nothing).await.err(), ErrorKind::NotFound, "KEY_NOT_FOUND"),
        (admin.encrypt(&key, b"x", &nothing).await.err(), ErrorKind::PermissionDenied, "POLICY_DENIED"),
        (app.status().await.err(), ErrorKind::PermissionDenied, "POLICY_DENIED"),
        (admin.create_tenant(&acme).await.err(), ErrorKind::AlreadyExists, "TENANT_ALREADY_EXISTS"),
        (admin.resume_tenant(&acme).await.err(), ErrorKind::FailedPrecondition, "STATE_CONFLICT"),
        (app.encrypt(&key, &[0; 65_537], &nothing).await.err(), ErrorKind::InvalidArgument, "PLAINTEXT_TOO_LARGE"),
        (app.encrypt(&key, &vec![0; 5 << 20], &nothing).await.err(), ErrorKind::ResourceExhausted, "MESSAGE_TOO_LARGE"),
    ];
    for (error, kind, reason) in cases {
        let error = error.with_context(|| format!("{reason} did not come"))?;
        assert_eq!((error.kind(), error.reason()), (kind, Some(reason)), "{error}");
        assert!(error.request_id().is_some_and(|id| id.len() == 26), "{reason}: {:?}", error.request_id());
        assert!(!error.is_retryable() && !error.message().is_empty(), "{error:?}");
    }

    // Who is not let in is told at once.
    let site = world.daemon.site();
    let address = format!("https://{}", world.daemon.services());
    let strange = kms_tests::Authority::new()?;
    let ours = site.identity("app")?;
    let theirs = strange.client(&site.principal("app"))?;
    for (ca, identity, kind) in
        [(site.authority().pem(), theirs, ErrorKind::Unauthenticated), (strange.pem(), ours.clone(), ErrorKind::Tls)]
    {
        let client = Client::builder(&*address).ca_pem(ca).identity_pem(identity.certificate, identity.key);
        let error = client.connect().await.err().context("it was let in")?;
        // Until the server's alert comes in any case, its closing may be all that is seen.
        assert!(error.kind() == kind || error.reason() == Some("CONNECTION_CLOSED"), "{error:?}");
    }
    // A client outlives the daemon it was made for: it says so, and that trying again may help.
    let stopped = world.daemon.stop().await?;
    let error = app.encrypt(&key, b"x", &nothing).await.err().context("nobody is there")?;
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Connection, true), "{error:?}");
    crate::world::check(&stopped)
}
