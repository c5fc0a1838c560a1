//! The keyring with everything real but the store's disk: changes, gates, dates, crashes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::init::Birth;
use super::open::{OpenClusterError, Opened, Opening, Settled};
use super::*;
use crate::audit::replay::read_unverified;
use crate::audit::{Leaf, LogSettings, Outcome, Phase, StoredLeaf};
use crate::backend::{self, BackendSettings};
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
}

/// A cluster that serves.
struct Running {
    keyring: Arc<Keyring>,
    stop: CancellationToken,
    mutator: tokio::task::JoinHandle<()>,
    last_record: Option<UnixMillis>,
    settled: Settled,
}

impl World {
    async fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            store: Arc::new(FaultyStore { inner: MemoryStore::new(), fault: Mutex::new(Fault::None) }),
            clock: Arc::new(TestClock { now: AtomicU64::new(1_790_000_000_000), since_boot: AtomicU64::new(0) }),
            settings: KeyringSettings { wait_ms_min: 0, wait_ms_default: 7 * DAY, tenants_max: 64, keys_max: 64 },
        };
        let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
        let cluster = Uid::generate(&*rng);
        let settings = world.backend();
        backend::init(&settings, Arc::clone(&rng)).await.unwrap();
        let backend = backend::open(&settings, cluster, Arc::clone(&rng)).unwrap();
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
        BackendSettings::Software {
            dir: self.dir.path().join("hsm"),
            pin_file: self.dir.path().join("pin"),
            pin_cost: PinCost { memory_kib: 64, passes: 1, lanes: 1 },
        }
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.path().join("seg")
    }

    fn leaves(&self) -> Vec<StoredLeaf> {
        read_unverified(&self.log_dir()).unwrap()
    }

    async fn try_start(&self) -> Result<Running, OpenClusterError> {
        *self.store.fault.lock().unwrap() = Fault::None;
        let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
        let (settings, for_backend) = (self.backend(), Arc::clone(&rng));
        let opening = Opening {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            backend: &|cluster| backend::open(&settings, cluster, Arc::clone(&for_backend)),
            backend_kind: "software",
            log_dir: &self.log_dir(),
            node: "n".into(),
            segment_bytes: 1 << 16,
            flush_on_cores: false,
            settings: self.settings,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            rng,
        };
        let Opened { keyring, mutator, last_record, settled, .. } = opening.run().await?;
        let stop = CancellationToken::new();
        let mutator = tokio::spawn(mutator.run(stop.clone()));
        Ok(Running { keyring, stop, mutator, last_record, settled })
    }

    async fn start(&self) -> Running {
        self.try_start().await.unwrap()
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.mutator.await.unwrap();
        self.keyring.log().close();
    }

    /// Ends without a word, as a crash does: nothing is written any more.
    async fn crash(self) {
        self.mutator.abort();
        drop(self.mutator.await);
        self.keyring.log().close();
    }

    async fn change(&self, change: Change) -> Result<Changed, Error> {
        self.keyring.change(change, Who::service()).await
    }

    async fn tenant_with_key(&self, tenant: &str) {
        self.change(Change::CreateTenant { tenant: name(tenant) }).await.unwrap();
        let labels = Labels::from([("team".into(), "billing".into())]);
        self.change(Change::CreateKey { tenant: name(tenant), key: key("k"), purpose: KeyPurpose::Encrypt, labels })
            .await
            .unwrap();
    }

    async fn seal(&self, tenant: &str, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let in_use = self.keyring.enter(&name(tenant), &[Want { key: &key("k"), which: Which::Primary }]).await?;
        let one = in_use.key();
        Ok(one.kek().seal_data(one.uid(), one.version(), &context(tenant), plaintext, self.keyring.rng()))
    }

    async fn open(&self, tenant: &str, blob: &[u8]) -> Result<(Vec<u8>, bool), Error> {
        let which = Which::Of(Header::parse(blob)?);
        let in_use = self.keyring.enter(&name(tenant), &[Want { key: &key("k"), which }]).await?;
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

#[tokio::test]
async fn what_is_sealed_opens_after_a_restart_and_a_rotation() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let old = running.seal("acme", b"hello").await.unwrap();
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    let new = running.seal("acme", b"hello").await.unwrap();
    running.stop().await;
    let running = world.start().await;
    assert_eq!(running.settled, Settled::default());
    assert_eq!(running.open("acme", &old).await.unwrap(), (b"hello".to_vec(), true));
    assert_eq!(running.open("acme", &new).await.unwrap(), (b"hello".to_vec(), false));
    let key = running.keyring.key(&name("acme"), &key("k")).await.unwrap();
    assert_eq!((key.primary, key.labels.len()), (version(2), 1));
    running.stop().await;
}

#[tokio::test]
async fn a_blob_opens_only_for_its_own_tenant_and_key() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    let blob = running.seal("acme", b"hello").await.unwrap();
    assert!(matches!(running.open("globex", &blob).await, Err(Error::Open(_))));
    assert!(matches!(running.open("nobody", &blob).await, Err(Error::TenantNotFound)));
    let other = key("other");
    let which = Which::Of(Header::parse(&blob).unwrap());
    assert!(matches!(
        running.keyring.enter(&name("acme"), &[Want { key: &other, which }]).await,
        Err(Error::KeyNotFound)
    ));
    // A version that never was is just a blob that does not open.
    let mut future = blob.clone();
    future[23] = 9;
    assert!(matches!(running.open("acme", &future).await, Err(Error::Open(_))));
    running.stop().await;
}

#[tokio::test]
async fn states_of_keys_and_versions_are_obeyed_at_once() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let old = running.seal("acme", b"x").await.unwrap();
    running.change(Change::RotateKey { tenant: name("acme"), key: key("k") }).await.unwrap();
    let new = running.seal("acme", b"x").await.unwrap();
    let set = |version, enabled| Change::SetKeyState { tenant: name("acme"), key: key("k"), version, enabled };

    running.change(set(Some(version(1)), false)).await.unwrap();
    assert!(matches!(running.open("acme", &old).await, Err(Error::VersionState(KeyState::Disabled))));
    assert!(running.open("acme", &new).await.is_ok());
    running.change(set(Some(version(1)), true)).await.unwrap();
    assert!(running.open("acme", &old).await.is_ok());

    running.change(set(None, false)).await.unwrap();
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::KeyState(KeyState::Disabled))));
    assert!(matches!(running.open("acme", &old).await, Err(Error::KeyState(KeyState::Disabled))));
    assert!(matches!(running.change(set(None, false)).await, Err(Error::Transition { .. })));
    running.change(set(None, true)).await.unwrap();

    assert!(matches!(running.change(schedule("acme", Some(version(2)), 0)).await, Err(Error::PrimaryVersion)));
    running.change(schedule("acme", Some(version(1)), 0)).await.unwrap();
    assert!(matches!(running.open("acme", &old).await, Err(Error::VersionState(KeyState::Destroyed))));
    assert!(running.open("acme", &new).await.is_ok());
    assert!(matches!(running.change(set(Some(version(1)), true)).await, Err(Error::VersionState(KeyState::Destroyed))));
    running.change(schedule("acme", None, 0)).await.unwrap();
    assert!(matches!(running.open("acme", &new).await, Err(Error::KeyState(KeyState::Destroyed))));
    let again =
        Change::CreateKey { tenant: name("acme"), key: key("k"), purpose: KeyPurpose::Encrypt, labels: Labels::new() };
    assert!(matches!(running.change(again).await, Err(Error::NameWasDestroyed)));
    running.stop().await;
}

#[tokio::test]
async fn a_suspended_tenant_neither_seals_nor_opens_until_resumed() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    let blob = running.seal("acme", b"x").await.unwrap();
    running.change(Change::SuspendTenant { tenant: name("acme") }).await.unwrap();
    assert!(matches!(running.open("acme", &blob).await, Err(Error::TenantState(TenantState::Suspended))));
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::TenantState(TenantState::Suspended))));
    let rotate = Change::RotateKey { tenant: name("acme"), key: key("k") };
    assert!(matches!(running.change(rotate).await, Err(Error::TenantState(TenantState::Suspended))));
    running.change(Change::ResumeTenant { tenant: name("acme") }).await.unwrap();
    assert!(running.open("acme", &blob).await.is_ok());
    running.stop().await;
}

#[tokio::test]
async fn a_destroyed_tenant_is_gone_for_ever_and_its_name_with_it() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    let (acme, globex) = (running.seal("acme", b"x").await.unwrap(), running.seal("globex", b"x").await.unwrap());
    running.change(destroy("acme", Some(0))).await.unwrap();
    let running = {
        assert!(matches!(running.open("acme", &acme).await, Err(Error::TenantState(TenantState::Fenced))));
        running.stop().await;
        world.start().await
    };
    assert!(matches!(running.open("acme", &acme).await, Err(Error::TenantState(TenantState::Fenced))));
    assert!(running.open("globex", &globex).await.is_ok());
    assert!(matches!(
        running.change(Change::CreateTenant { tenant: name("acme") }).await,
        Err(Error::NameWasDestroyed)
    ));
    assert!(matches!(running.change(destroy("acme", Some(0))).await, Err(Error::TenantState(TenantState::Fenced))));
    let view = running.keyring.tenant(&name("acme")).await.unwrap();
    assert_eq!(view.state, TenantState::Fenced);
    // Nothing of it is left but the tombstone, which has no byte of the wrapped key.
    let uid = view.uid;
    for family in Family::ALL {
        let rows = world.store.inner.list(family, &[], None, 10_000).await.unwrap().rows;
        let found = rows.iter().filter(|(place, _)| place.windows(16).any(|part| part == uid.as_bytes())).count();
        assert_eq!(found, 0, "{family:?}");
    }
    let fenced = world.leaves().into_iter().find(|stored| stored.leaf.ph == Some(Phase::Fenced)).unwrap();
    let commitment = hex::decode(fenced.leaf.tkc.as_deref().unwrap()).unwrap();
    let (tombstone, _) = (world.store.inner.get(&row_key::tenant_name(&name("acme"))).await.unwrap().unwrap(), ());
    let complement: Vec<u8> = commitment.iter().map(|byte| !byte).collect();
    assert!(
        tombstone.windows(32).any(|part| part == complement)
            && !tombstone.windows(16).any(|part| part == &commitment[..16])
    );
    assert_eq!((fenced.leaf.keys, fenced.leaf.deks, fenced.leaf.epoch), (Some(1), Some(0), Some(1)));
    running.stop().await;
}

/// 16 clients seal and open while their tenant is destroyed; each success is given an index, as
/// the pipeline does, before its gate is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_success_after_the_fence() {
    let world = World::new().await;
    let running = Arc::new(world.start().await);
    running.tenant_with_key("acme").await;
    let blob = Arc::new(running.seal("acme", b"x").await.unwrap());
    let began = Arc::new(tokio::sync::Barrier::new(17));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (running, blob, began) = (Arc::clone(&running), Arc::clone(&blob), Arc::clone(&began));
            tokio::spawn(async move {
                let which = Which::Of(Header::parse(&blob).unwrap());
                let (mut successes, mut refusals) = (0, 0);
                while refusals < 10 {
                    match running.keyring.enter(&name("acme"), &[Want { key: &key("k"), which }]).await {
                        Ok(in_use) => {
                            let one = in_use.key();
                            one.kek().open_data(one.uid(), one.version(), &context("acme"), &blob).unwrap();
                            running.keyring.log().append(Leaf::of("Decrypt").ended(Outcome::Ok)).unwrap();
                            successes += 1;
                        }
                        Err(Error::TenantState(TenantState::Fenced)) => refusals += 1,
                        Err(other) => panic!("{other}"),
                    }
                    if successes == 20 {
                        began.wait().await;
                    }
                    tokio::task::yield_now().await;
                }
                successes
            })
        })
        .collect();
    began.wait().await;
    running.change(destroy("acme", Some(0))).await.unwrap();
    let mut successes = 0;
    for client in clients {
        successes += client.await.unwrap();
    }
    let running = Arc::into_inner(running).unwrap();
    running.stop().await;
    let leaves = world.leaves();
    let fence = leaves.iter().find(|stored| stored.leaf.ph == Some(Phase::Fenced)).unwrap().index;
    let of_clients: Vec<u64> = leaves
        .iter()
        .filter(|stored| stored.leaf.op.as_deref() == Some("Decrypt"))
        .map(|stored| stored.index)
        .collect();
    let after = of_clients.iter().filter(|index| **index > fence).count();
    println!("{} successes before the fence at index {fence}, {after} after", of_clients.len() - after);
    assert_eq!((of_clients.len(), after), (successes, 0));
}

#[tokio::test]
async fn dates_come_only_after_an_hour_of_a_steady_clock() {
    let world = World::new().await;
    let running = world.start().await;
    for tenant in ["acme", "globex"] {
        running.tenant_with_key(tenant).await;
    }
    running.change(destroy("acme", Some(DAY))).await.unwrap();
    running.change(schedule("globex", None, 2 * DAY)).await.unwrap();
    assert_eq!(running.keyring.destroy_due().await.unwrap(), 0, "nothing is due");
    let mut guard = due::ClockGuard::new(&*world.clock, running.last_record);
    assert!(!guard.is_steady(&*world.clock));
    world.clock.pass(HOUR);
    assert!(guard.is_steady(&*world.clock));
    world.clock.pass(23 * HOUR);
    assert_eq!(running.keyring.destroy_due().await.unwrap(), 1);
    assert_eq!(running.keyring.tenant(&name("acme")).await.unwrap().state, TenantState::Fenced);
    assert_eq!(running.keyring.key(&name("globex"), &key("k")).await.unwrap().state, KeyState::PendingDestruction);
    world.clock.pass(DAY);
    assert_eq!(running.keyring.destroy_due().await.unwrap(), 1);
    assert_eq!(running.keyring.key(&name("globex"), &key("k")).await.unwrap().state, KeyState::Destroyed);
    assert_eq!(running.keyring.destroy_due().await.unwrap(), 0, "a date comes once");
    running.stop().await;
}

#[tokio::test]
async fn a_clock_that_jumps_destroys_nothing() {
    let world = World::new().await;
    let running = world.start().await;
    let mut guard = due::ClockGuard::new(&*world.clock, running.last_record);
    world.clock.pass(2 * HOUR);
    assert!(guard.is_steady(&*world.clock));
    world.clock.step(30 * DAY);
    assert!(!guard.is_steady(&*world.clock), "it stepped");
    world.clock.pass(HOUR - 1);
    assert!(!guard.is_steady(&*world.clock));
    world.clock.pass(1);
    assert!(guard.is_steady(&*world.clock));
    running.stop().await;
    // A start long after the last record looks the same: the run is held, however long it lasts.
    world.clock.step(2 * DAY);
    let running = world.start().await;
    let mut guard = due::ClockGuard::new(&*world.clock, running.last_record);
    world.clock.pass(3 * HOUR);
    assert!(!guard.is_steady(&*world.clock));
    running.stop().await;
}

#[tokio::test]
async fn no_path_ends_a_waiting_time_early() {
    let mut world = World::new().await;
    world.settings.wait_ms_min = DAY;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    assert!(matches!(running.change(destroy("acme", Some(0))).await, Err(Error::WaitTooShort(86_400))));
    assert!(matches!(running.change(schedule("acme", None, DAY - 1)).await, Err(Error::WaitTooShort(_))));
    assert!(matches!(running.change(destroy("acme", Some(366 * DAY))).await, Err(Error::WaitTooLong(_))));
    running.change(destroy("acme", Some(2 * DAY))).await.unwrap();
    for wait in [None, Some(DAY), Some(2 * DAY)] {
        assert!(matches!(running.change(destroy("acme", wait)).await, Err(Error::Transition { .. })), "{wait:?}");
    }
    assert!(matches!(
        running.change(Change::DestroyDueTenant { tenant: name("acme") }).await,
        Err(Error::Transition { .. })
    ));
    assert!(matches!(
        running.change(Change::ResumeTenant { tenant: name("acme") }).await,
        Err(Error::Transition { .. })
    ));
    // Cancelling lands in SUSPENDED, and takes the date away.
    running.change(Change::CancelTenantDestruction { tenant: name("acme") }).await.unwrap();
    world.clock.pass(3 * DAY);
    assert_eq!(running.keyring.destroy_due().await.unwrap(), 0);
    assert_eq!(running.keyring.tenant(&name("acme")).await.unwrap().state, TenantState::Suspended);
    running.change(Change::ResumeTenant { tenant: name("acme") }).await.unwrap();
    running.change(schedule("acme", None, DAY)).await.unwrap();
    assert!(matches!(running.change(schedule("acme", None, DAY)).await, Err(Error::Transition { .. })));
    let cancel = Change::CancelKeyDestruction { tenant: name("acme"), key: key("k"), version: None };
    running.change(cancel.clone()).await.unwrap();
    assert!(matches!(running.change(cancel).await, Err(Error::Transition { .. })));
    assert_eq!(running.keyring.key(&name("acme"), &key("k")).await.unwrap().state, KeyState::Disabled);
    running.stop().await;
}

#[tokio::test]
async fn a_crash_before_the_batch_aborts_and_after_it_recovers() {
    for (fault, outcome) in [(Fault::Before, Outcome::Aborted), (Fault::After, Outcome::Recovered)] {
        let world = World::new().await;
        let running = world.start().await;
        running.tenant_with_key("acme").await;
        let blob = running.seal("acme", b"x").await.unwrap();
        *world.store.fault.lock().unwrap() = fault;
        assert!(matches!(running.change(destroy("acme", Some(0))).await, Err(Error::Store(_))));
        // Whatever the store holds, nobody is let in, and no further change is made.
        assert!(matches!(running.open("acme", &blob).await, Err(Error::Store(_))), "{fault:?}");
        assert!(matches!(running.change(Change::CreateTenant { tenant: name("b") }).await, Err(Error::Store(_))));
        running.crash().await;

        let running = world.start().await;
        let done = fault == Fault::After;
        assert_eq!((running.settled.recovered, running.settled.aborted), (usize::from(done), usize::from(!done)));
        assert_eq!(running.open("acme", &blob).await.is_ok(), !done);
        // The chain of outcomes goes on, and an aborted number is used again.
        running.change(Change::CreateTenant { tenant: name("b") }).await.unwrap();
        let leaves = world.leaves();
        let settled = leaves.iter().find(|stored| stored.leaf.res == Some(outcome)).unwrap();
        assert_eq!(settled.leaf.ph, done.then_some(Phase::Fenced));
        assert_eq!(settled.leaf.tkc.is_some(), done, "a recovered fence has what a certificate needs");
        let last =
            leaves.iter().rfind(|stored| stored.leaf.res == Some(Outcome::Ok) && stored.leaf.seq.is_some()).unwrap();
        let before = leaves.iter().rfind(|stored| {
            stored.index < last.index
                && stored.leaf.seq.is_some()
                && matches!(stored.leaf.res, Some(Outcome::Ok | Outcome::Recovered))
        });
        assert_eq!(last.leaf.pm, before.map(|stored| stored.index));
        assert_eq!(last.leaf.seq, Some(if done { 5 } else { 4 }));
        running.stop().await;
        assert_eq!(world.start().await.settled, Settled::default(), "what was settled stays settled");
    }
}

#[tokio::test]
async fn a_store_older_than_its_log_is_refused() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.stop().await;
    let old: Vec<_> = copy_of(&world).await;
    let running = world.start().await;
    running.change(destroy("acme", Some(0))).await.unwrap();
    running.stop().await;
    let new = copy_of(&world).await;
    replace(&world, &old).await;
    let refused = world.try_start().await.err().unwrap();
    assert!(matches!(refused, OpenClusterError::StoreOlder { lacks: 1, .. }), "{refused}");
    replace(&world, &new).await;
    world.start().await.stop().await;
}

#[tokio::test]
async fn a_log_older_than_its_store_is_refused() {
    let world = World::new().await;
    world.start().await.stop().await;
    let segment = world.log_dir().join(format!("{:020}", 0));
    let old = std::fs::read(&segment).unwrap();
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.stop().await;
    std::fs::write(&segment, old).unwrap();
    assert!(matches!(world.try_start().await, Err(OpenClusterError::Log(_))));
}

#[tokio::test]
async fn a_row_that_was_edited_swapped_or_moved_is_damage() {
    let world = World::new().await;
    let running = world.start().await;
    running.tenant_with_key("acme").await;
    running.tenant_with_key("globex").await;
    running.stop().await;
    let rows = copy_of(&world).await;
    // Swap the two tenants' rows, whole: both verify nowhere but in their place.
    let mut tenants: Vec<_> =
        rows.iter().filter(|(place, _)| place.family == Family::Root && place.key[0] == b't').cloned().collect();
    let other = tenants[1].1.clone();
    tenants[1].1 = std::mem::replace(&mut tenants[0].1, other);
    let writes = tenants.into_iter().map(|(place, record)| Write::Put(place, record)).collect();
    world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
    let running = world.start().await;
    assert!(matches!(running.seal("acme", b"x").await, Err(Error::Damaged(_) | Error::Open(_))));
    running.crash().await;
}

#[tokio::test]
async fn memory_is_bounded_and_what_was_evicted_loads_again() {
    let world = World::new().await;
    let running = world.start().await;
    let mut blobs = Vec::new();
    for number in 0..100 {
        let tenant = format!("t{number}");
        running.tenant_with_key(&tenant).await;
        blobs.push(running.seal(&tenant, tenant.as_bytes()).await.unwrap());
        let status = running.keyring.cache_status();
        assert!(status.tenants <= 64 && status.keys <= 64, "{status:?}");
    }
    for (number, blob) in blobs.iter().enumerate() {
        let tenant = format!("t{number}");
        assert_eq!(running.open(&tenant, blob).await.unwrap().0, tenant.as_bytes());
        // Names that are nobody's leave nothing behind.
        assert!(matches!(running.open(&format!("x{number}"), blob).await, Err(Error::TenantNotFound)));
    }
    let status = running.keyring.cache_status();
    assert!(status.tenants <= 64 && status.keys <= 64, "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn changes_of_many_tenants_at_once_are_each_made_once() {
    let world = World::new().await;
    let running = Arc::new(world.start().await);
    let changes: Vec<_> = (0..60)
        .map(|number| {
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                running.change(Change::CreateTenant { tenant: name(&format!("t{}", number % 30)) }).await.is_ok()
            })
        })
        .collect();
    let mut made = 0;
    for change in changes {
        made += usize::from(change.await.unwrap());
    }
    assert_eq!(made, 30, "each name is given once");
    Arc::into_inner(running).unwrap().stop().await;
    let leaves = world.leaves();
    let mut sequence: Vec<u64> = leaves
        .iter()
        .filter(|stored| stored.leaf.res == Some(Outcome::Ok))
        .filter_map(|stored| stored.leaf.seq)
        .collect();
    sequence.sort_unstable();
    assert_eq!(sequence, (1..=31).collect::<Vec<u64>>(), "one outcome OK for each number");
}

#[tokio::test]
async fn listings_go_on_where_they_ended() {
    let world = World::new().await;
    let running = world.start().await;
    for tenant in ["a", "b", "c"] {
        running.tenant_with_key(tenant).await;
    }
    running.change(destroy("b", Some(0))).await.unwrap();
    let first = running.keyring.tenants(None, 2).await.unwrap();
    assert_eq!(
        first.items.iter().map(|tenant| tenant.state).collect::<Vec<_>>(),
        [TenantState::Active, TenantState::Fenced]
    );
    assert!(first.more);
    let rest = running.keyring.tenants(Some(&first.items[1].name), 2).await.unwrap();
    assert_eq!((rest.items.len(), rest.more), (1, false));
    for _ in 0..3 {
        running.change(Change::RotateKey { tenant: name("a"), key: key("k") }).await.unwrap();
    }
    let versions = running.keyring.versions(&name("a"), &key("k"), Some(version(1)), 2).await.unwrap();
    assert_eq!((versions.items.iter().map(|v| v.version.get()).collect::<Vec<_>>(), versions.more), (vec![2, 3], true));
    assert_eq!(running.keyring.keys(&name("a"), None, 10).await.unwrap().items.len(), 1);
    assert!(matches!(running.keyring.keys(&name("b"), None, 10).await, Err(Error::TenantState(_))));
    running.stop().await;
}

async fn copy_of(world: &World) -> Vec<(RowKey, Vec<u8>)> {
    let mut all = Vec::new();
    for family in Family::ALL {
        let rows = world.store.inner.list(family, &[], None, 100_000).await.unwrap().rows;
        all.extend(rows.into_iter().map(|(place, record)| (RowKey::new(family, place), record)));
    }
    all
}

async fn replace(world: &World, rows: &[(RowKey, Vec<u8>)]) {
    let mut writes: Vec<Write> = copy_of(world).await.into_iter().map(|(place, _)| Write::Delete(place)).collect();
    writes.extend(rows.iter().map(|(place, record)| Write::Put(place.clone(), record.clone())));
    world.store.inner.commit(Batch { preconditions: vec![], writes }).await.unwrap();
}
