//! Makes managed data keys in great number by a daemon, gets them, moves them to another version, and prints what each
//! costs: processor time of the daemon, and bytes on the disk. Every key is got, and is the one that was given out.
//!
//! Processor time is that of the whole process: with TLS, with the log, and with all that the store does meanwhile.
//! Two processes share the machine, and others may: so no time by the clock is told but that of starts.

mod cost;
mod made;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use kms_proto::v1;
use kms_server::crypto::sha256;
use kms_server::store::rocks::{Limits, RocksStore};
use kms_server::store::{Family, Store as _};
use kms_tests::request::*;
use kms_tests::{Caller, Daemon, Random, Rpc, Settings, Site};
use tokio::task::JoinSet;
use tokio::time::Instant;

use cost::{Meter, bytes_in, cpu_of, forget, log_bytes, print_cost, print_figure, print_head, progress};
use made::{Batch, Made, aad, aad_at};

/// The tenant.
const TENANT: &str = "tenants/acme";
/// Its key of managed data keys.
const MANAGED: &str = "tenants/acme/keys/records";
/// Its key of portable data keys, to compare.
const PORTABLE: &str = "tenants/acme/keys/portable";
/// What all records have in their contexts; each has an aad of its own beside.
const CONTEXT: [(&str, &str); 2] = [("tbl", "customers"), ("col", "iban")];
/// The most of one request.
const BATCH_MAX: usize = 10_000;
/// Of the store, compacted, for one key: its row has 209 bytes.
const BYTES_EACH_MAX: f64 = 350.0;

/// Does all of it with so many keys, in a directory that stays if one is given. One that has some from an earlier run
/// gets those that are missing.
pub async fn run(keys: usize, folder: Option<&Path>) -> Result<()> {
    ensure!(keys >= BATCH_MAX, "at least {BATCH_MAX}");
    let sizes = Sizes::of(keys);
    let site = site(folder)?;
    let store = site.path("data/store");
    let mut made = Made::open(&site.path("made"))?;
    let (made_before, mut starts) = (made.keys, Vec::new());

    let daemon = begin(site, made_before, &mut starts).await?;
    println!("{keys} managed data keys of one key, {made_before} of them made before; {}", profile());
    println!();
    print_head();
    let logged = create(&daemon, &sizes, &mut made).await?;
    generate(&daemon, &sizes).await?;
    let memory_made = daemon.resident_bytes()?;
    let mut random = Random::new(1);
    get_warm(&daemon, &sizes, &made, &mut random).await?;

    let daemon = begun(daemon.kill().await?, "a kill", made.keys, &mut starts).await?;
    let mut site = daemon.stop().await?;
    let bytes_made = bytes_in(&store)?;
    for (what, each, count) in [
        ("get, store cold, 64 requests at once, each of 1", 1, sizes.cold / 10),
        ("get, store cold, batches of 1,000", 1_000, sizes.cold),
        ("get, store cold, batches of 10,000", BATCH_MAX, sizes.cold),
    ] {
        forget(&store)?;
        let daemon = begun(site, "a stop, store cold", made.keys, &mut starts).await?;
        get_some(&daemon, what, each, Made::choose(&made.batches, count, &mut random)).await?;
        site = daemon.stop().await?;
    }

    let daemon = begun(site, "a stop", made.keys, &mut starts).await?;
    let log = daemon.site().log_dir();
    let before = log_bytes(&log)?;
    get_all(&daemon, "get all in order, batches of 10,000", &made).await?;
    let logged_getting = log_bytes(&log)? - before;
    let memory_got = daemon.resident_bytes()?;
    let logged_moving = rewrap(&daemon, &made).await?;
    let site = daemon.stop().await?;
    let bytes_moved = bytes_in(&store)?;
    compact(&store).await?;
    let bytes_compacted = bytes_in(&store)?;
    let daemon = begun(site, "compaction", made.keys, &mut starts).await?;
    get_all(&daemon, "get all in order, re-wrapped and compacted", &made).await?;
    daemon.stop().await?;

    println!();
    let each = |bytes: u64| bytes as f64 / made.keys as f64;
    print_figure("store when all are made", each(bytes_made), "bytes each");
    print_figure("store when all are re-wrapped", each(bytes_moved), "bytes each");
    print_figure("store when it is compacted", each(bytes_compacted), "bytes each");
    if let Some(logged) = logged {
        print_figure("log of creating, batches of 10,000", logged, "bytes each");
    }
    print_figure("log of getting, batches of 10,000", each(logged_getting), "bytes each");
    print_figure("log of re-wrapping all", logged_moving as f64, "bytes");
    print_figure("memory when all are made", memory_made as f64 / MIB, "MiB");
    print_figure("memory when all were got", memory_got as f64 / MIB, "MiB");
    println!();
    for began in &starts {
        began.print();
    }
    println!();
    println!("got: {} of {}, twice, and each is the one that was made", made.keys, made.keys);
    ensure!(each(bytes_compacted) < BYTES_EACH_MAX, "{} bytes of store for each", each(bytes_compacted));
    Ok(())
}

const MIB: f64 = 1024.0 * 1024.0;

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "profile dev" } else { "profile release" }
}

/// How much is done of each kind.
struct Sizes {
    /// All that there will be.
    keys: usize,
    /// Those that are asked for one by one.
    singles: usize,
    /// Those that are asked for in batches of 1,000.
    in_thousands: usize,
    /// Of the last ones made, those that are in the store's memory.
    warm: usize,
    /// Those that are asked for when the store has none in memory.
    cold: usize,
}

impl Sizes {
    fn of(keys: usize) -> Self {
        Self {
            keys,
            singles: (keys / 50).min(20_000),
            in_thousands: (keys / 10).min(200_000) / 1_000 * 1_000,
            warm: keys.min(100_000),
            cold: (keys / 20).clamp(1_000, 50_000),
        }
    }
}

/// How a daemon began to serve.
struct Began {
    after: &'static str,
    keys: usize,
    wall: Duration,
    cpu: Duration,
    memory: u64,
}

impl Began {
    fn print(&self) {
        let Self { after, keys, wall, cpu, memory } = self;
        let (wall, cpu, memory) = (wall.as_secs_f64(), cpu.as_secs_f64(), *memory as f64 / MIB);
        let what = format!("start after {after}, {keys} keys");
        println!("{what:<54}{wall:>7.2} s, {cpu:.2} s of CPU, {memory:.0} MiB");
    }
}

fn site(folder: Option<&Path>) -> Result<Site> {
    // Segments as large as they are by default: the smaller they are, the more often one ends.
    let settings =
        Settings { segment_bytes: 64 << 20, log_filter: "warn,kms_server=info".into(), ..Settings::default() };
    let site = match folder {
        Some(folder) => Site::kept(folder, "test.example", &settings)?,
        None => Site::with(&settings)?,
    };
    site.change_settings("[log]\n", "[rotation]\nrewraps_per_second = 1000000\n\n[log]\n")?;
    Ok(site)
}

/// Starts a daemon on a new site; or on one that has some keys.
async fn begin(site: Site, keys: usize, starts: &mut Vec<Began>) -> Result<Daemon> {
    if site.path("data").exists() {
        return begun(site, "an earlier run", keys, starts).await;
    }
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter"])?;
    let daemon = begun(site, "init", 0, starts).await?;
    let admin = daemon.caller("admin")?;
    admin.ask(create_tenant("acme")).await?;
    admin.ask(create_key_for(TENANT, "records", v1::KeyPurpose::Managed.into())).await?;
    admin.ask(create_key(TENANT, "portable")).await?;
    Ok(daemon)
}

async fn begun(site: Site, after: &'static str, keys: usize, starts: &mut Vec<Began>) -> Result<Daemon> {
    let before = Instant::now();
    let daemon = site.start().await?;
    let (wall, cpu, memory) = (before.elapsed(), cpu_of(&daemon)?, daemon.resident_bytes()?);
    starts.push(Began { after, keys, wall, cpu, memory });
    Ok(daemon)
}

/// Makes all that are missing, in batches of 10,000; first, if there are none, some one by one and in smaller batches.
/// Returns the bytes of log for each of those in large batches.
async fn create(daemon: &Daemon, sizes: &Sizes, made: &mut Made) -> Result<Option<f64>> {
    let app = daemon.caller("app")?;
    if made.keys == 0 {
        for (what, count, at_once, repeatable) in [
            ("create, 1 request at once", sizes.singles / 10, 1, false),
            ("create, 1 request at once, with an id", sizes.singles / 10, 1, true),
            ("create, 64 requests at once", sizes.singles, 64, false),
            ("create, 64 requests at once, with ids", sizes.singles, 64, true),
        ] {
            let request = |number| v1::CreateDataKeyRequest {
                aad: aad_at(0),
                request_id: if repeatable { format!("{at_once}-{number}") } else { String::new() },
                ..create_data_key(MANAGED, &CONTEXT)
            };
            let (answers, used) = many(daemon, at_once, (0..count).map(request).collect()).await?;
            print_cost(what, count, used);
            for answer in answers {
                made.add(&answer.uid, &[&answer.plaintext])?;
            }
        }
        create_batches(daemon, &app, "create, batches of 1,000, with ids", made, (1_000, sizes.in_thousands / 1_000))
            .await?;
    }
    let batches = sizes.keys.saturating_sub(made.keys) / BATCH_MAX;
    let log = daemon.site().log_dir();
    let before = log_bytes(&log)?;
    create_batches(daemon, &app, "create, batches of 10,000, with ids", made, (BATCH_MAX, batches)).await?;
    let logged = (log_bytes(&log)? - before) as f64;
    let rest = sizes.keys.saturating_sub(made.keys);
    create_batches(daemon, &app, "create, the rest, in one batch", made, (rest, usize::from(rest > 0))).await?;
    Ok((batches > 0).then(|| logged / (batches * BATCH_MAX) as f64))
}

async fn create_batches(
    daemon: &Daemon,
    app: &Caller,
    what: &str,
    made: &mut Made,
    (each, batches): (usize, usize),
) -> Result<()> {
    let meter = Meter::start(daemon)?;
    for batch in 0..batches {
        let items = (0..each).map(|place| v1::BatchCreateDataKeysItem { aad: aad_at(place) }).collect();
        let request_id = format!("{}-{each}", made.keys);
        let request =
            v1::BatchCreateDataKeysRequest { items, request_id, ..batch_create_data_keys(MANAGED, 0, &CONTEXT) };
        let answer = app.ask(request).await?;
        let uids: Vec<&[u8]> = answer.results.iter().map(|result| &result.uid[..]).collect();
        let keys: Vec<&[u8]> = answer.results.iter().map(|result| &result.plaintext[..]).collect();
        ensure!(uids.len() == each && keys.iter().all(|key| key.len() == 32), "a key was not made");
        let batch_made = made.add(uids[0], &keys)?;
        ensure!((0..each).all(|place| batch_made.uid(place) == uids[place]), "uids of a batch count up");
        progress("made", each, (batch + 1) * each, batches * each);
    }
    if batches > 0 {
        print_cost(what, batches * each, meter.used()?);
    }
    Ok(())
}

/// Makes and unwraps portable data keys, of which the service keeps nothing.
async fn generate(daemon: &Daemon, sizes: &Sizes) -> Result<()> {
    let request = |_| v1::GenerateDataKeyRequest { aad: aad_at(0), ..generate_data_key(PORTABLE, &CONTEXT) };
    let (_, used) = many(daemon, 64, (0..sizes.singles).map(request).collect()).await?;
    print_cost("portable: generate, 64 requests at once", sizes.singles, used);
    let items: Vec<_> = (0..1_000).map(|place| v1::BatchGenerateDataKeysItem { aad: aad_at(place) }).collect();
    let request = |_| v1::BatchGenerateDataKeysRequest {
        items: items.clone(),
        ..batch_generate_data_keys(PORTABLE, 0, &CONTEXT)
    };
    let (answers, used) = many(daemon, 1, (0..sizes.in_thousands / 1_000).map(request).collect()).await?;
    print_cost("portable: generate, batches of 1,000", sizes.in_thousands, used);
    let requests: Vec<_> = answers
        .into_iter()
        .map(|answer| {
            let item = |(place, made): (usize, v1::BatchGenerateDataKeysResult)| v1::BatchDecryptDataKeysItem {
                wrapped_data_key: made.wrapped_data_key,
                aad: aad_at(place),
            };
            let items = answer.results.into_iter().enumerate().map(item).collect();
            v1::BatchDecryptDataKeysRequest { items, ..batch_decrypt_data_keys(PORTABLE, &[], &CONTEXT) }
        })
        .collect();
    let (answers, used) = many(daemon, 1, requests).await?;
    print_cost("portable: decrypt, batches of 1,000", sizes.in_thousands, used);
    let mut results = answers.iter().flat_map(|answer| &answer.results);
    ensure!(results.all(|result| result.plaintext.len() == 32), "a portable data key did not open");
    Ok(())
}

/// Gets the last ones made, in any order, once all of them are in the store's memory.
async fn get_warm(daemon: &Daemon, sizes: &Sizes, made: &Made, random: &mut Random) -> Result<()> {
    let mut keys = 0;
    let last = made.batches.iter().rev().take_while(|batch| {
        let before = keys;
        keys += batch.count;
        before < sizes.warm
    });
    let last: Vec<Batch> = last.copied().collect();
    let uids: Vec<Vec<u8>> = last.iter().flat_map(Batch::uids).collect();
    many(daemon, 1, uids.chunks(BATCH_MAX).map(get_batch).collect()).await?;
    for (what, each, count) in [
        ("get, store warm, 64 requests at once, each of 1", 1, sizes.singles),
        ("get, store warm, batches of 1,000", 1_000, sizes.warm),
        ("get, store warm, batches of 10,000", BATCH_MAX, sizes.warm),
    ] {
        get_some(daemon, what, each, Made::choose(&last, count, random)).await?;
    }
    Ok(())
}

/// Gets some, so many in a request.
async fn get_some(daemon: &Daemon, what: &str, each: usize, uids: Vec<Vec<u8>>) -> Result<()> {
    let count = uids.len();
    if each == 1 {
        let request = |uid: Vec<u8>| v1::GetDataKeyRequest { aad: aad(&uid), ..get_data_key(MANAGED, &uid, &CONTEXT) };
        let (_, used) = many(daemon, 64, uids.into_iter().map(request).collect()).await?;
        print_cost(what, count, used);
        return Ok(());
    }
    let (answers, used) = many(daemon, 1, uids.chunks(each).map(get_batch).collect()).await?;
    print_cost(what, count, used);
    let mut results = answers.iter().flat_map(|answer| &answer.results);
    ensure!(results.all(|result| result.plaintext.len() == 32), "a key was not got");
    Ok(())
}

fn get_batch(uids: &[Vec<u8>]) -> v1::BatchGetDataKeysRequest {
    let items = uids.iter().map(|uid| v1::BatchGetDataKeysItem { uid: uid.clone(), aad: aad(uid) }).collect();
    v1::BatchGetDataKeysRequest { items, ..batch_get_data_keys(MANAGED, &[], &CONTEXT) }
}

/// Gets all that were made, and holds each against what was given out then.
async fn get_all(daemon: &Daemon, what: &str, made: &Made) -> Result<()> {
    let app = daemon.caller("app")?;
    let meter = Meter::start(daemon)?;
    let (mut waiting, mut keys, mut got) = (Vec::new(), 0, 0);
    for (number, batch) in made.batches.iter().enumerate() {
        waiting.push(*batch);
        keys += batch.count;
        let next = made.batches.get(number + 1);
        if next.is_some_and(|next| keys + next.count <= BATCH_MAX) {
            continue;
        }
        let uids: Vec<Vec<u8>> = waiting.iter().flat_map(Batch::uids).collect();
        let answer = app.ask(get_batch(&uids)).await?;
        let mut results = answer.results.iter();
        for batch in waiting.drain(..) {
            let keys: Vec<&[u8]> = results.by_ref().take(batch.count).map(|result| &result.plaintext[..]).collect();
            ensure!(sha256(&keys.concat()) == batch.hash, "what was got is not what was made");
        }
        got += keys;
        progress("got", keys, got, made.keys);
        keys = 0;
    }
    ensure!(got == made.keys, "{got} of {} were got", made.keys);
    print_cost(what, got, meter.used()?);
    Ok(())
}

/// Rotates the key, and returns once all are under its new version: how many bytes of log that was.
async fn rewrap(daemon: &Daemon, made: &Made) -> Result<u64> {
    let admin = daemon.caller("admin")?;
    let log = daemon.site().log_dir();
    let (before, mut left) = (log_bytes(&log)?, u64::MAX);
    let meter = Meter::start(daemon)?;
    let primary = admin.ask(rotate_key(MANAGED)).await?.version.map(|version| version.version);
    while daemon.site().output().says("all managed data keys are moved").await.is_err() {
        let now_left = on_other_versions(&admin, primary).await?.0;
        ensure!(now_left < left, "no managed data key is moved any more, and {now_left} are left");
        left = now_left;
    }
    print_cost("re-wrap all", made.keys, meter.used()?);
    let (left, moved) = on_other_versions(&admin, primary).await?;
    // One that was made when an earlier run was stopped is not among those of the file.
    ensure!(left == 0 && moved >= made.keys as u64, "{left} are left, {moved} are moved");
    Ok(log_bytes(&log)? - before)
}

/// Counts the managed data keys of all versions but one, and those of that.
async fn on_other_versions(admin: &Caller, primary: Option<u32>) -> Result<(u64, u64)> {
    let versions = admin.ask(list_key_versions(MANAGED, 1_000, "")).await?.key_versions;
    let count = |is: bool| {
        let wanted = versions.iter().filter(|version| (Some(version.version) == primary) == is);
        wanted.map(|version| version.data_key_count.unwrap_or_default()).sum()
    };
    Ok((count(false), count(true)))
}

/// Compacts what a daemon has left, so that nothing is stored twice.
async fn compact(store: &Path) -> Result<()> {
    let store = RocksStore::open(store, &Limits::default())?;
    store.shred(Family::Dek).await?;
    Ok(store.close().await?)
}

/// Sends requests, so many at once, on up to four connections. Returns the answers, and what the daemon used.
async fn many<R: Rpc>(daemon: &Daemon, at_once: usize, requests: Vec<R>) -> Result<(Vec<R::Response>, Duration)> {
    let mut callers = Vec::new();
    for _ in 0..at_once.min(4) {
        let caller = daemon.caller("app")?;
        caller.ask(v1::GetCallerIdentityRequest {}).await?; // So that it is connected.
        callers.push(caller);
    }
    let mut shares: Vec<Vec<R>> = (0..at_once).map(|_| Vec::new()).collect();
    for (number, request) in requests.into_iter().enumerate() {
        shares[number % at_once].push(request);
    }
    let meter = Meter::start(daemon)?;
    let mut tasks = JoinSet::new();
    for (number, share) in shares.into_iter().enumerate() {
        let caller = callers[number % callers.len()].clone();
        tasks.spawn(async move {
            let mut answers = Vec::with_capacity(share.len());
            for request in share {
                answers.push(caller.ask(request).await?);
            }
            Ok::<_, kms_tests::Refused>(answers)
        });
    }
    let mut answers = Vec::new();
    while let Some(share) = tasks.join_next().await {
        answers.extend(share??);
    }
    Ok((answers, meter.used()?))
}
