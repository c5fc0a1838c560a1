//! GenerateDataKey: makes a portable data key, wrapped under the primary version of a key.
//! BatchGenerateDataKeys: many.

use kms_proto::v1::{self, GenerateDataKeyRequest, GenerateDataKeyResponse};

use super::batch::{self, All, Batch, Keys, Many, field_bytes};
use super::convert::duration;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::record::key_leaf;
use super::tally::Ids;
use crate::crypto::chain::WRAPPED_KEY_BYTES;
use crate::crypto::{CallerPairs, ContextHash, Dek, Header};
use crate::keyring::{KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct GenerateDataKey {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    omit_plaintext: bool,
}

impl Operation for GenerateDataKey {
    type Wire = GenerateDataKeyRequest;
    type Reply = GenerateDataKeyResponse;
    const NAME: &'static str = "GenerateDataKey";

    fn parse(wire: GenerateDataKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, omit_plaintext: wire.omit_plaintext, context_pairs: wire.encryption_context })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GenerateDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GenerateDataKeyResponse>, Failed> {
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Primary }])
            .await?;
        let key = in_use.key();
        let (plaintext, wrapped_data_key) = make(key, &self.context, self.omit_plaintext, call.keyring().rng());
        let leaf = key_leaf(&in_use, key, &self.context, &wrapped_data_key);
        let lease = (!self.omit_plaintext).then(|| duration(in_use.lease_ms()));
        let reply = GenerateDataKeyResponse { plaintext, wrapped_data_key, key_version: key.version().get(), lease };
        Ok(Done::used(reply, leaf, in_use))
    }
}

/// Makes a data key; returns it in the clear, if it is asked for, and wrapped.
fn make(key: &KeyInUse, context: &ContextHash, omit_plaintext: bool, rng: &dyn Random) -> (Vec<u8>, Vec<u8>) {
    let dek = Dek::generate(rng);
    let wrapped = key.kek().wrap_dek(key.uid(), key.version(), context, &dek, rng);
    (if omit_plaintext { Vec::new() } else { dek.expose_to_caller() }, wrapped)
}

pub(super) struct BatchGenerateDataKeys {
    pairs: CallerPairs,
    context_pairs: Pairs,
    omit_plaintext: bool,
}

impl Many for BatchGenerateDataKeys {
    type Wire = v1::BatchGenerateDataKeysRequest;
    type Reply = v1::BatchGenerateDataKeysResponse;
    type Item = v1::BatchGenerateDataKeysItem;
    type Result = v1::BatchGenerateDataKeysResult;
    const NAME: &'static str = "BatchGenerateDataKeys";
    const PURPOSE: KeyPurpose = KeyPurpose::Encrypt;

    fn parse(wire: v1::BatchGenerateDataKeysRequest) -> Result<Batch<Self>, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        Batch::of(
            (tenant, key),
            wire.items,
            Self { pairs, context_pairs: wire.encryption_context, omit_plaintext: wire.omit_plaintext },
        )
    }

    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)> {
        vec![(Action::GenerateDataKey, batch.resource())]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    fn seals_under(batch: &Batch<Self>) -> Option<&KeyName> {
        Some(&batch.key)
    }

    fn needs(&self, _: &v1::BatchGenerateDataKeysItem) -> Result<Option<Header>, Error> {
        Ok(None)
    }

    fn result_bytes(&self, _: &v1::BatchGenerateDataKeysItem) -> usize {
        field_bytes(batch::DATA_KEY_BYTES) + field_bytes(WRAPPED_KEY_BYTES)
    }

    fn one(
        &self,
        keys: Keys<'_>,
        item: &v1::BatchGenerateDataKeysItem,
        rng: &dyn Random,
    ) -> Result<v1::BatchGenerateDataKeysResult, Error> {
        let context = batch::context(&self.pairs, &item.aad)?;
        let (plaintext, wrapped_data_key) = make(keys.to, &context, self.omit_plaintext, rng);
        Ok(v1::BatchGenerateDataKeysResult { plaintext, wrapped_data_key, error: None })
    }

    fn refused(error: v1::ItemError) -> v1::BatchGenerateDataKeysResult {
        v1::BatchGenerateDataKeysResult { error: Some(error), ..v1::BatchGenerateDataKeysResult::default() }
    }

    fn ids(&self) -> Ids {
        Ids::Made
    }

    fn made(result: &v1::BatchGenerateDataKeysResult) -> &[u8] {
        &result.wrapped_data_key
    }

    fn reply(&self, done: All<v1::BatchGenerateDataKeysResult>) -> v1::BatchGenerateDataKeysResponse {
        let lease = done.lease_ms.filter(|_| !self.omit_plaintext).map(duration);
        v1::BatchGenerateDataKeysResponse { key_version: done.key_version, lease, results: done.results }
    }
}
