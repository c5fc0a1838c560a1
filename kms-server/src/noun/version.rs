//! Version numbers that fit 24 bits: of keys, tenant keys, the cluster secret, and epochs.

use std::fmt;
use std::num::NonZeroU32;

/// The greatest version: the header of a blob gives it 24 bits.
pub const VERSION_MAX: u32 = (1 << 24) - 1;

macro_rules! version {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $Name(NonZeroU32);

        impl $Name {
            /// The first one.
            pub const FIRST: Self = Self(NonZeroU32::MIN);

            /// Takes a number from 1 to 2^24 - 1.
            pub fn new(number: u32) -> Option<Self> {
                (number <= VERSION_MAX).then_some(number).and_then(NonZeroU32::new).map(Self)
            }

            /// Returns the next one, or nothing at the end of 24 bits.
            pub fn next(self) -> Option<Self> {
                Self::new(self.get() + 1)
            }

            /// Returns the number.
            pub const fn get(self) -> u32 {
                self.0.get()
            }

            /// Returns the number as three big-endian bytes.
            pub fn to_u24(self) -> [u8; 3] {
                let [_, a, b, c] = self.get().to_be_bytes();
                [a, b, c]
            }

            /// Takes three big-endian bytes; 0 is no version.
            pub fn from_u24(bytes: [u8; 3]) -> Option<Self> {
                let [a, b, c] = bytes;
                Self::new(u32::from_be_bytes([0, a, b, c]))
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.get())
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.get())
            }
        }
    };
}

version! {
    /// A version of a key (also of a tenant key or of the cluster secret): 1 to 2^24 - 1.
    KeyVersion
}
version! {
    /// The number of an epoch, which is also its master key's version: 1 to 2^24 - 1.
    EpochNumber
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_fits_24_bits_and_is_not_zero() {
        assert!(KeyVersion::new(0).is_none());
        assert!(KeyVersion::new(VERSION_MAX + 1).is_none());
        let last = KeyVersion::new(VERSION_MAX).unwrap();
        assert!(last.next().is_none());
        assert_eq!(KeyVersion::from_u24(last.to_u24()), Some(last));
    }
}
