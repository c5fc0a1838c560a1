//! GetDataKey: gives out a managed data key. BatchGetDataKeys: many.

use kms_proto::v1::{self, GetDataKeyRequest, GetDataKeyResponse};

use super::batch::{self, DATA_KEY_BYTES, PART_ITEMS, VERSION_BYTES_MAX, field_bytes};
use super::convert::duration;
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::status::item_error;
use super::tally::Tally;
use crate::audit::Leaf;
use crate::crypto::{CallerPairs, ContextHash};
use crate::keyring::{self, GotDataKey, GotDataKeys};
use crate::noun::{DekUid, KeyName, TenantName};
use crate::policy::{Action, Pairs, Resource};

pub(super) struct GetDataKey {
    tenant: TenantName,
    key: KeyName,
    uid: DekUid,
    context: ContextHash,
    context_pairs: Pairs,
}

impl Operation for GetDataKey {
    type Wire = GetDataKeyRequest;
    type Reply = GetDataKeyResponse;
    const NAME: &'static str = "GetDataKey";

    fn parse(wire: GetDataKeyRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let uid = parse::dek_uid("uid", &wire.uid)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        Ok(Self { tenant, key, uid, context, context_pairs: wire.encryption_context })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    fn about(&self) -> Leaf {
        about(&self.tenant, &self.key, Some(&self.uid))
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GetDataKeyResponse>, Failed> {
        let Self { tenant, key, uid, context, .. } = &self;
        let (got, dek, leaf) = get_one(call, tenant, key, *uid, context).await?;
        let reply = GetDataKeyResponse {
            plaintext: dek.dek.expose_to_caller(),
            key_version: dek.version.get(),
            lease: Some(duration(got.in_use.lease_ms())),
        };
        Ok(Done::used(reply, leaf, got.in_use))
    }
}

/// Says in a record which managed data key of which key is meant.
pub(super) fn about(tenant: &TenantName, key: &KeyName, uid: Option<&DekUid>) -> Leaf {
    let leaf = super::pipeline::about(Some(&Resource::Key(tenant.clone(), key.clone())));
    Leaf { did: uid.map(|uid| uid.to_string().into()), ..leaf }
}

/// Gets one managed data key, with what its record says.
pub(super) async fn get_one(
    call: &Call<'_>,
    tenant: &TenantName,
    key: &KeyName,
    uid: DekUid,
    context: &ContextHash,
) -> Result<(GotDataKeys, GotDataKey, Leaf), Failed> {
    let mut got = call.keyring().get_data_keys(tenant, key, &[(uid, *context)]).await?;
    let leaf = Leaf {
        did: Some(uid.to_string().into()),
        ctx: Some(hex::encode(got.in_use.context_in_log(context)).into()),
        ..key_leaf(&got)
    };
    match got.keys.pop() {
        Some(Ok(dek)) => {
            let bid = Some(hex::encode(&dek.commitment[..16]).into());
            let leaf = Leaf { kv: Some(dek.version.get()), bid, ..leaf };
            Ok((got, dek, leaf))
        }
        Some(Err(error)) => Err(refused(call, tenant, key, error.into(), leaf)),
        None => Err(keyring::Error::Damaged("a data key was wanted, and none came").into()),
    }
}

fn key_leaf(got: &GotDataKeys) -> Leaf {
    Leaf {
        tuid: Some(got.in_use.tenant_uid().to_string().into()),
        key: Some(got.key.to_string().into()),
        ..Leaf::default()
    }
}

/// Refuses one managed data key. That it was there is told only to those who may list such keys.
pub(super) fn refused(call: &Call<'_>, tenant: &TenantName, key: &KeyName, error: Error, leaf: Leaf) -> Failed {
    match Fate::of(call, tenant, key).told(&error) {
        Some(told) => Failed::hidden(told, &error, leaf),
        None => Failed::new(error, leaf),
    }
}

/// What a caller may know of managed data keys that were destroyed.
pub(super) struct Fate {
    may_know: bool,
}

impl Fate {
    /// Asks policy, once for a call.
    pub(super) fn of(call: &Call<'_>, tenant: &TenantName, key: &KeyName) -> Self {
        Self { may_know: call.may(Action::ListDataKeys, &Resource::Key(tenant.clone(), key.clone())) }
    }

    /// Returns what the caller is told instead, if it may not know.
    pub(super) fn told(&self, error: &Error) -> Option<Error> {
        let destroyed = matches!(error, Error::Keyring(keyring::Error::DataKeyDestroyed));
        (destroyed && !self.may_know).then(|| keyring::Error::DataKeyNotFound.into())
    }

    /// Makes the error of an item.
    pub(super) fn item_error(&self, error: &Error) -> v1::ItemError {
        self.told(error).map_or_else(|| item_error(error), |told| item_error(&told))
    }
}

pub(super) struct BatchGetDataKeys {
    tenant: TenantName,
    key: KeyName,
    pairs: CallerPairs,
    context_pairs: Pairs,
    items: Vec<v1::BatchGetDataKeysItem>,
}

impl Operation for BatchGetDataKeys {
    type Wire = v1::BatchGetDataKeysRequest;
    type Reply = v1::BatchGetDataKeysResponse;
    const NAME: &'static str = "BatchGetDataKeys";

    fn parse(wire: v1::BatchGetDataKeysRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let pairs = parse::pairs(&tenant, &wire.encryption_context)?;
        batch::check_count(wire.items.len())?;
        Ok(Self { tenant, key, pairs, context_pairs: wire.encryption_context, items: wire.items })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetDataKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    fn operations(&self) -> usize {
        self.items.len()
    }

    fn contexts(&self) -> Contexts<'_> {
        [Some(&self.context_pairs), None]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::BatchGetDataKeysResponse>, Failed> {
        let result_bytes = field_bytes(DATA_KEY_BYTES) + VERSION_BYTES_MAX;
        batch::reserve_answer(call, self.items.iter().map(|_| result_bytes))?;
        let fate = Fate::of(call, &self.tenant, &self.key);
        let mut reply = v1::BatchGetDataKeysResponse { lease: None, results: Vec::with_capacity(self.items.len()) };
        for (number, part) in self.items.chunks(PART_ITEMS).enumerate() {
            if number > 0 {
                tokio::task::yield_now().await;
            }
            let read = |item: &v1::BatchGetDataKeysItem| {
                Ok((parse::dek_uid("items.uid", &item.uid)?, batch::context(&self.pairs, &item.aad)?))
            };
            let wanted = part.iter().map(read).collect();
            let (results, lease_ms) = get_part(call, &self.tenant, &self.key, wanted, &fate, None).await?;
            reply.lease = lease_ms.map(duration).or(reply.lease);
            reply.results.extend(results.into_iter().map(|result| match result {
                Ok(got) => v1::BatchGetDataKeysResult {
                    plaintext: got.dek.expose_to_caller(),
                    key_version: got.version.get(),
                    error: None,
                },
                Err(error) => v1::BatchGetDataKeysResult { error: Some(error), ..Default::default() },
            }));
        }
        Ok(Done::remembered(reply))
    }
}

/// Gets a part of many managed data keys, and remembers it. `why` says in the record of those that
/// were got why they were.
pub(super) async fn get_part(
    call: &Call<'_>,
    tenant: &TenantName,
    key: &KeyName,
    wanted: Vec<Result<(DekUid, ContextHash), Error>>,
    fate: &Fate,
    why: Option<&'static str>,
) -> Result<(Vec<Result<GotDataKey, v1::ItemError>>, Option<u64>), Error> {
    let good: Vec<_> = wanted.iter().filter_map(|wanted| wanted.as_ref().ok().copied()).collect();
    let mut got = match &good[..] {
        [] => None,
        good => Some(call.keyring().get_data_keys(tenant, key, good).await?),
    };
    // Nothing may be awaited from here on until the part is remembered.
    let mut keys = got.as_mut().map(|got| std::mem::take(&mut got.keys)).unwrap_or_default().into_iter();
    let (mut tally, mut results) = (Tally::new(), Vec::with_capacity(wanted.len()));
    let mut versions = Vec::new();
    for wanted in wanted {
        let missing = || Err(keyring::Error::Damaged("a data key was wanted, and none came"));
        let (uid, one) = match wanted {
            Ok((uid, _)) => (*uid.as_bytes(), keys.next().unwrap_or_else(missing).map_err(Error::from)),
            Err(error) => ([0; 16], Err(error)),
        };
        results.push(match one {
            Ok(dek) => {
                tally.done(uid, [0; 16]);
                versions.push(dek.version.get());
                Ok(dek)
            }
            Err(error) => {
                tally.failed(&error, uid);
                Err(fate.item_error(&error))
            }
        });
    }
    versions.dedup();
    let kv = if let [only] = versions[..] { Some(only) } else { None };
    let outcome = tally.outcome();
    let mut leaf = tally.leaf_of_uids(Leaf { kv, ..got.as_ref().map(key_leaf).unwrap_or_default() });
    if let Some(why) = why {
        leaf.why = Some(leaf.why.map_or(why.into(), |causes| format!("{why};{causes}").into()));
    }
    call.remember(leaf, outcome)?;
    let lease_ms = got.as_ref().map(|got| got.in_use.lease_ms());
    drop(got);
    Ok((results, lease_ms))
}
