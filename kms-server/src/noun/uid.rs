//! A uid: 16 random bytes that name a thing for ever, also after its name is gone.

use std::fmt;

use super::Random;

/// The uid of a cluster, epoch, tenant or key. Shown as 32 lower-case hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid([u8; 16]);

impl Uid {
    /// Makes a new uid.
    pub fn generate(rng: &dyn Random) -> Self {
        let mut bytes = [0; 16];
        rng.fill(&mut bytes);
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

    /// Reads a uid as it is shown.
    pub fn from_hex(text: &str) -> Option<Self> {
        Self::from_slice(&hex::decode(text).ok()?)
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8; 16]) -> fmt::Result {
    // At once: it is done for every data key that is wrapped, and formatting byte by byte costs as much
    // as a hash.
    let mut digits = [0; 32];
    hex::encode_to_slice(bytes, &mut digits).expect("32 digits are 16 bytes");
    f.write_str(std::str::from_utf8(&digits).expect("digits are text"))
}
