//! Rows in and out of records: what is stored is verified before anything believes it.

use prost::Message;

use crate::crypto::{RecordMacKey, record};
use crate::noun::{KeyVersion, Uid};
use crate::store::RowKey;

use super::Error;

/// Makes the record of a row.
pub(super) fn seal(key: &RecordMacKey, key_version: KeyVersion, row: &RowKey, message: &impl Message) -> Vec<u8> {
    record::seal(key, key_version, row.family.name(), &row.key, &message.encode_to_vec())
}

/// Verifies a record and reads its row.
pub(super) fn open<M: Message + Default>(key: &RecordMacKey, row: &RowKey, record: &[u8]) -> Result<M, Error> {
    let protobuf = record::open(key, row.family.name(), &row.key, record)?;
    M::decode(protobuf).map_err(|_| Error::Damaged("it verifies but is no row of this release"))
}

/// Reads a row that carries, wrapped, the key its MAC needs. Nothing of it may be trusted before
/// [`open`] has answered.
pub(super) fn peek<M: Message + Default>(record: &[u8]) -> Result<M, Error> {
    M::decode(record::peek(record)?).map_err(|_| Error::Damaged("it is no row of this release"))
}

pub(super) fn uid(bytes: &[u8]) -> Result<Uid, Error> {
    Uid::from_slice(bytes).ok_or(Error::Damaged("a uid that has not 16 bytes"))
}

pub(super) fn version(number: u32) -> Result<KeyVersion, Error> {
    KeyVersion::new(number).ok_or(Error::Damaged("a version that is none"))
}
