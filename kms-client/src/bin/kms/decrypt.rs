//! `kms decrypt`

use clap::Args;

use crate::app::App;
use crate::error::{About, Failure};
use crate::hint::Subject;
use crate::input::{ContextArgs, DataIn};
use crate::json;
use crate::sink::PlainOut;

/// Opens what `encrypt` sealed
///
/// Reads the ciphertext, in base64 or as it is, from stdin or a file. Key, context and aad must be
/// those that it was encrypted with. Prints the plaintext, byte for byte.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Decrypt {
    /// The key: tenants/TENANT/keys/KEY, or KEY with --tenant
    #[arg(long, value_name = "KEY")]
    key: String,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    input: DataIn,
    #[command(flatten)]
    out: PlainOut,
}

impl Decrypt {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let key = app.key(&self.key)?;
        let client = app.client()?;
        let context = self.context.read()?;
        let ciphertext = self.input.blob(app)?.into();
        let opened = client.decrypt(&key, &ciphertext, &context).await.about(&Subject::key(&key))?;
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
