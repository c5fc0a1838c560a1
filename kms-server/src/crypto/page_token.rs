//! Page tokens: where a listing goes on, opaque and authenticated.
//!
//! ```text
//! token = 01 || place || HMAC-SHA-256( k, "kms1/page" 00 || u16 len listing || listing || u16 len place || place )[..16]
//! ```
//! `listing` names method, caller and parent, so that a token is of use only where it was given.

use subtle::ConstantTimeEq as _;

use super::secret::{PageTokenKey, hmac_sha256};

const FORMAT: u8 = 0x01;
const MAC_BYTES: usize = 16;

impl PageTokenKey {
    /// Makes the token for the place after which the listing goes on.
    pub fn seal(&self, listing: &str, place: &[u8]) -> Vec<u8> {
        let mut token = Vec::with_capacity(1 + place.len() + MAC_BYTES);
        token.push(FORMAT);
        token.extend_from_slice(place);
        token.extend_from_slice(&self.mac(listing, place));
        token
    }

    /// Returns the place, if the token was made for this listing.
    pub fn open<'a>(&self, listing: &str, token: &'a [u8]) -> Option<&'a [u8]> {
        let (&FORMAT, rest) = token.split_first()? else { return None };
        let (place, mac) = rest.split_at_checked(rest.len().checked_sub(MAC_BYTES)?)?;
        bool::from(self.mac(listing, place).ct_eq(mac)).then_some(place)
    }

    fn mac(&self, listing: &str, place: &[u8]) -> [u8; MAC_BYTES] {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mac = hmac_sha256(
            self.bytes(),
            &[b"kms1/page\0", &length(listing.as_bytes()), listing.as_bytes(), &length(place), place],
        );
        *mac.first_chunk().expect("16 of 32 bytes")
    }
}
