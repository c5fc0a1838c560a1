//! Tools that ask a listener for its services: answered by `dev`, and by nothing else.

use anyhow::{Context as _, Result};
use kms_tests::wire::send_bytes;
use kms_tests::{Caller, Identity, Ledger, Listener, Output, Process, command, patiently};
use tonic::Code;

use crate::{World, refused};

/// `ServerReflectionRequest { list_services: "" }`, the same in both versions.
const LIST: &[u8] = &[0x3a, 0];
/// `ServerReflectionRequest { file_containing_symbol: "kms.v1.EncryptRequest" }`.
const DESCRIBE: &[u8] = b"\x22\x15kms.v1.EncryptRequest";
const METHODS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
const OF_SERVICES: [&str; 4] =
    ["kms.v1.CryptoService", "kms.v1.TenantService", "kms.v1.KeyService", "kms.v1.AccessService"];
const OF_OPERATOR: [&str; 1] = ["kms.v1.OperatorService"];

#[tokio::test]
async fn dev_tells_of_the_services_of_each_listener() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Output::default();
    let mut dev = command("kms-server")?;
    dev.args(["dev", "--port", "0"]).current_dir(folder.path());
    let mut dev = Process::start(&mut dev, &output)?;
    let addresses = dev.serving().await.with_context(|| output.tail())?;
    let read = |name: &str| std::fs::read_to_string(folder.path().join(".kms-dev").join(name));
    let identity = Identity { certificate: read("app.pem")?, key: read("app.key")? };
    let ledger = Ledger::default();
    let app = Caller::new(&addresses.services, &addresses.operator, &read("ca.pem")?, Some(&identity), &ledger)?;
    for (listener, own, others) in [
        (Listener::Services, &OF_SERVICES[..], &OF_OPERATOR[..]),
        (Listener::Operator, &OF_OPERATOR[..], &OF_SERVICES[..]),
    ] {
        for method in METHODS {
            let listed = send_bytes(app.channel(listener), method, LIST).await?;
            let listed = String::from_utf8_lossy(&listed);
            for name in own.iter().chain(&["grpc.health.v1.Health"]) {
                assert!(listed.contains(name), "{listener:?} does not list {name}: {listed:?}");
            }
            for name in others {
                assert!(!listed.contains(name), "{listener:?} lists {name}");
            }
            let described = send_bytes(app.channel(listener), method, DESCRIBE).await?;
            assert!(String::from_utf8_lossy(&described).contains("encryption_context"));
        }
    }
    dev.terminate()?;
    assert_eq!(patiently("the end of dev", dev.ended()).await??, Some(0), "{}", output.tail());
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_serves_knows_no_reflection() -> Result<()> {
    let world = World::new().await?;
    for listener in [Listener::Services, Listener::Operator] {
        for method in METHODS {
            let got = send_bytes(world.admin.channel(listener), method, LIST).await;
            refused(Code::Unimplemented, "METHOD_UNKNOWN", got);
        }
    }
    world.finish().await
}
