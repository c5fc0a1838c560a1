//! Damages a copy of a data directory in one place, opens it, and holds it against what was acknowledged.
//!
//! A trial ends *detected* (the start refuses, or what is damaged answers an error that says so), *harmless*
//! (everything acknowledged is there, and opens), or *silent* (something is missing or other, and nobody is told).

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use kms_server::audit::replay::read_unverified;
use kms_server::config::Settings;
use kms_server::crypto::Header;
use kms_server::crypto::context::hash_of_caller;
use kms_server::keyring::open::OpenClusterError;
use kms_server::keyring::{Change, Error, KeyPurpose, Keyring, Terms, Want, Which, Who};
use kms_server::noun::{DekUid, KeyName, TenantName};
use kms_tests::damage::{Action, DataKey, Expected, Fate, Trial};

use crate::opened::{self, Cluster};

/// How a trial ended.
enum Ended {
    Detected(String),
    Harmless,
    Silent(String),
}

pub async fn run(file: &Path, first: usize, end: usize, step: usize) -> Result<()> {
    let expected: Expected = Expected::read(file)?;
    let settings = opened::settings(&expected.settings)?;
    let trials = expected.trials()?;
    let mut out = std::io::stdout().lock();
    // A start that refuses ends a daemon; here it leaves a thread and a locked secret behind. Whoever watches starts
    // another process for the rest.
    for number in (first..end.min(trials.len())).step_by(step).take(TRIALS_OF_PROCESS) {
        let trial = &trials[number];
        // Told before, so that whoever watches knows what it hangs in.
        writeln!(out, "{number} begun")?;
        out.flush()?;
        expected.restore(&settings.data_dir)?;
        damage(&settings.data_dir, trial)?;
        let ended = hold(&settings, &expected, number).await?;
        match &ended {
            Ended::Detected(why) => writeln!(out, "{number} detected {}", one_line(why))?,
            Ended::Harmless => writeln!(out, "{number} harmless")?,
            Ended::Silent(what) => writeln!(out, "{number} silent {}", one_line(what))?,
        }
        out.flush()?;
        // RocksDB's thread still spins, and would take the core from all that follow.
        if matches!(&ended, Ended::Detected(why) if why.contains("did not end within")) {
            writeln!(out, "{number} stuck")?;
            return Ok(());
        }
    }
    Ok(())
}

fn damage(data: &Path, trial: &Trial) -> Result<()> {
    let path = data.join(&trial.file);
    match trial.action {
        Action::Flip { at, bit } => {
            let mut bytes = fs::read(&path)?;
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes)?;
        }
        Action::Cut { to } => fs::File::options().write(true).open(&path)?.set_len(to as u64)?,
        Action::Remove => fs::remove_file(&path)?,
    }
    Ok(())
}

async fn hold(settings: &Settings, expected: &Expected, number: usize) -> Result<Ended> {
    let cluster = match Cluster::open(settings).await {
        Ok(cluster) => cluster,
        // That is this process's own fault.
        Err(error) if matches!(error.downcast_ref(), Some(OpenClusterError::Memory)) => return Err(error),
        Err(error) => return Ok(Ended::Detected(format!("{error:#}"))),
    };
    let ended = look(&cluster, settings, expected).await?;
    let closed = cluster.close().await;
    if !matches!(ended, Ended::Harmless) {
        return Ok(ended);
    }
    // A store that is opened throws away what it believes to be old: harmless is only what still is at the next start.
    if !number.is_multiple_of(AGAIN_EVERY) {
        return Ok(Ended::Harmless);
    }
    if let Err(error) = closed {
        return Ok(Ended::Detected(format!("on closing: {error:#}")));
    }
    let again = match Cluster::open(settings).await {
        Ok(again) => again,
        Err(error) => return Ok(Ended::Detected(format!("at the second start: {error:#}"))),
    };
    // It is still good for changes.
    let change = Change::CreateTenant { tenant: "one-more".parse()?, lease_ms: None };
    if let Err(error) = again.keyring.change(change, Terms::default(), Who::service()).await {
        return Ok(Ended::Detected(format!("at a change: {error}")));
    }
    let ended = look(&again, settings, expected).await?;
    let _ = again.close().await;
    Ok(ended)
}

/// Looks at everything there is.
async fn look(cluster: &Cluster, settings: &Settings, expected: &Expected) -> Result<Ended> {
    match look_at_keys(&cluster.keyring, expected).await {
        Ok(()) => {}
        Err(Wrong::Told(why)) => return Ok(Ended::Detected(why)),
        Err(Wrong::Silent(what)) => return Ok(Ended::Silent(what)),
    }
    if let Err(error) = cluster.verify_older_log() {
        return Ok(Ended::Detected(format!("{error:#}")));
    }
    if cluster.torn_bytes > 0 {
        return Ok(Ended::Detected(format!("a torn end of {} bytes, which the log tells", cluster.torn_bytes)));
    }
    let leaves = read_unverified(&settings.log_dir()).context("reading the log")?;
    if leaves.len() < expected.leaves || leaves.iter().zip(0..).any(|(leaf, index)| leaf.index != index) {
        return Ok(Ended::Silent(format!("{} of {} records are there", leaves.len(), expected.leaves)));
    }
    Ok(Ended::Harmless)
}

/// What is not as it was acknowledged.
enum Wrong {
    /// An error says that something is damaged.
    Told(String),
    Silent(String),
}

/// Errors that say of something that it is damaged; any other about something that is there is a lie.
fn told(what: &str, error: &Error) -> Wrong {
    match error {
        Error::Damaged(_) | Error::Open(_) | Error::Store(_) => Wrong::Told(format!("{what}: {error}")),
        other => Wrong::Silent(format!("{what}: {other}")),
    }
}

async fn look_at_keys(keyring: &Keyring, expected: &Expected) -> Result<(), Wrong> {
    let name = |text: &str| text.parse::<TenantName>().expect("a name that was given");
    let key_name = |text: &str| text.parse::<KeyName>().expect("a name that was given");
    let same = |what: &str, found: &str, expected: &str| {
        if found == expected { Ok(()) } else { Err(Wrong::Silent(format!("{what} is {found}, not {expected}"))) }
    };
    let listed = keyring.tenants(None, 1000).await.map_err(|error| told("the list of tenants", &error))?;
    let names: Vec<&str> = listed.items.iter().map(|tenant| tenant.name.as_str()).collect();
    if let Some(missing) = expected.tenants.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(Wrong::Silent(format!("{missing} is not among {names:?}")));
    }
    for (tenant, as_told) in &expected.tenants {
        let found = keyring.tenant(&name(tenant)).await.map_err(|error| told(tenant, &error))?;
        same(tenant, found.state.as_str(), &as_told.state)?;
        if as_told.keys.is_empty() {
            continue;
        }
        let keys = keyring.keys(&name(tenant), None, 1000).await.map_err(|error| told(tenant, &error))?;
        same(&format!("{tenant}'s count of keys"), &keys.items.len().to_string(), &as_told.keys.len().to_string())?;
        for (key, as_told) in &as_told.keys {
            let what = format!("{tenant} {key}");
            let found = keyring.key(&name(tenant), &key_name(key)).await.map_err(|error| told(&what, &error))?;
            same(&what, found.state.as_str(), &as_told.state)?;
            let versions = keyring.versions(&name(tenant), &key_name(key), None, 1000).await;
            let versions = versions.map_err(|error| told(&what, &error))?;
            let found: Vec<&str> = versions.items.iter().map(|version| version.state.as_str()).collect();
            same(&what, &found.join(" "), &as_told.versions.join(" "))?;
        }
    }
    for blob in &expected.blobs {
        let what = format!("a ciphertext of {} {}", blob.tenant, blob.key);
        let opened = open(keyring, &name(&blob.tenant), &key_name(&blob.key), &blob.bytes).await;
        match (opened, blob.opens) {
            (Ok(plaintext), true) if plaintext == blob.plaintext => {}
            (Ok(_), true) => return Err(Wrong::Silent(format!("{what} opens to something else"))),
            (Ok(_), false) => return Err(Wrong::Silent(format!("{what} opens again"))),
            (Err(error), true) => return Err(told(&what, &error)),
            (Err(Error::TenantState(_) | Error::KeyState(_) | Error::VersionState(_)), false) => {}
            (Err(error), false) => return Err(told(&what, &error)),
        }
    }
    for data_key in &expected.data_keys {
        look_at_data_key(keyring, data_key).await?;
    }
    Ok(())
}

async fn look_at_data_key(keyring: &Keyring, as_told: &DataKey) -> Result<(), Wrong> {
    let tenant: TenantName = as_told.tenant.parse().expect("a name that was given");
    let key: KeyName = as_told.key.parse().expect("a name that was given");
    let uid = DekUid::from_slice(&as_told.uid).expect("a uid that was given");
    let context = hash_of_caller(tenant.as_str(), b"", []).expect("no pairs are a context");
    let what = format!("the data key {uid} of {tenant} {key}");
    let got = keyring.get_data_keys(&tenant, &key, &[(uid, context)]).await;
    let got = got.and_then(|got| got.keys.into_iter().next().expect("one was wanted"));
    match (got.map(|got| got.dek.expose_to_caller()), as_told.fate) {
        (Ok(plaintext), Fate::Lives) if plaintext == as_told.plaintext => Ok(()),
        (Ok(_), Fate::Lives) => Err(Wrong::Silent(format!("{what} is another key"))),
        (Ok(_), Fate::Destroyed | Fate::Unused) => Err(Wrong::Silent(format!("{what} came back"))),
        (Err(Error::DataKeyDestroyed), Fate::Destroyed) => Ok(()),
        (Err(Error::TenantState(_) | Error::KeyState(_)), Fate::Unused) => Ok(()),
        (Err(error), _) => Err(told(&what, &error)),
    }
}

async fn open(keyring: &Keyring, tenant: &TenantName, key: &KeyName, blob: &[u8]) -> Result<Vec<u8>, Error> {
    let which = Which::Of(Header::parse(blob)?);
    let in_use = keyring.enter(tenant, &[Want { key, purpose: KeyPurpose::Encrypt, which }]).await?;
    let one = in_use.key();
    let context = hash_of_caller(tenant.as_str(), b"", []).expect("no pairs are a context");
    let opened = one.kek().open_data(one.uid(), one.version(), &context, blob)?;
    Ok(opened.expose_to_caller())
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

const TRIALS_OF_PROCESS: usize = 256;

/// Every so many trials the directory is opened twice.
const AGAIN_EVERY: usize = 16;
