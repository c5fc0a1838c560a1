//! A change: what may be said with every call that changes something.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::str::FromStr;

use crate::Error;
use crate::random::{OsRandom, Random};

/// A change of an object that exists. It is made when this is awaited.
///
/// ```no_run
/// # use kms_client::{Client, Error, KeyRef};
/// # async fn f(kms: Client, key: KeyRef) -> Result<(), Error> {
/// kms.rotate_key(&key).await?;
///
/// // Only if nobody changed it since it was looked at.
/// let seen = kms.get_key(&key).await?;
/// kms.disable_key(&key).etag_of(seen.etag.as_ref()).await?;
///
/// // What would it answer?
/// let would_be = kms.rotate_key(&key).validate_only().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a change is made when it is awaited"]
pub struct Change<T> {
    say: Say,
    run: Run<T>,
}

pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;
type Run<T> = Box<dyn FnOnce(Said) -> Answer<T> + Send>;

#[derive(Debug, Default)]
struct Say {
    etag: Option<Etag>,
    request_id: Option<RequestId>,
    validate_only: bool,
}

/// What is said with a change, as requests have it.
pub(crate) struct Said {
    pub(crate) etag: String,
    pub(crate) request_id: String,
    pub(crate) validate_only: bool,
}

impl<T> Change<T> {
    pub(crate) fn new<F>(run: impl FnOnce(Said) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        Self { say: Say::default(), run: Box::new(move |said| Box::pin(run(said))) }
    }

    /// Makes the change only while the object has this etag; else it fails with the reason `ETAG_MISMATCH`.
    pub fn etag(mut self, etag: Etag) -> Self {
        self.say.etag = Some(etag);
        self
    }

    /// As [`etag`](Self::etag), with the etag of what was read before; `None` sets no condition.
    pub fn etag_of(mut self, etag: Option<&Etag>) -> Self {
        self.say.etag = etag.cloned();
        self
    }

    /// Sets the id of this intended change, by which a repetition of it is known: the service carries it out once, and
    /// answers repetitions within 24 hours as it did the first time. Without it, each call has a new one.
    pub fn request_id(mut self, id: RequestId) -> Self {
        self.say.request_id = Some(id);
        self
    }

    /// Changes nothing, and answers what the change would answer, or the error that it would get. Uids and etags that
    /// do not exist yet are missing in the answer.
    pub fn validate_only(mut self) -> Self {
        self.say.validate_only = true;
        self
    }
}

macro_rules! without_etag {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[must_use = "a change is made when it is awaited"]
        pub struct $Name<T>(Change<T>);

        impl<T> $Name<T> {
            pub(crate) fn new<F>(run: impl FnOnce(Said) -> F + Send + 'static) -> Self
            where
                F: Future<Output = Result<T, Error>> + Send + 'static,
            {
                Self(Change::new(run))
            }

            /// See [`Change::request_id`].
            pub fn request_id(self, id: RequestId) -> Self {
                Self(self.0.request_id(id))
            }

            /// See [`Change::validate_only`].
            pub fn validate_only(self) -> Self {
                Self(self.0.validate_only())
            }
        }

        impl<T: 'static> IntoFuture for $Name<T> {
            type Output = Result<T, Error>;
            type IntoFuture = Answer<T>;

            fn into_future(self) -> Answer<T> {
                self.0.into_future()
            }
        }

        impl<T> fmt::Debug for $Name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($Name)).field(&self.0.say).finish()
            }
        }
    };
}

without_etag! {
    /// The creation of an object. It happens when this is awaited. As [`Change`], but without an etag: there is nothing yet
    /// that could have one.
    Creation
}

without_etag! {
    /// The destruction of managed data keys. It happens when this is awaited. As [`Change`], but without an etag: they have
    /// none, since nothing else ever happens to them.
    Destruction
}

without_etag! {
    /// What is decided about a grant: its approval, or that it is taken back. It happens when this is awaited. As [`Change`],
    /// but without an etag: an approval says by a hash what was looked at, and taking back is right whatever was.
    Decision
}

impl<T: 'static> Creation<T> {
    /// Reads the answer further.
    pub(crate) fn and_then<U>(self, then: impl FnOnce(T) -> Result<U, Error> + Send + 'static) -> Creation<U> {
        let Change { say, run } = self.0;
        let run = move |said| -> Answer<U> {
            let answer = run(said);
            Box::pin(async move { then(answer.await?) })
        };
        Creation(Change { say, run: Box::new(run) })
    }
}

impl<T: 'static> IntoFuture for Change<T> {
    type Output = Result<T, Error>;
    type IntoFuture = Answer<T>;

    fn into_future(self) -> Answer<T> {
        // **Invariant:** every change has an id before its first attempt, and all attempts have the same; that is what
        // makes repeating safe. Guarded by `tests/library/retries.rs`.
        let id = self.say.request_id.unwrap_or_else(RequestId::random);
        let said = Said {
            etag: self.say.etag.map(|etag| etag.0).unwrap_or_default(),
            request_id: id.0.clone(),
            validate_only: self.say.validate_only,
        };
        let answer = (self.run)(said);
        Box::pin(async move { answer.await.map_err(|error| error.of_change(id)) })
    }
}

impl<T> fmt::Debug for Change<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Change").field(&self.say).finish()
    }
}

/// The id of an intended change: 1 to 64 of `A-Z a-z 0-9 . _ ~ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Makes a new one: a random UUID.
    pub fn random() -> Self {
        Self::of_bits(OsRandom.bits())
    }

    fn of_bits(bits: u128) -> Self {
        // Version 4, variant 1, as RFC 9562 has it.
        let bits = bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
        let hex = format!("{bits:032x}");
        Self([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        if (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(format!("{text:?} is no request id: it has 1 to 64 of A-Z a-z 0-9 . _ ~ -")))
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const REQUEST_ID_BYTES_MAX: usize = 64;

/// Says which state of an object was seen: it differs after every change. Opaque, and never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Etag(String);

impl Etag {
    pub(crate) fn from_wire(etag: String) -> Option<Self> {
        (!etag.is_empty()).then_some(Self(etag))
    }

    /// Returns it as text, to be kept for later.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Takes an etag as it was kept. An empty one is refused: it would set no condition.
impl FromStr for Etag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::from_wire(text.to_owned()).ok_or_else(|| Error::invalid("an etag is not empty"))
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_is_a_uuid_of_version_4_and_each_is_another() {
        assert_eq!(RequestId::of_bits(0).as_str(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(RequestId::of_bits(u128::MAX).as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let [one, other] = [(); 2].map(|()| RequestId::random());
        assert_ne!(one, other);
        assert_eq!(one.as_str().parse::<RequestId>().unwrap(), one);
    }

    #[test]
    fn an_id_has_the_form_that_the_api_says() {
        for good in ["a", "A.b_c~d-9", &"x".repeat(64)] {
            good.parse::<RequestId>().unwrap();
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_etag_is_none() {
        assert_eq!(Etag::from_wire(String::new()), None);
        assert!("".parse::<Etag>().is_err());
        assert_eq!("7".parse::<Etag>().unwrap().as_str(), "7");
    }
}
