//! What the keyring refuses, and why. Which gRPC status that is, is `rpc::status`'s to say.

use crate::audit::LogFailed;
use crate::backend::BackendError;
use crate::crypto::OpenError;
use crate::crypto::arena::ArenaFull;
use crate::crypto::record::RecordError;
use crate::store::StoreError;

use super::state::{KeyState, TenantState};

/// Why the keyring did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such tenant.
    #[error("there is no such tenant")]
    TenantNotFound,
    /// No such key.
    #[error("there is no such key")]
    KeyNotFound,
    /// No such version.
    #[error("there is no such key version")]
    VersionNotFound,
    /// No such managed data key, or one that was destroyed and the caller may not know it.
    #[error("there is no such data key")]
    DataKeyNotFound,
    /// The managed data key was destroyed.
    #[error("the data key was destroyed")]
    DataKeyDestroyed,
    /// Of all managed data keys that were to be destroyed none is there.
    #[error("there are no such data keys")]
    DataKeysGone(Vec<super::Gone>),
    /// The version still wraps managed data keys.
    #[error("the key version still wraps {0} managed data keys: rotate the key, and wait until they are moved")]
    VersionInUse(u64),
    /// The name is taken.
    #[error("a tenant of this name exists already")]
    TenantExists,
    /// The name is taken.
    #[error("a key of this name exists already")]
    KeyExists,
    /// The name belonged to something destroyed.
    #[error("what had this name was destroyed, and a name is never used again")]
    NameWasDestroyed,
    /// The tenant's state does not allow it.
    #[error("the tenant is {0}")]
    TenantState(TenantState),
    /// The key's state does not allow it.
    #[error("the key is {0}")]
    KeyState(KeyState),
    /// The version's state does not allow it.
    #[error("the key version is {0}")]
    VersionState(KeyState),
    /// Not a legal change of state.
    #[error("{what} cannot go from {from} to {to}")]
    Transition {
        /// Tenant, key or key version.
        what: &'static str,
        /// The state it has.
        from: &'static str,
        /// The state asked for.
        to: &'static str,
    },
    /// The primary version cannot be destroyed alone.
    #[error("the primary version cannot be destroyed: rotate the key first, or destroy the whole key")]
    PrimaryVersion,
    /// The key has as many versions as a key may have.
    #[error("a key has at most {} versions", super::VERSIONS_MAX)]
    VersionsExhausted,
    /// A waiting time below the setting, in milliseconds, and no second person agreed to it.
    #[error("the waiting time is shorter than one person may choose: at least {} s", *.0 as f64 / 1000.0)]
    WaitTooShort(u64),
    /// A waiting time above the limit, in milliseconds.
    #[error("the waiting time is longer than {} days", .0 / 86_400_000)]
    WaitTooLong(u64),
    /// No such grant.
    #[error("there is no such grant")]
    GrantNotFound,
    /// The grant's state does not allow it.
    #[error("the grant is {}", .0.as_str())]
    GrantState(super::GrantState),
    /// Who asked for it cannot approve it.
    #[error("who asked for a grant cannot approve it")]
    SecondPersonRequired,
    /// The grant is for something else.
    #[error("the grant is for something else than what was looked at")]
    GrantChanged,
    /// It is asked for a longer time than the setting, in milliseconds.
    #[error("a role is granted for at most {} s", .0 / 1000)]
    GrantTooLong(u64),
    /// Too many grants, or too many of one principal that wait.
    #[error("too many grants wait or are kept here: at most 100 of one caller, and 500 in all")]
    TooManyGrants,
    /// A second person must approve it first.
    #[error("a second person must approve this first")]
    ApprovalRequired,
    /// A key of another purpose than this call needs.
    #[error("the key's purpose does not allow this call")]
    PurposeNotSupported,
    /// A blob of another kind than this call takes.
    #[error("this call takes another kind of blob")]
    WrongKind,
    /// A blob that does not open.
    #[error("the blob does not open")]
    Open(#[source] OpenError),
    /// Somebody else changed it at the same time.
    #[error("it was changed at the same time")]
    Conflict,
    /// Another call was made under this request id.
    #[error("another call was carried out under this request id in the last 24 hours")]
    RequestIdReused,
    /// The object is in another state than the caller knows.
    #[error("it was changed since its etag was read")]
    EtagMismatch,
    /// No room in locked memory for one more key.
    #[error("the memory for keys is full")]
    CacheFull,
    /// More changes are waiting than may wait, or requests did not end in time.
    #[error("too much is waiting")]
    Overloaded,
    /// The service is going down.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The audit log cannot be written.
    #[error("the audit log cannot be written")]
    Log(#[from] LogFailed),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The backend failed.
    #[error("the master key backend failed")]
    Backend(#[from] BackendError),
    /// A stored row is not what it should be.
    #[error("a stored row is damaged: {0}")]
    Damaged(&'static str),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(_) => Error::Conflict,
            failed @ StoreError::Failed(_) => Error::Store(failed),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::ArenaFull => Error::CacheFull,
            other => Error::Open(other),
        }
    }
}

impl From<ArenaFull> for Error {
    fn from(_: ArenaFull) -> Self {
        Error::CacheFull
    }
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Format => Error::Damaged("unknown format"),
            RecordError::Mac => Error::Damaged("it does not verify"),
        }
    }
}
