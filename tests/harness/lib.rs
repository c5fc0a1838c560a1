//! A daemon of one's own: throw-away certificates, settings, the real `kms-server` as a child
//! process, callers with any identity, and the audit log read back.
//!
//! For the end-to-end tests and the demo. Not here: what is right and what is wrong; only
//! [`records`] judges, because every test may ask it whether each reply has its record.
//!
//! Nothing here sleeps: what is waited for is a line of the log, a reply or the end of a process,
//! each with a time limit after which the wait is a failure. Only processes that were started here
//! are ended, by their own handle.

mod authority;
mod aws_keys;
mod aws_proxy;
mod binding;
mod caller;
pub mod cut;
mod daemon;
pub mod damage;
mod ledger;
mod moto;
pub mod needle;
mod output;
mod process;
mod program;
mod python;
mod random;
pub mod records;
pub mod request;
mod rpc;
mod site;
mod softhsm;
pub mod stored;
mod token_issuer;
mod volume;
pub mod wire;

pub use authority::{Authority, Identity};
pub use aws_keys::AwsKeys;
pub use aws_proxy::{AwsCall, AwsProxy, Fault};
pub use binding::{Binding, ON_INDEXES};
pub use caller::{Answer, Caller, Refused};
pub use daemon::Daemon;
pub use ledger::{Ledger, Reply};
pub use moto::Moto;
pub use output::{Addresses, Output};
pub use process::Process;
pub use program::{Ended, command, program, run, run_with};
pub use python::Python;
pub use random::{Random, seed};
pub use rpc::{Listener, NAMES, Rpc};
pub use site::{Settings, Site};
pub use softhsm::SoftHsm;
pub use token_issuer::{KeyServer, Served, TokenIssuer, now};
pub use volume::Volume;

use std::time::Duration;

/// The longest that anything here may take before it counts as failed. Generous, because a machine
/// that builds at the same time is slow; nothing waits that long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something, and fails with its name when it takes longer than [`PATIENCE`].
pub async fn patiently<T>(what: &str, wait: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, wait)
        .await
        .map_err(|_| anyhow::anyhow!("{what}: not within {} s", PATIENCE.as_secs()))
}
