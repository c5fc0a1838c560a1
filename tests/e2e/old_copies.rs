//! Old copies, and copies of another cluster, put in the place of what a stopped daemon left: each is refused with what
//! was found, what was expected, and what to do; nothing is changed, and the right part put back serves as before.

use std::path::Path;

use anyhow::{Context, Result};
use kms_proto::v1::TenantState;
use kms_tests::damage::contents;
use kms_tests::request::*;
use kms_tests::{Ended, Site};
use tempfile::TempDir;

use crate::{ACME, ACME_KEY, Expected, World};

/// Copies of the parts of a stopped site.
struct Copy(TempDir);

impl Copy {
    fn of(site: &Site) -> Result<Self> {
        let copy = Self(tempfile::tempdir()?);
        for part in ["store", "seg", "hsm"] {
            fill(&site.path("data").join(part), &copy.0.path().join(part))?;
        }
        std::fs::copy(site.path("data/pin"), copy.0.path().join("pin"))?;
        Ok(copy)
    }

    /// Puts a part into the place of what a site has.
    fn put(&self, part: &str, site: &Site) -> Result<()> {
        let to = site.path("data").join(part);
        if part == "pin" {
            std::fs::copy(self.0.path().join(part), to)?;
            return Ok(());
        }
        std::fs::remove_dir_all(&to)?;
        fill(&self.0.path().join(part), &to)
    }
}

fn fill(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let files = contents(from)?;
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700))?;
    for (file, bytes) in files {
        let to = to.join(file);
        std::fs::write(&to, bytes)?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Expects a refusal with all of these words, in any case, that leaves log, store and keystore as they were.
async fn refuses(expected: &mut Expected, what: &str, words: &[&str], site: &Site) -> Result<()> {
    let of_part = |part: &str| contents(&site.path("data").join(part));
    let before = [of_part("seg")?, of_part("hsm")?];
    let Ended { code, stderr, .. } = site.refused_serve().await?;
    let said = stderr.to_lowercase();
    let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(&word.to_lowercase())).collect();
    let right = !matches!(code, None | Some(0)) && missing.is_empty() && !said.contains("panicked");
    let told = said.lines().filter(|line| line.contains("error") || line.contains("because")).collect::<Vec<_>>();
    println!("{what}: {}", told.join(" / "));
    expected.row(
        right,
        what,
        &format!("a refusal with {words:?}"),
        &format!("{code:?}, without {missing:?}: {stderr}"),
    );
    let after = [of_part("seg")?, of_part("hsm")?];
    expected.row(before == after, what, "nothing changed", "changed files");
    Ok(())
}

#[tokio::test]
async fn a_part_that_is_older_than_the_others_or_of_another_cluster() -> Result<()> {
    let mut expected = Expected::of("parts that do not belong together");
    let world = World::new().await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    let site = world.daemon.stop().await?;
    let old = Copy::of(&site)?;
    let world = World::on(site.start().await?)?;
    world.admin.ask(destroy_tenant("tenants/globex", seconds(0))).await?;
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    let site = world.daemon.stop().await?;
    let new = Copy::of(&site)?;
    let other = Copy::of(&World::new().await?.daemon.stop().await?)?;

    old.put("store", &site)?;
    refuses(&mut expected, "a store older than its log", &["lacks 2 acknowledged changes", "put back"], &site).await?;
    new.put("store", &site)?;

    old.put("seg", &site)?;
    refuses(&mut expected, "a log older than its store", &["log is older than this store", "put back"], &site).await?;
    other.put("seg", &site)?;
    refuses(&mut expected, "the log of another cluster", &["another log", "origin", "put this cluster's"], &site)
        .await?;
    new.put("seg", &site)?;

    other.put("store", &site)?;
    refuses(&mut expected, "the store of another cluster", &["of cluster", "belong together"], &site).await?;
    // One that is whole, and holds nothing: nobody is told to remove the rest.
    std::fs::remove_dir_all(site.path("data/store"))?;
    let empty = kms_server::store::rocks::RocksStore::create(&site.path("data/store"), &Default::default())?;
    kms_server::store::Store::close(&empty).await?;
    refuses(&mut expected, "an empty store", &["lacks its first rows", "in use", "put back"], &site).await?;
    other.put("store", &site)?;
    // With its own keystore it opens, and is not this log's.
    other.put("hsm", &site)?;
    other.put("pin", &site)?;
    refuses(&mut expected, "store and keystore of another cluster", &["another log", "put this cluster's"], &site)
        .await?;
    new.put("store", &site)?;
    refuses(&mut expected, "the keystore of another cluster", &["of cluster", "belong together"], &site).await?;
    new.put("hsm", &site)?;
    new.put("pin", &site)?;

    // Store and log of one time, both old, are a cluster: only a copy of the log elsewhere could tell.
    let world = World::on(site.start().await.context("with all its own parts")?)?;
    let opened = world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?;
    expected.row(
        opened.plaintext == b"kept" && opened.stale,
        "all parts put back",
        "it serves",
        &format!("{opened:?}"),
    );
    let globex = world.admin.ask(get_tenant("tenants/globex")).await?.tenant.unwrap_or_default();
    expected.row(globex.state() == TenantState::Fenced, "what was destroyed", "destroyed", &format!("{globex:?}"));
    world.admin.ask(get_tenant(ACME)).await?;
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn a_store_copied_before_mere_uses_of_keys_serves() -> Result<()> {
    // Nothing was changed since: the log tells of all that was done, and the store lacks nothing.
    let world = World::new().await?;
    let site = world.daemon.stop().await?;
    let old = Copy::of(&site)?;
    let world = World::on(site.start().await?)?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    let site = world.daemon.stop().await?;
    old.put("store", &site)?;
    let world = World::on(site.start().await?)?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext, b"kept");
    world.finish().await
}

#[tokio::test]
async fn damage_of_the_older_part_of_the_log_is_told_while_it_serves() -> Result<()> {
    let settings = kms_tests::Settings { segment_bytes: 1 << 16, ..kms_tests::Settings::default() };
    let world = World::with(&settings).await?;
    let segments = || -> Result<usize> { Ok(world.daemon.site().log_dir().read_dir()?.count()) };
    while segments()? < 4 {
        world.app.ask(encrypt(ACME_KEY, b"more", &[])).await?;
    }
    let site = world.daemon.stop().await?;
    let daemon = site.start().await?;
    daemon.site().output().says("the older part of the audit log is whole").await?;
    let site = daemon.stop().await?;
    let first = site.log_dir().join(format!("{:020}", 0));
    let mut bytes = std::fs::read(&first)?;
    bytes[5000] ^= 1;
    std::fs::write(&first, &bytes)?;
    let daemon = site.start().await?;
    daemon.site().output().says("the older part of the audit log is damaged").await?;
    let world = World::on(daemon)?;
    world.app.ask(encrypt(ACME_KEY, b"more", &[])).await?;
    let (_, metrics) = world.daemon.get("/metrics").await?;
    assert!(metrics.contains("kms_audit_damage_total 1"), "{metrics}");
    world.daemon.stop().await?;
    Ok(())
}
