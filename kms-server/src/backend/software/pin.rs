//! The PIN that keystore files are under.
//!
//! It lies in a file of its own, best on another disk than the keystore (or in a credential of the
//! service manager): a thief of one of them has nothing. It is read for each use and never kept.

use std::path::Path;

use zeroize::{Zeroize as _, Zeroizing};

use crate::crypto::keystore_file::pin_of_file;
use crate::noun::Random;

use super::error::SoftwareError;
use super::private_file::{self, Link};

/// The longest PIN, in bytes.
pub const PIN_BYTES_MAX: usize = 1024;

/// A PIN of 1 to [`PIN_BYTES_MAX`] bytes. Wiped on drop.
pub struct Pin(Zeroizing<Vec<u8>>);

impl Pin {
    /// Makes a PIN of 160 random bits: eight groups of four digits and small letters, without
    /// those that are taken for one another (i, l, o, u). The dashes between are part of it.
    pub fn generate(rng: &dyn Random) -> Self {
        let mut bits = Zeroizing::new([0; 20]);
        rng.fill(&mut *bits);
        let mut text = Zeroizing::new(Vec::with_capacity(GENERATED_BYTES));
        for group in bits.as_chunks::<5>().0 {
            let mut forty = group.iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
            for place in (0..8).rev() {
                if place % 4 == 3 && !text.is_empty() {
                    text.push(b'-');
                }
                text.push(ALPHABET[(forty >> (5 * place) & 0x1f) as usize]);
            }
            forty.zeroize();
        }
        Self(text)
    }

    /// Reads a PIN: the file's bytes less one trailing line end. The file must be its owner's alone.
    pub(in crate::backend) fn read(path: &Path) -> Result<Self, SoftwareError> {
        let file = private_file::read(path, Link::Followed, PIN_BYTES_MAX + LINE_END_BYTES_MAX)?;
        let pin = pin_of_file(&file);
        if pin.is_empty() || pin.len() > PIN_BYTES_MAX {
            return Err(SoftwareError::PinSize { path: path.to_owned(), bytes: pin.len() });
        }
        Ok(Self(Zeroizing::new(pin.to_vec())))
    }

    /// Writes the PIN into a new file of mode 0600; one that is there is never replaced.
    pub(super) fn write_new(&self, path: &Path) -> Result<(), SoftwareError> {
        let mut line = Zeroizing::new(Vec::with_capacity(self.0.len() + 1));
        line.extend_from_slice(&self.0);
        line.push(b'\n');
        private_file::create(path, &line)
    }

    pub(in crate::backend) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const GENERATED_BYTES: usize = 8 * 4 + 7;
const LINE_END_BYTES_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    struct Same(u8);

    impl Random for Same {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    #[test]
    fn a_generated_pin_is_eight_groups_of_four() {
        assert_eq!(Pin::generate(&Same(0)).bytes(), b"0000-0000-0000-0000-0000-0000-0000-0000");
        assert_eq!(Pin::generate(&Same(0xff)).bytes(), b"zzzz-zzzz-zzzz-zzzz-zzzz-zzzz-zzzz-zzzz");
        // 01010 10101 ... of 0x55.
        assert_eq!(Pin::generate(&Same(0x55)).bytes(), b"anan-anan-anan-anan-anan-anan-anan-anan");
    }

    #[test]
    fn every_bit_of_randomness_is_in_the_pin() {
        struct OneBit(usize);
        impl Random for OneBit {
            fn fill(&self, out: &mut [u8]) {
                out.fill(0);
                out[self.0 / 8] = 1 << (self.0 % 8);
            }
        }
        let pins: std::collections::BTreeSet<Vec<u8>> =
            (0..160).map(|bit| Pin::generate(&OneBit(bit)).bytes().to_vec()).collect();
        assert_eq!(pins.len(), 160);
        assert!(pins.iter().all(|pin| pin.len() == GENERATED_BYTES));
    }
}
