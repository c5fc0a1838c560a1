//! A child process that serves until it is told to stop.

use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::output::{Addresses, Following};
use crate::{Output, patiently};

/// A process that was started here. Dropping it kills it, and no other.
pub struct Process {
    child: Child,
    following: Following,
}

impl Process {
    /// Starts a program whose output is kept.
    pub fn start(command: &mut Command, output: &Output) -> Result<Self> {
        // Pipes and not files: a limit on the size of files must not silence it. Its standard
        // output is kept too, because it shows what was printed by mistake.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {:?}", command.as_std().get_program()))?;
        let following = output.follow(child.stderr.take().context("it was piped")?);
        drop(output.follow(child.stdout.take().context("it was piped")?));
        Ok(Self { child, following })
    }

    /// Returns where it listens, once it says that it serves. Fails if it ends before.
    pub async fn serving(&mut self) -> Result<Addresses> {
        patiently("the line `serving`, or an end", self.following.serving()).await?
    }

    /// Returns its id.
    pub fn id(&self) -> Result<Pid> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        id.context("it has ended already")
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        kill_process(self.id()?, Signal::TERM).context("asking it to stop")
    }

    /// Asks it to read again what can change (SIGHUP).
    pub fn hang_up(&self) -> Result<()> {
        kill_process(self.id()?, Signal::HUP).context("asking it to reload")
    }

    /// Kills it (SIGKILL), as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.start_kill().context("killing it")
    }

    /// Waits until it has ended, and returns its exit code; nothing if a signal ended it.
    pub async fn ended(mut self) -> Result<Option<i32>> {
        let status = patiently("the end of the process", self.child.wait()).await??;
        patiently("the end of its output", self.following.end()).await??;
        Ok(status.code())
    }
}
