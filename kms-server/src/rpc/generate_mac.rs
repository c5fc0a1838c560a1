//! GenerateMac: makes a message authentication code under the primary version of a key.
//! BatchGenerateMacs: many.
//!
//! No record names a MAC: it may be what somebody proves himself with.

use kms_proto::v1::{self, GenerateMacRequest, GenerateMacResponse};
use zeroize::Zeroizing;

use super::batch::{self, All, Batch, Keys, Many, field_bytes};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::record::key_leaf;
use super::tally::Ids;
use crate::crypto::{CallerPairs, ContextHash, Header, MAC_BYTES};
use crate::keyring::{KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct GenerateMac {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    message: Zeroizing<Vec<u8>>,
}

impl Operation for GenerateMac {
    type Wire = GenerateMacRequest;
    type Reply = GenerateMacResponse;
    const NAME: &'static str = "GenerateMac";

    fn parse(wire: GenerateMacRequest) -> Result<Self, Error> {
        let message = Zeroizing::new(wire.message);
        let (tenant, key) = parse::key("key", &wire.key)?;
        parse::plaintext(&message)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, message, context_pairs: wire.encryption_context })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GenerateMac, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GenerateMacResponse>, Failed> {
        let in_use = call
            .keyring()
            .enter(&self.tenant, &[Want { key: &self.key, purpose: KeyPurpose::Mac, which: Which::Primary }])
            .await?;
        let key = in_use.key();
        let mac = make(key, &self.context, &self.message);
        let leaf = key_leaf(&in_use, key, &self.context, &[]);
        let reply = GenerateMacResponse { mac, key_version: key.version().get() };
        Ok(Done::used(reply, leaf, in_use))
    }
}

fn make(key: &KeyInUse, context: &ContextHash, message: &[u8]) -> Vec<u8> {
    key.kek().mac(key.uid(), key.version(), context, message).to_vec()
}

pub(super) struct BatchGenerateMacs {
    pairs: CallerPairs,
    context_pairs: Pairs,
}

pub(super) struct Item {
    message: Zeroizing<Vec<u8>>,
    aad: Vec<u8>,
}

impl Many for BatchGenerateMacs {
    type Wire = v1::BatchGenerateMacsRequest;
    type Reply = v1::BatchGenerateMacsResponse;
    type Item = Item;
    type Result = v1::BatchGenerateMacsResult;
    const NAME: &'static str = "BatchGenerateMacs";
    const PURPOSE: KeyPurpose = KeyPurpose::Mac;

    fn parse(wire: v1::BatchGenerateMacsRequest) -> Result<Batch<Self>, Error> {
        let item = |item: v1::BatchGenerateMacsItem| Item { message: Zeroizing::new(item.message), aad: item.aad };
        let items = wire.items.into_iter().map(item).collect();
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        Batch::of((tenant, key), items, Self { pairs, context_pairs: wire.encryption_context })
    }

    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)> {
        vec![(Action::GenerateMac, batch.resource())]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    fn seals_under(batch: &Batch<Self>) -> Option<&KeyName> {
        Some(&batch.key)
    }

    fn needs(&self, item: &Item) -> Result<Option<Header>, Error> {
        parse::plaintext(&item.message).map(|()| None)
    }

    fn result_bytes(&self, _: &Item) -> usize {
        field_bytes(MAC_BYTES)
    }

    fn one(&self, keys: Keys<'_>, item: &Item, _: &dyn Random) -> Result<v1::BatchGenerateMacsResult, Error> {
        let context = batch::context(&self.pairs, &item.aad)?;
        Ok(v1::BatchGenerateMacsResult { mac: make(keys.to, &context, &item.message), error: None })
    }

    fn refused(error: v1::ItemError) -> v1::BatchGenerateMacsResult {
        v1::BatchGenerateMacsResult { error: Some(error), ..v1::BatchGenerateMacsResult::default() }
    }

    fn ids(&self) -> Ids {
        Ids::None
    }

    fn reply(&self, done: All<v1::BatchGenerateMacsResult>) -> v1::BatchGenerateMacsResponse {
        v1::BatchGenerateMacsResponse { key_version: done.key_version, results: done.results }
    }
}
