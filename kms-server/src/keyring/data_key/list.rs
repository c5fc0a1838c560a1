//! Lists the managed data keys of a key, destroyed ones included. Unwraps none.

use crate::noun::{DekUid, KeyName, KeyVersion, TenantName, UnixMillis};

use super::super::list::Listed;
use super::super::view::KeyPurpose;
use super::super::{Error, Keyring, row, row_key};
use super::DekRow;

/// A managed data key, without the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataKeyView {
    /// Its uid, which tells when it was made.
    pub uid: DekUid,
    /// The version that wraps it; none once it is destroyed.
    pub version: Option<KeyVersion>,
    /// When it was destroyed.
    pub destroyed: Option<UnixMillis>,
}

impl Keyring {
    /// Lists a key's managed data keys, the oldest first, those after `after` only.
    pub async fn data_keys(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        after: Option<DekUid>,
        items_max: usize,
    ) -> Result<Listed<DataKeyView>, Error> {
        let opened = self.open_tenant(tenant).await?;
        let (_, key) = self.read_key(&opened.record_mac, opened.uid, name).await?;
        if KeyPurpose::of_row(key.purpose)? != KeyPurpose::Managed {
            return Err(Error::PurposeNotSupported);
        }
        let key = row::uid(&key.uid)?;
        let prefix = row_key::deks(opened.uid, key);
        let after = after.map(|uid| row_key::dek(opened.uid, key, uid).key);
        let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), items_max).await?;
        let view = |(place, record): &(Vec<u8>, Vec<u8>)| {
            let uid = row_key::parse_dek(place).ok_or(Error::Damaged("a row among data keys that is none"))?;
            Ok(match DekRow::parse(key, record)? {
                DekRow::Living(dek) => DataKeyView { uid, version: Some(dek.version), destroyed: None },
                DekRow::Destroyed(at) => DataKeyView { uid, version: None, destroyed: Some(at) },
            })
        };
        let items = page.rows.iter().map(view).collect::<Result<_, Error>>()?;
        Ok(Listed { items, more: page.more })
    }
}
