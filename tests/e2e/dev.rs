//! `kms-server dev`: from nothing to a first ciphertext.

use std::net::TcpListener;

use anyhow::Result;
use kms_tests::{Output, Process, command, patiently, run, run_with};

/// Where `dev` listens. It chooses no other, so that what it tells to type next is always the same.
const ADDRESSES: [&str; 3] = ["127.0.0.1:8443", "127.0.0.1:8444", "127.0.0.1:8445"];

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
    kms("tenant destroy acme --wait 0s --yes --name acme", b"").await?;

    server.terminate()?;
    assert_eq!(patiently("the end of dev", server.ended()).await??, Some(0), "{}", output.tail());
    for line in ["kms tenant create acme", "kms key create", "encrypt", "decrypt"] {
        assert!(output.text().contains(line), "dev does not say {line:?}");
    }
    Ok(())
}
