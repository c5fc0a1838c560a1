//! The states of tenants, keys and versions: what each allows, and which steps there are.

use anyhow::Result;
use kms_proto::v1::{KeyState, TenantState};
use kms_tests::request::*;
use kms_tests::{Caller, Refused};
use tonic::Code;

use crate::{ACME, ACME_KEY, Expected, GLOBEX_KEY, World, refused};

const VERSION_1: &str = "tenants/acme/keys/app/versions/1";
const VERSION_2: &str = "tenants/acme/keys/app/versions/2";

/// A ciphertext and a wrapped data key.
struct Sealed {
    blob: Vec<u8>,
    wrapped: Vec<u8>,
}

async fn seal(app: &Caller, key: &str) -> Result<Sealed, Refused> {
    let blob = app.ask(encrypt(key, b"secret", &[])).await?.ciphertext;
    Ok(Sealed { blob, wrapped: app.ask(generate_data_key(key, &[])).await?.wrapped_data_key })
}

/// Expects all that seals to be refused.
async fn seals_nothing(app: &Caller, key: &str, sealed: &Sealed, reason: &str) {
    refused(Code::FailedPrecondition, reason, app.ask(encrypt(key, b"secret", &[])).await);
    refused(Code::FailedPrecondition, reason, app.ask(generate_data_key(key, &[])).await);
    refused(Code::FailedPrecondition, reason, app.ask(re_encrypt(key, &sealed.blob, &[])).await);
}

/// Expects all that opens to be refused.
async fn opens_nothing(app: &Caller, key: &str, sealed: &Sealed, reason: &str) {
    refused(Code::FailedPrecondition, reason, app.ask(decrypt(key, &sealed.blob, &[])).await);
    refused(Code::FailedPrecondition, reason, app.ask(decrypt_data_key(key, &sealed.wrapped, &[])).await);
    refused(Code::FailedPrecondition, reason, app.ask(re_encrypt(key, &sealed.wrapped, &[])).await);
}

/// Expects every use of the key to be refused.
async fn does_nothing(app: &Caller, key: &str, sealed: &Sealed, reason: &str) {
    seals_nothing(app, key, sealed, reason).await;
    opens_nothing(app, key, sealed, reason).await;
}

/// Expects the sealed to open.
async fn opens(app: &Caller, key: &str, sealed: &Sealed) {
    assert_eq!(app.ask(decrypt(key, &sealed.blob, &[])).await.unwrap().plaintext, b"secret");
    assert_eq!(app.ask(decrypt_data_key(key, &sealed.wrapped, &[])).await.unwrap().plaintext.len(), 32);
}

#[tokio::test]
async fn a_disabled_key_refuses_every_use_until_it_is_enabled() -> Result<()> {
    let world = World::new().await?;
    let sealed = seal(&world.app, ACME_KEY).await?;
    world.admin.ask(disable_key(ACME_KEY)).await?;
    does_nothing(&world.app, ACME_KEY, &sealed, "KEY_DISABLED").await;
    refused(Code::FailedPrecondition, "KEY_DISABLED", world.admin.ask(rotate_key(ACME_KEY)).await);
    // Its namesake of another tenant is another key.
    seal(&world.app, GLOBEX_KEY).await?;
    let world = world.restart().await?;
    does_nothing(&world.app, ACME_KEY, &sealed, "KEY_DISABLED").await;
    world.admin.ask(enable_key(ACME_KEY)).await?;
    opens(&world.app, ACME_KEY, &sealed).await;
    seal(&world.app, ACME_KEY).await?;
    world.finish().await
}

#[tokio::test]
async fn a_disabled_version_opens_nothing_and_a_disabled_primary_seals_nothing() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    let first = seal(app, ACME_KEY).await?;
    admin.ask(rotate_key(ACME_KEY)).await?;
    let second = seal(app, ACME_KEY).await?;

    let disabled = admin.ask(disable_key(VERSION_1)).await?;
    assert_eq!(disabled.version.unwrap().state(), KeyState::Disabled);
    assert_eq!(disabled.key.unwrap().state(), KeyState::Enabled);
    opens_nothing(app, ACME_KEY, &first, "VERSION_DISABLED").await;
    opens(app, ACME_KEY, &second).await;
    seal(app, ACME_KEY).await?;
    admin.ask(enable_key(VERSION_1)).await?;
    opens(app, ACME_KEY, &first).await;

    admin.ask(disable_key(VERSION_2)).await?;
    opens(app, ACME_KEY, &first).await;
    opens_nothing(app, ACME_KEY, &second, "VERSION_DISABLED").await;
    seals_nothing(app, ACME_KEY, &first, "VERSION_DISABLED").await;
    // A new primary heals it.
    admin.ask(rotate_key(ACME_KEY)).await?;
    seal(app, ACME_KEY).await?;
    world.finish().await
}

#[tokio::test]
async fn a_scheduled_destruction_refuses_every_use_and_can_be_taken_back() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    let sealed = seal(app, ACME_KEY).await?;

    let scheduled = admin.ask(schedule_key_destruction(ACME_KEY, None)).await?.key.unwrap();
    assert_eq!(scheduled.state(), KeyState::PendingDestruction);
    // Unset is the server's default, 7 days; it was counted from the change that the key shows.
    let days = scheduled.destroy_time.unwrap().seconds - scheduled.update_time.unwrap().seconds;
    assert!((7 * 86_400 - 2..=7 * 86_400 + 2).contains(&days), "{days} s");
    does_nothing(app, ACME_KEY, &sealed, "KEY_PENDING_DESTRUCTION").await;
    refused(Code::FailedPrecondition, "KEY_PENDING_DESTRUCTION", admin.ask(rotate_key(ACME_KEY)).await);
    let cancelled = admin.ask(cancel_key_destruction(ACME_KEY)).await?.key.unwrap();
    assert_eq!((cancelled.state(), cancelled.destroy_time), (KeyState::Disabled, None));
    does_nothing(app, ACME_KEY, &sealed, "KEY_DISABLED").await;
    admin.ask(enable_key(ACME_KEY)).await?;
    opens(app, ACME_KEY, &sealed).await;

    admin.ask(rotate_key(ACME_KEY)).await?;
    let scheduled = admin.ask(schedule_key_destruction(VERSION_1, seconds(60))).await?.version.unwrap();
    assert_eq!(scheduled.state(), KeyState::PendingDestruction);
    opens_nothing(app, ACME_KEY, &sealed, "VERSION_PENDING_DESTRUCTION").await;
    let cancelled = admin.ask(cancel_key_destruction(VERSION_1)).await?.version.unwrap();
    assert_eq!((cancelled.state(), cancelled.destroy_time), (KeyState::Disabled, None));
    admin.ask(enable_key(VERSION_1)).await?;
    opens(app, ACME_KEY, &sealed).await;
    world.finish().await
}

#[tokio::test]
async fn a_destroyed_version_is_refused_for_ever_and_the_others_open() -> Result<()> {
    let mut world = World::new().await?;
    let first = seal(&world.app, ACME_KEY).await?;
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    let second = seal(&world.app, ACME_KEY).await?;
    let destroyed = world.admin.ask(schedule_key_destruction(VERSION_1, seconds(0))).await?;
    assert_eq!(destroyed.version.unwrap().state(), KeyState::Destroyed);
    assert_eq!(destroyed.key.unwrap().state(), KeyState::Enabled);
    for crash in [None, Some(false), Some(true)] {
        world = match crash {
            None => world,
            Some(false) => world.restart().await?,
            Some(true) => world.crash().await?,
        };
        opens_nothing(&world.app, ACME_KEY, &first, "VERSION_DESTROYED").await;
        opens(&world.app, ACME_KEY, &second).await;
        seal(&world.app, ACME_KEY).await?;
        for attempt in [
            world.admin.ask(enable_key(VERSION_1)).await.map(drop),
            world.admin.ask(disable_key(VERSION_1)).await.map(drop),
            world.admin.ask(cancel_key_destruction(VERSION_1)).await.map(drop),
            world.admin.ask(schedule_key_destruction(VERSION_1, None)).await.map(drop),
        ] {
            refused(Code::FailedPrecondition, "VERSION_DESTROYED", attempt);
        }
        let versions = world.admin.ask(list_key_versions(ACME_KEY, 0, "")).await?.key_versions;
        let states: Vec<KeyState> = versions.iter().map(|version| version.state()).collect();
        assert_eq!(states, [KeyState::Destroyed, KeyState::Enabled], "the shell stays");
    }
    world.finish().await
}

#[tokio::test]
async fn a_destroyed_key_is_refused_for_ever_and_its_name_is_never_used_again() -> Result<()> {
    let mut world = World::new().await?;
    let sealed = seal(&world.app, ACME_KEY).await?;
    let destroyed = world.admin.ask(schedule_key_destruction(ACME_KEY, seconds(0))).await?.key.unwrap();
    assert_eq!(destroyed.state(), KeyState::Destroyed);
    for restart in [false, true] {
        if restart {
            world = world.restart().await?;
        }
        does_nothing(&world.app, ACME_KEY, &sealed, "KEY_DESTROYED").await;
        refused(Code::FailedPrecondition, "NAME_WAS_DESTROYED", world.admin.ask(create_key(ACME, "app")).await);
        for attempt in [
            world.admin.ask(enable_key(ACME_KEY)).await.map(drop),
            world.admin.ask(disable_key(ACME_KEY)).await.map(drop),
            world.admin.ask(rotate_key(ACME_KEY)).await.map(drop),
            world.admin.ask(cancel_key_destruction(ACME_KEY)).await.map(drop),
            world.admin.ask(schedule_key_destruction(ACME_KEY, None)).await.map(drop),
            world.admin.ask(update_key(ACME_KEY, &[], &["labels"])).await.map(drop),
        ] {
            refused(Code::FailedPrecondition, "KEY_DESTROYED", attempt);
        }
        assert_eq!(world.admin.ask(get_key(ACME_KEY)).await?.key.unwrap().state(), KeyState::Destroyed);
    }
    // Another key of the tenant is not concerned.
    world.admin.ask(create_key(ACME, "next")).await?;
    seal(&world.app, "tenants/acme/keys/next").await?;
    world.finish().await
}

#[tokio::test]
async fn a_suspended_tenant_neither_seals_nor_opens_until_it_is_resumed() -> Result<()> {
    let world = World::new().await?;
    let sealed = seal(&world.app, ACME_KEY).await?;
    let elsewhere = seal(&world.app, GLOBEX_KEY).await?;
    world.admin.ask(suspend_tenant(ACME)).await?;
    does_nothing(&world.app, ACME_KEY, &sealed, "TENANT_SUSPENDED").await;
    opens(&world.app, GLOBEX_KEY, &elsewhere).await;
    refused(Code::FailedPrecondition, "TENANT_SUSPENDED", world.admin.ask(create_key(ACME, "new")).await);
    refused(Code::FailedPrecondition, "TENANT_SUSPENDED", world.admin.ask(rotate_key(ACME_KEY)).await);
    // What only reads still works.
    world.admin.ask(get_key(ACME_KEY)).await?;
    world.admin.ask(list_keys(ACME, 0, "")).await?;
    let world = world.restart().await?;
    does_nothing(&world.app, ACME_KEY, &sealed, "TENANT_SUSPENDED").await;
    world.admin.ask(resume_tenant(ACME)).await?;
    opens(&world.app, ACME_KEY, &sealed).await;
    world.finish().await
}

#[tokio::test]
async fn a_tenant_that_waits_for_its_destruction_does_nothing_and_can_come_back() -> Result<()> {
    let world = World::new().await?;
    let sealed = seal(&world.app, ACME_KEY).await?;
    let scheduled = world.admin.ask(destroy_tenant(ACME, seconds(3600))).await?.tenant.unwrap();
    assert_eq!((scheduled.state(), scheduled.fence_time), (TenantState::PendingDestruction, None));
    does_nothing(&world.app, ACME_KEY, &sealed, "TENANT_PENDING_DESTRUCTION").await;
    let reply = world.admin.ask(create_key(ACME, "new")).await;
    refused(Code::FailedPrecondition, "TENANT_PENDING_DESTRUCTION", reply);
    let world = world.crash().await?;
    does_nothing(&world.app, ACME_KEY, &sealed, "TENANT_PENDING_DESTRUCTION").await;
    world.admin.ask(cancel_tenant_destruction(ACME)).await?;
    does_nothing(&world.app, ACME_KEY, &sealed, "TENANT_SUSPENDED").await;
    world.admin.ask(resume_tenant(ACME)).await?;
    opens(&world.app, ACME_KEY, &sealed).await;
    world.finish().await
}

#[tokio::test]
async fn there_is_no_step_that_the_tables_do_not_have() -> Result<()> {
    let world = World::new().await?;
    let admin = &world.admin;
    let mut expected = Expected::of("steps that do not exist");
    let conflict = Code::FailedPrecondition;

    expected.refused("enable an enabled key", conflict, "STATE_CONFLICT", admin.ask(enable_key(ACME_KEY)).await);
    expected.refused(
        "cancel what was not scheduled",
        conflict,
        "STATE_CONFLICT",
        admin.ask(cancel_key_destruction(ACME_KEY)).await,
    );
    expected.refused("enable an enabled version", conflict, "STATE_CONFLICT", admin.ask(enable_key(VERSION_1)).await);
    // It would leave a key that seals with nothing: rotate first.
    let primary = admin.ask(schedule_key_destruction(VERSION_1, None)).await;
    expected.refused("destroy the primary version alone", conflict, "STATE_CONFLICT", primary);
    admin.ask(disable_key(ACME_KEY)).await?;
    expected.refused("disable a disabled key", conflict, "STATE_CONFLICT", admin.ask(disable_key(ACME_KEY)).await);
    admin.ask(schedule_key_destruction(ACME_KEY, None)).await?;
    let again = admin.ask(schedule_key_destruction(ACME_KEY, None)).await;
    expected.refused("schedule a scheduled key", conflict, "STATE_CONFLICT", again);
    let sooner = admin.ask(schedule_key_destruction(ACME_KEY, seconds(0))).await;
    expected.refused("end the wait of a scheduled key early", conflict, "STATE_CONFLICT", sooner);
    expected.refused("enable a scheduled key", conflict, "STATE_CONFLICT", admin.ask(enable_key(ACME_KEY)).await);
    expected.refused("disable a scheduled key", conflict, "STATE_CONFLICT", admin.ask(disable_key(ACME_KEY)).await);

    expected.refused("resume an active tenant", conflict, "STATE_CONFLICT", admin.ask(resume_tenant(ACME)).await);
    let cancel = admin.ask(cancel_tenant_destruction(ACME)).await;
    expected.refused("cancel what was not scheduled for a tenant", conflict, "STATE_CONFLICT", cancel);
    admin.ask(suspend_tenant(ACME)).await?;
    expected.refused("suspend a suspended tenant", conflict, "STATE_CONFLICT", admin.ask(suspend_tenant(ACME)).await);
    admin.ask(destroy_tenant(ACME, None)).await?;
    expected.refused(
        "schedule a scheduled tenant",
        conflict,
        "STATE_CONFLICT",
        admin.ask(destroy_tenant(ACME, None)).await,
    );
    let sooner = admin.ask(destroy_tenant(ACME, seconds(0))).await;
    expected.refused("end the wait of a tenant early", conflict, "STATE_CONFLICT", sooner);
    expected.refused("resume a scheduled tenant", conflict, "STATE_CONFLICT", admin.ask(resume_tenant(ACME)).await);
    expected.refused("suspend a scheduled tenant", conflict, "STATE_CONFLICT", admin.ask(suspend_tenant(ACME)).await);
    expected.check();
    world.finish().await
}
