//! Every RPC does what it says, and a restart keeps everything.

use std::collections::BTreeSet;

use anyhow::Result;
use kms_proto::v1::{
    AuthMethod, ExportKeystoreRequest, GetCallerIdentityRequest, GetStatusRequest, GrantState, KeyPurpose, KeyState,
    LockRequest, ReloadRequest, ServerState, TenantState, UnlockRequest, operation::Operation,
};
use kms_tests::NAMES;
use kms_tests::request::*;

use tonic::Code;

use crate::{ACME, ACME_KEY, GLOBEX, GLOBEX_KEY, World, refused};

const CONTEXT: &[(&str, &str)] = &[("table", "customers"), ("column", "iban")];

#[tokio::test]
async fn every_rpc_does_what_it_says() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);

    // Data.
    let sealed = app.ask(encrypt(ACME_KEY, b"DE89 3704", CONTEXT)).await?;
    assert_eq!((sealed.ciphertext.len(), sealed.key_version), (9 + 96, 1));
    assert_eq!(&sealed.ciphertext[..3], b"\x92\x6b\x35");
    let opened = app.ask(decrypt(ACME_KEY, &sealed.ciphertext, CONTEXT)).await?;
    assert_eq!((&opened.plaintext[..], opened.key_version, opened.stale), (&b"DE89 3704"[..], 1, false));
    let moved = app.ask(re_encrypt(ACME_KEY, &sealed.ciphertext, CONTEXT)).await?;
    assert_eq!((moved.key_version, moved.source_key_version), (1, 1));
    assert_ne!(moved.ciphertext, sealed.ciphertext);
    assert_eq!(app.ask(decrypt(ACME_KEY, &moved.ciphertext, CONTEXT)).await?.plaintext, b"DE89 3704");
    let empty = app.ask(encrypt(ACME_KEY, b"", &[])).await?;
    assert_eq!(app.ask(decrypt(ACME_KEY, &empty.ciphertext, &[])).await?.plaintext, b"");

    // Data keys.
    let data_key = app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?;
    assert_eq!((data_key.plaintext.len(), data_key.wrapped_data_key.len(), data_key.key_version), (32, 128, 1));
    let unwrapped = app.ask(decrypt_data_key(ACME_KEY, &data_key.wrapped_data_key, CONTEXT)).await?;
    assert_eq!((unwrapped.plaintext, unwrapped.key_version, unwrapped.stale), (data_key.plaintext.clone(), 1, false));
    let mut unseen = generate_data_key(ACME_KEY, CONTEXT);
    unseen.omit_plaintext = true;
    let unseen = app.ask(unseen).await?;
    assert!(unseen.plaintext.is_empty());
    assert_eq!(app.ask(decrypt_data_key(ACME_KEY, &unseen.wrapped_data_key, CONTEXT)).await?.plaintext.len(), 32);
    assert_ne!(app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?.plaintext, data_key.plaintext);

    // The aad is part of the context.
    let mut with_aad = encrypt(ACME_KEY, b"x", CONTEXT);
    with_aad.aad = b"row 7".into();
    let sealed_with_aad = app.ask(with_aad).await?.ciphertext;
    let mut open_with_aad = decrypt(ACME_KEY, &sealed_with_aad, CONTEXT);
    open_with_aad.aad = b"row 7".into();
    assert_eq!(app.ask(open_with_aad).await?.plaintext, b"x");

    // Keys.
    let key = admin.ask(create_key(ACME, "second")).await?.key.unwrap();
    assert_eq!((&*key.name, key.state(), key.primary_version), ("tenants/acme/keys/second", KeyState::Enabled, 1));
    assert_eq!(key.uid.len(), 32);
    assert_eq!(admin.ask(get_key(&key.name)).await?.key.as_ref(), Some(&key));
    let labelled = admin.ask(update_key(&key.name, &[("team", "billing")], &["labels"])).await?.key.unwrap();
    assert_eq!(labelled.labels, pairs(&[("team", "billing")]));
    let rotated = admin.ask(rotate_key(&key.name)).await?;
    assert_eq!(rotated.key.unwrap().primary_version, 2);
    let versions = admin.ask(list_key_versions(&key.name, 0, "")).await?;
    assert_eq!(versions.key_versions.iter().map(|version| version.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(versions.key_versions[0].name, "tenants/acme/keys/second/versions/1");
    let disabled = admin.ask(disable_key(&key.name)).await?.key.unwrap();
    assert_eq!(disabled.state(), KeyState::Disabled);
    assert_eq!(admin.ask(enable_key(&key.name)).await?.key.unwrap().state(), KeyState::Enabled);
    let scheduled = admin.ask(schedule_key_destruction(&key.name, seconds(3600))).await?.key.unwrap();
    assert_eq!(scheduled.state(), KeyState::PendingDestruction);
    assert!(scheduled.destroy_time.is_some());
    let cancelled = admin.ask(cancel_key_destruction(&key.name)).await?.key.unwrap();
    assert_eq!((cancelled.state(), cancelled.destroy_time), (KeyState::Disabled, None));
    let names: Vec<String> = admin.ask(list_keys(ACME, 0, "")).await?.keys.into_iter().map(|key| key.name).collect();
    assert_eq!(names, [ACME_KEY, "tenants/acme/keys/second"]);

    managed_data_keys(&world).await?;
    macs_and_indexes(&world).await?;
    batches(&world).await?;

    // Tenants.
    let tenant = admin.ask(get_tenant(GLOBEX)).await?.tenant.unwrap();
    assert_eq!((&*tenant.name, tenant.state(), tenant.uid.len()), (GLOBEX, TenantState::Active, 32));
    let names: Vec<String> =
        admin.ask(list_tenants(0, "")).await?.tenants.into_iter().map(|tenant| tenant.name).collect();
    assert_eq!(names, [ACME, GLOBEX]);
    let lease = admin.ask(update_tenant(GLOBEX, seconds(60))).await?.tenant.unwrap().data_key_lease;
    assert_eq!(lease, seconds(60));
    assert_eq!(admin.ask(suspend_tenant(GLOBEX)).await?.tenant.unwrap().state(), TenantState::Suspended);
    assert_eq!(admin.ask(resume_tenant(GLOBEX)).await?.tenant.unwrap().state(), TenantState::Active);
    let scheduled = admin.ask(destroy_tenant(GLOBEX, None)).await?.tenant.unwrap();
    assert_eq!(scheduled.state(), TenantState::PendingDestruction);
    assert!(scheduled.destroy_time.is_some());
    let cancelled = admin.ask(cancel_tenant_destruction(GLOBEX)).await?.tenant.unwrap();
    assert_eq!((cancelled.state(), cancelled.destroy_time), (TenantState::Suspended, None));

    // The caller, and the node.
    let me = app.ask(GetCallerIdentityRequest {}).await?;
    assert_eq!((me.principal.clone(), me.auth_method()), (world.daemon.site().principal("app"), AuthMethod::Mtls));
    assert_eq!(me.bindings.iter().map(|binding| &*binding.id).collect::<Vec<_>>(), ["app"]);
    let status = admin.ask(GetStatusRequest {}).await?;
    assert_eq!((&*status.node, status.state(), status.cluster_uid.len()), ("node-1", ServerState::Serving, 32));
    let epoch = status.epoch.unwrap();
    assert_eq!((epoch.number, epoch.create_time.is_some()), (1, true));
    assert_eq!(status.backend.unwrap().assurance, "software-file");
    assert!(status.audit_log.unwrap().size > 0);

    admin.ask(LockRequest { validate_only: true }).await?;
    admin.ask(UnlockRequest { validate_only: false }).await?;
    let alone = admin.ask(ExportKeystoreRequest { validate_only: false }).await;
    refused(Code::FailedPrecondition, "APPROVAL_REQUIRED", alone);

    // What takes two persons.
    world.daemon.site().bind_persons(&[("ada", &["staff"]), ("bob", &["approver"])])?;
    let reloaded = admin.ask(ReloadRequest { validate_only: false }).await?;
    assert_eq!((reloaded.changed, reloaded.need_restart), (vec!["bindings".to_owned()], Vec::new()));
    let (ada, bob) = (world.daemon.caller("ada")?, world.daemon.caller("bob")?);
    let tested = ada.ask(test_permissions("", ACME, &["RequestGrant", "ApproveGrant"])).await?.permissions;
    assert_eq!(tested.iter().map(|one| one.allowed).collect::<Vec<_>>(), [true, false]);
    let asked = ada.ask(request_role(ACME, "decrypter", 60, "ticket 4711")).await?.grant.unwrap();
    let approved = bob.ask(approve_grant(&asked)).await?.grant.unwrap();
    assert_eq!((approved.state(), &approved.approver), (GrantState::Approved, &world.daemon.site().principal("bob")));
    assert_eq!(ada.ask(decrypt(ACME_KEY, &sealed.ciphertext, CONTEXT)).await?.plaintext, b"DE89 3704");
    assert_eq!(ada.ask(list_grants(ACME)).await?.grants, std::slice::from_ref(&approved));
    let revoked = bob.ask(revoke_grant(&approved)).await?.grant;
    assert_eq!(ada.ask(get_grant(&approved.name)).await?.grant, revoked);
    let export = Operation::ExportKeystore(ExportKeystoreRequest::default());
    let asked = admin.ask(request_operation(export, "a copy for the safe")).await?.grant.unwrap();
    bob.ask(approve_grant(&asked)).await?;
    assert_eq!(admin.ask(ExportKeystoreRequest { validate_only: false }).await?.serial, 1);

    let called: BTreeSet<&str> = world.daemon.site().ledger().successes_by_op().into_keys().collect();
    assert_eq!(called, NAMES.iter().copied().collect(), "an RPC was not called");
    println!("RPCs: {}/{} answered", called.len(), NAMES.len());
    world.finish().await
}

async fn managed_data_keys(world: &World) -> Result<()> {
    let (admin, app, key) = (&world.admin, &world.app, "tenants/acme/keys/managed");
    admin.ask(create_key_for(ACME, "managed", KeyPurpose::Managed.into())).await?;
    let made = app.ask(create_data_key(key, CONTEXT)).await?;
    assert_eq!((made.plaintext.len(), made.uid.len(), made.key_version), (32, 16, 1));
    assert_eq!(app.ask(get_data_key(key, &made.uid, CONTEXT)).await?.plaintext, made.plaintext);
    let many = app.ask(batch_create_data_keys(key, 3, CONTEXT)).await?.results;
    let uids: Vec<Vec<u8>> = many.iter().map(|one| one.uid.clone()).collect();
    let got = app.ask(batch_get_data_keys(key, &uids, CONTEXT)).await?.results;
    assert!(got.iter().zip(&many).all(|(got, made)| got.plaintext == made.plaintext && made.plaintext.len() == 32));
    let listed = admin.ask(list_data_keys(key, 0, "")).await?.data_keys;
    assert_eq!(listed.len(), 4);
    assert!(app.ask(destroy_data_key(key, &made.uid)).await?.destroy_time.is_some());
    let gone = app.ask(batch_destroy_data_keys(key, &uids)).await?.results;
    assert!(gone.iter().all(|one| one.destroy_time.is_some() && one.error.is_none()));
    Ok(())
}

async fn macs_and_indexes(world: &World) -> Result<()> {
    let (app, key) = (&world.app, "tenants/acme/keys/mac");
    world.admin.ask(create_key_for(ACME, "mac", KeyPurpose::Mac.into())).await?;
    let mac = app.ask(generate_mac(key, b"message", CONTEXT)).await?.mac;
    assert_eq!(mac.len(), 24 + 32);
    let right = app.ask(verify_mac(key, b"message", &mac, CONTEXT)).await?;
    assert_eq!((right.key_version, right.stale), (1, false));
    let macs = app.ask(batch_generate_macs(key, &[b"a", b"message"], CONTEXT)).await?.results;
    assert_eq!(macs[1].mac, mac);
    let pairs = [(&b"a"[..], macs[0].mac.clone()), (b"b", mac)];
    let told = app.ask(batch_verify_macs(key, &pairs, CONTEXT)).await?.results;
    assert_eq!(told.iter().map(|one| one.error.is_none()).collect::<Vec<_>>(), [true, false]);
    let index = app.ask(get_index_key("tenants/acme/indexes/mail")).await?;
    assert_eq!(index.plaintext.len(), 32);
    Ok(())
}

async fn batches(world: &World) -> Result<()> {
    let app = &world.app;
    let sealed = app.ask(batch_encrypt(ACME_KEY, &[b"a", b"", b"b"], CONTEXT)).await?.results;
    let blobs: Vec<Vec<u8>> = sealed.into_iter().map(|one| one.ciphertext).collect();
    let moved = app.ask(batch_re_encrypt(ACME_KEY, &blobs, CONTEXT)).await?.results;
    let blobs: Vec<Vec<u8>> = moved.into_iter().map(|one| one.ciphertext).collect();
    let opened = app.ask(batch_decrypt(ACME_KEY, &blobs, CONTEXT)).await?.results;
    assert_eq!(opened.iter().map(|one| &one.plaintext[..]).collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
    let made = app.ask(batch_generate_data_keys(ACME_KEY, 2, CONTEXT)).await?.results;
    let wrapped: Vec<Vec<u8>> = made.iter().map(|one| one.wrapped_data_key.clone()).collect();
    let unwrapped = app.ask(batch_decrypt_data_keys(ACME_KEY, &wrapped, CONTEXT)).await?.results;
    assert!(unwrapped.iter().zip(&made).all(|(one, made)| one.plaintext == made.plaintext));
    Ok(())
}

#[tokio::test]
async fn a_restart_and_a_crash_keep_everything() -> Result<()> {
    let mut world = World::new().await?;
    world.admin.ask(update_key(ACME_KEY, &[("team", "billing")], &["labels"])).await?;
    let first = world.app.ask(encrypt(ACME_KEY, b"first", CONTEXT)).await?.ciphertext;
    let wrapped = world.app.ask(generate_data_key(GLOBEX_KEY, CONTEXT)).await?;
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    let second = world.app.ask(encrypt(ACME_KEY, b"second", CONTEXT)).await?.ciphertext;
    world.admin.ask(create_key(ACME, "off")).await?;
    world.admin.ask(disable_key("tenants/acme/keys/off")).await?;
    let before = world.admin.ask(list_keys(ACME, 0, "")).await?;
    let cluster = world.admin.ask(GetStatusRequest {}).await?.cluster_uid;

    for crash in [false, true, false, true] {
        world = if crash { world.crash().await? } else { world.restart().await? };
        let opened = world.app.ask(decrypt(ACME_KEY, &first, CONTEXT)).await?;
        assert_eq!((&opened.plaintext[..], opened.stale), (&b"first"[..], true));
        let opened = world.app.ask(decrypt(ACME_KEY, &second, CONTEXT)).await?;
        assert_eq!((&opened.plaintext[..], opened.stale), (&b"second"[..], false));
        let unwrapped = world.app.ask(decrypt_data_key(GLOBEX_KEY, &wrapped.wrapped_data_key, CONTEXT)).await?;
        assert_eq!(unwrapped.plaintext, wrapped.plaintext);
        assert_eq!(world.admin.ask(list_keys(ACME, 0, "")).await?, before);
        assert_eq!(world.admin.ask(GetStatusRequest {}).await?.cluster_uid, cluster);
        // And it can still be changed.
        world.admin.ask(rotate_key(GLOBEX_KEY)).await?;
    }
    assert_eq!(world.admin.ask(get_key(GLOBEX_KEY)).await?.key.unwrap().primary_version, 5);
    world.finish().await
}

#[tokio::test]
async fn lists_come_in_pages_in_the_order_of_names() -> Result<()> {
    let world = World::new().await?;
    // In the order of bytes: digits, upper case, lower case.
    let expected = ["0", "B", "a", "app", "b", "b.2", "ba"];
    for name in ["b", "ba", "B", "a", "0", "b.2"] {
        world.admin.ask(create_key(ACME, name)).await?;
    }
    for page_size in [1, 2, 3, 7, 1000] {
        let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = world.admin.ask(list_keys(ACME, page_size, &token)).await?;
            assert!(page.keys.len() <= page_size as usize);
            names.extend(page.keys.into_iter().map(|key| key.name));
            (token, pages) = (page.next_page_token, pages + 1);
            assert!(pages <= 10, "the list does not end");
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(names, expected.map(|name| format!("{ACME}/keys/{name}")), "in pages of {page_size}");
    }
    let page = world.admin.ask(list_tenants(1, "")).await?;
    let rest = world.admin.ask(list_tenants(1, &page.next_page_token)).await?;
    assert_eq!((&*page.tenants[0].name, &*rest.tenants[0].name), (ACME, GLOBEX));
    for _ in 0..3 {
        world.admin.ask(rotate_key(ACME_KEY)).await?;
    }
    let page = world.admin.ask(list_key_versions(ACME_KEY, 3, "")).await?;
    let rest = world.admin.ask(list_key_versions(ACME_KEY, 3, &page.next_page_token)).await?;
    assert_eq!(page.key_versions.iter().chain(&rest.key_versions).map(|v| v.version).collect::<Vec<_>>(), [1, 2, 3, 4]);
    world.finish().await
}
