//! `kms mac`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kms_client::Mac as MacBytes;

use crate::app::App;
use crate::error::{About, Failure};
use crate::input::{DataIn, mac, read_mac};
use crate::json;
use crate::output::fields;
use crate::sink::{BinaryOut, Secrecy};
use crate::under::{Prepared, Under};

/// Makes and verifies message authentication codes
///
/// A MAC shows that a message is as it was, to whoever may ask the service; it hides nothing. It
/// needs a key of purpose `mac`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Mac {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(Generate),
    Verify(Verify),
}

/// Makes the MAC of a message
///
/// Reads the message, at most 64 KiB, from stdin or a file. Prints the MAC in base64, or its 56
/// bytes with --raw.
///
///     kms mac generate --key receipts --context kind=receipt < receipt.json > receipt.mac
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Generate {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    input: DataIn,
    #[command(flatten)]
    out: BinaryOut,
}

/// Verifies the MAC of a message
///
/// Reads the message from stdin or a file. Key, context and aad must be those that it was made with.
/// The exit code is 0 if it is right, and 1 with the reason MAC_INVALID if it is not.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[group(id = "given", required = true, multiple = false, args = ["mac", "mac_file"])]
struct Verify {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    input: DataIn,
    /// The MAC, in base64
    #[arg(long, value_name = "MAC", value_parser = mac)]
    mac: Option<MacBytes>,
    /// The file with the MAC, in base64 or as it is
    #[arg(long, value_name = "FILE")]
    mac_file: Option<PathBuf>,
}

impl Mac {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::Generate(command) => command.run(app).await,
            Command::Verify(command) => command.run(app).await,
        }
    }
}

impl Generate {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        let message = self.input.message(app)?;
        let made = client.generate_mac(&key, &message, &context).await.about(&subject)?;
        self.out.write(app, Secrecy::Public, made.mac.as_bytes(), &json::GeneratedMac::from(&made))
    }
}

impl Verify {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        let mac = match (&self.mac, &self.mac_file) {
            (Some(mac), _) => mac.clone(),
            (None, Some(file)) => read_mac(file)?,
            (None, None) => return Err(Failure::usage("no MAC is given").hint("--mac MAC or --mac-file FILE")),
        };
        let message = self.input.message(app)?;
        let verified = client.verify_mac(&key, &message, &mac, &context).await.about(&subject)?;
        let key_version = verified.key_version;
        app.output
            .show_change(&json::VerifiedMac::from(&verified), || fields([("key version", key_version.to_string())]))?;
        if verified.stale {
            app.output.note(&format!("this was made by version {key_version}, which is no longer primary"));
        }
        Ok(())
    }
}
