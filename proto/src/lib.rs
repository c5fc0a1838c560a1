//! Wire messages and service traits of the key management service.
//!
//! Everything in [`v1`] is generated from `kms/v1/*.proto`, whose comments are the reference of the
//! API. Written by hand are only the codec (`codec.rs`), the `Debug` of messages that carry plaintext, ciphertext or an
//! encryption context (`redact.rs`), and the texts of [`v1::ErrorReason`] (`reason.rs`).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may"))]

pub mod codec;
#[cfg(test)]
mod descriptor;
#[cfg(test)]
mod lint;
mod reason;
mod redact;

/// Version 1 of the API.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
    tonic::include_proto!("kms.v1");
}

pub use reason::ERROR_DOMAIN;

/// The compiled `.proto` files with all that they import, as a `google.protobuf.FileDescriptorSet`:
/// for reflection, and for tests that walk the API.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("kms.v1");
