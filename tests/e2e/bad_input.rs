//! What bad input gets: a clear refusal with its reason, and nothing else. Each row is a request
//! with the code and reason it should get, beside a neighbour that should work.

use std::collections::BTreeMap;

use anyhow::Result;
use kms_proto::v1;
use kms_tests::request::*;
use kms_tests::wire::send_bytes;
use kms_tests::{Binding, Caller, Daemon, Listener, Settings, Site};
use prost::Message as _;
use tonic::Code::{
    AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unimplemented,
};

use crate::{ACME, ACME_KEY, Expected, GLOBEX, GLOBEX_KEY, World, refused};

const CONTEXT: &[(&str, &str)] = &[("table", "customers"), ("row", "7")];

#[tokio::test]
async fn what_does_not_exist_or_was_destroyed() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    let blob = app.ask(encrypt(ACME_KEY, b"secret", CONTEXT)).await?.ciphertext;
    let mut expected = Expected::of("what does not exist or was destroyed");

    for (what, key, reason) in [
        ("unknown tenant", "tenants/nobody/keys/app", "TENANT_NOT_FOUND"),
        ("unknown key", "tenants/acme/keys/nothing", "KEY_NOT_FOUND"),
        ("a name in other case", "tenants/acme/keys/App", "KEY_NOT_FOUND"),
        ("a tenant in other case", "tenants/Acme/keys/app", "TENANT_NOT_FOUND"),
    ] {
        expected.refused(&format!("Encrypt: {what}"), NotFound, reason, app.ask(encrypt(key, b"x", &[])).await);
        expected.refused(&format!("Decrypt: {what}"), NotFound, reason, app.ask(decrypt(key, &blob, CONTEXT)).await);
        expected.refused(
            &format!("ReEncrypt: {what}"),
            NotFound,
            reason,
            app.ask(re_encrypt(key, &blob, CONTEXT)).await,
        );
        expected.refused(
            &format!("GenerateDataKey: {what}"),
            NotFound,
            reason,
            app.ask(generate_data_key(key, &[])).await,
        );
        expected.refused(&format!("GetKey: {what}"), NotFound, reason, admin.ask(get_key(key)).await);
        expected.refused(&format!("RotateKey: {what}"), NotFound, reason, admin.ask(rotate_key(key)).await);
    }
    let nobody = "tenants/nobody";
    expected.refused("GetTenant: unknown", NotFound, "TENANT_NOT_FOUND", admin.ask(get_tenant(nobody)).await);
    expected.refused(
        "CreateKey: unknown tenant",
        NotFound,
        "TENANT_NOT_FOUND",
        admin.ask(create_key(nobody, "k")).await,
    );
    expected.refused(
        "ListKeys: unknown tenant",
        NotFound,
        "TENANT_NOT_FOUND",
        admin.ask(list_keys(nobody, 0, "")).await,
    );
    expected.refused(
        "DestroyTenant: unknown",
        NotFound,
        "TENANT_NOT_FOUND",
        admin.ask(destroy_tenant(nobody, None)).await,
    );
    let version = admin.ask(disable_key("tenants/acme/keys/app/versions/2")).await;
    expected.refused("unknown version", NotFound, "VERSION_NOT_FOUND", version);

    expected.refused("a tenant twice", AlreadyExists, "TENANT_ALREADY_EXISTS", admin.ask(create_tenant("acme")).await);
    expected.refused("a key twice", AlreadyExists, "KEY_ALREADY_EXISTS", admin.ask(create_key(ACME, "app")).await);

    admin.ask(destroy_tenant(ACME, seconds(0))).await?;
    let (gone, reason) = (FailedPrecondition, "TENANT_DESTROYED");
    expected.refused("Encrypt for a destroyed tenant", gone, reason, app.ask(encrypt(ACME_KEY, b"x", &[])).await);
    expected.refused("Decrypt for a destroyed tenant", gone, reason, app.ask(decrypt(ACME_KEY, &blob, CONTEXT)).await);
    expected.refused(
        "GenerateDataKey for a destroyed tenant",
        gone,
        reason,
        app.ask(generate_data_key(ACME_KEY, &[])).await,
    );
    expected.refused("CreateKey for a destroyed tenant", gone, reason, admin.ask(create_key(ACME, "new")).await);
    expected.refused("GetKey of a destroyed tenant", gone, reason, admin.ask(get_key(ACME_KEY)).await);
    expected.refused("ListKeys of a destroyed tenant", gone, reason, admin.ask(list_keys(ACME, 0, "")).await);
    expected.refused("resume a destroyed tenant", gone, reason, admin.ask(resume_tenant(ACME)).await);
    expected.refused("cancel a destroyed tenant", gone, reason, admin.ask(cancel_tenant_destruction(ACME)).await);
    expected.refused("destroy a destroyed tenant", gone, reason, admin.ask(destroy_tenant(ACME, seconds(0))).await);
    let again = admin.ask(create_tenant("acme")).await;
    expected.refused("the name of a destroyed tenant", FailedPrecondition, "NAME_WAS_DESTROYED", again);
    expected.works("GetTenant of a destroyed tenant", admin.ask(get_tenant(ACME)).await);
    expected.works("the other tenant", app.ask(encrypt(GLOBEX_KEY, b"x", &[])).await);
    expected.check();
    world.finish().await
}

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

#[tokio::test]
async fn what_is_too_large_or_too_much() -> Result<()> {
    let world = World::new().await?;
    let app = &world.app;
    let mut expected = Expected::of("what is too large or too much");

    let largest = vec![7; 65_536];
    let sealed = app.ask(encrypt(ACME_KEY, &largest, &[])).await?.ciphertext;
    assert_eq!(sealed.len(), 65_632);
    let opened = app.ask(decrypt(ACME_KEY, &sealed, &[])).await;
    expected.row(opened.is_ok_and(|opened| opened.plaintext == largest), "exactly 64 KiB", "the plaintext", "another");
    let larger = app.ask(encrypt(ACME_KEY, &[7; 65_537], &[])).await;
    expected.refused("64 KiB and a byte", InvalidArgument, "PLAINTEXT_TOO_LARGE", larger);
    let moved = app.ask(re_encrypt(ACME_KEY, &sealed, &[])).await;
    expected.works("ReEncrypt of exactly 64 KiB", moved);

    let many = |count: usize| -> BTreeMap<String, String> {
        (0..count).map(|n| (format!("name{n}"), String::new())).collect()
    };
    // 7 + tenant (4) + aad, 2 for the count of pairs, 4 + name + value for each.
    let of_bytes = |bytes: usize| {
        let rest = bytes - (7 + 4) - 2 - (4 + 1 + 4_096) - (4 + 1);
        pairs(&[("a", &"x".repeat(4_096)), ("b", &"y".repeat(rest))])
    };
    let aad_of_bytes = |bytes: usize| vec![0; bytes - (7 + 4)];
    let sealing = |pairs: BTreeMap<String, String>, aad: Vec<u8>| v1::EncryptRequest {
        key: ACME_KEY.into(),
        plaintext: b"x".into(),
        encryption_context: pairs,
        aad,
    };
    let one = |name: &str, value: &str| sealing(pairs(&[(name, value)]), Vec::new());
    for (what, request) in [
        ("32 pairs", sealing(many(32), Vec::new())),
        ("8,192 bytes of pairs", sealing(of_bytes(8_192), Vec::new())),
        ("8,192 bytes of aad", sealing(BTreeMap::new(), aad_of_bytes(8_192))),
        ("a name of 256 bytes", one(&"n".repeat(256), "v")),
        ("a value of 4,096 bytes", one("n", &"v".repeat(4_096))),
        ("an empty value", one("n", "")),
        ("a name like ours, but not", one("kms", "v")),
        ("a name like ours in other case", one("KMS1", "v")),
        ("any text", one("Straße/\u{1f512}", "\n\t\"\\")),
    ] {
        expected.works(what, app.ask(request).await);
    }
    for (what, request) in [
        ("33 pairs", sealing(many(33), Vec::new())),
        ("8,193 bytes of pairs", sealing(of_bytes(8_193), Vec::new())),
        ("8,193 bytes of aad", sealing(BTreeMap::new(), aad_of_bytes(8_193))),
        ("8,193 bytes of both", sealing(of_bytes(8_192), vec![0])),
        ("an empty name", one("", "v")),
        ("a name of 257 bytes", one(&"n".repeat(257), "v")),
        ("a value of 4,097 bytes", one("n", &"v".repeat(4_097))),
        ("a reserved name", one("kms1-dek", "v")),
        ("the bare reserved name", one("kms1", "v")),
        ("a name with U+0000", one("a\0b", "v")),
        ("a value with U+0000", one("n", "a\0b")),
    ] {
        let opening = v1::DecryptRequest {
            key: request.key.clone(),
            ciphertext: sealed.clone(),
            encryption_context: request.encryption_context.clone(),
            aad: request.aad.clone(),
        };
        let making = v1::GenerateDataKeyRequest {
            key: request.key.clone(),
            omit_plaintext: false,
            encryption_context: request.encryption_context.clone(),
            aad: request.aad.clone(),
        };
        expected.refused(&format!("Encrypt: {what}"), InvalidArgument, "CONTEXT_INVALID", app.ask(request).await);
        expected.refused(&format!("Decrypt: {what}"), InvalidArgument, "CONTEXT_INVALID", app.ask(opening).await);
        expected.refused(
            &format!("GenerateDataKey: {what}"),
            InvalidArgument,
            "CONTEXT_INVALID",
            app.ask(making).await,
        );
    }
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn names_that_are_none() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    let mut expected = Expected::of("names that are none");
    let (long, longest) = ("x".repeat(65), "x".repeat(64));

    for id in ["", "-a", ".a", "_a", "~a", "a/b", "a b", "a*", "*", "é", "a\0", "a\n", "..", &long] {
        let got = admin.ask(create_tenant(id)).await;
        expected.refused(&format!("CreateTenant {id:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(create_key(ACME, id)).await;
        expected.refused(&format!("CreateKey {id:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    for id in ["a", "0", "A.b_c~d-e", &longest] {
        expected.works(&format!("CreateTenant {id:?}"), admin.ask(create_tenant(id)).await);
        expected.works(&format!("CreateKey {id:?}"), admin.ask(create_key(ACME, id)).await);
    }
    for key in [
        "",
        "app",
        "tenants",
        "tenants/acme",
        "tenants/acme/",
        "tenants/acme/keys",
        "tenants/acme/keys/",
        "tenants//keys/app",
        "tenants/acme/keys/app/",
        "/tenants/acme/keys/app",
        "tenants/acme/keys/app/versions/1",
        "tenants/acme/key/app",
        "Tenants/acme/keys/app",
        "tenants/acme/Keys/app",
        "tenants/acme/keys/app ",
        "tenants/ac me/keys/app",
        "tenants/acme/keys/../app",
        "tenants/acme/keys/*",
        "tenants/*/keys/app",
        "tenants/-/keys/app",
        "tenants/acme/keys/app\0",
        "tenants/acme/keys/äpp",
        "spiffe://test.example/app",
    ] {
        let got = app.ask(encrypt(key, b"x", &[])).await;
        expected.refused(&format!("Encrypt {key:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(get_key(key)).await;
        expected.refused(&format!("GetKey {key:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    for version in ["0", "01", "-1", "+1", "1.0", "x", "", "16777216", "4294967297", "18446744073709551617"] {
        let name = format!("{ACME_KEY}/versions/{version}");
        let got = admin.ask(disable_key(&name)).await;
        expected.refused(&format!("DisableKey version {version:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    let got = admin.ask(disable_key(&format!("{ACME_KEY}/versions/16777215"))).await;
    expected.refused("the greatest version there can be", NotFound, "VERSION_NOT_FOUND", got);
    for tenant in ["", "acme", "tenants/", "tenants/acme/", "tenants/acme/keys/app", "tenants/a b"] {
        let got = admin.ask(get_tenant(tenant)).await;
        expected.refused(&format!("GetTenant {tenant:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(create_key(tenant, "new")).await;
        expected.refused(&format!("CreateKey in {tenant:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(list_keys(tenant, 0, "")).await;
        expected.refused(&format!("ListKeys of {tenant:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn fields_out_of_their_limits() -> Result<()> {
    let world = World::new().await?;
    let admin = &world.admin;
    let mut expected = Expected::of("fields out of their limits");
    let (bad, field) = (InvalidArgument, "FIELD_INVALID");

    for purpose in [v1::KeyPurpose::Managed, v1::KeyPurpose::Mac] {
        let got = admin.ask(create_key_for(ACME, "new", purpose.into())).await;
        expected.refused(&format!("purpose {purpose:?}"), bad, "PURPOSE_NOT_SUPPORTED", got);
    }
    expected.refused("no purpose", bad, field, admin.ask(create_key_for(ACME, "new", 0)).await);
    for purpose in [99, -1] {
        let got = admin.ask(create_key_for(ACME, "new", purpose)).await;
        let right = got.as_ref().is_err_and(|r| r.code == bad && (r.is(field) || r.is("PURPOSE_NOT_SUPPORTED")));
        expected.row(
            right,
            &format!("purpose {purpose}"),
            "FIELD_INVALID or PURPOSE_NOT_SUPPORTED",
            &format!("{got:?}"),
        );
    }
    let labelled = |labels: BTreeMap<String, String>| {
        let mut request = create_key(ACME, "labelled");
        request.labels = labels;
        request
    };
    let numbered =
        |count: usize| -> BTreeMap<String, String> { (0..count).map(|n| (format!("l{n}"), String::new())).collect() };
    expected.refused("65 labels", bad, field, admin.ask(labelled(numbered(65))).await);
    expected.refused("a label's name that is none", bad, field, admin.ask(labelled(pairs(&[("a b", "")]))).await);
    expected.refused("a label of 257 bytes", bad, field, admin.ask(labelled(pairs(&[("a", &"v".repeat(257))]))).await);
    expected.refused("a label with U+0000", bad, field, admin.ask(labelled(pairs(&[("a", "\0")]))).await);
    expected.works("64 labels", admin.ask(labelled(numbered(64))).await);

    expected.refused("a mask of nothing", bad, field, admin.ask(update_key(ACME_KEY, &[], &[])).await);
    expected.refused("a mask of the state", bad, field, admin.ask(update_key(ACME_KEY, &[], &["state"])).await);
    expected.refused("a mask of more", bad, field, admin.ask(update_key(ACME_KEY, &[], &["labels", "purpose"])).await);
    let no_mask = v1::UpdateKeyRequest { update_mask: None, ..update_key(ACME_KEY, &[], &[]) };
    expected.refused("no mask", bad, field, admin.ask(no_mask).await);
    expected.refused(
        "no key",
        bad,
        field,
        admin.ask(v1::UpdateKeyRequest { key: None, ..update_key("", &[], &["labels"]) }).await,
    );

    for size in [-1, 1001, i32::MIN, i32::MAX] {
        expected.refused(&format!("a page of {size} keys"), bad, field, admin.ask(list_keys(ACME, size, "")).await);
        expected.refused(&format!("a page of {size} tenants"), bad, field, admin.ask(list_tenants(size, "")).await);
        let got = admin.ask(list_key_versions(ACME_KEY, size, "")).await;
        expected.refused(&format!("a page of {size} versions"), bad, field, got);
    }
    let year = 365 * 86_400;
    for (what, wait) in [
        ("a negative wait", prost_types::Duration { seconds: -1, nanos: 0 }),
        ("a wait of -1 ns", prost_types::Duration { seconds: 0, nanos: -1 }),
        ("a wait of mixed signs", prost_types::Duration { seconds: 1, nanos: -1 }),
        ("a wait with too many ns", prost_types::Duration { seconds: 1, nanos: 1_000_000_000 }),
    ] {
        let got = admin.ask(schedule_key_destruction(ACME_KEY, Some(wait))).await;
        expected.refused(&format!("{what} (key)"), bad, field, got);
        expected.refused(&format!("{what} (tenant)"), bad, field, admin.ask(destroy_tenant(ACME, Some(wait))).await);
    }
    for wait in [year + 1, i64::MAX] {
        let got = admin.ask(destroy_tenant(ACME, seconds(wait))).await;
        expected.refused(&format!("a wait of {wait} s"), bad, "WAIT_TOO_LONG", got);
    }
    let mut negative_nanos = destroy_tenant(ACME, seconds(0));
    negative_nanos.wait = Some(prost_types::Duration { seconds: year, nanos: 1 });
    expected.refused("a year and 1 ns", bad, "WAIT_TOO_LONG", admin.ask(negative_nanos).await);
    expected.works("a year", admin.ask(schedule_key_destruction(ACME_KEY, seconds(year))).await);
    // Nothing of all this has touched the tenant.
    let tenant = admin.ask(get_tenant(ACME)).await?.tenant.unwrap();
    expected.row(tenant.state() == v1::TenantState::Active, "the tenant afterwards", "ACTIVE", &format!("{tenant:?}"));
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn a_wait_that_the_settings_forbid_is_refused() -> Result<()> {
    let settings = Settings { wait_min: "1h".into(), ..Settings::default() };
    let world = World::with(&settings).await?;
    let admin = &world.admin;
    for wait in [0, 1, 3_599] {
        refused(InvalidArgument, "WAIT_TOO_SHORT", admin.ask(destroy_tenant(ACME, seconds(wait))).await);
        refused(InvalidArgument, "WAIT_TOO_SHORT", admin.ask(schedule_key_destruction(ACME_KEY, seconds(wait))).await);
    }
    world.app.ask(encrypt(ACME_KEY, b"still here", &[])).await?;
    admin.ask(schedule_key_destruction(ACME_KEY, seconds(3_600))).await?;
    admin.ask(destroy_tenant(GLOBEX, seconds(3_600))).await?;
    world.finish().await
}

#[tokio::test]
async fn page_tokens_of_another_list() -> Result<()> {
    let world = World::new().await?;
    let admin = &world.admin;
    for tenant in [ACME, GLOBEX] {
        admin.ask(create_key(tenant, "second")).await?;
        admin.ask(rotate_key(&format!("{tenant}/keys/app"))).await?;
    }
    let tenants = admin.ask(list_tenants(1, "")).await?.next_page_token;
    let keys = admin.ask(list_keys(ACME, 1, "")).await?.next_page_token;
    let versions = admin.ask(list_key_versions(ACME_KEY, 1, "")).await?.next_page_token;
    let mut expected = Expected::of("page tokens of another list");
    let (bad, reason) = (InvalidArgument, "PAGE_TOKEN_INVALID");

    expected.refused("of the tenants, for keys", bad, reason, admin.ask(list_keys(ACME, 1, &tenants)).await);
    expected.refused("of another tenant's keys", bad, reason, admin.ask(list_keys(GLOBEX, 1, &keys)).await);
    expected.refused("of the keys, for tenants", bad, reason, admin.ask(list_tenants(1, &keys)).await);
    expected.refused("of the keys, for versions", bad, reason, admin.ask(list_key_versions(ACME_KEY, 1, &keys)).await);
    expected.refused(
        "of another key's versions",
        bad,
        reason,
        admin.ask(list_key_versions(GLOBEX_KEY, 1, &versions)).await,
    );
    for made_up in ["x", "AAAA", "acme", "\0", &"A".repeat(10_000)] {
        let what = format!("made up ({} bytes)", made_up.len());
        expected.refused(&what, bad, reason, admin.ask(list_keys(ACME, 1, made_up)).await);
    }
    for at in [0, keys.len() / 2, keys.len() - 1] {
        let mut changed = keys.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        expected.refused(&format!("byte {at} changed"), bad, reason, admin.ask(list_keys(ACME, 1, &changed)).await);
    }
    expected.refused("shortened", bad, reason, admin.ask(list_keys(ACME, 1, &keys[..keys.len() - 1])).await);
    expected.works("its own list", admin.ask(list_keys(ACME, 1, &keys)).await);
    expected.works("its own list, in larger pages", admin.ask(list_keys(ACME, 10, &keys)).await);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn messages_that_are_none() -> Result<()> {
    let world = World::new().await?;
    let (services, operator) = (world.app.channel(Listener::Services), world.admin.channel(Listener::Operator));
    let mut expected = Expected::of("messages that are none");
    let encrypt_method = "/kms.v1.CryptoService/Encrypt";

    for (what, method) in [
        ("unknown method", "/kms.v1.CryptoService/Sign"),
        ("unknown method of the tenants", "/kms.v1.TenantService/RenameTenant"),
        ("unknown service", "/kms.v1.SecretService/Get"),
        ("unknown version", "/kms.v2.CryptoService/Encrypt"),
        ("the operator's method on the services listener", "/kms.v1.OperatorService/GetStatus"),
        ("no method", "/"),
        ("a path of another world", "/index.html"),
    ] {
        expected.refused(what, Unimplemented, "METHOD_UNKNOWN", send_bytes(services.clone(), method, b"").await);
    }
    let got = send_bytes(operator, encrypt_method, b"").await;
    expected.refused("an application's method on the operator listener", Unimplemented, "METHOD_UNKNOWN", got);

    let good = encrypt(ACME_KEY, b"x", &[("a", "b")]).encode_to_vec();
    let not_utf8 = [&[0x0a, 2, 0xff, 0xfe][..]].concat();
    for (what, bytes) in [
        ("a field cut off", &good[..good.len() - 1]),
        ("text", b"hello, is it me you are looking for?"),
        ("a length beyond the end", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a number of 11 bytes", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("a wire type that does not exist", &[0x0f]),
        ("a field of another type", &[0x08, 0x01]),
        ("a name that is no text", &not_utf8),
    ] {
        expected.refused(
            what,
            InvalidArgument,
            "MESSAGE_INVALID",
            send_bytes(services.clone(), encrypt_method, bytes).await,
        );
    }
    expected.works("the message itself", send_bytes(services.clone(), encrypt_method, &good).await);
    let unknown_field = [&good[..], &[0xfa, 0x01, 1, 7]].concat();
    expected
        .works("a field that a newer client knows", send_bytes(services.clone(), encrypt_method, &unknown_field).await);
    let got = send_bytes(services, encrypt_method, b"").await;
    expected.refused("an empty message", InvalidArgument, "FIELD_INVALID", got);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_without_taking_their_memory() -> Result<()> {
    let world = World::new().await?;
    let app = &world.app;
    let mut expected = Expected::of("messages over the limit");
    let of_bytes = |bytes: usize| {
        let mut request = encrypt(ACME_KEY, &[], &[]);
        request.plaintext = vec![7; bytes - request.encoded_len() - 5];
        assert_eq!(request.encoded_len(), bytes);
        request
    };
    let limit = 4 << 20;
    let got = app.ask(of_bytes(limit)).await;
    expected.refused("exactly 4 MiB", InvalidArgument, "PLAINTEXT_TOO_LARGE", got);
    for (what, bytes) in [("4 MiB and a byte", limit + 1), ("5 MiB", 5 << 20), ("16 MiB", 16 << 20)] {
        expected.refused(what, ResourceExhausted, "MESSAGE_TOO_LARGE", app.ask(of_bytes(bytes)).await);
    }
    let before = world.daemon.resident_bytes()?;
    let mut sent = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (caller, request) = (world.daemon.caller("app")?, of_bytes(32 << 20));
        sent.spawn(async move { caller.ask(request).await });
    }
    for got in sent.join_all().await {
        // Nobody waits for 32 MiB that will be refused: the connection may be gone before its reply.
        let right = got.as_ref().is_err_and(|refused| refused.reason.is_none() || refused.is("MESSAGE_TOO_LARGE"));
        expected.row(right, "one of 16 with 32 MiB each", "MESSAGE_TOO_LARGE", &format!("{got:?}"));
    }
    let grown = world.daemon.resident_bytes()?.saturating_sub(before) >> 20;
    println!("memory: 16 messages of 32 MiB at once took {grown} MiB");
    expected.row(grown < 96, "memory for 512 MiB that were refused", "less than 96 MiB", &format!("{grown} MiB"));
    expected.works("afterwards", app.ask(encrypt(ACME_KEY, b"x", &[])).await);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn what_does_not_exist_and_what_is_not_yours_look_alike() -> Result<()> {
    let site = Site::temporary()?;
    site.init().await?;
    site.bind(&Binding {
        id: "acme-app",
        roles: &["encrypter", "decrypter", "reencrypter", "key-admin"],
        principals: &[&site.principal("acme-app")],
        tenants: &["acme"],
        keys: &["app", "own-*"],
    })?;
    let daemon: Daemon = site.start().await?;
    let (admin, outsider) = (daemon.caller("admin")?, daemon.caller("acme-app")?);
    for (tenant, name) in [("acme", ACME), ("globex", GLOBEX), ("gone", "tenants/gone"), ("away", "tenants/away")] {
        admin.ask(create_tenant(tenant)).await?;
        admin.ask(create_key(name, "app")).await?;
    }
    admin.ask(create_key(ACME, "other")).await?;
    admin.ask(suspend_tenant("tenants/away")).await?;
    admin.ask(destroy_tenant("tenants/gone", seconds(0))).await?;
    let mut expected = Expected::of("what does not exist and what is not yours");

    // Beside what does not exist: another tenant, a suspended one, a destroyed one, another key of one's own tenant.
    let not_yours = [GLOBEX, "tenants/away", "tenants/gone"];
    for tenant in not_yours {
        for (rpc, theirs, nobodys) in calls(&outsider, tenant, "tenants/nobody").await {
            let alike = theirs == nobodys
                && theirs.as_ref().is_some_and(|r| r.code == PermissionDenied && r.is("POLICY_DENIED"));
            expected.row(alike, &format!("{rpc} of {tenant}"), &format!("{nobodys:?}"), &format!("{theirs:?}"));
        }
    }
    let theirs = outsider.ask(encrypt("tenants/acme/keys/other", b"x", &[])).await.err();
    let nobodys = outsider.ask(encrypt("tenants/acme/keys/nothing", b"x", &[])).await.err();
    expected.row(
        theirs == nobodys && theirs.is_some(),
        "a key of one's tenant",
        &format!("{nobodys:?}"),
        &format!("{theirs:?}"),
    );
    // What is one's own is told apart.
    expected.works("one's own key", outsider.ask(encrypt(ACME_KEY, b"x", &[])).await);
    let got = outsider.ask(encrypt("tenants/acme/keys/own-1", b"x", &[])).await;
    expected.refused("a key of one's own that is not there", NotFound, "KEY_NOT_FOUND", got);
    // Who makes tenants and keys may not use them.
    expected.refused(
        "the administrator",
        PermissionDenied,
        "POLICY_DENIED",
        admin.ask(encrypt(ACME_KEY, b"x", &[])).await,
    );
    expected.check();
    crate::world::check(&daemon.stop().await?)
}

/// Makes each kind of call on two tenants, and returns both refusals.
async fn calls(
    caller: &Caller,
    theirs: &str,
    nobodys: &str,
) -> Vec<(&'static str, Option<kms_tests::Refused>, Option<kms_tests::Refused>)> {
    let blob = [&b"\x92\x6b\x35\x01\x01"[..], &[7; 123]].concat();
    let mut calls = Vec::new();
    macro_rules! both {
        ($rpc:literal, $request:expr) => {{
            let request = $request;
            calls.push(($rpc, caller.ask(request(theirs)).await.err(), caller.ask(request(nobodys)).await.err()));
        }};
    }
    let key = |tenant: &str| format!("{tenant}/keys/app");
    both!("Encrypt", |t: &str| encrypt(&key(t), b"x", &[]));
    both!("Decrypt", |t: &str| decrypt(&key(t), &blob, &[]));
    both!("ReEncrypt", |t: &str| re_encrypt(&key(t), &blob, &[]));
    both!("GenerateDataKey", |t: &str| generate_data_key(&key(t), &[]));
    both!("DecryptDataKey", |t: &str| decrypt_data_key(&key(t), &blob, &[]));
    both!("GetTenant", get_tenant);
    both!("SuspendTenant", suspend_tenant);
    both!("ResumeTenant", resume_tenant);
    both!("DestroyTenant", |t: &str| destroy_tenant(t, None));
    both!("CancelTenantDestruction", cancel_tenant_destruction);
    both!("CreateKey", |t: &str| create_key(t, "app"));
    both!("GetKey", |t: &str| get_key(&key(t)));
    both!("ListKeys", |t: &str| list_keys(t, 0, ""));
    both!("UpdateKey", |t: &str| update_key(&key(t), &[], &["labels"]));
    both!("EnableKey", |t: &str| enable_key(&key(t)));
    both!("DisableKey", |t: &str| disable_key(&key(t)));
    both!("RotateKey", |t: &str| rotate_key(&key(t)));
    both!("ListKeyVersions", |t: &str| list_key_versions(&key(t), 0, ""));
    both!("ScheduleKeyDestruction", |t: &str| schedule_key_destruction(&key(t), None));
    both!("CancelKeyDestruction", |t: &str| cancel_key_destruction(&key(t)));
    let name = |tenant: &str| tenant.trim_start_matches("tenants/").to_owned();
    both!("CreateTenant", |t: &str| create_tenant(&name(t)));
    calls
}
