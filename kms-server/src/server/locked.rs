//! A locked session: no key, no log, no store. Everybody is told so, until the backend gives the key again or an operator
//! unlocks. See doc/decisions/0012.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::audit::leaf::VALIDATED;
use crate::audit::{Leaf, Outcome};
use crate::backend::BackendError;
use crate::backend::watch::LockCause;
use crate::keyring::Who;
use crate::keyring::open::OpenClusterError;
use crate::lock;
use crate::noun::Uid;
use crate::noun::random::OsRandom;
use crate::policy::Action;
use crate::reload::Reloader;
use crate::rpc::budget::Budget;
use crate::rpc::cores::{CoreSettings, Cores, runtime};
use crate::rpc::locked::{Answered, Locked, Order, OrderFailed};
use crate::rpc::{Endpoint, Listener};
use crate::shutdown::StopSignals;

use super::cluster::Cluster;
use super::front::{Doors, Front, Sockets, Tokens};
use super::probe::try_key;
use super::session::Held;

/// Stays locked. Returns the cluster once it is open again, or nothing at a signal.
pub(super) fn run(
    front: &Front,
    sockets: &Sockets,
    signals: &mut StopSignals,
    held: &Held,
    reloader: &mut Option<Reloader>,
    serving: impl FnOnce(),
) -> anyhow::Result<Option<Cluster>> {
    let runtime = runtime(None)?;
    let tokens = Tokens::default();
    let core_settings = CoreSettings {
        trust: Arc::clone(&front.trust),
        refusals: Arc::clone(&front.refusals),
        clock: Arc::clone(&front.clock),
        log: None,
    };
    let cores = Cores::start(1, &Arc::new(core_settings), &tokens.ends)?;
    metrics::gauge!("kms_locked").set(1.0);
    let ended = runtime.block_on(async {
        let (orders, mut ordered) = mpsc::channel(ORDERS_WAITING_MAX);
        let cause = Arc::new(ArcSwap::from_pointee(held.cause));
        let locked = Arc::new(Locked {
            cause: Arc::clone(&cause),
            policy: Arc::clone(&front.policy),
            clock: Arc::clone(&front.clock),
            rng: Arc::new(OsRandom::new()),
            orders,
            budget: Budget::new(front.settings.bytes_in_flight_max),
            answered: Answered::default(),
            lock_orders: AtomicU64::new(0),
        });
        let endpoints = [
            Endpoint::locked(Listener::Services, Arc::clone(&locked)).await,
            Endpoint::locked(Listener::Operator, Arc::clone(&locked)).await,
        ];
        let ready = Arc::new(|| Err("locked".to_owned()));
        let doors = Doors::open(front, sockets, endpoints, cores, &tokens, ready)?;
        serving();
        let reloads = doors.tasks().clone();
        let reloading = reloader
            .take()
            .map(|reloader| reloads.spawn(reloader.run(None, reloads.clone(), tokens.stop_accepting.clone())));

        let unlocking =
            Unlocking { front, held, cause: &cause, answered: &locked.answered, lock_orders: &locked.lock_orders };
        let opened = {
            // Kept from order to order: whoever gives many does not keep the backend from being asked.
            let mut answers = std::pin::pin!(unlocking.backend_answers());
            loop {
                let step = tokio::select! {
                    () = signals.next() => break Ok(None),
                    Some(order) = ordered.recv() => unlocking.carry_out(order).await,
                    () = answers.as_mut() => {
                        answers.set(unlocking.backend_answers());
                        unlocking.by_itself().await
                    }
                };
                match step {
                    Ok(None) => {}
                    other => break other,
                }
            }
        };
        // Those that wait are told to ask again.
        drop(ordered);
        if doors.close(signals, Some(CLOSE_TIME_MAX)).await {
            signals.put_back();
        }
        tokens.stop_changes.cancel();
        if let Some(reloading) = reloading {
            *reloader = Some(reloading.await.context("what reloads ended before it was asked to")?);
        }
        opened
    });
    drop(runtime);
    if matches!(ended, Ok(Some(_))) {
        metrics::gauge!("kms_locked").set(0.0);
    }
    ended
}

struct Unlocking<'a> {
    front: &'a Front,
    held: &'a Held,
    /// Why the node is locked now: an operator may lock what has locked itself.
    cause: &'a ArcSwap<LockCause>,
    answered: &'a Answered,
    /// How often an operator has ordered a lock, counted when he does.
    lock_orders: &'a AtomicU64,
}

impl Unlocking<'_> {
    /// Returns once the backend gives the key again, where that is enough.
    async fn backend_answers(&self) {
        loop {
            tokio::time::sleep(self.front.settings.watch.probe_every).await;
            if **self.cause.load() == LockCause::Operator {
                continue;
            }
            match self.ask_backend().await {
                Ok(()) => return,
                Err(error) => tracing::warn!(why = error.chain(), "still locked"),
            }
        }
    }

    /// Asks for the key, where its wrap is known; else whether the backend is there: the wrap stands in the store, which
    /// is closed.
    async fn ask_backend(&self) -> Result<(), BackendError> {
        if let Some((backend, epoch_wrap)) = &self.held.probe {
            return try_key(&**backend, epoch_wrap).await;
        }
        let backend = self.front.prepared.open(Uid::from_bytes([0; 16]), Arc::new(OsRandom::new()))?;
        backend.status().await.map(drop)
    }

    async fn by_itself(&self) -> anyhow::Result<Option<Cluster>> {
        let ordered = self.lock_orders.load(Ordering::Acquire);
        let Some(cluster) = self.open().await? else { return Ok(None) };
        if self.was_locked_since(ordered) {
            cluster.close(self.front).await?;
            return Ok(None);
        }
        self.record(&cluster, &Who::service(), "BACKEND_ANSWERED").await?;
        Ok(Some(cluster))
    }

    /// Tells whether somebody has ordered a lock that is not carried out yet: it goes before any unlock under way.
    fn was_locked_since(&self, ordered: u64) -> bool {
        self.lock_orders.load(Ordering::Acquire) != ordered
    }

    async fn carry_out(&self, order: Order) -> anyhow::Result<Option<Cluster>> {
        let Order { who, action, validate_only, answer } = order;
        // Whoever does not wait any more may have changed his mind; a lock is carried out all the same.
        if action != Action::Lock && answer.is_closed() {
            return Ok(None);
        }
        let (done, cluster) = match action {
            Action::Lock if validate_only => (self.rehearsed(&who, action), None),
            Action::Lock => (self.lock(&who).await, None),
            _ if validate_only => {
                let asked = self.ask_backend().await.map_err(|_| OrderFailed::StillLocked);
                (asked.and_then(|()| self.rehearsed(&who, action)), None)
            }
            _ => match self.unlock(&who).await? {
                Some(cluster) => (Ok(()), Some(cluster)),
                None => (Err(OrderFailed::StillLocked), None),
            },
        };
        // Whoever hung up finds it on record.
        let _ = answer.send(done);
        Ok(cluster)
    }

    /// Makes of any lock one that only an operator ends.
    async fn lock(&self, who: &Who) -> Result<(), OrderFailed> {
        // Its record first: where there is no room for one, there is no order.
        let leaf = Leaf { why: Some(LockCause::Operator.as_str().into()), ..Leaf::of(Action::Lock.as_str()) };
        if !self.front.unrecorded.add(who.sign(leaf).ended(Outcome::Ok)) {
            return Err(OrderFailed::TooMany);
        }
        let by = who.sub.as_deref().unwrap_or_default().to_owned();
        let data_dir = self.front.settings.data_dir.clone();
        let marked = tokio::task::spawn_blocking(move || lock::mark(&data_dir, &by)).await;
        if let Err(error) = marked.map_err(std::io::Error::other).and_then(|marked| marked) {
            tracing::error!(%error, "the marker of a lock could not be written");
            return Err(OrderFailed::Marker);
        }
        self.cause.store(Arc::new(LockCause::Operator));
        Ok(())
    }

    /// Keeps the record of a rehearsal for the log that there will be.
    fn rehearsed(&self, who: &Who, action: Action) -> Result<(), OrderFailed> {
        let leaf = who.sign(Leaf { why: Some(VALIDATED.into()), ..Leaf::of(action.as_str()) });
        let kept = self.front.unrecorded.add_minor(leaf.ended(Outcome::Ok));
        if kept { Ok(()) } else { Err(OrderFailed::TooMany) }
    }

    async fn unlock(&self, who: &Who) -> anyhow::Result<Option<Cluster>> {
        let ordered = self.lock_orders.load(Ordering::Acquire);
        let Some(cluster) = self.open().await? else { return Ok(None) };
        if self.was_locked_since(ordered) {
            cluster.close(self.front).await?;
            return Ok(None);
        }
        self.record(&cluster, who, LockCause::Operator.as_str()).await?;
        // After the record: the other order ends, at worst, in a node that serves without anybody having unlocked it.
        lock::unmark(&self.front.settings.data_dir).context("the marker of the lock cannot be removed")?;
        Ok(Some(cluster))
    }

    /// Opens the cluster; nothing if the backend does not give its key.
    async fn open(&self) -> anyhow::Result<Option<Cluster>> {
        // Before the store is touched.
        if let Err(error) = self.ask_backend().await {
            tracing::warn!(why = error.chain(), "still locked");
            return Ok(None);
        }
        let front = self.front.clone();
        let error = match tokio::task::spawn_blocking(move || Cluster::open(&front)).await? {
            Ok(cluster) => return Ok(Some(cluster)),
            Err(error) => error,
        };
        let of_backend =
            matches!(error.downcast_ref(), Some(OpenClusterError::Backend { .. } | OpenClusterError::WrongEpochKey(_)));
        if of_backend {
            tracing::warn!(error = format!("{error:#}"), "still locked");
            Ok(None)
        } else {
            Err(error.context("the node cannot leave its lock"))
        }
    }

    /// Writes what has happened since the lock, and its end.
    async fn record(&self, cluster: &Cluster, who: &Who, why: &'static str) -> anyhow::Result<()> {
        let leaf = who.sign(Leaf {
            ev: lock::marked_by(&self.front.settings.data_dir).map(Into::into),
            cnt: Some(self.answered.calls.load(Ordering::Relaxed)),
            fail: Some(self.answered.denied.load(Ordering::Relaxed)),
            why: Some(why.into()),
            ..Leaf::of("Unlock")
        });
        let log = cluster.opened.keyring.log();
        self.front.unrecorded.write(log).await?;
        let index = log.append(leaf.ended(Outcome::Ok))?;
        Ok(log.durable(index).await?)
    }
}

const ORDERS_WAITING_MAX: usize = 4;
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
