//! `kms decrypt`

use clap::Args;

use crate::app::App;
use crate::error::{About, Failure};
use crate::input::DataIn;
use crate::json;
use crate::sink::PlainOut;
use crate::under::Under;

/// Opens what `encrypt` sealed
///
/// Reads the ciphertext, in base64 or as it is, from stdin or a file. Key, context and aad must be
/// those that it was encrypted with. Prints the plaintext, byte for byte.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Decrypt {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    input: DataIn,
    #[command(flatten)]
    out: PlainOut,
}

impl Decrypt {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let under = self.under.prepare(app)?;
        let ciphertext = self.input.blob(app)?.into();
        let opened = under.client.decrypt(&under.key, &ciphertext, &under.context).await.about(&under.subject)?;
        let plaintext = opened.plaintext.expose();
        let key_version = opened.key_version.get();
        let answer = json::Decrypted { plaintext: json::Bytes(plaintext), key_version, stale: opened.stale };
        self.out.write(app, plaintext, &answer)?;
        if opened.stale {
            app.output.note(&stale(key_version));
        }
        Ok(())
    }
}

/// What to say of a ciphertext that is under an old version.
pub fn stale(key_version: u32) -> String {
    format!("this was under version {key_version}, which is no longer primary: `kms re-encrypt` moves it")
}
