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
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = waiting.len() < WAITING_MAX;
        if has_room {
            waiting.push(leaf);
        }
        has_room
    }

    /// Writes all to a log, and returns when they are durable.
    pub async fn write(&self, log: &Log) -> Result<(), LogFailed> {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut last = None;
        for leaf in waiting {
            last = Some(log.append(leaf)?);
        }
        match last {
            Some(last) => log.durable(last).await,
            None => Ok(()),
        }
    }
}

/// Reloads, and orders of operators: none of them can be many by mistake.
const WAITING_MAX: usize = 256;

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
