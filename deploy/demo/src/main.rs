//! The main job on real input: a customer table of two tenants, encrypted column by column through
//! the service, from the first start to a tenant's erasure.
//!
//! Everything here is as in production but its size: the real daemon in a process of its own,
//! mutual TLS, a durable store and log. What it leaves in `.kms-demo` is there to be looked at.

mod application;
mod steps;
mod story;
mod table;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use steps::Demo;
use story::Story;
use table::Table;

/// The table that is encrypted.
const INPUT: &str = "deploy/demo/customers.csv";
/// What the demo leaves behind, until it is run again.
const FOLDER: &str = ".kms-demo";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let plain = Table::read(Path::new(INPUT)).context("run this in the repository's folder")?;
    let demo = Demo::with(plain, INPUT, Path::new(FOLDER))?;
    let mut story = Story::begin("A customer table, encrypted column by column", &demo.about(INPUT));
    let (stays, leaves) = (demo.stays.name(), demo.leaves.name());

    let daemon = story.step("Start the service on an empty directory", demo.start()).await?;
    story.step("Create two tenants with a key each", demo.create(&daemon)).await?;
    let (stays_app, leaves_app) =
        (demo.connect(&daemon, &demo.stays).await?, demo.connect(&daemon, &demo.leaves).await?);
    let mut sealed = story
        .step("Encrypt every secret value for its table, column and row", demo.seal(&stays_app, &leaves_app))
        .await?;
    story
        .step("Read the encrypted table back and decrypt it", demo.read_back(&sealed, &stays_app, &leaves_app))
        .await?;
    story.step("Let the other tenant's application try", demo.neighbour(&sealed, &stays_app, &leaves_app)).await?;
    story.step("Copy ciphertexts into other rows", demo.swapped(&sealed, &stays_app)).await?;
    story.step(&format!("Rotate the key of {stays}"), demo.rotate(&daemon, &sealed, &stays_app)).await?;
    story.step("Re-encrypt what is stale", demo.re_encrypt(&mut sealed, &stays_app)).await?;
    let daemon = story.step("Restart the service", demo.restart(daemon, &sealed)).await?;
    story.step(&format!("Destroy the tenant {leaves}, who leaves"), demo.erase(&daemon, &sealed)).await?;
    let excerpt = story.step("Stop the service and read its audit log", demo.stop(daemon)).await?;
    story.end();

    Story::tell(&excerpt);
    Story::tell(&[
        format!("The encrypted table:  {FOLDER}/{}", steps::ENCRYPTED),
        format!("The audit log:        {FOLDER}/data/seg"),
        format!("Settings, bindings:   {FOLDER}/kms.toml, {FOLDER}/bindings.toml"),
        String::new(),
    ]);
    Ok(())
}

#[allow(clippy::print_stderr, reason = "it is the one place that says why the demo failed")]
fn complain(error: &anyhow::Error) {
    eprintln!("\nerror: {error:#}\n");
}
