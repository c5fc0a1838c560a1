//! `kms whoami`

use clap::Args;

use crate::app::App;
use crate::error::{About, Failure};
use crate::hint::Subject;
use crate::json::{self, time_text};
use crate::output::{fields, rows};

/// Shows whom the server takes you for, and what you may do
#[derive(Debug, Args)]
pub struct Whoami {}

impl Whoami {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let me = app.client()?.whoami().await.about(&Subject::none())?;
        app.output.show(&json::CallerIdentity::from(&me), || {
            let method = match me.auth_method {
                kms_client::AuthMethod::Unknown(number) => number.to_string(),
                method => method.as_str().to_owned(),
            };
            let mut text = fields([
                ("principal", me.principal.clone()),
                ("auth method", method),
                ("strength", me.strength.join(" ")),
            ]);
            if !me.bindings.is_empty() {
                text.push('\n');
                let row = |binding: &kms_client::Binding| {
                    let expires = binding.expire_time.map(time_text).unwrap_or_default();
                    [
                        binding.id.clone(),
                        binding.roles.join(","),
                        binding.tenants.join(","),
                        binding.keys.join(","),
                        expires,
                    ]
                };
                text += &rows(["BINDING", "ROLES", "TENANTS", "KEYS", "EXPIRES"], me.bindings.iter().map(row));
            }
            text
        })?;
        if me.bindings.is_empty() {
            app.output.note("no binding is in force for you: every other call is refused");
        }
        Ok(())
    }
}
