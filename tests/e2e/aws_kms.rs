//! The master key in AWS KMS: real calls of AWS's library, to moto through a way of our own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kms_tests::request::*;
use kms_tests::{AwsProxy, Fault, Moto, Settings, Site, command, patiently, run};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::{ACME_KEY, World};

/// The credentials of the machine, in tests.
pub const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY";
const ROLL_ROLE: &str = "arn:aws:iam::123456789012:role/kms-roll";

/// Returns what a process finds of AWS in its environment.
fn environment() -> [(&'static str, &'static str); 5] {
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ]
}

/// Makes a site whose master key is behind a proxy, with more lines below `[backend]`.
pub fn site_with(proxy: &AwsProxy, more: &str, log_filter: &str) -> Result<Site> {
    let backend = format!(
        "kind = \"aws-kms\"\naws_region = \"eu-central-1\"\naws_endpoint_url = \"{}\"\nprobe_every = \"1s\"\n{more}",
        proxy.url()
    );
    let site = Site::with(&Settings { log_filter: log_filter.into(), ..Settings::default() })?;
    site.use_backend(&backend)?;
    for (name, value) in environment() {
        site.set_variable(name, value);
    }
    Ok(site)
}

#[tokio::test]
async fn aws_kms_keeps_the_contract() -> Result<()> {
    let moto = Moto::start().await?;
    let (live, stranger) = (moto.proxy().await?, moto.proxy().await?);
    stranger.set(Fault::RefusedCredentials);
    // Bound and not listened on: refused for certain, and nobody else's.
    let dead = TcpSocket::new_v4()?;
    dead.bind("127.0.0.1:0".parse()?)?;
    let dead_url = format!("http://{}", dead.local_addr()?);

    let mut trial = command("kms-trial")?;
    trial.args(["contract", "aws-kms", &live.url(), &dead_url, &stranger.url()]).envs(environment());
    let ended = run(&mut trial).await?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &ended.stderr;
    print!("{said}");
    ensure!(ended.code == Some(0) && said.contains("contract: aws-kms 14/14 kept"), "it did not keep it");
    Ok(())
}

#[tokio::test]
async fn a_daemon_lives_with_its_master_key_in_aws() -> Result<()> {
    let moto = Moto::start().await?;
    let proxy = moto.proxy().await?;
    // All that the daemon may ever log, so that it is searched for what it must not.
    let site = site_with(&proxy, &format!("aws_roll_role_arn = \"{ROLL_ROLE}\""), "trace")?;
    site.set_variable("AWS_ENDPOINT_URL_STS", &proxy.url());
    // With this AWS's library would log requests as they are sent, keys included.
    site.set_variable("LOG_SIGNABLE_BODY", "true");

    let world = World::at(site).await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    let world = world.restart().await?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await?.plaintext, b"secret");
    let said = world.daemon.site().output().text();
    for secret in [SECRET_KEY, ACCESS_KEY, "Plaintext", "CiphertextBlob", "x-amz-security-token", "SessionToken"] {
        ensure!(!said.contains(secret), "the log has {secret}");
    }
    world.finish().await?;

    // Keys are made as another than they are used as.
    let calls = proxy.calls();
    let by = |operation: &str| -> Vec<bool> {
        let of = calls.iter().filter(|call| call.operation == operation);
        of.map(|call| call.access_key == ACCESS_KEY).collect()
    };
    for operation in ["CreateKey", "CreateAlias"] {
        assert_eq!(by(operation), [false], "{operation} is the role's that rolls");
    }
    assert_eq!(by("AssumeRole"), [true]);
    for operation in ["Encrypt", "Decrypt"] {
        assert!(!by(operation).is_empty() && by(operation).iter().all(|own| *own), "{operation} is the daemon's");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_somebody_made_is_adopted_once() -> Result<()> {
    let moto = Moto::start().await?;
    let proxy = moto.proxy().await?;
    let mut symmetric = json!({ "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT" });
    let made = proxy.ask("CreateKey", &symmetric).await?;
    let arn = made["KeyMetadata"]["Arn"].as_str().context("an ARN")?.to_owned();
    let adopt = format!("aws_key_arn = \"{arn}\"");
    let world = World::at(site_with(&proxy, &adopt, "info")?).await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    let world = world.restart().await?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await?.plaintext, b"secret");
    world.finish().await?;
    ensure!(proxy.calls().iter().all(|call| call.access_key != ACCESS_KEY || call.operation != "CreateKey"), "made");
    let tags = proxy.ask("ListResourceTags", &json!({ "KeyId": arn })).await?.to_string();
    ensure!(tags.contains("kms1:cluster") && tags.contains("kms1:epoch"), "{tags}");

    // Another cluster does not get it.
    let other = site_with(&proxy, &adopt, "info")?.try_init().await?;
    ensure!(other.code == Some(1) && other.stderr.contains("is already the key of epoch 1"), "{other:?}");

    // Nor does anybody get one that would outlive its destruction.
    symmetric["MultiRegion"] = json!(true);
    let copied = proxy.ask("CreateKey", &symmetric).await?;
    let copied = format!("aws_key_arn = {}", copied["KeyMetadata"]["Arn"]);
    let refused = site_with(&proxy, &copied, "info")?.try_init().await?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("multi-Region"), "{refused:?}");
    Ok(())
}

/// Also where the address comes from AWS's own variables, nothing goes out in clear. (The address is nobody's.)
#[tokio::test]
async fn no_epoch_key_crosses_a_network_in_clear() -> Result<()> {
    let moto = Moto::start().await?;
    let site = site_with(&moto.proxy().await?, "", "info")?;
    site.use_backend("kind = \"aws-kms\"\naws_region = \"eu-central-1\"")?;
    site.set_variable("AWS_ENDPOINT_URL_KMS", "http://192.0.2.1:4566");
    let ended = site.try_init().await?;
    ensure!(ended.code == Some(1) && ended.stderr.contains("would cross the network in clear"), "{ended:?}");
    Ok(())
}

/// Whoever may disable the key in AWS takes the daemon's keys away from it, and gives them back.
#[tokio::test]
async fn a_key_that_is_disabled_in_aws_locks_the_daemon() -> Result<()> {
    let moto = Moto::start().await?;
    let proxy = moto.proxy().await?;
    let world = World::at(site_with(&proxy, "lock_after = \"2s\"", "info")?).await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    let keys = proxy.ask("ListKeys", &json!({})).await?;
    let key = json!({ "KeyId": keys["Keys"][0]["KeyArn"] });
    proxy.ask("DisableKey", &key).await?;
    let began = Instant::now();
    let is_locked = async || world.daemon.metric("kms_locked").await.is_ok_and(|locked| locked == 1.0);
    patiently("the daemon to lock itself", async { while !is_locked().await {} }).await?;
    let took = began.elapsed();
    let got = world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await;
    ensure!(got.is_err_and(|refused| refused.is("LOCKED")));
    proxy.ask("EnableKey", &key).await?;
    let serves = async || world.daemon.probe("/readyz").await.is_ok_and(|code| code == 200);
    patiently("the daemon to serve again", async { while !serves().await {} }).await?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await?.plaintext, b"secret");
    println!(
        "a key disabled in AWS: locked after {:.1} s (lock_after 2 s), and served again when it was enabled",
        took.as_secs_f64()
    );
    world.finish().await
}

#[tokio::test]
async fn a_daemon_does_not_start_without_its_key() -> Result<()> {
    let moto = Moto::start().await?;
    let proxy = moto.proxy().await?;
    let world = World::at(site_with(&proxy, "", "info")?).await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    let site = world.daemon.stop().await?;
    let keys = proxy.ask("ListKeys", &json!({})).await?;
    let key = json!({ "KeyId": keys["Keys"][0]["KeyArn"] });

    proxy.ask("DisableKey", &key).await?;
    refused(&site, "DisabledException").await?;
    proxy.ask("EnableKey", &key).await?;
    let world = World::on(site.start().await?)?;
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &sealed, &[])).await?.plaintext, b"secret");
    let site = world.daemon.stop().await?;

    let mut order = key.clone();
    order["PendingWindowInDays"] = json!(7);
    proxy.ask("ScheduleKeyDeletion", &order).await?;
    refused(&site, "it is to be deleted").await?;
    moto.keys().pass(Duration::from_secs(8 * 24 * 3600));
    refused(&site, "NotFoundException").await?;
    Ok(())
}

#[tokio::test]
async fn a_daemon_without_credentials_says_so_in_time() -> Result<()> {
    let moto = Moto::start().await?;
    let (proxy, machine) = (moto.proxy().await?, moto.proxy().await?);
    let site = World::at(site_with(&proxy, "", "info")?).await?.daemon.stop().await?;
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        site.set_variable(name, "");
    }
    refused(&site, "no AWS credentials").await?;

    // Where the machine's own metadata is asked, and nobody answers.
    machine.set(Fault::HalfOpen);
    site.set_variable("AWS_EC2_METADATA_DISABLED", "false");
    site.set_variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &machine.url());
    let began = tokio::time::Instant::now();
    refused(&site, "no AWS credentials").await?;
    let took = began.elapsed();
    println!("a start without credentials, on a machine that says nothing: {:.2} s", took.as_secs_f64());
    ensure!(took < Duration::from_secs(10), "it took {took:?}");

    // And the role that makes keys is not one that may be assumed.
    let role = format!("aws_roll_role_arn = \"{ROLL_ROLE}\"");
    let site = site_with(&proxy, &role, "info")?;
    machine.set(Fault::RefusedCredentials);
    site.set_variable("AWS_ENDPOINT_URL_STS", &machine.url());
    let ended = site.try_init().await?;
    ensure!(ended.code == Some(1) && ended.stderr.contains("could not be assumed"), "{ended:?}");
    Ok(())
}

async fn refused(site: &Site, why: &str) -> Result<()> {
    let ended = site.refused_serve().await?;
    ensure!(ended.code == Some(1) && ended.stderr.contains(why), "not {why}: {ended:?}");
    Ok(())
}
