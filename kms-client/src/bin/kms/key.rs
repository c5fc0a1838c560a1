//! `kms key`

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use kms_client::{KeyPurpose, KeyRef, KeyState, Labels, VersionNumber};

use crate::app::App;
use crate::confirm::Confirm;
use crate::duration;
use crate::error::{About, Failure};
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
    Enable(Versioned),
    /// Disables a key, or one version of it: it refuses every use
    Disable(Versioned),
    /// Adds a version, which encrypts from then on
    Rotate(Named),
    /// Lists the versions of a key
    Versions(Versions),
    Destroy(Destroy),
    /// Takes back a scheduled destruction; the key or version is disabled then
    CancelDestruction(Versioned),
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
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Purpose {
    /// Encrypts small values and wraps data keys
    Encrypt,
    /// Wraps data keys that the service keeps; not offered yet
    Managed,
    /// Makes message authentication codes; not offered yet
    Mac,
}

#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = false, args = ["labels", "no_labels"])]
struct Update {
    #[command(flatten)]
    key: Named,
    /// A label, in place of all it has; may be given again
    #[arg(long = "label", id = "labels", value_name = "K=V", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Takes all labels away
    #[arg(long)]
    no_labels: bool,
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
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Destroy {
    #[command(flatten)]
    target: Versioned,
    /// How long it may be taken back, such as 7d; 0s destroys at once [default: the server's]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
    #[command(flatten)]
    confirm: Confirm,
}

impl Key {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::Create(command) => command.run(app).await,
            Command::Get(named) => {
                let key = app.key(&named.name)?;
                let found = app.client()?.get_key(&key).await.about(&Subject::key(&key))?;
                show_key(app, &found)
            }
            Command::List(paging) => list(app, &paging).await,
            Command::Update(command) => command.run(app).await,
            Command::Rotate(named) => {
                let key = app.key(&named.name)?;
                let rotated = app.client()?.rotate_key(&key).await.about(&Subject::key(&key))?;
                show_key(app, &rotated.key)
            }
            Command::Versions(command) => command.run(app).await,
            Command::Destroy(command) => command.run(app).await,
            Command::Enable(versioned) => {
                let (client, key, subject) = versioned.prepare(app)?;
                match versioned.version {
                    None => show_key(app, &client.enable_key(&key).await.about(&subject)?),
                    Some(version) => {
                        show_version(app, &client.enable_key_version(&key, version).await.about(&subject)?.version)
                    }
                }
            }
            Command::Disable(versioned) => {
                let (client, key, subject) = versioned.prepare(app)?;
                match versioned.version {
                    None => show_key(app, &client.disable_key(&key).await.about(&subject)?),
                    Some(version) => {
                        show_version(app, &client.disable_key_version(&key, version).await.about(&subject)?.version)
                    }
                }
            }
            Command::CancelDestruction(versioned) => {
                let (client, key, subject) = versioned.prepare(app)?;
                match versioned.version {
                    None => show_key(app, &client.cancel_key_destruction(&key).await.about(&subject)?),
                    Some(version) => {
                        let changed = client.cancel_key_version_destruction(&key, version).await.about(&subject)?;
                        show_version(app, &changed.version)
                    }
                }
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
        let created = app.client()?.create_key(&key, purpose, labels).await.about(&Subject::key(&key))?;
        show_key(app, &created)
    }
}

impl Update {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let key = app.key(&self.key.name)?;
        // With --no-labels there are none.
        let labels: Labels = unique("--label", &self.labels)?;
        let updated = app.client()?.update_labels(&key, labels).await.about(&Subject::key(&key))?;
        show_key(app, &updated)
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
            rows(["VERSION", "STATE", "CREATED", "DESTRUCTION"], page.items.iter().map(row))
        })?;
        cut_off(app, &page);
        Ok(())
    }
}

impl Destroy {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let (client, key, subject) = self.target.prepare(app)?;
        let (short, full) = match self.target.version {
            None => (key.key().to_owned(), key.to_string()),
            Some(version) => (format!("{}/versions/{version}", key.key()), format!("{key}/versions/{version}")),
        };
        let when = crate::confirm::when(self.wait);
        let what = format!(
            "This destroys {full} {when}, on {}.\nThen nothing that it encrypted can be opened again.",
            app.settings.place()
        );
        self.confirm.check(&what, &short, &full)?;
        let pending = match self.target.version {
            None => {
                let destroyed = client.schedule_key_destruction(&key, self.wait).await.about(&subject)?;
                show_key(app, &destroyed)?;
                destroyed.destroy_time.map(|_| format!("kms key cancel-destruction {key}"))
            }
            Some(version) => {
                let destroyed =
                    client.schedule_key_version_destruction(&key, version, self.wait).await.about(&subject)?;
                show_version(app, &destroyed.version)?;
                let cancel = format!("kms key cancel-destruction {key} --version {version}");
                destroyed.version.destroy_time.map(|_| cancel)
            }
        };
        if let Some(cancel) = pending {
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

fn show_key(app: &mut App<'_>, key: &kms_client::Key) -> Result<(), Failure> {
    app.output.show(&json::Key::from(key), || {
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
        ])
    })
}

fn show_version(app: &mut App<'_>, version: &kms_client::KeyVersion) -> Result<(), Failure> {
    app.output.show(&json::KeyVersion::from(version), || {
        fields([
            ("name", format!("{}/versions/{}", version.key, version.version)),
            ("state", state(version.state)),
            ("created", time_text(version.create_time)),
            ("destruction", version.destroy_time.map(time_text).unwrap_or_default()),
        ])
    })
}

fn state(state: KeyState) -> String {
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
