//! Gives out managed data keys.
//!
//! Rows are read outside the gate, for that may wait for the disk, and used inside, if none of them
//! was destroyed in between: then they are read again. A key that was re-wrapped in between opens as
//! it was read, unless its old version is gone by now.
//!
//! **Invariant:** no data key is given out after the record of its destruction
//! (`none_is_given_out_after_its_destruction`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::crypto::{ContextHash, Dek, OpenError};
use crate::noun::{DekUid, KeyName, KeyVersion, TenantName, Uid};

use super::super::cache::{Entry, LoadedKey, LoadedVersion};
use super::super::load::{InUse, Missing, ROUNDS_MAX, try_enter, usable_version};
use super::super::state::KeyState;
use super::super::view::KeyPurpose;
use super::super::{Error, Keyring, row_key};
use super::{DekRow, tell_of_damage};

/// Managed data keys on their way out. The gate stays entered: the caller hands the record to the log
/// without an await, and then drops this.
pub struct GotDataKeys {
    /// What is in use.
    pub in_use: InUse,
    /// The uid of their key.
    pub key: Uid,
    /// Each, in the order asked for.
    pub keys: Vec<Result<GotDataKey, Error>>,
}

/// One of them.
pub struct GotDataKey {
    /// The key.
    pub dek: Dek,
    /// The version that wraps it.
    pub version: KeyVersion,
    /// The commitment of its wrapping, which is public.
    pub commitment: [u8; 32],
}

/// What was read outside the gate.
struct Read {
    entry: Arc<Entry>,
    /// How many destructions there had been before the rows were read.
    generation: u64,
    key: Uid,
    rows: Vec<Result<Option<DekRow>, Error>>,
}

/// The versions that are wanted: in memory, or why not.
type Versions = HashMap<KeyVersion, Result<Arc<LoadedVersion>, Unusable>>;

/// Why a version is not to be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unusable {
    State(KeyState),
    /// It never was: what names it is damaged.
    Missing,
}

impl Keyring {
    /// Unwraps managed data keys of a key, each in the context that it was made with.
    pub async fn get_data_keys(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        wanted: &[(DekUid, ContextHash)],
    ) -> Result<GotDataKeys, Error> {
        let mut read_again = false;
        for _ in 0..READS_MAX {
            let read = self.read_data_keys(tenant, name, wanted).await?;
            let Some((in_use, versions)) = self.enter_versions(tenant, name, &read).await? else { continue };
            if read.entry.destroyed_deks.any_since(read.generation, wanted.iter().map(|(uid, _)| uid)) {
                continue;
            }
            // A version is destroyed only once nothing is left on it: then the rows were moved since.
            let moved = versions.values().any(|one| matches!(one, Err(Unusable::State(KeyState::Destroyed))));
            if moved && !std::mem::replace(&mut read_again, true) {
                continue;
            }
            // No await from here on.
            let open = |((uid, context), row): (&(DekUid, ContextHash), Result<Option<DekRow>, Error>)| {
                let opened = row.and_then(|row| open(tenant, read.key, *uid, context, row.as_ref(), &versions));
                opened.inspect_err(|error| {
                    if let Error::Damaged(what) = error {
                        tell_of_damage(uid, what);
                    }
                })
            };
            let keys = wanted.iter().zip(read.rows).map(open).collect();
            return Ok(GotDataKeys { in_use, key: read.key, keys });
        }
        Err(Error::Overloaded)
    }

    /// Reads the rows, outside the gate.
    async fn read_data_keys(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        wanted: &[(DekUid, ContextHash)],
    ) -> Result<Read, Error> {
        let (entry, in_use, key) = self.enter_key(tenant, name).await?;
        let generation = entry.destroyed_deks.generation();
        let (tenant_uid, key) = (in_use.tenant_uid(), key.uid);
        drop(in_use);
        let places: Vec<_> = wanted.iter().map(|(uid, _)| row_key::dek(tenant_uid, key, *uid)).collect();
        let parse = |row: Option<Vec<u8>>| row.map(|row| DekRow::parse(key, &row)).transpose();
        let rows = self.store.get_many(&places).await?.into_iter().map(parse).collect();
        Ok(Read { entry, generation, key, rows })
    }

    /// Enters for a key, without a version yet.
    async fn enter_key(
        &self,
        tenant: &TenantName,
        name: &KeyName,
    ) -> Result<(Arc<Entry>, InUse, Arc<LoadedKey>), Error> {
        for _ in 0..ROUNDS_MAX {
            let entry = self.cache.entry(tenant);
            let missing = match try_enter(&entry, &[])? {
                Ok(in_use) => match in_use.usable_key(name, KeyPurpose::Managed)? {
                    Ok(key) => return Ok((entry, in_use, key)),
                    Err(missing) => missing,
                },
                Err(missing) => missing,
            };
            self.supply(&entry, tenant, missing).await?;
        }
        Err(Error::CacheFull)
    }

    /// Enters by the entry under which the rows were read, with the versions that wrap them. Nothing
    /// if that entry has left the cache.
    async fn enter_versions(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        read: &Read,
    ) -> Result<Option<(InUse, Versions)>, Error> {
        let living = read.rows.iter().flatten().flatten().filter_map(DekRow::version);
        let mut numbers: BTreeSet<KeyVersion> = living.collect();
        let mut missing_ever = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let missing = match try_enter(&read.entry, &[])? {
                Ok(in_use) => match in_use.usable_key(name, KeyPurpose::Managed)? {
                    Ok(key) => match versions_of(&key, name, &numbers)? {
                        Ok(mut versions) => {
                            versions.extend(missing_ever.iter().map(|number| (*number, Err(Unusable::Missing))));
                            return Ok(Some((in_use, versions)));
                        }
                        Err(missing) => missing,
                    },
                    Err(missing) => vec![missing],
                },
                Err(Missing::Evicted) => return Ok(None),
                Err(missing) => vec![missing],
            };
            // Outside the gate again.
            for missing in missing {
                let version = if let Missing::Version(_, version) = &missing { Some(*version) } else { None };
                match (self.supply(&read.entry, tenant, missing).await, version) {
                    (Ok(()), _) => {}
                    (Err(Error::Open(OpenError::Version)), Some(version)) => {
                        numbers.remove(&version);
                        missing_ever.push(version);
                    }
                    (Err(error), _) => return Err(error),
                }
            }
        }
        Err(Error::CacheFull)
    }
}

/// Returns all these versions, or all that are missing.
fn versions_of(
    key: &LoadedKey,
    name: &KeyName,
    numbers: &BTreeSet<KeyVersion>,
) -> Result<Result<Versions, Vec<Missing>>, Error> {
    let (mut versions, mut missing) = (Versions::with_capacity(numbers.len()), Vec::new());
    for number in numbers {
        match usable_version(key, name, *number) {
            Ok(Ok(version)) => drop(versions.insert(*number, Ok(version))),
            Ok(Err(one)) => missing.push(one),
            Err(Error::VersionState(state)) => drop(versions.insert(*number, Err(Unusable::State(state)))),
            Err(error) => return Err(error),
        }
    }
    Ok(if missing.is_empty() { Ok(versions) } else { Err(missing) })
}

fn open(
    tenant: &TenantName,
    key: Uid,
    uid: DekUid,
    context: &ContextHash,
    row: Option<&DekRow>,
    versions: &Versions,
) -> Result<GotDataKey, Error> {
    let living = match row {
        None => return Err(Error::DataKeyNotFound),
        Some(DekRow::Destroyed(_)) => return Err(Error::DataKeyDestroyed),
        Some(DekRow::Living(living)) => living,
    };
    if !living.context.is(context) {
        return Err(Error::Open(OpenError::Commitment));
    }
    let version = match versions.get(&living.version) {
        Some(Ok(version)) => version,
        Some(Err(Unusable::State(state))) => return Err(Error::VersionState(*state)),
        Some(Err(Unusable::Missing)) | None => return Err(Error::Damaged("a data key under a version that never was")),
    };
    let kek = version.kek.as_ref().ok_or(Error::Damaged("an enabled version without its KEK"))?;
    // The row says this context, so that the caller is right and the row is not.
    let dek = kek
        .unwrap_managed_dek(key, living.version, tenant, &uid, context, &living.blob)
        .map_err(|_| Error::Damaged("a data key that does not open"))?;
    Ok(GotDataKey { dek, version: living.version, commitment: living.blob.commitment() })
}

/// How often rows are read again that were destroyed, or lost their version, while they were read.
const READS_MAX: usize = 8;
