//! How often and how much at once: rates with a time to come back, and a log that refusals cannot fill.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use kms_server::audit::Outcome;
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Rpc as _, Site};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{ACME, ACME_KEY, GLOBEX_KEY, World, refused};

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_others_are_not_held_up() -> Result<()> {
    let site = Site::temporary()?;
    let settings = site.read("kms.toml")?;
    site.write("kms.toml", &format!("{settings}\n[limits]\nrate_per_principal = 20\nrate_per_tenant = 40\n"))?;
    let world = World::at(site).await?;
    // A batch that no wait would let in.
    refused(
        Code::InvalidArgument,
        "FIELD_INVALID",
        world.app.ask(batch_encrypt(GLOBEX_KEY, &[&b"x"[..]; 10_000], &[])).await,
    );
    let call = || encrypt(ACME_KEY, b"x", &[]).send(world.app.channel(kms_tests::Listener::Services));
    let answers = join_all((0..100).map(|_| call())).await;
    let limited: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    ensure!(limited.len() >= 60, "{}", limited.len());
    for status in &limited {
        let reason = status.get_details_error_info().map(|info| info.reason);
        let wait = status.get_details_retry_info().and_then(|info| info.retry_delay).context("when to come back")?;
        ensure!(status.code() == Code::ResourceExhausted && reason.as_deref() == Some("RATE_LIMITED"), "{status:?}");
        ensure!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    }
    // Of the tenant's rate another caller has its part.
    world.admin.ask(get_tenant(ACME)).await?;
    ensure!(world.daemon.metric("kms_rate_limited_total{of=\"principal\"}").await? >= 60.0);
    println!("rates: of 100 at once with 20 a second refused {}, each with a time to come back", limited.len());
    world.finish().await
}

#[tokio::test]
async fn whoever_is_refused_again_and_again_does_not_fill_the_log() -> Result<()> {
    const REFUSALS: usize = 3_000;
    let world = World::new().await?;
    let stranger = world.daemon.caller("stranger")?;
    for _ in 0..REFUSALS / 100 {
        for got in join_all((0..100).map(|_| stranger.ask(decrypt(ACME_KEY, b"x", &[])))).await {
            refused(Code::PermissionDenied, "POLICY_DENIED", got);
        }
    }
    let principal = world.daemon.site().principal("stranger");
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let of_stranger = |op: &'static str| {
        let of = records.of(op, Outcome::Denied).filter(|one| one.leaf.sub.as_deref() == Some(&*principal));
        of.collect::<Vec<_>>()
    };
    let singly = of_stranger("Decrypt").len();
    let sums = of_stranger("Refusals");
    let summed: u64 = sums.iter().filter_map(|one| one.leaf.cnt).sum();
    ensure!(singly + usize::try_from(summed)? == REFUSALS, "{singly} singly and {summed} in sums");
    ensure!(summed > 0 && sums.iter().all(|one| one.leaf.from <= one.leaf.to), "{sums:?}");
    println!("refusals: {REFUSALS}, recorded singly {singly}, in {} sums {summed}", sums.len());
    crate::world::check(&site)
}
