//! The settings: flag, else environment, else file, else default. Unknown ones are errors.
//!
//! Secrets are never settings: a setting names the file a secret is in. A path in the file is
//! relative to the file, a path in a flag to where the daemon was started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::authn::{IdentityMapping, TlsFiles};
use crate::backend::BackendSettings;
use crate::crypto::keystore_file::PinCost;
use crate::keyring::{KeyringSettings, WAIT_MS_MAX};
use crate::rpc::accept::ConnectionLimits;
use crate::telemetry::LogFormat;

/// A setting that is not one, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Settings on the command line or in the environment.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The file of settings (TOML).
    #[arg(long, env = "KMS_SERVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of store, log and keystore.
    #[arg(long, env = "KMS_SERVER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The node's name in the audit log [default: node-1].
    #[arg(long, env = "KMS_SERVER_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Where applications and administrators connect [default: 127.0.0.1:8443].
    #[arg(long, env = "KMS_SERVER_LISTEN_SERVICES", value_name = "ADDRESS")]
    pub listen_services: Option<SocketAddr>,
    /// Where operators connect [default: 127.0.0.1:8444].
    #[arg(long, env = "KMS_SERVER_LISTEN_OPERATOR", value_name = "ADDRESS")]
    pub listen_operator: Option<SocketAddr>,
    /// Where metrics and probes are, without TLS [default: 127.0.0.1:8445].
    #[arg(long, env = "KMS_SERVER_LISTEN_PROBES", value_name = "ADDRESS")]
    pub listen_probes: Option<SocketAddr>,
    /// The daemon's certificate and its intermediates (PEM).
    #[arg(long, env = "KMS_SERVER_TLS_CERTIFICATE_FILE", value_name = "FILE")]
    pub tls_certificate_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "KMS_SERVER_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// The authorities whose client certificates are accepted (PEM).
    #[arg(long, env = "KMS_SERVER_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// Who may do what (TOML) [default: bindings.toml in the data directory].
    #[arg(long, env = "KMS_SERVER_POLICY_BINDINGS_FILE", value_name = "FILE")]
    pub policy_bindings_file: Option<PathBuf>,
    /// The file with the PIN of the software HSM [default: pin in the data directory].
    #[arg(long, env = "KMS_SERVER_BACKEND_PIN_FILE", value_name = "FILE")]
    pub backend_pin_file: Option<PathBuf>,
    /// The shortest waiting time before a destruction, such as 7d [default: 7d].
    #[arg(long, env = "KMS_SERVER_DESTRUCTION_WAIT_MIN", value_name = "TIME")]
    pub destruction_wait_min: Option<String>,
    /// What to log, such as info or debug [default: info].
    #[arg(long, env = "KMS_SERVER_LOG_FILTER", value_name = "FILTER")]
    pub log_filter: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    node: Option<String>,
    cores: Option<usize>,
    listen: ListenSection,
    tls: TlsSection,
    policy: PolicySection,
    identity: IdentityMapping,
    backend: BackendSection,
    audit: AuditSection,
    destruction: DestructionSection,
    limits: LimitsSection,
    memory: MemorySection,
    log: LogSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenSection {
    services: Option<SocketAddr>,
    operator: Option<SocketAddr>,
    probes: Option<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsSection {
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    crl_files: Vec<PathBuf>,
    allow_tls12: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolicySection {
    bindings_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BackendSection {
    kind: BackendKind,
    pin_file: Option<PathBuf>,
    pin_memory_kib: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackendKind {
    #[default]
    Software,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuditSection {
    origin: Option<String>,
    segment_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DestructionSection {
    wait_min: Option<String>,
    wait_default: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    connections: Option<usize>,
    connections_per_peer: Option<usize>,
    bytes_in_flight: Option<usize>,
    request_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MemorySection {
    keys: Option<usize>,
    tenants: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogSection {
    format: LogFormat,
    filter: Option<String>,
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file they came from.
    pub config_file: Option<PathBuf>,
    /// The directory of store, log and keystore.
    pub data_dir: PathBuf,
    /// The node's name in the audit log.
    pub node: String,
    /// Threads that serve connections.
    pub cores: usize,
    /// Where applications and administrators connect.
    pub services: SocketAddr,
    /// Where operators connect.
    pub operator: SocketAddr,
    /// Where metrics and probes are.
    pub probes: SocketAddr,
    /// Certificates; nothing where they are not needed (`init`).
    pub tls: Option<TlsFiles>,
    /// Whom certificates without a SPIFFE ID stand for.
    pub identities: IdentityMapping,
    /// Who may do what.
    pub bindings_file: PathBuf,
    /// The master key.
    pub backend: BackendSettings,
    /// The log's C2SP origin, for `init`.
    pub origin: Option<String>,
    /// Bytes of a segment of the audit log.
    pub segment_bytes: u64,
    /// How the keyring behaves.
    pub keyring: KeyringSettings,
    /// How many connections there may be.
    pub connections: ConnectionLimits,
    /// The bytes of all messages in flight.
    pub bytes_in_flight_max: usize,
    /// The longest that one request may take.
    pub request_time_max: std::time::Duration,
    /// How to log.
    pub log_format: LogFormat,
    /// What to log.
    pub log_filter: String,
}

impl Settings {
    /// Returns the directory of the store.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Returns the directory of the log's segments.
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("seg")
    }

    /// Returns the directory of the ledger.
    pub fn ledger_dir(&self) -> PathBuf {
        self.data_dir.join("ledger")
    }

    /// Returns the files that the settings name, which may lie in the data directory.
    pub fn named_files(&self) -> Vec<&Path> {
        let BackendSettings::Software { pin_file, .. } = &self.backend;
        let tls =
            self.tls.iter().flat_map(|tls| tls.client_cas.iter().chain(&tls.crls).chain([&tls.cert_chain, &tls.key]));
        let others = [&self.bindings_file, pin_file];
        others.into_iter().chain(tls).chain(&self.config_file).map(PathBuf::as_path).collect()
    }

    /// Puts the settings together.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        refuse_unknown_variables()?;
        let (file, base) = match &flags.config {
            None => (File::default(), PathBuf::new()),
            Some(path) => (read(path)?, path.parent().unwrap_or(Path::new("")).to_owned()),
        };
        resolve(flags, file, &base)
    }
}

/// A variable that is misspelt would be a setting that silently is not one.
fn refuse_unknown_variables() -> Result<(), ConfigError> {
    use clap::Args as _;
    let known = Flags::augment_args(clap::Command::new("settings"));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("KMS_SERVER_"));
        if ours && !known.get_arguments().any(|flag| flag.get_env() == Some(&name)) {
            return Err(ConfigError(format!(
                "the environment has {name:?}, which is no setting: see `kms-server serve --help`"
            )));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError(format!(
            "the file of settings {} cannot be read: {error}; give another with --config",
            path.display()
        ))
    })?;
    toml::from_str(&text).map_err(|error| {
        // Not the library's own text, which quotes the line: the path may be that of a key or of the PIN.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let (line, column) =
            (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
        let rest = before.rsplit('\n').next().unwrap_or_default();
        let name = rest.split('=').next().map(str::trim).filter(|name| is_name_of_setting(name));
        let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
        ConfigError(format!("{}:{line}:{column}: {name}{}", path.display(), error.message().trim_end()))
    })
}

/// Only such a name is shown: what is in a file of another sort is not of this form.
fn is_name_of_setting(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn resolve(flags: &Flags, file: File, base: &Path) -> Result<Settings, ConfigError> {
    let path = |flag: &Option<PathBuf>, in_file| path(flag, in_file, base);
    let data_dir = path(&flags.data_dir, file.data_dir).ok_or_else(|| {
        ConfigError("there is no data directory: set data_dir in the file of settings, or give --data-dir".to_owned())
    })?;
    let node = flags.node.clone().or(file.node).unwrap_or_else(|| "node-1".to_owned());
    if node.parse::<crate::noun::TenantName>().is_err() {
        return Err(ConfigError(format!(
            "node = {node:?} is no name: use 1 to 64 of A-Z a-z 0-9 . _ ~ -, beginning with a letter or a digit"
        )));
    }

    let address = |flag: Option<SocketAddr>, in_file: Option<SocketAddr>, port| {
        flag.or(in_file).unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)))
    };
    let services = address(flags.listen_services, file.listen.services, 8443);
    let operator = address(flags.listen_operator, file.listen.operator, 8444);
    let probes = address(flags.listen_probes, file.listen.probes, 8445);
    for (a, b) in [(services, operator), (services, probes), (operator, probes)] {
        if a == b && a.port() != 0 {
            return Err(ConfigError(format!(
                "two listeners have the same address {a}: give services, operator and probes one each"
            )));
        }
    }

    let tls = tls(flags, file.tls, base)?;
    let bindings_file =
        path(&flags.policy_bindings_file, file.policy.bindings_file).unwrap_or_else(|| data_dir.join("bindings.toml"));
    let pin_file = path(&flags.backend_pin_file, file.backend.pin_file).unwrap_or_else(|| data_dir.join("pin"));
    let BackendKind::Software = file.backend.kind;
    let pin_cost =
        PinCost { memory_kib: file.backend.pin_memory_kib.unwrap_or(PinCost::DEFAULT.memory_kib), ..PinCost::DEFAULT };
    within("backend.pin_memory_kib", u64::from(pin_cost.memory_kib), 8, 1 << 20)?;
    let backend = BackendSettings::Software { dir: data_dir.join("hsm"), pin_file, pin_cost };

    let segment_bytes = file.audit.segment_bytes.unwrap_or(64 << 20);
    within("audit.segment_bytes", segment_bytes, 1 << 16, 1 << 30)?;
    if let Some(origin) = &file.audit.origin
        && (origin.is_empty()
            || origin.len() > 255
            || origin.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+'))
    {
        return Err(ConfigError(format!(
            "audit.origin = {origin:?} is no C2SP origin: 1 to 255 bytes without white space and without +"
        )));
    }

    let wait_min = flags.destruction_wait_min.as_deref().or(file.destruction.wait_min.as_deref()).unwrap_or("7d");
    let wait_ms_min = milliseconds("destruction.wait_min", wait_min)?;
    let wait_ms_default = match &file.destruction.wait_default {
        Some(text) => milliseconds("destruction.wait_default", text)?,
        None => wait_ms_min.max(7 * 24 * 3600 * 1000),
    };
    if wait_ms_default < wait_ms_min || wait_ms_default > WAIT_MS_MAX {
        return Err(ConfigError("destruction.wait_default must lie between destruction.wait_min and 365d".to_owned()));
    }

    let keys_max = file.memory.keys.unwrap_or(crate::crypto::arena::SLOTS_DEFAULT);
    within("memory.keys", keys_max as u64, 16, 1 << 23)?;
    let tenants_max = file.memory.tenants.unwrap_or(16_384);
    within("memory.tenants", tenants_max as u64, 16, 1 << 22)?;
    let total = file.limits.connections.unwrap_or(4096);
    let connections = ConnectionLimits { total, per_peer: file.limits.connections_per_peer.unwrap_or(total.min(64)) };
    within("limits.connections", connections.total as u64, 1, 1 << 20)?;
    within("limits.connections_per_peer", connections.per_peer as u64, 1, connections.total as u64)?;
    let bytes_in_flight_max = file.limits.bytes_in_flight.unwrap_or(256 << 20);
    within("limits.bytes_in_flight", bytes_in_flight_max as u64, 8 << 20, 1 << 36)?;
    let request_time = milliseconds("limits.request_time", file.limits.request_time.as_deref().unwrap_or("5s"))?;
    within("limits.request_time (in ms)", request_time, 10, 600_000)?;
    let cores = file.cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    within("cores", cores as u64, 1, 1024)?;

    Ok(Settings {
        config_file: flags.config.clone(),
        data_dir,
        node,
        cores,
        services,
        operator,
        probes,
        tls,
        identities: file.identity,
        bindings_file,
        backend,
        origin: file.audit.origin,
        segment_bytes,
        keyring: KeyringSettings { wait_ms_min, wait_ms_default, tenants_max, keys_max },
        connections,
        bytes_in_flight_max,
        request_time_max: std::time::Duration::from_millis(request_time),
        log_format: file.log.format,
        log_filter: flags.log_filter.clone().or(file.log.filter).unwrap_or_else(|| "info".to_owned()),
    })
}

/// Returns the path of a flag, else the one in the file, which is relative to the file.
fn path(flag: &Option<PathBuf>, in_file: Option<PathBuf>, base: &Path) -> Option<PathBuf> {
    flag.clone().or_else(|| in_file.map(|path| base.join(path)))
}

fn tls(flags: &Flags, section: TlsSection, base: &Path) -> Result<Option<TlsFiles>, ConfigError> {
    let path = |flag: &Option<PathBuf>, in_file| path(flag, in_file, base);
    let certificate = path(&flags.tls_certificate_file, section.certificate_file);
    let key = path(&flags.tls_key_file, section.key_file);
    let client_ca = path(&flags.tls_client_ca_file, section.client_ca_file);
    match (certificate, key, client_ca) {
        (None, None, None) => Ok(None),
        (Some(cert_chain), Some(key), Some(client_ca)) => Ok(Some(TlsFiles {
            cert_chain,
            key,
            client_cas: vec![client_ca],
            crls: section.crl_files.into_iter().map(|path| base.join(path)).collect(),
            allow_tls12: section.allow_tls12,
        })),
        _ => Err(ConfigError(
            "tls.certificate_file, tls.key_file and tls.client_ca_file go together: set all three".to_owned(),
        )),
    }
}

fn within(name: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError(format!("{name} = {value} is out of bounds: from {min} to {max}")))
    }
}

/// Reads a time such as `7d`, `12h`, `500ms` or `0s`. A day has 24 hours.
fn milliseconds(name: &str, text: &str) -> Result<u64, ConfigError> {
    let wrong = || ConfigError(format!("{name} = {text:?} is no time: write it like 7d, 12h, 90s or 500ms"));
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let total =
        span.total((jiff::Unit::Millisecond, jiff::SpanRelativeTo::days_are_24_hours())).map_err(|_| wrong())?;
    if !(0.0..=1e15).contains(&total) {
        return Err(wrong());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Bounded by the line above.
    Ok(total as u64)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing {
    //! What fuzzing calls of the settings.

    use super::*;

    /// A file of settings.
    pub(crate) fn settings(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        match toml::from_str::<File>(text) {
            Ok(file) => drop(resolve(&Flags::default(), file, Path::new("etc")).map_err(|error| error.to_string())),
            Err(error) => drop(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, ConfigError> {
        resolve(
            &Flags::default(),
            toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?,
            Path::new("/etc/kms"),
        )
    }

    #[test]
    fn an_empty_file_but_for_the_directory_gives_the_defaults() {
        let settings = settings("data_dir = \"data\"").unwrap();
        assert_eq!(settings.data_dir, Path::new("/etc/kms/data"));
        assert_eq!(settings.bindings_file, Path::new("/etc/kms/data/bindings.toml"));
        assert_eq!(settings.services.to_string(), "127.0.0.1:8443");
        assert_eq!((settings.keyring.wait_ms_min, settings.keyring.wait_ms_default), (604_800_000, 604_800_000));
        assert_eq!(settings.segment_bytes, 67_108_864);
    }

    #[test]
    fn a_flag_comes_before_the_file() {
        let flags = Flags { node: Some("b".into()), data_dir: Some("here".into()), ..Flags::default() };
        let settings =
            resolve(&flags, toml::from_str("node = \"a\"\ndata_dir = \"data\"").unwrap(), Path::new("/etc/kms"))
                .unwrap();
        assert_eq!((&*settings.node, &*settings.data_dir), ("b", Path::new("here")));
    }

    #[test]
    fn unknown_wrong_and_contradictory_settings_are_told() {
        let cases = [
            ("", "there is no data directory"),
            ("data_dir = \"d\"\nnodes = 3", "unknown field `nodes`"),
            ("data_dir = \"d\"\n[listen]\nservice = \"127.0.0.1:1\"", "unknown field `service`"),
            ("data_dir = \"d\"\n[listen]\nservices = \"localhost\"", "invalid socket address"),
            ("data_dir = \"d\"\n[listen]\nservices = \"127.0.0.1:9\"\nprobes = \"127.0.0.1:9\"", "same address"),
            ("data_dir = \"d\"\nnode = \"a b\"", "is no name"),
            ("data_dir = \"d\"\n[tls]\nkey_file = \"k\"", "go together"),
            ("data_dir = \"d\"\n[backend]\nkind = \"paper\"", "unknown variant `paper`"),
            ("data_dir = \"d\"\n[destruction]\nwait_min = \"soon\"", "is no time"),
            ("data_dir = \"d\"\n[destruction]\nwait_min = \"-1s\"", "is no time"),
            ("data_dir = \"d\"\n[destruction]\nwait_min = \"8d\"\nwait_default = \"7d\"", "must lie between"),
            ("data_dir = \"d\"\n[audit]\nsegment_bytes = 1", "out of bounds"),
            ("data_dir = \"d\"\n[audit]\norigin = \"a b\"", "no C2SP origin"),
            ("data_dir = \"d\"\n[limits]\nconnections = 8\nconnections_per_peer = 9", "out of bounds"),
            ("data_dir = \"d\"\n[limits]\nrequest_time = \"1ms\"", "out of bounds"),
        ];
        for (text, expected) in cases {
            let told = settings(text).map(|_| ()).unwrap_err().to_string();
            assert!(told.contains(expected), "{text:?} gave {told:?}");
        }
    }

    #[test]
    fn times_are_read_in_days_too() {
        for (text, expected) in
            [("0s", 0), ("7d", 604_800_000), ("12h", 43_200_000), ("500ms", 500), ("1d 12h", 129_600_000)]
        {
            assert_eq!(milliseconds("t", text).unwrap(), expected, "{text}");
        }
    }
}
