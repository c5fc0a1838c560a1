//! CreateDataKey: makes a managed data key, which the service keeps. BatchCreateDataKeys: many.
//!
//! Made under a request id that made them before, they are given out again, as a Get would.

use kms_proto::v1::{self, CreateDataKeyRequest, CreateDataKeyResponse};

use super::batch::{self, DATA_KEY_BYTES, PART_ITEMS, field_bytes};
use super::change::terms;
use super::convert::duration;
use super::error::Error;
use super::get_data_key::{Fate, about, get_one, get_part};
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::status::item_error;
use super::tally::{Ids, Tally};
use crate::audit::Leaf;
use crate::audit::leaf::REPEATED;
use crate::crypto::{CallerPairs, ContextHash};
use crate::keyring::{self, Created, MadeDataKey, NewDataKeys, Terms};
use crate::noun::{KeyName, KeyVersion, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct CreateDataKey {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    context_pairs: Pairs,
    omit_plaintext: bool,
    terms: Terms,
}

impl Operation for CreateDataKey {
    type Wire = CreateDataKeyRequest;
    type Reply = CreateDataKeyResponse;
    const NAME: &'static str = "CreateDataKey";

    fn parse(wire: CreateDataKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        let terms = terms(&wire.request_id, wire.validate_only, ("etag", ""))?;
        Ok(Self {
            tenant,
            key,
            context,
            omit_plaintext: wire.omit_plaintext,
            terms,
            context_pairs: wire.encryption_context,
        })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::CreateDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<CreateDataKeyResponse>, Failed> {
        let Self { tenant, key, context, omit_plaintext, terms, .. } = self;
        let new = NewDataKeys {
            tenant: tenant.clone(),
            key: key.clone(),
            contexts: vec![Some(context)],
            omit_plaintext,
            request_id: terms.request_id,
            rehearse: terms.rehearse,
            operation: Self::NAME,
            leaves: vec![about(&tenant, &key, None)],
            held: call.held(),
        };
        match call.keyring().create_data_keys(new, call.who.clone()).await? {
            Created::Made(mut made) => {
                let Some(MadeDataKey { uid, dek }) = made.keys.pop().flatten() else { return Err(NONE.into()) };
                let reply = CreateDataKeyResponse {
                    plaintext: dek.map(|dek| dek.expose_to_caller()).unwrap_or_default(),
                    uid: uid.as_bytes().to_vec(),
                    key_version: made.version.get(),
                    lease: (!omit_plaintext).then(|| duration(made.lease_ms)),
                };
                Ok(Done::written(reply, made.index))
            }
            Created::Before { uids } => {
                let uid = uids.into_iter().next().flatten().ok_or(NONE)?;
                let (got, dek, leaf) = get_one(call, &tenant, &key, uid, &context).await?;
                let reply = CreateDataKeyResponse {
                    plaintext: if omit_plaintext { Vec::new() } else { dek.dek.expose_to_caller() },
                    uid: uid.as_bytes().to_vec(),
                    key_version: dek.version.get(),
                    lease: (!omit_plaintext).then(|| duration(got.in_use.lease_ms())),
                };
                Ok(Done::used(reply, Leaf { why: Some(REPEATED.into()), ..leaf }, got.in_use))
            }
            Created::Rehearsed(version) => {
                let reply = CreateDataKeyResponse { key_version: version.get(), ..Default::default() };
                Ok(Done::rehearsed(reply))
            }
        }
    }
}

/// One was asked for, so that one comes back.
const NONE: keyring::Error = keyring::Error::Damaged("a data key was asked for, and none came");

pub(super) struct BatchCreateDataKeys {
    tenant: TenantName,
    key: KeyName,
    pairs: CallerPairs,
    context_pairs: Pairs,
    items: Vec<v1::BatchCreateDataKeysItem>,
    omit_plaintext: bool,
    terms: Terms,
}

impl Operation for BatchCreateDataKeys {
    type Wire = v1::BatchCreateDataKeysRequest;
    type Reply = v1::BatchCreateDataKeysResponse;
    const NAME: &'static str = "BatchCreateDataKeys";

    fn parse(wire: v1::BatchCreateDataKeysRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        batch::check_count(wire.items.len())?;
        let terms = terms(&wire.request_id, wire.validate_only, ("etag", ""))?;
        Ok(Self {
            tenant,
            key,
            pairs,
            context_pairs: wire.encryption_context,
            items: wire.items,
            omit_plaintext: wire.omit_plaintext,
            terms,
        })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::CreateDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn operations(&self) -> usize {
        self.items.len()
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::BatchCreateDataKeysResponse>, Failed> {
        let result_bytes = field_bytes(DATA_KEY_BYTES) + field_bytes(UID_BYTES);
        batch::reserve_answer(call, self.items.iter().map(|_| result_bytes))?;
        // Rows on their way to the store, and the keys meanwhile.
        call.reserve(self.items.len() * ROW_BYTES)?;
        let mut contexts = Vec::with_capacity(self.items.len());
        let mut leaves = Vec::with_capacity(self.items.len().div_ceil(PART_ITEMS));
        for part in self.items.chunks(PART_ITEMS) {
            let mut tally = Tally::new();
            for item in part {
                let context = batch::context(&self.pairs, &item.aad);
                match &context {
                    Ok(_) => tally.done([0; 16], [0; 16]),
                    Err(error) => tally.failed(error, [0; 16]),
                }
                contexts.push(context);
            }
            let about = about(&self.tenant, &self.key, None);
            leaves.extend(tally.leaves(&Ids::None, about, Leaf::default()));
            tokio::task::yield_now().await;
        }
        let new = NewDataKeys {
            tenant: self.tenant.clone(),
            key: self.key.clone(),
            contexts: contexts.iter().map(|context| context.as_ref().ok().copied()).collect(),
            omit_plaintext: self.omit_plaintext,
            request_id: self.terms.request_id.clone(),
            rehearse: self.terms.rehearse,
            operation: Self::NAME,
            leaves,
            held: call.held(),
        };
        match call.keyring().create_data_keys(new, call.who.clone()).await? {
            Created::Made(made) => {
                let results = contexts.into_iter().zip(made.keys).map(|(context, key)| match (context, key) {
                    (Ok(_), Some(MadeDataKey { uid, dek })) => v1::BatchCreateDataKeysResult {
                        plaintext: dek.map(|dek| dek.expose_to_caller()).unwrap_or_default(),
                        uid: uid.as_bytes().to_vec(),
                        error: None,
                    },
                    (Ok(_), None) => refused(item_error(&NONE.into())),
                    (Err(error), _) => refused(item_error(&error)),
                });
                let results = results.collect();
                let lease = (!self.omit_plaintext).then(|| duration(made.lease_ms));
                let key_version = made.version.get();
                Ok(Done::written(v1::BatchCreateDataKeysResponse { key_version, lease, results }, made.index))
            }
            Created::Before { uids } => {
                let fate = Fate::of(call, &self.tenant, &self.key);
                let mut reply = v1::BatchCreateDataKeysResponse::default();
                let wanted = contexts.into_iter().zip(&uids).map(|(context, uid)| {
                    let context = context?;
                    Ok((uid.ok_or(NONE)?, context))
                });
                let mut wanted: Vec<Result<_, Error>> = wanted.collect();
                let mut uids = uids.into_iter();
                while !wanted.is_empty() {
                    let rest = wanted.split_off(wanted.len().min(PART_ITEMS));
                    let part = std::mem::replace(&mut wanted, rest);
                    let (results, lease_ms) =
                        get_part(call, &self.tenant, &self.key, part, &fate, Some(REPEATED)).await?;
                    reply.lease = lease_ms.filter(|_| !self.omit_plaintext).map(duration).or(reply.lease);
                    for (result, uid) in results.into_iter().zip(uids.by_ref()) {
                        reply.results.push(match result {
                            Ok(got) => {
                                reply.key_version = reply.key_version.max(got.version.get());
                                v1::BatchCreateDataKeysResult {
                                    plaintext: if self.omit_plaintext {
                                        Vec::new()
                                    } else {
                                        got.dek.expose_to_caller()
                                    },
                                    uid: uid.map(|uid| uid.as_bytes().to_vec()).unwrap_or_default(),
                                    error: None,
                                }
                            }
                            Err(error) => refused(error),
                        });
                    }
                    tokio::task::yield_now().await;
                }
                Ok(Done::remembered(reply))
            }
            Created::Rehearsed(version) => Ok(Done::rehearsed(rehearsed(version, contexts))),
        }
    }
}

fn rehearsed(version: KeyVersion, contexts: Vec<Result<ContextHash, Error>>) -> v1::BatchCreateDataKeysResponse {
    let result = |context: Result<ContextHash, Error>| match context {
        Ok(_) => v1::BatchCreateDataKeysResult::default(),
        Err(error) => refused(item_error(&error)),
    };
    let results = contexts.into_iter().map(result).collect();
    v1::BatchCreateDataKeysResponse { key_version: version.get(), lease: None, results }
}

fn refused(error: v1::ItemError) -> v1::BatchCreateDataKeysResult {
    v1::BatchCreateDataKeysResult { error: Some(error), ..Default::default() }
}

/// What one data key takes while it is made, about.
const ROW_BYTES: usize = 1024;
/// Bytes of the uid of a data key.
const UID_BYTES: usize = 16;
