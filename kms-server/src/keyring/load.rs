//! Loads what a request needs, and lets it in: from the store through the chain into the cache.

use std::sync::Arc;

use crate::crypto::chain::TenantPlace;
use crate::crypto::context::ContextHash;
use crate::crypto::{Header, IndexRoot, Kek, OpenError, RecordMacKey, TenantKey, WrappedKey};
use crate::noun::{KeyName, KeyVersion, TenantName, Uid};
use crate::rows;
use crate::store::RowKey;

use super::cache::{Entry, LoadedKey, LoadedKeys, LoadedTenant, LoadedVersion};
use super::gate::{Gate, GateState, Inside};
use super::lease::lease_ms;
use super::state::{KeyState, TenantState};
use super::terms::Etag;
use super::view::{KeyPurpose, KeyView, TenantView};
use super::{Error, Keyring, row, row_key};

/// Which version of a key is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The one that seals.
    Primary,
    /// The one that a blob's header names; the blob must be of that key.
    Of(Header),
}

/// A key that a request wants to use.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Its name.
    pub key: &'a KeyName,
    /// What for: a key of another purpose is refused.
    pub purpose: KeyPurpose,
    /// Which version.
    pub which: Which,
}

/// Keys of one tenant in use. The tenant's gate stays entered until this is dropped: it must be
/// held until the audit record has its index, and there must be no await in between.
pub struct InUse {
    tenant: Arc<LoadedTenant>,
    keys: Vec<KeyInUse>,
    _inside: Inside<Entry>,
}

/// One key version in use.
pub struct KeyInUse {
    key: Arc<LoadedKey>,
    version: Arc<LoadedVersion>,
}

impl InUse {
    /// Returns the tenant's uid.
    pub fn tenant_uid(&self) -> Uid {
        self.tenant.uid
    }

    /// Returns the key, where one was wanted.
    pub fn key(&self) -> &KeyInUse {
        self.keys.first().expect("whoever wants no key has none to use")
    }

    /// Returns a key that may be used for this, if it is in memory.
    pub(super) fn usable_key(
        &self,
        name: &KeyName,
        purpose: KeyPurpose,
    ) -> Result<Result<Arc<LoadedKey>, Missing>, Error> {
        let Some(key) = self.tenant.key(name) else { return Ok(Err(Missing::Key(name.clone()))) };
        if key.purpose != purpose {
            return Err(Error::PurposeNotSupported);
        }
        if key.state != KeyState::Enabled {
            return Err(Error::KeyState(key.state));
        }
        Ok(Ok(key))
    }

    /// Returns the keys, in the order they were wanted.
    pub fn keys(&self) -> &[KeyInUse] {
        &self.keys
    }

    /// Returns how long the tenant's data keys may be held, in milliseconds.
    pub fn lease_ms(&self) -> u64 {
        self.tenant.lease_ms
    }

    /// Returns the root of the tenant's blind indexes.
    pub fn index_root(&self) -> &IndexRoot {
        &self.tenant.index_root
    }

    /// Returns what the log shows of a context.
    pub fn context_in_log(&self, context: &ContextHash) -> [u8; 16] {
        self.tenant.audit_ctx.shown_in_log(context)
    }
}

impl KeyInUse {
    /// Returns the key's uid.
    pub fn uid(&self) -> Uid {
        self.key.uid
    }

    /// Returns the version in use.
    pub fn version(&self) -> KeyVersion {
        self.version.version
    }

    /// Tells whether that version no longer seals.
    pub fn is_stale(&self) -> bool {
        self.version.version != self.key.primary
    }

    /// Returns the key's purpose.
    pub fn purpose(&self) -> KeyPurpose {
        self.key.purpose
    }

    /// Returns the secret.
    pub fn kek(&self) -> &Kek {
        self.version.kek.as_ref().expect("a version is let in only while enabled, and has its KEK then")
    }
}

/// What stopped a request at the gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Missing {
    Tenant,
    Key(KeyName),
    Version(KeyName, KeyVersion),
    Turn,
    Evicted,
}

impl Keyring {
    /// Lets a request in to use keys of a tenant, loading what is not in memory.
    pub async fn enter(&self, tenant: &TenantName, wants: &[Want<'_>]) -> Result<InUse, Error> {
        // Each round loads one thing that was missing. More rounds than this means that others
        // evict as fast as this request loads.
        for _ in 0..ROUNDS_MAX {
            let entry = self.cache.entry(tenant);
            match try_enter(&entry, wants)? {
                Ok(in_use) => return Ok(in_use),
                Err(missing) => self.supply(&entry, tenant, missing).await?,
            }
        }
        Err(Error::CacheFull)
    }

    /// As [`Keyring::enter`], for whoever holds the turn of the tenant's entry.
    pub(super) async fn enter_in_turn(
        &self,
        entry: &Arc<Entry>,
        tenant: &TenantName,
        wants: &[Want<'_>],
    ) -> Result<InUse, Error> {
        for _ in 0..ROUNDS_MAX {
            match try_enter(entry, wants)? {
                Ok(in_use) => return Ok(in_use),
                Err(missing) => self.load(entry, tenant, missing).await?,
            }
        }
        Err(Error::CacheFull)
    }

    /// Sees to it that what stopped a request does not stop it again. It must not be inside.
    pub(super) async fn supply(&self, entry: &Arc<Entry>, tenant: &TenantName, missing: Missing) -> Result<(), Error> {
        if missing == Missing::Evicted {
            return Ok(());
        }
        let is_tenant = missing == Missing::Tenant;
        let turn = entry.turn.lock().await;
        let loaded = self.load(entry, tenant, missing).await;
        drop(turn);
        if is_tenant && loaded.is_err() {
            self.cache.drop_if_idle(tenant);
        }
        loaded
    }

    /// Loads what was missing. The turn is held.
    async fn load(&self, entry: &Arc<Entry>, tenant: &TenantName, missing: Missing) -> Result<(), Error> {
        match missing {
            // After a store failure a gate may stay closed: nobody knows what holds.
            Missing::Turn | Missing::Evicted => self.check_whole(),
            Missing::Tenant => self.load_tenant(entry, tenant).await,
            Missing::Key(key) => self.load_key(entry, tenant, &key).await,
            Missing::Version(key, version) => self.load_version(entry, tenant, &key, version).await,
        }
    }

    async fn load_tenant(&self, entry: &Arc<Entry>, name: &TenantName) -> Result<(), Error> {
        if entry.gate.state() != GateState::Unloaded {
            return Ok(());
        }
        let loaded = self.open_active_tenant(name).await?;
        entry.loaded.store(Some(Arc::new(loaded)));
        entry.gate.open();
        Ok(())
    }

    async fn open_active_tenant(&self, name: &TenantName) -> Result<LoadedTenant, Error> {
        let opened = self.open_tenant(name).await?;
        let state = TenantState::of_row(opened.row.state)?;
        if state != TenantState::Active {
            return Err(Error::TenantState(state));
        }
        let index_root = self.with_room(|| opened.index_root())?;
        let audit_ctx = self.with_room(|| Ok(index_root.audit_ctx_key()?))?;
        let OpenTenant { uid, version, key, record_mac, row, .. } = opened;
        let lease_ms = lease_ms(&row);
        Ok(LoadedTenant { uid, version, key, record_mac, audit_ctx, index_root, lease_ms, keys: LoadedKeys::default() })
    }

    async fn load_key(&self, entry: &Arc<Entry>, tenant: &TenantName, name: &KeyName) -> Result<(), Error> {
        let Some(loaded) = entry.loaded.load_full().filter(|loaded| loaded.key(name).is_none()) else { return Ok(()) };
        let (record, key) = self.read_key(&loaded.record_mac, loaded.uid, name).await?;
        let view = KeyView::of_row(tenant, &key, Etag::of(&record))?;
        loaded.insert(
            name.clone(),
            Arc::new(LoadedKey::new(view.uid, view.purpose, view.state, view.primary, self.cache.count())),
        );
        Ok(())
    }

    async fn load_version(
        &self,
        entry: &Arc<Entry>,
        tenant: &TenantName,
        name: &KeyName,
        version: KeyVersion,
    ) -> Result<(), Error> {
        let Some(loaded) = entry.loaded.load_full() else { return Ok(()) };
        let Some(key) = loaded.key(name).filter(|key| key.version(version).is_none()) else { return Ok(()) };
        let Some((_, found)) = self.read_version(&loaded.record_mac, loaded.uid, key.uid, version).await? else {
            // Only a blob asks for a version that never was.
            return Err(if version == key.primary {
                Error::Damaged("a key without its primary version")
            } else {
                Error::Open(OpenError::Version)
            });
        };
        let state = KeyState::of_row(found.state)?;
        let kek = if state == KeyState::Enabled {
            let place = TenantPlace { name: tenant, uid: loaded.uid, version: loaded.version };
            Some(self.with_room(|| {
                loaded.key.unwrap_kek(place, key.uid, version, &wrapped(&found.wrapped_kek)?).map_err(chain_error)
            })?)
        } else {
            None
        };
        key.insert(Arc::new(LoadedVersion { version, state, kek, _counted: self.cache.count() }));
        Ok(())
    }

    /// Tries again after making room, if locked memory is full.
    pub(super) fn with_room<T>(&self, make: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match make() {
            Err(Error::CacheFull) => {
                self.cache.make_room();
                make()
            }
            other => other,
        }
    }
}

/// Enters if all that is wanted is in memory. The outer error is final.
pub(super) fn try_enter(entry: &Arc<Entry>, wants: &[Want<'_>]) -> Result<Result<InUse, Missing>, Error> {
    let inside = match Gate::enter(entry) {
        Ok(inside) => inside,
        Err(GateState::Unloaded | GateState::Open) => return Ok(Err(Missing::Tenant)),
        Err(GateState::Closed) => return Ok(Err(Missing::Turn)),
        Err(GateState::Evicted) => return Ok(Err(Missing::Evicted)),
        Err(GateState::Fenced) => return Err(Error::TenantState(TenantState::Fenced)),
    };
    let Some(tenant) = entry.loaded.load_full() else { return Ok(Err(Missing::Tenant)) };
    let mut in_use = InUse { tenant, keys: Vec::with_capacity(wants.len()), _inside: inside };
    for want in wants {
        let key = match in_use.usable_key(want.key, want.purpose)? {
            Ok(key) => key,
            Err(missing) => return Ok(Err(missing)),
        };
        let number = match want.which {
            Which::Primary => key.primary,
            // A blob never chooses its key: its key uid must be that of the key that was named.
            Which::Of(header) if header.key_id != key.uid => return Err(Error::Open(OpenError::Key)),
            Which::Of(header) => header.version,
        };
        match usable_version(&key, want.key, number)? {
            Ok(version) => in_use.keys.push(KeyInUse { key, version }),
            Err(missing) => return Ok(Err(missing)),
        }
    }
    Ok(Ok(in_use))
}

/// Returns a version of a key that may be used, if it is in memory.
pub(super) fn usable_version(
    key: &LoadedKey,
    name: &KeyName,
    number: KeyVersion,
) -> Result<Result<Arc<LoadedVersion>, Missing>, Error> {
    match key.version(number) {
        None => Ok(Err(Missing::Version(name.clone(), number))),
        Some(version) if version.state == KeyState::Enabled => Ok(Ok(version)),
        Some(version) => Err(Error::VersionState(version.state)),
    }
}

/// A tenant as its row has it, with its key unwrapped and everything verified.
pub(super) struct OpenTenant {
    pub(super) uid: Uid,
    pub(super) version: KeyVersion,
    pub(super) row: rows::Tenant,
    /// The record as stored, for preconditions.
    pub(super) record: Vec<u8>,
    /// The wrap of the tenant key.
    pub(super) wrapped: WrappedKey,
    pub(super) key: TenantKey,
    pub(super) record_mac: RecordMacKey,
    name: TenantName,
}

impl OpenTenant {
    pub(super) fn place(&self) -> TenantPlace<'_> {
        TenantPlace { name: &self.name, uid: self.uid, version: self.version }
    }

    pub(super) fn name(&self) -> &TenantName {
        &self.name
    }

    fn index_root(&self) -> Result<IndexRoot, Error> {
        self.key.unwrap_index_root(self.place(), &wrapped(&self.row.wrapped_index_root)?).map_err(chain_error)
    }
}

/// What lies under a tenant's name.
pub(super) enum Named {
    Nothing,
    Tenant(Uid),
    Tombstone(Uid, rows::Tombstone),
}

impl Keyring {
    /// Reads what lies under a tenant's name.
    pub(super) async fn named(&self, name: &TenantName) -> Result<(Named, Option<Vec<u8>>), Error> {
        let place = row_key::tenant_name(name);
        let Some(record) = self.store.get(&place).await? else { return Ok((Named::Nothing, None)) };
        let found: rows::TenantName = row::open(&self.cluster.record_mac, &place, &record)?;
        let uid = row::uid(&found.uid)?;
        let named = found.tombstone.map_or(Named::Tenant(uid), |tombstone| Named::Tombstone(uid, tombstone));
        Ok((named, Some(record)))
    }

    /// Reads a tenant that was not destroyed, in whatever state, with its key.
    pub(super) async fn open_tenant(&self, name: &TenantName) -> Result<OpenTenant, Error> {
        let uid = match self.named(name).await?.0 {
            Named::Nothing => return Err(Error::TenantNotFound),
            Named::Tombstone(_, tombstone) => return Err(Error::TenantState(TenantState::of_row(tombstone.state)?)),
            Named::Tenant(uid) => uid,
        };
        let place = row_key::tenant(uid);
        // A fence may have come between the two reads.
        let record = self.store.get(&place).await?.ok_or(Error::TenantState(TenantState::Fenced))?;
        let unverified: rows::Tenant = row::peek(&record)?;
        let [wrap] = &unverified.tenant_keys[..] else {
            return Err(Error::Damaged("a tenant without just one tenant key"));
        };
        let (version, wrapped) = (row::version(wrap.version)?, wrapped(&wrap.blob)?);
        let tenant = TenantPlace { name, uid, version };
        let key = self
            .with_room(|| self.epoch.key.unwrap_tenant_key(self.epoch.place, tenant, &wrapped).map_err(chain_error))?;
        let record_mac = self.with_room(|| Ok(key.record_mac_key()?))?;
        let row: rows::Tenant = row::open(&record_mac, &place, &record)?;
        if row.name != name.as_str() || row.uid != uid.as_bytes() {
            return Err(Error::Damaged("a tenant under another name or uid"));
        }
        Ok(OpenTenant { uid, version, row, record, wrapped, key, record_mac, name: name.clone() })
    }

    /// Reads a key's row by name; returns it with its record.
    pub(super) async fn read_key(
        &self,
        mac: &RecordMacKey,
        tenant: Uid,
        name: &KeyName,
    ) -> Result<(Vec<u8>, rows::Key), Error> {
        let uid = self.key_uid(mac, tenant, name).await?.ok_or(Error::KeyNotFound)?;
        let (record, key) = self.read_key_by_uid(mac, tenant, uid).await?;
        if key.name != name.as_str() {
            return Err(Error::Damaged("a key under another name"));
        }
        Ok((record, key))
    }

    /// Reads a key's row by uid.
    pub(super) async fn read_key_by_uid(
        &self,
        mac: &RecordMacKey,
        tenant: Uid,
        uid: Uid,
    ) -> Result<(Vec<u8>, rows::Key), Error> {
        let place = row_key::key(tenant, uid);
        let record = self.store.get(&place).await?.ok_or(Error::Damaged("a key's name without its key"))?;
        let key: rows::Key = row::open(mac, &place, &record)?;
        Ok((record, key))
    }

    /// Returns the uid of the key that has this name, destroyed ones included.
    pub(super) async fn key_uid(&self, mac: &RecordMacKey, tenant: Uid, name: &KeyName) -> Result<Option<Uid>, Error> {
        let place = row_key::key_name(tenant, name);
        let Some(record) = self.store.get(&place).await? else { return Ok(None) };
        let named: rows::KeyName = row::open(mac, &place, &record)?;
        row::uid(&named.uid).map(Some)
    }

    /// Reads a version's row; returns it with its record.
    pub(super) async fn read_version(
        &self,
        mac: &RecordMacKey,
        tenant: Uid,
        key: Uid,
        version: KeyVersion,
    ) -> Result<Option<(Vec<u8>, rows::KeyVersion)>, Error> {
        let place = row_key::key_version(tenant, key, version);
        let Some(record) = self.store.get(&place).await? else { return Ok(None) };
        let found: rows::KeyVersion = row::open(mac, &place, &record)?;
        if found.version != version.get() {
            return Err(Error::Damaged("a version under another number"));
        }
        Ok(Some((record, found)))
    }

    /// Reads a row that the cluster secret authenticates.
    pub(super) async fn read_cluster_row<M: prost::Message + Default>(
        &self,
        place: &RowKey,
    ) -> Result<Option<(Vec<u8>, M)>, Error> {
        let Some(record) = self.store.get(place).await? else { return Ok(None) };
        let found = row::open(&self.cluster.record_mac, place, &record)?;
        Ok(Some((record, found)))
    }

    /// Returns a tenant, or what is left of it.
    pub async fn tenant(&self, name: &TenantName) -> Result<TenantView, Error> {
        // A fence may come between the name and the row: then the second look finds the tombstone.
        for _ in 0..2 {
            let (named, record) = self.named(name).await?;
            match named {
                Named::Nothing => return Err(Error::TenantNotFound),
                Named::Tombstone(uid, tombstone) => {
                    let etag = Etag::of(&record.unwrap_or_default());
                    return TenantView::of_tombstone(name, uid, &tombstone, etag);
                }
                Named::Tenant(_) => match self.open_tenant(name).await {
                    Ok(opened) => return TenantView::of_row(name, &opened.row, Etag::of(&opened.record)),
                    Err(Error::TenantState(_)) => {}
                    Err(other) => return Err(other),
                },
            }
        }
        Err(Error::Damaged("a tenant's name without its tenant"))
    }
}

/// The chain's own blobs lie under rows that verify: one that does not open is damage, and not
/// something a caller gave.
pub(super) fn chain_error(error: OpenError) -> Error {
    if error.is_for_want_of_room() {
        Error::CacheFull
    } else {
        Error::Damaged("a wrapped key does not open under the key above it")
    }
}

pub(super) fn wrapped(blob: &[u8]) -> Result<WrappedKey, Error> {
    WrappedKey::from_slice(blob).ok_or(Error::Damaged("a wrapped key that has not 128 bytes"))
}

/// How often what was loaded may be evicted again before a request gives up.
pub(super) const ROUNDS_MAX: usize = 64;
