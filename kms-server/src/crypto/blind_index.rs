//! Keys of blind indexes: one for each name, the same for the tenant's whole life.
//!
//! ```text
//! key = HKDF-Expand( index root, "kms1/blind-index" 00 || u16 len tenant || tenant || u16 len name || name, 32 )
//! ```

use zeroize::Zeroizing;

use crate::noun::{IndexName, TenantName};

use super::kdf;
use super::secret::IndexRoot;

/// The key of a blind index, on its way to a caller who may have it. Wiped on drop.
pub struct IndexKey(Zeroizing<[u8; 32]>);

impl IndexKey {
    /// Gives the bytes out, to be sent to the caller.
    pub fn expose_to_caller(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl IndexRoot {
    /// Returns the key of the blind index of this name.
    pub fn index_key(&self, tenant: &TenantName, index: &IndexName) -> IndexKey {
        let (tenant, index) = (tenant.as_str(), index.as_str());
        let length = |name: &str| u16::try_from(name.len()).expect("a name has at most 64 bytes").to_be_bytes();
        let info = [&b"kms1/blind-index\0"[..], &length(tenant), tenant.as_bytes(), &length(index), index.as_bytes()];
        let mut key = Zeroizing::new([0; 32]);
        kdf::expand(self.bytes(), &info, &mut key);
        kdf::scrub_stack();
        IndexKey(key)
    }
}
