//! The `kms` command against the daemon, as a person or a script uses it.

use anyhow::Result;
use kms_tests::{Ended, run_with};
use serde_json::Value;

use crate::{Expected, World};

/// A folder with a configuration file, from which the command is run.
struct Shell<'a> {
    world: &'a World,
}

impl<'a> Shell<'a> {
    fn new(world: &'a World) -> Result<Self> {
        let site = world.daemon.site();
        let mut config = "current = \"admin\"\n".to_owned();
        for name in ["admin", "app"] {
            site.identity_files(name)?;
            let (services, operator) = (world.daemon.services(), world.daemon.operator());
            config.push_str(&format!(
                "[profile.{name}]\naddress = \"https://{services}\"\noperator_address = \"https://{operator}\"\n\
                 ca_file = \"ca.pem\"\ncert_file = \"{name}.pem\"\nkey_file = \"{name}.key\"\n"
            ));
        }
        site.write("client.toml", &config)?;
        Ok(Self { world })
    }

    /// Runs a line, split at its spaces.
    async fn run(&self, line: &str, input: &[u8]) -> Result<Ended> {
        let mut command = kms_tests::command("kms")?;
        let folder = self.world.daemon.site().dir();
        command.args(line.split_ascii_whitespace()).current_dir(folder).env("KMS_CONFIG", "client.toml");
        run_with(&mut command, input).await
    }

    /// Runs a line that should work, and returns what it printed.
    async fn prints(&self, line: &str, input: &[u8]) -> Result<Vec<u8>> {
        let ended = self.run(line, input).await?;
        assert_eq!(ended.code, Some(0), "kms {line}: {}", ended.stderr);
        Ok(ended.stdout)
    }

    /// Runs a line that should work and print JSON.
    async fn json(&self, line: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.prints(&format!("--output json {line}"), b"").await?)?)
    }
}

#[tokio::test]
async fn the_command_does_the_main_job() -> Result<()> {
    let world = World::new().await?;
    let kms = Shell::new(&world)?;
    let app = "--profile app --tenant initech";

    assert_eq!(kms.json("whoami").await?["principal"], world.daemon.site().principal("admin"));
    assert_eq!(kms.json("status").await?["state"], "SERVER_STATE_SERVING");
    kms.prints("tenant create initech", b"").await?;
    kms.prints("key create --tenant initech app", b"").await?;
    let blob =
        kms.prints(&format!("{app} encrypt --key app --context table=users --context id=42"), b"078-05-1120\n").await?;
    assert!(blob.starts_with(b"kms1"), "{blob:?}");
    let opened = kms.prints(&format!("{app} decrypt --key app --context id=42 --context table=users"), &blob).await?;
    assert_eq!(opened, b"078-05-1120\n");

    kms.prints("key rotate --tenant initech app", b"").await?;
    let moved = kms.prints(&format!("{app} re-encrypt --key app --context table=users --context id=42"), &blob).await?;
    assert_ne!(moved, blob);
    let opened = kms.prints(&format!("{app} decrypt --key app --context table=users --context id=42"), &moved).await?;
    assert_eq!(opened, b"078-05-1120\n");
    let versions = kms.json("key versions --tenant initech app").await?;
    assert_eq!(versions["keyVersions"].as_array().map(Vec::len), Some(2), "{versions}");
    assert!(String::from_utf8(kms.prints("tenant list", b"").await?)?.contains("initech"));

    kms.prints("tenant destroy initech --wait 0s --yes --name initech", b"").await?;
    assert_eq!(kms.json("tenant get initech").await?["state"], "TENANT_STATE_FENCED");
    let refused = kms.run(&format!("{app} decrypt --key app --context table=users --context id=42"), &moved).await?;
    assert_eq!((refused.code, refused.stdout.is_empty()), (Some(5), true));
    assert!(refused.stderr.contains("TENANT_DESTROYED"), "{}", refused.stderr);
    world.finish().await
}

#[tokio::test]
async fn the_exit_code_says_what_sort_of_failure_it_was() -> Result<()> {
    let world = World::new().await?;
    let kms = Shell::new(&world)?;
    let mut expected = Expected::of("exit codes of the kms command");
    for (line, input, code, says) in [
        ("--profile app decrypt --key tenants/acme/keys/app", &b"kms1AQEz"[..], 1, "error"),
        ("tenant create a/b", b"", 2, "a/b"),
        ("tenant rename acme", b"", 2, "rename"),
        ("--profile nobody whoami", b"", 2, "nobody"),
        ("encrypt --key tenants/acme/keys/app", b"x", 3, "POLICY_DENIED"),
        ("--profile app tenant list", b"", 3, "POLICY_DENIED"),
        ("tenant get nobody", b"", 4, "TENANT_NOT_FOUND"),
        ("--profile app encrypt --key tenants/acme/keys/nothing", b"x", 4, "KEY_NOT_FOUND"),
        ("tenant create acme", b"", 5, "TENANT_ALREADY_EXISTS"),
        ("tenant resume acme", b"", 5, "STATE_CONFLICT"),
        ("--address https://127.0.0.1:1 whoami", b"", 6, "127.0.0.1:1"),
    ] {
        let ended = kms.run(line, input).await?;
        let right = ended.code == Some(code) && ended.stderr.contains(says) && ended.stdout.is_empty();
        expected.row(right, line, &format!("exit code {code} and {says:?} on stderr"), &format!("{ended:?}"));
    }
    expected.check();
    world.finish().await
}
