//! A daemon that is told to stop finishes what it began, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Caller, Refused};

use crate::{ACME, ACME_KEY, Load, World};

#[tokio::test]
async fn a_stop_under_load_loses_no_record_and_ends_well() -> Result<()> {
    let world = World::new().await?;
    let load = Load::start(
        (0..8).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?,
        |caller: Caller, _| async move { caller.ask(encrypt(ACME_KEY, b"secret", &[])).await.map(drop) },
    );
    // One that changes things all the while: a change that was answered must be there afterwards.
    let rotations = Arc::new(AtomicUsize::new(0));
    let rotating = Load::start(vec![world.daemon.caller("admin")?], {
        let rotations = Arc::clone(&rotations);
        move |caller: Caller, _| {
            let rotations = Arc::clone(&rotations);
            async move {
                caller.ask(rotate_key(ACME_KEY)).await?;
                rotations.fetch_add(1, Ordering::Relaxed);
                Ok::<(), Refused>(())
            }
        }
    });
    load.more(400).await?;
    rotating.more(5).await?;
    world.daemon.terminate()?;
    for end in load.ended().await?.into_iter().chain(rotating.ended().await?) {
        let refused = end.expect_err("it went on serving");
        assert!(refused.reason.is_none() || refused.is("SHUTTING_DOWN"), "{refused}");
    }
    let (code, site) = world.daemon.ended().await?;
    assert_eq!(code, Some(0), "{}", site.output().tail());

    let held = Records::read(&site)?.hold(site.ledger());
    println!(
        "stopped under load: replies {}, with a record {}, without {}",
        held.replies,
        held.with_record,
        held.without.len()
    );
    assert!(held.without.is_empty(), "{:?}", held.without);

    let world = World::on(site.start().await?)?;
    let primary = world.admin.ask(get_key(ACME_KEY)).await?.key.unwrap().primary_version as usize;
    let acknowledged = 1 + rotations.load(Ordering::Relaxed);
    // The last one may have been carried out without its reply getting through.
    assert!(
        (acknowledged..=acknowledged + 1).contains(&primary),
        "version {primary} after {acknowledged} that were acknowledged"
    );
    world.finish().await
}

#[tokio::test]
async fn a_crash_under_load_loses_nothing_that_was_acknowledged() -> Result<()> {
    let mut world = World::new().await?;
    for round in 0..5 {
        let created = Arc::new(AtomicUsize::new(0));
        let load = Load::start(vec![world.daemon.caller("admin")?], {
            let created = Arc::clone(&created);
            move |caller: Caller, number| {
                let created = Arc::clone(&created);
                async move {
                    caller.ask(create_key(ACME, &format!("r{round}-{number}"))).await?;
                    created.fetch_add(1, Ordering::Relaxed);
                    Ok::<(), Refused>(())
                }
            }
        });
        let sealing = Load::start(
            (0..4).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?,
            |caller: Caller, _| async move { caller.ask(encrypt(ACME_KEY, b"secret", &[])).await.map(drop) },
        );
        sealing.more(50).await?;
        load.more(3).await?;
        world = world.crash().await?;
        drop((load.ended().await?, sealing.ended().await?));
        for number in 0..created.load(Ordering::Relaxed) {
            let key = world.admin.ask(get_key(&format!("{ACME}/keys/r{round}-{number}"))).await;
            assert!(key.is_ok(), "round {round}: key {number} was acknowledged and is gone: {key:?}");
        }
    }
    world.finish().await
}

#[tokio::test]
async fn an_idle_daemon_stops_at_once_and_an_idle_connection_does_not_hold_it() -> Result<()> {
    let world = World::new().await?;
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    let began = tokio::time::Instant::now();
    // Both callers are still connected.
    let site = world.daemon.stop().await?;
    let took = began.elapsed();
    println!("stopped in {} ms", took.as_millis());
    assert!(took.as_secs() < 15, "it took {took:?}");
    crate::world::check(&site)
}
