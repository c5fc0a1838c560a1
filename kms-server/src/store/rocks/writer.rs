//! The one thread that writes: checks preconditions, applies batches, syncs, answers.
//!
//! Batches that wait while the disk syncs go into one write: each sees those before it, a conflict
//! fails only its own batch, and none is answered before all are durable. RocksDB shows a write to
//! readers only after its sync, so no reader sees what a crash could take back.
//!
//! **Invariant:** after a failed write nothing more is written: `nothing_is_written_after_a_failed_write`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rocksdb::{DB, WriteBatch};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{BoxError, Database, after_prefix, column, options, reader::Readers};
use crate::kill_point::{Point, pass};
use crate::store::{Batch, KEY_BYTES_MAX, Precondition, RowKey, StoreError, Write};

/// The caller's side of the thread.
pub(super) struct Writer {
    orders: mpsc::UnboundedSender<Order>, // Bounded by `room`, in bytes.
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Order {
    Commit(Commit),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

struct Commit {
    batch: Batch,
    bytes: usize,
    done: oneshot::Sender<Result<(), StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl Writer {
    /// Starts the thread, which also closes the database in the end.
    pub(super) fn start(database: Arc<Database>, readers: Arc<Readers>) -> std::io::Result<Self> {
        let synced = options::synced();
        Self::start_with(database, readers, move |db, writes| {
            pass(Point::BatchUnwritten);
            db.write_opt(writes, &synced)?;
            pass(Point::BatchWritten);
            Ok(())
        })
    }

    fn start_with(
        database: Arc<Database>,
        readers: Arc<Readers>,
        apply: impl Fn(&DB, WriteBatch) -> Result<(), BoxError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            let done = work(&database, inbox, apply);
            readers.stop();
            let outcome = database.close();
            if let Some(done) = done {
                let _ = done.send(outcome); // Nobody waits where the store was dropped.
            }
        })?;
        Ok(Self { orders, room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.refuse_unsound()?;
        let bytes = bytes(&batch);
        let room = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).expect("the queue is far below 4 GiB");
        let room = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| StoreError::closed())?;
        let (done, outcome) = oneshot::channel();
        let commit = Commit { batch, bytes, done, _room: room };
        self.orders.send(Order::Commit(commit)).map_err(|_| StoreError::closed())?;
        outcome.await.map_err(|_| StoreError::closed())?
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        self.orders.send(Order::Close(done)).map_err(|_| StoreError::closed())?;
        let outcome = outcome.await.map_err(|_| StoreError::closed())?;
        self.join(); // Its answer was the last thing it did.
        outcome
    }

    fn join(&self) {
        let thread = self.thread.lock().expect("nothing panics while it holds the handle").take();
        if let Some(thread) = thread {
            let _ = thread.join(); // A panic was printed, and every commit since has failed.
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Close(oneshot::channel().0)); // Unless it was closed before.
        self.join();
    }
}

/// Works until it is told to close.
fn work(
    database: &Database,
    mut inbox: mpsc::UnboundedReceiver<Order>,
    apply: impl Fn(&DB, WriteBatch) -> Result<(), BoxError>,
) -> Option<oneshot::Sender<Result<(), StoreError>>> {
    let mut poison: Option<String> = None;
    while let Some(first) = inbox.blocking_recv() {
        let (group, close) = gather(first, &mut inbox);
        let written = match &poison {
            Some(cause) => Err(StoreError::failed(cause.clone())),
            None => database.with(|db| write_group(db, &group, &apply)),
        };
        // The callers may be gone; what is done stays done.
        match written {
            Ok(outcomes) => {
                for (commit, outcome) in group.into_iter().zip(outcomes) {
                    let _ = commit.done.send(outcome);
                }
            }
            Err(error) => {
                let cause = poison.get_or_insert_with(|| error_chain(&error));
                tracing::error!(
                    cause,
                    commits = group.len(),
                    "the store takes no more writes until it is opened again"
                );
                for commit in group {
                    let _ = commit.done.send(Err(StoreError::failed(cause.clone())));
                }
            }
        }
        if close.is_some() {
            return close;
        }
    }
    None
}

/// Takes what waits, up to an order to close.
fn gather(
    first: Order,
    inbox: &mut mpsc::UnboundedReceiver<Order>,
) -> (Vec<Commit>, Option<oneshot::Sender<Result<(), StoreError>>>) {
    let mut group = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(order) = next {
        match order {
            Order::Commit(commit) => {
                bytes += commit.bytes;
                group.push(commit);
            }
            Order::Close(done) => return (group, Some(done)),
        }
        next = if bytes < GROUP_BYTES_MAX { inbox.try_recv().ok() } else { None };
    }
    (group, None)
}

/// Writes what may be written of a group, and returns what became of each batch.
fn write_group(
    db: &DB,
    group: &[Commit],
    apply: &impl Fn(&DB, WriteBatch) -> Result<(), BoxError>,
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut pending = Pending::default();
    let mut writes = WriteBatch::default();
    let mut outcomes = Vec::with_capacity(group.len());
    for Commit { batch, .. } in group {
        let outcome = check(db, &pending, &batch.preconditions);
        if outcome.is_ok() {
            for write in &batch.writes {
                add(db, &mut writes, write);
                if group.len() > 1 {
                    pending.add(write);
                }
            }
        }
        outcomes.push(outcome);
    }
    if !writes.is_empty() {
        apply(db, writes).map_err(StoreError::Failed)?;
    }
    Ok(outcomes)
}

fn check(db: &DB, pending: &Pending, preconditions: &[Precondition]) -> Result<(), StoreError> {
    for precondition in preconditions {
        let row = precondition.row();
        let stored;
        let value = match pending.value(row) {
            Some(value) => value,
            None => {
                stored = db.get_pinned_cf(column(db, row.family), &row.key).map_err(StoreError::failed)?;
                stored.as_deref()
            }
        };
        let holds = match precondition {
            Precondition::Absent(_) => value.is_none(),
            Precondition::Equals(_, expected) => value == Some(expected.as_slice()),
        };
        if !holds {
            return Err(StoreError::Conflict(row.clone()));
        }
    }
    Ok(())
}

fn add(db: &DB, writes: &mut WriteBatch, write: &Write) {
    match write {
        Write::Put(row, value) => writes.put_cf(column(db, row.family), &row.key, value),
        Write::Delete(row) => writes.delete_cf(column(db, row.family), &row.key),
        Write::DeletePrefix(prefix) => {
            // Nothing comes after the prefixes of ff bytes but what is longer than any key.
            let end = after_prefix(&prefix.key).unwrap_or_else(|| vec![0xff; KEY_BYTES_MAX + 1]);
            writes.delete_range_cf(column(db, prefix.family), &prefix.key, &end);
        }
    }
}

/// What the batches before in the same group will have written.
#[derive(Default)]
struct Pending<'a> {
    rows: HashMap<&'a RowKey, (usize, Option<&'a [u8]>)>,
    prefixes: Vec<(usize, &'a RowKey)>,
    writes: usize, // Numbers them, so that the last one on a row counts.
}

impl<'a> Pending<'a> {
    fn add(&mut self, write: &'a Write) {
        self.writes += 1;
        match write {
            Write::Put(row, value) => drop(self.rows.insert(row, (self.writes, Some(value)))),
            Write::Delete(row) => drop(self.rows.insert(row, (self.writes, None))),
            Write::DeletePrefix(prefix) => self.prefixes.push((self.writes, prefix)),
        }
    }

    /// Returns the row's value if a write before decides it.
    fn value(&self, row: &RowKey) -> Option<Option<&'a [u8]>> {
        let covers = |prefix: &RowKey| prefix.family == row.family && row.key.starts_with(&prefix.key);
        let deleted = self.prefixes.iter().rfind(|(_, prefix)| covers(prefix)).map(|(at, _)| *at);
        match (self.rows.get(row), deleted) {
            (Some((at, _)), Some(deleted)) if deleted > *at => Some(None),
            (Some((_, value)), _) => Some(*value),
            (None, Some(_)) => Some(None),
            (None, None) => None,
        }
    }
}

fn bytes(batch: &Batch) -> usize {
    const EACH: usize = 64; // What a row costs beside its bytes, about.
    let of_write = |write: &Write| match write {
        Write::Put(row, value) => EACH + row.key.len() + value.len(),
        Write::Delete(row) | Write::DeletePrefix(row) => EACH + row.key.len(),
    };
    let of_precondition = |precondition: &Precondition| match precondition {
        Precondition::Absent(row) => EACH + row.key.len(),
        Precondition::Equals(row, value) => EACH + row.key.len() + value.len(),
    };
    EACH + batch.writes.iter().map(of_write).sum::<usize>()
        + batch.preconditions.iter().map(of_precondition).sum::<usize>()
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// All batches that wait. A greater one waits until it is alone.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What goes into one write, unless a single batch is greater.
const GROUP_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::shred::flush;
    use super::super::{Limits, RocksStore};
    use super::*;
    use crate::store::{Family, Store};

    fn put(key: &[u8], value: &[u8]) -> Batch {
        Batch { preconditions: vec![], writes: vec![Write::Put(RowKey::new(Family::Root, key), value.to_vec())] }
    }

    #[tokio::test]
    async fn nothing_is_written_after_a_failed_write() {
        let dir = tempfile::tempdir().unwrap();
        let tried = Arc::new(AtomicUsize::new(0));
        let store = RocksStore::create(&dir.path().join("store"), &Limits::default()).unwrap();
        let synced = options::synced();
        let counter = Arc::clone(&tried);
        let store = store.with_writer(|database, readers| {
            Writer::start_with(database, readers, move |db, writes| match counter.fetch_add(1, Ordering::SeqCst) {
                1 => Err("the disk is on fire".into()),
                _ => Ok(db.write_opt(writes, &synced)?),
            })
        });

        store.commit(put(b"row", b"before")).await.unwrap();
        for value in [b"failed", b"behind"] {
            let refused = Batch {
                preconditions: vec![Precondition::Absent(RowKey::new(Family::Root, *b"row"))],
                ..put(b"row", value)
            };
            for batch in [put(b"row", value), refused, Batch::default()] {
                let error = store.commit(batch).await.unwrap_err();
                assert!(
                    matches!(&error, StoreError::Failed(cause) if cause.to_string().contains("on fire")),
                    "{error:?}"
                );
            }
        }
        assert_eq!(tried.load(Ordering::SeqCst), 2);
        let row = store.get(&RowKey::new(Family::Root, *b"row")).await.unwrap();
        assert_eq!(row.as_deref(), Some(&b"before"[..]), "reads go on");
    }

    /// The real thing: the next write-ahead log is a device without room.
    #[tokio::test]
    async fn a_full_disk_is_a_failed_write() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let store = RocksStore::create(&dir, &Limits::default()).unwrap();
        store.commit(put(b"row", b"before")).await.unwrap();
        for number in 0..100 {
            let _ = std::os::unix::fs::symlink("/dev/full", dir.join(format!("{number:06}.log"))); // Unless it is there.
        }
        store.database.with(|db| flush(db).map_err(StoreError::failed)).unwrap(); // Begins a new log.
        for _ in 0..3 {
            let error = store.commit(put(b"row", b"behind")).await.unwrap_err();
            assert!(matches!(&error, StoreError::Failed(_)), "{error:?}");
        }
        assert_eq!(store.get(&RowKey::new(Family::Root, *b"row")).await.unwrap().as_deref(), Some(&b"before"[..]));
    }

    #[test]
    fn a_group_is_bounded_and_ends_where_the_store_is_closed() {
        let room = Arc::new(Semaphore::new(9));
        let commit = |bytes| {
            Order::Commit(Commit {
                batch: Batch::default(),
                bytes,
                done: oneshot::channel().0,
                _room: Arc::clone(&room).try_acquire_owned().unwrap(),
            })
        };
        let (orders, mut inbox) = mpsc::unbounded_channel();
        for order in [
            commit(1),
            commit(GROUP_BYTES_MAX - 1),
            commit(GROUP_BYTES_MAX * 2),
            commit(1),
            Order::Close(oneshot::channel().0),
            commit(1),
        ] {
            assert!(orders.send(order).is_ok());
        }
        let mut groups = Vec::new();
        while let Ok(first) = inbox.try_recv() {
            let (group, close) = gather(first, &mut inbox);
            groups.push((group.len(), close.is_some()));
        }
        assert_eq!(groups, [(2, false), (1, false), (1, true), (1, false)]);
    }
}
