//! How many managed data keys there are: of each version, and of each tenant.
//!
//! A batch that makes, moves or destroys some changes the counters with them. The tenant's turn is
//! held from before they are read until the batch is durable.

use std::collections::BTreeMap;

use crate::noun::{KeyVersion, Uid};
use crate::rows;
use crate::store::{Precondition, RowKey, Write};

use super::super::{Error, Keyring, row, row_key};

/// The counters of a tenant, as they will be when all that was counted is written.
pub(in crate::keyring) struct Counting {
    tenant: Uid,
    versions: BTreeMap<(Uid, KeyVersion), Counted>,
    /// How many more, or fewer, the tenant has.
    more: i64,
}

struct Counted {
    before: Vec<u8>,
    count: rows::DekCount,
}

impl Counting {
    pub(in crate::keyring) fn of(tenant: Uid) -> Self {
        Self { tenant, versions: BTreeMap::new(), more: 0 }
    }

    /// Reads the counter of a version, so that it can be changed.
    pub(in crate::keyring) async fn read(
        &mut self,
        keyring: &Keyring,
        key: Uid,
        version: KeyVersion,
    ) -> Result<(), Error> {
        if self.versions.contains_key(&(key, version)) {
            return Ok(());
        }
        let (before, count) = keyring.read_dek_count(self.tenant, key, version).await?;
        self.versions.insert((key, version), Counted { before, count });
        Ok(())
    }

    /// Counts more, or fewer, of a version whose counter was read.
    pub(in crate::keyring) fn add(&mut self, key: Uid, version: KeyVersion, more: i64) -> Result<(), Error> {
        let counted = self.versions.get_mut(&(key, version)).ok_or(IMPOSSIBLE_COUNT)?;
        counted.count.deks = counted.count.deks.checked_add_signed(more).ok_or(IMPOSSIBLE_COUNT)?;
        self.more += more;
        Ok(())
    }

    /// Adds what was counted to a batch.
    pub(in crate::keyring) async fn write(
        self,
        keyring: &Keyring,
        preconditions: &mut Vec<Precondition>,
        writes: &mut Vec<Write>,
    ) -> Result<(), Error> {
        let mut change = |place: RowKey, before, record| {
            preconditions.push(Precondition::Equals(place.clone(), before));
            writes.push(Write::Put(place, record));
        };
        for ((key, version), Counted { before, count }) in self.versions {
            let place = row_key::dek_count(self.tenant, key, version);
            let record = keyring.seal_cluster_row(&place, &rows::DekCount { rev: count.rev + 1, ..count });
            change(place, before, record);
        }
        if self.more != 0 {
            let (place, before, counters) = keyring.counters(self.tenant).await?;
            let deks = counters.deks.checked_add_signed(self.more).ok_or(IMPOSSIBLE_COUNT)?;
            let next = rows::TenantCounters { rev: counters.rev + 1, deks, ..counters };
            let record = keyring.seal_cluster_row(&place, &next);
            change(place, before, record);
        }
        Ok(())
    }
}

impl Keyring {
    /// The write that begins to count the managed data keys of a new version.
    pub(in crate::keyring) fn new_dek_count(&self, tenant: Uid, key: Uid, version: KeyVersion) -> Write {
        let place = row_key::dek_count(tenant, key, version);
        let record = self.seal_cluster_row(&place, &rows::DekCount { rev: 1, deks: 0 });
        Write::Put(place, record)
    }

    async fn read_dek_count(
        &self,
        tenant: Uid,
        key: Uid,
        version: KeyVersion,
    ) -> Result<(Vec<u8>, rows::DekCount), Error> {
        let found = self.read_cluster_row(&row_key::dek_count(tenant, key, version)).await?;
        found.ok_or(Error::Damaged("a version without the counter of its data keys"))
    }

    /// Returns how many managed data keys a version wraps; none if nothing counts them.
    pub(in crate::keyring) async fn deks_of_version(
        &self,
        tenant: Uid,
        key: Uid,
        version: KeyVersion,
    ) -> Result<u64, Error> {
        let place = row_key::dek_count(tenant, key, version);
        Ok(self.read_cluster_row::<rows::DekCount>(&place).await?.map_or(0, |(_, count)| count.deks))
    }

    /// Sums up how many managed data keys the versions of a tenant wrap, but for some of them.
    pub(in crate::keyring) async fn count_deks(
        &self,
        tenant: Uid,
        but: impl Fn(Uid, KeyVersion) -> bool,
    ) -> Result<u64, Error> {
        let mut deks = 0_u64;
        let add = |key, version, count| {
            if !but(key, version) {
                deks = deks.saturating_add(count);
            }
        };
        self.each_dek_count(tenant, &row_key::dek_counts_of_tenant(tenant), add).await?;
        Ok(deks)
    }

    /// Returns how many managed data keys each version of a key wraps: those that wrap any.
    pub(in crate::keyring) async fn deks_of_key(&self, tenant: Uid, key: Uid) -> Result<Vec<(KeyVersion, u64)>, Error> {
        let mut counts = Vec::new();
        let add = |_, version, count| {
            if count > 0 {
                counts.push((version, count));
            }
        };
        self.each_dek_count(tenant, &row_key::dek_counts(tenant, key), add).await?;
        Ok(counts)
    }

    /// Hands out the counters of a tenant that lie under a prefix: key, version and count.
    async fn each_dek_count(
        &self,
        tenant: Uid,
        prefix: &RowKey,
        mut each: impl FnMut(Uid, KeyVersion, u64),
    ) -> Result<(), Error> {
        self.each_row(prefix, |place, record| {
            let (key, version) = row_key::parse_dek_count(place)
                .ok_or(Error::Damaged("a row among the counters of data keys that is none"))?;
            let place = row_key::dek_count(tenant, key, version);
            let count: rows::DekCount = row::open(&self.cluster.record_mac, &place, record)?;
            each(key, version, count.deks);
            Ok(())
        })
        .await
    }
}

const IMPOSSIBLE_COUNT: Error = Error::Damaged("a count of data keys that cannot be");
