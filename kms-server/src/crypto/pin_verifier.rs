//! What recognises a PIN that was refused, without keeping it.
//!
//! ```text
//! verifier = salt 16 || Argon2id (RFC 9106, version 13 hex; 65,536 KiB, 3 passes, 1 lane) of the PIN with it, 32 bytes
//! ```
//! Of PINs that a token did not take, and of none that it took: a PIN of few digits is found from its verifier by trying.

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::kdf;
use super::keystore_file::PinCost;
use crate::noun::Random;

/// Recognises one PIN.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinVerifier {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl PinVerifier {
    /// Makes the one of a PIN.
    pub fn of(pin: &[u8], rng: &dyn Random) -> Self {
        let mut salt = [0; 16];
        rng.fill(&mut salt);
        Self { salt, hash: *hash(pin, &salt) }
    }

    /// Returns whether this is the PIN.
    pub fn fits(&self, pin: &[u8]) -> bool {
        hash(pin, &self.salt).ct_eq(&self.hash).into()
    }

    /// Returns it in hex.
    pub fn to_hex(&self) -> String {
        hex::encode(self.salt) + &hex::encode(self.hash)
    }

    /// Reads it; only lower-case digits are one.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 48];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let (salt, hash) = bytes.split_first_chunk::<16>()?;
        let read = Self { salt: *salt, hash: *hash.first_chunk()? };
        (read.to_hex() == text).then_some(read)
    }
}

fn hash(pin: &[u8], salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let PinCost { memory_kib, passes, lanes } = PinCost::DEFAULT;
    let mut hash = Zeroizing::new([0; 32]);
    let params = Params::new(memory_kib, passes, lanes, Some(hash.len())).expect("the default is within all bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(pin, salt, &mut *hash)
        .expect("a PIN is shorter than 4 GiB and a salt longer than 8 bytes");
    kdf::scrub_stack();
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noun::random::OsRandom;

    #[test]
    fn it_recognises_its_pin_and_no_neighbour() {
        let verifier = PinVerifier::of(b"1234", &OsRandom::new());
        assert!(verifier.fits(b"1234"));
        for other in [&b"1235"[..], b"123", b"12345", b""] {
            assert!(!verifier.fits(other));
        }
        assert_ne!(PinVerifier::of(b"1234", &OsRandom::new()), verifier, "each has a salt of its own");
        let hex = verifier.to_hex();
        assert_eq!(PinVerifier::from_hex(&hex), Some(verifier));
        for bad in ["", &hex[1..], &hex[2..], &format!("{hex}00"), &hex.replace(['a', 'b', 'c', 'd', 'e', 'f'], "F")] {
            assert_eq!(PinVerifier::from_hex(bad), None, "{bad}");
        }
    }
}
