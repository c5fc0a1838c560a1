//! Every reply that the callers of a site got, to be held against the audit log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Refused;

/// A reply, without what was in it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The RPC's name.
    pub op: &'static str,
    /// What the daemon calls the request; it sends this with each reply of its own.
    pub request_id: Option<String>,
    /// Nothing for a success.
    pub refused: Option<Refused>,
    /// The details of a refusal, as they are on the wire.
    pub details: Vec<u8>,
}

/// The replies of all callers of a site, in the order they came in.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Vec<Reply>>>);

impl Ledger {
    pub(crate) fn enter(&self, reply: Reply) {
        self.lock().push(reply);
    }

    /// Returns all successes.
    pub fn successes(&self) -> Vec<Reply> {
        self.lock().iter().filter(|reply| reply.refused.is_none()).cloned().collect()
    }

    /// Returns all refusals that the daemon itself gave, and not the connection.
    pub fn refusals(&self) -> Vec<Reply> {
        let said = |reply: &&Reply| reply.refused.as_ref().is_some_and(|refused| refused.reason.is_some());
        self.lock().iter().filter(said).cloned().collect()
    }

    /// Returns all that refusals say: their sentences and their details.
    pub fn said(&self) -> Vec<u8> {
        let mut said = Vec::new();
        for reply in self.lock().iter() {
            said.extend(reply.refused.iter().flat_map(|refused| refused.message.bytes()));
            said.extend(&reply.details);
        }
        said
    }

    /// Returns all replies that came from the daemon itself.
    pub fn replies(&self) -> Vec<Reply> {
        let said = |reply: &&Reply| reply.refused.as_ref().is_none_or(|refused| refused.reason.is_some());
        self.lock().iter().filter(said).cloned().collect()
    }

    /// Returns how many successes each RPC had.
    pub fn successes_by_op(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for reply in self.successes() {
            *counts.entry(reply.op).or_default() += 1;
        }
        counts
    }

    /// Returns how many replies there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Reply>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
