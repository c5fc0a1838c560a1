//! What a node is, whether it serves, and what to look at: for the people who run the server.

use std::time::SystemTime;

use kms_proto::v1;
use kms_proto::v1::operator_service_client::OperatorServiceClient;
use tonic::transport::Channel;

use crate::client::ANSWER_BYTES_MAX;
use crate::wire::{time, time_or_none};
use crate::{Client, Error};

/// Answer of [`Client::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Of the server's program, such as `0.1.0`.
    pub version: String,
    /// The cluster's uid: 32 lower-case hexadecimal digits.
    pub cluster_uid: String,
    /// This node's name.
    pub node: String,
    /// Whether it serves.
    pub state: ServerState,
    /// When the program started.
    pub start_time: SystemTime,
    /// The current erasure epoch.
    pub epoch: Option<EpochStatus>,
    /// What holds the master key.
    pub backend: Option<BackendStatus>,
    /// Where long-lived keys lie in memory.
    pub memory: Option<MemoryStatus>,
    /// The audit log of this node.
    pub audit_log: Option<AuditLogStatus>,
    /// What keeps the wrapped keys.
    pub store: Option<StoreStatus>,
    /// All caches.
    pub caches: Vec<CacheStatus>,
    /// What an operator should look at, the gravest first. Empty when all is well.
    pub warnings: Vec<String>,
}

/// Whether a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerState {
    /// It checks its store against its log and does not serve yet.
    Starting,
    /// It serves.
    Serving,
    /// The audit log or the store failed, so it refuses every call until it is restarted.
    Failed,
    /// It finishes the calls that have begun, and takes no new ones.
    ShuttingDown,
    /// One that this version of the library does not know, with its number.
    Unknown(i32),
}

impl ServerState {
    /// Returns the state as the API names it, such as `SERVING`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Serving => "SERVING",
            Self::Failed => "FAILED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    fn from_wire(number: i32) -> Self {
        match v1::ServerState::try_from(number) {
            Ok(v1::ServerState::Starting) => Self::Starting,
            Ok(v1::ServerState::Serving) => Self::Serving,
            Ok(v1::ServerState::Failed) => Self::Failed,
            Ok(v1::ServerState::ShuttingDown) => Self::ShuttingDown,
            Ok(v1::ServerState::Unspecified) | Err(_) => Self::Unknown(number),
        }
    }
}

/// The erasure epoch whose key wraps new tenant keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EpochStatus {
    /// Its number, from 1.
    pub number: u32,
    /// 32 lower-case hexadecimal digits.
    pub uid: String,
    /// When it began.
    pub create_time: Option<SystemTime>,
}

/// What holds the master key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendStatus {
    /// Such as `software`.
    pub kind: String,
    /// One line for people.
    pub detail: String,
    /// What the destruction of a master-key version is worth to an auditor, in the word that certificates use.
    pub assurance: String,
    /// Whether the last probe reached it.
    pub reachable: bool,
    /// When the last probe ended; `None` before the first.
    pub probe_time: Option<SystemTime>,
}

/// Where long-lived keys lie in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStatus {
    /// How it is protected, in words.
    pub protection: String,
    /// Slots of locked memory in use.
    pub slots_used: u64,
    /// Slots of locked memory in all.
    pub slots_max: u64,
}

/// The audit log of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditLogStatus {
    /// The log's name in checkpoints.
    pub origin: String,
    /// Records that are durable.
    pub size: u64,
}

/// What keeps the wrapped keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// `local`, or `memory` where nothing is kept.
    pub kind: String,
    /// Mutations applied since the cluster was made.
    pub seq: u64,
}

/// One cache in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatus {
    /// Such as `tenants`.
    pub name: String,
    /// Entries now.
    pub entries: u64,
    /// The most it may hold.
    pub entries_max: u64,
}

impl Client {
    /// Asks a node, at its operator listener ([`ClientBuilder::operator_endpoint`](crate::ClientBuilder)), what it is
    /// and whether it serves.
    pub async fn status(&self) -> Result<Status, Error> {
        let request = v1::GetStatusRequest {};
        let answer =
            self.call_operator("GetStatus", request, |c, r| async move { stub(c).get_status(r).await }).await?;
        Status::from_wire(answer)
    }
}

impl Status {
    pub(crate) fn from_wire(answer: v1::GetStatusResponse) -> Result<Self, Error> {
        let epoch = answer
            .epoch
            .map(|epoch| {
                let create_time = time_or_none(epoch.create_time, "epoch.create_time")?;
                Ok::<_, Error>(EpochStatus { number: epoch.number, uid: epoch.uid, create_time })
            })
            .transpose()?;
        let backend = answer
            .backend
            .map(|backend| {
                Ok::<_, Error>(BackendStatus {
                    kind: backend.kind,
                    detail: backend.detail,
                    assurance: backend.assurance,
                    reachable: backend.reachable,
                    probe_time: time_or_none(backend.probe_time, "backend.probe_time")?,
                })
            })
            .transpose()?;
        Ok(Self {
            version: answer.version,
            cluster_uid: answer.cluster_uid,
            node: answer.node,
            state: ServerState::from_wire(answer.state),
            start_time: time(answer.start_time, "start_time")?,
            epoch,
            backend,
            memory: answer.memory.map(|memory| MemoryStatus {
                protection: memory.protection,
                slots_used: memory.slots_used,
                slots_max: memory.slots_max,
            }),
            audit_log: answer.audit_log.map(|log| AuditLogStatus { origin: log.origin, size: log.size }),
            store: answer.store.map(|store| StoreStatus { kind: store.kind, seq: store.seq }),
            caches: answer
                .caches
                .into_iter()
                .map(|cache| CacheStatus { name: cache.name, entries: cache.entries, entries_max: cache.entries_max })
                .collect(),
            warnings: answer.warnings,
        })
    }
}

fn stub(channel: Channel) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_api_is_known_and_another_keeps_its_number() {
        for number in 1..=4 {
            let name = v1::ServerState::try_from(number).unwrap().as_str_name();
            assert_eq!(format!("SERVER_STATE_{}", ServerState::from_wire(number).as_str()), name);
        }
        assert!(v1::ServerState::try_from(5).is_err(), "teach ServerState the new one");
        assert_eq!(ServerState::from_wire(5), ServerState::Unknown(5));
    }
}
