//! What fuzzing calls of the log: frames, leaves, and a segment as a start reads it.

use std::sync::LazyLock;

use super::frame::{Found, PAYLOAD_HEAD_BYTES, SegmentHead, find, frame_may_follow};
use super::leaf::StoredLeaf;
use super::{ledger, replay};
use crate::crypto::{FrameMacKey, LedgerMacKey};
use crate::fuzzing::KEYS;

/// What lies at a place of a segment, and a segment's head.
pub(crate) fn frame(data: &[u8]) {
    if let Some(head) = SegmentHead::parse(data) {
        assert_eq!(head.to_bytes(), data[..head.to_bytes().len()], "a head is written in one way only");
    }
    std::hint::black_box(frame_may_follow(data));
    if let Found::Frame(frame) = find(data) {
        assert!(frame.bytes <= data.len());
        if let Some(leaves) = frame.leaves() {
            let bytes: usize = leaves.iter().map(|leaf| 2 + leaf.len()).sum();
            assert_eq!((leaves.len(), bytes + PAYLOAD_HEAD_BYTES), (frame.count.into(), frame.payload.len()));
        }
    }
}

/// A leaf as it is stored.
pub(crate) fn leaf(data: &[u8]) {
    let Some(stored) = StoredLeaf::parse(data) else { return };
    assert_eq!(StoredLeaf::parse(&stored.to_bytes()), Some(stored), "what is written is read as what it was");
}

/// A whole segment, as the last of a log and as one before it.
///
/// The checksum of a frame would keep nearly all bytes out: those that are wrong are also put right.
pub(crate) fn segment(data: &[u8]) {
    replay::read_any(data, &KEY);
    let mut sealed = data.to_vec();
    seal(&mut sealed);
    replay::read_any(&sealed, &KEY);
}

/// A whole ledger, as it is and with the checksums and MACs put right.
pub(crate) fn ledger(data: &[u8]) {
    drop(ledger::read_any(data, &LEDGER_KEY));
    let mut sealed = data.to_vec();
    seal_ledger(&mut sealed);
    for pair in ledger::read_any(&sealed, &LEDGER_KEY).windows(2) {
        assert_eq!(pair[1].leaf.pd, Some(pair[0].index), "each entry names the one before it");
    }
}

/// Writes the right checksum and MAC into whatever has the length of an entry.
pub(crate) fn seal_ledger(ledger: &mut [u8]) {
    let Some((head, mut rest)) = ledger.split_at_mut_checked(40) else { return };
    let mut previous = crate::crypto::sha256(head);
    while let Some((length, after)) = rest.split_first_chunk_mut::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some([crc, leaf, mac]) = parts(after, length) else { return };
        crc.copy_from_slice(&crc32c::crc32c(leaf).to_be_bytes());
        previous = LEDGER_KEY.mac(&previous, leaf);
        mac.copy_from_slice(&previous);
        rest = &mut after[4 + length + 32..];
    }
}

/// Writes the right checksum and MAC into whatever has the length of a frame.
fn seal(segment: &mut [u8]) {
    let Some(head) = SegmentHead::parse(segment) else { return };
    let (mut at, mut previous) = (head.to_bytes().len(), head.previous);
    while let Some(length) = segment.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let length = u32::from_be_bytes(*length) as usize;
        let Some([crc, payload, mac]) = segment.get_mut(at + 4..).and_then(|rest| parts(rest, length)) else { return };
        crc.copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
        previous = KEY.mac(&previous, payload);
        mac.copy_from_slice(&previous);
        at += 4 + 4 + length + 32;
        if length == 0 {
            return;
        }
    }
}

fn parts(rest: &mut [u8], length: usize) -> Option<[&mut [u8]; 3]> {
    let (crc, rest) = rest.split_at_mut_checked(4)?;
    let (payload, rest) = rest.split_at_mut_checked(length)?;
    Some([crc, payload, rest.split_at_mut_checked(32)?.0])
}

static KEY: LazyLock<FrameMacKey> = LazyLock::new(|| KEYS.cluster.frame_mac_key().expect("there is room for one key"));
static LEDGER_KEY: LazyLock<LedgerMacKey> =
    LazyLock::new(|| KEYS.cluster.ledger_mac_key().expect("there is room for one key"));
