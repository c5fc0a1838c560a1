//! Managed data keys as the store keeps them (kind 02).
//!
//! A managed one differs from a portable one in its context alone:
//!
//! ```text
//! tenant = the tenant's name    kms1-dek = its uid    kms1-ctx = CTXH of the caller's context, both in hex
//! ```
//! Callers cannot give names that begin with `kms1`: neither kind is ever taken for the other.

use zeroize::Zeroizing;

use crate::noun::{DekUid, KeyVersion, Random, TenantName, Uid};

use super::chain::{self, WrappedKey};
use super::construction::OpenError;
use super::context::{ContextHash, hash_of_own};
use super::header::{Header, Kind};
use super::secret::{Dek, Kek};

impl Kek {
    /// Wraps a managed data key (kind 02).
    #[allow(clippy::too_many_arguments)] // Each of them is bound in, and has a type of its own.
    pub fn wrap_managed_dek(
        &self,
        key: Uid,
        version: KeyVersion,
        tenant: &TenantName,
        dek_uid: &DekUid,
        caller_ctxh: &ContextHash,
        dek: &Dek,
        rng: &dyn Random,
    ) -> WrappedKey {
        chain::wrap(self.bytes(), header(key, version), &place(tenant, dek_uid, caller_ctxh), &dek.0, rng)
    }

    /// Unwraps a managed data key (kind 02).
    pub fn unwrap_managed_dek(
        &self,
        key: Uid,
        version: KeyVersion,
        tenant: &TenantName,
        dek_uid: &DekUid,
        caller_ctxh: &ContextHash,
        blob: &WrappedKey,
    ) -> Result<Dek, OpenError> {
        let mut bytes = Zeroizing::new([0; 32]);
        let context = place(tenant, dek_uid, caller_ctxh);
        chain::unwrap(self.bytes(), header(key, version), &context, blob, &mut bytes)?;
        Ok(Dek(bytes))
    }
}

fn header(key: Uid, version: KeyVersion) -> Header {
    Header { kind: Kind::WrappedDek, key_id: key, version }
}

pub(super) fn place(tenant: &TenantName, dek_uid: &DekUid, caller_ctxh: &ContextHash) -> ContextHash {
    let (mut uid, mut ctxh) = ([0; 32], [0; 64]);
    let pairs =
        [("kms1-dek", digits(dek_uid.as_bytes(), &mut uid)), ("kms1-ctx", digits(caller_ctxh.as_bytes(), &mut ctxh))];
    hash_of_own(tenant.as_str(), b"", &pairs)
}

/// Writes bytes as hex. Without allocations: it is done for each of a batch.
fn digits<'a>(bytes: &[u8], out: &'a mut [u8]) -> &'a str {
    hex::encode_to_slice(bytes, out).expect("two digits are a byte");
    std::str::from_utf8(out).expect("digits are text")
}
