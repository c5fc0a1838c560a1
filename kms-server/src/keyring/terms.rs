//! The terms of a change: under which id it may be repeated, of which state of the object it is
//! meant, and whether it is only to be shown.

use std::fmt;
use std::str::FromStr;

use super::{Change, Who};

/// How a change is to be made, beside what it is. By default it is made, once for each call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Terms {
    /// Repeated under the same id by the same caller, the call gets the answer of the first.
    pub request_id: Option<RequestId>,
    /// The state of the object that is to be changed; any other is left alone.
    pub etag: Option<Etag>,
    /// Everything is checked and nothing changed.
    pub rehearse: bool,
}

/// A change that somebody asked for, on their terms.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) change: Change,
    pub(super) terms: Terms,
    pub(super) who: Who,
}

/// An id that a caller chose for one intended change: 1 to 64 of `A-Z a-z 0-9 . _ ~ -`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestId(Box<str>);

/// A text that is no [`RequestId`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be 1 to 64 of A-Z a-z 0-9 . _ ~ -")]
pub struct InvalidRequestId;

impl RequestId {
    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;
    fn from_str(text: &str) -> Result<Self, InvalidRequestId> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
        if (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidRequestId)
        }
    }
}

/// Tells one state of an object from every other: the first 16 bytes of the SHA-256 of its main
/// row. The audit record of the change that wrote it has the same as `rh`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Etag([u8; 16]);

/// A text that is no [`Etag`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be an etag that this service gave: 32 of 0-9 a-f")]
pub struct InvalidEtag;

impl Etag {
    /// Returns the etag of an object whose main row this is.
    pub fn of(record: &[u8]) -> Self {
        Self(*crate::crypto::sha256(record).first_chunk().expect("16 of 32 bytes"))
    }

    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    pub(super) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Etag {
    type Err = InvalidEtag;
    fn from_str(text: &str) -> Result<Self, InvalidEtag> {
        let etag = hex::decode(text).ok().and_then(|bytes| Self::from_slice(&bytes)).ok_or(InvalidEtag)?;
        // One text for each etag, as everywhere.
        if etag.to_string() == text { Ok(etag) } else { Err(InvalidEtag) }
    }
}

const REQUEST_ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_letters_digits_and_four_marks() {
        for good in ["a", "-", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "4fae4d4f-5d4e-4b6a-9f0e-3f1f6d2f7c11", &"x".repeat(64)] {
            assert!(good.parse::<RequestId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "é", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_etag_is_read_as_it_was_written() {
        let etag = Etag::of(b"a row");
        assert_eq!(etag.to_string().parse(), Ok(etag));
        assert_ne!(etag, Etag::of(b"another"));
        let text = etag.to_string();
        for bad in ["", &text[1..], &format!("{text}0"), &text.to_uppercase(), &format!(" {}", &text[1..])] {
            assert_eq!(bad.parse::<Etag>(), Err(InvalidEtag), "{bad:?}");
        }
    }
}
