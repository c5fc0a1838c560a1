//! `kms key`

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use kms_client::{Change, Client, KeyAndVersion, KeyPurpose, KeyRef, KeyState, Labels, Operation, VersionNumber};

use crate::app::App;
use crate::change::{ChangeArgs, CreationArgs, Outcome};
use crate::confirm::{Confirm, What};
use crate::duration;
use crate::error::{About, Failure};
use crate::grant::{self, ApprovalArgs};
use crate::hint::Subject;
use crate::input::{pair, unique};
use crate::json::{self, time_text};
use crate::output::{fields, rows};
use crate::tenant::{Paging, cut_off};

/// Creates, rotates, disables and destroys keys
///
/// A key is a list of versions: the newest, its primary one, encrypts; every enabled one decrypts.
#[derive(Debug, Args)]
pub struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates a key
    Create(Create),
    /// Shows a key
    Get(Named),
    /// Lists the keys of the tenant, destroyed ones too
    List(Paging),
    /// Replaces the labels of a key
    Update(Update),
    /// Enables a disabled key, or one version of it
    Enable(Changed),
    /// Disables a key, or one version of it: it refuses every use
    Disable(Changed),
    /// Adds a version, which encrypts from then on
    Rotate(Rotate),
    /// Lists the versions of a key
    Versions(Versions),
    Destroy(Destroy),
    /// Takes back a scheduled destruction; the key or version is disabled then
    CancelDestruction(Changed),
}

#[derive(Debug, Args)]
struct Named {
    /// The key: tenants/TENANT/keys/KEY, or KEY with --tenant
    #[arg(id = "target", value_name = "KEY")]
    name: String,
}

#[derive(Debug, Args)]
struct Versioned {
    #[command(flatten)]
    key: Named,
    /// Only this version
    #[arg(long, value_name = "N")]
    version: Option<VersionNumber>,
}

#[derive(Debug, Args)]
struct Rotate {
    #[command(flatten)]
    key: Named,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct Changed {
    #[command(flatten)]
    target: Versioned,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct Create {
    /// The key: tenants/TENANT/keys/KEY, or KEY with --tenant. Use an opaque id: names outlive keys
    #[arg(id = "target", value_name = "KEY")]
    name: String,
    /// What the key is for
    #[arg(long, value_enum, value_name = "PURPOSE", default_value = "encrypt")]
    purpose: Purpose,
    /// A label; may be given again. Labels outlive the key: no personal data
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    change: CreationArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Purpose {
    /// Encrypts small values and wraps data keys that you keep
    Encrypt,
    /// Wraps data keys that the service keeps
    Managed,
    /// Makes message authentication codes
    Mac,
}

#[derive(Debug, Args)]
#[group(id = "new_labels", required = true, multiple = false, args = ["labels", "no_labels"])]
struct Update {
    #[command(flatten)]
    key: Named,
    /// A label, in place of all it has; may be given again
    #[arg(long = "label", id = "labels", value_name = "K=V", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Takes all labels away
    #[arg(long)]
    no_labels: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct Versions {
    #[command(flatten)]
    key: Named,
    #[command(flatten)]
    paging: Paging,
}

/// Destroys a key, or one version of it, after a wait
///
/// It refuses every use at once. Until the wait is over, `kms key cancel-destruction` takes it back;
/// after it, nothing that it encrypted can be opened again.
///
/// Asks for the name on a terminal; scripts give --yes --name KEY, for a version --yes --name
/// KEY/versions/N.
///
/// A wait below the server's destruction.wait_min takes two persons: give --request-approval first,
/// and once it is approved, the same command without it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Destroy {
    #[command(flatten)]
    target: Versioned,
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

impl Key {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::Create(command) => command.run(app).await,
            Command::Get(named) => {
                let key = app.key(&named.name)?;
                let found = app.client()?.get_key(&key).await.about(&Subject::key(&key))?;
                app.output.show(&json::Key::from(&found), || key_table(&found, None))
            }
            Command::List(paging) => list(app, &paging).await,
            Command::Update(command) => command.run(app).await,
            Command::Rotate(command) => {
                let key = app.key(&command.key.name)?;
                let rotated = command.change.change(app.client()?.rotate_key(&key)).await;
                show_key(app, rotated.about(&Subject::key(&key))?.key, &command.change.change).map(drop)
            }
            Command::Versions(command) => command.run(app).await,
            Command::Destroy(command) => command.run(app).await,
            Command::Enable(changed) => changed.run(app, Client::enable_key, Client::enable_key_version).await,
            Command::Disable(changed) => changed.run(app, Client::disable_key, Client::disable_key_version).await,
            Command::CancelDestruction(changed) => {
                changed.run(app, Client::cancel_key_destruction, Client::cancel_key_version_destruction).await
            }
        }
    }
}

impl Changed {
    async fn run<K: Outcome<kms_client::Key> + 'static, V: Outcome<KeyAndVersion> + 'static>(
        &self,
        app: &mut App<'_>,
        change_key: fn(&Client, &KeyRef) -> Change<K>,
        change_version: fn(&Client, &KeyRef, VersionNumber) -> Change<V>,
    ) -> Result<(), Failure> {
        let (client, key, subject) = self.target.prepare(app)?;
        let args = &self.change;
        match self.target.version {
            None => {
                let changed = args.change(change_key(&client, &key)).await.about(&subject)?;
                show_key(app, changed, &args.change).map(drop)
            }
            Some(version) => {
                let changed = args.change(change_version(&client, &key, version)).await.about(&subject)?;
                show_version(app, changed, &args.change).map(drop)
            }
        }
    }
}

impl Versioned {
    fn prepare(&self, app: &App<'_>) -> Result<(kms_client::Client, KeyRef, Subject), Failure> {
        let key = app.key(&self.key.name)?;
        let subject = Subject::key(&key).version(self.version);
        Ok((app.client()?, key, subject))
    }
}

impl Create {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let key = app.key(&self.name)?;
        let purpose = match self.purpose {
            Purpose::Encrypt => KeyPurpose::Encrypt,
            Purpose::Managed => KeyPurpose::Managed,
            Purpose::Mac => KeyPurpose::Mac,
        };
        let labels = unique("--label", &self.labels)?;
        let created = self.change.creation(app.client()?.create_key(&key, purpose, labels)).await;
        show_key(app, created.about(&Subject::key(&key))?, &self.change).map(drop)
    }
}

impl Update {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let key = app.key(&self.key.name)?;
        // With --no-labels there are none.
        let labels: Labels = unique("--label", &self.labels)?;
        let updated = self.change.change(app.client()?.update_labels(&key, labels)).await;
        show_key(app, updated.about(&Subject::key(&key))?, &self.change.change).map(drop)
    }
}

impl Versions {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let key = app.key(&self.key.name)?;
        let after = self.paging.page_token.clone().map(Into::into);
        let client = app.client()?;
        let page = client.list_all_key_versions(&key, self.paging.limit, after).await.about(&Subject::key(&key))?;
        app.output.show(&json::KeyVersions::from(&page), || {
            let row = |version: &kms_client::KeyVersion| {
                let destruction = version.destroy_time.map(time_text).unwrap_or_default();
                [version.version.to_string(), state(version.state), time_text(version.create_time), destruction]
            };
            let header = ["VERSION", "STATE", "CREATED", "DESTRUCTION"];
            // Only keys of one purpose have them.
            if page.items.iter().all(|version| version.data_key_count.is_none()) {
                return rows(header, page.items.iter().map(row));
            }
            let with_count = |version: &kms_client::KeyVersion| {
                let [number, state, created, destruction] = row(version);
                let count = version.data_key_count.map(|count| count.to_string()).unwrap_or_default();
                [number, state, created, destruction, count]
            };
            let [number, state, created, destruction] = header;
            rows([number, state, created, destruction, "DATA-KEYS"], page.items.iter().map(with_count))
        })?;
        cut_off(app, &page);
        Ok(())
    }
}

impl Destroy {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let (client, key, subject) = self.target.prepare(app)?;
        if let Some(reason) = self.approval.reason() {
            let (version, wait, etag) = (self.target.version, self.wait, self.change.etag.clone());
            let operation = Operation::ScheduleKeyDestruction { key, version, wait, etag };
            return grant::request_operation(app, &operation, reason, &self.change.change, &subject).await;
        }
        let (short, full) = match self.target.version {
            None => (key.key().to_owned(), key.to_string()),
            Some(version) => (format!("{}/versions/{version}", key.key()), format!("{key}/versions/{version}")),
        };
        let when = crate::confirm::when(self.wait);
        let effect = format!("This destroys {full} {when}.\nThen nothing that it encrypted can be opened again.");
        let change = &self.change.change;
        // A dry run destroys nothing.
        if !change.dry_run {
            let place = &*app.settings.place();
            self.confirm.check(&What { effect: &effect, short: &short, full: &full, place })?;
        }
        let pending = match self.target.version {
            None => {
                let scheduled = client.schedule_key_destruction(&key, self.wait);
                let destroyed = self.change.change(scheduled).await.about(&subject)?;
                show_key(app, destroyed, change)?.destroy_time.map(|_| format!("kms key cancel-destruction {key}"))
            }
            Some(version) => {
                let scheduled = client.schedule_key_version_destruction(&key, version, self.wait);
                let destroyed = self.change.change(scheduled).await.about(&subject)?;
                let cancel = format!("kms key cancel-destruction {key} --version {version}");
                show_version(app, destroyed, change)?.destroy_time.map(|_| cancel)
            }
        };
        if let Some(cancel) = pending.filter(|_| !change.dry_run) {
            app.output.note(&format!("until then, `{cancel}` takes it back"));
        }
        Ok(())
    }
}

async fn list(app: &mut App<'_>, paging: &Paging) -> Result<(), Failure> {
    let tenant = app.default_tenant()?;
    let after = paging.page_token.clone().map(Into::into);
    let page = app.client()?.list_all_keys(&tenant, paging.limit, after).await.about(&Subject::tenant(&tenant))?;
    app.output.show(&json::Keys::from(&page), || {
        let row = |key: &kms_client::Key| {
            let destruction = key.destroy_time.map(time_text).unwrap_or_default();
            let primary = key.primary_version.to_string();
            [
                key.name.key().to_owned(),
                purpose(key),
                state(key.state),
                primary,
                time_text(key.create_time),
                destruction,
            ]
        };
        rows(["KEY", "PURPOSE", "STATE", "PRIMARY", "CREATED", "DESTRUCTION"], page.items.iter().map(row))
    })?;
    cut_off(app, &page);
    Ok(())
}

/// Shows what has become of a key, and returns it.
fn show_key(
    app: &mut App<'_>,
    outcome: impl Outcome<kms_client::Key>,
    change: &CreationArgs,
) -> Result<kms_client::Key, Failure> {
    let (key, lease_end) = outcome.into_parts();
    let answer = json::Changed::new(json::Key::from(&key), lease_end);
    app.output.show_change(&answer, || key_table(&key, lease_end))?;
    change.note(app);
    Ok(key)
}

fn key_table(key: &kms_client::Key, lease_end: Option<SystemTime>) -> String {
    let labels: Vec<String> = key.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    fields([
        ("name", key.name.to_string()),
        ("uid", key.uid.clone()),
        ("purpose", purpose(key)),
        ("state", state(key.state)),
        ("primary version", key.primary_version.to_string()),
        ("labels", labels.join(" ")),
        ("created", time_text(key.create_time)),
        ("updated", time_text(key.update_time)),
        ("destruction", key.destroy_time.map(time_text).unwrap_or_default()),
        ("leases end", lease_end.map(time_text).unwrap_or_default()),
        ("etag", key.etag.as_ref().map(ToString::to_string).unwrap_or_default()),
    ])
}

/// Shows what has become of a version, and returns it.
fn show_version(
    app: &mut App<'_>,
    outcome: impl Outcome<KeyAndVersion>,
    change: &CreationArgs,
) -> Result<kms_client::KeyVersion, Failure> {
    let (KeyAndVersion { version, .. }, lease_end) = outcome.into_parts();
    let answer = json::Changed::new(json::KeyVersion::from(&version), lease_end);
    app.output.show_change(&answer, || {
        fields([
            ("name", format!("{}/versions/{}", version.key, version.version)),
            ("state", state(version.state)),
            ("created", time_text(version.create_time)),
            ("destruction", version.destroy_time.map(time_text).unwrap_or_default()),
            ("leases end", lease_end.map(time_text).unwrap_or_default()),
            ("etag", version.etag.as_ref().map(ToString::to_string).unwrap_or_default()),
        ])
    })?;
    change.note(app);
    Ok(version)
}

pub fn state(state: KeyState) -> String {
    match state {
        KeyState::Unknown(number) => number.to_string(),
        state => state.as_str().to_owned(),
    }
}

fn purpose(key: &kms_client::Key) -> String {
    match key.purpose {
        KeyPurpose::Unknown(number) => number.to_string(),
        purpose => purpose.as_str().to_owned(),
    }
}
