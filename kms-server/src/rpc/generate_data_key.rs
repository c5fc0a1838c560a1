//! GenerateDataKey: makes a portable data key, wrapped under the primary version of a key.

use kms_proto::v1::{GenerateDataKeyRequest, GenerateDataKeyResponse};

use super::convert::duration;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use super::record::key_leaf;
use crate::crypto::{ContextHash, Dek};
use crate::keyring::{KeyPurpose, Want, Which};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct GenerateDataKey {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    omit_plaintext: bool,
}

impl Operation for GenerateDataKey {
    type Wire = GenerateDataKeyRequest;
    type Reply = GenerateDataKeyResponse;
    const NAME: &'static str = "GenerateDataKey";

    fn parse(wire: GenerateDataKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, omit_plaintext: wire.omit_plaintext })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GenerateDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GenerateDataKeyResponse>, Failed> {
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Primary }])
            .await?;
        let (key, rng) = (in_use.key(), call.keyring().rng());
        let dek = Dek::generate(rng);
        let wrapped_data_key = key.kek().wrap_dek(key.uid(), key.version(), &self.context, &dek, rng);
        let plaintext = if self.omit_plaintext { Vec::new() } else { dek.expose_to_caller() };
        let leaf = key_leaf(&in_use, key, &self.context, &wrapped_data_key);
        let lease = (!self.omit_plaintext).then(|| duration(in_use.lease_ms()));
        let reply = GenerateDataKeyResponse { plaintext, wrapped_data_key, key_version: key.version().get(), lease };
        Ok(Done::used(reply, leaf, in_use))
    }
}
