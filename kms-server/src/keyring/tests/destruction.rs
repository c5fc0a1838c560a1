//! Ends of tenants, keys and versions: in the call, and at their dates.

use super::due::Clocked;
use super::*;

#[tokio::test]
async fn a_destroyed_tenant_is_gone_for_ever_and_its_name_with_it() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    let (acme, globex) = (running.seal("acme", b"x").await.unwrap(), running.seal("globex", b"x").await.unwrap());
    running.change(destroy("acme", Some(0))).await.unwrap();
    let running = {
        assert!(matches!(running.open("acme", &acme).await, Err(Error::TenantState(TenantState::Fenced))));
        running.stop().await;
        world.start().await
    };
    assert!(matches!(running.open("acme", &acme).await, Err(Error::TenantState(TenantState::Fenced))));
    assert!(running.open("globex", &globex).await.is_ok());
    assert!(matches!(
        running.change(Change::CreateTenant { tenant: name("acme"), lease_ms: None }).await,
        Err(Error::NameWasDestroyed)
    ));
    assert!(matches!(running.change(destroy("acme", Some(0))).await, Err(Error::TenantState(TenantState::Fenced))));
    let view = running.keyring.tenant(&name("acme")).await.unwrap();
    assert_eq!(view.state, TenantState::Fenced);
    // Nothing of it is left but the tombstone, which has no byte of the wrapped key.
    let uid = view.uid;
    for family in Family::ALL {
        let rows = world.store.inner.list(family, &[], None, 10_000).await.unwrap().rows;
        let found = rows.iter().filter(|(place, _)| place.windows(16).any(|part| part == uid.as_bytes())).count();
        assert_eq!(found, 0, "{family:?}");
    }
    let fenced = world.leaves().into_iter().find(|stored| stored.leaf.ph == Some(Phase::Fenced)).unwrap();
    let commitment = hex::decode(fenced.leaf.tkc.as_deref().unwrap()).unwrap();
    let (tombstone, _) = (world.store.inner.get(&row_key::tenant_name(&name("acme"))).await.unwrap().unwrap(), ());
    let complement: Vec<u8> = commitment.iter().map(|byte| !byte).collect();
    assert!(
        tombstone.windows(32).any(|part| part == complement)
            && !tombstone.windows(16).any(|part| part == &commitment[..16])
    );
    assert_eq!((fenced.leaf.keys, fenced.leaf.deks, fenced.leaf.epoch), (Some(1), Some(0), Some(1)));
    running.stop().await;
}

/// 16 clients seal and open while their tenant is destroyed; each success is given an index, as
/// the pipeline does, before its gate is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_success_after_the_fence() {
    let world = World::new().await;
    let running = Arc::new(world.start().await);
    running.tenant_with_key("acme").await;
    let blob = Arc::new(running.seal("acme", b"x").await.unwrap());
    let began = Arc::new(tokio::sync::Barrier::new(17));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (running, blob, began) = (Arc::clone(&running), Arc::clone(&blob), Arc::clone(&began));
            tokio::spawn(async move {
                let which = Which::Of(Header::parse(&blob).unwrap());
                let (mut successes, mut refusals, mut waited) = (0, 0, false);
                while refusals < 10 {
                    match running
                        .keyring
                        .enter(&name("acme"), &[Want { key: &key("k"), purpose: KeyPurpose::Encrypt, which }])
                        .await
                    {
                        Ok(in_use) => {
                            let one = in_use.key();
                            one.kek().open_data(one.uid(), one.version(), &context("acme"), &blob).unwrap();
                            running.keyring.log().append(Leaf::of("Decrypt").ended(Outcome::Ok)).unwrap();
                            successes += 1;
                        }
                        Err(Error::TenantState(TenantState::Fenced)) => refusals += 1,
                        Err(other) => panic!("{other}"),
                    }
                    if successes == 20 && !std::mem::replace(&mut waited, true) {
                        began.wait().await;
                    }
                    tokio::task::yield_now().await;
                }
                successes
            })
        })
        .collect();
    began.wait().await;
    running.change(destroy("acme", Some(0))).await.unwrap();
    let mut successes = 0;
    for client in clients {
        successes += client.await.unwrap();
    }
    let running = Arc::into_inner(running).unwrap();
    running.stop().await;
    let leaves = world.leaves();
    let fence = leaves.iter().find(|stored| stored.leaf.ph == Some(Phase::Fenced)).unwrap().index;
    let of_clients: Vec<u64> = leaves
        .iter()
        .filter(|stored| stored.leaf.op.as_deref() == Some("Decrypt"))
        .map(|stored| stored.index)
        .collect();
    let after = of_clients.iter().filter(|index| **index > fence).count();
    println!("{} successes before the fence at index {fence}, {after} after", of_clients.len() - after);
    assert_eq!((of_clients.len(), after), (successes, 0));
}

#[tokio::test]
async fn dates_come_only_after_an_hour_of_a_steady_clock() {
    let world = World::new().await;
    let running = world.start().await;
    for tenant in ["acme", "globex"] {
        running.tenant_with_key(tenant).await;
    }
    running.change(destroy("acme", Some(DAY))).await.unwrap();
    running.change(schedule("globex", None, 2 * DAY)).await.unwrap();
    assert_eq!(running.keyring.destroy_due(world.clock.now()).await.unwrap(), 0, "nothing is due");
    let mut guard = due::ClockGuard::new(&*world.clock, running.clock_held);
    assert_eq!(guard.look(&*world.clock), Clocked::Waiting);
    world.clock.pass(HOUR);
    assert_eq!(guard.look(&*world.clock), Clocked::Steady);
    world.clock.pass(23 * HOUR);
    assert_eq!(running.keyring.destroy_due(world.clock.now()).await.unwrap(), 1);
    assert_eq!(running.keyring.tenant(&name("acme")).await.unwrap().state, TenantState::Fenced);
    assert_eq!(running.keyring.key(&name("globex"), &key("k")).await.unwrap().state, KeyState::PendingDestruction);
    world.clock.pass(DAY);
    assert_eq!(running.keyring.destroy_due(world.clock.now()).await.unwrap(), 1);
    assert_eq!(running.keyring.key(&name("globex"), &key("k")).await.unwrap().state, KeyState::Destroyed);
    assert_eq!(running.keyring.destroy_due(world.clock.now()).await.unwrap(), 0, "a date comes once");
    running.stop().await;
}

#[tokio::test]
async fn a_clock_that_jumps_destroys_nothing() {
    let world = World::new().await;
    let running = world.start().await;
    let mut guard = due::ClockGuard::new(&*world.clock, running.clock_held);
    world.clock.pass(2 * HOUR);
    assert_eq!(guard.look(&*world.clock), Clocked::Steady);
    world.clock.step(2 * HOUR);
    assert_eq!(guard.look(&*world.clock), Clocked::Waiting, "it stepped");
    world.clock.pass(HOUR - 1);
    assert_eq!(guard.look(&*world.clock), Clocked::Waiting);
    world.clock.pass(1);
    assert_eq!(guard.look(&*world.clock), Clocked::Steady);
    // By more than a day an hour proves nothing.
    world.clock.step(30 * DAY);
    assert_eq!(guard.look(&*world.clock), Clocked::Held);
    world.clock.pass(DAY - 1);
    assert_eq!(guard.look(&*world.clock), Clocked::Waiting);
    world.clock.pass(1);
    assert_eq!(guard.look(&*world.clock), Clocked::Trusted);
    assert_eq!(guard.look(&*world.clock), Clocked::Steady);
    running.stop().await;
}

#[tokio::test]
async fn a_clock_far_past_the_last_record_is_held_through_every_restart() {
    let world = World::new().await;
    world.start().await.stop().await;
    world.clock.step(2 * DAY);
    for _ in 0..3 {
        let running = world.start().await;
        assert!(running.clock_held);
        let mut guard = due::ClockGuard::new(&*world.clock, running.clock_held);
        world.clock.pass(3 * HOUR);
        assert_eq!(guard.look(&*world.clock), Clocked::Waiting);
        running.crash().await;
    }
    let held = world.leaves().iter().filter(|stored| stored.leaf.op.as_deref() == Some("ClockHeld")).count();
    assert_eq!(held, 1, "it is told once");
    // Also when the log has gone on to other segments since.
    let running = world.start().await;
    for number in 0..400 {
        running.change(Change::CreateTenant { tenant: name(&format!("t{number}")), lease_ms: None }).await.unwrap();
    }
    running.stop().await;
    let running = world.start().await;
    assert!(running.clock_held);
    // What ran for a day is believed, and the log says so to later starts.
    running.keyring.tell_of_clock(due::CLOCK_TRUSTED).await.unwrap();
    running.crash().await;
    let running = world.start().await;
    assert!(!running.clock_held);
    running.stop().await;
    let running = world.start().await;
    assert!(!running.clock_held);
    running.stop().await;
}

#[tokio::test]
async fn no_path_ends_a_waiting_time_early() {
    let mut world = World::new().await;
    world.settings.wait_ms_min = DAY;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    assert!(matches!(running.change(destroy("acme", Some(0))).await, Err(Error::WaitTooShort(DAY))));
    assert!(matches!(running.change(schedule("acme", None, DAY - 1)).await, Err(Error::WaitTooShort(_))));
    assert!(matches!(running.change(destroy("acme", Some(366 * DAY))).await, Err(Error::WaitTooLong(_))));
    running.change(destroy("acme", Some(2 * DAY))).await.unwrap();
    for wait in [None, Some(DAY), Some(2 * DAY)] {
        assert!(matches!(running.change(destroy("acme", wait)).await, Err(Error::Transition { .. })), "{wait:?}");
    }
    assert!(matches!(
        running.change(Change::DestroyDueTenant { tenant: name("acme"), by: world.clock.now() }).await,
        Err(Error::Transition { .. })
    ));
    assert!(matches!(
        running.change(Change::ResumeTenant { tenant: name("acme") }).await,
        Err(Error::Transition { .. })
    ));
    // Cancelling lands in SUSPENDED, and takes the date away.
    running.change(Change::CancelTenantDestruction { tenant: name("acme") }).await.unwrap();
    world.clock.pass(3 * DAY);
    assert_eq!(running.keyring.destroy_due(world.clock.now()).await.unwrap(), 0);
    assert_eq!(running.keyring.tenant(&name("acme")).await.unwrap().state, TenantState::Suspended);
    running.change(Change::ResumeTenant { tenant: name("acme") }).await.unwrap();
    running.change(schedule("acme", None, DAY)).await.unwrap();
    assert!(matches!(running.change(schedule("acme", None, DAY)).await, Err(Error::Transition { .. })));
    let cancel = Change::CancelKeyDestruction { tenant: name("acme"), key: key("k"), version: None };
    running.change(cancel.clone()).await.unwrap();
    assert!(matches!(running.change(cancel).await, Err(Error::Transition { .. })));
    assert_eq!(running.keyring.key(&name("acme"), &key("k")).await.unwrap().state, KeyState::Disabled);
    running.stop().await;
}
