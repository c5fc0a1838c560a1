//! Destroying a tenant is final, at once, under load: no success of it has a log index above its
//! FENCED record.

use anyhow::{Context, Result};
use kms_proto::v1::TenantState;
use kms_server::audit::{Outcome, Phase};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Caller, Refused};
use tonic::Code;

use crate::{ACME, ACME_KEY, GLOBEX_KEY, Load, World, refused};

const CLIENTS: usize = 16;

/// Decrypts a blob and checks what comes back.
async fn open(caller: Caller, key: &'static str, blob: Vec<u8>) -> Result<(), Refused> {
    let opened = caller.ask(decrypt(key, &blob, &[])).await?;
    assert_eq!(opened.plaintext, b"secret");
    Ok(())
}

#[tokio::test]
async fn no_success_of_a_destroyed_tenant_lies_above_its_fence() -> Result<()> {
    let world = World::new().await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    let others = world.app.ask(encrypt(GLOBEX_KEY, b"secret", &[])).await?.ciphertext;
    let callers = |count: usize| (0..count).map(|_| world.daemon.caller("app")).collect::<Result<Vec<Caller>>>();

    let for_acme = Load::start(callers(CLIENTS)?, {
        let blob = blob.clone();
        move |caller, _| open(caller, ACME_KEY, blob.clone())
    });
    let for_globex = Load::start(callers(4)?, move |caller, _| open(caller, GLOBEX_KEY, others.clone()));
    for_acme.more(20 * CLIENTS).await?;
    for_globex.more(20).await?;

    let destroyed = world.admin.ask(destroy_tenant(ACME, seconds(0))).await?.tenant.unwrap();
    assert_eq!((destroyed.state(), destroyed.fence_time.is_some()), (TenantState::Fenced, true));

    let ends = for_acme.ended().await?;
    assert_eq!(ends.len(), CLIENTS);
    for end in ends {
        refused(Code::FailedPrecondition, "TENANT_DESTROYED", end);
    }
    // The other tenant is served as before, during and after.
    for_globex.more(20).await?;
    let others: usize = for_globex.stop().await?.into_iter().sum::<Result<usize, Refused>>()?;

    let records = Records::read(world.daemon.site())?;
    let fenced = records.fenced("acme").context("there is no FENCED record")?;
    assert_eq!(fenced.leaf.res, Some(Outcome::Ok));
    assert!(
        fenced.leaf.tkc.as_ref().is_some_and(|tkc| tkc.len() == 64),
        "it names the commitment of the destroyed key"
    );
    assert_eq!(fenced.leaf.keys, Some(1));
    assert!(
        fenced.leaf.lease.is_some_and(|lease| lease > fenced.time),
        "it says until when clients may hold data keys"
    );
    let fence = fenced.index;
    let successes = |above: bool| {
        records.leaves.iter().filter(move |stored| {
            let leaf = &stored.leaf;
            let about = leaf.ten.as_deref() == Some("acme") && leaf.res == Some(Outcome::Ok);
            let statement = matches!(leaf.ph, Some(Phase::Purged | Phase::Unrecoverable));
            // GetTenant tells that it is gone; that is no use of it.
            about
                && !statement
                && leaf.op.as_deref() != Some("GetTenant")
                && if above { stored.index > fence } else { stored.index < fence }
        })
    };
    let (before, after) = (successes(false).count(), successes(true).count());
    let refusals =
        records.of("Decrypt", Outcome::Failed).filter(|stored| stored.leaf.ten.as_deref() == Some("acme")).count();
    println!(
        "{before} successes before the fence, {after} after, fence at index {fence}; {refusals} refusals; {others} successes of the other tenant"
    );
    assert_eq!(after, 0);
    assert!(before >= 20 * CLIENTS && refusals >= CLIENTS);

    // It stays so, whatever happens to the daemon.
    let mut world = world.crash().await?;
    for _ in 0..2 {
        refused(Code::FailedPrecondition, "TENANT_DESTROYED", world.app.ask(decrypt(ACME_KEY, &blob, &[])).await);
        assert_eq!(world.admin.ask(get_tenant(ACME)).await?.tenant.unwrap().state(), TenantState::Fenced);
        refused(Code::FailedPrecondition, "NAME_WAS_DESTROYED", world.admin.ask(create_tenant("acme")).await);
        world = world.restart().await?;
    }
    world.finish().await
}

#[tokio::test]
async fn a_destroyed_version_opens_nothing_above_its_record_under_load() -> Result<()> {
    let world = World::new().await?;
    let version_1 = "tenants/acme/keys/app/versions/1";
    let first = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    let second = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    let callers = |count: usize| (0..count).map(|_| world.daemon.caller("app")).collect::<Result<Vec<Caller>>>();
    let under_first = Load::start(callers(8)?, move |caller, _| open(caller, ACME_KEY, first.clone()));
    let under_second = Load::start(callers(4)?, move |caller, _| open(caller, ACME_KEY, second.clone()));
    under_first.more(200).await?;
    world.admin.ask(schedule_key_destruction(version_1, seconds(0))).await?;
    for end in under_first.ended().await? {
        refused(Code::FailedPrecondition, "VERSION_DESTROYED", end);
    }
    under_second.more(20).await?;
    under_second.stop().await?.into_iter().sum::<Result<usize, Refused>>()?;

    let records = Records::read(world.daemon.site())?;
    let destroyed = records.of("DestroyKeyVersion", Outcome::Ok).next().context("its record")?;
    let after = records
        .of("Decrypt", Outcome::Ok)
        .filter(|stored| stored.leaf.kv == Some(1) && stored.index > destroyed.index)
        .count();
    let before = records.of("Decrypt", Outcome::Ok).filter(|stored| stored.leaf.kv == Some(1)).count() - after;
    println!("version 1: {before} successes before its destruction, {after} after, at index {}", destroyed.index);
    assert_eq!(after, 0);
    world.finish().await
}

#[tokio::test]
async fn tenants_that_are_destroyed_together_each_have_their_fence() -> Result<()> {
    let world = World::new().await?;
    let count = 8;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let (admin, app) = (world.daemon.caller("admin")?, world.daemon.caller("app")?);
        tasks.spawn(async move {
            let (id, name) = (format!("t{number}"), format!("tenants/t{number}"));
            let key = format!("{name}/keys/k");
            admin.ask(create_tenant(&id)).await?;
            admin.ask(create_key(&name, "k")).await?;
            app.ask(encrypt(&key, b"x", &[])).await?;
            // Twice at once: one of them is too late, and says so.
            let (once, again) = tokio::join!(
                admin.ask(destroy_tenant(&name, seconds(0))),
                admin.ask(destroy_tenant(&name, seconds(0)))
            );
            for end in [&once, &again] {
                if let Err(refused) = end {
                    assert!(refused.is("TENANT_DESTROYED") || refused.is("CONFLICT"), "{refused}");
                }
            }
            assert!(once.is_ok() != again.is_ok(), "exactly one destroys: {once:?} {again:?}");
            refused(Code::FailedPrecondition, "TENANT_DESTROYED", app.ask(encrypt(&key, b"x", &[])).await);
            Ok::<(), Refused>(())
        });
    }
    for end in kms_tests::patiently("the destructions", tasks.join_all()).await? {
        end?;
    }
    let records = Records::read(world.daemon.site())?;
    for number in 0..count {
        assert!(records.fenced(&format!("t{number}")).is_some(), "t{number} has no FENCED record");
    }
    world.finish().await
}
