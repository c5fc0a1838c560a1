//! The Rust client in a few lines. README.md shows them too; `tests/readme` holds both to be the same and runs this.

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use kms_client::{Client, Context, KeyRef};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kms = Client::builder(std::env::var("KMS_ADDR")?)
        .ca_file(".kms-dev/ca.pem")
        .identity_files(".kms-dev/app.pem", ".kms-dev/app.key")
        .connect()
        .await?;
    let key: KeyRef = "tenants/globex/keys/app".parse()?;
    let context = Context::from([("table", "users"), ("column", "ssn"), ("id", "42")]);

    let sealed = kms.encrypt(&key, b"078-05-1120", &context).await?;
    let opened = kms.decrypt(&key, &sealed.ciphertext, &context).await?;
    assert_eq!(opened.plaintext.expose(), b"078-05-1120");

    let made = kms.generate_data_key(&key, &context).await?; // to seal more than 64 KiB on this side
    println!("{} bytes sealed; {:?} in the clear", sealed.ciphertext.as_bytes().len(), made.data_key);
    Ok(())
}
