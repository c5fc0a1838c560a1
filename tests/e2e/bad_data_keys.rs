//! What bad input gets where managed data keys are asked for: a clear reason, nothing lost, other items unaffected.

use anyhow::{Context as _, Result};
use kms_proto::v1::{self, ErrorReason};
use kms_tests::request::*;
use tonic::Code;

use crate::data_keys::{GLOBEX_ROWS, OTHER_ROWS, ROW, ROWS, counts, world};
use crate::{ACME_KEY, Expected};

fn reasons(errors: impl Iterator<Item = Option<v1::ItemError>>) -> Vec<Option<ErrorReason>> {
    errors.map(|error| error.map(|error| error.reason())).collect()
}

#[tokio::test]
async fn a_key_is_not_used_for_what_it_is_not() -> Result<()> {
    let world = world().await?;
    let (admin, app) = (&world.admin, &world.app);
    admin.ask(create_key_for(crate::ACME, "mac", v1::KeyPurpose::Mac.into())).await?;
    let mac_key = "tenants/acme/keys/mac";
    let blob = app.ask(encrypt(ACME_KEY, b"x", ROW)).await?.ciphertext;
    let wrapped = app.ask(generate_data_key(ACME_KEY, ROW)).await?.wrapped_data_key;
    let uid = app.ask(create_data_key(ROWS, ROW)).await?.uid;
    let mut expected = Expected::of("purposes");
    let (code, reason) = (Code::InvalidArgument, "PURPOSE_NOT_SUPPORTED");
    macro_rules! not {
        ($caller:expr, $what:literal, $request:expr) => {
            expected.refused($what, code, reason, $caller.ask($request).await)
        };
    }
    for key in [ROWS, mac_key] {
        not!(app, "Encrypt", encrypt(key, b"x", ROW));
        not!(app, "Decrypt", decrypt(key, &blob, ROW));
        not!(app, "GenerateDataKey", generate_data_key(key, ROW));
        not!(app, "DecryptDataKey", decrypt_data_key(key, &wrapped, ROW));
        not!(app, "BatchEncrypt", batch_encrypt(key, &[b"x"], ROW));
        not!(app, "BatchDecrypt", batch_decrypt(key, std::slice::from_ref(&blob), ROW));
        not!(app, "BatchGenerateDataKeys", batch_generate_data_keys(key, 2, ROW));
        not!(app, "BatchDecryptDataKeys", batch_decrypt_data_keys(key, std::slice::from_ref(&wrapped), ROW));
    }
    not!(app, "GenerateMac", generate_mac(ROWS, b"x", ROW));
    not!(app, "BatchGenerateMacs", batch_generate_macs(ROWS, &[b"x"], ROW));
    for key in [ACME_KEY, mac_key] {
        not!(app, "CreateDataKey", create_data_key(key, ROW));
        not!(app, "GetDataKey", get_data_key(key, &uid, ROW));
        not!(app, "DestroyDataKey", destroy_data_key(key, &uid));
        not!(app, "BatchCreateDataKeys", batch_create_data_keys(key, 2, ROW));
        not!(app, "BatchGetDataKeys", batch_get_data_keys(key, std::slice::from_ref(&uid), ROW));
        not!(app, "BatchDestroyDataKeys", batch_destroy_data_keys(key, std::slice::from_ref(&uid)));
        not!(admin, "ListDataKeys", list_data_keys(key, 0, ""));
    }
    expected.works("the key that it is of", app.ask(get_data_key(ROWS, &uid, ROW)).await);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn a_data_key_is_found_only_by_its_uid_key_tenant_and_context() -> Result<()> {
    let world = world().await?;
    let app = &world.app;
    let mut request = create_data_key(ROWS, ROW);
    request.aad = b"aad".to_vec();
    let made = app.ask(request).await?;
    let get = |key: &str, uid: &[u8], context: &[(&str, &str)], aad: &[u8]| v1::GetDataKeyRequest {
        aad: aad.to_vec(),
        ..get_data_key(key, uid, context)
    };
    let mut expected = Expected::of("data keys that are not there");
    let uid = &made.uid[..];
    expected.works("itself", app.ask(get(ROWS, uid, ROW, b"aad")).await);
    for (what, key, uid) in [
        ("of another key", OTHER_ROWS, uid.to_vec()),
        ("of another tenant", GLOBEX_ROWS, uid.to_vec()),
        ("its neighbour", ROWS, [&uid[..15], &[uid[15] ^ 1]].concat()),
        ("none at all", ROWS, vec![0; 16]),
    ] {
        let (code, reason) = (Code::NotFound, "DATA_KEY_NOT_FOUND");
        expected.refused(what, code, reason, app.ask(get(key, &uid, ROW, b"aad")).await);
        expected.refused(what, code, reason, app.ask(destroy_data_key(key, &uid)).await);
        let got = app.ask(batch_get_data_keys(key, std::slice::from_ref(&uid), ROW)).await?.results;
        let found = reasons(got.into_iter().map(|one| one.error));
        expected.row(found == [Some(ErrorReason::DataKeyNotFound)], what, "no such item", &format!("{found:?}"));
        let gone = app.ask(batch_destroy_data_keys(key, &[uid])).await?.results;
        let found = reasons(gone.into_iter().map(|one| one.error));
        expected.row(found == [Some(ErrorReason::DataKeyNotFound)], what, "no such item", &format!("{found:?}"));
    }
    for (what, context, aad) in [
        ("another value", &[("tbl", "customers"), ("pk", "8")][..], &b"aad"[..]),
        ("a pair less", &[("pk", "7")], b"aad"),
        ("no pairs", &[], b"aad"),
        ("no aad", ROW, b""),
        ("another aad", ROW, b"aae"),
    ] {
        let got = app.ask(get(ROWS, uid, context, aad)).await;
        expected.refused(what, Code::InvalidArgument, "DECRYPT_FAILED", got);
        let mut many = batch_get_data_keys(ROWS, &[uid.to_vec(), uid.to_vec()], context);
        many.items[0].aad = aad.to_vec();
        let found = reasons(app.ask(many).await?.results.into_iter().map(|one| one.error));
        expected.row(found[0] == Some(ErrorReason::DecryptFailed), what, "DECRYPT_FAILED", &format!("{found:?}"));
    }
    for length in [0, 1, 15, 17, 32] {
        let (what, uid) = (format!("{length} bytes of uid"), vec![7; length]);
        let (code, reason) = (Code::InvalidArgument, "FIELD_INVALID");
        expected.refused(&what, code, reason, app.ask(get_data_key(ROWS, &uid, ROW)).await);
        expected.refused(&what, code, reason, app.ask(destroy_data_key(ROWS, &uid)).await);
    }
    expected.works("itself, after all that", app.ask(get(ROWS, uid, ROW, b"aad")).await);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn a_batch_has_1_to_10_000_items_and_each_its_own_fate() -> Result<()> {
    let world = world().await?;
    let app = &world.app;
    let mut expected = Expected::of("batches of data keys");
    let (code, reason) = (Code::InvalidArgument, "FIELD_INVALID");
    for count in [0, 10_001] {
        let (what, uids) = (format!("{count} items"), vec![vec![7; 16]; count]);
        expected.refused(&what, code, reason, app.ask(batch_create_data_keys(ROWS, count, ROW)).await);
        expected.refused(&what, code, reason, app.ask(batch_get_data_keys(ROWS, &uids, ROW)).await);
        expected.refused(&what, code, reason, app.ask(batch_destroy_data_keys(ROWS, &uids)).await);
        expected.refused(&what, code, reason, app.ask(batch_generate_data_keys(ACME_KEY, count, ROW)).await);
    }
    assert_eq!(counts(&world.admin, ROWS).await?[&1], 0, "nothing was made");
    let most = app.ask(batch_create_data_keys(ROWS, 10_000, ROW)).await?.results;
    let uids: Vec<Vec<u8>> = most.iter().map(|made| made.uid.clone()).collect();
    let got = app.ask(batch_get_data_keys(ROWS, &uids, ROW)).await?.results;
    let same = most.iter().zip(&got).all(|(made, got)| got.error.is_none() && made.plaintext == got.plaintext);
    expected.row(same && got.len() == 10_000, "10,000 items", "all of them, in order", "others");
    app.ask(batch_destroy_data_keys(ROWS, &uids)).await?;
    assert_eq!(counts(&world.admin, ROWS).await?[&1], 0);

    // One bad item among good ones, in each place.
    for bad in 0..3 {
        let mut request = batch_create_data_keys(ROWS, 3, ROW);
        request.items[bad].aad = vec![7; 257];
        let made = app.ask(request).await?.results;
        let found = reasons(made.iter().map(|one| one.error.clone()));
        let right = (0..3).all(|place| {
            let is_bad = place == bad;
            found[place] == is_bad.then_some(ErrorReason::ContextInvalid)
                && (made[place].uid.len(), made[place].plaintext.len()) == if is_bad { (0, 0) } else { (16, 32) }
        });
        expected.row(right, "making with an aad of 257 bytes", "one CONTEXT_INVALID", &format!("{found:?}"));
        let mut uids: Vec<Vec<u8>> = made.iter().map(|made| made.uid.clone()).collect();
        for (what, uid, aad, reason) in [
            ("a uid of 15 bytes", vec![7; 15], vec![], ErrorReason::FieldInvalid),
            ("a uid of nothing", vec![7; 16], vec![], ErrorReason::DataKeyNotFound),
            ("an aad of 257 bytes", vec![7; 16], vec![7; 257], ErrorReason::ContextInvalid),
        ] {
            uids[bad] = uid;
            let mut request = batch_get_data_keys(ROWS, &uids, ROW);
            request.items[bad].aad = aad;
            let got = app.ask(request).await?.results;
            let found = reasons(got.iter().map(|one| one.error.clone()));
            let right = (0..3).all(|place| {
                found[place] == (place == bad).then_some(reason)
                    && (place == bad || got[place].plaintext == made[place].plaintext)
            });
            expected.row(right, what, &format!("one {reason:?}"), &format!("{found:?}"));
        }
        uids[bad] = vec![7; 17];
        let gone = app.ask(batch_destroy_data_keys(ROWS, &uids)).await?.results;
        let found = reasons(gone.iter().map(|one| one.error.clone()));
        let right = (0..3).all(|place| found[place] == (place == bad).then_some(ErrorReason::FieldInvalid));
        expected.row(right, "destroying with a uid of 17 bytes", "one FIELD_INVALID", &format!("{found:?}"));
        assert_eq!(counts(&world.admin, ROWS).await?[&1], 0, "all good ones were destroyed");
    }
    // None is good: each says so, and nothing is made.
    let mut request = batch_create_data_keys(ROWS, 2, ROW);
    request.items.iter_mut().for_each(|item| item.aad = vec![7; 300]);
    let found = reasons(app.ask(request).await?.results.into_iter().map(|one| one.error));
    let bad = [Some(ErrorReason::ContextInvalid); 2];
    expected.row(found == bad, "making none that is good", "two CONTEXT_INVALID", &format!("{found:?}"));
    let gone = app.ask(batch_destroy_data_keys(ROWS, &[vec![], vec![1]])).await?.results;
    let found = reasons(gone.into_iter().map(|one| one.error));
    let bad = [Some(ErrorReason::FieldInvalid); 2];
    expected.row(found == bad, "destroying none that is one", "two FIELD_INVALID", &format!("{found:?}"));
    let got = app.ask(batch_get_data_keys(ROWS, &[vec![], vec![1]], ROW)).await?.results;
    let found = reasons(got.into_iter().map(|one| one.error));
    expected.row(found == bad, "getting none that is one", "two FIELD_INVALID", &format!("{found:?}"));
    assert_eq!(counts(&world.admin, ROWS).await?[&1], 0);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn a_repeated_call_gets_what_was_made_and_another_call_under_its_id_is_refused() -> Result<()> {
    let mut world = world().await?;
    let under = |id: &str, count: usize| v1::BatchCreateDataKeysRequest {
        request_id: id.into(),
        ..batch_create_data_keys(ROWS, count, ROW)
    };
    let mut with_bad = under("with-bad", 4);
    with_bad.items[2].aad = vec![7; 257];
    let first = world.app.ask(under("b-1", 1_500)).await?;
    let first_with_bad = world.app.ask(with_bad.clone()).await?;
    let single = v1::CreateDataKeyRequest { request_id: "s-1".into(), ..create_data_key(ROWS, ROW) };
    let first_single = world.app.ask(single.clone()).await?;
    let destroyed = vec![first.results[3].uid.clone(), first.results[1_200].uid.clone()];
    let destroy = v1::BatchDestroyDataKeysRequest {
        request_id: "d-1".into(),
        ..batch_destroy_data_keys(ROWS, &[destroyed.clone(), vec![vec![9; 16]]].concat())
    };
    let gone = world.app.ask(destroy.clone()).await?;
    for round in 0..3_u32 {
        let again = world.app.ask(under("b-1", 1_500)).await?;
        assert_eq!((again.key_version, again.lease), (round + 1, first.lease));
        for (place, (made, again)) in first.results.iter().zip(&again.results).enumerate() {
            if [3, 1_200].contains(&place) {
                let told = again.error.as_ref().context("it was destroyed meanwhile")?.reason();
                assert_eq!((told, again.plaintext.len()), (ErrorReason::DataKeyNotFound, 0));
            } else {
                assert_eq!(made, again, "item {place}");
            }
        }
        assert_eq!(world.app.ask(with_bad.clone()).await?.results, first_with_bad.results);
        let again = world.app.ask(single.clone()).await?;
        assert_eq!((&again.uid, &again.plaintext), (&first_single.uid, &first_single.plaintext));
        assert_eq!(world.app.ask(destroy.clone()).await?, gone, "as it was told first");
        assert_eq!(counts(&world.admin, ROWS).await?.values().sum::<u64>(), 1_500 + 3 + 1 - 2, "nothing twice");
        world.admin.ask(rotate_key(ROWS)).await?;
        crate::data_keys::moved(&world, ROWS, round + 2).await?;
        world = if round == 0 { world.crash().await? } else { world.restart().await? };
    }
    let mut expected = Expected::of("request ids");
    let (code, reason) = (Code::InvalidArgument, "REQUEST_ID_REUSED");
    let app = &world.app;
    expected.refused("one item more", code, reason, app.ask(under("b-1", 1_501)).await);
    let other = v1::BatchCreateDataKeysRequest { encryption_context: pairs(&[]), ..under("b-1", 1_500) };
    expected.refused("another context", code, reason, app.ask(other).await);
    let other = v1::BatchCreateDataKeysRequest { omit_plaintext: true, ..under("b-1", 1_500) };
    expected.refused("without the keys", code, reason, app.ask(other).await);
    let other = v1::BatchCreateDataKeysRequest { key: OTHER_ROWS.into(), ..under("b-1", 1_500) };
    expected.refused("another key", code, reason, app.ask(other).await);
    let mut other = under("b-1", 1_500);
    other.items[7].aad = b"x".to_vec();
    expected.refused("another aad", code, reason, app.ask(other).await);
    let other = v1::CreateDataKeyRequest { key: OTHER_ROWS.into(), ..single.clone() };
    expected.refused("a single one of another key", code, reason, app.ask(other).await);
    let other = v1::BatchDestroyDataKeysRequest {
        request_id: "d-1".into(),
        ..batch_destroy_data_keys(ROWS, std::slice::from_ref(&first_single.uid))
    };
    expected.refused("destroying another", code, reason, app.ask(other).await);
    // Somebody else's id is another one.
    let other = world.daemon.caller("inspector")?.ask(destroy.clone()).await?;
    let found = reasons(other.results.into_iter().map(|one| one.error));
    let told = [ErrorReason::DataKeyDestroyed, ErrorReason::DataKeyDestroyed, ErrorReason::DataKeyNotFound].map(Some);
    expected.row(found == told, "somebody else", "his own call", &format!("{found:?}"));
    for id in ["r 1", &"x".repeat(65), "é"] {
        let got = app.ask(under(id, 2)).await;
        expected.refused(&format!("the id {id:?}"), Code::InvalidArgument, "FIELD_INVALID", got);
    }
    // What is only validated makes nothing, and takes no id.
    let shown = v1::BatchCreateDataKeysRequest { validate_only: true, ..under("v-1", 3) };
    let shown = app.ask(shown).await?;
    let empty = shown.results.iter().all(|one| one.uid.is_empty() && one.plaintext.is_empty() && one.error.is_none());
    expected.row(empty && shown.results.len() == 3, "validated only", "no uids", &format!("{shown:?}"));
    let shown = v1::DestroyDataKeyRequest { validate_only: true, ..destroy_data_key(ROWS, &first_single.uid) };
    expected.works("a destruction validated only", app.ask(shown).await);
    expected.works("which is still there", app.ask(get_data_key(ROWS, &first_single.uid, ROW)).await);
    expected.check();
    assert_eq!(counts(&world.admin, ROWS).await?.values().sum::<u64>(), 1_502);
    world.finish().await
}
