//! Joins the concrete parts into a daemon, and takes them apart again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Log, StoredLeaf};
use crate::authn::inspect::inspect;
use crate::backend::Prepared;
use crate::config::Settings;
use crate::crypto::arena::{self, Protection};
use crate::data_dir::DataDir;
use crate::keyring::due::HELD_MESSAGE;
use crate::keyring::open::{Opened, Opening};
use crate::keyring::{Keyring, KeyringSettings, Rewrapper, Settled};
use crate::kill_point;
use crate::noun::clock::SystemClock;
use crate::noun::random::OsRandom;
use crate::noun::{Clock, Random};
use crate::probes::Probes;
use crate::protections::Protections;
use crate::reload::{self, Reloader, Reloading};
use crate::rpc::accept::{ConnectionLimits, Places, accept};
use crate::rpc::budget::Budget;
use crate::rpc::cores::{CoreSettings, Cores};
use crate::rpc::refusals::Refusals;
use crate::rpc::trust::TrustInForce;
use crate::rpc::{Api, Endpoint, Ends, Facts, Health, Listener, Reflection};
use crate::shutdown::StopSignals;
use crate::store::memory::MemoryStore;
#[cfg(feature = "rocksdb")]
use crate::store::rocks::{Limits, RocksStore, Salvaged};
use crate::store::{Store, StoreError};
use crate::telemetry;

/// Which store.
#[derive(Clone)]
pub enum StoreKind {
    /// Durable, on this machine.
    #[cfg(feature = "rocksdb")]
    Local,
    /// Gone when the daemon is.
    Memory(Arc<MemoryStore>),
}

impl StoreKind {
    fn name(&self) -> &'static str {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => "local",
            StoreKind::Memory(_) => "memory",
        }
    }

    pub(crate) fn create(&self, dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => {
                let made =
                    RocksStore::create(dir, &Limits::default()).map_err(|error| StoreError::Failed(error.into()))?;
                Ok(Arc::new(made))
            }
            StoreKind::Memory(store) => {
                let made = std::fs::create_dir_all(dir);
                let noted = made.and_then(|()| std::fs::write(dir.join("README"), "The rows are in memory only.\n"));
                noted.map_err(|error| StoreError::Failed(error.into()))?;
                Ok(Arc::clone(store) as Arc<dyn Store>)
            }
        }
    }

    /// Lets go of a store that was just made, so that it can be opened: one in memory just goes on.
    pub(crate) async fn release(&self, made: &dyn Store) -> Result<(), StoreError> {
        if matches!(self, StoreKind::Memory(_)) { Ok(()) } else { made.close().await }
    }

    /// Opens it; returns how many bytes of its log were set aside because they were damaged.
    fn open(&self, dir: &Path) -> anyhow::Result<(Arc<dyn Store>, Option<u64>)> {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => {
                let (store, salvaged) = RocksStore::open_or_salvage(dir, &Limits::default())?;
                if let Some(Salvaged { aside, log_bytes }) = &salvaged {
                    tracing::warn!(aside = %aside.display(), log_bytes, "the store's log was damaged: it was read as far as it can be, and lies aside as it was; it holds wrapped keys, remove it when all is well");
                }
                Ok((Arc::new(store), salvaged.map(|salvaged| salvaged.log_bytes)))
            }
            StoreKind::Memory(store) => {
                anyhow::ensure!(dir.is_dir(), "{} is not there", dir.display());
                Ok((Arc::clone(store) as Arc<dyn Store>, None))
            }
        }
    }
}

/// What the daemon is started for.
pub enum Mode {
    /// For good: what can change is reloaded when that is asked for.
    Service(Box<Reloading>),
    /// To try things on: tools can ask for its services.
    #[cfg(feature = "dev")]
    Trial,
}

/// Where the daemon listens, once it serves.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For applications and administrators.
    pub services: std::net::SocketAddr,
    /// For operators.
    pub operator: std::net::SocketAddr,
    /// For probes.
    pub probes: std::net::SocketAddr,
}

/// Serves until a signal, then drains and flushes. `Ok` means that nothing was lost. `serving` is
/// called once requests are accepted.
pub fn serve(
    settings: &Settings,
    store: &StoreKind,
    prepared: &Prepared,
    mode: Mode,
    protections: &Protections,
    serving: impl FnOnce(Addresses),
) -> anyhow::Result<()> {
    // A core's runtime writes the log when it idles; until there is a log, this one opens it.
    let opening = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = telemetry::start_metrics()?;
    let as_given = settings;
    let (reloading, reflection) = match mode {
        Mode::Service(reloading) => (Some(reloading), Reflection::Off),
        #[cfg(feature = "dev")]
        Mode::Trial => (None, Reflection::On),
    };
    let (keyring_settings, mut warnings) = prepare_memory(settings.keyring);
    tracing::info!("{}", protections.describe(arena::status().protection.describe()));
    for warning in protections.warnings() {
        tracing::warn!("{warning}");
        warnings.push(warning);
    }
    let settings = &Settings {
        keyring: keyring_settings,
        connections: prepare_files(settings.connections, &mut warnings),
        ..settings.clone()
    };
    // One that has no real path is not there: to take it says so, and what to do.
    let settings = &settings.with_real_data_dir().unwrap_or_else(|_| settings.clone());
    let _data_dir = DataDir::take_to_serve(&settings.data_dir)?;
    let reload::Found { policy, trust, prints } = reload::read(settings)?;
    let inspected = settings.tls.as_ref().map(|files| inspect(files, SystemClock.now())).unwrap_or_default();
    for told in inspected.mistakes.iter().chain(&inspected.notes).map(ToString::to_string) {
        tracing::warn!("{told}");
        warnings.push(told);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (opened_store, salvaged_bytes) = store.open(&settings.store_dir()).context("the store cannot be opened")?;
    let opened = opening.block_on(open(settings, prepared, &opened_store, salvaged_bytes, &clock))?;
    let Opened {
        keyring,
        mutator,
        data_keys,
        older_dek_destruction,
        backend,
        clock_held,
        log_began,
        settled,
        epoch_wrap: _,
    } = opened;
    if clock_held {
        tracing::warn!("{HELD_MESSAGE}");
        warnings.push(HELD_MESSAGE.to_owned());
    }
    if settled != Default::default() {
        let Settled { recovered, aborted, torn_bytes, recorded, carried_out } = settled;
        tracing::warn!(
            recovered,
            aborted,
            torn_bytes,
            recorded,
            carried_out,
            "the last run ended in the middle of something, or something was put back: it was settled"
        );
    }
    drop(opening);

    let log = Arc::clone(keyring.log());
    let runtime = crate::rpc::cores::runtime(&log)?;
    let facts = Facts { started: clock.now(), store_kind: store.name(), warnings };
    let api = Arc::new(Api {
        keyring: Arc::clone(&keyring),
        policy: ArcSwap::from_pointee(policy),
        clock: Arc::clone(&clock),
        request_time_max: settings.request_time_max,
        budget: Budget::new(settings.bytes_in_flight_max),
        backend,
        facts,
    });
    let tokens = Tokens::default();
    let trust = Arc::new(TrustInForce::new(trust));
    let refusals = Arc::new(Refusals::default());
    let core_settings = CoreSettings {
        trust: Arc::clone(&trust),
        refusals: Arc::clone(&refusals),
        clock: Arc::clone(&clock),
        log: Arc::clone(&log),
    };
    let cores = Cores::start(settings.cores, &Arc::new(core_settings), &tokens.ends)?;
    reload::loaded(clock.now());

    let ended = runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        let (changes, others) = (TaskTracker::new(), TaskTracker::new());
        changes.spawn(mutator.run(tokens.stop_changes.clone()));
        changes.spawn(data_keys.run(tokens.stop_changes.clone()));
        changes.spawn(Rewrapper::new(Arc::clone(&keyring)).run(tokens.stop_accepting.clone()));
        others.spawn(Arc::clone(&keyring).run_due(clock_held, tokens.stop_accepting.clone()));

        let endpoints = [
            Endpoint::new(Listener::Services, Arc::clone(&api), reflection).await,
            Endpoint::new(Listener::Operator, Arc::clone(&api), reflection).await,
        ];
        let upkeep = Upkeep { metrics, refusals, clock };
        let (mut healths, addresses, is_serving) =
            listen(settings, endpoints, &keyring, &cores, &others, &tokens, upkeep).await?;
        for health in &healths {
            health.set_serving(true).await;
        }
        is_serving.store(true, Ordering::Release);
        let Addresses { services, operator, probes } = addresses;
        tracing::info!(%services, %operator, %probes, "serving");
        serving(addresses);
        if let Some(reloading) = reloading {
            let Reloading { flags, hangups } = *reloading;
            let reloader = Reloader { flags, settings: as_given.clone(), api: Arc::clone(&api), trust, prints };
            changes.spawn(reloader.run(hangups, changes.clone(), tokens.stop_accepting.clone()));
        }

        let (older, dir, stop) = (Arc::clone(&log), settings.log_dir(), tokens.stop_accepting.clone());
        others.spawn_blocking(move || verify_older(&older, &dir, log_began, &stop));
        if let Some(last) = older_dek_destruction {
            let (tell, told) = mpsc::channel(OLDER_AT_ONCE);
            let (log, dir) = (Arc::clone(&log), settings.log_dir());
            others.spawn(Arc::clone(&keyring).carry_out_older(told, tokens.stop_accepting.clone()));
            others.spawn_blocking(move || read_older_dek_destructions(&log, &dir, last, &tell));
        }
        let failed = watch(&mut signals, &keyring, &healths).await;
        is_serving.store(false, Ordering::Release);
        for health in &mut healths {
            health.set_serving(false).await;
            health.end_watches().await;
        }
        tracing::info!("stopping: no new connections; requests under way are finished");
        tokens.stop_accepting.cancel();
        tokens.ends.drain.cancel();
        let joining = Arc::clone(&cores);
        let joined = others.spawn_blocking(move || joining.join());
        tokio::select! {
            _ = joined => {}
            () = signals.next() => {
                tracing::warn!("a second signal: what is still under way is cut off");
                tokens.ends.cut.cancel();
            }
        }
        tokens.stop_changes.cancel();
        changes.close();
        changes.wait().await;
        failed
    });
    log.close();
    kill_point::pass(kill_point::Point::LogClosed);
    // The store is closed after the last change, and the log holds its outcome.
    runtime.block_on(opened_store.close())?;
    drop(runtime);
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// What ends what.
#[derive(Default)]
struct Tokens {
    stop_accepting: CancellationToken,
    ends: Ends,
    stop_changes: CancellationToken,
}

/// Returns how many secrets lie in locked memory when all is full.
pub(crate) fn slots_wanted(settings: &KeyringSettings) -> usize {
    settings.keys_max + SECRETS_OF_TENANT * settings.tenants_max + SLOTS_APART
}

/// Makes the locked memory, and fits what is kept in it to what the system gave. Returns that, and
/// what an operator should look at.
fn prepare_memory(wanted: KeyringSettings) -> (KeyringSettings, Vec<String>) {
    let slots_wanted = slots_wanted(&wanted);
    let memory = arena::init(slots_wanted);
    tracing::info!(protection = memory.protection.describe(), slots = memory.slots, "memory for keys");
    let mut warnings = Vec::new();
    let mut settings = wanted;
    if memory.slots < slots_wanted {
        let fits =
            |count: usize| (count * memory.slots.saturating_sub(SLOTS_APART) / (slots_wanted - SLOTS_APART)).max(8);
        settings = KeyringSettings { keys_max: fits(wanted.keys_max), tenants_max: fits(wanted.tenants_max), ..wanted };
        warnings.push(format!(
            "locked memory has room for {} of {slots_wanted} secrets: {} keys and {} tenants stay in memory; raise RLIMIT_MEMLOCK",
            memory.slots, settings.keys_max, settings.tenants_max
        ));
    }
    if memory.protection == Protection::Unlocked {
        warnings.push("keys lie in memory that is not locked: raise RLIMIT_MEMLOCK".to_owned());
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    (settings, warnings)
}

/// Raises the limit of open files to what is allowed, and keeps connections below it: the log and
/// the store need files of their own, whatever happens on the network.
fn prepare_files(wanted: ConnectionLimits, warnings: &mut Vec<String>) -> ConnectionLimits {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let files =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let total = wanted.total.min(files.saturating_sub(FILES_APART).max(16));
    if total < wanted.total {
        let warning = format!(
            "the limit of open files ({files}) allows {total} connections, not {}: raise RLIMIT_NOFILE",
            wanted.total
        );
        tracing::warn!("{warning}");
        warnings.push(warning);
    }
    ConnectionLimits { total, per_peer: wanted.per_peer.min(total) }
}

/// Tenant key, record MAC, index root, audit contexts.
const SECRETS_OF_TENANT: usize = 4;
/// Epoch, cluster, and what is opened for the length of a call.
const SLOTS_APART: usize = 64;
/// Files of the store, the log, operators and probes.
const FILES_APART: usize = 512;

async fn open(
    settings: &Settings,
    prepared: &Prepared,
    store: &Arc<dyn Store>,
    salvaged_bytes: Option<u64>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Opened> {
    let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
    let for_backend = Arc::clone(&rng);
    let opening = Opening {
        store: Arc::clone(store),
        salvaged_bytes,
        backend: &|cluster| prepared.open(cluster, Arc::clone(&for_backend)),
        backend_kind: prepared.kind(),
        log_dir: &settings.log_dir(),
        ledger_dir: &settings.ledger_dir(),
        node: settings.node.clone(),
        segment_bytes: settings.segment_bytes,
        flush_on_cores: true,
        settings: settings.keyring,
        clock: Arc::clone(clock),
        rng,
    };
    Ok(opening.run().await?)
}

async fn listen(
    settings: &Settings,
    [services_endpoint, operator_endpoint]: [(Endpoint, Health); 2],
    keyring: &Arc<Keyring>,
    cores: &Arc<Cores>,
    tasks: &TaskTracker,
    tokens: &Tokens,
    upkeep: Upkeep,
) -> anyhow::Result<([Health; 2], Addresses, Arc<AtomicBool>)> {
    // Operators have places of their own, whatever happens on the other listener.
    let places = Places::new(settings.connections);
    let operator_places = Places::new(OPERATOR_CONNECTIONS);
    let services = bind(settings.services, "listen.services").await?;
    let operator = bind(settings.operator, "listen.operator").await?;
    let probes = bind(settings.probes, "listen.probes").await?;
    let addresses =
        Addresses { services: services.local_addr()?, operator: operator.local_addr()?, probes: probes.local_addr()? };
    let ((services_endpoint, services_health), (operator_endpoint, operator_health)) =
        (services_endpoint, operator_endpoint);
    let listeners = [(services, services_endpoint, places), (operator, operator_endpoint, operator_places)];
    for (listener, endpoint, places) in listeners {
        tasks.spawn(accept(listener, endpoint, places, Arc::clone(cores), tokens.stop_accepting.clone()));
    }
    let serving = Arc::new(AtomicBool::new(false));
    let prober =
        Probes { serving: Arc::clone(&serving), keyring: Arc::clone(keyring), metrics: upkeep.metrics.clone() };
    tasks.spawn(prober.serve(probes, tokens.stop_changes.clone()));
    let stop = tokens.stop_changes.clone();
    tasks.spawn(async move {
        while tokio::time::timeout(UPKEEP_EVERY, stop.cancelled()).await.is_err() {
            // Histograms are folded as time goes by, whether anybody scrapes or not.
            upkeep.metrics.run_upkeep();
            upkeep.refusals.tell_untold(upkeep.clock.since_boot());
        }
    });
    Ok(([services_health, operator_health], addresses, serving))
}

/// Reads what the start did not need of the log, and says when it is not of one piece: it is served all the same,
/// since no key hangs on it, but somebody must know.
fn verify_older(log: &Log, dir: &Path, began: u64, stop: &CancellationToken) {
    match log.verify_before(dir, began, || stop.is_cancelled()) {
        Ok(Some(segments)) => tracing::info!(segments, "the older part of the audit log is whole"),
        Ok(None) => {}
        Err(error) => {
            metrics::counter!("kms_audit_damage_total").increment(1);
            tracing::error!(%error, "the older part of the audit log is damaged: what was acknowledged since is whole");
        }
    }
}

/// Hands out what the log tells of managed data keys that were destroyed, the newest first, until nobody wants it.
fn read_older_dek_destructions(log: &Log, dir: &Path, last: u64, tell: &mpsc::Sender<StoredLeaf>) {
    match log.dek_destructions(dir, last, |stored| tell.blocking_send(stored).is_ok()) {
        Ok(count) => tracing::info!(count, "older destructions of data keys were held against the store"),
        Err(error) => tracing::error!(%error, "older destructions of data keys cannot be held against the store"),
    }
}

/// What is looked after every few seconds.
struct Upkeep {
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    refusals: Arc<Refusals>,
    clock: Arc<dyn Clock>,
}

async fn bind(address: std::net::SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}: set {setting} to a free address of this machine"))
}

/// Returns at the first signal. A node that failed is not healthy any more.
async fn watch(signals: &mut StopSignals, keyring: &Keyring, healths: &[Health; 2]) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = signals.next() => break,
            () = tokio::time::sleep(LOOK_EVERY), if keyring.check_whole().is_ok() => {
                if keyring.check_whole().is_err() {
                    for health in healths {
                        health.set_serving(false).await;
                    }
                }
            }
        }
    }
    // And says so in its exit code.
    keyring.check_whole().context("this node stopped serving before it was asked to")
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
const OPERATOR_CONNECTIONS: ConnectionLimits = ConnectionLimits { total: 64, per_peer: 16 };
/// How many destructions of data keys are read ahead.
const OLDER_AT_ONCE: usize = 16;
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
