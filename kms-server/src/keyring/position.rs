//! Where the store stands in the log: the row `s`, which every batch moves on.

use crate::crypto::RecordMacKey;
use crate::rows;
use crate::store::{Batch, Precondition, Write};

use super::{Error, row, row_key};

/// Where the store stands: the row `s` and what the next mutation needs of it.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) rev: u64,
    pub(super) seq: u64,
    pub(super) last_mutation: Option<u64>,
    pub(super) last_destruction: Option<u64>,
    /// The last outcome that destroyed managed data keys.
    pub(super) last_dek_destruction: Option<u64>,
    /// The record as stored.
    pub(super) record: Vec<u8>,
    /// The log's segment when the anchor was moved last.
    pub(super) segment: u64,
}

impl Position {
    /// Puts this position into a batch, which is made only where the store stands at the one before.
    pub(super) fn join(&self, batch: &mut Batch, before: &Position) {
        let place = row_key::position();
        batch.preconditions.push(Precondition::Equals(place.clone(), before.record.clone()));
        batch.writes.push(Write::Put(place, self.record.clone()));
    }

    /// Reads the row `s`.
    pub(super) fn open(mac: &RecordMacKey, record: Vec<u8>) -> Result<(Self, rows::Position), Error> {
        let place = row_key::position();
        let found: rows::Position = row::open(mac, &place, &record)?;
        let position = Self {
            rev: found.rev,
            seq: found.seq,
            last_mutation: found.last_mutation_index,
            last_destruction: found.last_destruction_index,
            last_dek_destruction: found.last_dek_destruction_index,
            record,
            segment: u64::MAX,
        };
        Ok((position, found))
    }
}
