//! The nouns that every part of the service shares: names, principals, uids, versions, time,
//! randomness.
//!
//! They know nothing of wire, store or vendor. An invalid value has no constructor.

pub mod clock;
pub mod dek_uid;
pub mod name;
pub mod principal;
pub mod random;
pub mod strength;
pub mod uid;
pub mod version;

pub use clock::{Clock, UnixMillis};
pub use dek_uid::DekUid;
pub use name::{IndexName, KeyName, TenantName};
pub use principal::Principal;
pub use random::Random;
pub use strength::Strength;
pub use uid::Uid;
pub use version::{EpochNumber, KeyVersion};
