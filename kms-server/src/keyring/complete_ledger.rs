//! Brings the ledger up to the log: a crash may have come between the two, and the file may have
//! been lost.

use crate::audit::ledger::is_destruction;
use crate::audit::replay::ReplayError;
use crate::audit::{Ledger, LedgerError, StoredLeaf};

use super::open::OpenClusterError;

/// Appends the destructions that are missing up to `last`, the log's last one: from the leaves that
/// were read anyway, or else from a `pass` over the log from a leaf on. Returns how many.
pub(super) fn complete_ledger(
    ledger: &mut Ledger,
    last: Option<u64>,
    read: &[StoredLeaf],
    pass: impl FnOnce(u64) -> Result<Vec<StoredLeaf>, ReplayError>,
) -> Result<usize, OpenClusterError> {
    let known = ledger.last();
    let Some(last) = last.filter(|last| Some(*last) >= known) else {
        return match known {
            None => Ok(0),
            Some(known) => Err(LedgerError::Newer { ledger: known, log: last }.into()),
        };
    };
    let is_new = |stored: &&StoredLeaf| is_destruction(stored) && Some(stored.index) > known;
    let mut missing: Vec<StoredLeaf> = read.iter().filter(is_new).cloned().collect();
    if !leads(known, &missing, last) {
        tracing::warn!("the ledger lacks destructions: it is completed from the log, which may take a while");
        missing = pass(known.map_or(0, |known| known + 1))?;
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
    missing.iter().all(|stored| std::mem::replace(&mut before, Some(stored.index)) == stored.leaf.pd)
        && before == Some(last)
}
