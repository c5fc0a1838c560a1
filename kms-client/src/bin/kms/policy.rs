//! `kms policy`

mod check;
mod explain;

use clap::{Args, Subcommand};

use crate::app::App;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::Output;

/// Explains who may do what, and checks the files that say it
#[derive(Debug, Args)]
pub struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Explain(explain::Explain),
    Check(check::Check),
}

impl Policy {
    /// Runs what needs neither a server nor settings.
    pub fn run_here(&self, output: &mut Output) -> Option<Result<Exit, Failure>> {
        match &self.command {
            Command::Explain(_) => None,
            Command::Check(check) => Some(check.run(output)),
        }
    }

    pub async fn run(self, app: &mut App<'_>) -> Result<Exit, Failure> {
        match self.command {
            Command::Explain(explain) => explain.run(app).await,
            Command::Check(check) => check.run(app.output),
        }
    }
}
