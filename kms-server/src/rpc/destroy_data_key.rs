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
use super::status::{item_error, item_error_of_keyring};
use super::tally::Tally;
use crate::audit::{Leaf, Outcome};
use crate::keyring::{self, DestroyedDataKeys, Gone, Terms, Undone};
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
        let done = keyring.destroy_data_keys(&tenant, &key, &[uid], false, &terms, &call.who).await?;
        let fate = done.fates().next().map(|fate| fate.map_err(gone));
        let DestroyedDataKeys { mut parts, .. } = done;
        match (fate, parts.pop()) {
            (Some(Ok(at)), Some(Ok(done))) => {
                let lease_end_time = done.lease_end.map(timestamp);
                let reply = DestroyDataKeyResponse { destroy_time: Some(timestamp(at)), lease_end_time };
                Ok(match of_change(&done.how) {
                    Ok(index) => Done::written(reply, index),
                    Err(leaf) => Done::said(reply, *leaf),
                })
            }
            (Some(Err(Some(gone))), _) => Err(refused(call, &tenant, &key, error_of(gone), Leaf::default())),
            (_, Some(Err(error))) => Err(error.into()),
            _ => Err(keyring::Error::Damaged("a data key without a fate").into()),
        }
    }
}

fn gone(undone: Undone<'_>) -> Option<Gone> {
    match undone {
        Undone::Gone(gone) => Some(gone),
        Undone::Failed(_) => None,
    }
}

fn error_of(gone: Gone) -> Error {
    match gone {
        Gone::Never => keyring::Error::DataKeyNotFound.into(),
        Gone::Before => keyring::Error::DataKeyDestroyed.into(),
        Gone::Damaged => keyring::Error::Damaged("a data key that is none").into(),
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

    fn operations(&self) -> usize {
        self.items.len()
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::BatchDestroyDataKeysResponse>, Failed> {
        batch::reserve_answer(call, self.items.iter().map(|_| field_bytes(TIME_BYTES_MAX)))?;
        let items: Vec<_> = self.items.iter().map(|item| parse::dek_uid("items.uid", &item.uid)).collect();
        let uids: Vec<DekUid> = items.iter().filter_map(|item| item.as_ref().ok().copied()).collect();
        let (keyring, fate) = (call.keyring(), Fate::of(call, &self.tenant, &self.key));
        let done = keyring.destroy_data_keys(&self.tenant, &self.key, &uids, true, &self.terms, &call.who).await?;
        // Where nothing was done at all, that is what the call says.
        if let [Err(error), ..] = &done.parts[..]
            && !matches!(error, keyring::Error::DataKeysGone(_))
            && done.parts.iter().all(Result::is_err)
        {
            return Err(done.parts.into_iter().find_map(Result::err).unwrap_or(keyring::Error::Conflict).into());
        }
        remember(call, &done, &items)?;
        let mut fates = done.fates();
        let result = |item: Result<DekUid, Error>| {
            let error = match item.map(|_| fates.next()) {
                Ok(Some(Ok(at))) => {
                    return v1::BatchDestroyDataKeysResult { destroy_time: Some(timestamp(at)), error: None };
                }
                Ok(Some(Err(Undone::Gone(gone)))) => fate.item_error(&error_of(gone)),
                Ok(Some(Err(Undone::Failed(error)))) => item_error_of_keyring(error),
                Ok(None) => item_error(&keyring::Error::Damaged("a data key without a fate").into()),
                Err(error) => item_error(&error),
            };
            v1::BatchDestroyDataKeysResult { destroy_time: None, error: Some(error) }
        };
        let results = items.into_iter().map(result).collect();
        let lease_end_time = done.lease_end().map(timestamp);
        Ok(Done::remembered(v1::BatchDestroyDataKeysResponse { lease_end_time, results }))
    }
}

/// Sees to the record of each part: one that was destroyed has it, the others get one now; and so do
/// items that cannot be a data key's uid.
fn remember(call: &Call<'_>, done: &DestroyedDataKeys, items: &[Result<DekUid, Error>]) -> Result<(), Error> {
    for part in &done.parts {
        match part {
            Ok(done) => match of_change(&done.how) {
                Ok(index) => call.written(index),
                Err(leaf) => {
                    call.remember(Leaf { cnt: Some(done.part.fates.len() as u64), ..*leaf }, Outcome::Ok)?;
                }
            },
            Err(keyring::Error::DataKeysGone(gone)) => {
                let mut tally = Tally::new();
                gone.iter().for_each(|gone| tally.failed(&error_of(*gone), [0; 16]));
                call.remember(tally.leaf_of_uids(Leaf::default()), Outcome::Failed)?;
            }
            Err(error) => {
                let leaf =
                    Leaf { why: Some(item_error_of_keyring(error).reason().as_reason().into()), ..Leaf::default() };
                call.remember(leaf, Outcome::Failed)?;
            }
        }
    }
    let bad: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
    for part in bad.chunks(PART_ITEMS) {
        let mut tally = Tally::new();
        part.iter().for_each(|error| tally.failed(error, [0; 16]));
        call.remember(tally.leaf_of_uids(Leaf::default()), Outcome::Failed)?;
    }
    Ok(())
}

/// The most bytes of a time.
const TIME_BYTES_MAX: usize = 18;
