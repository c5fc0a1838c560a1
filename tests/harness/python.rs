//! Packages of PyPI that tests use: an environment for each use, below the target directory, made once and by digest.
//! Later runs ask nobody. Where one cannot be had, the test fails and says what to install.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{Ended, program};

/// What Python is needed for.
#[derive(Clone, Copy, Debug)]
pub struct Python<'a> {
    /// The name of the environment's directory.
    pub name: &'a str,
    /// The list of packages, below `tests/`.
    pub requirements: &'a str,
    /// What must be there to be imported.
    pub modules: &'a str,
    /// What cannot be tested without it, for people.
    pub purpose: &'a str,
}

impl Python<'_> {
    /// Returns the Python of an environment that has what is needed; makes it if there is none.
    pub async fn environment(&self) -> Result<PathBuf> {
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.requirements);
        let wanted = fs::read_to_string(&list)?;
        let server = program("kms-server")?;
        let target = server.ancestors().nth(2).context("a program lies in target/<profile>")?;
        // Tests run beside each other, and one makes it.
        let lock = File::create(target.join(format!("{}.lock", self.name)))?;
        let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        let folder = target.join(self.name);
        let (python, made) = (folder.join("bin/python"), folder.join("made-of.txt"));
        if fs::read_to_string(&made).is_ok_and(|made| made == wanted) && self.works(&python).await {
            return Ok(python);
        }
        // Another list of packages, another Python, or one that did not come to its end: begun anew.
        drop(fs::remove_dir_all(&folder));
        let venv = ended(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await;
        venv.with_context(|| {
            format!(
                "python3 with its module venv, 3.10 or newer, is needed for {}. Install it (Debian, Ubuntu: apt-get \
                 install python3-venv; Fedora: dnf install python3) and run the tests again",
                self.purpose
            )
        })?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        pip.args(["--only-binary", ":all:", "--require-hashes", "--timeout", "60", "--retries", "3", "-r"]).arg(&list);
        ended(&mut pip).await.with_context(|| {
            format!(
                "the packages of tests/{} could not be had from PyPI: they are needed once, for {}. Give this machine a \
                 way to PyPI, or pip a mirror (PIP_INDEX_URL), and run the tests again",
                self.requirements, self.purpose
            )
        })?;
        fs::write(&made, wanted)?;
        Ok(python)
    }

    async fn works(&self, python: &Path) -> bool {
        ended(Command::new(python).args(["-c", &format!("import {}", self.modules)])).await.is_ok()
    }
}

/// Runs a program that may take as long as a slow network makes it; it has limits of its own.
async fn ended(command: &mut Command) -> Result<Ended> {
    let program = command.as_std().get_program().to_owned();
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("starting {program:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Ended { code: output.status.code(), stdout: Vec::new(), stderr }.success()
}
