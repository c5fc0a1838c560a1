//! Message authentication codes, one and many at a time.

use kms_proto::v1;

use crate::batch::{BatchItem, Filling, ItemError, read_all};
use crate::crypto::stub;
use crate::wire::version;
use crate::{Client, Context, Error, KeyRef, Mac, VersionNumber};

/// Answer of [`Client::generate_mac`].
#[derive(Debug)]
#[non_exhaustive]
pub struct GeneratedMac {
    /// The message authentication code, to be kept beside the message.
    pub mac: Mac,
    /// The version that made it.
    pub key_version: VersionNumber,
}

/// Answer of [`Client::verify_mac`]: it is right.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifiedMac {
    /// The version that had made it.
    pub key_version: VersionNumber,
    /// True when that version is no longer primary: time to make another.
    pub stale: bool,
}

impl Client {
    /// Makes a message authentication code, HMAC-SHA-256, of a message of at most 64 KiB, under the primary version of a key of
    /// purpose [`Mac`](crate::KeyPurpose::Mac).
    pub async fn generate_mac(&self, key: &KeyRef, message: &[u8], context: &Context) -> Result<GeneratedMac, Error> {
        let request = v1::GenerateMacRequest {
            key: key.to_string(),
            message: message.to_vec(),
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
        };
        let answer = self.call("GenerateMac", request, |c, r| async move { stub(c).generate_mac(r).await }).await?;
        Ok(GeneratedMac { mac: answer.mac.into(), key_version: version(answer.key_version, "key_version")? })
    }

    /// Checks what [`generate_mac`](Self::generate_mac) made, under any enabled version of the key. One that is not right is
    /// an error with the reason `MAC_INVALID`.
    pub async fn verify_mac(
        &self,
        key: &KeyRef,
        message: &[u8],
        mac: &Mac,
        context: &Context,
    ) -> Result<VerifiedMac, Error> {
        let request = v1::VerifyMacRequest {
            key: key.to_string(),
            message: message.to_vec(),
            mac: mac.as_bytes().to_vec(),
            encryption_context: context.pairs.clone(),
            aad: context.aad.clone(),
        };
        let answer = self.call("VerifyMac", request, |c, r| async move { stub(c).verify_mac(r).await }).await?;
        Ok(VerifiedMac { key_version: version(answer.key_version, "key_version")?, stale: answer.stale })
    }

    /// [`generate_mac`](Self::generate_mac) for 1 to 10,000 messages: see [`BatchItem`].
    pub async fn generate_mac_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        messages: impl IntoIterator<Item: Into<BatchItem<&'a [u8]>>>,
    ) -> Result<Vec<Result<GeneratedMac, ItemError>>, Error> {
        let mut filling = Filling::new("BatchGenerateMacs");
        for item in messages {
            let (message, aad) = item.into().into_parts(context);
            filling.push(v1::BatchGenerateMacsItem { message: message.to_vec(), aad })?;
        }
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let request = filling.finish(|items| v1::BatchGenerateMacsRequest { key, encryption_context, items })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_generate_macs(r).await };
        read_generated(self.call("BatchGenerateMacs", request, send).await?, count)
    }

    /// [`verify_mac`](Self::verify_mac) for 1 to 10,000 messages, each with its code: see [`BatchItem`]. One that is not right
    /// is an error of its item, with the reason `MAC_INVALID`.
    pub async fn verify_mac_batch<'a>(
        &self,
        key: &KeyRef,
        context: &Context,
        messages: impl IntoIterator<Item: Into<BatchItem<(&'a [u8], &'a Mac)>>>,
    ) -> Result<Vec<Result<VerifiedMac, ItemError>>, Error> {
        let mut filling = Filling::new("BatchVerifyMacs");
        for item in messages {
            let ((message, mac), aad) = item.into().into_parts(context);
            filling.push(v1::BatchVerifyMacsItem { message: message.to_vec(), mac: mac.as_bytes().to_vec(), aad })?;
        }
        let (key, encryption_context) = (key.to_string(), context.pairs.clone());
        let request = filling.finish(|items| v1::BatchVerifyMacsRequest { key, encryption_context, items })?;
        let count = request.items.len();
        let send = |c, r| async move { stub(c).batch_verify_macs(r).await };
        read_verified(self.call("BatchVerifyMacs", request, send).await?, count)
    }
}

pub(crate) fn read_generated(
    answer: v1::BatchGenerateMacsResponse,
    count: usize,
) -> Result<Vec<Result<GeneratedMac, ItemError>>, Error> {
    let key_version = version(answer.key_version, "key_version")?;
    read_all(answer.results, count, |result| match ItemError::from_wire(result.error) {
        Some(error) => Ok(Err(error)),
        None => Ok(Ok(GeneratedMac { mac: result.mac.into(), key_version })),
    })
}

pub(crate) fn read_verified(
    answer: v1::BatchVerifyMacsResponse,
    count: usize,
) -> Result<Vec<Result<VerifiedMac, ItemError>>, Error> {
    read_all(answer.results, count, |result| match ItemError::from_wire(result.error) {
        Some(error) => Ok(Err(error)),
        None => Ok(Ok(VerifiedMac { key_version: version(result.key_version, "key_version")?, stale: result.stale })),
    })
}
