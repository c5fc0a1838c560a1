//! Keys wrapped under keys: master -> epoch -> tenant -> KEK, and the secrets beside them.
//!
//! | kind | what | under | key id, version | context |
//! | --- | --- | --- | --- | --- |
//! | 10 | tenant key | epoch key | epoch id, number | kms1=tenant-key, uid, ver |
//! | 11 | epoch key | master key | master id, its version | kms1=epoch-key, cluster, epoch (tenant "") |
//! | 12 | KEK | tenant key | tenant uid, its version | kms1=kek, key, ver |
//! | 13 | cluster secret | epoch key | epoch id, number | kms1=cluster-secret, cluster, ver (tenant "") |
//! | 14 | index root | tenant key | tenant uid, its version | kms1=index-root, ver |
//! | 15 | audit seed | wrap key of the cluster secret | cluster uid, n | kms1=audit-seed, origin (tenant "") |
//!
//! Uids in contexts are lower-case hex, numbers decimal. Kind 16 is in `keystore_file`.

use std::fmt;

use zeroize::Zeroize as _;

use crate::noun::{EpochNumber, KeyVersion, Random, TenantName, Uid};

use super::construction::{self, COMMITMENT, OVERHEAD_BYTES, OpenError};
use super::context::{ContextHash, hash_of_own};
use super::header::{Header, Kind};
use super::secret::{AuditSeed, ClusterSecret, EpochKey, IndexRoot, Kek, MasterKey, TenantKey, WrapKey, move_into};

/// Bytes of a wrapped 256-bit key.
pub const WRAPPED_KEY_BYTES: usize = OVERHEAD_BYTES + 32;

/// A wrapped 256-bit key: public without the key above it.
#[derive(Clone, Eq, PartialEq)]
pub struct WrappedKey([u8; WRAPPED_KEY_BYTES]);

impl WrappedKey {
    /// Takes 128 bytes as a wrapped key; they are checked when it is unwrapped.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the 128 bytes.
    pub fn as_bytes(&self) -> &[u8; WRAPPED_KEY_BYTES] {
        &self.0
    }

    /// Returns the commitment C: public, and what a purge looks for.
    pub fn commitment(&self) -> [u8; 32] {
        self.0[COMMITMENT].try_into().expect("the commitment has 32 bytes")
    }

    /// Returns what it claims to be wrapped under.
    pub fn header(&self) -> Result<Header, OpenError> {
        Header::parse(&self.0)
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedKey").field("header", &self.header()).finish_non_exhaustive()
    }
}

/// Returns the commitment of any blob, if it is long enough to have one.
pub fn commitment_of(blob: &[u8]) -> Option<[u8; 32]> {
    blob.get(COMMITMENT)?.try_into().ok()
}

/// Which epoch key is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EpochPlace {
    /// The epoch's uid.
    pub id: Uid,
    /// The epoch's number.
    pub number: EpochNumber,
}

impl EpochPlace {
    pub(super) fn header(self, kind: Kind) -> Header {
        let version = KeyVersion::new(self.number.get()).expect("both fit 24 bits");
        Header { kind, key_id: self.id, version }
    }
}

/// Which tenant key is meant.
#[derive(Clone, Copy, Debug)]
pub struct TenantPlace<'a> {
    /// The tenant's name.
    pub name: &'a TenantName,
    /// The tenant's uid.
    pub uid: Uid,
    /// The tenant key's version.
    pub version: KeyVersion,
}

impl TenantPlace<'_> {
    fn header(self, kind: Kind) -> Header {
        Header { kind, key_id: self.uid, version: self.version }
    }
}

impl MasterKey {
    /// Wraps an epoch key (kind 11).
    pub fn wrap_epoch_key(
        &self,
        master_id: Uid,
        cluster: Uid,
        epoch: EpochNumber,
        key: &EpochKey,
        rng: &dyn Random,
    ) -> WrappedKey {
        wrap(self.bytes(), epoch_key_header(master_id, epoch), &epoch_key_context(cluster, epoch), key.bytes(), rng)
    }

    /// Unwraps an epoch key (kind 11).
    pub fn unwrap_epoch_key(
        &self,
        master_id: Uid,
        cluster: Uid,
        epoch: EpochNumber,
        wrapped: &WrappedKey,
    ) -> Result<EpochKey, OpenError> {
        EpochKey::fill_with(|out| {
            unwrap(self.bytes(), epoch_key_header(master_id, epoch), &epoch_key_context(cluster, epoch), wrapped, out)
        })
    }
}

// A master version is made for one epoch and has its number.
fn epoch_key_header(master_id: Uid, epoch: EpochNumber) -> Header {
    EpochPlace { id: master_id, number: epoch }.header(Kind::EpochKey)
}

fn epoch_key_context(cluster: Uid, epoch: EpochNumber) -> ContextHash {
    hash_of_own("", b"", &[("kms1", "epoch-key"), ("cluster", &cluster.to_string()), ("epoch", &epoch.to_string())])
}

impl EpochKey {
    /// Wraps a tenant key (kind 10).
    pub fn wrap_tenant_key(
        &self,
        epoch: EpochPlace,
        tenant: TenantPlace<'_>,
        key: &TenantKey,
        rng: &dyn Random,
    ) -> WrappedKey {
        wrap(self.bytes(), epoch.header(Kind::TenantKey), &tenant_key_context(tenant), key.bytes(), rng)
    }

    /// Unwraps a tenant key (kind 10).
    pub fn unwrap_tenant_key(
        &self,
        epoch: EpochPlace,
        tenant: TenantPlace<'_>,
        wrapped: &WrappedKey,
    ) -> Result<TenantKey, OpenError> {
        TenantKey::fill_with(|out| {
            unwrap(self.bytes(), epoch.header(Kind::TenantKey), &tenant_key_context(tenant), wrapped, out)
        })
    }

    /// Wraps the cluster secret (kind 13).
    pub fn wrap_cluster_secret(
        &self,
        epoch: EpochPlace,
        cluster: Uid,
        version: KeyVersion,
        secret: &ClusterSecret,
        rng: &dyn Random,
    ) -> WrappedKey {
        wrap(
            self.bytes(),
            epoch.header(Kind::ClusterSecret),
            &cluster_secret_context(cluster, version),
            secret.bytes(),
            rng,
        )
    }

    /// Unwraps the cluster secret (kind 13).
    pub fn unwrap_cluster_secret(
        &self,
        epoch: EpochPlace,
        cluster: Uid,
        version: KeyVersion,
        wrapped: &WrappedKey,
    ) -> Result<ClusterSecret, OpenError> {
        ClusterSecret::fill_with(|out| {
            unwrap(
                self.bytes(),
                epoch.header(Kind::ClusterSecret),
                &cluster_secret_context(cluster, version),
                wrapped,
                out,
            )
        })
    }
}

fn tenant_key_context(tenant: TenantPlace<'_>) -> ContextHash {
    let (uid, version) = (tenant.uid.to_string(), tenant.version.to_string());
    hash_of_own(tenant.name.as_str(), b"", &[("kms1", "tenant-key"), ("uid", &uid), ("ver", &version)])
}

fn cluster_secret_context(cluster: Uid, version: KeyVersion) -> ContextHash {
    hash_of_own(
        "",
        b"",
        &[("kms1", "cluster-secret"), ("cluster", &cluster.to_string()), ("ver", &version.to_string())],
    )
}

impl TenantKey {
    /// Wraps a KEK (kind 12).
    pub fn wrap_kek(
        &self,
        tenant: TenantPlace<'_>,
        key: Uid,
        version: KeyVersion,
        kek: &Kek,
        rng: &dyn Random,
    ) -> WrappedKey {
        wrap(self.bytes(), tenant.header(Kind::Kek), &kek_context(tenant, key, version), kek.bytes(), rng)
    }

    /// Unwraps a KEK (kind 12).
    pub fn unwrap_kek(
        &self,
        tenant: TenantPlace<'_>,
        key: Uid,
        version: KeyVersion,
        wrapped: &WrappedKey,
    ) -> Result<Kek, OpenError> {
        Kek::fill_with(|out| {
            unwrap(self.bytes(), tenant.header(Kind::Kek), &kek_context(tenant, key, version), wrapped, out)
        })
    }

    /// Wraps the tenant's index root (kind 14).
    pub fn wrap_index_root(&self, tenant: TenantPlace<'_>, root: &IndexRoot, rng: &dyn Random) -> WrappedKey {
        wrap(self.bytes(), tenant.header(Kind::IndexRoot), &index_root_context(tenant), root.bytes(), rng)
    }

    /// Unwraps the tenant's index root (kind 14).
    pub fn unwrap_index_root(&self, tenant: TenantPlace<'_>, wrapped: &WrappedKey) -> Result<IndexRoot, OpenError> {
        IndexRoot::fill_with(|out| {
            unwrap(self.bytes(), tenant.header(Kind::IndexRoot), &index_root_context(tenant), wrapped, out)
        })
    }
}

fn kek_context(tenant: TenantPlace<'_>, key: Uid, version: KeyVersion) -> ContextHash {
    hash_of_own(tenant.name.as_str(), b"", &[("kms1", "kek"), ("key", &key.to_string()), ("ver", &version.to_string())])
}

// The root itself has a version of its own, which is 1 for the tenant's whole life: blind indexes
// must not change when the tenant key does.
fn index_root_context(tenant: TenantPlace<'_>) -> ContextHash {
    hash_of_own(tenant.name.as_str(), b"", &[("kms1", "index-root"), ("ver", "1")])
}

impl WrapKey {
    /// Wraps the audit log's seed number `n` (kind 15).
    pub fn wrap_audit_seed(
        &self,
        cluster: Uid,
        n: KeyVersion,
        origin: &str,
        seed: &AuditSeed,
        rng: &dyn Random,
    ) -> WrappedKey {
        wrap(
            self.bytes(),
            Header { kind: Kind::AuditSeed, key_id: cluster, version: n },
            &audit_seed_context(origin),
            seed.bytes(),
            rng,
        )
    }

    /// Unwraps the audit log's seed number `n` (kind 15).
    pub fn unwrap_audit_seed(
        &self,
        cluster: Uid,
        n: KeyVersion,
        origin: &str,
        wrapped: &WrappedKey,
    ) -> Result<AuditSeed, OpenError> {
        AuditSeed::fill_with(|out| {
            unwrap(
                self.bytes(),
                Header { kind: Kind::AuditSeed, key_id: cluster, version: n },
                &audit_seed_context(origin),
                wrapped,
                out,
            )
        })
    }
}

fn audit_seed_context(origin: &str) -> ContextHash {
    hash_of_own("", b"", &[("kms1", "audit-seed"), ("origin", origin)])
}

pub(super) fn wrap(
    key: &[u8; 32],
    header: Header,
    context: &ContextHash,
    wrapped: &[u8; 32],
    rng: &dyn Random,
) -> WrappedKey {
    let blob = construction::seal(key, header, context, wrapped, rng);
    WrappedKey(blob.try_into().expect("a sealed 32-byte key has 128 bytes"))
}

pub(super) fn unwrap(
    key: &[u8; 32],
    expected: Header,
    context: &ContextHash,
    wrapped: &WrappedKey,
    out: &mut [u8; 32],
) -> Result<(), OpenError> {
    let mut copy = *wrapped.as_bytes();
    let moved = construction::open(key, expected, context, &mut copy).and_then(|opened| move_into(out, opened));
    copy.zeroize();
    moved
}
