//! `Debug` for the messages that carry what no log may show.
//!
//! Of plaintext, data keys, ciphertext, aad and the values of an encryption context it prints the
//! length, never the content. The names of an encryption context show.
//!
//! **Invariant:** no field marked `debug_redact` in the `.proto` is printed by `{:?}`. The build
//! derives no `Debug` for a message with such a field, every field is named below (a new one does
//! not compile until it is), and `no_message_prints_what_its_descriptor_redacts` prints them all.

use std::collections::BTreeMap;
use std::fmt;

use crate::v1;

/// Bytes of which only the length shows.
struct Bytes<'a>(&'a [u8]);

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted; {} bytes]", self.0.len())
    }
}

/// An encryption context of which the names show, and the lengths of the values.
struct Pairs<'a>(&'a BTreeMap<String, String>);

impl fmt::Debug for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, Bytes(value.as_bytes())))).finish()
    }
}

macro_rules! debug {
    ($($Message:ident { $($field:ident $(as $Shown:ident)?),* $(,)? })*) => {$(
        impl fmt::Debug for v1::$Message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($field),* } = self;
                f.debug_struct(stringify!($Message))
                    $(.field(stringify!($field), debug!(@ $field $($Shown)?)))*
                    .finish()
            }
        }
    )*};
    (@ $field:ident) => { $field };
    (@ $field:ident $Shown:ident) => { &$Shown($field) };
}

debug! {
    EncryptRequest { key, plaintext as Bytes, encryption_context as Pairs, aad as Bytes }
    EncryptResponse { ciphertext as Bytes, key_version }
    DecryptRequest { key, ciphertext as Bytes, encryption_context as Pairs, aad as Bytes }
    DecryptResponse { plaintext as Bytes, key_version, stale }
    ReEncryptRequest { key, ciphertext as Bytes, encryption_context as Pairs, aad as Bytes, destination }
    Destination { key, encryption_context as Pairs, aad as Bytes }
    ReEncryptResponse { ciphertext as Bytes, key_version, source_key_version }
    GenerateDataKeyRequest { key, omit_plaintext, encryption_context as Pairs, aad as Bytes }
    GenerateDataKeyResponse { plaintext as Bytes, wrapped_data_key as Bytes, key_version }
    DecryptDataKeyRequest { key, wrapped_data_key as Bytes, encryption_context as Pairs, aad as Bytes }
    DecryptDataKeyResponse { plaintext as Bytes, key_version, stale }
}
