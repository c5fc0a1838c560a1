//! Which changes are made together: those that wait, in groups whose members do not touch each other.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::noun::TenantName;

use super::mutation::Changed;
use super::terms::{Asked, Terms};
use super::{Change, Error, GateUse, Keyring, Who};

/// A change waiting to be made.
pub(super) struct Job {
    pub(super) asked: Asked,
    pub(super) reply: oneshot::Sender<Result<Changed, Error>>,
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// The most changes that may wait to destroy managed data keys.
pub(super) const DEK_DESTRUCTIONS_MAX: usize = 256;

impl Keyring {
    /// Makes a change, and returns when its outcome is durable. It runs to completion even if
    /// nobody waits for it any more.
    pub async fn change(&self, change: Change, terms: Terms, who: Who) -> Result<Changed, Error> {
        let mut submitted = self.submit_all(vec![change], &terms, &who)?;
        let Some(answer) = submitted.pop() else { return Err(Error::ShuttingDown) };
        answer.await.unwrap_or(Err(Error::ShuttingDown))
    }

    /// Puts changes among those that wait, all or none; they are made whether or not somebody waits for
    /// their answers.
    pub(super) fn submit_all(
        &self,
        changes: Vec<Change>,
        terms: &Terms,
        who: &Who,
    ) -> Result<Vec<oneshot::Receiver<Result<Changed, Error>>>, Error> {
        let permits = self.jobs.try_reserve_many(changes.len()).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(()) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(()) => Error::ShuttingDown,
        })?;
        // Whoever erases in masses leaves room for those who suspend, disable and destroy.
        let masses = changes.iter().filter(|change| matches!(change, Change::DestroyDataKeys(_))).count();
        let masses = u32::try_from(masses).map_err(|_| Error::Overloaded)?;
        let lane = Arc::clone(&self.dek_destructions).try_acquire_many_owned(masses);
        let mut lane = lane.map_err(|_| Error::Overloaded)?;
        let submit = |(change, permit): (Change, mpsc::Permit<'_, Job>)| {
            let (reply, answer) = oneshot::channel();
            let room = if matches!(change, Change::DestroyDataKeys(_)) { lane.split(1) } else { None };
            permit.send(Job { asked: Asked { change, terms: terms.clone(), who: who.clone() }, reply, _room: room });
            answer
        };
        Ok(changes.into_iter().zip(permits).map(submit).collect())
    }
}

/// Takes the next group: a change that does something with a gate goes alone, others together if each is of
/// another tenant and no two of them have one request id. Changes of one tenant stay in their order.
pub(super) fn next_group(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut group = Vec::new();
    let mut tenants: HashSet<Option<TenantName>> = HashSet::new();
    let mut names: HashSet<[u8; 16]> = HashSet::new();
    while let Some(Job { asked, .. }) = waiting.front() {
        let alone = asked.change.gate_use() != GateUse::Open;
        let full = group.len() == GROUP_MAX || (alone && !group.is_empty());
        let repeats = asked.name().is_some_and(|name| !names.insert(name));
        if full || repeats || !tenants.insert(asked.change.tenant().cloned()) {
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
