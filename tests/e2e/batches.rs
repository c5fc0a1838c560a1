//! Batches: many items in one call, each with its result or its error, in order; and what the log
//! says of them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_proto::v1;
use kms_server::audit::{Leaf, Outcome};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Refused, Site};
use prost::Message as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable};

use crate::{ACME, ACME_KEY, Expected, World};

const CONTEXT: &[(&str, &str)] = &[("table", "customers")];
/// The other purposes' keys of the tenant.
const MAC_KEY: &str = "tenants/acme/keys/mac";
const MANAGED_KEY: &str = "tenants/acme/keys/managed";

/// Says of an error of an item what it should be.
fn is(error: Option<&v1::ItemError>, code: Code, reason: v1::ErrorReason) -> bool {
    error.is_some_and(|error| (error.code, error.reason) == (code as i32, reason.into()) && !error.message.is_empty())
}

/// Returns the leaves of an operation, in order.
fn leaves<'a>(records: &'a Records, op: &str) -> Vec<&'a Leaf> {
    records.leaves.iter().map(|stored| &stored.leaf).filter(|leaf| leaf.op.as_deref() == Some(op)).collect()
}

fn ids(leaf: &Leaf) -> Vec<[u8; 16]> {
    let bytes = STANDARD.decode(leaf.ids.as_deref().unwrap_or_default()).unwrap();
    bytes.as_chunks().0.to_vec()
}

/// What the log calls a blob by.
fn id(blob: &[u8]) -> [u8; 16] {
    blob[48..64].try_into().unwrap()
}

#[tokio::test]
async fn many_items_come_back_in_order_and_one_bad_one_spoils_no_other() -> Result<()> {
    let world = World::new().await?;
    let app = &world.app;
    let mut expected = Expected::of("batches");

    // Each item has a plaintext and an aad of its own.
    let mut request = batch_encrypt(ACME_KEY, &[], CONTEXT);
    for n in 0..2_500_u32 {
        request
            .items
            .push(v1::BatchEncryptItem { plaintext: n.to_be_bytes().into(), aad: format!("row {n}").into_bytes() });
    }
    request.items[7].aad = vec![0; 257];
    request.items[1_400].plaintext = vec![0; 65_537];
    let sealed = app.ask(request.clone()).await?;
    expected.row(sealed.key_version == 1, "the version", "1", &sealed.key_version.to_string());
    expected.row(sealed.results.len() == 2_500, "as many results", "2500", &sealed.results.len().to_string());
    let bad: Vec<usize> = (0..).zip(&sealed.results).filter(|(_, r)| r.error.is_some()).map(|(n, _)| n).collect();
    expected.row(bad == [7, 1_400], "two failed", "[7, 1400]", &format!("{bad:?}"));
    let (aad, long) = (sealed.results[7].error.as_ref(), sealed.results[1_400].error.as_ref());
    let right = is(aad, InvalidArgument, v1::ErrorReason::ContextInvalid)
        && is(long, InvalidArgument, v1::ErrorReason::PlaintextTooLarge);
    expected.row(right, "their reasons", "CONTEXT_INVALID, PLAINTEXT_TOO_LARGE", &format!("{aad:?} {long:?}"));

    // Opened again, some of them with things that are wrong with them.
    let mut open = batch_decrypt(ACME_KEY, &[], CONTEXT);
    for (result, item) in sealed.results.iter().zip(&request.items) {
        open.items.push(v1::BatchDecryptItem { ciphertext: result.ciphertext.clone(), aad: item.aad.clone() });
    }
    let wrapped = app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?.wrapped_data_key;
    open.items[0].aad = b"row 1".into();
    open.items[3].ciphertext = wrapped;
    open.items[5].ciphertext[20] ^= 1;
    open.items[6].ciphertext[99] ^= 1;
    let opened = app.ask(open).await?;
    let mut wrong = Vec::new();
    for (n, result) in (0_u32..).zip(&opened.results) {
        let reason = result.error.as_ref().map(|error| error.reason());
        let right = match n {
            0 | 5 | 6 | 7 | 1_400 => reason == Some(v1::ErrorReason::DecryptFailed),
            3 => reason == Some(v1::ErrorReason::WrongKind),
            _ => reason.is_none() && result.plaintext == n.to_be_bytes() && result.key_version == 1 && !result.stale,
        };
        if !right {
            wrong.push((n, format!("{result:?}")));
        }
    }
    expected.row(
        wrong.is_empty() && opened.results.len() == 2_500,
        "each opened or refused",
        "all",
        &format!("{wrong:?}"),
    );

    // Data keys, in the clear and wrapped, and unwrapped again in the same order.
    let made = app.ask(batch_generate_data_keys(ACME_KEY, 50, CONTEXT)).await?;
    let wrapped: Vec<_> = made.results.iter().map(|result| result.wrapped_data_key.clone()).collect();
    let unwrapped = app.ask(batch_decrypt_data_keys(ACME_KEY, &wrapped, CONTEXT)).await?;
    let same = made
        .results
        .iter()
        .zip(&unwrapped.results)
        .all(|(made, got)| made.plaintext.len() == 32 && made.plaintext == got.plaintext && got.error.is_none());
    let lease = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    expected.row(same && made.results.len() == 50, "data keys unwrapped", "the same", "others");
    expected.row(made.lease == lease && unwrapped.lease == lease, "their lease", "300 s", &format!("{:?}", made.lease));
    let mut omit = batch_generate_data_keys(ACME_KEY, 2, CONTEXT);
    omit.omit_plaintext = true;
    let omitted = app.ask(omit).await?;
    let right = omitted.lease.is_none() && omitted.results.iter().all(|r| r.plaintext.is_empty());
    expected.row(right, "data keys that nobody sees", "no lease, no plaintext", &format!("{:?}", omitted.lease));
    expected.check();

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    // A leaf for each thousand.
    let seals = leaves(&records, "BatchEncrypt");
    let told: Vec<_> = seals.iter().map(|leaf| (leaf.cnt, leaf.fail, leaf.why.as_deref(), leaf.kv, leaf.res)).collect();
    let ok = Some(Outcome::Ok);
    assert_eq!(
        told,
        [
            (Some(1_000), Some(1), Some("CONTEXT_INVALID 7"), Some(1), ok),
            (Some(1_000), Some(1), Some("PLAINTEXT_TOO_LARGE 400"), Some(1), ok),
            (Some(500), None, None, Some(1), ok),
        ]
    );
    let told: Vec<_> = seals.iter().flat_map(|leaf| ids(leaf)).collect();
    let made: Vec<_> =
        sealed.results.iter().map(|r| if r.error.is_some() { [0; 16] } else { id(&r.ciphertext) }).collect();
    assert!(told == made, "the leaves name the blobs that were made, in order, and zeros where none was");
    for leaf in &seals {
        assert!(leaf.key.is_some() && leaf.tuid.is_some() && leaf.ctx.is_none() && leaf.bid.is_none(), "{leaf:?}");
        assert_eq!(
            (leaf.ten.as_deref(), leaf.kn.as_deref(), leaf.rule.as_deref()),
            (Some("acme"), Some("app"), Some("app"))
        );
        assert_eq!(leaf.rid, seals[0].rid);
    }
    let opens = leaves(&records, "BatchDecrypt");
    let told: Vec<_> = opens.iter().map(|leaf| (leaf.cnt, leaf.fail, leaf.why.as_deref())).collect();
    // The version that the changed byte 20 names is of another key; what had failed to seal is too short.
    let causes =
        "DECRYPT_FAILED:commitment 0;DECRYPT_FAILED:key 5;DECRYPT_FAILED:short 7;DECRYPT_FAILED:tag 6;WRONG_KIND 3";
    assert_eq!(
        told,
        [
            (Some(1_000), Some(5), Some(causes)),
            (Some(1_000), Some(1), Some("DECRYPT_FAILED:short 400")),
            (Some(500), None, None),
        ]
    );
    crate::world::check(&site)
}

#[tokio::test]
async fn what_concerns_the_whole_batch_fails_it_before_any_key_is_used() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    admin.ask(create_key_for(ACME, "mac", v1::KeyPurpose::Mac.into())).await?;
    admin.ask(create_key_for(ACME, "managed", v1::KeyPurpose::Managed.into())).await?;
    let mut expected = Expected::of("batches that fail as a whole");
    // Of two bytes each: they would be a hundred times as much in memory, and are counted before.
    let got = app.ask(batch_generate_data_keys(ACME_KEY, 2_000_000, &[])).await;
    expected.refused("2,000,000 data keys", InvalidArgument, "MESSAGE_INVALID", got);
    for count in [0, 10_001] {
        let got = app.ask(batch_generate_data_keys(ACME_KEY, count, &[])).await;
        expected.refused(&format!("{count} data keys"), InvalidArgument, "FIELD_INVALID", got);
        let got = app.ask(batch_decrypt(ACME_KEY, &vec![Vec::new(); count], &[])).await;
        expected.refused(&format!("{count} blobs"), InvalidArgument, "FIELD_INVALID", got);
        let got = app.ask(batch_create_data_keys(MANAGED_KEY, count, &[])).await;
        expected.refused(&format!("{count} managed data keys"), InvalidArgument, "FIELD_INVALID", got);
        let got = app.ask(batch_get_data_keys(MANAGED_KEY, &vec![vec![7; 16]; count], &[])).await;
        expected.refused(&format!("{count} uids"), InvalidArgument, "FIELD_INVALID", got);
        let got = app.ask(batch_destroy_data_keys(MANAGED_KEY, &vec![vec![7; 16]; count])).await;
        expected.refused(&format!("{count} uids to destroy"), InvalidArgument, "FIELD_INVALID", got);
    }
    let full = app.ask(batch_generate_data_keys(ACME_KEY, 10_000, &[])).await;
    expected.row(full.is_ok_and(|full| full.results.len() == 10_000), "10,000 data keys", "10,000", "another");
    let got = app.ask(batch_encrypt(ACME_KEY, &[b"x"], &[("kms1", "x")])).await;
    expected.refused("a reserved name", InvalidArgument, "CONTEXT_INVALID", got);
    let got = app.ask(batch_encrypt("tenants/acme/keys/nothing", &[b"x"], &[])).await;
    expected.refused("no such key", NotFound, "KEY_NOT_FOUND", got);
    let got = app.ask(batch_encrypt("tenants/nobody/keys/app", &[b"x"], &[])).await;
    expected.refused("no such tenant", NotFound, "TENANT_NOT_FOUND", got);
    // An answer of 4 MiB and more, to a question of less: 96 bytes are added to each item.
    let question = batch_encrypt(ACME_KEY, &vec![&[7; 256][..]; 12_000][..10_000], &[]);
    let mut longer = question.clone();
    longer.items.iter_mut().for_each(|item| item.plaintext = vec![7; 320]);
    let bytes = longer.encoded_len();
    assert!(bytes < 4 << 20, "{bytes}");
    expected.works("an answer of less than 4 MiB", app.ask(question).await);
    let got = app.ask(longer).await;
    expected.refused("an answer of more than 4 MiB", ResourceExhausted, "MESSAGE_TOO_LARGE", got);

    // One that is too long itself is told of by its name, though nobody read it.
    let got = app.ask(batch_encrypt(ACME_KEY, &[&[7; 5 << 20]], &[])).await;
    expected.refused("a question of more than 4 MiB", ResourceExhausted, "MESSAGE_TOO_LARGE", got);

    // A key of another purpose.
    let purpose = "PURPOSE_NOT_SUPPORTED";
    for key in [MAC_KEY, MANAGED_KEY] {
        let got = app.ask(encrypt(key, b"x", &[])).await;
        expected.refused(&format!("Encrypt under {key}"), InvalidArgument, purpose, got);
        let got = app.ask(generate_data_key(key, &[])).await;
        expected.refused(&format!("GenerateDataKey under {key}"), InvalidArgument, purpose, got);
        let got = app.ask(batch_encrypt(key, &[b"x"], &[])).await;
        expected.refused(&format!("BatchEncrypt under {key}"), InvalidArgument, purpose, got);
        let got = app.ask(batch_generate_data_keys(key, 2, &[])).await;
        expected.refused(&format!("BatchGenerateDataKeys under {key}"), InvalidArgument, purpose, got);
    }
    for key in [ACME_KEY, MANAGED_KEY] {
        let got = app.ask(generate_mac(key, b"x", &[])).await;
        expected.refused(&format!("GenerateMac under {key}"), InvalidArgument, purpose, got);
        let got = app.ask(batch_generate_macs(key, &[b"x"], &[])).await;
        expected.refused(&format!("BatchGenerateMacs under {key}"), InvalidArgument, purpose, got);
    }
    for key in [ACME_KEY, MAC_KEY] {
        let got = app.ask(create_data_key(key, &[])).await;
        expected.refused(&format!("CreateDataKey under {key}"), InvalidArgument, purpose, got);
        let got = app.ask(batch_create_data_keys(key, 2, &[])).await;
        expected.refused(&format!("BatchCreateDataKeys under {key}"), InvalidArgument, purpose, got);
        let got = app.ask(get_data_key(key, &[7; 16], &[])).await;
        expected.refused(&format!("GetDataKey under {key}"), InvalidArgument, purpose, got);
        let got = app.ask(destroy_data_key(key, &[7; 16])).await;
        expected.refused(&format!("DestroyDataKey under {key}"), InvalidArgument, purpose, got);
    }
    // What belongs to one purpose is refused by a key of another also where the blob is right.
    let blob = app.ask(encrypt(ACME_KEY, b"x", &[])).await?.ciphertext;
    let got = app.ask(batch_decrypt(MAC_KEY, std::slice::from_ref(&blob), &[])).await;
    expected.refused("BatchDecrypt under a MAC key", InvalidArgument, purpose, got);
    let got = app.ask(move_to(ACME_KEY, &blob, &[], MANAGED_KEY, &[])).await;
    expected.refused("ReEncrypt to a key of another purpose", InvalidArgument, purpose, got);

    admin.ask(disable_key(ACME_KEY)).await?;
    let got = app.ask(batch_decrypt(ACME_KEY, &[blob], &[])).await;
    expected.refused("a disabled key", FailedPrecondition, "KEY_DISABLED", got);
    expected.check();
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    // What was refused as too long has one record, and none that says what was made.
    let long =
        leaves(&records, "BatchEncrypt").into_iter().filter(|leaf| leaf.why.as_deref() == Some("MESSAGE_TOO_LARGE"));
    let told: Vec<_> = long.map(|leaf| (leaf.res, leaf.cnt, &leaf.key, leaf.kn.as_deref())).collect();
    let failed = |kn| (Some(Outcome::Failed), None, &None, kn);
    assert_eq!(told, [failed(Some("app")), failed(None)]);
    crate::world::check(&site)
}

#[tokio::test]
async fn a_batch_holds_blobs_of_many_versions() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    // More versions than a request may load at once, with another key's blob behind them.
    const VERSIONS: usize = 70;
    let mut blobs = Vec::new();
    for version in 1..=VERSIONS {
        blobs.push(app.ask(encrypt(ACME_KEY, format!("v{version}").as_bytes(), &[])).await?.ciphertext);
        admin.ask(rotate_key(ACME_KEY)).await?;
    }
    blobs.push(app.ask(encrypt("tenants/globex/keys/app", b"another's", &[])).await?.ciphertext);
    admin.ask(disable_key(&format!("{ACME_KEY}/versions/3"))).await?;
    let mut none = blobs[0].clone();
    none[21..24].copy_from_slice(&[0, 1, 0]);
    blobs.push(none);
    let world = world.restart().await?;
    let app = &world.app;
    // None of them is in memory yet, and nothing is wrong with any.
    let good = app.ask(batch_decrypt(ACME_KEY, &blobs[3..VERSIONS], &[])).await?;
    assert!(good.results.iter().all(|result| result.error.is_none()));
    for request in [&blobs[..], &blobs[..3], &blobs[2..3]] {
        let opened = app.ask(batch_decrypt(ACME_KEY, request, &[])).await?;
        for (place, result) in opened.results.iter().enumerate() {
            let number = if request.len() == 1 { 3 } else { place + 1 };
            let error = result.error.as_ref();
            match number {
                3 => assert!(is(error, FailedPrecondition, v1::ErrorReason::VersionDisabled), "{result:?}"),
                71 | 72 => assert!(is(error, InvalidArgument, v1::ErrorReason::DecryptFailed), "{number} {result:?}"),
                _ => {
                    assert_eq!((error, &*result.plaintext), (None, format!("v{number}").as_bytes()));
                    assert_eq!((result.key_version as usize, result.stale), (number, true));
                }
            }
        }
    }
    // Moved to the primary version, but for those that cannot be.
    let moved = app.ask(batch_re_encrypt(ACME_KEY, &blobs, &[])).await?;
    assert_eq!(moved.key_version, 71);
    let sources: Vec<_> = moved.results.iter().map(|result| result.source_key_version).collect();
    let source = |n| if [3, 71, 72].contains(&n) { 0 } else { n };
    assert_eq!(sources, (1..=72).map(source).collect::<Vec<_>>());
    let good: Vec<_> =
        moved.results.into_iter().map(|result| result.ciphertext).filter(|blob| !blob.is_empty()).collect();
    let opened = app.ask(batch_decrypt(ACME_KEY, &good, &[])).await?;
    assert!(opened.results.iter().all(|result| result.error.is_none() && !result.stale && result.key_version == 71));

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let leaf = *leaves(&records, "BatchReEncrypt").first().context("its leaf")?;
    // Of each item what was given and what was made.
    let ids = ids(leaf);
    assert_eq!((ids.len(), leaf.kv, leaf.fail), (144, Some(71), Some(3)));
    assert_eq!((ids[0], ids[1]), (id(&blobs[0]), id(&good[0])));
    assert_eq!((ids[4], ids[5]), (id(&blobs[2]), [0; 16]), "the one that was not moved");
    let first = *leaves(&records, "BatchDecrypt").first().context("its leaf")?;
    assert_eq!(first.kv, None, "of many versions none is told");
    crate::world::check(&site)
}

#[tokio::test]
async fn a_batch_goes_to_another_key_with_the_rights_that_its_kinds_need() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    admin.ask(create_key(ACME, "other")).await?;
    let other = "tenants/acme/keys/other";
    let data = app.ask(encrypt(ACME_KEY, b"data", CONTEXT)).await?.ciphertext;
    let dek = app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?;
    let mut request = batch_re_encrypt(ACME_KEY, &[data.clone(), dek.wrapped_data_key.clone()], CONTEXT);
    request.items[0].destination_aad = b"x".into();
    let mut expected = Expected::of("batches that are moved");
    let got = app.ask(request.clone()).await;
    expected.refused("another aad and no destination", InvalidArgument, "FIELD_INVALID", got);
    request.destination = Some(v1::BatchDestination { key: other.into(), encryption_context: pairs(CONTEXT) });
    let moved = app.ask(request.clone()).await?;
    let opened = app.ask(batch_decrypt(other, &[moved.results[0].ciphertext.clone()], CONTEXT)).await?;
    expected.row(opened.results[0].error.is_some(), "without its new aad", "an error", "none");
    let mut open = decrypt(other, &moved.results[0].ciphertext, CONTEXT);
    open.aad = b"x".into();
    let opened = app.ask(open).await;
    expected.row(opened.is_ok_and(|opened| opened.plaintext == b"data"), "with it", "the data", "another");
    let unwrapped = app.ask(decrypt_data_key(other, &moved.results[1].ciphertext, CONTEXT)).await;
    expected.row(unwrapped.is_ok_and(|got| got.plaintext == dek.plaintext), "the data key", "the same", "another");
    // A data key never goes to another context; its neighbour does.
    request.destination =
        Some(v1::BatchDestination { key: other.into(), encryption_context: pairs(&[("table", "b")]) });
    let moved = app.ask(request.clone()).await?;
    let refused = is(moved.results[1].error.as_ref(), InvalidArgument, v1::ErrorReason::ContextInvalid);
    let right = refused && moved.results[0].error.is_none();
    expected.row(right, "a data key to another context", "CONTEXT_INVALID", &format!("{moved:?}"));
    request.destination = Some(v1::BatchDestination { key: "tenants/globex/keys/app".into(), ..Default::default() });
    expected.refused("to another tenant", InvalidArgument, "FIELD_INVALID", app.ask(request).await);
    expected.check();

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let of_ok = leaves(&records, "BatchReEncrypt").into_iter().filter(|leaf| leaf.res == Some(Outcome::Ok)).take(2);
    let told: Vec<_> = of_ok.map(|leaf| (leaf.kn.as_deref(), leaf.cnt, ids(leaf).len())).collect();
    assert_eq!(told, [(Some("app"), Some(2), 2), (Some("other"), Some(2), 2)], "a leaf under each key");
    crate::world::check(&site)
}

#[tokio::test]
async fn a_batch_of_which_nothing_could_be_done_is_answered_and_recorded_as_failed() -> Result<()> {
    let world = World::new().await?;
    let bad = vec![b"no blob at all".to_vec(); 1_001];
    let opened = world.app.ask(batch_decrypt(ACME_KEY, &bad, &[])).await?;
    let refused =
        |result: &v1::BatchDecryptResult| is(result.error.as_ref(), InvalidArgument, v1::ErrorReason::DecryptFailed);
    assert!(opened.results.len() == 1_001 && opened.results.iter().all(refused));
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let told: Vec<_> = leaves(&records, "BatchDecrypt").iter().map(|leaf| (leaf.cnt, leaf.fail, leaf.res)).collect();
    let failed = Some(Outcome::Failed);
    assert_eq!(told, [(Some(1_000), Some(1_000), failed), (Some(1), Some(1), failed)]);
    crate::world::check(&site)
}

#[tokio::test]
async fn a_batch_is_sealed_under_one_version_also_when_the_key_is_rotated_meanwhile() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (world.admin.clone(), &world.app);
    let rotating = tokio::spawn(async move {
        for _ in 0..200 {
            admin.ask(rotate_key(ACME_KEY)).await?;
        }
        Ok::<_, Refused>(())
    });
    let (mut batches, mut versions) = (0, std::collections::BTreeSet::new());
    while !rotating.is_finished() {
        let made = app.ask(batch_generate_data_keys(ACME_KEY, 10_000, &[])).await?;
        let version = made.key_version.to_be_bytes();
        let others = made.results.iter().filter(|result| result.wrapped_data_key[21..24] != version[1..]).count();
        assert_eq!(others, 0, "all of a batch are under version {}", made.key_version);
        batches += 1;
        versions.insert(made.key_version);
    }
    rotating.await??;
    println!("{batches} batches of 10,000 under {} versions, while the key was rotated 200 times", versions.len());
    assert!(versions.len() > 1, "it was rotated between batches");
    world.finish().await
}

#[tokio::test]
async fn answers_that_are_larger_than_their_questions_take_their_bytes_before_they_are_made() -> Result<()> {
    let site = Site::temporary()?;
    let settings = site.path("kms.toml");
    let text = std::fs::read_to_string(&settings)?;
    std::fs::write(&settings, format!("{text}\n[limits]\nbytes_in_flight = 8388608\n"))?;
    let world = World::at(site).await?;
    // Each asks for 10,000 data keys in 20 KB, and is answered with 1.8 MB.
    let ready = Arc::new(Barrier::new(24));
    let mut asking = JoinSet::new();
    for _ in 0..24 {
        let (caller, ready) = (world.daemon.caller("app")?, Arc::clone(&ready));
        asking.spawn(async move {
            caller.ask(generate_data_key(ACME_KEY, &[])).await?;
            ready.wait().await;
            caller.ask(batch_generate_data_keys(ACME_KEY, 10_000, &[])).await
        });
    }
    let (mut answered, mut refused) = (0, 0);
    for got in asking.join_all().await {
        match got {
            Ok(made) if made.results.len() == 10_000 => answered += 1,
            Err(error) if error.code == Unavailable && error.is("OVERLOADED") => refused += 1,
            other => panic!("{:?}", other.map(|made| made.results.len())),
        }
    }
    println!("of 24 answers of 1.8 MB at once with room for 8 MiB: {answered} given, {refused} refused");
    assert!(answered > 0 && refused > 0);
    // What was taken came back.
    for _ in 0..8 {
        world.app.ask(batch_generate_data_keys(ACME_KEY, 10_000, &[])).await?;
    }
    world.finish().await
}
