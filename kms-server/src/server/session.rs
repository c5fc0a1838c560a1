//! A session: the daemon serves, from an open cluster to a stop or a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::watch::LockCause;
use crate::backend::{EpochWrap, MasterKeyBackend, Probed};
use crate::crypto::arena;
use crate::keyring::open::Opened;
use crate::keyring::{Keyring, Rewrapper};
use crate::kill_point;
use crate::lock::{self, Lock};
use crate::reload::Reloader;
use crate::rpc::budget::Budget;
use crate::rpc::cores::{CoreSettings, Cores, runtime};
use crate::rpc::limits::Limits;
use crate::rpc::noise::{Noise, TOLD_EVERY};
use crate::rpc::{Api, Endpoint, Facts, Listener, Reflection};
use crate::shutdown::StopSignals;

use super::cluster::{Cluster, OLDER_AT_ONCE, read_older_dek_destructions, verify_older};
use super::front::{Doors, Front, Sockets, Tokens};
use super::probe;

/// How a session ended.
pub(super) enum Ended {
    /// By a signal.
    Stopped,
    /// It is to be locked.
    Locked(Held),
}

/// What a locked daemon knows of its cluster: nothing that is secret.
pub(super) struct Held {
    pub(super) cause: LockCause,
    /// What to ask whether the key is given again; nothing after a start, when the store has it.
    pub(super) probe: Option<(Arc<dyn MasterKeyBackend>, EpochWrap)>,
}

/// Serves. `serving` is called once requests are accepted.
pub(super) fn run(
    front: &Front,
    sockets: &Sockets,
    signals: &mut StopSignals,
    cluster: Cluster,
    reloader: &mut Option<Reloader>,
    serving: impl FnOnce(),
) -> anyhow::Result<Ended> {
    let Cluster { opened, store, warnings } = cluster;
    let Opened {
        keyring, mutator, data_keys, older_dek_destruction, backend, epoch_wrap, clock_held, log_began, ..
    } = opened;
    let (settings, clock) = (&front.settings, &front.clock);
    let log = Arc::clone(keyring.log());
    let runtime = runtime(Some(&log))?;
    let warnings = front.warnings.iter().cloned().chain(warnings).collect();
    let facts = Facts { started: front.started, store_kind: front.store.name(), is_trial: front.is_trial, warnings };
    let lock = Arc::new(Lock::new(&settings.data_dir, Arc::clone(&front.unrecorded)));
    // The start itself was the first probe.
    let probed = Arc::new(Probed::new(clock.now()));
    let api = Arc::new(Api {
        keyring: Arc::clone(&keyring),
        policy: Arc::clone(&front.policy),
        clock: Arc::clone(clock),
        request_time_max: settings.request_time_max,
        budget: Budget::new(settings.bytes_in_flight_max),
        limits: Limits::new(settings.loads),
        noise: Noise::default(),
        backend: Arc::clone(&backend),
        backend_kind: front.prepared.kind(),
        probed: Arc::clone(&probed),
        lock: Arc::clone(&lock),
        reload: front.reload.clone(),
        facts,
    });
    let tokens = Tokens::default();
    let core_settings = CoreSettings {
        trust: Arc::clone(&front.trust),
        refusals: Arc::clone(&front.refusals),
        clock: Arc::clone(clock),
        log: Some(Arc::clone(&log)),
    };
    let cores = Cores::start(settings.cores, &Arc::new(core_settings), &tokens.ends)?;

    let ended = runtime.block_on(async {
        // What is in force since a lock is on record before anything is served by it.
        front.unrecorded.write(&log).await?;
        let changes = TaskTracker::new();
        changes.spawn(mutator.run(tokens.stop_changes.clone()));
        changes.spawn(data_keys.run(tokens.stop_changes.clone()));
        changes.spawn(Rewrapper::new(Arc::clone(&keyring)).run(tokens.stop_accepting.clone()));

        let reflection = reflection(front.is_trial);
        let endpoints = [
            Endpoint::new(Listener::Services, Arc::clone(&api), reflection).await,
            Endpoint::new(Listener::Operator, Arc::clone(&api), reflection).await,
        ];
        let is_serving = Arc::new(AtomicBool::new(false));
        let ready = {
            let (keyring, is_serving) = (Arc::clone(&keyring), Arc::clone(&is_serving));
            Arc::new(move || {
                keyring.check_whole().map_err(|error| error.to_string())?;
                if is_serving.load(Ordering::Acquire) { Ok(()) } else { Err("not serving".to_owned()) }
            })
        };
        let doors = Doors::open(front, sockets, endpoints, cores, &tokens, ready)?;
        doors.set_serving(true).await;
        is_serving.store(true, Ordering::Release);
        serving();
        let stop = || tokens.stop_accepting.clone();
        let reloading = reloader
            .take()
            .map(|reloader| changes.spawn(reloader.run(Some(Arc::clone(&log)), changes.clone(), stop())));

        let others = doors.tasks();
        others.spawn(Arc::clone(&keyring).run_due(clock_held, stop()));
        others.spawn(look_after_callers(Arc::clone(&api), stop()));
        let probing = probe::Probing {
            settings: settings.watch,
            backend: Arc::clone(&backend),
            backend_kind: front.prepared.kind(),
            epoch_wrap: epoch_wrap.clone(),
            keyring: Arc::clone(&keyring),
            clock: Arc::clone(clock),
            probed,
            lock: Arc::clone(&lock),
        };
        others.spawn(probing.run(stop()));
        let (older, dir, stop_verifying) = (Arc::clone(&log), settings.log_dir(), stop());
        others.spawn_blocking(move || verify_older(&older, &dir, log_began, &stop_verifying));
        if let Some(last) = older_dek_destruction {
            let (tell, told) = mpsc::channel(OLDER_AT_ONCE);
            let (log, dir) = (Arc::clone(&log), settings.log_dir());
            others.spawn(Arc::clone(&keyring).carry_out_older(told, stop()));
            others.spawn_blocking(move || read_older_dek_destructions(&log, &dir, last, &tell));
        }

        let cause = until_end(signals, &keyring, &lock, &doors).await;
        is_serving.store(false, Ordering::Release);
        match cause {
            None => tracing::info!("stopping: no new connections; requests under way are finished"),
            Some(cause) => tracing::warn!(cause = cause.as_str(), "locking: {}", cause.describe()),
        }
        let watchdog = cause.map(|_| Watchdog::start());
        let stopped = doors.close(signals, cause.map(|_| LOCK_TIME_MAX)).await;
        tokens.stop_changes.cancel();
        changes.close();
        changes.wait().await;
        if let Some(reloading) = reloading {
            *reloader = Some(reloading.await.context("what reloads ended before it was asked to")?);
        }
        // And says in its exit code that it failed.
        keyring.check_whole().context("this node stopped serving before it was asked to")?;
        Ok::<_, anyhow::Error>((cause.filter(|_| !stopped), watchdog))
    });
    if let Err(error) = api.noise.tell(&log) {
        tracing::error!(%error, "refusals that were counted could not be recorded");
    }
    log.close();
    kill_point::pass(kill_point::Point::LogClosed);
    // The store is closed after the last change, and the log holds its outcome.
    let closed = match &ended {
        Ok((Some(_), _)) => runtime.block_on(front.store.release(&*store)),
        Ok((None, _)) | Err(_) => runtime.block_on(store.close()),
    };
    closed?;
    let (Some(cause), watchdog) = ended? else {
        drop(runtime);
        return Ok(Ended::Stopped);
    };
    drop(runtime);
    drop((api, keyring, log, store));
    let left = arena::status().used;
    anyhow::ensure!(left == 0, "{left} keys are still in memory after the lock: the process ends instead");
    drop(watchdog);
    // An operator may have locked what was locking itself.
    let cause = if lock::is_marked(&settings.data_dir)? { LockCause::Operator } else { cause };
    Ok(Ended::Locked(Held { cause, probe: Some((backend, epoch_wrap)) }))
}

/// Tells of refusals that were only counted, and forgets callers who did not come of late.
async fn look_after_callers(api: Arc<Api>, stop: CancellationToken) {
    while tokio::time::timeout(TOLD_EVERY, stop.cancelled()).await.is_err() {
        api.limits.forget_idle();
        if let Err(error) = api.noise.tell(api.keyring.log()) {
            tracing::error!(%error, "refusals that were counted could not be recorded");
        }
    }
}

/// Returns at the first signal, or when the node is to be locked, with the cause. A node that failed is not healthy any
/// more.
async fn until_end(signals: &mut StopSignals, keyring: &Keyring, lock: &Lock, doors: &Doors) -> Option<LockCause> {
    loop {
        tokio::select! {
            () = signals.next() => return None,
            cause = lock.asked() => return Some(cause),
            () = tokio::time::sleep(LOOK_EVERY), if keyring.check_whole().is_ok() => {
                if keyring.check_whole().is_err() {
                    doors.set_serving(false).await;
                }
            }
        }
    }
}

/// Ends the process unless it is dropped in time. Whoever orders a lock does not wait for a disk that hangs: the keys must
/// go, and a crash loses nothing that was acknowledged.
struct Watchdog {
    _alive: std::sync::mpsc::Sender<()>,
}

impl Watchdog {
    fn start() -> Self {
        let (alive, gone) = std::sync::mpsc::channel::<()>();
        let watch = move || {
            if gone.recv_timeout(WATCHDOG_TIME) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                tracing::error!("the lock does not come to its end: the process is ended, since its keys must go");
                std::process::abort();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("kms-lock-watch".into()).spawn(watch) {
            tracing::warn!(%error, "nobody watches over the lock");
        }
        Self { _alive: alive }
    }
}

/// Only where things are tried can tools ask for the services.
fn reflection(is_trial: bool) -> Reflection {
    #[cfg(feature = "dev")]
    if is_trial {
        return Reflection::On;
    }
    let _ = is_trial;
    Reflection::Off
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long requests under way may go on when the node locks itself.
const LOCK_TIME_MAX: Duration = Duration::from_secs(2);
/// How long all of a lock may take.
const WATCHDOG_TIME: Duration = Duration::from_secs(15);
