//! Managed data keys: their life, their counters, and every crash in it.

use super::*;
use crate::noun::DekUid;

pub(super) const MANAGED: &str = "m";

impl Running {
    pub(super) async fn tenant_with_managed_key(&self, tenant: &str) {
        self.change(Change::CreateTenant { tenant: name(tenant), lease_ms: None }).await.unwrap();
        self.managed_key(tenant, MANAGED).await;
    }

    pub(super) async fn managed_key(&self, tenant: &str, name_of_key: &str) {
        let (tenant, key, purpose) = (name(tenant), key(name_of_key), KeyPurpose::Managed);
        self.change(Change::CreateKey { tenant, key, purpose, labels: Labels::new() }).await.unwrap();
    }

    pub(super) async fn create(&self, tenant: &str, count: usize) -> Result<Vec<(DekUid, Vec<u8>)>, Error> {
        self.create_under(tenant, count, None).await
    }

    async fn create_under(
        &self,
        tenant: &str,
        count: usize,
        id: Option<&str>,
    ) -> Result<Vec<(DekUid, Vec<u8>)>, Error> {
        let new = new_keys(tenant, count, id);
        match self.keyring.create_data_keys(new, Who::service()).await? {
            Created::Made(made) => {
                self.keyring.log().durable(made.index).await.unwrap();
                Ok(made
                    .keys
                    .into_iter()
                    .flatten()
                    .map(|made| (made.uid, made.dek.unwrap().expose_to_caller()))
                    .collect())
            }
            Created::Before { uids } => {
                let mut keys = Vec::new();
                for uid in uids.into_iter().flatten() {
                    keys.push((uid, self.get(tenant, uid).await?));
                }
                Ok(keys)
            }
            Created::Rehearsed(_) => panic!("nobody rehearses"),
        }
    }

    pub(super) async fn get(&self, tenant: &str, uid: DekUid) -> Result<Vec<u8>, Error> {
        let got = self.keyring.get_data_keys(&name(tenant), &key(MANAGED), &[(uid, context(tenant))]).await?;
        let one = got.keys.into_iter().next().unwrap()?;
        Ok(one.dek.expose_to_caller())
    }

    pub(super) async fn destroy_keys(
        &self,
        tenant: &str,
        uids: &[DekUid],
    ) -> Result<Vec<Result<UnixMillis, Gone>>, Error> {
        let (terms, who) = (Terms::default(), Who::service());
        let done = self.keyring.destroy_data_keys(&name(tenant), &key(MANAGED), uids, true, &terms, &who).await?;
        fates(done)
    }

    pub(super) async fn rotate(&self, tenant: &str) {
        self.change(Change::RotateKey { tenant: name(tenant), key: key(MANAGED) }).await.unwrap();
    }

    /// What the counters say, by version.
    pub(super) async fn counted(&self, tenant: &str) -> Vec<(u32, u64)> {
        let view = self.keyring.key(&name(tenant), &key(MANAGED)).await.unwrap();
        let tenant = self.keyring.tenant(&name(tenant)).await.unwrap();
        let counts = self.keyring.deks_of_key(tenant.uid, view.uid).await.unwrap();
        counts.into_iter().map(|(version, count)| (version.get(), count)).collect()
    }

    /// What there is, by version.
    async fn scanned(&self, tenant: &str) -> Vec<(u32, u64)> {
        let mut counts = std::collections::BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.keyring.data_keys(&name(tenant), &key(MANAGED), after, 7).await.unwrap();
            for item in &page.items {
                if let Some(version) = item.version {
                    *counts.entry(version.get()).or_insert(0) += 1;
                }
            }
            after = page.items.last().map(|item| item.uid).filter(|_| page.more);
            if after.is_none() {
                return counts.into_iter().collect();
            }
        }
    }

    pub(super) async fn sum(&self, tenant: &str) -> u64 {
        let tenant = self.keyring.tenant(&name(tenant)).await.unwrap();
        self.keyring.counters(tenant.uid).await.unwrap().2.deks
    }

    pub(super) async fn check_counters(&self, tenant: &str) {
        let counted = self.counted(tenant).await;
        assert_eq!(counted, self.scanned(tenant).await);
        assert_eq!(self.sum(tenant).await, counted.iter().map(|(_, count)| count).sum::<u64>());
    }

    /// Moves all that can be moved.
    pub(super) async fn rewrap(&self) {
        let mut rewrapper = Rewrapper::new(Arc::clone(&self.keyring));
        while rewrapper.round(&CancellationToken::new()).await.unwrap() > 0 {}
    }
}

pub(super) fn new_keys(tenant: &str, count: usize, id: Option<&str>) -> NewDataKeys {
    NewDataKeys {
        tenant: name(tenant),
        key: key(MANAGED),
        contexts: vec![Some(context(tenant)); count],
        omit_plaintext: false,
        request_id: id.map(|id| id.parse().unwrap()),
        rehearse: false,
        operation: "BatchCreateDataKeys",
        leaves: vec![Leaf { cnt: Some(count as u64), ..Leaf::default() }; count.div_ceil(ITEMS_PER_LEAF)],
        held: Box::new(()),
    }
}

/// What became of each; what was not made at all is an error.
fn fates(done: DestroyedDataKeys) -> Result<Vec<Result<UnixMillis, Gone>>, Error> {
    let fate = |fate| match fate {
        Ok(at) => Ok(at),
        Err(Undone::Gone(gone)) => Err(gone),
        Err(Undone::Failed(_)) => Err(Gone::Damaged),
    };
    let fates = done.fates().map(fate).collect();
    match done.parts.into_iter().find_map(|part| part.err().filter(|e| !matches!(e, Error::DataKeysGone(_)))) {
        Some(error) => Err(error),
        None => Ok(fates),
    }
}

pub(super) fn uids(made: &[(DekUid, Vec<u8>)]) -> Vec<DekUid> {
    made.iter().map(|(uid, _)| *uid).collect()
}

#[tokio::test]
async fn a_data_key_outlives_restarts_and_rotations() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = running.create("acme", 3).await.unwrap();
    assert_eq!(made.iter().map(|(_, dek)| dek).collect::<std::collections::HashSet<_>>().len(), 3);
    running.crash().await;

    let running = world.start().await;
    for (uid, dek) in &made {
        assert_eq!(&running.get("acme", *uid).await.unwrap(), dek);
    }
    running.rotate("acme").await;
    assert_eq!(running.counted("acme").await, [(1, 3)]);
    running.rewrap().await;
    assert_eq!(running.counted("acme").await, [(2, 3)]);
    for (uid, dek) in &made {
        assert_eq!(&running.get("acme", *uid).await.unwrap(), dek);
    }
    running.check_counters("acme").await;
    let ended: Vec<_> =
        world.leaves().into_iter().filter(|leaf| leaf.leaf.op.as_deref() == Some("RewrapDone")).collect();
    assert_eq!(ended.iter().map(|leaf| (leaf.leaf.kv, leaf.leaf.cnt)).collect::<Vec<_>>(), [(Some(2), Some(3))]);
    running.stop().await;
}

#[tokio::test]
async fn only_its_context_key_and_tenant_open_a_data_key() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    running.tenant_with_managed_key("globex").await;
    running.managed_key("acme", "other").await;
    let (uid, _) = running.create("acme", 1).await.unwrap()[0].clone();
    assert!(matches!(running.get("globex", uid).await, Err(Error::DataKeyNotFound)));
    let wrong = hash_of_caller("acme", b"x", []).unwrap();
    let one = |got: GotDataKeys| got.keys.into_iter().next().unwrap().map(|_| ());
    let got = running.keyring.get_data_keys(&name("acme"), &key(MANAGED), &[(uid, wrong)]).await.unwrap();
    assert!(matches!(one(got), Err(Error::Open(_))));
    let got = running.keyring.get_data_keys(&name("acme"), &key("other"), &[(uid, context("acme"))]).await.unwrap();
    assert!(matches!(one(got), Err(Error::DataKeyNotFound)));
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::KeyNotFound)));
    running.stop().await;
}

#[tokio::test]
async fn none_is_given_out_after_its_destruction() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = running.create("acme", 200).await.unwrap();
    let all = uids(&made);
    let getting: Vec<_> = (0..4)
        .map(|_| {
            let (keyring, all) = (Arc::clone(&running.keyring), all.clone());
            tokio::spawn(async move {
                let wanted: Vec<_> = all.iter().map(|uid| (*uid, context("acme"))).collect();
                let mut given = 0;
                loop {
                    let got = keyring.get_data_keys(&name("acme"), &key(MANAGED), &wanted).await.unwrap();
                    let ids: Vec<String> = wanted
                        .iter()
                        .zip(&got.keys)
                        .filter(|(_, got)| got.is_ok())
                        .map(|((uid, _), _)| uid.to_string())
                        .collect();
                    given += ids.len();
                    // Others go on while it is still inside.
                    tokio::task::yield_now().await;
                    let leaf = Leaf { ids: Some(ids.join(",").into()), ..Leaf::of("Got") };
                    keyring.log().append(leaf).unwrap();
                    drop(got.in_use);
                    if ids.is_empty() {
                        return given;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for some in all.chunks(10) {
        running.destroy_keys("acme", some).await.unwrap();
        running.check_counters("acme").await;
    }
    for getting in getting {
        assert!(getting.await.unwrap() > 0);
    }
    running.keyring.log().durable(running.keyring.log().append(Leaf::of("End")).unwrap()).await.unwrap();
    let mut gone = std::collections::HashSet::new();
    for stored in world.leaves() {
        let leaf = &stored.leaf;
        match leaf.op.as_deref() {
            Some("BatchDestroyDataKeys") if leaf.res == Some(Outcome::Ok) => {
                use base64::Engine as _;
                let ids = base64::engine::general_purpose::STANDARD.decode(&**leaf.ids.as_ref().unwrap()).unwrap();
                gone.extend(ids.chunks(16).map(|uid| DekUid::from_slice(uid).unwrap().to_string()));
            }
            Some("Got") => {
                for uid in leaf.ids.as_deref().unwrap().split(',') {
                    assert!(!gone.contains(uid), "{uid} was given out after its destruction");
                }
            }
            _ => {}
        }
    }
    assert_eq!(gone.len(), 200);
    running.stop().await;
}

#[tokio::test]
async fn a_call_that_names_one_twice_counts_it_once() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = uids(&running.create("acme", 3).await.unwrap());
    let never = DekUid::of(1, [1; 6], 1);
    let destroyed = running.destroy_keys("acme", &[made[0], made[0], never, made[1]]).await.unwrap();
    assert!(destroyed[0].is_ok() && destroyed[1].is_ok() && destroyed[3].is_ok());
    assert_eq!(destroyed[2], Err(Gone::Never));
    assert_eq!(running.counted("acme").await, [(1, 1)]);
    running.check_counters("acme").await;
    let again = running.destroy_keys("acme", &[made[0], never]).await.unwrap();
    assert_eq!(again, [Err(Gone::Before), Err(Gone::Never)]);
    running.stop().await;
}

#[tokio::test]
async fn a_large_call_is_carried_out_whole_and_repeated_whole() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = uids(&running.create("acme", 2_500).await.unwrap());
    let terms = Terms { request_id: Some("once".parse().unwrap()), ..Terms::default() };
    let ask = |keyring: Arc<Keyring>, uids: Vec<DekUid>, terms: Terms| async move {
        keyring.destroy_data_keys(&name("acme"), &key(MANAGED), &uids, true, &terms, &Who::service()).await
    };
    // One is named again in the last part.
    let asked: Vec<_> = made.iter().copied().chain([made[0]]).collect();
    let first = ask(Arc::clone(&running.keyring), asked.clone(), terms.clone()).await.unwrap();
    assert!(first.lease_end().is_some());
    assert_eq!(running.scanned("acme").await, []);
    let again = ask(Arc::clone(&running.keyring), asked.clone(), terms.clone()).await.unwrap();
    assert!(again.parts.iter().all(|part| matches!(part, Ok(DonePart { how: How::Before(_), .. }))));
    let (first, again) = (fates(first).unwrap(), fates(again).unwrap());
    assert!(first.iter().all(Result::is_ok) && first.len() == 2_501);
    assert_eq!(again, first);
    let other = fates(ask(Arc::clone(&running.keyring), made[..10].to_vec(), terms).await.unwrap());
    assert!(matches!(other, Err(Error::RequestIdReused)));
    running.check_counters("acme").await;
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_comes_twice_makes_its_keys_once() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let calls = (0..20).map(|number| {
        let running = &running;
        async move { running.create_under("acme", 5, Some(&format!("id{}", number % 4))).await.unwrap() }
    });
    let made = futures_util::future::join_all(calls).await;
    for (place, keys) in made.iter().enumerate() {
        assert_eq!(keys, &made[place % 4], "the same keys for the same id");
    }
    assert_eq!(running.counted("acme").await, [(1, 20)]);
    running.crash().await;
    let running = world.start().await;
    assert_eq!(running.create_under("acme", 5, Some("id1")).await.unwrap(), made[1]);
    assert!(matches!(running.create_under("acme", 6, Some("id1")).await, Err(Error::RequestIdReused)));
    running.check_counters("acme").await;
    running.stop().await;
}

#[tokio::test]
async fn a_request_whose_batch_is_lost_makes_nothing_and_one_whose_reply_is_lost_makes_it_once() {
    let world = World::new().await;
    let mut running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    for (round, fault) in [(0, Fault::Before), (1, Fault::After)] {
        *world.store.fault.lock().unwrap() = fault;
        let id = format!("id{round}");
        assert!(running.create_under("acme", 4, Some(&id)).await.is_err());
        assert!(running.create("acme", 1).await.is_err(), "nothing is changed after a store that failed");
        running.crash().await;
        running = world.start().await;
        running.check_counters("acme").await;
        running.create_under("acme", 4, Some(&id)).await.unwrap();
        assert_eq!(running.counted("acme").await, [(1, 4 * (round + 1))]);
    }
    running.stop().await;
}

#[tokio::test]
async fn the_counters_are_what_a_scan_counts() {
    let world = World::new().await;
    let mut running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let mut all: Vec<(DekUid, Vec<u8>)> = Vec::new();
    for round in 0..24_usize {
        match round % 6 {
            0 | 3 => all.extend(running.create("acme", 300).await.unwrap()),
            1 => running.rotate("acme").await,
            2 => {
                let gone: Vec<_> = all.iter().step_by(7).map(|(uid, _)| *uid).collect();
                running.destroy_keys("acme", &gone).await.unwrap();
                all.retain(|(uid, _)| !gone.contains(uid));
            }
            4 => {
                // One step of a job, and then a crash after its batch or before it.
                let mut rewrapper = Rewrapper::new(Arc::clone(&running.keyring));
                rewrapper.round(&CancellationToken::new()).await.unwrap();
                *world.store.fault.lock().unwrap() = if round % 4 == 0 { Fault::Before } else { Fault::After };
                rewrapper.round(&CancellationToken::new()).await.unwrap();
                running.crash().await;
                running = world.start().await;
            }
            _ => running.rewrap().await,
        }
        running.check_counters("acme").await;
    }
    running.rewrap().await;
    assert_eq!(running.counted("acme").await.len(), 1, "all are under the newest version");
    for (uid, dek) in &all {
        assert_eq!(&running.get("acme", *uid).await.unwrap(), dek);
    }
    assert_eq!(running.sum("acme").await, all.len() as u64);
    running.stop().await;
}

#[tokio::test]
async fn a_destroyed_one_does_not_come_back() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = uids(&running.create("acme", 1_200).await.unwrap());
    running.rotate("acme").await;
    let gone: Vec<_> = made.iter().copied().step_by(3).collect();
    let destroying = async {
        for some in gone.chunks(20) {
            running.destroy_keys("acme", some).await.unwrap();
        }
    };
    tokio::join!(destroying, running.rewrap());
    running.rewrap().await;
    for uid in &gone {
        assert!(matches!(running.get("acme", *uid).await, Err(Error::DataKeyDestroyed)));
    }
    assert_eq!(running.counted("acme").await, [(2, 800)]);
    running.check_counters("acme").await;
    running.stop().await;
}

#[tokio::test]
async fn a_version_that_wraps_some_is_not_destroyed() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    running.create("acme", 3).await.unwrap();
    running.rotate("acme").await;
    let destroy = || Change::ScheduleKeyDestruction {
        tenant: name("acme"),
        key: key(MANAGED),
        version: Some(version(1)),
        wait_ms: Some(0),
    };
    assert!(matches!(running.change(destroy()).await, Err(Error::VersionInUse(3))));
    running.rewrap().await;
    running.change(destroy()).await.unwrap();
    running.check_counters("acme").await;
    running.stop().await;
}

#[tokio::test]
async fn a_disabled_version_keeps_its_own_until_it_is_enabled() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    let made = running.create("acme", 3).await.unwrap();
    running.rotate("acme").await;
    let set =
        |enabled| Change::SetKeyState { tenant: name("acme"), key: key(MANAGED), version: Some(version(1)), enabled };
    running.change(set(false)).await.unwrap();
    running.rewrap().await;
    assert_eq!(running.counted("acme").await, [(1, 3)]);
    assert!(matches!(running.get("acme", made[0].0).await, Err(Error::VersionState(KeyState::Disabled))));
    running.change(set(true)).await.unwrap();
    running.rewrap().await;
    assert_eq!(running.counted("acme").await, [(2, 3)]);
    running.stop().await;
}

#[tokio::test]
async fn destroying_a_key_or_a_tenant_takes_its_data_keys_and_says_how_many() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    running.create("acme", 5).await.unwrap();
    running.managed_key("acme", "other").await;
    let new = NewDataKeys { key: key("other"), ..new_keys("acme", 2, None) };
    running.keyring.create_data_keys(new, Who::service()).await.unwrap();
    assert_eq!(running.sum("acme").await, 7);
    let (tenant, key) = (name("acme"), key(MANAGED));
    running.change(Change::ScheduleKeyDestruction { tenant, key, version: None, wait_ms: Some(0) }).await.unwrap();
    assert_eq!(running.sum("acme").await, 2);
    running.change(destroy("acme", Some(0))).await.unwrap();
    let told: Vec<_> = world
        .leaves()
        .into_iter()
        .filter(|leaf| leaf.leaf.ph == Some(Phase::Fenced))
        .map(|leaf| leaf.leaf.deks)
        .collect();
    assert_eq!(told, [Some(5), Some(2)]);
    let page = world.store.inner.list(Family::Dek, &[], None, 100).await.unwrap();
    assert_eq!(page.rows.len(), 0);
    running.stop().await;
}

#[tokio::test]
async fn whoever_hangs_up_loses_only_the_reply() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_managed_key("acme").await;
    for number in 0..20 {
        let id = format!("id{number}");
        let mut asked = Box::pin(running.create_under("acme", 3, Some(&id)));
        for _ in 0..number % 5 {
            let _ = futures_util::poll!(&mut asked);
            tokio::task::yield_now().await;
        }
        drop(asked);
        let made = running.create_under("acme", 3, Some(&id)).await.unwrap();
        assert_eq!(made.len(), 3);
        running.check_counters("acme").await;
    }
    assert_eq!(running.counted("acme").await, [(1, 60)]);
    running.stop().await;
}
