//! The data plane: sealing and opening small values; making, unwrapping and moving portable data keys.

use kms_proto::v1;
use kms_proto::v1::crypto_service_client::CryptoServiceClient;
use tonic::transport::Channel;

use crate::client::ANSWER_BYTES_MAX;
use crate::lease::{Lease, Leased};
use crate::wire::{required, version};
use crate::{Ciphertext, Client, Context, DataKey, Error, KeyRef, Plaintext, VersionNumber, WrappedDataKey};

/// Answer of [`Client::encrypt`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Encrypted {
    /// The sealed value.
    pub ciphertext: Ciphertext,
    /// The version that sealed it.
    pub key_version: VersionNumber,
}

/// Answer of [`Client::decrypt`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Decrypted {
    /// The opened value.
    pub plaintext: Plaintext,
    /// The version that had sealed it.
    pub key_version: VersionNumber,
    /// True when that version is no longer primary: time to [`Client::re_encrypt`].
    pub stale: bool,
}

/// Answer of [`Client::re_encrypt`].
#[derive(Debug)]
#[non_exhaustive]
pub struct ReEncrypted {
    /// The new ciphertext.
    pub ciphertext: Ciphertext,
    /// The version that sealed it.
    pub key_version: VersionNumber,
    /// The version that the given ciphertext was under.
    pub source_key_version: VersionNumber,
}

/// Answer of [`Client::re_encrypt_data_key`].
#[derive(Debug)]
#[non_exhaustive]
pub struct ReEncryptedDataKey {
    /// The same data key, newly wrapped.
    pub wrapped_data_key: WrappedDataKey,
    /// The version that wrapped it.
    pub key_version: VersionNumber,
    /// The version that the given one was under.
    pub source_key_version: VersionNumber,
}

/// Answer of [`Client::generate_data_key`].
#[derive(Debug)]
#[non_exhaustive]
pub struct GeneratedDataKey {
    /// The data key in the clear. Use it, then drop it.
    pub data_key: DataKey,
    /// The same data key wrapped, to be kept beside the data.
    pub wrapped_data_key: WrappedDataKey,
    /// The version that wrapped it.
    pub key_version: VersionNumber,
    /// How long the data key in the clear may be held.
    pub lease: Lease,
}

/// Answer of [`Client::generate_wrapped_data_key`].
#[derive(Debug)]
#[non_exhaustive]
pub struct GeneratedWrappedDataKey {
    /// The data key wrapped, to be kept beside the data.
    pub wrapped_data_key: WrappedDataKey,
    /// The version that wrapped it.
    pub key_version: VersionNumber,
}

/// Answer of [`Client::decrypt_data_key`].
#[derive(Debug)]
#[non_exhaustive]
pub struct DecryptedDataKey {
    /// The data key in the clear. Use it, then drop it.
    pub data_key: DataKey,
    /// The version that had wrapped it.
    pub key_version: VersionNumber,
    /// True when that version is no longer primary: time to [`Client::re_encrypt_data_key`].
    pub stale: bool,
    /// How long the data key may be held.
    pub lease: Lease,
}

impl Client {
    /// Seals a value of at most 64 KiB under the key's primary version. For more, use
    /// [`generate_data_key`](Self::generate_data_key) and seal here; for many, [`encrypt_batch`](Self::encrypt_batch).
    pub async fn encrypt(&self, key: &KeyRef, plaintext: &[u8], context: &Context) -> Result<Encrypted, Error> {
        let request = v1::EncryptRequest {
            key: key.to_string(),
            plaintext: plaintext.to_vec(),
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
        };
        let answer = self.call("Encrypt", request, |c, r| async move { stub(c).encrypt(r).await }).await?;
        Ok(Encrypted { ciphertext: answer.ciphertext.into(), key_version: version(answer.key_version, "key_version")? })
    }

    /// Opens what [`encrypt`](Self::encrypt) sealed, under any enabled version of the key.
    pub async fn decrypt(&self, key: &KeyRef, ciphertext: &Ciphertext, context: &Context) -> Result<Decrypted, Error> {
        let request = v1::DecryptRequest {
            key: key.to_string(),
            ciphertext: ciphertext.as_bytes().to_vec(),
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
        };
        let answer = self.call("Decrypt", request, |c, r| async move { stub(c).decrypt(r).await }).await?;
        // Taken over before anything can fail, so that it is wiped in any case.
        let plaintext = Plaintext::new(answer.plaintext);
        Ok(Decrypted { plaintext, key_version: version(answer.key_version, "key_version")?, stale: answer.stale })
    }

    /// Moves a ciphertext to the key's primary version, inside the service. Key and context stay.
    pub async fn re_encrypt(
        &self,
        key: &KeyRef,
        ciphertext: &Ciphertext,
        context: &Context,
    ) -> Result<ReEncrypted, Error> {
        self.re_encrypt_call(key, ciphertext.as_bytes(), context, None).await?.into_ciphertext()
    }

    /// Moves a ciphertext to another key of the same tenant, another context, or both, inside the service.
    pub async fn re_encrypt_to(
        &self,
        key: &KeyRef,
        ciphertext: &Ciphertext,
        context: &Context,
        to_key: &KeyRef,
        to_context: &Context,
    ) -> Result<ReEncrypted, Error> {
        let answer = self.re_encrypt_call(key, ciphertext.as_bytes(), context, Some((to_key, to_context))).await?;
        answer.into_ciphertext()
    }

    /// Moves a wrapped data key to the key's primary version, inside the service. Key and context stay.
    pub async fn re_encrypt_data_key(
        &self,
        key: &KeyRef,
        wrapped_data_key: &WrappedDataKey,
        context: &Context,
    ) -> Result<ReEncryptedDataKey, Error> {
        self.re_encrypt_call(key, wrapped_data_key.as_bytes(), context, None).await?.into_data_key()
    }

    /// Moves a wrapped data key to another key of the same tenant, inside the service. The context stays: a wrapped
    /// data key never goes to another.
    pub async fn re_encrypt_data_key_to(
        &self,
        key: &KeyRef,
        wrapped_data_key: &WrappedDataKey,
        context: &Context,
        to_key: &KeyRef,
    ) -> Result<ReEncryptedDataKey, Error> {
        let to = Some((to_key, context));
        self.re_encrypt_call(key, wrapped_data_key.as_bytes(), context, to).await?.into_data_key()
    }

    async fn re_encrypt_call(
        &self,
        key: &KeyRef,
        blob: &[u8],
        context: &Context,
        to: Option<(&KeyRef, &Context)>,
    ) -> Result<Moved, Error> {
        let request = v1::ReEncryptRequest {
            key: key.to_string(),
            ciphertext: blob.to_vec(),
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
            destination: to.map(|(key, context)| v1::Destination {
                key: key.to_string(),
                encryption_context: context.pairs.clone(),
                aad: context.aad.clone(),
            }),
        };
        let answer = self.call("ReEncrypt", request, |c, r| async move { stub(c).re_encrypt(r).await }).await?;
        Ok(Moved(answer))
    }

    /// Makes a portable data key: 32 random bytes to seal one object with, in the clear and wrapped. The service stores
    /// neither. (For one that it stores, and can destroy alone, see [`create_data_key`](Self::create_data_key).)
    pub async fn generate_data_key(&self, key: &KeyRef, context: &Context) -> Result<GeneratedDataKey, Error> {
        GeneratedDataKey::from_wire(self.generate_data_key_call(key, context, false).await?)
    }

    /// Makes a data key and returns it only wrapped, for a caller that prepares a record which another will seal.
    pub async fn generate_wrapped_data_key(
        &self,
        key: &KeyRef,
        context: &Context,
    ) -> Result<GeneratedWrappedDataKey, Error> {
        let (answer, _) = self.generate_data_key_call(key, context, true).await?.into_parts();
        Ok(GeneratedWrappedDataKey {
            wrapped_data_key: answer.wrapped_data_key.into(),
            key_version: version(answer.key_version, "key_version")?,
        })
    }

    async fn generate_data_key_call(
        &self,
        key: &KeyRef,
        context: &Context,
        omit_plaintext: bool,
    ) -> Result<Leased<v1::GenerateDataKeyResponse>, Error> {
        let request = v1::GenerateDataKeyRequest {
            key: key.to_string(),
            omit_plaintext,
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
        };
        let send = |c, r| async move { stub(c).generate_data_key(r).await };
        self.call_leased("GenerateDataKey", request, send).await
    }

    /// Unwraps a data key, under any enabled version of the key.
    pub async fn decrypt_data_key(
        &self,
        key: &KeyRef,
        wrapped_data_key: &WrappedDataKey,
        context: &Context,
    ) -> Result<DecryptedDataKey, Error> {
        let request = v1::DecryptDataKeyRequest {
            key: key.to_string(),
            wrapped_data_key: wrapped_data_key.as_bytes().to_vec(),
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
        };
        let send = |c, r| async move { stub(c).decrypt_data_key(r).await };
        DecryptedDataKey::from_wire(self.call_leased("DecryptDataKey", request, send).await?)
    }
}

impl GeneratedDataKey {
    pub(crate) fn from_wire(leased: Leased<v1::GenerateDataKeyResponse>) -> Result<Self, Error> {
        let (answer, began) = leased.into_parts();
        let data_key = required(DataKey::take(answer.plaintext), "plaintext")?;
        Ok(Self {
            data_key,
            wrapped_data_key: answer.wrapped_data_key.into(),
            key_version: version(answer.key_version, "key_version")?,
            lease: began.lease(answer.lease)?,
        })
    }
}

impl DecryptedDataKey {
    pub(crate) fn from_wire(leased: Leased<v1::DecryptDataKeyResponse>) -> Result<Self, Error> {
        let (answer, began) = leased.into_parts();
        let data_key = required(DataKey::take(answer.plaintext), "plaintext")?;
        let key_version = version(answer.key_version, "key_version")?;
        Ok(Self { data_key, key_version, stale: answer.stale, lease: began.lease(answer.lease)? })
    }
}

/// An answer of ReEncrypt, which does not say of which kind its blob is: the caller's types do.
struct Moved(v1::ReEncryptResponse);

impl Moved {
    fn into_ciphertext(self) -> Result<ReEncrypted, Error> {
        let (key_version, source_key_version) = self.versions()?;
        Ok(ReEncrypted { ciphertext: self.0.ciphertext.into(), key_version, source_key_version })
    }

    fn into_data_key(self) -> Result<ReEncryptedDataKey, Error> {
        let (key_version, source_key_version) = self.versions()?;
        Ok(ReEncryptedDataKey { wrapped_data_key: self.0.ciphertext.into(), key_version, source_key_version })
    }

    fn versions(&self) -> Result<(VersionNumber, VersionNumber), Error> {
        let key_version = version(self.0.key_version, "key_version")?;
        Ok((key_version, version(self.0.source_key_version, "source_key_version")?))
    }
}

pub(crate) fn stub(channel: Channel) -> CryptoServiceClient<Channel> {
    CryptoServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
