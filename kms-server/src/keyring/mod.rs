//! KEYS: tenants, keys and versions, their states, their rotation, their destruction.
//!
//! Not here: who may do it (`policy`), what it looks like on the wire (`rpc`), which vendor holds
//! the master key (`backend`). The chain is master key -> epoch key -> tenant key -> KEK -> DEK.
//!
//! A request that uses a key goes through [`Keyring::enter`]; a change goes through
//! [`Keyring::change`], which is the one road in `mutation.rs`. A new change is a variant of
//! [`Change`] and a file with its plan.

mod answered;
mod cache;
mod carry_out;
mod complete_ledger;
mod create_key;
mod create_tenant;
mod data_key;
mod destroy_key;
mod destroy_tenant;
pub mod due;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gate;
mod grant;
mod group;
pub mod init;
mod key_target;
mod lease;
mod list;
mod load;
mod mutation;
pub mod open;
mod position;
mod rotate_key;
mod row;
pub mod row_key;
mod set_key_state;
mod set_tenant_state;
mod settle;
pub mod state;
mod terms;
mod update_key;
mod update_tenant;
mod upkeep;
mod view;
mod who;

#[cfg(test)]
mod row_vectors;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Notify, OwnedMutexGuard, Semaphore, mpsc};

pub use answered::REPEAT_MS_MAX;
pub use cache::CacheStatus;
pub use carry_out::Destroyed;
pub use data_key::*;
pub use error::Error;
pub use grant::{ContentHash, GrantFor, GrantState, GrantView, RoleInForce, RolesInForce};
pub use lease::{LEASE_MS_DEFAULT, LEASE_MS_MAX};
pub use list::Listed;
pub use load::{InUse, KeyInUse, Want, Which};
pub use mutation::{Changed, How, Mutator, Object};
pub use settle::Settled;
pub use state::{KeyState, TenantState};
pub use terms::{Etag, InvalidEtag, InvalidRequestId, RequestId, Terms};
pub use view::{KeyPurpose, KeyView, Labels, TenantView, VersionView};
pub use who::Who;

use crate::audit::Log;
use crate::crypto::{EpochKey, EpochPlace, PageTokenKey, RecordMacKey};
use crate::noun::{Clock, KeyName, KeyVersion, Random, TenantName, Uid, UnixMillis};
use crate::store::{Store, StoreError};
use cache::{Cache, Entry};
use grant::GrantsInForce;

/// The most versions of a key: destroying a key rewrites all of them in one batch.
pub const VERSIONS_MAX: u32 = 10_000;
/// The longest waiting time before a destruction, in milliseconds: 365 days.
pub const WAIT_MS_MAX: u64 = 365 * 24 * 3600 * 1000;

/// How the keyring behaves.
#[derive(Clone, Copy, Debug)]
pub struct KeyringSettings {
    /// The shortest waiting time before a destruction, in milliseconds.
    pub wait_ms_min: u64,
    /// The waiting time when none is asked for, in milliseconds.
    pub wait_ms_default: u64,
    /// The longest that a role can be granted for, in milliseconds.
    pub grant_ms_max: u64,
    /// The most tenants with an entry in the cache.
    pub tenants_max: usize,
    /// The most keys and versions in memory.
    pub keys_max: usize,
    /// The most managed data keys that are moved to another version each second.
    pub rewraps_per_second: u32,
}

/// The keys of this cluster.
pub struct Keyring {
    store: Arc<dyn Store>,
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Random>,
    settings: KeyringSettings,
    cluster: ClusterKeys,
    epoch: Epoch,
    cache: Cache,
    /// Where changes take turns that concern no tenant.
    no_tenant: Arc<Entry>,
    grants: GrantsInForce,
    jobs: mpsc::Sender<group::Job>,
    new_data_keys: mpsc::Sender<data_key::Job>,
    days_of_answers: answered::DaysOfAnswers,
    /// Room among the changes that wait, for those that destroy data keys.
    dek_destructions: Arc<Semaphore>,
    /// Something happened that lets managed data keys be moved which could not be before.
    rewrap: Notify,
    /// Mutations applied since `init`.
    seq: AtomicU64,
    broken: AtomicBool,
    /// Dates wait for the clock to run for a day.
    clock_held: AtomicBool,
}

/// What belongs to no tenant.
pub(crate) struct ClusterKeys {
    pub(crate) uid: Uid,
    pub(crate) secret_version: KeyVersion,
    pub(crate) record_mac: Arc<RecordMacKey>,
    pub(crate) page_token: PageTokenKey,
}

/// The epoch that wraps tenant keys.
pub(crate) struct Epoch {
    pub(crate) place: EpochPlace,
    pub(crate) created: UnixMillis,
    pub(crate) key: EpochKey,
}

/// A change of a tenant, a key or a version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Makes a tenant.
    CreateTenant {
        /// Its name.
        tenant: TenantName,
        /// How long its data keys may be held, in milliseconds, or the default.
        lease_ms: Option<u64>,
    },
    /// Changes how long the data keys of a tenant may be held.
    UpdateTenant {
        /// Its name.
        tenant: TenantName,
        /// The lease in milliseconds, at most [`LEASE_MS_MAX`].
        lease_ms: u64,
    },
    /// Makes a tenant neither seal nor open.
    SuspendTenant {
        /// Its name.
        tenant: TenantName,
    },
    /// Ends a suspension.
    ResumeTenant {
        /// Its name.
        tenant: TenantName,
    },
    /// Destroys a tenant after a waiting time, or at once if that is 0.
    DestroyTenant {
        /// Its name.
        tenant: TenantName,
        /// The waiting time in milliseconds, or the setting's.
        wait_ms: Option<u64>,
    },
    /// Takes a scheduled destruction back.
    CancelTenantDestruction {
        /// Its name.
        tenant: TenantName,
    },
    /// Destroys a tenant whose date has come.
    DestroyDueTenant {
        /// Its name.
        tenant: TenantName,
        /// The time by which it must be due: when the clock was last found steady.
        by: UnixMillis,
    },
    /// Makes a key with its first version.
    CreateKey {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        key: KeyName,
        /// What it may be used for.
        purpose: KeyPurpose,
        /// For inventory.
        labels: Labels,
    },
    /// Replaces the labels of a key.
    UpdateKey {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        key: KeyName,
        /// The new labels.
        labels: Labels,
    },
    /// Makes a new version, which seals from now on.
    RotateKey {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        key: KeyName,
    },
    /// Enables or disables a key or a version.
    SetKeyState {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        key: KeyName,
        /// One version, or the whole key.
        version: Option<KeyVersion>,
        /// ENABLED, or else DISABLED.
        enabled: bool,
    },
    /// Destroys a key or a version after a waiting time, or at once if that is 0.
    ScheduleKeyDestruction {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        key: KeyName,
        /// One version, or the whole key.
        version: Option<KeyVersion>,
        /// The waiting time in milliseconds, or the setting's.
        wait_ms: Option<u64>,
    },
    /// Takes a scheduled destruction back.
    CancelKeyDestruction {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        key: KeyName,
        /// One version, or the whole key.
        version: Option<KeyVersion>,
    },
    /// Destroys a key or a version whose date has come.
    DestroyDueKey {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        key: KeyName,
        /// One version, or the whole key.
        version: Option<KeyVersion>,
        /// The time by which it must be due: when the clock was last found steady.
        by: UnixMillis,
    },
    /// Destroys managed data keys.
    DestroyDataKeys(DataKeysToDestroy),
    /// Asks a second person for a grant.
    RequestGrant {
        /// The tenant that it is about, if any.
        tenant: Option<TenantName>,
        /// What it is for.
        what: GrantFor,
        /// Of all that is asked for.
        hash: ContentHash,
        /// Why.
        reason: Box<str>,
    },
    /// Approves a grant that somebody else asked for.
    ApproveGrant {
        /// The tenant that it is about, if any.
        tenant: Option<TenantName>,
        /// Its uid.
        grant: Uid,
        /// Of what was looked at.
        hash: ContentHash,
    },
    /// Takes a grant back.
    RevokeGrant {
        /// The tenant that it is about, if any.
        tenant: Option<TenantName>,
        /// Its uid.
        grant: Uid,
    },
    /// Uses the grant of an operation that changes nothing in the store itself.
    UseGrant {
        /// Of the operation.
        hash: ContentHash,
    },
    /// Destroys again what the ledger says was destroyed.
    CarryOut {
        /// Its tenant.
        tenant: TenantName,
        /// What the ledger says.
        destroyed: Arc<Destroyed>,
    },
}

impl Change {
    /// Returns the tenant it is about, if any.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Change::RequestGrant { tenant, .. }
            | Change::ApproveGrant { tenant, .. }
            | Change::RevokeGrant { tenant, .. } => tenant.as_ref(),
            Change::UseGrant { .. } => None,
            Change::CreateTenant { tenant, .. }
            | Change::UpdateTenant { tenant, .. }
            | Change::SuspendTenant { tenant }
            | Change::ResumeTenant { tenant }
            | Change::DestroyTenant { tenant, .. }
            | Change::CancelTenantDestruction { tenant }
            | Change::DestroyDueTenant { tenant, .. }
            | Change::CreateKey { tenant, .. }
            | Change::UpdateKey { tenant, .. }
            | Change::RotateKey { tenant, .. }
            | Change::SetKeyState { tenant, .. }
            | Change::ScheduleKeyDestruction { tenant, .. }
            | Change::CancelKeyDestruction { tenant, .. }
            | Change::DestroyDueKey { tenant, .. }
            | Change::DestroyDataKeys(DataKeysToDestroy { tenant, .. })
            | Change::CarryOut { tenant, .. } => Some(tenant),
        }
    }

    /// Returns its name: for what callers ask for, the RPC's.
    pub fn operation(&self) -> &'static str {
        match self {
            Change::CreateTenant { .. } => "CreateTenant",
            Change::UpdateTenant { .. } => "UpdateTenant",
            Change::SuspendTenant { .. } => "SuspendTenant",
            Change::ResumeTenant { .. } => "ResumeTenant",
            Change::DestroyTenant { .. } => "DestroyTenant",
            Change::CancelTenantDestruction { .. } => "CancelTenantDestruction",
            Change::DestroyDueTenant { .. } => "DestroyDueTenant",
            Change::CreateKey { .. } => "CreateKey",
            Change::UpdateKey { .. } => "UpdateKey",
            Change::RotateKey { .. } => "RotateKey",
            Change::SetKeyState { enabled: true, .. } => "EnableKey",
            Change::SetKeyState { enabled: false, .. } => "DisableKey",
            Change::ScheduleKeyDestruction { .. } => "ScheduleKeyDestruction",
            Change::CancelKeyDestruction { .. } => "CancelKeyDestruction",
            Change::DestroyDueKey { .. } => "DestroyDueKey",
            Change::DestroyDataKeys(keys) => keys.operation(),
            Change::RequestGrant { .. } => "RequestGrant",
            Change::ApproveGrant { .. } => "ApproveGrant",
            Change::RevokeGrant { .. } => "RevokeGrant",
            Change::UseGrant { .. } => "UseGrant",
            Change::CarryOut { .. } => "CarryOut",
        }
    }

    /// Returns the number of the part of a call that it is.
    fn part(&self) -> u32 {
        if let Change::DestroyDataKeys(keys) = self { keys.part } else { 0 }
    }

    /// Tells whether managed data keys may have to be moved, or can be moved again, once it is made.
    fn lets_rewrap(&self) -> bool {
        matches!(
            self,
            Change::RotateKey { .. } | Change::SetKeyState { enabled: true, .. } | Change::ResumeTenant { .. }
        )
    }

    /// Says what it does with the gate of its tenant.
    fn gate_use(&self) -> GateUse {
        match self {
            Change::CreateTenant { .. }
            | Change::CreateKey { .. }
            | Change::UpdateKey { .. }
            | Change::RotateKey { .. }
            | Change::RequestGrant { .. }
            | Change::ApproveGrant { .. }
            | Change::RevokeGrant { .. }
            | Change::UseGrant { .. } => GateUse::Open,
            Change::UpdateTenant { .. }
            | Change::SuspendTenant { .. }
            | Change::ResumeTenant { .. }
            | Change::DestroyTenant { .. }
            | Change::CancelTenantDestruction { .. }
            | Change::DestroyDueTenant { .. }
            | Change::SetKeyState { .. }
            | Change::ScheduleKeyDestruction { .. }
            | Change::CancelKeyDestruction { .. }
            | Change::DestroyDueKey { .. }
            | Change::CarryOut { .. } => GateUse::Closed,
            Change::DestroyDataKeys(_) => GateUse::DrainedAfter,
        }
    }
}

/// What a change does with the gate of its tenant. All but the first are alone in their group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum GateUse {
    /// Nothing.
    Open,
    /// Nobody may be inside while it is made: it takes the use of something away, gives it back, or
    /// changes on what terms it is used.
    Closed,
    /// Whoever was inside when its batch became durable has left before its outcome.
    DrainedAfter,
}

impl Keyring {
    /// Plans a change. The tenant's turn is held.
    async fn plan(&self, asked: &terms::Asked) -> Result<mutation::Plan, Error> {
        let who = &asked.who;
        match &asked.change {
            Change::CreateTenant { tenant, lease_ms } => self.plan_create_tenant(tenant, *lease_ms).await,
            Change::UpdateTenant { tenant, lease_ms } => self.plan_update_tenant(tenant, *lease_ms).await,
            Change::SuspendTenant { tenant } => {
                self.plan_tenant_state(tenant, "SuspendTenant", TenantState::Active, TenantState::Suspended).await
            }
            Change::ResumeTenant { tenant } => {
                self.plan_tenant_state(tenant, "ResumeTenant", TenantState::Suspended, TenantState::Active).await
            }
            Change::DestroyTenant { tenant, wait_ms } => self.plan_destroy_tenant(tenant, *wait_ms, asked).await,
            Change::CancelTenantDestruction { tenant } => {
                self.plan_tenant_state(
                    tenant,
                    "CancelTenantDestruction",
                    TenantState::PendingDestruction,
                    TenantState::Suspended,
                )
                .await
            }
            Change::DestroyDueTenant { tenant, by } => self.plan_destroy_due_tenant(tenant, *by).await,
            Change::CreateKey { tenant, key, purpose, labels } => {
                self.plan_create_key(tenant, key, *purpose, labels).await
            }
            Change::UpdateKey { tenant, key, labels } => self.plan_update_key(tenant, key, labels).await,
            Change::RotateKey { tenant, key } => self.plan_rotate_key(tenant, key).await,
            Change::SetKeyState { tenant, key, version, enabled } => {
                self.plan_key_state(tenant, key, *version, *enabled).await
            }
            Change::ScheduleKeyDestruction { tenant, key, version, wait_ms } => {
                self.plan_schedule_key(tenant, (key, *version), *wait_ms, asked).await
            }
            Change::CancelKeyDestruction { tenant, key, version } => self.plan_cancel_key(tenant, key, *version).await,
            Change::DestroyDueKey { tenant, key, version, by } => {
                self.plan_destroy_due_key(tenant, key, *version, *by).await
            }
            Change::DestroyDataKeys(keys) => self.plan_destroy_data_keys(keys).await,
            Change::RequestGrant { tenant, what, hash, reason } => {
                self.plan_request_grant(tenant.as_ref(), (what, *hash), reason, who).await
            }
            Change::ApproveGrant { tenant, grant, hash } => {
                self.plan_approve_grant(tenant.as_ref(), *grant, *hash, who).await
            }
            Change::RevokeGrant { tenant, grant } => self.plan_revoke_grant(tenant.as_ref(), *grant, who).await,
            Change::UseGrant { hash } => self.plan_use_grant(*hash, who).await,
            Change::CarryOut { tenant, destroyed } => self.plan_carry_out(tenant, destroyed).await,
        }
    }

    /// Returns the waiting time, or why it is none. 0 is no date: it acts at once.
    fn wait_ms(&self, asked: Option<u64>) -> Result<u64, Error> {
        let wait_ms = asked.unwrap_or(self.settings.wait_ms_default);
        if wait_ms > WAIT_MS_MAX {
            return Err(Error::WaitTooLong(WAIT_MS_MAX));
        }
        Ok(wait_ms)
    }

    /// Returns the grant by which a destruction waits for less than one person may choose; none where it does not.
    async fn grant_of_short_wait(
        &self,
        (tenant, name): (Uid, &TenantName),
        wait_ms: u64,
        asked: &terms::Asked,
    ) -> Result<Option<grant::GrantUse>, Error> {
        if wait_ms >= self.settings.wait_ms_min {
            return Ok(None);
        }
        let grant = self.approved(Some(tenant), Some(name), ContentHash(asked.hash()), &asked.who).await?;
        grant.map(Some).ok_or(Error::WaitTooShort(self.settings.wait_ms_min))
    }

    /// Waits for the turn of a tenant, or of all that concerns none, and returns its entry with it.
    async fn take_turn(&self, tenant: Option<&TenantName>) -> (Arc<Entry>, OwnedMutexGuard<()>) {
        match tenant {
            Some(tenant) => self.cache.take_turn(tenant).await,
            None => (Arc::clone(&self.no_tenant), Arc::clone(&self.no_tenant.turn).lock_owned().await),
        }
    }

    /// Tells whether the time is not to be relied on.
    fn clock_is_held(&self) -> bool {
        self.clock_held.load(Ordering::Acquire)
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn mark_broken(&self) {
        // Nothing can be taken back any more, so that nothing is given.
        self.grants.end_all();
        self.broken.store(true, Ordering::Release);
    }

    /// Answers whether the store may still be relied on, and the log written.
    pub fn check_whole(&self) -> Result<(), Error> {
        self.log.check()?;
        if self.broken.load(Ordering::Acquire) {
            return Err(Error::Store(StoreError::Failed("it failed before; this node must be restarted".into())));
        }
        Ok(())
    }

    /// Returns the audit log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Returns the key of page tokens.
    pub fn page_token_key(&self) -> &PageTokenKey {
        &self.cluster.page_token
    }

    /// Returns the source of randomness.
    pub fn rng(&self) -> &dyn Random {
        &*self.rng
    }

    /// Returns the cluster's uid.
    pub fn cluster_uid(&self) -> Uid {
        self.cluster.uid
    }

    /// Returns the epoch that wraps tenant keys.
    pub fn epoch(&self) -> EpochPlace {
        self.epoch.place
    }

    /// Returns when that epoch began.
    pub fn epoch_began(&self) -> UnixMillis {
        self.epoch.created
    }

    /// Returns how many changes were made since `init`.
    pub fn seq(&self) -> u64 {
        self.seq.load(Ordering::Relaxed)
    }

    /// Returns what is in memory.
    pub fn cache_status(&self) -> CacheStatus {
        self.cache.status()
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("cluster", &self.cluster.uid)
            .field("epoch", &self.epoch.place)
            .finish_non_exhaustive()
    }
}
