//! A key of managed data keys is rotated under load, and the daemon killed, again and again, while it moves them:
//! every Get succeeds, every counter is what a scan counts, no destroyed one comes back, and of a row only the
//! blob changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use kms_proto::v1;
use kms_tests::request::*;
use kms_tests::stored::{Row, StoredDataKeys};
use kms_tests::{Random, Refused, Site, patiently, seed};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::data_keys::create_managed;
use crate::lasting::{Lasting, Stage};
use crate::{ACME, at_scale};

const ROWS: &str = "tenants/acme/keys/rows";
const PAIRS: &[(&str, &str)] = &[("tbl", "customers")];
const GETTERS: usize = 4;

/// A data key as its caller knows it.
struct Known {
    uid: Vec<u8>,
    plaintext: Vec<u8>,
    aad: Vec<u8>,
    /// [`LIVES`], [`DOOMED`] or [`GONE`].
    fate: AtomicU8,
}

const LIVES: u8 = 0;
/// Somebody is about to destroy it.
const DOOMED: u8 = 1;
/// Its destruction was acknowledged.
const GONE: u8 = 2;

/// What all callers share.
struct Shared {
    keys: Vec<Known>,
    gets: AtomicUsize,
    calls: AtomicUsize,
    destroyed: AtomicUsize,
    destroyed_max: usize,
    wrong: Mutex<Vec<String>>,
    more: Notify,
    stop: AtomicBool,
}

impl Shared {
    fn wrong(&self, what: String) {
        self.wrong.lock().expect("no holder panics").push(what);
    }

    fn fates(&self, places: &[usize]) -> Vec<u8> {
        places.iter().map(|place| self.keys[*place].fate.load(Ordering::SeqCst)).collect()
    }

    /// Holds what came for one data key against what is known of it.
    fn judge(&self, place: usize, before: u8, got: Result<&[u8], &str>) {
        let key = &self.keys[place];
        let after = key.fate.load(Ordering::SeqCst);
        let name = hex::encode(&key.uid);
        self.gets.fetch_add(1, Ordering::Relaxed);
        match got {
            Ok(_) if before == GONE => self.wrong(format!("{name} was destroyed, and given out")),
            Ok(plaintext) if plaintext == key.plaintext => {}
            Ok(_) => self.wrong(format!("{name} is another key")),
            Err("DATA_KEY_NOT_FOUND") if after != LIVES => {}
            Err(reason) => self.wrong(format!("{name} was not given out: {reason}")),
        }
    }

    /// Gets, and now and then destroys, until it is told to stop.
    async fn work(&self, mut caller: Lasting, mut random: Random, number: usize) {
        let mut round = 0;
        while !self.stop.load(Ordering::Relaxed) {
            round += 1;
            let count = if round % 2 == 0 { 1 } else { 1 + random.below(200) };
            let places: Vec<usize> = (0..count).map(|_| random.below(self.keys.len())).collect();
            let before = self.fates(&places);
            if let ([place], [before]) = (&places[..], &before[..]) {
                let key = &self.keys[*place];
                let request = v1::GetDataKeyRequest { aad: key.aad.clone(), ..get_data_key(ROWS, &key.uid, PAIRS) };
                let got = caller.ask(request).await;
                let got = got.as_ref().map(|got| &got.plaintext[..]);
                self.judge(*place, *before, got.map_err(reason));
            } else {
                let item = |place: &usize| v1::BatchGetDataKeysItem {
                    uid: self.keys[*place].uid.clone(),
                    aad: self.keys[*place].aad.clone(),
                };
                let items = places.iter().map(item).collect();
                let request = v1::BatchGetDataKeysRequest { items, ..batch_get_data_keys(ROWS, &[], PAIRS) };
                match caller.ask(request).await {
                    Ok(got) => {
                        for ((place, before), got) in places.iter().zip(before).zip(&got.results) {
                            let told = got.error.as_ref().map(|error| error.reason().as_str_name());
                            let told = told.map(|told| told.trim_start_matches("ERROR_REASON_"));
                            self.judge(*place, before, told.map_or(Ok(&got.plaintext[..]), Err));
                        }
                    }
                    Err(refused) => places.iter().for_each(|place| self.judge(*place, LIVES, Err(reason(&refused)))),
                }
            }
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.more.notify_one();
            if round % 20 == 0 && self.destroyed.load(Ordering::Relaxed) < self.destroyed_max {
                self.destroy(&mut caller, &mut random, &format!("d-{number}-{round}")).await;
            }
        }
    }

    /// Destroys some, under an id by which it is asked again if the daemon dies.
    async fn destroy(&self, caller: &mut Lasting, random: &mut Random, id: &str) {
        let wanted: Vec<usize> = (0..1 + random.below(4)).map(|_| random.below(self.keys.len())).collect();
        let doom = |place: &&usize| {
            let fate = &self.keys[**place].fate;
            fate.compare_exchange(LIVES, DOOMED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        let doomed: Vec<usize> = wanted.iter().filter(doom).copied().collect();
        if doomed.is_empty() {
            return;
        }
        let uids: Vec<Vec<u8>> = doomed.iter().map(|place| self.keys[*place].uid.clone()).collect();
        let request = v1::BatchDestroyDataKeysRequest { request_id: id.into(), ..batch_destroy_data_keys(ROWS, &uids) };
        match caller.ask(request).await {
            Ok(done) => {
                for (place, result) in doomed.iter().zip(&done.results) {
                    if let Some(error) = &result.error {
                        self.wrong(format!("a destruction under the id {id} says {:?}", error.reason()));
                    }
                    self.keys[*place].fate.store(GONE, Ordering::SeqCst);
                    self.destroyed.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(refused) => self.wrong(format!("a destruction: {refused}")),
        }
    }

    /// Returns once so many more calls were answered.
    async fn more_calls(&self, count: usize) -> Result<()> {
        let wanted = self.calls.load(Ordering::Relaxed) + count;
        let reached = async {
            while self.calls.load(Ordering::Relaxed) < wanted {
                self.more.notified().await;
            }
        };
        patiently(&format!("{count} more calls answered"), reached).await
    }
}

fn reason(refused: &Refused) -> &str {
    refused.reason.as_deref().unwrap_or("the connection failed")
}

/// Returns how many are left on versions that are not primary, and which one is.
async fn left(admin: &mut Lasting) -> Result<(u64, u32)> {
    let versions = admin.ask(list_key_versions(ROWS, 1000, "")).await?.key_versions;
    let primary = versions.last().map_or(0, |version| version.version);
    let old = versions.iter().filter(|version| version.version != primary);
    Ok((old.map(|version| version.data_key_count.unwrap_or_default()).sum(), primary))
}

/// Returns once at most so many are left.
async fn left_at_most(admin: &mut Lasting, shared: &Shared, wanted: u64) -> Result<()> {
    let mut before = u64::MAX;
    loop {
        let fewer = async {
            loop {
                let (now, _) = left(admin).await?;
                if now <= wanted || now < before {
                    return anyhow::Ok(now);
                }
                shared.more_calls(2).await?;
            }
        };
        before = patiently(&format!("fewer than {before} data keys to be moved"), fewer).await??;
        if before <= wanted {
            return Ok(());
        }
    }
}

/// What each look at the store is held to.
struct Looks {
    first: StoredDataKeys,
    last: StoredDataKeys,
    looks: usize,
    equal: usize,
    changed: usize,
}

impl Looks {
    async fn again(&mut self, site: &Site, shared: &Shared) -> Result<()> {
        let now = StoredDataKeys::read(site).await?;
        self.looks += 1;
        match now.check_counters() {
            Ok(()) => self.equal += 1,
            Err(error) => println!("wrong: look {}: {error}", self.looks),
        }
        for beyond in now.changed_beyond_blobs(&self.last)?.into_iter().chain(now.changed_beyond_blobs(&self.first)?) {
            println!("wrong: look {}: {beyond}", self.looks);
            self.changed += 1;
        }
        let by_uid: BTreeMap<&[u8], &[u8]> = now.rows.iter().map(|(place, row)| (&place[32..], &row[..])).collect();
        for key in &shared.keys {
            let row = Row::of(by_uid.get(&key.uid[..]).copied().unwrap_or_default())?;
            let lives = matches!(row, Row::Living { .. });
            let right = match key.fate.load(Ordering::SeqCst) {
                LIVES => lives,
                GONE => !lives,
                _ => true,
            };
            if !right {
                shared.wrong(format!("{} is {row:?}", hex::encode(&key.uid)));
            }
        }
        self.last = now;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_data_keys_under_load_survives_kill_9_at_any_moment() -> Result<()> {
    let seed = seed();
    println!("re-wrap: seed {seed}");
    let mut random = Random::new(seed);
    let (count, kills) = (at_scale(3_000, 100_000), at_scale(6, 24));
    let site = Site::temporary()?;
    // At the usual scale slower than usual, so that a kill comes in between.
    let rate = at_scale(1_500, 5_000);
    site.change_settings("[log]", &format!("[rotation]\nrewraps_per_second = {rate}\n\n[log]"))?;
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter", "eraser"])?;
    let daemon = site.start().await?;
    let (admin, app) = (daemon.caller("admin")?, daemon.caller("app")?);
    admin.ask(create_tenant("acme")).await?;
    admin.ask(create_managed(ACME, "rows")).await?;
    let mut keys = Vec::with_capacity(count);
    while keys.len() < count {
        let aads: Vec<Vec<u8>> =
            (0..1_000.min(count - keys.len())).map(|_| random.next().to_be_bytes().to_vec()).collect();
        let mut request = batch_create_data_keys(ROWS, aads.len(), PAIRS);
        request.items.iter_mut().zip(&aads).for_each(|(item, aad)| item.aad.clone_from(aad));
        for (made, aad) in app.ask(request).await?.results.into_iter().zip(aads) {
            ensure!(made.error.is_none() && made.plaintext.len() == 32, "{:?}", made.error);
            keys.push(Known { uid: made.uid, plaintext: made.plaintext, aad, fate: AtomicU8::new(LIVES) });
        }
    }
    let site = daemon.stop().await?;
    let first = StoredDataKeys::read(&site).await?;
    first.check_counters()?;
    assert_eq!(first.rows.len(), count);
    let mut looks = Looks { last: first.clone(), first, looks: 0, equal: 0, changed: 0 };

    let shared = Arc::new(Shared {
        keys,
        gets: AtomicUsize::new(0),
        calls: AtomicUsize::new(0),
        destroyed: AtomicUsize::new(0),
        destroyed_max: count / 20,
        wrong: Mutex::default(),
        more: Notify::new(),
        stop: AtomicBool::new(false),
    });
    let (mut apps, mut admins) = (Stage::new("app"), Stage::new("admin"));
    let mut admin = admins.caller();
    let mut working = JoinSet::new();
    for number in 0..GETTERS {
        let (shared, caller, random) = (Arc::clone(&shared), apps.caller(), random.fork());
        working.spawn(async move { shared.work(caller, random, number).await });
    }
    let mut daemon = site.start().await?;
    let (mut rotations, mut while_moving) = (0, 0);
    for kill in 0..kills {
        apps.up(&daemon)?;
        admins.up(&daemon)?;
        // Once more than needed: a job in the middle begins again.
        if left(&mut admin).await?.0 == 0 || kill == kills / 2 {
            admin.ask(rotate_key(ROWS)).await?;
            rotations += 1;
        }
        let (still, _) = left(&mut admin).await?;
        // Somewhere on the way, so that what is left suffices for the kills to come.
        let until = kills / 2 + if kill < kills / 2 { 0 } else { kills - kills / 2 };
        let step = (2 * still / (until - kill + 2) as u64).max(1);
        let wanted = still.saturating_sub(1 + random.next() % step);
        left_at_most(&mut admin, &shared, wanted).await?;
        shared.more_calls(random.below(12)).await?;
        while_moving += usize::from(left(&mut admin).await?.0 > 0);
        apps.down();
        admins.down();
        let site = daemon.kill().await?;
        looks.again(&site, &shared).await?;
        daemon = site.start().await?;
    }
    apps.up(&daemon)?;
    admins.up(&daemon)?;
    left_at_most(&mut admin, &shared, 0).await?;
    let (left, primary) = left(&mut admin).await?;
    shared.more_calls(20).await?;
    shared.stop.store(true, Ordering::Relaxed);
    patiently("the end of the callers", working.join_all()).await?;
    // All of them once more, from the version they were moved to.
    for place in 0..shared.keys.len() {
        if place % at_scale(7, 97) == 0 {
            let key = &shared.keys[place];
            let request = v1::GetDataKeyRequest { aad: key.aad.clone(), ..get_data_key(ROWS, &key.uid, PAIRS) };
            let before = key.fate.load(Ordering::SeqCst);
            let got = apps.caller().ask(request).await;
            ensure!(got.as_ref().map_or(true, |got| got.key_version == primary), "{got:?} of version {primary}");
            shared.judge(place, before, got.as_ref().map(|got| &got.plaintext[..]).map_err(reason));
        }
    }
    let site = daemon.stop().await?;
    looks.again(&site, &shared).await?;

    let wrong = shared.wrong.lock().expect("no holder panics");
    println!(
        "re-wrap: data keys {count}, kills {kills}, gets {}, failed {}, counters equal to a scan {}/{}, left {left}, rows \
         changed beyond their blobs {}",
        shared.gets.load(Ordering::Relaxed),
        wrong.len(),
        looks.equal,
        looks.looks,
        looks.changed
    );
    println!(
        "re-wrap: kills while data keys were moved {while_moving}, rotations {rotations}, destroyed meanwhile {}",
        shared.destroyed.load(Ordering::Relaxed)
    );
    ensure!(wrong.is_empty(), "seed {seed}: {} wrongs: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    assert_eq!((looks.equal, looks.looks, left, looks.changed), (kills + 1, kills + 1, 0, 0), "seed {seed}");
    assert!(while_moving * 3 >= kills && shared.destroyed.load(Ordering::Relaxed) > 0);
    // Every one that lives is wrapped anew, by the version that is primary now.
    for (place, row) in &looks.last.rows {
        let (now, before) = (Row::of(row)?, Row::of(&looks.first.rows[place])?);
        if let (Row::Living { version, blob, .. }, Row::Living { blob: before, .. }) = (now, before) {
            ensure!(version == primary && blob != before, "{} was not moved", hex::encode(&place[32..]));
        }
    }
    assert_eq!(looks.last.jobs, 0, "the job is gone");
    crate::world::check(&site)
}
