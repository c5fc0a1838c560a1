//! A data directory that cannot be used, or stops being usable: full, read-only, somebody else's, swapped.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use kms_tests::records::end_in_segment;
use kms_tests::request::*;
use kms_tests::{Caller, Refused, Settings, Site};

use crate::bad_surroundings::{initialised, refuses};
use crate::{ACME, ACME_KEY, Expected, Load, World};

const VOLUME_BYTES: u64 = 96 << 20;
/// What is left before the load: some segments of the log.
const ROOM_BYTES: u64 = 3 << 20;

async fn seal(caller: Caller, _: usize) -> Result<(), Refused> {
    caller.ask(encrypt(ACME_KEY, b"secret", &[("row", "7")])).await.map(drop)
}

#[tokio::test]
async fn a_disk_that_is_full_stops_the_answers_and_loses_nothing() -> Result<()> {
    let settings = Settings::default();
    let (site, is_volume) = match Site::on_volume(&settings, VOLUME_BYTES) {
        Ok(site) => (site, true),
        Err(why) => {
            println!("no volume here ({why:#}): a limit on the size of files stands for the full disk");
            // One segment for all: a new one would begin below the limit again.
            (Site::with(&Settings { segment_bytes: 64 << 20, ..settings })?, false)
        }
    };
    let world = World::at(site).await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    match world.daemon.site().volume() {
        Some(volume) => volume.fill(ROOM_BYTES)?,
        None => world.daemon.limit_file_bytes(end_in_segment(world.daemon.site())? + 500_000)?,
    }

    // Until it is full: what is used, and what is changed.
    let keys = Arc::new(Mutex::new(Vec::new()));
    let acknowledged = Arc::clone(&keys);
    let users = Load::start((0..8).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?, seal);
    let changes = Load::start(vec![world.daemon.caller("admin")?], move |admin: Caller, number| {
        let keys = Arc::clone(&acknowledged);
        async move {
            let made = admin.ask(create_key(ACME, &format!("k{number}"))).await?;
            keys.lock().unwrap().extend(made.key.map(|key| key.name));
            Ok(())
        }
    });
    let right = |refused: &Refused| {
        refused.reason.is_none() || refused.is("AUDIT_UNAVAILABLE") || refused.is("STORE_UNAVAILABLE")
    };
    let mut answered = 0;
    for end in users.ended().await?.into_iter().chain(changes.ended().await?) {
        let refused = end.expect_err("it went on although the disk was full");
        assert!(right(&refused), "{refused}");
        answered += 1;
    }
    assert_eq!(answered, 9);
    // Whoever comes now is told why.
    for refusal in [
        world.daemon.caller("app")?.ask(encrypt(ACME_KEY, b"x", &[])).await.err(),
        world.daemon.caller("app")?.ask(decrypt(ACME_KEY, &blob, &[])).await.err(),
        world.daemon.caller("admin")?.ask(create_key(ACME, "late")).await.err(),
    ] {
        let refused = refusal.expect("it answered although the disk was full");
        assert!(right(&refused), "{refused}");
    }
    assert_eq!(world.daemon.probe("/readyz").await?, 503, "it says that it is ready");
    assert_eq!(world.daemon.probe("/livez").await?, 200, "it says that it is dead, though it answers");
    let why = if is_volume { "No space left on device" } else { "File too large" };
    world.daemon.site().output().says(why).await?;

    world.daemon.terminate()?;
    let (code, site) = world.daemon.ended().await?;
    assert_eq!(code, Some(1), "it ended as if nothing had been: {}", site.output().tail());
    let mut expected = Expected::of("a full disk");
    if let Some(volume) = site.volume() {
        // What was half written is made whole at a start only where there is room: else it says so, and waits for it.
        volume.fill_up()?;
        let ended = site.refused_serve().await?;
        refuses(&mut expected, "a start on a full disk", &["no space left"], &ended);
        volume.empty()?;
    }
    let world = World::on(site.start().await?)?;
    let keys = std::mem::take(&mut *keys.lock().unwrap());
    println!("a full disk: {} changes were acknowledged before it", keys.len());
    for key in &keys {
        expected.works(key, world.admin.ask(get_key(key)).await);
    }
    let opened = world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext;
    expected.row(opened == b"kept", "what was sealed before", "its plaintext", "something else");
    expected.works("a change after it", world.admin.ask(create_key(ACME, "after")).await);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn a_file_system_that_is_read_only() -> Result<()> {
    let mut expected = Expected::of("a read-only file system");
    let site = match Site::on_volume(&Settings::default(), VOLUME_BYTES) {
        Ok(site) => site,
        Err(why) if !rustix::process::geteuid().is_root() => {
            println!("no volume here ({why:#}): modes stand for the read-only file system");
            Site::temporary()?
        }
        // Root may write what no mode allows, so that only a mount is read-only to it. What is left is what no right
        // can write to: a directory of the kernel's.
        Err(why) => {
            println!("no volume here ({why:#}): a directory of the kernel's stands for the read-only file system");
            let site = Site::temporary()?;
            site.change_settings("data_dir = \"data\"", "data_dir = \"/proc/kms\"")?;
            refuses(&mut expected, "init", &["/proc/kms", "cannot be used"], &site.try_init().await?);
            expected.check();
            return Ok(());
        }
    };
    let set_writable = |site: &Site, writable: bool| -> Result<()> {
        match site.volume() {
            Some(volume) => volume.set_writable(writable),
            None => {
                let mode = fs::Permissions::from_mode(if writable { 0o700 } else { 0o500 });
                Ok(fs::set_permissions(site.path("data"), mode)?)
            }
        }
    };
    let world = World::at(site).await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    let site = world.daemon.stop().await?;
    set_writable(&site, false)?;
    let ended = site.refused_serve().await?;
    let why = if site.volume().is_some() { "read-only file system" } else { "permission denied" };
    refuses(&mut expected, "serve", &["data", "cannot be used", why], &ended);
    set_writable(&site, true)?;
    let world = World::on(site.start().await?)?;
    let opened = world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext;
    expected.row(opened == b"kept", "serve when it can be written again", "what was sealed before", "something else");
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn a_data_directory_that_is_none_or_belongs_to_others() -> Result<()> {
    let mut expected = Expected::of("a data directory that is none or belongs to others");
    let site = initialised().await?;
    let good = site.read("kms.toml")?;
    for (what, dir, words) in [
        ("a file", "server.pem", &["server.pem", "no directory"][..]),
        ("below a file", "server.pem/data", &["server.pem/data", "cannot be used"]),
        ("nothing", "nowhere", &["nowhere", "holds no cluster"]),
        ("a loop of links", "loop", &["loop", "cannot be used"]),
    ] {
        drop(symlink("loop", site.path("loop")));
        site.write("kms.toml", &good)?;
        site.change_settings("data_dir = \"data\"", &format!("data_dir = \"{dir}\""))?;
        refuses(&mut expected, &format!("{what} as data directory"), words, &site.refused_serve().await?);
    }
    site.write("kms.toml", &good)?;
    for part in ["hsm", "seg", "store"] {
        fs::rename(site.path("data").join(part), site.path("elsewhere"))?;
        fs::write(site.path("data").join(part), "")?;
        let what = format!("a file where {part} should be");
        refuses(&mut expected, &what, &[part, "cannot be used"], &site.refused_serve().await?);
        fs::remove_file(site.path("data").join(part))?;
        fs::rename(site.path("elsewhere"), site.path("data").join(part))?;
    }
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(site.path("data"), fs::Permissions::from_mode(mode))?;
        let what = format!("a data directory of mode {mode:o}");
        refuses(&mut expected, &what, &["can be written by others", "chmod go-w"], &site.refused_serve().await?);
    }
    fs::set_permissions(site.path("data"), fs::Permissions::from_mode(0o700))?;
    if rustix::process::geteuid().is_root() {
        chown(site.path("data"), Some(65_534), None)?;
        let ended = site.refused_serve().await?;
        refuses(&mut expected, "another user's data directory", &["belongs to the user with id 65534"], &ended);
        chown(site.path("data"), Some(0), None)?;
    } else {
        site.change_settings("data_dir = \"data\"", "data_dir = \"/\"")?;
        let ended = site.refused_serve().await?;
        refuses(&mut expected, "another user's data directory", &["belongs to the user with id 0"], &ended);
        site.write("kms.toml", &good)?;
        fs::set_permissions(site.path("data"), fs::Permissions::from_mode(0o000))?;
        let ended = site.refused_serve().await?;
        refuses(&mut expected, "an unreadable data directory", &["cannot be used", "permission denied"], &ended);
        fs::set_permissions(site.path("data"), fs::Permissions::from_mode(0o700))?;
    }
    let served = site.start().await;
    expected.row(served.is_ok(), "the data directory itself", "success", &format!("{:?}", served.as_ref().err()));
    drop(served);
    expected.check();
    Ok(())
}

#[tokio::test]
async fn a_link_that_is_swapped_while_it_serves_leads_nowhere_else() -> Result<()> {
    let site = Site::with(&Settings { segment_bytes: 1 << 16, ..Settings::default() })?;
    for name in ["real", "other"] {
        fs::create_dir(site.path(name))?;
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o700))?;
    }
    symlink("real", site.path("data"))?;
    let world = World::at(site).await?;
    let lead_to = |site: &Site, name: &str| -> Result<()> {
        symlink(name, site.path("new-link"))?;
        Ok(fs::rename(site.path("new-link"), site.path("data"))?)
    };
    lead_to(world.daemon.site(), "other")?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    // More than a segment holds: new files are made after the swap.
    let load = Load::start((0..4).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?, seal);
    load.more(1_000).await?;
    for end in load.stop().await? {
        end?;
    }
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    let site = world.daemon.stop().await?;
    let strays = fs::read_dir(site.path("other"))?.count();
    ensure!(strays == 0, "{strays} files were made where the link leads now");
    let mut expected = Expected::of("a link that is swapped");
    refuses(&mut expected, "a start where it leads now", &["holds no cluster"], &site.refused_serve().await?);
    lead_to(&site, "real")?;
    let world = World::on(site.start().await?)?;
    let opened = world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?;
    expected.row(opened.plaintext == b"kept" && opened.stale, "a start where it led", "all that was done", "less");
    expected.check();
    world.finish().await
}
