//! What was destroyed stays destroyed, whoever puts old rows back.

use super::crashes::copy_of;
use super::*;
use crate::audit::LedgerError;

/// Puts rows back as they were: those that `which` names.
async fn put_back(world: &World, rows: &[(RowKey, Vec<u8>)], which: impl Fn(&RowKey) -> bool) {
    let writes: Vec<Write> = rows
        .iter()
        .filter(|(place, _)| which(place) && *place != row_key::position())
        .map(|(place, record)| Write::Put(place.clone(), record.clone()))
        .collect();
    assert!(!writes.is_empty());
    world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
}

fn ledger_file(world: &World) -> PathBuf {
    world.ledger_dir().join("destructions")
}

async fn destroyed(world: &World, change: Change) -> (Vec<(RowKey, Vec<u8>)>, Vec<u8>) {
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    let blob = running.seal("acme", b"x").await.unwrap();
    let before = copy_of(world).await;
    running.change(change).await.unwrap();
    running.stop().await;
    (before, blob)
}

async fn start_carries_out(world: &World, times: usize) -> Running {
    let running = world.start().await;
    assert_eq!(running.settled.carried_out, times);
    running
}

#[tokio::test]
async fn what_was_destroyed_does_not_come_back() {
    let of = |family: Family| move |place: &RowKey| place.family == family;
    type Which = Box<dyn Fn(&RowKey) -> bool>;
    let subsets: [(&str, Which); 4] = [
        ("all rows", Box::new(|_| true)),
        ("the tenant's row", Box::new(of(Family::Root))),
        ("its name's row", Box::new(of(Family::Name))),
        ("both, without keys", Box::new(|place| matches!(place.family, Family::Root | Family::Name))),
    ];
    for (what, which) in subsets {
        let world = World::new().await;
        let (before, blob) = destroyed(&world, destroy("acme", Some(0))).await;
        start_carries_out(&world, 0).await.stop().await;
        put_back(&world, &before, which).await;
        let running = start_carries_out(&world, 1).await;
        assert!(matches!(running.open("acme", &blob).await, Err(Error::TenantState(TenantState::Fenced))), "{what}");
        assert!(running.seal("globex", b"y").await.is_ok(), "{what}");
        running.stop().await;
        let rows = copy_of(&world).await;
        assert_eq!(rows.iter().filter(|(place, _)| row_key::parse_tenant(&place.key).is_some()).count(), 1, "{what}");
        // It is told, with the place of the first destruction, and is a destruction like any other.
        let leaves = world.leaves();
        let fenced: Vec<_> =
            leaves.iter().filter(|s| s.leaf.ph == Some(Phase::Fenced) && s.leaf.res == Some(Outcome::Ok)).collect();
        let [first, again] = fenced[..] else { panic!("{what}: {fenced:?}") };
        assert_eq!((again.leaf.by, again.leaf.pd), (Some(first.index), Some(first.index)), "{what}");
        assert_eq!(again.leaf.why.as_deref(), Some("CARRIED_OUT"));
        start_carries_out(&world, 0).await.stop().await;
    }
}

#[tokio::test]
async fn a_destroyed_key_or_version_does_not_come_back() {
    for (version, opens) in [(None, false), (Some(version(1)), true)] {
        let world = World::new().await;
        let (before, newest) = destroyed(&world, schedule("acme", version, 0)).await;
        put_back(&world, &before, |place| place.family != Family::Ops).await;
        let running = start_carries_out(&world, 1).await;
        assert_eq!(running.open("acme", &newest).await.is_ok(), opens);
        let versions = running.keyring.versions(&name("acme"), &key("k"), None, 10).await.unwrap().items;
        assert_eq!(versions[0].state, KeyState::Destroyed);
        running.stop().await;
        start_carries_out(&world, 0).await.stop().await;
    }
}

#[tokio::test]
async fn rows_of_a_destroyed_tenant_that_were_removed_or_damaged_end_as_its_tombstone() {
    let at = row_key::tenant_name(&name("acme"));
    for damaged in [None, Some(b"no record".to_vec())] {
        let world = World::new().await;
        destroyed(&world, destroy("acme", Some(0))).await;
        let write = damaged.map_or(Write::Delete(at.clone()), |record| Write::Put(at.clone(), record));
        world.store.inner.commit(Batch { preconditions: vec![], writes: vec![write] }).await.unwrap();
        let running = start_carries_out(&world, 1).await;
        assert!(matches!(
            running.change(Change::CreateTenant { tenant: name("acme"), lease_ms: None }).await,
            Err(Error::NameWasDestroyed)
        ));
        running.stop().await;
        start_carries_out(&world, 0).await.stop().await;
    }
}

#[tokio::test]
async fn the_row_alone_of_a_destroyed_key_does_not_make_it_live() {
    let world = World::new().await;
    let (before, _) = destroyed(&world, schedule("acme", None, 0)).await;
    let is_key = |place: &RowKey| matches!(row_key::parse_key_row(&place.key), Some(row_key::KeyRow::Key(..)));
    put_back(&world, &before, |place| place.family == Family::Key && is_key(place)).await;
    let running = start_carries_out(&world, 1).await;
    let rotate = Change::RotateKey { tenant: name("acme"), key: key("k") };
    assert!(matches!(running.change(rotate).await, Err(Error::KeyState(KeyState::Destroyed))));
    running.stop().await;
    start_carries_out(&world, 0).await.stop().await;
}

#[tokio::test]
async fn the_number_of_a_destroyed_version_is_not_given_again() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let before = copy_of(&world).await;
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    running.change(schedule("acme", Some(version(2)), 0)).await.unwrap();
    let uid = running.keyring.key(&name("acme"), &key("k")).await.unwrap().uid;
    let tenant = running.keyring.tenant(&name("acme")).await.unwrap().uid;
    running.stop().await;
    // The key as it was with one version, and no shell.
    put_back(&world, &before, |place| place.family == Family::Key).await;
    let writes = [2, 3].map(|number| Write::Delete(row_key::key_version(tenant, uid, version(number)))).to_vec();
    world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
    let running = start_carries_out(&world, 1).await;
    let rotate = Change::RotateKey { tenant: name("acme"), key: key("k") };
    assert!(running.change(rotate).await.is_err(), "version 2 is gone for ever");
    running.stop().await;
}

#[tokio::test]
async fn a_key_that_came_back_in_a_tenant_destroyed_since_stays_dead_with_it() {
    let world = World::new().await;
    let (before, _) = destroyed(&world, schedule("acme", None, 0)).await;
    let running = world.start().await;
    running.change(destroy("acme", Some(0))).await.unwrap();
    running.stop().await;
    put_back(&world, &before, |_| true).await;
    // The tenant goes first or last: in any case nothing of it is left.
    let running = world.start().await;
    assert!(running.settled.carried_out >= 1);
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::TenantState(TenantState::Fenced))));
    running.stop().await;
    start_carries_out(&world, 0).await.stop().await;
}

#[tokio::test]
async fn a_ledger_that_was_lost_cut_or_put_back_is_completed_from_the_log() {
    let world = World::new().await;
    let (before, _) = destroyed(&world, destroy("acme", Some(0))).await;
    let older = std::fs::read(ledger_file(&world)).unwrap();
    let running = world.start().await;
    running.change(destroy("globex", Some(0))).await.unwrap();
    // Enough for several segments, so that the start does not read them all.
    for _ in 0..400 {
        running.tenant_with_key(&format!("t{}", running.keyring.seq())).await;
    }
    running.stop().await;
    let whole = std::fs::read(ledger_file(&world)).unwrap();
    type Harm = Box<dyn Fn(&World)>;
    let harms: [(Harm, usize); 5] = [
        (Box::new(|world| std::fs::remove_file(ledger_file(world)).unwrap()), 2),
        (Box::new(|world| std::fs::remove_dir_all(world.ledger_dir()).unwrap()), 2),
        (Box::new(move |world| std::fs::write(ledger_file(world), &older).unwrap()), 1),
        (
            Box::new(|world| {
                std::fs::File::options().write(true).open(ledger_file(world)).unwrap().set_len(70).unwrap()
            }),
            2,
        ),
        (
            Box::new(|world| {
                let mut bytes = std::fs::read(ledger_file(world)).unwrap();
                let at = bytes.len() - 1;
                bytes[at] ^= 1;
                std::fs::write(ledger_file(world), bytes).unwrap();
            }),
            1,
        ),
    ];
    for (harm, recorded) in harms {
        harm(&world);
        let running = world.start().await;
        assert_eq!((running.settled.recorded, running.settled.carried_out), (recorded, 0));
        running.stop().await;
        assert_eq!(std::fs::read(ledger_file(&world)).unwrap(), whole);
    }
    // And what it is for works with a ledger made anew.
    std::fs::remove_file(ledger_file(&world)).unwrap();
    put_back(&world, &before, |place| place.family == Family::Name).await;
    start_carries_out(&world, 2).await.stop().await;
}

#[tokio::test]
async fn a_crash_before_the_ledgers_entry_is_made_good_at_the_next_start() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let before = std::fs::read(ledger_file(&world)).unwrap();
    running.change(destroy("acme", Some(0))).await.unwrap();
    running.crash().await;
    let whole = std::fs::read(ledger_file(&world)).unwrap();
    for length in before.len()..whole.len() {
        std::fs::write(ledger_file(&world), &whole[..length]).unwrap();
        let running = world.start().await;
        assert_eq!(running.settled.recorded, 1, "{length}");
        running.crash().await;
        assert_eq!(std::fs::read(ledger_file(&world)).unwrap(), whole, "{length}");
    }
}

#[tokio::test]
async fn a_crash_after_the_batch_of_a_destruction_leaves_it_in_the_ledger_too() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    *world.store.fault.lock().unwrap() = Fault::After;
    assert!(running.change(destroy("acme", Some(0))).await.is_err());
    running.crash().await;
    let before = std::fs::metadata(ledger_file(&world)).unwrap().len();
    world.start().await.stop().await;
    assert!(std::fs::metadata(ledger_file(&world)).unwrap().len() > before);
    start_carries_out(&world, 0).await.stop().await;
}

#[tokio::test]
async fn a_ledger_newer_than_store_and_log_refuses_the_start() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.stop().await;
    let rows = copy_of(&world).await;
    let segment = world.log_dir().join(format!("{:020}", 0));
    let log = std::fs::read(&segment).unwrap();
    let running = world.start().await;
    running.change(destroy("acme", Some(0))).await.unwrap();
    running.stop().await;
    super::crashes::replace(&world, &rows).await;
    std::fs::write(&segment, log).unwrap();
    let refused = world.try_start().await;
    assert!(matches!(refused, Err(OpenClusterError::Ledger(LedgerError::Newer { log: None, .. }))));
}
