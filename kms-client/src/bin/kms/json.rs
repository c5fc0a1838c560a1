//! The API's messages in their proto3 JSON form: names in lowerCamelCase, enums by name, 64-bit numbers as strings,
//! bytes in base64, times in RFC 3339. Fields without presence are always printed; messages and times that are unset
//! are left out. Scripts rely on it, so it changes only as the API does.

mod access;
mod data_key;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use kms_client as kms;
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

pub use access::*;
pub use data_key::*;

/// `kms.v1.Tenant`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant<'a> {
    name: String,
    uid: &'a str,
    state: Enum,
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    destroy_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence_time: Option<Time>,
    etag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_key_lease: Option<Length>,
}

/// An object that a call took out of use, with the end of its leases beside its fields
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed<T> {
    #[serde(flatten)]
    object: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_end_time: Option<Time>,
}

impl<T> Changed<T> {
    pub fn new(object: T, lease_end_time: Option<SystemTime>) -> Self {
        Self { object, lease_end_time: lease_end_time.map(Time) }
    }
}

impl<'a> From<&'a kms::Tenant> for Tenant<'a> {
    fn from(tenant: &'a kms::Tenant) -> Self {
        Self {
            name: tenant.name.to_string(),
            uid: &tenant.uid,
            state: match tenant.state {
                kms::TenantState::Unknown(number) => Enum::Number(number),
                state => Enum::name("TENANT_STATE_", state.as_str()),
            },
            create_time: Time(tenant.create_time),
            destroy_time: tenant.destroy_time.map(Time),
            fence_time: tenant.fence_time.map(Time),
            etag: etag(&tenant.etag),
            data_key_lease: tenant.data_key_lease.map(Length),
        }
    }
}

/// `kms.v1.Key`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Key<'a> {
    name: String,
    uid: &'a str,
    purpose: Enum,
    state: Enum,
    primary_version: u32,
    labels: &'a BTreeMap<String, String>,
    create_time: Time,
    update_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    destroy_time: Option<Time>,
    etag: &'a str,
}

impl<'a> From<&'a kms::Key> for Key<'a> {
    fn from(key: &'a kms::Key) -> Self {
        Self {
            name: key.name.to_string(),
            uid: &key.uid,
            purpose: match key.purpose {
                kms::KeyPurpose::Unknown(number) => Enum::Number(number),
                purpose => Enum::name("KEY_PURPOSE_", purpose.as_str()),
            },
            state: key_state(key.state),
            primary_version: key.primary_version.get(),
            labels: &key.labels,
            create_time: Time(key.create_time),
            update_time: Time(key.update_time),
            destroy_time: key.destroy_time.map(Time),
            etag: etag(&key.etag),
        }
    }
}

/// `kms.v1.KeyVersion`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyVersion<'a> {
    name: String,
    version: u32,
    state: Enum,
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    destroy_time: Option<Time>,
    etag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_key_count: Option<Number64>,
}

impl<'a> From<&'a kms::KeyVersion> for KeyVersion<'a> {
    fn from(version: &'a kms::KeyVersion) -> Self {
        Self {
            name: format!("{}/versions/{}", version.key, version.version),
            version: version.version.get(),
            state: key_state(version.state),
            create_time: Time(version.create_time),
            destroy_time: version.destroy_time.map(Time),
            etag: etag(&version.etag),
            data_key_count: version.data_key_count.map(Number64),
        }
    }
}

/// Empty in an answer that stored nothing, as in the API.
fn etag(etag: &Option<kms::Etag>) -> &str {
    etag.as_ref().map(kms::Etag::as_str).unwrap_or_default()
}

fn key_state(state: kms::KeyState) -> Enum {
    match state {
        kms::KeyState::Unknown(number) => Enum::Number(number),
        state => Enum::name("KEY_STATE_", state.as_str()),
    }
}

/// `kms.v1.ListTenantsResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenants<'a> {
    tenants: Vec<Tenant<'a>>,
    next_page_token: &'a str,
}

impl<'a> From<&'a kms::Page<kms::Tenant>> for Tenants<'a> {
    fn from(page: &'a kms::Page<kms::Tenant>) -> Self {
        Self { tenants: page.items.iter().map(Into::into).collect(), next_page_token: next(page) }
    }
}

/// `kms.v1.ListKeysResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys<'a> {
    keys: Vec<Key<'a>>,
    next_page_token: &'a str,
}

impl<'a> From<&'a kms::Page<kms::Key>> for Keys<'a> {
    fn from(page: &'a kms::Page<kms::Key>) -> Self {
        Self { keys: page.items.iter().map(Into::into).collect(), next_page_token: next(page) }
    }
}

/// `kms.v1.ListKeyVersionsResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyVersions<'a> {
    key_versions: Vec<KeyVersion<'a>>,
    next_page_token: &'a str,
}

impl<'a> From<&'a kms::Page<kms::KeyVersion>> for KeyVersions<'a> {
    fn from(page: &'a kms::Page<kms::KeyVersion>) -> Self {
        Self { key_versions: page.items.iter().map(Into::into).collect(), next_page_token: next(page) }
    }
}

fn next<T>(page: &kms::Page<T>) -> &str {
    page.next.as_ref().map(kms::PageToken::as_str).unwrap_or_default()
}

/// `kms.v1.EncryptResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Encrypted<'a> {
    pub ciphertext: Bytes<'a>,
    pub key_version: u32,
}

/// `kms.v1.DecryptResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decrypted<'a> {
    pub plaintext: Bytes<'a>,
    pub key_version: u32,
    pub stale: bool,
}

/// `kms.v1.ReEncryptResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReEncrypted<'a> {
    pub ciphertext: Bytes<'a>,
    pub key_version: u32,
    pub source_key_version: u32,
}

/// Answers that say nothing, such as `kms.v1.LockResponse`
#[derive(Serialize)]
pub struct Nothing {}

/// `kms.v1.ExportKeystoreResponse`, but for what is in the files
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeystoreExport<'a> {
    pub serial: u32,
    pub files: &'a [&'a str],
}

/// `kms.v1.GetStatusResponse`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status<'a> {
    version: &'a str,
    cluster_uid: &'a str,
    node: &'a str,
    state: Enum,
    start_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<EpochStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<BackendStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_log: Option<AuditLogStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreStatus<'a>>,
    caches: Vec<CacheStatus<'a>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EpochStatus<'a> {
    number: u32,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<Time>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackendStatus<'a> {
    kind: &'a str,
    detail: &'a str,
    assurance: &'a str,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_time: Option<Time>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStatus<'a> {
    protection: &'a str,
    slots_used: Number64,
    slots_max: Number64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditLogStatus<'a> {
    origin: &'a str,
    size: Number64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreStatus<'a> {
    kind: &'a str,
    seq: Number64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheStatus<'a> {
    name: &'a str,
    entries: Number64,
    entries_max: Number64,
}

impl<'a> From<&'a kms::Status> for Status<'a> {
    fn from(status: &'a kms::Status) -> Self {
        Self {
            version: &status.version,
            cluster_uid: &status.cluster_uid,
            node: &status.node,
            state: match status.state {
                kms::ServerState::Unknown(number) => Enum::Number(number),
                state => Enum::name("SERVER_STATE_", state.as_str()),
            },
            start_time: Time(status.start_time),
            epoch: status.epoch.as_ref().map(|epoch| EpochStatus {
                number: epoch.number,
                uid: &epoch.uid,
                create_time: epoch.create_time.map(Time),
            }),
            backend: status.backend.as_ref().map(|backend| BackendStatus {
                kind: &backend.kind,
                detail: &backend.detail,
                assurance: &backend.assurance,
                reachable: backend.reachable,
                probe_time: backend.probe_time.map(Time),
            }),
            memory: status.memory.as_ref().map(|memory| MemoryStatus {
                protection: &memory.protection,
                slots_used: Number64(memory.slots_used),
                slots_max: Number64(memory.slots_max),
            }),
            audit_log: status
                .audit_log
                .as_ref()
                .map(|log| AuditLogStatus { origin: &log.origin, size: Number64(log.size) }),
            store: status.store.as_ref().map(|store| StoreStatus { kind: &store.kind, seq: Number64(store.seq) }),
            caches: status
                .caches
                .iter()
                .map(|cache| CacheStatus {
                    name: &cache.name,
                    entries: Number64(cache.entries),
                    entries_max: Number64(cache.entries_max),
                })
                .collect(),
            warnings: &status.warnings,
        }
    }
}

/// Bytes, in base64. May be secret, so what is made of them is wiped.
pub struct Bytes<'a>(pub &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(self.0)))
    }
}

/// A 64-bit number, as a string: JSON's numbers lose digits beyond 2^53 in many languages.
struct Number64(u64);

impl Serialize for Number64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An enum's value, by its name in the API; one that is not known, by its number.
enum Enum {
    Name(String),
    Number(i32),
}

impl Enum {
    fn name(prefix: &str, name: &str) -> Self {
        Self::Name([prefix, name].concat())
    }
}

impl Serialize for Enum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_i32(*number),
        }
    }
}

/// A time, in RFC 3339 with 0, 3, 6 or 9 digits of the second.
struct Time(SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::try_from(self.0).map_err(serde::ser::Error::custom)?;
        let nanos = time.subsec_nanosecond();
        let digits = match nanos {
            0 => 0,
            _ if nanos % 1_000_000 == 0 => 3,
            _ if nanos % 1_000 == 0 => 6,
            _ => 9,
        };
        serializer.serialize_str(&DateTimePrinter::new().precision(Some(digits)).timestamp_to_string(&time))
    }
}

/// A length of time, in seconds with 0, 3, 6 or 9 digits behind the point.
struct Length(Duration);

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        match nanos {
            0 => serializer.collect_str(&format_args!("{seconds}s")),
            _ if nanos % 1_000_000 == 0 => serializer.collect_str(&format_args!("{seconds}.{:03}s", nanos / 1_000_000)),
            _ if nanos % 1_000 == 0 => serializer.collect_str(&format_args!("{seconds}.{:06}s", nanos / 1_000)),
            _ => serializer.collect_str(&format_args!("{seconds}.{nanos:09}s")),
        }
    }
}

/// Returns a time for a table: RFC 3339, to the second.
pub fn time_text(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => DateTimePrinter::new().precision(Some(0)).timestamp_to_string(&time),
        // The library takes no such time from a server.
        Err(_) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // Whole messages are compared in tests/command, which gets them from a service.

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn times_have_0_3_6_or_9_digits_of_the_second_and_are_in_utc() {
        let at = |nanos| Time(SystemTime::UNIX_EPOCH + Duration::new(1_767_323_045, nanos));
        assert_eq!(json(at(0)), r#""2026-01-02T03:04:05Z""#);
        assert_eq!(json(at(500_000_000)), r#""2026-01-02T03:04:05.500Z""#);
        assert_eq!(json(at(1_000)), r#""2026-01-02T03:04:05.000001Z""#);
        assert_eq!(json(at(1)), r#""2026-01-02T03:04:05.000000001Z""#);
        assert_eq!(json(Time(SystemTime::UNIX_EPOCH - Duration::from_millis(1))), r#""1969-12-31T23:59:59.999Z""#);
        assert_eq!(time_text(at(999_000_000).0), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn lengths_of_time_are_in_seconds() {
        for (length, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(300), "300s"),
            (Duration::from_millis(1_500), "1.500s"),
            (Duration::from_micros(1), "0.000001s"),
            (Duration::from_nanos(1), "0.000000001s"),
        ] {
            assert_eq!(json(Length(length)), format!("{text:?}"));
        }
    }

    #[test]
    fn large_numbers_are_strings_and_unknown_enums_are_numbers() {
        assert_eq!(json(Number64(u64::MAX)), r#""18446744073709551615""#);
        assert_eq!(json(Enum::name("KEY_STATE_", "ENABLED")), r#""KEY_STATE_ENABLED""#);
        assert_eq!(json(Enum::Number(9)), "9");
    }

    #[test]
    fn bytes_are_in_base64_with_padding() {
        assert_eq!(json(Bytes(&[0xfb, 0xff])), r#""+/8=""#);
        assert_eq!(json(Bytes(b"")), r#""""#);
    }

    #[test]
    fn answers_of_the_data_plane_keep_their_form() {
        assert_eq!(
            json(Encrypted { ciphertext: Bytes(&[0x92, 0x6b, 0x35]), key_version: 1 }),
            r#"{"ciphertext":"kms1","keyVersion":1}"#
        );
        assert_eq!(
            json(Decrypted { plaintext: Bytes(b"hi"), key_version: 2, stale: false }),
            r#"{"plaintext":"aGk=","keyVersion":2,"stale":false}"#
        );
        assert_eq!(
            json(ReEncrypted { ciphertext: Bytes(&[0x92, 0x6b, 0x35]), key_version: 3, source_key_version: 2 }),
            r#"{"ciphertext":"kms1","keyVersion":3,"sourceKeyVersion":2}"#
        );
    }
}
