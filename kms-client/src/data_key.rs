//! Managed data keys, which the service keeps wrapped under a uid, one and many at a time.

use std::fmt;
use std::future::IntoFuture;
use std::str::FromStr;
use std::time::SystemTime;

use kms_proto::v1;

use crate::batch::{BatchItem, Filling, ItemError, NewDataKey, read_all};
use crate::change::{Answer, Said};
use crate::crypto::stub;
use crate::lease::{Began, Lease, Leased};
use crate::page::collect;
use crate::wire::{required, time, time_or_none, version};
use crate::{
    Client, Context, Creation, DataKey, Destruction, Error, KeyRef, KeyState, Page, PageRequest, PageToken, RequestId,
    VersionNumber,
};

/// What a managed data key is found by: 16 bytes, never used again, to be kept beside the data. Not secret.
///
/// As text it is 32 hexadecimal digits. Uids grow with the time at which they were made, so that as keys of a table they lie
/// side by side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyUid([u8; UID_BYTES]);

impl DataKeyUid {
    /// Returns the bytes, to be stored.
    pub fn as_bytes(&self) -> &[u8; UID_BYTES] {
        &self.0
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, Error> {
        bytes.try_into().map(Self).map_err(|_| Error::malformed("uid"))
    }
}

impl From<[u8; UID_BYTES]> for DataKeyUid {
    fn from(bytes: [u8; UID_BYTES]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for DataKeyUid {
    type Error = Error;

    fn try_from(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |_| Error::invalid(format!("a data key's uid has {UID_BYTES} bytes, not {}", bytes.len()));
        bytes.try_into().map(Self).map_err(wrong)
    }
}

impl From<DataKeyUid> for [u8; UID_BYTES] {
    fn from(uid: DataKeyUid) -> Self {
        uid.0
    }
}

/// Takes 32 hexadecimal digits, small or capital.
impl FromStr for DataKeyUid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_hex = text.len() == 2 * UID_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if is_hex => Ok(Self(number.to_be_bytes())),
            _ => Err(Error::invalid(format!("{text:?} is no uid of a data key: it has 32 hexadecimal digits"))),
        }
    }
}

impl fmt::Display for DataKeyUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for DataKeyUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeyUid({self})")
    }
}

const UID_BYTES: usize = 16;

/// Answer of [`Client::create_data_key`].
#[derive(Debug)]
#[non_exhaustive]
pub struct CreatedDataKey {
    /// What it is found by, to be kept beside the data.
    pub uid: DataKeyUid,
    /// The data key in the clear. Use it, then drop it.
    pub data_key: DataKey,
    /// The version that wraps it now. Rotating the key changes that, and nothing else.
    pub key_version: VersionNumber,
    /// How long the data key may be held.
    pub lease: Lease,
}

/// Answer of [`Client::create_data_key_uid`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedDataKeyUid {
    /// What it is found by, to be kept beside the data.
    pub uid: DataKeyUid,
    /// The version that wraps it now.
    pub key_version: VersionNumber,
}

/// Answer of [`Client::get_data_key`].
#[derive(Debug)]
#[non_exhaustive]
pub struct GivenDataKey {
    /// The data key in the clear. Use it, then drop it.
    pub data_key: DataKey,
    /// The version that wraps it.
    pub key_version: VersionNumber,
    /// How long the data key may be held.
    pub lease: Lease,
}

/// Answer of [`Client::destroy_data_key`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestroyedDataKey {
    /// When it was destroyed; in an answer to [`Destruction::validate_only`], the time of the rehearsal.
    pub destroy_time: SystemTime,
    /// From then on, nobody who keeps to leases holds it. `None` if the server does not say it.
    pub lease_end_time: Option<SystemTime>,
}

/// A managed data key, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManagedDataKey {
    /// What it is found by.
    pub uid: DataKeyUid,
    /// [`Enabled`](KeyState::Enabled) or [`Destroyed`](KeyState::Destroyed).
    pub state: KeyState,
    /// The version that wraps it; `None` once it is destroyed.
    pub key_version: Option<VersionNumber>,
    /// When it was created.
    pub create_time: SystemTime,
    /// When it was destroyed.
    pub destroy_time: Option<SystemTime>,
}

/// The creation of managed data keys. It happens when this is awaited, as a [`Creation`]: with a request id of its own unless
/// one is set, so that a repetition makes no others.
///
/// A rehearsal ([`validate_only`](Self::validate_only)) makes none and has none to return; it answers `V`, which tells the
/// version that would wrap them.
#[must_use = "a change is made when it is awaited"]
pub struct DataKeyCreation<T, V> {
    creation: Creation<Made>,
    read: fn(Made) -> Result<T, Error>,
    rehearsed: fn(Made) -> Result<V, Error>,
}

impl<T, V: 'static> DataKeyCreation<T, V> {
    /// See [`Change::request_id`](crate::Change::request_id). A repetition gives the same data keys out again as they are then:
    /// with the same uids, and leases that begin anew. It needs a key that is enabled, as a first call does; `key_version` may
    /// be a newer one; and a data key that was destroyed meanwhile is an error: of its item in a batch, else of the call.
    pub fn request_id(self, id: RequestId) -> Self {
        Self { creation: self.creation.request_id(id), ..self }
    }

    /// Changes nothing, and answers whether it could be done: see [`Change::validate_only`](crate::Change::validate_only).
    pub fn validate_only(self) -> Creation<V> {
        self.creation.validate_only().and_then(self.rehearsed)
    }
}

impl<T: 'static, V> IntoFuture for DataKeyCreation<T, V> {
    type Output = Result<T, Error>;
    type IntoFuture = Answer<T>;

    fn into_future(self) -> Answer<T> {
        self.creation.and_then(self.read).into_future()
    }
}

impl<T, V> fmt::Debug for DataKeyCreation<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DataKeyCreation").field(&self.creation).finish()
    }
}

type Items<T> = Vec<Result<T, ItemError>>;

impl Client {
    /// Makes a managed data key: 32 random bytes to seal one object with, which the service keeps wrapped under a uid. Needs a
    /// key of purpose [`Managed`](crate::KeyPurpose::Managed). It is durable before this returns.
    ///
    /// ```no_run
    /// # use kms_client::{Client, Context, Error, KeyRef};
    /// # async fn f(kms: Client) -> Result<(), Error> {
    /// let people: KeyRef = "tenants/acme/keys/people".parse()?;
    /// let context = Context::from([("table", "people")]);
    ///
    /// let made = kms.create_data_key(&people, &context).await?;
    /// // Seal the person's row with made.data_key, keep made.uid in it, drop the rest.
    ///
    /// let again = kms.get_data_key(&people, made.uid, &context).await?;
    /// // Use it until the lease is over.
    /// assert!(!again.lease.is_over());
    ///
    /// // This person is to be forgotten, and nobody else.
    /// kms.destroy_data_key(&people, made.uid).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_data_key(&self, key: &KeyRef, context: &Context) -> DataKeyCreation<CreatedDataKey, VersionNumber> {
        let creation = self.create_data_key_call(key, context, false);
        DataKeyCreation { creation, read: |made| one(made.created()?), rehearsed: |made| one(made.rehearsed()?) }
    }

    /// Makes a managed data key and returns only its uid, for a caller that prepares a record which another will seal.
    pub fn create_data_key_uid(
        &self,
        key: &KeyRef,
        context: &Context,
    ) -> DataKeyCreation<CreatedDataKeyUid, VersionNumber> {
        let creation = self.create_data_key_call(key, context, true);
        DataKeyCreation { creation, read: |made| one(made.uids()?), rehearsed: |made| one(made.rehearsed()?) }
    }

    fn create_data_key_call(&self, key: &KeyRef, context: &Context, omit_plaintext: bool) -> Creation<Made> {
        let (client, key) = (self.clone(), key.to_string());
        let (encryption_context, aad) = (context.pairs.clone(), context.aad.clone());
        Creation::new(move |said| async move {
            let Said { request_id, validate_only, .. } = said;
            let request =
                v1::CreateDataKeyRequest { key, omit_plaintext, encryption_context, aad, request_id, validate_only };
            let send = |c, r| async move { stub(c).create_data_key(r).await };
            Ok(Made::one(client.call_leased("CreateDataKey", request, send).await?))
        })
    }

    /// [`create_data_key`](Self::create_data_key) for 1 to 10,000 data keys: see [`BatchItem`]. All are durable before this
    /// returns, or none is made.
    pub fn create_data_key_batch(
        &self,
        key: &KeyRef,
        context: &Context,
        data_keys: impl IntoIterator<Item = NewDataKey>,
    ) -> DataKeyCreation<Items<CreatedDataKey>, Items<VersionNumber>> {
        let creation = self.create_data_key_batch_call(key, context, data_keys, false);
        DataKeyCreation { creation, read: Made::created, rehearsed: Made::rehearsed }
    }

    /// [`create_data_key_uid`](Self::create_data_key_uid) for 1 to 10,000 data keys: see [`BatchItem`].
    pub fn create_data_key_uid_batch(
        &self,
        key: &KeyRef,
        context: &Context,
        data_keys: impl IntoIterator<Item = NewDataKey>,
    ) -> DataKeyCreation<Items<CreatedDataKeyUid>, Items<VersionNumber>> {
        let creation = self.create_data_key_batch_call(key, context, data_keys, true);
        DataKeyCreation { creation, read: Made::uids, rehearsed: Made::rehearsed }
    }

    fn create_data_key_batch_call(
        &self,
        key: &KeyRef,
        context: &Context,
        data_keys: impl IntoIterator<Item = NewDataKey>,
        omit_plaintext: bool,
    ) -> Creation<Made> {
        let (client, key, encryption_context) = (self.clone(), key.to_string(), context.pairs.clone());
        let mut filling = Filling::new("BatchCreateDataKeys");
        let filled = data_keys.into_iter().try_for_each(|item| {
            let ((), aad) = item.into_parts(context);
            filling.push(v1::BatchCreateDataKeysItem { aad })
        });
        Creation::new(move |said| async move {
            filled?;
            let Said { request_id, validate_only, .. } = said;
            let request = filling.finish(|items| v1::BatchCreateDataKeysRequest {
                key,
                omit_plaintext,
                encryption_context,
                items,
                request_id,
                validate_only,
            })?;
            let count = request.items.len();
            let send = |c, r| async move { stub(c).batch_create_data_keys(r).await };
            Ok(Made::batch(client.call_leased("BatchCreateDataKeys", request, send).await?, count))
        })
    }

    /// Gives out a managed data key, in the encryption context that it was created with.
    pub async fn get_data_key(&self, key: &KeyRef, uid: DataKeyUid, context: &Context) -> Result<GivenDataKey, Error> {
        let request = v1::GetDataKeyRequest {
            key: key.to_string(),
            uid: uid.0.to_vec(),
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
        };
        let send = |c, r| async move { stub(c).get_data_key(r).await };
        GivenDataKey::from_wire(self.call_leased("GetDataKey", request, send).await?)
    }

    /// [`get_data_key`](Self::get_data_key) for 1 to 10,000 data keys: see [`BatchItem`].
    pub async fn get_data_key_batch(
        &self,
        key: &KeyRef,
        context: &Context,
        uids: impl IntoIterator<Item: Into<BatchItem<DataKeyUid>>>,
    ) -> Result<Items<GivenDataKey>, Error> {
        let mut filling = Filling::new("BatchGetDataKeys");
        for item in uids {
            let (uid, aad) = item.into().into_parts(context);
            filling.push(v1::BatchGetDataKeysItem { uid: uid.0.to_vec(), aad })?;
        }
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let request = filling.finish(|items| v1::BatchGetDataKeysRequest { key, encryption_context, items })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_get_data_keys(r).await };
        read_given(self.call_leased("BatchGetDataKeys", request, send).await?, count)
    }

    /// Destroys one managed data key, **at once and for ever**. It needs no encryption context. What was sealed with it can be
    /// opened only by who still holds it, until the lease ends.
    pub fn destroy_data_key(&self, key: &KeyRef, uid: DataKeyUid) -> Destruction<DestroyedDataKey> {
        let (client, key) = (self.clone(), key.to_string());
        Destruction::new(move |said| async move {
            let Said { request_id, validate_only, .. } = said;
            let request = v1::DestroyDataKeyRequest { key, uid: uid.0.to_vec(), request_id, validate_only };
            let send = |c, r| async move { stub(c).destroy_data_key(r).await };
            DestroyedDataKey::from_wire(client.call("DestroyDataKey", request, send).await?)
        })
    }

    /// [`destroy_data_key`](Self::destroy_data_key) for 1 to 10,000 data keys, **at once and for ever**: see [`BatchItem`].
    pub fn destroy_data_key_batch(
        &self,
        key: &KeyRef,
        uids: impl IntoIterator<Item = DataKeyUid>,
    ) -> Destruction<Items<DestroyedDataKey>> {
        let (client, key) = (self.clone(), key.to_string());
        let mut filling = Filling::new("BatchDestroyDataKeys");
        let filled =
            uids.into_iter().try_for_each(|uid| filling.push(v1::BatchDestroyDataKeysItem { uid: uid.0.to_vec() }));
        Destruction::new(move |said| async move {
            filled?;
            let Said { request_id, validate_only, .. } = said;
            let request =
                filling.finish(|items| v1::BatchDestroyDataKeysRequest { key, items, request_id, validate_only })?;
            let count = request.items.len();
            let send = |c, r| async move { stub(c).batch_destroy_data_keys(r).await };
            read_destroyed(client.call("BatchDestroyDataKeys", request, send).await?, count)
        })
    }

    /// Returns one page of a key's managed data keys, destroyed ones too, the oldest first. It gives out no key.
    pub async fn list_data_keys(&self, key: &KeyRef, page: PageRequest) -> Result<Page<ManagedDataKey>, Error> {
        let request = v1::ListDataKeysRequest {
            parent: key.to_string(),
            page_size: page.wire_size(),
            page_token: page.wire_token(),
        };
        let send = |c, r| async move { crate::key::stub(c).list_data_keys(r).await };
        read_page(self.call("ListDataKeys", request, send).await?)
    }

    /// Returns up to `items_max` managed data keys, from all pages there are after a token. Where that was not all, `next`
    /// goes on exactly after the last.
    pub async fn list_all_data_keys(
        &self,
        key: &KeyRef,
        items_max: usize,
        after: Option<PageToken>,
    ) -> Result<Page<ManagedDataKey>, Error> {
        collect(items_max, after, |page| self.list_data_keys(key, page)).await
    }
}

/// An answer of CreateDataKey, or of its batch form, before anything in it was looked at.
pub(crate) struct Made {
    key_version: u32,
    lease: Option<prost_types::Duration>,
    began: Began,
    results: Vec<v1::BatchCreateDataKeysResult>,
    /// How many there should be.
    count: usize,
}

impl Made {
    pub(crate) fn one(leased: Leased<v1::CreateDataKeyResponse>) -> Self {
        let (answer, began) = leased.into_parts();
        let v1::CreateDataKeyResponse { plaintext, uid, key_version, lease } = answer;
        let results = vec![v1::BatchCreateDataKeysResult { plaintext, uid, error: None }];
        Self { key_version, lease, began, results, count: 1 }
    }

    pub(crate) fn batch(leased: Leased<v1::BatchCreateDataKeysResponse>, count: usize) -> Self {
        let (answer, began) = leased.into_parts();
        let v1::BatchCreateDataKeysResponse { key_version, lease, results } = answer;
        Self { key_version, lease, began, results, count }
    }

    pub(crate) fn created(self) -> Result<Items<CreatedDataKey>, Error> {
        // Not told before the data keys are taken over.
        let lease = self.began.lease(self.lease);
        let results = read_all(self.results, self.count, |result| {
            let data_key = DataKey::take(result.plaintext);
            if let Some(error) = ItemError::from_wire(result.error) {
                return Ok(Err(error));
            }
            let (data_key, uid) = (required(data_key, "plaintext")?, DataKeyUid::from_wire(&result.uid)?);
            Ok(Ok((data_key, uid, wrapping(self.key_version)?)))
        })?;
        let lease = lease?;
        let with_lease =
            |(data_key, uid, key_version)| CreatedDataKey { uid, data_key, key_version, lease: lease.clone() };
        Ok(results.into_iter().map(|result| result.map(with_lease)).collect())
    }

    pub(crate) fn uids(self) -> Result<Items<CreatedDataKeyUid>, Error> {
        read_all(self.results, self.count, |result| match ItemError::from_wire(result.error) {
            Some(error) => Ok(Err(error)),
            None => {
                let (uid, key_version) = (DataKeyUid::from_wire(&result.uid)?, wrapping(self.key_version)?);
                Ok(Ok(CreatedDataKeyUid { uid, key_version }))
            }
        })
    }

    pub(crate) fn rehearsed(self) -> Result<Items<VersionNumber>, Error> {
        read_all(self.results, self.count, |result| match ItemError::from_wire(result.error) {
            Some(error) => Ok(Err(error)),
            None => Ok(Ok(wrapping(self.key_version)?)),
        })
    }
}

/// Reads the version that wraps all that are good. An answer without a good one has none, when a repetition finds all of them
/// destroyed: so it is looked at only where it is needed.
fn wrapping(key_version: u32) -> Result<VersionNumber, Error> {
    version(key_version, "key_version")
}

/// Returns the one result of an answer that has no errors of items.
fn one<T>(results: Items<T>) -> Result<T, Error> {
    required(results.into_iter().find_map(Result::ok), "a result")
}

impl GivenDataKey {
    pub(crate) fn from_wire(leased: Leased<v1::GetDataKeyResponse>) -> Result<Self, Error> {
        let (answer, began) = leased.into_parts();
        let data_key = required(DataKey::take(answer.plaintext), "plaintext")?;
        let key_version = version(answer.key_version, "key_version")?;
        Ok(Self { data_key, key_version, lease: began.lease(answer.lease)? })
    }
}

pub(crate) fn read_given(
    leased: Leased<v1::BatchGetDataKeysResponse>,
    count: usize,
) -> Result<Items<GivenDataKey>, Error> {
    let (answer, began) = leased.into_parts();
    let lease = began.lease(answer.lease);
    let results = read_all(answer.results, count, |result| {
        let data_key = DataKey::take(result.plaintext);
        match ItemError::from_wire(result.error) {
            Some(error) => Ok(Err(error)),
            None => Ok(Ok((required(data_key, "plaintext")?, version(result.key_version, "key_version")?))),
        }
    })?;
    let lease = lease?;
    let with_lease = |(data_key, key_version)| GivenDataKey { data_key, key_version, lease: lease.clone() };
    Ok(results.into_iter().map(|result| result.map(with_lease)).collect())
}

impl DestroyedDataKey {
    pub(crate) fn from_wire(answer: v1::DestroyDataKeyResponse) -> Result<Self, Error> {
        Ok(Self {
            destroy_time: time(answer.destroy_time, "destroy_time")?,
            lease_end_time: time_or_none(answer.lease_end_time, "lease_end_time")?,
        })
    }
}

pub(crate) fn read_destroyed(
    answer: v1::BatchDestroyDataKeysResponse,
    count: usize,
) -> Result<Items<DestroyedDataKey>, Error> {
    let lease_end_time = time_or_none(answer.lease_end_time, "lease_end_time")?;
    read_all(answer.results, count, |result| match ItemError::from_wire(result.error) {
        Some(error) => Ok(Err(error)),
        None => Ok(Ok(DestroyedDataKey { destroy_time: time(result.destroy_time, "destroy_time")?, lease_end_time })),
    })
}

pub(crate) fn read_page(answer: v1::ListDataKeysResponse) -> Result<Page<ManagedDataKey>, Error> {
    let items: Result<_, Error> = answer.data_keys.into_iter().map(ManagedDataKey::from_wire).collect();
    Ok(Page::new(items?, answer.next_page_token))
}

impl ManagedDataKey {
    fn from_wire(data_key: v1::ManagedDataKey) -> Result<Self, Error> {
        let key_version = Some(data_key.key_version).filter(|number| *number != 0);
        Ok(Self {
            uid: DataKeyUid::from_wire(&data_key.uid)?,
            state: KeyState::from_wire(data_key.state),
            key_version: key_version.map(|number| version(number, "data_key.key_version")).transpose()?,
            create_time: time(data_key.create_time, "data_key.create_time")?,
            destroy_time: time_or_none(data_key.destroy_time, "data_key.destroy_time")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lease::{Clock, SystemClock};

    #[test]
    fn a_uid_is_16_bytes_and_32_hexadecimal_digits() {
        let bytes: [u8; 16] = std::array::from_fn(|n| n as u8 * 16 + 1);
        let uid = DataKeyUid::from(bytes);
        assert_eq!(uid.to_string(), "01112131415161718191a1b1c1d1e1f1");
        assert_eq!(format!("{uid:?}"), "DataKeyUid(01112131415161718191a1b1c1d1e1f1)");
        assert_eq!(uid.to_string().parse::<DataKeyUid>().unwrap(), uid);
        assert_eq!(uid.to_string().to_uppercase().parse::<DataKeyUid>().unwrap(), uid);
        assert_eq!(DataKeyUid::try_from(&bytes[..]).unwrap(), uid);
        assert_eq!((uid.as_bytes(), <[u8; 16]>::from(uid)), (&bytes, bytes));
        assert_eq!(DataKeyUid::from([0; 16]).to_string(), "0".repeat(32));
        for bad in ["", "0", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert!(bad.parse::<DataKeyUid>().is_err(), "{bad}");
        }
        for bad in [&[][..], &[0; 15], &[0; 17]] {
            assert!(DataKeyUid::try_from(bad).is_err());
        }
    }

    fn made(key_version: u32, results: Vec<v1::BatchCreateDataKeysResult>) -> Made {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let count = results.len();
        let answer = v1::BatchCreateDataKeysResponse { key_version, lease: None, results };
        Made::batch(Began::now(&clock).answered(answer), count)
    }

    #[test]
    fn a_version_is_needed_by_what_is_good_and_by_nothing_else() {
        let (code, reason) = (9, v1::ErrorReason::DataKeyDestroyed.into());
        let error = Some(v1::ItemError { code, reason, message: "gone".to_owned() });
        let bad = v1::BatchCreateDataKeysResult { error, ..Default::default() };
        let good = v1::BatchCreateDataKeysResult { plaintext: vec![7; 32], uid: vec![1; 16], error: None };
        let is_bad = |result: Result<(), &ItemError>| result.is_err_and(|e| e.reason() == Some("DATA_KEY_DESTROYED"));
        for key_version in [0, 7] {
            let of = || made(key_version, vec![bad.clone(), bad.clone()]);
            assert!(of().created().unwrap().iter().all(|result| is_bad(result.as_ref().map(drop))));
            assert!(of().uids().unwrap().iter().all(|result| is_bad(result.as_ref().map(drop))));
            assert!(of().rehearsed().unwrap().iter().all(|result| is_bad(result.as_ref().map(drop))));
        }
        let of = |key_version| made(key_version, vec![bad.clone(), good.clone()]);
        assert_eq!(of(7).created().unwrap()[1].as_ref().unwrap().key_version.get(), 7);
        assert!(of(0).created().is_err() && of(0).uids().is_err() && of(0).rehearsed().is_err());
    }

    #[test]
    fn uids_are_in_the_order_of_their_making() {
        assert!(DataKeyUid::from([1; 16]) < DataKeyUid::from([2; 16]));
    }
}
