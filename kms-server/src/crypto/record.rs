//! Records of the store: a protobuf with a MAC that binds it to its place.
//!
//! ```text
//! record = 01 || u24 MAC-key version || protobuf ||
//!          HMAC-SHA-256( k, "kms1/record" 00 || u16 len family || family || u16 len row key || row key || all before )
//! ```
//! A swapped, moved or edited row never verifies.

use subtle::ConstantTimeEq as _;

use crate::noun::KeyVersion;

use super::secret::{RecordMacKey, hmac_sha256};

const FORMAT: u8 = 0x01;
const HEAD_BYTES: usize = 4;
const MAC_BYTES: usize = 32;

/// Why a record is not to be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// Too short, or of a format this release does not know.
    #[error("a stored row has an unknown format")]
    Format,
    /// Changed, moved, or of another key.
    #[error("a stored row does not verify")]
    Mac,
}

/// Makes a record.
pub fn seal(key: &RecordMacKey, key_version: KeyVersion, family: &str, row_key: &[u8], protobuf: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + protobuf.len() + MAC_BYTES);
    record.push(FORMAT);
    record.extend_from_slice(&key_version.to_u24());
    record.extend_from_slice(protobuf);
    let mac = mac(key, family, row_key, &record);
    record.extend_from_slice(&mac);
    record
}

/// Verifies a record and returns its protobuf.
pub fn open<'a>(key: &RecordMacKey, family: &str, row_key: &[u8], record: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let (body, found) = split(record)?;
    if bool::from(mac(key, family, row_key, body).ct_eq(found)) {
        Ok(&body[HEAD_BYTES..])
    } else {
        Err(RecordError::Mac)
    }
}

/// Returns the version of the key that made the record's MAC, as the record claims.
pub fn key_version(record: &[u8]) -> Result<KeyVersion, RecordError> {
    let (body, _) = split(record)?;
    KeyVersion::from_u24([body[1], body[2], body[3]]).ok_or(RecordError::Format)
}

/// Returns the protobuf without verifying it: only for the rows that carry, wrapped, the very key
/// that their MAC needs. Nothing of it may be trusted before [`open`] has answered.
pub fn peek(record: &[u8]) -> Result<&[u8], RecordError> {
    let (body, _) = split(record)?;
    Ok(&body[HEAD_BYTES..])
}

fn split(record: &[u8]) -> Result<(&[u8], &[u8]), RecordError> {
    if record.len() < HEAD_BYTES + MAC_BYTES || record[0] != FORMAT {
        return Err(RecordError::Format);
    }
    Ok(record.split_at(record.len() - MAC_BYTES))
}

fn mac(key: &RecordMacKey, family: &str, row_key: &[u8], body: &[u8]) -> [u8; 32] {
    let u16_len = |bytes: &[u8]| u16::try_from(bytes.len()).expect("families and row keys are short").to_be_bytes();
    hmac_sha256(
        key.bytes(),
        &[b"kms1/record\0", &u16_len(family.as_bytes()), family.as_bytes(), &u16_len(row_key), row_key, body],
    )
}
