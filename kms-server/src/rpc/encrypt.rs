//! Encrypt: seals a caller's value under the primary version of a key. BatchEncrypt: many.

use kms_proto::v1::{self, EncryptRequest, EncryptResponse};
use zeroize::Zeroizing;

use super::batch::{self, All, Batch, Keys, Many, field_bytes};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::record::key_leaf;
use super::tally::Ids;
use crate::crypto::{CallerPairs, ContextHash, Header, OVERHEAD_BYTES};
use crate::keyring::{KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct Encrypt {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    plaintext: Zeroizing<Vec<u8>>,
}

impl Operation for Encrypt {
    type Wire = EncryptRequest;
    type Reply = EncryptResponse;
    const NAME: &'static str = "Encrypt";

    fn parse(wire: EncryptRequest) -> Result<Self, Error> {
        let plaintext = Zeroizing::new(wire.plaintext);
        let (tenant, key) = parse::key("key", &wire.key)?;
        parse::plaintext(&plaintext)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, plaintext, context_pairs: wire.encryption_context })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::Encrypt, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<EncryptResponse>, Failed> {
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Encrypt, which: Which::Primary }])
            .await?;
        let key = in_use.key();
        let ciphertext = seal(key, &self.context, &self.plaintext, call.keyring().rng());
        let leaf = key_leaf(&in_use, key, &self.context, &ciphertext);
        let reply = EncryptResponse { ciphertext, key_version: key.version().get() };
        Ok(Done::used(reply, leaf, in_use))
    }
}

fn seal(key: &KeyInUse, context: &ContextHash, plaintext: &[u8], rng: &dyn Random) -> Vec<u8> {
    key.kek().seal_data(key.uid(), key.version(), context, plaintext, rng)
}

pub(super) struct BatchEncrypt {
    pairs: CallerPairs,
    context_pairs: Pairs,
}

pub(super) struct Item {
    plaintext: Zeroizing<Vec<u8>>,
    aad: Vec<u8>,
}

impl Many for BatchEncrypt {
    type Wire = v1::BatchEncryptRequest;
    type Reply = v1::BatchEncryptResponse;
    type Item = Item;
    type Result = v1::BatchEncryptResult;
    const NAME: &'static str = "BatchEncrypt";
    const PURPOSE: KeyPurpose = KeyPurpose::Encrypt;

    fn parse(wire: v1::BatchEncryptRequest) -> Result<Batch<Self>, Error> {
        let item = |item: v1::BatchEncryptItem| Item { plaintext: Zeroizing::new(item.plaintext), aad: item.aad };
        let items = wire.items.into_iter().map(item).collect();
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        Batch::of((tenant, key), items, Self { pairs, context_pairs: wire.encryption_context })
    }

    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)> {
        vec![(Action::Encrypt, batch.resource())]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    fn seals_under(batch: &Batch<Self>) -> Option<&KeyName> {
        Some(&batch.key)
    }

    fn needs(&self, item: &Item) -> Result<Option<Header>, Error> {
        parse::plaintext(&item.plaintext).map(|()| None)
    }

    fn result_bytes(&self, item: &Item) -> usize {
        field_bytes(item.plaintext.len() + OVERHEAD_BYTES)
    }

    fn one(&self, keys: Keys<'_>, item: &Item, rng: &dyn Random) -> Result<v1::BatchEncryptResult, Error> {
        let context = batch::context(&self.pairs, &item.aad)?;
        Ok(v1::BatchEncryptResult { ciphertext: seal(keys.to, &context, &item.plaintext, rng), error: None })
    }

    fn refused(error: v1::ItemError) -> v1::BatchEncryptResult {
        v1::BatchEncryptResult { error: Some(error), ..v1::BatchEncryptResult::default() }
    }

    fn ids(&self) -> Ids {
        Ids::Made
    }

    fn made(result: &v1::BatchEncryptResult) -> &[u8] {
        &result.ciphertext
    }

    fn reply(&self, done: All<v1::BatchEncryptResult>) -> v1::BatchEncryptResponse {
        v1::BatchEncryptResponse { key_version: done.key_version, results: done.results }
    }
}
