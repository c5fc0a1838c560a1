//! All that a daemon says, over all its runs: kept whole, because tests search it for secrets.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::patiently;

/// What was read of a daemon's standard output and standard error.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    bytes: Mutex<Vec<u8>>,
    more: Notify,
}

/// Where a daemon listens, as it says itself once it serves.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For applications.
    pub services: String,
    /// For the people who run it.
    pub operator: String,
    /// For probes: plain HTTP.
    pub probes: String,
}

/// Waits for the line that says where a daemon listens, and for the end of its output.
pub struct Following {
    serving: Option<oneshot::Receiver<Addresses>>,
    task: JoinHandle<()>,
}

impl Output {
    /// Returns all that was said until now.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns all that was said until now as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Returns the last lines, to be shown with a failure.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Adds what was said elsewhere.
    pub(crate) fn add(&self, said: &[u8]) {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(said);
        self.0.more.notify_waiters();
    }

    /// Returns once this was said.
    pub async fn says(&self, text: &str) -> Result<()> {
        self.says_times(text, 1).await
    }

    /// Returns once this was said so many times.
    pub async fn says_times(&self, text: &str, times: usize) -> Result<()> {
        let said = async {
            loop {
                // Listens before it looks, so that nothing is said in between.
                let more = self.0.more.notified();
                if self.text().matches(text).count() >= times {
                    return;
                }
                more.await;
            }
        };
        patiently(&format!("the text {text:?}, {times} times"), said).await
    }

    /// Reads a stream to its end in the background.
    pub(crate) fn follow(&self, stream: impl AsyncRead + Send + Unpin + 'static) -> Following {
        let (tell, serving) = oneshot::channel();
        let (kept, mut tell) = (self.clone(), Some(tell));
        let task = tokio::spawn(async move {
            let mut lines = BufReader::new(stream);
            let mut line = Vec::new();
            // A stream that fails has ended: its process is gone.
            while matches!(lines.read_until(b'\n', &mut line).await, Ok(1..)) {
                if let Some(addresses) = serving_line(&line)
                    && let Some(tell) = tell.take()
                {
                    // Nobody waits for it any more: then nobody needs it.
                    drop(tell.send(addresses));
                }
                kept.add(&line);
                line.clear();
            }
        });
        Following { serving: Some(serving), task }
    }
}

impl Following {
    /// Returns where the daemon listens, once it says so. Fails if it ends before.
    pub async fn serving(&mut self) -> Result<Addresses> {
        let Some(serving) = self.serving.take() else { bail!("the line was read already") };
        serving.await.context("it ended before it served")
    }

    /// Returns once all is read: after the process has ended.
    pub async fn end(self) -> Result<()> {
        self.task.await.context("the reader of a daemon's output")
    }
}

/// Reads, also of a daemon that is locked from the start, `{"fields":{"message":"serving","services":"127.0.0.1:41234",...},...}`, or in a log of text
/// `... serving services=127.0.0.1:41234 ...`.
fn serving_line(line: &[u8]) -> Option<Addresses> {
    let Ok(line) = serde_json::from_slice::<Value>(line) else {
        let (_, fields) = std::str::from_utf8(line).ok()?.split_once(" serving services=")?;
        let address = |name: &str| {
            let (_, rest) = fields.split_once(&format!(" {name}="))?;
            rest.split_whitespace().next().map(str::to_owned)
        };
        let services = fields.split_whitespace().next()?.to_owned();
        return Some(Addresses { services, operator: address("operator")?, probes: address("probes")? });
    };
    let fields = line.get("fields")?;
    if !["serving", "locked"].contains(&fields.get("message")?.as_str()?) {
        return None;
    }
    let address = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
    Some(Addresses { services: address("services")?, operator: address("operator")?, probes: address("probes")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serving_line_gives_the_addresses_and_no_other_line_does() {
        let line = br#"{"level":"INFO","fields":{"message":"serving","services":"127.0.0.1:1","operator":"127.0.0.1:2","probes":"127.0.0.1:3"}}"#;
        assert_eq!(serving_line(line).unwrap().probes, "127.0.0.1:3");
        let text = b"2026-01-01T00:00:00Z  INFO serving services=127.0.0.1:1 operator=127.0.0.1:2 probes=127.0.0.1:3\n";
        assert_eq!(serving_line(text).unwrap().services, "127.0.0.1:1");
        assert_eq!(serving_line(text).unwrap().probes, "127.0.0.1:3");
        for other in [&b"serving"[..], b"{}", br#"{"fields":{"message":"stopping","services":"127.0.0.1:1"}}"#] {
            assert!(serving_line(other).is_none());
        }
    }
}
