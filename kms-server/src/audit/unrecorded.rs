//! Records of what was done while there was no log to write them to: on a node that was locked. They are written first of
//! all when there is one again.

use std::sync::{Mutex, PoisonError};

use super::{Leaf, Log, LogFailed};

/// Records that wait for a log, in their order.
#[derive(Debug, Default)]
pub struct Unrecorded(Mutex<Vec<Leaf>>);

impl Unrecorded {
    /// Adds one; not if too many wait: then what it tells of must not be done.
    #[must_use]
    pub fn add(&self, leaf: Leaf) -> bool {
        self.add_below(leaf, WAITING_MAX)
    }

    /// As [`Unrecorded::add`], of what is not worth a place that something graver may need.
    #[must_use]
    pub fn add_minor(&self, leaf: Leaf) -> bool {
        self.add_below(leaf, MINOR_WAITING_MAX)
    }

    fn add_below(&self, leaf: Leaf, limit: usize) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = waiting.len() < limit;
        if has_room {
            waiting.push(leaf);
        }
        has_room
    }

    /// Tells in the process log what will have no record: the process ends without having had a log again.
    pub fn tell_lost(&self) {
        for leaf in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (op, sub) = (leaf.op.as_deref(), leaf.sub.as_deref());
            tracing::warn!(op, sub, "this was done while the node was locked, and has no record in the audit log");
        }
    }

    /// Writes all to a log, and returns when they are durable.
    pub async fn write(&self, log: &Log) -> Result<(), LogFailed> {
        let mut last = None;
        {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(leaf) = waiting.first() {
                last = Some(log.append(leaf.clone())?);
                waiting.remove(0);
            }
        }
        match last {
            Some(last) => log.durable(last).await,
            None => Ok(()),
        }
    }
}

/// Reloads, and orders of operators: none of them can be many by mistake.
const WAITING_MAX: usize = 256;
const MINOR_WAITING_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded() {
        let unrecorded = Unrecorded::default();
        for _ in 0..WAITING_MAX {
            assert!(unrecorded.add(Leaf::of("Reload")));
        }
        assert!(!unrecorded.add(Leaf::of("Reload")));
    }
}
