//! Ciphertexts that do not open: changed ones, others' ones, wrong contexts, wrong kinds. Whoever tries
//! them learns nothing of why.

use std::collections::BTreeMap;

use anyhow::Result;
use kms_tests::request::*;
use tonic::Code::InvalidArgument;

use crate::{ACME, ACME_KEY, Expected, GLOBEX_KEY, World};

const CONTEXT: &[(&str, &str)] = &[("table", "customers"), ("row", "7")];

#[tokio::test]
async fn what_does_not_open() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    admin.ask(create_key(ACME, "other")).await?;
    let other_key = "tenants/acme/keys/other";
    let blob = app.ask(encrypt(ACME_KEY, b"secret", CONTEXT)).await?.ciphertext;
    let wrapped = app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?.wrapped_data_key;
    // As long as a wrapped data key, so that only its kind tells it apart.
    let long_as_wrapped = app.ask(encrypt(ACME_KEY, &[7; 32], CONTEXT)).await?.ciphertext;
    assert_eq!(long_as_wrapped.len(), wrapped.len());
    let mut expected = Expected::of("what does not open");
    let mut sentences = BTreeMap::new();

    let contexts: [(&str, &[(&str, &str)]); 8] = [
        ("no context", &[]),
        ("another value", &[("table", "customers"), ("row", "8")]),
        ("a pair less", &[("table", "customers")]),
        ("a pair more", &[("table", "customers"), ("row", "7"), ("x", "")]),
        ("name and value exchanged", &[("customers", "table"), ("row", "7")]),
        ("values exchanged", &[("table", "7"), ("row", "customers")]),
        ("another case", &[("Table", "customers"), ("row", "7")]),
        ("a space more", &[("table", "customers "), ("row", "7")]),
    ];
    let mut attempts = Vec::new();
    for (what, context) in contexts {
        attempts.push((format!("Decrypt: {what}"), decrypt(ACME_KEY, &blob, context)));
    }
    let mut with_aad = decrypt(ACME_KEY, &blob, CONTEXT);
    with_aad.aad = b"x".into();
    attempts.push(("Decrypt: aad that did not seal".into(), with_aad));
    attempts.push(("Decrypt: another tenant's blob".into(), decrypt(GLOBEX_KEY, &blob, CONTEXT)));
    attempts.push(("Decrypt: another key's blob".into(), decrypt(other_key, &blob, CONTEXT)));
    // Behind the first 5 bytes, which say that it is ours and what kind; those have their own rows.
    for at in [5, 20, 21, 23, 24, 36, 48, 80, blob.len() - 17, blob.len() - 1] {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        attempts.push((format!("Decrypt: byte {at} changed"), decrypt(ACME_KEY, &changed, CONTEXT)));
    }
    attempts.push(("Decrypt: a byte less".into(), decrypt(ACME_KEY, &blob[..blob.len() - 1], CONTEXT)));
    attempts.push(("Decrypt: a byte more".into(), decrypt(ACME_KEY, &[&blob[..], &[0]].concat(), CONTEXT)));
    for (what, attempt) in attempts {
        let got = app.ask(attempt).await;
        if let Err(refused) = &got {
            *sentences.entry(refused.message.clone()).or_insert(0) += 1;
        }
        // A version that a changed byte names may not exist, which is no secret: versions are listed.
        if what.ends_with("byte 21 changed") || what.ends_with("byte 23 changed") {
            let right = got.as_ref().is_err_and(|r| r.is("DECRYPT_FAILED") || r.is("VERSION_NOT_FOUND"));
            expected.row(right, &what, "DECRYPT_FAILED or VERSION_NOT_FOUND", &format!("{got:?}"));
        } else {
            expected.refused(&what, InvalidArgument, "DECRYPT_FAILED", got);
        }
    }
    let mut unwrap = Vec::new();
    for (what, context) in contexts {
        unwrap.push((format!("DecryptDataKey: {what}"), decrypt_data_key(ACME_KEY, &wrapped, context)));
    }
    unwrap.push(("DecryptDataKey: another tenant's".into(), decrypt_data_key(GLOBEX_KEY, &wrapped, CONTEXT)));
    unwrap.push(("DecryptDataKey: another key's".into(), decrypt_data_key(other_key, &wrapped, CONTEXT)));
    for (what, attempt) in unwrap {
        expected.refused(&what, InvalidArgument, "DECRYPT_FAILED", app.ask(attempt).await);
    }
    let moved = app.ask(re_encrypt(ACME_KEY, &blob, &[])).await;
    expected.refused("ReEncrypt: no context", InvalidArgument, "DECRYPT_FAILED", moved);
    let moved = app.ask(re_encrypt(GLOBEX_KEY, &blob, CONTEXT)).await;
    expected.refused("ReEncrypt: another tenant's", InvalidArgument, "DECRYPT_FAILED", moved);
    let moved = app.ask(move_to(ACME_KEY, &blob, CONTEXT, GLOBEX_KEY, CONTEXT)).await;
    expected.refused("ReEncrypt: to another tenant", InvalidArgument, "FIELD_INVALID", moved);

    let (wrong, kind) = (InvalidArgument, "WRONG_KIND");
    expected.refused("Decrypt: a wrapped data key", wrong, kind, app.ask(decrypt(ACME_KEY, &wrapped, CONTEXT)).await);
    let data = app.ask(decrypt_data_key(ACME_KEY, &long_as_wrapped, CONTEXT)).await;
    expected.refused("DecryptDataKey: sealed data", wrong, kind, data);
    for client_kind in [3, 4, 5, 6] {
        let mut field = blob.clone();
        field[4] = client_kind;
        let what = format!("Decrypt: kind {client_kind:02}, which clients make");
        expected.refused(&what, wrong, kind, app.ask(decrypt(ACME_KEY, &field, CONTEXT)).await);
        let what = format!("ReEncrypt: kind {client_kind:02}, which clients make");
        expected.refused(&what, wrong, kind, app.ask(re_encrypt(ACME_KEY, &field, CONTEXT)).await);
    }
    // Not ours at all, or of no kind that there is: a mistake of the caller either way.
    let mut no_kind = blob.clone();
    no_kind[4] = 0xff;
    let mut other_suite = blob.clone();
    other_suite[3] = 2;
    let mut no_magic = blob.clone();
    no_magic[0] ^= 1;
    for (what, bytes) in [
        ("a kind that does not exist", &no_kind[..]),
        ("another suite", &other_suite[..]),
        ("not one of ours", &no_magic[..]),
        ("empty", &[]),
        ("95 bytes", &blob[..95]),
        ("text", b"hello"),
        ("zeros", &[0; 128]),
    ] {
        let got = app.ask(decrypt(ACME_KEY, bytes, CONTEXT)).await;
        let reasons = ["DECRYPT_FAILED", "FIELD_INVALID", "WRONG_KIND"];
        let right = got.as_ref().is_err_and(|r| r.code == InvalidArgument && reasons.iter().any(|reason| r.is(reason)));
        expected.row(right, &format!("Decrypt: {what}"), "INVALID_ARGUMENT with a reason", &format!("{got:?}"));
    }
    expected.works("the blob itself", app.ask(decrypt(ACME_KEY, &blob, CONTEXT)).await);
    expected.works("the data key itself", app.ask(decrypt_data_key(ACME_KEY, &wrapped, CONTEXT)).await);
    // One public error: whoever tries ciphertexts learns nothing of why they fail.
    sentences.retain(|sentence, _| !sentence.contains("version"));
    expected.row(sentences.len() == 1, "one sentence for every failure to open", "1", &format!("{sentences:?}"));
    expected.check();
    world.finish().await
}
