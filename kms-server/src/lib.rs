//! Envelope-encryption key management service.

pub mod backend;
pub mod crypto;
pub mod noun;
