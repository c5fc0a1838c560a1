//! What does not exist and what is not yours look alike: same code, same reason, same sentence.

use anyhow::Result;
use kms_tests::request::*;
use kms_tests::{Binding, Caller, Daemon, Refused, Site};
use tonic::Code::{NotFound, PermissionDenied};

use crate::{ACME, ACME_KEY, Expected, GLOBEX};

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
        indexes: &["own"],
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
async fn calls(caller: &Caller, theirs: &str, nobodys: &str) -> Vec<(&'static str, Option<Refused>, Option<Refused>)> {
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
    both!("BatchEncrypt", |t: &str| batch_encrypt(&key(t), &[b"x"], &[]));
    both!("BatchDecrypt", |t: &str| batch_decrypt(&key(t), std::slice::from_ref(&blob), &[]));
    both!("BatchReEncrypt", |t: &str| batch_re_encrypt(&key(t), std::slice::from_ref(&blob), &[]));
    both!("BatchGenerateDataKeys", |t: &str| batch_generate_data_keys(&key(t), 2, &[]));
    both!("BatchDecryptDataKeys", |t: &str| batch_decrypt_data_keys(&key(t), std::slice::from_ref(&blob), &[]));
    both!("CreateDataKey", |t: &str| create_data_key(&key(t), &[]));
    both!("GetDataKey", |t: &str| get_data_key(&key(t), &[7; 16], &[]));
    both!("DestroyDataKey", |t: &str| destroy_data_key(&key(t), &[7; 16]));
    both!("BatchCreateDataKeys", |t: &str| batch_create_data_keys(&key(t), 2, &[]));
    both!("BatchGetDataKeys", |t: &str| batch_get_data_keys(&key(t), &[vec![7; 16]], &[]));
    both!("BatchDestroyDataKeys", |t: &str| batch_destroy_data_keys(&key(t), &[vec![7; 16]]));
    both!("ListDataKeys", |t: &str| list_data_keys(&key(t), 0, ""));
    both!("GenerateMac", |t: &str| generate_mac(&key(t), b"x", &[]));
    both!("VerifyMac", |t: &str| verify_mac(&key(t), b"x", &blob, &[]));
    both!("BatchGenerateMacs", |t: &str| batch_generate_macs(&key(t), &[b"x"], &[]));
    both!("BatchVerifyMacs", |t: &str| batch_verify_macs(&key(t), &[(b"x", blob.clone())], &[]));
    both!("GetIndexKey", |t: &str| get_index_key(&format!("{t}/indexes/own")));
    both!("UpdateTenant", |t: &str| update_tenant(t, seconds(60)));
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
