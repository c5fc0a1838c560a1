//! What may be told of tenants, keys and versions: rows without anything wrapped.

use std::collections::BTreeMap;

use crate::noun::{KeyName, KeyVersion, TenantName, Uid, UnixMillis};
use crate::rows;

use super::lease::lease_ms;
use super::state::{KeyState, TenantState};
use super::terms::Etag;
use super::{Error, row};

/// A tenant, or what is left of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantView {
    /// Its name.
    pub name: TenantName,
    /// Its uid.
    pub uid: Uid,
    /// Its state.
    pub state: TenantState,
    /// When it was created.
    pub created: UnixMillis,
    /// When it will be destroyed, while that is scheduled.
    pub destroy: Option<UnixMillis>,
    /// When it was fenced.
    pub fenced: Option<UnixMillis>,
    /// How long its data keys may be held, in milliseconds, while it lives.
    pub lease_ms: Option<u64>,
    /// Its state among all it had.
    pub etag: Etag,
}

impl TenantView {
    pub(super) fn of_row(name: &TenantName, tenant: &rows::Tenant, etag: Etag) -> Result<Self, Error> {
        Ok(Self {
            name: name.clone(),
            uid: row::uid(&tenant.uid)?,
            state: TenantState::of_row(tenant.state)?,
            created: tenant.created_ms,
            destroy: tenant.destroy_ms,
            fenced: None,
            lease_ms: Some(lease_ms(tenant)),
            etag,
        })
    }

    pub(super) fn of_tombstone(
        name: &TenantName,
        uid: Uid,
        tombstone: &rows::Tombstone,
        etag: Etag,
    ) -> Result<Self, Error> {
        Ok(Self {
            name: name.clone(),
            uid,
            state: TenantState::of_row(tombstone.state)?,
            created: tombstone.created_ms,
            destroy: None,
            fenced: Some(tombstone.fenced_ms),
            lease_ms: None,
            etag,
        })
    }
}

/// What a key may be used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyPurpose {
    /// Seals data and wraps data keys that callers keep.
    Encrypt,
    /// Wraps data keys that the service keeps.
    Managed,
    /// Makes and verifies MACs.
    Mac,
}

impl KeyPurpose {
    pub(super) fn to_row(self) -> i32 {
        match self {
            KeyPurpose::Encrypt => rows::KeyPurpose::Encrypt.into(),
            KeyPurpose::Managed => rows::KeyPurpose::Managed.into(),
            KeyPurpose::Mac => rows::KeyPurpose::Mac.into(),
        }
    }

    pub(super) fn of_row(purpose: i32) -> Result<Self, Error> {
        match rows::KeyPurpose::try_from(purpose) {
            Ok(rows::KeyPurpose::Encrypt) => Ok(KeyPurpose::Encrypt),
            Ok(rows::KeyPurpose::Managed) => Ok(KeyPurpose::Managed),
            Ok(rows::KeyPurpose::Mac) => Ok(KeyPurpose::Mac),
            Ok(rows::KeyPurpose::Unspecified) | Err(_) => Err(Error::Damaged("a purpose that does not exist")),
        }
    }
}

/// Labels of a key, for inventory.
pub type Labels = BTreeMap<String, String>;

/// A key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyView {
    /// Its tenant's name.
    pub tenant: TenantName,
    /// Its name.
    pub name: KeyName,
    /// Its uid.
    pub uid: Uid,
    /// What it may be used for.
    pub purpose: KeyPurpose,
    /// Its state.
    pub state: KeyState,
    /// The version that seals.
    pub primary: KeyVersion,
    /// Its labels.
    pub labels: Labels,
    /// When it was created.
    pub created: UnixMillis,
    /// When it was changed last.
    pub updated: UnixMillis,
    /// When it will be destroyed, while that is scheduled.
    pub destroy: Option<UnixMillis>,
    /// Its state among all it had; versions have their own.
    pub etag: Etag,
}

impl KeyView {
    pub(super) fn of_row(tenant: &TenantName, key: &rows::Key, etag: Etag) -> Result<Self, Error> {
        Ok(Self {
            tenant: tenant.clone(),
            name: key.name.parse().map_err(|_| Error::Damaged("a key name that is none"))?,
            uid: row::uid(&key.uid)?,
            purpose: KeyPurpose::of_row(key.purpose)?,
            state: KeyState::of_row(key.state)?,
            primary: row::version(key.primary)?,
            labels: key.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect(),
            created: key.created_ms,
            updated: key.updated_ms,
            destroy: key.destroy_ms,
            etag,
        })
    }
}

/// A version of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VersionView {
    /// Its number.
    pub version: KeyVersion,
    /// Its state.
    pub state: KeyState,
    /// When it was created.
    pub created: UnixMillis,
    /// When it will be destroyed, while that is scheduled.
    pub destroy: Option<UnixMillis>,
    /// How many managed data keys it wraps; known in listings of keys of purpose MANAGED.
    pub data_keys: Option<u64>,
    /// Its state among all it had.
    pub etag: Etag,
}

impl VersionView {
    pub(super) fn of_row(version: &rows::KeyVersion, etag: Etag) -> Result<Self, Error> {
        Ok(Self {
            version: row::version(version.version)?,
            state: KeyState::of_row(version.state)?,
            created: version.created_ms,
            destroy: version.destroy_ms,
            data_keys: None,
            etag,
        })
    }
}
