//! The store on RocksDB: the durable one.
//!
//! Threads: one writes (and syncs every commit), a few read what is not in memory, one more exists
//! while a family is shredded or a checkpoint made. On the caller's thread happens only what waits
//! for no disk: a read that RocksDB's memory can answer.
//!
//! No snapshot is ever taken, and no cursor outlives a page: what is deleted is gone with the next
//! shredding. Nothing unwrapped may be stored: the memory of C++ is not wiped.

mod log;
mod open;
mod options;
mod reader;
mod shred;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, DB, ErrorKind, ReadOptions};

pub use self::open::{OpenError, Salvaged, salvage};
pub use self::options::{EffectiveOptions, Limits, effective_options};
use self::reader::Readers;
use self::writer::Writer;
use super::{Batch, Family, Page, RowKey, Store, StoreError, apart};

/// A folder with a RocksDB database, opened by this process alone.
///
/// Close it with [`Store::close`]. Dropping it does the same, but blocks the thread that drops it.
pub struct RocksStore {
    writer: Writer,
    readers: Arc<Readers>,
    database: Arc<Database>,
    shredding: [Arc<tokio::sync::Mutex<()>>; Family::ALL.len()],
    checkpointing: Arc<tokio::sync::Mutex<()>>,
}

impl RocksStore {
    /// Makes a new store in a folder that is empty or not there yet. Blocks.
    pub fn create(dir: &Path, limits: &Limits) -> Result<Self, OpenError> {
        Self::start(open::create(dir, limits)?, limits)
    }

    /// Opens the store in a folder. Blocks, at most for as long as the limits allow.
    pub fn open(dir: &Path, limits: &Limits) -> Result<Self, OpenError> {
        Self::start(open::open(dir, limits)?, limits)
    }

    /// Opens the store in a folder; one whose log is damaged is salvaged first, once. Returns what was
    /// done for that: then **what was acknowledged may be lost**, and only a check against the audit
    /// log tells. Blocks.
    pub fn open_or_salvage(dir: &Path, limits: &Limits) -> Result<(Self, Option<Salvaged>), OpenError> {
        match Self::open(dir, limits) {
            Err(OpenError::Damaged(damage)) => {
                let salvaged = open::salvage_once(dir, limits, damage)?;
                Ok((Self::open(dir, limits)?, Some(salvaged)))
            }
            opened => Ok((opened?, None)),
        }
    }

    fn start(db: DB, limits: &Limits) -> Result<Self, OpenError> {
        let tables = db.live_files()?;
        let bytes = tables.iter().map(|table| table.size).sum::<usize>();
        tracing::info!(tables = tables.len(), bytes, "store opened");

        let database = Arc::new(Database {
            db: RwLock::new(Some(db)),
            closing: AtomicBool::new(false),
            in_memory: options::in_memory(),
        });
        let readers = Arc::new(Readers::start(&database, limits.readers)?);
        let writer = Writer::start(Arc::clone(&database), Arc::clone(&readers))?;
        Ok(Self { writer, readers, database, shredding: Default::default(), checkpointing: Arc::default() })
    }

    /// Runs what may take long on a thread of its own; one at a time of each kind, also if nobody
    /// waits for it any more.
    async fn long<T: Send + 'static>(
        &self,
        name: &str,
        turn: &Arc<tokio::sync::Mutex<()>>,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(turn).lock_owned().await;
        let database = Arc::clone(&self.database);
        apart(name, move || {
            let _turn = turn;
            work(&database)
        })
        .await?
    }
}

#[async_trait]
impl Store for RocksStore {
    async fn get(&self, row: &RowKey) -> Result<Option<Vec<u8>>, StoreError> {
        match self.database.peek(row)? {
            Peek::Known(value) => Ok(value),
            Peek::OnDisk => self.readers.get(row.clone()).await,
        }
    }

    async fn get_many(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let (mut values, mut on_disk) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            match self.database.peek(row)? {
                Peek::Known(value) => values.push(value),
                // Where one is not in memory, those after it mostly are not either: who reads that one
                // reads them too, and none is looked for twice.
                Peek::OnDisk => {
                    on_disk.extend((values.len()..).zip(rows[values.len()..].iter().cloned()));
                    break;
                }
            }
        }
        values.resize(rows.len(), None);
        if !on_disk.is_empty() {
            for (place, value) in self.readers.get_many(on_disk).await? {
                values[place] = value;
            }
        }
        Ok(values)
    }

    async fn list(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        rows_max: usize,
    ) -> Result<Page, StoreError> {
        self.readers.list(family, prefix, after, rows_max).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.writer.commit(batch).await
    }

    async fn shred(&self, family: Family) -> Result<(), StoreError> {
        let shred = move |database: &Database| {
            database.with(|db| shred::shred(db, family, &database.closing).map_err(StoreError::Failed))
        };
        self.long("store-shred", &self.shredding[family as usize], shred).await
    }

    async fn checkpoint(&self, into: &Path) -> Result<(), StoreError> {
        let into = into.to_owned();
        let checkpoint = move |db: &DB| Checkpoint::new(db)?.create_checkpoint(into);
        let checkpoint = move |database: &Database| database.with(|db| checkpoint(db).map_err(StoreError::failed));
        self.long("store-copy", &self.checkpointing, checkpoint).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.writer.close().await
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The open database, shared by the threads.
struct Database {
    db: RwLock<Option<DB>>, // Written only to close it; `None` from then on.
    closing: AtomicBool,
    in_memory: ReadOptions,
}

enum Peek {
    Known(Option<Vec<u8>>),
    OnDisk,
}

impl Database {
    /// Reads a row if that waits for nothing.
    fn peek(&self, row: &RowKey) -> Result<Peek, StoreError> {
        self.with(|db| match db.get_cf_opt(column(db, row.family), &row.key, &self.in_memory) {
            Ok(value) => Ok(Peek::Known(value)),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Peek::OnDisk),
            Err(error) => Err(StoreError::failed(error)),
        })
    }

    /// Works with the database, which stays open meanwhile. Does not wait for it: whoever holds it
    /// alone is closing it.
    fn with<T>(&self, work: impl FnOnce(&DB) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let db = self.db.try_read().map_err(|_| StoreError::closed())?;
        work(db.as_ref().filter(|_| !self.closing.load(Ordering::Relaxed)).ok_or_else(StoreError::closed)?)
    }

    /// Flushes, stops what RocksDB does by itself, and takes the database away from everybody.
    fn close(&self) -> Result<(), StoreError> {
        let outcome = self.with(|db| {
            let flushed = shred::flush(db).map_err(StoreError::failed);
            // Ends a shredding, too: it keeps the database, and would keep us waiting.
            self.closing.store(true, Ordering::Relaxed);
            db.cancel_all_background_work(true);
            flushed
        });
        let db = self.db.write().expect("nothing panics while it takes the database away").take();
        drop(db);
        tracing::info!("store closed");
        outcome
    }
}

fn column(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name()).expect("a store is opened with all five families")
}

/// Returns the least key that is greater than all that begin with the prefix.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;
    use crate::store::Write;

    impl RocksStore {
        /// Puts another writer in the place of the first, which ends.
        pub(super) fn with_writer(
            mut self,
            start: impl FnOnce(Arc<Database>, Arc<Readers>) -> std::io::Result<Writer>,
        ) -> Self {
            let database = Arc::new(Database {
                db: RwLock::new(self.database.db.write().unwrap().take()),
                closing: AtomicBool::new(false),
                in_memory: options::in_memory(),
            });
            self.readers = Arc::new(Readers::start(&database, 1).unwrap());
            self.writer = start(Arc::clone(&database), Arc::clone(&self.readers)).unwrap();
            self.database = database;
            self
        }
    }

    fn open(dir: &Path) -> RocksStore {
        let open = if dir.exists() { RocksStore::open } else { RocksStore::create };
        open(dir, &Limits::default()).unwrap()
    }

    #[tokio::test]
    async fn rocks_store_keeps_the_contract() {
        contract::check(open).await;
    }

    #[tokio::test]
    async fn rocks_store_is_durable() {
        contract::check_durable(open).await;
    }

    #[tokio::test]
    async fn a_row_is_read_from_disk_once_and_then_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let (row, other) = (RowKey::new(Family::Dek, *b"row"), RowKey::new(Family::Dek, *b"rox"));
        let store = open(&dir);
        assert!(matches!(store.database.peek(&row), Ok(Peek::Known(None))));
        store
            .commit(Batch { preconditions: vec![], writes: vec![Write::Put(row.clone(), b"value".into())] })
            .await
            .unwrap();
        assert!(matches!(store.database.peek(&row), Ok(Peek::Known(Some(value))) if value == b"value"));
        store.close().await.unwrap();

        let store = open(&dir);
        assert!(matches!(store.database.peek(&row), Ok(Peek::OnDisk)));
        assert_eq!(store.get(&row).await.unwrap().as_deref(), Some(&b"value"[..]));
        assert!(matches!(store.database.peek(&row), Ok(Peek::Known(Some(value))) if value == b"value"));
        assert_eq!(store.get(&other).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_was_begun_is_finished_before_closing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let store = open(&dir);
        let put = |n: u32| Write::Put(RowKey::new(Family::Ops, n.to_be_bytes()), vec![7; 100]);
        let batch = |writes| Batch { preconditions: vec![], writes };
        store.commit(batch((100..5000).map(put).collect())).await.unwrap();

        let commits = futures_util::future::join_all((0..50).map(|n| store.commit(batch(vec![put(n)]))));
        let lists = futures_util::future::join_all((0..50).map(|_| store.list(Family::Ops, b"", None, 9999)));
        let (commits, lists, closed) = futures_util::future::join3(commits, lists, store.close()).await;
        closed.unwrap();
        assert!(commits.iter().all(Result::is_ok));
        assert!(lists.iter().all(Result::is_ok));
        assert_eq!(open(&dir).list(Family::Ops, b"", None, 9999).await.unwrap().rows.len(), 4950);
    }

    #[test]
    fn the_end_of_a_prefix_is_right_behind_it() {
        for (prefix, end) in [
            (&b"a"[..], Some(&b"b"[..])),
            (b"a\xff", Some(b"b")),
            (b"a\xff\x00", Some(b"a\xff\x01")),
            (b"\x00", Some(b"\x01")),
            (b"\xfe\xff\xff", Some(b"\xff")),
            (b"\xff", None),
            (b"\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), end, "{prefix:x?}");
        }
    }
}
