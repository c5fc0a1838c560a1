//! The settings: flag, else environment, else file, else default. Unknown ones are errors.
//!
//! Secrets are never settings: a setting names the file a secret is in. A path in the file is
//! relative to the file, a path in a flag to where the daemon was started.

mod backend;
pub mod check;
pub mod draft;
mod example;
pub mod show;
mod table;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::authn::{IdentityMapping, IssuerSettings, TlsFiles};
use crate::backend::BackendSettings;
use crate::backend::watch::WatchSettings;
use crate::keyring::KeyringSettings;
use crate::mistake::{Mistake, did_you_mean};
use crate::policy::PairNames;
use crate::rpc::accept::ConnectionLimits;
use crate::rpc::limits::LoadLimits;
use crate::telemetry::LogFormat;
use draft::{Draft, Origin};

pub use example::example;
pub use table::{SETTINGS, Setting};
pub(crate) use value::milliseconds;

/// Settings that are none, each mistake with its place and what to do.
#[derive(Clone, Debug)]
pub struct ConfigError(pub Vec<Mistake>);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&all.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

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
    pub listen_services: Option<String>,
    /// Where operators connect [default: 127.0.0.1:8444].
    #[arg(long, env = "KMS_SERVER_LISTEN_OPERATOR", value_name = "ADDRESS")]
    pub listen_operator: Option<String>,
    /// Where metrics and probes are, without TLS [default: 127.0.0.1:8445].
    #[arg(long, env = "KMS_SERVER_LISTEN_PROBES", value_name = "ADDRESS")]
    pub listen_probes: Option<String>,
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
    /// The file with the PIN of the software HSM, or of the token [default: pin in the data directory].
    #[arg(long, env = "KMS_SERVER_BACKEND_PIN_FILE", value_name = "FILE")]
    pub backend_pin_file: Option<PathBuf>,
    /// The shortest waiting time before a destruction, such as 7d [default: 7d].
    #[arg(long, env = "KMS_SERVER_DESTRUCTION_WAIT_MIN", value_name = "TIME")]
    pub destruction_wait_min: Option<String>,
    /// What to log, such as info or debug [default: info].
    #[arg(long, env = "KMS_SERVER_LOG_FILTER", value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// The names of those that came from the environment.
    #[arg(skip)]
    pub from_environment: Vec<String>,
    /// For tests of crashes: where to die, name[:count].
    #[cfg(debug_assertions)]
    #[arg(long, env = "KMS_SERVER_KILL_POINT", value_name = "POINT", hide = true)]
    pub kill_point: Option<crate::kill_point::Trigger>,
}

/// What a flag or a variable says.
struct Given {
    /// The flag's name in [`Flags`].
    id: &'static str,
    text: String,
    origin: Origin,
}

impl Flags {
    /// Notes which of these came from the environment, from what the command line was read as.
    pub fn note_origins(&mut self, matches: &clap::ArgMatches) {
        let of_environment =
            |id: &&clap::Id| matches.value_source(id.as_str()) == Some(clap::parser::ValueSource::EnvVariable);
        self.from_environment = matches.ids().filter(of_environment).map(|id| id.as_str().to_owned()).collect();
    }

    fn given(&self) -> Vec<Given> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let all = [
            ("data_dir", path(&self.data_dir)),
            ("node", self.node.clone()),
            ("listen_services", self.listen_services.clone()),
            ("listen_operator", self.listen_operator.clone()),
            ("listen_probes", self.listen_probes.clone()),
            ("tls_certificate_file", path(&self.tls_certificate_file)),
            ("tls_key_file", path(&self.tls_key_file)),
            ("tls_client_ca_file", path(&self.tls_client_ca_file)),
            ("policy_bindings_file", path(&self.policy_bindings_file)),
            ("backend_pin_file", path(&self.backend_pin_file)),
            ("destruction_wait_min", self.destruction_wait_min.clone()),
            ("log_filter", self.log_filter.clone()),
        ];
        let origin = |id: &str| match self.from_environment.iter().any(|from| from == id) {
            true => Origin::Environment(format!("{VARIABLES}{}", id.to_uppercase())),
            false => Origin::Flag(format!("--{}", id.replace('_', "-"))),
        };
        all.into_iter().filter_map(|(id, text)| Some(Given { id, text: text?, origin: origin(id) })).collect()
    }
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
    /// Whose bearer tokens are taken.
    pub issuers: Vec<IssuerSettings>,
    /// How often files are looked at for changes; none: never.
    pub reload_every: Option<Duration>,
    /// Who may do what.
    pub bindings_file: PathBuf,
    /// The users' own policies.
    pub cedar_files: Vec<PathBuf>,
    /// The pairs of encryption contexts that policy may see.
    pub context_pairs: PairNames,
    /// The master key.
    pub backend: BackendSettings,
    /// When the daemon locks itself because of it.
    pub watch: WatchSettings,
    /// The log's C2SP origin, for `init`.
    pub origin: Option<String>,
    /// Bytes of a segment of the audit log.
    pub segment_bytes: u64,
    /// How the keyring behaves.
    pub keyring: KeyringSettings,
    /// How many connections there may be.
    pub connections: ConnectionLimits,
    /// How much at once, and how often.
    pub loads: LoadLimits,
    /// The bytes of all messages in flight.
    pub bytes_in_flight_max: usize,
    /// The longest that one request may take.
    pub request_time_max: std::time::Duration,
    /// How to log.
    pub log_format: LogFormat,
    /// What to log.
    pub log_filter: String,
    /// Where to die, for tests of crashes.
    #[cfg(debug_assertions)]
    pub kill_point: Option<crate::kill_point::Trigger>,
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

    /// Returns the same with the data directory by its real path: a link that is changed later leads nowhere else.
    pub fn with_real_data_dir(&self) -> std::io::Result<Self> {
        let data_dir = self.data_dir.canonicalize()?;
        let mut backend = self.backend.clone();
        backend.dir = data_dir.join("hsm");
        Ok(Self { data_dir, backend, ..self.clone() })
    }

    /// Returns the files that a reload reads.
    pub fn reloaded_files(&self) -> Vec<&Path> {
        let tls = self.tls.iter().flat_map(|tls| {
            let domains = tls.trust_domains.iter().flat_map(|domain| domain.crls.iter().chain([&domain.ca]));
            tls.client_cas.iter().chain(&tls.crls).chain([&tls.cert_chain, &tls.key]).chain(domains)
        });
        let policy = std::iter::once(&self.bindings_file).chain(&self.cedar_files);
        let paths = policy.chain(tls).chain(&self.config_file).map(PathBuf::as_path);
        paths.chain(self.issuers.iter().filter_map(IssuerSettings::file)).collect()
    }

    /// Returns the files that the settings name, which may lie in the data directory.
    pub fn named_files(&self) -> Vec<&Path> {
        self.reloaded_files().into_iter().chain(self.backend.pin_file()).collect()
    }

    /// Puts the settings together.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let (settings, draft) = Self::draft(flags);
        if draft.mistakes.is_empty() { Ok(settings) } else { Err(ConfigError(draft.mistakes)) }
    }

    /// Puts together what can be understood, with every mistake in the rest.
    pub fn draft(flags: &Flags) -> (Self, Draft) {
        let mut draft = Draft::read(flags);
        draft.mistakes.extend(unknown_variables(std::env::vars_os().map(|(name, _)| name)));
        (resolve(flags, &mut draft), draft)
    }
}

/// A variable that is misspelt would be a setting that silently is not one.
fn unknown_variables(names: impl Iterator<Item = std::ffi::OsString>) -> Vec<Mistake> {
    use clap::Args as _;
    let known = Flags::augment_args(clap::Command::new("settings"));
    let known: Vec<&str> =
        known.get_arguments().filter_map(|flag| flag.get_env().and_then(std::ffi::OsStr::to_str)).collect();
    let ours = names.filter_map(|name| name.to_str().filter(|name| name.starts_with(VARIABLES)).map(str::to_owned));
    let mut unknown: Vec<String> = ours.filter(|name| !known.contains(&&**name)).collect();
    unknown.sort();
    let mistake = |name: String| Mistake {
        // The beginning that all have alike would make each near to each.
        remedy: did_you_mean(
            name.trim_start_matches(VARIABLES),
            known.iter().map(|known| known.trim_start_matches(VARIABLES)),
        )
        .map_or_else(
            || "unset it; `kms-server serve --help` names those there are, and the file has more".to_owned(),
            |near| format!("did you mean {VARIABLES}{near}?"),
        ),
        file: "environment".to_owned(),
        place: None,
        what: format!("unknown variable {name}"),
        why: "what begins with KMS_SERVER_ is a setting, and there is none of this name".to_owned(),
    };
    unknown.into_iter().map(mistake).collect()
}

const VARIABLES: &str = "KMS_SERVER_";
const INVARIANT: &str = "a setting of this kind with a default, which a test reads";

/// Makes settings of what was said, and tells what does not go together. What is missing and has no default
/// leaves something that is never used: the mistake is there.
fn resolve(flags: &Flags, draft: &mut Draft) -> Settings {
    let data_dir = draft.path("data_dir").unwrap_or_default();
    if draft.is_missing("data_dir") {
        draft.mistakes.push(Mistake {
            file: flags.config.as_ref().map_or("settings".to_owned(), |path| path.display().to_string()),
            place: None,
            what: "there is no data directory".to_owned(),
            why: "store, audit log and keystore need a place".to_owned(),
            remedy: "set data_dir in the file of settings, or give --data-dir".to_owned(),
        });
    }
    let [services, operator, probes] =
        ["services", "operator", "probes"].map(|name| draft.address(&format!("listen.{name}")).expect(INVARIANT));
    for (a, b, names) in [
        (services, operator, ["services", "operator"]),
        (services, probes, ["services", "probes"]),
        (operator, probes, ["operator", "probes"]),
    ] {
        if a == b && a.port() != 0 {
            let what = format!("listen.{} and listen.{} have the same address {a}", names[0], names[1]);
            let place = format!("listen.{}", names[1]);
            draft.contradiction(
                &place,
                what,
                "a listener has an address of its own",
                "give services, operator and probes one each",
            );
        }
    }

    let tls = tls(draft);
    let bindings_file = draft.path("policy.bindings_file").unwrap_or_else(|| data_dir.join("bindings.toml"));
    let backend = BackendSettings { dir: data_dir.join("hsm"), kind: backend::backend_kind(draft, &data_dir) };
    let watch = WatchSettings {
        probe_every: Duration::from_millis(draft.millis("backend.probe_every").expect(INVARIANT)),
        lock_after: Duration::from_millis(draft.millis("backend.lock_after").expect(INVARIANT)),
        offline_grace: draft.millis("backend.offline_grace").map(Duration::from_millis),
    };

    let wait_ms_min = draft.millis("destruction.wait_min").expect(INVARIANT);
    let wait_ms_default = draft.millis("destruction.wait_default").unwrap_or(wait_ms_min.max(WAIT_MS_DEFAULT));
    if wait_ms_default < wait_ms_min {
        let what = "destruction.wait_default is shorter than destruction.wait_min".to_owned();
        let remedy = "lengthen wait_default, or shorten wait_min";
        draft.contradiction("destruction.wait_default", what, "it must lie between wait_min and 365d", remedy);
    }

    let number =
        |draft: &Draft, name: &str| draft.integer(name).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let rate = |draft: &Draft, name: &str| {
        draft.integer(name).and_then(|number| NonZeroU32::new(u32::try_from(number).unwrap_or(u32::MAX)))
    };
    let total = number(draft, "limits.connections").expect(INVARIANT);
    let per_peer = number(draft, "limits.connections_per_peer").unwrap_or(total.min(64));
    if per_peer > total {
        let what = format!("limits.connections_per_peer = {per_peer} is out of bounds");
        let why = format!("there are {total} in all, by limits.connections");
        draft.contradiction("limits.connections_per_peer", what, &why, "lower it, or raise limits.connections");
    }
    let log_format = match draft.text("log.format").as_deref() {
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(_) | None => LogFormat::Auto,
    };
    Settings {
        config_file: flags.config.clone(),
        data_dir,
        node: draft.text("node").expect(INVARIANT),
        cores: number(draft, "cores").unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        services,
        operator,
        probes,
        tls,
        identities: draft.identities.clone(),
        issuers: draft.issuers.clone(),
        reload_every: Some(Duration::from_millis(draft.millis("reload.watch").expect(INVARIANT)))
            .filter(|every| !every.is_zero()),
        bindings_file,
        cedar_files: draft.paths("policy.cedar_files"),
        context_pairs: draft.pair_names("policy.context_pairs"),
        backend,
        watch,
        origin: draft.text("audit.origin"),
        segment_bytes: draft.integer("audit.segment_bytes").expect(INVARIANT),
        keyring: KeyringSettings {
            wait_ms_min,
            wait_ms_default,
            grant_ms_max: draft.millis("grants.duration_max").expect(INVARIANT),
            tenants_max: number(draft, "memory.tenants").expect(INVARIANT),
            keys_max: number(draft, "memory.keys").expect(INVARIANT),
            rewraps_per_second: u32::try_from(number(draft, "rotation.rewraps_per_second").expect(INVARIANT))
                .expect(INVARIANT),
        },
        connections: ConnectionLimits { total, per_peer },
        loads: LoadLimits {
            in_flight: number(draft, "limits.requests_in_flight").expect(INVARIANT),
            per_principal: rate(draft, "limits.rate_per_principal"),
            per_tenant: rate(draft, "limits.rate_per_tenant"),
        },
        bytes_in_flight_max: number(draft, "limits.bytes_in_flight").expect(INVARIANT),
        request_time_max: std::time::Duration::from_millis(draft.millis("limits.request_time").expect(INVARIANT)),
        log_format,
        log_filter: draft.text("log.filter").expect(INVARIANT),
        #[cfg(debug_assertions)]
        kill_point: flags.kill_point,
    }
}

const WAIT_MS_DEFAULT: u64 = 7 * 24 * 3600 * 1000;

fn tls(draft: &mut Draft) -> Option<TlsFiles> {
    let names = ["tls.certificate_file", "tls.key_file", "tls.client_ca_file"];
    let [certificate, key, client_ca] = names.map(|name| draft.path(name));
    match (certificate, key, client_ca) {
        (None, None, None) => None,
        (Some(cert_chain), Some(key), Some(client_ca)) => Some(TlsFiles {
            cert_chain,
            key,
            client_cas: vec![client_ca],
            crls: draft.paths("tls.crl_files"),
            trust_domains: draft.trust_domains.clone(),
            allow_tls12: draft.switch("tls.allow_tls12"),
        }),
        _ => {
            let (set, missing): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| draft.is_set(name));
            let missing: Vec<&str> = missing.into_iter().filter(|name| draft.is_missing(name)).collect();
            if let (Some(set), false) = (set.first(), missing.is_empty()) {
                let what =
                    format!("{} {} not set", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" });
                let why =
                    format!("tls.certificate_file, tls.key_file and tls.client_ca_file go together, and {set} is set");
                draft.contradiction(set, what, &why, "set all three");
            }
            None
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing {
    //! What fuzzing calls of the settings.

    use super::*;

    /// A file of settings.
    pub(crate) fn settings(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        let mut draft = Draft::of_text(text);
        drop(resolve(&Flags::default(), &mut draft));
        // A mistake is shown with its place, which is computed from the text.
        drop(draft.mistakes.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests;
