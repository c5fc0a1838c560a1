//! Envelope-encryption key management service.

pub mod backend;
pub mod crypto;
pub mod keyring;
pub mod noun;
pub mod rows;
pub mod store;
