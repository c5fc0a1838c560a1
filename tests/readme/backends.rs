//! From nothing to a running daemon, with each backend: README's own settings and commands, against real components.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use kms_tests::{Moto, SoftHsm, command};

use crate::child::Child;
use crate::document::{Step, block, blocks, steps, text};
use crate::{walk_in, write_certificates};

/// What a backend needs that README cannot know.
struct Backend<'a> {
    section: &'a str,
    /// How its block of settings begins.
    settings: &'a str,
    /// More lines of them.
    more: &'a str,
    /// What is written otherwise here, in settings and commands.
    here: &'a [(&'a str, String)],
    environment: &'a [(&'a str, String)],
}

/// Runs the commands of a backend's section, then serves, and calls the daemon.
#[allow(clippy::print_stdout, reason = "what was done is shown")]
async fn from_nothing(backend: &Backend<'_>, folder: &Path) -> Result<()> {
    let here = |text: &str| {
        let text = text.replace("/etc/kms/", "").replace("/var/lib/kms", "data");
        backend.here.iter().fold(text, |text, (from, to)| text.replace(from, to))
    };
    write_certificates(folder)?;
    let blocks = blocks(&text());
    let base = "data_dir = \"data\"\n[listen]\nservices = \"127.0.0.1:0\"\noperator = \"127.0.0.1:0\"\nprobes = \"127.0.0.1:0\"\n\
                [tls]\ncertificate_file = \"server.pem\"\nkey_file = \"server.key\"\nclient_ca_file = \"ca.pem\"\n\
                [policy]\nbindings_file = \"bindings.toml\"\n";
    let settings = here(&block(&blocks, "toml", backend.settings).text);
    fs::write(folder.join("kms.toml"), format!("{base}{settings}{}", backend.more))?;
    let told: Vec<Step> = steps(&blocks, backend.section)
        .into_iter()
        .map(|step| Step { commands: here(&step.commands), printed: step.printed })
        .collect();
    let commands: usize = told.iter().map(|step| step.commands.lines().count()).sum();
    walk_in(&told, folder, backend.environment).await?;

    let mut serve = command("kms-server")?;
    serve.args(["serve", "--config", "kms.toml"]).current_dir(folder);
    serve.envs(backend.environment.iter().map(|(name, value)| (name, value)));
    let serve = Child::start(&mut serve, "\"message\":\"serving\"").await?;
    ensure!(serve.field("services")?.starts_with("127.0.0.1:"));
    serve.stop().await?;
    println!("{}: {commands} commands and `serve`: running", backend.section);
    Ok(())
}

#[tokio::test]
async fn the_software_hsm() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (section, settings) = ("In the software HSM", "# kms.toml, for the software HSM");
    from_nothing(&Backend { section, settings, more: "", here: &[], environment: &[] }, folder.path()).await
}

#[tokio::test]
async fn aws_kms() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let moto = Moto::start().await?;
    let proxy = moto.proxy().await?;
    let environment: Vec<(&str, String)> = [
        ("AWS_ACCESS_KEY_ID", "example"),
        ("AWS_SECRET_ACCESS_KEY", "example"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec();
    let more = format!("aws_endpoint_url = \"{}\"\n", proxy.url());
    let (section, settings) = ("In AWS KMS", "# kms.toml, for AWS KMS");
    from_nothing(&Backend { section, settings, more: &more, here: &[], environment: &environment }, folder.path()).await
}

#[tokio::test]
async fn a_hardware_module() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hsm = SoftHsm::new(&folder.path().join("softhsm"))?;
    let pin = folder.path().join("token-pin");
    fs::write(&pin, "31415926\n")?;
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600))?;
    let module = hsm.module().to_str().context("a path in UTF-8")?.to_owned();
    let here = [("/usr/lib/softhsm/libsofthsm2.so", module)];
    let environment = [hsm.variable()];
    let (section, settings) = ("In a hardware module (PKCS#11)", "# kms.toml, for a hardware module");
    from_nothing(&Backend { section, settings, more: "", here: &here, environment: &environment }, folder.path()).await
}
