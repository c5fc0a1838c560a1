//! `kms re-encrypt`

use std::path::PathBuf;

use clap::Args;
use kms_client::Context;

use crate::app::App;
use crate::error::{About, Failure};
use crate::input::{DataIn, pair, read_aad, unique};
use crate::json;
use crate::sink::{BinaryOut, Secrecy};
use crate::under::{Prepared, Under};

/// Moves a ciphertext to the primary version, another key or another context
///
/// Takes ciphertexts and wrapped data keys. What is inside is not shown. What of the destination is
/// not given stays as it is: with --to-key alone, the context does; with --to-context alone, key
/// and aad do. A wrapped data key keeps its context.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ReEncrypt {
    #[command(flatten)]
    under: Under,
    /// The key that it shall be under, of the same tenant
    #[arg(long, value_name = "KEY")]
    to_key: Option<String>,
    /// A pair of the new context, in place of all it has; may be given again
    #[arg(long, value_name = "K=V", value_parser = pair)]
    to_context: Vec<(String, String)>,
    /// Binds the bytes of a file in place of the present aad
    #[arg(long, value_name = "FILE")]
    to_aad_file: Option<PathBuf>,
    /// The new context has no pairs, and no aad unless --to-aad-file gives one
    #[arg(long, conflicts_with = "to_context")]
    to_empty_context: bool,
    #[command(flatten)]
    input: DataIn,
    #[command(flatten)]
    out: BinaryOut,
}

impl ReEncrypt {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        let to_key = self.to_key.as_deref().map(|name| app.key(name)).transpose()?;
        let to_context = self.destination_context(&context)?;
        // Of either kind: which it is stands in it, and the server knows.
        let blob = self.input.blob(app)?.into();
        let moved = if to_key.is_none() && to_context.is_none() {
            client.re_encrypt(&key, &blob, &context).await
        } else {
            let to_key = to_key.as_ref().unwrap_or(&key);
            client.re_encrypt_to(&key, &blob, &context, to_key, to_context.as_ref().unwrap_or(&context)).await
        }
        .about(&subject)?;
        let bytes = moved.ciphertext.as_bytes();
        let answer = json::ReEncrypted {
            ciphertext: json::Bytes(bytes),
            key_version: moved.key_version.get(),
            source_key_version: moved.source_key_version.get(),
        };
        self.out.write(app, Secrecy::Public, bytes, &answer)
    }

    /// Returns the new context. Nothing if it stays.
    fn destination_context(&self, context: &Context) -> Result<Option<Context>, Failure> {
        if self.to_context.is_empty() && self.to_aad_file.is_none() && !self.to_empty_context {
            return Ok(None);
        }
        let mut to = if self.to_empty_context { Context::new() } else { context.clone() };
        if !self.to_context.is_empty() {
            to = to.with_pairs(unique("--to-context", &self.to_context)?);
        }
        if let Some(file) = &self.to_aad_file {
            to = to.aad(read_aad(Some(file))?);
        }
        Ok(Some(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: ReEncrypt,
    }

    fn to(line: &str) -> Option<Context> {
        let line = ["kms", "--key", "app"].into_iter().chain(line.split_whitespace());
        let from = Context::from([("a", "1"), ("b", "2")]).aad("aad");
        Line::try_parse_from(line).unwrap().command.destination_context(&from).unwrap()
    }

    #[test]
    fn what_is_not_given_of_the_destination_stays() {
        assert_eq!(to(""), None);
        assert_eq!(to("--to-key other"), None);
        assert_eq!(to("--to-context c=3"), Some(Context::from([("c", "3")]).aad("aad")));
        assert_eq!(to("--to-empty-context"), Some(Context::new()));
    }

    #[test]
    fn a_new_aad_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("aad");
        std::fs::write(&file, "new").unwrap();
        let file = file.to_str().unwrap();
        let pairs = Context::from([("a", "1"), ("b", "2")]);
        assert_eq!(to(&format!("--to-aad-file {file}")), Some(pairs.aad("new")));
        assert_eq!(to(&format!("--to-empty-context --to-aad-file {file}")), Some(Context::new().aad("new")));
    }
}
