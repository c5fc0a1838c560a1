//! Managed data keys at a start: what is lost, what came back, what is damaged.

use super::data_keys::{MANAGED, new_keys, uids};
use super::*;

#[tokio::test]
async fn rows_of_destroyed_ones_put_back_are_destroyed_again() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = uids(&running.create("acme", 3).await.unwrap());
    let rows = world.store.inner.list(Family::Dek, &[], None, 100).await.unwrap().rows;
    running.destroy_keys("acme", &made[..2]).await.unwrap();
    let counted = running.counted("acme").await;
    running.crash().await;
    let back = rows[..2].iter().map(|(place, row)| Write::Put(RowKey::new(Family::Dek, place.clone()), row.clone()));
    world.store.inner.commit(Batch { preconditions: vec![], writes: back.collect() }).await.unwrap();
    let running = world.start().await;
    assert_eq!(running.settled.carried_out, 2);
    for uid in &made[..2] {
        assert!(matches!(running.get("acme", *uid).await, Err(Error::DataKeyDestroyed)));
    }
    assert_eq!(running.counted("acme").await, counted);
    running.check_counters("acme").await;
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_lost_data_keys_is_refused() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    running.create("acme", 2).await.unwrap();
    world.clock.pass(1);
    running.create("acme", 4).await.unwrap();
    running.crash().await;
    let rows = world.store.inner.list(Family::Dek, &[], None, 100).await.unwrap().rows;
    let lost = Write::Delete(RowKey::new(Family::Dek, rows.last().unwrap().0.clone()));
    world.store.inner.commit(Batch { preconditions: vec![], writes: vec![lost] }).await.unwrap();
    assert!(matches!(world.try_start().await, Err(OpenClusterError::DataKeysLost { .. })));
}

#[tokio::test]
async fn destructions_of_data_keys_are_a_chain_of_their_own_over_crashes() {
    let world = World::new().await;
    let mut running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = uids(&running.create("acme", 4).await.unwrap());
    for (place, uid) in made.iter().enumerate() {
        if place == 2 {
            *world.store.fault.lock().unwrap() = Fault::After;
            running.destroy_keys("acme", &[*uid]).await.unwrap_err();
            running.crash().await;
            running = world.start().await;
        } else {
            running.destroy_keys("acme", &[*uid]).await.unwrap();
        }
    }
    let is_outcome =
        |leaf: &StoredLeaf| leaf.leaf.op.as_deref() == Some("BatchDestroyDataKeys") && leaf.leaf.in_.is_some();
    let outcomes: Vec<_> = world.leaves().into_iter().filter(is_outcome).collect();
    let mut before = None;
    for outcome in &outcomes {
        assert_eq!(outcome.leaf.px, before);
        assert_eq!((outcome.leaf.ph, outcome.leaf.pd), (None, None));
        assert!(outcome.leaf.lease.is_some());
        before = Some(outcome.index);
    }
    assert_eq!(outcomes.len(), 4);
    running.check_counters("acme").await;
    running.stop().await;
}

#[tokio::test]
async fn older_destructions_are_held_against_the_store_too() {
    let world = World::new().await;
    let mut running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = uids(&running.create("acme", 6).await.unwrap());
    let rows = world.store.inner.list(Family::Dek, &[], None, 100).await.unwrap().rows;
    for uid in &made[..4] {
        running.destroy_keys("acme", &[*uid]).await.unwrap();
        // The log goes on to other segments.
        for _ in 0..400 {
            let index = running.keyring.log().append(Leaf::of("Filler")).unwrap();
            running.keyring.log().durable(index).await.unwrap();
        }
        running.change(Change::SuspendTenant { tenant: name("acme") }).await.unwrap();
        running.change(Change::ResumeTenant { tenant: name("acme") }).await.unwrap();
    }
    running.stop().await;
    let back = rows[..4].iter().map(|(place, row)| Write::Put(RowKey::new(Family::Dek, place.clone()), row.clone()));
    world.store.inner.commit(Batch { preconditions: vec![], writes: back.collect() }).await.unwrap();
    running = world.start().await;
    let last = running.older_dek_destruction.expect("some lie before what a start reads");
    let (tell, told) = tokio::sync::mpsc::channel(1);
    let (keyring, log, dir) = (Arc::clone(&running.keyring), Arc::clone(running.keyring.log()), world.log_dir());
    let reading = tokio::task::spawn_blocking(move || {
        log.dek_destructions(&dir, last, |stored| tell.blocking_send(stored).is_ok()).unwrap()
    });
    keyring.carry_out_older(told, CancellationToken::new()).await;
    assert_eq!(reading.await.unwrap() + running.settled.carried_out, 4);
    for uid in &made[..4] {
        assert!(matches!(running.get("acme", *uid).await, Err(Error::DataKeyDestroyed)));
    }
    assert_eq!(running.counted("acme").await, [(1, 2)]);
    running.check_counters("acme").await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_given_out_again_is_not_taken_for_new() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    running.create("acme", 2).await.unwrap();
    let view = running.keyring.key(&name("acme"), &key(MANAGED)).await.unwrap();
    let tenant = running.keyring.tenant(&name("acme")).await.unwrap();
    // What the edge says of a repetition whose first item was no good.
    let leaf = Leaf {
        tuid: Some(tenant.uid.to_string().into()),
        key: Some(view.uid.to_string().into()),
        cnt: Some(2),
        fail: Some(1),
        ids: Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into()),
        why: Some("REPEATED;CONTEXT_INVALID 0".into()),
        ..Leaf::of("BatchCreateDataKeys")
    };
    let index = running.keyring.log().append(leaf.ended(Outcome::Ok)).unwrap();
    running.keyring.log().durable(index).await.unwrap();
    running.crash().await;
    world.start().await.stop().await;
}

#[tokio::test]
async fn a_key_that_came_back_with_its_data_keys_takes_only_those_again() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    running.create("acme", 5).await.unwrap();
    running.managed_key("acme", "other").await;
    let new = NewDataKeys { key: key("other"), ..new_keys("acme", 2, None) };
    running.keyring.create_data_keys(new, Who::service()).await.unwrap();
    let copy = |family: Family| {
        let store = Arc::clone(&world.store);
        async move { store.inner.list(family, &[], None, 100).await.unwrap().rows }
    };
    let view = running.keyring.key(&name("acme"), &key(MANAGED)).await.unwrap();
    let mut back = Vec::new();
    for family in [Family::Key, Family::Dek, Family::Ops] {
        for (place, row) in copy(family).await {
            if place.windows(16).any(|part| part == view.uid.as_bytes()) {
                back.push(Write::Put(RowKey::new(family, place), row));
            }
        }
    }
    let (tenant, managed) = (name("acme"), key(MANAGED));
    let destroy = Change::ScheduleKeyDestruction { tenant, key: managed, version: None, wait_ms: Some(0) };
    running.change(destroy).await.unwrap();
    assert_eq!(running.sum("acme").await, 2);
    running.crash().await;
    world.store.inner.commit(Batch { preconditions: vec![], writes: back }).await.unwrap();
    let running = world.start().await;
    assert_eq!(running.settled.carried_out, 1);
    assert_eq!(running.sum("acme").await, 2);
    running.stop().await;
}

#[tokio::test]
async fn one_damaged_row_is_the_trouble_of_nobody_else() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = running.create("acme", 6).await.unwrap();
    let rows = world.store.inner.list(Family::Dek, &[], None, 100).await.unwrap().rows;
    let damaged = |place: usize, at: usize| {
        let (row_key, mut row) = rows[place].clone();
        row[at] ^= 1;
        Write::Put(RowKey::new(Family::Dek, row_key), row)
    };
    // No row at all; of a version that never was; one that does not open.
    let writes = vec![damaged(1, 0), damaged(2, 1 + 32 + 22), damaged(3, 160)];
    world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
    let wanted: Vec<_> = made.iter().map(|(uid, _)| (*uid, context("acme"))).collect();
    let got = running.keyring.get_data_keys(&name("acme"), &key(MANAGED), &wanted).await.unwrap();
    for (place, key) in got.keys.iter().enumerate() {
        assert_eq!(matches!(key, Err(Error::Damaged(_))), (1..=3).contains(&place), "{place}");
        assert_eq!(key.is_ok(), !(1..=3).contains(&place), "{place}");
    }
    drop(got);
    running.rotate("acme").await;
    running.rewrap().await;
    assert_eq!(running.counted("acme").await, [(1, 3), (2, 3)], "what cannot be moved is counted where it was");
    let all = uids(&made);
    let destroyed = running.destroy_keys("acme", &all).await.unwrap();
    assert_eq!(destroyed.iter().filter(|fate| fate.is_ok()).count(), 4, "one that does not open can be destroyed");
    assert_eq!(running.counted("acme").await, [(1, 2)]);
    running.stop().await;
}
