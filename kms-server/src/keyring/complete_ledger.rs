//! Brings the ledger up to the log: a crash may have come between the two, and the file may have
//! been lost.

use crate::audit::ledger::is_destruction;
use crate::audit::replay::ReplayError;
use crate::audit::{Ledger, LedgerError, StoredLeaf};

use super::open::OpenClusterError;

/// Appends the destructions that are missing up to `last`, the log's last one: from the leaves that
/// were read anyway, or else by the `chain` in the log between the two. Returns how many.
pub(super) fn complete_ledger(
    ledger: &mut Ledger,
    last: Option<u64>,
    read: &[StoredLeaf],
    chain: impl FnOnce(Option<u64>, u64) -> Result<Vec<StoredLeaf>, ReplayError>,
) -> Result<usize, OpenClusterError> {
    let known = ledger.last();
    // What cannot be read of it any more counts as well: it must not be forgotten.
    if let Some(newest) = known.max(ledger.claims()).filter(|newest| Some(*newest) > last) {
        return Err(LedgerError::Newer { ledger: newest, log: last }.into());
    }
    let Some(last) = last else { return Ok(0) };
    let is_new = |stored: &&StoredLeaf| is_destruction(stored) && Some(stored.index) > known;
    let mut missing: Vec<StoredLeaf> = read.iter().filter(is_new).cloned().collect();
    if !leads(known, &missing, last) {
        tracing::warn!("the ledger lacks destructions: it is completed from the log, which may take a while");
        missing = chain(known, last)?;
        if !leads(known, &missing, last) {
            return Err(LedgerError::Gap { ledger: known, log: last }.into());
        }
    }
    for stored in &missing {
        ledger.append(stored)?;
    }
    Ok(missing.len())
}

/// Tells whether each names the one before, from the ledger's last to the log's.
fn leads(known: Option<u64>, missing: &[StoredLeaf], last: u64) -> bool {
    let mut before = known;
    missing.iter().all(|stored| before.replace(stored.index) == stored.leaf.pd) && before == Some(last)
}
