//! What can change while the daemon serves: who is let in (certificates, authorities, revocation
//! lists, the mapping of names, issuers of tokens), and who may do what (bindings, own policies, the pairs they see). Read
//! at the start, and again at each SIGHUP, when somebody asks for it, and when the files are others than they were; all or
//! nothing.
//!
//! Not here: what a replaced part does to connections and requests; see `rpc::trust` and `policy`.
//!
//! **Invariant:** nothing is put in force before everything was read and checked, and the record of
//! it is durable. A failure leaves all as it was. The tests are those of e2e `reload`.

mod files;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Leaf, Log, Outcome, Unrecorded};
use crate::authn::{self, IdentityMapping, Issuers};
use crate::config::{Flags, Settings};
use crate::crypto::sha256;
use crate::noun::Clock;
use crate::policy::{self, File, Files, InForce, Policy, PolicyError};
use crate::rpc::trust::{Trust, TrustInForce};
use crate::shutdown::Hangups;

pub(crate) use files::Look;

/// What a reload needs to know of how the daemon was started.
pub struct Reloading {
    /// Where its settings come from.
    pub flags: Flags,
    /// What asks for it.
    pub hangups: Hangups,
}

/// All that can be put in force, from one reading of the files.
pub(crate) struct Found {
    pub(crate) policy: Policy,
    pub(crate) trust: Trust,
    pub(crate) prints: Prints,
}

/// Tells one reading from another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Prints {
    policy: [u8; 32],
    bindings: [u8; 32],
    certificate: [u8; 32],
    authorities: [u8; 32],
    allow_tls12: bool,
    identities: IdentityMapping,
    issuers: [u8; 32],
}

/// Why nothing was put in force.
struct Refused {
    /// The reason in the record.
    why: &'static str,
    error: anyhow::Error,
}

/// Reads and checks everything.
pub(crate) fn read(settings: &Settings) -> anyhow::Result<Found> {
    look(settings).map_err(|refused| refused.error)
}

fn look(settings: &Settings) -> Result<Found, Refused> {
    let files = settings
        .tls
        .as_ref()
        .context("there are no certificates: set tls.certificate_file, tls.key_file and tls.client_ca_file");
    let tls = files.and_then(|files| Ok(authn::server_tls(files)?));
    let tls = tls.map_err(|error| Refused { why: "CERTIFICATES_INVALID", error })?;
    let issuers =
        Issuers::read(&settings.issuers).map_err(|error| Refused { why: "ISSUERS_INVALID", error: error.into() })?;
    let (policy, bindings) = load_policy(settings)?;
    let prints = Prints {
        policy: policy.print(),
        bindings,
        certificate: tls.certificate,
        authorities: tls.authorities,
        allow_tls12: settings.tls.as_ref().is_some_and(|tls| tls.allow_tls12),
        identities: settings.identities.clone(),
        issuers: issuers.print(),
    };
    Ok(Found { policy, trust: Trust::new(tls, settings.identities.clone(), issuers), prints })
}

/// Reads bindings and own policies. Returns the hash of the bindings too.
fn load_policy(settings: &Settings) -> Result<(Policy, [u8; 32]), Refused> {
    let of_bindings = |error| Refused { why: "BINDINGS_INVALID", error };
    let of_policies = |error| Refused { why: "POLICIES_INVALID", error };
    let text = read_bindings(&settings.bindings_file).map_err(of_bindings)?;
    let read = |path: &PathBuf| Ok((path.display().to_string(), read_policies(path)?));
    let own: Vec<(String, String)> =
        settings.cedar_files.iter().map(read).collect::<anyhow::Result<_>>().map_err(of_policies)?;
    let own: Vec<File<'_>> = own.iter().map(|(label, text)| File { label, text }).collect();
    let label = settings.bindings_file.display().to_string();
    let bindings = File { label: &label, text: &text };
    let policy = Policy::read(&Files { bindings, own: &own, pairs: &settings.context_pairs });
    let policy = policy.map_err(|error| match error {
        PolicyError::Own(_) => of_policies(error.into()),
        PolicyError::Bindings(_) | PolicyError::Templates(_) => of_bindings(error.into()),
    })?;
    Ok((policy, sha256(text.as_bytes())))
}

/// Reads the file of bindings.
pub(crate) fn read_bindings(path: &Path) -> anyhow::Result<String> {
    read_guarded(path, "bindings", "policy.bindings_file", Policy::BINDINGS_BYTES_MAX)
}

/// Reads a file of own policies.
pub(crate) fn read_policies(path: &Path) -> anyhow::Result<String> {
    read_guarded(path, "policies", "policy.cedar_files", policy::own::OWN_FILE_BYTES_MAX as u64)
}

/// Reads a file that decides who may do what, if nobody else can write it: who can could give himself everything.
fn read_guarded(path: &Path, what: &str, setting: &str, bytes_max: u64) -> anyhow::Result<String> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let shown = path.display();
    let unreadable = || format!("the {what} {shown} cannot be read: without them nobody may do anything");
    // A pipe that nobody writes to must not be waited for.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = std::fs::File::options().read(true).custom_flags(nonblock).open(path);
    let file = opened.with_context(unreadable)?;
    let found = file.metadata().with_context(unreadable)?;
    anyhow::ensure!(found.is_file(), "the {what} {shown} are no file: set {setting} to one");
    let mode = found.permissions().mode() & 0o777;
    anyhow::ensure!(
        mode & 0o022 == 0,
        "the {what} {shown} can be written by others (mode {mode:04o}): take that away with `chmod go-w`",
    );
    let mut text = String::new();
    // One byte more than there may be is enough to be told so.
    std::io::Read::take(file, bytes_max + 1).read_to_string(&mut text).with_context(unreadable)?;
    Ok(text)
}

impl Prints {
    /// Says in a record what is in force.
    fn evidence(&self) -> String {
        let [bindings, certificate, authorities, issuers] =
            [self.bindings, self.certificate, self.authorities, self.issuers].map(hex::encode);
        let policy = policy_evidence(self.policy);
        format!(
            "bindings sha256:{bindings} certificate sha256:{certificate} authorities sha256:{authorities} \
             issuers sha256:{issuers} {policy}"
        )
    }

    /// Names what is different in another reading.
    fn changed(&self, other: &Self) -> Vec<&'static str> {
        [
            ("bindings", self.bindings != other.bindings),
            ("policies", self.bindings == other.bindings && self.policy != other.policy),
            ("certificate", self.certificate != other.certificate),
            ("authorities", self.authorities != other.authorities),
            ("tls.allow_tls12", self.allow_tls12 != other.allow_tls12),
            ("identity", self.identities != other.identities),
            ("issuer", self.issuers != other.issuers),
        ]
        .into_iter()
        .filter_map(|(what, is_changed)| is_changed.then_some(what))
        .collect()
    }
}

/// Says in a record which policy is in force: the hash of bindings, own policies, templates, schema and pairs.
pub(crate) fn policy_evidence(print: [u8; 32]) -> String {
    format!("policy sha256:{}", hex::encode(print))
}

/// What a reload put in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reloaded {
    /// What is other than it was.
    pub changed: Vec<&'static str>,
    /// Settings that are other than at the start, and need a restart.
    pub restart: Vec<&'static str>,
}

/// Where the answer goes to one who asked.
type Answer = oneshot::Sender<Result<Reloaded, String>>;

/// What somebody asks for.
pub(crate) enum Ask {
    /// That all is read again and put in force.
    Reload(Answer),
    /// That all is read again, and nothing put in force.
    Check(Answer),
}

/// Asks for a reload from inside.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<Ask>);

impl ReloadHandle {
    /// Makes one, and what a [`Reloader`] hears of it by.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(ASKS_WAITING_MAX);
        (Self(asks), asked)
    }

    /// Reloads. Returns when what was read is in force for every request that begins from then on; or with the reason why
    /// all stays as it was. Several who ask at the same time get one reload, which begins after the last of them asked.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        self.ask(Ask::Reload).await
    }

    /// Says what a reload would come to, and puts nothing in force.
    pub async fn check(&self) -> Result<Reloaded, String> {
        self.ask(Ask::Check).await
    }

    async fn ask(&self, ask: fn(Answer) -> Ask) -> Result<Reloaded, String> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(ask(answer)).map_err(|_| "too many reloads are under way: ask again".to_owned())?;
        answered.await.unwrap_or_else(|_| Err("the daemon is stopping".to_owned()))
    }
}

/// Reloads until `stop`: at each SIGHUP, when asked to, and when files are others than they were.
pub(crate) struct Reloader {
    pub(crate) flags: Flags,
    pub(crate) hangups: Hangups,
    pub(crate) asked: mpsc::Receiver<Ask>,
    /// As the daemon was started with.
    pub(crate) settings: Settings,
    pub(crate) policy: Arc<InForce>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) unrecorded: Arc<Unrecorded>,
    pub(crate) trust: Arc<TrustInForce>,
    pub(crate) prints: Prints,
    pub(crate) watched: Watched,
}

/// The files that a reload reads, and what they were when they were read last, whether that was taken or not.
pub(crate) struct Watched {
    every: Option<Duration>,
    paths: Vec<PathBuf>,
    read: Look,
}

impl Watched {
    /// Looks at the files of these settings, before they are read.
    pub(crate) fn begin(settings: &Settings) -> Self {
        Self::look(settings, &Look::default())
    }

    fn look(settings: &Settings, earlier: &Look) -> Self {
        let paths: Vec<PathBuf> = settings.reloaded_files().into_iter().map(Path::to_owned).collect();
        let read = Look::at(&paths, earlier);
        Self { every: settings.reload_every, paths, read }
    }
}

impl Reloader {
    /// Runs until `stop`, and returns itself for another session, with whatever came in between. One that
    /// came while another was under way is carried out after it; several are one.
    ///
    /// Without a log, on a node that is locked, the records wait for one.
    pub(crate) async fn run(mut self, log: Option<Arc<Log>>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let mut looked = Instant::now();
        // A change that was seen once.
        let mut changed: Option<Look> = None;
        loop {
            let wait = if changed.is_some() { Some(LOOK_AGAIN_AFTER) } else { self.watched.every };
            let look_again = async {
                match wait {
                    Some(wait) => tokio::time::sleep_until(looked + wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    while let Ok(answer) = self.asked.try_recv() {
                        let (Ask::Reload(answer) | Ask::Check(answer)) = answer;
                        let _ = answer.send(Err("this session of the daemon ends: ask again".to_owned()));
                    }
                    return self;
                }
                () = self.hangups.next() => drop(self.reload("SIGHUP", log.as_deref(), &tasks).await),
                Some(first) = self.asked.recv() => {
                    let (mut answers, mut looking) = (Vec::new(), Vec::new());
                    let mut next = Some(first);
                    while let Some(ask) = next {
                        match ask {
                            Ask::Reload(answer) => answers.push(answer),
                            Ask::Check(answer) => looking.push(answer),
                        }
                        next = self.asked.try_recv().ok();
                    }
                    if !looking.is_empty() {
                        let found = self.check(&tasks).await;
                        looking.into_iter().for_each(|answer| drop(answer.send(found.clone())));
                    }
                    if !answers.is_empty() {
                        let done = self.reload("a request", log.as_deref(), &tasks).await;
                        // Whoever does not wait any more finds it on record.
                        answers.into_iter().for_each(|answer| drop(answer.send(done.clone())));
                    }
                }
                () = look_again => {
                    looked = Instant::now();
                    let found = self.look(&tasks).await;
                    // Taken once it was the same at two looks in a row: files are copied one after the other.
                    let is_new = found.differs(&self.watched.read);
                    if !is_new {
                        self.watched.read = found.clone();
                    }
                    changed = match changed {
                        _ if !is_new => None,
                        Some(before) if !found.differs(&before) => {
                            drop(self.reload("a change of files", log.as_deref(), &tasks).await);
                            None
                        }
                        Some(_) | None => Some(found),
                    };
                }
            }
        }
    }

    async fn look(&self, tasks: &TaskTracker) -> Look {
        let (paths, earlier) = (self.watched.paths.clone(), self.watched.read.clone());
        let looking = tasks.spawn_blocking(move || Look::at(&paths, &earlier)).await;
        // One that panicked was told of where it happened, and saw nothing new.
        looking.unwrap_or_else(|_| self.watched.read.clone())
    }

    /// Says what a reload would come to.
    async fn check(&self, tasks: &TaskTracker) -> Result<Reloaded, String> {
        let flags = self.flags.clone();
        let reading = tasks.spawn_blocking(move || {
            let settings = Settings::load(&flags)?;
            let found = read(&settings)?;
            anyhow::Ok((settings, found.prints))
        });
        let read = reading.await.unwrap_or_else(|error| Err(error.into()));
        let (settings, prints) = read.map_err(|error| format!("{error:#}"))?;
        Ok(Reloaded { changed: self.prints.changed(&prints), restart: self.needs_restart(&settings) })
    }

    /// Names the settings that are other than the daemon was started with, and need a restart.
    fn needs_restart(&self, settings: &Settings) -> Vec<&'static str> {
        let (old, new) = (need_restart(&self.settings), need_restart(settings));
        old.iter().zip(&new).filter(|(old, new)| old != new).map(|(old, _)| old.0).collect()
    }

    async fn reload(&mut self, by: &str, log: Option<&Log>, tasks: &TaskTracker) -> Result<Reloaded, String> {
        tracing::info!(by, "reading settings, certificates, issuers, bindings and policies again");
        let (flags, earlier) = (self.flags.clone(), self.watched.read.clone());
        // Files may be large, and policies take their time: this thread accepts and makes changes.
        let reading = tasks.spawn_blocking(move || {
            let settings = match Settings::load(&flags) {
                Ok(settings) => settings,
                Err(error) => return (None, Err(Refused { why: "SETTINGS_INVALID", error: error.into() })),
            };
            // First, so that what changes while it is read is seen as a change.
            let watched = Watched::look(&settings, &earlier);
            (Some(watched), look(&settings).map(|found| (settings, found)))
        });
        let (watched, read) =
            reading.await.unwrap_or_else(|error| (None, Err(Refused { why: "INTERNAL", error: error.into() })));
        self.watched = match watched {
            Some(watched) => watched,
            // Of settings that cannot be read the old ones say what to look at.
            None => Watched { read: self.look(tasks).await, paths: self.watched.paths.clone(), ..self.watched },
        };
        let done = match read {
            Ok((settings, found)) => self.put_in_force(log, &settings, found).await,
            Err(refused) => {
                self.record(log, &self.prints, Some(refused.why)).await.err().map_or(Err(refused.error), Err)
            }
        };
        metrics::gauge!("kms_config_last_reload_successful").set(if done.is_ok() { 1.0 } else { 0.0 });
        done.map_err(|error| {
            let error = format!("{error:#}");
            tracing::error!(error, "nothing was reloaded: all stays as it was");
            error
        })
    }

    async fn put_in_force(&mut self, log: Option<&Log>, settings: &Settings, found: Found) -> anyhow::Result<Reloaded> {
        let Found { policy, trust, prints } = found;
        // A policy that nobody could find in the log is none.
        self.record(log, &prints, None).await?;
        let changed = self.prints.changed(&prints);
        self.policy.replace(policy);
        self.trust.replace(trust);
        self.prints = prints;
        loaded(self.clock.now());
        let restart = self.needs_restart(settings);
        tracing::info!(changed = changed.join(" "), "reloaded");
        if !restart.is_empty() {
            tracing::warn!(settings = restart.join(" "), "these settings are different now, and need a restart");
        }
        Ok(Reloaded { changed, restart })
    }

    /// Writes the record of a reload, and returns when it is durable.
    async fn record(&self, log: Option<&Log>, prints: &Prints, why: Option<&'static str>) -> anyhow::Result<()> {
        let leaf = Leaf {
            sub: Some("kms-server".into()),
            ev: Some(prints.evidence().into()),
            why: why.map(Into::into),
            ..Leaf::of("Reload")
        };
        let leaf = leaf.ended(if why.is_none() { Outcome::Ok } else { Outcome::Failed });
        let Some(log) = log else {
            let kept = if why.is_none() { self.unrecorded.add(leaf) } else { self.unrecorded.add_minor(leaf) };
            anyhow::ensure!(kept, "too many reloads wait for their record: unlock the node first");
            return Ok(());
        };
        let index = log.append(leaf);
        let written = async { log.durable(index?).await };
        written.await.context("the record of a reload could not be written")
    }
}

/// Notes when the settings in force were read.
#[allow(clippy::cast_precision_loss)] // Milliseconds since 1970 fit.
pub(crate) fn loaded(now: crate::noun::UnixMillis) {
    metrics::gauge!("kms_config_last_reload_successful").set(1.0);
    metrics::gauge!("kms_config_last_reload_success_timestamp_seconds").set(now as f64 / 1000.0);
}

/// Returns the settings that a reload does not change, by name and as they are shown. No secrets are
/// among them: settings only name the files of those.
fn need_restart(settings: &Settings) -> Vec<(&'static str, String)> {
    // Taken apart by name, so that a new setting finds its place here.
    let Settings {
        config_file: _,
        data_dir,
        node,
        cores,
        services,
        operator,
        probes,
        // These are what is reloaded.
        tls: _,
        identities: _,
        issuers: _,
        reload_every: _,
        bindings_file: _,
        cedar_files: _,
        context_pairs: _,
        backend,
        watch,
        origin: _, // For `init` alone.
        segment_bytes,
        keyring,
        connections,
        loads,
        bytes_in_flight_max,
        request_time_max,
        log_format,
        log_filter,
        // Armed once, at the start.
        #[cfg(debug_assertions)]
            kill_point: _,
    } = settings;
    vec![
        ("data_dir", format!("{data_dir:?}")),
        ("node", node.clone()),
        ("cores", format!("{cores}")),
        ("listen.services", format!("{services}")),
        ("listen.operator", format!("{operator}")),
        ("listen.probes", format!("{probes}")),
        ("backend", format!("{backend:?} {watch:?}")),
        ("audit.segment_bytes", format!("{segment_bytes}")),
        ("destruction.wait_min", format!("{}", keyring.wait_ms_min)),
        ("destruction.wait_default", format!("{}", keyring.wait_ms_default)),
        ("grants.duration_max", format!("{}", keyring.grant_ms_max)),
        ("memory.keys", format!("{}", keyring.keys_max)),
        ("memory.tenants", format!("{}", keyring.tenants_max)),
        ("rotation.rewraps_per_second", format!("{}", keyring.rewraps_per_second)),
        ("limits.connections", format!("{}", connections.total)),
        ("limits.connections_per_peer", format!("{}", connections.per_peer)),
        ("limits.requests_in_flight", format!("{}", loads.in_flight)),
        ("limits.rate_per_principal", format!("{:?}", loads.per_principal)),
        ("limits.rate_per_tenant", format!("{:?}", loads.per_tenant)),
        ("limits.bytes_in_flight", format!("{bytes_in_flight_max}")),
        ("limits.request_time", format!("{request_time_max:?}")),
        ("log.format", format!("{log_format:?}")),
        ("log.filter", log_filter.clone()),
    ]
}

/// How long a change must stay as it is to be taken.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
const ASKS_WAITING_MAX: usize = 16;
