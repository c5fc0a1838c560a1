//! `kms data-key`

mod managed;

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use kms_client::{ItemError, NewDataKey};
use zeroize::Zeroizing;

use crate::app::App;
use crate::decrypt::stale;
use crate::duration;
use crate::error::{About, Failure};
use crate::hint::Subject;
use crate::input::DataIn;
use crate::json;
use crate::output::{Format, fields};
use crate::sink::{self, BinaryOut, Secrecy, base64_line};
use crate::under::{Prepared, Under};

/// Makes, gives out and destroys data keys
///
/// A data key is 32 random bytes to seal one object with, on your side.
///
/// Portable ones (generate, generate-wrapped, decrypt) are under keys of purpose `encrypt`: you keep
/// them wrapped beside the object, and the service stores nothing. Managed ones (create, get,
/// destroy, list) are under keys of purpose `managed`: the service stores them wrapped, you keep
/// the uid, and each can be destroyed alone.
///
/// Whoever is given a data key holds it no longer than its lease (`kms tenant update`).
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
    Create(managed::Create),
    Get(managed::Get),
    Destroy(managed::Destroy),
    List(managed::List),
}

/// How many data keys are made.
#[derive(Debug, Args)]
struct Count {
    /// Makes so many, 1 to 10000, in one call, and prints one a line
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: Option<u16>,
}

impl Count {
    fn items(&self) -> Option<Vec<NewDataKey>> {
        self.count.map(|count| vec![NewDataKey::default(); count.into()])
    }
}

/// Makes a data key, in the clear and wrapped
///
/// What no file is given for is printed in base64. With --count, each line has a wrapped data key, a
/// tab, and the same data key in the clear.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Generate {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    count: Count,
    /// Writes the data key, 32 bytes, to a file that only you can read
    #[arg(long, value_name = "FILE", conflicts_with = "count")]
    data_key_out: Option<PathBuf>,
    /// Writes the wrapped data key, 128 bytes, to a file
    #[arg(long, value_name = "FILE", conflicts_with = "count")]
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
    count: Count,
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
            Command::Create(command) => command.run(app).await,
            Command::Get(command) => command.run(app).await,
            Command::Destroy(command) => command.run(app).await,
            Command::List(command) => command.run(app).await,
        }
    }
}

impl Generate {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        if let Some(items) = self.count.items() {
            let results = client.generate_data_key_batch(&key, &context, items).await.about(&subject)?;
            let lines = lines(&results, |made, line| {
                base64(line, made.wrapped_data_key.as_bytes());
                line.push('\t');
                base64(line, made.data_key.expose());
            });
            app.output.show(&json::Batch::generated(&results), || lines.to_string())?;
            return finish(app, &subject, &results, |index| format!("data key {}", index + 1));
        }
        let made = client.generate_data_key(&key, &context).await.about(&subject)?;
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
        if app.output.format == Format::Table && self.data_key_out.is_some() && self.wrapped_out.is_some() {
            return Ok(());
        }
        app.output.show(&json::GeneratedDataKey::new(&made, data_key_shown, wrapped_shown), || {
            fields([
                ("data key", base64_line(data_key_shown).trim_end().to_owned()),
                ("wrapped", base64_line(wrapped_shown).trim_end().to_owned()),
                ("key version", made.key_version.to_string()),
                ("lease", duration::exact(made.lease.length())),
            ])
        })
    }
}

impl GenerateWrapped {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        if let Some(items) = self.count.items() {
            self.out.check_lines()?;
            let results = client.generate_wrapped_data_key_batch(&key, &context, items).await.about(&subject)?;
            let lines = lines(&results, |made, line| base64(line, made.wrapped_data_key.as_bytes()));
            let answer = json::Batch::generated_wrapped(&results);
            self.out.write_lines(app, Secrecy::Public, &lines, &answer)?;
            return finish(app, &subject, &results, |index| format!("data key {}", index + 1));
        }
        let made = client.generate_wrapped_data_key(&key, &context).await.about(&subject)?;
        let answer = json::GeneratedDataKey::wrapped(&made);
        self.out.write(app, Secrecy::Public, made.wrapped_data_key.as_bytes(), &answer)
    }
}

impl Decrypt {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let under = self.under.prepare(app)?;
        let wrapped = self.input.blob(app)?.into();
        let opened = under.client.decrypt_data_key(&under.key, &wrapped, &under.context).await.about(&under.subject)?;
        let data_key = opened.data_key.expose();
        let key_version = opened.key_version.get();
        self.out.write(app, Secrecy::Secret, data_key, &json::DecryptedDataKey::from(&opened))?;
        if opened.stale {
            app.output.note(&stale(key_version));
        }
        Ok(())
    }
}

/// Returns a line for each that is good. Wiped, since data keys stand in them.
fn lines<I: IntoIterator>(
    results: impl IntoIterator<Item = I>,
    write: impl Fn(I::Item, &mut String),
) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(String::new());
    for good in results.into_iter().flatten() {
        write(good, &mut lines);
        lines.push('\n');
    }
    lines
}

fn base64(line: &mut String, bytes: &[u8]) {
    BASE64_STANDARD.encode_string(bytes, line);
}

/// Tells what failed of a batch.
fn finish<T>(
    app: &mut App<'_>,
    subject: &Subject,
    results: &[Result<T, ItemError>],
    name: impl Fn(usize) -> String,
) -> Result<(), Failure> {
    let failed: Vec<_> =
        results.iter().enumerate().filter_map(|(index, result)| Some((index, result.as_ref().err()?))).collect();
    for (index, error) in &failed {
        app.output.item_failure(&name(*index), error);
    }
    match failed[..] {
        [] => Ok(()),
        [(_, first), ..] if failed.len() == results.len() => Err(Failure::all(failed.len(), first, subject)),
        [..] => Err(Failure::partly(failed.len(), results.len())),
    }
}
