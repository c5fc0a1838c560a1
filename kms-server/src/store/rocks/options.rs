//! How RocksDB is set, and reading back what it made of it.
//!
//! **Invariant:** what design sections 5 and 6 ask for is what RocksDB wrote into its OPTIONS file:
//! `effective_options_are_those_of_the_design`. Setters alone prove nothing: defaults change
//! between versions.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamilyDescriptor, CompactOptions,
    DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions, ReadTier, WriteOptions,
};

use crate::store::Family;

/// What a store may take of the machine.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory for blocks, indexes and filters that were read.
    pub cache_bytes_max: usize,
    /// Memory for rows that are in no table yet.
    pub memtable_bytes_max: usize,
    /// Write-ahead log that is kept, and read again after a crash.
    pub wal_bytes_max: u64,
    /// Tables that are kept open.
    pub open_files_max: u16,
    /// Threads that read what is not in memory: as many reads as the disk may do at once.
    pub readers: u8,
    /// Time after which opening is given up.
    pub open_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_bytes_max: 128 << 20,
            memtable_bytes_max: 64 << 20,
            wal_bytes_max: 64 << 20,
            open_files_max: 256,
            readers: 4,
            open_wait_max: Duration::from_secs(120),
        }
    }
}

/// The family that RocksDB always has. Ours have the names that go into the MACs of records, so
/// none of them is this one, and it stays empty: what lies in it was not written by us.
pub(super) const UNUSED: &str = "default";

/// Returns the options of the whole database, for opening one that exists.
pub(super) fn database(limits: &Limits) -> Options {
    // No setter: RocksDB must not heal itself after a failed write. Only a restart may decide what
    // was lost, against the audit log.
    let mut options = Options::default()
        .get_options_from_string("max_bgerror_resume_count=0")
        .expect("RocksDB knows this option, or the test of the effective options fails");
    options.create_if_missing(false);
    options.create_missing_column_families(false);

    // Nothing acknowledged is lost, or its loss is noticed. The default mode takes a log with a
    // flipped bit and silently drops what comes behind it.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
    // A log that is not the last one and lost its end, or is not there, is noticed too.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_manual_wal_flush(false);
    options.set_atomic_flush(true);

    // Nothing deleted stays: no log that is kept, used again or compressed.
    options.set_recycle_log_file_num(0);
    options.set_wal_ttl_seconds(0);
    options.set_wal_size_limit_mb(0);
    options.set_wal_compression_type(DBCompressionType::None);

    // Bounds.
    options.set_max_total_wal_size(limits.wal_bytes_max);
    options.set_db_write_buffer_size(limits.memtable_bytes_max);
    options.set_max_open_files(limits.open_files_max.into());
    options.set_max_manifest_file_size(4 << 20);
    // RocksDB's own messages: warnings only, since others name keys; four files of 1 MiB.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);

    // One flush and three compactions at a time: shredding `root` must not wait for `dek`.
    options.set_max_background_jobs(4);
    // A read on a core must not be the one that frees memtables or deletes files.
    options.set_avoid_unnecessary_blocking_io(true);
    // Tables are written back bit by bit, so that no sync of the log waits for all of one.
    options.set_bytes_per_sync(1 << 20);
    options
}

/// Returns the five families and the unused one with their options.
pub(super) fn families(limits: &Limits) -> Vec<ColumnFamilyDescriptor> {
    // Without locks: it is read by all cores.
    let cache = Cache::new_hyper_clock_cache(limits.cache_bytes_max, 0);
    let mut families: Vec<_> = Family::ALL
        .iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), self::family(*family, &cache)))
        .collect();
    families.push(ColumnFamilyDescriptor::new(UNUSED, small(&cache)));
    families
}

fn family(family: Family, cache: &Cache) -> Options {
    match family {
        Family::Root => small(cache),
        Family::Name | Family::Key | Family::Dek | Family::Ops => {
            let mut options = small(cache);
            options.set_compression_type(DBCompressionType::Lz4);
            options.set_write_buffer_size(16 << 20);
            options.set_target_file_size_base(64 << 20);
            options
        }
    }
}

fn small(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Indexes and filters in pieces and within the cache's bound: a family may have hundreds of
    // millions of rows.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_bloom_filter(10.0, false);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_enable_blob_files(false);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(4 << 20);
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(4 << 20);
    options
}

/// Returns the options of every commit: durable when it returns.
pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Returns the options of a read that never waits for the disk.
pub(super) fn in_memory() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(ReadTier::BlockCache);
    options
}

/// Returns the options of a listing, which leaves the cache to the rows that are read one by one.
pub(super) fn in_passing() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

/// Returns the options of a compaction that leaves nothing deleted.
pub(super) fn forced() -> CompactOptions {
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    // Not exclusively: else no other family could be compacted in the meantime.
    options.set_exclusive_manual_compaction(false);
    options
}

/// What RocksDB says it runs with: sections such as `DBOptions` and `CFOptions "root"`, of names
/// and values.
pub type EffectiveOptions = BTreeMap<String, BTreeMap<String, String>>;

/// Reads the newest OPTIONS file of a store's folder. Blocks.
pub fn effective_options(dir: &Path) -> io::Result<EffectiveOptions> {
    let mut newest = None;
    for file in std::fs::read_dir(dir)? {
        let name = file?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("OPTIONS-")).and_then(|number| number.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, name)));
    }
    let (_, name) = newest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no OPTIONS file"))?;

    let mut options = EffectiveOptions::new();
    let mut section = String::new();
    for line in std::fs::read_to_string(dir.join(name))?.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.into();
        } else if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            options.entry(section.clone()).or_default().insert(name.into(), value.into());
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use rocksdb::statistics::Ticker;
    use rocksdb::{DB, WriteBatch};

    use super::super::RocksStore;
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn effective_options_are_those_of_the_design() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            open_files_max: 123,
            wal_bytes_max: 456 << 10,
            memtable_bytes_max: 789 << 10,
            ..Limits::default()
        };
        RocksStore::create(&dir.path().join("store"), &limits).unwrap().close().await.unwrap();
        let created = effective_options(&dir.path().join("store")).unwrap();
        RocksStore::open(&dir.path().join("store"), &limits).unwrap().close().await.unwrap();
        let opened = effective_options(&dir.path().join("store")).unwrap();

        for (name, value) in [("create_if_missing", "false"), ("create_missing_column_families", "false")] {
            assert_eq!(opened["DBOptions"][name], value, "{name}");
        }
        for options in [created, opened] {
            for (name, value) in [
                // Recovery.
                ("wal_recovery_mode", "kTolerateCorruptedTailRecords"),
                ("paranoid_checks", "true"),
                ("track_and_verify_wals_in_manifest", "true"),
                ("manual_wal_flush", "false"),
                ("atomic_flush", "true"),
                ("max_bgerror_resume_count", "0"),
                ("best_efforts_recovery", "false"),
                ("verify_sst_unique_id_in_manifest", "true"),
                ("flush_verify_memtable_count", "true"),
                ("compaction_verify_record_count", "true"),
                ("unordered_write", "false"),
                ("two_write_queues", "false"),
                ("avoid_flush_during_recovery", "false"),
                ("allow_mmap_writes", "false"),
                // Remanence.
                ("recycle_log_file_num", "0"),
                ("WAL_ttl_seconds", "0"),
                ("WAL_size_limit_MB", "0"),
                ("wal_compression", "kNoCompression"),
                ("allow_data_in_errors", "false"),
                ("info_log_level", "WARN_LEVEL"),
                ("is_fd_close_on_exec", "true"),
                // Bounds.
                ("max_open_files", "123"),
                ("max_total_wal_size", "466944"),
                ("db_write_buffer_size", "807936"),
                ("max_manifest_file_size", "4194304"),
                ("max_log_file_size", "1048576"),
                ("keep_log_file_num", "4"),
                ("stats_dump_period_sec", "0"),
                ("stats_persist_period_sec", "0"),
                ("max_background_jobs", "4"),
                ("avoid_unnecessary_blocking_io", "true"),
            ] {
                assert_eq!(options["DBOptions"].get(name).map(String::as_str), Some(value), "{name}");
            }

            let mut families: Vec<_> =
                options.keys().filter_map(|section| section.strip_prefix("CFOptions ")).collect();
            families.sort_unstable();
            assert_eq!(families, ["\"default\"", "\"dek\"", "\"key\"", "\"name\"", "\"ops\"", "\"root\""]);
            for family in families {
                let of_family = &options[&format!("CFOptions {family}")];
                let of_table = &options[&format!("TableOptions/BlockBasedTable {family}")];
                let small = matches!(family, "\"root\"" | "\"default\"");
                for (options, name, value) in [
                    (of_family, "compression", if small { "kNoCompression" } else { "kLZ4Compression" }),
                    (of_family, "bottommost_compression", "kDisableCompressionOption"),
                    (of_family, "write_buffer_size", if small { "4194304" } else { "16777216" }),
                    (of_family, "target_file_size_base", if small { "4194304" } else { "67108864" }),
                    (of_family, "max_write_buffer_number", "2"),
                    (of_family, "enable_blob_files", "false"),
                    (of_family, "force_consistency_checks", "true"),
                    (of_family, "disable_auto_compactions", "false"),
                    (of_family, "compaction_style", "kCompactionStyleLevel"),
                    (of_family, "compaction_filter", "nullptr"),
                    (of_family, "merge_operator", "nullptr"),
                    (of_family, "comparator", "leveldb.BytewiseComparator"),
                    (of_family, "inplace_update_support", "false"),
                    (of_family, "preserve_internal_time_seconds", "0"),
                    (of_family, "preclude_last_level_data_seconds", "0"),
                    (of_table, "cache_index_and_filter_blocks", "true"),
                    (of_table, "partition_filters", "true"),
                    (of_table, "checksum", "kXXH3"),
                ] {
                    assert_eq!(options.get(name).map(String::as_str), Some(value), "{name} of {family}");
                }
            }
        }
    }

    #[test]
    fn every_commit_syncs_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = database(&Limits::default());
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.enable_statistics();
        let db = DB::open_cf_descriptors(&options, dir.path(), families(&Limits::default())).unwrap();
        let before = options.get_ticker_count(Ticker::WalFileSynced);
        for n in 1..=3 {
            let mut writes = WriteBatch::default();
            writes.put(b"row", b"value");
            db.write_opt(writes, &synced()).unwrap();
            assert_eq!(options.get_ticker_count(Ticker::WalFileSynced) - before, n);
        }
    }

    #[test]
    fn the_newest_options_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(effective_options(dir.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        for (name, text) in [
            ("OPTIONS-000009", "[DBOptions]\n  a=old\n"),
            ("OPTIONS-000010", "# a=comment\n[Version]\n  x=1\n\n[DBOptions]\n  a=new=er\n  b=\n"),
            ("OPTIONS-000011.dbtmp", "[DBOptions]\n  a=unfinished\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let options = effective_options(dir.path()).unwrap();
        assert_eq!(options["DBOptions"]["a"], "new=er");
        assert_eq!(options["DBOptions"]["b"], "");
        assert_eq!(options["Version"]["x"], "1");
    }
}
