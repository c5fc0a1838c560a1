//! EDGE: the only folder that names tonic or wire types.
//!
//! Every RPC takes one road, in [`pipeline`]: who, what, may, do, remember, answer. An RPC is one
//! file that says what it takes, what it asks permission for, and what it does; a line in
//! `services.rs` names it.

pub mod accept;
mod batch;
pub mod budget;
mod caller_identity;
mod cancel_key_destruction;
mod change;
mod complete;
pub mod connection;
mod convert;
pub mod cores;
mod create_data_key;
mod create_key;
mod create_tenant;
mod decide_grant;
mod decrypt;
mod decrypt_data_key;
mod destroy_data_key;
mod destroy_tenant;
mod encrypt;
mod error;
mod export_keystore;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod generate_data_key;
mod generate_mac;
mod get_data_key;
mod get_index_key;
mod get_key;
mod get_status;
mod get_tenant;
mod grants;
mod handshake;
pub mod limits;
mod list_data_keys;
mod list_key_versions;
mod list_keys;
mod list_tenants;
mod lock_node;
pub mod locked;
pub mod noise;
mod parse;
mod pipeline;
mod re_encrypt;
mod read_grants;
mod record;
#[cfg(feature = "dev")]
mod reflection;
pub mod refusals;
mod reload;
mod request_grant;
mod rotate_key;
mod schedule_key_destruction;
mod serve;
mod services;
mod set_key_state;
mod status;
mod tally;
mod tenant_state;
mod test_permissions;
pub mod trust;
mod update_key;
mod update_tenant;
mod verify_mac;

use std::sync::Arc;
use std::time::Duration;

pub use serve::{Endpoint, Ends, Health, Listener, Reflection};

use crate::backend::{MasterKeyBackend, Probed};
use crate::keyring::Keyring;
use crate::lock::Lock;
use crate::noun::{Clock, UnixMillis};
use crate::policy::InForce;
use crate::reload::ReloadHandle;

/// The longest message, in both directions: gRPC's default.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// What the RPCs work with.
pub struct Api {
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// Who may do what.
    pub policy: Arc<InForce>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The longest that one request may take.
    pub request_time_max: Duration,
    /// The bytes of all messages in flight.
    pub budget: budget::Budget,
    /// How much at once, and how often.
    pub limits: limits::Limits,
    /// Which refusals get a record of their own.
    pub noise: noise::Noise,
    /// The master key's backend, for its status.
    pub backend: Arc<dyn MasterKeyBackend>,
    /// What the last probe of the master key came to.
    pub probed: Arc<Probed>,
    /// The backend's kind.
    pub backend_kind: &'static str,
    /// What locks this node.
    pub lock: Arc<Lock>,
    /// What reloads it; nothing where things are tried on.
    pub reload: Option<ReloadHandle>,
    /// What does not change while the daemon runs.
    pub facts: Facts,
}

/// What `GetStatus` tells of this daemon.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When it started.
    pub started: UnixMillis,
    /// The store's kind.
    pub store_kind: &'static str,
    /// It is there to try things on.
    pub is_trial: bool,
    /// Things to look at.
    pub warnings: Vec<String>,
}
