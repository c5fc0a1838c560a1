//! Settles what a crash left: intents without outcome get the one that the store tells.
//!
//! An intent whose `seq` the store has reached was done, and is RECOVERED; one with a greater `seq`
//! was not, and is ABORTED: nothing was promised.

use crate::audit::ledger::is_destruction;
use crate::audit::replay::Replayed;
use crate::audit::{Leaf, Ledger, Log, Outcome, Phase, StoredLeaf};
use crate::kill_point::{Point, pass};
use crate::noun::UnixMillis;

use super::destroy_tenant::SCHEDULED;
use super::open::OpenClusterError;
use super::position::Position;
use super::{LEASE_MS_DEFAULT, LEASE_MS_MAX};

/// What a crash had left.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Settled {
    /// Changes that were done and had no outcome in the log.
    pub recovered: usize,
    /// Changes that were not done.
    pub aborted: usize,
    /// Bytes of a torn group cut off.
    pub torn_bytes: u64,
    /// Destructions that the ledger lacked.
    pub recorded: usize,
    /// Destructions that the store did not show, carried out again.
    pub carried_out: usize,
}

/// What the mutation leaves of the log say, since the store's last batch.
pub(super) struct Story {
    pub(super) last_mutation: Option<u64>,
    pub(super) last_destruction: Option<u64>,
    pub(super) last_dek_destruction: Option<u64>,
    /// Intents without outcome, in order.
    open: Vec<StoredLeaf>,
    torn_bytes: u64,
}

impl Story {
    pub(super) fn read(replayed: &Replayed, store_seq: u64) -> Result<Self, OpenClusterError> {
        let (mut last_mutation, mut last_destruction, mut last_dek_destruction, mut log_seq) = (None, None, None, 0);
        let mut open: Vec<StoredLeaf> = Vec::new();
        for stored in &replayed.mutations {
            let leaf = &stored.leaf;
            if leaf.ph == Some(Phase::Intent) {
                open.push(stored.clone());
                continue;
            }
            open.retain(|intent| Some(intent.index) != leaf.in_);
            if matches!(leaf.res, Some(Outcome::Ok | Outcome::Recovered)) {
                last_mutation = Some(stored.index);
                log_seq = leaf.seq.unwrap_or(0).max(log_seq);
                if is_destruction(stored) {
                    last_destruction = Some(stored.index);
                }
                if leaf.is_of_destroyed_data_keys() {
                    last_dek_destruction = Some(stored.index);
                }
            }
        }
        if log_seq > store_seq {
            return Err(OpenClusterError::StoreOlder { lacks: log_seq - store_seq, store: store_seq, log: log_seq });
        }
        Ok(Self { last_mutation, last_destruction, last_dek_destruction, open, torn_bytes: replayed.torn_bytes })
    }

    /// Writes the outcomes that a crash kept from being written; returns what they say of what was done.
    pub(super) async fn settle(
        &self,
        log: &Log,
        ledger: &mut Ledger,
        position: &mut Position,
        now: UnixMillis,
    ) -> Result<(Settled, Vec<StoredLeaf>), OpenClusterError> {
        let mut recovered = Vec::new();
        let mut settled = Settled { torn_bytes: self.torn_bytes, ..Settled::default() };
        for intent in &self.open {
            let was_done = intent.leaf.seq.is_some_and(|seq| seq <= position.seq);
            let mut outcome = Leaf { ph: None, in_: Some(intent.index), lease: None, ..intent.leaf.clone() };
            if !was_done {
                append_durable(log, outcome.ended(Outcome::Aborted)).await?;
                pass(Point::LeafAborted);
                settled.aborted += 1;
                continue;
            }
            outcome.pm = position.last_mutation;
            // When it was done is not known; nobody used it since.
            outcome.lease = lease_of_intent(intent).map(|lease_ms| now.max(intent.time) + lease_ms);
            if destroys(&intent.leaf) {
                outcome.ph = Some(Phase::Fenced);
            }
            let fenced = outcome.ph == Some(Phase::Fenced);
            if fenced {
                outcome.pd = position.last_destruction;
            }
            let destroys_deks = intent.leaf.is_of_destroyed_data_keys();
            if destroys_deks {
                outcome.px = position.last_dek_destruction;
            }
            let stored = append_durable(log, outcome.ended(Outcome::Recovered)).await?;
            pass(Point::LeafRecovered);
            position.last_mutation = Some(stored.index);
            if destroys_deks {
                position.last_dek_destruction = Some(stored.index);
            }
            if fenced {
                position.last_destruction = Some(stored.index);
                ledger.append(&stored)?;
            }
            settled.recovered += 1;
            recovered.push(stored);
        }
        Ok((settled, recovered))
    }
}

/// Returns how long somebody may hold what a change took away, in milliseconds. Intents of
/// destructions from before there were leases do not say it.
fn lease_of_intent(intent: &StoredLeaf) -> Option<u64> {
    let told = intent.leaf.lease.map(|lease| lease.saturating_sub(intent.time).min(LEASE_MS_MAX));
    told.or_else(|| destroys(&intent.leaf).then_some(LEASE_MS_DEFAULT))
}

/// Tells from its intent whether a change destroys. What the store shows does not matter: somebody
/// may have put rows back since.
pub(super) fn destroys(intent: &Leaf) -> bool {
    match intent.op.as_deref() {
        // That of a date is a change like any other.
        Some("DestroyTenant") => intent.why.as_deref() != Some(SCHEDULED),
        Some("DestroyKey" | "DestroyKeyVersion") => true,
        Some(_) | None => false,
    }
}

pub(super) async fn append_durable(log: &Log, leaf: Leaf) -> Result<StoredLeaf, OpenClusterError> {
    let failed = |error: crate::audit::LogFailed| OpenClusterError::LogWrite(error.into());
    let stored = log.append_stored(leaf).map_err(failed)?;
    log.durable(stored.index).await.map_err(failed)?;
    Ok(stored)
}
