//! The third, plain listener: `/livez`, `/readyz` and `/metrics`. No secrets, no tenants' names.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells whether requests are served, or why not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the probes look at.
#[derive(Clone)]
pub struct Probes {
    /// Whether requests are served, or why not.
    pub ready: Ready,
    /// What was counted.
    pub metrics: PrometheusHandle,
}

impl Probes {
    /// Answers until `stop`. The listener is plain, so it has few places, and short ones.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(async |State(probes): State<Probes>| probes.metrics.render()))
            .with_state(self);
        let (places, tasks) = (Arc::new(Semaphore::new(PLACES)), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let place = Arc::clone(&places).try_acquire_owned();
            let (Ok((stream, _)), Ok(place)) = (accepted, place) else {
                tokio::time::sleep(PAUSE_WHEN_FULL).await;
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            tasks.spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(TIME_MAX)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                if let Ok(Err(error)) = tokio::time::timeout(TIME_MAX, connection).await {
                    tracing::debug!(%error, "a probe's connection ended with an error");
                }
                drop(place);
            });
        }
    }
}

const PLACES: usize = 64;
const TIME_MAX: Duration = Duration::from_secs(5);
const PAUSE_WHEN_FULL: Duration = Duration::from_millis(50);

async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    match (probes.ready)() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
