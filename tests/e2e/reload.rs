//! What a daemon reads again when it is told to (SIGHUP): all or nothing, recorded, and at once for
//! those who are connected already.

use anyhow::{Context as _, Result, ensure};
use kms_server::audit::{Leaf, Outcome};
use kms_server::crypto::sha256;
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Authority, Caller, Daemon};
use tonic::Code;

use crate::{ACME_KEY, Expected, Load, World, refused};

/// Reloads, and waits until it is done.
pub(crate) async fn reload(daemon: &Daemon) -> Result<()> {
    ended(daemon, r#""message":"reloaded""#).await
}

/// Reloads, and waits until it has failed.
async fn fail_to_reload(daemon: &Daemon) -> Result<()> {
    ended(daemon, "nothing was reloaded").await
}

async fn ended(daemon: &Daemon, how: &str) -> Result<()> {
    let output = daemon.site().output();
    let before = output.text().matches(how).count();
    daemon.hang_up()?;
    output.says_times(how, before + 1).await
}

async fn last_was_successful(daemon: &Daemon) -> Result<bool> {
    Ok(daemon.metric("kms_config_last_reload_successful").await? == 1.0)
}

fn reloads(records: &Records) -> Vec<&Leaf> {
    let all = records.leaves.iter().map(|stored| &stored.leaf);
    all.filter(|leaf| leaf.op.as_deref() == Some("Reload")).collect()
}

#[tokio::test]
async fn new_bindings_hold_at_once_on_connections_that_are_there() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    let began = world.daemon.metric("kms_config_last_reload_success_timestamp_seconds").await?;
    ensure!(began > 1.6e9 && last_was_successful(&world.daemon).await?);
    // Remembered by now.
    for _ in 0..3 {
        world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    }
    let given = site.read("bindings.toml")?;
    site.write("bindings.toml", &given.replace("\"encrypter\", ", ""))?;
    reload(&world.daemon).await?;
    refused(Code::PermissionDenied, "POLICY_DENIED", world.app.ask(encrypt(ACME_KEY, b"x", &[])).await);
    site.write("bindings.toml", &given)?;
    reload(&world.daemon).await?;
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    ensure!(world.daemon.metric("kms_config_last_reload_success_timestamp_seconds").await? >= began);
    ensure!(site.output().text().contains(r#""changed":"bindings""#));

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let reloads = reloads(&records);
    ensure!(reloads.len() == 2 && reloads.iter().all(|leaf| leaf.res == Some(Outcome::Ok)), "{reloads:?}");
    let evidence = reloads[1].ev.as_deref().context("a reload says what is in force")?;
    let print = format!("bindings sha256:{} certificate sha256:", hex(&sha256(given.as_bytes())));
    ensure!(evidence.starts_with(&print), "{evidence} does not begin with {print}");
    crate::world::check(&site)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_stay() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    // Of an authority that the callers of this test do not know.
    let other = Authority::new()?;
    let server = other.server()?;
    site.write("server.pem", &server.certificate)?;
    site.write_secret("server.key", &server.key)?;
    reload(&world.daemon).await?;
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    let stale = world.daemon.caller("app")?.ask(encrypt(ACME_KEY, b"x", &[])).await;
    ensure!(stale.is_err_and(|refused| refused.reason.is_none()), "it trusts an authority that it does not know");
    let app = site.identity("app")?;
    let fresh = Caller::new(world.daemon.services(), world.daemon.operator(), &other.pem(), Some(&app), site.ledger())?;
    fresh.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    ensure!(world.daemon.metric("kms_connections_severed_total").await.unwrap_or(0.0) == 0.0);
    world.finish().await
}

#[tokio::test]
async fn whoever_a_new_authority_or_revocation_list_shuts_out_is_cut_off() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    let ours = site.authority();
    let numbered = |serial| -> Result<Caller> {
        world.daemon.caller_with(Some(&ours.client_numbered(&site.principal("app"), serial)?))
    };
    let (seven, eight) = (numbered(7)?, numbered(8)?);
    for caller in [&seven, &eight] {
        caller.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    }
    site.write("clients.crl", &ours.revocation_list(&[7])?)?;
    site.change_settings("client_ca_file = \"ca.pem\"", "client_ca_file = \"ca.pem\"\ncrl_files = [\"clients.crl\"]")?;
    reload(&world.daemon).await?;
    let severed = async |count: f64| -> Result<()> {
        let reached =
            async { while world.daemon.metric("kms_connections_severed_total").await.unwrap_or(0.0) < count {} };
        kms_tests::patiently("connections are severed", reached).await
    };
    severed(1.0).await?;
    // Refused once for the connection that broke, and from then on in the handshake.
    for _ in 0..3 {
        let got = seven.ask(encrypt(ACME_KEY, b"x", &[])).await;
        ensure!(got.as_ref().is_err_and(|refused| refused.reason.is_none()), "{got:?}");
    }
    eight.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    ensure!(world.daemon.metric("kms_connections_severed_total").await? == 1.0);

    // Another authority altogether: nobody of before comes in again.
    let other = Authority::new()?;
    site.write("ca.pem", &other.pem())?;
    site.write("clients.crl", &other.revocation_list(&[])?)?;
    reload(&world.daemon).await?;
    severed(2.0).await?;
    for caller in [&eight, &world.app, &world.admin] {
        let got = caller.ask(encrypt(ACME_KEY, b"x", &[])).await;
        ensure!(got.as_ref().is_err_and(|refused| refused.reason.is_none()), "{got:?}");
    }
    let newcomer = world.daemon.caller_with(Some(&other.client(&site.principal("app"))?))?;
    newcomer.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    world.finish().await
}

#[tokio::test]
async fn anything_wrong_in_what_is_read_leaves_all_as_it_was() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    let files = ["kms.toml", "bindings.toml", "server.pem", "server.key", "ca.pem"];
    let good = files.iter().map(|name| Ok((*name, site.read(name)?))).collect::<Result<Vec<_>>>()?;
    let other_key = site.authority().server()?.key;
    // In every case something else is right, and new: it must not be taken either.
    let takes_rights_away = site.read("bindings.toml")?.replace("\"encrypter\", ", "");
    let mut expected = Expected::of("reloads that fail");
    for (what, file, text, said) in [
        ("settings that are none", "kms.toml", "data_dir = \"data\"\nnodes = 3", "unknown setting"),
        ("no certificates in the settings", "kms.toml", "data_dir = \"data\"\n", "there are no certificates"),
        ("no certificate", "server.pem", "", "server.pem: it holds no certificate"),
        ("the key of another", "server.key", &*other_key, "server.key: it is not the key"),
        ("no authority", "ca.pem", "", "ca.pem: it holds no certificate"),
        ("an authority that is none", "ca.pem", &site.identity("app")?.certificate, "is not an authority's"),
        (
            "bindings with a mistake",
            "bindings.toml",
            "[[binding]]\nid = \"b\"\nroles = [\"owner\"]\n",
            "bindings.toml:",
        ),
    ] {
        if file != "bindings.toml" {
            site.write("bindings.toml", &takes_rights_away)?;
        }
        site.write(file, text)?;
        let before = site.output().text().len();
        fail_to_reload(&world.daemon).await?;
        let new = site.output().text().split_off(before);
        expected.row(new.contains(said), what, said, &new);
        expected.row(!last_was_successful(&world.daemon).await?, what, "0", "1");
        let got = world.app.ask(encrypt(ACME_KEY, b"x", &[])).await;
        expected.works(what, got);
        let got = world.daemon.caller("app")?.ask(encrypt(ACME_KEY, b"x", &[])).await;
        expected.works(what, got);
        for (name, text) in &good {
            site.write(name, text)?;
        }
    }
    // Whoever may write them could give himself everything.
    chmod(&site.path("bindings.toml"), 0o666)?;
    fail_to_reload(&world.daemon).await?;
    chmod(&site.path("bindings.toml"), 0o600)?;
    expected.check();
    reload(&world.daemon).await?;
    ensure!(last_was_successful(&world.daemon).await?);
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let reasons: Vec<&str> = reloads(&records).iter().map(|leaf| leaf.why.as_deref().unwrap_or("OK")).collect();
    let (settings, certificates, bindings) = ("SETTINGS_INVALID", "CERTIFICATES_INVALID", "BINDINGS_INVALID");
    let all = [&[settings][..], &[certificates; 5], &[bindings; 2], &["OK"]].concat();
    ensure!(reasons == all, "{reasons:?}");
    crate::world::check(&site)
}

fn chmod(path: &std::path::Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).context("its mode")
}

#[tokio::test]
async fn settings_that_need_a_restart_are_told_of_and_others_are_taken() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    site.change_settings("wait_default = \"7d\"", "wait_default = \"8d\"")?;
    site.change_settings("node = \"node-1\"", "node = \"node-2\"")?;
    let text = site.read("kms.toml")?;
    site.write("kms.toml", &format!("{text}\n[[identity]]\ncn = \"x\"\nprincipal = \"spiffe://a/b\"\n"))?;
    reload(&world.daemon).await?;
    site.output().says(r#""settings":"node destruction.wait_default""#).await?;
    ensure!(site.output().text().contains(r#""changed":"identity""#));
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    world.finish().await
}

#[tokio::test]
async fn a_reload_at_any_time_harms_nothing() -> Result<()> {
    let world = World::new().await?;
    let load = Load::start(
        (0..4).map(|_| world.daemon.caller("app")).collect::<Result<_>>()?,
        |caller: Caller, _| async move { caller.ask(encrypt(ACME_KEY, b"secret", &[])).await.map(drop) },
    );
    // Faster than they can be carried out.
    for _ in 0..50 {
        world.daemon.hang_up()?;
        load.more(1).await?;
    }
    reload(&world.daemon).await?;
    for end in load.stop().await? {
        end.context("somebody was refused while it reloaded")?;
    }
    // Before it serves, when it is told to stop, and while it stops.
    world.daemon.hang_up()?;
    let site = world.daemon.stop().await?;
    let daemon = site.start_hung_up().await?;
    daemon.caller("app")?.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    daemon.terminate()?;
    for _ in 0..20 {
        // It may have ended meanwhile.
        drop(daemon.hang_up());
    }
    let (code, site) = daemon.ended().await?;
    ensure!(code == Some(0), "{code:?}: {}", site.output().tail());
    crate::world::check(&site)
}
