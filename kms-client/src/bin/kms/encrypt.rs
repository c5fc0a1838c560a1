//! `kms encrypt`

use clap::Args;

use crate::app::App;
use crate::error::{About, Failure};
use crate::input::DataIn;
use crate::json;
use crate::sink::{BinaryOut, Secrecy};
use crate::under::Under;

/// Seals a small value
///
/// Reads the plaintext from stdin or a file, never from the command line, which every process of the
/// machine could read. At most 64 KiB; for more, see `kms data-key generate`.
///
/// Prints the ciphertext in base64, or as it is with --raw.
///
///     kms encrypt --key app --context table=users --context id=42 < ssn.txt > ssn.kms
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Encrypt {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    input: DataIn,
    #[command(flatten)]
    out: BinaryOut,
}

impl Encrypt {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let under = self.under.prepare(app)?;
        let plaintext = self.input.plaintext(app)?;
        let sealed = under.client.encrypt(&under.key, &plaintext, &under.context).await.about(&under.subject)?;
        let bytes = sealed.ciphertext.as_bytes();
        let answer = json::Encrypted { ciphertext: json::Bytes(bytes), key_version: sealed.key_version.get() };
        self.out.write(app, Secrecy::Public, bytes, &answer)
    }
}
