//! `kms status`

use clap::Args;
use kms_client::ServerState;

use crate::app::App;
use crate::error::{About, Failure};
use crate::exit::Exit;
use crate::hint::Subject;
use crate::json::{self, time_text};
use crate::output::{fields, rows};

/// Shows what the server is and whether it serves
///
/// Asks the operator listener. Ends with 0 if the server serves, with 6 if it does not.
#[derive(Debug, Args)]
pub struct Status {}

impl Status {
    pub async fn run(self, app: &mut App<'_>) -> Result<Exit, Failure> {
        let status = app.settings.operator_client()?.status().await.about(&Subject::none())?;
        app.output.show(&json::Status::from(&status), || table(&status))?;
        Ok(if status.state == ServerState::Serving { Exit::Ok } else { Exit::Unavailable })
    }
}

fn table(status: &kms_client::Status) -> String {
    let state = match status.state {
        ServerState::Unknown(number) => number.to_string(),
        state => state.as_str().to_owned(),
    };
    let epoch = status.epoch.as_ref().map(|epoch| {
        let since = epoch.create_time.map(|time| format!(", since {}", time_text(time))).unwrap_or_default();
        format!("{}{since}", epoch.number)
    });
    let backend = status.backend.as_ref().map(|backend| {
        let reachable = if backend.reachable { "reachable" } else { "NOT REACHABLE" };
        let probed = backend.probe_time.map(|time| format!(" at {}", time_text(time))).unwrap_or_default();
        format!("{}, {reachable}{probed}: {}", backend.kind, backend.detail)
    });
    let memory = status
        .memory
        .as_ref()
        .map(|memory| format!("{}, {} of {} slots used", memory.protection, memory.slots_used, memory.slots_max));
    let log = status.audit_log.as_ref().map(|log| format!("{}, {} records", log.origin, log.size));
    let store = status.store.as_ref().map(|store| format!("{}, {} mutations", store.kind, store.seq));
    let mut text = fields([
        ("state", state),
        ("version", status.version.clone()),
        ("node", status.node.clone()),
        ("cluster", status.cluster_uid.clone()),
        ("started", time_text(status.start_time)),
        ("epoch", epoch.unwrap_or_default()),
        ("backend", backend.unwrap_or_default()),
        ("memory", memory.unwrap_or_default()),
        ("audit log", log.unwrap_or_default()),
        ("store", store.unwrap_or_default()),
    ]);
    if !status.caches.is_empty() {
        let row = |cache: &kms_client::CacheStatus| {
            let numbers = [cache.entries, cache.entries_max].map(|number| number.to_string());
            let [entries, max] = numbers;
            [cache.name.clone(), entries, max]
        };
        text.push('\n');
        text += &rows(["CACHE", "ENTRIES", "MAX"], status.caches.iter().map(row));
    }
    if !status.warnings.is_empty() {
        text.push('\n');
        text += &fields(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    }
    text
}
