//! The known answers of `tests/vectors/rows.json`, made by an independent implementation: each row
//! is decoded, compared field by field, encoded and sealed again to the very same bytes.

use std::collections::BTreeSet;
use std::sync::Mutex;

use prost::Message;
use serde_json::{Map, Value, json};

use super::row_key::{self, KeyRow, ScheduleTarget};
use crate::crypto::{ClusterSecret, RecordMacKey, TenantKey, record};
use crate::noun::{EpochNumber, KeyVersion, Random, Uid};
use crate::rows::*;
use crate::store::RowKey;

/// Gives out these bytes as if they were random.
struct Fixed(Mutex<Vec<u8>>);

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.lock().unwrap());
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/rows.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

fn uid(value: &Value) -> Uid {
    Uid::from_slice(&bytes(value)).unwrap()
}

fn version(value: &Value) -> KeyVersion {
    KeyVersion::new(value.as_u64().unwrap().try_into().unwrap()).unwrap()
}

fn mac_key(vectors: &Value, whose: &str) -> RecordMacKey {
    let secret = Fixed(Mutex::new(bytes(&vectors["secrets"][whose])));
    match whose {
        "cluster" => ClusterSecret::generate(&secret).unwrap().record_mac_key().unwrap(),
        "tenant" => TenantKey::generate(&secret).unwrap().record_mac_key().unwrap(),
        other => panic!("no key of {other}"),
    }
}

fn place(place: &Value) -> RowKey {
    let number = || &place["number"];
    let (tenant, key) = (|| uid(&place["tenant"]), || uid(&place["key"]));
    match text(&place["row"]) {
        "epoch" => row_key::epoch(EpochNumber::new(version(number()).get()).unwrap()),
        "cluster" => row_key::cluster(),
        "audit_seed" => row_key::audit_seed(version(number())),
        "position" => row_key::position(),
        "tenant" => row_key::tenant(tenant()),
        "tenant_name" => row_key::tenant_name(&text(&place["name"]).parse().unwrap()),
        "key_name" => row_key::key_name(tenant(), &text(&place["name"]).parse().unwrap()),
        "key" => row_key::key(tenant(), key()),
        "key_version" => row_key::key_version(tenant(), key(), version(number())),
        "schedule" => row_key::schedule(match (place.get("key"), place.get("number")) {
            (None, _) => ScheduleTarget::Tenant(tenant()),
            (Some(_), None) => ScheduleTarget::Key(tenant(), key()),
            (Some(_), Some(number)) => ScheduleTarget::KeyVersion(tenant(), key(), version(number)),
        }),
        "tenant_counters" => row_key::tenant_counters(tenant()),
        "dek_count" => row_key::dek_count(tenant(), key(), version(number())),
        "rewrap_job" => row_key::rewrap_job(tenant(), key()),
        "grant" => row_key::grant(place.get("tenant").map(|_| tenant()), key()),
        "answer" => row_key::answer(number().as_u64().unwrap() as u32, &bytes(&place["name"]).try_into().unwrap()),
        other => panic!("no row {other}"),
    }
}

/// Decodes, and returns the fields by name together with the encoding.
fn fields_of(message: &str, protobuf: &[u8]) -> (Value, Vec<u8>) {
    fn decoded<M: Message + Default>(protobuf: &[u8], fields: impl FnOnce(&M) -> Value) -> (Value, Vec<u8>) {
        let message = M::decode(protobuf).unwrap();
        (fields(&message), message.encode_to_vec())
    }
    fn epoch(row: &Epoch) -> Value {
        let wraps: Vec<_> =
            row.wraps.iter().map(|wrap| json!({"backend": wrap.backend, "reference": wrap.reference, "ciphertext": hex::encode(&wrap.ciphertext)})).collect();
        json!({"rev": row.rev, "epoch_id": hex::encode(&row.epoch_id), "number": row.number, "state": row.state, "wraps": wraps, "kcv": hex::encode(&row.kcv),
            "created_ms": row.created_ms, "begin_index": row.begin_index})
    }
    fn cluster(row: &Cluster) -> Value {
        json!({"rev": row.rev, "uid": hex::encode(&row.uid), "secret_version": row.secret_version, "wrapped_secret": hex::encode(&row.wrapped_secret), "created_ms": row.created_ms})
    }
    fn audit_seed(row: &AuditSeed) -> Value {
        json!({"rev": row.rev, "n": row.n, "origin": row.origin, "wrapped_seed": hex::encode(&row.wrapped_seed), "public_key": hex::encode(&row.public_key), "created_ms": row.created_ms})
    }
    fn position(row: &Position) -> Value {
        json!({"rev": row.rev, "seq": row.seq, "anchor_size": row.anchor_size, "anchor_mac": hex::encode(&row.anchor_mac),
            "last_mutation_index": row.last_mutation_index, "last_destruction_index": row.last_destruction_index,
            "first_intent_index": row.first_intent_index, "ledger_mac": hex::encode(&row.ledger_mac), "clock_held": row.clock_held,
            "last_dek_destruction_index": row.last_dek_destruction_index})
    }
    fn tenant(row: &Tenant) -> Value {
        let keys: Vec<_> = row
            .tenant_keys
            .iter()
            .map(|key| json!({"version": key.version, "blob": hex::encode(&key.blob), "birth_index": key.birth_index}))
            .collect();
        json!({"rev": row.rev, "uid": hex::encode(&row.uid), "name": row.name, "state": row.state, "tenant_keys": keys, "wrapped_index_root": hex::encode(&row.wrapped_index_root),
            "created_ms": row.created_ms, "destroy_ms": row.destroy_ms, "lease_ms": row.lease_ms, "longest_lease_ms": row.longest_lease_ms, "longest_until_ms": row.longest_until_ms})
    }
    fn tenant_name(row: &TenantName) -> Value {
        let tombstone = row.tombstone.as_ref().map(|left| {
            json!({"state": left.state, "tkc_complement": left.tkc_complement.iter().map(hex::encode).collect::<Vec<_>>(), "intent_index": left.intent_index,
                "fenced_ms": left.fenced_ms, "epoch": left.epoch, "created_ms": left.created_ms, "keys": left.keys, "deks": left.deks})
        });
        json!({"rev": row.rev, "uid": hex::encode(&row.uid), "tombstone": tombstone})
    }
    fn key_name(row: &KeyName) -> Value {
        json!({"rev": row.rev, "uid": hex::encode(&row.uid)})
    }
    fn key(row: &Key) -> Value {
        let labels: Vec<_> = row.labels.iter().map(|label| json!({"name": label.name, "value": label.value})).collect();
        json!({"rev": row.rev, "uid": hex::encode(&row.uid), "name": row.name, "purpose": row.purpose, "state": row.state, "primary": row.primary,
            "created_ms": row.created_ms, "updated_ms": row.updated_ms, "destroy_ms": row.destroy_ms, "labels": labels})
    }
    fn key_version(row: &crate::rows::KeyVersion) -> Value {
        json!({"rev": row.rev, "version": row.version, "state": row.state, "wrapped_kek": hex::encode(&row.wrapped_kek), "kekc_complement": hex::encode(&row.kekc_complement),
            "created_ms": row.created_ms, "destroy_ms": row.destroy_ms})
    }
    fn schedule(row: &Schedule) -> Value {
        json!({"rev": row.rev, "due_ms": row.due_ms, "principal": row.principal})
    }
    fn tenant_counters(row: &TenantCounters) -> Value {
        json!({"rev": row.rev, "keys": row.keys, "last_destruction_index": row.last_destruction_index, "deks": row.deks})
    }
    fn dek_count(row: &DekCount) -> Value {
        json!({"rev": row.rev, "deks": row.deks})
    }
    fn rewrap_job(row: &RewrapJob) -> Value {
        json!({"rev": row.rev, "cursor": hex::encode(&row.cursor), "begun_ms": row.begun_ms, "moved": row.moved, "left": row.left, "tenant": row.tenant, "key": row.key})
    }
    fn grant(row: &Grant) -> Value {
        json!({"rev": row.rev, "state": row.state, "requester": row.requester, "reason": row.reason, "requested_ms": row.requested_ms, "end_ms": row.end_ms,
            "tenant": row.tenant, "role": row.role, "duration_ms": row.duration_ms, "operation": row.operation, "operation_hash": hex::encode(&row.operation_hash), "request": hex::encode(&row.request),
            "approver": row.approver, "approved_ms": row.approved_ms, "revoker": row.revoker, "ended_ms": row.ended_ms})
    }
    fn answer(row: &Answer) -> Value {
        let of_tenant = row.tenant.as_ref().map(|about| {
            json!({"name": about.name, "uid": hex::encode(&about.uid), "state": about.state, "created_ms": about.created_ms, "destroy_ms": about.destroy_ms,
                "fenced_ms": about.fenced_ms, "etag": hex::encode(&about.etag), "lease_ms": about.lease_ms})
        });
        let of_key = row.key.as_ref().map(|about| {
            json!({"tenant": about.tenant, "key": about.key.as_ref().map(key), "etag": hex::encode(&about.etag)})
        });
        let of_version = row.version.as_ref().map(|about| {
            json!({"version": about.version, "state": about.state, "created_ms": about.created_ms, "destroy_ms": about.destroy_ms, "etag": hex::encode(&about.etag)})
        });
        let of_new = row
            .new_data_keys
            .as_ref()
            .map(|new| json!({"uid_prefix": hex::encode(&new.uid_prefix), "items": new.items}));
        let of_gone = row.gone_data_keys.as_ref().map(|gone| {
            json!({"destroyed_ms": gone.destroyed_ms, "items": gone.items, "missing": gone.missing, "gone_before": gone.gone_before})
        });
        let of_grant = row.grant.as_ref().map(|about| {
            json!({"uid": hex::encode(&about.uid), "grant": about.grant.as_ref().map(grant), "etag": hex::encode(&about.etag)})
        });
        json!({"rev": row.rev, "grant": of_grant, "asked": hex::encode(&row.asked), "made_ms": row.made_ms, "intent_index": row.intent_index, "tenant": of_tenant, "key": of_key,
            "version": of_version, "lease_end_ms": row.lease_end_ms, "new_data_keys": of_new, "gone_data_keys": of_gone})
    }
    match message {
        "Epoch" => decoded(protobuf, epoch),
        "Cluster" => decoded(protobuf, cluster),
        "AuditSeed" => decoded(protobuf, audit_seed),
        "Position" => decoded(protobuf, position),
        "Tenant" => decoded(protobuf, tenant),
        "TenantName" => decoded(protobuf, tenant_name),
        "KeyName" => decoded(protobuf, key_name),
        "Key" => decoded(protobuf, key),
        "KeyVersion" => decoded(protobuf, key_version),
        "Schedule" => decoded(protobuf, schedule),
        "TenantCounters" => decoded(protobuf, tenant_counters),
        "DekCount" => decoded(protobuf, dek_count),
        "RewrapJob" => decoded(protobuf, rewrap_job),
        "Grant" => decoded(protobuf, grant),
        "Answer" => decoded(protobuf, answer),
        other => panic!("no message {other}"),
    }
}

/// Adds what the vectors leave out: a field without presence that has its default.
fn with_defaults(given: &Map<String, Value>, found: &Value) -> Value {
    let is_default = |value: &Value| match value {
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Object(_) => false,
    };
    let presence = [
        "last_mutation_index",
        "last_destruction_index",
        "last_dek_destruction_index",
        "destroy_ms",
        "fenced_ms",
        "lease_ms",
        "lease_end_ms",
    ];
    let mut all = Map::new();
    for (name, value) in found.as_object().unwrap() {
        let expected = match given.get(name) {
            Some(Value::Object(inner)) if value.is_object() => with_defaults(inner, value),
            Some(given) => given.clone(),
            None if presence.contains(&name.as_str()) => Value::Null,
            None => {
                assert!(is_default(value), "{name} is not in the vector, but decoded as {value}");
                value.clone()
            }
        };
        all.insert(name.clone(), expected);
    }
    assert!(given.keys().all(|name| all.contains_key(name)), "the vector has a field that the row has not");
    Value::Object(all)
}

#[test]
fn every_row_vector_is_met() {
    let vectors = vectors();
    let rows = vectors["rows"].as_array().unwrap();
    let mut messages = BTreeSet::new();
    let mut met = 0;
    for row in rows {
        let (name, message, protobuf) = (text(&row["name"]), text(&row["message"]), bytes(&row["protobuf"]));
        let (found, encoded) = fields_of(message, &protobuf);
        assert_eq!(found, with_defaults(row["fields"].as_object().unwrap(), &found), "{name}");
        assert_eq!(hex::encode(&encoded), text(&row["protobuf"]), "{name}");

        let place = place(&row["place"]);
        assert_eq!(place.family.name(), text(&row["family"]), "{name}");
        assert_eq!(hex::encode(&place.key), text(&row["store_key"]), "{name}");

        let key = mac_key(&vectors, text(&row["mac_key"]));
        let sealed = record::seal(&key, version(&row["mac_key_version"]), place.family.name(), &place.key, &encoded);
        assert_eq!(hex::encode(&sealed), text(&row["row"]), "{name}");
        assert_eq!(record::open(&key, place.family.name(), &place.key, &sealed), Ok(&protobuf[..]), "{name}");
        assert_eq!(record::key_version(&sealed), Ok(version(&row["mac_key_version"])), "{name}");

        messages.insert(message.to_owned());
        met += 1;
    }
    println!("row vectors: {met}/{} met, of {} kinds", rows.len(), messages.len());
    assert_eq!((met, messages.len()), (41, 15));
}

#[test]
fn no_row_verifies_in_the_place_of_another() {
    let vectors = vectors();
    let rows = vectors["rows"].as_array().unwrap();
    let mut refused = 0;
    for row in rows {
        for other in
            rows.iter().filter(|other| (&other["store_key"], &other["family"]) != (&row["store_key"], &row["family"]))
        {
            for whose in ["cluster", "tenant"] {
                let key = mac_key(&vectors, whose);
                assert!(
                    record::open(&key, text(&other["family"]), &bytes(&other["store_key"]), &bytes(&row["row"]))
                        .is_err(),
                    "{} as {}",
                    row["name"],
                    other["name"]
                );
                refused += 1;
            }
        }
    }
    println!("moved rows refused: {refused}/{refused}");
}

#[test]
fn a_key_row_tells_whether_it_is_a_key_or_a_version() {
    let vectors = vectors();
    for row in vectors["rows"].as_array().unwrap().iter().filter(|row| row["family"] == "key") {
        let is_version = matches!(row_key::parse_key_row(&bytes(&row["store_key"])), Some(KeyRow::Version(..)));
        assert_eq!(is_version, row["message"] == "KeyVersion", "{}", row["name"]);
    }
}
