//! MACs of the audit log's frames and of the ledger's entries, each over the one before: nobody
//! without the cluster secret can forge a tail while the daemon is down.

use subtle::ConstantTimeEq as _;

use super::secret::{FrameMacKey, LedgerMacKey, hmac_sha256};

/// The MAC of a frame, or of an entry of the ledger.
pub type FrameMac = [u8; 32];

/// What comes before the first frame of a log.
pub const FIRST_PREVIOUS_MAC: FrameMac = [0; 32];

impl FrameMacKey {
    /// Returns the MAC of a frame: HMAC-SHA-256(key, previous mac || payload).
    pub fn mac(&self, previous: &FrameMac, payload: &[u8]) -> FrameMac {
        hmac_sha256(self.bytes(), &[previous, payload])
    }

    /// Tells whether a MAC is that of the frame.
    pub fn verify(&self, previous: &FrameMac, payload: &[u8], mac: &[u8]) -> bool {
        self.mac(previous, payload).ct_eq(mac).into()
    }
}

impl LedgerMacKey {
    /// Returns the MAC of an entry: HMAC-SHA-256(key, previous mac || leaf).
    pub fn mac(&self, previous: &FrameMac, leaf: &[u8]) -> FrameMac {
        hmac_sha256(self.bytes(), &[previous, leaf])
    }

    /// Tells whether a MAC is that of the entry.
    pub fn verify(&self, previous: &FrameMac, leaf: &[u8], mac: &[u8]) -> bool {
        self.mac(previous, leaf).ct_eq(mac).into()
    }
}
