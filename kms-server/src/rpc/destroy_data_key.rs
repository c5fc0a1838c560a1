//! DestroyDataKey: destroys a managed data key, at once and for ever. BatchDestroyDataKeys: many.
//!
//! Those that cannot be destroyed, since they never were there or were destroyed before, are refused.

use kms_proto::v1::{self, DestroyDataKeyRequest, DestroyDataKeyResponse};

use super::batch::{self, PART_ITEMS, field_bytes};
use super::change::terms;
use super::convert::timestamp;
use super::error::Error;
use super::get_data_key::{Fate, about, refused};
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation, of_change};
use super::tally::Tally;
use crate::audit::{Leaf, Outcome};
use crate::keyring::{self, DestroyedDataKeys, Gone, Terms};
use crate::noun::{DekUid, KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct DestroyDataKey {
    tenant: TenantName,
    key: KeyName,
    uid: DekUid,
    terms: Terms,
}

impl Operation for DestroyDataKey {
    type Wire = DestroyDataKeyRequest;
    type Reply = DestroyDataKeyResponse;
    const NAME: &'static str = "DestroyDataKey";

    fn parse(wire: DestroyDataKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let uid = parse::dek_uid("uid", &wire.uid)?;
        Ok(Self { tenant, key, uid, terms: terms(&wire.request_id, wire.validate_only, ("etag", ""))? })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::DestroyDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn about(&self) -> Leaf {
        about(&self.tenant, &self.key, Some(&self.uid))
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<DestroyDataKeyResponse>, Failed> {
        let Self { tenant, key, uid, terms } = self;
        let keyring = call.keyring();
        let mut done = keyring.destroy_data_keys(&tenant, &key, &[uid], false, &terms, &call.who).await?;
        match (done.fates.pop(), done.parts.pop()) {
            (Some(Ok(at)), Some(Some(how))) => {
                let reply = DestroyDataKeyResponse {
                    destroy_time: Some(timestamp(at)),
                    lease_end_time: done.lease_end.map(timestamp),
                };
                Ok(match of_change(&how) {
                    Ok(index) => Done::written(reply, index),
                    Err(leaf) => Done::said(reply, *leaf),
                })
            }
            (Some(Err(gone)), _) => Err(refused(call, &tenant, &key, error_of(gone), Leaf::default())),
            (Some(Ok(_)) | None, _) => Err(keyring::Error::Damaged("a data key without a fate").into()),
        }
    }
}

fn error_of(gone: Gone) -> Error {
    match gone {
        Gone::Never => keyring::Error::DataKeyNotFound.into(),
        Gone::Before => keyring::Error::DataKeyDestroyed.into(),
    }
}

pub(super) struct BatchDestroyDataKeys {
    tenant: TenantName,
    key: KeyName,
    items: Vec<v1::BatchDestroyDataKeysItem>,
    terms: Terms,
}

impl Operation for BatchDestroyDataKeys {
    type Wire = v1::BatchDestroyDataKeysRequest;
    type Reply = v1::BatchDestroyDataKeysResponse;
    const NAME: &'static str = "BatchDestroyDataKeys";

    fn parse(wire: v1::BatchDestroyDataKeysRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        batch::check_count(wire.items.len())?;
        let terms = terms(&wire.request_id, wire.validate_only, ("etag", ""))?;
        Ok(Self { tenant, key, items: wire.items, terms })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::DestroyDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::BatchDestroyDataKeysResponse>, Failed> {
        batch::reserve_answer(call, self.items.iter().map(|_| field_bytes(TIME_BYTES_MAX)))?;
        let items: Vec<_> = self.items.iter().map(|item| parse::dek_uid("items.uid", &item.uid)).collect();
        let uids: Vec<DekUid> = items.iter().filter_map(|item| item.as_ref().ok().copied()).collect();
        let (keyring, fate) = (call.keyring(), Fate::of(call, &self.tenant, &self.key));
        let done = match &uids[..] {
            [] => DestroyedDataKeys::default(),
            uids => keyring.destroy_data_keys(&self.tenant, &self.key, uids, true, &self.terms, &call.who).await?,
        };
        remember(call, &uids, &done, &items)?;
        // What is known of each: when that was.
        let mut fates = done.fates.iter().map(|fate| Ok(Some(timestamp(fate.map_err(error_of)?))));
        let result = |item: Result<DekUid, Error>| {
            let missing = || Err(keyring::Error::Damaged("a data key without a fate").into());
            let fated: Result<_, Error> = item.and_then(|_| fates.next().unwrap_or_else(missing));
            match fated {
                Ok(destroy_time) => v1::BatchDestroyDataKeysResult { destroy_time, error: None },
                Err(error) => {
                    v1::BatchDestroyDataKeysResult { destroy_time: None, error: Some(fate.item_error(&error)) }
                }
            }
        };
        let results = items.into_iter().map(result).collect();
        let lease_end_time = done.lease_end.map(timestamp);
        Ok(Done::remembered(v1::BatchDestroyDataKeysResponse { lease_end_time, results }))
    }
}

/// Sees to the record of each part: one that was destroyed has it, the others get one now.
fn remember(
    call: &Call<'_>,
    uids: &[DekUid],
    done: &DestroyedDataKeys,
    items: &[Result<DekUid, Error>],
) -> Result<(), Error> {
    for (part, how) in done.parts.iter().enumerate() {
        let all = part * PART_ITEMS..uids.len().min((part + 1) * PART_ITEMS);
        match how.as_ref().map(of_change) {
            Some(Ok(index)) => call.written(index),
            Some(Err(leaf)) => call.remember(*leaf, Outcome::Ok)?,
            None => {
                let mut tally = Tally::new();
                for (uid, fate) in uids[all.clone()].iter().zip(&done.fates[all]) {
                    let gone = fate.err().map_or(keyring::Error::DataKeyNotFound.into(), error_of);
                    tally.failed(&gone, *uid.as_bytes());
                }
                call.remember(tally.leaf_of_uids(Leaf::default()), Outcome::Failed)?;
            }
        }
    }
    if uids.is_empty() {
        // Nothing that could be a data key: there is a record all the same.
        for part in items.chunks(PART_ITEMS) {
            let mut tally = Tally::new();
            part.iter().filter_map(|item| item.as_ref().err()).for_each(|error| tally.failed(error, [0; 16]));
            call.remember(tally.leaf_of_uids(Leaf::default()), Outcome::Failed)?;
        }
    }
    Ok(())
}

/// The most bytes of a time.
const TIME_BYTES_MAX: usize = 18;
