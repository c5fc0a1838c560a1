//! ReEncrypt: moves a ciphertext to the primary version, or to another key, without showing what is
//! in it.
//!
//! Keeping key and context is a right of its own. Going elsewhere takes the right to open there and
//! to seal here: Decrypt and Encrypt for data, DecryptDataKey and GenerateDataKey for a data key,
//! which may never go to another encryption context. BatchReEncrypt: many, under what rights their
//! kinds need.

use kms_proto::v1::{self, ReEncryptRequest, ReEncryptResponse};

use super::batch::{self, All, Batch, Keys, Many, field_bytes};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::record::key_leaf;
use super::tally::Ids;
use crate::audit::Leaf;
use crate::crypto::{CallerPairs, ContextHash, Header, Kind, OpenError};
use crate::keyring::{self, KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct ReEncrypt {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    ciphertext: Vec<u8>,
    /// What the blob is, or why it is none. A blob that is none is told so only to those who may ask.
    kind: Result<(CallersKind, Header), keyring::Error>,
    destination: Option<Destination>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum CallersKind {
    Data,
    DataKey,
}

impl CallersKind {
    /// Returns the rights that it takes to go elsewhere.
    fn rights(self, from: &Resource, to: &Resource) -> [(Action, Resource); 2] {
        let (open, seal) = match self {
            CallersKind::Data => (Action::Decrypt, Action::Encrypt),
            CallersKind::DataKey => (Action::DecryptDataKey, Action::GenerateDataKey),
        };
        [(open, from.clone()), (seal, to.clone())]
    }
}

fn kind_of(blob: &[u8]) -> Result<(CallersKind, Header), keyring::Error> {
    match parse::blob(blob, Kind::WrappedDek) {
        Ok(header) => Ok((CallersKind::DataKey, header)),
        Err(_) => parse::blob(blob, Kind::Data).map(|header| (CallersKind::Data, header)),
    }
}

struct Destination {
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
}

impl Operation for ReEncrypt {
    type Wire = ReEncryptRequest;
    type Reply = ReEncryptResponse;
    const NAME: &'static str = "ReEncrypt";

    fn parse(wire: ReEncryptRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        let kind = kind_of(&wire.ciphertext);
        let destination = wire.destination.map(|to| destination(&tenant, to)).transpose()?;
        let other_context = destination.as_ref().is_some_and(|to| to.context != context);
        if other_context && matches!(kind, Ok((CallersKind::DataKey, _))) {
            return Err(Error::OtherContext);
        }
        let context_pairs = wire.encryption_context;
        Ok(Self { tenant, key, context, context_pairs, ciphertext: wire.ciphertext, kind, destination })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        let resource = |key: &KeyName| Resource::Key(self.tenant.clone(), key.clone());
        let Some(to) = &self.destination else { return vec![(Action::ReEncrypt, resource(&self.key))] };
        let kind = self.kind.as_ref().map_or(CallersKind::Data, |(kind, _)| *kind);
        kind.rights(&resource(&self.key), &resource(&to.key)).into()
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), self.destination.as_ref().map(|to| &to.context_pairs)]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<ReEncryptResponse>, Failed> {
        let (kind, header) = self.kind?;
        let (to_key, to_context) =
            self.destination.as_ref().map_or((&self.key, &self.context), |to| (&to.key, &to.context));
        let want = |key, which| Want { key, purpose: KeyPurpose::Encrypt, which };
        let wants = [want(&self.key, Which::Of(header)), want(to_key, Which::Primary)];
        let in_use = call.keyring().enter(&self.tenant, &wants).await?;
        let [from, to] = in_use.keys() else {
            return Err(keyring::Error::Damaged("two keys were wanted, and not two are in use").into());
        };
        let moved = move_blob(kind, from, &self.context, &self.ciphertext, to, to_context, call.keyring().rng());
        let ciphertext = match moved {
            Ok(ciphertext) => ciphertext,
            Err(error) => {
                return Err(Failed::new(
                    keyring::Error::from(error),
                    key_leaf(&in_use, from, &self.context, &self.ciphertext),
                ));
            }
        };
        let source = key_leaf(&in_use, from, &self.context, &self.ciphertext);
        let made = key_leaf(&in_use, to, to_context, &ciphertext);
        let leaves = match &self.destination {
            // One key: its record names the blob that was made, and in `ids` the one it was made of.
            None => vec![Leaf { ids: source.bid, ..made }],
            // Two keys, a record each: what was opened under one, and what was sealed under the other.
            Some(to) => vec![source, Leaf { kn: Some(to.key.to_string().into()), ..made }],
        };
        let reply =
            ReEncryptResponse { ciphertext, key_version: to.version().get(), source_key_version: from.version().get() };
        Ok(Done::used_for(reply, leaves, in_use))
    }
}

fn move_blob(
    kind: CallersKind,
    from: &KeyInUse,
    from_context: &ContextHash,
    blob: &[u8],
    to: &KeyInUse,
    to_context: &ContextHash,
    rng: &dyn Random,
) -> Result<Vec<u8>, OpenError> {
    match kind {
        CallersKind::Data => {
            let plaintext = from.kek().open_data(from.uid(), from.version(), from_context, blob)?;
            Ok(to.kek().seal_opened(to.uid(), to.version(), to_context, &plaintext, rng))
        }
        CallersKind::DataKey => {
            let dek = from.kek().unwrap_dek(from.uid(), from.version(), from_context, blob)?;
            Ok(to.kek().wrap_dek(to.uid(), to.version(), to_context, &dek, rng))
        }
    }
}

fn destination(tenant: &TenantName, to: v1::Destination) -> Result<Destination, Error> {
    let key = destination_key(tenant, &to.key)?;
    let context = parse::context(tenant, &to.encryption_context, &to.aad)?;
    Ok(Destination { key, context, context_pairs: to.encryption_context })
}

fn destination_key(tenant: &TenantName, path: &str) -> Result<KeyName, Error> {
    let (to_tenant, key) = parse::key("destination.key", path)?;
    if to_tenant != *tenant {
        return Err(Error::Field { field: "destination.key", rule: "must be of the same tenant" });
    }
    Ok(key)
}

pub(super) struct BatchReEncrypt {
    pairs: CallerPairs,
    context_pairs: Pairs,
    destination: Option<BatchDestination>,
}

struct BatchDestination {
    key: KeyName,
    pairs: CallerPairs,
    context_pairs: Pairs,
}

impl Many for BatchReEncrypt {
    type Wire = v1::BatchReEncryptRequest;
    type Reply = v1::BatchReEncryptResponse;
    type Item = v1::BatchReEncryptItem;
    type Result = v1::BatchReEncryptResult;
    const NAME: &'static str = "BatchReEncrypt";
    const PURPOSE: KeyPurpose = KeyPurpose::Encrypt;

    fn parse(wire: v1::BatchReEncryptRequest) -> Result<Batch<Self>, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        let destination = wire.destination.map(|to| {
            let key = destination_key(&tenant, &to.key)?;
            let pairs = parse::pairs(&tenant, &to.encryption_context)?;
            Ok::<_, Error>(BatchDestination { key, pairs, context_pairs: to.encryption_context })
        });
        let destination = destination.transpose()?;
        if destination.is_none() && wire.items.iter().any(|item| !item.destination_aad.is_empty()) {
            let rule = "must be empty where there is no destination";
            return Err(Error::Field { field: "items.destination_aad", rule });
        }
        Batch::of((tenant, key), wire.items, Self { pairs, context_pairs: wire.encryption_context, destination })
    }

    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)> {
        let Some(to) = &batch.many.destination else { return vec![(Action::ReEncrypt, batch.resource())] };
        let (from, to) = (batch.resource(), Resource::Key(batch.tenant.clone(), to.key.clone()));
        let has = |kind| batch.items.iter().any(|item| kind_of(&item.ciphertext).is_ok_and(|(of, _)| of == kind));
        // What is no blob at all needs no right of its own, but somebody must be allowed to ask.
        let (data_keys, data) = (has(CallersKind::DataKey), has(CallersKind::Data));
        let mut asks = Vec::new();
        if data || !data_keys {
            asks.extend(CallersKind::Data.rights(&from, &to));
        }
        if data_keys {
            asks.extend(CallersKind::DataKey.rights(&from, &to));
        }
        asks
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), self.destination.as_ref().map(|to| &to.context_pairs)]
    }

    fn seals_under(batch: &Batch<Self>) -> Option<&KeyName> {
        Some(batch.many.destination.as_ref().map_or(&batch.key, |to| &to.key))
    }

    fn needs(&self, item: &v1::BatchReEncryptItem) -> Result<Option<Header>, Error> {
        Ok(kind_of(&item.ciphertext).map(|(_, header)| Some(header))?)
    }

    fn result_bytes(&self, item: &v1::BatchReEncryptItem) -> usize {
        field_bytes(item.ciphertext.len()) + batch::VERSION_BYTES_MAX
    }

    fn one(
        &self,
        keys: Keys<'_>,
        item: &v1::BatchReEncryptItem,
        rng: &dyn Random,
    ) -> Result<v1::BatchReEncryptResult, Error> {
        let (kind, _) = kind_of(&item.ciphertext)?;
        let context = batch::context(&self.pairs, &item.aad)?;
        let to_context = match &self.destination {
            Some(to) => batch::context(&to.pairs, &item.destination_aad)?,
            None => context,
        };
        if kind == CallersKind::DataKey && to_context != context {
            return Err(Error::OtherContext);
        }
        let moved = move_blob(kind, keys.from, &context, &item.ciphertext, keys.to, &to_context, rng);
        let ciphertext = moved.map_err(keyring::Error::from)?;
        Ok(v1::BatchReEncryptResult { ciphertext, source_key_version: keys.from.version().get(), error: None })
    }

    fn refused(error: v1::ItemError) -> v1::BatchReEncryptResult {
        v1::BatchReEncryptResult { error: Some(error), ..v1::BatchReEncryptResult::default() }
    }

    fn ids(&self) -> Ids {
        self.destination.as_ref().map_or(Ids::Both, |to| Ids::BothApart(to.key.clone()))
    }

    fn given(item: &v1::BatchReEncryptItem) -> &[u8] {
        &item.ciphertext
    }

    fn made(result: &v1::BatchReEncryptResult) -> &[u8] {
        &result.ciphertext
    }

    fn reply(&self, done: All<v1::BatchReEncryptResult>) -> v1::BatchReEncryptResponse {
        v1::BatchReEncryptResponse { key_version: done.key_version, results: done.results }
    }
}
