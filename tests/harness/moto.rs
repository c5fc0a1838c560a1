//! moto, as the AWS of a test: KMS and STS over HTTP on loopback, in a child process.
//!
//! It knows keys, aliases, tags and ciphertexts, and no rights; what it does otherwise than AWS, [`AwsProxy`] mends.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{AwsKeys, AwsProxy, Output, Process, Python, patiently};

/// A moto that runs. Dropping it kills its process, and no other.
pub struct Moto {
    address: SocketAddr,
    keys: AwsKeys,
    _process: Process,
}

impl Moto {
    /// Starts one, without a key.
    pub async fn start() -> Result<Self> {
        let python = PYTHON.environment().await?;
        let output = Output::default();
        let mut command = Command::new(&python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
        for (variable, _) in std::env::vars_os() {
            if ["AWS_", "MOTO_"].iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
                command.env_remove(variable);
            }
        }
        let process = Process::start(command.env("PYTHONUNBUFFERED", "1"), &output)?;
        let said = patiently("moto's address", output.says(SAYS)).await;
        said.and_then(|said| said).with_context(|| format!("moto did not start:\n{}", output.tail()))?;
        let text = output.text();
        let port = text.split(SAYS).nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let port: u16 = port.and_then(|port| port.parse().ok()).context("moto says where it listens")?;
        Ok(Self { address: ([127, 0, 0, 1], port).into(), keys: AwsKeys::default(), _process: process })
    }

    /// Returns a way to it. All ways lead to the same keys; each has faults of its own.
    pub async fn proxy(&self) -> Result<AwsProxy> {
        AwsProxy::start(self.address, self.keys.clone()).await
    }

    /// Returns what is known of its keys' states, and their clock.
    pub fn keys(&self) -> &AwsKeys {
        &self.keys
    }
}

const SAYS: &str = "Running on http://127.0.0.1:";

const PYTHON: Python<'_> = Python {
    name: "moto",
    requirements: "foreign/moto.txt",
    modules: "moto.server, moto.kms, moto.sts",
    purpose: "the tests of the backend aws-kms",
};
