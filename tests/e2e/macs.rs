//! MACs, and keys of blind indexes.

use anyhow::{Context as _, Result};
use kms_proto::v1;
use kms_server::audit::Outcome;
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Binding, Site};
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, PermissionDenied};

use crate::{ACME, ACME_KEY, Expected, GLOBEX, World};

const CONTEXT: &[(&str, &str)] = &[("use", "webhook")];
const KEY: &str = "tenants/acme/keys/mac";

#[tokio::test]
async fn a_mac_is_right_for_one_message_in_one_context_whatever_version_made_it() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    for (tenant, key) in [(ACME, "mac"), (ACME, "other"), (GLOBEX, "mac")] {
        admin.ask(create_key_for(tenant, key, v1::KeyPurpose::Mac.into())).await?;
    }
    let mut expected = Expected::of("MACs");
    let made = app.ask(generate_mac(KEY, b"message", CONTEXT)).await?;
    let (mac, again) = (made.mac, app.ask(generate_mac(KEY, b"message", CONTEXT)).await?.mac);
    expected.row(mac.len() == 56 && made.key_version == 1, "a MAC", "56 bytes of version 1", &mac.len().to_string());
    expected.row(mac == again, "the same again", "the same", "another");
    let right = app.ask(verify_mac(KEY, b"message", &mac, CONTEXT)).await?;
    expected.row(right.key_version == 1 && !right.stale, "checked", "version 1, primary", &format!("{right:?}"));

    // Made by the old version it is right still; a new one is made by the new one.
    admin.ask(rotate_key(KEY)).await?;
    let right = app.ask(verify_mac(KEY, b"message", &mac, CONTEXT)).await?;
    expected.row(right.key_version == 1 && right.stale, "after a rotation", "version 1, stale", &format!("{right:?}"));
    let newer = app.ask(generate_mac(KEY, b"message", CONTEXT)).await?;
    expected.row(newer.key_version == 2 && newer.mac != mac, "made after it", "version 2, another", "another");
    let right = app.ask(verify_mac(KEY, b"message", &newer.mac, CONTEXT)).await?;
    expected.row(right.key_version == 2 && !right.stale, "checked", "version 2, primary", &format!("{right:?}"));

    let (invalid, changed) = ("MAC_INVALID", |at: usize| {
        let mut changed = mac.clone();
        changed[at] ^= 1;
        changed
    });
    let mut other_version = mac.clone();
    other_version[23] = 2;
    let mut no_version = mac.clone();
    no_version[22] = 9;
    let attempts = [
        ("another message", verify_mac(KEY, b"massage", &mac, CONTEXT)),
        ("no message", verify_mac(KEY, b"", &mac, CONTEXT)),
        ("another context", verify_mac(KEY, b"message", &mac, &[("use", "cookie")])),
        ("no context", verify_mac(KEY, b"message", &mac, &[])),
        ("a changed bit", verify_mac(KEY, b"message", &changed(55), CONTEXT)),
        ("a changed first bit", verify_mac(KEY, b"message", &changed(24), CONTEXT)),
        ("a changed uid", verify_mac(KEY, b"message", &changed(5), CONTEXT)),
        ("no magic", verify_mac(KEY, b"message", &changed(0), CONTEXT)),
        ("a byte less", verify_mac(KEY, b"message", &mac[..55], CONTEXT)),
        ("a byte more", verify_mac(KEY, b"message", &[&mac[..], &[0]].concat(), CONTEXT)),
        ("its header only", verify_mac(KEY, b"message", &mac[..24], CONTEXT)),
        ("nothing", verify_mac(KEY, b"message", &[], CONTEXT)),
        ("text", verify_mac(KEY, b"message", b"hello", CONTEXT)),
        ("as if of another version", verify_mac(KEY, b"message", &other_version, CONTEXT)),
        ("another key's", verify_mac("tenants/acme/keys/other", b"message", &mac, CONTEXT)),
        ("another tenant's", verify_mac("tenants/globex/keys/mac", b"message", &mac, CONTEXT)),
    ];
    let mut sentences = std::collections::BTreeSet::new();
    for (what, attempt) in attempts {
        let got = app.ask(attempt).await;
        sentences.extend(got.as_ref().err().map(|refused| refused.message.clone()));
        expected.refused(what, InvalidArgument, invalid, got);
    }
    expected.row(sentences.len() == 1, "one sentence for all of them", "1", &format!("{sentences:?}"));
    let got = app.ask(verify_mac(KEY, b"message", &no_version, CONTEXT)).await;
    let right = got.as_ref().is_err_and(|r| r.is(invalid) || r.is("VERSION_NOT_FOUND"));
    expected.row(right, "of a version that is not there", "MAC_INVALID or VERSION_NOT_FOUND", &format!("{got:?}"));
    let blob = app.ask(encrypt(ACME_KEY, b"x", &[])).await?.ciphertext;
    let got = app.ask(verify_mac(KEY, b"message", &blob, CONTEXT)).await;
    expected.refused("sealed data", InvalidArgument, "WRONG_KIND", got);
    let got = app.ask(decrypt(ACME_KEY, &[&mac[..], &[0; 64]].concat(), &[])).await;
    expected.refused("a MAC that is to be opened", InvalidArgument, "WRONG_KIND", got);
    let long = app.ask(generate_mac(KEY, &[7; 65_537], &[])).await;
    expected.refused("a message of 65,537 bytes", InvalidArgument, "PLAINTEXT_TOO_LARGE", long);
    expected.works("one of 65,536", app.ask(generate_mac(KEY, &[7; 65_536], &[])).await);

    // Many: each by itself, of both versions.
    let made = app.ask(batch_generate_macs(KEY, &[b"a", &[7; 65_537], b"c"], CONTEXT)).await?;
    let right = made.key_version == 2
        && made.results[1].error.as_ref().is_some_and(|error| error.reason() == v1::ErrorReason::PlaintextTooLarge)
        && made.results[0].mac == app.ask(generate_mac(KEY, b"a", CONTEXT)).await?.mac;
    expected.row(right, "many made", "as alone, but one", &format!("{made:?}"));
    let all =
        [(&b"message"[..], mac.clone()), (b"massage", mac.clone()), (b"c", made.results[2].mac.clone()), (b"d", blob)];
    let checked = app.ask(batch_verify_macs(KEY, &all, CONTEXT)).await?;
    let told: Vec<_> = checked
        .results
        .iter()
        .map(|result| (result.key_version, result.stale, result.error.as_ref().map(|error| error.reason())))
        .collect();
    let told_right = told
        == [
            (1, true, None),
            (0, false, Some(v1::ErrorReason::MacInvalid)),
            (2, false, None),
            (0, false, Some(v1::ErrorReason::WrongKind)),
        ];
    expected.row(told_right, "many checked", "each by itself", &format!("{told:?}"));

    admin.ask(disable_key(&format!("{KEY}/versions/1"))).await?;
    let got = app.ask(verify_mac(KEY, b"message", &mac, CONTEXT)).await;
    expected.refused("of a disabled version", FailedPrecondition, "VERSION_DISABLED", got);
    expected.check();

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let text = format!("{:?}", records.leaves);
    for bytes in [&mac[24..40], &newer.mac[24..40]] {
        assert!(!text.contains(&hex::encode(bytes)), "no record names a MAC");
    }
    let of = |op: &'static str, outcome| -> Vec<_> { records.of(op, outcome).map(|stored| &stored.leaf).collect() };
    let generated = of("GenerateMac", Outcome::Ok);
    let first = generated.first().context("its record")?;
    assert!(first.bid.is_none() && first.ctx.is_some() && first.key.is_some(), "{first:?}");
    let why: Vec<_> = of("VerifyMac", Outcome::Failed).iter().filter_map(|leaf| leaf.why.as_deref()).collect();
    for cause in ["mac", "key", "magic", "length", "short"] {
        assert!(why.contains(&&*format!("MAC_INVALID:{cause}")), "{cause} in {why:?}");
    }
    let [many] = of("BatchVerifyMacs", Outcome::Ok)[..] else { panic!("one leaf") };
    assert_eq!((many.cnt, many.fail, &many.ids), (Some(4), Some(2), &None));
    assert_eq!(many.why.as_deref(), Some("MAC_INVALID:mac 1;WRONG_KIND 3"));
    crate::world::check(&site)
}

#[tokio::test]
async fn a_blind_index_has_a_key_of_its_own_until_its_tenant_is_destroyed() -> Result<()> {
    let site = Site::temporary()?;
    site.init().await?;
    let mailer = site.principal("mailer");
    let (roles, principals): (&[&str], &[&str]) = (&["encrypter"], &[&mailer]);
    site.bind(&Binding { id: "mailer", roles, principals, tenants: &["acme"], keys: &["*"], indexes: &["mail"] })?;
    site.bind_app(&["encrypter", "decrypter"])?;
    let world = World::on(site.start().await?)?;
    for tenant in ["acme", "globex"] {
        world.admin.ask(create_tenant(tenant)).await?;
    }
    let (app, mailer) = (&world.app, world.daemon.caller("mailer")?);
    let mut expected = Expected::of("keys of blind indexes");
    let get = async |tenant: &str, name: &str| app.ask(get_index_key(&format!("{tenant}/indexes/{name}"))).await;

    let mail = get(ACME, "mail").await?;
    let lease = mail.lease.as_ref().is_some_and(|lease| lease.seconds == 300);
    expected.row(
        mail.plaintext.len() == 32 && lease,
        "a key and its lease",
        "32 bytes, 300 s",
        &format!("{:?}", mail.lease),
    );
    expected.row(get(ACME, "mail").await?.plaintext == mail.plaintext, "the same again", "the same", "another");
    expected.row(get(ACME, "male").await?.plaintext != mail.plaintext, "of another name", "another", "the same");
    expected.row(get(GLOBEX, "mail").await?.plaintext != mail.plaintext, "of another tenant", "another", "the same");
    let own = mailer.ask(get_index_key("tenants/acme/indexes/mail")).await;
    expected.row(own.is_ok_and(|own| own.plaintext == mail.plaintext), "with just this index", "the same", "another");
    for (what, index) in
        [("another index", "tenants/acme/indexes/male"), ("another tenant's", "tenants/globex/indexes/mail")]
    {
        let theirs = mailer.ask(get_index_key(index)).await;
        let nobodys = mailer.ask(get_index_key("tenants/nobody/indexes/mail")).await.err();
        expected.row(
            theirs.as_ref().err() == nobodys.as_ref(),
            &format!("{what} looks like none"),
            &format!("{nobodys:?}"),
            &format!("{theirs:?}"),
        );
        expected.refused(what, PermissionDenied, "POLICY_DENIED", theirs);
    }
    expected.refused("of no tenant", NotFound, "TENANT_NOT_FOUND", get("tenants/nobody", "mail").await);
    let got = app.ask(get_index_key("tenants/acme/keys/app")).await;
    expected.refused("a name of a key", InvalidArgument, "FIELD_INVALID", got);

    // It is derived from what the tenant has for its whole life, and goes with it.
    let world = world.restart().await?;
    let (admin, app) = (&world.admin, &world.app);
    let get = async |tenant: &str| app.ask(get_index_key(&format!("{tenant}/indexes/mail"))).await;
    expected.row(get(ACME).await?.plaintext == mail.plaintext, "after a restart", "the same", "another");
    admin.ask(update_tenant(ACME, seconds(60))).await?;
    let lease = get(ACME).await?.lease;
    expected.row(
        lease.as_ref().is_some_and(|lease| lease.seconds == 60),
        "another lease",
        "60 s",
        &format!("{lease:?}"),
    );
    admin.ask(suspend_tenant(ACME)).await?;
    expected.refused("of a suspended tenant", FailedPrecondition, "TENANT_SUSPENDED", get(ACME).await);
    admin.ask(resume_tenant(ACME)).await?;
    expected.row(get(ACME).await?.plaintext == mail.plaintext, "resumed", "the same", "another");
    admin.ask(destroy_tenant(ACME, seconds(0))).await?;
    expected.refused("of a destroyed tenant", FailedPrecondition, "TENANT_DESTROYED", get(ACME).await);
    expected.check();

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let first = &records.of("GetIndexKey", Outcome::Ok).next().context("its record")?.leaf;
    assert_eq!((first.ten.as_deref(), first.kn.as_deref(), &first.key), (Some("acme"), Some("mail"), &None));
    assert!(first.tuid.is_some() && first.rule.is_some());
    crate::world::check(&site)
}
