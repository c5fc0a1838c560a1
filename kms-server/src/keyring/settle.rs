//! Settles what a crash left: intents without outcome get the one that the store tells.
//!
//! An intent whose `seq` the store has reached was done, and is RECOVERED; one with a greater `seq`
//! was not, and is ABORTED: nothing was promised.

use crate::audit::replay::Replayed;
use crate::audit::{Leaf, Ledger, Log, Outcome, Phase, StoredLeaf};
use crate::crypto::RecordMacKey;
use crate::noun::{EpochNumber, KeyVersion, TenantName, Uid, UnixMillis};
use crate::rows;
use crate::store::Store;

use super::mutation::Position;
use super::open::OpenClusterError;
use super::{LEASE_MS, VERSIONS_MAX, row, row_key};

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

/// What it takes to say what was done.
pub(super) struct Settling<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) record_mac: &'a RecordMacKey,
    pub(super) epoch: EpochNumber,
    pub(super) now: UnixMillis,
}

/// What the mutation leaves of the log say, since the store's last batch.
pub(super) struct Story {
    pub(super) last_mutation: Option<u64>,
    pub(super) last_destruction: Option<u64>,
    /// Intents without outcome, in order.
    open: Vec<StoredLeaf>,
    torn_bytes: u64,
}

impl Story {
    pub(super) fn read(replayed: &Replayed, store_seq: u64) -> Result<Self, OpenClusterError> {
        let (mut last_mutation, mut last_destruction, mut log_seq) = (None, None, 0);
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
                if leaf.ph == Some(Phase::Fenced) {
                    last_destruction = Some(stored.index);
                }
            }
        }
        if log_seq > store_seq {
            return Err(OpenClusterError::StoreOlder { lacks: log_seq - store_seq, store: store_seq, log: log_seq });
        }
        Ok(Self { last_mutation, last_destruction, open, torn_bytes: replayed.torn_bytes })
    }

    /// Writes the outcomes that a crash kept from being written.
    pub(super) async fn settle(
        &self,
        log: &Log,
        ledger: &mut Ledger,
        position: &mut Position,
        with: &Settling<'_>,
    ) -> Result<Settled, OpenClusterError> {
        let Settling { store, record_mac, epoch, now } = *with;
        let mut settled = Settled { torn_bytes: self.torn_bytes, ..Settled::default() };
        for intent in &self.open {
            let was_done = intent.leaf.seq.is_some_and(|seq| seq <= position.seq);
            let mut outcome = Leaf { ph: None, in_: Some(intent.index), ..intent.leaf.clone() };
            if !was_done {
                append_durable(log, outcome.ended(Outcome::Aborted)).await?;
                settled.aborted += 1;
                continue;
            }
            outcome.pm = position.last_mutation;
            if let Some(tombstone) = fenced_by(store, record_mac, intent).await? {
                outcome.ph = Some(Phase::Fenced);
                outcome.tkc = tombstone.tkc_complement.first().map(|complement| inverted(complement).into());
                outcome.keys = Some(tombstone.keys);
                outcome.deks = Some(tombstone.deks);
                outcome.lease = Some(tombstone.fenced_ms + LEASE_MS);
                outcome.epoch = Some(tombstone.epoch);
            } else if let Some((versions, newest)) = shells_of(store, intent).await? {
                outcome.ph = Some(Phase::Fenced);
                outcome.tkc = newest.map(|complement| inverted(&complement).into());
                outcome.keys = Some(versions);
                outcome.deks = Some(0);
                // When it was done is not known; nobody used it since.
                outcome.lease = Some(now + LEASE_MS);
                outcome.epoch = Some(epoch.get());
            }
            let fenced = outcome.ph == Some(Phase::Fenced);
            if fenced {
                outcome.pd = position.last_destruction;
            }
            let stored = append_durable(log, outcome.ended(Outcome::Recovered)).await?;
            position.last_mutation = Some(stored.index);
            if fenced {
                position.last_destruction = Some(stored.index);
                ledger.append(&stored)?;
            }
            settled.recovered += 1;
        }
        Ok(settled)
    }
}

/// Returns the tombstone that this intent made, if it fenced a tenant.
async fn fenced_by(
    store: &dyn Store,
    record_mac: &RecordMacKey,
    intent: &StoredLeaf,
) -> Result<Option<rows::Tombstone>, OpenClusterError> {
    let at = |source| OpenClusterError::Row { what: "destroyed tenant", source };
    if intent.leaf.op.as_deref() != Some("DestroyTenant") {
        return Ok(None);
    }
    let Some(name) = intent.leaf.ten.as_deref().and_then(|name| name.parse::<TenantName>().ok()) else {
        return Ok(None);
    };
    let place = row_key::tenant_name(&name);
    let Some(record) = store.get(&place).await? else { return Ok(None) };
    let named: rows::TenantName = row::open(record_mac, &place, &record).map_err(at)?;
    Ok(named.tombstone.filter(|tombstone| tombstone.intent_index == intent.index))
}

/// Returns how many versions this intent destroyed, and the complement of the newest one's commitment.
async fn shells_of(store: &dyn Store, intent: &StoredLeaf) -> Result<Option<(u64, Option<Vec<u8>>)>, OpenClusterError> {
    let at = |source| OpenClusterError::Row { what: "destroyed key", source };
    if !matches!(intent.leaf.op.as_deref(), Some("DestroyKey" | "DestroyKeyVersion")) {
        return Ok(None);
    }
    let uid = |text: &Option<std::borrow::Cow<'static, str>>| {
        hex::decode(text.as_deref().unwrap_or_default()).ok().and_then(|bytes| Uid::from_slice(&bytes))
    };
    let (Some(tenant), Some(key)) = (uid(&intent.leaf.tuid), uid(&intent.leaf.key)) else { return Ok(Some((0, None))) };
    let prefix = match intent.leaf.kv.and_then(KeyVersion::new) {
        Some(version) => row_key::key_version(tenant, key, version),
        None => row_key::key_versions(tenant, key),
    };
    let page = store.list(prefix.family, &prefix.key, None, VERSIONS_MAX as usize).await?;
    let newest = match page.rows.last() {
        Some((_, record)) => Some(row::peek::<rows::KeyVersion>(record).map_err(at)?.kekc_complement),
        None => None,
    };
    Ok(Some((page.rows.len() as u64, newest)))
}

/// Returns a commitment in hex, of its complement.
fn inverted(complement: &[u8]) -> String {
    hex::encode(complement.iter().map(|byte| !byte).collect::<Vec<u8>>())
}

pub(super) async fn append_durable(log: &Log, leaf: Leaf) -> Result<StoredLeaf, OpenClusterError> {
    let failed = |error: crate::audit::LogFailed| OpenClusterError::LogWrite(error.into());
    let stored = log.append_stored(leaf).map_err(failed)?;
    log.durable(stored.index).await.map_err(failed)?;
    Ok(stored)
}
