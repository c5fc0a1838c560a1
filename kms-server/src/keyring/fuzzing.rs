//! What fuzzing calls of the store's rows.
//!
//! A record's MAC keeps all bytes out that this service did not write. So each kind of row is also
//! read from a record that verifies, whatever is in it: what is stored is of this release, or refused.

use std::sync::LazyLock;

use prost::Message;

use super::state::{KeyState, TenantState};
use super::view::{KeyPurpose, KeyView, TenantView, VersionView};
use super::{Error, row, row_key};
use crate::crypto::{RecordMacKey, TenantPlace, WrappedKey, record};
use crate::fuzzing::{KEYS, VERSION};
use crate::noun::{TenantName, Uid};
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
    let Some((kind, protobuf)) = data.split_first() else { return };
    let read = READERS[usize::from(*kind) % READERS.len()];
    drop(read(protobuf));
}

/// Seals the bytes as a row in its place, opens it, and reads all that it says.
type Reader = fn(&[u8]) -> Result<(), Error>;

const READERS: [Reader; 11] = [
    |bytes| opened::<rows::Epoch>(row_key::position(), bytes).map(drop),
    |bytes| {
        let cluster: rows::Cluster = opened(row_key::cluster(), bytes)?;
        row::uid(&cluster.uid)?;
        row::version(cluster.secret_version).map(drop)
    },
    |bytes| opened::<rows::AuditSeed>(row_key::audit_seed(VERSION), bytes).map(drop),
    |bytes| opened::<rows::Position>(row_key::position(), bytes).map(drop),
    |bytes| {
        let tenant: rows::Tenant = opened(row_key::tenant(UID), bytes)?;
        TenantState::of_row(tenant.state)?;
        TenantView::of_row(&NAME, &tenant).map(drop)
    },
    |bytes| {
        let name: rows::TenantName = opened(row_key::tenant_name(&NAME), bytes)?;
        let uid = row::uid(&name.uid)?;
        name.tombstone.map(|tombstone| TenantView::of_tombstone(&NAME, uid, &tombstone)).transpose().map(drop)
    },
    |bytes| row::uid(&opened::<rows::KeyName>(row_key::key_name(UID, &KEY_NAME), bytes)?.uid).map(drop),
    |bytes| {
        let key: rows::Key = opened(row_key::key(UID, UID), bytes)?;
        KeyPurpose::of_row(key.purpose)?;
        KeyState::of_row(key.state)?;
        KeyView::of_row(&NAME, &key).map(drop)
    },
    |bytes| {
        let version: rows::KeyVersion = opened(row_key::key_version(UID, UID, VERSION), bytes)?;
        VersionView::of_row(&version)?;
        let wrapped =
            WrappedKey::from_slice(&version.wrapped_kek).ok_or(Error::Damaged("a wrapped key of no length"))?;
        let place = TenantPlace { name: &NAME, uid: UID, version: VERSION };
        drop(KEYS.tenant.unwrap_kek(place, UID, VERSION, &wrapped));
        Ok(())
    },
    |bytes| opened::<rows::Schedule>(row_key::schedule(row_key::ScheduleTarget::Tenant(UID)), bytes).map(drop),
    |bytes| opened::<rows::TenantCounters>(row_key::tenant_counters(UID), bytes).map(drop),
];

fn opened<M: Message + Default>(place: RowKey, protobuf: &[u8]) -> Result<M, Error> {
    let sealed = record::seal(&KEY, VERSION, place.family.name(), &place.key, protobuf);
    row::open(&KEY, &place, &sealed).inspect_err(|error| drop(error.to_string()))
}

/// A key of the store, taken apart.
pub(crate) fn row_key(data: &[u8]) {
    let same = |built: RowKey| assert_eq!(built.key, data, "a key is taken apart as it was built");
    row_key::parse_epoch(data).map(|number| same(row_key::epoch(number)));
    row_key::parse_audit_seed(data).map(|number| same(row_key::audit_seed(number)));
    row_key::parse_tenant(data).map(|tenant| same(row_key::tenant(tenant)));
    row_key::parse_tenant_name(data).map(|name| same(row_key::tenant_name(&name)));
    row_key::parse_key_name(data).map(|(tenant, name)| same(row_key::key_name(tenant, &name)));
    row_key::parse_schedule(data).map(|target| same(row_key::schedule(target)));
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
