//! Which names a list in a binding covers: `*`, `prefix*`, or a name.

use std::collections::HashSet;
use std::str::FromStr;

use crate::noun::KeyName;
use crate::noun::name::InvalidName;

/// One entry of such a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Pattern {
    Every,
    Prefix(Box<str>),
    Name(Box<str>),
}

impl FromStr for Pattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text == "*" {
            return Ok(Self::Every);
        }
        // What stands before the star begins a name, so that it is one itself.
        let (name, prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        name.parse::<KeyName>()?;
        Ok(if prefix { Self::Prefix(name.into()) } else { Self::Name(name.into()) })
    }
}

/// All entries of one list: names, `prefix*`, or `*`.
#[derive(Clone, Debug)]
pub struct Names(Listed);

#[derive(Clone, Debug)]
enum Listed {
    Every,
    These {
        names: HashSet<Box<str>>,
        /// In byte order, none the beginning of another: so at most one is the beginning of a
        /// name, and it is the last one that is not behind that name.
        prefixes: Vec<Box<str>>,
    },
}

impl Names {
    /// Reads a list as it stands in a binding.
    pub fn read<S: AsRef<str>>(list: &[S]) -> Result<Self, InvalidName> {
        let patterns: Result<Vec<Pattern>, InvalidName> = list.iter().map(|text| text.as_ref().parse()).collect();
        Ok(Self::new(patterns?))
    }

    /// Returns the list that covers every name.
    pub fn every() -> Self {
        Self(Listed::Every)
    }

    pub(super) fn new(patterns: Vec<Pattern>) -> Self {
        let (mut names, mut all_prefixes) = (HashSet::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                Pattern::Every => return Self(Listed::Every),
                Pattern::Prefix(prefix) => all_prefixes.push(prefix),
                Pattern::Name(name) => {
                    names.insert(name);
                }
            }
        }
        all_prefixes.sort();
        let mut prefixes: Vec<Box<str>> = Vec::with_capacity(all_prefixes.len());
        for prefix in all_prefixes {
            if prefixes.last().is_none_or(|shorter| !prefix.starts_with(&**shorter)) {
                prefixes.push(prefix);
            }
        }
        Self(Listed::These { names, prefixes })
    }

    /// Returns the entries, in byte order; a prefix that another one covers is not among them.
    pub fn entries(&self) -> Vec<String> {
        match &self.0 {
            Listed::Every => vec!["*".to_owned()],
            Listed::These { names, prefixes } => {
                let names = names.iter().map(|name| name.to_string());
                let mut entries: Vec<String> =
                    names.chain(prefixes.iter().map(|prefix| format!("{prefix}*"))).collect();
                entries.sort_unstable();
                entries
            }
        }
    }

    /// Tells whether a name is among them.
    pub fn covers(&self, name: &str) -> bool {
        match &self.0 {
            Listed::Every => true,
            Listed::These { names, prefixes } => {
                let behind = prefixes.partition_point(|prefix| **prefix <= *name);
                let nearest = behind.checked_sub(1).and_then(|last| prefixes.get(last));
                names.contains(name) || nearest.is_some_and(|prefix| name.starts_with(&**prefix))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str]) -> Names {
        Names::new(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect())
    }

    #[test]
    fn a_name_covers_itself_only() {
        let names = names(&["pay", "ship"]);
        assert!(names.covers("pay") && names.covers("ship"));
        for neighbour in ["pa", "pay-1", "Pay", "payship", "ship2", ""] {
            assert!(!names.covers(neighbour), "{neighbour:?}");
        }
    }

    #[test]
    fn a_prefix_covers_what_begins_with_it() {
        let names = names(&["pay-*"]);
        assert!(names.covers("pay-") && names.covers("pay-1") && names.covers("pay-a.b"));
        for neighbour in ["pay", "pay.1", "Pay-1", "xpay-1", "paz-1", "pax-1"] {
            assert!(!names.covers(neighbour), "{neighbour:?}");
        }
    }

    #[test]
    fn prefixes_of_prefixes_and_names_between_them_do_not_hide_each_other() {
        let patterns = ["b*", "ba*", "bab*", "bz", "a-*", "a.b*", "c1*", "c10*", "d"];
        let names = names(&patterns);
        // The plain reading of the list, entry by entry.
        let plain = |name: &str| {
            patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *pattern == name,
            })
        };
        let alphabet = ["", "a", "b", "c", "d", "z", "1", "0", "-", "."];
        for a in alphabet {
            for b in alphabet {
                for c in alphabet {
                    let name = [a, b, c].concat();
                    assert_eq!(names.covers(&name), plain(&name), "{name:?}");
                }
            }
        }
    }

    #[test]
    fn a_star_covers_every_name() {
        assert!(names(&["*"]).covers("anything"));
    }

    #[test]
    fn a_star_stands_alone_or_at_the_end_of_the_beginning_of_a_name() {
        for bad in ["", "**", "*a", "a*b", "a**", "-*", "a b*", "?", "a/*", &format!("{}*", "x".repeat(65))] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }
}
