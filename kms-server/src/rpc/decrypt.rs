//! Decrypt: opens what Encrypt sealed. BatchDecrypt: many.

use kms_proto::v1::{self, DecryptRequest, DecryptResponse};

use super::batch::{self, All, Batch, Keys, Many, field_bytes};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::record::key_leaf;
use super::tally::Ids;
use crate::crypto::{CallerPairs, ContextHash, Header, Kind, OVERHEAD_BYTES, Plaintext};
use crate::keyring::{self, KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct Decrypt {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    ciphertext: Vec<u8>,
}

impl Operation for Decrypt {
    type Wire = DecryptRequest;
    type Reply = DecryptResponse;
    const NAME: &'static str = "Decrypt";

    fn parse(wire: DecryptRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, ciphertext: wire.ciphertext, context_pairs: wire.encryption_context })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Decrypt, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<DecryptResponse>, Failed> {
        let header = parse::blob(&self.ciphertext, Kind::Data)?;
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Of(header) }])
            .await?;
        let key = in_use.key();
        let leaf = key_leaf(&in_use, key, &self.context, &self.ciphertext);
        match open(key, &self.context, &self.ciphertext) {
            Ok(plaintext) => {
                let reply = DecryptResponse {
                    plaintext: plaintext.expose_to_caller(),
                    key_version: key.version().get(),
                    stale: key.is_stale(),
                };
                Ok(Done::used(reply, leaf, in_use))
            }
            Err(error) => Err(Failed::new(error, leaf)),
        }
    }
}

fn open(key: &KeyInUse, context: &ContextHash, ciphertext: &[u8]) -> Result<Plaintext, keyring::Error> {
    Ok(key.kek().open_data(key.uid(), key.version(), context, ciphertext)?)
}

pub(super) struct BatchDecrypt {
    pairs: CallerPairs,
    context_pairs: Pairs,
}

impl Many for BatchDecrypt {
    type Wire = v1::BatchDecryptRequest;
    type Reply = v1::BatchDecryptResponse;
    type Item = v1::BatchDecryptItem;
    type Result = v1::BatchDecryptResult;
    const NAME: &'static str = "BatchDecrypt";
    const PURPOSE: KeyPurpose = KeyPurpose::Encrypt;

    fn parse(wire: v1::BatchDecryptRequest) -> Result<Batch<Self>, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        Batch::of((tenant, key), wire.items, Self { pairs, context_pairs: wire.encryption_context })
    }

    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)> {
        vec![(Action::Decrypt, batch.resource())]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    fn seals_under(_: &Batch<Self>) -> Option<&KeyName> {
        None
    }

    fn needs(&self, item: &v1::BatchDecryptItem) -> Result<Option<Header>, Error> {
        Ok(Some(parse::blob(&item.ciphertext, Kind::Data)?))
    }

    fn result_bytes(&self, item: &v1::BatchDecryptItem) -> usize {
        field_bytes(item.ciphertext.len().saturating_sub(OVERHEAD_BYTES)) + batch::VERSION_BYTES_MAX
    }

    fn one(
        &self,
        keys: Keys<'_>,
        item: &v1::BatchDecryptItem,
        _: &dyn Random,
    ) -> Result<v1::BatchDecryptResult, Error> {
        let context = batch::context(&self.pairs, &item.aad)?;
        let plaintext = open(keys.from, &context, &item.ciphertext)?.expose_to_caller();
        let (key_version, stale) = (keys.from.version().get(), keys.from.is_stale());
        Ok(v1::BatchDecryptResult { plaintext, key_version, stale, error: None })
    }

    fn refused(error: v1::ItemError) -> v1::BatchDecryptResult {
        v1::BatchDecryptResult { error: Some(error), ..v1::BatchDecryptResult::default() }
    }

    fn ids(&self) -> Ids {
        Ids::Given
    }

    fn given(item: &v1::BatchDecryptItem) -> &[u8] {
        &item.ciphertext
    }

    fn reply(&self, done: All<v1::BatchDecryptResult>) -> v1::BatchDecryptResponse {
        v1::BatchDecryptResponse { results: done.results }
    }
}
