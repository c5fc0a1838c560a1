//! Every reply has its record, and nothing has one that did not happen.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use kms_proto::v1::{GetCallerIdentityRequest, GetStatusRequest};
use kms_server::audit::{Outcome, Phase};
use kms_tests::records::{self, Records};
use kms_tests::request::*;
use kms_tests::{Caller, Refused};

use crate::{ACME, ACME_KEY, GLOBEX_KEY, Load, World};

/// One of several calls in turn, some of which are refused.
async fn mixed(caller: Caller, number: usize) -> Result<(), Refused> {
    let context: &[(&str, &str)] = &[("row", "7")];
    match number % 4 {
        0 => drop(caller.ask(encrypt(ACME_KEY, b"secret", context)).await?),
        1 => {
            let blob = caller.ask(encrypt(GLOBEX_KEY, b"secret", context)).await?.ciphertext;
            caller.ask(decrypt(GLOBEX_KEY, &blob, context)).await?;
            assert!(
                caller.ask(decrypt(GLOBEX_KEY, &blob, &[])).await.is_err_and(|refused| refused.is("DECRYPT_FAILED"))
            );
        }
        2 => drop(caller.ask(generate_data_key(ACME_KEY, context)).await?),
        _ => {
            let denied = caller.ask(rotate_key(ACME_KEY)).await;
            assert!(denied.is_err_and(|refused| refused.is("POLICY_DENIED")));
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_reply_has_its_record_and_every_record_its_reply() -> Result<()> {
    let world = World::new().await?;
    let load = Load::start((0..16).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?, mixed);
    load.more(800).await?;
    for _ in 0..5 {
        world.admin.ask(rotate_key(ACME_KEY)).await?;
        load.more(50).await?;
    }
    load.stop().await?.into_iter().sum::<Result<usize, Refused>>()?;
    world.app.ask(GetCallerIdentityRequest {}).await?;
    world.admin.ask(GetStatusRequest {}).await?;
    world.admin.ask(list_keys(ACME, 0, "")).await?;
    let site = world.daemon.stop().await?;

    let (records, ledger) = (Records::read(&site)?, site.ledger());
    let held = records.hold(ledger);
    println!("replies {}, with a record {}, without {}", held.replies, held.with_record, held.without.len());
    assert!(held.without.is_empty(), "{:?}", held.without);
    let ids: BTreeSet<_> = ledger.successes().into_iter().map(|reply| reply.request_id).collect();
    assert_eq!(ids.len(), held.replies, "no request id is used twice");

    // Nobody else called, so the counts are equal: no record without a reply.
    let mut recorded = BTreeMap::new();
    for stored in
        records.leaves.iter().filter(|stored| stored.leaf.res == Some(Outcome::Ok) && stored.leaf.ph.is_none())
    {
        *recorded.entry(stored.leaf.op.clone().context("a record says what was done")?.into_owned()).or_insert(0) += 1;
    }
    for (op, replies) in ledger.successes_by_op() {
        println!("{op}: {replies} replies, {} records", recorded.get(op).unwrap_or(&0));
        assert_eq!(recorded.get(op), Some(&replies), "{op}");
    }
    // So are those of refusals.
    let count = |reason: &str| {
        ledger.refusals().iter().filter(|reply| reply.refused.as_ref().is_some_and(|r| r.is(reason))).count()
    };
    // What is beyond a hundred a second of one caller is told of in a sum.
    let denied = records.of("RotateKey", Outcome::Denied).count();
    let summed: u64 = records.of("Refusals", Outcome::Denied).filter_map(|stored| stored.leaf.cnt).sum();
    assert_eq!((denied + usize::try_from(summed)?, denied > 0), (count("POLICY_DENIED"), true), "denials");
    let failed = records.of("Decrypt", Outcome::Failed).count();
    assert_eq!((failed, failed > 0), (count("DECRYPT_FAILED"), true), "failures");
    crate::world::check(&site)
}

#[tokio::test]
async fn a_record_says_who_did_what_to_which_and_why_it_might() -> Result<()> {
    let world = World::new().await?;
    let context: &[(&str, &str)] = &[("row", "7")];
    let sealed = world.app.call(encrypt(ACME_KEY, b"secret", context)).await?;
    let opened = world.app.call(decrypt(ACME_KEY, &sealed.message.ciphertext, context)).await?;
    drop(world.app.call(decrypt(ACME_KEY, &sealed.message.ciphertext, &[])).await);
    drop(world.app.call(decrypt("tenants/acme/keys/nothing", &sealed.message.ciphertext, context)).await);
    drop(world.app.call(disable_key(ACME_KEY)).await);
    let app = world.daemon.site().principal("app");
    let key = world.admin.ask(get_key(ACME_KEY)).await?.key.unwrap();
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let by_request = |id: &Option<String>| {
        records.leaves.iter().find(|stored| stored.leaf.rid.as_deref() == id.as_deref()).map(|stored| &stored.leaf)
    };

    let (seal, open) =
        (by_request(&sealed.request_id).context("of Encrypt")?, by_request(&opened.request_id).context("of Decrypt")?);
    for (leaf, op) in [(seal, "Encrypt"), (open, "Decrypt")] {
        assert_eq!((leaf.n.as_deref(), leaf.op.as_deref()), (Some("node-1"), Some(op)));
        assert_eq!((leaf.ten.as_deref(), leaf.kn.as_deref()), (Some("acme"), Some("app")));
        assert_eq!((leaf.key.as_deref(), leaf.kv), (Some(&*key.uid), Some(1)));
        assert_eq!(
            (leaf.sub.as_deref(), leaf.net.as_deref(), leaf.rule.as_deref()),
            (Some(&*app), Some("127.0.0.1"), Some("app"))
        );
        assert_eq!((leaf.res, &leaf.why), (Some(Outcome::Ok), &None));
        // Which ciphertext: the first 16 bytes of its commitment.
        assert_eq!(leaf.bid.as_deref(), Some(&*hex::encode(&sealed.message.ciphertext[48..64])));
        assert_eq!(leaf.ctx.as_ref().map(|ctx| ctx.len()), Some(32));
    }
    assert_eq!(seal.ctx, open.ctx, "the same context has the same hash");

    let failed = &records.of("Decrypt", Outcome::Failed).next().context("of the wrong context")?.leaf;
    assert_eq!((failed.sub.as_deref(), failed.bid.as_deref()), (Some(&*app), seal.bid.as_deref()));
    assert!(failed.why.is_some());
    let unknown = &records.of("Decrypt", Outcome::Failed).nth(1).context("of the unknown key")?.leaf;
    assert_eq!(
        (unknown.kn.as_deref(), &unknown.key, unknown.why.as_deref()),
        (Some("nothing"), &None, Some("KEY_NOT_FOUND"))
    );
    let denied = &records.of("DisableKey", Outcome::Denied).next().context("of the denial")?.leaf;
    assert_eq!(
        (denied.rule.as_deref(), denied.why.as_deref(), &denied.key),
        (Some("default"), Some("POLICY_DENIED"), &None)
    );
    assert!(denied.seq.is_none() && denied.in_.is_none(), "a denial changes nothing");

    let start = &records.of("Start", Outcome::Ok).next().context("of the start")?.leaf;
    assert_eq!((start.log.as_deref(), start.epoch, start.seq), (Some("kms1-audit"), Some(1), None));
    crate::world::check(&site)
}

#[tokio::test]
async fn a_mutation_has_an_intent_before_it_and_an_outcome_after_it() -> Result<()> {
    let world = World::new().await?;
    world.admin.ask(create_key(ACME, "second")).await?;
    world.admin.ask(rotate_key("tenants/acme/keys/second")).await?;
    world.admin.ask(schedule_key_destruction("tenants/acme/keys/second/versions/1", seconds(0))).await?;
    world.admin.ask(suspend_tenant(ACME)).await?;
    world.admin.ask(destroy_tenant(ACME, seconds(0))).await?;
    // One that fails before anything was changed takes no number.
    assert!(world.admin.ask(resume_tenant(ACME)).await.is_err());
    world.admin.ask(create_tenant("next")).await?;
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    records.check_chains()?;
    let outcomes = ["CreateKey", "RotateKey", "DestroyKeyVersion", "SuspendTenant", "DestroyTenant", "CreateTenant"];
    let mut last = 0;
    for op in outcomes {
        let outcome = records.of(op, Outcome::Ok).last().with_context(|| format!("the outcome of {op}"))?;
        let intent = outcome
            .leaf
            .in_
            .and_then(|intent| records.leaves.get(usize::try_from(intent).ok()?))
            .context("its intent")?;
        assert_eq!(intent.leaf.ph, Some(Phase::Intent));
        assert!(intent.leaf.sub.is_some() && intent.leaf.rid.is_some() && intent.leaf.net.is_some(), "{op}: who asked");
        let seq = outcome.leaf.seq.context("a number")?;
        assert!(seq == last + 1 || last == 0, "{op} has number {seq} after {last}");
        last = seq;
    }
    let destructions: Vec<u64> =
        records.leaves.iter().filter(|s| s.leaf.ph == Some(Phase::Fenced)).map(|s| s.index).collect();
    let (version, tenant) = (destructions[0], destructions[1]);
    assert_eq!(records.leaves[tenant as usize].leaf.pd, Some(version), "destructions are chained");
    for line in records::lines(&site)? {
        records::check_members(&line)?;
    }
    crate::world::check(&site)
}

#[tokio::test]
async fn a_change_whose_caller_hangs_up_is_carried_out_to_its_end() -> Result<()> {
    let world = World::new().await?;
    // At many moments of the call, from before it is sent until after its reply.
    // One connection for a few of them: on which many calls are reset is closed, as a flood would be.
    for turns in (0..120).collect::<Vec<_>>().chunks(8) {
        let (admin, app) = (world.daemon.caller("admin")?, world.daemon.caller("app")?);
        admin.ask(GetCallerIdentityRequest {}).await?;
        app.ask(GetCallerIdentityRequest {}).await?;
        for turns in turns {
            hang_up(*turns, admin.ask(rotate_key(ACME_KEY))).await;
            hang_up(*turns, app.ask(encrypt(ACME_KEY, b"secret", &[]))).await;
        }
    }
    // Nothing is left half done, and nobody waits for one who is gone.
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    // What was sent and not waited for may still be on its way: it is counted after a restart.
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let (rotated, intents) = (records.of("RotateKey", Outcome::Ok).count(), intents_of(&records, "RotateKey"));
    let world = World::on(site.start().await?)?;
    let versions = world.admin.ask(list_key_versions(ACME_KEY, 1000, "")).await?.key_versions.len();
    println!("120 callers hung up: {intents} rotations begun, {rotated} carried out, {versions} versions");
    assert!(intents > 1, "every caller hung up before its call was sent");
    assert_eq!((rotated, versions), (intents, 1 + rotated));
    world.finish().await
}

/// Drops a call after so many turns of the runtime.
async fn hang_up<T>(turns: usize, call: impl Future<Output = T>) {
    let turns = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = call => {}
        () = turns => {}
    }
}

fn intents_of(records: &Records, op: &str) -> usize {
    let is_intent = |stored: &&kms_server::audit::StoredLeaf| {
        stored.leaf.ph == Some(Phase::Intent) && stored.leaf.op.as_deref() == Some(op)
    };
    records.leaves.iter().filter(is_intent).count()
}

#[tokio::test]
async fn a_log_of_many_segments_is_of_one_piece() -> Result<()> {
    // As small as it goes, so that some hundred records fill several.
    let settings = kms_tests::Settings { segment_bytes: 1 << 16, ..kms_tests::Settings::default() };
    let mut world = World::with(&settings).await?;
    for _ in 0..2 {
        let load = Load::start((0..8).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?, mixed);
        load.more(600).await?;
        load.stop().await?.into_iter().sum::<Result<usize, Refused>>()?;
        world.admin.ask(rotate_key(ACME_KEY)).await?;
        world = world.crash().await?;
    }
    let segments = std::fs::read_dir(world.daemon.site().log_dir())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.len() == 20)
        .count();
    println!("{segments} segments");
    assert!(segments >= 3, "{segments} segments");
    world.finish().await
}
