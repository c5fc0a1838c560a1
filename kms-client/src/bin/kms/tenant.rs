//! `kms tenant`

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use kms_client::{Change, Client, Error, Operation, TenantRef, TenantSettings};

use crate::app::App;
use crate::change::{ChangeArgs, CreationArgs, Outcome};
use crate::confirm::{Confirm, What};
use crate::duration;
use crate::error::{About, Failure};
use crate::grant::{self, ApprovalArgs};
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
    Create(Create),
    /// Shows a tenant
    Get(Named),
    /// Lists all tenants, destroyed ones too
    List(Paging),
    /// Changes the lease of the tenant's data keys
    Update(Update),
    /// Suspends a tenant: it neither encrypts nor decrypts until it is resumed
    Suspend(Changed),
    /// Lets a suspended tenant work again
    Resume(Changed),
    Destroy(Destroy),
    /// Takes back a scheduled destruction; the tenant is suspended then
    CancelDestruction(Changed),
}

#[derive(Debug, Args)]
struct Named {
    /// The tenant: TENANT or tenants/TENANT. Use an opaque id: names outlive erasure
    #[arg(id = "target", value_name = "TENANT")]
    name: String,
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    tenant: Named,
    /// How long a data key may be held by whoever gets one, such as 10m; at most 24h [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    data_key_lease: Option<Duration>,
    #[command(flatten)]
    change: CreationArgs,
}

#[derive(Debug, Args)]
struct Update {
    #[command(flatten)]
    tenant: Named,
    /// How long a data key may be held by whoever gets one, such as 10m; at most 24h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    data_key_lease: Duration,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct Changed {
    #[command(flatten)]
    tenant: Named,
    #[command(flatten)]
    change: ChangeArgs,
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
///
/// A wait below the server's destruction.wait_min takes two persons: give --request-approval first,
/// and once it is approved, the same command without it.
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
    approval: ApprovalArgs,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: ChangeArgs,
}

impl Tenant {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::List(paging) => list(app, &paging).await,
            Command::Destroy(command) => command.run(app).await,
            Command::Create(command) => {
                let (client, tenant) = command.tenant.prepare(app)?;
                let mut settings = TenantSettings::new();
                if let Some(lease) = command.data_key_lease {
                    settings = settings.data_key_lease(lease);
                }
                let created = command.change.creation(client.create_tenant_with(&tenant, settings)).await;
                finish(app, &tenant, created, &command.change)
            }
            Command::Update(command) => {
                let (client, tenant) = command.tenant.prepare(app)?;
                let settings = TenantSettings::new().data_key_lease(command.data_key_lease);
                let updated = command.change.change(client.update_tenant(&tenant, settings)).await;
                finish(app, &tenant, updated, &command.change.change)
            }
            Command::Get(named) => {
                let (client, tenant) = named.prepare(app)?;
                let found = client.get_tenant(&tenant).await.about(&Subject::tenant(&tenant))?;
                app.output.show(&json::Tenant::from(&found), || table(&found, None))
            }
            Command::Suspend(changed) => changed.run(app, Client::suspend_tenant).await,
            Command::Resume(changed) => changed.run(app, Client::resume_tenant).await,
            Command::CancelDestruction(changed) => changed.run(app, Client::cancel_tenant_destruction).await,
        }
    }
}

impl Named {
    fn prepare(&self, app: &App<'_>) -> Result<(Client, TenantRef), Failure> {
        Ok((app.client()?, app.tenant(&self.name)?))
    }
}

impl Changed {
    async fn run<O: Outcome<kms_client::Tenant> + 'static>(
        &self,
        app: &mut App<'_>,
        change: fn(&Client, &TenantRef) -> Change<O>,
    ) -> Result<(), Failure> {
        let (client, tenant) = self.tenant.prepare(app)?;
        let changed = self.change.change(change(&client, &tenant)).await;
        finish(app, &tenant, changed, &self.change.change)
    }
}

/// Shows what has become of a tenant.
fn finish(
    app: &mut App<'_>,
    asked: &TenantRef,
    result: Result<impl Outcome<kms_client::Tenant>, Error>,
    change: &CreationArgs,
) -> Result<(), Failure> {
    let (tenant, lease_end) = result.about(&Subject::tenant(asked))?.into_parts();
    let answer = json::Changed::new(json::Tenant::from(&tenant), lease_end);
    app.output.show_change(&answer, || table(&tenant, lease_end))?;
    change.note(app);
    Ok(())
}

impl Destroy {
    async fn run(&self, app: &mut App<'_>) -> Result<(), Failure> {
        let tenant = app.tenant(&self.name)?;
        if let Some(reason) = self.approval.reason() {
            let etag = self.change.etag.clone();
            let operation = Operation::DestroyTenant { tenant: tenant.clone(), wait: self.wait, etag };
            let (change, subject) = (&self.change.change, Subject::tenant(&tenant));
            return grant::request_operation(app, &operation, reason, change, &subject).await;
        }
        let client = app.client()?;
        let when = crate::confirm::when(self.wait);
        let effect = format!(
            "This destroys {tenant} with all its keys {when}.\nThen nothing that they encrypted can be opened again."
        );
        // A dry run destroys nothing.
        if !self.change.change.dry_run {
            let (short, full, place) = (tenant.tenant(), &*tenant.to_string(), &*app.settings.place());
            self.confirm.check(&What { effect: &effect, short, full, place })?;
        }
        let destroyed =
            self.change.change(client.destroy_tenant(&tenant, self.wait)).await.about(&Subject::tenant(&tenant))?;
        let is_pending = destroyed.destroy_time.is_some() && !self.change.change.dry_run;
        finish(app, &tenant, Ok(destroyed), &self.change.change)?;
        if is_pending {
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

fn table(tenant: &kms_client::Tenant, lease_end: Option<SystemTime>) -> String {
    fields([
        ("name", tenant.name.to_string()),
        ("uid", tenant.uid.clone()),
        ("state", state(tenant)),
        ("lease", tenant.data_key_lease.map(duration::exact).unwrap_or_default()),
        ("created", time_text(tenant.create_time)),
        ("destruction", destruction(tenant)),
        ("leases end", lease_end.map(time_text).unwrap_or_default()),
        ("etag", tenant.etag.as_ref().map(ToString::to_string).unwrap_or_default()),
    ])
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
