//! `kms data-key`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::app::App;
use crate::decrypt::stale;
use crate::error::{About, Failure};
use crate::input::DataIn;
use crate::json;
use crate::output::{Format, fields};
use crate::sink::{self, BinaryOut, Secrecy, base64_line};
use crate::under::Under;

/// Makes and unwraps data keys
///
/// A data key is 32 random bytes to seal one object with, on your side. Keep it wrapped beside the
/// object; the service stores nothing.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DataKey {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(Generate),
    GenerateWrapped(GenerateWrapped),
    Decrypt(Decrypt),
}

/// Makes a data key, in the clear and wrapped
///
/// What no file is given for is printed in base64.
#[derive(Debug, Args)]
struct Generate {
    #[command(flatten)]
    under: Under,
    /// Writes the data key, 32 bytes, to a file that only you can read
    #[arg(long, value_name = "FILE")]
    data_key_out: Option<PathBuf>,
    /// Writes the wrapped data key, 128 bytes, to a file
    #[arg(long, value_name = "FILE")]
    wrapped_out: Option<PathBuf>,
}

/// Makes a data key and gives it only wrapped
///
/// For a record that somebody else will seal. Prints it in base64, or as it is with --raw.
#[derive(Debug, Args)]
struct GenerateWrapped {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    out: BinaryOut,
}

/// Unwraps a data key
///
/// Reads it, in base64 or as it is, from stdin or a file. Prints the data key in base64, or its 32
/// bytes with --raw. A file that it is written to can be read only by you.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Decrypt {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    input: DataIn,
    #[command(flatten)]
    out: BinaryOut,
}

impl DataKey {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::Generate(command) => command.run(app).await,
            Command::GenerateWrapped(command) => command.run(app).await,
            Command::Decrypt(command) => command.run(app).await,
        }
    }
}

impl Generate {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let under = self.under.prepare(app)?;
        let made = under.client.generate_data_key(&under.key, &under.context).await.about(&under.subject)?;
        let (data_key, wrapped) = (made.data_key.expose(), made.wrapped_data_key.as_bytes());
        // The wrapped one first: a data key without it would be lost.
        if let Some(file) = &self.wrapped_out {
            sink::write(Some(file), Secrecy::Public, wrapped, true)?;
        }
        if let Some(file) = &self.data_key_out {
            sink::write(Some(file), Secrecy::Secret, data_key, true)?;
        }
        // What went to a file is not shown again.
        let data_key_shown: &[u8] = if self.data_key_out.is_some() { &[] } else { data_key };
        let wrapped_shown: &[u8] = if self.wrapped_out.is_some() { &[] } else { wrapped };
        let answer = json::GeneratedDataKey {
            plaintext: json::Bytes(data_key_shown),
            wrapped_data_key: json::Bytes(wrapped_shown),
            key_version: made.key_version.get(),
        };
        if app.output.format == Format::Table && self.data_key_out.is_some() && self.wrapped_out.is_some() {
            return Ok(());
        }
        app.output.show(&answer, || {
            fields([
                ("data key", base64_line(data_key_shown).trim_end().to_owned()),
                ("wrapped", base64_line(wrapped_shown).trim_end().to_owned()),
                ("key version", made.key_version.to_string()),
            ])
        })
    }
}

impl GenerateWrapped {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let under = self.under.prepare(app)?;
        let made = under.client.generate_wrapped_data_key(&under.key, &under.context).await.about(&under.subject)?;
        let wrapped = made.wrapped_data_key.as_bytes();
        let answer = json::GeneratedDataKey {
            plaintext: json::Bytes(&[]),
            wrapped_data_key: json::Bytes(wrapped),
            key_version: made.key_version.get(),
        };
        self.out.write(app, Secrecy::Public, wrapped, &answer)
    }
}

impl Decrypt {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let under = self.under.prepare(app)?;
        let wrapped = self.input.blob(app)?.into();
        let opened = under.client.decrypt_data_key(&under.key, &wrapped, &under.context).await.about(&under.subject)?;
        let data_key = opened.data_key.expose();
        let key_version = opened.key_version.get();
        let answer = json::Decrypted { plaintext: json::Bytes(data_key), key_version, stale: opened.stale };
        self.out.write(app, Secrecy::Secret, data_key, &answer)?;
        if opened.stale {
            app.output.note(&stale(key_version));
        }
        Ok(())
    }
}
