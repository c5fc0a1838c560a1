//! Managed data keys from outside: made, given out, destroyed, listed, one and many, and what the log
//! says of them.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_proto::v1;
use kms_server::audit::{Leaf, Outcome, Phase};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Binding, Site};
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, PermissionDenied};

use crate::{ACME, ACME_KEY, Expected, World};

const CONTEXT: &[(&str, &str)] = &[("person", "7")];
const KEY: &str = "tenants/acme/keys/managed";
const OTHER: &str = "tenants/acme/keys/other";

/// A world with two keys for managed data keys. `app` may not list them, `clerk` may.
async fn world() -> Result<World> {
    let site = Site::temporary()?;
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter", "eraser"])?;
    let clerk = site.principal("clerk");
    let (roles, principals): (&[&str], &[&str]) = (&["decrypter", "eraser", "auditor"], &[&clerk]);
    site.bind(&Binding { id: "clerk", roles, principals, tenants: &["acme"], keys: &["*"], indexes: &[] })?;
    let world = World::on(site.start().await?)?;
    world.admin.ask(create_tenant("acme")).await?;
    world.admin.ask(create_key(ACME, "app")).await?;
    for key in ["managed", "other"] {
        world.admin.ask(create_key_for(ACME, key, v1::KeyPurpose::Managed.into())).await?;
    }
    Ok(world)
}

/// Returns the leaves of an operation that ended so.
fn leaves<'a>(records: &'a Records, op: &'a str, outcome: Outcome) -> Vec<&'a Leaf> {
    records.of(op, outcome).map(|stored| &stored.leaf).collect()
}

#[tokio::test]
async fn a_data_key_is_kept_until_it_is_destroyed() -> Result<()> {
    let world = world().await?;
    let mut expected = Expected::of("managed data keys");
    let app = &world.app;
    let made = app.ask(create_data_key(KEY, CONTEXT)).await?;
    let shape =
        (made.plaintext.len(), made.uid.len(), made.key_version, made.lease.as_ref().map(|lease| lease.seconds));
    expected.row(
        shape == (32, 16, 1, Some(300)),
        "one made",
        "32 bytes, a uid, version 1, 300 s",
        &format!("{shape:?}"),
    );
    let unseen = app.ask(v1::CreateDataKeyRequest { omit_plaintext: true, ..create_data_key(KEY, CONTEXT) }).await?;
    let right = unseen.plaintext.is_empty() && unseen.uid.len() == 16 && unseen.lease.is_none();
    expected.row(right, "one that nobody sees", "a uid and no lease", &format!("{unseen:?}"));

    let world = world.restart().await?;
    let (admin, app, clerk) = (&world.admin, &world.app, world.daemon.caller("clerk")?);
    let got = app.ask(get_data_key(KEY, &made.uid, CONTEXT)).await?;
    expected.row(got.plaintext == made.plaintext && got.key_version == 1, "given out", "the same", "another");
    let (failed, none) = ("DECRYPT_FAILED", "DATA_KEY_NOT_FOUND");
    for (what, context) in [("no context", &[][..]), ("another person", &[("person", "8")])] {
        let got = app.ask(get_data_key(KEY, &made.uid, context)).await;
        expected.refused(&format!("given out: {what}"), InvalidArgument, failed, got);
    }
    let mut neighbour = made.uid.clone();
    neighbour[15] += 1;
    expected.refused("its neighbour", NotFound, none, app.ask(get_data_key(KEY, &neighbour, CONTEXT)).await);
    expected.refused("another key's", NotFound, none, app.ask(get_data_key(OTHER, &made.uid, CONTEXT)).await);
    for uid in [&made.uid[..15], &[&made.uid[..], &[0]].concat(), &[]] {
        let got = app.ask(get_data_key(KEY, uid, CONTEXT)).await;
        expected.refused("a uid of another length", InvalidArgument, "FIELD_INVALID", got);
        let got = app.ask(destroy_data_key(KEY, uid)).await;
        expected.refused("to destroy it", InvalidArgument, "FIELD_INVALID", got);
    }
    expected.refused(
        "the administrator",
        PermissionDenied,
        "POLICY_DENIED",
        admin.ask(get_data_key(KEY, &made.uid, CONTEXT)).await,
    );
    expected.refused(
        "a list for who uses them",
        PermissionDenied,
        "POLICY_DENIED",
        app.ask(list_data_keys(KEY, 0, "")).await,
    );

    // Said only; then done. Who may not list such keys is not told that there was one.
    let rehearsed =
        app.ask(v1::DestroyDataKeyRequest { validate_only: true, ..destroy_data_key(KEY, &made.uid) }).await?;
    expected.row(rehearsed.destroy_time.is_some(), "destroyed in words", "when it would be", &format!("{rehearsed:?}"));
    expected.works("still given out", app.ask(get_data_key(KEY, &made.uid, CONTEXT)).await);
    let gone = app.ask(destroy_data_key(KEY, &made.uid)).await?;
    let right = gone
        .destroy_time
        .zip(gone.lease_end_time)
        .is_some_and(|(at, end)| (299..=301).contains(&(end.seconds - at.seconds)));
    expected.row(right, "until when somebody may hold it", "300 s later", &format!("{gone:?}"));
    let unknown = app.ask(get_data_key(KEY, &neighbour, CONTEXT)).await.err();
    let destroyed = app.ask(get_data_key(KEY, &made.uid, CONTEXT)).await.err();
    expected.row(
        destroyed == unknown && destroyed.is_some(),
        "it looks as if it never was",
        &format!("{unknown:?}"),
        &format!("{destroyed:?}"),
    );
    let (unknown, destroyed) =
        (app.ask(destroy_data_key(KEY, &neighbour)).await.err(), app.ask(destroy_data_key(KEY, &made.uid)).await.err());
    expected.row(
        destroyed == unknown && destroyed.is_some(),
        "also when it is destroyed again",
        &format!("{unknown:?}"),
        &format!("{destroyed:?}"),
    );
    let told = "DATA_KEY_DESTROYED";
    expected.refused(
        "who may list them",
        FailedPrecondition,
        told,
        clerk.ask(get_data_key(KEY, &made.uid, CONTEXT)).await,
    );
    expected.refused("who may list them", FailedPrecondition, told, clerk.ask(destroy_data_key(KEY, &made.uid)).await);

    let first = clerk.ask(list_data_keys(KEY, 1, "")).await?;
    let second = clerk.ask(list_data_keys(KEY, 1, &first.next_page_token)).await?;
    let listed: Vec<_> = [first, second]
        .iter()
        .flat_map(|page| &page.data_keys)
        .map(|key| (key.uid.clone(), key.state(), key.key_version, key.destroy_time.is_some()))
        .collect();
    let mut right =
        [(made.uid.clone(), v1::KeyState::Destroyed, 0, true), (unseen.uid.clone(), v1::KeyState::Enabled, 1, false)];
    // Two of one millisecond are in the order of their random parts.
    right.sort_by(|a, b| a.0.cmp(&b.0));
    expected.row(listed == right, "listed, one by one", &format!("{right:?}"), &format!("{listed:?}"));
    let got = clerk.ask(list_data_keys(ACME_KEY, 0, "")).await;
    expected.refused("of a key of another purpose", InvalidArgument, "PURPOSE_NOT_SUPPORTED", got);
    let got = clerk.ask(list_data_keys(KEY, 0, "nonsense")).await;
    expected.refused("a token that is none", InvalidArgument, "PAGE_TOKEN_INVALID", got);
    expected.check();

    let uid = hex::encode(&made.uid);
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let made = *leaves(&records, "CreateDataKey", Outcome::Ok).first().context("its record")?;
    let got = *leaves(&records, "GetDataKey", Outcome::Ok).first().context("its record")?;
    for leaf in [made, got] {
        assert_eq!((leaf.did.as_deref(), leaf.kv, leaf.kn.as_deref()), (Some(&*uid), Some(1), Some("managed")));
        assert!(leaf.bid.is_some() && leaf.ctx.is_some() && leaf.rule.is_some() && leaf.cnt.is_none(), "{leaf:?}");
    }
    assert_eq!((&made.bid, &made.ctx, &made.key), (&got.bid, &got.ctx, &got.key));
    // The record knows what the caller was not told.
    let why = |op| -> Vec<_> {
        leaves(&records, op, Outcome::Failed).iter().filter_map(|leaf| leaf.why.as_deref()).collect()
    };
    assert_eq!(why("GetDataKey").iter().filter(|why| **why == "DATA_KEY_DESTROYED").count(), 2);
    assert_eq!(why("DestroyDataKey").iter().filter(|why| **why == "DATA_KEY_DESTROYED").count(), 2);
    assert!(why("GetDataKey").contains(&"DECRYPT_FAILED:commitment"));
    crate::world::check(&site)
}

#[tokio::test]
async fn a_repeated_request_gives_out_the_same_data_keys() -> Result<()> {
    let world = world().await?;
    let (app, clerk) = (&world.app, world.daemon.caller("clerk")?);
    let mut expected = Expected::of("repeated requests for data keys");
    let once = v1::CreateDataKeyRequest { request_id: "one".into(), ..create_data_key(KEY, CONTEXT) };
    let made = app.ask(once.clone()).await?;
    let again = app.ask(once.clone()).await?;
    let same =
        (&again.uid, &again.plaintext, again.key_version) == (&made.uid, &made.plaintext, 1) && again.lease.is_some();
    expected.row(same, "one, repeated", "the same with a lease", &format!("{again:?}"));
    let other = v1::CreateDataKeyRequest { encryption_context: pairs(&[("person", "8")]), ..once.clone() };
    expected.refused("in another context", InvalidArgument, "REQUEST_ID_REUSED", app.ask(other).await);
    let rehearsed = app.ask(v1::CreateDataKeyRequest { validate_only: true, ..create_data_key(KEY, CONTEXT) }).await?;
    let right = rehearsed.uid.is_empty() && rehearsed.plaintext.is_empty() && rehearsed.key_version == 1;
    expected.row(right, "in words only", "nothing but the version", &format!("{rehearsed:?}"));

    let mut many =
        v1::BatchCreateDataKeysRequest { request_id: "many".into(), ..batch_create_data_keys(KEY, 1_200, CONTEXT) };
    many.items[3].aad = vec![0; 257];
    let made_many = app.ask(many.clone()).await?;
    let again = app.ask(many.clone()).await?;
    expected.row(again == made_many, "many, repeated", "the same, with the same error", "others");
    let uid = made_many.results[1_100].uid.clone();
    app.ask(batch_destroy_data_keys(KEY, &[uid, made.uid.clone()])).await?;
    expected.refused("one that was destroyed since", NotFound, "DATA_KEY_NOT_FOUND", app.ask(once).await);
    let again = app.ask(many).await?;
    let wrong: Vec<_> = (0..).zip(&again.results).filter(|(n, _)| again.results[*n] != made_many.results[*n]).collect();
    let right = matches!(&wrong[..], [(1_100, result)]
        if result.error.as_ref().is_some_and(|error| error.reason() == v1::ErrorReason::DataKeyNotFound));
    expected.row(right, "many, one destroyed since", "an error for just that", &format!("{wrong:?}"));
    let listed = clerk.ask(list_data_keys(KEY, 1_000, "")).await?;
    let rest = clerk.ask(list_data_keys(KEY, 1_000, &listed.next_page_token)).await?;
    let count = listed.data_keys.len() + rest.data_keys.len();
    expected.row(count == 1 + 1_199, "all there are", "1200", &count.to_string());
    expected.check();

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let told = |op| -> Vec<_> {
        leaves(&records, op, Outcome::Ok).iter().map(|leaf| (leaf.cnt, leaf.fail, leaf.why.as_deref())).collect()
    };
    assert_eq!(
        told("CreateDataKey"),
        [(None, None, None), (None, None, Some("REPEATED")), (None, None, Some("VALIDATED"))]
    );
    let (first, repeated) = ("CONTEXT_INVALID 3", "REPEATED;CONTEXT_INVALID 3");
    assert_eq!(
        told("BatchCreateDataKeys"),
        [
            (Some(1_000), Some(1), Some(first)),
            (Some(200), None, None),
            (Some(1_000), Some(1), Some(repeated)),
            (Some(200), None, Some("REPEATED")),
            (Some(1_000), Some(1), Some(repeated)),
            (Some(200), Some(1), Some("REPEATED;DATA_KEY_DESTROYED 100")),
        ]
    );
    crate::world::check(&site)
}

#[tokio::test]
async fn many_data_keys_are_made_given_out_and_destroyed_in_one_call_each() -> Result<()> {
    let world = world().await?;
    let (admin, app) = (&world.admin, &world.app);
    let mut expected = Expected::of("many managed data keys");
    let mut request = batch_create_data_keys(KEY, 2_500, CONTEXT);
    (0..).zip(&mut request.items).for_each(|(n, item)| item.aad = format!("row {n}").into_bytes());
    let made = app.ask(request).await?;
    let right =
        made.key_version == 1 && made.lease.is_some() && made.results.iter().all(|result| result.error.is_none());
    expected.row(right && made.results.len() == 2_500, "made", "2,500 of version 1", "others");
    let uids: std::collections::BTreeSet<_> = made.results.iter().map(|result| &result.uid).collect();
    expected.row(uids.len() == 2_500, "a uid for each", "2500", &uids.len().to_string());

    let omit = v1::BatchCreateDataKeysRequest { omit_plaintext: true, ..batch_create_data_keys(OTHER, 2, CONTEXT) };
    let unseen = app.ask(omit).await?;
    let right = unseen.lease.is_none() && unseen.results.iter().all(|r| r.plaintext.is_empty() && r.uid.len() == 16);
    expected.row(right, "two that nobody sees", "uids and no lease", &format!("{unseen:?}"));

    // After a rotation they are given out as before.
    admin.ask(rotate_key(KEY)).await?;
    let mut request =
        batch_get_data_keys(KEY, &made.results.iter().map(|r| r.uid.clone()).collect::<Vec<_>>(), CONTEXT);
    (0..).zip(&mut request.items).for_each(|(n, item)| item.aad = format!("row {n}").into_bytes());
    request.items[0].aad = b"row 1".into();
    request.items[1].uid = vec![7; 16];
    request.items[2].uid = vec![7; 15];
    request.items[3].aad = vec![0; 257];
    let got = app.ask(request).await?;
    let reasons: Vec<_> =
        got.results.iter().filter_map(|result| result.error.as_ref()).map(|error| error.reason()).collect();
    use v1::ErrorReason::{ContextInvalid, DataKeyNotFound, DecryptFailed, FieldInvalid};
    let right = [DecryptFailed, DataKeyNotFound, FieldInvalid, ContextInvalid];
    expected.row(reasons == right, "given out, but four", &format!("{right:?}"), &format!("{reasons:?}"));
    let same = made.results.iter().zip(&got.results).skip(4).all(|(made, got)| made.plaintext == got.plaintext);
    expected.row(same && got.lease.is_some(), "the same keys in the same order", "the same", "others");

    // Destroyed: all but the first thousand; some are not there, some are named twice.
    let mut doomed: Vec<_> = made.results[1_000..].iter().map(|result| result.uid.clone()).collect();
    doomed[5] = vec![7; 16];
    doomed[6] = vec![7; 3];
    doomed[8] = doomed[7].clone();
    let gone = app.ask(batch_destroy_data_keys(KEY, &doomed)).await?;
    let failed: Vec<_> =
        (0..).zip(&gone.results).filter(|(_, result)| result.error.is_some()).map(|(n, _)| n).collect();
    let right = failed == [5, 6] && gone.lease_end_time.is_some();
    expected.row(
        right && gone.results[8].destroy_time.is_some(),
        "destroyed, but two",
        "[5, 6]",
        &format!("{failed:?}"),
    );
    let again = app.ask(batch_destroy_data_keys(KEY, &doomed)).await?;
    let right = again.lease_end_time.is_none()
        && again.results.iter().all(|result| result.destroy_time.is_none() && result.error.is_some());
    expected.row(right, "destroyed again", "errors for all", "others");
    let got = app.ask(batch_get_data_keys(KEY, &doomed[..1], CONTEXT)).await?;
    let reason = got.results[0].error.as_ref().map(|error| error.reason());
    expected.row(reason == Some(DataKeyNotFound), "one of them", "DATA_KEY_NOT_FOUND", &format!("{reason:?}"));
    let mut left = get_data_key(KEY, &made.results[999].uid, CONTEXT);
    left.aad = b"row 999".into();
    expected.works("its neighbour that was spared", app.ask(left).await);
    let nonsense = app.ask(batch_destroy_data_keys(KEY, &[vec![1], vec![2]])).await?;
    let right =
        nonsense.results.iter().all(|result| result.error.as_ref().is_some_and(|error| error.reason() == FieldInvalid));
    expected.row(right, "what can be no uid", "FIELD_INVALID for each", &format!("{nonsense:?}"));
    expected.check();

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let created = leaves(&records, "BatchCreateDataKeys", Outcome::Ok);
    let told: Vec<_> =
        created[..3].iter().map(|leaf| (leaf.cnt, leaf.kv, leaf.ids.clone().unwrap_or_default())).collect();
    let first = |n: usize| STANDARD.encode(&made.results[n].uid);
    let right = [(1_000, 0), (1_000, 1_000), (500, 2_000)].map(|(count, n)| (Some(count), Some(1), first(n).into()));
    assert_eq!(told, right, "a leaf for each thousand, with the first uid of it");
    let got = leaves(&records, "BatchGetDataKeys", Outcome::Ok);
    let ids = STANDARD.decode(got[1].ids.as_deref().unwrap_or_default())?;
    let uids: Vec<u8> = made.results[1_000..2_000].iter().flat_map(|result| result.uid.clone()).collect();
    assert!(ids == uids, "the uids of those that were given out");
    assert_eq!((got[0].cnt, got[0].fail), (Some(1_000), Some(4)));
    assert_eq!(
        got[0].why.as_deref(),
        Some("CONTEXT_INVALID 3;DATA_KEY_NOT_FOUND 1;DECRYPT_FAILED:commitment 0;FIELD_INVALID 2")
    );
    let of_change = |leaf: &&&Leaf| leaf.ph != Some(Phase::Intent) && leaf.seq.is_some();
    let destroyed = leaves(&records, "BatchDestroyDataKeys", Outcome::Ok);
    assert_eq!(destroyed.iter().filter(of_change).count(), 2, "a change for each thousand");
    let refused = leaves(&records, "BatchDestroyDataKeys", Outcome::Failed);
    let told: Vec<_> = refused.iter().map(|leaf| (leaf.cnt, leaf.fail)).collect();
    // One that was no uid, beside those that were destroyed; then again beside those that were gone, each
    // once however often it was named.
    let all = [(1, 1), (1_000, 1_000), (498, 498), (1, 1), (2, 2)];
    assert_eq!(told, all.map(|(count, failed)| (Some(count), Some(failed))));
    crate::world::check(&site)
}
