//! What policy sees of an encryption context: the pairs whose names the settings list. Nothing of all others.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crypto::context::{PAIR_NAME_BYTES_MAX, PAIRS_MAX};

/// An encryption context's pairs, by their names.
pub type Pairs = BTreeMap<String, String>;

/// The names of the pairs that policy may see: `policy.context_pairs`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PairNames(Arc<[Arc<str>]>);

/// A list that is none of such names, with what is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPairNames {
    /// There are more than a context can have.
    #[error("there are at most 32, as in an encryption context")]
    TooMany,
    /// One is no name.
    #[error("a pair's name has 1 to 256 bytes, without quotes, backslashes and what cannot be printed")]
    Name,
    /// One is the service's own.
    #[error("names that begin with kms1 are the service's own")]
    Reserved,
    /// One is there twice.
    #[error("one is there twice")]
    Twice,
}

impl PairNames {
    /// Takes a list of names.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Result<Self, InvalidPairNames> {
        if names.len() > PAIRS_MAX {
            return Err(InvalidPairNames::TooMany);
        }
        let mut list: Vec<Arc<str>> = Vec::with_capacity(names.len());
        for name in names {
            let name = name.as_ref();
            // They are attributes in the schema, where each has one spelling.
            let unfit = |c: char| c.is_control() || c == '"' || c == '\\';
            if name.is_empty() || name.len() > PAIR_NAME_BYTES_MAX || name.contains(unfit) {
                return Err(InvalidPairNames::Name);
            }
            if name.starts_with("kms1") {
                return Err(InvalidPairNames::Reserved);
            }
            if list.iter().any(|known| **known == *name) {
                return Err(InvalidPairNames::Twice);
            }
            list.push(name.into());
        }
        Ok(Self(list.into()))
    }

    /// Returns the names, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    /// Tells whether there are none: then no context is ever looked at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[Arc<str>] {
        &self.0
    }

    pub(super) fn find(&self, name: &str) -> Option<&Arc<str>> {
        self.0.iter().find(|known| ***known == *name)
    }
}

/// What of a request's context a decision depends on. A request that carries no context is like one with an empty
/// context: neither has a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub names: &'a [Arc<str>],
    pub pairs: Option<&'a Pairs>,
}

impl<'a> Seen<'a> {
    /// Returns the value of each name, in their order.
    pub fn values(self) -> impl Iterator<Item = Option<&'a str>> {
        self.names.iter().map(move |name| self.pairs?.get(&**name).map(String::as_str))
    }

    /// Tells whether it is short enough to be remembered: else contexts that somebody makes up would fill memory.
    pub fn is_short(self) -> bool {
        self.values().flatten().map(str::len).sum::<usize>() <= REMEMBERED_BYTES_MAX
    }
}

const REMEMBERED_BYTES_MAX: usize = 256;

/// One pair that a binding asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wanted {
    pub name: Arc<str>,
    /// Any of these, byte for byte.
    pub values: Box<[Box<str>]>,
}

impl Wanted {
    /// Returns the value that the context has, if it is none of these; `Some(None)` where it has none at all.
    pub fn is_missed_by<'a>(&self, pairs: Option<&'a Pairs>) -> Option<Option<&'a str>> {
        let value = pairs.and_then(|pairs| pairs.get(&*self.name)).map(String::as_str);
        let is_one = value.is_some_and(|value| self.values.iter().any(|wanted| **wanted == *value));
        (!is_one).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_bounded_and_has_each_once() {
        assert!(PairNames::of(&["purpose", "aws:x", "Ünit 7"]).is_ok());
        assert!(PairNames::of::<&str>(&[]).is_ok_and(|names| names.is_empty()));
        let many: Vec<String> = (0..33).map(|n| format!("n{n}")).collect();
        assert!(PairNames::of(&many[..32]).is_ok());
        assert_eq!(PairNames::of(&many), Err(InvalidPairNames::TooMany));
        for bad in ["", "a\"", "a\\", "a\nb", "\0", &"x".repeat(257)] {
            assert_eq!(PairNames::of(&[bad]), Err(InvalidPairNames::Name), "{bad:?}");
        }
        assert_eq!(PairNames::of(&["kms1.x"]), Err(InvalidPairNames::Reserved));
        assert_eq!(PairNames::of(&["a", "b", "a"]), Err(InvalidPairNames::Twice));
    }

    #[test]
    fn a_wanted_pair_is_met_byte_for_byte() {
        let wanted = Wanted { name: "purpose".into(), values: ["billing".into(), "audit".into()].into() };
        let with = |name: &str, value: &str| Pairs::from([(name.to_owned(), value.to_owned())]);
        for (name, value, missed) in [
            ("purpose", "billing", None),
            ("purpose", "audit", None),
            ("purpose", "Billing", Some(Some("Billing"))),
            ("purpose", "billing ", Some(Some("billing "))),
            ("purpose", "", Some(Some(""))),
            ("Purpose", "billing", Some(None)),
        ] {
            assert_eq!(wanted.is_missed_by(Some(&with(name, value))), missed, "{name} {value}");
        }
        assert_eq!(wanted.is_missed_by(None), Some(None));
    }
}
