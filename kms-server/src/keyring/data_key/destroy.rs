//! Destroys managed data keys: a call is one change for each thousand of them.
//!
//! The batch -> noted in memory -> the gate closed and drained for a moment -> the outcome. So whoever
//! gets one of them was inside before, and its record lies below the outcome.

use std::collections::HashMap;
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
use super::{Counting, DekRow, ITEMS_PER_LEAF, tell_of_damage};

/// Why a managed data key was not destroyed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// It never was there.
    Never,
    /// It was destroyed before.
    Before,
    /// What is there is no data key of this key, and opens nothing.
    Damaged,
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
#[derive(Debug)]
pub struct DestroyedDataKeys {
    /// What each change did, or why it was not made. The changes are independent: what one of them
    /// destroyed is destroyed, whatever became of the others.
    pub parts: Vec<Result<DonePart, Error>>,
    /// For each data key that was asked for: its part, and its place there.
    places: Vec<(usize, usize)>,
}

/// What one change did, and how.
#[derive(Debug)]
pub struct DonePart {
    /// What became of each.
    pub part: DestroyedPart,
    /// When nobody who keeps to leases holds one of them any more.
    pub lease_end: Option<UnixMillis>,
    /// How that came to be.
    pub how: How,
}

/// Why a data key was not destroyed, as far as is known.
#[derive(Debug)]
pub enum Undone<'a> {
    /// It was not there.
    Gone(Gone),
    /// Its change was not made.
    Failed(&'a Error),
}

impl DestroyedDataKeys {
    /// Tells what became of each data key, in the order asked for: when it was destroyed, or why not.
    pub fn fates(&self) -> impl Iterator<Item = Result<UnixMillis, Undone<'_>>> {
        self.places.iter().map(|(part, place)| match &self.parts[*part] {
            Ok(done) => done.part.fates[*place].map(|()| done.part.at).map_err(Undone::Gone),
            Err(Error::DataKeysGone(gone)) => Err(Undone::Gone(gone[*place])),
            Err(error) => Err(Undone::Failed(error)),
        })
    }

    /// Returns when nobody who keeps to leases holds one of them any more; none if none was destroyed.
    pub fn lease_end(&self) -> Option<UnixMillis> {
        self.parts.iter().flatten().filter_map(|done| done.lease_end).max()
    }
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
    /// Destroys managed data keys, each once however often it is named. Fails as a whole only before
    /// anything was done.
    pub async fn destroy_data_keys(
        &self,
        tenant: &TenantName,
        key: &KeyName,
        uids: &[DekUid],
        is_batch: bool,
        terms: &Terms,
        who: &Who,
    ) -> Result<DestroyedDataKeys, Error> {
        let (mut once, mut known, mut places) = (Vec::new(), HashMap::new(), Vec::with_capacity(uids.len()));
        for uid in uids {
            let number = *known.entry(*uid).or_insert_with(|| {
                once.push(*uid);
                once.len() - 1
            });
            places.push((number / ITEMS_PER_LEAF, number % ITEMS_PER_LEAF));
        }
        let call = sha256(&once.iter().flat_map(|uid: &DekUid| *uid.as_bytes()).collect::<Vec<u8>>());
        let change = |(part, uids): (u32, &[DekUid])| {
            let (tenant, key, uids) = (tenant.clone(), key.clone(), Arc::from(uids));
            Change::DestroyDataKeys(DataKeysToDestroy { tenant, key, uids, is_batch, part, call, again: None })
        };
        let changes = (0..).zip(once.chunks(ITEMS_PER_LEAF)).map(change).collect();
        let mut parts = Vec::new();
        // All wait together, or none does: who hangs up loses only the reply.
        for (answer, uids) in self.submit_all(changes, terms, who)?.into_iter().zip(once.chunks(ITEMS_PER_LEAF)) {
            parts.push(match answer.await.unwrap_or(Err(Error::ShuttingDown)) {
                Ok(Changed { object: Object::DataKeys(part), lease_end, how }) if part.fates.len() == uids.len() => {
                    Ok(DonePart { part, lease_end, how })
                }
                Ok(_) => Err(Error::Damaged("an answer about data keys that are not those of the request")),
                Err(error) => Err(error),
            });
        }
        Ok(DestroyedDataKeys { parts, places })
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

        let (mut fates, mut victims) = (Vec::with_capacity(found.len()), Vec::new());
        let mut counting = Counting::of(tenant.uid);
        for ((uid, place), record) in keys.uids.iter().zip(places).zip(found) {
            let row = record.as_deref().map(|record| DekRow::parse(key, record)).transpose();
            let dek = match row {
                Ok(None) => Err(Gone::Never),
                Ok(Some(DekRow::Destroyed(_))) => Err(Gone::Before),
                Ok(Some(DekRow::Living(dek))) => Ok(dek),
                Err(_) => Err(Gone::Damaged),
            };
            // One that came back was counted down when it was destroyed first.
            let dek = match dek {
                Ok(dek) if keys.again.is_none() => match counting.read(self, key, dek.version).await {
                    Ok(()) => {
                        counting.add(key, dek.version, -1)?;
                        Ok(dek)
                    }
                    Err(Error::Damaged(_)) => Err(Gone::Damaged),
                    Err(error) => return Err(error),
                },
                other => other,
            };
            if matches!(dek, Err(Gone::Damaged)) {
                tell_of_damage(uid, "it is left as it is");
            }
            fates.push(match dek {
                Ok(dek) => {
                    victims.push((*uid, place, record.unwrap_or_default(), dek));
                    Ok(())
                }
                Err(gone) => Err(gone),
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
                    why: why(&fates).map(Into::into),
                    ..intent
                }
            }
        };
        let intent = if keys.again.is_some() { Leaf { why: Some("CARRIED_OUT".into()), ..intent } } else { intent };
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

/// Says in the record which were not destroyed, by their places in the part, and why.
fn why(fates: &[Result<(), Gone>]) -> Option<String> {
    let causes =
        [(Gone::Never, "DATA_KEY_NOT_FOUND"), (Gone::Before, "DATA_KEY_DESTROYED"), (Gone::Damaged, "INTERNAL")];
    let told = causes.iter().filter_map(|(gone, reason)| {
        let places = fates.iter().enumerate().filter(|(_, fate)| **fate == Err(*gone));
        let places: Vec<_> = places.map(|(place, _)| place.to_string()).collect();
        (!places.is_empty()).then(|| format!("{reason} {}", places.join(",")))
    });
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then(|| told.join(";"))
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
            damaged: places(Gone::Damaged),
        }
    }

    pub(in crate::keyring) fn of_answer(answer: &rows::AnsweredGoneDataKeys) -> Result<Self, Error> {
        let items = usize::try_from(answer.items).ok().filter(|items| *items <= ITEMS_PER_LEAF);
        let mut fates = vec![Ok(()); items.ok_or(Error::Damaged("an answer about too many data keys"))?];
        let gone =
            [(&answer.missing, Gone::Never), (&answer.gone_before, Gone::Before), (&answer.damaged, Gone::Damaged)];
        for (places, gone) in gone {
            for place in places {
                let fate = fates.get_mut(*place as usize);
                *fate.ok_or(Error::Damaged("an answer about a data key that was not asked for"))? = Err(gone);
            }
        }
        Ok(Self { at: answer.destroyed_ms, fates })
    }
}
