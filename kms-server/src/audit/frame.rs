//! The bytes of the log: frames, and the head of a segment.
//!
//! ```text
//! frame   = u32 len || u32 crc32c(payload) || payload || mac(32)
//! payload = 01 || u64 first index || u16 n || n x (u16 len || leaf)          at most 4 MiB
//! mac     = HMAC-SHA-256( frame-mac subkey, previous mac || payload )
//! segment = "kms1seg" 01 || SHA-256(origin) || u64 first index || previous mac || frame* || 00 00 00 00
//! ```
//! Pure: no file is touched here. No input makes it panic.

use crate::crypto::FrameMacKey;
use crate::crypto::log_mac::FrameMac;

/// The longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Bytes of a payload before its leaves.
pub const PAYLOAD_HEAD_BYTES: usize = 1 + 8 + 2;
/// Bytes of a frame around its payload.
pub const FRAME_OVERHEAD_BYTES: usize = 4 + 4 + 32;
/// Bytes of a segment's head.
pub const SEGMENT_HEAD_BYTES: usize = 8 + 32 + 8 + 32;

/// How many bytes are summed up in search of a frame: a second's worth.
const SUMMED_UP_BYTES_MAX: usize = 1 << 30;
const PAYLOAD_FORMAT: u8 = 0x01;
const SEGMENT_MAGIC: &[u8; 8] = b"kms1seg\x01";

/// Leaves on their way into one frame.
#[derive(Debug)]
pub struct FramePayload {
    bytes: Vec<u8>,
    first: u64,
    count: u16,
}

impl FramePayload {
    /// Begins a payload whose first leaf will have this index.
    pub fn new(first: u64) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.push(PAYLOAD_FORMAT);
        bytes.extend_from_slice(&first.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        Self { bytes, first, count: 0 }
    }

    /// Tells whether a leaf of so many bytes fits.
    pub fn has_room(&self, leaf_bytes: usize) -> bool {
        self.count < u16::MAX && self.bytes.len() + 2 + leaf_bytes <= PAYLOAD_BYTES_MAX
    }

    /// Adds a leaf, written in place by `write`; it must fit and have at most 65,535 bytes.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        write(&mut self.bytes);
        let length = u16::try_from(self.bytes.len() - at - 2).expect("a leaf has at most 65,535 bytes");
        self.bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        self.count += 1;
    }

    /// Returns the leaves in it.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Returns how many bytes it has so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the index after its last leaf.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Makes the frame that follows the one with this MAC; returns it with its own MAC.
    pub fn seal(mut self, key: &FrameMacKey, previous: &FrameMac) -> (Vec<u8>, FrameMac) {
        self.bytes[9..11].copy_from_slice(&self.count.to_be_bytes());
        let mac = key.mac(previous, &self.bytes);
        let mut frame = Vec::with_capacity(self.bytes.len() + FRAME_OVERHEAD_BYTES);
        frame.extend_from_slice(&u32::try_from(self.bytes.len()).expect("a payload has at most 4 MiB").to_be_bytes());
        frame.extend_from_slice(&crc32c::crc32c(&self.bytes).to_be_bytes());
        frame.extend_from_slice(&self.bytes);
        frame.extend_from_slice(&mac);
        (frame, mac)
    }
}

/// A frame found in a segment. Its checksum holds; its MAC was not checked.
#[derive(Clone, Copy, Debug)]
pub struct FoundFrame<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// Its MAC, as stored.
    pub mac: &'a [u8; 32],
    /// The index of its first leaf.
    pub first: u64,
    /// How many leaves it has.
    pub count: u16,
    /// Bytes of the whole frame.
    pub bytes: usize,
}

/// What lies at a place of a segment.
#[derive(Debug)]
pub enum Found<'a> {
    /// A frame with a valid checksum.
    Frame(FoundFrame<'a>),
    /// The end: length 0, or no room for a length.
    End,
    /// Something else.
    Bad,
}

/// Reads what lies at the beginning of `bytes`.
pub fn find(bytes: &[u8]) -> Found<'_> {
    let Some(length) = bytes.first_chunk::<4>() else { return Found::End };
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 {
        return Found::End;
    }
    frame_at(bytes, length).map_or(Found::Bad, Found::Frame)
}

fn frame_at(bytes: &[u8], length: usize) -> Option<FoundFrame<'_>> {
    if !(PAYLOAD_HEAD_BYTES..=PAYLOAD_BYTES_MAX).contains(&length) {
        return None;
    }
    let whole = bytes.get(..length + FRAME_OVERHEAD_BYTES)?;
    let crc = u32::from_be_bytes(*whole[4..].first_chunk()?);
    let payload = &whole[8..8 + length];
    if payload[0] != PAYLOAD_FORMAT || crc32c::crc32c(payload) != crc {
        return None;
    }
    let first = u64::from_be_bytes(*payload[1..].first_chunk()?);
    let count = u16::from_be_bytes(*payload[9..].first_chunk()?);
    // Every leaf has an index, and there is one after the last.
    first.checked_add(u64::from(count))?;
    Some(FoundFrame { payload, mac: whole[8 + length..].first_chunk()?, first, count, bytes: whole.len() })
}

/// Tells whether a frame with a valid checksum lies anywhere behind the first byte, or may: bytes that
/// look like the beginnings of very many frames are taken for some.
pub fn frame_may_follow(bytes: &[u8]) -> bool {
    let mut summed_up = 0;
    (1..bytes.len()).any(|at| {
        let rest = &bytes[at..];
        let length = rest.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        let is_plausible = (PAYLOAD_HEAD_BYTES..=PAYLOAD_BYTES_MAX).contains(&length)
            && rest.len() >= length + FRAME_OVERHEAD_BYTES
            && rest[8] == PAYLOAD_FORMAT;
        summed_up += if is_plausible { length } else { 0 };
        is_plausible && (summed_up > SUMMED_UP_BYTES_MAX || frame_at(rest, length).is_some())
    })
}

impl<'a> FoundFrame<'a> {
    /// Returns the leaves' bytes, or nothing if the payload is not made of just them.
    pub fn leaves(&self) -> Option<Vec<&'a [u8]>> {
        let mut rest = &self.payload[PAYLOAD_HEAD_BYTES..];
        let mut leaves = Vec::with_capacity(usize::from(self.count));
        for _ in 0..self.count {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (leaf, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            leaves.push(leaf);
            rest = after;
        }
        rest.is_empty().then_some(leaves)
    }
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentHead {
    /// SHA-256 of the log's origin.
    pub origin_hash: [u8; 32],
    /// The index of its first leaf.
    pub first: u64,
    /// The MAC of the last frame of the segment before.
    pub previous: FrameMac,
}

impl SegmentHead {
    /// Returns the bytes.
    pub fn to_bytes(self) -> [u8; SEGMENT_HEAD_BYTES] {
        let mut bytes = [0; SEGMENT_HEAD_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..40].copy_from_slice(&self.origin_hash);
        bytes[40..48].copy_from_slice(&self.first.to_be_bytes());
        bytes[48..].copy_from_slice(&self.previous);
        bytes
    }

    /// Reads the head of a segment.
    pub fn parse(segment: &[u8]) -> Option<Self> {
        let head = segment.first_chunk::<SEGMENT_HEAD_BYTES>()?;
        (&head[..8] == SEGMENT_MAGIC).then_some(())?;
        Some(Self {
            origin_hash: *head[8..].first_chunk()?,
            first: u64::from_be_bytes(*head[40..].first_chunk()?),
            previous: *head[48..].first_chunk()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::log_mac::FIRST_PREVIOUS_MAC;
    use crate::crypto::{ClusterSecret, EpochKey, EpochPlace, WrappedKey};
    use crate::noun::{EpochNumber, KeyVersion, Uid};

    /// The frame-MAC subkey of the vectors, reached through the vectors' own wraps.
    fn vector_key(v: &serde_json::Value) -> FrameMacKey {
        let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let uid = |value: &serde_json::Value| Uid::from_slice(&bytes(value)).unwrap();
        let wrapped = &v["wrapped_epoch_key"];
        let cluster = uid(&wrapped["cluster"]);
        let file = bytes(&v["keystore_file"]["file"]);
        let (_, master) =
            crate::crypto::keystore_file::open(&file, cluster, v["keystore_file"]["pin"].as_str().unwrap().as_bytes())
                .unwrap();
        let number = EpochNumber::new(7).unwrap();
        let epoch_key: EpochKey = master
            .unwrap_epoch_key(
                uid(&wrapped["master_id"]),
                cluster,
                number,
                &WrappedKey::from_slice(&bytes(&wrapped["blob"])).unwrap(),
            )
            .unwrap();
        let place = EpochPlace { id: uid(&v["wrapped_tenant_key"]["epoch_id"]), number };
        let blob = WrappedKey::from_slice(&bytes(&v["wrapped_cluster_secret"]["blob"])).unwrap();
        let secret: ClusterSecret = epoch_key.unwrap_cluster_secret(place, cluster, KeyVersion::FIRST, &blob).unwrap();
        secret.frame_mac_key().unwrap()
    }

    fn vectors() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../tests/vectors/kms1_vectors.json")).unwrap()
    }

    #[test]
    fn the_segment_of_the_vectors_is_written_byte_for_byte() {
        let v = vectors();
        let key = vector_key(&v);
        let entries: Vec<&str> =
            v["audit"]["entries"].as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
        let origin_hash = crate::crypto::sha256(b"kms.example.com/audit/node-1");
        let mut segment = SegmentHead { origin_hash, first: 0, previous: FIRST_PREVIOUS_MAC }.to_bytes().to_vec();
        let mut previous = FIRST_PREVIOUS_MAC;
        for (first, part) in [(0, &entries[..6]), (6, &entries[6..])] {
            let mut payload = FramePayload::new(first);
            for entry in part {
                payload.push(|out| out.extend_from_slice(entry.as_bytes()));
            }
            let (frame, mac) = payload.seal(&key, &previous);
            segment.extend_from_slice(&frame);
            previous = mac;
        }
        segment.extend_from_slice(&[0; 4]);
        assert_eq!(hex::encode(&segment), v["audit"]["segment"].as_str().unwrap());
        println!("audit segment: 1/1 met");
    }

    #[test]
    fn every_bit_flip_of_a_frame_is_seen() {
        let v = vectors();
        let key = vector_key(&v);
        let mut payload = FramePayload::new(3);
        payload.push(|out| out.extend_from_slice(b"{}"));
        let (frame, _) = payload.seal(&key, &FIRST_PREVIOUS_MAC);
        let valid = |bytes: &[u8]| matches!(find(bytes), Found::Frame(f) if key.verify(&FIRST_PREVIOUS_MAC, f.payload, f.mac) && f.leaves().is_some());
        assert!(valid(&frame));
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!valid(&damaged), "bit {bit}");
        }
        for end in 0..frame.len() {
            assert!(!valid(&frame[..end]), "end {end}");
        }
        assert!(!key.verify(&[1; 32], &frame[8..21], &frame[21..]), "another place in the chain");
    }
}
