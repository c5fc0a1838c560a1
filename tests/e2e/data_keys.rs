//! Managed data keys: the service keeps them wrapped, the caller keeps their uids. They open their records over
//! kills and rotations, are destroyed one by one, and are told to nobody who may not know.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_proto::v1;
use kms_server::audit::{Outcome, Phase, StoredLeaf};
use kms_server::noun::Clock as _;
use kms_server::noun::clock::SystemClock;
use kms_tests::needle::{Needle, Search};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::stored::{Row, StoredDataKeys};
use kms_tests::{Binding, Caller, Site};
use prost_types::{Duration, Timestamp};
use ring::aead;
use tonic::Code;

use crate::{ACME, GLOBEX, Load, World, at_scale, refused};

/// A key of acme that wraps managed data keys.
pub const ROWS: &str = "tenants/acme/keys/rows";
/// Another one.
pub const OTHER_ROWS: &str = "tenants/acme/keys/other-rows";
/// One of globex.
pub const GLOBEX_ROWS: &str = "tenants/globex/keys/rows";
/// The most time between a destruction and the moment from which nobody is given what was destroyed.
const DESTROYING_MS_MAX: u64 = 6_000;
/// An encryption context.
pub const ROW: &[(&str, &str)] = &[("tbl", "customers"), ("pk", "7")];

/// A world with keys for managed data keys. `app` makes, gets and destroys them; `inspector` gets them and may
/// list them.
pub async fn world() -> Result<World> {
    let world = World::on(site().await?.start().await?)?;
    for (tenant, name) in [("acme", ACME), ("globex", GLOBEX)] {
        world.admin.ask(create_tenant(tenant)).await?;
        world.admin.ask(create_key(name, "app")).await?;
        world.admin.ask(create_managed(name, "rows")).await?;
    }
    world.admin.ask(create_managed(ACME, "other-rows")).await?;
    Ok(world)
}

async fn site() -> Result<Site> {
    let site = Site::temporary()?;
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter", "eraser"])?;
    site.bind(&Binding {
        id: "inspector",
        roles: &["decrypter", "eraser", "auditor"],
        principals: &[&site.principal("inspector")],
        tenants: &["*"],
        keys: &["*"],
        indexes: &[],
    })?;
    Ok(site)
}

/// A request for a key of purpose MANAGED.
pub fn create_managed(parent: &str, key_id: &str) -> v1::CreateKeyRequest {
    create_key_for(parent, key_id, v1::KeyPurpose::Managed.into())
}

/// Seals a record as a caller would: AES-256-GCM, a nonce of zeros, for the key is used once.
fn seal(key: &[u8], record: &[u8]) -> Vec<u8> {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).unwrap());
    let mut sealed = record.to_vec();
    key.seal_in_place_append_tag(aead::Nonce::assume_unique_for_key([0; 12]), aead::Aad::empty(), &mut sealed).unwrap();
    sealed
}

fn open(key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?);
    let mut record = sealed.to_vec();
    let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
    Some(key.open_in_place(nonce, aead::Aad::empty(), &mut record).ok()?.to_vec())
}

/// Returns how many each version of a key wraps.
pub async fn counts(admin: &Caller, key: &str) -> Result<BTreeMap<u32, u64>> {
    let versions = admin.ask(list_key_versions(key, 1000, "")).await?.key_versions;
    versions
        .into_iter()
        .map(|version| Ok((version.version, version.data_key_count.context("it is told of a key of this purpose")?)))
        .collect()
}

/// Returns all data keys of a key, by pages of so many.
async fn list_all(caller: &Caller, key: &str, page: i32) -> Result<Vec<v1::ManagedDataKey>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let listed = caller.ask(list_data_keys(key, page, &token)).await?;
        ensure!(listed.data_keys.len() <= page as usize, "a page of {}", listed.data_keys.len());
        all.extend(listed.data_keys);
        token = listed.next_page_token;
        if token.is_empty() {
            return Ok(all);
        }
    }
}

fn ms(time: &Timestamp) -> u64 {
    time.seconds as u64 * 1000 + time.nanos as u64 / 1_000_000
}

#[tokio::test]
async fn a_data_key_wrapped_under_the_chain_opens_its_record_after_kill_9() -> Result<()> {
    let world = world().await?;
    let made = world.app.ask(create_data_key(ROWS, ROW)).await?;
    assert_eq!((made.plaintext.len(), made.uid.len(), made.key_version), (32, 16, 1));
    let sealed = seal(&made.plaintext, b"Ada Lovelace, 12 St James's Square");

    // Killed right behind the reply: what is in the store then is what is left of it.
    let site = world.daemon.kill().await?;
    let stored = StoredDataKeys::read(&site).await?;
    stored.check_counters()?;
    let row = stored.row_of(&made.uid).context("its row")?;
    let Row::Living { version: 1, blob, .. } = Row::of(row)? else { panic!("{row:02x?}") };
    assert_eq!((&blob[..5], blob.len()), (&[0x92, 0x6b, 0x35, 0x01, 0x02][..], 128), "a wrapped data key");
    let needles = [Needle::new("the data key", &made.plaintext)];
    let search = Search::for_all(&needles);
    let mut searched = 0;
    for (file, bytes) in kms_tests::damage::contents(&site.path("data"))? {
        searched += bytes.len();
        let found = search.find_in(&file.display().to_string(), &bytes);
        ensure!(found.is_empty(), "{found:?}");
    }

    let world = World::on(site.start().await?)?;
    let got = world.app.ask(get_data_key(ROWS, &made.uid, ROW)).await?;
    assert_eq!(open(&got.plaintext, &sealed).as_deref(), Some(&b"Ada Lovelace, 12 St James's Square"[..]));
    assert_eq!(got.key_version, 1);
    println!(
        "plain sense: a record opens after kill -9 by its data key, of which {searched} bytes of data have no trace"
    );
    world.finish().await
}

#[tokio::test]
async fn data_keys_outlive_rotations_and_restarts_and_only_their_wrapping_changes() -> Result<()> {
    let mut world = world().await?;
    let made = world.app.ask(batch_create_data_keys(ROWS, 40, ROW)).await?.results;
    let uids: Vec<Vec<u8>> = made.iter().map(|made| made.uid.clone()).collect();
    let different: BTreeSet<&Vec<u8>> = made.iter().map(|made| &made.plaintext).collect();
    assert_eq!(different.len(), 40);
    assert!(uids.is_sorted(), "they lie in the store in the order of the batch");
    let site = world.daemon.stop().await?;
    let before = StoredDataKeys::read(&site).await?;
    world = World::on(site.start().await?)?;
    for version in 2..=3 {
        world.admin.ask(rotate_key(ROWS)).await?;
        moved(&world, ROWS, version).await?;
        let got = world.app.ask(batch_get_data_keys(ROWS, &uids, ROW)).await?.results;
        for (made, got) in made.iter().zip(&got) {
            assert_eq!((&got.error, &got.plaintext, got.key_version), (&None, &made.plaintext, version));
        }
        world = world.restart().await?;
    }
    let site = world.daemon.stop().await?;
    let after = StoredDataKeys::read(&site).await?;
    after.check_counters()?;
    assert_eq!(after.changed_beyond_blobs(&before)?, Vec::<String>::new());
    assert!(after.rows != before.rows && after.jobs == 0);
    let records = Records::read(&site)?;
    let told: Vec<_> = records.of("RewrapDone", Outcome::Ok).map(|done| (done.leaf.kv, done.leaf.cnt)).collect();
    assert_eq!(told, [(Some(2), Some(40)), (Some(3), Some(40))]);
    crate::world::check(&site)
}

/// Returns once a key's data keys are all under one version.
pub async fn moved(world: &World, key: &str, version: u32) -> Result<()> {
    let all_moved = async {
        loop {
            let counts = counts(&world.admin, key).await?;
            if counts.iter().all(|(found, count)| *found == version || *count == 0) {
                return anyhow::Ok(());
            }
        }
    };
    kms_tests::patiently("all data keys under the new version", all_moved).await?
}

#[tokio::test]
async fn a_destroyed_data_key_stays_destroyed_and_only_who_may_list_is_told() -> Result<()> {
    let mut world = world().await?;
    let made = world.app.ask(batch_create_data_keys(ROWS, 5, ROW)).await?.results;
    let uid = |place: usize| made[place].uid.clone();
    let gone = world.app.ask(destroy_data_key(ROWS, &uid(1))).await?;
    assert!(gone.lease_end_time.is_some() && gone.destroy_time.is_some());
    let many = world.app.ask(batch_destroy_data_keys(ROWS, &[uid(2), uid(1), vec![9; 16], uid(2)])).await?.results;
    let reasons: Vec<_> = many.iter().map(|one| one.error.as_ref().map(|error| error.reason())).collect();
    let missing = Some(v1::ErrorReason::DataKeyNotFound);
    assert_eq!(reasons, [None, missing, missing, None], "one that is named twice is destroyed once");

    for round in 0..3 {
        let inspector = world.daemon.caller("inspector")?;
        for place in [1, 2] {
            // Who may not list is told what he is told of one that never was.
            let got = world.app.ask(get_data_key(ROWS, &uid(place), ROW)).await;
            let never = world.app.ask(get_data_key(ROWS, &[9; 16], ROW)).await;
            assert_eq!(got.as_ref().unwrap_err(), never.as_ref().unwrap_err());
            refused(Code::NotFound, "DATA_KEY_NOT_FOUND", got);
            let again = world.app.ask(destroy_data_key(ROWS, &uid(place))).await;
            refused(Code::NotFound, "DATA_KEY_NOT_FOUND", again);
            let got = inspector.ask(get_data_key(ROWS, &uid(place), ROW)).await;
            refused(Code::FailedPrecondition, "DATA_KEY_DESTROYED", got);
            let again = inspector.ask(destroy_data_key(ROWS, &uid(place))).await;
            refused(Code::FailedPrecondition, "DATA_KEY_DESTROYED", again);
            // Also in another context, which nobody can compare any more.
            let got = inspector.ask(get_data_key(ROWS, &uid(place), &[])).await;
            refused(Code::FailedPrecondition, "DATA_KEY_DESTROYED", got);
        }
        let uids: Vec<Vec<u8>> = (0..5).map(uid).collect();
        for (caller, told) in
            [(&world.app, v1::ErrorReason::DataKeyNotFound), (&inspector, v1::ErrorReason::DataKeyDestroyed)]
        {
            let got = caller.ask(batch_get_data_keys(ROWS, &uids, ROW)).await?.results;
            for (place, got) in got.iter().enumerate() {
                let reason = got.error.as_ref().map(|error| error.reason());
                let expected = [1, 2].contains(&place).then_some(told);
                assert_eq!(reason, expected, "item {place}");
                assert_eq!(got.plaintext, if expected.is_none() { &made[place].plaintext[..] } else { b"" });
            }
        }
        refused(Code::PermissionDenied, "POLICY_DENIED", world.app.ask(list_data_keys(ROWS, 0, "")).await);
        for page in [1, 2, 5, 100] {
            let listed = list_all(&inspector, ROWS, page).await?;
            assert_eq!(listed.iter().map(|one| one.uid.clone()).collect::<Vec<_>>(), uids, "the oldest first");
            for (place, one) in listed.iter().enumerate() {
                let is_gone = [1, 2].contains(&place);
                let state = if is_gone { v1::KeyState::Destroyed } else { v1::KeyState::Enabled };
                assert_eq!((one.state(), one.destroy_time.is_some()), (state, is_gone));
                assert_eq!(one.key_version, if is_gone { 0 } else { round + 1 });
                assert!(one.create_time.is_some());
            }
            assert_eq!(listed[1].destroy_time, gone.destroy_time);
        }
        assert_eq!(counts(&world.admin, ROWS).await?.values().sum::<u64>(), 3);
        world.admin.ask(rotate_key(ROWS)).await?;
        moved(&world, ROWS, round + 2).await?;
        world = if round == 0 { world.crash().await? } else { world.restart().await? };
    }
    // The list of another key is another list.
    let inspector = world.daemon.caller("inspector")?;
    let token = inspector.ask(list_data_keys(ROWS, 2, "")).await?.next_page_token;
    let got = inspector.ask(list_data_keys(OTHER_ROWS, 2, &token)).await;
    refused(Code::InvalidArgument, "PAGE_TOKEN_INVALID", got);
    assert_eq!(list_all(&inspector, OTHER_ROWS, 10).await?.len(), 0);

    let site = world.daemon.stop().await?;
    let stored = StoredDataKeys::read(&site).await?;
    stored.check_counters()?;
    let row = stored.row_of(&uid(1)).context("what is left of it")?;
    let at = ms(&gone.destroy_time.context("a time")?);
    assert!(matches!(Row::of(row)?, Row::Destroyed { at: found, .. } if found == at), "{row:02x?}");
    crate::world::check(&site)
}

/// What a record says was given out: the uids of the items that did not fail, in hex.
fn given_out(stored: &StoredLeaf) -> Vec<String> {
    let leaf = &stored.leaf;
    match leaf.op.as_deref() {
        Some("GetDataKey") if leaf.res == Some(Outcome::Ok) => leaf.did.iter().map(|did| did.to_string()).collect(),
        Some("BatchGetDataKeys") => {
            let ids = STANDARD.decode(leaf.ids.as_deref().unwrap_or_default()).unwrap_or_default();
            let failed: BTreeSet<usize> = leaf
                .why
                .as_deref()
                .unwrap_or_default()
                .split(';')
                .filter_map(|cause| cause.rsplit_once(' '))
                .flat_map(|(_, places)| places.split(',').filter_map(|place| place.parse().ok()))
                .collect();
            let ids = ids.chunks(16).enumerate();
            ids.filter(|(place, _)| !failed.contains(place)).map(|(_, id)| hex::encode(id)).collect()
        }
        _ => Vec::new(),
    }
}

/// What a destruction destroyed, by its outcome's index.
fn destroyed(records: &Records) -> BTreeMap<String, u64> {
    let mut destroyed = BTreeMap::new();
    for op in ["DestroyDataKey", "BatchDestroyDataKeys"] {
        for outcome in records.of(op, Outcome::Ok).filter(|stored| stored.leaf.in_.is_some()) {
            let intent = &records.leaves[outcome.leaf.in_.unwrap() as usize].leaf;
            assert_eq!(intent.ph, Some(Phase::Intent));
            let ids = STANDARD.decode(intent.ids.as_deref().unwrap_or_default()).unwrap();
            let ids = ids.chunks(16).map(hex::encode).chain(intent.did.iter().map(|did| did.to_string()));
            for id in ids {
                assert_eq!(destroyed.insert(id, outcome.index), None, "destroyed twice");
            }
        }
    }
    destroyed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_data_key_is_given_out_above_the_record_of_its_destruction() -> Result<()> {
    let world = world().await?;
    let (mut given, mut refusals) = (0, 0);
    let rounds = at_scale(8, 80);
    // Many more that are read behind those that are destroyed: the longer a reading takes, the older is what it read.
    let others = world.app.ask(batch_create_data_keys(ROWS, 992, ROW)).await?.results;
    let others: Vec<Vec<u8>> = others.into_iter().map(|made| made.uid).collect();
    for round in 0..rounds {
        let made = world.app.ask(batch_create_data_keys(ROWS, 8, ROW)).await?.results;
        let uids: Vec<Vec<u8>> = made.iter().map(|made| made.uid.clone()).collect();
        let callers = (0..8).map(|_| world.daemon.caller("app")).collect::<Result<Vec<_>>>()?;
        let (wanted, many) = (uids.clone(), [uids.clone(), others.clone()].concat());
        // Each goes on until what it wants is gone.
        let load = Load::start(callers, move |caller, number| {
            let (wanted, many) = (wanted.clone(), many.clone());
            async move {
                if number % 8 == 0 {
                    let uid = &wanted[number / 8 % wanted.len()];
                    match caller.ask(get_data_key(ROWS, uid, ROW)).await {
                        Err(refused) if !refused.is("DATA_KEY_NOT_FOUND") => return Err(refused),
                        _ => return Ok(()),
                    }
                }
                let got = caller.ask(batch_get_data_keys(ROWS, &many, ROW)).await?;
                match got.results.iter().take(wanted.len()).all(|result| result.error.is_some()) {
                    false => Ok(()),
                    true => caller.ask(get_data_key(ROWS, &wanted[0], ROW)).await.map(drop),
                }
            }
        });
        load.more(20).await?;
        // One by one, or all at once.
        if round % 2 == 0 {
            let (last, others) = uids.split_last().context("there are some")?;
            for uid in others {
                world.app.ask(destroy_data_key(ROWS, uid)).await?;
                load.more(4).await?;
            }
            world.app.ask(destroy_data_key(ROWS, last)).await?;
        } else {
            world.app.ask(batch_destroy_data_keys(ROWS, &uids)).await?;
        }
        for ended in load.ended().await? {
            let refused = ended.expect_err("it ends only when it is refused");
            ensure!(refused.is("DATA_KEY_NOT_FOUND"), "{refused}");
            refusals += 1;
        }
    }
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let destroyed = destroyed(&records);
    assert_eq!(destroyed.len(), rounds * 8);
    let mut above = Vec::new();
    for stored in &records.leaves {
        for uid in given_out(stored) {
            given += 1;
            if destroyed.get(&uid).is_some_and(|index| *index < stored.index) {
                above.push((uid, stored.index));
            }
        }
    }
    println!(
        "data keys destroyed under load: {}, given out before {given}, refusals at the end {refusals}, given out above \
         the record {}",
        destroyed.len(),
        above.len()
    );
    ensure!(above.is_empty() && given > rounds * 20, "{above:?}");
    crate::world::check(&site)
}

#[tokio::test]
async fn a_version_that_wraps_data_keys_is_not_destroyed() -> Result<()> {
    let world = world().await?;
    world.app.ask(batch_create_data_keys(ROWS, 3, ROW)).await?;
    let first = format!("{ROWS}/versions/1");
    // Disabled, its data keys cannot be moved.
    world.admin.ask(disable_key(&first)).await?;
    refused(Code::FailedPrecondition, "VERSION_DISABLED", world.app.ask(create_data_key(ROWS, ROW)).await);
    world.admin.ask(rotate_key(ROWS)).await?;
    let new = world.app.ask(create_data_key(ROWS, ROW)).await?;
    assert_eq!(new.key_version, 2);
    assert_eq!(counts(&world.admin, ROWS).await?, BTreeMap::from([(1, 3), (2, 1)]));
    for wait in [seconds(0), None] {
        let got = world.admin.ask(schedule_key_destruction(&first, wait)).await;
        refused(Code::FailedPrecondition, "VERSION_IN_USE", got);
    }
    world.admin.ask(enable_key(&first)).await?;
    moved(&world, ROWS, 2).await?;
    world.admin.ask(schedule_key_destruction(&first, seconds(0))).await?;
    assert_eq!(counts(&world.admin, ROWS).await?[&2], 4);
    // The key goes with all it wraps, and its records tell how many those were.
    world.admin.ask(schedule_key_destruction(ROWS, seconds(0))).await?;
    refused(Code::FailedPrecondition, "KEY_DESTROYED", world.app.ask(get_data_key(ROWS, &new.uid, ROW)).await);
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let told: Vec<_> = records.of("DestroyKey", Outcome::Ok).map(|stored| stored.leaf.deks).collect();
    assert_eq!(told, [Some(4)]);
    let stored = StoredDataKeys::read(&site).await?;
    stored.check_counters()?;
    assert!(stored.row_of(&new.uid).is_none());
    crate::world::check(&site)
}

#[tokio::test]
async fn leases_are_told_and_the_longest_in_force_counts_when_keys_are_taken_away() -> Result<()> {
    let world = world().await?;
    let lease = |found: Option<Duration>| found.map(|lease| lease.seconds * 1000 + i64::from(lease.nanos) / 1_000_000);
    let tenant = world.admin.ask(get_tenant(ACME)).await?.tenant.context("a tenant")?;
    assert_eq!(lease(tenant.data_key_lease), Some(300_000));
    let made = world.app.ask(batch_create_data_keys(ROWS, 6, ROW)).await?;
    let uid = |place: usize| made.results[place].uid.clone();
    assert_eq!(lease(made.lease), Some(300_000));
    for (set, in_force, longest) in [(60, 60, 300), (600, 600, 600), (0, 0, 600)] {
        let updated = world.admin.ask(update_tenant(ACME, seconds(set))).await?.tenant.context("a tenant")?;
        assert_eq!(lease(updated.data_key_lease), Some(in_force * 1000));
        for told in [
            world.app.ask(create_data_key(ROWS, ROW)).await?.lease,
            world.app.ask(batch_create_data_keys(ROWS, 2, ROW)).await?.lease,
            world.app.ask(get_data_key(ROWS, &uid(0), ROW)).await?.lease,
            world.app.ask(batch_get_data_keys(ROWS, &[uid(0)], ROW)).await?.lease,
            world.app.ask(generate_data_key(crate::ACME_KEY, ROW)).await?.lease,
        ] {
            assert_eq!(lease(told), Some(in_force * 1000));
        }
        let place = if set == 60 {
            1
        } else if set == 600 {
            2
        } else {
            3
        };
        let before = SystemClock.now();
        let gone = world.app.ask(destroy_data_key(ROWS, &uid(place))).await?;
        let many = world.app.ask(batch_destroy_data_keys(ROWS, &[uid(place), vec![1; 16]])).await?;
        assert_eq!(many.lease_end_time, None, "none was destroyed");
        let disabled = world.admin.ask(disable_key(OTHER_ROWS)).await?;
        world.admin.ask(enable_key(OTHER_ROWS)).await?;
        let suspended = world.admin.ask(suspend_tenant(ACME)).await?;
        world.admin.ask(resume_tenant(ACME)).await?;
        let now = SystemClock.now();
        for (what, end, more) in [
            ("DestroyDataKey", gone.lease_end_time, DESTROYING_MS_MAX),
            ("DisableKey", disabled.lease_end_time, 0),
            ("SuspendTenant", suspended.lease_end_time, 0),
        ] {
            let end = ms(&end.with_context(|| format!("{what} tells until when"))?);
            let right = before + longest * 1000..=now + longest * 1000 + more;
            ensure!(right.contains(&end), "{what} with a lease of {set} s: {end} is not in {right:?}");
        }
        assert_eq!(lease(tenant.data_key_lease), Some(300_000));
    }
    // Nothing of this takes a write for each answer; and the records say the same as the answers.
    let world = world.crash().await?;
    let gone = world.app.ask(destroy_data_key(ROWS, &uid(4))).await?;
    let (at, end) = (ms(&gone.destroy_time.context("a time")?), ms(&gone.lease_end_time.context("a time")?));
    assert!((600_000..=600_000 + DESTROYING_MS_MAX).contains(&(end - at)), "also after a crash");
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let last = records.of("DestroyDataKey", Outcome::Ok).last().context("its record")?;
    assert_eq!((last.leaf.lease, last.leaf.rh.is_some()), (Some(end), true));
    crate::world::check(&site)
}

#[tokio::test]
async fn every_thousand_items_have_a_record_that_names_them() -> Result<()> {
    let world = world().await?;
    let count = 2_500;
    let mut request = batch_create_data_keys(ROWS, count, ROW);
    // One that is not good, in the second thousand.
    request.items[1_007].aad = vec![7; 257];
    let made = world.app.ask(request).await?.results;
    let uids: Vec<Vec<u8>> = made.iter().map(|made| made.uid.clone()).collect();
    assert!(made[1_007].error.is_some() && uids[1_007].is_empty());
    let good: Vec<Vec<u8>> = uids.iter().filter(|uid| !uid.is_empty()).cloned().collect();
    world.app.ask(batch_get_data_keys(ROWS, &good, ROW)).await?;
    world.app.ask(batch_destroy_data_keys(ROWS, &good)).await?;
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;

    let told = |op: &'static str| records.of(op, Outcome::Ok).map(|stored| &stored.leaf).collect::<Vec<_>>();
    let of_ids = |ids: Option<&str>| STANDARD.decode(ids.unwrap_or_default()).unwrap();
    let created = told("BatchCreateDataKeys");
    let counted: Vec<_> = created.iter().map(|leaf| (leaf.cnt, leaf.fail)).collect();
    assert_eq!(counted, [(Some(1_000), None), (Some(1_000), Some(1)), (Some(500), None)]);
    // The others of each thousand follow its first one.
    let firsts: Vec<_> = created.iter().map(|leaf| of_ids(leaf.ids.as_deref())).collect();
    assert_eq!(firsts, [&uids[0], &uids[1_000], &uids[2_000]].map(Clone::clone));
    let why = created[1].why.as_deref().unwrap_or_default();
    assert!(why.starts_with("CONTEXT_INVALID") && why.ends_with(" 7"), "{why}");
    let got = told("BatchGetDataKeys");
    let counted: Vec<_> = got.iter().map(|leaf| (leaf.cnt, leaf.fail, leaf.kv)).collect();
    assert_eq!(counted, [1_000, 1_000, 499].map(|count| (Some(count), None, Some(1))));
    assert_eq!(got.iter().flat_map(|leaf| of_ids(leaf.ids.as_deref())).collect::<Vec<u8>>(), good.concat());
    assert!(got.iter().all(|leaf| leaf.ten.as_deref() == Some("acme") && leaf.kn.as_deref() == Some("rows")));
    assert_eq!(destroyed(&records).len(), count - 1);
    let mut last = None;
    for leaf in records.of("BatchDestroyDataKeys", Outcome::Ok) {
        assert_eq!(leaf.leaf.px, last, "each names the one before it");
        last = Some(leaf.index);
    }
    assert_eq!(told("BatchDestroyDataKeys").len(), 3);
    StoredDataKeys::read(&site).await?.check_counters()?;
    crate::world::check(&site)
}
