//! What a power cut leaves in the store's own log, and what a hand on the disk does to it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kms_server::audit::Outcome;
use kms_tests::Site;
use kms_tests::records::Records;
use kms_tests::request::*;

use crate::{ACME_KEY, World};

/// Returns the store's log that is written to.
fn newest_log(site: &Site) -> Result<PathBuf> {
    let logs = std::fs::read_dir(site.path("data/store"))?.map(|entry| entry.map(|entry| entry.path()));
    let mut logs = logs.collect::<std::io::Result<Vec<_>>>()?;
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.into_iter().max().context("the store has a log")
}

#[tokio::test]
async fn a_log_that_a_power_cut_left_longer_than_it_was_written_loses_nothing() -> Result<()> {
    let world = World::new().await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    for _ in 0..3 {
        world.admin.ask(rotate_key(ACME_KEY)).await?;
    }
    let site = world.daemon.kill().await?;
    let log = newest_log(&site)?;
    let mut bytes = std::fs::read(&log)?;
    // The beginning of one more row, which nobody was told of, in a file made longer than that.
    bytes.extend_from_within(..50);
    bytes.extend_from_slice(&[0; 5000]);
    std::fs::write(&log, &bytes)?;

    let world = World::on(site.start().await?)?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext, b"kept");
    assert_eq!(world.admin.ask(get_key(ACME_KEY)).await?.key.context("a key")?.primary_version, 4);
    let records = Records::read(world.daemon.site())?;
    assert_eq!(records.of("StoreSalvaged", Outcome::Ok).count(), 1);
    let aside = world.daemon.site().path("data/store-logs.1");
    assert_eq!(std::fs::read(aside.join(log.file_name().context("a name")?))?, bytes, "it is kept as it was");
    world.finish().await
}

#[tokio::test]
async fn a_log_damaged_in_the_middle_refuses_the_start_and_keeps_what_was_there() -> Result<()> {
    let world = World::new().await?;
    for _ in 0..5 {
        world.admin.ask(rotate_key(ACME_KEY)).await?;
    }
    let site = world.daemon.kill().await?;
    let log = newest_log(&site)?;
    let mut bytes = std::fs::read(&log)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&log, &bytes)?;

    for _ in 0..2 {
        let refused = site.refused_serve().await?;
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains("the store lacks"), "{}", refused.stderr);
    }
    let aside = site.path("data/store-logs.1");
    assert_eq!(std::fs::read(aside.join(log.file_name().context("a name")?))?, bytes);
    Ok(())
}
