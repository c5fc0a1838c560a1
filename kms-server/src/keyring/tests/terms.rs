//! Repeated calls, etags, rehearsals.

use super::*;

const ADA: &str = "spiffe://example.com/ada";

fn under(id: &str) -> Terms {
    Terms { request_id: Some(id.parse().unwrap()), ..Terms::default() }
}

fn rotate() -> Change {
    Change::RotateKey { tenant: name("acme"), key: key("k") }
}

async fn newest(running: &Running) -> u32 {
    running.keyring.key(&name("acme"), &key("k")).await.unwrap().primary.get()
}

/// Every change that a caller can ask for, in an order in which each is legal.
fn one_of_each() -> Vec<Change> {
    let (tenant, key) = (name("acme"), key("k"));
    let (labels, purpose) = (Labels::from([("a".into(), "b".into())]), KeyPurpose::Encrypt);
    let old = Some(version(1));
    vec![
        Change::CreateTenant { tenant: tenant.clone(), lease_ms: None },
        Change::CreateKey { tenant: tenant.clone(), key: key.clone(), purpose, labels: labels.clone() },
        Change::UpdateKey { tenant: tenant.clone(), key: key.clone(), labels },
        Change::RotateKey { tenant: tenant.clone(), key: key.clone() },
        Change::SetKeyState { tenant: tenant.clone(), key: key.clone(), version: old, enabled: false },
        Change::SetKeyState { tenant: tenant.clone(), key: key.clone(), version: old, enabled: true },
        schedule("acme", old, DAY),
        Change::CancelKeyDestruction { tenant: tenant.clone(), key: key.clone(), version: old },
        schedule("acme", old, 0),
        schedule("acme", None, 0),
        Change::SuspendTenant { tenant: tenant.clone() },
        Change::ResumeTenant { tenant: tenant.clone() },
        destroy("acme", Some(DAY)),
        Change::CancelTenantDestruction { tenant },
        destroy("acme", Some(0)),
    ]
}

#[tokio::test]
async fn each_change_is_made_once_however_often_it_is_repeated() {
    let world = World::new().await;
    let mut running = world.start().await;
    for (number, change) in one_of_each().into_iter().enumerate() {
        let id = format!("call-{number}");
        let first = running.ask(change.clone(), under(&id), ADA).await.unwrap();
        let How::Made(outcome) = first.how else { panic!("{change:?}: {:?}", first.how) };
        if number % 2 == 0 {
            running.stop().await;
            running = world.start().await;
        }
        let seq = running.keyring.seq();
        let again = running.ask(change.clone(), under(&id), ADA).await.unwrap();
        let How::Before(intent) = again.how else { panic!("{change:?}: {:?}", again.how) };
        assert_eq!(format!("{:?}", again.object), format!("{:?}", first.object), "{change:?}");
        assert!(intent < outcome);
        assert_eq!(running.keyring.seq(), seq, "{change:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_a_crash_kept_from_being_answered_is_answered_when_repeated() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    *world.store.fault.lock().unwrap() = Fault::Before;
    assert!(running.ask(rotate(), under("r"), ADA).await.is_err());
    running.crash().await;
    let running = world.start().await;
    assert_eq!(newest(&running).await, 1);

    *world.store.fault.lock().unwrap() = Fault::After;
    assert!(running.ask(rotate(), under("r"), ADA).await.is_err());
    running.crash().await;
    let running = world.start().await;
    assert_eq!(newest(&running).await, 2);
    let again = running.ask(rotate(), under("r"), ADA).await.unwrap();
    assert!(matches!(again.how, How::Before(_)));
    assert_eq!(newest(&running).await, 2);
    running.stop().await;
}

#[tokio::test]
async fn one_id_is_for_one_call() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.ask(rotate(), under("r"), ADA).await.unwrap();
    running.tenant_with_key("globex").await;
    let other_tenant = Change::RotateKey { tenant: name("globex"), key: key("k") };
    assert!(matches!(running.ask(other_tenant, under("r"), ADA).await, Err(Error::RequestIdReused)));
    let etag = running.keyring.key(&name("acme"), &key("k")).await.unwrap().etag;
    let with_etag = Terms { etag: Some(etag), ..under("r") };
    assert!(matches!(running.ask(rotate(), with_etag, ADA).await, Err(Error::RequestIdReused)));
    // Another operation's ids are others.
    let labels = |value: &str| Change::UpdateKey {
        tenant: name("acme"),
        key: key("k"),
        labels: Labels::from([("team".into(), value.into())]),
    };
    running.ask(labels("x"), under("r"), ADA).await.unwrap();
    assert!(matches!(running.ask(labels("y"), under("r"), ADA).await, Err(Error::RequestIdReused)));
    running.stop().await;
}

#[tokio::test]
async fn another_callers_request_id_is_another() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.ask(rotate(), under("r"), ADA).await.unwrap();
    let other = running.ask(rotate(), under("r"), "spiffe://example.com/eve").await.unwrap();
    assert!(matches!(other.how, How::Made(_)));
    assert_eq!(newest(&running).await, 3);
    running.stop().await;
}

#[tokio::test]
async fn what_failed_is_tried_again_under_the_same_id() {
    let world = World::new().await;
    let running = world.start().await;
    assert!(matches!(running.ask(rotate(), under("r"), ADA).await, Err(Error::TenantNotFound)));
    running.tenant_with_key("acme").await;
    assert!(matches!(running.ask(rotate(), under("r"), ADA).await.unwrap().how, How::Made(_)));
    running.stop().await;
}

#[tokio::test]
async fn of_calls_at_once_under_one_id_one_is_made() {
    let world = World::new().await;
    let running = Arc::new(world.start().await);
    running.tenant_with_key("acme").await;
    let repeats = (0..20).map(|_| {
        let running = Arc::clone(&running);
        tokio::spawn(async move { running.ask(rotate(), under("r"), ADA).await.unwrap().how })
    });
    let mut made = 0;
    for how in repeats.collect::<Vec<_>>() {
        made += usize::from(matches!(how.await.unwrap(), How::Made(_)));
    }
    assert_eq!((made, newest(&running).await), (1, 2));
    // Of other tenants as well, which could be made in one group.
    let creations = (0..20).map(|number| {
        let running = Arc::clone(&running);
        let create = Change::CreateTenant { tenant: name(&format!("t{number}")), lease_ms: None };
        tokio::spawn(async move { running.ask(create, under("c"), ADA).await.is_ok() })
    });
    let mut made = 0;
    for is_made in creations.collect::<Vec<_>>() {
        made += usize::from(is_made.await.unwrap());
    }
    assert_eq!(made, 1);
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test]
async fn after_a_day_an_id_is_free_and_its_row_goes() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.ask(rotate(), under("r"), ADA).await.unwrap();
    world.clock.pass(DAY - 1);
    assert!(matches!(running.ask(rotate(), under("r"), ADA).await.unwrap().how, How::Before(_)));
    world.clock.pass(1);
    assert!(matches!(running.ask(rotate(), under("r"), ADA).await.unwrap().how, How::Made(_)));
    assert_eq!(newest(&running).await, 3);
    running.stop().await;

    let answers = async || {
        let prefix = row_key::answers();
        world.store.inner.list(prefix.family, &prefix.key, None, 10).await.unwrap().rows.len()
    };
    assert_eq!(answers().await, 2);
    world.clock.pass(3 * DAY);
    let running = world.start().await;
    // Two days are removed one after the other, each with a change.
    for tenant in ["b", "c"] {
        running.change(Change::CreateTenant { tenant: name(tenant), lease_ms: None }).await.unwrap();
    }
    running.stop().await;
    assert_eq!(answers().await, 0);
}

#[tokio::test]
async fn an_answer_is_found_after_a_restart_and_on_the_day_after() {
    for another_before in [false, true] {
        let world = World::new().await;
        let running = world.start().await;
        running.tenant_with_key("acme").await;
        running.ask(rotate(), under("r"), ADA).await.unwrap();
        running.stop().await;
        world.clock.pass(DAY - 1);
        let running = world.start().await;
        if another_before {
            // What is written today does not hide what was written the day before.
            running.ask(rotate(), under("s"), ADA).await.unwrap();
        }
        assert!(matches!(running.ask(rotate(), under("r"), ADA).await.unwrap().how, How::Before(_)));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_clock_set_back_repeats_nothing() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    world.clock.pass(9 * DAY);
    running.ask(rotate(), under("r"), ADA).await.unwrap();
    world.clock.now.fetch_sub(9 * DAY, Ordering::SeqCst);
    assert!(matches!(running.ask(rotate(), under("r"), ADA).await.unwrap().how, How::Before(_)));
    running.stop().await;
}

#[tokio::test]
async fn a_change_is_made_only_of_the_state_it_was_meant_for() {
    let world = World::new().await;
    let running = world.start().await;
    let only = |etag| Terms { etag: Some(etag), ..Terms::default() };
    running.tenant_with_key("acme").await;
    let before = running.keyring.key(&name("acme"), &key("k")).await.unwrap().etag;
    running.ask(rotate(), only(before), ADA).await.unwrap();
    assert!(matches!(running.ask(rotate(), only(before), ADA).await, Err(Error::EtagMismatch)));

    // A version's own etag, not the key's.
    let old = Some(version(1));
    let disable = Change::SetKeyState { tenant: name("acme"), key: key("k"), version: old, enabled: false };
    let of_key = running.keyring.key(&name("acme"), &key("k")).await.unwrap().etag;
    assert!(matches!(running.ask(disable.clone(), only(of_key), ADA).await, Err(Error::EtagMismatch)));
    let versions = running.keyring.versions(&name("acme"), &key("k"), None, 10).await.unwrap().items;
    running.ask(disable, only(versions[0].etag), ADA).await.unwrap();
    assert!(matches!(
        running.ask(schedule("acme", old, 0), only(versions[0].etag), ADA).await,
        Err(Error::EtagMismatch)
    ));

    let tenant = running.keyring.tenant(&name("acme")).await.unwrap().etag;
    running.ask(Change::SuspendTenant { tenant: name("acme") }, only(tenant), ADA).await.unwrap();
    assert!(matches!(running.ask(destroy("acme", Some(0)), only(tenant), ADA).await, Err(Error::EtagMismatch)));
    let now = running.keyring.tenant(&name("acme")).await.unwrap().etag;
    running.ask(destroy("acme", Some(0)), only(now), ADA).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn an_etag_is_the_row_hash_in_the_record_of_the_change() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let key = running.keyring.key(&name("acme"), &key("k")).await.unwrap();
    running.stop().await;
    let leaves = world.leaves();
    let made = leaves.iter().rfind(|stored| stored.leaf.op.as_deref() == Some("CreateKey")).unwrap();
    assert_eq!(made.leaf.rh.as_deref(), Some(&*key.etag.to_string()));
}

#[tokio::test]
async fn a_rehearsal_answers_as_the_change_would_and_changes_nothing() {
    let world = World::new().await;
    let running = world.start().await;
    let rehearse = Terms { rehearse: true, ..Terms::default() };
    for change in one_of_each() {
        let (before, seq) = (super::crashes::copy_of(&world).await, running.keyring.seq());
        let shown = running.ask(change.clone(), rehearse.clone(), ADA).await.unwrap();
        assert!(matches!(shown.how, How::Rehearsed { .. }));
        assert_eq!((super::crashes::copy_of(&world).await, running.keyring.seq()), (before, seq), "{change:?}");
        let made = running.change(change.clone()).await.unwrap();
        let state = |changed: &Changed| match &changed.object {
            Object::Tenant(tenant) => format!("{:?} {:?}", tenant.state, tenant.destroy.is_some()),
            Object::Key(key) => format!("{:?} {:?} {:?}", key.state, key.primary, key.destroy.is_some()),
            Object::Version(key, version) => format!("{:?} {:?} {:?}", key.primary, version.version, version.state),
            Object::DataKeys(part) => format!("{:?}", part.fates),
            Object::Grant(grant) => format!("{:?}", grant.state),
        };
        assert_eq!(state(&shown), state(&made), "{change:?}");
        // And fails as it would: each is illegal now.
        let again = running.ask(change.clone(), rehearse.clone(), ADA).await.map(|_| ()).map_err(|e| e.to_string());
        if !matches!(change, Change::UpdateKey { .. } | Change::RotateKey { .. }) {
            assert!(again.is_err(), "{change:?}");
            assert_eq!(again, running.change(change).await.map(|_| ()).map_err(|e| e.to_string()));
        }
    }
    running.stop().await;
}
