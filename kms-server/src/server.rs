//! Joins the concrete parts into a daemon, and takes them apart again.

mod cluster;
mod front;
mod locked;
mod probe;
mod resources;
mod session;
mod store_kind;

use std::sync::Arc;

use crate::authn::inspect::inspect;
use crate::backend::Prepared;
use crate::backend::watch::LockCause;
use crate::config::Settings;
use crate::crypto::arena;
use crate::data_dir::DataDir;
use crate::lock;
use crate::noun::Clock as _;
use crate::noun::clock::SystemClock;
use crate::policy::InForce;
use crate::protections::Protections;
use crate::reload::{self, ReloadHandle, Reloader, Reloading, Watched};
use crate::rpc::trust::TrustInForce;
use crate::shutdown::StopSignals;
use crate::telemetry;

use cluster::Cluster;
use front::{Front, Sockets};
pub(crate) use resources::{FILES_APART, slots_wanted};
use resources::{prepare_files, prepare_memory};
use session::{Ended, Held};
pub use store_kind::StoreKind;

/// What the daemon is started for.
pub enum Mode {
    /// For good: what can change is reloaded when that is asked for.
    Service(Box<Reloading>),
    /// To try things on: tools can ask for its services.
    #[cfg(feature = "dev")]
    Trial,
}

impl Mode {
    fn is_trial(&self) -> bool {
        match self {
            Mode::Service(_) => false,
            #[cfg(feature = "dev")]
            Mode::Trial => true,
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

/// What comes next.
enum Next {
    Serve(Box<Cluster>),
    Lock(Held),
}

/// Serves until a signal, then drains and flushes; in sessions, between which the daemon is locked. `Ok` means that
/// nothing was lost. `serving` is called once requests are accepted.
pub fn serve(
    settings: &Settings,
    store: &StoreKind,
    prepared: &Prepared,
    mode: Mode,
    protections: &Protections,
    serving: impl FnOnce(Addresses),
) -> anyhow::Result<()> {
    let metrics = telemetry::start_metrics()?;
    let mut signals = StopSignals::listen()?;
    let as_given = settings;
    let (keyring_settings, mut warnings) = prepare_memory(settings.keyring);
    tracing::info!("{}", protections.describe(arena::status().protection.describe()));
    for warning in protections.warnings() {
        tracing::warn!("{warning}");
        warnings.push(warning);
    }
    let settings = Settings {
        keyring: keyring_settings,
        connections: prepare_files(settings.connections, &mut warnings),
        ..settings.clone()
    };
    // One that has no real path is not there: to take it says so, and what to do.
    let settings = settings.with_real_data_dir().unwrap_or(settings);
    let _data_dir = DataDir::take_to_serve(&settings.data_dir)?;
    let watched = Watched::begin(&settings);
    let reload::Found { policy, trust, prints } = reload::read(&settings)?;
    let inspected = settings.tls.as_ref().map(|files| inspect(files, SystemClock.now())).unwrap_or_default();
    for told in inspected.mistakes.iter().chain(&inspected.notes).map(ToString::to_string) {
        tracing::warn!("{told}");
        warnings.push(told);
    }
    let (reload, asked) = ReloadHandle::new();
    let front = Front {
        settings,
        reload: match &mode {
            Mode::Service(_) => Some(reload),
            #[cfg(feature = "dev")]
            Mode::Trial => None,
        },
        prepared: prepared.clone(),
        store: store.clone(),
        clock: Arc::new(SystemClock),
        policy: Arc::new(InForce::new(policy)),
        trust: Arc::new(TrustInForce::new(trust)),
        refusals: Arc::default(),
        unrecorded: Arc::default(),
        metrics,
        started: SystemClock.now(),
        warnings,
        is_trial: mode.is_trial(),
    };
    let mut reloader = match mode {
        Mode::Service(reloading) => {
            let Reloading { flags, hangups } = *reloading;
            Some(Reloader {
                flags,
                hangups,
                asked,
                watched,
                settings: as_given.clone(),
                policy: Arc::clone(&front.policy),
                clock: Arc::clone(&front.clock),
                unrecorded: Arc::clone(&front.unrecorded),
                trust: Arc::clone(&front.trust),
                prints,
            })
        }
        #[cfg(feature = "dev")]
        Mode::Trial => None,
    };
    let mut next = if lock::is_marked(&front.settings.data_dir)? {
        Next::Lock(Held { cause: LockCause::Operator, probe: None })
    } else {
        Next::Serve(Box::new(Cluster::open(&front)?))
    };
    // Not before there is something to serve.
    let sockets = Sockets::bind(&front.settings)?;
    let addresses = sockets.addresses()?;
    reload::loaded(front.clock.now());
    let mut serving = Some(serving);
    let mut begun = |locked: Option<LockCause>| {
        let Addresses { services, operator, probes } = addresses;
        match locked {
            None => tracing::info!(%services, %operator, %probes, "serving"),
            Some(cause) => tracing::warn!(%services, %operator, %probes, cause = cause.as_str(), "locked"),
        }
        if let Some(serving) = serving.take() {
            serving(addresses);
        }
    };
    loop {
        next = match next {
            Next::Serve(cluster) => {
                match session::run(&front, &sockets, &mut signals, *cluster, &mut reloader, || begun(None))? {
                    Ended::Stopped => break,
                    Ended::Locked(held) => Next::Lock(held),
                }
            }
            Next::Lock(held) => {
                match locked::run(&front, &sockets, &mut signals, &held, &mut reloader, || begun(Some(held.cause)))? {
                    None => break,
                    Some(cluster) => Next::Serve(Box::new(cluster)),
                }
            }
        };
    }
    front.unrecorded.tell_lost();
    tracing::info!("stopped");
    Ok(())
}
