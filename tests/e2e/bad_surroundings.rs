//! What a daemon does on the wrong ground: it refuses to start, changes nothing, and says what is
//! wrong, why, and what to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kms_tests::request::*;
use kms_tests::{Binding, Ended, Site};

use crate::{ACME_KEY, Expected, World};

/// Expects an exit code other than 0 and a message with all of these words, in any case.
pub fn refuses(expected: &mut Expected, what: &str, words: &[&str], ended: &Ended) {
    let said = ended.stderr.to_lowercase();
    let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(&word.to_lowercase())).collect();
    let right = !matches!(ended.code, None | Some(0)) && missing.is_empty() && !said.contains("panicked");
    let got = format!("exit code {:?}, without {missing:?}: {}", ended.code, ended.stderr.trim());
    expected.row(right, what, &format!("another exit code than 0 and the words {words:?}"), &got);
}

/// A site with a cluster on it.
pub async fn initialised() -> Result<Site> {
    let site = Site::temporary()?;
    site.init().await?;
    Ok(site)
}

/// All files of a folder with their bytes.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            contents.append(&mut self::contents(&path)?);
        } else {
            contents.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(contents)
}

#[tokio::test]
async fn a_data_directory_that_is_not_its_own() -> Result<()> {
    let mut expected = Expected::of("a data directory that is not its own");

    let site = Site::temporary()?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "serve before init", &["init"], &ended);

    let site = initialised().await?;
    let before = contents(&site.path("data"))?;
    let ended = site.try_init().await?;
    refuses(&mut expected, "init twice", &["data"], &ended);
    expected.row(contents(&site.path("data"))? == before, "init twice", "no file changed", "changed files");
    let served = site.start().await;
    expected.row(served.is_ok(), "serve after init twice", "success", &format!("{:?}", served.as_ref().err()));
    if let Ok(daemon) = served {
        daemon.stop().await?;
    }

    // Somebody else's: a directory that has a part of ours by name.
    let site = Site::temporary()?;
    fs::create_dir_all(site.path("data/store"))?;
    site.write("data/store/holiday.txt", "not a key")?;
    for (command, ended) in [("init", site.try_init().await?), ("serve", site.refused_serve().await?)] {
        refuses(&mut expected, &format!("{command} beside somebody else's store"), &["data"], &ended);
        // Who follows the advice must not lose what was never ours.
        let gently = !ended.stderr.contains("remove");
        expected.row(
            gently,
            &format!("{command} beside somebody else's store"),
            "no advice to remove it",
            ended.stderr.trim(),
        );
    }
    expected.row(site.read("data/store/holiday.txt").is_ok(), "somebody else's store", "as it was", "gone");

    // An init that was cut off made the keystore and the log, and no store.
    let site = initialised().await?;
    fs::remove_dir_all(site.path("data/store"))?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "serve after an init that was cut off", &["init"], &ended);
    fs::create_dir(site.path("data/store"))?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "serve after an init that was cut off later", &["init"], &ended);

    // A part of a cluster that was in use is missing: a disk that is not mounted, a restore that forgot it. Whoever is
    // told that nothing was stored, and to remove the rest, loses everything.
    for part in ["hsm", "seg", "store"] {
        let world = World::new().await?;
        let site = world.daemon.stop().await?;
        fs::rename(site.path("data").join(part), site.path("elsewhere"))?;
        for (command, ended) in [("serve", site.refused_serve().await?), ("init", site.try_init().await?)] {
            refuses(&mut expected, &format!("{command} without {part}"), &[part], &ended);
            let gently = !ended.stderr.contains("remove") && !ended.stderr.contains("nothing was ever stored");
            expected.row(
                gently,
                &format!("{command} without {part}"),
                "no advice to remove the rest",
                ended.stderr.trim(),
            );
        }
        fs::rename(site.path("elsewhere"), site.path("data").join(part))?;
        let served = site.start().await;
        expected.row(served.is_ok(), &format!("{part} put back"), "success", &format!("{:?}", served.as_ref().err()));
    }
    // The parts of two clusters do not fit together, though each is whole.
    for part in ["hsm", "seg", "store"] {
        let (site, other) = (initialised().await?, initialised().await?);
        let (from, to) = (other.path("data").join(part), site.path("data").join(part));
        fs::remove_dir_all(&to)?;
        copy_folder(&from, &to)?;
        if part == "hsm" {
            // Else it would be a wrong PIN and nothing else.
            fs::copy(other.path("data/pin"), site.path("data/pin"))?;
        }
        let ended = site.refused_serve().await?;
        refuses(&mut expected, &format!("another cluster's {part}"), &[], &ended);
    }
    expected.check();
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_log_that_is_older_than_the_store_or_damaged() -> Result<()> {
    let mut expected = Expected::of("a log that is not the store's");
    let mut world = World::new().await?;
    let old = tempfile::tempdir()?;
    // A clean stop brings the store's place in the log up to date.
    world = world.restart().await?;
    copy_folder(&world.daemon.site().log_dir(), &old.path().join("seg"))?;
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    let site = world.daemon.stop().await?;
    let current = tempfile::tempdir()?;
    copy_folder(&site.log_dir(), &current.path().join("seg"))?;

    fs::remove_dir_all(site.log_dir())?;
    copy_folder(&old.path().join("seg"), &site.log_dir())?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "an older copy of the log", &["log", "older"], &ended);

    fs::remove_dir_all(site.log_dir())?;
    copy_folder(&current.path().join("seg"), &site.log_dir())?;
    let segment = site.log_dir().join(format!("{:020}", 0));
    let whole = fs::read(&segment)?;
    let mut edited = whole.clone();
    let at = find(&edited, b"\"op\":\"RotateKey\"").expect("the log tells of the rotation");
    edited[at + 6] = b'X';
    fs::write(&segment, &edited)?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "a log that was edited", &["damaged"], &ended);
    fs::write(&segment, &whole)?;
    let served = site.start().await;
    expected.row(served.is_ok(), "the log as it was", "success", &format!("{:?}", served.as_ref().err()));
    drop(served);
    expected.check();
    Ok(())
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

#[tokio::test]
async fn a_second_daemon_on_the_same_directory() -> Result<()> {
    let world = World::new().await?;
    let mut expected = Expected::of("a second daemon on the same directory");
    let ended = world.daemon.site().refused_serve().await?;
    refuses(&mut expected, "serve beside serve", &["data"], &ended);
    let ended = world.daemon.site().try_init().await?;
    refuses(&mut expected, "init beside serve", &["data"], &ended);
    expected.works("the first one afterwards", world.app.ask(encrypt(ACME_KEY, b"x", &[])).await);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn settings_that_cannot_be_meant() -> Result<()> {
    let mut expected = Expected::of("settings that cannot be meant");
    let site = initialised().await?;
    let good = site.read("kms.toml")?;
    let changes: [(&str, &str, &str, &[&str]); 13] = [
        ("an unknown setting", "services = ", "servces = ", &["servces", "kms.toml"]),
        ("an unknown table", "[audit]", "[audits]", &["audits", "kms.toml"]),
        ("a setting of another type", "segment_bytes = 1048576", "segment_bytes = \"big\"", &["segment_bytes"]),
        ("not TOML", "[listen]", "[listen", &["kms.toml"]),
        ("an unknown backend", "kind = \"software\"", "kind = \"paper\"", &["paper"]),
        ("a shortest wait above the default", "wait_min = \"0s\"", "wait_min = \"8d\"", &["wait_min", "wait_default"]),
        ("a wait that is none", "wait_default = \"7d\"", "wait_default = \"soon\"", &["wait_default"]),
        ("a wait of more than a year", "wait_default = \"7d\"", "wait_default = \"366d\"", &["wait_default"]),
        ("too little memory for the PIN", "pin_memory_kib = 1024", "pin_memory_kib = 7", &["pin_memory_kib"]),
        ("an address that is none", "probes = \"127.0.0.1:0\"", "probes = \"localhost-ish\"", &["probes"]),
        ("a certificate that is not there", "\"server.pem\"", "\"missing.pem\"", &["missing.pem"]),
        ("a certificate that is none", "\"server.pem\"", "\"kms.toml\"", &["kms.toml"]),
        ("a key that is another certificate's", "\"server.key\"", "\"other.key\"", &["other.key"]),
    ];
    site.write_secret("other.key", &site.authority().server()?.key)?;
    for (what, from, to, words) in changes {
        site.write("kms.toml", &good)?;
        site.change_settings(from, to)?;
        refuses(&mut expected, what, words, &site.refused_serve().await?);
    }
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    site.write("kms.toml", &good)?;
    site.change_settings("services = \"127.0.0.1:0\"", &format!("services = \"{address}\""))?;
    refuses(&mut expected, "an address that is taken", &[&address], &site.refused_serve().await?);
    site.change_settings("operator = \"127.0.0.1:0\"", &format!("operator = \"{address}\""))?;
    refuses(&mut expected, "two listeners on one address", &["services", "operator"], &site.refused_serve().await?);
    fs::remove_file(site.path("kms.toml"))?;
    refuses(&mut expected, "no file of settings", &["kms.toml"], &site.refused_serve().await?);
    site.write("kms.toml", &good)?;

    let bindings = site.read("bindings.toml")?;
    site.bind(&Binding {
        id: "typo",
        roles: &["encryptor"],
        principals: &[&site.principal("app")],
        tenants: &["*"],
        keys: &["*"],
        indexes: &[],
    })?;
    refuses(&mut expected, "a role that does not exist", &["encryptor", "bindings.toml"], &site.refused_serve().await?);
    fs::remove_file(site.path("bindings.toml"))?;
    refuses(&mut expected, "no file of bindings", &["bindings.toml"], &site.refused_serve().await?);
    site.write("bindings.toml", &bindings)?;
    let served = site.start().await;
    expected.row(served.is_ok(), "the settings themselves", "success", &format!("{:?}", served.as_ref().err()));
    drop(served);
    expected.check();
    Ok(())
}
