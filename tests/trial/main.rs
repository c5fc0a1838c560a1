//! `kms-trial`: opens a data directory in a process of its own, as the daemon does, for tests that damage one or kill
//! who uses it. Whoever starts it watches over it: here nothing is waited for in vain.
//!
//! ```text
//! kms-trial due SETTINGS POINT        destroys what is due in eight days, and dies at the place POINT
//! kms-trial data-keys COUNT [DIRECTORY]        makes that many managed data keys, and says what they cost
//! kms-trial damage EXPECTED FIRST END STEP     does what EXPECTED lists, from FIRST to END, every STEPth; says how each ended
//! kms-trial contract aws-kms LIVE DEAD STRANGER   holds the backend to the contract: one that works, one out of reach,
//!                                              and one that does not accept who we are
//! kms-trial contract pkcs11 MECHANISM MODULE DIRECTORY     holds a token to what every backend promises
//! kms-trial queue pkcs11 MODULE DIRECTORY CALLERS CALLS    so many callers at once wrap and unwrap so often each
//! ```

#![allow(clippy::print_stdout, reason = "what was found is its answer")]

mod contract_aws_kms;
mod contract_pkcs11;
mod damage;
mod data_keys;
mod opened;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    // As the daemon does: what it writes is for its user alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("a runtime").and_then(|runtime| runtime.block_on(run(&arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["due", settings, point] => due(settings.as_ref(), point).await,
        ["damage", expected, first, end, step] => {
            damage::run(expected.as_ref(), first.parse()?, end.parse()?, step.parse()?).await
        }
        ["contract", "pkcs11", mechanism, module, directory] => {
            contract_pkcs11::run(mechanism, module.as_ref(), directory.as_ref()).await
        }
        ["queue", "pkcs11", module, directory, callers, calls] => {
            contract_pkcs11::queue(module.as_ref(), directory.as_ref(), callers.parse()?, calls.parse()?).await
        }
        ["data-keys", count] => data_keys::run(count.parse()?, None).await,
        ["data-keys", count, directory] => data_keys::run(count.parse()?, Some(directory.as_ref())).await,
        ["contract", "aws-kms", live, dead, stranger] => contract_aws_kms::run(live, dead, stranger).await,
        _ => bail!("see the first lines of tests/trial/main.rs"),
    }
}

/// Destroys what is due, as if eight days had passed.
async fn due(settings: &std::path::Path, point: &str) -> Result<()> {
    #[cfg(debug_assertions)]
    kms_server::kill_point::arm(point.parse().map_err(anyhow::Error::msg)?);
    #[cfg(not(debug_assertions))]
    let _ = point;
    let settings = opened::settings(settings)?;
    let cluster = opened::Cluster::open(&settings).await?;
    let eight_days = 8 * 24 * 3600 * 1000;
    let destroyed = cluster.keyring.destroy_due(opened::now() + eight_days).await?;
    cluster.close().await?;
    println!("destroyed: {destroyed}");
    Ok(())
}
