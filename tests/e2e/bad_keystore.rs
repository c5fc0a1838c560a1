//! The master key's file and its PIN: what is not right is refused with its reason, and never opens another key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kms_tests::Site;
use kms_tests::request::*;

use crate::bad_surroundings::{initialised, refuses};
use crate::{ACME_KEY, Expected, World};

#[tokio::test]
async fn a_pin_that_does_not_fit() -> Result<()> {
    let mut expected = Expected::of("a PIN that does not fit");
    let site = initialised().await?;
    let pin = site.read("data/pin")?;
    let mode = fs::metadata(site.path("data/pin"))?.permissions().mode() & 0o777;
    expected.row(mode == 0o600, "the file that init makes", "mode 600", &format!("{mode:o}"));

    site.write_secret("data/pin", "0000-0000-0000-0000\n")?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "a wrong PIN", &["pin"], &ended);
    site.write_secret("data/pin", "")?;
    refuses(&mut expected, "an empty PIN", &["pin"], &site.refused_serve().await?);
    site.write_secret("data/pin", &pin)?;
    for mode in [0o644, 0o640, 0o604, 0o660] {
        fs::set_permissions(site.path("data/pin"), fs::Permissions::from_mode(mode))?;
        let ended = site.refused_serve().await?;
        refuses(&mut expected, &format!("a PIN file of mode {mode:o}"), &["pin", "600"], &ended);
        expected.row(!ended.stderr.contains(pin.trim()), "its message", "not the PIN", "the PIN");
    }
    fs::remove_file(site.path("data/pin"))?;
    refuses(&mut expected, "no PIN file", &["pin"], &site.refused_serve().await?);
    site.write_secret("data/pin", &pin)?;
    let served = site.start().await;
    expected.row(served.is_ok(), "the PIN itself", "success", &format!("{:?}", served.as_ref().err()));
    drop(served);
    expected.check();
    Ok(())
}

#[tokio::test]
async fn a_pin_that_is_wrong_again_and_again_is_delayed_and_never_shuts_out() -> Result<()> {
    let mut expected = Expected::of("a PIN that is wrong again and again");
    let site = initialised().await?;
    let pin = site.read("data/pin")?;
    let count = site.path("data/hsm/wrong-pin");
    site.write_secret("data/pin", "0000-0000-0000-0000\n")?;
    for (number, words) in [
        (1, &["1 try in a row", "not a lock", "0.5 s"][..]),
        (2, &["2 tries in a row", "this try waits", "next try waits 1 s"]),
        (3, &["3 tries in a row", "this try waits", "next try waits 2 s"]),
    ] {
        // Each in a process of its own: what is counted is kept.
        refuses(&mut expected, &format!("wrong PIN, start {number}"), words, &site.refused_serve().await?);
    }
    let mode = fs::metadata(&count)?.permissions().mode() & 0o777;
    expected.row(mode == 0o600, "the count", "mode 600", &format!("{mode:o}"));

    for (what, content) in [("damaged", Some("\0\0\0")), ("deleted", None)] {
        fs::remove_file(&count)?;
        if let Some(content) = content {
            fs::write(&count, content)?;
        }
        refuses(&mut expected, &format!("wrong PIN, count {what}"), &["1 try in a row"], &site.refused_serve().await?);
    }
    site.write_secret("data/pin", &pin)?;
    let daemon = site.start().await.context("the right PIN")?;
    expected.row(!count.exists(), "the right PIN", "no count any more", "a count");
    daemon.stop().await?;
    expected.check();
    Ok(())
}

/// Returns the only keystore file of a site.
fn keystore(site: &Site) -> Result<PathBuf> {
    let files = fs::read_dir(site.path("data/hsm"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.into_iter().find(|path| path.extension().is_some_and(|end| end == "kms1hsm")).context("there is one")
}

#[tokio::test]
async fn a_keystore_file_that_is_not_as_it_was_made() -> Result<()> {
    let mut expected = Expected::of("a keystore file that is not as it was made");
    let world = World::new().await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    let site = world.daemon.stop().await?;
    let file = keystore(&site)?;
    let whole = fs::read(&file)?;
    let put = |bytes: &[u8]| -> Result<()> {
        // What was counted by the row before would delay this one.
        drop(fs::remove_file(site.path("data/hsm/wrong-pin")));
        Ok(fs::write(&file, bytes)?)
    };

    // A byte of each of its parts; `crypto::keystore_file` flips every bit.
    let parts = [
        (0, "magic", "no keystore file"),
        (7, "format", "format"),
        (8, "master id", "another master key"),
        (26, "version", "its numbers are none"),
        (27, "memory", "1 GiB"),
        (34, "passes", "PIN is wrong"),
        (35, "lanes", "16 lanes"),
        (39, "salt", "PIN is wrong"),
        (58, "serial", "PIN is wrong"),
        (59, "header", "PIN is wrong"),
        (83, "blob salt", "PIN is wrong"),
        (95, "IV", "PIN is wrong"),
        (107, "commitment", "PIN is wrong"),
        (139, "key", "PIN is wrong"),
        (186, "tag", "PIN is wrong"),
    ];
    for (at, part, word) in parts {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x01;
        put(&flipped)?;
        let what = format!("byte {at} ({part}) flipped");
        refuses(&mut expected, &what, &["keystore", word], &site.refused_serve().await?);
    }
    for (what, bytes, words) in [
        ("cut", &whole[..100], &["100 bytes", "187"][..]),
        ("empty", &[], &["no keystore file"]),
        ("of a newer format", &[&whole[..7], &[2], &whole[8..]].concat(), &["format 2", "release"]),
    ] {
        put(bytes)?;
        refuses(&mut expected, &format!("a keystore file that is {what}"), words, &site.refused_serve().await?);
    }
    put(&whole)?;
    for mode in [0o644, 0o640, 0o660] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        let what = format!("a keystore file of mode {mode:o}");
        refuses(&mut expected, &what, &["kms1hsm", "has mode", "chmod 0600"], &site.refused_serve().await?);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    fs::rename(&file, site.path("elsewhere"))?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "no keystore file", &["hsm", "put hsm back"], &ended);
    // A count alone is no keystore.
    fs::write(site.path("data/hsm/wrong-pin"), "kms1-wrong-pin 1 1\n")?;
    let ended = site.refused_serve().await?;
    refuses(&mut expected, "no keystore file beside a count", &["holds no master key", "restore"], &ended);
    fs::remove_file(site.path("data/hsm/wrong-pin"))?;
    fs::rename(site.path("elsewhere"), &file)?;

    let world = World::on(site.start().await?)?;
    let opened = world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext;
    expected.row(opened == b"kept", "the file as it was", "what was sealed before", "something else");
    expected.check();
    world.finish().await
}
