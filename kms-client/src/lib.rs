//! Rust client of the key management service.
//!
//! ```no_run
//! use kms_client::{Client, Context, KeyRef};
//!
//! # async fn quickstart() -> Result<(), kms_client::Error> {
//! let kms = Client::builder("https://kms.internal:8443")
//!     .ca_file("ca.pem")
//!     .identity_files("billing.pem", "billing.key")
//!     .connect()
//!     .await?;
//!
//! let key: KeyRef = "tenants/acme/keys/app".parse()?;
//! let context = Context::from([("table", "users"), ("column", "ssn"), ("id", "42")]);
//! let sealed = kms.encrypt(&key, b"078-05-1120", &context).await?;
//! let opened = kms.decrypt(&key, &sealed.ciphertext, &context).await?;
//! assert_eq!(opened.plaintext.expose(), b"078-05-1120");
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is cheap to clone and all its methods take `&self`: make one, and share it. Every
//! call has a time limit ([`ClientBuilder::timeout`]), which the server is told and which is also
//! kept here.
//!
//! What always holds:
//! - The connection is mutual TLS. There is no way to ask for less.
//! - No limit of the API is checked here (sizes, contexts, labels): the server answers, so that there
//!   is one source of truth and an older client does not refuse what a newer server allows. Only
//!   names are parsed, because a name with a slash in it would silently name something else, and
//!   batches are bounded before they are copied and sent ([`BatchItem`]).
//! - What may pass is repeated by itself, three times in all with growing waits, within the one time limit and as long
//!   as not too much fails. That is safe for changes too: each has a `request_id` ([`RequestId`]), the same in every
//!   attempt, and the service carries it out once. [`Error::attempts`] tells how often it was tried.
//! - Every key that is given out in the clear comes with a [`Lease`]: how long it may be held, counted from before it was
//!   asked for.
//! - Plaintext and data keys are wiped when dropped and never printed. Copies inside the transport
//!   are freed without being wiped; a program that minds sets an allocator that wipes what it frees,
//!   as the `kms` command does.
//! - No type of the transport underneath shows in this interface.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may"))]

mod access;
mod batch;
mod builder;
mod call;
mod change;
mod ciphertext;
mod client;
mod connect;
mod context;
mod crypto;
mod crypto_batch;
mod data_key;
mod endpoints;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod guard;
mod index_key;
mod key;
mod key_state;
mod lease;
mod mac;
mod name;
mod operator;
mod page;
mod permission;
mod random;
mod retry;
mod secret;
mod status;
mod tenant;
mod time;
mod tls;
mod trouble;
mod wire;
mod withdrawn;

pub use access::{AuthMethod, Binding, CallerIdentity};
pub use batch::{BatchItem, ItemError, NewDataKey};
pub use builder::ClientBuilder;
pub use change::{Change, Creation, Decision, Destruction, Etag, RequestId};
pub use ciphertext::{Ciphertext, Mac, WrappedDataKey};
pub use client::Client;
pub use context::Context;
pub use crypto::{
    Decrypted, DecryptedDataKey, Encrypted, GeneratedDataKey, GeneratedWrappedDataKey, ReEncrypted, ReEncryptedDataKey,
};
pub use crypto_batch::ReEncryptItem;
pub use data_key::{
    CreatedDataKey, CreatedDataKeyUid, DataKeyCreation, DataKeyUid, DestroyedDataKey, GivenDataKey, ManagedDataKey,
};
pub use error::{Error, ErrorKind};
pub use grant::{ContentHash, Grant, GrantState, GrantWhat, Operation, RoleGrant};
pub use index_key::GivenIndexKey;
pub use key::{Key, KeyAndVersion, KeyVersion, Labels};
pub use key_state::{KeyPurpose, KeyState};
pub use lease::Lease;
pub use mac::{GeneratedMac, VerifiedMac};
pub use name::{GrantRef, IndexRef, KeyRef, TenantRef, VersionNumber};
pub use operator::{KeystoreExport, KeystoreFile, Reloaded};
pub use page::{Page, PageRequest, PageToken};
pub use permission::{ConsideredRule, PermissionTest, Resource, TestedPermission};
pub use secret::{DataKey, IndexKey, Plaintext};
pub use status::{
    AuditLogStatus, BackendStatus, CacheStatus, EpochStatus, MemoryStatus, ServerState, Status, StoreStatus,
};
pub use tenant::{Tenant, TenantSettings, TenantState};
pub use withdrawn::Withdrawn;
