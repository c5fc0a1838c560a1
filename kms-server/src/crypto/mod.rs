//! The cryptography: bytes in, bytes or a verdict out.
//!
//! Not here: I/O, await, clocks, or any knowledge of where a key is kept. The formats are those of
//! `doc/formats.md`; `tests/vectors/` holds their known answers.
//!
//! **Invariant:** key bytes leave this folder only wrapped. The exceptions are a data key made
//! for a client and the key of a blind index, which say so by name ([`Dek::expose_to_caller`],
//! [`IndexKey::expose_to_caller`]).

pub mod arena;
mod blind_index;
pub mod chain;
mod construction;
pub mod context;
pub mod header;
mod kdf;
pub mod keystore_file;
pub mod log_mac;
mod mac;
mod managed_dek;
pub mod page_token;
mod pin_verifier;
pub mod record;
mod secret;
pub mod token_signature;

pub use blind_index::IndexKey;
pub use chain::{EpochPlace, TenantPlace, WrappedKey};
pub use construction::{OVERHEAD_BYTES, OpenError};
pub use context::{CallerPairs, ContextHash, InvalidContext};
pub use header::{Header, Kind};
pub use mac::MAC_BYTES;
pub use pin_verifier::PinVerifier;
pub use secret::{
    AuditCtxKey, AuditSeed, ClusterSecret, Dek, EpochKey, FrameMacKey, IndexRoot, Kek, LedgerMacKey, MasterKey,
    PageTokenKey, Plaintext, RecordMacKey, TenantKey, WrapKey, sha256,
};

#[cfg(test)]
mod vectors;
