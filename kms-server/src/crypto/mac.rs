//! Message authentication codes (kind 07).
//!
//! ```text
//! MAC = H(24) || HMAC-SHA-256( HKDF-Expand(KEK, "kms1/mac" 00, 32), CTXH || message )
//! ```
//! The header is not under the HMAC: it says which KEK made it, and another KEK makes another MAC.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::noun::{KeyVersion, Uid};

use super::construction::OpenError;
use super::context::ContextHash;
use super::header::{HEADER_BYTES, Header, Kind};
use super::kdf;
use super::secret::{Kek, hmac_sha256};

/// Bytes of a MAC with its header.
pub const MAC_BYTES: usize = HEADER_BYTES + 32;

impl Kek {
    /// Makes the MAC of a message.
    pub fn mac(&self, key: Uid, version: KeyVersion, context: &ContextHash, message: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        mac[..HEADER_BYTES].copy_from_slice(&header(key, version).to_bytes());
        mac[HEADER_BYTES..].copy_from_slice(&self.tag(context, message));
        mac
    }

    /// Checks the MAC of a message, in constant time.
    pub fn verify_mac(
        &self,
        key: Uid,
        version: KeyVersion,
        context: &ContextHash,
        message: &[u8],
        mac: &[u8],
    ) -> Result<(), OpenError> {
        Header::parse(mac)?.expect(header(key, version))?;
        if mac.len() != MAC_BYTES {
            return Err(OpenError::Length);
        }
        let right = self.tag(context, message).ct_eq(&mac[HEADER_BYTES..]);
        bool::from(right).then_some(()).ok_or(OpenError::Mac)
    }

    fn tag(&self, context: &ContextHash, message: &[u8]) -> [u8; 32] {
        let mut mac_key = Zeroizing::new([0; 32]);
        kdf::subkey(self.bytes(), b"kms1/mac\0", &mut mac_key);
        hmac_sha256(&mac_key, &[context.as_bytes(), message])
    }
}

fn header(key: Uid, version: KeyVersion) -> Header {
    Header { kind: Kind::Mac, key_id: key, version }
}
