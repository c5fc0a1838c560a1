//! What all batch forms share: one decision, one key and one set of context pairs, and many items,
//! each with its result or its error, in order.
//!
//! Not here: what is done with one item. That is the verb's, and the same as in its single form.
//!
//! **Invariants:**
//! - what the answer may have at most is known, and taken from the budget, before any key is used;
//! - a part of up to [`PART_ITEMS`] items is done between two awaits: keys are entered for, used, the
//!   leaf has its index, and they are let go of.

use std::collections::HashMap;

use kms_proto::v1;

use super::MESSAGE_BYTES_MAX;
use super::error::Error;
use super::pipeline::{Call, Contexts, Done, Failed, Operation};
use super::status::item_error;
use super::tally::{Ids, Tally, id_of};
use crate::audit::Leaf;
use crate::crypto::{CallerPairs, ContextHash, Header, Kind};
use crate::keyring::{self, InUse, KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, KeyVersion, Random, TenantName, Uid};
use crate::policy::{Action, Resource};

/// The most items of one batch.
pub(super) const ITEMS_MAX: usize = 10_000;
/// Bytes of a data key in the clear.
pub(super) const DATA_KEY_BYTES: usize = 32;
/// The most bytes of a version and whether it is stale, in a result.
pub(super) const VERSION_BYTES_MAX: usize = 8;
/// The most items that are done at a time, and told of in one leaf.
pub(super) const PART_ITEMS: usize = keyring::ITEMS_PER_LEAF;

/// A verb in its form for many.
pub(super) trait Many: Sized + Send + Sync {
    /// The message it comes as.
    type Wire: Send;
    /// The message it is answered with.
    type Reply: Send;
    /// One item.
    type Item: Send + Sync;
    /// What is answered for one item.
    type Result: Send;
    /// The RPC's name, in the log.
    const NAME: &'static str;
    /// What its keys are for.
    const PURPOSE: KeyPurpose;

    /// WHAT: reads the message. What is wrong with one item only is said by [`Many::needs`].
    fn parse(wire: Self::Wire) -> Result<Batch<Self>, Error>;

    /// Says which permissions the batch needs; those of the single form.
    fn asks(batch: &Batch<Self>) -> Vec<(Action, Resource)>;

    /// Returns the pairs of each encryption context that it carries.
    fn contexts(&self) -> Contexts<'_>;

    /// Returns the key whose primary version seals, if the verb seals.
    fn seals_under(batch: &Batch<Self>) -> Option<&KeyName>;

    /// Says under which version of the batch's key an item lies, if it brought a blob; or what is wrong
    /// with it. No key is needed to tell.
    fn needs(&self, item: &Self::Item) -> Result<Option<Header>, Error>;

    /// Returns the length of the result of an item that succeeds, as a message.
    fn result_bytes(&self, item: &Self::Item) -> usize;

    /// DO: one item.
    fn one(&self, keys: Keys<'_>, item: &Self::Item, rng: &dyn Random) -> Result<Self::Result, Error>;

    /// Says of a version that was not let in what it means for an item under it.
    fn not_entered(error: Error) -> Error {
        error
    }

    /// Returns the result of an item that failed.
    fn refused(error: v1::ItemError) -> Self::Result;

    /// Says by which blobs the record names the items.
    fn ids(&self) -> Ids;

    /// Returns the blob that an item brought, for its record.
    fn given(_: &Self::Item) -> &[u8] {
        &[]
    }

    /// Returns the blob that was made, for its record.
    fn made(_: &Self::Result) -> &[u8] {
        &[]
    }

    /// Puts the answer together.
    fn reply(&self, done: All<Self::Result>) -> Self::Reply;
}

/// A batch as it was asked for.
pub(super) struct Batch<M: Many> {
    pub(super) tenant: TenantName,
    pub(super) key: KeyName,
    pub(super) items: Vec<M::Item>,
    pub(super) many: M,
}

impl<M: Many> Batch<M> {
    /// Takes a batch of a number of items that may be.
    pub(super) fn of((tenant, key): (TenantName, KeyName), items: Vec<M::Item>, many: M) -> Result<Self, Error> {
        check_count(items.len())?;
        Ok(Self { tenant, key, items, many })
    }

    /// Returns the batch's key as what permission is asked for.
    pub(super) fn resource(&self) -> Resource {
        Resource::Key(self.tenant.clone(), self.key.clone())
    }
}

/// Refuses a batch of no or too many items.
pub(super) fn check_count(count: usize) -> Result<(), Error> {
    if (1..=ITEMS_MAX).contains(&count) {
        Ok(())
    } else {
        Err(Error::Field { field: "items", rule: "must be 1 to 10,000" })
    }
}

/// Hashes the context of an item: the pairs of the batch, and an aad of its own.
pub(super) fn context(pairs: &CallerPairs, aad: &[u8]) -> Result<ContextHash, Error> {
    if aad.len() > AAD_BYTES_MAX {
        return Err(Error::ItemAad);
    }
    Ok(pairs.with_aad(aad)?)
}

/// The keys for one item. Of a verb that only opens, or only seals, both are the one key.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    /// The version that the item's blob lies under.
    pub(super) from: &'a KeyInUse,
    /// The version that seals.
    pub(super) to: &'a KeyInUse,
}

/// What became of all items.
pub(super) struct All<R> {
    /// One for each item, in their order.
    pub(super) results: Vec<R>,
    /// The version that sealed.
    pub(super) key_version: u32,
    /// How long a data key may be held.
    pub(super) lease_ms: Option<u64>,
}

impl<M: Many> Operation for Batch<M> {
    type Wire = M::Wire;
    type Reply = M::Reply;
    const NAME: &'static str = M::NAME;

    fn parse(wire: M::Wire) -> Result<Self, Error> {
        M::parse(wire)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        M::asks(self)
    }

    fn contexts(&self) -> Contexts<'_> {
        self.many.contexts()
    }

    fn about(&self) -> Leaf {
        super::pipeline::about(Some(&self.resource()))
    }

    fn operations(&self) -> usize {
        self.items.len()
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<M::Reply>, Failed> {
        reserve_answer(call, self.items.iter().map(|item| self.result_bytes(item)))?;
        let mut all = All { results: Vec::with_capacity(self.items.len()), key_version: 0, lease_ms: None };
        let mut sealing = None;
        for (number, part) in self.items.chunks(PART_ITEMS).enumerate() {
            if number > 0 {
                tokio::task::yield_now().await;
            }
            let needs: Vec<_> = part.iter().map(|item| self.many.needs(item)).collect();
            let entered = self.enter(call, &needs, sealing).await?;
            // Nothing may be awaited from here on until the part is remembered.
            if let Some(to) = entered.sealing() {
                all.key_version = to.version().get();
                // All items are sealed under one version, also when the key is rotated meanwhile.
                sealing = Some(Header { kind: Kind::Data, key_id: to.uid(), version: to.version() });
            }
            all.lease_ms = entered.in_use.as_ref().map(InUse::lease_ms).or(all.lease_ms);
            let mut tally = Tally::new();
            for (item, needs) in part.iter().zip(needs) {
                let done = needs
                    .and_then(|header| entered.keys_for(header).map_err(M::not_entered))
                    .and_then(|keys| self.many.one(keys, item, call.keyring().rng()));
                all.results.push(match done {
                    Ok(result) => {
                        tally.done(id_of(M::given(item)), id_of(M::made(&result)));
                        result
                    }
                    Err(error) => {
                        tally.failed(&error, id_of(M::given(item)));
                        M::refused(item_error(&error))
                    }
                });
            }
            let outcome = tally.outcome();
            for leaf in tally.leaves(&self.many.ids(), entered.leaf_of_opening(), entered.leaf_of_sealing()) {
                call.remember(leaf, outcome)?;
            }
            drop(entered);
        }
        Ok(Done::remembered(self.many.reply(all)))
    }
}

/// Refuses an answer that may be too long, and takes its bytes from the budget.
pub(super) fn reserve_answer(call: &Call<'_>, results: impl Iterator<Item = usize>) -> Result<(), Error> {
    let bytes = REPLY_HEAD_BYTES_MAX + results.map(|bytes| field_bytes(bytes.max(REFUSED_BYTES_MAX))).sum::<usize>();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(Error::AnswerTooLarge);
    }
    call.reserve(bytes)
}

/// Returns the bytes of a field of a message that has so many bytes itself.
pub(super) fn field_bytes(bytes: usize) -> usize {
    1 + prost::length_delimiter_len(bytes) + bytes
}

impl<M: Many> Batch<M> {
    fn result_bytes(&self, item: &M::Item) -> usize {
        self.many.needs(item).map_or(0, |_| self.many.result_bytes(item))
    }

    /// Enters for the versions that the items lie under, and for the one that seals. Those that are
    /// refused are an item's own failure; what concerns key or tenant fails the call.
    async fn enter(
        &self,
        call: &Call<'_>,
        needs: &[Result<Option<Header>, Error>],
        sealing: Option<Header>,
    ) -> Result<Entered, Error> {
        let which = sealing.map_or(Which::Primary, Which::Of);
        let to = M::seals_under(self).map(|key| Want { key, purpose: M::PURPOSE, which });
        let from = |header| Want { key: &self.key, purpose: M::PURPOSE, which: Which::Of(header) };
        let mut wanted: Vec<Header> = Vec::new();
        let mut places = HashMap::new();
        for header in needs.iter().filter_map(|needs| needs.as_ref().ok().copied().flatten()) {
            places.entry((header.key_id, header.version)).or_insert_with(|| {
                wanted.push(header);
                Err(keyring::Error::Conflict)
            });
        }
        // What is asked for together is loaded one by one and must stay: not more than a few.
        let mut singly = wanted.len() > WANTS_MAX;
        for _ in 0..ROUNDS_MAX {
            if singly {
                if let Some(to) = to {
                    drop(call.keyring().enter(&self.tenant, &[to]).await?);
                }
                let mut kept = Vec::with_capacity(wanted.len());
                for header in wanted {
                    match call.keyring().enter(&self.tenant, &[from(header)]).await {
                        Ok(_let_go) => kept.push(header),
                        Err(error) => {
                            let refused = of_item(&error).ok_or(error)?;
                            places.insert((header.key_id, header.version), Err(refused));
                        }
                    }
                }
                wanted = kept;
            }
            let wants: Vec<_> = to.into_iter().chain(wanted.iter().copied().map(from)).collect();
            if wants.is_empty() {
                return Ok(Entered { in_use: None, seals: false, places });
            }
            match call.keyring().enter(&self.tenant, &wants).await {
                Ok(in_use) => {
                    let before = usize::from(to.is_some());
                    for (place, header) in wanted.iter().enumerate() {
                        places.insert((header.key_id, header.version), Ok(before + place));
                    }
                    return Ok(Entered { in_use: Some(in_use), seals: to.is_some(), places });
                }
                // One of them: which, is seen when each is asked for alone.
                Err(error) if of_item(&error).is_some() && !wanted.is_empty() => singly = true,
                Err(error) => return Err(error.into()),
            }
        }
        // It was enabled and disabled again between all of these looks.
        Err(keyring::Error::Conflict.into())
    }
}

/// The keys of one part, in use.
pub(super) struct Entered {
    in_use: Option<InUse>,
    /// Whether the first one seals.
    seals: bool,
    /// Where the version of a blob is among the keys in use, or why it is not.
    places: HashMap<(Uid, KeyVersion), Result<usize, keyring::Error>>,
}

impl Entered {
    fn keys(&self) -> &[KeyInUse] {
        self.in_use.as_ref().map_or(&[][..], InUse::keys)
    }

    fn sealing(&self) -> Option<&KeyInUse> {
        self.keys().first().filter(|_| self.seals)
    }

    fn leaf_of_sealing(&self) -> Leaf {
        self.leaf(self.sealing().map_or(&[], std::slice::from_ref))
    }

    fn leaf_of_opening(&self) -> Leaf {
        self.leaf(self.keys().get(usize::from(self.seals)..).unwrap_or_default())
    }

    /// Says which key was used, and its version if it was just one.
    fn leaf(&self, versions: &[KeyInUse]) -> Leaf {
        let kv = if let [only] = versions { Some(only.version().get()) } else { None };
        Leaf {
            tuid: self.in_use.as_ref().map(|in_use| in_use.tenant_uid().to_string().into()),
            key: versions.first().map(|key| key.uid().to_string().into()),
            kv,
            ..Leaf::default()
        }
    }

    fn keys_for(&self, header: Option<Header>) -> Result<Keys<'_>, Error> {
        let missing = || keyring::Error::Damaged("a key was wanted, and it is not in use");
        let from = match header.map(|header| self.places.get(&(header.key_id, header.version))) {
            Some(Some(Ok(place))) => self.keys().get(*place),
            Some(Some(Err(refused))) => return Err(of_item(refused).unwrap_or_else(missing).into()),
            Some(None) => None,
            None => self.sealing(),
        };
        let from = from.ok_or_else(missing)?;
        Ok(Keys { from, to: self.sealing().unwrap_or(from) })
    }
}

/// Returns the same error again if it is of a blob, or of the one version it lies under. All others
/// are the call's.
fn of_item(error: &keyring::Error) -> Option<keyring::Error> {
    match error {
        keyring::Error::Open(cause) if !cause.is_for_want_of_room() => Some(keyring::Error::Open(*cause)),
        keyring::Error::VersionState(state) => Some(keyring::Error::VersionState(*state)),
        keyring::Error::VersionNotFound => Some(keyring::Error::VersionNotFound),
        _ => None,
    }
}

/// The longest aad of an item.
const AAD_BYTES_MAX: usize = 256;
/// All of an answer but its results: a version and a lease.
const REPLY_HEAD_BYTES_MAX: usize = 64;
/// The longest result that is an error: code, reason and a sentence of at most 160 bytes.
const REFUSED_BYTES_MAX: usize = 176;
/// The most versions that are entered for before each was entered for alone.
const WANTS_MAX: usize = 16;
/// How often versions may change their states between two looks.
const ROUNDS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::crypto::{InvalidContext, OpenError};
    use crate::keyring::KeyState;
    use crate::rpc::{decrypt, decrypt_data_key, encrypt, generate_data_key, generate_mac, re_encrypt, verify_mac};

    const KEY: &str = "tenants/acme/keys/app";

    fn batch<M: Many>(wire: M::Wire) -> Batch<M> {
        M::parse(wire).map_err(|error| error.to_string()).unwrap()
    }

    /// A blob of a kind, as long as it is around so many bytes.
    fn blob(kind: u8, bytes: usize) -> Vec<u8> {
        let header = [&[0x92, 0x6b, 0x35, 0x01, kind][..], &[7; 16], &[0xff; 3]].concat();
        [header, vec![0; 72 + bytes]].concat()
    }

    const VERSION: u32 = crate::noun::version::VERSION_MAX;

    #[test]
    fn no_result_is_longer_than_was_said_before() {
        let pairs = std::collections::BTreeMap::new;
        for bytes in [0, 1, 31, 127, 128, 16_384, 65_536] {
            let items = vec![v1::BatchEncryptItem { plaintext: vec![7; bytes], aad: Vec::new() }];
            let wire = v1::BatchEncryptRequest { key: KEY.into(), encryption_context: pairs(), items };
            let said = batch::<encrypt::BatchEncrypt>(wire);
            let longest = v1::BatchEncryptResult { ciphertext: vec![7; bytes + 96], error: None };
            assert_eq!(said.result_bytes(&said.items[0]), longest.encoded_len(), "{bytes}");

            let items = vec![v1::BatchDecryptItem { ciphertext: blob(1, bytes), aad: Vec::new() }];
            let wire = v1::BatchDecryptRequest { key: KEY.into(), encryption_context: pairs(), items };
            let said = batch::<decrypt::BatchDecrypt>(wire);
            let longest =
                v1::BatchDecryptResult { plaintext: vec![7; bytes], key_version: VERSION, stale: true, error: None };
            assert!((0..4).contains(&(said.result_bytes(&said.items[0]) - longest.encoded_len())), "{bytes}");

            let item = v1::BatchReEncryptItem { ciphertext: blob(1, bytes), ..v1::BatchReEncryptItem::default() };
            let wire = v1::BatchReEncryptRequest {
                key: KEY.into(),
                encryption_context: pairs(),
                destination: None,
                items: vec![item],
            };
            let said = batch::<re_encrypt::BatchReEncrypt>(wire);
            let ciphertext = vec![7; bytes + 96];
            let longest = v1::BatchReEncryptResult { ciphertext, source_key_version: VERSION, error: None };
            assert!((0..4).contains(&(said.result_bytes(&said.items[0]) - longest.encoded_len())), "{bytes}");
        }
        let items = vec![v1::BatchGenerateDataKeysItem { aad: Vec::new() }];
        let wire = v1::BatchGenerateDataKeysRequest {
            key: KEY.into(),
            omit_plaintext: false,
            encryption_context: pairs(),
            items,
        };
        let said = batch::<generate_data_key::BatchGenerateDataKeys>(wire);
        let longest =
            v1::BatchGenerateDataKeysResult { plaintext: vec![7; 32], wrapped_data_key: vec![7; 128], error: None };
        assert_eq!(said.result_bytes(&said.items[0]), longest.encoded_len());

        let items = vec![v1::BatchDecryptDataKeysItem { wrapped_data_key: blob(2, 32), aad: Vec::new() }];
        let wire = v1::BatchDecryptDataKeysRequest { key: KEY.into(), encryption_context: pairs(), items };
        let said = batch::<decrypt_data_key::BatchDecryptDataKeys>(wire);
        let longest =
            v1::BatchDecryptDataKeysResult { plaintext: vec![7; 32], key_version: VERSION, stale: true, error: None };
        assert!(said.result_bytes(&said.items[0]) >= longest.encoded_len());

        let items = vec![v1::BatchGenerateMacsItem { message: vec![7; 100], aad: Vec::new() }];
        let wire = v1::BatchGenerateMacsRequest { key: KEY.into(), encryption_context: pairs(), items };
        let said = batch::<generate_mac::BatchGenerateMacs>(wire);
        let longest = v1::BatchGenerateMacsResult { mac: vec![7; 56], error: None };
        assert_eq!(said.result_bytes(&said.items[0]), longest.encoded_len());

        let items = vec![v1::BatchVerifyMacsItem { message: vec![7; 100], mac: blob(7, 0), aad: Vec::new() }];
        let wire = v1::BatchVerifyMacsRequest { key: KEY.into(), encryption_context: pairs(), items };
        let said = batch::<verify_mac::BatchVerifyMacs>(wire);
        let longest = v1::BatchVerifyMacsResult { key_version: VERSION, stale: true, error: None };
        assert!(said.result_bytes(&said.items[0]) >= longest.encoded_len());
    }

    #[test]
    fn no_refusal_of_an_item_is_longer_than_is_reckoned_with() {
        let refusals: Vec<Error> = vec![
            Error::ItemAad,
            Error::OtherContext,
            Error::PlaintextTooLarge,
            Error::Mac(OpenError::Mac),
            InvalidContext::TooLong.into(),
            InvalidContext::ReservedName.into(),
            Error::Field { field: "items.uid", rule: "must be 16 bytes" },
            keyring::Error::Open(OpenError::Tag).into(),
            keyring::Error::WrongKind.into(),
            keyring::Error::VersionNotFound.into(),
            keyring::Error::VersionState(KeyState::PendingDestruction).into(),
            keyring::Error::VersionState(KeyState::Destroyed).into(),
            keyring::Error::Damaged("a key was wanted, and it is not in use").into(),
        ];
        for refusal in refusals {
            let error = item_error(&refusal);
            let bytes = encrypt::BatchEncrypt::refused(error.clone()).encoded_len();
            assert!(bytes <= REFUSED_BYTES_MAX, "{bytes}: {error:?}");
            assert!(error.code != 0 && error.reason != 0 && !error.message.is_empty());
        }
    }

    #[test]
    fn a_batch_has_1_to_10_000_items() {
        let count = |items| {
            let items = vec![v1::BatchGenerateDataKeysItem { aad: Vec::new() }; items];
            let wire = v1::BatchGenerateDataKeysRequest { key: KEY.into(), items, ..Default::default() };
            generate_data_key::BatchGenerateDataKeys::parse(wire).is_ok()
        };
        assert_eq!([0, 1, 10_000, 10_001].map(count), [false, true, true, false]);
    }

    #[test]
    fn moving_elsewhere_asks_for_the_rights_of_the_kinds_that_are_there() {
        let asks = |destination: bool, kinds: &[u8]| -> Vec<String> {
            let item = |kind: &u8| v1::BatchReEncryptItem { ciphertext: blob(*kind, 32), ..Default::default() };
            let wire = v1::BatchReEncryptRequest {
                key: KEY.into(),
                destination: destination
                    .then(|| v1::BatchDestination { key: "tenants/acme/keys/to".into(), ..Default::default() }),
                items: kinds.iter().map(item).collect(),
                ..Default::default()
            };
            let asks = batch::<re_encrypt::BatchReEncrypt>(wire).asks();
            asks.into_iter()
                .map(|(action, of)| format!("{action} {}", of.to_string().replace("tenants/acme/keys/", "")))
                .collect()
        };
        let (data, data_keys) = (["Decrypt app", "Encrypt to"], ["DecryptDataKey app", "GenerateDataKey to"]);
        assert_eq!(asks(false, &[1, 2]), ["ReEncrypt app"]);
        assert_eq!(asks(true, &[1, 1]), data);
        assert_eq!(asks(true, &[2, 2]), data_keys);
        assert_eq!(asks(true, &[2, 1]), [data, data_keys].concat());
        assert_eq!(asks(true, &[2, 3]), data_keys, "what is no blob of ours needs no right");
        assert_eq!(asks(true, &[3]), data, "but somebody must be allowed to ask");
    }

    #[test]
    fn an_aad_of_an_item_has_at_most_256_bytes() {
        let pairs = CallerPairs::of("acme", []).unwrap();
        assert!(context(&pairs, &[0; 256]).is_ok());
        assert!(matches!(context(&pairs, &[0; 257]), Err(Error::ItemAad)));
    }
}
