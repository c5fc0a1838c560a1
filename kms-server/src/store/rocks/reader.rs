//! The threads that read what is not in memory, so that no core waits for the disk.
//!
//! Our own threads rather than tokio's blocking pool: every core has a runtime of its own and so
//! would have a pool of its own, of up to 512 threads each; these few are a bound on what the disk
//! is asked at once, are there without a runtime, and end with the store. Few rather than one,
//! since a cold row is a wait of its own and a page may be long.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rocksdb::DB;
use tokio::sync::{mpsc, oneshot};

use super::{Database, after_prefix, column, options};
use crate::store::{Family, PAGE_ROWS_MAX, Page, RowKey, StoreError};

/// The caller's side of the threads.
pub(super) struct Readers {
    orders: mpsc::Sender<Order>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

enum Order {
    Get {
        row: RowKey,
        done: oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>,
    },
    GetMany {
        rows: Vec<(usize, RowKey)>,
        done: oneshot::Sender<Result<Vec<Numbered>, StoreError>>,
    },
    List {
        family: Family,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        rows_max: usize,
        done: oneshot::Sender<Result<Page, StoreError>>,
    },
    Stop,
}

/// A value, with the number that its row was asked for by.
type Numbered = (usize, Option<Vec<u8>>);

impl Readers {
    pub(super) fn start(database: &Arc<Database>, threads: u8) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        let start = |_| {
            let (database, inbox) = (Arc::clone(database), Arc::clone(&inbox));
            std::thread::Builder::new().name("store-reader".into()).spawn(move || work(&database, &inbox))
        };
        let threads = (0..threads.max(1)).map(start).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { orders, threads: Mutex::new(threads) })
    }

    pub(super) async fn get(&self, row: RowKey) -> Result<Option<Vec<u8>>, StoreError> {
        let (done, outcome) = oneshot::channel();
        self.orders.send(Order::Get { row, done }).await.map_err(|_| StoreError::closed())?;
        outcome.await.map_err(|_| StoreError::closed())?
    }

    /// Reads rows, each with a number of the caller's.
    pub(super) async fn get_many(&self, rows: Vec<(usize, RowKey)>) -> Result<Vec<Numbered>, StoreError> {
        let (done, outcome) = oneshot::channel();
        self.orders.send(Order::GetMany { rows, done }).await.map_err(|_| StoreError::closed())?;
        outcome.await.map_err(|_| StoreError::closed())?
    }

    pub(super) async fn list(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        rows_max: usize,
    ) -> Result<Page, StoreError> {
        let (done, outcome) = oneshot::channel();
        let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
        self.orders
            .send(Order::List { family, prefix, after, rows_max, done })
            .await
            .map_err(|_| StoreError::closed())?;
        outcome.await.map_err(|_| StoreError::closed())?
    }

    /// Lets the threads finish what they were asked before, and waits for them. Blocks.
    pub(super) fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().expect("nothing panics while it holds the handles"));
        for _ in &threads {
            let _ = self.orders.blocking_send(Order::Stop); // Unless all have ended.
        }
        for thread in threads {
            let _ = thread.join(); // A panic was printed; it failed what was asked then.
        }
    }
}

fn work(database: &Database, inbox: &Mutex<mpsc::Receiver<Order>>) {
    loop {
        let order = inbox.lock().expect("nothing panics while it waits for an order").blocking_recv();
        match order {
            Some(Order::Get { row, done }) if !done.is_closed() => {
                let read = |db: &DB| db.get_cf(column(db, row.family), &row.key).map_err(StoreError::failed);
                let _ = done.send(database.with(read));
            }
            Some(Order::GetMany { rows, done }) if !done.is_closed() => {
                let _ = done.send(database.with(|db| get_many(db, rows)));
            }
            Some(Order::List { family, prefix, after, rows_max, done }) if !done.is_closed() => {
                let _ = done.send(database.with(|db| list(db, family, &prefix, after.as_deref(), rows_max)));
            }
            Some(Order::Get { .. } | Order::GetMany { .. } | Order::List { .. }) => {} // Nobody waits any more.
            Some(Order::Stop) | None => return,
        }
    }
}

fn get_many(db: &DB, rows: Vec<(usize, RowKey)>) -> Result<Vec<Numbered>, StoreError> {
    let read = |(number, row): (usize, RowKey)| {
        let value = db.get_cf(column(db, row.family), &row.key).map_err(StoreError::failed)?;
        Ok((number, value))
    };
    rows.into_iter().map(read).collect()
}

fn list(db: &DB, family: Family, prefix: &[u8], after: Option<&[u8]>, rows_max: usize) -> Result<Page, StoreError> {
    let mut options = options::in_passing();
    if let Some(end) = after_prefix(prefix) {
        options.set_iterate_upper_bound(end);
    }
    let mut cursor = db.raw_iterator_cf_opt(column(db, family), options);
    match after {
        Some(after) if after >= prefix => {
            cursor.seek(after);
            if cursor.key() == Some(after) {
                cursor.next();
            }
        }
        Some(_) | None => cursor.seek(prefix),
    }
    let mut page = Page::default();
    while let Some((key, value)) = cursor.item() {
        if page.rows.len() == rows_max.min(PAGE_ROWS_MAX) {
            page.more = true;
            break;
        }
        page.rows.push((key.to_vec(), value.to_vec()));
        cursor.next();
    }
    cursor.status().map_err(StoreError::failed)?;
    Ok(page)
}

/// Reads that wait. Those beyond wait to wait, on their core and without blocking it.
const ORDERS_MAX: usize = 1024;
