//! README.md is true: its commands are run, its settings are read by the daemon's own reader, its
//! example is the one that is compiled, its links lead somewhere.
//!
//! A fenced block of `sh` is run as it stands, the blocks of a section one after the other in one
//! shell; a block of `text` right behind it is what they print, where `...` stands for anything.
//! Blocks of other languages are not run: `console` is for what needs a build or does not end.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod backends;
mod child;
mod document;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use kms_server::config::{Flags, SETTINGS, Settings, example};
use kms_server::policy::Policy;
use kms_tests::{Authority, command, program, run};
use tokio::process::Command;

use child::Child;
use document::{Step, block, blocks, first_not_printed, root, steps, text};

#[tokio::test]
async fn the_first_ten_minutes_go_as_they_are_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut dev = command("kms-server")?;
    dev.args(["dev", "--port", "0"]).current_dir(folder.path());
    let dev = Child::start(&mut dev, "In another terminal").await?;
    let blocks = blocks(&text());
    let mut told = steps(&blocks, "The first ten minutes");
    told.extend(steps(&blocks, "The Rust client"));
    walk(&told, folder.path()).await?;

    let client = fs::read_to_string(folder.path().join(".kms-dev/client.toml"))?;
    let address = client.lines().find_map(|line| line.strip_prefix("address = \"")?.strip_suffix('"'));
    let example =
        program("examples/quickstart").context("cargo build --workspace --features kms-client/cli --examples")?;
    let mut example = Command::new(example);
    example.env("KMS_ADDR", address.context("client.toml names the address")?).current_dir(folder.path());
    let printed = String::from_utf8(run(&mut example).await?.success()?.stdout)?;
    let shown = &block(&blocks, "text", "107 bytes").text;
    ensure!(first_not_printed(shown, &printed).is_none(), "the example printed {printed:?}, README shows {shown:?}");
    dev.stop().await
}

#[tokio::test]
async fn running_it_for_real_goes_as_it_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let blocks = blocks(&text());
    // The files have the places that a test may write to, and nothing else is changed.
    let here = |text: &str| text.replace("/etc/kms/", "").replace("/var/lib/kms", "data");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), here(text));
    write("kms.toml", &block(&blocks, "toml", "# /etc/kms/kms.toml").text)?;
    write("config.toml", &block(&blocks, "toml", "# ~/.config/kms/config.toml").text)?;
    write_certificates(folder.path())?;

    let told = steps(&blocks, "Running it");
    let told: Vec<Step> = told
        .into_iter()
        .map(|step| Step { commands: here(&step.commands), printed: step.printed.map(|text| here(&text)) })
        .collect();
    walk(&told, folder.path()).await?;
    let mut bindings = fs::read_to_string(folder.path().join("bindings.toml"))?;
    bindings += &block(&blocks, "toml", "# added to /etc/kms/bindings.toml").text;
    write("bindings.toml", &bindings)?;

    let mut serve = command("kms-server")?;
    serve.args(["serve", "--config", "kms.toml"]).current_dir(folder.path());
    for listener in ["SERVICES", "OPERATOR", "PROBES"] {
        serve.env(format!("KMS_SERVER_LISTEN_{listener}"), "127.0.0.1:0");
    }
    let serve = Child::start(&mut serve, "\"message\":\"serving\"").await?;
    let address = format!("https://{}", serve.field("services")?);
    for (profile, binding) in [("admin", "first-administrator"), ("billing", "billing-acme")] {
        let mut whoami = command("kms")?;
        whoami.args(["--config", "config.toml", "--address", &address, "--profile", profile, "whoami"]);
        let answer = run(whoami.current_dir(folder.path())).await?.success()?;
        let answer = String::from_utf8(answer.stdout)?;
        ensure!(answer.contains(binding), "{profile} is not bound by {binding}: {answer}");
    }
    serve.stop().await
}

/// Writes certificates for the daemon, an administrator and an application.
fn write_certificates(folder: &Path) -> Result<()> {
    let authority = Authority::new()?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    for (name, identity) in [
        ("server", authority.server()?),
        ("admin", authority.client("spiffe://example.com/admin")?),
        ("billing", authority.client("spiffe://example.com/billing")?),
    ] {
        fs::write(folder.join(format!("{name}.pem")), &identity.certificate)?;
        let key = folder.join(format!("{name}.key"));
        fs::write(&key, &identity.key)?;
        fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Runs the steps in one shell, and holds what each printed against what README shows.
async fn walk(steps: &[Step], folder: &Path) -> Result<()> {
    walk_in(steps, folder, &[]).await
}

/// As [`walk`], with variables of the environment.
async fn walk_in(steps: &[Step], folder: &Path, environment: &[(&str, String)]) -> Result<()> {
    let mut script = "exec 2>&1\n".to_owned();
    for step in steps {
        writeln!(script, "{}\necho '{MARK}'", step.commands)?;
    }
    let programs = program("kms")?.parent().context("it lies in a folder")?.to_owned();
    ensure!(programs.join("kms-server").is_file(), "kms and kms-server lie side by side");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    shell.args(["-eu", "-o", "pipefail", "-c", &script]).current_dir(folder);
    shell.env("PATH", format!("{}:{path}", programs.display()));
    shell.envs(environment.iter().map(|(name, value)| (name, value)));
    // Whoever runs the tests may have settings of their own.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KMS_")) {
        shell.env_remove(name);
    }
    let ended = run(&mut shell).await?;
    let printed = String::from_utf8(ended.stdout)?;
    let mut parts: Vec<&str> = printed.split(&format!("{MARK}\n")).collect();
    let last = parts.pop().unwrap_or_default();
    if ended.code != Some(0) {
        bail!("step {} ended with {:?}:\n{}\n{last}", parts.len() + 1, ended.code, steps[parts.len()].commands);
    }
    for (step, printed) in steps.iter().zip(parts) {
        if let Some(line) = step.printed.as_deref().and_then(|shown| first_not_printed(shown, printed)) {
            bail!("README shows {line:?}, but\n{}printed\n{printed}", step.commands);
        }
    }
    Ok(())
}

#[test]
fn the_settings_are_those_of_the_example() {
    // Which has every setting of the table, as a test beside it holds.
    let blocks = blocks(&text());
    assert_eq!(block(&blocks, "toml", "# /etc/kms/kms.toml").text, example());
    for setting in SETTINGS {
        assert!(example().contains(&format!("{} = ", setting.name)), "{} is not shown", setting.full_name());
    }
}

#[test]
fn what_is_shown_as_default_is_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let file = folder.path().join("kms.toml");
        fs::write(&file, text).unwrap();
        Settings::load(&Flags { config: Some(file), ..Flags::default() }).unwrap()
    };
    let blocks = blocks(&text());
    // What differs on purpose: where things lie, and the certificates, which have no default.
    let shown = load(&block(&blocks, "toml", "# /etc/kms/kms.toml").text);
    let mut default = load("data_dir = \"/var/lib/kms\"");
    default.tls.clone_from(&shown.tls);
    default.bindings_file.clone_from(&shown.bindings_file);
    default.backend.clone_from(&shown.backend);
    assert_eq!(format!("{shown:?}"), format!("{default:?}"));
}

#[test]
fn the_bindings_are_understood() {
    let blocks = blocks(&text());
    Policy::load(&block(&blocks, "toml", "# added to /etc/kms/bindings.toml").text, "README.md").unwrap();
}

#[test]
fn the_example_is_the_one_that_is_compiled() {
    let example = fs::read_to_string(root().join("kms-client/examples/quickstart.rs")).unwrap();
    let code = &example[example.find("use kms_client").unwrap()..];
    assert_eq!(block(&blocks(&text()), "rust", "use kms_client").text, code);
}

#[test]
fn every_link_leads_to_a_file() {
    let text = text();
    let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 5, "{links:?}");
    let headings: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| format!("#{}", heading.to_lowercase().replace(' ', "-").replace([',', '\''], "")))
        .collect();
    let leads_nowhere = |link: &&str| match link.starts_with('#') {
        true => !headings.iter().any(|heading| heading == link),
        false => !link.starts_with("https://") && !root().join(link).exists(),
    };
    let broken: Vec<&str> = links.into_iter().filter(leads_nowhere).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

/// What no command prints.
const MARK: &str = "-- the end of a step of README --";
