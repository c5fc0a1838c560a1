//! Requests that name what is not there, or have fields out of their limits: each gets its code and
//! reason, beside a neighbour that works.

use std::collections::BTreeMap;

use anyhow::Result;
use kms_proto::v1;
use kms_tests::Settings;
use kms_tests::request::*;
use tonic::Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};

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
async fn fields_out_of_their_limits() -> Result<()> {
    let world = World::new().await?;
    let admin = &world.admin;
    let mut expected = Expected::of("fields out of their limits");
    let (bad, field) = (InvalidArgument, "FIELD_INVALID");

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
