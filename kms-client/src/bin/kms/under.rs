//! What every command of the data plane is given: a key, and an encryption context.

use clap::Args;
use kms_client::{Client, Context, KeyRef};

use crate::app::App;
use crate::error::Failure;
use crate::hint::Subject;
use crate::input::ContextArgs;

#[derive(Debug, Args)]
pub struct Under {
    /// The key: tenants/TENANT/keys/KEY, or KEY with --tenant
    #[arg(long, value_name = "KEY")]
    key: String,
    #[command(flatten)]
    context: ContextArgs,
}

/// The same, understood.
pub struct Prepared {
    pub client: Client,
    pub key: KeyRef,
    pub context: Context,
    pub subject: Subject,
}

impl Under {
    pub fn prepare(&self, app: &App<'_>) -> Result<Prepared, Failure> {
        let key = app.key(&self.key)?;
        let subject = Subject::key(&key);
        Ok(Prepared { client: app.client()?, key, context: self.context.read()?, subject })
    }
}
