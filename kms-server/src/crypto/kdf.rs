//! Derivations: HKDF-Expand-SHA-512 (RFC 5869, expand only: every input key is uniform) and subkeys.

use ring::hkdf::{HKDF_SHA512, KeyType, Prk};
use zeroize::Zeroize as _;

struct Bytes<const N: usize>;

impl<const N: usize> KeyType for Bytes<N> {
    fn len(&self) -> usize {
        N
    }
}

/// Fills `out` with HKDF-Expand-SHA-512(key, info).
#[inline(never)] // So that `scrub_stack`, called after it, wipes its frame.
pub(super) fn expand<const N: usize>(key: &[u8; 32], info: &[&[u8]], out: &mut [u8; N]) {
    Prk::new_less_safe(HKDF_SHA512, key)
        .expand(info, Bytes::<N>)
        .and_then(|okm| okm.fill(out))
        .expect("N is far below the 16,320 bytes that HKDF-SHA-512 gives");
}

/// Fills `out` with the subkey that `label` names. **Invariant:** every label ends with 00, so that
/// none is the beginning of another.
pub(super) fn subkey(key: &[u8; 32], label: &[u8], out: &mut [u8; 32]) {
    assert_eq!(label.last(), Some(&0), "a separation string ends with 00");
    expand(key, &[label], out);
    scrub_stack();
}

/// Overwrites the stack that the calls before this one used: ring keeps round keys and HMAC states
/// there and does not wipe them. To be called by a leaf function right after it used a key.
#[inline(never)]
pub(super) fn scrub_stack() {
    // In words: each write is volatile, so that the compiler makes no fewer of them.
    let mut space = [0u64; 512];
    space.zeroize();
    std::hint::black_box(&space);
}
