//! Makes managed data keys: what is asked for, what comes back, and one request's part of a batch.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::{Leaf, Outcome};
use crate::crypto::chain::commitment_of;
use crate::crypto::{ContextHash, Dek};
use crate::noun::{DekUid, KeyName, KeyVersion, Random, TenantName, UnixMillis};
use crate::rows;
use crate::store::{RowKey, Write};

use super::super::answered::{Parts, answer_name};
use super::super::load::InUse;
use super::super::terms::RequestId;
use super::super::{Error, Keyring, Who, row_key};
use super::ITEMS_PER_LEAF;
use super::row::LivingDek;

/// Managed data keys that somebody asks for, at least one.
pub struct NewDataKeys {
    /// The tenant.
    pub tenant: TenantName,
    /// The key that wraps them, of purpose MANAGED.
    pub key: KeyName,
    /// The encryption context of each; none for an item that is not good.
    pub contexts: Vec<Option<ContextHash>>,
    /// Whether only their uids are wanted.
    pub omit_plaintext: bool,
    /// Under which id the request may be repeated.
    pub request_id: Option<RequestId>,
    /// Everything is checked and nothing made.
    pub rehearse: bool,
    /// The operation, in the log.
    pub operation: &'static str,
    /// What the leaves say beside: one for each [`ITEMS_PER_LEAF`] items. Those of a batch have `cnt`.
    pub leaves: Vec<Leaf>,
    /// What the request holds for as long as it is worked on, also if nobody waits for it any more:
    /// its bytes of the budget.
    pub held: Box<dyn Send + Sync>,
}

/// What came of a request for managed data keys.
pub enum Created {
    /// They were made now.
    Made(MadeDataKeys),
    /// They were made before, under the same request id: they are to be given out again.
    Before {
        /// The uid of each, in the order asked for; none for an item that is not good.
        uids: Vec<Option<DekUid>>,
    },
    /// It was a rehearsal: they would be made under this version.
    Rehearsed(KeyVersion),
}

/// Managed data keys that were made.
pub struct MadeDataKeys {
    /// The version that was primary.
    pub version: KeyVersion,
    /// How long they may be held, in milliseconds.
    pub lease_ms: u64,
    /// Each, in the order asked for; none for an item that is not good.
    pub keys: Vec<Option<MadeDataKey>>,
    /// The index of the last leaf that tells of them.
    pub index: u64,
}

/// One managed data key that was made.
pub struct MadeDataKey {
    /// What it is found by.
    pub uid: DekUid,
    /// The key, if it is wanted.
    pub dek: Option<Dek>,
}

/// A request's part of a batch, ready to be written.
pub(super) struct Prepared {
    pub(super) keys: Vec<Option<MadeDataKey>>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) writes: Vec<Write>,
    pub(super) uids: Uids,
}

impl NewDataKeys {
    /// Returns how many are to be made.
    pub(super) fn good(&self) -> usize {
        self.contexts.iter().flatten().count()
    }

    /// Returns what its answer is found by.
    pub(super) fn answer_name(&self, who: &Who) -> Option<[u8; 16]> {
        let id = self.request_id.as_ref().filter(|_| !self.rehearse)?;
        Some(answer_name(who, self.operation, id, 0))
    }

    /// Returns a hash of all that was asked for, under a key of the tenant: the answer outlives the
    /// tenant, and nobody shall test guesses of contexts against it.
    pub(super) fn hash(&self, in_use: &InUse) -> Vec<u8> {
        let mut parts = Parts::default();
        parts.add(self.operation);
        parts.add(self.tenant.as_str());
        parts.add(self.key.as_str());
        parts.add(if self.omit_plaintext { "omit" } else { "give" });
        for context in &self.contexts {
            match context {
                Some(context) => parts.add_bytes(context.as_bytes()),
                None => parts.add_absent(),
            }
        }
        in_use.context_in_log(&ContextHash::from_row(parts.hash())).to_vec()
    }

    /// Makes them under the version in use. Yields between leaves: nothing is given out before all is
    /// durable and on record.
    pub(super) async fn prepare(&self, keyring: &Keyring, in_use: &InUse) -> Prepared {
        let (rng, one) = (&*keyring.rng, in_use.key());
        let uids = Uids::generate(keyring.clock.now(), rng);
        let (mut writes, mut made) = (Vec::with_capacity(self.contexts.len()), 0);
        let mut keys = Vec::with_capacity(self.contexts.len());
        let mut leaves = Vec::with_capacity(self.leaves.len());
        for (chunk, leaf) in self.contexts.chunks(ITEMS_PER_LEAF).zip(&self.leaves) {
            let first = uids.of(made);
            let mut last_blob = None;
            for context in chunk {
                let Some(context) = context else {
                    keys.push(None);
                    continue;
                };
                let uid = uids.of(made);
                made += 1;
                let dek = Dek::generate(rng);
                let blob = one.kek().wrap_managed_dek(one.uid(), one.version(), &self.tenant, &uid, context, &dek, rng);
                last_blob = commitment_of(blob.as_bytes());
                let row = LivingDek { context: *context, blob, version: one.version() };
                writes.push(Write::Put(row_key::dek(in_use.tenant_uid(), one.uid(), uid), row.to_bytes()));
                keys.push(Some(MadeDataKey { uid, dek: (!self.omit_plaintext).then_some(dek) }));
            }
            let leaf = Leaf {
                tuid: Some(in_use.tenant_uid().to_string().into()),
                key: Some(one.uid().to_string().into()),
                kv: Some(one.version().get()),
                ..leaf.clone()
            };
            leaves.push(match (last_blob, chunk) {
                (None, _) => leaf.ended(Outcome::Failed),
                (Some(commitment), [Some(context)]) if leaf.cnt.is_none() => Leaf {
                    did: Some(first.to_string().into()),
                    bid: Some(hex::encode(&commitment[..16]).into()),
                    ctx: Some(hex::encode(in_use.context_in_log(context)).into()),
                    ..leaf.ended(Outcome::Ok)
                },
                (Some(_), _) => Leaf { ids: Some(STANDARD.encode(first.as_bytes()).into()), ..leaf.ended(Outcome::Ok) },
            });
            tokio::task::yield_now().await;
        }
        Prepared { keys, leaves, writes, uids }
    }

    /// What is kept for a repetition.
    pub(super) fn answer(&self, asked: Vec<u8>, now: UnixMillis, uids: &Uids) -> rows::Answer {
        let new_data_keys = rows::AnsweredNewDataKeys {
            uid_prefix: uids.0.to_vec(),
            items: u32::try_from(self.contexts.len()).unwrap_or(u32::MAX),
        };
        rows::Answer { rev: 1, asked, made_ms: now, new_data_keys: Some(new_data_keys), ..rows::Answer::default() }
    }

    /// Returns the uids that an answer tells of.
    pub(super) fn answered(&self, answer: &rows::Answer) -> Result<Created, Error> {
        const DAMAGED: Error = Error::Damaged("an answer about data keys that are not those of the request");
        let answer = answer.new_data_keys.as_ref().ok_or(DAMAGED)?;
        if answer.items as usize != self.contexts.len() {
            return Err(DAMAGED);
        }
        let uids = Uids(answer.uid_prefix[..].try_into().map_err(|_| DAMAGED)?);
        let mut made = 0;
        let next = |context: &Option<ContextHash>| {
            context.is_some().then(|| {
                made += 1;
                uids.of(made - 1)
            })
        };
        Ok(Created::Before { uids: self.contexts.iter().map(next).collect() })
    }
}

/// The uids of one request: they begin alike, and count from 0 what was made.
pub(super) struct Uids([u8; 12]);

impl Uids {
    fn generate(now: UnixMillis, rng: &dyn Random) -> Self {
        let mut random = [0; 6];
        rng.fill(&mut random);
        Self(*DekUid::of(now, random, 0).as_bytes().first_chunk().expect("12 of 16 bytes"))
    }

    fn of(&self, place: u32) -> DekUid {
        let mut uid = [0; 16];
        uid[..12].copy_from_slice(&self.0);
        uid[12..].copy_from_slice(&place.to_be_bytes());
        DekUid::from_bytes(uid)
    }
}

/// Where the row lies that a write makes.
pub(super) fn place_of(write: &Write) -> &RowKey {
    let (Write::Put(place, _) | Write::Delete(place) | Write::DeletePrefix(place)) = write;
    place
}
