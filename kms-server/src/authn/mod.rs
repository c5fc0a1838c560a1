//! WHO: the principal behind a request. Not what it may do: that is `policy`.
//!
//! **Invariant:** a principal is the SPIFFE ID in a certificate that a configured authority signed
//! for a client, or what the settings map another of its names to; or what they make of the subject
//! of a token that a configured issuer signed, presented with a certificate that may present it. The
//! subject of a certificate is never a principal by itself.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod identity;
pub mod inspect;
pub mod issuer;
pub mod issuers;
mod jwks;
mod keys_by_url;
pub mod mapping;
mod pem;
pub mod tls;
pub mod token;
pub mod trust_domain;

pub use identity::{NoIdentity, identify};
pub use issuer::{InvalidIssuer, IssuerSettings};
pub use issuers::{Identified, Issuers, NotIdentified};
pub use mapping::{IdentityEntry, IdentityMapping, InvalidMapping};
pub use tls::{ServerTls, TlsError, TlsFiles, server_tls};
pub use token::InvalidToken;
pub use trust_domain::TrustDomainFiles;
