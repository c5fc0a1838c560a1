//! `kms tenant`

use std::time::Duration;

use clap::{Args, Subcommand};
use kms_client::{Client, Error, TenantRef};

use crate::app::App;
use crate::confirm::Confirm;
use crate::duration;
use crate::error::{About, Failure};
use crate::hint::Subject;
use crate::json::{self, time_text};
use crate::output::{fields, rows};

/// Creates, suspends and destroys tenants
///
/// A tenant is one customer: everything below it is wrapped by its one tenant key, so destroying that
/// key destroys the tenant.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Tenant {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates a tenant
    Create(Named),
    /// Shows a tenant
    Get(Named),
    /// Lists all tenants, destroyed ones too
    List(Paging),
    /// Suspends a tenant: it neither encrypts nor decrypts until it is resumed
    Suspend(Named),
    /// Lets a suspended tenant work again
    Resume(Named),
    Destroy(Destroy),
    /// Takes back a scheduled destruction; the tenant is suspended then
    CancelDestruction(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// The tenant: TENANT or tenants/TENANT. Use an opaque id: names outlive erasure
    #[arg(id = "target", value_name = "TENANT")]
    name: String,
}

/// How much of a list is shown.
#[derive(Debug, Args)]
pub struct Paging {
    /// The most to show
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub limit: usize,
    /// Goes on where a list that was cut off ended
    #[arg(long, value_name = "TOKEN")]
    pub page_token: Option<String>,
}

/// Destroys a tenant, after a wait
///
/// It stops encrypting and decrypting at once. Until the wait is over, `kms tenant
/// cancel-destruction` takes it back; after it, nothing that its keys encrypted can be opened again.
/// `kms tenant get` shows how far the destruction has come: FENCED (its key is deleted), PURGED (no
/// trace of it is left in the store), UNRECOVERABLE (not even old backups open it).
///
/// Asks for the tenant's name on a terminal; scripts give --yes --name TENANT.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Destroy {
    /// The tenant: TENANT or tenants/TENANT
    #[arg(id = "target", value_name = "TENANT")]
    name: String,
    /// How long it may be taken back, such as 7d; 0s destroys at once [default: the server's]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
    #[command(flatten)]
    confirm: Confirm,
}

impl Tenant {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::List(paging) => list(app, &paging).await,
            Command::Destroy(command) => command.run(app).await,
            Command::Create(named) => {
                let (client, tenant) = named.prepare(app)?;
                finish(app, &tenant, client.create_tenant(&tenant).await)
            }
            Command::Get(named) => {
                let (client, tenant) = named.prepare(app)?;
                finish(app, &tenant, client.get_tenant(&tenant).await)
            }
            Command::Suspend(named) => {
                let (client, tenant) = named.prepare(app)?;
                finish(app, &tenant, client.suspend_tenant(&tenant).await)
            }
            Command::Resume(named) => {
                let (client, tenant) = named.prepare(app)?;
                finish(app, &tenant, client.resume_tenant(&tenant).await)
            }
            Command::CancelDestruction(named) => {
                let (client, tenant) = named.prepare(app)?;
                finish(app, &tenant, client.cancel_tenant_destruction(&tenant).await)
            }
        }
    }
}

impl Named {
    fn prepare(&self, app: &App<'_>) -> Result<(Client, TenantRef), Failure> {
        Ok((app.client()?, app.tenant(&self.name)?))
    }
}

fn finish(app: &mut App<'_>, asked: &TenantRef, result: Result<kms_client::Tenant, Error>) -> Result<(), Failure> {
    show(app, &result.about(&Subject::tenant(asked))?)
}

impl Destroy {
    async fn run(&self, app: &mut App<'_>) -> Result<(), Failure> {
        let tenant = app.tenant(&self.name)?;
        let client = app.client()?;
        let when = crate::confirm::when(self.wait);
        let what = format!(
            "This destroys {tenant} with all its keys {when}, on {}.\nThen nothing that they encrypted can be opened \
             again.",
            app.settings.place()
        );
        self.confirm.check(&what, tenant.tenant(), &tenant.to_string())?;
        let destroyed = client.destroy_tenant(&tenant, self.wait).await.about(&Subject::tenant(&tenant))?;
        show(app, &destroyed)?;
        if destroyed.destroy_time.is_some() {
            app.output.note(&format!("until then, `kms tenant cancel-destruction {}` takes it back", tenant.tenant()));
        }
        Ok(())
    }
}

async fn list(app: &mut App<'_>, paging: &Paging) -> Result<(), Failure> {
    let after = paging.page_token.clone().map(Into::into);
    let page = app.client()?.list_all_tenants(paging.limit, after).await.about(&Subject::none())?;
    app.output.show(&json::Tenants::from(&page), || {
        let row = |tenant: &kms_client::Tenant| {
            [tenant.name.tenant().to_owned(), state(tenant), time_text(tenant.create_time), destruction(tenant)]
        };
        rows(["TENANT", "STATE", "CREATED", "DESTRUCTION"], page.items.iter().map(row))
    })?;
    cut_off(app, &page);
    Ok(())
}

/// Says that a list has more.
pub fn cut_off<T>(app: &mut App<'_>, page: &kms_client::Page<T>) {
    if let Some(next) = &page.next {
        app.output.note(&format!("there are more: --page-token {} goes on", next.as_str()));
    }
}

fn show(app: &mut App<'_>, tenant: &kms_client::Tenant) -> Result<(), Failure> {
    app.output.show(&json::Tenant::from(tenant), || {
        fields([
            ("name", tenant.name.to_string()),
            ("uid", tenant.uid.clone()),
            ("state", state(tenant)),
            ("created", time_text(tenant.create_time)),
            ("destruction", destruction(tenant)),
        ])
    })
}

fn state(tenant: &kms_client::Tenant) -> String {
    match tenant.state {
        kms_client::TenantState::Unknown(number) => number.to_string(),
        state => state.as_str().to_owned(),
    }
}

/// When it will be, or was, fenced.
fn destruction(tenant: &kms_client::Tenant) -> String {
    tenant.fence_time.or(tenant.destroy_time).map(time_text).unwrap_or_default()
}
