//! Where each row of the store lies. The one place that builds, or takes apart, a store key.
//!
//! ```text
//! root  `e` || u24 number                       an epoch
//!       `c`                                      the cluster
//!       `a` || u24 n                             an audit seed
//!       `s`                                      the store's position in the log
//!       `t` || tenant uid                        a tenant
//! name  00 || tenant name                        a tenant's name, or its tombstone
//!       01 || tenant uid || key name             a key's name
//! key   tenant uid || key uid || 00              a key
//!       tenant uid || key uid || 01 || u24 version
//!                                                a version of a key
//! ops   01 || tenant uid || ( nothing | key uid | key uid || u24 version )
//!                                                a destruction that waits, of tenant, key or version
//!       02 || tenant uid                         a tenant's counters
//!       03 || 16 x 00 || u32 day || hash 16      an answer kept for its repetition
//!       04 || tenant uid || key uid || u24 version
//!                                                how many managed data keys a version wraps
//!       05 || tenant uid || key uid              a job that moves managed data keys to the primary
//!       06 || ( tenant uid | 16 x 00 ) || grant uid
//!                                                a grant in a tenant, or the cluster
//! dek   tenant uid || key uid || DEK uid         a managed data key, or what is left of it
//! ```
//! A name comes last in its key and all before it has one length, so no key is the beginning of a
//! key of another kind, and all of a tenant lies under one prefix for each kind.
//!
//! **Invariant:** a new kind of tenant's row appears in [`everything_of_tenant`]; the test
//! `what_destroys_a_tenant_covers_each_of_its_rows` names them all.

use crate::noun::{DekUid, EpochNumber, KeyName, KeyVersion, TenantName, Uid};
use crate::store::{Family, RowKey};

/// The row of an epoch.
pub fn epoch(number: EpochNumber) -> RowKey {
    row(Family::Root, &[EPOCH, &number.to_u24()])
}

/// The row of the cluster.
pub fn cluster() -> RowKey {
    row(Family::Root, &[CLUSTER])
}

/// The row of the audit log's seed number `n`.
pub fn audit_seed(n: KeyVersion) -> RowKey {
    row(Family::Root, &[AUDIT_SEED, &n.to_u24()])
}

/// The row that says where the store stands in the log.
pub fn position() -> RowKey {
    row(Family::Root, &[POSITION])
}

/// The row of a tenant.
pub fn tenant(tenant: Uid) -> RowKey {
    row(Family::Root, &[TENANT, tenant.as_bytes()])
}

/// The row of a tenant's name, which outlives the tenant as its tombstone.
pub fn tenant_name(name: &TenantName) -> RowKey {
    row(Family::Name, &[TENANT_NAME, name.as_str().as_bytes()])
}

/// The row of a key's name.
pub fn key_name(tenant: Uid, name: &KeyName) -> RowKey {
    row(Family::Name, &[KEY_NAME, tenant.as_bytes(), name.as_str().as_bytes()])
}

/// The row of a key.
pub fn key(tenant: Uid, key: Uid) -> RowKey {
    row(Family::Key, &[tenant.as_bytes(), key.as_bytes(), KEY])
}

/// The row of a key's version.
pub fn key_version(tenant: Uid, key: Uid, version: KeyVersion) -> RowKey {
    row(Family::Key, &[tenant.as_bytes(), key.as_bytes(), KEY_VERSION, &version.to_u24()])
}

/// What a destruction that waits will destroy.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ScheduleTarget {
    /// The whole tenant.
    Tenant(Uid),
    /// A key of a tenant.
    Key(Uid, Uid),
    /// A version of a key of a tenant.
    KeyVersion(Uid, Uid, KeyVersion),
}

/// The row of a destruction that waits.
pub fn schedule(target: ScheduleTarget) -> RowKey {
    match target {
        ScheduleTarget::Tenant(tenant) => row(Family::Ops, &[SCHEDULE, tenant.as_bytes()]),
        ScheduleTarget::Key(tenant, key) => row(Family::Ops, &[SCHEDULE, tenant.as_bytes(), key.as_bytes()]),
        ScheduleTarget::KeyVersion(tenant, key, version) => {
            row(Family::Ops, &[SCHEDULE, tenant.as_bytes(), key.as_bytes(), &version.to_u24()])
        }
    }
}

/// The row of a tenant's counters.
pub fn tenant_counters(tenant: Uid) -> RowKey {
    row(Family::Ops, &[TENANT_COUNTERS, tenant.as_bytes()])
}

/// The row of an answer kept for its repetition: by the day it was given, in days since 1970, and
/// what it is found by.
pub fn answer(day: u32, name: &[u8; 16]) -> RowKey {
    row(Family::Ops, &[ANSWER, &NO_TENANT, &day.to_be_bytes(), name])
}

/// What to list for all answers, the oldest day first.
pub fn answers() -> RowKey {
    row(Family::Ops, &[ANSWER, &NO_TENANT])
}

/// What to list for the answers of one day.
pub fn answers_of_day(day: u32) -> RowKey {
    row(Family::Ops, &[ANSWER, &NO_TENANT, &day.to_be_bytes()])
}

/// The row of a managed data key.
pub fn dek(tenant: Uid, key: Uid, uid: DekUid) -> RowKey {
    row(Family::Dek, &[tenant.as_bytes(), key.as_bytes(), uid.as_bytes()])
}

/// What to list for the managed data keys of a key, the oldest first.
pub fn deks(tenant: Uid, key: Uid) -> RowKey {
    row(Family::Dek, &[tenant.as_bytes(), key.as_bytes()])
}

/// The row that counts the managed data keys of a version.
pub fn dek_count(tenant: Uid, key: Uid, version: KeyVersion) -> RowKey {
    row(Family::Ops, &[DEK_COUNT, tenant.as_bytes(), key.as_bytes(), &version.to_u24()])
}

/// What to list for the counters of a key's versions, in their order.
pub fn dek_counts(tenant: Uid, key: Uid) -> RowKey {
    row(Family::Ops, &[DEK_COUNT, tenant.as_bytes(), key.as_bytes()])
}

/// What to list for the counters of all versions of a tenant's keys.
pub fn dek_counts_of_tenant(tenant: Uid) -> RowKey {
    row(Family::Ops, &[DEK_COUNT, tenant.as_bytes()])
}

/// The row of the job that moves a key's managed data keys to its primary version.
pub fn rewrap_job(tenant: Uid, key: Uid) -> RowKey {
    row(Family::Ops, &[REWRAP_JOB, tenant.as_bytes(), key.as_bytes()])
}

/// What to list for all such jobs.
pub fn rewrap_jobs() -> RowKey {
    row(Family::Ops, &[REWRAP_JOB])
}

/// The row of a grant, in a tenant or else the cluster.
pub fn grant(tenant: Option<Uid>, grant: Uid) -> RowKey {
    row(Family::Ops, &[GRANT, tenant.as_ref().map_or(&NO_TENANT, Uid::as_bytes).as_slice(), grant.as_bytes()])
}

/// What to list for the grants in a tenant, or else the cluster, in the order of their uids.
pub fn grants(tenant: Option<Uid>) -> RowKey {
    row(Family::Ops, &[GRANT, tenant.as_ref().map_or(&NO_TENANT, Uid::as_bytes).as_slice()])
}

/// What to list for all grants.
pub fn all_grants() -> RowKey {
    row(Family::Ops, &[GRANT])
}

/// What to list for all epochs, in the order of their numbers.
pub fn epochs() -> RowKey {
    row(Family::Root, &[EPOCH])
}

/// What to list for all audit seeds, in order.
pub fn audit_seeds() -> RowKey {
    row(Family::Root, &[AUDIT_SEED])
}

/// What to list for all tenants that live, in the order of their uids.
pub fn tenants() -> RowKey {
    row(Family::Root, &[TENANT])
}

/// What to list for all tenants' names, those of tombstones too, in the order of the names.
pub fn tenant_names() -> RowKey {
    row(Family::Name, &[TENANT_NAME])
}

/// What to list for the names of a tenant's keys, in their order.
pub fn key_names(tenant: Uid) -> RowKey {
    row(Family::Name, &[KEY_NAME, tenant.as_bytes()])
}

/// What to list for a tenant's keys and versions, each key before its versions.
pub fn keys(tenant: Uid) -> RowKey {
    row(Family::Key, &[tenant.as_bytes()])
}

/// What to list for the versions of a key, in their order.
pub fn key_versions(tenant: Uid, key: Uid) -> RowKey {
    row(Family::Key, &[tenant.as_bytes(), key.as_bytes(), KEY_VERSION])
}

/// What to list for all destructions that wait.
pub fn schedules() -> RowKey {
    row(Family::Ops, &[SCHEDULE])
}

/// The prefixes under which a tenant's rows lie, and nothing else: what goes with it. Not among
/// them: its own row, and the row of its name, which becomes the tombstone.
pub fn everything_of_tenant(tenant: Uid) -> [RowKey; 8] {
    let uid = tenant.as_bytes();
    [
        row(Family::Name, &[KEY_NAME, uid]),
        row(Family::Key, &[uid]),
        row(Family::Dek, &[uid]),
        row(Family::Ops, &[SCHEDULE, uid]),
        row(Family::Ops, &[TENANT_COUNTERS, uid]),
        dek_counts_of_tenant(tenant),
        row(Family::Ops, &[REWRAP_JOB, uid]),
        grants(Some(tenant)),
    ]
}

/// Takes a key of [`epochs`] apart.
pub fn parse_epoch(key: &[u8]) -> Option<EpochNumber> {
    EpochNumber::from_u24(key.strip_prefix(EPOCH)?.try_into().ok()?)
}

/// Takes a key of [`audit_seeds`] apart.
pub fn parse_audit_seed(key: &[u8]) -> Option<KeyVersion> {
    KeyVersion::from_u24(key.strip_prefix(AUDIT_SEED)?.try_into().ok()?)
}

/// Takes a key of [`tenants`] apart.
pub fn parse_tenant(key: &[u8]) -> Option<Uid> {
    Uid::from_slice(key.strip_prefix(TENANT)?)
}

/// Takes a key of [`tenant_names`] apart.
pub fn parse_tenant_name(key: &[u8]) -> Option<TenantName> {
    std::str::from_utf8(key.strip_prefix(TENANT_NAME)?).ok()?.parse().ok()
}

/// Takes a key of [`key_names`] apart.
pub fn parse_key_name(key: &[u8]) -> Option<(Uid, KeyName)> {
    let (tenant, name) = uid_first(key.strip_prefix(KEY_NAME)?)?;
    Some((tenant, std::str::from_utf8(name).ok()?.parse().ok()?))
}

/// What a row of the `key` family is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyRow {
    /// A key, by tenant and key.
    Key(Uid, Uid),
    /// A version, by tenant, key and version.
    Version(Uid, Uid, KeyVersion),
}

/// Takes a key of [`keys`] or [`key_versions`] apart.
pub fn parse_key_row(row_key: &[u8]) -> Option<KeyRow> {
    let (tenant, rest) = uid_first(row_key)?;
    let (key, rest) = uid_first(rest)?;
    if rest == KEY {
        return Some(KeyRow::Key(tenant, key));
    }
    let version = KeyVersion::from_u24(rest.strip_prefix(KEY_VERSION)?.try_into().ok()?)?;
    Some(KeyRow::Version(tenant, key, version))
}

/// Takes a key of [`schedules`] apart.
pub fn parse_schedule(row_key: &[u8]) -> Option<ScheduleTarget> {
    let (tenant, rest) = uid_first(row_key.strip_prefix(SCHEDULE)?)?;
    if rest.is_empty() {
        return Some(ScheduleTarget::Tenant(tenant));
    }
    let (key, rest) = uid_first(rest)?;
    if rest.is_empty() {
        return Some(ScheduleTarget::Key(tenant, key));
    }
    Some(ScheduleTarget::KeyVersion(tenant, key, KeyVersion::from_u24(rest.try_into().ok()?)?))
}

/// Takes a key of [`answers`] apart: returns its day.
pub fn parse_answer_day(row_key: &[u8]) -> Option<u32> {
    let rest = row_key.strip_prefix(ANSWER)?.strip_prefix(&NO_TENANT)?;
    let (day, name) = rest.split_first_chunk::<4>()?;
    (name.len() == 16).then(|| u32::from_be_bytes(*day))
}

/// Takes a key of [`deks`] apart: returns the uid of the managed data key.
pub fn parse_dek(row_key: &[u8]) -> Option<DekUid> {
    DekUid::from_slice(row_key.get(32..)?)
}

/// Takes a key of [`dek_counts`] apart: returns key and version.
pub fn parse_dek_count(row_key: &[u8]) -> Option<(Uid, KeyVersion)> {
    let (_, rest) = uid_first(row_key.strip_prefix(DEK_COUNT)?)?;
    let (key, version) = uid_first(rest)?;
    Some((key, KeyVersion::from_u24(version.try_into().ok()?)?))
}

/// Takes a key of [`all_grants`] apart: returns the tenant, unless it is the cluster's, and the grant.
pub fn parse_grant(row_key: &[u8]) -> Option<(Option<Uid>, Uid)> {
    let (tenant, grant) = uid_first(row_key.strip_prefix(GRANT)?)?;
    Some(((tenant.as_bytes() != &NO_TENANT).then_some(tenant), Uid::from_slice(grant)?))
}

/// Takes a key of [`rewrap_jobs`] apart: returns tenant and key.
pub fn parse_rewrap_job(row_key: &[u8]) -> Option<(Uid, Uid)> {
    let (tenant, rest) = uid_first(row_key.strip_prefix(REWRAP_JOB)?)?;
    Some((tenant, Uid::from_slice(rest)?))
}

fn uid_first(bytes: &[u8]) -> Option<(Uid, &[u8])> {
    let (uid, rest) = bytes.split_first_chunk::<16>()?;
    Some((Uid::from_bytes(*uid), rest))
}

fn row(family: Family, parts: &[&[u8]]) -> RowKey {
    RowKey::new(family, parts.concat())
}

const EPOCH: &[u8] = b"e";
const CLUSTER: &[u8] = b"c";
const AUDIT_SEED: &[u8] = b"a";
const POSITION: &[u8] = b"s";
const TENANT: &[u8] = b"t";
const TENANT_NAME: &[u8] = &[0x00];
const KEY_NAME: &[u8] = &[0x01];
const KEY: &[u8] = &[0x00];
const KEY_VERSION: &[u8] = &[0x01];
const SCHEDULE: &[u8] = &[0x01];
const TENANT_COUNTERS: &[u8] = &[0x02];
const ANSWER: &[u8] = &[0x03];
const DEK_COUNT: &[u8] = &[0x04];
const REWRAP_JOB: &[u8] = &[0x05];
const GRANT: &[u8] = &[0x06];
/// Where a tenant's uid stands in rows of a tenant.
const NO_TENANT: [u8; 16] = [0; 16];

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: Uid = Uid::from_bytes([0xaa; 16]);
    const GLOBEX: Uid = Uid::from_bytes([0xab; 16]);
    const BILLING: Uid = Uid::from_bytes([0x01; 16]);

    fn three() -> KeyVersion {
        KeyVersion::new(3).unwrap()
    }

    fn rows_of(tenant: Uid) -> Vec<RowKey> {
        vec![
            key_name(tenant, &"billing".parse().unwrap()),
            key(tenant, BILLING),
            key_version(tenant, BILLING, three()),
            schedule(ScheduleTarget::Tenant(tenant)),
            schedule(ScheduleTarget::Key(tenant, BILLING)),
            schedule(ScheduleTarget::KeyVersion(tenant, BILLING, three())),
            tenant_counters(tenant),
            dek(tenant, BILLING, DekUid::from_bytes([9; 16])),
            dek_count(tenant, BILLING, three()),
            rewrap_job(tenant, BILLING),
            grant(Some(tenant), BILLING),
        ]
    }

    fn rows_of_nobody() -> Vec<RowKey> {
        vec![
            epoch(EpochNumber::FIRST),
            cluster(),
            audit_seed(KeyVersion::FIRST),
            position(),
            tenant(ACME),
            tenant(GLOBEX),
            tenant_name(&"acme".parse().unwrap()),
            answer(20_000, &[7; 16]),
            grant(None, BILLING),
        ]
    }

    fn lies_under(prefix: &RowKey, row: &RowKey) -> bool {
        prefix.family == row.family && row.key.starts_with(&prefix.key)
    }

    #[test]
    fn what_destroys_a_tenant_covers_each_of_its_rows() {
        for row in rows_of(ACME) {
            assert_eq!(
                everything_of_tenant(ACME).iter().filter(|prefix| lies_under(prefix, &row)).count(),
                1,
                "{row:?}"
            );
        }
    }

    #[test]
    fn what_destroys_a_tenant_touches_nothing_else() {
        for row in rows_of(GLOBEX).into_iter().chain(rows_of_nobody()) {
            assert!(!everything_of_tenant(ACME).iter().any(|prefix| lies_under(prefix, &row)), "{row:?}");
        }
    }

    #[test]
    fn no_two_rows_share_a_key() {
        let all: Vec<_> = rows_of(ACME).into_iter().chain(rows_of(GLOBEX)).chain(rows_of_nobody()).collect();
        let set: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(set.len(), all.len());
    }

    #[test]
    fn a_key_is_taken_apart_as_it_was_built() {
        let seven = EpochNumber::new(7).unwrap();
        assert_eq!(parse_epoch(&epoch(seven).key), Some(seven));
        assert_eq!(parse_audit_seed(&audit_seed(three()).key), Some(three()));
        assert_eq!(parse_tenant(&tenant(ACME).key), Some(ACME));
        assert_eq!(parse_dek(&dek(ACME, BILLING, DekUid::from_bytes([9; 16])).key), Some(DekUid::from_bytes([9; 16])));
        assert_eq!(parse_dek_count(&dek_count(ACME, BILLING, three()).key), Some((BILLING, three())));
        assert_eq!(parse_rewrap_job(&rewrap_job(ACME, BILLING).key), Some((ACME, BILLING)));
        assert_eq!(parse_grant(&grant(Some(ACME), BILLING).key), Some((Some(ACME), BILLING)));
        assert_eq!(parse_grant(&grant(None, BILLING).key), Some((None, BILLING)));
        assert_eq!(parse_answer_day(&answer(20_000, &[7; 16]).key), Some(20_000));
        let (acme, billing): (TenantName, KeyName) = ("acme".parse().unwrap(), "billing".parse().unwrap());
        assert_eq!(parse_tenant_name(&tenant_name(&acme).key), Some(acme));
        assert_eq!(parse_key_name(&key_name(ACME, &billing).key), Some((ACME, billing)));
        assert_eq!(parse_key_row(&key(ACME, BILLING).key), Some(KeyRow::Key(ACME, BILLING)));
        assert_eq!(
            parse_key_row(&key_version(ACME, BILLING, three()).key),
            Some(KeyRow::Version(ACME, BILLING, three()))
        );
        for target in [
            ScheduleTarget::Tenant(ACME),
            ScheduleTarget::Key(ACME, BILLING),
            ScheduleTarget::KeyVersion(ACME, BILLING, three()),
        ] {
            assert_eq!(parse_schedule(&schedule(target).key), Some(target));
        }
    }

    #[test]
    fn a_key_cut_short_or_too_long_is_none() {
        type Parses = fn(&[u8]) -> bool;
        let billing = "billing".parse().unwrap();
        let cases: [(RowKey, Parses, usize); 7] = [
            (grant(Some(ACME), BILLING), |key| parse_grant(key).is_some(), 0),
            (answer(20_000, &[7; 16]), |key| parse_answer_day(key).is_some(), 0),
            (epoch(EpochNumber::FIRST), |key| parse_epoch(key).is_some(), 0),
            (tenant(ACME), |key| parse_tenant(key).is_some(), 0),
            (key_version(ACME, BILLING, three()), |key| parse_key_row(key).is_some(), 0),
            // Cut after the tenant or the key, this is the schedule of those.
            (schedule(ScheduleTarget::KeyVersion(ACME, BILLING, three())), |key| parse_schedule(key).is_some(), 2),
            // Cut within the name, this is another name.
            (key_name(ACME, &billing), |key| parse_key_name(key).is_some(), 6),
        ];
        for (row, parses, shorter) in cases {
            assert!(parses(&row.key));
            assert_eq!((0..row.key.len()).filter(|end| parses(&row.key[..*end])).count(), shorter, "{row:?}");
            assert!(!parses(&[&row.key[..], &[0]].concat()), "{row:?}");
        }
    }

    #[test]
    fn a_tenants_key_rows_list_each_key_before_its_versions() {
        let mut rows =
            [key_version(ACME, BILLING, three()), key_version(ACME, BILLING, KeyVersion::FIRST), key(ACME, BILLING)];
        rows.sort();
        assert_eq!(
            rows,
            [key(ACME, BILLING), key_version(ACME, BILLING, KeyVersion::FIRST), key_version(ACME, BILLING, three())]
        );
        assert!(rows[1..].iter().all(|row| lies_under(&key_versions(ACME, BILLING), row)));
        assert!(!lies_under(&key_versions(ACME, BILLING), &rows[0]));
    }
}
