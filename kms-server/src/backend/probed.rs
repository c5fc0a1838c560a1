//! What the last probe of the current version of the master key came to, for people and dashboards.

use std::sync::{Mutex, PoisonError};

use super::BackendError;
use crate::noun::UnixMillis;

/// The last probe.
#[derive(Debug)]
pub struct Probed(Mutex<LastProbe>);

/// When a probe ended, and how.
#[derive(Clone, Debug)]
pub struct LastProbe {
    /// When it ended.
    pub at: UnixMillis,
    /// Since when none has worked, and why the last one did not.
    pub failing: Option<(UnixMillis, String)>,
}

impl Probed {
    /// Begins with one that worked.
    pub fn new(at: UnixMillis) -> Self {
        metrics::gauge!("kms_backend_up").set(1.0);
        Self(Mutex::new(LastProbe { at, failing: None }))
    }

    /// Returns the last one.
    pub fn last(&self) -> LastProbe {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes another, and says in the log what has changed.
    pub fn note(&self, at: UnixMillis, failed: Option<&BackendError>) {
        let outcome = failed.map_or("ok", BackendError::as_str);
        metrics::counter!("kms_backend_probes_total", "outcome" => outcome).increment(1);
        metrics::gauge!("kms_backend_up").set(if failed.is_none() { 1.0 } else { 0.0 });
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.at = at;
        let Some(failed) = failed else {
            if last.failing.take().is_some() {
                tracing::info!("the master key backend gives the current key again");
            }
            return;
        };
        let why = failed.chain();
        match &mut last.failing {
            Some((_, before)) => {
                tracing::warn!(why, "the master key backend still does not give the current key");
                *before = why;
            }
            None => {
                tracing::error!(
                    why,
                    "the master key backend does not give the current key: requests are served, but a restart would fail"
                );
                last.failing = Some((at, why));
            }
        }
    }
}
