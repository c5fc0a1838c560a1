//! Lists tenants, keys and versions, a page at a time, destroyed ones included.

use std::collections::HashMap;

use crate::crypto::RecordMacKey;
use crate::noun::{KeyName, KeyVersion, TenantName, Uid};
use crate::rows;
use crate::store::{PAGE_ROWS_MAX, RowKey};

use super::load::OpenTenant;
use super::row_key::KeyRow;
use super::terms::Etag;
use super::view::{KeyPurpose, KeyView, TenantView, VersionView};
use super::{Error, Keyring, row, row_key};

/// A page of a listing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

impl Keyring {
    /// Hands out every row under a prefix, a page of the store at a time.
    pub(super) async fn each_row(
        &self,
        prefix: &RowKey,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), PAGE_ROWS_MAX).await?;
            for (place, record) in &page.rows {
                each(place, record)?;
            }
            match page.rows.last() {
                Some((place, _)) if page.more => after = Some(place.clone()),
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// Lists tenants in the byte order of their names, those after `after` only.
    pub async fn tenants(&self, after: Option<&TenantName>, items_max: usize) -> Result<Listed<TenantView>, Error> {
        let prefix = row_key::tenant_names();
        let after = after.map(|name| row_key::tenant_name(name).key);
        let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), items_max).await?;
        let mut items = Vec::with_capacity(page.rows.len());
        for (place, _) in page.rows {
            let name =
                row_key::parse_tenant_name(&place).ok_or(Error::Damaged("a row among tenants' names that is none"))?;
            items.push(self.tenant(&name).await?);
        }
        Ok(Listed { items, more: page.more })
    }

    /// Returns a key.
    pub async fn key(&self, tenant: &TenantName, name: &KeyName) -> Result<KeyView, Error> {
        let opened = self.open_tenant(tenant).await?;
        let (record, key) = self.read_key(&opened.record_mac, opened.uid, name).await?;
        KeyView::of_row(tenant, &key, Etag::of(&record))
    }

    /// Lists a tenant's keys in the byte order of their names, those after `after` only.
    pub async fn keys(
        &self,
        tenant: &TenantName,
        after: Option<&KeyName>,
        items_max: usize,
    ) -> Result<Listed<KeyView>, Error> {
        let OpenTenant { uid, record_mac, .. } = self.open_tenant(tenant).await?;
        let prefix = row_key::key_names(uid);
        let after = after.map(|name| row_key::key_name(uid, name).key);
        let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), items_max).await?;
        let mut items = Vec::with_capacity(page.rows.len());
        for (place, _) in page.rows {
            let (_, name) =
                row_key::parse_key_name(&place).ok_or(Error::Damaged("a row among keys' names that is none"))?;
            let (record, key) = self.read_key(&record_mac, uid, &name).await?;
            items.push(KeyView::of_row(tenant, &key, Etag::of(&record))?);
        }
        Ok(Listed { items, more: page.more })
    }

    /// Lists a key's versions, oldest first, those after `after` only. Those of a key of purpose MANAGED
    /// say how many data keys they wrap.
    pub async fn versions(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        after: Option<KeyVersion>,
        items_max: usize,
    ) -> Result<Listed<VersionView>, Error> {
        let opened = self.open_tenant(tenant).await?;
        let (_, key) = self.read_key(&opened.record_mac, opened.uid, name).await?;
        let is_managed = KeyPurpose::of_row(key.purpose)? == KeyPurpose::Managed;
        let key = row::uid(&key.uid)?;
        let prefix = row_key::key_versions(opened.uid, key);
        let after = after.map(|version| row_key::key_version(opened.uid, key, version).key);
        let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), items_max).await?;
        let items = page
            .rows
            .iter()
            .map(|(place, record)| version_of(&opened.record_mac, opened.uid, key, place, record))
            .collect::<Result<Vec<_>, Error>>()?;
        let mut listed = Listed { items, more: page.more };
        if is_managed {
            let counts: HashMap<_, _> = self.deks_of_key(opened.uid, key).await?.into_iter().collect();
            for version in &mut listed.items {
                version.data_keys = Some(counts.get(&version.version).copied().unwrap_or(0));
            }
        }
        Ok(listed)
    }
}

fn version_of(mac: &RecordMacKey, tenant: Uid, key: Uid, place: &[u8], record: &[u8]) -> Result<VersionView, Error> {
    let Some(KeyRow::Version(_, _, number)) = row_key::parse_key_row(place) else {
        return Err(Error::Damaged("a row among a key's versions that is none"));
    };
    let row: rows::KeyVersion = row::open(mac, &row_key::key_version(tenant, key, number), record)?;
    VersionView::of_row(&row, Etag::of(record))
}
