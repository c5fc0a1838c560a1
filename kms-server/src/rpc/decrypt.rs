//! Decrypt: opens what Encrypt sealed.

use kms_proto::v1::{DecryptRequest, DecryptResponse};

use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use super::record::key_leaf;
use crate::crypto::{ContextHash, Kind};
use crate::keyring::{self, KeyPurpose, Want, Which};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct Decrypt {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    ciphertext: Vec<u8>,
}

impl Operation for Decrypt {
    type Wire = DecryptRequest;
    type Reply = DecryptResponse;
    const NAME: &'static str = "Decrypt";

    fn parse(wire: DecryptRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, ciphertext: wire.ciphertext })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Decrypt, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<DecryptResponse>, Failed> {
        let header = parse::blob(&self.ciphertext, Kind::Data)?;
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Of(header) }])
            .await?;
        let key = in_use.key();
        let leaf = key_leaf(&in_use, key, &self.context, &self.ciphertext);
        match key.kek().open_data(key.uid(), key.version(), &self.context, &self.ciphertext) {
            Ok(plaintext) => {
                let reply = DecryptResponse {
                    plaintext: plaintext.expose_to_caller(),
                    key_version: key.version().get(),
                    stale: key.is_stale(),
                };
                Ok(Done::used(reply, leaf, in_use))
            }
            Err(error) => Err(Failed::new(keyring::Error::from(error), leaf)),
        }
    }
}
