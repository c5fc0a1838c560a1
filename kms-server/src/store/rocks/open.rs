//! Opening a folder: makes a new store, opens one, or salvages one whose log RocksDB refuses.
//!
//! Nothing is made or mended silently. Opening a folder never creates a family, and a damaged log
//! is never taken for a short one.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rocksdb::{DB, DBRecoveryMode, ErrorKind, IteratorMode, Options};

use super::BoxError;
use super::log::{disarm, foreign_record, logs, manifests};
use super::options::{self, Limits};
use super::shred::flush;
use crate::store::Family;

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such folder, or no database in it.
    #[error(
        "there is no store in this folder, expected a database with its file CURRENT: put back the newest copy of it"
    )]
    Missing,
    /// A new store was asked for where something is.
    #[error("the folder for a new store is not empty")]
    NotEmpty,
    /// Another process, or this one, has it open.
    #[error("another kms-server has this data directory open")]
    Locked,
    /// A database with other families, or with rows where we write none.
    #[error(
        "the database in this folder is not a whole store of ours: {0}; put back the newest copy of this cluster's"
    )]
    Foreign(String),
    /// What was acknowledged may be lost. [`salvage`] opens what can be read, to be checked against
    /// the audit log.
    #[error("the store is damaged: put back its newest whole copy, beside the log as it is; nothing was changed")]
    Damaged(#[source] BoxError),
    /// RocksDB may read a damaged log for ever. The thread that does can only be ended with the
    /// process. Those that we know of are [`OpenError::Damaged`] instead.
    #[error("opening did not end within {0:?}: the store may be damaged; put back its newest whole copy")]
    Stuck(Duration),
    /// The disk, the permissions or the memory do not allow it.
    #[error("the store cannot be opened")]
    Failed(#[source] BoxError),
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        OpenError::Failed(error.into())
    }
}

impl From<rocksdb::Error> for OpenError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            ErrorKind::Corruption => OpenError::Damaged(error.into()),
            ErrorKind::IOError if error.as_ref().contains("/LOCK: ") => OpenError::Locked,
            _ => OpenError::Failed(error.into()),
        }
    }
}

/// Makes a new store in a folder that is empty or not there yet.
pub(super) fn create(dir: &Path, limits: &Limits) -> Result<DB, OpenError> {
    make_empty(dir)?;
    let mut options = options::database(limits);
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_error_if_exists(true);
    watched(dir, limits, options)
}

/// Opens the store in a folder.
pub(super) fn open(dir: &Path, limits: &Limits) -> Result<DB, OpenError> {
    let options = options::database(limits);
    refuse_foreign_records(logs(dir))?;
    open_as(dir, limits, options)
}

/// Refuses files that RocksDB might read for ever.
fn refuse_foreign_records(files: std::io::Result<Vec<PathBuf>>) -> Result<(), OpenError> {
    for file in files.unwrap_or_default() {
        if let Some(record) = foreign_record(File::open(&file)?)? {
            let name = file.file_name().unwrap_or_default().display();
            let found = format!("the record at byte {record} of {name} was not written by us");
            return Err(OpenError::Damaged(found.into()));
        }
    }
    Ok(())
}

/// Opens the store in a folder up to the place where its log is damaged, and closes it again, so
/// that it opens. The logs are first copied into a new folder, where they stay.
///
/// For a store that is [`OpenError::Damaged`]: a power cut may leave such a log without harm. **What
/// was acknowledged may be lost**: serve only if the store then passes the check against the audit
/// log. Returns how many bytes of logs were copied. Blocks.
pub fn salvage(dir: &Path, limits: &Limits, aside: &Path) -> Result<u64, OpenError> {
    make_empty(aside)?;
    let all = logs(dir).map_err(|_| OpenError::Missing)?;
    // All lie aside, durably, before any is touched: nothing is put back from half a copy.
    let copied = match set_aside(&all, aside) {
        Ok(copied) => copied,
        Err(error) => {
            std::fs::remove_dir_all(aside)?;
            return Err(error.into());
        }
    };
    let mut disarmed = Vec::new();
    let opened = disarm_all(&all, &mut disarmed).map_err(OpenError::from).and_then(|()| {
        let mut options = options::database(limits);
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        open_as(dir, limits, options)
    });
    let db = match opened {
        Ok(db) => db,
        Err(error) => {
            // RocksDB took nothing over: what we changed goes back, and the rest is as it was.
            disarmed.into_iter().try_for_each(|log| put_back(log, aside))?;
            std::fs::remove_dir_all(aside)?;
            return Err(error);
        }
    };
    // From here on the store goes on without these logs, and they are nowhere but aside.
    flush(&db)?;
    tracing::warn!(log_bytes = copied, "the store was salvaged: what was acknowledged may be lost");
    Ok(copied)
}

/// Copies logs into a folder, durably. Returns how many bytes.
fn set_aside(logs: &[PathBuf], aside: &Path) -> std::io::Result<u64> {
    let mut copied = 0;
    for log in logs {
        let copy = aside.join(log.file_name().expect("a listed file has a name"));
        copied += std::fs::copy(log, &copy)?;
        File::open(copy)?.sync_all()?;
    }
    File::open(aside)?.sync_all()?;
    File::open(aside.parent().unwrap_or(aside))?.sync_all()?;
    Ok(copied)
}

/// Makes the logs readable that RocksDB would read for ever, and names them.
fn disarm_all<'a>(logs: &'a [PathBuf], disarmed: &mut Vec<&'a Path>) -> std::io::Result<()> {
    for log in logs {
        if let Some(record) = foreign_record(File::open(log)?)? {
            disarmed.push(log);
            disarm(log, record)?;
        }
    }
    Ok(())
}

/// Puts a log back as it was. Its name is never that of half of it.
fn put_back(log: &Path, aside: &Path) -> std::io::Result<()> {
    let making = log.with_extension("making");
    std::fs::copy(aside.join(log.file_name().expect("a listed file has a name")), &making)?;
    File::open(&making)?.sync_all()?;
    std::fs::rename(&making, log)?;
    File::open(log.parent().unwrap_or(log))?.sync_all()
}

/// What was done to open a store whose log was damaged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Salvaged {
    /// Where its logs lie as they were.
    pub aside: PathBuf,
    /// Bytes of these logs.
    pub log_bytes: u64,
}

/// Salvages a store, and keeps its logs beside it. One that does not open even so is left as it was.
pub(super) fn salvage_once(dir: &Path, limits: &Limits, damage: BoxError) -> Result<Salvaged, OpenError> {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push("-logs");
    let places = (1..=ASIDE_MAX).map(|n| dir.with_file_name(&name).with_extension(n.to_string()));
    let Some(aside) = places.into_iter().find(|place| !place.exists()) else {
        let kept = dir.with_file_name(&name).display().to_string();
        return Err(OpenError::Damaged(
            format!("{damage}; the logs of {ASIDE_MAX} such starts lie in {kept}.*: move them away to start once more")
                .into(),
        ));
    };
    match salvage(dir, limits, &aside) {
        Ok(log_bytes) => Ok(Salvaged { aside, log_bytes }),
        Err(error) => {
            // What it was at first is more to the point than what became of it.
            tracing::debug!(%error, "the store could not be salvaged");
            let kept = aside.exists().then(|| format!("; its logs lie in {}, keep them", aside.display()));
            Err(OpenError::Damaged(format!("{damage}{}", kept.unwrap_or_default()).into()))
        }
    }
}

fn open_as(dir: &Path, limits: &Limits, options: Options) -> Result<DB, OpenError> {
    if !dir.join("CURRENT").try_exists()? {
        return Err(OpenError::Missing);
    }
    // Before anything reads one, also where a store is salvaged: no salvage mends a manifest.
    refuse_foreign_records(manifests(dir))?;
    let mut expected: Vec<_> = Family::ALL.map(Family::name).into();
    expected.push(options::UNUSED);
    let mut found = DB::list_cf(&options, dir)?;
    expected.sort_unstable();
    found.sort_unstable();
    if found != expected {
        return Err(OpenError::Foreign(format!("its families are {found:?}")));
    }
    let db = watched(dir, limits, options)?;
    if db.iterator(IteratorMode::Start).next().transpose()?.is_some() {
        return Err(OpenError::Foreign(format!("the family {:?} has rows", options::UNUSED)));
    }
    Ok(db)
}

/// Opens on a thread of its own, which may never come back.
fn watched(dir: &Path, limits: &Limits, options: Options) -> Result<DB, OpenError> {
    let families = options::families(limits);
    let dir = dir.to_owned();
    watch(limits.open_wait_max, move || DB::open_cf_descriptors(&options, dir, families))?.map_err(OpenError::from)
}

fn watch<T: Send + 'static>(wait_max: Duration, open: impl FnOnce() -> T + Send + 'static) -> Result<T, OpenError> {
    let (done, outcome) = channel();
    std::thread::Builder::new().name("store-open".into()).spawn(move || done.send(open()))?;
    outcome.recv_timeout(wait_max).map_err(|error| match error {
        RecvTimeoutError::Timeout => OpenError::Stuck(wait_max),
        RecvTimeoutError::Disconnected => OpenError::Failed("opening panicked".into()),
    })
}

/// Makes a folder that only we may read, or takes an empty one; the entry itself is durable.
fn make_empty(dir: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(File::open(parent)?.sync_all()?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => match dir.read_dir()?.next() {
            None => Ok(()),
            Some(_) => Err(OpenError::NotEmpty),
        },
        Err(error) => Err(error.into()),
    }
}

/// How often a store is salvaged before somebody has to look.
const ASIDE_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::super::RocksStore;
    use super::*;
    use crate::store::{Batch, RowKey, Store, Write};

    async fn put(store: &RocksStore, n: u32) {
        let row = RowKey::new(Family::Dek, n.to_be_bytes());
        store.commit(Batch { preconditions: vec![], writes: vec![Write::Put(row, vec![7; 100])] }).await.unwrap();
    }

    async fn rows(store: &RocksStore) -> usize {
        store.list(Family::Dek, b"", None, 1000).await.unwrap().rows.len()
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for file in from.read_dir().unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    /// Returns the one log of a store, which has `rows` rows and was not closed.
    async fn crashed(dir: &Path, rows: u32) -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let running = tempfile::tempdir().unwrap();
        let store = RocksStore::create(&running.path().join("store"), &Limits::default()).unwrap();
        for n in 0..rows {
            put(&store, n).await;
        }
        copy(&running.path().join("store"), dir);
        let logs = dir.read_dir().unwrap().map(|file| file.unwrap().path());
        let logs: Vec<_> = logs.filter(|file| file.extension().is_some_and(|extension| extension == "log")).collect();
        let [log] = &logs[..] else { panic!("{logs:?}") };
        let bytes = std::fs::read(log).unwrap();
        (running, log.clone(), bytes)
    }

    #[tokio::test]
    async fn a_folder_without_a_whole_store_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let at = |name: &str| dir.path().join(name);
        let open = |name: &str| RocksStore::open(&at(name), &limits).map(drop);
        let create = |name: &str| RocksStore::create(&at(name), &limits).map(drop);

        assert!(matches!(open("nothing"), Err(OpenError::Missing)));
        assert!(!at("nothing").exists(), "and nothing was made");
        std::fs::create_dir(at("empty")).unwrap();
        assert!(matches!(open("empty"), Err(OpenError::Missing)));
        assert!(at("empty").read_dir().unwrap().next().is_none(), "and nothing was made");
        create("empty").unwrap();
        open("empty").unwrap();

        assert!(matches!(create("empty"), Err(OpenError::NotEmpty)));
        std::fs::create_dir_all(at("foreign/folder")).unwrap();
        assert!(matches!(create("foreign"), Err(OpenError::NotEmpty)));
        std::fs::write(at("file"), "").unwrap();
        assert!(matches!(create("file"), Err(OpenError::Failed(_))));
        assert!(matches!(open("file"), Err(OpenError::Failed(_) | OpenError::Missing)));
        assert!(matches!(create("no/parent"), Err(OpenError::Failed(_))));
        std::fs::write(at("foreign/CURRENT"), "MANIFEST-000001\n").unwrap();
        assert!(matches!(open("foreign"), Err(OpenError::Failed(_) | OpenError::Damaged(_))));
    }

    #[test]
    fn other_families_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let ours = Family::ALL.map(Family::name);

        for (name, families) in
            [("none", vec![]), ("part", ours[..4].to_vec()), ("more", [&ours[..], &["more"]].concat())]
        {
            drop(DB::open_cf(&options, dir.path().join(name), families).unwrap());
            let outcome = RocksStore::open(&dir.path().join(name), &limits).map(drop);
            assert!(matches!(outcome, Err(OpenError::Foreign(_))), "{name}: {outcome:?}");
        }

        let whole = dir.path().join("whole");
        DB::open_cf(&options, &whole, ours).unwrap().put(b"row", b"of no family").unwrap();
        assert!(matches!(RocksStore::open(&whole, &limits), Err(OpenError::Foreign(_))));
        DB::open_cf(&options, &whole, ours).unwrap().delete(b"row").unwrap();
        RocksStore::open(&whole, &limits).unwrap();
    }

    #[tokio::test]
    async fn a_store_that_is_open_is_not_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let limits = Limits::default();
        let store = RocksStore::create(&dir, &limits).unwrap();
        put(&store, 1).await;
        let error = RocksStore::open(&dir, &limits).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "another kms-server has this data directory open");
        store.close().await.unwrap();
        assert_eq!(rows(&RocksStore::open(&dir, &limits).unwrap()).await, 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_new_folder_is_for_us_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        RocksStore::create(&dir, &Limits::default()).unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_torn_last_row_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (_running, log, bytes) = crashed(&dir.path().join("0"), 20).await;
        let row = bytes.len() / 20;
        for (n, (cut, left)) in [(1, 19), (row - 1, 19), (row, 19), (row + 1, 18)].into_iter().enumerate() {
            let torn = dir.path().join((n + 1).to_string());
            copy(log.parent().unwrap(), &torn);
            std::fs::write(torn.join(log.file_name().unwrap()), &bytes[..bytes.len() - cut]).unwrap();
            let store = RocksStore::open(&torn, &Limits::default()).unwrap();
            assert_eq!(rows(&store).await, left, "without {cut} bytes");
        }
    }

    #[tokio::test]
    async fn a_flipped_bit_in_the_log_is_never_taken_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (_running, log, bytes) = crashed(&dir.path().join("0"), 20).await;
        // Everywhere but in the last row, which nobody can tell from a torn one.
        for (n, at) in (20..bytes.len() - 2 * bytes.len() / 20).step_by(131).enumerate() {
            let damaged = dir.path().join((n + 1).to_string());
            copy(log.parent().unwrap(), &damaged);
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            std::fs::write(damaged.join(log.file_name().unwrap()), &bytes).unwrap();
            let outcome = RocksStore::open(&damaged, &Limits::default()).map(drop);
            assert!(matches!(outcome, Err(OpenError::Damaged(_))), "bit of byte {at}: {outcome:?}");
            let kept = std::fs::read(damaged.join(log.file_name().unwrap())).unwrap();
            assert_eq!(kept, bytes, "the log is as it was");
        }
    }

    #[tokio::test]
    async fn a_manifest_that_would_be_read_for_ever_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_running, log, _) = crashed(&dir.path().join("0"), 20).await;
        let from = log.parent().unwrap();
        let [manifest] = &manifests(from).unwrap()[..] else { panic!("there is one manifest") };
        let whole = std::fs::read(manifest).unwrap();
        let first = usize::from(u16::from_le_bytes([whole[4], whole[5]]));
        // The types of the first record, and of the second.
        for (n, at) in [6, 7 + first + 6].into_iter().enumerate() {
            let damaged = dir.path().join((n + 1).to_string());
            copy(from, &damaged);
            let mut bytes = whole.clone();
            assert_eq!(bytes[at], 1, "a whole record");
            bytes[at] = 5;
            std::fs::write(damaged.join(manifest.file_name().unwrap()), &bytes).unwrap();
            let outcome = RocksStore::open_or_salvage(&damaged, &Limits::default()).map(drop);
            assert!(matches!(outcome, Err(OpenError::Damaged(_))), "{at}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_damaged_store_can_be_salvaged_and_its_logs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let (_running, log, bytes) = crashed(&dir.path().join("0"), 20).await;
        let (row, end) = (bytes.len() / 20, bytes.len());
        let flipped = |at: usize, to: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = to;
            bytes
        };
        // The types 5 to 8, 11 and 131 would be read for ever.
        let types = [2, 5, 6, 7, 8, 11, 131].map(|kind| (flipped(10 * row + 6, kind), 10));
        let others = [
            (flipped(10 * row + 50, 0), 10),
            (flipped(19 * row + 6, 5), 19),
            // What a power cut leaves where the file was longer already.
            ([&bytes[..end - 50], &[0; 5000]].concat(), 19),
        ];
        for (n, (bytes, left)) in types.into_iter().chain(others).enumerate() {
            let damaged = dir.path().join(format!("damaged {n}"));
            let aside = dir.path().join(format!("aside {n}"));
            copy(log.parent().unwrap(), &damaged);
            std::fs::write(damaged.join(log.file_name().unwrap()), &bytes).unwrap();
            let outcome = RocksStore::open(&damaged, &limits).map(drop);
            assert!(matches!(outcome, Err(OpenError::Damaged(_))), "{n}: {outcome:?}");

            assert_eq!(salvage(&damaged, &limits, &aside).unwrap(), bytes.len() as u64);
            assert_eq!(std::fs::read(aside.join(log.file_name().unwrap())).unwrap(), bytes);
            let store = RocksStore::open(&damaged, &limits).unwrap();
            assert_eq!(rows(&store).await, left, "{n}: those before the damage");
            assert!(matches!(salvage(&damaged, &limits, &aside), Err(OpenError::NotEmpty)));
        }
        assert!(matches!(salvage(&dir.path().join("none"), &limits, &dir.path().join("new")), Err(OpenError::Missing)));
    }

    #[tokio::test]
    async fn a_damaged_log_is_salvaged_by_itself_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let (_running, log, bytes) = crashed(&dir.path().join("0"), 20).await;
        let store = dir.path().join("store");
        copy(log.parent().unwrap(), &store);
        let (opened, salvaged) = RocksStore::open_or_salvage(&store, &limits).unwrap();
        assert_eq!((rows(&opened).await, salvaged), (20, None));
        opened.close().await.unwrap();
        std::fs::remove_dir_all(&store).unwrap();

        for n in 1..=ASIDE_MAX + 1 {
            copy(log.parent().unwrap(), &store);
            let damaged = [&bytes[..bytes.len() - 50], &[0; 5000]].concat();
            std::fs::write(store.join(log.file_name().unwrap()), &damaged).unwrap();
            let outcome = RocksStore::open_or_salvage(&store, &limits);
            if n > ASIDE_MAX {
                assert!(matches!(outcome, Err(OpenError::Damaged(_))));
            } else {
                let (opened, salvaged) = outcome.unwrap();
                let Salvaged { aside, log_bytes } = salvaged.unwrap();
                assert_eq!((rows(&opened).await, log_bytes), (19, damaged.len() as u64));
                assert_eq!(std::fs::read(aside.join(log.file_name().unwrap())).unwrap(), damaged);
                opened.close().await.unwrap();
            }
            std::fs::remove_dir_all(&store).unwrap();
        }

        // A table or manifest that is damaged does not get better by that, and is left as it is.
        let other = dir.path().join("other");
        copy(log.parent().unwrap(), &other);
        let manifest = std::fs::read_to_string(other.join("CURRENT")).unwrap();
        let manifest = other.join(manifest.trim());
        let mut bytes = std::fs::read(&manifest).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&manifest, bytes).unwrap();
        let log_before = std::fs::read(other.join(log.file_name().unwrap())).unwrap();
        assert!(matches!(RocksStore::open_or_salvage(&other, &limits), Err(OpenError::Damaged(_))));
        assert_eq!(std::fs::read(other.join(log.file_name().unwrap())).unwrap(), log_before);
        assert!(!dir.path().join("other-logs.1").exists());
    }

    #[test]
    fn opening_that_never_ends_is_given_up() {
        let (ended, never) = channel::<()>();
        let outcome = watch(Duration::from_millis(20), move || never.recv());
        assert!(matches!(outcome, Err(OpenError::Stuck(_))));
        drop(ended);
        assert!(matches!(watch(Duration::from_secs(60), || 7), Ok(7)));
    }
}
