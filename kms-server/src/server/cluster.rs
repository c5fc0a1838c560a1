//! The cluster of a session: its store, opened, and all that stands on it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::audit::{Log, StoredLeaf};
use crate::keyring::Settled;
use crate::keyring::due::HELD_MESSAGE;
use crate::keyring::open::{Opened, Opening};
use crate::noun::Random;
use crate::noun::random::OsRandom;
use crate::reload::policy_evidence;
use crate::store::Store;

use super::Front;

/// An open cluster.
pub(super) struct Cluster {
    pub(super) opened: Opened,
    pub(super) store: Arc<dyn Store>,
    /// What an operator should look at.
    pub(super) warnings: Vec<String>,
}

impl Cluster {
    /// Opens it: the one road, of a start and of an unlock. Blocks, with a runtime of its own.
    pub(super) fn open(front: &Front) -> anyhow::Result<Self> {
        let (store, salvaged_bytes) =
            front.store.open(&front.settings.store_dir()).context("the store cannot be opened")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let opened = runtime.block_on(open(front, &store, salvaged_bytes));
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // So that it can be opened again, where that is tried.
                if let Err(error) = runtime.block_on(front.store.release(&*store)) {
                    tracing::error!(%error, "the store could not be closed");
                }
                return Err(error);
            }
        };
        let mut warnings = Vec::new();
        if opened.clock_held {
            tracing::warn!("{HELD_MESSAGE}");
            warnings.push(HELD_MESSAGE.to_owned());
        }
        if opened.settled != Settled::default() {
            let Settled { recovered, aborted, torn_bytes, recorded, carried_out } = opened.settled;
            tracing::warn!(
                recovered,
                aborted,
                torn_bytes,
                recorded,
                carried_out,
                "the last run ended in the middle of something, or something was put back: it was settled"
            );
        }
        Ok(Self { opened, store, warnings })
    }

    /// Closes it before it was used.
    pub(super) async fn close(self, front: &Front) -> anyhow::Result<()> {
        let Self { opened, store, .. } = self;
        opened.keyring.log().close();
        drop(opened);
        Ok(front.store.release(&*store).await?)
    }
}

async fn open(front: &Front, store: &Arc<dyn Store>, salvaged_bytes: Option<u64>) -> anyhow::Result<Opened> {
    let Front { settings, prepared, clock, .. } = front;
    let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
    let for_backend = Arc::clone(&rng);
    let opening = Opening {
        store: Arc::clone(store),
        salvaged_bytes,
        evidence: Some(policy_evidence(front.policy.print())),
        backend: &|cluster| prepared.open(cluster, Arc::clone(&for_backend)),
        backend_kind: prepared.kind(),
        log_dir: &settings.log_dir(),
        ledger_dir: &settings.ledger_dir(),
        node: settings.node.clone(),
        segment_bytes: settings.segment_bytes,
        flush_on_cores: true,
        settings: settings.keyring,
        roles_in_force: front.roles_in_force(),
        clock: Arc::clone(clock),
        rng,
    };
    Ok(opening.run().await?)
}

/// Reads what the start did not need of the log, and says when it is not of one piece: it is served all the same,
/// since no key hangs on it, but somebody must know.
pub(super) fn verify_older(log: &Log, dir: &Path, began: u64, stop: &CancellationToken) {
    match log.verify_before(dir, began, || stop.is_cancelled()) {
        Ok(Some(segments)) => tracing::info!(segments, "the older part of the audit log is whole"),
        Ok(None) => {}
        Err(error) => {
            metrics::counter!("kms_audit_damage_total").increment(1);
            tracing::error!(%error, "the older part of the audit log is damaged: what was acknowledged since is whole");
        }
    }
}

/// Hands out what the log tells of managed data keys that were destroyed, the newest first, until nobody wants it.
pub(super) fn read_older_dek_destructions(log: &Log, dir: &Path, last: u64, tell: &mpsc::Sender<StoredLeaf>) {
    match log.dek_destructions(dir, last, |stored| tell.blocking_send(stored).is_ok()) {
        Ok(count) => tracing::info!(count, "older destructions of data keys were held against the store"),
        Err(error) => tracing::error!(%error, "older destructions of data keys cannot be held against the store"),
    }
}

/// How many destructions of data keys are read ahead.
pub(super) const OLDER_AT_ONCE: usize = 16;
