//! Envelope-encryption key management service.

pub mod audit;
pub mod crypto;
pub mod noun;
pub mod policy;
