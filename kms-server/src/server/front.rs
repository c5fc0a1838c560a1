//! What outlives sessions: settings, sockets, certificates, bindings, counters. And the doors of one session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Unrecorded;
use crate::backend::Prepared;
use crate::config::Settings;
use crate::keyring::{RoleInForce, RolesInForce};
use crate::noun::{Clock, UnixMillis};
use crate::policy::{Granted, InForce, Names, Role};
use crate::probes::{Probes, Ready};
use crate::reload::ReloadHandle;
use crate::rpc::accept::{ConnectionLimits, Places, accept};
use crate::rpc::cores::Cores;
use crate::rpc::refusals::Refusals;
use crate::rpc::trust::TrustInForce;
use crate::rpc::{Endpoint, Ends, Health};
use crate::shutdown::StopSignals;

use super::{Addresses, StoreKind};

/// What every session of a daemon is made of.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) settings: Settings,
    pub(super) prepared: Prepared,
    pub(super) store: StoreKind,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) policy: Arc<InForce>,
    pub(super) trust: Arc<TrustInForce>,
    /// Nothing where things are tried on.
    pub(super) reload: Option<ReloadHandle>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) unrecorded: Arc<Unrecorded>,
    pub(super) metrics: PrometheusHandle,
    pub(super) started: UnixMillis,
    pub(super) warnings: Vec<String>,
    /// It is there to try things on.
    pub(super) is_trial: bool,
}

impl Front {
    /// Returns what puts the roles that grants give beside the policy.
    pub(super) fn roles_in_force(&self) -> Box<RolesInForce> {
        let policy = Arc::clone(&self.policy);
        Box::new(move |roles| {
            // What a row says that no request could have asked for gives nothing.
            let granted: Vec<Granted> = roles.into_iter().filter_map(granted).collect();
            if let Err(error) = policy.set_grants(granted) {
                tracing::error!(%error, "grants could not be put in force: none is");
            }
        })
    }
}

fn granted(role: RoleInForce) -> Option<Granted> {
    let given: Role = role.role.parse().ok().filter(|role: &Role| role.can_be_granted())?;
    Some(Granted {
        id: format!("grant/{}", role.uid).into(),
        principal: role.principal.parse().ok()?,
        roles: [given].into(),
        tenant: role.tenant,
        keys: given.acts_on_keys().then(Names::every),
        indexes: None,
        from: Some(role.from),
        expires: role.end,
    })
}

/// The sockets. Between two sessions whoever connects waits.
pub(super) struct Sockets {
    services: std::net::TcpListener,
    operator: std::net::TcpListener,
    probes: std::net::TcpListener,
}

impl Sockets {
    pub(super) fn bind(settings: &Settings) -> anyhow::Result<Self> {
        // What listens was made by a runtime, and is anew of each session's.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            Ok(Self {
                services: bind(settings.services, "listen.services").await?,
                operator: bind(settings.operator, "listen.operator").await?,
                probes: bind(settings.probes, "listen.probes").await?,
            })
        })
    }

    pub(super) fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses {
            services: self.services.local_addr()?,
            operator: self.operator.local_addr()?,
            probes: self.probes.local_addr()?,
        })
    }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<std::net::TcpListener> {
    let bound = TcpListener::bind(address).await;
    let bound = bound
        .with_context(|| format!("cannot listen on {address}: set {setting} to a free address of this machine"))?;
    Ok(bound.into_std()?)
}

/// What ends what.
#[derive(Clone, Default)]
pub(super) struct Tokens {
    pub(super) stop_accepting: CancellationToken,
    pub(super) ends: Ends,
    pub(super) stop_changes: CancellationToken,
}

/// The open doors of a session.
pub(super) struct Doors {
    healths: [Health; 2],
    cores: Arc<Cores>,
    tokens: Tokens,
    tasks: TaskTracker,
}

impl Doors {
    /// Opens them: accepts connections, answers probes, and looks after counters.
    pub(super) fn open(
        front: &Front,
        sockets: &Sockets,
        [services, operator]: [(Endpoint, Health); 2],
        cores: Arc<Cores>,
        tokens: &Tokens,
        ready: Ready,
    ) -> anyhow::Result<Self> {
        let (tasks, tokens) = (TaskTracker::new(), tokens.clone());
        let ((services, services_health), (operator, operator_health)) = (services, operator);
        // Operators have places of their own, whatever happens on the other listener.
        let listeners = [
            (&sockets.services, services, Places::new(front.settings.connections)),
            (&sockets.operator, operator, Places::new(OPERATOR_CONNECTIONS)),
        ];
        for (socket, endpoint, places) in listeners {
            let listener = TcpListener::from_std(socket.try_clone()?)?;
            tasks.spawn(accept(listener, endpoint, places, Arc::clone(&cores), tokens.stop_accepting.clone()));
        }
        let prober = Probes { ready, metrics: front.metrics.clone() };
        let listener = TcpListener::from_std(sockets.probes.try_clone()?)?;
        tasks.spawn(prober.serve(listener, tokens.stop_changes.clone()));
        let (metrics, refusals, clock) = (front.metrics.clone(), Arc::clone(&front.refusals), Arc::clone(&front.clock));
        let stop = tokens.stop_changes.clone();
        tasks.spawn(async move {
            while tokio::time::timeout(UPKEEP_EVERY, stop.cancelled()).await.is_err() {
                // Histograms are folded as time goes by, whether anybody scrapes or not.
                metrics.run_upkeep();
                refusals.tell_untold(clock.since_boot());
            }
        });
        tasks.spawn(Arc::clone(&front.trust).keep_keys_fresh(Arc::clone(&front.clock), tokens.stop_accepting.clone()));
        Ok(Self { healths: [services_health, operator_health], cores, tokens, tasks })
    }

    /// Returns what else the session does as long as its doors are open.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Says of all services whether they serve.
    pub(super) async fn set_serving(&self, serving: bool) {
        for health in &self.healths {
            health.set_serving(serving).await;
        }
    }

    /// Closes them: no new connections, and requests under way are finished, but no longer than `time_max`. A
    /// signal cuts them off. Returns whether there was one.
    pub(super) async fn close(mut self, signals: &mut StopSignals, time_max: Option<Duration>) -> bool {
        for health in &mut self.healths {
            health.set_serving(false).await;
            health.end_watches().await;
        }
        self.tokens.stop_accepting.cancel();
        self.tokens.ends.drain.cancel();
        let cores = Arc::clone(&self.cores);
        let mut joined = self.tasks.spawn_blocking(move || cores.join());
        let too_long = async {
            match time_max {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let cut = tokio::select! {
            _ = &mut joined => None,
            () = signals.next() => {
                tracing::warn!("a second signal: what is still under way is cut off");
                Some(true)
            }
            () = too_long => Some(false),
        };
        if cut.is_some() {
            self.tokens.ends.cut.cancel();
            // They end at once now; and nothing of the session may outlive it.
            drop(joined.await);
        }
        cut == Some(true)
    }
}

const OPERATOR_CONNECTIONS: ConnectionLimits = ConnectionLimits { total: 64, per_peer: 16 };
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
