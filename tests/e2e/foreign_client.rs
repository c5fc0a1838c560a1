//! A client of another language: Python, with what stock grpcio makes of the `.proto` files.
//!
//! `tests/foreign/trip.py` is the client. What it needs of PyPI stands in `tests/foreign/requirements.txt`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kms_server::audit::Outcome;
use kms_tests::records::Records;
use kms_tests::{Binding, NAMES, Python, Site, run};
use tokio::process::Command;

#[tokio::test]
async fn a_python_client_does_the_whole_round_trip() -> Result<()> {
    let python = PYTHON.environment().await?;
    let site = Site::temporary()?;
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter", "reencrypter", "eraser"])?;
    let (admin, app) = (site.principal("admin"), site.principal("app"));
    let both: [(&str, &[&str], &str); 2] =
        [("app-is-staff", &["staff", "approver"], &app), ("admin-approves", &["approver"], &admin)];
    for (id, roles, principal) in both {
        site.bind(&Binding { id, roles, principals: &[principal], tenants: &["*"], keys: &[], indexes: &[] })?;
    }
    let daemon = site.start().await?;
    let site = daemon.site();
    let stubs = site.path("stubs");
    generate(&python, &stubs).await?;

    let (admin, app) = (site.identity_files("admin")?.0, site.identity_files("app")?.0);
    let ended = run(Command::new(&python)
        .arg(foreign().join("trip.py"))
        .args(["--services", daemon.services(), "--operator", daemon.operator()])
        .arg("--ca")
        .arg(site.path("ca.pem"))
        .arg("--admin")
        .arg(admin.with_extension(""))
        .arg("--app")
        .arg(app.with_extension(""))
        .env("PYTHONPATH", &stubs)
        .env("PYTHONDONTWRITEBYTECODE", "1"))
    .await?;
    let ended = ended.success().context("tests/foreign/trip.py")?;
    print!("{}", String::from_utf8_lossy(&ended.stdout));
    ensure!(String::from_utf8_lossy(&ended.stdout).contains("as expected"), "it did not come to its end");

    let site = daemon.stop().await?;
    let records = Records::read(&site)?;
    let missing: Vec<_> = NAMES.iter().filter(|name| records.of(name, Outcome::Ok).next().is_none()).collect();
    println!("foreign client: {}/{} RPCs answered", NAMES.len() - missing.len(), NAMES.len());
    ensure!(missing.is_empty(), "the round trip lacks {missing:?}");
    crate::world::check(&site)
}

fn foreign() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign")
}

/// Compiles the `.proto` files with the protoc of grpcio-tools, as any caller would.
async fn generate(python: &Path, stubs: &Path) -> Result<()> {
    fs::create_dir_all(stubs)?;
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto").canonicalize()?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(proto.join("kms/v1"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut protoc = Command::new(python);
    protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(&proto);
    for flag in ["--python_out", "--grpc_python_out"] {
        protoc.arg(flag).arg(stubs);
    }
    run(protoc.args(files)).await?.success().context("protoc, on the .proto files")?;
    Ok(())
}

const PYTHON: Python<'_> = Python {
    name: "foreign-client",
    requirements: "foreign/requirements.txt",
    modules: "grpc, grpc_tools, grpc_status, grpc_health",
    purpose: "the test of a foreign client",
};
