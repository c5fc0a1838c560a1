//! Makes a cluster: its master key version, first epoch, cluster secret, log, and store.
//!
//! In this order: the backend's version -> the log with the intent of EpochBegin -> the store's
//! first batch -> the outcome. A directory whose store lacks that batch is an unfinished init: it
//! holds nothing that anybody was promised, and is made anew after it was removed.

use std::path::Path;
use std::sync::Arc;

use crate::audit::{Leaf, Log, LogSettings, Phase};
use crate::backend::{EpochContext, EpochWrap, MasterKeyBackend};
use crate::crypto::{AuditSeed, ClusterSecret, EpochKey, EpochPlace};
use crate::kill_point::{Point, pass};
use crate::noun::{Clock, EpochNumber, KeyVersion, Random, Uid};
use crate::rows;
use crate::store::{Batch, Precondition, Store, Write};

use super::terms::Etag;
use super::{Error, row, row_key};

/// Who makes the cluster, and how its log is called.
pub struct Birth<'a> {
    /// The cluster's uid, which the backend was opened for.
    pub cluster: Uid,
    /// The backend's kind, such as `software`.
    pub backend_kind: &'a str,
    /// The backend.
    pub backend: &'a dyn MasterKeyBackend,
    /// Where the log's segments go; must not exist.
    pub log_dir: &'a Path,
    /// How the log is kept.
    pub log: LogSettings,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: &'a dyn Random,
}

impl Birth<'_> {
    /// Makes everything. `store` is called once the log exists, and must give an empty store.
    pub async fn run<F, S>(self, store: F) -> Result<Arc<dyn Store>, Error>
    where
        F: FnOnce() -> S,
        S: Future<Output = Result<Arc<dyn Store>, Error>>,
    {
        let place = EpochPlace { id: Uid::generate(self.rng), number: EpochNumber::FIRST };
        let context = EpochContext { cluster: self.cluster, epoch_id: place.id, epoch: place.number };
        let epoch_key = EpochKey::generate(self.rng)?;
        let version = self.backend.create_version(&context).await?;
        pass(Point::InitKeystore);
        let EpochWrap { version, ciphertext, kcv, .. } =
            EpochWrap::make(self.backend, version, context, &epoch_key).await?;

        let secret = ClusterSecret::generate(self.rng)?;
        let (record_mac, secret_version) = (secret.record_mac_key()?, KeyVersion::FIRST);
        let seed = AuditSeed::generate(self.rng)?;
        let origin = self.log.origin.clone();
        let wrapped_seed =
            secret.wrap_key()?.wrap_audit_seed(self.cluster, KeyVersion::FIRST, &origin, &seed, self.rng);
        let wrapped_secret = epoch_key.wrap_cluster_secret(place, self.cluster, secret_version, &secret, self.rng);

        let log =
            Log::create(self.log_dir, self.log, secret.frame_mac_key()?, Arc::clone(&self.clock)).map_err(|error| {
                tracing::error!(%error, "the audit log could not be made");
                Error::Log(crate::audit::LogFailed::Failed)
            })?;
        pass(Point::InitLog);
        let begin = Leaf {
            cluster: Some(self.cluster.to_string().into()),
            epoch: Some(place.number.get()),
            backend: Some(self.backend_kind.to_owned().into()),
            mref: Some(version.0.clone().into()),
            ..Leaf::of("EpochBegin")
        };
        let intent = log.append(Leaf { ph: Some(Phase::Intent), seq: Some(1), ..begin.clone() })?;
        log.durable(intent).await?;
        pass(Point::InitIntent);

        let (now, anchor) = (self.clock.now(), log.anchor());
        let epoch_row = rows::Epoch {
            rev: 1,
            epoch_id: place.id.as_bytes().to_vec(),
            number: place.number.get(),
            state: rows::EpochState::Current.into(),
            wraps: vec![rows::EpochWrap { backend: self.backend_kind.to_owned(), reference: version.0, ciphertext }],
            kcv: kcv.to_vec(),
            created_ms: now,
            begin_index: intent,
        };
        let cluster_row = rows::Cluster {
            rev: 1,
            uid: self.cluster.as_bytes().to_vec(),
            secret_version: secret_version.get(),
            wrapped_secret: wrapped_secret.as_bytes().to_vec(),
            created_ms: now,
        };
        let seed_row = rows::AuditSeed {
            rev: 1,
            n: KeyVersion::FIRST.get(),
            origin,
            wrapped_seed: wrapped_seed.as_bytes().to_vec(),
            public_key: seed.public_key().to_vec(),
            created_ms: now,
        };
        let position = rows::Position {
            rev: 1,
            seq: 1,
            anchor_size: anchor.size,
            anchor_mac: anchor.mac.to_vec(),
            last_mutation_index: None,
            last_destruction_index: None,
            first_intent_index: Some(intent),
            ledger_mac: Vec::new(),
            clock_held: false,
            last_dek_destruction_index: None,
        };
        let (at_epoch, at_cluster) = (row_key::epoch(place.number), row_key::cluster());
        let (at_seed, at_position) = (row_key::audit_seed(KeyVersion::FIRST), row_key::position());
        let epoch_record = row::seal(&record_mac, secret_version, &at_epoch, &epoch_row);
        let batch = Batch {
            preconditions: [&at_epoch, &at_cluster, &at_seed, &at_position]
                .map(|at| Precondition::Absent(at.clone()))
                .to_vec(),
            writes: vec![
                Write::Put(at_cluster.clone(), row::seal(&record_mac, secret_version, &at_cluster, &cluster_row)),
                Write::Put(at_seed.clone(), row::seal(&record_mac, secret_version, &at_seed, &seed_row)),
                Write::Put(at_position.clone(), row::seal(&record_mac, secret_version, &at_position, &position)),
                Write::Put(at_epoch, epoch_record.clone()),
            ],
        };
        let store = store().await?;
        pass(Point::InitStore);
        store.commit(batch).await?;
        pass(Point::InitBatch);
        let outcome =
            Leaf { in_: Some(intent), seq: Some(1), rh: Some(Etag::of(&epoch_record).to_string().into()), ..begin };
        let outcome = log.append(outcome.ended(crate::audit::Outcome::Ok))?;
        log.durable(outcome).await?;
        pass(Point::InitOutcome);
        log.close();
        Ok(store)
    }
}
