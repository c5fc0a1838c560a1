//! Envelope-encryption key management service.

pub mod audit;
pub mod authn;
pub mod backend;
pub mod crypto;
pub mod keyring;
pub mod noun;
pub mod policy;
pub mod rows;
pub mod store;
