//! `kms policy explain`

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use kms_client::{Context, PermissionTest, Resource, TestedPermission};

use crate::app::App;
use crate::error::{About, Failure, printable};
use crate::exit::Exit;
use crate::hint::Subject;
use crate::input::{pair, unique};
use crate::json;

/// Says whether actions are allowed, which rule decided, and what would be needed
///
/// You may ask it of yourself; of others with the role `auditor`. Without --key and --index it is
/// about the tenant of the settings, or without one about the cluster.
///
/// Ends with 0 if all of it is allowed, with 3 if not.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    /// An action: the name of a call, such as Decrypt; may be given again
    #[arg(long = "action", value_name = "ACTION", required = true)]
    actions: Vec<String>,
    /// Whose, such as spiffe://example.com/billing [default: yours]
    #[arg(long = "as", value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// To this key: tenants/TENANT/keys/KEY, or KEY with --tenant
    #[arg(long, value_name = "KEY", group = "what")]
    key: Option<String>,
    /// To this index: tenants/TENANT/indexes/INDEX, or INDEX with --tenant
    #[arg(long, value_name = "INDEX", group = "what")]
    index: Option<String>,
    /// To what concerns no tenant, also where the settings name one
    #[arg(long, group = "what")]
    cluster: bool,
    /// From this address [default: yours]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// By this proof of identity; may be given again [default: yours, of others a certificate]
    #[arg(long = "strength", value_enum, value_name = "PROOF")]
    strength: Vec<Proof>,
    /// With this pair of the encryption context; may be given again
    #[arg(long = "context", value_name = "K=V", value_parser = pair)]
    pairs: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Proof {
    /// A client certificate
    Certificate,
    /// A bearer token
    Token,
    /// More than one factor, as the token says
    Mfa,
}

impl Proof {
    fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Mfa => "mfa",
        }
    }
}

impl Explain {
    pub async fn run(self, app: &mut App<'_>) -> Result<Exit, Failure> {
        let (resource, subject) = self.resource(app)?;
        let context: Context = unique("--context", &self.pairs)?.into_iter().collect();
        let mut test = PermissionTest::new(self.actions).on(resource.clone()).context(context);
        if let Some(principal) = &self.principal {
            test = test.principal(principal);
        }
        if let Some(address) = self.ip {
            test = test.address(address);
        }
        test = test.strength(self.strength.iter().map(|proof| proof.as_str()));
        // Of oneself it is asked with no right at all, so that a refusal is one to ask of others.
        let subject = if self.principal.is_some() { Subject::none() } else { subject };
        let tested = app.client()?.test_permissions(test).await.about(&subject)?;
        app.output.show(&json::TestedPermissions::from(&*tested), || text(&tested, &resource))?;
        Ok(if tested.iter().all(|permission| permission.allowed) { Exit::Ok } else { Exit::NotAllowed })
    }

    fn resource(&self, app: &App<'_>) -> Result<(Resource, Subject), Failure> {
        if let Some(key) = &self.key {
            let key = app.key(key)?;
            let subject = Subject::key(&key);
            return Ok((key.into(), subject));
        }
        if let Some(index) = &self.index {
            let index = app.index(index)?;
            let subject = Subject::index(&index);
            return Ok((index.into(), subject));
        }
        if self.cluster || app.settings.tenant.is_none() {
            return Ok((Resource::Cluster, Subject::none()));
        }
        let tenant = app.default_tenant()?;
        let subject = Subject::tenant(&tenant);
        Ok((tenant.into(), subject))
    }
}

/// What each rule says stands below its action, indented.
fn text(tested: &[TestedPermission], resource: &Resource) -> String {
    let mut text = String::new();
    for TestedPermission { action, allowed, rule, needed, considered, .. } in tested {
        let verdict = if *allowed { "allowed" } else { "denied" };
        text += &format!("{} on {resource}: {verdict} by {}\n", printable(action), printable(rule));
        if let Some(needed) = needed {
            text += &format!("  needed: {}\n", printable(needed));
        }
        for near in considered {
            text += &format!("  {}: {}\n", printable(&near.rule), printable(&near.verdict));
        }
    }
    text
}
