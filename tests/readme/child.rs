//! A daemon that README starts: waited for by what it says, and stopped as a person would.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use kms_tests::patiently;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// A running daemon. Dropping it kills its process, and no other.
pub struct Child {
    process: tokio::process::Child,
    /// The line that was waited for.
    line: String,
    /// Reads on, so that the daemon can write on.
    rest: JoinHandle<String>,
}

impl Child {
    /// Starts a daemon and waits for a line with these words.
    pub async fn start(command: &mut Command, words: &str) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {:?}", command.as_std()))?;
        let mut lines = BufReader::new(process.stderr.take().context("it was piped")?);
        let mut said = String::new();
        let line = patiently(words, async {
            loop {
                let mut line = String::new();
                ensure!(lines.read_line(&mut line).await? > 0, "it ended before it said {words:?}; it said: {said}");
                if line.contains(words) {
                    return Ok(line);
                }
                said += &line;
            }
        })
        .await??;
        let rest = tokio::spawn(async move {
            // It may print the rest in whatever encoding: nobody reads it but after a failure.
            drop(lines.read_to_string(&mut said).await);
            said
        });
        Ok(Self { process, line, rest })
    }

    /// Returns a field of the line that was waited for.
    pub fn field(&self, name: &str) -> Result<String> {
        let line: serde_json::Value = serde_json::from_str(&self.line)?;
        let field = line.get("fields").and_then(|fields| fields.get(name)?.as_str());
        Ok(field.with_context(|| format!("{name} in {line}"))?.to_owned())
    }

    /// Stops it with Ctrl-C, after which it must end well.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.process.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.context("it runs")?, Signal::INT)?;
        let status = patiently("its end", self.process.wait()).await??;
        let said = self.rest.await?;
        ensure!(status.success(), "it ended with {status}; it said: {said}");
        Ok(())
    }
}
