//! The encryption context and its hash, which is bound into every ciphertext.
//!
//! ```text
//! CTXH  = SHA-256( 01 || u16 len tenant || tenant || u32 len aad || aad || PAIRS )
//! PAIRS = empty if none, else u16 count || (u16 len k || k || u16 len v || v)*
//! ```
//! Names in byte order, none twice; PAIRS is the AWS Encryption SDK's serialisation. Two different
//! contexts never give the same bytes.

use std::collections::BTreeMap;

use ring::digest::{Context as Sha, SHA256};
use subtle::ConstantTimeEq as _;

/// The most pairs a caller may give.
pub const PAIRS_MAX: usize = 32;
/// The most bytes that go into the hash: tenant, aad, pairs and their lengths.
pub const CONTEXT_BYTES_MAX: usize = 8_192;
/// The longest pair name, in bytes; the shortest has 1.
pub const PAIR_NAME_BYTES_MAX: usize = 256;
/// The longest pair value, in bytes; it may be empty.
pub const PAIR_VALUE_BYTES_MAX: usize = 4_096;
/// Pair names that begin so are the service's own.
const RESERVED_PREFIX: &str = "kms1";

/// The hash of an encryption context. Not secret by itself, but never logged: a guess of the
/// context can be tested against it. Logs carry a keyed form.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ContextHash([u8; 32]);

impl ContextHash {
    /// Takes the hash that a row of the store keeps.
    pub const fn from_row(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Tells, in constant time, whether it is the hash of the same context.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Why a caller's context was refused. Never carries the offending name or value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidContext {
    /// More than [`PAIRS_MAX`] pairs.
    #[error("an encryption context has at most 32 pairs")]
    TooManyPairs,
    /// A name of no or too many bytes.
    #[error("a name in an encryption context has 1 to 256 bytes")]
    NameLength,
    /// A value of too many bytes.
    #[error("a value in an encryption context has at most 4,096 bytes")]
    ValueLength,
    /// A NUL character.
    #[error("names and values in an encryption context have no U+0000")]
    Nul,
    /// A name of the service's own.
    #[error("names that begin with kms1 are reserved")]
    ReservedName,
    /// Too much in all.
    #[error("an encryption context with its aad has at most 8,192 bytes")]
    TooLong,
}

/// Hashes a caller's context after checking every limit.
pub fn hash_of_caller<'a>(
    tenant: &str,
    aad: &[u8],
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<ContextHash, InvalidContext> {
    CallerPairs::of(tenant, pairs)?.with_aad(aad)
}

/// The pairs of a caller's context, checked and serialised once, for contexts that differ in their
/// aad alone.
pub struct CallerPairs {
    tenant: Box<str>,
    pairs: Vec<u8>,
    /// The hash without aad, which most items of a batch have.
    bare: ContextHash,
}

impl CallerPairs {
    /// Takes the pairs of a caller after checking every limit that holds for any aad.
    pub fn of<'a>(tenant: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, InvalidContext> {
        let mut sorted = BTreeMap::new();
        for (name, value) in pairs {
            if name.is_empty() || name.len() > PAIR_NAME_BYTES_MAX {
                return Err(InvalidContext::NameLength);
            }
            if value.len() > PAIR_VALUE_BYTES_MAX {
                return Err(InvalidContext::ValueLength);
            }
            if name.contains('\0') || value.contains('\0') {
                return Err(InvalidContext::Nul);
            }
            if name.starts_with(RESERVED_PREFIX) {
                return Err(InvalidContext::ReservedName);
            }
            sorted.insert(name, value);
            if sorted.len() > PAIRS_MAX {
                return Err(InvalidContext::TooManyPairs);
            }
        }
        let serialised = serialised(&sorted);
        let pairs = Self { tenant: tenant.into(), bare: hash(tenant, b"", &serialised), pairs: serialised };
        pairs.check_length(0)?;
        Ok(pairs)
    }

    /// Hashes the context with this aad.
    pub fn with_aad(&self, aad: &[u8]) -> Result<ContextHash, InvalidContext> {
        if aad.is_empty() {
            return Ok(self.bare);
        }
        self.check_length(aad.len())?;
        Ok(hash(&self.tenant, aad, &self.pairs))
    }

    fn check_length(&self, aad_bytes: usize) -> Result<(), InvalidContext> {
        let bytes = 1 + 2 + self.tenant.len() + 4 + aad_bytes + self.pairs.len();
        if bytes > CONTEXT_BYTES_MAX { Err(InvalidContext::TooLong) } else { Ok(()) }
    }
}

/// Hashes a context of the service's own: its names begin with `kms1` or lie beside one that does.
pub(super) fn hash_of_own(tenant: &str, aad: &[u8], pairs: &[(&str, &str)]) -> ContextHash {
    hash(tenant, aad, &serialised(&pairs.iter().copied().collect()))
}

fn serialised(pairs: &BTreeMap<&str, &str>) -> Vec<u8> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let bytes = 2 + pairs.iter().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>();
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&u16_len(pairs.len()));
    for (name, value) in pairs {
        out.extend_from_slice(&u16_len(name.len()));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&u16_len(value.len()));
        out.extend_from_slice(value.as_bytes());
    }
    out
}

fn hash(tenant: &str, aad: &[u8], pairs: &[u8]) -> ContextHash {
    let mut sha = Sha::new(&SHA256);
    sha.update(&[0x01]);
    sha.update(&u16_len(tenant.len()));
    sha.update(tenant.as_bytes());
    sha.update(&u32::try_from(aad.len()).expect("aad was bounded by CONTEXT_BYTES_MAX").to_be_bytes());
    sha.update(aad);
    sha.update(pairs);
    let mut out = [0; 32];
    out.copy_from_slice(sha.finish().as_ref());
    ContextHash(out)
}

fn u16_len(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("every part has a limit of its own").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)]) -> Result<ContextHash, InvalidContext> {
        hash_of_caller("acme", b"", pairs.iter().copied())
    }

    #[test]
    fn the_order_of_pairs_does_not_matter() {
        assert!(check(&[("a", "1"), ("b", "2")]).unwrap() == check(&[("b", "2"), ("a", "1")]).unwrap());
    }

    #[test]
    fn every_part_changes_the_hash() {
        let base = check(&[("a", "bc")]).unwrap();
        for other in [&[("ab", "c")][..], &[("a", "b")], &[("A", "bc")], &[], &[("a", "bc"), ("d", "")]] {
            assert!(check(other).unwrap() != base, "{other:?}");
        }
        assert!(hash_of_caller("acme", b"x", [("a", "bc")]).unwrap() != base);
        assert!(hash_of_caller("acmf", b"", [("a", "bc")]).unwrap() != base);
    }

    #[test]
    fn pairs_taken_once_give_the_same_hashes() {
        let pairs = CallerPairs::of("acme", [("b", "2"), ("a", "1")]).unwrap();
        for aad in [&b""[..], b"x", &[0; 256]] {
            assert!(pairs.with_aad(aad).unwrap().is(&hash_of_caller("acme", aad, [("a", "1"), ("b", "2")]).unwrap()));
        }
        assert_eq!(pairs.with_aad(&[0; 8_192]).err(), Some(InvalidContext::TooLong));
    }

    #[test]
    fn each_limit_holds_at_its_edge() {
        let names: Vec<String> = (0..33).map(|n| format!("n{n}")).collect();
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert!(check(&pairs[..32]).is_ok());
        assert_eq!(check(&pairs).err(), Some(InvalidContext::TooManyPairs));
        let long = "x".repeat(4_097);
        assert!(check(&[(&long[..256], &long[..4_096])]).is_ok());
        assert_eq!(check(&[(&long[..257], "")]).err(), Some(InvalidContext::NameLength));
        assert_eq!(check(&[("", "")]).err(), Some(InvalidContext::NameLength));
        assert_eq!(check(&[("a", &long)]).err(), Some(InvalidContext::ValueLength));
        assert_eq!(check(&[("a", "\0")]).err(), Some(InvalidContext::Nul));
        assert_eq!(check(&[("kms1", "")]).err(), Some(InvalidContext::ReservedName));
        assert_eq!(check(&[("kms1-dek", "")]).err(), Some(InvalidContext::ReservedName));
        assert!(check(&[("kms", "")]).is_ok());
        // 01, u16, "acme", u32, aad: 8,192 in all with 8,181 of aad, and with 8,171 and a pair of 4.
        let aad = vec![0; 8_181];
        assert!(hash_of_caller("acme", &aad, []).is_ok());
        assert!(hash_of_caller("acme", &aad[..8_171], [("ab", "cd")]).is_ok());
        assert_eq!(hash_of_caller("acme", &aad[..8_172], [("ab", "cd")]).err(), Some(InvalidContext::TooLong));
        assert_eq!(hash_of_caller("acme", &[aad, vec![0]].concat(), []).err(), Some(InvalidContext::TooLong));
    }
}
