//! Which changes are made together: those that wait, in groups whose members do not touch each other.

use std::collections::{HashSet, VecDeque};

use tokio::sync::{mpsc, oneshot};

use crate::noun::TenantName;

use super::mutation::Changed;
use super::terms::{Asked, Terms};
use super::{Change, Error, Keyring, Who};

/// A change waiting to be made.
pub(super) struct Job {
    pub(super) asked: Asked,
    pub(super) reply: oneshot::Sender<Result<Changed, Error>>,
}

impl Keyring {
    /// Makes a change, and returns when its outcome is durable. It runs to completion even if
    /// nobody waits for it any more.
    pub async fn change(&self, change: Change, terms: Terms, who: Who) -> Result<Changed, Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { asked: Asked { change, terms, who }, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::ShuttingDown,
        })?;
        answer.await.unwrap_or(Err(Error::ShuttingDown))
    }
}

/// Takes the next group: a change that closes a gate goes alone, others together if each is of
/// another tenant and no two of them have one request id. Changes of one tenant stay in their order.
pub(super) fn next_group(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut group = Vec::new();
    let mut tenants: HashSet<TenantName> = HashSet::new();
    let mut names: HashSet<[u8; 16]> = HashSet::new();
    while let Some(Job { asked, .. }) = waiting.front() {
        let alone = asked.change.closes_gate();
        let full = group.len() == GROUP_MAX || (alone && !group.is_empty());
        let repeats = asked.name().is_some_and(|name| !names.insert(name));
        if full || repeats || !tenants.insert(asked.change.tenant().clone()) {
            break;
        }
        group.extend(waiting.pop_front());
        if alone {
            break;
        }
    }
    group
}

/// The most changes in one group.
pub(super) const GROUP_MAX: usize = 64;
