//! Envelope-encryption key management service.

pub mod audit;
pub mod authn;
pub mod crypto;
pub mod noun;
pub mod policy;
