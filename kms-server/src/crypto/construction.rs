//! Suite 01: committing encryption with a key of its own for every message.
//!
//! ```text
//! LABEL = "kms1/hkdf-sha512/aes-256-gcm/commit"   K = 32 uniform bytes   S, IV = 12 random bytes each
//! OKM   = HKDF-Expand-SHA-512( K, LABEL || H || S || CTXH, 64 )          Ke || C = OKM
//! CT||T = AES-256-GCM( Ke, IV, plaintext, empty AAD )
//! blob  = H(24) || S(12) || IV(12) || C(32) || CT(n) || T(16)
//! ```
//! C commits to the key and to all of H, S and the context (CMT-4 by collision resistance of
//! SHA-512): it is compared, in constant time, before Ke is used. A long-lived key never meets
//! AES-GCM, so there is no limit on messages per key.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::noun::Random;

use super::context::ContextHash;
use super::header::{HEADER_BYTES, Header};
use super::kdf;

/// Bytes that a blob has over its plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + 12 + 12 + 32 + 16;

const LABEL: &[u8; 35] = b"kms1/hkdf-sha512/aes-256-gcm/commit";
const SALT: std::ops::Range<usize> = 24..36;
const IV: std::ops::Range<usize> = 36..48;
/// Where the commitment lies.
pub(super) const COMMITMENT: std::ops::Range<usize> = 48..80;
const TAG_BYTES: usize = 16;

// The input of the one HMAC with its counter byte fits one block of SHA-512 with padding.
const _: () = assert!(LABEL.len() + HEADER_BYTES + 12 + 32 < 111);

/// Why a blob did not open. For the audit record only: callers see one reason for all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than any blob.
    #[error("short")]
    Short,
    /// Not a blob of this service.
    #[error("magic")]
    Magic,
    /// A suite this service does not know.
    #[error("suite")]
    Suite,
    /// Of another kind than asked for.
    #[error("kind")]
    Kind,
    /// Of another key than asked for.
    #[error("key")]
    Key,
    /// Of another version than asked for.
    #[error("version")]
    Version,
    /// Another context, another key's bytes, or a changed blob.
    #[error("commitment")]
    Commitment,
    /// A changed ciphertext.
    #[error("tag")]
    Tag,
    /// A wrapped key that has not 32 bytes, or a MAC that has not 56.
    #[error("length")]
    Length,
    /// A MAC of another message, in another context, or by another key's bytes.
    #[error("mac")]
    Mac,
    /// No room in locked memory.
    #[error("locked memory is full")]
    ArenaFull,
}

impl OpenError {
    /// Tells whether nothing is wrong with the blob: there was no room for the key in it.
    pub const fn is_for_want_of_room(self) -> bool {
        matches!(self, OpenError::ArenaFull)
    }
}

impl From<super::arena::ArenaFull> for OpenError {
    fn from(_: super::arena::ArenaFull) -> Self {
        OpenError::ArenaFull
    }
}

/// Seals a plaintext under `key`.
pub(super) fn seal(
    key: &[u8; 32],
    header: Header,
    context: &ContextHash,
    plaintext: &[u8],
    rng: &dyn Random,
) -> Vec<u8> {
    let mut blob = Vec::with_capacity(OVERHEAD_BYTES + plaintext.len());
    blob.extend_from_slice(&header.to_bytes());
    blob.resize(COMMITMENT.end, 0);
    rng.fill(&mut blob[SALT.start..IV.end]);
    blob.extend_from_slice(plaintext);
    seal_in_place(key, context, &mut blob);
    kdf::scrub_stack();
    blob
}

#[inline(never)]
fn seal_in_place(key: &[u8; 32], context: &ContextHash, blob: &mut Vec<u8>) {
    let okm = derive(key, blob, context);
    let (message_key, commitment) = okm.split_at(32);
    blob[COMMITMENT].copy_from_slice(commitment);
    let (head, body) = blob.split_at_mut(COMMITMENT.end);
    let tag = aes(message_key)
        .seal_in_place_separate_tag(nonce(head), Aad::empty(), body)
        .expect("a plaintext is far below the limit of AES-GCM");
    blob.extend_from_slice(tag.as_ref());
}

/// Opens a blob in place; the plaintext is the returned part of it.
pub(super) fn open<'a>(
    key: &[u8; 32],
    expected: Header,
    context: &ContextHash,
    blob: &'a mut [u8],
) -> Result<&'a mut [u8], OpenError> {
    if blob.len() < OVERHEAD_BYTES {
        return Err(OpenError::Short);
    }
    Header::parse(blob)?.expect(expected)?;
    let opened = open_in_place(key, context, blob);
    kdf::scrub_stack();
    opened?;
    let end = blob.len() - TAG_BYTES;
    Ok(&mut blob[COMMITMENT.end..end])
}

#[inline(never)]
fn open_in_place(key: &[u8; 32], context: &ContextHash, blob: &mut [u8]) -> Result<(), OpenError> {
    let okm = derive(key, blob, context);
    let (message_key, commitment) = okm.split_at(32);
    if !bool::from(blob[COMMITMENT].ct_eq(commitment)) {
        return Err(OpenError::Commitment);
    }
    let (head, body) = blob.split_at_mut(COMMITMENT.end);
    aes(message_key).open_in_place(nonce(head), Aad::empty(), body).map_err(|_| OpenError::Tag)?;
    Ok(())
}

fn derive(key: &[u8; 32], blob: &[u8], context: &ContextHash) -> Zeroizing<[u8; 64]> {
    let mut okm = Zeroizing::new([0; 64]);
    kdf::expand(key, &[LABEL, &blob[..HEADER_BYTES], &blob[SALT], context.as_bytes()], &mut okm);
    okm
}

fn aes(message_key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, message_key).expect("Ke has 32 bytes"))
}

fn nonce(head: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(&head[IV]).expect("IV has 12 bytes")
}
