//! Envelope-encryption key management service.

pub mod noun;
