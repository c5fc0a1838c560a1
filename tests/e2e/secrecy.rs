//! No secret is in any output: not in what the daemon says, and not in any file it keeps.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use kms_proto::v1;
use kms_tests::request::*;
use kms_tests::wire::send_bytes;
use kms_tests::{Listener, Settings, Site};
use prost::Message as _;

use crate::{ACME, ACME_KEY, GLOBEX_KEY, World};

const PLAINTEXT: &[u8] = b"canary-plaintext-5d1c0e";
const VALUE: &str = "canary-context-value-77ab12";
const AAD: &[u8] = b"canary-aad-0193fe";

/// Something that must not be found, in each form it might be printed in.
struct Needle {
    what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Needle {
    fn new(what: &'static str, secret: &[u8]) -> Self {
        let debug = format!("{secret:?}");
        let escaped = secret.escape_ascii().to_string();
        let spaced = debug.replace(", ", ",");
        // In base64 it may begin at any of 3 places; what is behind its first bytes is the same.
        let shifted = (0..3).map(|skip| STANDARD_NO_PAD.encode(&secret[skip..skip + (secret.len() - skip) / 3 * 3]));
        let mut forms: Vec<Vec<u8>> = shifted.map(String::into_bytes).collect();
        forms.extend([secret.to_vec(), hex::encode(secret).into(), hex::encode_upper(secret).into()]);
        forms.extend(
            [STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret), debug, spaced, escaped].map(String::into_bytes),
        );
        Self { what, forms }
    }

    fn find_in(&self, place: &str, bytes: &[u8], found: &mut Vec<String>) {
        if self.forms.iter().any(|form| contains(bytes, form)) {
            found.push(format!("{} in {place}", self.what));
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files(&path, into)? } else { into.push(path) }
    }
    Ok(())
}

/// Searches all that a site's daemons said and all its files but the PIN's own.
fn search(site: &Site, needles: &[Needle]) -> Result<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut paths = Vec::new();
    files(&site.path("data"), &mut paths)?;
    paths.retain(|path| !path.ends_with("data/pin"));
    let output = site.output().bytes();
    for needle in needles {
        needle.find_in("the output", &output, &mut found);
        for path in &paths {
            needle.find_in(&path.display().to_string(), &fs::read(path)?, &mut found);
        }
    }
    Ok((paths.len(), found))
}

#[tokio::test]
async fn no_secret_is_in_any_output_or_file() -> Result<()> {
    // As talkative as it gets: what an operator turns on when something is wrong.
    let mut world = World::with(&Settings { log_filter: "trace".into(), ..Settings::default() }).await?;
    let mut metrics = Vec::new();
    let context: &[(&str, &str)] = &[("row", VALUE)];
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for round in 0..3 {
        let (admin, app) = (&world.admin, &world.app);
        // What works.
        let mut seal = encrypt(ACME_KEY, PLAINTEXT, context);
        seal.aad = AAD.into();
        let blob = app.ask(seal.clone()).await?.ciphertext;
        let mut open = decrypt(ACME_KEY, &blob, context);
        open.aad = AAD.into();
        assert_eq!(app.ask(open).await?.plaintext, PLAINTEXT);
        let data_key = app.ask(generate_data_key(ACME_KEY, context)).await?;
        app.ask(decrypt_data_key(ACME_KEY, &data_key.wrapped_data_key, context)).await?;
        keys.push(data_key.plaintext);
        // What is refused, in as many ways as there are: errors print more than successes do.
        for key in ["", "tenants/acme", "tenants/nobody/keys/app", "tenants/acme/keys/nothing"] {
            assert!(app.ask(encrypt(key, PLAINTEXT, context)).await.is_err());
        }
        assert!(app.ask(decrypt(ACME_KEY, &blob, context)).await.is_err());
        assert!(app.ask(decrypt(GLOBEX_KEY, PLAINTEXT, context)).await.is_err());
        assert!(app.ask(encrypt(ACME_KEY, &PLAINTEXT.repeat(10_000), context)).await.is_err());
        assert!(app.ask(encrypt(ACME_KEY, PLAINTEXT, &[("kms1", VALUE)])).await.is_err());
        assert!(app.ask(encrypt(ACME_KEY, PLAINTEXT, &[("a\0", VALUE)])).await.is_err());
        assert!(app.ask(encrypt(ACME_KEY, PLAINTEXT, &[("a", &VALUE.repeat(400))])).await.is_err());
        assert!(admin.ask(encrypt(ACME_KEY, PLAINTEXT, context)).await.is_err());
        let torn = seal.encode_to_vec();
        for cut in [torn.len() - 1, torn.len() / 2] {
            let method = "/kms.v1.CryptoService/Encrypt";
            assert!(send_bytes(app.channel(Listener::Services), method, &torn[..cut]).await.is_err());
        }
        assert!(app.ask(v1::EncryptRequest { plaintext: PLAINTEXT.repeat(300_000), ..seal }).await.is_err());
        admin.ask(rotate_key(ACME_KEY)).await?;
        for path in ["/metrics", "/readyz", "/livez"] {
            metrics.extend(world.daemon.get(path).await?.1.into_bytes());
        }
        world = if round == 1 { world.crash().await? } else { world.restart().await? };
    }
    world.admin.ask(destroy_tenant(ACME, seconds(0))).await?;
    let site = world.daemon.stop().await?;

    let pin = site.read("data/pin")?;
    let mut needles = vec![
        Needle::new("the plaintext", PLAINTEXT),
        Needle::new("a context value", VALUE.as_bytes()),
        Needle::new("the aad", AAD),
        Needle::new("the PIN", pin.trim().as_bytes()),
        Needle::new("the server's private key", site.read("server.key")?.lines().nth(1).unwrap_or_default().as_bytes()),
    ];
    needles.extend(keys.iter().map(|key| Needle::new("a data key", key)));
    let (files, mut found) = search(&site, &needles)?;
    needles.iter().for_each(|needle| needle.find_in("the metrics", &metrics, &mut found));
    let said = site.output().bytes().len();
    println!(
        "secrets: {} needles, 0 wanted, {} found in {said} bytes of output and {files} files",
        needles.len(),
        found.len()
    );
    assert!(found.is_empty(), "{found:?}");
    assert!(files > 3 && said > 100_000 && metrics.len() > 1_000, "the search looked at nothing");
    crate::world::check(&site)
}

#[test]
fn the_search_finds_every_form() {
    let needle = Needle::new("it", PLAINTEXT);
    let embedded = |text: &str| format!("{{\"x\":\"{text}\"}}");
    for text in [
        String::from_utf8(PLAINTEXT.to_vec()).unwrap(),
        hex::encode(PLAINTEXT),
        STANDARD.encode(PLAINTEXT),
        STANDARD.encode([b"a", PLAINTEXT].concat()),
        STANDARD.encode([b"ab", PLAINTEXT, b"c"].concat()),
        format!("{PLAINTEXT:?}"),
    ] {
        let mut found = Vec::new();
        needle.find_in("here", embedded(&text).as_bytes(), &mut found);
        assert_eq!(found, ["it in here"], "{text}");
    }
    let mut found = Vec::new();
    needle.find_in("here", b"canary-plaintext-5d1c0", &mut found);
    assert!(found.is_empty());
}
