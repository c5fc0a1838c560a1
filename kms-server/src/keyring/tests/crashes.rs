//! What a crash, an old copy or a foreign hand leaves, and what the next start makes of it.

use super::*;

#[tokio::test]
async fn a_crash_before_the_batch_aborts_and_after_it_recovers() {
    for (fault, outcome) in [(Fault::Before, Outcome::Aborted), (Fault::After, Outcome::Recovered)] {
        let world = World::new().await;
        let running = world.start().await;
        running.tenant_with_key("acme").await;
        let blob = running.seal("acme", b"x").await.unwrap();
        *world.store.fault.lock().unwrap() = fault;
        assert!(matches!(running.change(destroy("acme", Some(0))).await, Err(Error::Store(_))));
        // Whatever the store holds, nobody is let in, and no further change is made.
        assert!(matches!(running.open("acme", &blob).await, Err(Error::Store(_))), "{fault:?}");
        assert!(matches!(
            running.change(Change::CreateTenant { tenant: name("b"), lease_ms: None }).await,
            Err(Error::Store(_))
        ));
        running.crash().await;

        let running = world.start().await;
        let done = fault == Fault::After;
        assert_eq!((running.settled.recovered, running.settled.aborted), (usize::from(done), usize::from(!done)));
        assert_eq!(running.open("acme", &blob).await.is_ok(), !done);
        // The chain of outcomes goes on, and an aborted number is used again.
        running.change(Change::CreateTenant { tenant: name("b"), lease_ms: None }).await.unwrap();
        let leaves = world.leaves();
        let settled = leaves.iter().find(|stored| stored.leaf.res == Some(outcome)).unwrap();
        assert_eq!(settled.leaf.ph, done.then_some(Phase::Fenced));
        assert!(settled.leaf.tkc.is_some() && settled.leaf.keys == Some(1), "all that a certificate needs");
        assert_eq!(settled.leaf.lease.is_some(), done);
        let last =
            leaves.iter().rfind(|stored| stored.leaf.res == Some(Outcome::Ok) && stored.leaf.seq.is_some()).unwrap();
        let before = leaves.iter().rfind(|stored| {
            stored.index < last.index
                && stored.leaf.seq.is_some()
                && matches!(stored.leaf.res, Some(Outcome::Ok | Outcome::Recovered))
        });
        assert_eq!(last.leaf.pm, before.map(|stored| stored.index));
        assert_eq!(last.leaf.seq, Some(if done { 5 } else { 4 }));
        running.stop().await;
        assert_eq!(world.start().await.settled, Settled::default(), "what was settled stays settled");
    }
}

#[tokio::test]
async fn rows_put_back_after_a_crash_do_not_undo_what_the_batch_destroyed() {
    let changes = [
        (destroy("acme", Some(0)), Error::TenantState(TenantState::Fenced)),
        (schedule("acme", None, 0), Error::KeyState(KeyState::Destroyed)),
    ];
    for (change, gone) in changes {
        let world = World::new().await;
        let running = world.start().await;
        running.tenant_with_key("acme").await;
        let blob = running.seal("acme", b"x").await.unwrap();
        let before = copy_of(&world).await;
        *world.store.fault.lock().unwrap() = Fault::After;
        assert!(running.change(change).await.is_err());
        running.crash().await;
        // Before anybody has said in the log that it was done.
        let writes = before.into_iter().filter(|(place, _)| *place != row_key::position());
        let writes = writes.map(|(place, record)| Write::Put(place, record)).collect();
        world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
        let running = world.start().await;
        assert_eq!((running.settled.recovered, running.settled.carried_out), (1, 1));
        assert_eq!(running.open("acme", &blob).await.unwrap_err().to_string(), gone.to_string());
        running.stop().await;
        assert_eq!(world.start().await.settled, Settled::default());
    }
}

#[tokio::test]
async fn a_store_older_than_its_log_is_refused() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.stop().await;
    let old: Vec<_> = copy_of(&world).await;
    let running = world.start().await;
    running.change(destroy("acme", Some(0))).await.unwrap();
    running.stop().await;
    let new = copy_of(&world).await;
    replace(&world, &old).await;
    let refused = world.try_start().await.err().unwrap();
    assert!(matches!(refused, OpenClusterError::StoreOlder { lacks: 1, .. }), "{refused}");
    replace(&world, &new).await;
    world.start().await.stop().await;
}

#[tokio::test]
async fn a_log_older_than_its_store_is_refused() {
    let world = World::new().await;
    world.start().await.stop().await;
    let segment = world.log_dir().join(format!("{:020}", 0));
    let old = std::fs::read(&segment).unwrap();
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.stop().await;
    std::fs::write(&segment, old).unwrap();
    assert!(matches!(world.try_start().await, Err(OpenClusterError::Log(_))));
}

#[tokio::test]
async fn a_row_that_was_edited_swapped_or_moved_is_damage() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    running.stop().await;
    let rows = copy_of(&world).await;
    // Swap the two tenants' rows, whole: both verify nowhere but in their place.
    let mut tenants: Vec<_> =
        rows.iter().filter(|(place, _)| place.family == Family::Root && place.key[0] == b't').cloned().collect();
    let other = tenants[1].1.clone();
    tenants[1].1 = std::mem::replace(&mut tenants[0].1, other);
    let writes = tenants.into_iter().map(|(place, record)| Write::Put(place, record)).collect();
    world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
    let running = world.start().await;
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::Damaged(_) | Error::Open(_))));
    running.crash().await;
}

#[tokio::test]
async fn changes_of_many_tenants_at_once_are_each_made_once() {
    let world = World::new().await;
    let running = Arc::new(world.start().await);
    let changes: Vec<_> = (0..60)
        .map(|number| {
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                running
                    .change(Change::CreateTenant { tenant: name(&format!("t{}", number % 30)), lease_ms: None })
                    .await
                    .is_ok()
            })
        })
        .collect();
    let mut made = 0;
    for change in changes {
        made += usize::from(change.await.unwrap());
    }
    assert_eq!(made, 30, "each name is given once");
    Arc::into_inner(running).unwrap().stop().await;
    let leaves = world.leaves();
    let mut sequence: Vec<u64> = leaves
        .iter()
        .filter(|stored| stored.leaf.res == Some(Outcome::Ok))
        .filter_map(|stored| stored.leaf.seq)
        .collect();
    sequence.sort_unstable();
    assert_eq!(sequence, (1..=31).collect::<Vec<u64>>(), "one outcome OK for each number");
}

pub(super) async fn copy_of(world: &World) -> Vec<(RowKey, Vec<u8>)> {
    let mut all = Vec::new();
    for family in Family::ALL {
        let rows = world.store.inner.list(family, &[], None, 100_000).await.unwrap().rows;
        all.extend(rows.into_iter().map(|(place, record)| (RowKey::new(family, place), record)));
    }
    all
}

pub(super) async fn replace(world: &World, rows: &[(RowKey, Vec<u8>)]) {
    let mut writes: Vec<Write> = copy_of(world).await.into_iter().map(|(place, _)| Write::Delete(place)).collect();
    writes.extend(rows.iter().map(|(place, record)| Write::Put(place.clone(), record.clone())));
    world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
}
