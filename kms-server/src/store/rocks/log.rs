//! Looking through write-ahead logs and manifests, which have the same format, before RocksDB reads them.
//!
//! One flipped bit in the type of a record can make RocksDB believe in a log that was used again,
//! which ours never are, and then it reads for ever. Such records are found here. All other damage
//! RocksDB finds itself, by its checksums.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Returns the paths of the write-ahead logs in a folder.
pub(super) fn logs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    files(dir, |name| name.ends_with(".log"))
}

/// Returns the paths of the manifests in a folder.
pub(super) fn manifests(dir: &Path) -> io::Result<Vec<PathBuf>> {
    files(dir, |name| name.starts_with("MANIFEST-"))
}

fn files(dir: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let files = dir.read_dir()?.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>()?;
    let wanted = |file: &PathBuf| file.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted);
    Ok(files.into_iter().filter(wanted).collect())
}

// RocksDB's format: LOG = blocks of 32 KiB, the last one shorter; BLOCK = records, then zeros where
// no header fits; RECORD = u32 checksum || u16 len || u8 type || len bytes, little-endian.
// Types: 0 none, 1 whole, 2 first, 3 middle, 4 last part; all others are for settings we do not use.

/// Returns where the first record begins whose type we never write.
pub(super) fn foreign_record(mut log: impl Read) -> io::Result<Option<u64>> {
    let mut begin = 0;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    loop {
        block.clear();
        log.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(None);
        }
        let mut at = 0;
        while let Some([_, _, _, _, low, high, kind]) = block.get(at..at + HEADER_BYTES) {
            match kind {
                0 => break,
                1..=4 => at += HEADER_BYTES + usize::from(u16::from_le_bytes([*low, *high])),
                _ => return Ok(Some(begin + at as u64)),
            }
        }
        begin += block.len() as u64;
    }
}

/// Gives the record another type that we never write either, but at which RocksDB stops.
pub(super) fn disarm(log: &Path, record: u64) -> io::Result<()> {
    let mut log = File::options().write(true).open(log)?;
    log.seek(SeekFrom::Start(record + HEADER_BYTES as u64 - 1))?;
    log.write_all(&[0xff])?;
    log.sync_all()
}

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, len: u16) -> Vec<u8> {
        let mut record = vec![7; HEADER_BYTES + usize::from(len)];
        record[4..6].copy_from_slice(&len.to_le_bytes());
        record[6] = kind;
        record
    }

    #[test]
    fn a_record_of_a_foreign_type_is_found() {
        // The first block ends with 6 bytes in which no header fits.
        let first = [record(1, 20), record(2, (BLOCK_BYTES - 27 - 7 - 6) as u16), vec![5; 6]].concat();
        assert_eq!(first.len(), BLOCK_BYTES);
        let second = [record(3, 0), record(4, 90)].concat();
        let whole = [&first[..], &second].concat();
        for end in 0..whole.len() {
            assert_eq!(foreign_record(&whole[..end]).unwrap(), None, "torn after {end} bytes");
        }
        for kind in 5..=255 {
            for at in [0, 27, BLOCK_BYTES, BLOCK_BYTES + 7] {
                let mut damaged = whole.clone();
                damaged[at + 6] = kind;
                assert_eq!(foreign_record(&damaged[..]).unwrap(), Some(at as u64), "type {kind} at {at}");
            }
        }
    }

    #[test]
    fn zeros_end_a_block() {
        let zeros = vec![0; BLOCK_BYTES - 27];
        for (behind, found) in [(record(1, 9), None), (record(5, 9), Some(BLOCK_BYTES as u64))] {
            let log = [&record(1, 20)[..], &zeros, &behind].concat();
            assert_eq!(foreign_record(&log[..]).unwrap(), found);
        }
        assert_eq!(foreign_record(&[0; 3 * BLOCK_BYTES + 9][..]).unwrap(), None);
    }
}
