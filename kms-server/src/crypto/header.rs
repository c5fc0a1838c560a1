//! The 24 bytes that every blob begins with.
//!
//! ```text
//! header = 92 6b 35 || suite 01 || kind || key id 16 || u24 version >= 1
//! ```
//! Base64 of any blob begins with `kms1`. The header names the *wrapping* key; what is wrapped is
//! named by the context.

use crate::noun::{KeyVersion, Uid};

use super::construction::OpenError;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 24;

const MAGIC: [u8; 3] = [0x92, 0x6b, 0x35];
const SUITE: u8 = 0x01;

/// What a blob holds. The numbers are part of the format and never change.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// Data sealed by Encrypt.
    Data = 0x01,
    /// A data key wrapped for a client, or a managed one in the store.
    WrappedDek = 0x02,
    /// A message authentication code, with its key's header before it.
    Mac = 0x07,
    /// A tenant key under an epoch key.
    TenantKey = 0x10,
    /// An epoch key under a version of the software HSM's master key.
    EpochKey = 0x11,
    /// The KEK of a key version under the tenant key.
    Kek = 0x12,
    /// The cluster secret under an epoch key.
    ClusterSecret = 0x13,
    /// A tenant's blind-index root under its tenant key.
    IndexRoot = 0x14,
    /// The audit log's signing seed under a subkey of the cluster secret.
    AuditSeed = 0x15,
    /// A version of the master key in a keystore file, under the PIN.
    MasterKey = 0x16,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Data,
        Kind::WrappedDek,
        Kind::Mac,
        Kind::TenantKey,
        Kind::EpochKey,
        Kind::Kek,
        Kind::ClusterSecret,
        Kind::IndexRoot,
        Kind::AuditSeed,
        Kind::MasterKey,
    ];
}

/// A parsed header: what a blob claims to be. Nothing of it is proved before the blob opens.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Header {
    /// What the blob holds.
    pub kind: Kind,
    /// The uid of the wrapping key.
    pub key_id: Uid,
    /// The version of the wrapping key (or the number of the epoch).
    pub version: KeyVersion,
}

impl Header {
    /// Reads the header of a blob.
    pub fn parse(blob: &[u8]) -> Result<Self, OpenError> {
        let header: &[u8; HEADER_BYTES] = blob.first_chunk().ok_or(OpenError::Short)?;
        if header[..3] != MAGIC {
            return Err(OpenError::Magic);
        }
        if header[3] != SUITE {
            return Err(OpenError::Suite);
        }
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == header[4]).ok_or(OpenError::Kind)?;
        let key_id = Uid::from_slice(&header[5..21]).ok_or(OpenError::Short)?;
        let version = KeyVersion::from_u24([header[21], header[22], header[23]]).ok_or(OpenError::Version)?;
        Ok(Self { kind, key_id, version })
    }

    /// Tells what of it is other than expected.
    pub(super) fn expect(self, expected: Self) -> Result<(), OpenError> {
        if self.kind != expected.kind {
            return Err(OpenError::Kind);
        }
        if self.key_id != expected.key_id {
            return Err(OpenError::Key);
        }
        if self.version != expected.version {
            return Err(OpenError::Version);
        }
        Ok(())
    }

    /// Returns the 24 bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = SUITE;
        bytes[4] = self.kind as u8;
        bytes[5..21].copy_from_slice(self.key_id.as_bytes());
        bytes[21..].copy_from_slice(&self.version.to_u24());
        bytes
    }
}
