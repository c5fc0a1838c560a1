//! `kms-server doctor`: a line for each thing that a daemon needs, before it is needed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use kms_tests::{Ended, Site, run};
use serde_json::Value;

async fn doctor(site: &Site) -> Result<Ended> {
    run(&mut site.command("doctor")?).await
}

/// Returns status and message of a check.
async fn finding(site: &Site, check: &str) -> Result<(String, String)> {
    let ended = run(site.command("doctor")?.args(["--output", "json"])).await?;
    let told: Value = serde_json::from_slice(&ended.stdout)?;
    let checks = told["checks"].as_array().context("a list")?;
    let found = checks.iter().filter(|found| found["check"] == check);
    let worst = found.max_by_key(|found| ["ok", "warning", "failure"].iter().position(|word| found["status"] == *word));
    let found = worst.with_context(|| format!("no check {check} in {told}"))?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("message")))
}

#[tokio::test]
async fn doctor_says_of_each_part_whether_it_is_right_and_what_to_do() -> Result<()> {
    let site = Site::temporary()?;
    // Before there is a cluster.
    ensure!(finding(&site, "data directory").await?.1.contains("kms-server init"));
    site.init().await?;
    let ended = doctor(&site).await?;
    let text = String::from_utf8(ended.stdout.clone())?;
    ensure!(ended.code == Some(0), "{text}{}", ended.stderr);
    for check in [
        "settings",
        "addresses",
        "tls",
        "open files",
        "memory for keys",
        "process",
        "data directory",
        "bindings",
        "PIN",
        "disk",
        "store",
        "backend",
    ] {
        ensure!(text.contains(&format!(" {check}: ")), "no line for {check} in:\n{text}");
    }
    let (status, said) = finding(&site, "backend").await?;
    ensure!(status == "ok" && said.contains("gave the key of epoch 1, wrapped and unwrapped another"), "{said}");
    println!(
        "doctor: {} lines, {} of them ok",
        text.lines().count(),
        text.lines().filter(|line| line.starts_with("ok ")).count()
    );

    // One thing wrong at a time, each told in its line, with what to do.
    let mut told = 0;
    let mut is = async |check: &str, status: &str, part: &str| -> Result<()> {
        let (got, said) = finding(&site, check).await?;
        ensure!(got == status && said.contains(part), "{check}: {got}: {said}");
        let code = doctor(&site).await?.code;
        ensure!(code == Some(i32::from(status == "failure")), "{check}: exit code {code:?}");
        told += 1;
        Ok(())
    };
    is("PIN", "warning", "beside the data").await?;
    let mode = |path: &str, mode: u32| fs::set_permissions(site.path(path), fs::Permissions::from_mode(mode));
    mode("data/pin", 0o644)?;
    is("backend", "failure", "chmod 0600").await?;
    mode("data/pin", 0o600)?;
    let pin = site.read("data/pin")?;
    site.write_secret("data/pin", "another")?;
    is("backend", "failure", "check that").await?;
    site.write_secret("data/pin", &pin)?;
    mode("data", 0o777)?;
    is("data directory", "failure", "chmod go-w").await?;
    mode("data", 0o700)?;
    let bindings = site.read("bindings.toml")?;
    site.write("bindings.toml", "[[binding]]\n")?;
    is("bindings", "failure", "bindings.toml").await?;
    site.write("bindings.toml", &bindings)?;
    let certificate = site.read("server.pem")?;
    site.write("server.pem", "")?;
    is("tls", "failure", "server.pem").await?;
    site.write("server.pem", &certificate)?;
    fs::rename(site.path("data/hsm"), site.path("aside"))?;
    is("data directory", "failure", "hsm").await?;
    fs::rename(site.path("aside"), site.path("data/hsm"))?;
    site.write("data/locked", "")?;
    is("lock", "warning", "kms operator unlock").await?;
    fs::remove_file(site.path("data/locked"))?;
    println!("doctor: faults {told}/{told} told, each in its line with what to do");

    // It takes nothing from a daemon that runs, and changes nothing.
    let daemon = site.start().await?;
    is_left_alone(daemon.site()).await?;
    ensure!(daemon.probe("/readyz").await? == 200);
    let site = daemon.stop().await?;
    ensure!(finding(&site, "store").await?.0 == "ok");
    crate::world::check(&site)
}

async fn is_left_alone(site: &Site) -> Result<()> {
    let (status, said) = finding(site, "store").await?;
    ensure!(status == "warning" && said.contains("kms status"), "{status}: {said}");
    Ok(())
}
