//! The keyring with everything real but the store's disk: a world to make, crash and open again.

mod crashes;
mod data_keys;
mod data_keys_at_start;
mod destruction;
mod grants;
mod ledger;
mod terms;
mod use_of_keys;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::init::Birth;
use super::open::{OpenClusterError, Opened, Opening};
use super::*;
use crate::audit::replay::read_unverified;
use crate::audit::{Leaf, LogSettings, Outcome, Phase, StoredLeaf};
use crate::backend::{self, BackendKind, BackendSettings};
use crate::crypto::context::hash_of_caller;
use crate::crypto::keystore_file::PinCost;
use crate::crypto::{ContextHash, Header};
use crate::noun::random::OsRandom;
use crate::noun::{UnixMillis, clock};
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Family, Page, RowKey, Write};

/// A clock that only the test moves.
struct TestClock {
    now: AtomicU64,
    since_boot: AtomicU64,
}

impl clock::Clock for TestClock {
    fn now(&self) -> UnixMillis {
        self.now.load(Ordering::SeqCst)
    }
    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.since_boot.load(Ordering::SeqCst))
    }
}

impl TestClock {
    /// Time goes by.
    fn pass(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        self.since_boot.fetch_add(ms, Ordering::SeqCst);
    }
    /// Somebody sets the wall clock.
    fn step(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }
}

/// A store that a test can make fail, or crash right after a commit.
struct FaultyStore {
    inner: MemoryStore,
    fault: Mutex<Fault>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    /// The next commit is lost.
    Before,
    /// The next commit is durable, but nobody is told.
    After,
}

#[async_trait::async_trait]
impl Store for FaultyStore {
    async fn get(&self, row: &RowKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(row).await
    }
    async fn get_many(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        // As a disk would: others go on meanwhile, before and after.
        tokio::task::yield_now().await;
        let values = self.inner.get_many(rows).await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        values
    }
    async fn list(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        rows_max: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list(family, prefix, after, rows_max).await
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::None => return self.inner.commit(batch).await,
            Fault::Before => {}
            Fault::After => self.inner.commit(batch).await?,
        }
        Err(StoreError::Failed("a fault of the test".into()))
    }
    async fn shred(&self, family: Family) -> Result<(), StoreError> {
        self.inner.shred(family).await
    }
    async fn checkpoint(&self, into: &std::path::Path) -> Result<(), StoreError> {
        self.inner.checkpoint(into).await
    }
    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

struct World {
    dir: tempfile::TempDir,
    store: Arc<FaultyStore>,
    clock: Arc<TestClock>,
    settings: KeyringSettings,
    /// What is in force by grants, as it was told last.
    roles: Arc<Mutex<Vec<RoleInForce>>>,
}

/// A cluster that serves.
struct Running {
    keyring: Arc<Keyring>,
    stop: CancellationToken,
    mutator: tokio::task::JoinHandle<()>,
    data_keys: tokio::task::JoinHandle<()>,
    clock_held: bool,
    older_dek_destruction: Option<u64>,
    settled: Settled,
}

impl World {
    async fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            store: Arc::new(FaultyStore { inner: MemoryStore::new(), fault: Mutex::new(Fault::None) }),
            clock: Arc::new(TestClock { now: AtomicU64::new(1_790_000_000_000), since_boot: AtomicU64::new(0) }),
            settings: KeyringSettings {
                wait_ms_min: 0,
                wait_ms_default: 7 * DAY,
                grant_ms_max: DAY / 2,
                tenants_max: 64,
                keys_max: 64,
                rewraps_per_second: 1_000_000,
            },
            roles: Arc::default(),
        };
        let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
        let cluster = Uid::generate(&*rng);
        let prepared = backend::prepare(&world.backend()).unwrap();
        prepared.init(Arc::clone(&rng)).await.unwrap();
        let backend = prepared.open(cluster, Arc::clone(&rng)).unwrap();
        let birth = Birth {
            cluster,
            backend_kind: "software",
            backend: &*backend,
            log_dir: &world.log_dir(),
            log: LogSettings {
                node: "n".into(),
                origin: "test/log".into(),
                segment_bytes: 1 << 16,
                flush_on_cores: false,
            },
            clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
            rng: &*rng,
        };
        let store = Arc::clone(&world.store) as Arc<dyn Store>;
        birth.run(|| async { Ok(store) }).await.unwrap();
        world
    }

    fn backend(&self) -> BackendSettings {
        let pin_cost = PinCost { memory_kib: 64, passes: 1, lanes: 1 };
        let kind = BackendKind::Software { pin_file: self.dir.path().join("pin"), pin_cost };
        BackendSettings { dir: self.dir.path().join("hsm"), kind }
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.path().join("seg")
    }

    fn ledger_dir(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn leaves(&self) -> Vec<StoredLeaf> {
        read_unverified(&self.log_dir()).unwrap()
    }

    async fn try_start(&self) -> Result<Running, OpenClusterError> {
        *self.store.fault.lock().unwrap() = Fault::None;
        let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
        let (prepared, for_backend) = (backend::prepare(&self.backend()).unwrap(), Arc::clone(&rng));
        let roles = Arc::clone(&self.roles);
        let opening = Opening {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            salvaged_bytes: None,
            evidence: None,
            backend: &|cluster| prepared.open(cluster, Arc::clone(&for_backend)),
            backend_kind: "software",
            log_dir: &self.log_dir(),
            ledger_dir: &self.ledger_dir(),
            node: "n".into(),
            segment_bytes: 1 << 16,
            flush_on_cores: false,
            settings: self.settings,
            roles_in_force: Box::new(move |now| *roles.lock().unwrap() = now),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            rng,
        };
        let Opened { keyring, mutator, data_keys, clock_held, older_dek_destruction, settled, .. } =
            opening.run().await?;
        let stop = CancellationToken::new();
        let mutator = tokio::spawn(mutator.run(stop.clone()));
        let data_keys = tokio::spawn(data_keys.run(stop.clone()));
        Ok(Running { keyring, stop, mutator, data_keys, clock_held, older_dek_destruction, settled })
    }

    async fn start(&self) -> Running {
        self.try_start().await.unwrap()
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.mutator.await.unwrap();
        self.data_keys.await.unwrap();
        self.keyring.log().close();
    }

    /// Ends without a word, as a crash does: nothing is written any more.
    async fn crash(self) {
        for task in [self.mutator, self.data_keys] {
            task.abort();
            drop(task.await);
        }
        self.keyring.log().close();
    }

    async fn change(&self, change: Change) -> Result<Changed, Error> {
        self.keyring.change(change, Terms::default(), Who::service()).await
    }

    async fn ask(&self, change: Change, terms: Terms, sub: &str) -> Result<Changed, Error> {
        self.keyring.change(change, terms, Who { sub: Some(sub.into()), ..Who::service() }).await
    }

    async fn tenant_with_key(&self, tenant: &str) {
        self.change(Change::CreateTenant { tenant: name(tenant), lease_ms: None }).await.unwrap();
        let labels = Labels::from([("team".into(), "billing".into())]);
        self.change(Change::CreateKey { tenant: name(tenant), key: key("k"), purpose: KeyPurpose::Encrypt, labels })
            .await
            .unwrap();
    }

    async fn seal(&self, tenant: &str, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let in_use = self
            .keyring
            .enter(&name(tenant), &[Want { key: &key("k"), purpose: KeyPurpose::Encrypt, which: Which::Primary }])
            .await?;
        let one = in_use.key();
        Ok(one.kek().seal_data(one.uid(), one.version(), &context(tenant), plaintext, self.keyring.rng()))
    }

    async fn open(&self, tenant: &str, blob: &[u8]) -> Result<(Vec<u8>, bool), Error> {
        let which = Which::Of(Header::parse(blob)?);
        let in_use =
            self.keyring.enter(&name(tenant), &[Want { key: &key("k"), purpose: KeyPurpose::Encrypt, which }]).await?;
        let one = in_use.key();
        let opened = one.kek().open_data(one.uid(), one.version(), &context(tenant), blob)?;
        Ok((opened.expose_to_caller(), one.is_stale()))
    }
}

fn name(tenant: &str) -> TenantName {
    tenant.parse().unwrap()
}

fn key(key: &str) -> KeyName {
    key.parse().unwrap()
}

fn context(tenant: &str) -> ContextHash {
    hash_of_caller(tenant, b"", []).unwrap()
}

fn version(number: u32) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

fn destroy(tenant: &str, wait_ms: Option<u64>) -> Change {
    Change::DestroyTenant { tenant: name(tenant), wait_ms }
}

fn schedule(tenant: &str, version: Option<KeyVersion>, wait_ms: u64) -> Change {
    Change::ScheduleKeyDestruction { tenant: name(tenant), key: key("k"), version, wait_ms: Some(wait_ms) }
}
