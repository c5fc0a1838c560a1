//! A daemon that is locked: by an operator, and by itself when its master key is refused.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use kms_proto::v1::{GetStatusRequest, LockRequest, UnlockRequest};
use kms_server::audit::{Leaf, Outcome};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Site, patiently};
use tonic::Code;

use crate::{ACME_KEY, World, refused};

const LOCK: LockRequest = LockRequest { validate_only: false };
const UNLOCK: UnlockRequest = UnlockRequest { validate_only: false };

/// Asks again and again; each question is a call, so that it takes its time.
async fn until(what: &str, holds: impl AsyncFn() -> bool) -> Result<()> {
    patiently(what, async { while !holds().await {} }).await
}

async fn is_locked(world: &World) -> Result<()> {
    let what = "the daemon to be locked";
    until(what, async || world.daemon.metric("kms_locked").await.is_ok_and(|locked| locked == 1.0)).await
}

fn orders(site: &Site) -> Result<Vec<Leaf>> {
    let all = Records::read(site)?.leaves;
    let ours = all.into_iter().map(|stored| stored.leaf);
    Ok(ours.filter(|leaf| matches!(leaf.op.as_deref(), Some("Lock" | "Unlock"))).collect())
}

fn slots_in_use(status: &kms_proto::v1::GetStatusResponse) -> u64 {
    status.memory.as_ref().map_or(0, |memory| memory.slots_used)
}

#[tokio::test]
async fn an_operator_locks_and_unlocks() -> Result<()> {
    let world = World::new().await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"before", &[])).await?.ciphertext;
    ensure!(slots_in_use(&world.admin.ask(GetStatusRequest {}).await?) > 0);

    // Who may, and what only asks.
    refused(Code::PermissionDenied, "POLICY_DENIED", world.app.ask(LOCK).await);
    world.admin.ask(LockRequest { validate_only: true }).await?;
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    // Nothing happens to a node that serves.
    world.admin.ask(UNLOCK).await?;

    world.admin.ask(LOCK).await?;
    is_locked(&world).await?;
    let calls = 20;
    for _ in 0..calls {
        refused(Code::Unavailable, "LOCKED", world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await);
    }
    refused(Code::Unavailable, "LOCKED", world.admin.ask(GetStatusRequest {}).await);
    let (code, answer) = world.daemon.get("/readyz").await?;
    ensure!(code == 503 && answer.ends_with("locked\n"), "{answer}");
    ensure!(world.daemon.probe("/livez").await? == 200);
    // Locked is locked: no error, and still only for who may.
    world.admin.ask(LOCK).await?;
    refused(Code::PermissionDenied, "POLICY_DENIED", world.app.ask(UNLOCK).await);
    world.admin.ask(UnlockRequest { validate_only: true }).await?;
    refused(Code::Unavailable, "LOCKED", world.app.ask(encrypt(ACME_KEY, b"x", &[])).await);

    world.admin.ask(UNLOCK).await?;
    let opened = patiently_opened(&world, &sealed).await?;
    ensure!(opened == b"before");
    ensure!(world.daemon.metric("kms_locked").await? == 0.0 && world.daemon.probe("/readyz").await? == 200);

    let admin = world.daemon.site().principal("admin");
    let site = world.daemon.stop().await?;
    let orders = orders(&site)?;
    let told: Vec<_> = orders.iter().map(|leaf| (leaf.op.as_deref(), leaf.res, leaf.why.as_deref())).collect();
    let (ok, denied) = (Some(Outcome::Ok), Some(Outcome::Denied));
    ensure!(
        told == [
            (Some("Lock"), denied, Some("POLICY_DENIED")),
            (Some("Lock"), ok, Some("VALIDATED")),
            (Some("Unlock"), ok, Some("NOT_LOCKED")),
            (Some("Lock"), ok, Some("OPERATOR")),
            (Some("Lock"), ok, Some("OPERATOR")),
            (Some("Unlock"), ok, Some("VALIDATED")),
            (Some("Unlock"), ok, Some("OPERATOR")),
        ],
        "{told:?}"
    );
    let last = orders.last().context("an unlock")?;
    ensure!(last.sub.as_deref() == Some(admin.as_str()) && last.fail == Some(1), "{last:?}");
    ensure!(last.cnt.is_some_and(|cnt| cnt >= calls + 2), "{last:?}");
    println!(
        "locked by an operator: calls refused {}, of them not allowed {}, records of orders 7/7",
        last.cnt.unwrap_or(0),
        last.fail.unwrap_or(0)
    );
    crate::world::check(&site)
}

/// The connections ended with the lock: the first call may find that out.
async fn patiently_opened(world: &World, sealed: &[u8]) -> Result<Vec<u8>> {
    until("the node to serve again", async || world.daemon.probe("/readyz").await.is_ok_and(|code| code == 200))
        .await?;
    Ok(world.app.ask(decrypt(ACME_KEY, sealed, &[])).await?.plaintext)
}

#[tokio::test]
async fn a_lock_by_an_operator_outlives_the_process() -> Result<()> {
    let world = World::new().await?;
    world.admin.ask(LOCK).await?;
    is_locked(&world).await?;
    // Killed and restarted by a service manager, and stopped and started by hand.
    let daemon = world.daemon.kill().await?.start().await?;
    ensure!(daemon.metric("kms_locked").await? == 1.0);
    let daemon = daemon.stop().await?.start().await?;
    ensure!(daemon.metric("kms_locked").await? == 1.0);
    let (admin, app) = (daemon.caller("admin")?, daemon.caller("app")?);
    refused(Code::Unavailable, "LOCKED", app.ask(encrypt(ACME_KEY, b"x", &[])).await);
    // Without its backend it stays so, and does not end.
    let hsm = daemon.site().path("data/hsm");
    let aside = daemon.site().path("aside");
    fs::rename(&hsm, &aside)?;
    refused(Code::Unavailable, "LOCKED", admin.ask(UNLOCK).await);
    fs::rename(&aside, &hsm)?;
    admin.ask(UNLOCK).await?;
    until("the node to serve again", async || daemon.probe("/readyz").await.is_ok_and(|code| code == 200)).await?;
    app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    // And from now on a restart serves.
    let daemon = daemon.restart().await?;
    ensure!(daemon.metric("kms_locked").await? == 0.0);
    let site = daemon.stop().await?;
    crate::world::check(&site)
}

/// A site whose daemon tries its master key every second, and locks itself soon.
async fn watchful() -> Result<World> {
    let site = Site::temporary()?;
    site.change_settings("[backend]\n", "[backend]\nprobe_every = \"1s\"\nlock_after = \"2s\"\n")?;
    World::at(site).await
}

fn keystore_file(site: &Site) -> Result<std::path::PathBuf> {
    let mut files = fs::read_dir(site.path("data/hsm"))?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    files.find(|path| path.extension().is_some_and(|extension| extension == "kms1hsm")).context("a keystore file")
}

#[tokio::test]
async fn a_refused_master_key_locks_the_daemon_until_it_is_given_again() -> Result<()> {
    let world = watchful().await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"before", &[])).await?.ciphertext;
    let file = keystore_file(world.daemon.site())?;
    let disabled = file.with_extension("kms1hsm.disabled");
    fs::write(&disabled, "")?;
    let mut served = 0_u32;
    let refusal = loop {
        match world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await {
            Ok(_) => served += 1,
            Err(refusal) => break refusal,
        }
    };
    ensure!(served > 0, "it serves until it locks itself");
    is_locked(&world).await?;
    refused(Code::Unavailable, "LOCKED", world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await);
    refused(Code::Unavailable, "LOCKED", world.admin.ask(UNLOCK).await);
    println!("refused master key: calls served until the lock {served}, then {refusal:?}");
    fs::remove_file(&disabled)?;
    ensure!(patiently_opened(&world, &sealed).await? == b"before");
    let site = world.daemon.stop().await?;
    let orders = orders(&site)?;
    let whys: Vec<_> =
        orders.iter().map(|leaf| (leaf.op.as_deref(), leaf.why.as_deref(), leaf.sub.as_deref())).collect();
    let service = Some("kms-server");
    ensure!(
        whys == [(Some("Lock"), Some("BACKEND_REFUSED"), service), (Some("Unlock"), Some("BACKEND_ANSWERED"), service)],
        "{whys:?}"
    );
    crate::world::check(&site)
}

#[tokio::test]
async fn an_unreachable_master_key_locks_nothing() -> Result<()> {
    let world = watchful().await?;
    let (hsm, aside) = (world.daemon.site().path("data/hsm"), world.daemon.site().path("aside"));
    fs::rename(&hsm, &aside)?;
    let failing = async || world.daemon.metric("kms_backend_up").await.is_ok_and(|up| up == 0.0);
    until("a probe to fail", failing).await?;
    let status = world.admin.ask(GetStatusRequest {}).await?;
    let backend = status.backend.context("a backend")?;
    ensure!(!backend.reachable && backend.kind == "software", "{backend:?}");
    ensure!(status.warnings[0].contains("a restart would fail"), "{:?}", status.warnings);
    for _ in 0..100 {
        world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    }
    let probes = world.daemon.metric("kms_backend_probes_total{outcome=\"unavailable\"}").await?;
    let more = async || {
        let now = world.daemon.metric("kms_backend_probes_total{outcome=\"unavailable\"}").await;
        now.is_ok_and(|now| now >= probes + 4.0)
    };
    until("four more probes", more).await?;
    ensure!(world.daemon.metric("kms_locked").await? == 0.0);
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    fs::rename(&aside, &hsm)?;
    let works = async || world.daemon.metric("kms_backend_up").await.is_ok_and(|up| up == 1.0);
    until("a probe to work", works).await?;
    let status = world.admin.ask(GetStatusRequest {}).await?;
    ensure!(status.backend.is_some_and(|backend| backend.reachable) && status.warnings.is_empty());
    world.daemon.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_outage_longer_than_its_grace_locks() -> Result<()> {
    let site = Site::temporary()?;
    site.change_settings("[backend]\n", "[backend]\nprobe_every = \"1s\"\noffline_grace = \"2s\"\n")?;
    let world = World::at(site).await?;
    let (hsm, aside) = (world.daemon.site().path("data/hsm"), world.daemon.site().path("aside"));
    fs::rename(&hsm, &aside)?;
    is_locked(&world).await?;
    // What is locked by itself an operator locks for good.
    world.admin.ask(LOCK).await?;
    fs::rename(&aside, &hsm)?;
    let output = world.daemon.site().output().text();
    ensure!(output.contains("BACKEND_OFFLINE"), "the log says why");
    world.admin.ask(UNLOCK).await?;
    until("the node to serve again", async || world.daemon.probe("/readyz").await.is_ok_and(|code| code == 200))
        .await?;
    let site = world.daemon.stop().await?;
    let whys: Vec<_> = orders(&site)?.into_iter().filter_map(|leaf| leaf.why).collect();
    ensure!(whys == ["BACKEND_OFFLINE", "OPERATOR", "OPERATOR"], "{whys:?}");
    Ok(())
}
