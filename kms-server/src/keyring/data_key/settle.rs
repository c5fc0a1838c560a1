//! What a start does about managed data keys: it proves that none that was made is lost, and destroys
//! again what came back.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::audit::StoredLeaf;
use crate::audit::replay::destroys_data_keys;
use crate::noun::{DekUid, KeyName, TenantName, Uid};
use crate::rows;
use crate::store::{Store, StoreError};

use super::super::mutation::Mutator;
use super::super::open::OpenClusterError;
use super::super::state::KeyState;
use super::super::{Change, Error, Keyring, Terms, Who, row, row_key};
use super::{DataKeysToDestroy, DekRow, ITEMS_PER_LEAF};

/// Returns the index of a leaf that tells of managed data keys which the store lacks. Given are the
/// last such leaf of each tenant: within a tenant they lie in the log in the order of their batches,
/// and a store that was cut off lacks the last ones.
pub(in crate::keyring) async fn lost_data_keys(
    store: &dyn Store,
    last_made: impl Iterator<Item = &StoredLeaf>,
) -> Result<Option<u64>, StoreError> {
    for stored in last_made {
        let Some(made) = Told::of(stored) else { continue };
        if !made.key_lives(store).await? {
            continue;
        }
        let (Some(first), Some(count)) = (made.uids.first(), made.made()) else { continue };
        let mut last = *first.as_bytes();
        let begin = u32::from_be_bytes(*last.last_chunk().expect("4 of 16 bytes"));
        last[12..].copy_from_slice(&begin.saturating_add(count - 1).to_be_bytes());
        let places = [*first, DekUid::from_bytes(last)].map(|uid| row_key::dek(made.tenant, made.key, uid));
        if store.get_many(&places).await?.iter().any(Option::is_none) {
            return Ok(Some(stored.index));
        }
    }
    Ok(None)
}

/// What a leaf tells of managed data keys.
struct Told<'a> {
    stored: &'a StoredLeaf,
    tenant: Uid,
    key: Uid,
    uids: Vec<DekUid>,
}

impl<'a> Told<'a> {
    fn of(stored: &'a StoredLeaf) -> Option<Self> {
        let leaf = &stored.leaf;
        let uid = |text: Option<&str>| Uid::from_hex(text?);
        let uids = match (&leaf.did, &leaf.ids) {
            (Some(did), _) => hex::decode(&**did).ok()?,
            (None, Some(ids)) => STANDARD.decode(&**ids).ok()?,
            (None, None) => return None,
        };
        let uids = uids.chunks(16).map(DekUid::from_slice).collect::<Option<_>>()?;
        Some(Self { stored, tenant: uid(leaf.tuid.as_deref())?, key: uid(leaf.key.as_deref())?, uids })
    }

    /// Returns how many were made.
    fn made(&self) -> Option<u32> {
        let leaf = &self.stored.leaf;
        let made = leaf.cnt.unwrap_or(1).checked_sub(leaf.fail.unwrap_or(0))?;
        u32::try_from(made).ok().filter(|made| *made > 0)
    }

    /// Tells whether tenant and key are still there. Not verified: what is wrong with them is found
    /// where they are used.
    async fn key_lives(&self, store: &dyn Store) -> Result<bool, StoreError> {
        if store.get(&row_key::tenant(self.tenant)).await?.is_none() {
            return Ok(false);
        }
        let record = store.get(&row_key::key(self.tenant, self.key)).await?;
        let destroyed = |record: &Vec<u8>| {
            row::peek::<rows::Key>(record).is_ok_and(|key| key.state == KeyState::Destroyed.to_row())
        };
        Ok(!record.as_ref().is_some_and(destroyed))
    }
}

impl Mutator {
    /// Destroys again those managed data keys of which these leaves tell that they were destroyed, and
    /// which live in the store: somebody put old rows back. Returns how many.
    pub(in crate::keyring) async fn carry_out_data_keys(
        &mut self,
        told: &[StoredLeaf],
    ) -> Result<usize, OpenClusterError> {
        let mut carried_out = 0;
        for stored in told.iter().filter(|stored| destroys_data_keys(stored)) {
            let failed = |source| OpenClusterError::CarryOut { index: stored.index, source };
            let Some(back) = self.keyring().data_keys_back(stored).await.map_err(failed)? else { continue };
            let count = back.uids.len();
            match self.make_one(Change::DestroyDataKeys(back), Who::service()).await {
                Ok(_) => carried_out += count,
                // Of a tenant or key that cannot be opened nothing is of use to anybody.
                Err(error @ Error::Damaged(_)) => {
                    tracing::error!(index = stored.index, %error, "destroyed data keys have come back beside damaged rows");
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(carried_out)
    }
}

impl Keyring {
    /// Holds older destructions of managed data keys against the store, and destroys again what came
    /// back, until nobody sends any more, or until `stop`. A start does not wait for this: there may be
    /// very many.
    pub async fn carry_out_older(self: Arc<Self>, mut told: mpsc::Receiver<StoredLeaf>, stop: CancellationToken) {
        while let Some(Some(stored)) = stop.run_until_cancelled(told.recv()).await {
            let index = stored.index;
            // Whoever else wants something goes first: a data key that came back is not given up for that.
            let carried_out = loop {
                let carried_out = self.carry_out_one(&stored).await;
                let wait = match &carried_out {
                    Err(Error::Overloaded | Error::CacheFull) => AGAIN_AFTER,
                    _ => PACE,
                };
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    return;
                }
                if wait == PACE {
                    break carried_out;
                }
            };
            if let Err(error) = carried_out {
                tracing::error!(index, %error, "whether destroyed data keys have come back is not known, or they cannot be destroyed again");
            }
        }
    }

    async fn carry_out_one(&self, stored: &StoredLeaf) -> Result<(), Error> {
        let Some(back) = self.data_keys_back(stored).await? else { return Ok(()) };
        self.change(Change::DestroyDataKeys(back), Terms::default(), Who::service()).await.map(drop)
    }

    /// Returns those of a destruction's managed data keys that live.
    async fn data_keys_back(&self, stored: &StoredLeaf) -> Result<Option<DataKeysToDestroy>, Error> {
        let Some(told) = Told::of(stored) else { return Ok(None) };
        if !told.key_lives(&*self.store).await? {
            return Ok(None);
        }
        let places: Vec<_> = told.uids.iter().map(|uid| row_key::dek(told.tenant, told.key, *uid)).collect();
        let found = self.store.get_many(&places).await?;
        let lives = |row: &Option<Vec<u8>>| {
            row.as_ref().is_some_and(|row| matches!(DekRow::parse(told.key, row), Ok(DekRow::Living(_))))
        };
        let back = told.uids.iter().zip(&found).filter(|(_, row)| lives(row)).map(|(uid, _)| *uid);
        let uids: Arc<[DekUid]> = back.take(ITEMS_PER_LEAF).collect();
        let name = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
        let tenant: Option<TenantName> = name(&stored.leaf.ten).parse().ok();
        let key: Option<KeyName> = name(&stored.leaf.kn).parse().ok();
        let (Some(tenant), Some(key), false) = (tenant, key, uids.is_empty()) else { return Ok(None) };
        tracing::warn!(
            index = stored.index,
            count = uids.len(),
            "destroyed data keys have come back in the store: they are destroyed again"
        );
        Ok(Some(DataKeysToDestroy {
            tenant,
            key,
            uids,
            is_batch: true,
            part: 0,
            call: [0; 32],
            again: Some(stored.index),
        }))
    }
}

/// Between two destructions that are held against the store: each is a thousand reads at most.
const PACE: Duration = Duration::from_millis(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
