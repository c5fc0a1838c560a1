//! What fuzzing calls of the store's rows.
//!
//! A record's MAC keeps all bytes out that this service did not write. So each kind of row is also
//! read from a record that verifies, whatever is in it: what is stored is of this release, or refused.

use std::sync::LazyLock;

use prost::Message;

use super::answered::object_of;
use super::data_key::DekRow;
use super::grant::GrantView;
use super::state::{KeyState, TenantState};
use super::terms::{Etag, RequestId};
use super::view::{KeyPurpose, KeyView, TenantView, VersionView};
use super::{Error, row, row_key};
use crate::crypto::{RecordMacKey, TenantPlace, WrappedKey, record};
use crate::fuzzing::{KEYS, VERSION};
use crate::noun::{DekUid, KeyName, TenantName, Uid};
use crate::rows;
use crate::store::RowKey;

/// A row: a byte that says of which kind it is taken for, then its protobuf.
pub(crate) fn row(data: &[u8]) {
    // As it is, it is a record that lies in the store.
    if let Ok(version) = record::key_version(data) {
        assert_eq!(data[1..4], version.to_u24());
    }
    drop(row::peek::<rows::Tenant>(data));
    assert!(row::open::<rows::Tenant>(&KEY, &row_key::tenant(UID), data).is_err(), "its MAC was forged");
    // Rows of data keys have no MAC: what they say is believed once it is unwrapped.
    if let Ok(DekRow::Living(dek)) = DekRow::parse(UID, data) {
        assert_eq!(dek.to_bytes(), data);
    }
    let Some((kind, protobuf)) = data.split_first() else { return };
    let (_, read) = READERS[usize::from(*kind) % READERS.len()];
    drop(read(protobuf));
}

/// Seals the bytes as a row in its place, opens it, and reads all that it says.
type Reader = fn(&[u8]) -> Result<(), Error>;

/// Every kind of row, by its message. **Invariant:** none is missing; the test is `every_kind_of_row_is_fuzzed`.
pub(crate) const READERS: [(&str, Reader); 15] = [
    ("Epoch", |bytes| opened::<rows::Epoch>(row_key::position(), bytes).map(drop)),
    ("Cluster", |bytes| {
        let cluster: rows::Cluster = opened(row_key::cluster(), bytes)?;
        row::uid(&cluster.uid)?;
        row::version(cluster.secret_version).map(drop)
    }),
    ("AuditSeed", |bytes| opened::<rows::AuditSeed>(row_key::audit_seed(VERSION), bytes).map(drop)),
    ("Position", |bytes| opened::<rows::Position>(row_key::position(), bytes).map(drop)),
    ("Tenant", |bytes| {
        let tenant: rows::Tenant = opened(row_key::tenant(UID), bytes)?;
        TenantState::of_row(tenant.state)?;
        TenantView::of_row(&NAME, &tenant, Etag::of(bytes)).map(drop)
    }),
    ("TenantName", |bytes| {
        let name: rows::TenantName = opened(row_key::tenant_name(&NAME), bytes)?;
        let (uid, etag) = (row::uid(&name.uid)?, Etag::of(bytes));
        name.tombstone.map(|left| TenantView::of_tombstone(&NAME, uid, &left, etag)).transpose().map(drop)
    }),
    ("KeyName", |bytes| row::uid(&opened::<rows::KeyName>(row_key::key_name(UID, &KEY_NAME), bytes)?.uid).map(drop)),
    ("Key", |bytes| {
        let key: rows::Key = opened(row_key::key(UID, UID), bytes)?;
        KeyPurpose::of_row(key.purpose)?;
        KeyState::of_row(key.state)?;
        KeyView::of_row(&NAME, &key, Etag::of(bytes)).map(drop)
    }),
    ("KeyVersion", |bytes| {
        let version: rows::KeyVersion = opened(row_key::key_version(UID, UID, VERSION), bytes)?;
        VersionView::of_row(&version, Etag::of(bytes))?;
        let wrapped =
            WrappedKey::from_slice(&version.wrapped_kek).ok_or(Error::Damaged("a wrapped key of no length"))?;
        let place = TenantPlace { name: &NAME, uid: UID, version: VERSION };
        drop(KEYS.tenant.unwrap_kek(place, UID, VERSION, &wrapped));
        Ok(())
    }),
    ("Schedule", |bytes| {
        opened::<rows::Schedule>(row_key::schedule(row_key::ScheduleTarget::Tenant(UID)), bytes).map(drop)
    }),
    ("TenantCounters", |bytes| opened::<rows::TenantCounters>(row_key::tenant_counters(UID), bytes).map(drop)),
    ("DekCount", |bytes| opened::<rows::DekCount>(row_key::dek_count(UID, UID, VERSION), bytes).map(drop)),
    ("RewrapJob", |bytes| {
        let job: rows::RewrapJob = opened(row_key::rewrap_job(UID, UID), bytes)?;
        drop((job.tenant.parse::<TenantName>(), job.key.parse::<KeyName>(), DekUid::from_slice(&job.cursor)));
        Ok(())
    }),
    ("Grant", |bytes| {
        let grant: rows::Grant = opened(row_key::grant(Some(UID), UID), bytes)?;
        GrantView::of_row(UID, &grant, Etag::of(bytes), 0).map(drop)
    }),
    ("Answer", |bytes| object_of(&opened(row_key::answer(7, &[7; 16]), bytes)?).map(drop)),
];

fn opened<M: Message + Default>(place: RowKey, protobuf: &[u8]) -> Result<M, Error> {
    let sealed = record::seal(&KEY, VERSION, place.family.name(), &place.key, protobuf);
    row::open(&KEY, &place, &sealed).inspect_err(|error| drop(error.to_string()))
}

/// The id of a change and the etag of an object, each of which is written in one way only.
pub(crate) fn terms(text: &str) {
    if let Ok(id) = text.parse::<RequestId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(etag) = text.parse::<Etag>() {
        assert_eq!(etag.to_string(), text);
    }
}

/// A key of the store, taken apart.
pub(crate) fn row_key(data: &[u8]) {
    let same = |built: RowKey| assert_eq!(built.key, data, "a key is taken apart as it was built");
    if let Some(number) = row_key::parse_epoch(data) {
        same(row_key::epoch(number));
    }
    if let Some(number) = row_key::parse_audit_seed(data) {
        same(row_key::audit_seed(number));
    }
    if let Some(tenant) = row_key::parse_tenant(data) {
        same(row_key::tenant(tenant));
    }
    if let Some(name) = row_key::parse_tenant_name(data) {
        same(row_key::tenant_name(&name));
    }
    if let Some((tenant, name)) = row_key::parse_key_name(data) {
        same(row_key::key_name(tenant, &name));
    }
    if let Some(target) = row_key::parse_schedule(data) {
        same(row_key::schedule(target));
    }
    if let Some(day) = row_key::parse_answer_day(data) {
        assert!(data.starts_with(&row_key::answers_of_day(day).key));
    }
    match row_key::parse_key_row(data) {
        Some(row_key::KeyRow::Key(tenant, key)) => same(row_key::key(tenant, key)),
        Some(row_key::KeyRow::Version(tenant, key, version)) => same(row_key::key_version(tenant, key, version)),
        None => {}
    }
}

const UID: Uid = Uid::from_bytes([0xaa; 16]);
static NAME: LazyLock<TenantName> = LazyLock::new(|| "acme".parse().expect("it is a name"));
static KEY_NAME: LazyLock<crate::noun::KeyName> = LazyLock::new(|| "app".parse().expect("it is a name"));
static KEY: LazyLock<RecordMacKey> = LazyLock::new(|| KEYS.tenant.record_mac_key().expect("there is room for one key"));
