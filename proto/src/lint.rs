//! Rules of the API that hold for every message, also for one that is added later.

use std::collections::BTreeSet;

use crate::descriptor::{Api, Field, Message, Type};

#[test]
fn no_request_chooses_cryptography_or_brings_keys() {
    let api = Api::load();
    for service in &api.services {
        for method in &service.method {
            let mut seen = BTreeSet::new();
            let mut fields: Vec<&Field> = api.message(&method.input_type).field.iter().collect();
            while let Some(field) = fields.pop() {
                assert_eq!(forbidden(&field.name, field.r#type()), None, "{}.{}", method.input_type, field.name);
                let held = api.held_by(field).filter(|held| seen.insert(&held.name));
                fields.extend(held.into_iter().flat_map(|held| &held.field));
            }
        }
    }
}

#[test]
fn the_rule_against_chosen_cryptography_knows_its_words() {
    for name in ["nonce", "gcm_nonce", "iv", "data_iv", "salts", "algorithm", "length_bytes", "key_material"] {
        assert!(forbidden(name, Type::Bytes).is_some(), "{name}");
        assert!(forbidden(name, Type::String).is_some(), "{name}");
    }
    for name in ["key", "data_key", "kek", "private_key_pem"] {
        assert!(forbidden(name, Type::Bytes).is_some(), "{name}");
    }
    for (name, r#type) in [("key", Type::String), ("wrapped_data_key", Type::Bytes), ("active", Type::Bool)] {
        assert_eq!(forbidden(name, r#type), None, "{name}");
    }
}

/// Returns the word that a field of a request must not have in its name.
fn forbidden(name: &str, r#type: Type) -> Option<&'static str> {
    let word =
        ["nonce", "salt", "algorithm", "suite", "length", "material", "secret"].into_iter().find(|w| name.contains(w));
    // Only as a whole word: it is a part of many.
    let iv = name.split('_').any(|part| part == "iv" || part == "ivs").then_some("iv");
    let is_key_bytes = r#type == Type::Bytes
        && !name.starts_with("wrapped_")
        && name.split('_').any(|part| ["key", "keys", "kek", "dek"].contains(&part));
    word.or(iv).or(is_key_bytes.then_some("key bytes"))
}

#[test]
fn bytes_and_encryption_contexts_are_redacted() {
    for (name, message) in Api::load().own_messages() {
        for field in &message.field {
            let must = field.r#type() == Type::Bytes || field.name.ends_with("encryption_context");
            assert!(field.redacts() || !must, "{name}.{} lacks debug_redact", field.name);
        }
    }
}

#[test]
fn every_data_plane_request_names_its_key_first() {
    let api = Api::load();
    let crypto = api.services.iter().find(|service| service.name == "CryptoService").unwrap();
    assert!(!crypto.method.is_empty());
    for method in &crypto.method {
        let name = method.name.as_str();
        let request = api.message(&method.input_type);
        let first = request.field.iter().find(|field| field.number == 1).unwrap();
        // An index is a key of its own, that is named by its own name.
        let named = if name == "GetIndexKey" { "index" } else { "key" };
        assert_eq!((first.name.as_str(), first.r#type()), (named, Type::String), "{}", request.name);
        // What is destroyed need not be opened, and an index key has no context.
        if ["GetIndexKey", "DestroyDataKey", "BatchDestroyDataKeys"].contains(&name) {
            continue;
        }
        let has = |message: &Message, name| message.field.iter().any(|field| field.name == name);
        assert!(has(request, "encryption_context"), "{} has no encryption_context", request.name);
        let item = request.field.iter().find(|field| field.name == "items").and_then(|items| api.held_by(items));
        assert!(has(item.unwrap_or(request), "aad"), "{} has no aad", request.name);
    }
}
