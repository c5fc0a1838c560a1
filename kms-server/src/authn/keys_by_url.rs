//! Keys that an issuer serves by https: fetched at the start, every few minutes, and when a token has a key that is not
//! known, within bounds of size, time and rate.
//!
//! One task fetches; requests ask it and wait. A fetch that fails leaves the keys that are there, for a day.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode, Uri};
use hyper::body::{Body as _, Bytes, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::issuers::Issuer;
use super::jwks::{InvalidKeySet, JWKS_BYTES_MAX, KeySet};
use crate::crypto::sha256;
use crate::noun::Clock;

/// How the keys of one issuer are fetched.
pub(super) struct KeysByUrl {
    url: Uri,
    config: Arc<ClientConfig>,
    roots: Vec<[u8; 32]>,
    wanted: Notify,
    is_fetching: AtomicBool,
    /// How many fetches ended.
    rounds: watch::Sender<u64>,
    known: Mutex<Known>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    /// SHA-256 of the set that is there, and when it was last served, since the machine started.
    set: Option<([u8; 32], Duration)>,
    /// When a request last asked for more.
    asked: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
enum FetchFailed {
    #[error("not within {} s", FETCH_TIME_MAX.as_secs())]
    Time,
    #[error("the URL has no host")]
    Host,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("it answered {0}, and only 200 is taken: redirects are not followed")]
    Status(StatusCode),
    #[error(transparent)]
    Set(#[from] InvalidKeySet),
}

/// Makes the settings of a client that believes these authorities; nothing if none of them can be used.
pub(super) fn client_config(authorities: &[CertificateDer<'static>]) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(authorities.iter().cloned());
    if usable == 0 {
        return None;
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let mut config = builder.ok()?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

impl KeysByUrl {
    /// Fetches from there, believing these authorities, by their SHA-256.
    pub(super) fn new(url: Uri, config: Arc<ClientConfig>, roots: Vec<[u8; 32]>) -> Self {
        Self {
            url,
            config,
            roots,
            wanted: Notify::new(),
            // It will be at once: who asks before waits for it.
            is_fetching: AtomicBool::new(true),
            rounds: watch::Sender::new(0),
            known: Mutex::default(),
        }
    }

    /// Takes what another knew, if it would fetch from the same place. Returns whether it did.
    pub(super) fn inherit(&self, other: &Self) -> bool {
        let is_same = self.url == other.url && self.roots == other.roots;
        if is_same {
            let known = *other.known();
            *self.known() = known;
        }
        is_same
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the keys of an issuer once more, and waits. Returns whether it is worth looking again.
pub(super) async fn ask(issuer: &Issuer, since_boot: Duration) -> bool {
    let Some(by_url) = &issuer.by_url else { return false };
    let mut rounds = by_url.rounds.subscribe();
    // Whoever finds a fetch under way waits for that one.
    if !by_url.is_fetching.load(Ordering::Acquire) {
        let mut known = by_url.known();
        if known.asked.is_some_and(|asked| since_boot.saturating_sub(asked) < ASKED_EVERY_MIN) {
            return false;
        }
        known.asked = Some(since_boot);
        by_url.wanted.notify_one();
    }
    matches!(tokio::time::timeout(FETCH_TIME_MAX + FETCH_TIME_MAX / 5, rounds.changed()).await, Ok(Ok(())))
}

/// Fetches the keys of an issuer for as long as it is polled.
pub(super) async fn keep_fresh(issuer: &Issuer, clock: &dyn Clock) {
    let Some(by_url) = &issuer.by_url else { return };
    let mut retry = RETRY_MIN;
    loop {
        by_url.is_fetching.store(true, Ordering::Release);
        // Given up on when nobody polls any more: then nothing is under way.
        let under_way = UnderWay(by_url);
        let fetched = tokio::time::timeout(FETCH_TIME_MAX, fetch(by_url)).await;
        let done = fetched.unwrap_or(Err(FetchFailed::Time)).and_then(|bytes| take(issuer, by_url, &bytes, clock));
        drop(under_way);
        let wait = match done {
            Ok(()) => {
                retry = RETRY_MIN;
                FETCH_EVERY
            }
            Err(error) => {
                give_up_old_keys(issuer, by_url, clock);
                let error = error.to_string();
                tracing::warn!(issuer = issuer.settings.issuer, url = %by_url.url, error, "an issuer's keys were not fetched");
                retry = (retry * 2).min(FETCH_EVERY);
                retry
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = by_url.wanted.notified() => {}
        }
    }
}

struct UnderWay<'a>(&'a KeysByUrl);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.is_fetching.store(false, Ordering::Release);
        self.0.rounds.send_modify(|rounds| *rounds += 1);
    }
}

fn take(issuer: &Issuer, by_url: &KeysByUrl, bytes: &[u8], clock: &dyn Clock) -> Result<(), FetchFailed> {
    let print = sha256(bytes);
    let is_new = by_url.known().set.is_none_or(|(before, _)| before != print) || issuer.keys.load().is_none();
    if is_new {
        // The same set leaves what was verified by it remembered.
        // An issuer that withdraws all its keys is believed at once.
        let (keys, left_out) = match KeySet::read(bytes) {
            Err(InvalidKeySet::NoneFits(count)) => {
                tracing::error!(issuer = issuer.settings.issuer, count, "an issuer has no keys of use any more");
                (KeySet::empty(), Vec::new())
            }
            read => read?,
        };
        for why in left_out {
            tracing::warn!(issuer = issuer.settings.issuer, "{why}");
        }
        issuer.keys.store(Some(Arc::new(keys)));
        tracing::info!(issuer = issuer.settings.issuer, "an issuer's keys are new");
    }
    by_url.known().set = Some((print, clock.since_boot()));
    Ok(())
}

fn give_up_old_keys(issuer: &Issuer, by_url: &KeysByUrl, clock: &dyn Clock) {
    let mut known = by_url.known();
    let is_old = |(_, served): ([u8; 32], Duration)| clock.since_boot().saturating_sub(served) > KEPT_TIME_MAX;
    if known.set.is_some_and(is_old) {
        known.set = None;
        issuer.keys.store(None);
        tracing::error!(issuer = issuer.settings.issuer, "an issuer's keys are a day old and not taken any more");
    }
}

async fn fetch(by_url: &KeysByUrl) -> Result<Vec<u8>, FetchFailed> {
    let url = &by_url.url;
    let host = url.host().ok_or(FetchFailed::Host)?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, url.port_u16().unwrap_or(443))).await?;
    let server = ServerName::try_from(name.to_owned()).map_err(|_| FetchFailed::Host)?;
    let stream = TlsConnector::from(Arc::clone(&by_url.config)).connect(server, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let authority = url.authority().map(|authority| authority.as_str()).unwrap_or(host);
        let request = Request::get(path).header("host", authority).header("accept", "application/json");
        let request = request.body(Nothing).map_err(|_| FetchFailed::Host)?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchFailed::Status(response.status()));
        }
        let mut body = std::pin::pin!(response.into_body());
        let mut bytes = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            if let Ok(data) = frame?.into_data() {
                if bytes.len() + data.len() > JWKS_BYTES_MAX {
                    return Err(InvalidKeySet::TooLarge.into());
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes)
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = asking.as_mut() => answer,
        ended = connection => {
            // What it had sent is there to be read.
            ended?;
            asking.await
        }
    }
}

/// The body of a GET.
struct Nothing;

impl hyper::body::Body for Nothing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

const FETCH_EVERY: Duration = Duration::from_secs(300);
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);
/// How often requests may bring about a fetch.
const ASKED_EVERY_MIN: Duration = Duration::from_secs(60);
/// How soon after a failure it is tried again; longer after each.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// How long keys are believed that nobody serves any more.
const KEPT_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
const HEAD_BYTES_MAX: usize = 64 << 10;
