//! Names that callers choose: of tenants, of keys and of blind indexes.
//!
//! All are `[A-Za-z0-9][A-Za-z0-9._~-]{0,63}`, case-sensitive and compared as bytes. A name is
//! never renamed and never reused: what was destroyed leaves a tombstone under it.

use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A text that is not a name, with the rule it broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit")]
pub struct InvalidName;

fn check(text: &str) -> Result<(), InvalidName> {
    let bytes = text.as_bytes();
    let Some((first, rest)) = bytes.split_first() else {
        return Err(InvalidName);
    };
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
    if bytes.len() <= NAME_BYTES_MAX && first.is_ascii_alphanumeric() && rest.iter().all(inner) {
        Ok(())
    } else {
        Err(InvalidName)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $Name(Box<str>);

        impl $Name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $Name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A tenant's name: `[A-Za-z0-9][A-Za-z0-9._~-]{0,63}`. Nothing else is a `TenantName`.
    TenantName
}
name! {
    /// A key's name: `[A-Za-z0-9][A-Za-z0-9._~-]{0,63}`. Nothing else is a `KeyName`.
    KeyName
}
name! {
    /// A blind index's name: `[A-Za-z0-9][A-Za-z0-9._~-]{0,63}`. Nothing else is an `IndexName`.
    IndexName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_letters_digits_and_four_marks() {
        for good in ["a", "0", "Acme-Corp", "a.b_c~d-e", &"x".repeat(64)] {
            assert!(good.parse::<KeyName>().is_ok(), "{good}");
        }
    }

    #[test]
    fn anything_else_is_not_a_name() {
        for bad in ["", "-a", ".a", "~a", "_a", "a/b", "a b", "é", "a\0", "a*", &"x".repeat(65)] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad:?}");
        }
    }
}
