//! What every store promises, as tests. One line per store: `contract::check(open).await`.
//!
//! `open` opens what is in a folder, or makes a new store where there is no such folder.

use std::path::Path;
use std::sync::Arc;

use super::memory::MemoryStore;
use super::{Batch, Family, KEY_BYTES_MAX, PAGE_ROWS_MAX, Page, Precondition, RowKey, Store, StoreError, Write};

/// Tests all that holds for every store, on disk or not.
pub async fn check<S: Store + 'static>(open: impl Fn(&Path) -> S) {
    let dir = tempfile::tempdir().unwrap();
    let stores = std::cell::Cell::new(0);
    let new = || {
        stores.set(stores.get() + 1);
        open(&dir.path().join(format!("store-{}", stores.get())))
    };
    a_row_is_what_was_put_last(&new()).await;
    families_are_apart(&new()).await;
    a_batch_is_applied_in_order(&new()).await;
    a_precondition_that_fails_names_its_row_and_changes_nothing(&new()).await;
    a_listing_is_in_byte_order_and_in_pages(&new()).await;
    a_page_is_bounded(&new()).await;
    a_deleted_prefix_takes_its_rows_and_no_neighbour(&new()).await;
    what_is_unsound_is_refused(&new()).await;
    nothing_is_lost_among_16_committers(new()).await;
    a_commit_is_applied_though_nobody_waits_for_it(&new()).await;
    random_batches_do_what_they_do_in_memory(&new(), 1).await;
    batches_sent_at_once_do_what_they_do_in_memory(&new(), 2).await;
    a_checkpoint_opens_with_the_same_rows(&new(), &dir.path().join("checkpoint"), &open).await;
    what_is_left_after_shredding_is_what_was_there(&new()).await;
    a_closed_store_does_nothing(&new(), dir.path()).await;
}

/// Tests what holds for a store that keeps its rows on disk.
pub async fn check_durable<S: Store>(open: impl Fn(&Path) -> S) {
    let dir = tempfile::tempdir().unwrap();
    rows_survive_closing(&open, &dir.path().join("closed")).await;
    acknowledged_rows_survive_a_crash(&open, &dir.path().join("running"), &dir.path().join("crashed")).await;
}

async fn a_row_is_what_was_put_last(store: &dyn Store) {
    let row = key(b"row");
    assert_eq!(store.get(&row).await.unwrap(), None);
    for value in [&b"first"[..], b"", b"third"] {
        put(store, &row, value).await;
        assert_eq!(store.get(&row).await.unwrap().as_deref(), Some(value));
    }
    commit(store, [], [Write::Delete(row.clone())]).await.unwrap();
    assert_eq!(store.get(&row).await.unwrap(), None);
    commit(store, [], [Write::Delete(row)]).await.unwrap();
    commit(store, [], []).await.unwrap();
}

async fn families_are_apart(store: &dyn Store) {
    for family in Family::ALL {
        put(store, &RowKey::new(family, *b"same key"), family.name().as_bytes()).await;
    }
    commit(store, [], [Write::DeletePrefix(RowKey::new(Family::Name, *b"same"))]).await.unwrap();
    for family in Family::ALL {
        let expected = if family == Family::Name { vec![] } else { vec![(b"same key".to_vec(), family.name().into())] };
        assert_eq!(list(store, family, b"", None, 9).await, Page { rows: expected, more: false });
    }
}

async fn a_batch_is_applied_in_order(store: &dyn Store) {
    let row = key(b"row");
    let put = |value: &[u8]| Write::Put(row.clone(), value.to_vec());
    let delete = || Write::Delete(row.clone());
    let delete_prefix = || Write::DeletePrefix(key(b"r"));
    for (writes, expected) in [
        (vec![put(b"1"), put(b"2")], Some(&b"2"[..])),
        (vec![put(b"1"), delete()], None),
        (vec![delete(), put(b"3")], Some(b"3")),
        (vec![put(b"1"), delete_prefix()], None),
        (vec![put(b"1"), delete_prefix(), put(b"4"), delete(), put(b"5")], Some(b"5")),
    ] {
        commit(store, [], writes).await.unwrap();
        assert_eq!(store.get(&row).await.unwrap().as_deref(), expected);
    }
}

async fn a_precondition_that_fails_names_its_row_and_changes_nothing(store: &dyn Store) {
    let (there, gone) = (key(b"there"), key(b"gone"));
    put(store, &there, b"value").await;
    let before = everything(store).await;
    let equals = |row: &RowKey, value: &[u8]| Precondition::Equals(row.clone(), value.to_vec());
    for (preconditions, culprit) in [
        (vec![Precondition::Absent(there.clone())], &there),
        (vec![equals(&there, b"valu")], &there),
        (vec![equals(&there, b"")], &there),
        (vec![equals(&gone, b"")], &gone),
        (vec![Precondition::Absent(gone.clone()), equals(&there, b"value"), equals(&gone, b"value")], &gone),
        (vec![equals(&there, b"other"), equals(&gone, b"other")], &there),
    ] {
        let writes =
            [Write::Put(gone.clone(), b"new".into()), Write::Delete(there.clone()), Write::DeletePrefix(key(b"t"))];
        match commit(store, preconditions.clone(), writes).await {
            Err(StoreError::Conflict(row)) => assert_eq!(&row, culprit),
            other => panic!("{preconditions:?} gave {other:?}"),
        }
        assert_eq!(everything(store).await, before);
    }
    let holds = [Precondition::Absent(gone.clone()), equals(&there, b"value")];
    commit(store, holds, [Write::Put(gone.clone(), b"new".into())]).await.unwrap();
    assert_eq!(store.get(&gone).await.unwrap().as_deref(), Some(&b"new"[..]));
}

async fn a_listing_is_in_byte_order_and_in_pages(store: &dyn Store) {
    let keys: [&[u8]; 8] = [b"\x00", b"a", b"a\x00", b"aa", b"ab", b"b", b"\xff", b"\xff\xff"];
    for key in keys.iter().rev() {
        put(store, &RowKey::new(Family::Key, *key), key).await;
    }
    put(store, &RowKey::new(Family::Dek, *b"ac"), b"of another family").await;
    let page =
        |keys: &[&[u8]], more| Page { rows: keys.iter().map(|key| (key.to_vec(), key.to_vec())).collect(), more };

    for (prefix, after, rows_max, expected) in [
        (&b""[..], None, 8, page(&keys, false)),
        (b"", None, 7, page(&keys[..7], true)),
        (b"", None, 0, page(&[], true)),
        (b"", Some(&b"ab"[..]), 9, page(&keys[5..], false)),
        (b"", Some(b"aaa"), 2, page(&keys[4..6], true)),
        (b"a", None, 4, page(&keys[1..5], false)),
        (b"a", None, 3, page(&keys[1..4], true)),
        (b"a", Some(b"a"), 9, page(&keys[2..5], false)),
        (b"a", Some(b"\x00"), 9, page(&keys[1..5], false)),
        (b"a", Some(b"ab"), 9, page(&[], false)),
        (b"a", Some(b"b"), 9, page(&[], false)),
        (b"ac", None, 9, page(&[], false)),
        (b"c", None, 0, page(&[], false)),
        (b"\xff", None, 9, page(&keys[6..], false)),
        (b"\xff\xff", None, 9, page(&keys[7..], false)),
        (b"\xff", Some(b"\xff"), 1, page(&keys[7..], false)),
    ] {
        assert_eq!(list(store, Family::Key, prefix, after, rows_max).await, expected, "{prefix:x?} after {after:x?}");
    }
}

async fn a_page_is_bounded(store: &dyn Store) {
    let rows = (0..=PAGE_ROWS_MAX).map(|n| Write::Put(key(&(n as u32).to_be_bytes()), vec![]));
    commit(store, [], rows).await.unwrap();
    let page = list(store, Family::Root, b"", None, usize::MAX).await;
    assert_eq!((page.rows.len(), page.more), (PAGE_ROWS_MAX, true));
    let last = page.rows.last().map(|(key, _)| key.as_slice());
    let page = list(store, Family::Root, b"", last, usize::MAX).await;
    assert_eq!((page.rows.len(), page.more), (1, false));
}

async fn a_deleted_prefix_takes_its_rows_and_no_neighbour(store: &dyn Store) {
    let keys: [&[u8]; 12] = [
        b"",
        b"\x00",
        b"a",
        b"a\xfe",
        b"a\xfe\xff",
        b"a\xff",
        b"a\xff\x00",
        b"a\xff\xff",
        b"b",
        b"\xff",
        b"\xff\xfe",
        b"\xff\xff\xff",
    ];
    for prefix in
        [&b"\x00"[..], b"a", b"a\xfe", b"a\xff", b"a\xff\xff", b"b", b"c", b"\xff", b"\xff\xff", b"\xff\xff\xff\xff"]
    {
        commit(store, [], keys.map(|key| Write::Put(RowKey::new(Family::Dek, key), b"value".into()))).await.unwrap();
        commit(store, [], [Write::DeletePrefix(RowKey::new(Family::Dek, prefix))]).await.unwrap();
        let left: Vec<_> = keys.iter().filter(|key| !key.starts_with(prefix)).map(|key| key.to_vec()).collect();
        let found = list(store, Family::Dek, b"", None, 99).await.rows;
        assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), left, "without {prefix:x?}");
        for key in keys {
            let row = store.get(&RowKey::new(Family::Dek, key)).await.unwrap();
            assert_eq!(row.is_some(), !key.starts_with(prefix), "{key:x?} without {prefix:x?}");
        }
    }
    // The longest of all keys is the last of the last prefix.
    let last = RowKey::new(Family::Dek, vec![0xff; KEY_BYTES_MAX]);
    put(store, &last, b"value").await;
    commit(store, [], [Write::DeletePrefix(RowKey::new(Family::Dek, *b"\xff"))]).await.unwrap();
    assert_eq!(store.get(&last).await.unwrap(), None);
}

async fn what_is_unsound_is_refused(store: &dyn Store) {
    put(store, &key(b"row"), b"value").await;
    let before = everything(store).await;
    for unsound in [
        Write::DeletePrefix(key(b"")),
        Write::DeletePrefix(key(&[0xff; KEY_BYTES_MAX + 1])),
        Write::Delete(key(&[7; KEY_BYTES_MAX + 1])),
        Write::Put(key(&[7; KEY_BYTES_MAX + 1]), vec![]),
    ] {
        let outcome = commit(store, [], [Write::Put(key(b"other"), vec![]), unsound]).await;
        assert!(matches!(outcome, Err(StoreError::Failed(_))));
        assert_eq!(everything(store).await, before);
    }
    put(store, &key(b"other"), b"goes on").await;
}

/// One runtime per thread, as in the service.
async fn nothing_is_lost_among_16_committers(store: impl Store + 'static) {
    const COMMITTERS: usize = 16;
    const EACH: usize = 25;
    let store = Arc::new(store);
    let committers: Vec<_> = (0..COMMITTERS)
        .map(|_| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                block_on(async move {
                    for _ in 0..EACH {
                        while !count_up(&*store).await {}
                    }
                })
            })
        })
        .collect();
    for committer in committers {
        committer.join().unwrap();
    }
    let count = store.get(&key(b"count")).await.unwrap().unwrap();
    assert_eq!(count, ((COMMITTERS * EACH) as u32).to_be_bytes());

    async fn count_up(store: &dyn Store) -> bool {
        let row = key(b"count");
        let old = store.get(&row).await.unwrap();
        let count = old.as_ref().map_or(0, |old| u32::from_be_bytes(old[..].try_into().unwrap()));
        let unchanged = old.map_or(Precondition::Absent(row.clone()), |old| Precondition::Equals(row.clone(), old));
        match commit(store, [unchanged], [Write::Put(row.clone(), (count + 1).to_be_bytes().into())]).await {
            Ok(()) => {
                let seen = store.get(&row).await.unwrap().unwrap();
                assert!(seen >= (count + 1).to_be_bytes().to_vec(), "a read does not see a commit that returned");
                true
            }
            Err(StoreError::Conflict(_)) => false,
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn a_commit_is_applied_though_nobody_waits_for_it(store: &dyn Store) {
    let row = key(b"row");
    {
        let batch = Batch { preconditions: vec![], writes: vec![Write::Put(row.clone(), b"value".into())] };
        let mut commit = store.commit(batch);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = commit.as_mut().poll(&mut context); // Sent; dropped before the answer.
    }
    put(store, &key(b"later"), b"").await; // Commits are in order, so the first is done with this.
    assert_eq!(store.get(&row).await.unwrap().as_deref(), Some(&b"value"[..]));
}

async fn random_batches_do_what_they_do_in_memory(store: &dyn Store, seed: u64) {
    let memory = MemoryStore::new();
    let mut dice = Dice(seed);
    for _ in 0..200 {
        let batch = dice.batch();
        let (expected, outcome) = (memory.commit(batch.clone()).await, store.commit(batch).await);
        assert_eq!(conflict(outcome), conflict(expected));
        let (family, prefix, after, rows_max) = (dice.family(), dice.key(), dice.key(), dice.roll(5));
        let after = (dice.roll(2) == 0).then_some(&after[..]);
        let expected = list(&memory, family, &prefix, after, rows_max).await;
        assert_eq!(list(store, family, &prefix, after, rows_max).await, expected);
    }
    assert_eq!(everything(store).await, everything(&memory).await);
}

/// What is sent at once may become durable at once, but each batch must see those before it.
async fn batches_sent_at_once_do_what_they_do_in_memory(store: &dyn Store, seed: u64) {
    let memory = MemoryStore::new();
    let mut dice = Dice(seed);
    for _ in 0..100 {
        let batches: Vec<_> = (0..1 + dice.roll(20)).map(|_| dice.batch()).collect();
        let outcomes = futures_util::future::join_all(batches.iter().map(|batch| store.commit(batch.clone()))).await;
        for (batch, outcome) in batches.into_iter().zip(outcomes) {
            assert_eq!(conflict(outcome), conflict(memory.commit(batch).await));
        }
        assert_eq!(everything(store).await, everything(&memory).await);
    }
}

async fn a_checkpoint_opens_with_the_same_rows<S: Store>(store: &S, into: &Path, open: &impl Fn(&Path) -> S) {
    let mut dice = Dice(3);
    for _ in 0..50 {
        let _ = store.commit(dice.batch()).await;
    }
    let before = everything(store).await;
    store.checkpoint(into).await.unwrap();
    put(store, &key(b"later"), b"not in the checkpoint").await;

    assert!(matches!(store.checkpoint(into).await, Err(StoreError::Failed(_))), "the folder exists");
    let copy = open(into);
    assert_eq!(everything(&copy).await, before);
    put(&copy, &key(b"copy"), b"not in the store").await;
    assert_eq!(store.get(&key(b"copy")).await.unwrap(), None);
}

async fn what_is_left_after_shredding_is_what_was_there(store: &dyn Store) {
    let mut dice = Dice(4);
    for family in Family::ALL {
        for _ in 0..30 {
            let _ = store.commit(dice.batch()).await;
        }
        let before = everything(store).await;
        store.shred(family).await.unwrap();
        store.shred(family).await.unwrap();
        assert_eq!(everything(store).await, before);
    }
}

async fn a_closed_store_does_nothing(store: &dyn Store, dir: &Path) {
    let row = key(b"row");
    put(store, &row, b"value").await;
    store.close().await.unwrap();
    assert!(matches!(store.get(&row).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.list(Family::Root, b"", None, 1).await, Err(StoreError::Failed(_))));
    assert!(matches!(commit(store, [], [Write::Delete(row)]).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.shred(Family::Root).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.checkpoint(&dir.join("of a closed one")).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.close().await, Err(StoreError::Failed(_))));
}

async fn rows_survive_closing<S: Store>(open: &impl Fn(&Path) -> S, dir: &Path) {
    let memory = MemoryStore::new();
    let mut dice = Dice(5);
    for _ in 0..4 {
        let store = open(dir);
        assert_eq!(everything(&store).await, everything(&memory).await);
        for _ in 0..25 {
            let batch = dice.batch();
            assert_eq!(conflict(store.commit(batch.clone()).await), conflict(memory.commit(batch).await));
        }
        store.close().await.unwrap();
    }
    drop(open(dir)); // Closed by dropping it.
    assert_eq!(everything(&open(dir)).await, everything(&memory).await);
}

/// A copy of the files of a running store is what a crash of the process leaves.
async fn acknowledged_rows_survive_a_crash<S: Store>(open: &impl Fn(&Path) -> S, dir: &Path, copy: &Path) {
    let store = open(dir);
    let mut dice = Dice(6);
    for _ in 0..100 {
        let _ = store.commit(dice.batch()).await;
    }
    std::fs::create_dir(copy).unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    assert_eq!(everything(&open(copy)).await, everything(&store).await);
}

fn key(key: &[u8]) -> RowKey {
    RowKey::new(Family::Root, key)
}

async fn commit(
    store: &dyn Store,
    preconditions: impl IntoIterator<Item = Precondition>,
    writes: impl IntoIterator<Item = Write>,
) -> Result<(), StoreError> {
    let batch = Batch { preconditions: preconditions.into_iter().collect(), writes: writes.into_iter().collect() };
    store.commit(batch).await
}

async fn put(store: &dyn Store, row: &RowKey, value: &[u8]) {
    commit(store, [], [Write::Put(row.clone(), value.to_vec())]).await.unwrap();
}

async fn list(store: &dyn Store, family: Family, prefix: &[u8], after: Option<&[u8]>, rows_max: usize) -> Page {
    store.list(family, prefix, after, rows_max).await.unwrap()
}

async fn everything(store: &dyn Store) -> Vec<Page> {
    let mut pages = Vec::new();
    for family in Family::ALL {
        pages.push(list(store, family, b"", None, PAGE_ROWS_MAX).await);
    }
    pages
}

fn conflict(outcome: Result<(), StoreError>) -> Option<RowKey> {
    match outcome {
        Ok(()) => None,
        Err(StoreError::Conflict(row)) => Some(row),
        Err(error) => panic!("{error:?}"),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Draws the same batches for the same seed, over few enough keys that they meet each other.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn family(&mut self) -> Family {
        Family::ALL[self.roll(Family::ALL.len())]
    }

    fn key(&mut self) -> Vec<u8> {
        (0..self.roll(3)).map(|_| [7, 0xff][self.roll(2)]).collect()
    }

    fn row(&mut self) -> RowKey {
        RowKey::new([Family::Root, Family::Dek][self.roll(2)], self.key())
    }

    fn value(&mut self) -> Vec<u8> {
        vec![7; self.roll(3)]
    }

    fn batch(&mut self) -> Batch {
        let preconditions = (0..self.roll(3))
            .map(|_| match self.roll(2) {
                0 => Precondition::Absent(self.row()),
                _ => Precondition::Equals(self.row(), self.value()),
            })
            .collect();
        let writes = (0..self.roll(6))
            .map(|_| match self.roll(4) {
                0 => Write::Delete(self.row()),
                1 => {
                    let mut prefix = self.row();
                    prefix.key.push(0xff);
                    Write::DeletePrefix(prefix)
                }
                _ => Write::Put(self.row(), self.value()),
            })
            .collect();
        Batch { preconditions, writes }
    }
}
