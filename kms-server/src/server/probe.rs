//! Tries the current version of the master key while the daemon serves, and locks the daemon when that is refused.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::audit::{Leaf, Outcome};
use crate::backend::watch::{LockCause, Verdict, Watch, WatchSettings};
use crate::backend::{BackendError, EpochWrap, MasterKeyBackend, Probed};
use crate::keyring::Keyring;
use crate::lock::Lock;
use crate::noun::Clock;

/// What probing takes.
pub(super) struct Probing {
    pub(super) settings: WatchSettings,
    pub(super) backend: Arc<dyn MasterKeyBackend>,
    pub(super) backend_kind: &'static str,
    pub(super) epoch_wrap: EpochWrap,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) probed: Arc<Probed>,
    pub(super) lock: Arc<Lock>,
}

impl Probing {
    /// Probes until `stop`, or until the daemon is to lock itself.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut watch = Watch::new(self.settings, self.clock.since_boot());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.probe_every) => {}
            }
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = try_key(&*self.backend, &self.epoch_wrap) => found,
            };
            let verdict = watch.heard(found.as_ref().err(), self.clock.since_boot());
            self.probed.note(self.clock.now(), found.as_ref().err());
            if let Verdict::Lock(cause) = verdict {
                return self.lock_itself(cause).await;
            }
        }
    }

    /// Writes the record, and asks for the lock, whatever becomes of the record: without one the node has failed.
    async fn lock_itself(&self, cause: LockCause) {
        let leaf = Leaf {
            sub: Some("kms-server".into()),
            backend: Some(self.backend_kind.into()),
            mref: Some(self.epoch_wrap.version.0.clone().into()),
            epoch: Some(self.epoch_wrap.context.epoch.get()),
            why: Some(cause.as_str().into()),
            ..Leaf::of("Lock")
        };
        let log = self.keyring.log();
        let written = async { log.durable(self.lock.record(log, leaf.ended(Outcome::Ok))?).await };
        match tokio::time::timeout(RECORD_TIME_MAX, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the record of the lock could not be written"),
            Err(_) => tracing::error!("the record of the lock is not durable in time"),
        }
        self.lock.ask(cause);
    }
}

/// Asks the backend for the current key once, and lets go of it at once.
pub(super) async fn try_key(backend: &dyn MasterKeyBackend, epoch_wrap: &EpochWrap) -> Result<(), BackendError> {
    // A panic in a library ends a probe, and not probing.
    let tried = std::panic::AssertUnwindSafe(epoch_wrap.open(backend)).catch_unwind();
    match tokio::time::timeout(PROBE_TIME_MAX, tried).await {
        Ok(Ok(opened)) => opened.map(drop),
        Ok(Err(_)) => Err(BackendError::Unavailable("the probe ended in a panic".into())),
        Err(_) => Err(BackendError::Unavailable("no answer within a minute".into())),
    }
}

const RECORD_TIME_MAX: Duration = Duration::from_secs(5);

/// Longer than any backend's own limit: the software HSM may make a try of its PIN wait for half a minute.
const PROBE_TIME_MAX: Duration = Duration::from_secs(60);
