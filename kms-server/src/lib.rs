//! Envelope-encryption key management service.

pub mod crypto;
pub mod noun;
