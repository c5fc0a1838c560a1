//! Destroys managed data keys: a call is one change for each thousand of them.
//!
//! The batch -> noted in memory -> the gate closed and drained for a moment -> the outcome. So whoever
//! gets one of them was inside before, and its record lies below the outcome.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::Leaf;
use crate::crypto::sha256;
use crate::noun::{DekUid, KeyName, TenantName, UnixMillis};
use crate::rows;
use crate::store::{Precondition, Write};

use super::super::create_key::key_leaf;
use super::super::mutation::{After, Changed, Effect, How, Object, Placed, Plan};
use super::super::state::KeyState;
use super::super::terms::Terms;
use super::super::view::KeyPurpose;
use super::super::{Change, Error, Keyring, Who, row, row_key};
use super::{Counting, DekRow, ITEMS_PER_LEAF};

/// Why a managed data key was not destroyed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// It never was there.
    Never,
    /// It was destroyed before.
    Before,
}

/// What one change did with its part of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DestroyedPart {
    /// When.
    pub at: UnixMillis,
    /// What became of each, in the order of the part.
    pub fates: Vec<Result<(), Gone>>,
}

/// What became of managed data keys that were to be destroyed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DestroyedDataKeys {
    /// When each was destroyed, in the order asked for.
    pub fates: Vec<Result<UnixMillis, Gone>>,
    /// When nobody who keeps to leases holds one of them any more; none if none was destroyed.
    pub lease_end: Option<UnixMillis>,
    /// How that came to be, for each part of [`ITEMS_PER_LEAF`]; none for one of which nothing was there.
    pub parts: Vec<Option<How>>,
}

/// Managed data keys that are to be destroyed in one change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataKeysToDestroy {
    /// Their tenant.
    pub tenant: TenantName,
    /// Their key.
    pub key: KeyName,
    /// Which; at most [`ITEMS_PER_LEAF`].
    pub uids: Arc<[DekUid]>,
    /// Whether the call was for many.
    pub is_batch: bool,
    /// The number of this part of the call.
    pub part: u32,
    /// A hash of all parts.
    pub call: [u8; 32],
    /// The leaf that tells of their destruction, if they came back and are destroyed again.
    pub again: Option<u64>,
}

impl DataKeysToDestroy {
    /// The operation, in the log.
    pub fn operation(&self) -> &'static str {
        if self.is_batch { "BatchDestroyDataKeys" } else { "DestroyDataKey" }
    }
}

impl Keyring {
    /// Destroys managed data keys, at least one, each once however often it is named.
    pub async fn destroy_data_keys(
        &self,
        tenant: &TenantName,
        key: &KeyName,
        uids: &[DekUid],
        is_batch: bool,
        terms: &Terms,
        who: &Who,
    ) -> Result<DestroyedDataKeys, Error> {
        let all: Vec<u8> = uids.iter().flat_map(|uid| *uid.as_bytes()).collect();
        let call = sha256(&all);
        // All are submitted before any is awaited: who hangs up loses only the reply.
        let mut submitted = Vec::with_capacity(uids.len().div_ceil(ITEMS_PER_LEAF));
        for (part, uids) in (0..).zip(uids.chunks(ITEMS_PER_LEAF)) {
            let (tenant, key, uids) = (tenant.clone(), key.clone(), Arc::from(uids));
            let keys = DataKeysToDestroy { tenant, key, uids, is_batch, part, call, again: None };
            submitted.push(self.submit(Change::DestroyDataKeys(keys), terms.clone(), who.clone())?);
        }
        let mut destroyed = DestroyedDataKeys::default();
        for (answer, uids) in submitted.into_iter().zip(uids.chunks(ITEMS_PER_LEAF)) {
            match answer.await.unwrap_or(Err(Error::ShuttingDown)) {
                Ok(Changed { object: Object::DataKeys(part), lease_end, how }) if part.fates.len() == uids.len() => {
                    destroyed.fates.extend(part.fates.iter().map(|fate| fate.map(|()| part.at)));
                    destroyed.lease_end = destroyed.lease_end.max(lease_end);
                    destroyed.parts.push(Some(how));
                }
                Ok(_) => return Err(Error::Damaged("an answer about data keys that are not those of the request")),
                Err(Error::DataKeysGone(gone)) => {
                    destroyed.fates.extend(gone.into_iter().map(Err));
                    destroyed.parts.push(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(destroyed)
    }

    pub(in crate::keyring) async fn plan_destroy_data_keys(&self, keys: &DataKeysToDestroy) -> Result<Plan, Error> {
        // What comes back is destroyed again, whatever state its tenant is in.
        let tenant = match keys.again {
            None => self.open_tenant_for_change(&keys.tenant).await?,
            Some(_) => self.open_tenant(&keys.tenant).await?,
        };
        let lease_ms = self.longest_lease_ms(&tenant);
        let (_, key) = self.read_key(&tenant.record_mac, tenant.uid, &keys.key).await?;
        if KeyPurpose::of_row(key.purpose)? != KeyPurpose::Managed {
            return Err(Error::PurposeNotSupported);
        }
        let state = KeyState::of_row(key.state)?;
        if state == KeyState::Destroyed {
            return Err(Error::KeyState(state));
        }
        let key = row::uid(&key.uid)?;
        let places: Vec<_> = keys.uids.iter().map(|uid| row_key::dek(tenant.uid, key, *uid)).collect();
        let found = self.store.get_many(&places).await?;

        // One that is named twice is destroyed once.
        let mut living = HashSet::new();
        let (mut fates, mut victims) = (Vec::with_capacity(found.len()), Vec::new());
        let mut counting = Counting::of(tenant.uid);
        for ((uid, place), record) in keys.uids.iter().zip(places).zip(found) {
            let row = record.as_deref().map(|record| DekRow::parse(key, record)).transpose()?;
            fates.push(match row {
                None => Err(Gone::Never),
                Some(DekRow::Destroyed(_)) => Err(Gone::Before),
                Some(DekRow::Living(dek)) => {
                    if living.insert(*uid) {
                        // One that came back was counted down when it was destroyed first.
                        if keys.again.is_none() {
                            counting.read(self, key, dek.version).await?;
                            counting.add(key, dek.version, -1)?;
                        }
                        victims.push((*uid, place, record.unwrap_or_default(), dek));
                    }
                    Ok(())
                }
            });
        }
        let Some((_, _, _, first)) = victims.first() else {
            return Err(Error::DataKeysGone(fates.iter().filter_map(|fate| fate.err()).collect()));
        };
        let intent = key_leaf(keys.operation(), &keys.tenant, &tenant, &keys.key, key, None);
        let intent = Leaf { deks: Some(victims.len() as u64), by: keys.again, ..intent };
        let intent = match &victims[..] {
            [(uid, ..)] if !keys.is_batch => Leaf {
                did: Some(uid.to_string().into()),
                tkc: Some(hex::encode(first.blob.commitment()).into()),
                ..intent
            },
            several => {
                let ids: Vec<u8> = several.iter().flat_map(|(uid, ..)| *uid.as_bytes()).collect();
                let failed = fates.iter().filter(|fate| fate.is_err()).count() as u64;
                Leaf {
                    cnt: Some(fates.len() as u64),
                    fail: Some(failed).filter(|failed| *failed > 0),
                    ids: Some(STANDARD.encode(ids).into()),
                    ..intent
                }
            }
        };
        let intent = Leaf { why: keys.again.map(|_| "CARRIED_OUT".into()), ..intent };
        let (mut preconditions, mut writes) = (Vec::new(), Vec::new());
        counting.write(self, &mut preconditions, &mut writes).await?;
        let effect = move |placed: &Placed| {
            let (mut uids, mut main_row) = (Vec::with_capacity(victims.len()), Vec::new());
            for (uid, place, record, dek) in victims {
                let shell = dek.shell(placed.now);
                if main_row.is_empty() {
                    main_row.clone_from(&shell);
                }
                preconditions.push(Precondition::Equals(place.clone(), record));
                writes.push(Write::Put(place, shell));
                uids.push(uid);
            }
            let after = After::DeksDestroyed(uids);
            let object = Object::DataKeys(DestroyedPart { at: placed.now, fates });
            Effect { preconditions, writes, main_row, after, object }
        };
        Ok(Plan { intent, before: None, lease_ms: Some(lease_ms), effect: Box::new(effect) })
    }
}

impl DestroyedPart {
    pub(in crate::keyring) fn to_answer(&self) -> rows::AnsweredGoneDataKeys {
        let places = |which| {
            let is = move |(_, fate): &(u32, &Result<(), Gone>)| **fate == Err(which);
            (0..).zip(&self.fates).filter(is).map(|(place, _)| place).collect()
        };
        rows::AnsweredGoneDataKeys {
            destroyed_ms: self.at,
            items: u32::try_from(self.fates.len()).unwrap_or(u32::MAX),
            missing: places(Gone::Never),
            gone_before: places(Gone::Before),
        }
    }

    pub(in crate::keyring) fn of_answer(answer: &rows::AnsweredGoneDataKeys) -> Result<Self, Error> {
        let items = usize::try_from(answer.items).ok().filter(|items| *items <= ITEMS_PER_LEAF);
        let mut fates = vec![Ok(()); items.ok_or(Error::Damaged("an answer about too many data keys"))?];
        for (places, gone) in [(&answer.missing, Gone::Never), (&answer.gone_before, Gone::Before)] {
            for place in places {
                let fate = fates.get_mut(*place as usize);
                *fate.ok_or(Error::Damaged("an answer about a data key that was not asked for"))? = Err(gone);
            }
        }
        Ok(Self { at: answer.destroyed_ms, fates })
    }
}
