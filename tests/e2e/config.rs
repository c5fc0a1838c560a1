//! `kms-server config`: every mistake at once, an example that holds, and where each value came from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use kms_tests::{Ended, Site, command, run};
use serde_json::Value;

use crate::Expected;

fn all(ended: &Ended) -> String {
    format!("{}{}", String::from_utf8_lossy(&ended.stdout), ended.stderr)
}

#[tokio::test]
async fn check_says_in_one_line_what_is_right() -> Result<()> {
    let mut expected = Expected::of("config check of what is right");
    let site = Site::temporary()?;
    let before = run(&mut site.command("config check")?).await?;
    let text = all(&before);
    let right = before.code == Some(0) && text.contains("holds no cluster yet") && text.contains("ok: ");
    expected.row(right, "before init", "code 0 and a note", &format!("{:?} {text}", before.code));
    site.init().await?;
    let after = run(&mut site.command("config check")?).await?;
    let text = String::from_utf8_lossy(&after.stdout).into_owned();
    let words =
        ["ok: ", "kms.toml, ", "certificate for localhost", "bindings ", "cluster in ", "1 enabled", "127.0.0.1:0"];
    let right = after.code == Some(0) && text.lines().count() == 1 && words.iter().all(|word| text.contains(word));
    expected.row(
        right,
        "after init",
        &format!("code 0 and a line with {words:?}"),
        &format!("{:?} {text}", after.code),
    );
    // The running daemon is left alone, and beside it all is right.
    let daemon = site.start().await?;
    let beside = run(&mut daemon.site().command("config check")?).await?;
    expected.row(beside.code == Some(0), "beside the daemon", "code 0", &all(&beside));
    daemon.stop().await?;
    expected.check();
    Ok(())
}

#[tokio::test]
async fn check_tells_every_mistake_with_its_place_and_what_was_meant() -> Result<()> {
    let site = Site::temporary()?;
    site.init().await?;
    site.change_settings("services = ", "servces = ")?;
    site.change_settings("probes = \"127.0.0.1:0\"", "probes = \"localhost\"")?;
    site.change_settings("segment_bytes = 1048576", "segment_bytes = \"big\"")?;
    // An address of documentation (RFC 5737), which is no machine's.
    site.change_settings("operator = \"127.0.0.1:0\"", "operator = \"203.0.113.7:0\"")?;
    site.write_secret("server.key", &site.authority().server()?.key)?;
    fs::set_permissions(site.path("data/pin"), fs::Permissions::from_mode(0o644))?;
    let bindings = site.read("bindings.toml")?.replace("\"tenant-admin\"", "\"tenant-amdin\"");
    site.write("bindings.toml", &format!("{bindings}\n[[group]]\nnam = \"x\"\nmembers = []\n"))?;
    let mut check = site.command("config check")?;
    check.env("KMS_SERVER_LISTEN_PROBS", "127.0.0.1:1");
    let ended = run(&mut check).await?;
    let mut expected = Expected::of("config check of what is wrong");
    expected.row(ended.code == Some(1), "the exit code", "1", &format!("{:?}", ended.code));
    for words in [
        &["kms.toml:5:1: ", "unknown setting \"servces\" in [listen]", "did you mean `services`?"][..],
        &["kms.toml:7:10: ", "listen.probes = \"localhost\"", "no address"],
        &["kms.toml:6:1: ", "listen.operator = 203.0.113.7:0 cannot be listened on", "address of this machine"],
        &["kms.toml:23:17: ", "audit.segment_bytes = \"big\"", "whole number"],
        &["KMS_SERVER_LISTEN_PROBS", "did you mean KMS_SERVER_LISTEN_PROBES?"],
        &["server.key: ", "not the key of the first certificate"],
        &["bindings.toml:", "\"tenant-amdin\"", "did you mean \"tenant-admin\"?"],
        &["bindings.toml:", "`nam`", "did you mean \"name\"?"],
        &["data/pin", "chmod 0600"],
    ] {
        let there = ended.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
        expected.row(there, words[0], &format!("a line with {words:?}"), &ended.stderr);
    }
    expected.row(ended.stderr.ends_with("9 mistakes\n"), "the count", "9 mistakes", &ended.stderr);

    let mut check = site.command("config check")?;
    let json = run(check.args(["--output", "json"])).await?;
    let json: Value = serde_json::from_slice(&json.stdout).context("JSON")?;
    let first = &json["mistakes"][0];
    let right = first["place"] == serde_json::json!([5, 1]) && json["mistakes"].as_array().map(Vec::len) == Some(8);
    expected.row(right, "as JSON", "8 mistakes, the first in 5:1", &json.to_string());
    // What serve says is the same, as far as it goes.
    let serve = site.refused_serve().await?;
    let same = ended.stderr.lines().find(|line| line.contains("servces")).context("it is told")?;
    expected.row(serve.stderr.contains(same), "serve", same, &serve.stderr);
    expected.check();
    Ok(())
}

#[tokio::test]
async fn the_example_passes_when_what_it_names_is_there() -> Result<()> {
    let mut expected = Expected::of("config example");
    let site = Site::temporary()?;
    let example = run(command("kms-server")?.args(["config", "example"])).await?.success()?;
    let example = String::from_utf8(example.stdout)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kms.toml");
    fs::write(&file, &example)?;
    // Unchanged it lacks only what it names, and says what.
    let check = async || run(command("kms-server")?.args(["config", "check"]).arg(&file)).await;
    let ended = check().await?;
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let names = ["server.pem: ", "server.key: ", "ca.pem: "];
    let right = errors.len() == 3 && names.iter().zip(&errors).all(|(name, error)| error.contains(name));
    expected.row(right, "unchanged", &format!("{names:?} and nothing else"), &ended.stderr);
    for name in ["server.pem", "server.key", "ca.pem"] {
        fs::copy(site.path(name), folder.path().join(name))?;
    }
    let ended = check().await?;
    expected.row(ended.code == Some(0), "with its certificates", "code 0", &all(&ended));
    expected.check();
    Ok(())
}

#[tokio::test]
async fn show_says_where_each_value_came_from() -> Result<()> {
    let mut expected = Expected::of("config show --origin");
    let site = Site::temporary()?;
    let mut show = site.command("config show --origin")?;
    show.args(["--listen-probes", "127.0.0.1:9"]).env("KMS_SERVER_NODE", "from-env");
    let ended = run(&mut show).await?.success()?;
    let text = String::from_utf8(ended.stdout)?;
    for words in [
        &["node = \"from-env\"", "# environment KMS_SERVER_NODE"][..],
        &["listen.probes = \"127.0.0.1:9\"", "# flag --listen-probes"],
        &["listen.services = \"127.0.0.1:0\"", "# file ", "kms.toml:5"],
        &["limits.connections = 4096", "# default"],
        &["# cores =", "# default (", "one per core"],
        &["backend.pin_file = \"data/pin\"", "# file "],
    ] {
        let there = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        expected.row(there, words[0], &format!("a line with {words:?}"), &text);
    }
    let pin = "never there";
    site.init().await?;
    site.write_secret("data/pin", pin)?;
    let mut show = site.command("config show")?;
    let ended = run(show.args(["--output", "json"])).await?.success()?;
    let json: Value = serde_json::from_slice(&ended.stdout).context("JSON")?;
    let node = json.as_array().into_iter().flatten().find(|setting| setting["name"] == "node");
    expected.row(node.is_some_and(|node| node["value"] == "\"node-1\""), "as JSON", "node", &json.to_string());
    expected.row(!all(&ended).contains(pin), "secrets", "paths alone", "the PIN");
    expected.check();
    Ok(())
}
