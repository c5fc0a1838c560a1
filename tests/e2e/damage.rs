//! A data directory is damaged in one place, and opened: that is found, or does no harm. Nothing is silently lost, no
//! destroyed tenant comes back, nothing hangs.
//!
//! The openings are made by `kms-trial`, in processes of their own, because a damaged store may bring RocksDB to hang;
//! here is what they are held to, and who watches over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kms_tests::damage::{Action, Blob, DataKey, Expected, Fate, Key, ROOM, Tenant, Trial, contents};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Caller, Daemon, Settings, Site, command, seed};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinSet;

use crate::at_scale;
use crate::data_keys::create_managed;

/// How trials of one kind ended.
#[derive(Clone, Debug, Default)]
struct Count {
    /// All there are, damaged or not.
    bytes: usize,
    trials: usize,
    detected: usize,
    harmless: usize,
    silent: usize,
    hangs: usize,
    /// The process died without a word.
    deaths: usize,
    /// Every way in which it was detected, with one example.
    ways: BTreeMap<String, usize>,
}

/// What one trial came to.
#[derive(Clone, Debug)]
enum End {
    Detected(String),
    Harmless,
    Silent(String),
    Hung,
    Died,
}

/// A cluster with one of everything, small, on a site whose log has small segments.
async fn cluster() -> Result<(Daemon, Expected)> {
    let settings = Settings { segment_bytes: 1 << 16, pin_memory_kib: 8, ..Settings::default() };
    let daemon = Daemon::fresh_with(&settings).await?;
    let (admin, app) = (daemon.caller("admin")?, daemon.caller("app")?);
    let mut expected = Expected { settings: daemon.site().path("kms.toml"), ..Expected::default() };
    for tenant in ["acme", "globex", "hooli", "initech", "umbrella"] {
        admin.ask(create_tenant(tenant)).await?;
        for key in ["app", "old"] {
            admin.ask(create_key(&format!("tenants/{tenant}"), key)).await?;
        }
    }
    admin.ask(update_key("tenants/acme/keys/app", &[("team", "billing")], &["labels"])).await?;
    for (tenant, key, opens) in [
        ("acme", "app", false), // Version 1, which is destroyed below.
        ("acme", "old", false),
        ("globex", "app", false),
        ("hooli", "app", false),
        ("initech", "app", false),
        ("umbrella", "app", true),
        ("umbrella", "old", false),
    ] {
        expected.blobs.push(sealed(&app, tenant, key, opens).await?);
    }
    for opens in [false, true, true] {
        // Versions 2 (disabled below), 3 and 4.
        admin.ask(rotate_key("tenants/acme/keys/app")).await?;
        expected.blobs.push(sealed(&app, "acme", "app", opens).await?);
    }
    for (tenant, fate) in
        [("acme", Fate::Lives), ("globex", Fate::Unused), ("hooli", Fate::Unused), ("umbrella", Fate::Lives)]
    {
        admin.ask(create_managed(&format!("tenants/{tenant}"), ROWS)).await?;
        make_data_keys(&mut expected, &app, tenant, 3, fate).await?;
    }
    // So many records that the log's first segment ends.
    while daemon.site().log_dir().read_dir()?.filter(|entry| is_segment(entry.as_ref().ok())).count() < 2 {
        app.ask(encrypt("tenants/umbrella/keys/app", b"more", &[("row", "7")])).await?;
    }
    admin.ask(schedule_key_destruction("tenants/acme/keys/app/versions/1", seconds(0))).await?;
    admin.ask(disable_key("tenants/acme/keys/app/versions/2")).await?;
    admin.ask(schedule_key_destruction("tenants/acme/keys/old", seconds(0))).await?;
    admin.ask(suspend_tenant("tenants/globex")).await?;
    admin.ask(destroy_tenant("tenants/hooli", seconds(0))).await?;
    admin.ask(destroy_tenant("tenants/initech", None)).await?;
    admin.ask(schedule_key_destruction("tenants/umbrella/keys/old", None)).await?;
    let first = &mut expected.data_keys[0];
    app.ask(destroy_data_key("tenants/acme/keys/rows", &first.uid)).await?;
    first.fate = Fate::Destroyed;
    // The last that is stored: nothing that has a number follows, which a start would miss.
    for tenant in ["acme", "umbrella", "acme", "umbrella"] {
        make_data_keys(&mut expected, &app, tenant, 2, Fate::Lives).await?;
    }

    let keys = |app: (&str, &[&str]), old: &str, old_versions: &str| {
        let key = |state: &str, versions: &[&str]| Key {
            state: state.into(),
            versions: versions.iter().map(|state| (*state).to_owned()).collect(),
        };
        BTreeMap::from([("app".to_owned(), key(app.0, app.1)), ("old".to_owned(), key(old, &[old_versions]))])
    };
    let with_rows = |mut keys: BTreeMap<String, Key>| {
        keys.insert(ROWS.to_owned(), Key { state: "enabled".into(), versions: vec!["enabled".into()] });
        keys
    };
    let usual = || keys(("enabled", &["enabled"]), "enabled", "enabled");
    for (name, state, keys) in [
        (
            "acme",
            "active",
            with_rows(keys(("enabled", &["destroyed", "disabled", "enabled", "enabled"]), "destroyed", "destroyed")),
        ),
        ("globex", "suspended", with_rows(usual())),
        ("hooli", "destroyed", BTreeMap::new()),
        ("initech", "pending destruction", usual()),
        ("umbrella", "active", with_rows(keys(("enabled", &["enabled"]), "pending destruction", "enabled"))),
    ] {
        expected.tenants.insert(name.into(), Tenant { state: state.into(), keys });
    }
    Ok((daemon, expected))
}

fn is_segment(entry: Option<&std::fs::DirEntry>) -> bool {
    entry.is_some_and(|entry| entry.file_name().len() == 20)
}

async fn sealed(app: &Caller, tenant: &str, key: &str, opens: bool) -> Result<Blob> {
    let plaintext = format!("secret of {tenant} {key}").into_bytes();
    let bytes = app.ask(encrypt(&format!("tenants/{tenant}/keys/{key}"), &plaintext, &[])).await?.ciphertext;
    Ok(Blob { tenant: tenant.into(), key: key.into(), bytes, plaintext, opens })
}

/// Makes managed data keys in one call.
async fn make_data_keys(expected: &mut Expected, app: &Caller, tenant: &str, count: usize, fate: Fate) -> Result<()> {
    let key = format!("tenants/{tenant}/keys/{ROWS}");
    for made in app.ask(batch_create_data_keys(&key, count, &[])).await?.results {
        let (tenant, key) = (tenant.to_owned(), ROWS.to_owned());
        expected.data_keys.push(DataKey { tenant, key, uid: made.uid, plaintext: made.plaintext, fate });
    }
    Ok(())
}

/// Chooses which bytes: all that anybody reads, and of the others some.
fn choose(expected: &mut Expected) {
    (expected.seed, expected.flips_max, expected.cuts) = (seed(), at_scale(150, usize::MAX), at_scale(2, 16));
    // An hour more, and nothing else: what RocksDB writes down for people, what it never reads again, zeros.
    if std::env::var_os("KMS_TESTS_EVERY_BYTE").is_none() {
        for kind in ["store, messages", "store, options", "seg/spare", "log, older segment", ROOM] {
            expected.flips_max_of.insert(kind.to_owned(), 4_000);
        }
    }
}

/// Does all trials on several processes, and counts how they ended by kind of file and of damage.
async fn all_trials(site: &Site, expected: &Expected) -> Result<BTreeMap<String, Count>> {
    // In memory, where there is such a place: each trial writes a store anew.
    let scratch = tempfile::Builder::new().prefix("kms-").tempdir_in(memory())?;
    let pristine = scratch.path().join("pristine");
    copy(&site.path("data"), &pristine)?;
    let mut tasks = JoinSet::new();
    let mut trials = Vec::new();
    for worker in 0..PROCESSES {
        let folder = scratch.path().join(worker.to_string());
        std::fs::create_dir(&folder)?;
        let settings = site.read("kms.toml")?.replace("data_dir = \"data\"", "data_dir = \"damaged\"");
        let settings = settings.replace("\"data/pin\"", "\"damaged/pin\"");
        std::fs::write(folder.join("kms.toml"), settings)?;
        let mine = Expected { settings: folder.join("kms.toml"), pristine: pristine.clone(), ..expected.clone() };
        let file = folder.join("expected.json");
        mine.write(&file)?;
        trials = mine.trials()?;
        let end = trials.len();
        tasks.spawn(async move { run_trials(&file, worker, end).await });
    }
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let pristine = Expected { pristine, ..expected.clone() };
    for (kind, bytes) in pristine.bytes()? {
        counts.entry(kind).or_default().bytes = bytes;
    }
    let mut wrongs = Vec::new();
    for ends in tasks.join_all().await {
        for (number, end) in ends? {
            let trial = &trials[number];
            let count = counts.entry(label(trial)).or_default();
            count.trials += 1;
            match end {
                End::Detected(why) => {
                    count.detected += 1;
                    *count.ways.entry(way(&why)).or_default() += 1;
                }
                End::Harmless => count.harmless += 1,
                End::Silent(what) => {
                    count.silent += 1;
                    wrongs.push(format!("{trial:?}: {what}"));
                }
                End::Hung => {
                    count.hangs += 1;
                    wrongs.push(format!("{trial:?}: it hung"));
                }
                End::Died => {
                    count.deaths += 1;
                    wrongs.push(format!("{trial:?}: the process died"));
                }
            }
        }
    }
    for wrong in wrongs.iter().take(40) {
        println!("wrong: {wrong}");
    }
    Ok(counts)
}

fn label(trial: &Trial) -> String {
    match trial.action {
        Action::Flip { .. } => trial.kind.clone(),
        Action::Cut { .. } => "any file cut off".to_owned(),
        Action::Remove => "any file removed".to_owned(),
    }
}

/// The first words of an error, without what differs from trial to trial.
fn way(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).take(110).collect()
}

/// Does every trial that is this worker's, on as many processes as it takes one after the other.
async fn run_trials(file: &Path, worker: usize, end: usize) -> Result<Vec<(usize, End)>> {
    let mut ends = Vec::new();
    let mut next = worker;
    while next < end {
        let mut child = command("kms-trial")?
            .args(["damage".as_ref(), file.as_os_str()])
            .args([next.to_string(), end.to_string(), PROCESSES.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("it was piped")?).lines();
        let mut begun = None;
        loop {
            let Ok(line) = tokio::time::timeout(WATCHDOG, lines.next_line()).await else {
                let number = begun.context("a process hung before its first trial")?;
                ends.push((number, End::Hung));
                next = number + PROCESSES;
                child.kill().await?;
                break;
            };
            let Some(line) = line? else {
                child.wait().await?;
                if let Some(number) = begun {
                    ends.push((number, End::Died));
                    next = number + PROCESSES;
                } else if next < end {
                    ensure!(!ends.is_empty(), "a process ended before its first trial");
                    next = ends.last().map_or(next, |(number, _)| number + PROCESSES);
                }
                break;
            };
            ensure!(!line.starts_with("failed"), "a process could not go on: {line}");
            let mut words = line.splitn(3, ' ');
            let number: usize = words.next().unwrap_or_default().parse().with_context(|| line.clone())?;
            let rest = |words: &mut std::str::SplitN<'_, char>| words.next().unwrap_or_default().to_owned();
            let ended = match words.next() {
                Some("begun") => {
                    begun = Some(number);
                    continue;
                }
                Some("detected") => End::Detected(rest(&mut words)),
                Some("harmless") => End::Harmless,
                Some("silent") => End::Silent(rest(&mut words)),
                Some("stuck") => {
                    ends.retain(|(other, _)| *other != number);
                    ends.push((number, End::Hung));
                    continue;
                }
                _ => bail!("a process said {line:?}"),
            };
            begun = None;
            ends.push((number, ended));
        }
    }
    Ok(ends)
}

fn print(what: &str, counts: &BTreeMap<String, Count>) {
    let columns = ["bytes", "damaged", "detected", "harmless", "silent", "hangs"].map(|name| format!("{name:>9}"));
    println!("{what}: {:<24}{}", "", columns.concat());
    let mut all = Count::default();
    let line = |kind: &str, of: &Count| {
        let numbers = [of.bytes, of.trials, of.detected, of.harmless, of.silent, of.hangs + of.deaths];
        println!("{what}: {kind:<24}{}", numbers.map(|number| format!("{number:>9}")).concat());
    };
    for (kind, count) in counts {
        line(kind, count);
        all.bytes += count.bytes;
        all.trials += count.trials;
        all.detected += count.detected;
        all.harmless += count.harmless;
        all.silent += count.silent;
        all.hangs += count.hangs;
        all.deaths += count.deaths;
    }
    line("all", &all);
}

/// Prints how damage was told, and how often: to be read, not to be counted.
fn print_ways(what: &str, counts: &BTreeMap<String, Count>) {
    for (kind, count) in counts {
        for (way, times) in &count.ways {
            println!("{what}: {kind}: {times} x {way}");
        }
    }
}

fn check(counts: &BTreeMap<String, Count>) {
    for (kind, count) in counts {
        assert_eq!((count.silent, count.hangs, count.deaths), (0, 0, 0), "{kind}: {count:?}");
        assert_eq!(count.trials, count.detected + count.harmless, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_of_a_stopped_data_directory_is_found_or_does_no_harm() -> Result<()> {
    let (daemon, mut expected) = cluster().await?;
    let site = daemon.stop().await?;
    expected.leaves = Records::read(&site)?.leaves.len();
    choose(&mut expected);
    println!("damage: seed {}", expected.seed);
    let counts = all_trials(&site, &expected).await?;
    print("damage", &counts);
    print_ways("damage", &counts);
    check(&counts);
    // The trials do find something: tables are read to the last byte, and so is the log.
    assert!(counts["store, table"].detected > 0 && counts["log, last segment"].detected > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_of_what_a_crash_left_is_found_or_does_no_harm() -> Result<()> {
    let (daemon, mut expected) = cluster().await?;
    let site = daemon.kill().await?;
    expected.leaves = Records::read(&site)?.leaves.len();
    choose(&mut expected);
    // All else is as after a stop.
    expected.kinds = ["store, write-ahead log", "store, manifest", "log, last segment"].map(str::to_owned).to_vec();
    println!("damage after a crash: seed {}", expected.seed);
    let counts = all_trials(&site, &expected).await?;
    print("damage after a crash", &counts);
    print_ways("damage after a crash", &counts);
    check(&counts);
    let of_log = &counts["store, write-ahead log"];
    assert!(of_log.detected > 0);
    // What was stored last are data keys, which no number of a change would show to be missing.
    let told = |way: &String| way.contains("lacks managed data keys");
    assert!(of_log.ways.keys().any(told), "{:?}", of_log.ways);
    Ok(())
}

/// Where files cost no disk, if there is such a place.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if tempfile::tempfile_in(&memory).is_ok() { memory } else { std::env::temp_dir() }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for (file, bytes) in contents(from)? {
        let to = to.join(file);
        std::fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        std::fs::write(to, bytes)?;
    }
    Ok(())
}

/// The name of a key for managed data keys.
const ROWS: &str = "rows";
const PROCESSES: usize = 2;
/// The longest that one trial may take; a daemon's own patience is longer.
const WATCHDOG: Duration = Duration::from_secs(60);
