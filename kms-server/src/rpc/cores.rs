//! The cores: one thread with one current-thread runtime each, which serves its connections from
//! the handshake on.
//!
//! A core that has nothing else to do writes the audit log's group.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::accept::Place;
use super::connection::ConnectionInfo;
use super::handshake::shake_hands;
use super::refusals::Refusals;
use super::serve::{Endpoint, Ends};
use super::trust::{Admission, TrustInForce};
use crate::audit::{HeldStream, Log};
use crate::noun::Clock;

/// A connection on its way to a core.
pub struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) place: Place,
}

/// What every core needs to know.
pub struct CoreSettings {
    /// Who is let in, and as whom.
    pub trust: Arc<TrustInForce>,
    /// Who was not.
    pub refusals: Arc<Refusals>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The log that holds connections back; none on a node that is locked.
    pub log: Option<Arc<Log>>,
}

struct Core {
    accepted: mpsc::UnboundedSender<Accepted>,
    connections: Arc<AtomicUsize>,
}

/// All cores.
pub struct Cores {
    cores: Vec<Core>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Cores {
    /// Starts so many cores. After `ends.drain` each ends its connections and then itself.
    pub fn start(count: usize, settings: &Arc<CoreSettings>, ends: &Ends) -> std::io::Result<Arc<Self>> {
        let (mut cores, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for number in 0..count {
            let runtime = runtime(settings.log.as_ref())?;
            // Bounded by the places that accepted connections take.
            let (accepted, arriving) = mpsc::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            let (settings, ends, counted) = (Arc::clone(settings), ends.clone(), Arc::clone(&connections));
            let run = move || runtime.block_on(run_core(arriving, settings, counted, ends));
            threads.push(std::thread::Builder::new().name(format!("kms-core-{number}")).spawn(run)?);
            cores.push(Core { accepted, connections });
        }
        Ok(Arc::new(Self { cores, threads: Mutex::new(threads) }))
    }

    pub(super) fn hand_over(&self, accepted: Accepted) {
        let fewest = self.cores.iter().min_by_key(|core| core.connections.load(Ordering::Relaxed));
        if let Some(core) = fewest {
            core.connections.fetch_add(1, Ordering::Relaxed);
            // A core that is gone is one that drained: so will this connection.
            if core.accepted.send(accepted).is_err() {
                core.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until all cores have ended, after `drain`.
    pub fn join(&self) {
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A panic in it was reported where it happened.
            drop(thread.join());
        }
    }
}

/// Makes a runtime of the calling thread, which writes the log's group when it has nothing to do.
pub fn runtime(log: Option<&Arc<Log>>) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if let Some(log) = log.map(Arc::downgrade) {
        // Not to be kept by it: what waits for signals keeps a waker of a runtime, and thus all that the runtime has,
        // longer than the runtime lives; and the log has a key.
        builder.on_thread_park(move || {
            if let Some(log) = log.upgrade() {
                log.flush_when_idle();
            }
        });
    }
    builder.enable_all().build()
}

async fn run_core(
    mut arriving: mpsc::UnboundedReceiver<Accepted>,
    settings: Arc<CoreSettings>,
    connections: Arc<AtomicUsize>,
    ends: Ends,
) {
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = ends.drain.cancelled() => break,
            accepted = arriving.recv() => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
        };
        let (settings, connections, ends) = (Arc::clone(&settings), Arc::clone(&connections), ends.clone());
        tracker.spawn(async move {
            serve(accepted, &settings, &ends).await;
            connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
    tracker.close();
    tracker.wait().await;
}

async fn serve(accepted: Accepted, settings: &CoreSettings, ends: &Ends) {
    let Accepted { stream, peer, endpoint, place } = accepted;
    let stream = match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, %peer, "an accepted connection broke"),
    };
    let held = HeldStream::new(stream, settings.log.clone());
    let hold = held.hold();
    let trust = settings.trust.now();
    let shaken = tokio::select! {
        shaken = shake_hands(held, Arc::clone(&trust.tls.config), HANDSHAKE_TIME_MAX) => shaken,
        () = ends.cut.cancelled() => return,
    };
    let stream = match shaken {
        Ok(stream) => stream,
        Err(refused) => {
            settings.refusals.add(refused.refusal, peer, &refused.error, settings.clock.since_boot());
            return tokio::select! {
                () = refused.part() => {}
                () = ends.cut.cancelled() => {}
            };
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let admission = Arc::new(Admission::new(&settings.trust, trust, chain));
    let info = ConnectionInfo { net: peer.ip().to_canonical(), admission, hold };
    endpoint.serve(stream, info, &*settings.clock, ends).await;
    drop(place);
}

const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
