//! What is told of tenants, keys and versions, as wire messages.

use kms_proto::v1;

use crate::keyring::{DataKeyView, KeyPurpose, KeyState, KeyView, TenantState, TenantView, VersionView};
use crate::noun::{KeyVersion, UnixMillis};

pub(super) fn timestamp(ms: UnixMillis) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

pub(super) fn duration(ms: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

pub(super) fn tenant(view: &TenantView) -> v1::Tenant {
    v1::Tenant {
        name: format!("tenants/{}", view.name),
        uid: view.uid.to_string(),
        state: tenant_state(view.state).into(),
        create_time: Some(timestamp(view.created)),
        destroy_time: view.destroy.map(timestamp),
        fence_time: view.fenced.map(timestamp),
        etag: view.etag.to_string(),
        data_key_lease: view.lease_ms.map(duration),
    }
}

fn tenant_state(state: TenantState) -> v1::TenantState {
    match state {
        TenantState::Active => v1::TenantState::Active,
        TenantState::Suspended => v1::TenantState::Suspended,
        TenantState::PendingDestruction => v1::TenantState::PendingDestruction,
        TenantState::Fenced => v1::TenantState::Fenced,
        TenantState::Purged => v1::TenantState::Purged,
        TenantState::Unrecoverable => v1::TenantState::Unrecoverable,
    }
}

pub(super) fn key(view: &KeyView) -> v1::Key {
    v1::Key {
        name: key_name(view),
        uid: view.uid.to_string(),
        purpose: purpose(view.purpose).into(),
        state: key_state(view.state).into(),
        primary_version: view.primary.get(),
        labels: view.labels.clone(),
        create_time: Some(timestamp(view.created)),
        update_time: Some(timestamp(view.updated)),
        destroy_time: view.destroy.map(timestamp),
        etag: view.etag.to_string(),
    }
}

fn key_name(view: &KeyView) -> String {
    format!("tenants/{}/keys/{}", view.tenant, view.name)
}

fn purpose(purpose: KeyPurpose) -> v1::KeyPurpose {
    match purpose {
        KeyPurpose::Encrypt => v1::KeyPurpose::Encrypt,
        KeyPurpose::Managed => v1::KeyPurpose::Managed,
        KeyPurpose::Mac => v1::KeyPurpose::Mac,
    }
}

fn key_state(state: KeyState) -> v1::KeyState {
    match state {
        KeyState::Enabled => v1::KeyState::Enabled,
        KeyState::Disabled => v1::KeyState::Disabled,
        KeyState::PendingDestruction => v1::KeyState::PendingDestruction,
        KeyState::Destroyed => v1::KeyState::Destroyed,
    }
}

pub(super) fn version(key: &str, view: &VersionView) -> v1::KeyVersion {
    v1::KeyVersion {
        name: format!("{key}/versions/{}", view.version),
        version: view.version.get(),
        state: key_state(view.state).into(),
        create_time: Some(timestamp(view.created)),
        destroy_time: view.destroy.map(timestamp),
        etag: view.etag.to_string(),
        data_key_count: view.data_keys,
    }
}

pub(super) fn version_of(key: &KeyView, view: &VersionView) -> v1::KeyVersion {
    version(&key_name(key), view)
}

pub(super) fn data_key(view: &DataKeyView) -> v1::ManagedDataKey {
    let state = if view.destroyed.is_some() { v1::KeyState::Destroyed } else { v1::KeyState::Enabled };
    v1::ManagedDataKey {
        uid: view.uid.as_bytes().to_vec(),
        state: state.into(),
        key_version: view.version.map_or(0, KeyVersion::get),
        create_time: Some(timestamp(view.uid.created_ms())),
        destroy_time: view.destroyed.map(timestamp),
    }
}
