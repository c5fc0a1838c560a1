//! Logs and metrics of the daemon itself. The audit log is something else: see `audit`.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How the daemon logs, to stderr.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Answers whether a text is a filter, or why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// Begins to log. Once per process.
pub fn start_logs(format: LogFormat, filter: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    if json { lines.json().try_init() } else { lines.with_ansi(std::io::stderr().is_terminal()).try_init() }
}

/// Begins to count. Once per process. The handle renders what was counted.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("kms_request_duration_seconds".to_owned()), DURATION_BUCKETS)?
        .install_recorder()?;
    metrics::describe_counter!("kms_requests_total", "requests answered, by method and code");
    metrics::describe_histogram!(
        "kms_request_duration_seconds",
        metrics::Unit::Seconds,
        "time from the request to its record"
    );
    metrics::describe_counter!("kms_connections_refused_total", "connections over the limit of connections");
    metrics::describe_counter!("kms_requests_shed_total", "requests refused because too many were at work");
    metrics::describe_counter!("kms_rate_limited_total", "requests refused for their rate, of a principal or a tenant");
    metrics::describe_counter!("kms_audit_refusals_summed_total", "refusals that the audit log tells of in a sum");
    metrics::describe_counter!("kms_connections_severed_total", "connections whose peer a reload has shut out");
    metrics::describe_counter!("kms_tls_refused_total", "connections that TLS refused, by reason");
    metrics::describe_counter!("kms_tokens_refused_total", "requests whose bearer token was refused, by reason");
    for token in crate::authn::InvalidToken::ALL {
        metrics::counter!("kms_tokens_refused_total", "reason" => token.reason()).increment(0);
    }
    metrics::describe_gauge!("kms_config_last_reload_successful", "whether the last reload put in force what it read");
    metrics::describe_gauge!(
        "kms_config_last_reload_success_timestamp_seconds",
        metrics::Unit::Seconds,
        "when certificates and bindings in force were read"
    );
    metrics::describe_counter!("kms_audit_write_failures_total", "failed writes of the audit log; one stops the node");
    metrics::describe_counter!("kms_audit_damage_total", "starts that found the older part of the audit log damaged");
    metrics::describe_counter!("kms_store_damage_total", "managed data keys, or their counters, found damaged");
    metrics::describe_gauge!("kms_rewrap_jobs", "keys whose managed data keys are being moved to a newer version");
    metrics::describe_counter!("kms_rewrapped_total", "managed data keys moved to a newer version");
    metrics::describe_gauge!("kms_backend_up", "whether the last probe of the master key worked");
    metrics::describe_counter!("kms_backend_probes_total", "probes of the master key, by outcome");
    metrics::describe_gauge!("kms_locked", "whether the node wiped its keys and refuses every call");
    metrics::gauge!("kms_locked").set(0.0);
    metrics::describe_gauge!("kms_build_info", "always 1, with the version");
    metrics::gauge!("kms_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

const DURATION_BUCKETS: &[f64] =
    &[50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
