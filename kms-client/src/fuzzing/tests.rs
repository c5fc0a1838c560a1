//! Replays the corpus on every build, and makes its seeds: `KMS_WRITE_SEEDS=1 cargo test -p kms-client --lib fuzzing`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

#[test]
fn the_corpus_panics_in_no_target() {
    if std::env::var_os("KMS_WRITE_SEEDS").is_some() {
        for (target, name, bytes) in seeds() {
            let folder = fuzz_dir().join("corpus").join(target);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let mut files = Vec::new();
    for folder in fs::read_dir(fuzz_dir().join("corpus")).unwrap() {
        files.extend(fs::read_dir(folder.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
    }
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
        assert!(program.contains(&format!("kms_client::fuzzing::run(\"{name}\"")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
    let corpora: BTreeSet<String> = fs::read_dir(fuzz_dir().join("corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("client_"))
        .collect();
    assert_eq!(corpora, targets);
}

fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let moment = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 };
    let time = Some(moment);
    let key = v1::Key {
        name: "tenants/acme/keys/app".into(),
        uid: "07".repeat(16),
        purpose: v1::KeyPurpose::Encrypt.into(),
        state: v1::KeyState::Enabled.into(),
        primary_version: 1,
        create_time: time,
        update_time: time,
        ..Default::default()
    };
    let version = v1::KeyVersion {
        name: "tenants/acme/keys/app/versions/1".into(),
        version: 1,
        create_time: time,
        ..Default::default()
    };
    let tenant = v1::Tenant { name: "tenants/acme".into(), create_time: time, ..Default::default() };
    let binding = v1::Binding { id: "app".into(), expire_time: time, ..Default::default() };
    let status = v1::GetStatusResponse {
        start_time: time,
        epoch: Some(v1::EpochStatus { number: 1, create_time: time, ..Default::default() }),
        backend: Some(v1::BackendStatus { probe_time: time, ..Default::default() }),
        ..Default::default()
    };
    let answers = [
        ("key", v1::GetKeyResponse { key: Some(key.clone()) }.encode_to_vec()),
        ("version", v1::EnableKeyResponse { key: Some(key.clone()), version: Some(version) }.encode_to_vec()),
        ("tenant", v1::GetTenantResponse { tenant: Some(tenant) }.encode_to_vec()),
        ("page", v1::ListKeysResponse { keys: vec![key.clone(), key], next_page_token: "AQ".into() }.encode_to_vec()),
        ("caller", v1::GetCallerIdentityResponse { bindings: vec![binding], ..Default::default() }.encode_to_vec()),
        ("status", status.encode_to_vec()),
        ("time", moment.encode_to_vec()),
    ];
    let mut seeds = Vec::new();
    for (number, (name, message)) in answers.into_iter().enumerate() {
        seeds.push(("client_answer", name.to_owned(), [&[number as u8][..], &message].concat()));
    }
    for (name, code, reason) in
        [("denied", Code::PermissionDenied, "POLICY_DENIED"), ("newer", Code::Aborted, "NEW_2030")]
    {
        let metadata = [("request_id".to_owned(), "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned())];
        let details = ErrorDetails::with_error_info(reason, "kms.v1", metadata);
        let status = Status::with_error_details(code, "not allowed", details);
        seeds.push(("client_error", name.to_owned(), [&[code as i32 as u8][..], status.details()].concat()));
    }
    seeds.push(("client_error", "bare".into(), vec![14]));
    for (name, text) in [("tenant", "tenants/acme"), ("key", "tenants/acme/keys/app"), ("part", "acme"), ("bad", "a/b")]
    {
        seeds.push(("client_name", name.to_owned(), text.as_bytes().to_vec()));
    }
    seeds
}
