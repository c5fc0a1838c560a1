//! The ledger: every destruction once more, in a small append-only file that can be copied off the
//! node. A start holds the store against it, so that nothing destroyed comes back with its rows.
//!
//! ```text
//! head   "kms1led" 01 || SHA-256(origin)                                        40 bytes
//! entry  u32 len || u32 crc32c(leaf) || leaf || mac(32)
//! mac    HMAC-SHA-256( ledger-mac subkey, previous mac || leaf )      first previous mac = SHA-256(head)
//! ```
//! A leaf is the bytes of a FENCED outcome as the log has them; its `pd` names the entry before it.
//! What does not fit is made again from the log, which has it all: the decision page `0010-ledger.md`
//! walks through it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::crypto::LedgerMacKey;
use crate::crypto::log_mac::FrameMac;
use crate::kill_point::{Point, pass, pass_with};

use super::leaf::{LEAF_BYTES_MAX, Outcome, Phase, StoredLeaf};

/// Why the ledger cannot be gone on with. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It could not be read or written.
    #[error("the ledger {0} cannot be used: {1}; check that it is there and belongs to this user")]
    Unusable(PathBuf, #[source] io::Error),
    /// Its head is another's.
    #[error(
        "{0} is not the ledger of this cluster's log: put its own back, or remove it, and it is made anew from the log"
    )]
    Foreign(PathBuf),
    /// It knows more than the log.
    #[error(
        "the ledger tells of a destruction at leaf {ledger}, but the log's last one is {}: store and log are older than the ledger; put back the newest copy of both",
        log.map_or("none".to_owned(), |log| format!("at leaf {log}"))
    )]
    Newer {
        /// The index of its last entry.
        ledger: u64,
        /// The index of the log's last destruction.
        log: Option<u64>,
    },
    /// It never was as the store knows it.
    #[error(
        "the ledger is of another history of this cluster than the store: put back the newest copy of store, log and ledger"
    )]
    Other,
    /// The log does not lead from its last entry to the log's last destruction.
    #[error(
        "the log does not lead from the ledger's last destruction ({}) to its own (leaf {log}): they are not of one history; put back the newest copy of store, log and ledger",
        ledger.map_or("none".to_owned(), |ledger| format!("leaf {ledger}"))
    )]
    Gap {
        /// The index of its last entry.
        ledger: Option<u64>,
        /// The index of the log's last destruction.
        log: u64,
    },
}

/// The ledger of a log, at its end.
pub struct Ledger {
    path: PathBuf,
    head: [u8; HEAD_BYTES],
    key: LedgerMacKey,
    file: File,
    /// Where the next entry begins.
    end: u64,
    previous: FrameMac,
    last: Option<u64>,
    rest: Rest,
}

/// What lies behind the last entry that fits.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    bytes: u64,
    /// The greatest index that an entry in it claims, whose checksum holds.
    claims: Option<u64>,
}

/// Tells whether a leaf is an entry of the ledger: a destruction that was done.
pub fn is_destruction(stored: &StoredLeaf) -> bool {
    stored.leaf.ph == Some(Phase::Fenced) && matches!(stored.leaf.res, Some(Outcome::Ok | Outcome::Recovered))
}

impl Ledger {
    /// Opens the ledger in `dir`, or makes an empty one. What follows the last entry that fits is
    /// left alone until the next is appended, and kept aside then if it is more than a crash leaves.
    pub fn open(dir: &Path, origin_hash: [u8; 32], key: LedgerMacKey) -> Result<Self, LedgerError> {
        let path = dir.join(FILE);
        let unusable = |error| LedgerError::Unusable(path.clone(), error);
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..].copy_from_slice(&origin_hash);
        make_if_missing(dir, &path, &head).map_err(unusable)?;
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(unusable)?;
        let mut found = [0; HEAD_BYTES];
        match file.read_exact_at(&mut found, 0) {
            Ok(()) if found == head => {}
            Ok(()) => return Err(LedgerError::Foreign(path)),
            Err(error) => return Err(unusable(error)),
        }
        let length = file.metadata().map_err(unusable)?.len();
        let (end, previous) = (HEAD_BYTES as u64, crate::crypto::sha256(&head));
        let mut ledger = Self { path: path.clone(), head, key, file, end, previous, last: None, rest: Rest::default() };
        let mut entries = ledger.entries_up_to(length).map_err(unusable)?;
        while entries.next_entry()?.is_some() {}
        let Entries { at, before, previous, last, .. } = entries;
        (ledger.end, ledger.previous, ledger.last) = (at, previous, last);
        ledger.rest = ledger.look_behind(length).map_err(unusable)?;
        ledger.write_again(before).map_err(unusable)?;
        Ok(ledger)
    }

    /// Looks at what does not fit, for entries that a crash cannot have left there.
    fn look_behind(&self, length: u64) -> io::Result<Rest> {
        let bytes = length - self.end;
        let mut read = vec![0; usize::try_from(bytes.min(REST_BYTES_MAX)).unwrap_or(0)];
        self.file.read_exact_at(&mut read, self.end)?;
        let claims = (0..read.len()).filter_map(|at| claimed_index(&read[at..])).max();
        Ok(Rest { bytes, claims })
    }

    /// Writes the last entry once more, and syncs it: it may have been read from memory only, after a
    /// sync that failed.
    fn write_again(&self, before: u64) -> io::Result<()> {
        let mut entry = vec![0; usize::try_from(self.end - before).unwrap_or(0)];
        self.file.read_exact_at(&mut entry, before)?;
        self.file.write_all_at(&entry, before)?;
        self.file.sync_data()
    }

    /// Returns the index of the last entry.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Returns the MAC of the last entry, or of the head.
    pub fn mac(&self) -> FrameMac {
        self.previous
    }

    /// Returns the greatest index that something behind the last entry claims, whose checksum holds.
    pub fn claims(&self) -> Option<u64> {
        self.rest.claims
    }

    /// Tells whether it ever ended with this MAC.
    pub fn has_passed(&self, mac: &FrameMac) -> Result<bool, LedgerError> {
        let mut entries = self.entries()?;
        loop {
            if entries.previous == *mac {
                return Ok(true);
            }
            if entries.next_entry()?.is_none() {
                return Ok(false);
            }
        }
    }

    /// Reads all entries, in order.
    pub fn entries(&self) -> Result<Entries<'_>, LedgerError> {
        self.entries_up_to(self.end).map_err(|error| LedgerError::Unusable(self.path.clone(), error))
    }

    fn entries_up_to(&self, end: u64) -> io::Result<Entries<'_>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
        let previous = crate::crypto::sha256(&self.head);
        let path = self.path.clone();
        Ok(Entries {
            path,
            key: &self.key,
            file: BufReader::new(file),
            at: HEAD_BYTES as u64,
            before: HEAD_BYTES as u64,
            end,
            previous,
            last: None,
        })
    }

    /// Appends a destruction, and returns when it is durable. It must be the one after the last.
    pub fn append(&mut self, stored: &StoredLeaf) -> Result<(), LedgerError> {
        debug_assert!(is_destruction(stored) && stored.leaf.pd == self.last);
        self.write(stored).map_err(|error| LedgerError::Unusable(self.path.clone(), error))
    }

    fn write(&mut self, stored: &StoredLeaf) -> io::Result<()> {
        if self.rest.bytes > 0 {
            if self.rest.claims.is_some() || self.rest.bytes > ENTRY_BYTES_MAX {
                // No crash leaves that: somebody may want to look at it.
                let aside = self.path.with_extension("damaged");
                std::fs::copy(&self.path, &aside)?;
                File::open(aside)?.sync_all()?;
            }
            self.file.set_len(self.end)?;
            self.rest = Rest::default();
        }
        let leaf = stored.to_bytes();
        let mac = self.key.mac(&self.previous, &leaf);
        let mut entry = Vec::with_capacity(8 + leaf.len() + mac.len());
        entry.extend_from_slice(&u32::try_from(leaf.len()).map_err(io::Error::other)?.to_be_bytes());
        entry.extend_from_slice(&crc32c::crc32c(&leaf).to_be_bytes());
        entry.extend_from_slice(&leaf);
        entry.extend_from_slice(&mac);
        pass_with(Point::LedgerTorn, || drop(self.file.write_all_at(&entry[..entry.len() / 2], self.end)));
        self.file.write_all_at(&entry, self.end)?;
        self.file.sync_data()?;
        pass(Point::LedgerDurable);
        self.end += entry.len() as u64;
        self.previous = mac;
        self.last = Some(stored.index);
        Ok(())
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("path", &self.path).field("last", &self.last).finish_non_exhaustive()
    }
}

/// The entries of a ledger, one after the other, as long as they fit.
pub struct Entries<'a, R = BufReader<File>> {
    path: PathBuf,
    key: &'a LedgerMacKey,
    file: R,
    /// Where the next one begins, and the last one did.
    at: u64,
    before: u64,
    end: u64,
    previous: FrameMac,
    last: Option<u64>,
}

impl<R: Read> Entries<'_, R> {
    /// Returns the next entry; none at the end, or where one does not fit.
    pub fn next_entry(&mut self) -> Result<Option<StoredLeaf>, LedgerError> {
        self.read_next().map_err(|error| LedgerError::Unusable(self.path.clone(), error))
    }

    fn read_next(&mut self) -> io::Result<Option<StoredLeaf>> {
        let Some(head) = self.read::<8>()? else { return Ok(None) };
        let (length, crc) = head.split_at(4);
        let length = u32::from_be_bytes(length.try_into().expect("4 of 8 bytes")) as usize;
        if length > LEAF_BYTES_MAX || self.at + (8 + length + 32) as u64 > self.end {
            return Ok(None);
        }
        let mut leaf = vec![0; length];
        self.file.read_exact(&mut leaf)?;
        let Some(mac) = self.read::<32>()? else { return Ok(None) };
        if crc32c::crc32c(&leaf).to_be_bytes() != *crc || !self.key.verify(&self.previous, &leaf, &mac) {
            return Ok(None);
        }
        let Some(stored) = StoredLeaf::parse(&leaf).filter(|stored| stored.leaf.pd == self.last) else {
            return Ok(None);
        };
        self.before = self.at;
        self.at += (8 + length + 32) as u64;
        self.previous = mac;
        self.last = Some(stored.index);
        Ok(Some(stored))
    }

    /// Reads so many bytes, or finds the end of the file.
    fn read<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads any bytes as a ledger of which they are all: for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_any(bytes: &[u8], key: &LedgerMacKey) -> Vec<StoredLeaf> {
    let Some((head, file)) = bytes.split_at_checked(HEAD_BYTES) else { return Vec::new() };
    let (at, end, previous) = (HEAD_BYTES as u64, bytes.len() as u64, crate::crypto::sha256(head));
    let mut entries = Entries { path: PathBuf::from("a ledger"), key, file, at, before: at, end, previous, last: None };
    let read: Vec<_> = std::iter::from_fn(|| entries.next_entry().expect("bytes can be read")).collect();
    assert!(entries.at <= entries.end);
    std::hint::black_box((0..bytes.len()).filter_map(|at| claimed_index(&bytes[at..])).max());
    read
}

/// The name appears only with a durable head under it.
fn make_if_missing(dir: &Path, path: &Path, head: &[u8]) -> io::Result<()> {
    // Shorter than its head it never was whole.
    if std::fs::metadata(path).is_ok_and(|found| found.len() >= HEAD_BYTES as u64) {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let making = path.with_extension("making");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&making)?;
    file.write_all_at(head, 0)?;
    file.sync_all()?;
    std::fs::rename(&making, path)?;
    File::open(dir)?.sync_all()?;
    File::open(dir.parent().unwrap_or(dir))?.sync_all()
}

/// Returns the index that an entry here would have, if its checksum holds.
fn claimed_index(bytes: &[u8]) -> Option<u64> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (leaf, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    // Before anything is summed up: a leaf begins so, and its MAC follows.
    let is_entry = rest.len() >= 32
        && leaf.starts_with(b"{\"v\":")
        && leaf.len() <= LEAF_BYTES_MAX
        && crc32c::crc32c(leaf).to_be_bytes() == *crc;
    is_entry.then(|| StoredLeaf::parse(leaf)).flatten().map(|stored| stored.index)
}

const FILE: &str = "destructions";
const MAGIC: &[u8; 8] = b"kms1led\x01";
const HEAD_BYTES: usize = 40;
const ENTRY_BYTES_MAX: u64 = (8 + LEAF_BYTES_MAX + 32) as u64;
/// How much of what does not fit is looked at.
const REST_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Leaf;
    use crate::crypto::ClusterSecret;
    use crate::noun::random::OsRandom;

    const ORIGIN: [u8; 32] = [7; 32];

    struct Made {
        dir: tempfile::TempDir,
        secret: ClusterSecret,
    }

    fn destruction(index: u64, pd: Option<u64>) -> StoredLeaf {
        let leaf = Leaf {
            ten: Some(format!("t{index}").into()),
            ph: Some(Phase::Fenced),
            pd,
            ..Leaf::of("DestroyTenant").ended(Outcome::Ok)
        };
        StoredLeaf { index, time: 1_790_000_000_000, leaf }
    }

    impl Made {
        /// Entries at 5, 6, 9.
        fn new() -> Self {
            let made =
                Self { dir: tempfile::tempdir().unwrap(), secret: ClusterSecret::generate(&OsRandom::new()).unwrap() };
            let mut ledger = made.open().unwrap();
            for (index, pd) in [(5, None), (6, Some(5)), (9, Some(6))] {
                ledger.append(&destruction(index, pd)).unwrap();
            }
            made
        }

        fn open(&self) -> Result<Ledger, LedgerError> {
            Ledger::open(&self.dir.path().join("ledger"), ORIGIN, self.secret.ledger_mac_key().unwrap())
        }

        /// Where each entry ends.
        fn ends(&self) -> Vec<usize> {
            let ledger = self.open().unwrap();
            let mut entries = ledger.entries().unwrap();
            let mut ends = vec![];
            while entries.next_entry().unwrap().is_some() {
                ends.push(entries.at as usize);
            }
            ends
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("ledger").join(FILE)
        }
    }

    fn indices(ledger: &Ledger) -> Vec<u64> {
        let mut entries = ledger.entries().unwrap();
        std::iter::from_fn(|| entries.next_entry().unwrap()).map(|stored| stored.index).collect()
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let made = Made::new();
        let ledger = made.open().unwrap();
        assert_eq!((ledger.last(), indices(&ledger), ledger.rest.bytes), (Some(9), vec![5, 6, 9], 0));
        let mut entries = ledger.entries().unwrap();
        assert_eq!(entries.next_entry().unwrap(), Some(destruction(5, None)));
    }

    #[test]
    fn a_change_of_any_byte_ends_the_entries_before_it() {
        let made = Made::new();
        let whole = std::fs::read(made.path()).unwrap();
        let mut ends = vec![];
        let (last_leaf, last_mac) = (made.ends()[1], whole.len() - 32);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(made.path(), &bytes).unwrap();
            match made.open() {
                Err(LedgerError::Foreign(_)) => assert!(at < HEAD_BYTES, "{at}"),
                Err(other) => panic!("{at}: {other}"),
                Ok(ledger) => {
                    assert!(at >= HEAD_BYTES && ledger.rest.bytes > 0, "{at}");
                    // What it knew is not forgotten with what cannot be read.
                    let is_forgotten = (last_leaf..last_mac).contains(&at);
                    assert_eq!(ledger.claims(), (!is_forgotten).then_some(9), "{at}");
                    assert!(ledger.end <= at as u64, "{at}: what lies before it counts, nothing else");
                    assert_eq!(indices(&ledger)[..], [5, 6, 9][..indices(&ledger).len()]);
                    ends.push(indices(&ledger).len());
                }
            }
        }
        assert!([0, 1, 2].iter().all(|count| ends.contains(count)) && !ends.contains(&3));
    }

    #[test]
    fn a_part_of_an_entry_is_cut_off_by_the_next() {
        let made = Made::new();
        let whole = std::fs::read(made.path()).unwrap();
        for length in HEAD_BYTES..whole.len() {
            std::fs::write(made.path(), &whole[..length]).unwrap();
            let mut ledger = made.open().unwrap();
            let last = ledger.last();
            assert!(last < Some(9));
            ledger.append(&destruction(20, last)).unwrap();
            let read = made.open().unwrap();
            assert_eq!((read.last(), read.rest.bytes), (Some(20), 0), "{length}");
            assert!(!made.path().with_extension("damaged").exists());
        }
    }

    #[test]
    fn an_entry_counts_only_in_its_place() {
        let made = Made::new();
        let whole = std::fs::read(made.path()).unwrap();
        let ends = made.ends();
        // The second is taken out: the third verifies no more.
        let without = [&whole[..ends[0]], &whole[ends[1]..]].concat();
        std::fs::write(made.path(), without).unwrap();
        let mut ledger = made.open().unwrap();
        assert_eq!((indices(&ledger), ledger.claims()), (vec![5], Some(9)));
        // It is kept aside when it has to go.
        ledger.append(&destruction(6, Some(5))).unwrap();
        assert_eq!(
            std::fs::read(made.path().with_extension("damaged")).unwrap().len(),
            whole.len() - (ends[1] - ends[0])
        );
        // One of another cluster.
        let other = Made::new();
        std::fs::copy(other.path(), made.path()).unwrap();
        assert_eq!((indices(&made.open().unwrap()), made.open().unwrap().claims()), (vec![], Some(9)));
    }

    #[test]
    fn a_ledger_knows_how_it_ended_before() {
        let made = Made::new();
        let ledger = made.open().unwrap();
        let mut entries = ledger.entries().unwrap();
        let mut ends = vec![entries.previous];
        while entries.next_entry().unwrap().is_some() {
            ends.push(entries.previous);
        }
        assert_eq!((ends.len(), ends[3]), (4, ledger.mac()));
        assert!(ends.iter().all(|mac| ledger.has_passed(mac).unwrap()));
        assert!(!ledger.has_passed(&[7; 32]).unwrap());
    }

    #[test]
    fn the_ledger_of_another_log_is_refused() {
        let made = Made::new();
        let key = made.secret.ledger_mac_key().unwrap();
        let other = Ledger::open(&made.dir.path().join("ledger"), [8; 32], key);
        assert!(matches!(other, Err(LedgerError::Foreign(_))));
        // One that never was whole is none.
        std::fs::write(made.path(), b"kms1led").unwrap();
        assert_eq!(made.open().unwrap().last(), None);
    }

    #[test]
    fn the_ledger_of_the_vectors_is_written_byte_for_byte() {
        let vector: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/ledger.json")).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap();
        let secret = std::sync::Mutex::new(hex::decode(text("cluster_secret")).unwrap());
        struct Fixed(std::sync::Mutex<Vec<u8>>);
        impl crate::noun::Random for Fixed {
            fn fill(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.0.lock().unwrap());
            }
        }
        let secret = ClusterSecret::generate(&Fixed(secret)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let origin_hash = crate::crypto::sha256(text("origin").as_bytes());
        let mut ledger = Ledger::open(dir.path(), origin_hash, secret.ledger_mac_key().unwrap()).unwrap();
        let leaves = vector["leaves"].as_array().unwrap();
        for leaf in leaves {
            ledger.append(&StoredLeaf::parse(leaf.as_str().unwrap().as_bytes()).unwrap()).unwrap();
        }
        assert_eq!(hex::encode(std::fs::read(dir.path().join(FILE)).unwrap()), text("file"));
        assert_eq!(hex::encode(ledger.mac()), text("last_mac"));
        println!("ledger: {}/{} entries met", leaves.len(), leaves.len());
    }
}
