//! Shredding a family: after it, no file has a value that was deleted or overwritten before it.
//!
//! Rows lie in write-ahead logs, which all families share, and in the family's tables. So all
//! families are flushed, which makes the logs obsolete; then every table of the family is written
//! anew, down to the last level, where deletions and what they delete both end. RocksDB's C
//! interface does not say whether a compaction worked, and deletes obsolete files when it likes;
//! so **the folder is looked at**, and only that decides.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rocksdb::{DB, FlushOptions};

use super::{BoxError, column, options};
use crate::store::Family;

/// Why shredding did not come to its end. It may be tried again.
#[derive(Debug, thiserror::Error)]
enum ShredError {
    #[error("{0} tables of the family were not written anew")]
    NotRewritten(usize),
    #[error("{0} obsolete files are still there")]
    NotDeleted(usize),
    #[error("the store is being closed")]
    Closing,
}

/// Shreds a family. Blocks for as long as it takes to write the family anew.
pub(super) fn shred(db: &DB, family: Family, closing: &AtomicBool) -> Result<(), BoxError> {
    shred_patiently(db, family, closing, LOOKS_MAX)
}

fn shred_patiently(db: &DB, family: Family, closing: &AtomicBool, looks_max: usize) -> Result<(), BoxError> {
    let logs = files_with_bytes(db.path(), "log")?;
    flush(db)?;

    let old = tables(db, |of| of == family.name())?;
    let before = files_with_bytes(db.path(), "sst")?; // With those that are already obsolete.
    let mut tries = COMPACTIONS_MAX;
    loop {
        db.compact_range_cf_opt(column(db, family), None::<&[u8]>, None::<&[u8]>, &options::forced());
        let left = tables(db, |_| true)?.intersection(&old).count();
        tries -= 1;
        match left {
            0 => break,
            _ if closing.load(Ordering::Relaxed) => Err(ShredError::Closing)?,
            _ if tries == 0 => Err(ShredError::NotRewritten(left))?,
            _ => {}
        }
    }

    let mut tries = looks_max;
    loop {
        // Makes RocksDB look for obsolete files itself, and delete them on this thread.
        db.disable_file_deletions()?;
        db.enable_file_deletions()?;
        // A table of before that lives is another family's, or was finished for one meanwhile.
        let living = tables(db, |_| true)?;
        let left = files_with_bytes(db.path(), "log")?.intersection(&logs).count()
            + files_with_bytes(db.path(), "sst")?
                .intersection(&before)
                .filter(|table| !living.contains(*table))
                .count();
        tries -= 1;
        match left {
            0 => return Ok(()),
            _ if closing.load(Ordering::Relaxed) => Err(ShredError::Closing)?,
            _ if tries == 0 => Err(ShredError::NotDeleted(left))?,
            // A listing, a checkpoint or a compaction still has them; none of them says when it ends.
            _ => rest(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread of its own, and nothing tells when a file is free")]
fn rest() {
    std::thread::sleep(LOOK_EVERY);
}

/// Writes what is in memory into tables, for all families at once.
pub(super) fn flush(db: &DB) -> Result<(), rocksdb::Error> {
    let families = Family::ALL.map(|family| column(db, family));
    db.flush_cfs_opt(&families, &FlushOptions::default())
}

/// Returns the names of the tables that rows are read from.
fn tables(db: &DB, of: impl Fn(&str) -> bool) -> Result<BTreeSet<String>, rocksdb::Error> {
    let files = db.live_files()?.into_iter().filter(|file| of(&file.column_family_name));
    Ok(files.map(|file| file.name.trim_start_matches('/').to_owned()).collect())
}

/// Returns the names of the files of a kind. An empty one has nothing to delete: such is the log
/// where nothing was written since the last flush.
fn files_with_bytes(dir: &Path, kind: &str) -> std::io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        let Ok(name) = file.file_name().into_string() else { continue };
        let gone_or_empty = match file.metadata() {
            Ok(metadata) => metadata.len() == 0,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        if !gone_or_empty && Path::new(&name).extension().is_some_and(|extension| extension == kind) {
            found.insert(name);
        }
    }
    Ok(found)
}

/// A compaction of RocksDB's own that ran into ours may make a second one necessary.
const COMPACTIONS_MAX: usize = 3;

/// Ten minutes: the longest that a file may be in use by somebody else.
const LOOKS_MAX: usize = 60_000;
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use rocksdb::IteratorMode;

    use super::super::{Limits, RocksStore};
    use super::*;
    use crate::store::{Batch, RowKey, Store, Write};

    /// 32 bytes that are found nowhere by chance.
    fn needle(of: &str) -> Vec<u8> {
        ring::digest::digest(&ring::digest::SHA256, of.as_bytes()).as_ref().to_vec()
    }

    /// Counts in the files of one kind, or of all. A log may split a value in two, but not in three.
    fn hits(dir: &Path, kind: &str, needle: &[u8]) -> usize {
        let mut hits = 0;
        for file in dir.read_dir().unwrap() {
            let file = file.unwrap().path();
            if file.to_str().unwrap().ends_with(kind) {
                let bytes = std::fs::read(file).unwrap_or_default(); // Deleted in the meantime.
                hits += needle
                    .chunks(16)
                    .map(|half| bytes.windows(16).filter(|window| window == &half).count())
                    .sum::<usize>();
            }
        }
        hits
    }

    async fn commit(store: &RocksStore, writes: impl IntoIterator<Item = Write>) {
        store.commit(Batch { preconditions: vec![], writes: writes.into_iter().collect() }).await.unwrap();
    }

    fn new_store(dir: &Path) -> RocksStore {
        RocksStore::create(dir, &Limits::default()).unwrap()
    }

    #[tokio::test]
    async fn no_file_has_a_value_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let store = new_store(&dir);
        for family in Family::ALL {
            let row = RowKey::new(family, *b"prefix/row");
            let kept = RowKey::new(family, *b"other/row");
            for (n, gone) in [
                Write::Delete(row.clone()),
                Write::Put(row.clone(), b"overwritten".into()),
                Write::DeletePrefix(RowKey::new(family, *b"prefix/")),
            ]
            .into_iter()
            .enumerate()
            {
                let (needle, control) =
                    (needle(&format!("{family:?} {n}")), needle(&format!("{family:?} {n} control")));
                let put = [Write::Put(row.clone(), needle.clone()), Write::Put(kept.clone(), control.clone())];

                // From the log.
                commit(&store, put.clone()).await;
                assert_eq!(hits(&dir, ".log", &needle), 2);
                commit(&store, [gone.clone()]).await;
                assert_eq!(hits(&dir, "", &needle), 2, "deleted is not gone");
                store.shred(family).await.unwrap();
                assert_eq!(hits(&dir, "", &needle), 0, "{family:?} {gone:?}");
                assert_eq!(hits(&dir, "", &control), 2);

                // From the last level.
                commit(&store, put).await;
                store.shred(family).await.unwrap();
                assert_eq!((hits(&dir, ".sst", &needle), hits(&dir, "", &needle)), (2, 2));
                commit(&store, [gone.clone()]).await;
                assert_eq!(hits(&dir, "", &needle), 2, "deleted is not gone");
                store.shred(family).await.unwrap();
                assert_eq!(hits(&dir, "", &needle), 0, "{family:?} {gone:?}");
                assert_eq!(hits(&dir, "", &control), 2);
            }
        }
    }

    #[tokio::test]
    async fn no_file_has_a_value_that_is_gone_while_others_read_and_write() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let store = Arc::new(new_store(&dir));
        let (stop, stopped) = channel::<()>();
        let others = std::thread::spawn({
            let store = Arc::clone(&store);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let mut n = 0_u32;
                while matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                    runtime.block_on(async {
                        for family in [Family::Root, Family::Dek] {
                            commit(&store, [Write::Put(RowKey::new(family, (n % 500).to_be_bytes()), vec![7; 500])])
                                .await;
                        }
                        store.list(Family::Dek, b"", None, 100).await.unwrap();
                        store.get(&RowKey::new(Family::Root, *b"")).await.unwrap();
                    });
                    n += 1;
                }
                n
            }
        });
        for n in 0..20 {
            let needle = needle(&n.to_string());
            let row = RowKey::new(Family::Root, format!("row {n}"));
            commit(&store, [Write::Put(row.clone(), needle.clone())]).await;
            assert!(hits(&dir, "", &needle) > 0);
            commit(&store, [Write::Delete(row)]).await;
            let (root, dek) = futures_util::future::join(store.shred(Family::Root), store.shred(Family::Dek)).await;
            root.unwrap();
            dek.unwrap();
            assert_eq!(hits(&dir, "", &needle), 0, "round {n}");
        }
        stop.send(()).unwrap();
        assert!(others.join().unwrap() > 0);
    }

    #[tokio::test]
    async fn a_file_that_is_still_read_is_not_called_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = new_store(&dir.path().join("store"));
        let row = RowKey::new(Family::Key, *b"row");
        commit(&store, [Write::Put(row.clone(), b"value".into())]).await;
        let db = store.database.db.read().unwrap();
        let db = db.as_ref().unwrap();
        let closing = AtomicBool::new(false);
        shred_patiently(db, Family::Key, &closing, 1000).unwrap();

        let reading = db.iterator_cf(column(db, Family::Key), IteratorMode::Start);
        let error = shred_patiently(db, Family::Key, &closing, 3).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ShredError::NotDeleted(1))), "{error:?}");
        drop(reading);
        shred_patiently(db, Family::Key, &closing, 1000).unwrap();
    }

    #[tokio::test]
    async fn a_compaction_that_fails_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = new_store(&dir.path().join("store"));
        commit(&store, [Write::Put(RowKey::new(Family::Key, *b"row"), b"value".into())]).await;
        store.shred(Family::Key).await.unwrap();
        for table in store.database.with(|db| Ok(files_with_bytes(db.path(), "sst").unwrap())).unwrap() {
            let table = dir.path().join("store").join(table);
            let mut bytes = std::fs::read(&table).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&table, bytes).unwrap();
        }
        let error = store.database.with(|db| Ok(shred(db, Family::Key, &AtomicBool::new(false)).unwrap_err())).unwrap();
        assert!(matches!(error.downcast_ref(), Some(ShredError::NotRewritten(1))), "{error:?}");
    }

    #[tokio::test]
    async fn closing_ends_a_shredding() {
        let dir = tempfile::tempdir().unwrap();
        let store = new_store(&dir.path().join("store"));
        commit(&store, [Write::Put(RowKey::new(Family::Key, *b"row"), b"value".into())]).await;
        store.shred(Family::Key).await.unwrap();

        let (reading, is_reading) = channel();
        let (release, released) = channel::<()>();
        let database = Arc::clone(&store.database);
        let reader = std::thread::spawn(move || {
            database.with(|db| {
                let _reading = db.iterator_cf(column(db, Family::Key), IteratorMode::Start);
                reading.send(()).unwrap();
                released.recv().unwrap();
                Ok(())
            })
        });
        is_reading.recv().unwrap();
        let shred = async {
            let outcome = store.shred(Family::Key).await;
            release.send(()).unwrap();
            outcome
        };
        let (shredded, closed) = futures_util::future::join(shred, store.close()).await;
        shredded.unwrap_err();
        closed.unwrap();
        reader.join().unwrap().unwrap();
    }
}
