//! How strongly a caller proved who it is.

use std::fmt;
use std::str::FromStr;

/// The proofs behind a principal: any of a client certificate, a bearer token, and a second factor that the token's
/// issuer vouches for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Strength(u8);

/// A text that is no [`Strength`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be one of certificate, token, mfa")]
pub struct InvalidStrength;

impl Strength {
    /// Nothing was proved, or nothing is asked for.
    pub const NONE: Self = Self(0);
    /// The principal is that of a client certificate.
    pub const CERTIFICATE: Self = Self(1);
    /// The principal is that of a bearer token.
    pub const TOKEN: Self = Self(2);
    /// The token says that its subject showed more than one factor.
    pub const MFA: Self = Self(4);
    /// All single proofs, each with its name.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::CERTIFICATE, "certificate"), (Self::TOKEN, "token"), (Self::MFA, "mfa")];

    /// Returns both together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether it has all of another.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the names of what it has.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(move |(one, _)| self.has(*one)).map(|(_, name)| name)
    }
}

impl FromStr for Strength {
    type Err = InvalidStrength;

    fn from_str(text: &str) -> Result<Self, InvalidStrength> {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(one, _)| one).ok_or(InvalidStrength)
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_has_its_parts_and_no_others() {
        let both = Strength::CERTIFICATE.and(Strength::MFA);
        assert!(both.has(Strength::CERTIFICATE) && both.has(Strength::MFA) && both.has(Strength::NONE));
        assert!(!both.has(Strength::TOKEN) && !both.has(both.and(Strength::TOKEN)) && !Strength::NONE.has(both));
        assert_eq!(both.to_string(), "certificate+mfa");
        for (one, name) in Strength::ALL {
            assert_eq!(name.parse(), Ok(one));
        }
        assert_eq!("MFA".parse::<Strength>(), Err(InvalidStrength));
    }
}
