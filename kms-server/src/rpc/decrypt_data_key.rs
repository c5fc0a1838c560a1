//! DecryptDataKey: unwraps a portable data key for its owner.

use kms_proto::v1::{DecryptDataKeyRequest, DecryptDataKeyResponse};

use super::convert::duration;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use super::record::key_leaf;
use crate::crypto::{ContextHash, Kind};
use crate::keyring::{self, KeyPurpose, Want, Which};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct DecryptDataKey {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    wrapped: Vec<u8>,
}

impl Operation for DecryptDataKey {
    type Wire = DecryptDataKeyRequest;
    type Reply = DecryptDataKeyResponse;
    const NAME: &'static str = "DecryptDataKey";

    fn parse(wire: DecryptDataKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, wrapped: wire.wrapped_data_key })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::DecryptDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<DecryptDataKeyResponse>, Failed> {
        let header = parse::blob(&self.wrapped, Kind::WrappedDek)?;
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Of(header) }])
            .await?;
        let key = in_use.key();
        let leaf = key_leaf(&in_use, key, &self.context, &self.wrapped);
        match key.kek().unwrap_dek(key.uid(), key.version(), &self.context, &self.wrapped) {
            Ok(dek) => {
                let reply = DecryptDataKeyResponse {
                    plaintext: dek.expose_to_caller(),
                    key_version: key.version().get(),
                    stale: key.is_stale(),
                    lease: Some(duration(in_use.lease_ms())),
                };
                Ok(Done::used(reply, leaf, in_use))
            }
            Err(error) => Err(Failed::new(keyring::Error::from(error), leaf)),
        }
    }
}
