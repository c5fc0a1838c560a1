//! GetStatus: what an operator wants to know first.

use std::time::Duration;

use kms_proto::v1;

use super::convert::timestamp;
use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::backend::LastProbe;
use crate::crypto::arena;
use crate::policy::{Action, Resource};

pub(super) struct GetStatus;

impl Operation for GetStatus {
    type Wire = v1::GetStatusRequest;
    type Reply = v1::GetStatusResponse;
    const NAME: &'static str = "GetStatus";
    const FOR_OPERATORS: bool = true;

    fn parse(_: v1::GetStatusRequest) -> Result<Self, Error> {
        Ok(Self)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetStatus, Resource::Cluster)]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::GetStatusResponse>, Failed> {
        let (keyring, facts) = (call.keyring(), &call.api.facts);
        let (log, epoch, cache, arena) = (keyring.log(), keyring.epoch(), keyring.cache_status(), arena::status());
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Ok(Done::read(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_uid: keyring.cluster_uid().to_string(),
            node: log.settings().node.clone(),
            state: if keyring.check_whole().is_ok() { v1::ServerState::Serving } else { v1::ServerState::Failed }
                .into(),
            start_time: Some(timestamp(facts.started)),
            epoch: Some(v1::EpochStatus {
                number: epoch.number.get(),
                uid: epoch.id.to_string(),
                create_time: Some(timestamp(keyring.epoch_began())),
            }),
            backend: Some(backend(call).await),
            memory: Some(v1::MemoryStatus {
                protection: arena.protection.describe().to_owned(),
                slots_used: count(arena.used),
                slots_max: count(arena.slots),
            }),
            audit_log: Some(v1::AuditLogStatus { origin: log.settings().origin.clone(), size: log.durable_size() }),
            store: Some(v1::StoreStatus { kind: facts.store_kind.to_owned(), seq: keyring.seq() }),
            caches: [("tenants", cache.tenants, cache.tenants_max), ("keys", cache.keys, cache.keys_max)]
                .map(|(name, entries, max)| v1::CacheStatus {
                    name: name.to_owned(),
                    entries: count(entries),
                    entries_max: count(max),
                })
                .to_vec(),
            warnings: failing(call).into_iter().chain(facts.warnings.iter().cloned()).collect(),
        }))
    }
}

/// What it says now, and what the last probe came to.
async fn backend(call: &Call<'_>) -> v1::BackendStatus {
    let asked = tokio::time::timeout(BACKEND_TIME_MAX, call.api.backend.status()).await;
    let LastProbe { at, failing } = call.api.probed.last();
    let known = v1::BackendStatus {
        kind: call.api.backend_kind.to_owned(),
        probe_time: Some(timestamp(at)),
        ..v1::BackendStatus::default()
    };
    match asked {
        Ok(Ok(status)) => v1::BackendStatus {
            detail: status.detail,
            assurance: status.assurance.as_str().to_owned(),
            reachable: failing.is_none(),
            ..known
        },
        Ok(Err(error)) => v1::BackendStatus { detail: error.chain(), ..known },
        Err(_) => v1::BackendStatus { detail: "no answer in time".to_owned(), ..known },
    }
}

/// Says that the master key cannot be used, if that is so: the gravest there is to look at.
fn failing(call: &Call<'_>) -> Option<String> {
    let (since, why) = call.api.probed.last().failing?;
    let since = jiff::Timestamp::from_millisecond(i64::try_from(since).ok()?).ok()?;
    Some(format!(
        "the master key backend has not given the current key since {since:.0}; requests are served, but a restart would fail: {why}"
    ))
}

const BACKEND_TIME_MAX: Duration = Duration::from_secs(2);
