//! A site: the directory of one cluster with its settings, bindings and certificates. A daemon
//! runs on it, ends, and runs on it again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::process::Command;

use crate::daemon::KILL_POINT;
use crate::{Authority, Binding, Daemon, Ended, Identity, Ledger, ON_INDEXES, Output, Volume, run};

/// The settings that tests change. All others are the daemon's own defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a segment of the audit log. Small, because a segment is written full of zeros.
    pub segment_bytes: u64,
    /// Memory of the derivation from the PIN, in KiB. Small, because each start pays for it.
    pub pin_memory_kib: u32,
    /// The shortest wait before a destruction.
    pub wait_min: String,
    /// The wait where a request gives none.
    pub wait_default: String,
    /// What the daemon logs.
    pub log_filter: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 20,
            pin_memory_kib: 1024,
            wait_min: "0s".into(),
            wait_default: "7d".into(),
            log_filter: "info".into(),
        }
    }
}

/// The directory of one cluster.
pub struct Site {
    folder: Folder,
    domain: String,
    authority: Authority,
    /// Issued once for each principal.
    identities: Mutex<BTreeMap<String, Identity>>,
    output: Output,
    ledger: Ledger,
    /// What the data directory lies on, if not on the disk of the others.
    volume: Option<Volume>,
    /// What its programs find in their environment.
    environment: Mutex<BTreeMap<String, String>>,
}

enum Folder {
    /// Removed with the site.
    Temporary(TempDir),
    /// Stays, to be looked at.
    Kept(PathBuf),
}

impl Site {
    /// Makes a site in a temporary directory, with the settings that suit most tests.
    pub fn temporary() -> Result<Self> {
        Self::with(&Settings::default())
    }

    /// Makes a site in a temporary directory.
    pub fn with(settings: &Settings) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kms-").tempdir().context("a temporary directory")?;
        Self::make(Folder::Temporary(folder), "test.example", settings)
    }

    /// Makes a site in a temporary directory whose data directory is a small volume.
    pub fn on_volume(settings: &Settings, bytes: u64) -> Result<Self> {
        let mut site = Self::with(settings)?;
        let data = site.dir().join("data");
        fs::create_dir(&data)?;
        site.volume = Some(Volume::mount(&data, bytes)?);
        Ok(site)
    }

    /// Returns the volume that the data directory is.
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    /// Makes a site that stays when all is over. Its principals are `spiffe://<domain>/...`.
    pub fn kept(folder: &Path, domain: &str, settings: &Settings) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        // Absolute, because the daemon's working directory need not be ours.
        let folder = folder.canonicalize()?;
        Self::make(Folder::Kept(folder), domain, settings)
    }

    fn make(folder: Folder, domain: &str, settings: &Settings) -> Result<Self> {
        let site = Self {
            folder,
            domain: domain.to_owned(),
            authority: Authority::new()?,
            identities: Mutex::default(),
            output: Output::default(),
            ledger: Ledger::default(),
            volume: None,
            environment: Mutex::default(),
        };
        let server = site.authority.server()?;
        site.write("ca.pem", &site.authority.pem())?;
        site.write("server.pem", &server.certificate)?;
        site.write_secret("server.key", &server.key)?;
        site.write("kms.toml", &settings_text(settings))?;
        Ok(site)
    }

    /// Returns the site's directory.
    pub fn dir(&self) -> &Path {
        match &self.folder {
            Folder::Temporary(folder) => folder.path(),
            Folder::Kept(folder) => folder,
        }
    }

    /// Returns the path of a file of the site.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.dir().join(name);
        self.volume.as_ref().map(|volume| volume.path(&path)).unwrap_or(path)
    }

    /// Returns the directory of the audit log's segments.
    pub fn log_dir(&self) -> PathBuf {
        self.path("data/seg")
    }

    /// Returns all that the daemons of this site said.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Returns every reply that this site's callers got.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns the authority that the daemon trusts.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Writes a file of the site.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.path(name), text).with_context(|| format!("writing {name}"))
    }

    /// Writes a file that only its owner may read.
    pub fn write_secret(&self, name: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        self.write(name, text)?;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600))
            .with_context(|| format!("closing {name}"))
    }

    /// Reads a file of the site.
    pub fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path(name)).with_context(|| format!("reading {name}"))
    }

    /// Replaces a part of the settings, which must be there exactly once.
    pub fn change_settings(&self, from: &str, to: &str) -> Result<()> {
        let text = self.read("kms.toml")?;
        anyhow::ensure!(text.matches(from).count() == 1, "the settings do not have {from:?} once");
        self.write("kms.toml", &text.replace(from, to))
    }

    /// Puts these lines in the place of the settings of the backend.
    pub fn use_backend(&self, lines: &str) -> Result<()> {
        let text = self.read("kms.toml")?;
        let (before, rest) = text.split_once("[backend]\n").context("the settings have a backend")?;
        let (_, after) = rest.split_once("\n[").context("something follows it")?;
        self.write("kms.toml", &format!("{before}[backend]\n{lines}\n[{after}"))
    }

    /// Returns the SPIFFE id of a principal of this site.
    pub fn principal(&self, name: &str) -> String {
        format!("spiffe://{}/{name}", self.domain)
    }

    /// Returns the certificate and key of a principal of this site.
    pub fn identity(&self, name: &str) -> Result<Identity> {
        let mut identities = self.identities.lock().expect("no holder panics");
        if let Some(identity) = identities.get(name) {
            return Ok(identity.clone());
        }
        let identity = self.authority.client(&self.principal(name))?;
        identities.insert(name.to_owned(), identity.clone());
        Ok(identity)
    }

    /// Writes the certificate and key of a principal into files, and returns their paths.
    pub fn identity_files(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let identity = self.identity(name)?;
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        self.write(&certificate, &identity.certificate)?;
        self.write_secret(&key, &identity.key)?;
        Ok((self.path(&certificate), self.path(&key)))
    }

    /// Adds a binding to those that `init` has made.
    pub fn bind(&self, binding: &Binding<'_>) -> Result<()> {
        let mut text = self.read("bindings.toml")?;
        text.push_str(&binding.to_string());
        self.write("bindings.toml", &text)
    }

    /// Binds `app` to roles over the keys and blind indexes of all tenants.
    pub fn bind_app(&self, roles: &[&str]) -> Result<()> {
        let principal = self.principal("app");
        let indexes: &[&str] = if roles.iter().any(|role| ON_INDEXES.contains(role)) { &["*"] } else { &[] };
        self.bind(&Binding { id: "app", roles, principals: &[&principal], tenants: &["*"], keys: &["*"], indexes })
    }

    /// Binds persons, as they are called, to a role in all tenants; each has a binding of that name.
    pub fn bind_persons(&self, persons: &[(&str, &[&str])]) -> Result<()> {
        for (name, roles) in persons {
            let principal = self.principal(name);
            self.bind(&Binding {
                id: name,
                roles,
                principals: &[&principal],
                tenants: &["*"],
                keys: &[],
                indexes: &[],
            })?;
        }
        Ok(())
    }

    /// Sets a variable in the environment of the programs that are started from now on.
    pub fn set_variable(&self, name: &str, value: &str) {
        self.environment.lock().expect("no holder panics").insert(name.to_owned(), value.to_owned());
    }

    /// Returns `kms-server <command> --config kms.toml`, where a command may have several words, to be run or added to.
    pub fn command(&self, command: &str) -> Result<Command> {
        let mut server = match &self.volume {
            None => crate::command("kms-server")?,
            Some(volume) => crate::program::command_in(&volume.enter(), "kms-server")?,
        };
        server.args(command.split(' ')).arg("--config").arg(self.dir().join("kms.toml")).current_dir(self.dir());
        server.envs(&*self.environment.lock().expect("no holder panics"));
        Ok(server)
    }

    /// Runs `init` for the administrator `admin`, however it ends.
    pub async fn try_init(&self) -> Result<Ended> {
        run(self.command("init")?.arg("--admin").arg(self.principal("admin"))).await
    }

    /// Runs `init` for the administrator `admin`.
    pub async fn init(&self) -> Result<Ended> {
        self.try_init().await?.success().context("kms-server init")
    }

    /// Starts a daemon that is asked to reload (SIGHUP) as soon as it has said its first word.
    pub async fn start_hung_up(self) -> Result<Daemon> {
        Daemon::start_with(self, true).await
    }

    /// Runs `init` for the administrator `admin`, to die at a place, and returns what it said.
    pub async fn init_armed(&self, kill_point: &str) -> Result<Ended> {
        let mut init = self.command("init")?;
        run(init.arg("--admin").arg(self.principal("admin")).env(KILL_POINT, kill_point)).await
    }

    /// Runs `serve`, which is expected to refuse, and returns what it said. If it serves it is killed, and the end
    /// has no exit code.
    pub async fn refused_serve(&self) -> Result<Ended> {
        Daemon::refused(self).await
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn start(self) -> Result<Daemon> {
        Daemon::start(self).await
    }
}

fn settings_text(settings: &Settings) -> String {
    let Settings { segment_bytes, pin_memory_kib, wait_min, wait_default, log_filter } = settings;
    format!(
        r#"data_dir = "data"
node = "node-1"

[listen]
services = "127.0.0.1:0"
operator = "127.0.0.1:0"
probes = "127.0.0.1:0"

[tls]
certificate_file = "server.pem"
key_file = "server.key"
client_ca_file = "ca.pem"

[policy]
bindings_file = "bindings.toml"

[backend]
kind = "software"
pin_file = "data/pin"
pin_memory_kib = {pin_memory_kib}

[audit]
segment_bytes = {segment_bytes}

[destruction]
wait_min = "{wait_min}"
wait_default = "{wait_default}"

[log]
filter = "{log_filter}"
"#
    )
}
