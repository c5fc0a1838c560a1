//! The stored form of a wrap, what it is bound to, and the reference to the key that made it.
//!
//! ```text
//! wrap      = 01 || 01 || IV 12 || AES-GCM of the key, 32, and its tag, 16                                   62 bytes
//!           | 01 || 02 || IV 16 || AES-CBC with padding (PKCS #7) of: key 32 || SHA-256(bound || key) 32     98 bytes
//! bound     = "kms1/pkcs11/epoch-key" || 00 || cluster 16 || epoch uid 16 || u24 number; aad of AES-GCM
//! label     = "kms1-" || cluster, 32 hex digits || "-" || number, 8 digits
//! reference = "pkcs11:token=" || token || ";object=" || label || ";id=" || "%" 2 hex digits, 1 to 64 times ||
//!             ";type=secret-key"                                                                    (RFC 7512)
//! ```
//! In a reference the token's label has every byte but letters, digits, `-`, `.`, `_` and `~` as `%` and two capital hex
//! digits. It says where the key was made and is for people: a key that moved to another token, by the maker's own
//! means, is found there by its label and id.

use zeroize::Zeroizing;

use super::error::Pkcs11Error;
use crate::backend::{EpochContext, MasterKeyRef};
use crate::crypto::sha256;
use crate::noun::{EpochNumber, Uid};

/// How a wrap was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mechanism {
    Gcm,
    CbcPad,
}

/// A wrap, taken apart.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Wrap<'a> {
    Gcm { iv: [u8; GCM_IV_BYTES], sealed: &'a [u8] },
    CbcPad { iv: [u8; CBC_IV_BYTES], sealed: &'a [u8] },
}

impl<'a> Wrap<'a> {
    /// Takes a stored wrap apart; nothing where its form is not that of one.
    pub(super) fn parse(stored: &'a [u8]) -> Option<Self> {
        let (head, rest) = stored.split_first_chunk::<2>()?;
        match *head {
            [FORMAT, MECHANISM_GCM] => {
                let (iv, sealed) = rest.split_first_chunk()?;
                (sealed.len() == GCM_SEALED_BYTES).then_some(Wrap::Gcm { iv: *iv, sealed })
            }
            [FORMAT, MECHANISM_CBC_PAD] => {
                let (iv, sealed) = rest.split_first_chunk()?;
                (sealed.len() == CBC_SEALED_BYTES).then_some(Wrap::CbcPad { iv: *iv, sealed })
            }
            _ => None,
        }
    }

    /// Returns its stored form; nothing where the token made it longer or shorter than it is.
    pub(super) fn stored(&self) -> Option<Vec<u8>> {
        let stored = match self {
            Wrap::Gcm { iv, sealed } => [&[FORMAT, MECHANISM_GCM][..], iv, sealed].concat(),
            Wrap::CbcPad { iv, sealed } => [&[FORMAT, MECHANISM_CBC_PAD][..], iv, sealed].concat(),
        };
        Wrap::parse(&stored).is_some().then_some(stored)
    }
}

/// Returns what a wrap is bound to.
pub(super) fn bound(context: &EpochContext) -> Vec<u8> {
    let EpochContext { cluster, epoch_id, epoch } = context;
    [PURPOSE, cluster.as_bytes(), epoch_id.as_bytes(), &epoch.to_u24()].concat()
}

/// Returns what AES-CBC encrypts: the key, and what binds it.
pub(super) fn checked(bound: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut all = Zeroizing::new(Vec::with_capacity(bound.len() + key.len()));
    all.extend_from_slice(bound);
    all.extend_from_slice(key);
    let check = sha256(&all);
    let mut plain = Zeroizing::new(Vec::with_capacity(key.len() + check.len()));
    plain.extend_from_slice(key);
    plain.extend_from_slice(&check);
    plain
}

/// Returns the label of an epoch's key.
pub(super) fn label_of(cluster: Uid, epoch: EpochNumber) -> String {
    format!("kms1-{cluster}-{:08}", epoch.get())
}

/// A version of the master key: a key of a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KeyName {
    pub(super) label: String,
    pub(super) id: Vec<u8>,
}

impl KeyName {
    /// Returns how it is referred to.
    pub(super) fn reference(&self, token: &str) -> MasterKeyRef {
        let id: String = self.id.iter().map(|byte| format!("%{byte:02X}")).collect();
        let token: String = token.bytes().map(escaped).collect();
        MasterKeyRef(format!("pkcs11:token={token};object={};id={id};type=secret-key", self.label))
    }

    /// Takes a reference; only the one spelling is one.
    pub(super) fn parse(reference: &MasterKeyRef) -> Result<Self, Pkcs11Error> {
        let other = || Pkcs11Error::Reference(reference.0.chars().take(REFERENCE_SHOWN_CHARS).collect());
        let text = &reference.0;
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(other());
        }
        let read = || {
            let rest = text.strip_prefix("pkcs11:token=")?;
            let (token, rest) = rest.split_once(";object=")?;
            let (label, rest) = rest.split_once(";id=")?;
            let id = unescaped(rest.strip_suffix(";type=secret-key")?)?;
            let token = String::from_utf8(unescaped(token)?).ok()?;
            let (cluster, number) = label.strip_prefix("kms1-")?.split_once('-')?;
            let mut uid = [0; 16];
            hex::decode_to_slice(cluster, &mut uid).ok()?;
            let number = EpochNumber::new(number.parse().ok()?)?;
            let name = Self { label: label.to_owned(), id };
            let is_id = (1..=ID_BYTES_MAX).contains(&name.id.len());
            let is_spelt_so = label_of(Uid::from_bytes(uid), number) == label && name.reference(&token) == *reference;
            (is_id && is_spelt_so).then_some(name)
        };
        read().ok_or_else(other)
    }
}

fn escaped(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            rest = after;
            let mut one = [0];
            hex::decode_to_slice(digits, &mut one).ok()?;
            bytes.push(one[0]);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// The IV of AES-GCM, in bytes.
pub(super) const GCM_IV_BYTES: usize = 12;
/// The IV of AES-CBC, in bytes.
pub(super) const CBC_IV_BYTES: usize = 16;
/// An epoch key, in bytes.
pub(super) const KEY_BYTES: usize = 32;
/// The longest id of a key, in bytes.
pub(super) const ID_BYTES_MAX: usize = 64;

const FORMAT: u8 = 1;
const MECHANISM_GCM: u8 = 1;
const MECHANISM_CBC_PAD: u8 = 2;
const GCM_SEALED_BYTES: usize = KEY_BYTES + 16;
const CBC_SEALED_BYTES: usize = KEY_BYTES + 32 + 16;
const PURPOSE: &[u8] = b"kms1/pkcs11/epoch-key\0";
const REFERENCE_BYTES_MAX: usize = 2048;
const REFERENCE_SHOWN_CHARS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: EpochContext = EpochContext {
        cluster: Uid::from_bytes([0xc1; 16]),
        epoch_id: Uid::from_bytes([0xe1; 16]),
        epoch: EpochNumber::FIRST,
    };

    #[test]
    fn a_wrap_has_its_one_length_and_known_numbers() {
        let gcm = Wrap::Gcm { iv: [7; 12], sealed: &[8; 48] };
        let cbc = Wrap::CbcPad { iv: [7; 16], sealed: &[8; 80] };
        for (wrap, bytes) in [(gcm, 62), (cbc, 98)] {
            let stored = wrap.stored().unwrap();
            assert_eq!(stored.len(), bytes);
            assert_eq!(Wrap::parse(&stored), Some(wrap));
            for cut in 0..bytes {
                assert_eq!(Wrap::parse(&stored[..cut]), None, "cut at {cut}");
            }
            assert_eq!(Wrap::parse(&[&stored[..], &[0]].concat()), None);
            for (at, value) in [(0, 0), (0, 2), (1, 0), (1, 3), (1, 0xff)] {
                let mut other = stored.clone();
                other[at] = value;
                assert_eq!(Wrap::parse(&other), None, "byte {at} is {value}");
            }
            // A GCM's number on a CBC's wrap, and the other way round.
            let mut other = stored.clone();
            other[1] ^= 3;
            assert_eq!(Wrap::parse(&other), None);
        }
        assert_eq!(Wrap::Gcm { iv: [7; 12], sealed: &[8; 49] }.stored(), None, "a token that answers too much");
    }

    #[test]
    fn what_a_wrap_is_bound_to_is_as_it_is_written() {
        let vector = "6b6d73312f706b637331312f65706f63682d6b657900\
            c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1000001";
        assert_eq!(hex::encode(bound(&CONTEXT)), vector);
        let plain = checked(&bound(&CONTEXT), &[0x11; 32]);
        assert_eq!(plain[..32], [0x11; 32]);
        let vector = [hex::decode(vector).unwrap(), vec![0x11; 32]].concat();
        assert_eq!(plain[32..], sha256(&vector));
    }

    #[test]
    fn a_reference_has_one_spelling() {
        let name = KeyName { label: label_of(CONTEXT.cluster, CONTEXT.epoch), id: vec![0, 0xab, 0x7f] };
        let good =
            "pkcs11:token=my%20kms;object=kms1-c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1-00000001;id=%00%AB%7F;type=secret-key";
        assert_eq!(name.reference("my kms").0, good);
        assert_eq!(KeyName::parse(&MasterKeyRef(good.into())).unwrap(), name);
        for (from, to) in [
            ("pkcs11:", "PKCS11:"),
            ("my%20kms", "my kms"),
            ("my%20kms", "my%2"),
            ("my%20kms", "my%6Bms"),
            ("object=", "Object="),
            ("kms1-c1", "kms1-C1"),
            ("-00000001", "-1"),
            ("-00000001", "-00000000"),
            ("-00000001", "-+0000001"),
            ("%AB", "%ab"),
            ("%AB", "A"),
            ("%00%AB%7F", ""),
            ("%00%AB%7F", &"%00".repeat(65)),
            (";type=secret-key", ""),
            (";type=secret-key", ";type=secret-key;x=y"),
            ("my%20kms", &"a".repeat(2048)),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(KeyName::parse(&MasterKeyRef(bad.clone())).is_err(), "{bad}");
        }
        let longest = KeyName { id: vec![0xff; ID_BYTES_MAX], ..name }.reference(&"\u{fc}".repeat(32)).0;
        assert!(longest.len() <= REFERENCE_BYTES_MAX && KeyName::parse(&MasterKeyRef(longest)).is_ok());
    }
}
