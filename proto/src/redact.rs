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
    GenerateDataKeyResponse { plaintext as Bytes, wrapped_data_key as Bytes, key_version, lease }
    DecryptDataKeyRequest { key, wrapped_data_key as Bytes, encryption_context as Pairs, aad as Bytes }
    DecryptDataKeyResponse { plaintext as Bytes, key_version, stale, lease }
    CreateDataKeyRequest {
        key, omit_plaintext, encryption_context as Pairs, aad as Bytes, request_id, validate_only,
    }
    CreateDataKeyResponse { plaintext as Bytes, uid as Bytes, key_version, lease }
    GetDataKeyRequest { key, uid as Bytes, encryption_context as Pairs, aad as Bytes }
    GetDataKeyResponse { plaintext as Bytes, key_version, lease }
    DestroyDataKeyRequest { key, uid as Bytes, request_id, validate_only }
    GenerateMacRequest { key, message as Bytes, encryption_context as Pairs, aad as Bytes }
    GenerateMacResponse { mac as Bytes, key_version }
    VerifyMacRequest { key, message as Bytes, mac as Bytes, encryption_context as Pairs, aad as Bytes }
    GetIndexKeyResponse { plaintext as Bytes, lease }
    KeystoreFile { name, content as Bytes }
    BatchEncryptRequest { key, encryption_context as Pairs, items }
    BatchEncryptItem { plaintext as Bytes, aad as Bytes }
    BatchEncryptResult { ciphertext as Bytes, error }
    BatchDecryptRequest { key, encryption_context as Pairs, items }
    BatchDecryptItem { ciphertext as Bytes, aad as Bytes }
    BatchDecryptResult { plaintext as Bytes, key_version, stale, error }
    BatchReEncryptRequest { key, encryption_context as Pairs, destination, items }
    BatchDestination { key, encryption_context as Pairs }
    BatchReEncryptItem { ciphertext as Bytes, aad as Bytes, destination_aad as Bytes }
    BatchReEncryptResult { ciphertext as Bytes, source_key_version, error }
    BatchGenerateDataKeysRequest { key, omit_plaintext, encryption_context as Pairs, items }
    BatchGenerateDataKeysItem { aad as Bytes }
    BatchGenerateDataKeysResult { plaintext as Bytes, wrapped_data_key as Bytes, error }
    BatchDecryptDataKeysRequest { key, encryption_context as Pairs, items }
    BatchDecryptDataKeysItem { wrapped_data_key as Bytes, aad as Bytes }
    BatchDecryptDataKeysResult { plaintext as Bytes, key_version, stale, error }
    BatchCreateDataKeysRequest {
        key, omit_plaintext, encryption_context as Pairs, items, request_id, validate_only,
    }
    BatchCreateDataKeysItem { aad as Bytes }
    BatchCreateDataKeysResult { plaintext as Bytes, uid as Bytes, error }
    BatchGetDataKeysRequest { key, encryption_context as Pairs, items }
    BatchGetDataKeysItem { uid as Bytes, aad as Bytes }
    BatchGetDataKeysResult { plaintext as Bytes, key_version, error }
    BatchDestroyDataKeysItem { uid as Bytes }
    BatchGenerateMacsRequest { key, encryption_context as Pairs, items }
    BatchGenerateMacsItem { message as Bytes, aad as Bytes }
    BatchGenerateMacsResult { mac as Bytes, error }
    BatchVerifyMacsRequest { key, encryption_context as Pairs, items }
    BatchVerifyMacsItem { message as Bytes, mac as Bytes, aad as Bytes }
    ManagedDataKey { uid as Bytes, state, key_version, create_time, destroy_time }
    TestPermissionsRequest { principal, resource, actions, address, strength, encryption_context as Pairs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{Api, Field, Message, Type};
    use prost::encoding::{WireType, encode_key, encode_varint};

    #[test]
    fn no_message_prints_what_its_descriptor_redacts() {
        let api = Api::load();
        let mut carriers = 0;
        for (name, message) in api.own_messages() {
            let wire = with_canaries(&api, message);
            let (_, print) =
                PRINTERS.iter().find(|(printed, _)| *printed == name).expect("the build lists every message");
            let (printed, survived) = print(&wire);
            // The message did take the canaries: else nothing was tested.
            assert_eq!(count(&survived), count(&wire), "{name}");
            carriers += usize::from(count(&wire) > 0);
            for text in printed {
                for shape in canary_shapes() {
                    assert!(!text.contains(&shape), "{name} prints {shape:?}: {text}");
                }
            }
        }
        assert!(carriers >= 11, "only {carriers} messages carry anything: is debug_redact lost?");
    }

    #[test]
    fn the_shapes_of_the_canary_find_it_in_a_derived_debug() {
        let bytes = squeeze(&format!("{:#?}", CANARY.as_bytes().to_vec()));
        let text = squeeze(&format!("{CANARY:?}"));
        for printed in [bytes, text] {
            assert!(canary_shapes().iter().any(|shape| printed.contains(shape)), "{printed}");
        }
    }

    #[test]
    fn names_lengths_and_versions_show() {
        let request = v1::EncryptRequest {
            key: "tenants/acme/keys/app".into(),
            plaintext: b"hello, world".to_vec(),
            encryption_context: [("table".into(), "users".into())].into(),
            aad: Vec::new(),
        };
        assert_eq!(
            format!("{request:?}"),
            "EncryptRequest { key: \"tenants/acme/keys/app\", plaintext: [redacted; 12 bytes], \
             encryption_context: {\"table\": [redacted; 5 bytes]}, aad: [redacted; 0 bytes] }"
        );
        let response = v1::DecryptResponse { plaintext: b"hello".to_vec(), key_version: 3, stale: true };
        assert_eq!(
            format!("{response:?}"),
            "DecryptResponse { plaintext: [redacted; 5 bytes], key_version: 3, stale: true }"
        );
    }

    /// From the full name of every message to what decodes and prints it. Written by the build.
    const PRINTERS: &[(&str, Printer)] = include!(concat!(env!("OUT_DIR"), "/printers.rs"));

    /// Returns both forms of `Debug` without white space, and the message encoded again.
    type Printer = fn(&[u8]) -> ([String; 2], Vec<u8>);

    fn print<M: prost::Message + Default + fmt::Debug>(wire: &[u8]) -> ([String; 2], Vec<u8>) {
        let message = M::decode(wire).unwrap();
        ([squeeze(&format!("{message:?}")), squeeze(&format!("{message:#?}"))], message.encode_to_vec())
    }

    fn squeeze(text: &str) -> String {
        text.split_whitespace().collect()
    }

    /// Encodes a message whose redacted fields hold the canary, at any depth.
    fn with_canaries(api: &Api, message: &Message) -> Vec<u8> {
        let mut wire = Vec::new();
        for field in &message.field {
            match (field.redacts(), api.held_by(field)) {
                (true, Some(entry)) if Api::is_map_entry(entry) => {
                    let mut pair = Vec::new();
                    put(&mut pair, 1, b"table");
                    put(&mut pair, 2, CANARY.as_bytes());
                    put(&mut wire, field.number, &pair);
                }
                (true, None) => {
                    assert!(is_text_or_bytes(field), "{}: teach this test to fill its type", field.name);
                    put(&mut wire, field.number, CANARY.as_bytes());
                }
                (true, Some(_)) => panic!("{}: redact the fields of the message that it holds", field.name),
                (false, Some(held)) => put(&mut wire, field.number, &with_canaries(api, held)),
                (false, None) => {}
            }
        }
        wire
    }

    fn is_text_or_bytes(field: &Field) -> bool {
        matches!(field.r#type(), Type::String | Type::Bytes)
    }

    fn put(wire: &mut Vec<u8>, number: u32, content: &[u8]) {
        encode_key(number, WireType::LengthDelimited, wire);
        encode_varint(content.len() as u64, wire);
        wire.extend_from_slice(content);
    }

    fn count(wire: &[u8]) -> usize {
        wire.windows(CANARY.len()).filter(|window| *window == CANARY.as_bytes()).count()
    }

    /// The canary as text, as a list of numbers, and in hexadecimal of both cases; without white space.
    fn canary_shapes() -> [String; 4] {
        let bytes = CANARY.as_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = squeeze(&format!("{bytes:?}"));
        [CANARY.into(), list.trim_matches(['[', ']']).into(), hex.to_uppercase(), hex]
    }

    const CANARY: &str = "canary-7Qz";
}
