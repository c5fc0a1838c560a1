//! No secret is in any output: not in what the daemon says, at any level and in both formats, not in what it answers, not in
//! its metrics, not in any file it keeps, and not in what the `kms` command says unasked.
//!
//! Recognisable random canaries go in by every door, while all goes well and while all goes wrong; then everything is
//! searched for them in every form. Not among them are the keys that never leave the service: their types have no way out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_proto::v1;
use kms_proto::v1::crypto_service_client::CryptoServiceClient;
use kms_server::noun::Random as _;
use kms_server::noun::random::OsRandom;
use kms_tests::needle::{Needle, Search};
use kms_tests::request::*;
use kms_tests::wire::send_bytes;
use kms_tests::{Listener, Settings, Site, run_with};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::data_keys::{ROWS, create_managed};
use crate::{ACME, ACME_KEY, GLOBEX, GLOBEX_KEY, World};

const MAC_KEY: &str = "tenants/acme/keys/mac";

/// What is planted, and what it is.
struct Canaries {
    plaintext: Vec<u8>,
    value: String,
    aad: Vec<u8>,
    pin: String,
    wrong_pin: String,
    token: String,
    path: String,
    needles: Vec<Needle>,
}

impl Canaries {
    fn new() -> Self {
        let mut needles = Vec::new();
        let mut canary = |what: &str| {
            let mut bytes = [0; 12];
            OsRandom::new().fill(&mut bytes);
            let canary = format!("canary-{}", hex::encode(bytes));
            needles.push(Needle::new(what, canary.as_bytes()));
            canary
        };
        let plaintext = canary("the plaintext").into_bytes();
        let (value, aad) = (canary("a context value"), canary("the aad").into_bytes());
        let (pin, wrong_pin) = (canary("the PIN"), canary("a wrong PIN"));
        let (token, path) = (canary("a bearer token"), canary("a path of somebody's"));
        Self { plaintext, value, aad, pin, wrong_pin, token, path, needles }
    }

    fn add(&mut self, what: &str, secret: &[u8]) {
        self.needles.push(Needle::new(what, secret));
    }

    /// Adds a private key as it is in its file and as a number.
    fn add_private_key(&mut self, what: &str, pem: &str) -> Result<()> {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        self.add(what, lines.first().context("a key has lines")?.as_bytes());
        let der = STANDARD.decode(lines.concat())?;
        // In the SEC 1 structure of a key for P-256 the number stands behind these five bytes.
        let marker = [2, 1, 1, 4, 32];
        let at = der.windows(5).position(|bytes| bytes == marker).context("it is a key for P-256")? + 5;
        self.add(&format!("{what}, as a number"), der.get(at..at + 32).context("it is whole")?);
        Ok(())
    }
}

/// All that was said outside the daemon's own output.
#[derive(Default)]
struct Heard {
    /// The answers of the probes' listener.
    metrics: Vec<u8>,
    /// What the `kms` command wrote to stderr, and to stdout where no secret was asked for.
    command: Vec<u8>,
    /// What refusals said that no caller of the harness got.
    refusals: Vec<u8>,
}

#[tokio::test]
async fn no_secret_is_in_any_output_or_file() -> Result<()> {
    for format in ["json", "text"] {
        search_a_life(format).await?;
    }
    Ok(())
}

/// Lives through all that can happen to a daemon, and searches what it left.
async fn search_a_life(format: &str) -> Result<()> {
    let mut canaries = Canaries::new();
    // As talkative as it gets: what an operator turns on when something is wrong.
    let site = Site::with(&Settings { log_filter: "trace".into(), ..Settings::default() })?;
    site.change_settings("filter = \"trace\"", &format!("filter = \"trace\"\nformat = \"{format}\""))?;
    // Outside the data directory, where nothing may have it.
    site.change_settings("pin_file = \"data/pin\"", "pin_file = \"pin\"")?;
    site.write_secret("pin", &canaries.pin)?;
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter", "reencrypter", "eraser"])?;
    canaries.add_private_key("the server's private key", &site.read("server.key")?)?;
    for name in ["admin", "app"] {
        canaries.add_private_key(&format!("the private key of {name}"), &site.identity(name)?.key)?;
    }

    let mut heard = Heard::default();
    let mut world = World::on(site.start().await?)?;
    for (tenant, name) in [("acme", ACME), ("globex", GLOBEX)] {
        world.admin.ask(create_tenant(tenant)).await?;
        world.admin.ask(create_key(name, "app")).await?;
        world.admin.ask(create_managed(name, "rows")).await?;
        world.admin.ask(create_key_for(name, "mac", v1::KeyPurpose::Mac.into())).await?;
    }
    for round in 0..3 {
        what_works(&world, &mut canaries).await?;
        keys_that_are_given_out(&world, &mut canaries, round).await?;
        what_is_refused(&world, &canaries, &mut heard).await?;
        what_is_no_request(&world, &canaries, &mut heard).await?;
        the_command(&world, &mut canaries, &mut heard).await?;
        for key in [ACME_KEY, ROWS, MAC_KEY] {
            world.admin.ask(rotate_key(key)).await?;
        }
        for path in ["/metrics", "/readyz", "/livez"] {
            heard.metrics.extend(world.daemon.get(path).await?.1.into_bytes());
        }
        world = if round == 1 { world.crash().await? } else { world.restart().await? };
    }
    world.admin.ask(destroy_tenant(ACME, seconds(0))).await?;
    let site = world.daemon.stop().await?;
    starts_that_fail(&site, &canaries).await?;

    let search = Search::for_all(&canaries.needles);
    let mut paths = Vec::new();
    files(&site.path("data"), &mut paths)?;
    let (said, refusals) = (site.output().bytes(), site.ledger().said());
    let mut found = Vec::new();
    for (place, bytes) in [
        ("the output", &said),
        ("refusals", &refusals),
        ("other refusals", &heard.refusals),
        ("the metrics", &heard.metrics),
        ("the output of kms", &heard.command),
    ] {
        found.extend(search.find_in(place, bytes));
    }
    for path in &paths {
        found.extend(search.find_in(&path.display().to_string(), &fs::read(path)?));
    }
    println!(
        "secrets ({format}): {} needles in {} forms, {} found in {} bytes of log, {} of refusals, {} of metrics, {} of kms, {} files",
        canaries.needles.len(),
        search.forms(),
        found.len(),
        said.len(),
        refusals.len() + heard.refusals.len(),
        heard.metrics.len(),
        heard.command.len(),
        paths.len()
    );
    assert!(found.is_empty(), "{found:#?}");
    let looked = paths.len() > 3 && said.len() > 100_000 && refusals.len() > 1_000 && heard.metrics.len() > 1_000;
    assert!(looked && heard.command.len() > 500, "the search looked at nothing");
    crate::world::check(&site)
}

async fn what_works(world: &World, canaries: &mut Canaries) -> Result<()> {
    let app = &world.app;
    let context: &[(&str, &str)] = &[("row", &canaries.value.clone())];
    let mut seal = encrypt(ACME_KEY, &canaries.plaintext, context);
    seal.aad = canaries.aad.clone();
    let blob = app.ask(seal).await?.ciphertext;
    let mut open = decrypt(ACME_KEY, &blob, context);
    open.aad = canaries.aad.clone();
    assert_eq!(app.ask(open).await?.plaintext, canaries.plaintext);
    let mut moved = re_encrypt(ACME_KEY, &blob, context);
    moved.aad = canaries.aad.clone();
    app.ask(moved).await?;
    let data_key = app.ask(generate_data_key(ACME_KEY, context)).await?;
    app.ask(decrypt_data_key(ACME_KEY, &data_key.wrapped_data_key, context)).await?;
    let mut unseen = generate_data_key(ACME_KEY, context);
    unseen.omit_plaintext = true;
    let unseen = app.ask(unseen).await?.wrapped_data_key;
    let unseen = app.ask(decrypt_data_key(ACME_KEY, &unseen, context)).await?.plaintext;
    canaries.add("a data key", &data_key.plaintext);
    canaries.add("a data key that was made unseen", &unseen);
    Ok(())
}

/// Managed data keys, keys of blind indexes, MACs; one by one and many, the first time and again.
async fn keys_that_are_given_out(world: &World, canaries: &mut Canaries, round: usize) -> Result<()> {
    let app = &world.app;
    let value = canaries.value.clone();
    let context: &[(&str, &str)] = &[("row", &value)];
    let single = v1::CreateDataKeyRequest {
        request_id: format!("s-{round}"),
        aad: canaries.aad.clone(),
        ..create_data_key(ROWS, context)
    };
    let made = app.ask(single.clone()).await?;
    assert_eq!(app.ask(single).await?.plaintext, made.plaintext);
    canaries.add("a managed data key", &made.plaintext);
    let mut many = batch_create_data_keys(ROWS, 3, context);
    (many.request_id, many.items[1].aad) = (format!("m-{round}"), canaries.aad.clone());
    let all = app.ask(many.clone()).await?.results;
    assert_eq!(app.ask(many).await?.results, all);
    all.iter().for_each(|made| canaries.add("a managed data key of several", &made.plaintext));
    let unseen = v1::CreateDataKeyRequest { omit_plaintext: true, ..create_data_key(ROWS, context) };
    let unseen = app.ask(unseen).await?.uid;
    let mut uids: Vec<Vec<u8>> = [&all[0].uid, &all[2].uid, &unseen].map(Clone::clone).to_vec();
    for got in app.ask(batch_get_data_keys(ROWS, &uids, context)).await?.results {
        canaries.add("a managed data key that was got", &got.plaintext);
    }
    // What is destroyed was a secret too; and what is left goes on being moved.
    app.ask(destroy_data_key(ROWS, &all[0].uid)).await?;
    uids.push(vec![7; 15]);
    app.ask(batch_destroy_data_keys(ROWS, &uids[1..])).await?;
    for refused in [
        app.ask(get_data_key(ROWS, &all[0].uid, context)).await.map(drop),
        app.ask(get_data_key(ROWS, &all[1].uid, context)).await.map(drop),
        app.ask(get_data_key("tenants/globex/keys/rows", &made.uid, context)).await.map(drop),
        app.ask(get_data_key(ROWS, &canaries.plaintext, context)).await.map(drop),
        app.ask(create_data_key(ROWS, &[("kms1", &value)])).await.map(drop),
        app.ask(destroy_data_key(ROWS, value.as_bytes())).await.map(drop),
    ] {
        assert!(refused.is_err());
    }
    let refused = app.ask(batch_get_data_keys(ROWS, &[made.uid.clone(), canaries.plaintext.clone()], context)).await?;
    assert!(refused.results.iter().all(|result| result.error.is_some()));

    for made in app.ask(batch_generate_data_keys(ACME_KEY, 2, context)).await?.results {
        canaries.add("a data key of several", &made.plaintext);
        app.ask(batch_decrypt_data_keys(ACME_KEY, &[made.wrapped_data_key], context)).await?;
    }
    canaries.add("the key of a blind index", &app.ask(get_index_key("tenants/acme/indexes/mail")).await?.plaintext);

    // The message is a canary, and a MAC may be what somebody proves himself with.
    let mac = app.ask(generate_mac(MAC_KEY, &canaries.plaintext, context)).await?.mac;
    app.ask(verify_mac(MAC_KEY, &canaries.plaintext, &mac, context)).await?;
    let message = canaries.plaintext.clone();
    let macs = app.ask(batch_generate_macs(MAC_KEY, &[&message, b"x"], context)).await?.results;
    let with_macs: Vec<(&[u8], Vec<u8>)> =
        [&message[..], b"other"].into_iter().zip(macs.iter().map(|made| made.mac.clone())).collect();
    let verified = app.ask(batch_verify_macs(MAC_KEY, &with_macs, context)).await?.results;
    assert!(verified[0].error.is_none() && verified[1].error.is_some());
    assert!(app.ask(verify_mac(MAC_KEY, &message[1..], &mac, context)).await.is_err());
    assert!(app.ask(generate_mac(ACME_KEY, &message, context)).await.is_err());
    canaries.add("a MAC", &mac[24..]);
    macs.iter().for_each(|made| canaries.add("a MAC of several", &made.mac[24..]));
    Ok(())
}

/// In as many ways as there are: errors print more than successes do.
async fn what_is_refused(world: &World, canaries: &Canaries, heard: &mut Heard) -> Result<()> {
    let (admin, app) = (&world.admin, &world.app);
    let Canaries { plaintext, value, aad, token, .. } = canaries;
    let context: &[(&str, &str)] = &[("row", value)];
    let blob = app.ask(encrypt(GLOBEX_KEY, plaintext, context)).await?.ciphertext;
    let mut changed = blob.clone();
    changed[90] ^= 1;
    for key in ["", "tenants/acme", "tenants/nobody/keys/app", "tenants/acme/keys/nothing", value] {
        assert!(app.ask(encrypt(key, plaintext, context)).await.is_err());
        assert!(app.ask(decrypt(key, &blob, context)).await.is_err());
    }
    assert!(app.ask(decrypt(GLOBEX_KEY, &changed, context)).await.is_err());
    assert!(app.ask(decrypt(GLOBEX_KEY, &blob, &[("row", "7"), ("other", value)])).await.is_err());
    assert!(app.ask(decrypt(GLOBEX_KEY, plaintext, context)).await.is_err());
    assert!(app.ask(decrypt_data_key(GLOBEX_KEY, &blob, context)).await.is_err());
    assert!(app.ask(re_encrypt(ACME_KEY, &blob, context)).await.is_err());
    let mut with_aad = decrypt(GLOBEX_KEY, &blob, context);
    with_aad.aad = aad.clone();
    assert!(app.ask(with_aad).await.is_err());
    for wrong in [
        encrypt(ACME_KEY, &plaintext.repeat(10_000), context),
        encrypt(ACME_KEY, plaintext, &[("kms1", value)]),
        encrypt(ACME_KEY, plaintext, &[("a\0", value)]),
        encrypt(ACME_KEY, plaintext, &[("a", &value.repeat(400))]),
        v1::EncryptRequest { aad: aad.repeat(1_000), ..encrypt(ACME_KEY, plaintext, context) },
        v1::EncryptRequest { plaintext: plaintext.repeat(300_000), ..encrypt(ACME_KEY, plaintext, context) },
    ] {
        assert!(app.ask(wrong).await.is_err());
    }
    assert!(admin.ask(encrypt(ACME_KEY, plaintext, context)).await.is_err());
    assert!(admin.ask(list_keys(ACME, 1, token)).await.is_err());
    let nobody = world.daemon.caller_with(Some(&world.daemon.site().authority().client_of(&[])?))?;
    assert!(nobody.ask(encrypt(ACME_KEY, plaintext, context)).await.is_err());
    // A token that is none.
    let mut request = tonic::Request::new(encrypt(ACME_KEY, plaintext, context));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let refused = CryptoServiceClient::new(app.channel(Listener::Services)).encrypt(request).await.unwrap_err();
    heard.refusals.extend([refused.message().as_bytes(), refused.details()].concat());
    let mut request = tonic::Request::new(decrypt(ACME_KEY, &blob, context));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let refused = CryptoServiceClient::new(app.channel(Listener::Services)).decrypt(request).await.unwrap_err();
    heard.refusals.extend([refused.message().as_bytes(), refused.details()].concat());
    Ok(())
}

/// Bytes that are no message, methods that are none, and what is not even TLS.
async fn what_is_no_request(world: &World, canaries: &Canaries, heard: &mut Heard) -> Result<()> {
    let Canaries { plaintext, value, token, path, .. } = canaries;
    let app = || world.app.channel(Listener::Services);
    let whole = encrypt(ACME_KEY, plaintext, &[("row", value)]).encode_to_vec();
    for torn in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &plaintext[..], &whole[1..]] {
        let refused = send_bytes(app(), "/kms.v1.CryptoService/Encrypt", torn).await.unwrap_err();
        heard.refusals.extend(refused.message.into_bytes());
    }
    for method in [format!("/kms.v1.CryptoService/{path}"), format!("/{path}/Encrypt")] {
        let refused = send_bytes(app(), Box::leak(method.into_boxed_str()), &whole).await.unwrap_err();
        heard.refusals.extend(refused.message.into_bytes());
    }
    for address in [world.daemon.services(), world.daemon.operator()] {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET /{path}?token={token} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        drop(kms_tests::patiently("the end of a connection without TLS", stream.read_to_end(&mut answer)).await?);
        heard.refusals.extend(answer);
    }
    heard.metrics.extend(world.daemon.get(&format!("/{path}?token={token}")).await?.1.into_bytes());
    Ok(())
}

/// The `kms` command, which shows a secret only where that is what was asked for.
async fn the_command(world: &World, canaries: &mut Canaries, heard: &mut Heard) -> Result<()> {
    let site = world.daemon.site();
    let mut lines = Vec::new();
    let context: &[(&str, &str)] = &[("row", &canaries.value.clone())];
    let uid = hex::encode(world.app.ask(create_data_key(ROWS, context)).await?.uid);
    for format in ["table", "json"] {
        // In this order: input, the line, whether it prints what is secret.
        let app = format!("--output {format} --tenant acme");
        let value = &canaries.value;
        lines.extend([
            (canaries.plaintext.clone(), format!("{app} encrypt --key app --context row={value} --out blob.{format} --force"), false),
            (vec![], format!("{app} decrypt --key app --context row={value} --in blob.table"), true),
            (vec![], format!("{app} decrypt --key app --context row={value} --in blob.table --out plain --force"), false),
            (vec![], format!("{app} decrypt --key app --context row=7{value} --in blob.table"), false),
            (vec![], format!("{app} decrypt --key nothing --context row={value} --in blob.table"), false),
            (vec![], format!("{app} re-encrypt --key app --context row={value} --in blob.table"), false),
            (canaries.plaintext.clone(), format!("{app} decrypt --key app --context row={value}"), false),
            (
                vec![],
                format!(
                    "{app} data-key generate --key app --context row={value} --data-key-out plain.key --wrapped-out wrapped.{format}"
                ),
                false,
            ),
            (vec![], format!("{app} data-key decrypt --key app --context row=7 --in wrapped.{format}"), false),
            (
                vec![],
                format!("{app} data-key decrypt --key app --context row={value} --in wrapped.{format} --out plain.key"),
                false,
            ),
            (vec![], format!("{app} data-key create --key rows --context row={value} --data-key-out plain.key"), false),
            (vec![], format!("{app} data-key create --key rows --context row={value}"), true),
            (vec![], format!("{app} data-key get --key rows --context row={value} {uid} --raw --out plain.key"), false),
            (vec![], format!("{app} data-key get --key rows --context row=7{value} {uid} --raw --out plain.key"), false),
            (vec![], format!("{app} data-key get --key rows --context row={value} {uid}"), true),
            (vec![], format!("{app} data-key list --key rows"), false),
            (vec![], format!("{app} index-key get mail --raw --out plain.key"), false),
            (canaries.plaintext.clone(), format!("{app} mac generate --key mac --context row={value}"), true),
            (canaries.plaintext.clone(), format!("{app} mac verify --key mac --context row={value} --mac AAAA"), false),
            (vec![], format!("{app} whoami"), false),
            (vec![], format!("{app} key list"), false),
        ]);
    }
    let (certificate, key) = site.identity_files("app")?;
    let mut worked = BTreeSet::new();
    for (input, line, is_secret) in lines {
        // It never replaces a data key.
        for file in
            ["plain.key", "wrapped.table", "wrapped.json"].iter().filter(|file| line.contains(&format!("out {file}")))
        {
            drop(fs::remove_file(site.path(file)));
        }
        let mut kms = kms_tests::command("kms")?;
        kms.args(line.split_ascii_whitespace()).current_dir(site.dir());
        kms.env("KMS_ADDR", format!("https://{}", world.daemon.services())).env("KMS_CA_FILE", site.path("ca.pem"));
        kms.env("KMS_CERT_FILE", &certificate).env("KMS_KEY_FILE", &key).env("RUST_LOG", "trace");
        let ended = run_with(&mut kms, &input).await?;
        if ended.code == Some(0) {
            worked.insert(line.clone());
        }
        heard.command.extend(ended.stderr.into_bytes());
        if !is_secret {
            heard.command.extend(ended.stdout);
        }
        if line.contains("plain.key") && ended.code == Some(0) {
            canaries.add("a data key that kms wrote into a file", &fs::read(site.path("plain.key"))?);
        }
    }
    assert!(worked.len() >= 24, "of the command's lines only these worked: {worked:#?}");
    Ok(())
}

/// A wrong PIN, and files for TLS that are not what they should be.
async fn starts_that_fail(site: &Site, canaries: &Canaries) -> Result<()> {
    let (settings, key) = (site.read("kms.toml")?, site.read("server.key")?);
    site.write_secret("pin", &canaries.wrong_pin)?;
    assert_ne!(site.refused_serve().await?.code, Some(0));
    site.write_secret("pin", &canaries.pin)?;
    let torn = key.replace("-----END", "-----");
    for (what, wrong) in [("torn", torn), ("garbled", key.replacen(|c: char| c.is_ascii_lowercase(), "!", 3))] {
        site.write_secret("server.key", &wrong)?;
        assert_ne!(site.refused_serve().await?.code, Some(0), "{what}");
    }
    site.write_secret("server.key", &key)?;
    for (from, to) in [
        ("certificate_file = \"server.pem\"", "certificate_file = \"server.key\""),
        ("bindings_file = \"bindings.toml\"", "bindings_file = \"server.key\""),
        ("client_ca_file = \"ca.pem\"", "client_ca_file = \"pin\""),
    ] {
        site.change_settings(from, to)?;
        assert_ne!(site.refused_serve().await?.code, Some(0), "{to}");
        site.write("kms.toml", &settings)?;
    }
    // The wrong file altogether.
    site.write("kms.toml", &key)?;
    assert_ne!(site.refused_serve().await?.code, Some(0));
    site.write("kms.toml", &canaries.pin)?;
    assert_ne!(site.refused_serve().await?.code, Some(0));
    site.write("kms.toml", &settings)
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files(&path, into)? } else { into.push(path) }
    }
    Ok(())
}
