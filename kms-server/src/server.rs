//! Joins the concrete parts into a daemon, and takes them apart again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn;
use crate::backend;
use crate::config::Settings;
use crate::crypto::arena::{self, Protection};
use crate::data_dir::DataDir;
use crate::keyring::open::{Opened, Opening, cluster_uid};
use crate::noun::clock::SystemClock;
use crate::noun::random::OsRandom;
use crate::noun::{Clock, Random};
use crate::policy::Policy;
use crate::probes::Probes;
use crate::rpc::accept::{Places, accept};
use crate::rpc::cores::{CoreSettings, Cores};
use crate::rpc::{Api, Endpoint, Facts, Health, Listener};
use crate::shutdown::StopSignals;
use crate::store::memory::MemoryStore;
#[cfg(feature = "rocksdb")]
use crate::store::rocks::{Limits, RocksStore};
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
                std::fs::create_dir_all(dir).map_err(|error| StoreError::Failed(error.into()))?;
                Ok(Arc::clone(store) as Arc<dyn Store>)
            }
        }
    }

    fn open(&self, dir: &Path) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => Ok(Arc::new(RocksStore::open(dir, &Limits::default())?)),
            StoreKind::Memory(store) => Ok(Arc::clone(store) as Arc<dyn Store>),
        }
    }
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
pub fn serve(settings: &Settings, store: &StoreKind, serving: impl FnOnce(Addresses)) -> anyhow::Result<()> {
    // What needs no core yet runs here; the keyring's own work joins it later.
    let opening = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = telemetry::start_metrics()?;
    let warnings = prepare_memory(settings);
    let _data_dir = DataDir::take_to_serve(&settings.data_dir)?;
    let files = settings
        .tls
        .as_ref()
        .context("there are no certificates: set tls.certificate_file, tls.key_file and tls.client_ca_file")?;
    let tls = authn::server_config(files)?;
    let policy = load_policy(&settings.bindings_file)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opened_store = store.open(&settings.store_dir()).context("the store cannot be opened")?;
    let opened = opening.block_on(open(settings, &opened_store, &clock))?;
    let Opened { keyring, mutator, backend, last_record, settled } = opened;
    if settled != Default::default() {
        let (recovered, aborted, torn_bytes) = (settled.recovered, settled.aborted, settled.torn_bytes);
        tracing::warn!(recovered, aborted, torn_bytes, "the last run ended in the middle of something: it was settled");
    }
    drop(opening);

    let log = Arc::clone(keyring.log());
    let runtime = crate::rpc::cores::runtime(&log)?;
    let facts = Facts { started: clock.now(), store_kind: store.name(), warnings };
    let api = Arc::new(Api {
        keyring: Arc::clone(&keyring),
        policy: ArcSwap::from_pointee(policy),
        clock,
        request_time_max: settings.request_time_max,
        backend,
        facts,
    });
    let tokens = Tokens::default();
    let core_settings =
        CoreSettings { tls: ArcSwap::new(tls), identities: settings.identities.clone(), log: Arc::clone(&log) };
    let cores = Cores::start(settings.cores, &Arc::new(core_settings), &tokens.drain)?;

    let ended = runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        let (changes, others) = (TaskTracker::new(), TaskTracker::new());
        changes.spawn(mutator.run(tokens.stop_changes.clone()));
        others.spawn(Arc::clone(&keyring).run_due(last_record, tokens.stop_accepting.clone()));

        let (services_health, operator_health, addresses, is_serving) =
            listen(settings, &api, &cores, &others, &tokens, metrics).await?;
        for health in [&services_health, &operator_health] {
            health.set_serving(true).await;
        }
        is_serving.store(true, Ordering::Release);
        let Addresses { services, operator, probes } = addresses;
        tracing::info!(%services, %operator, %probes, "serving");
        serving(addresses);

        let failed = watch(&mut signals, &keyring).await;
        is_serving.store(false, Ordering::Release);
        for health in [&services_health, &operator_health] {
            health.set_serving(false).await;
        }
        tracing::info!("stopping: no new connections; requests under way are finished");
        tokens.stop_accepting.cancel();
        tokens.drain.cancel();
        let joining = Arc::clone(&cores);
        let joined = others.spawn_blocking(move || joining.join());
        tokio::select! {
            _ = joined => {}
            () = signals.next() => tracing::warn!("a second signal: what is still under way is cut off"),
        }
        tokens.stop_changes.cancel();
        changes.close();
        changes.wait().await;
        failed
    });
    log.close();
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
    drain: CancellationToken,
    stop_changes: CancellationToken,
}

fn prepare_memory(settings: &Settings) -> Vec<String> {
    // Beside keys, each tenant has three secrets and the cluster a few.
    let memory = arena::init(
        settings.keyring.keys_max.saturating_add(4 * settings.keyring.tenants_max.min(settings.keyring.keys_max)),
    );
    tracing::info!(protection = memory.protection.describe(), keys = memory.slots, "memory for keys");
    if memory.protection == Protection::Unlocked {
        let warning = "keys lie in memory that is not locked: raise RLIMIT_MEMLOCK".to_owned();
        tracing::warn!("{warning}");
        return vec![warning];
    }
    Vec::new()
}

fn load_policy(path: &Path) -> anyhow::Result<Policy> {
    let label = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the bindings {label} cannot be read: without them nobody may do anything"))?;
    Ok(Policy::load(&text, &label)?)
}

async fn open(settings: &Settings, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>) -> anyhow::Result<Opened> {
    let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
    let for_backend = Arc::clone(&rng);
    cluster_uid(&**store).await?;
    let opening = Opening {
        store: Arc::clone(store),
        backend: &|cluster| backend::open(&settings.backend, cluster, Arc::clone(&for_backend)),
        backend_kind: settings.backend.kind(),
        log_dir: &settings.log_dir(),
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
    api: &Arc<Api>,
    cores: &Arc<Cores>,
    tasks: &TaskTracker,
    tokens: &Tokens,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<(Health, Health, Addresses, Arc<AtomicBool>)> {
    let places = Places::new(settings.connections);
    let services = bind(settings.services, "listen.services").await?;
    let operator = bind(settings.operator, "listen.operator").await?;
    let probes = bind(settings.probes, "listen.probes").await?;
    let addresses =
        Addresses { services: services.local_addr()?, operator: operator.local_addr()?, probes: probes.local_addr()? };
    let (services_endpoint, services_health) = Endpoint::new(Listener::Services, Arc::clone(api)).await;
    let (operator_endpoint, operator_health) = Endpoint::new(Listener::Operator, Arc::clone(api)).await;
    for (listener, endpoint) in [(services, services_endpoint), (operator, operator_endpoint)] {
        tasks.spawn(accept(listener, endpoint, Arc::clone(&places), Arc::clone(cores), tokens.stop_accepting.clone()));
    }
    let serving = Arc::new(AtomicBool::new(false));
    let prober = Probes { serving: Arc::clone(&serving), keyring: Arc::clone(&api.keyring), metrics: metrics.clone() };
    tasks.spawn(prober.serve(probes, tokens.stop_changes.clone()));
    let stop = tokens.stop_changes.clone();
    tasks.spawn(async move {
        // Histograms are folded as time goes by, whether anybody scrapes or not.
        while tokio::time::timeout(UPKEEP_EVERY, stop.cancelled()).await.is_err() {
            metrics.run_upkeep();
        }
    });
    Ok((services_health, operator_health, addresses, serving))
}

async fn bind(address: std::net::SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}: set {setting} to a free address of this machine"))
}

/// Returns at the first signal.
async fn watch(signals: &mut StopSignals, keyring: &crate::keyring::Keyring) -> anyhow::Result<()> {
    signals.next().await;
    // A node that failed says so in its exit code.
    keyring.check_whole().context("this node stopped serving before it was asked to")
}

const UPKEEP_EVERY: Duration = Duration::from_secs(5);
