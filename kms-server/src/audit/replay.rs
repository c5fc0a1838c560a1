//! Reads the log at start, from where the store stands in it, and proves that it is of one piece.
//!
//! Every frame's MAC is over the one before, from the segment's head on. A bad frame is *torn*
//! only if it lies behind the anchor, after the last valid frame of the last segment, and no frame
//! with a valid checksum follows it: then a crash wrote it. Anything else refuses.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::crypto::FrameMacKey;
use crate::crypto::log_mac::{FIRST_PREVIOUS_MAC, FrameMac};

use super::frame::{Found, FoundFrame, SEGMENT_HEAD_BYTES, SegmentHead, find, frame_may_follow};
use super::leaf::{Outcome, REPEATED, StoredLeaf};
use super::ledger::is_destruction;
use super::log::Anchor;
use super::segment::{self, TORN_BYTES_MAX, Tail};

/// Why a log is not the one that this store goes on from.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is none.
    #[error(
        "the audit log has no segments in {0}: if it was lost, see `recover` in the manual; never start with an empty one"
    )]
    Missing(String),
    /// A file could not be read.
    #[error("the audit log cannot be read")]
    Read(#[from] io::Error),
    /// Another log's segment.
    #[error(
        "segment {0:020} is of another log: its origin is not this cluster's; put this cluster's own log back, nothing was changed"
    )]
    Foreign(u64),
    /// Changed or missing bytes where a crash cannot have caused it.
    #[error("segment {segment:020} is damaged at byte {offset}: {what}; restore it from a copy, nothing was changed")]
    Damaged {
        /// The segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The ledger lacks a destruction, and so does the log.
    #[error(
        "the ledger lacks the destruction at leaf {leaf}, and the log's segment that tells of it is not there: put back the newest copy of the ledger, or that segment"
    )]
    DestructionGone {
        /// Its index.
        leaf: u64,
    },
    /// The log does not contain the place where the store stands.
    #[error(
        "the audit log is older than this store, or not of it: the store stands at leaf {anchor}, the log ends at leaf {end}; put back the newest copy of both"
    )]
    Older {
        /// Leaves the store has seen.
        anchor: u64,
        /// Leaves of the log.
        end: u64,
    },
}

/// What a log says since a place.
#[derive(Debug)]
pub struct Replayed {
    /// Leaves that belong to a mutation (those with `seq`), in order.
    pub mutations: Vec<StoredLeaf>,
    /// When the last leaf was written.
    pub last_time: Option<u64>,
    /// The last of the leaves about what `last_of` names.
    pub last_told: Option<StoredLeaf>,
    /// The last leaf of each tenant, by its uid, that tells of managed data keys that were made.
    pub last_data_keys: HashMap<String, StoredLeaf>,
    /// Where it goes on.
    pub tail: Tail,
    /// Bytes behind the tail that a crash tore off. They are overwritten with the next frame.
    pub torn_bytes: u64,
    /// The first segment that was read: what lies before it is [`verify_before`]'s.
    pub began: u64,
}

/// Reads from the segment that holds leaf `from` (or the anchor, if that is earlier) to the end; looks
/// for the last leaf about one of the operations `last_of` on the way.
pub fn replay(
    dir: &Path,
    origin_hash: [u8; 32],
    key: &FrameMacKey,
    anchor: Anchor,
    from: u64,
    last_of: &[&str],
) -> Result<Replayed, ReplayError> {
    let segments = segment::list(dir)?;
    let from = from.min(anchor.size.saturating_sub(1));
    let start = segments
        .iter()
        .rposition(|first| *first <= from)
        .ok_or_else(|| ReplayError::Missing(dir.display().to_string()))?;
    let mut reader = Reader { anchor, met_anchor: anchor.size == 0, last_of, ..Reader::new(key) };
    let mut expected = None;
    for (place, first) in segments.iter().enumerate().skip(start) {
        let is_last = place + 1 == segments.len();
        let tail = reader.read_next(dir, origin_hash, *first, expected, is_last)?;
        expected = Some((tail.next, tail.previous));
        if is_last {
            if !reader.met_anchor {
                return Err(ReplayError::Older { anchor: anchor.size, end: tail.next });
            }
            return Ok(Replayed {
                mutations: reader.kept,
                last_time: reader.last_time,
                last_told: reader.last_told,
                last_data_keys: reader.last_data_keys,
                tail,
                torn_bytes: reader.torn_bytes,
                began: segments[start],
            });
        }
    }
    Err(ReplayError::Missing(dir.display().to_string()))
}

/// Reads the chain of destructions backwards, from leaf `last` by `pd` to the one after leaf `known`:
/// for when the ledger was lost. Only the segments that hold them are read. Returns them in order.
pub fn destructions(
    dir: &Path,
    origin_hash: [u8; 32],
    key: &FrameMacKey,
    known: Option<u64>,
    last: u64,
) -> Result<Vec<StoredLeaf>, ReplayError> {
    let segments = segment::list(dir)?;
    let (mut chain, mut of_segment) = (Vec::new(), Vec::<StoredLeaf>::new());
    let mut wanted = Some(last);
    while let Some(index) = wanted.filter(|index| Some(*index) > known) {
        let gone = ReplayError::DestructionGone { leaf: index };
        if of_segment.first().is_none_or(|first| first.index > index) {
            let place = segments.iter().rposition(|first| *first <= index).ok_or(gone)?;
            let is_last = place + 1 == segments.len();
            let mut reader = Reader { keep: is_destruction, ..Reader::new(key) };
            reader.read_next(dir, origin_hash, segments[place], None, is_last)?;
            of_segment = reader.kept;
        }
        let gone = ReplayError::DestructionGone { leaf: index };
        let at = of_segment.binary_search_by_key(&index, |stored| stored.index).map_err(|_| gone)?;
        let found = of_segment.swap_remove(at);
        of_segment.truncate(at);
        wanted = found.leaf.pd;
        chain.push(found);
    }
    chain.reverse();
    Ok(chain)
}

/// Reads the chain of destructions of managed data keys backwards, from leaf `last` by `px`, and hands
/// out each, until `each` wants no more. Only the segments that hold them are read, one at a time.
/// Returns how many there were.
pub fn dek_destructions(
    dir: &Path,
    origin_hash: [u8; 32],
    key: &FrameMacKey,
    last: u64,
    mut each: impl FnMut(StoredLeaf) -> bool,
) -> Result<usize, ReplayError> {
    let segments = segment::list(dir)?;
    let mut of_segment = Vec::<StoredLeaf>::new();
    let (mut wanted, mut count) = (Some(last), 0);
    while let Some(index) = wanted {
        let gone = || ReplayError::DestructionGone { leaf: index };
        if of_segment.first().is_none_or(|first| first.index > index) {
            let place = segments.iter().rposition(|first| *first <= index).ok_or_else(gone)?;
            let is_last = place + 1 == segments.len();
            let mut reader = Reader { keep: destroys_data_keys, ..Reader::new(key) };
            reader.read_next(dir, origin_hash, segments[place], None, is_last)?;
            of_segment = reader.kept;
        }
        let at = of_segment.binary_search_by_key(&index, |stored| stored.index).map_err(|_| gone())?;
        let found = of_segment.swap_remove(at);
        of_segment.truncate(at);
        wanted = found.leaf.px;
        count += 1;
        if !each(found) {
            break;
        }
    }
    Ok(count)
}

/// Tells whether a leaf says that managed data keys were destroyed.
pub fn destroys_data_keys(stored: &StoredLeaf) -> bool {
    let leaf = &stored.leaf;
    leaf.is_of_destroyed_data_keys() && leaf.in_.is_some() && matches!(leaf.res, Some(Outcome::Ok | Outcome::Recovered))
}

/// Proves that the log is of one piece before a segment, down to its first record, and returns how many segments that
/// were; nothing if it was stopped. A start does not wait for it: it takes as long as the log is large. `stop` is asked
/// before each segment.
pub fn verify_before(
    dir: &Path,
    origin_hash: [u8; 32],
    key: &FrameMacKey,
    began: u64,
    stop: impl Fn() -> bool,
) -> Result<Option<usize>, ReplayError> {
    let mut expected = (0, FIRST_PREVIOUS_MAC);
    for (verified, first) in segment::list(dir)?.into_iter().take_while(|first| *first <= began).enumerate() {
        if stop() {
            return Ok(None);
        }
        let bytes = segment::read(dir, first)?;
        let damaged = |offset, what| ReplayError::Damaged { segment: first, offset, what };
        let head = SegmentHead::parse(&bytes).ok_or_else(|| damaged(0, "no head of a segment"))?;
        if head.origin_hash != origin_hash {
            return Err(ReplayError::Foreign(first));
        }
        if head.first != first || (head.first, head.previous) != expected {
            return Err(damaged(0, "it does not follow the segment before it, which may be missing"));
        }
        if first == began {
            return Ok(Some(verified));
        }
        let mut rest = &bytes[SEGMENT_HEAD_BYTES..];
        loop {
            let offset = (bytes.len() - rest.len()) as u64;
            let (next, previous) = expected;
            match find(rest) {
                Found::Frame(frame) if frame.first == next && key.verify(&previous, frame.payload, frame.mac) => {
                    expected = (next + u64::from(frame.count), *frame.mac);
                    rest = &rest[frame.bytes..];
                }
                Found::End if rest.iter().all(|byte| *byte == 0) => break,
                Found::Frame(_) => return Err(damaged(offset, "a frame that does not verify")),
                Found::End | Found::Bad => return Err(damaged(offset, "bytes that are no frame")),
            }
        }
    }
    Err(ReplayError::Missing(dir.display().to_string()))
}

struct Reader<'a> {
    key: &'a FrameMacKey,
    anchor: Anchor,
    met_anchor: bool,
    /// Which leaves are wanted.
    keep: fn(&StoredLeaf) -> bool,
    kept: Vec<StoredLeaf>,
    last_time: Option<u64>,
    last_of: &'a [&'a str],
    last_told: Option<StoredLeaf>,
    last_data_keys: HashMap<String, StoredLeaf>,
    torn_bytes: u64,
}

impl<'a> Reader<'a> {
    /// A reader that keeps what belongs to a mutation, and looks for no anchor.
    fn new(key: &'a FrameMacKey) -> Self {
        Self {
            key,
            anchor: Anchor { size: 0, mac: FrameMac::default() },
            met_anchor: true,
            keep: |stored| stored.leaf.seq.is_some(),
            kept: Vec::new(),
            last_time: None,
            last_of: &[],
            last_told: None,
            last_data_keys: HashMap::new(),
            torn_bytes: 0,
        }
    }

    /// Reads the segment that begins with leaf `first`, which must follow what was read before.
    fn read_next(
        &mut self,
        dir: &Path,
        origin_hash: [u8; 32],
        first: u64,
        expected: Option<(u64, FrameMac)>,
        is_last: bool,
    ) -> Result<Tail, ReplayError> {
        let bytes = segment::read(dir, first)?;
        let damaged = |what| ReplayError::Damaged { segment: first, offset: 0, what };
        let head = SegmentHead::parse(&bytes).ok_or_else(|| damaged("no head of a segment"))?;
        if head.origin_hash != origin_hash {
            return Err(ReplayError::Foreign(first));
        }
        if head.first != first || expected.is_some_and(|(next, mac)| (next, mac) != (head.first, head.previous)) {
            return Err(damaged("it does not follow the segment before it"));
        }
        self.read_segment(&bytes, head, is_last)
    }

    fn read_segment(&mut self, bytes: &[u8], head: SegmentHead, is_last: bool) -> Result<Tail, ReplayError> {
        let mut tail =
            Tail { segment: head.first, offset: SEGMENT_HEAD_BYTES as u64, next: head.first, previous: head.previous };
        self.meet_anchor(&tail)?;
        loop {
            let rest = &bytes[usize::try_from(tail.offset).unwrap_or(usize::MAX).min(bytes.len())..];
            let damaged = |what| ReplayError::Damaged { segment: head.first, offset: tail.offset, what };
            match find(rest) {
                Found::Frame(frame)
                    if frame.first == tail.next && self.key.verify(&tail.previous, frame.payload, frame.mac) =>
                {
                    self.read_leaves(&frame)
                        .ok_or_else(|| damaged("a frame that verifies holds no leaves of this release"))?;
                    tail = Tail {
                        offset: tail.offset + frame.bytes as u64,
                        next: frame.first + u64::from(frame.count),
                        previous: *frame.mac,
                        ..tail
                    };
                    self.meet_anchor(&tail)?;
                }
                // A checksum that holds is no accident of a crash, unless the MAC behind it was not all written. What
                // it should be is not looked at: whoever tries MACs must not learn how much of one was right.
                Found::Frame(frame) if frame.mac.last() != Some(&0) => {
                    return Err(damaged("a frame that does not verify"));
                }
                Found::End if rest.iter().all(|byte| *byte == 0) => return Ok(tail),
                Found::Frame(_) | Found::End | Found::Bad => {
                    let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                    if !is_last || !self.met_anchor {
                        return Err(damaged("bytes that are no frame"));
                    }
                    if written as u64 > TORN_BYTES_MAX {
                        return Err(damaged("more bytes that are no frame than a crash can leave"));
                    }
                    // The MAC of a frame may end in zeros.
                    if frame_may_follow(&rest[..rest.len().min(written + 32)]) {
                        return Err(damaged("bytes that are no frame, and a frame behind them"));
                    }
                    self.torn_bytes = written as u64;
                    return Ok(tail);
                }
            }
        }
    }

    /// The anchor must be the end of a frame, and that frame's MAC the anchor's.
    fn meet_anchor(&mut self, tail: &Tail) -> Result<(), ReplayError> {
        if tail.next == self.anchor.size && !self.met_anchor {
            if tail.previous != self.anchor.mac {
                return Err(ReplayError::Older { anchor: self.anchor.size, end: tail.next });
            }
            self.met_anchor = true;
        }
        Ok(())
    }

    fn read_leaves(&mut self, frame: &FoundFrame<'_>) -> Option<()> {
        for (offset, bytes) in frame.leaves()?.into_iter().enumerate() {
            let stored = StoredLeaf::parse(bytes)?;
            if stored.index != frame.first + offset as u64 {
                return None;
            }
            self.last_time = Some(stored.time);
            if stored.leaf.op.as_deref().is_some_and(|op| self.last_of.contains(&op)) {
                self.last_told = Some(stored.clone());
            }
            if makes_data_keys(&stored)
                && let Some(tenant) = &stored.leaf.tuid
            {
                self.last_data_keys.insert(tenant.to_string(), stored.clone());
            }
            if (self.keep)(&stored) {
                self.kept.push(stored);
            }
        }
        Some(())
    }
}

/// Tells whether a leaf is of managed data keys that were made just then, and not given out again.
fn makes_data_keys(stored: &StoredLeaf) -> bool {
    let leaf = &stored.leaf;
    leaf.is_of_new_data_keys()
        && leaf.res == Some(Outcome::Ok)
        && (leaf.did.is_some() || leaf.ids.is_some())
        && !leaf.why.as_deref().is_some_and(|why| why.starts_with(REPEATED))
}

/// Reads any bytes as the last segment of a log and as one before it: for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_any(bytes: &[u8], key: &FrameMacKey) {
    let Some(head) = SegmentHead::parse(bytes) else { return };
    for is_last in [false, true] {
        for size in [0, head.first, head.first.saturating_add(1), u64::MAX] {
            let anchor = Anchor { size, mac: head.previous };
            let mut reader = Reader { anchor, met_anchor: size == 0, keep: |_| true, ..Reader::new(key) };
            match reader.read_segment(bytes, head, is_last) {
                Ok(tail) => assert!(tail.offset <= bytes.len() as u64),
                Err(error) => drop(error.to_string()),
            }
        }
    }
}

/// Reads every leaf of a log without checking a MAC: for tests and for people, never to decide.
pub fn read_unverified(dir: &Path) -> io::Result<Vec<StoredLeaf>> {
    let mut leaves = Vec::new();
    for first in segment::list(dir)? {
        let bytes = segment::read(dir, first)?;
        let mut at = SEGMENT_HEAD_BYTES;
        while let Some(rest) = bytes.get(at..)
            && let Found::Frame(frame) = find(rest)
        {
            leaves.extend(frame.leaves().unwrap_or_default().into_iter().filter_map(StoredLeaf::parse));
            at += frame.bytes;
        }
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::leaf::Leaf;
    use crate::audit::log::{Log, LogSettings};
    use crate::crypto::ClusterSecret;
    use crate::noun::clock::SystemClock;
    use crate::noun::random::OsRandom;

    struct Written {
        dir: tempfile::TempDir,
        secret: ClusterSecret,
        /// The anchor after each leaf, from none on.
        anchors: Vec<Anchor>,
        /// Where each frame ends in the first segment.
        ends: Vec<usize>,
    }

    async fn written(leaves: u64) -> Written {
        let dir = tempfile::tempdir().unwrap();
        let secret = ClusterSecret::generate(&OsRandom::new()).unwrap();
        let settings =
            LogSettings { node: "n".into(), origin: "test/log".into(), segment_bytes: 1 << 16, flush_on_cores: false };
        let log =
            Log::create(&dir.path().join("seg"), settings, secret.frame_mac_key().unwrap(), Arc::new(SystemClock))
                .unwrap();
        let mut anchors = vec![log.anchor()];
        for seq in 0..leaves {
            let index = log.append(Leaf { seq: Some(seq), ..Leaf::of("Test") }).unwrap();
            log.durable(index).await.unwrap();
            anchors.push(log.anchor());
        }
        log.close();
        let bytes = segment::read(&dir.path().join("seg"), 0).unwrap();
        let (mut at, mut ends) = (SEGMENT_HEAD_BYTES, vec![SEGMENT_HEAD_BYTES]);
        while let Found::Frame(frame) = find(&bytes[at..]) {
            at += frame.bytes;
            ends.push(at);
        }
        assert!(ends.len() == anchors.len() || leaves > 100);
        Written { dir, secret, anchors, ends }
    }

    impl Written {
        fn replay(&self, anchor: Anchor) -> Result<Replayed, ReplayError> {
            replay(
                &self.dir.path().join("seg"),
                crate::crypto::sha256(b"test/log"),
                &self.secret.frame_mac_key().unwrap(),
                anchor,
                anchor.size,
                &[],
            )
        }

        fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
            let path = self.dir.path().join("seg").join(format!("{:020}", 0));
            let mut bytes = std::fs::read(&path).unwrap();
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
    }

    #[tokio::test]
    async fn any_anchor_of_the_log_is_found_and_no_other() {
        let log = written(5).await;
        for anchor in &log.anchors {
            assert_eq!(log.replay(*anchor).unwrap().tail.next, 5);
        }
        let wrong_mac = Anchor { mac: [1; 32], ..log.anchors[3] };
        assert!(matches!(log.replay(wrong_mac), Err(ReplayError::Older { .. })));
        let beyond = Anchor { size: 6, mac: log.anchors[5].mac };
        assert!(matches!(log.replay(beyond), Err(ReplayError::Older { anchor: 6, end: 5 })));
    }

    #[tokio::test]
    async fn a_torn_last_frame_behind_the_anchor_is_cut_off() {
        let log = written(5).await;
        let (begin, end) = (log.ends[4], log.ends[5]);
        log.change(|bytes| bytes[begin + 20..end].fill(0));
        let read = log.replay(log.anchors[4]).unwrap();
        assert_eq!((read.tail.next, read.torn_bytes > 0), (4, true));
        // Nothing is changed until the next frame says so.
        assert!(log.replay(log.anchors[4]).unwrap().torn_bytes > 0);
    }

    /// The checksum is before the payload: it holds where a sector ends within the MAC.
    #[tokio::test]
    async fn a_last_frame_torn_within_its_mac_is_cut_off() {
        let log = written(5).await;
        let (begin, end) = (log.ends[4], log.ends[5]);
        for missing in 1..=32 {
            let whole = segment::read(&log.dir.path().join("seg"), 0).unwrap();
            if whole[end - missing..end].iter().all(|byte| *byte == 0) {
                continue; // The MAC ends so, and is whole.
            }
            log.change(|bytes| bytes[end - missing..end].fill(0));
            let read = log.replay(log.anchors[4]).unwrap();
            assert_eq!((read.tail.next, read.tail.offset as usize), (4, begin), "without {missing} bytes");
            assert!(read.torn_bytes > 0);
            assert!(matches!(log.replay(log.anchors[5]), Err(ReplayError::Damaged { .. })), "before the anchor");
            log.change(|bytes| bytes.copy_from_slice(&whole));
        }
        assert_eq!(log.replay(log.anchors[4]).unwrap().tail.next, 5);
    }

    #[tokio::test]
    async fn the_frame_that_tells_of_a_torn_tail_takes_its_place() {
        let log = written(5).await;
        let (begin, end) = (log.ends[4], log.ends[5]);
        // Torn, with something left far behind as well.
        log.change(|bytes| {
            bytes[begin + 20..end].fill(0);
            bytes[end + 5_000] = 1;
        });
        let read = log.replay(log.anchors[4]).unwrap();
        assert_eq!(read.torn_bytes as usize, end + 5_001 - begin);
        let dir = log.dir.path().join("seg");
        let settings =
            LogSettings { node: "n".into(), origin: "test/log".into(), segment_bytes: 1 << 16, flush_on_cores: false };
        let key = log.secret.frame_mac_key().unwrap();
        Log::resume(&dir, settings, key, Arc::new(SystemClock), read.tail, read.torn_bytes, None).unwrap().close();
        let told = read_unverified(&dir).unwrap().pop().unwrap();
        assert_eq!(
            (told.index, told.leaf.op.as_deref(), told.leaf.bytes),
            (4, Some("TornTail"), Some(read.torn_bytes))
        );
        let read = log.replay(log.anchors[4]).unwrap();
        assert_eq!((read.tail.next, read.torn_bytes), (5, 0));
    }

    #[tokio::test]
    async fn a_segment_without_room_for_what_tells_of_its_torn_tail_grows() {
        let log = written(5).await;
        let begin = log.ends[5];
        log.change(|bytes| bytes[begin + 50..begin + 100].fill(1));
        let read = log.replay(log.anchors[5]).unwrap();
        // As if the segment were full.
        let path = log.dir.path().join("seg").join(format!("{:020}", 0));
        std::fs::File::options().write(true).open(path).unwrap().set_len(begin as u64 + 100).unwrap();
        let settings =
            LogSettings { node: "n".into(), origin: "test/log".into(), segment_bytes: 1 << 16, flush_on_cores: false };
        let key = log.secret.frame_mac_key().unwrap();
        let dir = log.dir.path().join("seg");
        let resumed =
            Log::resume(&dir, settings, key, Arc::new(SystemClock), read.tail, read.torn_bytes, None).unwrap();
        let index = resumed.append(Leaf::of("Next")).unwrap();
        resumed.durable(index).await.unwrap();
        resumed.close();
        assert_eq!(segment::list(&dir).unwrap(), [0, 6]);
        assert_eq!(log.replay(log.anchors[5]).unwrap().tail.next, 7);
    }

    #[tokio::test]
    async fn a_bad_frame_before_the_anchor_is_refused() {
        let log = written(5).await;
        let (begin, end) = (log.ends[4], log.ends[5]);
        log.change(|bytes| bytes[begin + 20..end].fill(0));
        assert!(matches!(log.replay(log.anchors[5]), Err(ReplayError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_bad_frame_with_a_good_one_behind_it_is_refused() {
        let log = written(5).await;
        let at = log.ends[3] + 20;
        log.change(|bytes| bytes[at] ^= 1);
        assert!(matches!(log.replay(log.anchors[2]), Err(ReplayError::Damaged { .. })));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_torn_only_where_a_crash_can_have_left_it() {
        let log = written(5).await;
        let begin = log.ends[5];
        let path = log.dir.path().join("seg").join(format!("{:020}", 0));
        std::fs::File::options().write(true).open(path).unwrap().set_len(8 << 20).unwrap();
        let far = begin + TORN_BYTES_MAX as usize;
        log.change(|bytes| bytes[far - 1] = 1);
        assert_eq!(log.replay(log.anchors[5]).unwrap().torn_bytes, TORN_BYTES_MAX);
        log.change(|bytes| bytes[far] = 1);
        assert!(matches!(log.replay(log.anchors[5]), Err(ReplayError::Damaged { .. })));
        // Bytes made to look like the beginnings of long frames cost no time.
        log.change(|bytes| {
            bytes[far] = 0;
            bytes[begin..far].iter_mut().zip([0x00, 0x3f, 0x01].into_iter().cycle()).for_each(|(b, new)| *b = new);
        });
        assert!(matches!(log.replay(log.anchors[5]), Err(ReplayError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_good_frame_behind_a_bad_one_is_seen_also_where_its_mac_ends_in_zeros() {
        let log = written(5).await;
        let (at, end) = (log.ends[3] + 20, log.ends[5]);
        // The MAC is not looked at there: any will do.
        log.change(|bytes| {
            bytes[at] ^= 1;
            bytes[end - 3..end].fill(0);
        });
        assert!(matches!(log.replay(log.anchors[3]), Err(ReplayError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_tail_forged_without_the_key_is_refused() {
        let log = written(2).await;
        let other = ClusterSecret::generate(&OsRandom::new()).unwrap().frame_mac_key().unwrap();
        let mut payload = super::super::frame::FramePayload::new(2);
        payload.push(|out| out.extend_from_slice(br#"{"v":1,"i":2,"t":1,"op":"Forged"}"#));
        let (frame, _) = payload.seal(&other, &log.anchors[2].mac);
        let at = log.ends[2];
        log.change(|bytes| {
            bytes[at..at + frame.len()].copy_from_slice(&frame);
            bytes[at + frame.len() - 1] |= 1; // One that ends in 0 may be torn: it is cut off, and told.
        });
        assert!(matches!(log.replay(log.anchors[2]), Err(ReplayError::Damaged { .. })));
    }

    #[tokio::test]
    async fn another_log_is_refused() {
        let log = written(1).await;
        let key = log.secret.frame_mac_key().unwrap();
        let begin = Anchor { size: 0, mac: FIRST_PREVIOUS_MAC };
        let other = replay(&log.dir.path().join("seg"), crate::crypto::sha256(b"other/log"), &key, begin, 0, &[]);
        assert!(matches!(other, Err(ReplayError::Foreign(0))));
        std::fs::remove_file(log.dir.path().join("seg").join(format!("{:020}", 0))).unwrap();
        assert!(matches!(log.replay(begin), Err(ReplayError::Missing(_))));
    }

    #[tokio::test]
    async fn the_older_part_is_verified_and_no_change_of_it_goes_unseen() {
        let log = written(2_000).await;
        let dir = log.dir.path().join("seg");
        let (firsts, key) = (segment::list(&dir).unwrap(), log.secret.frame_mac_key().unwrap());
        assert!(firsts.len() > 2, "{firsts:?}");
        let last = *firsts.last().unwrap();
        let verify = || verify_before(&dir, crate::crypto::sha256(b"test/log"), &key, last, || false);
        assert_eq!(verify().unwrap(), Some(firsts.len() - 1));
        assert_eq!(verify_before(&dir, [0; 32], &key, last, || true).unwrap(), None);

        let path = |first: u64| dir.join(format!("{first:020}"));
        for first in &firsts {
            let whole = std::fs::read(path(*first)).unwrap();
            // Of the last one only the head counts: the start has read the rest.
            let end = if *first == last { SEGMENT_HEAD_BYTES } else { whole.len() };
            for at in (0..end).step_by(997).chain([end - 1]) {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x10;
                std::fs::write(path(*first), &damaged).unwrap();
                assert!(verify().is_err(), "byte {at} of segment {first}");
            }
            std::fs::remove_file(path(*first)).unwrap();
            assert!(verify().is_err(), "without segment {first}");
            std::fs::write(path(*first), &whole).unwrap();
        }
        assert!(verify().is_ok());
    }
}
