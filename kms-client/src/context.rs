//! The encryption context: what a ciphertext is about, bound into it without being stored in it.

use std::collections::BTreeMap;
use std::fmt;

/// Name-value pairs, plus optional bytes `aad`, that are bound into a ciphertext: what opens must bring exactly what
/// sealed. Say in it what the data is, such as its table, column and row, so that a ciphertext copied elsewhere does
/// not open.
///
/// It is not secret. Its `Debug` still shows only the names of pairs, because values often name people.
///
/// ```
/// use kms_client::Context;
///
/// let context = Context::new().pair("table", "users").pair("id", "42");
/// assert_eq!(context, Context::from([("id", "42"), ("table", "users")]));
/// assert_eq!(format!("{context:?}"), "Context { pairs: {\"id\", \"table\"}, aad: [0 bytes] }");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Context {
    pub(crate) pairs: BTreeMap<String, String>,
    pub(crate) aad: Vec<u8>,
}

impl Context {
    /// Makes an empty context.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair. As in a map, a later pair of the same name takes the place of the earlier.
    #[must_use]
    pub fn pair(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.pairs.insert(name.into(), value.into());
        self
    }

    /// Replaces all pairs; the aad stays.
    #[must_use]
    pub fn with_pairs<N: Into<String>, V: Into<String>>(self, pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        pairs
            .into_iter()
            .fold(Self { pairs: BTreeMap::new(), aad: self.aad }, |context, (name, value)| context.pair(name, value))
    }

    /// Sets the bytes that are bound besides the pairs. Empty is the same as none.
    #[must_use]
    pub fn aad(mut self, aad: impl Into<Vec<u8>>) -> Self {
        self.aad = aad.into();
        self
    }

    /// Returns whether there is neither a pair nor aad.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.aad.is_empty()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Context {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self::new().with_pairs(pairs)
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Context {
    fn from(pairs: [(N, V); COUNT]) -> Self {
        pairs.into_iter().collect()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Names<'a>(&'a BTreeMap<String, String>);
        impl fmt::Debug for Names<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_set().entries(self.0.keys()).finish()
            }
        }
        f.debug_struct("Context")
            .field("pairs", &Names(&self.pairs))
            .field("aad", &format_args!("[{} bytes]", self.aad.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_neither_values_nor_aad() {
        let printed = format!("{:?}", Context::new().pair("id", "canary").aad("canary"));
        assert_eq!(printed, "Context { pairs: {\"id\"}, aad: [6 bytes] }");
    }

    #[test]
    fn a_later_pair_takes_the_place_of_the_earlier() {
        assert_eq!(Context::new().pair("a", "1").pair("a", "2"), Context::from([("a", "2")]));
        assert!(Context::new().is_empty() && !Context::new().aad([0]).is_empty());
    }
}
