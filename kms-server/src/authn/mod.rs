//! WHO: the principal behind a connection. Not what it may do: that is `policy`.
//!
//! **Invariant:** a principal is the SPIFFE ID in a certificate that a configured authority signed
//! for a client, or what the settings map another of its names to. The subject of a certificate
//! is never a principal by itself, and a connection without a principal is no connection.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod identity;
pub mod inspect;
pub mod mapping;
mod pem;
pub mod tls;

pub use identity::{NoIdentity, identify};
pub use mapping::{IdentityEntry, IdentityMapping, InvalidMapping};
pub use tls::{ServerTls, TlsError, TlsFiles, server_tls};
