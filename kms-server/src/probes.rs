//! The third, plain listener: `/livez`, `/readyz` and `/metrics`. No secrets, no tenants' names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::keyring::Keyring;

/// What the probes look at.
#[derive(Clone)]
pub struct Probes {
    /// Whether requests are accepted.
    pub serving: Arc<AtomicBool>,
    /// Whether log and store still work.
    pub keyring: Arc<Keyring>,
    /// What was counted.
    pub metrics: PrometheusHandle,
}

impl Probes {
    /// Answers until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(async |State(probes): State<Probes>| probes.metrics.render()))
            .with_state(self);
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the probes' listener failed");
        }
    }
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    if let Err(error) = probes.keyring.check_whole() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
    }
    if !probes.serving.load(Ordering::Acquire) {
        return (StatusCode::SERVICE_UNAVAILABLE, "not serving\n".to_owned());
    }
    (StatusCode::OK, "ok\n".to_owned())
}
