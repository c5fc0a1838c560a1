//! Managed data keys as they lie in the store of a daemon that does not run, and the counters beside
//! them: read row by row, without a key, and without the service.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use kms_server::rows;
use kms_server::store::rocks::{Limits, RocksStore};
use kms_server::store::{Family, PAGE_ROWS_MAX, Store as _};
use prost::Message;

use crate::Site;

/// Uids of tenant, key and data key, one behind the other.
pub type Place = [u8; 48];
/// Uids of tenant and key, and a version.
pub type Version = ([u8; 16], [u8; 16], u32);

/// What a store has of managed data keys.
#[derive(Clone, Debug, Default)]
pub struct StoredDataKeys {
    /// The row of each, destroyed ones too.
    pub rows: BTreeMap<Place, Vec<u8>>,
    /// What is counted, by version.
    pub counted: BTreeMap<Version, u64>,
    /// What is counted, by tenant.
    pub counted_of_tenants: BTreeMap<[u8; 16], u64>,
    /// Jobs that move some.
    pub jobs: usize,
}

/// What a row says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Row<'a> {
    /// It lives: the hash of its context, and its wrapping.
    Living {
        /// The hash of its context.
        context: &'a [u8],
        /// The version in the header of its wrapping.
        version: u32,
        /// The wrapping.
        blob: &'a [u8],
    },
    /// It was destroyed.
    Destroyed {
        /// When, in milliseconds since 1970.
        at: u64,
        /// The complement of the wrapping's commitment.
        complement: &'a [u8],
    },
}

impl<'a> Row<'a> {
    /// Takes a row apart: `02 || CTXH(32) || blob(128)`, or `03 || u48 ms || complement of C(32)`.
    pub fn of(row: &'a [u8]) -> Result<Self> {
        match (row.first(), row.len()) {
            (Some(2), 161) => {
                let (context, blob) = row[1..].split_at(32);
                let version = blob[21..24].iter().fold(0, |version, byte| version << 8 | u32::from(*byte));
                Ok(Self::Living { context, version, blob })
            }
            (Some(3), 39) => {
                let at = row[1..7].iter().fold(0, |at, byte| at << 8 | u64::from(*byte));
                Ok(Self::Destroyed { at, complement: &row[7..] })
            }
            _ => bail!("a row of {} bytes that begins with {:?}", row.len(), row.first()),
        }
    }
}

impl StoredDataKeys {
    /// Reads a copy of a site's store, whose daemon does not run: whatever crash has left there is left
    /// for the next start.
    pub async fn read(site: &Site) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kms-store-").tempdir()?;
        copy(&site.path("data/store"), folder.path())?;
        let limits = Limits { cache_bytes_max: 1 << 20, readers: 1, ..Limits::default() };
        let (store, _) = RocksStore::open_or_salvage(folder.path(), &limits).context("the copy of the store")?;
        let mut found = Self::default();
        for (place, row) in list(&store, Family::Dek, &[]).await? {
            let place = place[..].try_into().ok().context("the name of a data key's row has 48 bytes")?;
            found.rows.insert(place, row);
        }
        for (place, record) in list(&store, Family::Ops, &[4]).await? {
            // 04 || tenant || key || u24 version: by the bytes, as an outsider reads it.
            ensure!(place.len() == 36, "the name of a counter has {} bytes", place.len());
            let (tenant, key) = (place[1..17].try_into()?, place[17..33].try_into()?);
            let version = place[33..].iter().fold(0, |version, byte| version << 8 | u32::from(*byte));
            found.counted.insert((tenant, key, version), message::<rows::DekCount>(&record)?.deks);
        }
        for (place, record) in list(&store, Family::Ops, &[2]).await? {
            found.counted_of_tenants.insert(place[1..17].try_into()?, message::<rows::TenantCounters>(&record)?.deks);
        }
        found.jobs = list(&store, Family::Ops, &[5]).await?.len();
        store.close().await?;
        Ok(found)
    }

    /// Counts the rows that live, by version.
    pub fn scanned(&self) -> Result<BTreeMap<Version, u64>> {
        let mut scanned = BTreeMap::new();
        for (place, row) in &self.rows {
            if let Row::Living { version, .. } = Row::of(row)? {
                let (tenant, key) = (place[..16].try_into()?, place[16..32].try_into()?);
                *scanned.entry((tenant, key, version)).or_default() += 1;
            }
        }
        Ok(scanned)
    }

    /// Checks that every counter is what a scan of the rows counts, of versions and of tenants.
    pub fn check_counters(&self) -> Result<()> {
        let scanned = self.scanned()?;
        let counted: BTreeMap<_, _> =
            self.counted.iter().filter(|(_, count)| **count > 0).map(|(version, count)| (*version, *count)).collect();
        ensure!(counted == scanned, "the counters say {counted:?}, the rows {scanned:?}");
        let mut of_tenants: BTreeMap<[u8; 16], u64> = BTreeMap::new();
        for ((tenant, _, _), count) in &scanned {
            *of_tenants.entry(*tenant).or_default() += count;
        }
        let counted = self.counted_of_tenants.iter().filter(|(_, count)| **count > 0);
        let counted: BTreeMap<_, _> = counted.map(|(tenant, count)| (*tenant, *count)).collect();
        ensure!(counted == of_tenants, "the tenants' counters say {counted:?}, the rows {of_tenants:?}");
        Ok(())
    }

    /// Returns the row of a data key, wherever it is.
    pub fn row_of(&self, uid: &[u8]) -> Option<&[u8]> {
        self.rows.iter().find(|(place, _)| &place[32..] == uid).map(|(_, row)| &row[..])
    }

    /// Says what changed since an earlier reading beyond what moving and destroying may change: of a row
    /// that lives, the blob; of one that was destroyed since, everything.
    pub fn changed_beyond_blobs(&self, before: &Self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (place, old) in &before.rows {
            let name = hex(&place[32..]);
            let Some(new) = self.rows.get(place) else {
                wrong.push(format!("{name} has no row any more"));
                continue;
            };
            match (Row::of(old)?, Row::of(new)?) {
                (Row::Living { context: was, .. }, Row::Living { context: is, .. }) => {
                    if was != is {
                        wrong.push(format!("{name} has another context"));
                    }
                }
                // Which wrapping was the last one, nobody knows any more.
                (Row::Living { .. }, Row::Destroyed { at, .. }) if at > 0 => {}
                (Row::Destroyed { .. }, Row::Destroyed { .. }) if old == new => {}
                (was, is) => wrong.push(format!("{name} was {was:?} and is {is:?}")),
            }
        }
        wrong.extend(
            self.rows
                .keys()
                .filter(|place| !before.rows.contains_key(*place))
                .map(|place| format!("{} is there, which was not", hex(&place[32..]))),
        );
        Ok(wrong)
    }
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// A record is `01 || u24 version of its MAC's key || the message || MAC(32)`.
fn message<M: Message + Default>(record: &[u8]) -> Result<M> {
    let end = record.len().checked_sub(32).context("a record ends with its MAC")?;
    Ok(M::decode(record.get(4..end).context("a record is that long")?)?)
}

async fn list(store: &RocksStore, family: Family, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut rows, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let page = store.list(family, prefix, after.as_deref(), PAGE_ROWS_MAX).await?;
        after = page.rows.last().map(|(place, _)| place.clone()).filter(|_| page.more);
        rows.extend(page.rows);
        if after.is_none() {
            return Ok(rows);
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for (file, bytes) in crate::damage::contents(from)? {
        std::fs::write(to.join(file), bytes)?;
    }
    Ok(())
}
