//! Many at a time: sealing, opening and moving small values; making, unwrapping and moving portable data keys.

use kms_proto::v1;

use crate::batch::{BatchItem, Filling, ItemError, NewDataKey, read_all};
use crate::crypto::stub;
use crate::lease::{Lease, Leased};
use crate::wire::{required, version};
use crate::{
    Ciphertext, Client, Context, DataKey, Decrypted, DecryptedDataKey, Encrypted, Error, GeneratedDataKey,
    GeneratedWrappedDataKey, KeyRef, Plaintext, ReEncrypted, ReEncryptedDataKey, VersionNumber, WrappedDataKey,
};

/// One ciphertext for [`Client::re_encrypt_to_batch`], with the aad that it is bound to and the one that it shall be.
#[derive(Clone, Debug)]
pub struct ReEncryptItem<'a> {
    from: BatchItem<&'a Ciphertext>,
    to: BatchItem<()>,
}

impl<'a> ReEncryptItem<'a> {
    /// Makes an item, with the aad of the two contexts.
    pub fn new(ciphertext: &'a Ciphertext) -> Self {
        Self { from: BatchItem::new(ciphertext), to: BatchItem::new(()) }
    }

    /// Sets the bytes that it is bound to now, in place of the context's.
    #[must_use]
    pub fn aad(self, aad: impl Into<Vec<u8>>) -> Self {
        Self { from: self.from.aad(aad), ..self }
    }

    /// Sets the bytes that it shall be bound to, in place of the new context's.
    #[must_use]
    pub fn to_aad(self, aad: impl Into<Vec<u8>>) -> Self {
        Self { to: self.to.aad(aad), ..self }
    }
}

impl<'a> From<&'a Ciphertext> for ReEncryptItem<'a> {
    fn from(ciphertext: &'a Ciphertext) -> Self {
        Self::new(ciphertext)
    }
}

impl Client {
    /// [`encrypt`](Self::encrypt) for 1 to 10,000 values: see [`BatchItem`].
    pub async fn encrypt_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        plaintexts: impl IntoIterator<Item: Into<BatchItem<&'a [u8]>>>,
    ) -> Result<Vec<Result<Encrypted, ItemError>>, Error> {
        let mut filling = Filling::new("BatchEncrypt");
        for item in plaintexts {
            let (plaintext, aad) = item.into().into_parts(context);
            filling.push(v1::BatchEncryptItem { plaintext: plaintext.to_vec(), aad })?;
        }
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let request = filling.finish(|items| v1::BatchEncryptRequest { key, encryption_context, items })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_encrypt(r).await };
        read_encrypted(self.call("BatchEncrypt", request, send).await?, count)
    }

    /// [`decrypt`](Self::decrypt) for 1 to 10,000 ciphertexts: see [`BatchItem`].
    pub async fn decrypt_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        ciphertexts: impl IntoIterator<Item: Into<BatchItem<&'a Ciphertext>>>,
    ) -> Result<Vec<Result<Decrypted, ItemError>>, Error> {
        let mut filling = Filling::new("BatchDecrypt");
        for item in ciphertexts {
            let (ciphertext, aad) = item.into().into_parts(context);
            filling.push(v1::BatchDecryptItem { ciphertext: ciphertext.as_bytes().to_vec(), aad })?;
        }
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let request = filling.finish(|items| v1::BatchDecryptRequest { key, encryption_context, items })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_decrypt(r).await };
        read_decrypted(self.call("BatchDecrypt", request, send).await?, count)
    }

    /// [`re_encrypt`](Self::re_encrypt) for 1 to 10,000 ciphertexts: see [`BatchItem`].
    pub async fn re_encrypt_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        ciphertexts: impl IntoIterator<Item: Into<BatchItem<&'a Ciphertext>>>,
    ) -> Result<Vec<Result<ReEncrypted, ItemError>>, Error> {
        let mut filling = Filling::new("BatchReEncrypt");
        for item in ciphertexts {
            let (ciphertext, aad) = item.into().into_parts(context);
            filling.push(moving(ciphertext.as_bytes(), aad, Vec::new()))?;
        }
        self.re_encrypt_batch_call(key, context, filling, None, into_ciphertext).await
    }

    /// [`re_encrypt_to`](Self::re_encrypt_to) for 1 to 10,000 ciphertexts: see [`BatchItem`].
    pub async fn re_encrypt_to_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        ciphertexts: impl IntoIterator<Item: Into<ReEncryptItem<'a>>>,
        to_key: &KeyRef,
        to_context: &Context,
    ) -> Result<Vec<Result<ReEncrypted, ItemError>>, Error> {
        let mut filling = Filling::new("BatchReEncrypt");
        for item in ciphertexts {
            let ReEncryptItem { from, to } = item.into();
            let (ciphertext, aad) = from.into_parts(context);
            let ((), to_aad) = to.into_parts(to_context);
            filling.push(moving(ciphertext.as_bytes(), aad, to_aad))?;
        }
        self.re_encrypt_batch_call(key, context, filling, Some((to_key, to_context)), into_ciphertext).await
    }

    /// [`re_encrypt_data_key`](Self::re_encrypt_data_key) for 1 to 10,000 wrapped data keys: see [`BatchItem`].
    pub async fn re_encrypt_data_key_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        wrapped_data_keys: impl IntoIterator<Item: Into<BatchItem<&'a WrappedDataKey>>>,
    ) -> Result<Vec<Result<ReEncryptedDataKey, ItemError>>, Error> {
        let mut filling = Filling::new("BatchReEncrypt");
        for item in wrapped_data_keys {
            let (wrapped, aad) = item.into().into_parts(context);
            filling.push(moving(wrapped.as_bytes(), aad, Vec::new()))?;
        }
        self.re_encrypt_batch_call(key, context, filling, None, into_data_key).await
    }

    /// [`re_encrypt_data_key_to`](Self::re_encrypt_data_key_to) for 1 to 10,000 wrapped data keys: see [`BatchItem`].
    /// Context and aad stay.
    pub async fn re_encrypt_data_key_to_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        wrapped_data_keys: impl IntoIterator<Item: Into<BatchItem<&'a WrappedDataKey>>>,
        to_key: &KeyRef,
    ) -> Result<Vec<Result<ReEncryptedDataKey, ItemError>>, Error> {
        let mut filling = Filling::new("BatchReEncrypt");
        for item in wrapped_data_keys {
            let (wrapped, aad) = item.into().into_parts(context);
            filling.push(moving(wrapped.as_bytes(), aad.clone(), aad))?;
        }
        self.re_encrypt_batch_call(key, context, filling, Some((to_key, context)), into_data_key).await
    }

    async fn re_encrypt_batch_call<T>(
        &self,
        key: &KeyRef,
        context: &Context,
        filling: Filling<v1::BatchReEncryptItem>,
        to: Option<(&KeyRef, &Context)>,
        made: fn(Moved) -> T,
    ) -> Result<Vec<Result<T, ItemError>>, Error> {
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let destination = to.map(|(key, context)| v1::BatchDestination {
            key: key.to_string(),
            encryption_context: context.pairs.clone(),
        });
        let request =
            filling.finish(|items| v1::BatchReEncryptRequest { key, encryption_context, destination, items })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_re_encrypt(r).await };
        read_moved(self.call("BatchReEncrypt", request, send).await?, count, made)
    }

    /// [`generate_data_key`](Self::generate_data_key) for 1 to 10,000 data keys: see [`BatchItem`].
    pub async fn generate_data_key_batch(
        &self,
        key: &KeyRef,
        context: &Context,
        data_keys: impl IntoIterator<Item = NewDataKey>,
    ) -> Result<Vec<Result<GeneratedDataKey, ItemError>>, Error> {
        let (leased, count) = self.generate_batch_call(key, context, data_keys, false).await?;
        read_generated(leased, count)
    }

    /// [`generate_wrapped_data_key`](Self::generate_wrapped_data_key) for 1 to 10,000 data keys: see [`BatchItem`].
    pub async fn generate_wrapped_data_key_batch(
        &self,
        key: &KeyRef,
        context: &Context,
        data_keys: impl IntoIterator<Item = NewDataKey>,
    ) -> Result<Vec<Result<GeneratedWrappedDataKey, ItemError>>, Error> {
        let (leased, count) = self.generate_batch_call(key, context, data_keys, true).await?;
        read_generated_wrapped(leased, count)
    }

    async fn generate_batch_call(
        &self,
        key: &KeyRef,
        context: &Context,
        data_keys: impl IntoIterator<Item = NewDataKey>,
        omit_plaintext: bool,
    ) -> Result<(Leased<v1::BatchGenerateDataKeysResponse>, usize), Error> {
        let mut filling = Filling::new("BatchGenerateDataKeys");
        for item in data_keys {
            let ((), aad) = item.into_parts(context);
            filling.push(v1::BatchGenerateDataKeysItem { aad })?;
        }
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let request = filling.finish(|items| v1::BatchGenerateDataKeysRequest {
            key,
            omit_plaintext,
            encryption_context,
            items,
        })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_generate_data_keys(r).await };
        Ok((self.call_leased("BatchGenerateDataKeys", request, send).await?, count))
    }

    /// [`decrypt_data_key`](Self::decrypt_data_key) for 1 to 10,000 wrapped data keys: see [`BatchItem`].
    pub async fn decrypt_data_key_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        wrapped_data_keys: impl IntoIterator<Item: Into<BatchItem<&'a WrappedDataKey>>>,
    ) -> Result<Vec<Result<DecryptedDataKey, ItemError>>, Error> {
        let mut filling = Filling::new("BatchDecryptDataKeys");
        for item in wrapped_data_keys {
            let (wrapped, aad) = item.into().into_parts(context);
            filling.push(v1::BatchDecryptDataKeysItem { wrapped_data_key: wrapped.as_bytes().to_vec(), aad })?;
        }
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let request = filling.finish(|items| v1::BatchDecryptDataKeysRequest { key, encryption_context, items })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_decrypt_data_keys(r).await };
        read_unwrapped(self.call_leased("BatchDecryptDataKeys", request, send).await?, count)
    }
}

fn moving(blob: &[u8], aad: Vec<u8>, destination_aad: Vec<u8>) -> v1::BatchReEncryptItem {
    v1::BatchReEncryptItem { ciphertext: blob.to_vec(), aad, destination_aad }
}

/// A blob that was moved, of the kind that it was of before.
pub(crate) struct Moved {
    blob: Vec<u8>,
    key_version: VersionNumber,
    source_key_version: VersionNumber,
}

pub(crate) fn into_ciphertext(moved: Moved) -> ReEncrypted {
    let Moved { blob, key_version, source_key_version } = moved;
    ReEncrypted { ciphertext: blob.into(), key_version, source_key_version }
}

pub(crate) fn into_data_key(moved: Moved) -> ReEncryptedDataKey {
    let Moved { blob, key_version, source_key_version } = moved;
    ReEncryptedDataKey { wrapped_data_key: blob.into(), key_version, source_key_version }
}

type Results<T> = Result<Vec<Result<T, ItemError>>, Error>;

pub(crate) fn read_encrypted(answer: v1::BatchEncryptResponse, count: usize) -> Results<Encrypted> {
    let key_version = version(answer.key_version, "key_version")?;
    read_all(answer.results, count, |result| match ItemError::from_wire(result.error) {
        Some(error) => Ok(Err(error)),
        None => Ok(Ok(Encrypted { ciphertext: result.ciphertext.into(), key_version })),
    })
}

pub(crate) fn read_decrypted(answer: v1::BatchDecryptResponse, count: usize) -> Results<Decrypted> {
    read_all(answer.results, count, |result| {
        let plaintext = Plaintext::new(result.plaintext);
        if let Some(error) = ItemError::from_wire(result.error) {
            return Ok(Err(error));
        }
        let key_version = version(result.key_version, "key_version")?;
        Ok(Ok(Decrypted { plaintext, key_version, stale: result.stale }))
    })
}

pub(crate) fn read_moved<T>(answer: v1::BatchReEncryptResponse, count: usize, made: fn(Moved) -> T) -> Results<T> {
    let key_version = version(answer.key_version, "key_version")?;
    read_all(answer.results, count, |result| match ItemError::from_wire(result.error) {
        Some(error) => Ok(Err(error)),
        None => {
            let source_key_version = version(result.source_key_version, "source_key_version")?;
            Ok(Ok(made(Moved { blob: result.ciphertext, key_version, source_key_version })))
        }
    })
}

pub(crate) fn read_generated(
    leased: Leased<v1::BatchGenerateDataKeysResponse>,
    count: usize,
) -> Results<GeneratedDataKey> {
    let (answer, began) = leased.into_parts();
    // Not told before the data keys are taken over.
    let (key_version, lease) = (version(answer.key_version, "key_version"), began.lease(answer.lease));
    let results = read_all(answer.results, count, |result| {
        let data_key = DataKey::take(result.plaintext);
        match ItemError::from_wire(result.error) {
            Some(error) => Ok(Err(error)),
            None => Ok(Ok((required(data_key, "plaintext")?, result.wrapped_data_key))),
        }
    })?;
    let (key_version, lease) = (key_version?, lease?);
    let with_lease = |(data_key, wrapped): (DataKey, Vec<u8>)| GeneratedDataKey {
        data_key,
        wrapped_data_key: wrapped.into(),
        key_version,
        lease: lease.clone(),
    };
    Ok(results.into_iter().map(|result| result.map(with_lease)).collect())
}

pub(crate) fn read_generated_wrapped(
    leased: Leased<v1::BatchGenerateDataKeysResponse>,
    count: usize,
) -> Results<GeneratedWrappedDataKey> {
    let (answer, _) = leased.into_parts();
    let key_version = version(answer.key_version, "key_version")?;
    read_all(answer.results, count, |result| match ItemError::from_wire(result.error) {
        Some(error) => Ok(Err(error)),
        None => Ok(Ok(GeneratedWrappedDataKey { wrapped_data_key: result.wrapped_data_key.into(), key_version })),
    })
}

pub(crate) fn read_unwrapped(
    leased: Leased<v1::BatchDecryptDataKeysResponse>,
    count: usize,
) -> Results<DecryptedDataKey> {
    let (answer, began) = leased.into_parts();
    let lease = began.lease(answer.lease);
    let results = read_all(answer.results, count, |result| {
        let data_key = DataKey::take(result.plaintext);
        if let Some(error) = ItemError::from_wire(result.error) {
            return Ok(Err(error));
        }
        let data_key = required(data_key, "plaintext")?;
        Ok(Ok((data_key, version(result.key_version, "key_version")?, result.stale)))
    })?;
    let lease: Lease = lease?;
    let with_lease =
        |(data_key, key_version, stale)| DecryptedDataKey { data_key, key_version, stale, lease: lease.clone() };
    Ok(results.into_iter().map(|result| result.map(with_lease)).collect())
}
