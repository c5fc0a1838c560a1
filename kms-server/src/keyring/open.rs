//! Opens a cluster: proves store, backend and log belong together, settles what a crash left, and
//! says in the log that the service started.
//!
//! The rows `c` and `e` are read first and trusted only after the backend's answer, the key check
//! value and their MACs agree. Then the log is read from where the store stands in it (design 8):
//! 1. the store's anchor must lie in the log, with that MAC;
//! 2. no outcome OK may have a greater `seq` than the store's;
//! 3. every destruction of the log must be in the ledger, and shown by the store: what is missing is
//!    appended, or carried out again;
//! 4. intents without outcome are settled: `seq` up to the store's was done, a greater one was not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::{Notify, Semaphore, mpsc};

use crate::audit::replay::{ReplayError, destroys_data_keys, destructions, read_unverified, replay};
use crate::audit::{Anchor, Leaf, Ledger, LedgerError, Log, LogSettings, Outcome};
use crate::backend::{BackendError, EpochContext, EpochWrap, MasterKeyBackend, MasterKeyRef};
use crate::crypto::{EpochPlace, WrappedKey};
use crate::kill_point::{Point, pass};
use crate::noun::{Clock, EpochNumber, KeyVersion, Random, Uid};
use crate::rows;
use crate::store::{Store, StoreError};

use super::cache::{Cache, Entry};
use super::complete_ledger::complete_ledger;
use super::data_key::{DataKeyWriter, lost_data_keys};
use super::due::{CLOCK_HELD, CLOCK_TRUSTED, is_far_past};
use super::grant::{GrantsInForce, RolesInForce};
use super::group::DEK_DESTRUCTIONS_MAX;
use super::load::wrapped;
use super::mutation::Mutator;
use super::position::Position;
use super::settle::{Settled, Story, append_durable};
use super::{ClusterKeys, Epoch, Error, Keyring, KeyringSettings, row, row_key};

/// Why a cluster does not open. Each says what was found, what was expected, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenClusterError {
    /// The store's first batch is missing.
    #[error(
        "this data directory is an unfinished `init`: nothing was ever stored in it; remove its hsm, seg and store directories and run `kms-server init` again"
    )]
    Unfinished,
    /// The store's first batch is missing, though the log goes on.
    #[error(
        "the store lacks its first rows, but the audit log has {records} records: the cluster was in use, and this store is not its own; put back the newest copy of the store, nothing was changed"
    )]
    Emptied {
        /// Records of the log.
        records: usize,
    },
    /// The store does not read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// A row is not what it should be.
    #[error("the store's row of the {what} is damaged, or of another cluster: restore the store from a backup")]
    Row {
        /// Which row.
        what: &'static str,
        /// Why.
        #[source]
        source: Error,
    },
    /// The backend did not unwrap the epoch key.
    #[error(
        "the master key backend did not unwrap the epoch key {epoch} of cluster {cluster}, which the store is of: do store and keystore belong together?"
    )]
    Backend {
        /// The cluster, as the store has it.
        cluster: Uid,
        /// The epoch.
        epoch: EpochNumber,
        /// Why.
        #[source]
        source: crate::backend::BackendError,
    },
    /// The backend's answer is another key.
    #[error(
        "the master key backend answered with another key than epoch {0}'s: check that it is the backend this cluster was made with"
    )]
    WrongEpochKey(EpochNumber),
    /// The epoch is not of a backend that is configured.
    #[error("epoch {epoch} is wrapped by the backend {found}, but {configured} is configured")]
    OtherBackend {
        /// The epoch.
        epoch: EpochNumber,
        /// Its backend.
        found: String,
        /// The one configured.
        configured: String,
    },
    /// The log is not the store's, or is damaged.
    #[error(transparent)]
    Log(#[from] ReplayError),
    /// The log cannot be written.
    #[error("the audit log cannot be written")]
    LogWrite(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store is older than the log.
    #[error(
        "the store lacks {lacks} acknowledged changes: it stands at change {store}, the log at {log}; put back the newest copy of the store, nothing was changed"
    )]
    StoreOlder {
        /// How many.
        lacks: u64,
        /// The store's `seq`.
        store: u64,
        /// The log's.
        log: u64,
    },
    /// The store is older than the log, or damaged.
    #[error(
        "the store lacks managed data keys that leaf {index} of the audit log tells of; put back the newest copy of the store, nothing was changed"
    )]
    DataKeysLost {
        /// The leaf.
        index: u64,
    },
    /// The ledger is not the log's, or newer than it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What was destroyed could not be destroyed again.
    #[error(
        "the ledger tells of a destruction at leaf {index} that the store does not show, and it could not be carried out again: restore the store from a backup"
    )]
    CarryOut {
        /// The index of the destruction.
        index: u64,
        /// Why.
        #[source]
        source: Error,
    },
    /// No room for even the first keys.
    #[error("the locked memory for keys is too small: raise RLIMIT_MEMLOCK")]
    Memory,
}

/// What a cluster is opened with.
pub struct Opening<'a> {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Bytes of its log that were damaged and set aside, if it had to be salvaged.
    pub salvaged_bytes: Option<u64>,
    /// What is in force from the start on, for its record.
    pub evidence: Option<String>,
    /// Opens the backend for the cluster that the store says it is.
    pub backend: &'a (dyn Fn(Uid) -> Result<Arc<dyn MasterKeyBackend>, crate::backend::BackendError> + Send + Sync),
    /// The kind of that backend.
    pub backend_kind: &'a str,
    /// The directory of the log's segments.
    pub log_dir: &'a Path,
    /// The directory of the ledger.
    pub ledger_dir: &'a Path,
    /// The node's name, in every leaf.
    pub node: String,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Whether idle cores write the log.
    pub flush_on_cores: bool,
    /// How the keyring behaves.
    pub settings: KeyringSettings,
    /// Is told of the roles that are in force by grants.
    pub roles_in_force: Box<RolesInForce>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Random>,
}

/// An open cluster.
pub struct Opened {
    /// Its keyring.
    pub keyring: Arc<Keyring>,
    /// What makes its changes; to be run.
    pub mutator: Mutator,
    /// What makes its managed data keys; to be run.
    pub data_keys: DataKeyWriter,
    /// The backend.
    pub backend: Arc<dyn MasterKeyBackend>,
    /// The current epoch's key, as the backend has wrapped it: what probes try.
    pub epoch_wrap: EpochWrap,
    /// Whether the clock is too far from where it was for dates to fire.
    pub clock_held: bool,
    /// The first segment of the log that was read: those before it are still to be verified.
    pub log_began: u64,
    /// The last destruction of managed data keys before that: it and those before it are still to be
    /// held against the store.
    pub older_dek_destruction: Option<u64>,
    /// What was settled, for people.
    pub settled: Settled,
}

impl Opening<'_> {
    /// Opens the cluster.
    pub async fn run(self) -> Result<Opened, OpenClusterError> {
        let at = |what| move |source: Error| OpenClusterError::Row { what, source };
        let Unverified { cluster_record, secret_version, wrapped_secret, epoch_record, backend_kind, epoch_wrap } =
            Unverified::read(&*self.store, self.log_dir).await?;
        let EpochContext { cluster: cluster_uid, epoch_id, epoch: number } = epoch_wrap.context;
        let place = EpochPlace { id: epoch_id, number };
        if backend_kind != self.backend_kind {
            return Err(OpenClusterError::OtherBackend {
                epoch: number,
                found: backend_kind,
                configured: self.backend_kind.to_owned(),
            });
        }
        let from_backend = |source| OpenClusterError::Backend { cluster: cluster_uid, epoch: number, source };
        let backend = (self.backend)(cluster_uid).map_err(from_backend)?;
        let key = epoch_wrap.open(&*backend).await.map_err(|error| match error {
            BackendError::WrongAnswer => OpenClusterError::WrongEpochKey(number),
            source => from_backend(source),
        })?;

        // The cluster secret, and with it the MACs of what was read so far.
        let secret = key
            .unwrap_cluster_secret(place, cluster_uid, secret_version, &wrapped_secret)
            .map_err(|error| at("cluster")(error.into()))?;
        let memory = |_| OpenClusterError::Memory;
        let record_mac = secret.record_mac_key().map_err(memory)?;
        let _: rows::Cluster = row::open(&record_mac, &row_key::cluster(), &cluster_record).map_err(at("cluster"))?;
        let epoch: rows::Epoch = row::open(&record_mac, &row_key::epoch(number), &epoch_record).map_err(at("epoch"))?;
        if epoch.epoch_id != place.id.as_bytes()
            || epoch.number != number.get()
            || epoch.state != i32::from(rows::EpochState::Current)
        {
            return Err(at("epoch")(Error::Damaged("not the current epoch")));
        }
        let seed_place = row_key::audit_seed(KeyVersion::FIRST);
        let seed_record = row_or_unfinished(&*self.store, self.log_dir, &seed_place).await?;
        let seed: rows::AuditSeed = row::open(&record_mac, &seed_place, &seed_record).map_err(at("audit seed"))?;
        let position_record = row_or_unfinished(&*self.store, self.log_dir, &row_key::position()).await?;
        let (mut position, position_row) = Position::open(&record_mac, position_record).map_err(at("position"))?;

        // The log, from where the store stands in it.
        let anchor_mac = position_row.anchor_mac[..]
            .try_into()
            .map_err(|_| at("position")(Error::Damaged("a MAC that has not 32 bytes")))?;
        let anchor = Anchor { size: position_row.anchor_size, mac: anchor_mac };
        let log_settings = LogSettings {
            node: self.node.clone(),
            origin: seed.origin,
            segment_bytes: self.segment_bytes,
            flush_on_cores: self.flush_on_cores,
        };
        let frame_mac = secret.frame_mac_key().map_err(memory)?;
        let from = position_row.first_intent_index.unwrap_or(anchor.size);
        let replayed =
            replay(self.log_dir, log_settings.origin_hash(), &frame_mac, anchor, from, &[CLOCK_HELD, CLOCK_TRUSTED])?;
        pass(Point::LogRead);
        if let Some(index) = lost_data_keys(&*self.store, replayed.last_data_keys.values()).await? {
            return Err(OpenClusterError::DataKeysLost { index });
        }
        let known = replayed.mutations.iter().find(|stored| destroys_data_keys(stored));
        let older_dek_destruction = known.map_or(position.last_dek_destruction, |first| first.leaf.px);
        let story = Story::read(&replayed, position.seq)?;
        position.last_mutation = story.last_mutation.or(position.last_mutation);
        position.last_destruction = story.last_destruction.or(position.last_destruction);
        position.last_dek_destruction = story.last_dek_destruction.or(position.last_dek_destruction);

        let origin_hash = log_settings.origin_hash();
        let mut ledger = Ledger::open(self.ledger_dir, origin_hash, secret.ledger_mac_key().map_err(memory)?)?;
        let recorded = complete_ledger(&mut ledger, position.last_destruction, &replayed.mutations, |known, last| {
            destructions(self.log_dir, origin_hash, &frame_mac, known, last)
        })?;
        // The same indices may be of another history, with a ledger that was put back.
        let ended = position_row.ledger_mac[..].try_into();
        if !position_row.ledger_mac.is_empty()
            && !ledger.has_passed(&ended.map_err(|_| at("position")(Error::Damaged("a MAC that has not 32 bytes")))?)?
        {
            return Err(LedgerError::Other.into());
        }

        pass(Point::LedgerComplete);
        // A later leaf than the row knows better; the last one may lie where no start reads any more.
        let told = replayed.last_told.filter(|told| told.index >= anchor.size);
        let told = told.map(|told| told.leaf.op.as_deref() == Some(CLOCK_HELD));
        let was_held = told.unwrap_or(position_row.clock_held);
        let clock_held = was_held || is_far_past(self.clock.now(), replayed.last_time);
        // Before anything is said at a time that may be wrong: the next start must know.
        let said_first = (clock_held && !was_held).then(|| Leaf::of(CLOCK_HELD).ended(Outcome::Ok));

        // Nothing is written to the log before all of this was found in order.
        let log_write = |error: std::io::Error| OpenClusterError::LogWrite(error.into());
        let (tail, torn_bytes) = (replayed.tail, replayed.torn_bytes);
        let log =
            Log::resume(self.log_dir, log_settings, frame_mac, Arc::clone(&self.clock), tail, torn_bytes, said_first)
                .map_err(log_write)?;
        let (mut settled, recovered) = story.settle(&log, &mut ledger, &mut position, self.clock.now()).await?;
        if let Some(bytes) = self.salvaged_bytes {
            let salvaged = Leaf { bytes: Some(bytes), ..Leaf::of("StoreSalvaged") };
            append_durable(&log, salvaged.ended(Outcome::Ok)).await?;
        }
        pass(Point::AllSettled);
        let start = Leaf {
            log: Some("kms1-audit".into()),
            cluster: Some(cluster_uid.to_string().into()),
            epoch: Some(number.get()),
            ev: self.evidence.map(Into::into),
            ..Leaf::of("Start")
        };
        append_durable(&log, start.ended(Outcome::Ok)).await?;
        pass(Point::StartRecorded);

        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let (new_data_keys, data_keys_waiting) = mpsc::channel(JOBS_MAX);
        let keyring = Arc::new(Keyring {
            store: self.store,
            log,
            clock: self.clock,
            rng: self.rng,
            settings: self.settings,
            cluster: ClusterKeys {
                uid: cluster_uid,
                secret_version,
                record_mac: Arc::new(record_mac),
                page_token: secret.page_token_key().map_err(memory)?,
            },
            epoch: Epoch { place, created: epoch.created_ms, key },
            cache: Cache::new(self.settings.tenants_max, self.settings.keys_max),
            no_tenant: Entry::new(),
            grants: GrantsInForce::new(self.roles_in_force),
            jobs,
            new_data_keys,
            days_of_answers: Default::default(),
            dek_destructions: Arc::new(Semaphore::new(DEK_DESTRUCTIONS_MAX)),
            rewrap: Notify::new(),
            seq: AtomicU64::new(position.seq),
            broken: AtomicBool::new(false),
            clock_held: AtomicBool::new(clock_held),
        });
        let mut mutator = Mutator::new(Arc::clone(&keyring), waiting, position, ledger);
        (settled.recorded, settled.carried_out) = (recorded, mutator.carry_out().await?);
        for told in [&replayed.mutations, &recovered] {
            settled.carried_out += mutator.carry_out_data_keys(told).await?;
        }
        let data_keys = DataKeyWriter::new(Arc::clone(&keyring), data_keys_waiting);
        keyring.put_grants_in_force().await.map_err(at("grants"))?;
        Ok(Opened {
            keyring,
            mutator,
            data_keys,
            older_dek_destruction,
            backend,
            epoch_wrap,
            clock_held,
            log_began: replayed.began,
            settled,
        })
    }
}

/// What the rows say of the cluster and its epoch before anything was verified: enough to ask the backend, whose answer,
/// with the key check value and the rows' MACs, shows whether it holds.
pub struct Unverified {
    /// The backend's kind.
    pub backend_kind: String,
    /// The epoch's key, as the backend has wrapped it.
    pub epoch_wrap: EpochWrap,
    cluster_record: Vec<u8>,
    secret_version: KeyVersion,
    wrapped_secret: WrappedKey,
    epoch_record: Vec<u8>,
}

impl Unverified {
    /// Reads it. `log_dir` tells an unfinished `init` from a store that was emptied.
    pub async fn read(store: &dyn Store, log_dir: &Path) -> Result<Self, OpenClusterError> {
        let at = |what| move |source: Error| OpenClusterError::Row { what, source };
        let cluster_record = row_or_unfinished(store, log_dir, &row_key::cluster()).await?;
        let cluster: rows::Cluster = row::peek(&cluster_record).map_err(at("cluster"))?;
        let uid = row::uid(&cluster.uid).map_err(at("cluster"))?;
        let secret_version = row::version(cluster.secret_version).map_err(at("cluster"))?;
        let wrapped_secret = wrapped(&cluster.wrapped_secret).map_err(at("cluster"))?;
        let header = wrapped_secret.header().map_err(|error| at("cluster")(error.into()))?;
        let number =
            EpochNumber::new(header.version.get()).ok_or(Error::Damaged("no epoch number")).map_err(at("cluster"))?;

        // The epoch that wraps the cluster secret.
        let epoch_record = row_or_unfinished(store, log_dir, &row_key::epoch(number)).await?;
        let mut epoch: rows::Epoch = row::peek(&epoch_record).map_err(at("epoch"))?;
        let (Some(wrap), true) = (epoch.wraps.pop(), epoch.wraps.is_empty()) else {
            return Err(at("epoch")(Error::Damaged("an epoch without just one wrap")));
        };
        let rows::EpochWrap { backend, reference, ciphertext } = wrap;
        let context = EpochContext { cluster: uid, epoch_id: header.key_id, epoch: number };
        let kcv = epoch.kcv[..].try_into().map_err(|_| at("epoch")(Error::Damaged("no check value")))?;
        let epoch_wrap = EpochWrap { version: MasterKeyRef(reference), context, ciphertext, kcv };
        Ok(Self { backend_kind: backend, epoch_wrap, cluster_record, secret_version, wrapped_secret, epoch_record })
    }
}

async fn row_or_unfinished(
    store: &dyn Store,
    log_dir: &Path,
    place: &crate::store::RowKey,
) -> Result<Vec<u8>, OpenClusterError> {
    let Some(record) = store.get(place).await? else {
        // Whoever is told that nothing was stored removes what is left.
        let records = read_unverified(log_dir).map_err(ReplayError::from)?.len();
        let of_init = records <= RECORDS_OF_INIT;
        return Err(if of_init { OpenClusterError::Unfinished } else { OpenClusterError::Emptied { records } });
    };
    Ok(record)
}

/// `init` leaves an intent and an outcome.
const RECORDS_OF_INIT: usize = 2;
/// The most changes that may wait.
const JOBS_MAX: usize = 1024;
