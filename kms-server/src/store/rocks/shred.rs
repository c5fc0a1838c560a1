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

    let mut tries = LOOKS_MAX;
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
            // A listing, a checkpoint or a compaction still has them.
            _ => std::thread::sleep(LOOK_EVERY),
        }
    }
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
