//! The key of a blind index.

use kms_proto::v1;

use crate::crypto::stub;
use crate::lease::{Lease, Leased};
use crate::wire::required;
use crate::{Client, Error, IndexKey, IndexRef};

/// Answer of [`Client::get_index_key`].
#[derive(Debug)]
#[non_exhaustive]
pub struct GivenIndexKey {
    /// The key of the index. Use it, then drop it.
    pub index_key: IndexKey,
    /// How long it may be held.
    pub lease: Lease,
}

impl GivenIndexKey {
    pub(crate) fn from_wire(leased: Leased<v1::GetIndexKeyResponse>) -> Result<Self, Error> {
        let (answer, began) = leased.into_parts();
        let index_key = required(IndexKey::take(answer.plaintext), "plaintext")?;
        Ok(Self { index_key, lease: began.lease(answer.lease)? })
    }
}

impl Client {
    /// Gives out the key of a blind index: the same for the tenant's whole life, and gone with it. An index is a name only and
    /// need not be created. It takes a permission for just this index, since the key tells equal values apart.
    pub async fn get_index_key(&self, index: &IndexRef) -> Result<GivenIndexKey, Error> {
        let request = v1::GetIndexKeyRequest { index: index.to_string() };
        let send = |c, r| async move { stub(c).get_index_key(r).await };
        GivenIndexKey::from_wire(self.call_leased("GetIndexKey", request, send).await?)
    }
}
