//! Encrypt: seals a caller's value under the primary version of a key.

use kms_proto::v1::{EncryptRequest, EncryptResponse};
use zeroize::Zeroizing;

use super::error::Error;
use super::parse::{self, PLAINTEXT_BYTES_MAX};
use super::pipeline::{Call, Done, Failed, Operation};
use super::record::key_leaf;
use crate::crypto::ContextHash;
use crate::keyring::{KeyPurpose, Want, Which};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct Encrypt {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    plaintext: Zeroizing<Vec<u8>>,
}

impl Operation for Encrypt {
    type Wire = EncryptRequest;
    type Reply = EncryptResponse;
    const NAME: &'static str = "Encrypt";

    fn parse(wire: EncryptRequest) -> Result<Self, Error> {
        let plaintext = Zeroizing::new(wire.plaintext);
        let (tenant, key) = parse::key("key", &wire.key)?;
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(Error::PlaintextTooLarge);
        }
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, plaintext })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Encrypt, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<EncryptResponse>, Failed> {
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Primary }])
            .await?;
        let key = in_use.key();
        let ciphertext =
            key.kek().seal_data(key.uid(), key.version(), &self.context, &self.plaintext, call.keyring().rng());
        let leaf = key_leaf(&in_use, key, &self.context, &ciphertext);
        let reply = EncryptResponse { ciphertext, key_version: key.version().get() };
        Ok(Done::used(reply, leaf, in_use))
    }
}
