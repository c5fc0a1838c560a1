//! Plaintext, data keys and keys of indexes: wiped on drop, never printed, never compared, read only by saying `expose`.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// An opened value. Wiped when dropped; its `Debug` shows only its length.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the bytes. Whoever copies them looks after the copy.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext([{} bytes])", self.0.len())
    }
}

macro_rules! secret_key {
    ($(#[$doc:meta])* $Key:ident) => {
        $(#[$doc])*
        // Boxed, so that moving it leaves no copy on the stack.
        pub struct $Key(Box<Zeroizing<[u8; KEY_BYTES]>>);

        impl $Key {
            /// Takes over the bytes of an answer. Nothing if they are not 32.
            pub(crate) fn take(mut bytes: Vec<u8>) -> Option<Self> {
                let mut key = Box::new(Zeroizing::new([0; KEY_BYTES]));
                let fits = bytes.len() == KEY_BYTES;
                if fits {
                    key.copy_from_slice(&bytes);
                }
                bytes.zeroize();
                fits.then_some(Self(key))
            }

            /// Returns the bytes. Whoever copies them looks after the copy.
            pub fn expose(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }
        }

        impl fmt::Debug for $Key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($Key), "([32 bytes])"))
            }
        }
    };
}

secret_key! {
    /// A data key in the clear: 32 bytes to seal one object with. Wiped when dropped; its `Debug` shows nothing of it.
    DataKey
}

secret_key! {
    /// The key of a blind index: 32 bytes for HMAC-SHA-256. Wiped when dropped; its `Debug` shows nothing of it.
    IndexKey
}

const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_lengths_only() {
        assert_eq!(format!("{:?}", Plaintext::new(b"canary".to_vec())), "Plaintext([6 bytes])");
        assert_eq!(format!("{:?}", DataKey::take(vec![7; 32]).unwrap()), "DataKey([32 bytes])");
        assert_eq!(format!("{:?}", IndexKey::take(vec![7; 32]).unwrap()), "IndexKey([32 bytes])");
    }

    #[test]
    fn a_data_key_has_32_bytes() {
        assert_eq!(DataKey::take(vec![7; 32]).unwrap().expose(), &[7; 32]);
        assert!(DataKey::take(vec![7; 31]).is_none());
        assert!(DataKey::take(vec![7; 33]).is_none());
        assert!(DataKey::take(Vec::new()).is_none());
    }
}
