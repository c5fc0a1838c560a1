//! The joint to what keeps rows: get, list, commit, shred, checkpoint.
//!
//! Not here: what a row means. A store moves bytes between five families and promises durability.
//!
//! What every implementation promises (and `contract.rs` tests):
//! - an `Ok` of [`Store::commit`] means durable: it survives a crash right after;
//! - a batch is applied whole or not at all; its preconditions are checked against the state right
//!   before it, and no other batch comes between;
//! - a commit whose future is dropped is still applied, or not, but whole;
//! - reads see every commit that has returned, and nothing that is not durable;
//! - `list` returns keys in byte order;
//! - no call blocks the thread of an async runtime, and none needs a runtime;
//! - after a failed write or sync nothing more is written: every later commit is
//!   [`StoreError::Failed`] until the store is opened again. Reads go on.

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
    /// The row is as it was read: with this value, or not there.
    pub fn of(row: RowKey, read: Option<Vec<u8>>) -> Self {
        match read {
            Some(value) => Precondition::Equals(row, value),
            None => Precondition::Absent(row),
        }
    }

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

impl Batch {
    /// Refuses what no store may be asked to write: both would be mistakes of ours, and the first
    /// one a disaster.
    fn refuse_unsound(&self) -> Result<(), StoreError> {
        for write in &self.writes {
            let (Write::Put(row, _) | Write::Delete(row) | Write::DeletePrefix(row)) = write;
            if row.key.len() > KEY_BYTES_MAX {
                return Err(StoreError::failed("a key is too long; nothing was written"));
            }
            if matches!(write, Write::DeletePrefix(_)) && row.key.is_empty() {
                return Err(StoreError::failed("an empty prefix would delete a whole family; nothing was written"));
            }
        }
        Ok(())
    }
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
    /// The store could not do it, or is closed. After a failed commit it takes no more writes until
    /// it is opened again.
    #[error("the store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    fn failed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        StoreError::Failed(cause.into())
    }

    fn closed() -> Self {
        Self::failed("the store is closed")
    }
}

/// Records changed only by batches with preconditions; every `Ok` means durable.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns a row's value.
    async fn get(&self, row: &RowKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns the values of many rows, in their order.
    async fn get_many(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            values.push(self.get(row).await?);
        }
        Ok(values)
    }

    /// Returns up to `rows_max` rows whose key begins with `prefix`, those after `after` only; never
    /// more than [`PAGE_ROWS_MAX`].
    async fn list(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        rows_max: usize,
    ) -> Result<Page, StoreError>;

    /// Applies a batch whole, and returns when it is durable.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Returns when no value of the family that was deleted or overwritten before the call lies in
    /// any file of the store. Keys may: they carry names and uids, which outlive erasure.
    async fn shred(&self, family: Family) -> Result<(), StoreError>;

    /// Makes a consistent copy of the store in a directory that does not exist yet. The copy keeps
    /// what it has when the store is shredded later: who made it removes it.
    async fn checkpoint(&self, into: &std::path::Path) -> Result<(), StoreError>;

    /// Finishes the commits that were begun, flushes and closes; every later call is
    /// [`StoreError::Failed`].
    async fn close(&self) -> Result<(), StoreError>;
}

/// The longest key: its length goes into the record's MAC as a u16.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// The longest page: it bounds memory, and the time for which a listing holds on to old files.
pub const PAGE_ROWS_MAX: usize = 10_000;

/// Runs what blocks on a thread of its own, so that the caller's thread stays free.
async fn apart<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || done.send(work())).map_err(StoreError::failed)?;
    outcome.await.map_err(StoreError::failed)
}
