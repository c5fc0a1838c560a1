//! Every truncation and every bit flip of a blob through every call that takes one, and garbage of every length: nothing
//! opens, whoever tries learns nothing of why, and the audit log has the exact cause.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use kms_server::audit::Outcome;
use kms_server::noun::Random as _;
use kms_server::noun::random::OsRandom;
use kms_tests::Rpc;
use kms_tests::records::Records;
use kms_tests::request::*;
use tonic::Code::InvalidArgument;

use crate::{ACME, ACME_KEY, GLOBEX_KEY, World};

const CONTEXT: &[(&str, &str)] = &[("table", "customers"), ("row", "7")];

/// A blob that must not open, and the cause that the log must have.
struct Attempt {
    what: String,
    key: &'static str,
    blob: Vec<u8>,
    why: &'static str,
}

/// What the answer says where the blob says itself that it is of a kind for another call; there is no secret in that.
const WRONG_KIND: &str = "WRONG_KIND";

/// The layout of a blob: `H(24) || S(12) || IV(12) || C(32) || CT || T(16)`, and of its header.
fn cause_of_flip(at: usize, changed: &[u8]) -> &'static str {
    match at {
        0..3 => "DECRYPT_FAILED:magic",
        3 => "DECRYPT_FAILED:suite",
        // Kinds 01 to 07 are callers' own: of that they are told.
        4 if (1..=7).contains(&changed[4]) => WRONG_KIND,
        4 => "DECRYPT_FAILED:kind",
        5..21 => "DECRYPT_FAILED:key",
        21..24 => "DECRYPT_FAILED:version",
        // The salt, and the commitment itself. The IV is no part of what is committed to.
        24..36 | 48..80 => "DECRYPT_FAILED:commitment",
        _ => "DECRYPT_FAILED:tag",
    }
}

fn attempts(blob: &[u8], other_kind: &[u8], random: &mut Vec<Vec<u8>>) -> Vec<Attempt> {
    let attempt = |what: String, blob: Vec<u8>, why| Attempt { what, key: ACME_KEY, blob, why };
    let mut attempts = Vec::new();
    for length in 0..blob.len() {
        // What is whole but for its end has lost its tag.
        let why = if length < 96 { "DECRYPT_FAILED:short" } else { "DECRYPT_FAILED:tag" };
        attempts.push(attempt(format!("its first {length} bytes"), blob[..length].to_vec(), why));
    }
    for bit in 0..blob.len() * 8 {
        let mut changed = blob.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let why = cause_of_flip(bit / 8, &changed);
        attempts.push(attempt(format!("bit {bit} flipped"), changed, why));
    }
    attempts.push(attempt("a byte more".into(), [blob, &[0]].concat(), "DECRYPT_FAILED:tag"));
    attempts.push(attempt("twice".into(), [blob, blob].concat(), "DECRYPT_FAILED:tag"));
    for garbage in random.drain(..) {
        let why = if garbage.len() < 24 { "DECRYPT_FAILED:short" } else { "DECRYPT_FAILED:magic" };
        attempts.push(attempt(format!("garbage of {} bytes", garbage.len()), garbage, why));
    }
    for (what, key) in [("another key's", "tenants/acme/keys/other"), ("another tenant's", GLOBEX_KEY)] {
        attempts.push(Attempt { key, ..attempt(what.into(), blob.to_vec(), "DECRYPT_FAILED:key") });
    }
    if !other_kind.is_empty() {
        attempts.push(attempt("of the other kind".into(), other_kind.to_vec(), WRONG_KIND));
    }
    attempts
}

fn garbage() -> Vec<Vec<u8>> {
    let of_length = |length: usize| {
        let mut bytes = vec![0; length];
        OsRandom::new().fill(&mut bytes);
        // One in 16 million would begin as ours do.
        if let Some(first) = bytes.first_mut() {
            *first |= 1;
        }
        bytes
    };
    (0..=200).map(of_length).collect()
}

#[tokio::test]
async fn nothing_opens_that_was_changed_anywhere() -> Result<()> {
    let world = World::new().await?;
    world.admin.ask(create_key(ACME, "other")).await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"data", CONTEXT)).await?.ciphertext;
    let wrapped = world.app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?.wrapped_data_key;
    let mut sentences = BTreeSet::new();

    let data = attempts(&blob, &wrapped, &mut garbage());
    let decrypted = try_all(&world, &data, |a| decrypt(a.key, &a.blob, CONTEXT), &mut sentences).await?;
    let keys = attempts(&wrapped, &blob, &mut garbage());
    let unwrapped = try_all(&world, &keys, |a| decrypt_data_key(a.key, &a.blob, CONTEXT), &mut sentences).await?;
    // It takes both kinds, so that neither is wrong.
    let mut both = attempts(&blob, &[], &mut garbage());
    both.extend(attempts(&wrapped, &[], &mut Vec::new()));
    let moved = try_all(&world, &both, |a| re_encrypt(a.key, &a.blob, CONTEXT), &mut sentences).await?;
    println!("changed blobs: {} tried, 0 opened", decrypted + unwrapped + moved);

    // One public error for all that says nothing of itself; one more for what says that it is of another kind.
    ensure!(sentences.len() == 2, "{sentences:?}");
    world.app.ask(decrypt(ACME_KEY, &blob, CONTEXT)).await?;
    world.app.ask(decrypt_data_key(ACME_KEY, &wrapped, CONTEXT)).await?;
    ensure!(world.daemon.probe("/readyz").await? == 200);
    world.finish().await
}

/// Tries all, one after the other, then looks up each one's record. Returns how many there were.
async fn try_all<R: Rpc>(
    world: &World,
    attempts: &[Attempt],
    request: impl Fn(&Attempt) -> R,
    sentences: &mut BTreeSet<(String, String)>,
) -> Result<usize> {
    let before = Records::read(world.daemon.site())?.leaves.len();
    let mut opened = Vec::new();
    for attempt in attempts {
        let expected = if attempt.why == WRONG_KIND { WRONG_KIND } else { "DECRYPT_FAILED" };
        match world.app.ask(request(attempt)).await {
            Ok(_) => opened.push(&attempt.what),
            Err(refused) => {
                ensure!(
                    refused.code == InvalidArgument && refused.is(expected),
                    "{}: {}: expected {expected}, got {refused}",
                    R::NAME,
                    attempt.what
                );
                sentences.insert((expected.to_owned(), refused.message));
            }
        }
    }
    ensure!(opened.is_empty(), "{}: these opened: {opened:?}", R::NAME);
    let records = Records::read(world.daemon.site())?;
    let ours: Vec<_> = records.leaves[before..].iter().map(|stored| &stored.leaf).collect();
    ensure!(ours.len() == attempts.len(), "{}: {} records of {} attempts", R::NAME, ours.len(), attempts.len());
    let mut causes = BTreeMap::new();
    for (leaf, attempt) in ours.into_iter().zip(attempts) {
        let why = leaf.why.as_deref().context("a failure has its cause")?;
        ensure!(
            (leaf.op.as_deref(), leaf.res, why) == (Some(R::NAME), Some(Outcome::Failed), attempt.why),
            "{}: {}: expected {}, the record is {leaf:?}",
            R::NAME,
            attempt.what,
            attempt.why
        );
        *causes.entry(why.trim_start_matches("DECRYPT_FAILED:").to_owned()).or_insert(0) += 1;
    }
    println!("{}: {} changed blobs, 0 opened, each with its cause in the log: {causes:?}", R::NAME, attempts.len());
    Ok(attempts.len())
}
