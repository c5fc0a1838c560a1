//! The joint to what keeps rows: get, list, commit, shred, checkpoint.
//!
//! Not here: what a row means. A store moves bytes between five families and promises durability.
//!
//! What every implementation promises (and `contract.rs` tests):
//! - an `Ok` of [`Store::commit`] means durable: it survives a crash right after;
//! - a batch is applied whole or not at all; its preconditions are checked against the state right
//!   before it, and no other batch comes between;
//! - reads see every commit that has returned;
//! - `list` returns keys in byte order;
//! - no call blocks the thread of an async runtime;
//! - after a failed sync nothing more is written: every later commit is [`StoreError::Failed`].

pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;

#[cfg(test)]
pub mod contract;

use async_trait::async_trait;

/// A column family. Design section 5 says what lies in each.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// Epochs, cluster secret, audit seeds, tenants, `seq` and anchor.
    Root,
    /// Names of tenants and keys, and tombstones.
    Name,
    /// Keys and their versions.
    Key,
    /// Managed data keys.
    Dek,
    /// Schedules, counters, idempotency.
    Ops,
}

impl Family {
    /// All of them, in the order of the rows' documentation.
    pub const ALL: [Family; 5] = [Family::Root, Family::Name, Family::Key, Family::Dek, Family::Ops];

    /// Returns the name that also goes into every record's MAC.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Root => "root",
            Family::Name => "name",
            Family::Key => "key",
            Family::Dek => "dek",
            Family::Ops => "ops",
        }
    }
}

/// Where a row lies.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RowKey {
    /// The family.
    pub family: Family,
    /// The key within it.
    pub key: Vec<u8>,
}

impl RowKey {
    /// Names a row.
    pub fn new(family: Family, key: impl Into<Vec<u8>>) -> Self {
        Self { family, key: key.into() }
    }
}

/// What must hold for a batch to be applied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Precondition {
    /// There is no such row.
    Absent(RowKey),
    /// The row's value is exactly this.
    Equals(RowKey, Vec<u8>),
}

impl Precondition {
    /// Returns the row it speaks of.
    pub fn row(&self) -> &RowKey {
        match self {
            Precondition::Absent(row) | Precondition::Equals(row, _) => row,
        }
    }
}

/// One change of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// Sets a row.
    Put(RowKey, Vec<u8>),
    /// Removes a row, if there.
    Delete(RowKey),
    /// Removes every row of the family that begins with this prefix (which is never empty).
    DeletePrefix(RowKey),
}

/// Changes that are applied together or not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// All must hold.
    pub preconditions: Vec<Precondition>,
    /// Applied in order.
    pub writes: Vec<Write>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// Keys and values, in byte order of the keys.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether rows follow the last one.
    pub more: bool,
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A precondition does not hold; nothing was changed.
    #[error("a row is not as expected")]
    Conflict(RowKey),
    /// The store failed, and takes no more writes until it is opened again.
    #[error("the store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Records changed only by batches with preconditions; every `Ok` means durable.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns a row's value.
    async fn get(&self, row: &RowKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns up to `rows_max` rows whose key begins with `prefix`, those after `after` only.
    async fn list(&self, family: Family, prefix: &[u8], after: Option<&[u8]>, rows_max: usize) -> Result<Page, StoreError>;

    /// Applies a batch whole, and returns when it is durable.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Returns when no deleted or overwritten byte of the family lies in any file of the store.
    async fn shred(&self, family: Family) -> Result<(), StoreError>;

    /// Makes a consistent copy of the store in a directory that does not exist yet.
    async fn checkpoint(&self, into: &std::path::Path) -> Result<(), StoreError>;

    /// Flushes and closes; every later call is [`StoreError::Failed`].
    async fn close(&self) -> Result<(), StoreError>;
}
