//! The row of a managed data key.
//!
//! ```text
//! living     02 || CTXH of the caller's context (32) || blob (128)
//! destroyed  03 || u48 milliseconds since 1970 || complement of the blob's C (32)
//! ```
//! No `rev` and no MAC: the blob authenticates uid, tenant and CTXH, and its header names the key.

use crate::crypto::{ContextHash, Kind, WrappedKey};
use crate::noun::{KeyVersion, Uid, UnixMillis};

use super::super::Error;

/// What a row says.
pub(in crate::keyring) enum DekRow {
    /// It lives.
    Living(LivingDek),
    /// It was destroyed, at this time.
    Destroyed(UnixMillis),
}

/// A managed data key that lives, wrapped.
pub(in crate::keyring) struct LivingDek {
    pub(in crate::keyring) context: ContextHash,
    pub(in crate::keyring) blob: WrappedKey,
    /// The version that wraps it, as the blob's header says: trusted once it is unwrapped.
    pub(in crate::keyring) version: KeyVersion,
}

impl DekRow {
    /// Reads a row of a key.
    pub(in crate::keyring) fn parse(key: Uid, bytes: &[u8]) -> Result<Self, Error> {
        const DAMAGED: Error = Error::Damaged("a data key that is none");
        match bytes.split_first() {
            Some((&LIVING, rest)) => {
                let (context, blob) = rest.split_first_chunk::<32>().ok_or(DAMAGED)?;
                let blob = WrappedKey::from_slice(blob).ok_or(DAMAGED)?;
                let header = blob.header().map_err(|_| DAMAGED)?;
                if header.kind != Kind::WrappedDek || header.key_id != key {
                    return Err(DAMAGED);
                }
                let version = header.version;
                Ok(Self::Living(LivingDek { context: ContextHash::from_row(*context), blob, version }))
            }
            Some((&DESTROYED, rest)) if rest.len() == 6 + 32 => {
                let at = rest.iter().take(6).fold(0, |at, byte| at << 8 | u64::from(*byte));
                Ok(Self::Destroyed(at))
            }
            Some(_) | None => Err(DAMAGED),
        }
    }

    /// Returns the version that wraps it, if it lives.
    pub(in crate::keyring) fn version(&self) -> Option<KeyVersion> {
        match self {
            Self::Living(living) => Some(living.version),
            Self::Destroyed(_) => None,
        }
    }
}

impl LivingDek {
    pub(in crate::keyring) fn to_bytes(&self) -> Vec<u8> {
        [&[LIVING][..], self.context.as_bytes(), self.blob.as_bytes()].concat()
    }

    /// Makes what is left of it once it is destroyed.
    pub(in crate::keyring) fn shell(&self, at: UnixMillis) -> Vec<u8> {
        let at = at.min(AT_MAX).to_be_bytes();
        [&[DESTROYED][..], &at[2..], &self.blob.commitment().map(|byte| !byte)].concat()
    }
}

const LIVING: u8 = 0x02;
const DESTROYED: u8 = 0x03;
const AT_MAX: UnixMillis = (1 << 48) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Header;

    #[test]
    fn the_rows_of_the_vectors_are_read_and_written_byte_for_byte() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/kms1_vectors.json")).unwrap();
        let row = |name: &str| hex::decode(vectors[name].as_str().unwrap()).unwrap();
        let (living, destroyed) = (row("managed_dek_row"), row("destroyed_dek_row"));
        let key = Header::parse(&living[33..]).unwrap().key_id;
        let Ok(DekRow::Living(dek)) = DekRow::parse(key, &living) else { panic!("it lives") };
        assert_eq!(dek.to_bytes(), living);
        let at = vectors["destroyed_ms"].as_u64().unwrap();
        assert_eq!(dek.shell(at), destroyed);
        assert!(matches!(DekRow::parse(key, &destroyed), Ok(DekRow::Destroyed(found)) if found == at));
        println!("data key rows: 2/2 met");
    }

    #[test]
    fn what_is_no_row_of_this_key_is_damage() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/kms1_vectors.json")).unwrap();
        let living = hex::decode(vectors["managed_dek_row"].as_str().unwrap()).unwrap();
        let key = Header::parse(&living[33..]).unwrap().key_id;
        let mut bad: Vec<Vec<u8>> = (0..living.len()).map(|length| living[..length].to_vec()).collect();
        bad.push([&living[..], &[0]].concat());
        bad.push([&[4][..], &living[1..]].concat());
        bad.push([&[3][..], &[0; 37]].concat());
        for row in &bad {
            assert!(matches!(DekRow::parse(key, row), Err(Error::Damaged(_))), "{} bytes", row.len());
        }
        assert!(matches!(DekRow::parse(Uid::from_bytes([9; 16]), &living), Err(Error::Damaged(_))));
    }
}
