//! VerifyMac: checks a message authentication code. BatchVerifyMacs: many.
//!
//! It succeeds only if the MAC is right. Why one is not is in the record alone.

use kms_proto::v1::{self, VerifyMacRequest, VerifyMacResponse};
use zeroize::Zeroizing;

use super::batch::{self, All, Batch, Keys, Many};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::record::key_leaf;
use super::tally::Ids;
use crate::crypto::{CallerPairs, ContextHash, Header, Kind};
use crate::keyring::{self, KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct VerifyMac {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    message: Zeroizing<Vec<u8>>,
    mac: Vec<u8>,
}

impl Operation for VerifyMac {
    type Wire = VerifyMacRequest;
    type Reply = VerifyMacResponse;
    const NAME: &'static str = "VerifyMac";

    fn parse(wire: VerifyMacRequest) -> Result<Self, Error> {
        let message = Zeroizing::new(wire.message);
        let (tenant, key) = parse::key("key", &wire.key)?;
        parse::plaintext(&message)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, context, message, mac: wire.mac, context_pairs: wire.encryption_context })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::VerifyMac, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<VerifyMacResponse>, Failed> {
        let header = header(&self.mac)?;
        let want = Want { key: &self.key, purpose: KeyPurpose::Mac, which: Which::Of(header) };
        let in_use = call.keyring().enter(&self.tenant, &[want]).await.map_err(|error| Error::from(error).of_mac())?;
        let key = in_use.key();
        let leaf = key_leaf(&in_use, key, &self.context, &[]);
        match check(key, &self.context, &self.message, &self.mac) {
            Ok(()) => {
                let reply = VerifyMacResponse { key_version: key.version().get(), stale: key.is_stale() };
                Ok(Done::used(reply, leaf, in_use))
            }
            Err(error) => Err(Failed::new(error, leaf)),
        }
    }
}

fn header(mac: &[u8]) -> Result<Header, Error> {
    parse::blob(mac, Kind::Mac).map_err(|error| Error::from(error).of_mac())
}

fn check(key: &KeyInUse, context: &ContextHash, message: &[u8], mac: &[u8]) -> Result<(), Error> {
    let checked = key.kek().verify_mac(key.uid(), key.version(), context, message, mac);
    checked.map_err(|error| Error::from(keyring::Error::from(error)).of_mac())
}

pub(super) struct BatchVerifyMacs {
    pairs: CallerPairs,
    context_pairs: Pairs,
}

pub(super) struct Item {
    message: Zeroizing<Vec<u8>>,
    mac: Vec<u8>,
    aad: Vec<u8>,
}

impl Many for BatchVerifyMacs {
    type Wire = v1::BatchVerifyMacsRequest;
    type Reply = v1::BatchVerifyMacsResponse;
    type Item = Item;
    type Result = v1::BatchVerifyMacsResult;
    const NAME: &'static str = "BatchVerifyMacs";
    const PURPOSE: KeyPurpose = KeyPurpose::Mac;

    fn parse(wire: v1::BatchVerifyMacsRequest) -> Result<Batch<Self>, Error> {
        let item = |item: v1::BatchVerifyMacsItem| Item {
            message: Zeroizing::new(item.message),
            mac: item.mac,
            aad: item.aad,
        };
        let items = wire.items.into_iter().map(item).collect();
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        Batch::of((tenant, key), items, Self { pairs, context_pairs: wire.encryption_context })
    }

    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)> {
        vec![(Action::VerifyMac, batch.resource())]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    fn seals_under(_: &Batch<Self>) -> Option<&KeyName> {
        None
    }

    fn needs(&self, item: &Item) -> Result<Option<Header>, Error> {
        parse::plaintext(&item.message)?;
        header(&item.mac).map(Some)
    }

    fn result_bytes(&self, _: &Item) -> usize {
        batch::VERSION_BYTES_MAX
    }

    fn one(&self, keys: Keys<'_>, item: &Item, _: &dyn Random) -> Result<v1::BatchVerifyMacsResult, Error> {
        let context = batch::context(&self.pairs, &item.aad)?;
        check(keys.from, &context, &item.message, &item.mac)?;
        let (key_version, stale) = (keys.from.version().get(), keys.from.is_stale());
        Ok(v1::BatchVerifyMacsResult { key_version, stale, error: None })
    }

    fn not_entered(error: Error) -> Error {
        error.of_mac()
    }

    fn refused(error: v1::ItemError) -> v1::BatchVerifyMacsResult {
        v1::BatchVerifyMacsResult { error: Some(error), ..v1::BatchVerifyMacsResult::default() }
    }

    fn ids(&self) -> Ids {
        Ids::None
    }

    fn reply(&self, done: All<v1::BatchVerifyMacsResult>) -> v1::BatchVerifyMacsResponse {
        v1::BatchVerifyMacsResponse { results: done.results }
    }
}
