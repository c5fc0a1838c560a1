//! The store in memory: for tests and for `dev`.
//!
//! Not durable: an `Ok` lasts as long as the process. All else is as in the joint's contract, and
//! what the other stores do is compared with this one.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write as _};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use super::{Batch, Family, PAGE_ROWS_MAX, Page, Precondition, RowKey, Store, StoreError, Write, apart};

type Rows = BTreeMap<RowKey, Vec<u8>>;

/// Rows in memory; `None` once closed.
pub struct MemoryStore(Mutex<Option<Rows>>);

impl MemoryStore {
    /// Makes an empty store.
    #[allow(clippy::new_without_default)] // Stores are made on purpose, never by a derive.
    pub fn new() -> Self {
        Self(Mutex::new(Some(Rows::new())))
    }

    /// Reads what [`Store::checkpoint`] wrote. Blocks.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut dump = Vec::new();
        File::open(dir.join(DUMP))?.read_to_end(&mut dump)?;
        let rows = undump(&dump).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a checkpoint"))?;
        Ok(Self(Mutex::new(Some(rows))))
    }

    fn rows(&self) -> MutexGuard<'_, Option<Rows>> {
        self.0.lock().expect("nothing panics while it holds the rows")
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, row: &RowKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows().as_ref().ok_or_else(StoreError::closed)?.get(row).cloned())
    }

    async fn list(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        rows_max: usize,
    ) -> Result<Page, StoreError> {
        let rows = self.rows();
        let rows = rows.as_ref().ok_or_else(StoreError::closed)?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(RowKey::new(family, after)),
            Some(_) | None => Bound::Included(RowKey::new(family, prefix)),
        };
        let mut found = rows
            .range((start, Bound::Unbounded))
            .take_while(|(row, _)| row.family == family && row.key.starts_with(prefix))
            .map(|(row, value)| (row.key.clone(), value.clone()));
        let page = found.by_ref().take(rows_max.min(PAGE_ROWS_MAX)).collect();
        Ok(Page { rows: page, more: found.next().is_some() })
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.refuse_unsound()?;
        let mut rows = self.rows();
        let rows = rows.as_mut().ok_or_else(StoreError::closed)?;
        for precondition in &batch.preconditions {
            let holds = match precondition {
                Precondition::Absent(row) => !rows.contains_key(row),
                Precondition::Equals(row, value) => rows.get(row) == Some(value),
            };
            if !holds {
                return Err(StoreError::Conflict(precondition.row().clone()));
            }
        }
        for write in batch.writes {
            match write {
                Write::Put(row, value) => drop(rows.insert(row, value)),
                Write::Delete(row) => drop(rows.remove(&row)),
                Write::DeletePrefix(prefix) => {
                    rows.retain(|row, _| row.family != prefix.family || !row.key.starts_with(&prefix.key));
                }
            }
        }
        Ok(())
    }

    async fn shred(&self, _family: Family) -> Result<(), StoreError> {
        self.rows().as_ref().map(|_| ()).ok_or_else(StoreError::closed) // There are no files.
    }

    async fn checkpoint(&self, into: &Path) -> Result<(), StoreError> {
        let dump = dump(self.rows().as_ref().ok_or_else(StoreError::closed)?);
        let into = into.to_owned();
        let write = move || {
            DirBuilder::new().create(&into)?;
            File::create_new(into.join(DUMP))?.write_all(&dump)
        };
        apart("store-checkpoint", write).await?.map_err(StoreError::failed)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.rows().take().map(drop).ok_or_else(StoreError::closed)
    }
}

// DUMP v1 = 01 || (u8 family || u32 len key || key || u32 len value || value)*
// Families are numbered as in `Family::ALL`, lengths are big-endian.
const DUMP: &str = "rows";

fn dump(rows: &Rows) -> Vec<u8> {
    let mut dump = vec![1];
    for (row, value) in rows {
        dump.push(row.family as u8);
        for part in [&row.key, value] {
            dump.extend(u32::try_from(part.len()).expect("keys and values are far below 4 GiB").to_be_bytes());
            dump.extend(part);
        }
    }
    dump
}

fn undump(dump: &[u8]) -> Option<Rows> {
    fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, behind) = rest.split_first_chunk::<4>()?;
        let (part, behind) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        *rest = behind;
        Some(part)
    }
    let mut rest = dump.strip_prefix(&[1])?;
    let mut rows = Rows::new();
    while let Some((family, behind)) = rest.split_first() {
        rest = behind;
        let family = *Family::ALL.get(usize::from(*family))?;
        let row = RowKey::new(family, part(&mut rest)?);
        rows.insert(row, part(&mut rest)?.to_vec());
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    fn open(dir: &Path) -> MemoryStore {
        if dir.exists() { MemoryStore::open(dir).unwrap() } else { MemoryStore::new() }
    }

    #[tokio::test]
    async fn memory_store_keeps_the_contract() {
        contract::check(open).await;
    }

    #[test]
    fn a_torn_checkpoint_is_not_opened() {
        let rows = Rows::from([(RowKey::new(Family::Dek, *b"key"), b"value".to_vec())]);
        let whole = dump(&rows);
        assert_eq!(undump(&whole), Some(rows));
        for len in (0..whole.len()).filter(|len| *len != 1) {
            assert_eq!(undump(&whole[..len]), None, "{len} bytes");
        }
    }
}
