//! The shared cache: one entry per tenant, which is also its gate, with its keys inside.
//!
//! Not here: what is loaded into it (`load.rs`). Only active tenants have keys in memory; the
//! store decides about all others at every request.
//!
//! **Invariant:** whoever loads or changes a tenant holds its entry's turn, so a load never ends
//! after a change began; an entry with somebody inside, or whose turn is taken, is not evicted.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwapOption;
use tokio::sync::OwnedMutexGuard;

use crate::crypto::{AuditCtxKey, IndexRoot, Kek, RecordMacKey, TenantKey};
use crate::noun::{KeyName, KeyVersion, TenantName, Uid};

use super::data_key::DestroyedDeks;
use super::gate::{Gate, GateState};
use super::state::KeyState;
use super::view::KeyPurpose;

/// A tenant's place in the cache.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) gate: Gate,
    /// Whoever loads or changes the tenant holds it.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// There while the gate is open.
    pub(super) loaded: ArcSwapOption<LoadedTenant>,
    /// Which managed data keys were destroyed of late.
    pub(super) destroyed_deks: DestroyedDeks,
    used: AtomicBool,
}

impl AsRef<Gate> for Entry {
    fn as_ref(&self) -> &Gate {
        &self.gate
    }
}

impl Entry {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::default(),
            turn: Arc::default(),
            loaded: ArcSwapOption::empty(),
            destroyed_deks: DestroyedDeks::default(),
            used: AtomicBool::new(true),
        })
    }

    /// Forgets keys and all; the gate must be drained or nobody have been let in.
    pub(super) fn forget(&self) {
        self.loaded.store(None);
    }
}

/// A tenant with its keys in memory.
pub(super) struct LoadedTenant {
    pub(super) uid: Uid,
    /// The version of the tenant key.
    pub(super) version: KeyVersion,
    pub(super) key: TenantKey,
    pub(super) record_mac: RecordMacKey,
    pub(super) audit_ctx: AuditCtxKey,
    pub(super) index_root: IndexRoot,
    /// How long its data keys may be held, in milliseconds.
    pub(super) lease_ms: u64,
    pub(super) keys: LoadedKeys,
}

/// Keys of a tenant in memory.
pub(super) type LoadedKeys = RwLock<HashMap<KeyName, Arc<LoadedKey>>>;

impl fmt::Debug for LoadedTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedTenant").field("uid", &self.uid).finish_non_exhaustive()
    }
}

impl LoadedTenant {
    pub(super) fn key(&self, name: &KeyName) -> Option<Arc<LoadedKey>> {
        let key = read(&self.keys).get(name).cloned()?;
        key.used.store(true, Ordering::Relaxed);
        Some(key)
    }

    pub(super) fn insert(&self, name: KeyName, key: Arc<LoadedKey>) {
        write(&self.keys).insert(name, key);
    }

    pub(super) fn forget_key(&self, name: &KeyName) {
        write(&self.keys).remove(name);
    }
}

/// A key in memory: its versions as they were asked for.
#[derive(Debug)]
pub(super) struct LoadedKey {
    pub(super) uid: Uid,
    pub(super) purpose: KeyPurpose,
    pub(super) state: KeyState,
    pub(super) primary: KeyVersion,
    versions: RwLock<HashMap<KeyVersion, Arc<LoadedVersion>>>,
    used: AtomicBool,
    _counted: Counted,
}

impl LoadedKey {
    pub(super) fn new(uid: Uid, purpose: KeyPurpose, state: KeyState, primary: KeyVersion, counted: Counted) -> Self {
        Self {
            uid,
            purpose,
            state,
            primary,
            versions: RwLock::default(),
            used: AtomicBool::new(true),
            _counted: counted,
        }
    }

    pub(super) fn version(&self, version: KeyVersion) -> Option<Arc<LoadedVersion>> {
        read(&self.versions).get(&version).cloned()
    }

    pub(super) fn insert(&self, version: Arc<LoadedVersion>) {
        write(&self.versions).insert(version.version, version);
    }
}

/// A version in memory; its KEK only while it is enabled.
pub(super) struct LoadedVersion {
    pub(super) version: KeyVersion,
    pub(super) state: KeyState,
    pub(super) kek: Option<Kek>,
    pub(super) _counted: Counted,
}

impl fmt::Debug for LoadedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedVersion")
            .field("version", &self.version)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// One of the keys and versions in memory; counted down when dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the cache holds, for `GetStatus`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheStatus {
    /// Tenants with an entry.
    pub tenants: usize,
    /// The most that may have one.
    pub tenants_max: usize,
    /// Keys and versions in memory.
    pub keys: usize,
    /// The most keys and versions that stay in memory.
    pub keys_max: usize,
}

/// Entries of all tenants, in shards.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Vec<RwLock<HashMap<TenantName, Arc<Entry>>>>,
    tenants: AtomicUsize,
    keys: Arc<AtomicUsize>,
    tenants_max: usize,
    keys_max: usize,
}

impl Cache {
    pub(super) fn new(tenants_max: usize, keys_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            tenants: AtomicUsize::new(0),
            keys: Arc::default(),
            tenants_max,
            keys_max,
        }
    }

    /// Returns the tenant's entry, made if there is none: before its row is read.
    pub(super) fn entry(&self, tenant: &TenantName) -> Arc<Entry> {
        let shard = &self.shards[shard_of(tenant)];
        if let Some(entry) = read(shard).get(tenant) {
            entry.used.store(true, Ordering::Relaxed);
            return Arc::clone(entry);
        }
        if self.tenants.load(Ordering::Relaxed) >= self.tenants_max {
            self.evict();
        }
        let mut shard = write(shard);
        let entry = shard.entry(tenant.clone()).or_insert_with(|| {
            self.tenants.fetch_add(1, Ordering::Relaxed);
            Entry::new()
        });
        Arc::clone(entry)
    }

    /// Waits for the turn of a tenant, and returns its entry with it.
    pub(super) async fn take_turn(&self, tenant: &TenantName) -> (Arc<Entry>, OwnedMutexGuard<()>) {
        loop {
            let entry = self.entry(tenant);
            let turn = Arc::clone(&entry.turn).lock_owned().await;
            if entry.gate.state() != GateState::Evicted {
                return (entry, turn);
            }
        }
    }

    /// Drops the entry of a tenant that turned out to have nothing to keep in memory.
    pub(super) fn drop_if_idle(&self, tenant: &TenantName) {
        let mut shard = write(&self.shards[shard_of(tenant)]);
        let idle = |entry: &Arc<Entry>| {
            entry.loaded.load().is_none() && entry.turn.try_lock().is_ok_and(|_turn| entry.gate.evict())
        };
        if shard.get(tenant).is_some_and(idle) {
            shard.remove(tenant);
            self.tenants.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts one more key or version, after making room if there are too many.
    pub(super) fn count(&self) -> Counted {
        if self.keys.load(Ordering::Relaxed) >= self.keys_max {
            self.evict();
        }
        self.keys.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.keys))
    }

    /// Makes room below the limits.
    fn evict(&self) {
        self.evict_to(self.keys_max - self.keys_max / 8, self.tenants_max - self.tenants_max / 8);
    }

    /// Makes room in locked memory, which may be full below the limits: drops an eighth of what there is.
    pub(super) fn make_room(&self) {
        let (keys, tenants) = (self.keys.load(Ordering::Relaxed), self.tenants.load(Ordering::Relaxed));
        self.evict_to(keys - keys.div_ceil(8), tenants - tenants.div_ceil(8));
    }

    /// Drops what was not used since the last time; where that is too little, of the rest as well.
    fn evict_to(&self, keys_target: usize, tenants_target: usize) {
        for _round in 0..2 {
            for shard in &self.shards {
                let mut shard = write(shard);
                shard.retain(|_, entry| {
                    let unused = !entry.used.swap(false, Ordering::Relaxed);
                    // A tenant goes with its keys.
                    if unused
                        && self.tenants.load(Ordering::Relaxed) > tenants_target
                        && entry.turn.try_lock().is_ok_and(|_turn| entry.gate.evict())
                    {
                        entry.forget();
                        self.tenants.fetch_sub(1, Ordering::Relaxed);
                        return false;
                    }
                    if let Some(tenant) = entry.loaded.load_full() {
                        write(&tenant.keys).retain(|_, key| {
                            key.used.swap(false, Ordering::Relaxed) || self.keys.load(Ordering::Relaxed) <= keys_target
                        });
                    }
                    true
                });
            }
            if self.keys.load(Ordering::Relaxed) <= keys_target
                && self.tenants.load(Ordering::Relaxed) <= tenants_target
            {
                return;
            }
        }
    }

    pub(super) fn status(&self) -> CacheStatus {
        CacheStatus {
            tenants: self.tenants.load(Ordering::Relaxed),
            tenants_max: self.tenants_max,
            keys: self.keys.load(Ordering::Relaxed),
            keys_max: self.keys_max,
        }
    }
}

fn shard_of(tenant: &TenantName) -> usize {
    let mut hasher = DefaultHasher::new();
    tenant.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).expect("a shard's number is small")
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 64;
