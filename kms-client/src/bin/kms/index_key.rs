//! `kms index-key`

use clap::{Args, Subcommand};

use crate::app::App;
use crate::error::{About, Failure};
use crate::hint::Subject;
use crate::json;
use crate::sink::{BinaryOut, Secrecy};

/// Gives out the keys of blind indexes
///
/// A blind index finds equal values without opening them, by their HMAC-SHA-256 under its key. The
/// key is the same for the tenant's whole life, and gone with it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct IndexKey {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Get(Get),
}

/// Gives out the key of an index
///
/// An index is a name only and need not be created. Prints its key in base64, or its 32 bytes with
/// --raw. A file that it is written to can be read only by you. Needs a binding that lists the index
/// by `indexes`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Get {
    /// The index: tenants/TENANT/indexes/INDEX, or INDEX with --tenant
    #[arg(id = "target", value_name = "INDEX")]
    name: String,
    #[command(flatten)]
    out: BinaryOut,
}

impl IndexKey {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let Command::Get(command) = self.command;
        let index = app.index(&command.name)?;
        let given = app.client()?.get_index_key(&index).await.about(&Subject::index(&index))?;
        command.out.write(app, Secrecy::Secret, given.index_key.expose(), &json::GivenIndexKey::from(&given))
    }
}
