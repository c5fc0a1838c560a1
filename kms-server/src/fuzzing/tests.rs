//! Replays the corpus on every build, and makes its seeds.
//!
//! `KMS_WRITE_SEEDS=1 cargo test -p kms-server --lib fuzzing` writes the seeds anew: after a format or a request was
//! changed, and for a new target. What fuzzing has found is put beside them by hand, named by the failure.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::audit::frame::SegmentHead;
use crate::crypto::keystore_file::PinCost;
use crate::keyring::fuzzing::READERS;
use crate::noun::EpochNumber;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

/// Names of the client library's targets begin so.
const CLIENTS: &str = "client_";

#[test]
fn the_corpus_panics_in_no_target() {
    if std::env::var_os("KMS_WRITE_SEEDS").is_some() {
        write_seeds();
    }
    let mut files = Vec::new();
    for (name, _) in TARGETS {
        let folder = fuzz_dir().join("corpus").join(name);
        let of_target: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}: every target has seeds", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!of_target.is_empty(), "{name} has no seeds");
        files.extend(of_target);
    }
    // Every file through every target: what is right for one is wrong for the others.
    for file in &files {
        let bytes = fs::read(file).unwrap();
        for (name, target) in TARGETS {
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "the target {name} panics at {}", file.display());
        }
    }
    println!("fuzzing: {} seeds through each of {} targets, 0 panics", files.len(), TARGETS.len());
}

#[test]
fn every_target_has_a_program_and_every_program_a_target() {
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for name in &targets {
        let program = fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("kms_server::fuzzing::run(\"{name}\"")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
    let corpora: BTreeSet<String> = fs::read_dir(fuzz_dir().join("corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(CLIENTS))
        .collect();
    assert_eq!(corpora, targets);
}

#[test]
fn every_kind_of_row_is_fuzzed() {
    let rows: Value = serde_json::from_str(include_str!("../../../tests/vectors/rows.json")).unwrap();
    let kinds = rows["rows"].as_array().unwrap().iter().map(|row| row["message"].as_str().unwrap());
    let fuzzed: BTreeSet<&str> = READERS.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(fuzzed, kinds.collect::<BTreeSet<_>>());
}

fn write_seeds() {
    for (target, name, bytes) in seeds() {
        let folder = fuzz_dir().join("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        // A certificate is another each time.
        if !["certificate", "pem"].contains(&target) || !folder.join(&name).exists() {
            fs::write(folder.join(&name), bytes).unwrap();
        }
    }
}

type Seed = (&'static str, String, Vec<u8>);

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: &[u8]| seeds.push((target, name.to_owned(), bytes.to_vec()));
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/kms1_vectors.json")).unwrap();
    let rows: Value = serde_json::from_str(include_str!("../../../tests/vectors/rows.json")).unwrap();
    let hex = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();

    let context = hash_of_caller("acme", b"aad", [("row", "7")]).unwrap();
    let uid = Uid::from_bytes([7; 16]);
    let data = KEYS.kek.seal_data(uid, VERSION, &context, b"hello", &NotRandom);
    add("blob", "data", &data);
    add("blob", "data_truncated", &data[..data.len() - 1]);
    add("blob", "data_other_context", &KEYS.kek.seal_data(uid, VERSION, &other_context(), b"", &NotRandom));
    let dek = crate::crypto::Dek::generate(&NotRandom);
    add("blob", "wrapped_dek", &KEYS.kek.wrap_dek(uid, VERSION, &context, &dek, &NotRandom));
    for (name, of) in
        ["wrapped_epoch_key", "wrapped_tenant_key", "wrapped_cluster_secret"].map(|name| (name, &vectors[name]["blob"]))
    {
        add("blob", name, &hex(of));
    }

    for (name, parts) in [
        ("none", &[&b"acme"[..], b""][..]),
        ("aad", &[b"acme", b"row 7"]),
        ("pairs", &[b"acme", b"", b"table", b"users", b"row", b"7"]),
        ("reserved", &[b"acme", b"", b"kms1-dek", b"x"]),
        ("nul", &[b"acme", b"", b"a\0", b"x"]),
        ("twice", &[b"acme", b"", b"a", b"x", b"a", b"y"]),
        ("long", &[b"acme", &[0; 8_181], b"", b""]),
    ] {
        let behind_lengths = parts.iter().flat_map(|part| [&(part.len() as u16).to_be_bytes()[..], part].concat());
        add("context", name, &behind_lengths.collect::<Vec<u8>>());
    }

    let segment = hex(&vectors["audit"]["segment"]);
    add("segment", "vector", &segment);
    add("segment", "vector_truncated", &segment[..segment.len() - 50]);
    // Its last leaf would be the last that there can be, and the next has no index: an overflow.
    let head = SegmentHead { origin_hash: [7; 32], first: u64::MAX, previous: [0; 32] }.to_bytes();
    let leaf = br#"{"v":1,"i":18446744073709551615,"t":1}"#;
    let payload = [&[1][..], &[0xff; 8], &[0, 1], &(leaf.len() as u16).to_be_bytes(), leaf].concat();
    let frame = [&(payload.len() as u32).to_be_bytes()[..], &[0; 4], &payload, &[0; 32]].concat();
    add("segment", "leaf_at_the_end_of_all_indices", &[&head[..], &frame, &[0; 4]].concat());
    add("frame", "segment", &segment);
    add("frame", "vector", &segment[crate::audit::frame::SEGMENT_HEAD_BYTES..]);
    add("frame", "end", &[0; 8]);
    for (number, entry) in vectors["audit"]["entries"].as_array().unwrap().iter().enumerate() {
        add("leaf", &format!("vector_{number}"), entry.as_str().unwrap().as_bytes());
    }

    let mut ledger = [&b"kms1led\x01"[..], &[7; 32]].concat();
    for leaf in [
        &br#"{"v":1,"i":5,"t":1,"op":"DestroyTenant","ph":"fenced","ten":"a","res":"OK"}"#[..],
        br#"{"v":1,"i":9,"t":2,"op":"DestroyKey","ph":"fenced","ten":"b","kn":"k","pd":5,"res":"RECOVERED"}"#,
    ] {
        ledger.extend_from_slice(&(leaf.len() as u32).to_be_bytes());
        ledger.extend_from_slice(&[&[0; 4][..], leaf, &[0; 32]].concat());
    }
    crate::audit::fuzzing::seal_ledger(&mut ledger);
    add("ledger", "two_entries", &ledger);
    add("ledger", "truncated", &ledger[..ledger.len() - 40]);

    add("keystore_file", "vector", &hex(&vectors["keystore_file"]["file"]));
    let master = crate::crypto::MasterKey::generate(&NotRandom).unwrap();
    let cost = PinCost { memory_kib: 8, passes: 1, lanes: 1 };
    let epoch = EpochNumber::FIRST;
    let file = {
        let head = KeystoreHead::new(uid, epoch, cost, keystore_file::ORIGINAL, &NotRandom);
        keystore_file::seal(&master, &head, uid, b"a PIN", &NotRandom).unwrap()
    };
    add("keystore_file", "cheap", &file);
    add("master_key_ref", "first", b"07070707070707070707070707070707-00000001.kms1hsm");
    add("master_key_ref", "path", b"../07070707070707070707070707070707-00000001.kms1hsm");

    for row in rows["rows"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let kind = READERS.iter().position(|(kind, _)| row["message"] == *kind).unwrap() as u8;
        add("row", &name, &[&[kind][..], &hex(&row["protobuf"])].concat());
        add("row_key", &name, &hex(&row["store_key"]));
    }
    add("row", "a_whole_record", &hex(&rows["rows"][0]["row"]));

    for (name, text) in [
        ("tenant", "tenants/acme"),
        ("key", "tenants/acme/keys/app"),
        ("version", "tenants/acme/keys/app/versions/7"),
        ("zero", "tenants/acme/keys/app/versions/0"),
        ("name", "A-1.b_c~d"),
        ("principal", "spiffe://example.com/billing/worker-1"),
        ("prefix", "pay-*"),
        ("every", "*"),
        ("network", "10.0.0.0/8"),
        ("network_v6", "2001:db8::/32"),
        ("action", "ReEncrypt"),
        ("role", "key-admin"),
        ("request_id", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("etag", "00112233445566778899aabbccddeeff"),
    ] {
        add("names", name, text.as_bytes());
    }
    let token = KEYS.cluster.page_token_key().unwrap().seal("ListTenants spiffe://example.com/admin", b"acme");
    add("page_token", "token", base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, token).as_bytes());
    add("page_token", "place", b"acme");
    add("page_token", "number", b"7");
    for (name, text) in [("unix", "0123-4567\n"), ("dos", "0123-4567\r\n"), ("bare", "0123"), ("empty", "\n")] {
        add("pin_file", name, text.as_bytes());
    }
    add("bindings", "all", BINDINGS.as_bytes());
    add("bindings", "typo", BINDINGS.replace("encrypter", "encryptor").as_bytes());
    add("settings", "all", SETTINGS.as_bytes());
    add("settings", "typo", SETTINGS.replace("data_dir", "datadir").as_bytes());
    crate::rpc::fuzzing::tests::requests(&mut add);
    certificates(&mut add);
    seeds
}

fn other_context() -> crate::crypto::ContextHash {
    hash_of_caller("globex", b"", []).unwrap()
}

/// Not the same twice, because rcgen's keys are random.
fn certificates(add: &mut impl FnMut(&'static str, &str, &[u8])) {
    let uri = |uri: &str| rcgen::SanType::URI(uri.try_into().unwrap());
    let dns = |name: &str| rcgen::SanType::DnsName(name.try_into().unwrap());
    for (name, san, cn) in [
        ("spiffe", vec![uri("spiffe://example.com/billing")], ""),
        ("two_spiffe", vec![uri("spiffe://example.com/a"), uri("spiffe://example.com/b")], ""),
        ("dns", vec![dns("billing.internal")], ""),
        ("common_name", vec![], "Backup job"),
    ] {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = san;
        params.distinguished_name.push(rcgen::DnType::CommonName, cn);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        add("certificate", name, certificate.der());
        add("pem", name, certificate.pem().as_bytes());
        if name == "spiffe" {
            add("pem", "with_key", (certificate.pem() + &key.serialize_pem()).as_bytes());
        }
    }
    add("pem", "torn", b"-----BEGIN CERTIFICATE-----\nAAAA\n");
}

const BINDINGS: &str = r#"[[binding]]
id = "billing-acme"
roles = ["encrypter", "decrypter"]
principals = ["spiffe://example.com/billing"]
groups = ["people"]
tenants = ["acme"]
keys = ["app", "pay-*"]
networks = ["10.0.0.0/8", "2001:db8::/32"]
expires = 2030-01-01T00:00:00Z

[[group]]
name = "people"
members = ["spiffe://example.com/alice"]
"#;

const SETTINGS: &str = r#"data_dir = "data"
node = "node-1"

[listen]
services = "127.0.0.1:8443"

[tls]
certificate_file = "server.pem"
key_file = "server.key"
client_ca_file = "ca.pem"

[policy]
bindings_file = "bindings.toml"

[backend]
kind = "software"
pin_file = "pin"
pin_memory_kib = 1024

[audit]
segment_bytes = 1048576

[destruction]
wait_min = "0s"
wait_default = "7d"

[log]
filter = "info"

[[identity]]
dns = "billing.internal"
principal = "spiffe://example.com/billing"
"#;
