//! What the service gives to be stored elsewhere: opaque bytes, of kinds that must not be mixed up.

use std::fmt;

macro_rules! blob {
    ($(#[$attribute:meta])* $Blob:ident) => {
        $(#[$attribute])*
        #[derive(Clone)]
        pub struct $Blob(Vec<u8>);

        impl $Blob {
            /// Returns the bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Returns the bytes, to be stored.
            pub fn into_bytes(self) -> Vec<u8> {
                self.0
            }
        }

        /// Takes bytes as they were stored. Whether they open is for the service to say.
        impl From<Vec<u8>> for $Blob {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes)
            }
        }

        impl From<&[u8]> for $Blob {
            fn from(bytes: &[u8]) -> Self {
                Self(bytes.to_vec())
            }
        }

        impl AsRef<[u8]> for $Blob {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $Blob {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($Blob), "([{} bytes])"), self.0.len())
            }
        }
    };
}

blob! {
    /// A value sealed by [`Client::encrypt`](crate::Client::encrypt). Not secret; 96 bytes longer than what it seals.
    #[derive(PartialEq, Eq, Hash)]
    Ciphertext
}

blob! {
    /// A data key wrapped by [`Client::generate_data_key`](crate::Client::generate_data_key): 128 bytes, not secret,
    /// to be kept beside the data that the data key sealed.
    #[derive(PartialEq, Eq, Hash)]
    WrappedDataKey
}

blob! {
    /// A message authentication code made by [`Client::generate_mac`](crate::Client::generate_mac): 56 bytes, to be kept
    /// beside the message.
    ///
    /// It cannot be compared with `==`, which would tell by its time how much of a forged one is right:
    /// [`Client::verify_mac`](crate::Client::verify_mac) says whether one is right.
    Mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_and_are_not_printed() {
        let blob = Ciphertext::from(&b"canary"[..]);
        assert_eq!(blob.as_bytes(), b"canary");
        assert_eq!(format!("{blob:?}"), "Ciphertext([6 bytes])");
        assert_eq!(blob.into_bytes(), b"canary");
        assert_eq!(format!("{:?}", Mac::from(b"canary".to_vec())), "Mac([6 bytes])");
    }
}
