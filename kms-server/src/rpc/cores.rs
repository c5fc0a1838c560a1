//! The cores: one thread with one current-thread runtime each, which serves its connections from
//! the handshake on.
//!
//! A core that has nothing else to do writes the audit log's group.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;

use super::accept::Place;
use super::connection::ConnectionInfo;
use super::serve::{Endpoint, Ends};
use crate::audit::{HeldStream, Log};
use crate::authn::{IdentityMapping, NoIdentity, identify};

/// A connection on its way to a core.
pub struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) place: Place,
}

/// What every core needs to know.
pub struct CoreSettings {
    /// How to shake hands; replaced as a whole.
    pub tls: ArcSwap<ServerConfig>,
    /// Whom certificates without a SPIFFE ID stand for.
    pub identities: IdentityMapping,
    /// The log that holds connections back.
    pub log: Arc<Log>,
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
            let runtime = runtime(&settings.log)?;
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
pub fn runtime(log: &Arc<Log>) -> std::io::Result<tokio::runtime::Runtime> {
    let log = Arc::clone(log);
    tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(move || log.flush_when_idle()).build()
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
    let held = HeldStream::new(stream, Arc::clone(&settings.log));
    let hold = held.hold();
    let shaking = TlsAcceptor::from(settings.tls.load_full()).accept(held);
    let stream = match tokio::time::timeout(HANDSHAKE_TIME_MAX, shaking).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(peer, &error),
        Err(_) => return refused(peer, &std::io::Error::from(std::io::ErrorKind::TimedOut)),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity =
        certificate.ok_or(NoIdentity::NoSan).and_then(|certificate| identify(certificate, &settings.identities));
    let info = ConnectionInfo { net: peer.ip().to_canonical(), identity: Arc::new(identity), hold };
    endpoint.serve(stream, info, ends).await;
    drop(place);
}

fn refused(peer: SocketAddr, error: &std::io::Error) {
    metrics::counter!("kms_connections_refused_total", "reason" => "handshake").increment(1);
    tracing::info!(%peer, %error, "a TLS handshake failed");
}

const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
