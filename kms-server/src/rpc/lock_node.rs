//! Lock: wipes the keys of this node. Unlock, of a node that serves: nothing.
//!
//! What a locked node answers is in `locked.rs`.

use std::sync::Arc;

use kms_proto::v1;

use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::audit::{Leaf, Outcome};
use crate::backend::watch::LockCause;
use crate::keyring;
use crate::lock;
use crate::policy::{Action, Resource};

pub(super) struct Lock {
    validate_only: bool,
}

impl Operation for Lock {
    type Wire = v1::LockRequest;
    type Reply = v1::LockResponse;
    const NAME: &'static str = "Lock";
    const FOR_OPERATORS: bool = true;

    fn parse(wire: v1::LockRequest) -> Result<Self, Error> {
        Ok(Self { validate_only: wire.validate_only })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Lock, Resource::Cluster)]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::LockResponse>, Failed> {
        if self.validate_only {
            return Ok(Done::rehearsed(v1::LockResponse {}));
        }
        let leaf = Leaf { why: Some(LockCause::Operator.as_str().into()), ..Leaf::of(Self::NAME) };
        let leaf = call.who.sign(leaf).ended(Outcome::Ok);
        let (lock, log) = (Arc::clone(&call.api.lock), Arc::clone(call.keyring().log()));
        let by = call.principal.as_str().to_owned();
        // Not to be taken back from here on, whether the caller hangs up or a disk fails. The marker before the record:
        // the other order ends, at worst, in a record of a lock that no restart keeps.
        let ordered = tokio::task::spawn_blocking(move || {
            // First of all: a disk that hangs holds up marker and record, and not the lock.
            lock.ask(LockCause::Operator);
            let marked = lock::mark(lock.data_dir(), &by);
            (marked, lock.record(&log, leaf))
        });
        let (marked, appended) = ordered.await.map_err(|_| Error::Locking)?;
        if let Err(error) = marked {
            tracing::error!(%error, "the marker of a lock could not be written: the node locks itself, but not its next start");
            return Err(Error::MarkerFailed.into());
        }
        Ok(Done::written(v1::LockResponse {}, appended.map_err(keyring::Error::Log)?))
    }
}

pub(super) struct Unlock;

impl Operation for Unlock {
    type Wire = v1::UnlockRequest;
    type Reply = v1::UnlockResponse;
    const NAME: &'static str = "Unlock";
    const FOR_OPERATORS: bool = true;

    fn parse(_: v1::UnlockRequest) -> Result<Self, Error> {
        Ok(Self)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Unlock, Resource::Cluster)]
    }

    async fn perform(self, _: &Call<'_>) -> Result<Done<v1::UnlockResponse>, Failed> {
        Ok(Done::said(v1::UnlockResponse {}, Leaf { why: Some("NOT_LOCKED".into()), ..Leaf::default() }))
    }
}
