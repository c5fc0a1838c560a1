//! Sealing and opening under every state, and what stays in memory.

use super::*;

#[tokio::test]
async fn what_is_sealed_opens_after_a_restart_and_a_rotation() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let old = running.seal("acme", b"hello").await.unwrap();
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    let new = running.seal("acme", b"hello").await.unwrap();
    running.stop().await;
    let running = world.start().await;
    assert_eq!(running.settled, Settled::default());
    assert_eq!(running.open("acme", &old).await.unwrap(), (b"hello".to_vec(), true));
    assert_eq!(running.open("acme", &new).await.unwrap(), (b"hello".to_vec(), false));
    let key = running.keyring.key(&name("acme"), &key("k")).await.unwrap();
    assert_eq!((key.primary, key.labels.len()), (version(2), 1));
    running.stop().await;
}

#[tokio::test]
async fn a_blob_opens_only_for_its_own_tenant_and_key() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    let blob = running.seal("acme", b"hello").await.unwrap();
    assert!(matches!(running.open("globex", &blob).await, Err(Error::Open(_))));
    assert!(matches!(running.open("nobody", &blob).await, Err(Error::TenantNotFound)));
    let other = key("other");
    let which = Which::Of(Header::parse(&blob).unwrap());
    assert!(matches!(
        running.keyring.enter(&name("acme"), &[Want { key: &other, purpose: KeyPurpose::Encrypt, which }]).await,
        Err(Error::KeyNotFound)
    ));
    // A version that never was is just a blob that does not open.
    let mut future = blob.clone();
    future[23] = 9;
    assert!(matches!(running.open("acme", &future).await, Err(Error::Open(_))));
    running.stop().await;
}

#[tokio::test]
async fn states_of_keys_and_versions_are_obeyed_at_once() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let old = running.seal("acme", b"x").await.unwrap();
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    let new = running.seal("acme", b"x").await.unwrap();
    let set = |version, enabled| Change::SetKeyState { tenant: name("acme"), key: key("k"), version, enabled };

    running.change(set(Some(version(1)), false)).await.unwrap();
    assert!(matches!(running.open("acme", &old).await, Err(Error::VersionState(KeyState::Disabled))));
    assert!(running.open("acme", &new).await.is_ok());
    running.change(set(Some(version(1)), true)).await.unwrap();
    assert!(running.open("acme", &old).await.is_ok());

    running.change(set(None, false)).await.unwrap();
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::KeyState(KeyState::Disabled))));
    assert!(matches!(running.open("acme", &old).await, Err(Error::KeyState(KeyState::Disabled))));
    assert!(matches!(running.change(set(None, false)).await, Err(Error::Transition { .. })));
    running.change(set(None, true)).await.unwrap();

    assert!(matches!(running.change(schedule("acme", Some(version(2)), 0)).await, Err(Error::PrimaryVersion)));
    running.change(schedule("acme", Some(version(1)), 0)).await.unwrap();
    assert!(matches!(running.open("acme", &old).await, Err(Error::VersionState(KeyState::Destroyed))));
    assert!(running.open("acme", &new).await.is_ok());
    assert!(matches!(running.change(set(Some(version(1)), true)).await, Err(Error::VersionState(KeyState::Destroyed))));
    running.change(schedule("acme", None, 0)).await.unwrap();
    assert!(matches!(running.open("acme", &new).await, Err(Error::KeyState(KeyState::Destroyed))));
    let again =
        Change::CreateKey { tenant: name("acme"), key: key("k"), purpose: KeyPurpose::Encrypt, labels: Labels::new() };
    assert!(matches!(running.change(again).await, Err(Error::NameWasDestroyed)));
    running.stop().await;
}

#[tokio::test]
async fn a_suspended_tenant_neither_seals_nor_opens_until_resumed() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let blob = running.seal("acme", b"x").await.unwrap();
    running.change(Change::SuspendTenant { tenant: name("acme") }).await.unwrap();
    assert!(matches!(running.open("acme", &blob).await, Err(Error::TenantState(TenantState::Suspended))));
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::TenantState(TenantState::Suspended))));
    let rotate = Change::RotateKey { tenant: name("acme"), key: key("k") };
    assert!(matches!(running.change(rotate).await, Err(Error::TenantState(TenantState::Suspended))));
    running.change(Change::ResumeTenant { tenant: name("acme") }).await.unwrap();
    assert!(running.open("acme", &blob).await.is_ok());
    running.stop().await;
}

#[tokio::test]
async fn memory_is_bounded_and_what_was_evicted_loads_again() {
    let world = World::new().await;
    let running = world.start().await;
    let mut blobs = Vec::new();
    for number in 0..100 {
        let tenant = format!("t{number}");
        running.tenant_with_key(&tenant).await;
        blobs.push(running.seal(&tenant, tenant.as_bytes()).await.unwrap());
        let status = running.keyring.cache_status();
        assert!(status.tenants <= 64 && status.keys <= 64, "{status:?}");
    }
    for (number, blob) in blobs.iter().enumerate() {
        let tenant = format!("t{number}");
        assert_eq!(running.open(&tenant, blob).await.unwrap().0, tenant.as_bytes());
        // Names that are nobody's leave nothing behind.
        assert!(matches!(running.open(&format!("x{number}"), blob).await, Err(Error::TenantNotFound)));
    }
    let status = running.keyring.cache_status();
    assert!(status.tenants <= 64 && status.keys <= 64, "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn listings_go_on_where_they_ended() {
    let world = World::new().await;
    let running = world.start().await;
    for tenant in ["a", "b", "c"] {
        running.tenant_with_key(tenant).await;
    }
    running.change(destroy("b", Some(0))).await.unwrap();
    let first = running.keyring.tenants(None, 2).await.unwrap();
    assert_eq!(
        first.items.iter().map(|tenant| tenant.state).collect::<Vec<_>>(),
        [TenantState::Active, TenantState::Fenced]
    );
    assert!(first.more);
    let rest = running.keyring.tenants(Some(&first.items[1].name), 2).await.unwrap();
    assert_eq!((rest.items.len(), rest.more), (1, false));
    for _ in 0..3 {
        running.change(Change::RotateKey { tenant: name("a"), key: key("k") }).await.unwrap();
    }
    let versions = running.keyring.versions(&name("a"), &key("k"), Some(version(1)), 2).await.unwrap();
    assert_eq!((versions.items.iter().map(|v| v.version.get()).collect::<Vec<_>>(), versions.more), (vec![2, 3], true));
    assert_eq!(running.keyring.keys(&name("a"), None, 10).await.unwrap().items.len(), 1);
    assert!(matches!(running.keyring.keys(&name("b"), None, 10).await, Err(Error::TenantState(_))));
    running.stop().await;
}
