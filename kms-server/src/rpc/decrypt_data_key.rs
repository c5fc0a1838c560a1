//! DecryptDataKey: unwraps a portable data key for its owner. BatchDecryptDataKeys: many.

use kms_proto::v1::{self, DecryptDataKeyRequest, DecryptDataKeyResponse};

use super::batch::{self, All, Batch, Keys, Many, field_bytes};
use super::convert::duration;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::record::key_leaf;
use super::tally::Ids;
use crate::crypto::{CallerPairs, ContextHash, Dek, Header, Kind};
use crate::keyring::{self, KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct DecryptDataKey {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    wrapped: Vec<u8>,
}

impl Operation for DecryptDataKey {
    type Wire = DecryptDataKeyRequest;
    type Reply = DecryptDataKeyResponse;
    const NAME: &'static str = "DecryptDataKey";

    fn parse(wire: DecryptDataKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, wrapped: wire.wrapped_data_key, context_pairs: wire.encryption_context })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::DecryptDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<DecryptDataKeyResponse>, Failed> {
        let header = parse::blob(&self.wrapped, Kind::WrappedDek)?;
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Of(header) }])
            .await?;
        let key = in_use.key();
        let leaf = key_leaf(&in_use, key, &self.context, &self.wrapped);
        match unwrap(key, &self.context, &self.wrapped) {
            Ok(dek) => {
                let reply = DecryptDataKeyResponse {
                    plaintext: dek.expose_to_caller(),
                    key_version: key.version().get(),
                    stale: key.is_stale(),
                    lease: Some(duration(in_use.lease_ms())),
                };
                Ok(Done::used(reply, leaf, in_use))
            }
            Err(error) => Err(Failed::new(error, leaf)),
        }
    }
}

fn unwrap(key: &KeyInUse, context: &ContextHash, wrapped: &[u8]) -> Result<Dek, keyring::Error> {
    Ok(key.kek().unwrap_dek(key.uid(), key.version(), context, wrapped)?)
}

pub(super) struct BatchDecryptDataKeys {
    pairs: CallerPairs,
    context_pairs: Pairs,
}

impl Many for BatchDecryptDataKeys {
    type Wire = v1::BatchDecryptDataKeysRequest;
    type Reply = v1::BatchDecryptDataKeysResponse;
    type Item = v1::BatchDecryptDataKeysItem;
    type Result = v1::BatchDecryptDataKeysResult;
    const NAME: &'static str = "BatchDecryptDataKeys";
    const PURPOSE: KeyPurpose = KeyPurpose::Encrypt;

    fn parse(wire: v1::BatchDecryptDataKeysRequest) -> Result<Batch<Self>, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        Batch::of((tenant, key), wire.items, Self { pairs, context_pairs: wire.encryption_context })
    }

    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)> {
        vec![(Action::DecryptDataKey, batch.resource())]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    fn seals_under(_: &Batch<Self>) -> Option<&KeyName> {
        None
    }

    fn needs(&self, item: &v1::BatchDecryptDataKeysItem) -> Result<Option<Header>, Error> {
        Ok(Some(parse::blob(&item.wrapped_data_key, Kind::WrappedDek)?))
    }

    fn result_bytes(&self, _: &v1::BatchDecryptDataKeysItem) -> usize {
        field_bytes(batch::DATA_KEY_BYTES) + batch::VERSION_BYTES_MAX
    }

    fn one(
        &self,
        keys: Keys<'_>,
        item: &v1::BatchDecryptDataKeysItem,
        _: &dyn Random,
    ) -> Result<v1::BatchDecryptDataKeysResult, Error> {
        let context = batch::context(&self.pairs, &item.aad)?;
        let plaintext = unwrap(keys.from, &context, &item.wrapped_data_key)?.expose_to_caller();
        let (key_version, stale) = (keys.from.version().get(), keys.from.is_stale());
        Ok(v1::BatchDecryptDataKeysResult { plaintext, key_version, stale, error: None })
    }

    fn refused(error: v1::ItemError) -> v1::BatchDecryptDataKeysResult {
        v1::BatchDecryptDataKeysResult { error: Some(error), ..v1::BatchDecryptDataKeysResult::default() }
    }

    fn ids(&self) -> Ids {
        Ids::Given
    }

    fn given(item: &v1::BatchDecryptDataKeysItem) -> &[u8] {
        &item.wrapped_data_key
    }

    fn reply(&self, done: All<v1::BatchDecryptDataKeysResult>) -> v1::BatchDecryptDataKeysResponse {
        v1::BatchDecryptDataKeysResponse { lease: done.lease_ms.map(duration), results: done.results }
    }
}
