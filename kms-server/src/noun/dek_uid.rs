//! The uid of a managed data key: when it was made, by which request, and its place there.
//!
//! ```text
//! uid = u48 milliseconds since 1970 || 6 random bytes of the request || u32 index of the item
//! ```
//! Keys that are made together lie together in the store, the oldest first. Not secret.

use std::fmt;
use std::str::FromStr;

use super::{UnixMillis, uid::write_hex};

/// The uid of a managed data key. Shown as 32 lower-case hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DekUid([u8; 16]);

impl DekUid {
    /// Makes the uid of the item `index` of a request.
    pub fn of(ms: UnixMillis, random: [u8; 6], index: u32) -> Self {
        let mut bytes = [0; 16];
        // Beyond the year 10,889 the greatest time is kept, so that the order never turns round.
        bytes[..6].copy_from_slice(&ms.min(CREATED_MS_MAX).to_be_bytes()[2..]);
        bytes[6..12].copy_from_slice(&random);
        bytes[12..].copy_from_slice(&index.to_be_bytes());
        Self(bytes)
    }

    /// Takes 16 bytes as a uid.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Takes a slice as a uid if it has 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns when it was made.
    pub const fn created_ms(&self) -> UnixMillis {
        let [a, b, c, d, e, f, ..] = self.0;
        UnixMillis::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl fmt::Display for DekUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// A text that is no uid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be 32 of 0-9 a-f")]
pub struct InvalidDekUid;

impl FromStr for DekUid {
    type Err = InvalidDekUid;

    fn from_str(text: &str) -> Result<Self, InvalidDekUid> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidDekUid)?;
        // One way to write it.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) { Err(InvalidDekUid) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Debug for DekUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

const CREATED_MS_MAX: UnixMillis = (1 << 48) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_tells_when_it_was_made_and_sorts_by_it() {
        let uid = DekUid::of(0x0199_aabb_ccdd, [0x84, 0xd6, 0x71, 0xbd, 0xe8, 0x3c], 5);
        assert_eq!(uid.to_string(), "0199aabbccdd84d671bde83c00000005");
        assert_eq!(uid.created_ms(), 0x0199_aabb_ccdd);
        assert_eq!(DekUid::from_slice(uid.as_bytes()), Some(uid));
        assert!(uid < DekUid::of(0x0199_aabb_ccde, [0; 6], 0));
        assert!(uid < DekUid::of(0x0199_aabb_ccdd, [0x84, 0xd6, 0x71, 0xbd, 0xe8, 0x3c], 256));
    }

    #[test]
    fn a_uid_is_written_in_one_way() {
        let uid = DekUid::of(7, [0xab; 6], 1);
        assert_eq!(uid.to_string().parse(), Ok(uid));
        let text = uid.to_string();
        for bad in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace('a', "g")] {
            assert_eq!(bad.parse::<DekUid>(), Err(InvalidDekUid), "{bad}");
        }
    }

    #[test]
    fn a_time_beyond_48_bits_is_the_greatest() {
        assert_eq!(DekUid::of(u64::MAX, [0; 6], 0).created_ms(), CREATED_MS_MAX);
        assert_eq!(DekUid::of(1 << 48, [0; 6], 0).created_ms(), CREATED_MS_MAX);
    }

    #[test]
    fn only_16_bytes_are_a_uid() {
        assert!(DekUid::from_slice(&[0; 15]).is_none());
        assert!(DekUid::from_slice(&[0; 17]).is_none());
    }
}
