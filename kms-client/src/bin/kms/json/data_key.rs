//! The answers about data keys, MACs and indexes.

use kms_client as kms;
use kms_client::{ErrorKind, ItemError};
use serde::Serialize;

use super::{Bytes, Enum, Length, Time, key_state, next};

/// `kms.v1.GenerateDataKeyResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedDataKey<'a> {
    plaintext: Bytes<'a>,
    wrapped_data_key: Bytes<'a>,
    key_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Length>,
}

impl<'a> GeneratedDataKey<'a> {
    /// What is not to be shown is empty.
    pub fn new(made: &kms::GeneratedDataKey, data_key: &'a [u8], wrapped: &'a [u8]) -> Self {
        let lease = Some(Length(made.lease.length()));
        Self {
            plaintext: Bytes(data_key),
            wrapped_data_key: Bytes(wrapped),
            key_version: made.key_version.get(),
            lease,
        }
    }

    pub fn wrapped(made: &'a kms::GeneratedWrappedDataKey) -> Self {
        Self {
            plaintext: Bytes(&[]),
            wrapped_data_key: Bytes(made.wrapped_data_key.as_bytes()),
            key_version: made.key_version.get(),
            lease: None,
        }
    }
}

/// `kms.v1.DecryptDataKeyResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecryptedDataKey<'a> {
    plaintext: Bytes<'a>,
    key_version: u32,
    stale: bool,
    lease: Length,
}

impl<'a> From<&'a kms::DecryptedDataKey> for DecryptedDataKey<'a> {
    fn from(opened: &'a kms::DecryptedDataKey) -> Self {
        Self {
            plaintext: Bytes(opened.data_key.expose()),
            key_version: opened.key_version.get(),
            stale: opened.stale,
            lease: Length(opened.lease.length()),
        }
    }
}

/// `kms.v1.CreateDataKeyResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedDataKey<'a> {
    plaintext: Bytes<'a>,
    uid: Bytes<'a>,
    key_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Length>,
}

impl<'a> CreatedDataKey<'a> {
    /// A data key that is not to be shown is empty.
    pub fn new(made: &'a kms::CreatedDataKey, data_key: &'a [u8]) -> Self {
        Self {
            plaintext: Bytes(data_key),
            uid: Bytes(made.uid.as_bytes()),
            key_version: made.key_version.get(),
            lease: Some(Length(made.lease.length())),
        }
    }

    pub fn uid(made: &'a kms::CreatedDataKeyUid) -> Self {
        Self {
            plaintext: Bytes(&[]),
            uid: Bytes(made.uid.as_bytes()),
            key_version: made.key_version.get(),
            lease: None,
        }
    }

    /// Of a dry run.
    pub fn rehearsed(key_version: kms::VersionNumber) -> Self {
        Self { plaintext: Bytes(&[]), uid: Bytes(&[]), key_version: key_version.get(), lease: None }
    }
}

/// `kms.v1.GetDataKeyResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenDataKey<'a> {
    plaintext: Bytes<'a>,
    key_version: u32,
    lease: Length,
}

impl<'a> From<&'a kms::GivenDataKey> for GivenDataKey<'a> {
    fn from(given: &'a kms::GivenDataKey) -> Self {
        Self {
            plaintext: Bytes(given.data_key.expose()),
            key_version: given.key_version.get(),
            lease: Length(given.lease.length()),
        }
    }
}

/// `kms.v1.DestroyDataKeyResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DestroyedDataKey {
    destroy_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_end_time: Option<Time>,
}

impl From<&kms::DestroyedDataKey> for DestroyedDataKey {
    fn from(destroyed: &kms::DestroyedDataKey) -> Self {
        Self { destroy_time: Time(destroyed.destroy_time), lease_end_time: destroyed.lease_end_time.map(Time) }
    }
}

/// The answer of a batch: `kms.v1.BatchCreateDataKeysResponse` and its like. What holds for all of it stands before its
/// results.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch<R> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Length>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_end_time: Option<Time>,
    results: Vec<ItemResult<R>>,
}

/// The result of one item: its error stands beside fields that are empty then.
#[derive(Serialize)]
struct ItemResult<R> {
    #[serde(flatten)]
    fields: R,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemFailure>,
}

/// `kms.v1.ItemError`
#[derive(Serialize)]
struct ItemFailure {
    code: u32,
    reason: Enum,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedItem<'a> {
    plaintext: Bytes<'a>,
    uid: Bytes<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedItem<'a> {
    plaintext: Bytes<'a>,
    wrapped_data_key: Bytes<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenItem<'a> {
    plaintext: Bytes<'a>,
    key_version: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DestroyedItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    destroy_time: Option<Time>,
}

/// What a batch gave.
type Results<T> = [Result<T, ItemError>];

impl<R> Batch<R> {
    fn of<'a, T>(results: &'a Results<T>, fields: impl Fn(Option<&'a T>) -> R) -> Self {
        let results = results.iter().map(|result| ItemResult {
            fields: fields(result.as_ref().ok()),
            error: result.as_ref().err().map(Into::into),
        });
        Self { key_version: None, lease: None, lease_end_time: None, results: results.collect() }
    }
}

/// Returns the first good one, which has what all have.
fn first<T>(results: &Results<T>) -> Option<&T> {
    results.iter().find_map(|result| result.as_ref().ok())
}

/// Returns bytes of what is there, or none.
fn bytes<'a, T>(of: Option<&'a T>, bytes: impl Fn(&'a T) -> &'a [u8]) -> Bytes<'a> {
    Bytes(of.map_or(&[], bytes))
}

impl<'a> Batch<CreatedItem<'a>> {
    pub fn created(results: &'a Results<kms::CreatedDataKey>) -> Self {
        let first = first(results);
        let fields = |made| CreatedItem {
            plaintext: bytes(made, |made: &kms::CreatedDataKey| made.data_key.expose()),
            uid: bytes(made, |made| made.uid.as_bytes()),
        };
        Self {
            key_version: Some(first.map_or(0, |made| made.key_version.get())),
            lease: first.map(|made| Length(made.lease.length())),
            ..Self::of(results, fields)
        }
    }

    pub fn uids(results: &'a Results<kms::CreatedDataKeyUid>) -> Self {
        let fields = |made| CreatedItem {
            plaintext: Bytes(&[]),
            uid: bytes(made, |made: &kms::CreatedDataKeyUid| made.uid.as_bytes()),
        };
        Self { key_version: Some(first(results).map_or(0, |made| made.key_version.get())), ..Self::of(results, fields) }
    }

    /// Of a dry run.
    pub fn rehearsed(results: &'a Results<kms::VersionNumber>) -> Self {
        let fields = |_| CreatedItem { plaintext: Bytes(&[]), uid: Bytes(&[]) };
        Self { key_version: Some(first(results).map_or(0, |version| version.get())), ..Self::of(results, fields) }
    }
}

impl<'a> Batch<GeneratedItem<'a>> {
    pub fn generated(results: &'a Results<kms::GeneratedDataKey>) -> Self {
        let first = first(results);
        let fields = |made| GeneratedItem {
            plaintext: bytes(made, |made: &kms::GeneratedDataKey| made.data_key.expose()),
            wrapped_data_key: bytes(made, |made| made.wrapped_data_key.as_bytes()),
        };
        Self {
            key_version: Some(first.map_or(0, |made| made.key_version.get())),
            lease: first.map(|made| Length(made.lease.length())),
            ..Self::of(results, fields)
        }
    }

    pub fn generated_wrapped(results: &'a Results<kms::GeneratedWrappedDataKey>) -> Self {
        let fields = |made| GeneratedItem {
            plaintext: Bytes(&[]),
            wrapped_data_key: bytes(made, |made: &kms::GeneratedWrappedDataKey| made.wrapped_data_key.as_bytes()),
        };
        Self { key_version: Some(first(results).map_or(0, |made| made.key_version.get())), ..Self::of(results, fields) }
    }
}

impl<'a> Batch<GivenItem<'a>> {
    pub fn given(results: &'a Results<kms::GivenDataKey>) -> Self {
        let fields = |given: Option<&'a kms::GivenDataKey>| GivenItem {
            plaintext: bytes(given, |given| given.data_key.expose()),
            key_version: given.map_or(0, |given| given.key_version.get()),
        };
        Self { lease: first(results).map(|given| Length(given.lease.length())), ..Self::of(results, fields) }
    }
}

impl Batch<DestroyedItem> {
    pub fn destroyed(results: &Results<kms::DestroyedDataKey>) -> Self {
        let fields = |destroyed: Option<&kms::DestroyedDataKey>| DestroyedItem {
            destroy_time: destroyed.map(|destroyed| Time(destroyed.destroy_time)),
        };
        let lease_end_time = first(results).and_then(|destroyed| destroyed.lease_end_time).map(Time);
        Self { lease_end_time, ..Self::of(results, fields) }
    }
}

impl From<&ItemError> for ItemFailure {
    fn from(error: &ItemError) -> Self {
        Self {
            code: grpc_code(error.kind()),
            reason: Enum::name("ERROR_REASON_", error.reason().unwrap_or("UNSPECIFIED")),
            message: error.message().to_owned(),
        }
    }
}

/// Returns a kind as the number of gRPC.
fn grpc_code(kind: ErrorKind) -> u32 {
    match kind {
        ErrorKind::InvalidArgument => 3,
        ErrorKind::DeadlineExceeded => 4,
        ErrorKind::NotFound => 5,
        ErrorKind::AlreadyExists => 6,
        ErrorKind::PermissionDenied => 7,
        ErrorKind::ResourceExhausted => 8,
        ErrorKind::FailedPrecondition => 9,
        ErrorKind::Conflict => 10,
        ErrorKind::Unimplemented => 12,
        ErrorKind::Unavailable => 14,
        ErrorKind::Unauthenticated => 16,
        // Internal, and what no server says of an item.
        _ => 13,
    }
}

/// `kms.v1.ListDataKeysResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeys<'a> {
    data_keys: Vec<ManagedDataKey<'a>>,
    next_page_token: &'a str,
}

/// `kms.v1.ManagedDataKey`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManagedDataKey<'a> {
    uid: Bytes<'a>,
    state: Enum,
    key_version: u32,
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    destroy_time: Option<Time>,
}

impl<'a> From<&'a kms::Page<kms::ManagedDataKey>> for DataKeys<'a> {
    fn from(page: &'a kms::Page<kms::ManagedDataKey>) -> Self {
        let data_key = |data_key: &'a kms::ManagedDataKey| ManagedDataKey {
            uid: Bytes(data_key.uid.as_bytes()),
            state: key_state(data_key.state),
            key_version: data_key.key_version.map_or(0, kms::VersionNumber::get),
            create_time: Time(data_key.create_time),
            destroy_time: data_key.destroy_time.map(Time),
        };
        Self { data_keys: page.items.iter().map(data_key).collect(), next_page_token: next(page) }
    }
}

/// `kms.v1.GenerateMacResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedMac<'a> {
    mac: Bytes<'a>,
    key_version: u32,
}

impl<'a> From<&'a kms::GeneratedMac> for GeneratedMac<'a> {
    fn from(made: &'a kms::GeneratedMac) -> Self {
        Self { mac: Bytes(made.mac.as_bytes()), key_version: made.key_version.get() }
    }
}

/// `kms.v1.VerifyMacResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedMac {
    key_version: u32,
    stale: bool,
}

impl From<&kms::VerifiedMac> for VerifiedMac {
    fn from(verified: &kms::VerifiedMac) -> Self {
        Self { key_version: verified.key_version.get(), stale: verified.stale }
    }
}

/// `kms.v1.GetIndexKeyResponse`
#[derive(Serialize)]
pub struct GivenIndexKey<'a> {
    plaintext: Bytes<'a>,
    lease: Length,
}

impl<'a> From<&'a kms::GivenIndexKey> for GivenIndexKey<'a> {
    fn from(given: &'a kms::GivenIndexKey) -> Self {
        Self { plaintext: Bytes(given.index_key.expose()), lease: Length(given.lease.length()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_an_item_may_have_is_the_number_of_its_code() {
        for (kind, code) in [
            (ErrorKind::InvalidArgument, 3),
            (ErrorKind::NotFound, 5),
            (ErrorKind::FailedPrecondition, 9),
            (ErrorKind::Internal, 13),
            (ErrorKind::Unavailable, 14),
        ] {
            assert_eq!(grpc_code(kind), code);
        }
    }
}
