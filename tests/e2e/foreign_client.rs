//! A client of another language: Python, with what stock grpcio makes of the `.proto` files.
//!
//! `tests/foreign/trip.py` is the client. Here it gets what it needs, once: an environment of its own under the target
//! directory, from PyPI, by digest. Later runs ask nobody. Where it cannot be had the test fails and says what to install.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kms_server::audit::Outcome;
use kms_tests::records::Records;
use kms_tests::{Daemon, Ended, NAMES, run};
use tokio::process::Command;

#[tokio::test]
async fn a_python_client_does_the_whole_round_trip() -> Result<()> {
    let python = environment().await?;
    let daemon = Daemon::fresh().await?;
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
    // One is refused here: it takes a second person, whom nobody can ask yet.
    let answered = |name: &str| match name {
        "ExportKeystore" => records.of(name, Outcome::Failed).next().is_some(),
        _ => records.of(name, Outcome::Ok).next().is_some(),
    };
    let missing: Vec<_> = NAMES.iter().filter(|name| !answered(name)).collect();
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

/// Returns the Python of an environment that has what `requirements.txt` names; makes it if there is none.
async fn environment() -> Result<PathBuf> {
    let requirements = foreign().join("requirements.txt");
    let wanted = fs::read_to_string(&requirements)?;
    let target = std::env::current_exe()?;
    let target = target.ancestors().nth(3).context("a test lies in target/<profile>/deps")?;
    let folder = target.join("foreign-client");
    let (python, made) = (folder.join("bin/python"), folder.join("made-of.txt"));
    if fs::read_to_string(&made).is_ok_and(|made| made == wanted) && works(&python).await {
        return Ok(python);
    }
    // Another list of packages, another Python, or one that did not come to its end: begun anew.
    drop(fs::remove_dir_all(&folder));
    let venv = ended(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await.context(
        "python3 with its module venv, 3.10 or newer, is needed for the test of a foreign client. Install it \
         (Debian, Ubuntu: apt-get install python3-venv; Fedora: dnf install python3) and run the tests again",
    );
    venv?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--only-binary",
        ":all:",
    ]);
    pip.args(["--require-hashes", "--timeout", "60", "--retries", "3", "-r"]).arg(&requirements);
    ended(&mut pip).await.context(
        "the packages of tests/foreign/requirements.txt could not be had from PyPI: they are needed once, for the test of \
         a foreign client. Give this machine a way to PyPI, or pip a mirror (PIP_INDEX_URL), and run the tests again",
    )?;
    fs::write(&made, wanted)?;
    Ok(python)
}

async fn works(python: &Path) -> bool {
    ended(Command::new(python).args(["-c", "import grpc, grpc_tools, grpc_status, grpc_health"])).await.is_ok()
}

/// Runs a program that may take as long as a slow network makes it; it has limits of its own.
async fn ended(command: &mut Command) -> Result<Ended> {
    let program = command.as_std().get_program().to_owned();
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("starting {program:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Ended { code: output.status.code(), stdout: Vec::new(), stderr }.success()
}
