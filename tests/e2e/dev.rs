//! `kms-server dev`: from nothing to a first ciphertext.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context as _, Result};
use kms_server::crypto::keystore_file::KeystoreHead;
use kms_tests::{Output, Process, command, patiently, run, run_with};

/// Where `dev` listens. It chooses no other, so that what it tells to type next is always the same.
const ADDRESSES: [&str; 3] = ["127.0.0.1:8443", "127.0.0.1:8444", "127.0.0.1:8445"];

/// What works in `dev` alone, and how an operator locks: by the command.
async fn export_and_lock(folder: &Path, kms: &impl AsyncFn(&str, &[u8]) -> Result<Vec<u8>>) -> Result<()> {
    for serial in 1..=2 {
        let told = kms(&format!("--output json operator export-keystore --to export-{serial}"), b"").await?;
        let told: serde_json::Value = serde_json::from_slice(&told)?;
        let name = told["files"][0].as_str().context("a file")?.to_owned();
        assert_eq!(told["serial"], serial);
        // The serial stands in the file, under the PIN as all of it; another salt, so another file.
        let copy = fs::read(folder.join(format!("export-{serial}")).join(&name))?;
        let original = fs::read(folder.join(".kms-dev/data/hsm").join(&name))?;
        let head = KeystoreHead::parse(&copy)?;
        assert_eq!((head.export_serial, KeystoreHead::parse(&original)?.export_serial), (serial, 0));
        assert!(copy[59..] != original[59..] && copy.len() == original.len());
        if serial == 2 {
            // A copy opens what the original did: it is put in its place, and the server comes up from its lock with it.
            kms("operator lock", b"").await?;
            fs::write(folder.join(".kms-dev/data/hsm").join(&name), &copy)?;
            let mut locked = command("kms")?;
            locked.args(["status"]).current_dir(folder);
            let locked = run(&mut locked).await?;
            assert!(locked.code == Some(8) && locked.stderr.contains("LOCKED"), "{locked:?}");
            kms("operator unlock", b"").await?;
        }
    }
    let status = String::from_utf8(kms("status", b"").await?)?;
    assert!(status.contains("exports that outlive the destruction of a version: 1, 2"), "{status}");
    Ok(())
}

#[tokio::test]
async fn dev_serves_and_the_lines_that_it_prints_work() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Output::default();
    let mut server = command("kms-server")?;
    server.arg("dev").current_dir(folder.path());
    let taken = ADDRESSES.into_iter().find(|address| TcpListener::bind(address).is_err());
    if let Some(taken) = taken {
        // Something else of this machine is there: then it must say so and end.
        let ended = run(&mut server).await?;
        assert!(ended.code != Some(0) && ended.stderr.contains(taken), "{ended:?}");
        println!("{taken} is taken here: dev says so and ends");
        return Ok(());
    }
    let mut server = Process::start(&mut server, &output)?;
    let addresses = server.serving().await?;
    assert_eq!([&*addresses.services, &*addresses.operator, &*addresses.probes], ADDRESSES);

    // It tells what to type when all that is written.
    output.says("kms --profile app decrypt").await?;
    // By itself the command finds what dev has written.
    let kms = async |line: &str, input: &[u8]| -> Result<Vec<u8>> {
        let mut kms = command("kms")?;
        kms.args(line.split_ascii_whitespace()).current_dir(folder.path());
        Ok(run_with(&mut kms, input).await?.success()?.stdout)
    };
    kms("tenant create acme", b"").await?;
    kms("key create --tenant acme app", b"").await?;
    let blob = kms("--profile app encrypt --key tenants/acme/keys/app --context table=users", b"hello\n").await?;
    let opened = kms("--profile app decrypt --key tenants/acme/keys/app --context table=users", &blob).await?;
    assert_eq!(opened, b"hello\n");
    export_and_lock(folder.path(), &kms).await?;
    kms("tenant destroy acme --wait 0s --yes --name acme", b"").await?;

    server.terminate()?;
    assert_eq!(patiently("the end of dev", server.ended()).await??, Some(0), "{}", output.tail());
    for line in ["kms tenant create acme", "kms key create", "encrypt", "decrypt"] {
        assert!(output.text().contains(line), "dev does not say {line:?}");
    }
    Ok(())
}
