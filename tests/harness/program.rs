//! Finds the programs of the workspace and runs them to their end.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::patiently;

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; nothing if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Ended {
    /// Turns any end but exit code 0 into an error that shows what the program said.
    pub fn success(self) -> Result<Self> {
        if self.code != Some(0) {
            bail!("it ended with {:?} and said: {}", self.code, self.stderr.trim());
        }
        Ok(self)
    }
}

/// Returns the path of a program of this workspace, such as `kms-server`.
///
/// It lies in the directory of the running program or above it: cargo puts programs into
/// `target/<profile>` and tests into `deps` below. Cargo does not build other packages' programs
/// for a test, hence the message.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this program")?;
    own.ancestors()
        .skip(1)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("there is no program `{name}` beside {}", own.display()))
        .context("build it first: cargo build --workspace --features kms-client/cli")
}

/// Returns a command for a program of this workspace, such as `kms-server`, without the settings of
/// whoever runs the test.
pub fn command(name: &str) -> Result<Command> {
    command_in(&[], name)
}

/// Returns the same behind the words of another command, which runs it.
pub(crate) fn command_in(words: &[std::ffi::OsString], name: &str) -> Result<Command> {
    let mut words = words.to_vec();
    words.push(program(name)?.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    for (variable, _) in std::env::vars_os() {
        if ["KMS_", "AWS_"].iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
            command.env_remove(variable);
        }
    }
    Ok(command)
}

/// Runs a command to its end. One that takes too long is killed, and that is a failure.
pub async fn run(command: &mut Command) -> Result<Ended> {
    run_with(command, &[]).await
}

/// Runs a command to its end with something on its standard input.
pub async fn run_with(command: &mut Command, input: &[u8]) -> Result<Ended> {
    use tokio::io::AsyncWriteExt as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {:?}", command.as_std().get_program()))?;
    let mut stdin = child.stdin.take().context("it was piped")?;
    let input = input.to_owned();
    let feed = async move {
        // A program that does not read its input has closed it: its exit code tells why.
        drop(stdin.write_all(&input).await);
        drop(stdin);
    };
    let ended = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = patiently(&format!("the end of {:?}", command.as_std()), ended).await??;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Ended { code: output.status.code(), stdout: output.stdout, stderr })
}
