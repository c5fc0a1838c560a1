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
        data_key_count: Some(7),
        ..Default::default()
    };
    let lease = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let tenant =
        v1::Tenant { name: "tenants/acme".into(), create_time: time, data_key_lease: lease, ..Default::default() };
    let (plaintext, uid, key_version) = (vec![7; 32], vec![7; 16], 1);
    let error = Some(v1::ItemError { code: 5, reason: 43, message: "there is no such data key".into() });
    let scheduled = v1::ScheduleKeyDestructionResponse { key: Some(key.clone()), version: None, lease_end_time: time };
    let managed = v1::ManagedDataKey { uid: uid.clone(), state: 1, key_version, create_time: time, destroy_time: None };
    let created = v1::CreateDataKeyResponse { plaintext: plaintext.clone(), uid: uid.clone(), key_version, lease };
    let sealed = v1::BatchEncryptResponse {
        key_version,
        results: vec![v1::BatchEncryptResult { ciphertext: vec![0x92], error: None }, Default::default()],
    };
    let opened = v1::BatchDecryptResponse {
        results: vec![
            v1::BatchDecryptResult { plaintext: b"hello".into(), key_version, stale: true, error: None },
            v1::BatchDecryptResult { error: error.clone(), ..Default::default() },
        ],
    };
    let moved = v1::BatchReEncryptResponse {
        key_version,
        results: vec![v1::BatchReEncryptResult { ciphertext: vec![0x92], source_key_version: 1, error: None }],
    };
    let generated = v1::BatchGenerateDataKeysResponse {
        key_version,
        lease,
        results: vec![v1::BatchGenerateDataKeysResult {
            plaintext: plaintext.clone(),
            wrapped_data_key: vec![0x92],
            error: None,
        }],
    };
    let unwrapped = v1::BatchDecryptDataKeysResponse {
        lease,
        results: vec![v1::BatchDecryptDataKeysResult {
            plaintext: plaintext.clone(),
            key_version,
            stale: false,
            error: None,
        }],
    };
    let made = v1::BatchCreateDataKeysResponse {
        key_version,
        lease,
        results: vec![
            v1::BatchCreateDataKeysResult { plaintext: plaintext.clone(), uid, error: None },
            v1::BatchCreateDataKeysResult { error: error.clone(), ..Default::default() },
        ],
    };
    let given = v1::BatchGetDataKeysResponse {
        lease,
        results: vec![
            v1::BatchGetDataKeysResult { plaintext: plaintext.clone(), key_version, error: None },
            v1::BatchGetDataKeysResult { error, ..Default::default() },
        ],
    };
    let destroyed = v1::BatchDestroyDataKeysResponse {
        lease_end_time: time,
        results: vec![v1::BatchDestroyDataKeysResult { destroy_time: time, error: None }],
    };
    let binding = v1::Binding { id: "app".into(), expire_time: time, ..Default::default() };
    let status = v1::GetStatusResponse {
        start_time: time,
        epoch: Some(v1::EpochStatus { number: 1, create_time: time, ..Default::default() }),
        backend: Some(v1::BackendStatus { probe_time: time, ..Default::default() }),
        ..Default::default()
    };
    let role = v1::RoleGrant { tenant: "tenants/acme".into(), role: "decrypter".into(), duration: lease };
    let grant = v1::Grant {
        name: format!("tenants/acme/grants/{}", "07".repeat(16)),
        state: v1::GrantState::Pending.into(),
        what: Some(v1::grant::What::Role(role)),
        content_hash: "07".repeat(32),
        request_time: time,
        expire_time: time,
        ..Default::default()
    };
    let asked = v1::ScheduleKeyDestructionRequest {
        name: "tenants/acme/keys/app/versions/1".into(),
        wait: lease,
        ..Default::default()
    };
    let operation = Some(v1::operation::Operation::ScheduleKeyDestruction(asked));
    let what = Some(v1::grant::What::Operation(v1::Operation { operation }));
    let grants = v1::ListGrantsResponse {
        grants: vec![grant.clone(), v1::Grant { what, ..grant.clone() }],
        next_page_token: "AQ".into(),
    };
    let near = v1::ConsideredRule { rule: "app".into(), verdict: "expired".into() };
    let tested = v1::TestedPermission { action: "Decrypt".into(), considered: vec![near], ..Default::default() };
    let answers = [
        ("key", v1::GetKeyResponse { key: Some(key.clone()) }.encode_to_vec()),
        ("version", v1::EnableKeyResponse { key: Some(key.clone()), version: Some(version) }.encode_to_vec()),
        ("tenant", v1::GetTenantResponse { tenant: Some(tenant) }.encode_to_vec()),
        ("page", v1::ListKeysResponse { keys: vec![key.clone(), key], next_page_token: "AQ".into() }.encode_to_vec()),
        ("caller", v1::GetCallerIdentityResponse { bindings: vec![binding], ..Default::default() }.encode_to_vec()),
        ("status", status.encode_to_vec()),
        ("time", moment.encode_to_vec()),
        ("scheduled", scheduled.encode_to_vec()),
        (
            "data_keys",
            v1::ListDataKeysResponse { data_keys: vec![managed], next_page_token: String::new() }.encode_to_vec(),
        ),
        ("data_key_created", created.encode_to_vec()),
        ("data_key_given", v1::GetDataKeyResponse { plaintext: plaintext.clone(), key_version, lease }.encode_to_vec()),
        ("data_key_destroyed", v1::DestroyDataKeyResponse { destroy_time: time, lease_end_time: time }.encode_to_vec()),
        ("index_key", v1::GetIndexKeyResponse { plaintext, lease }.encode_to_vec()),
        ("batch_sealed", sealed.encode_to_vec()),
        ("batch_opened", opened.encode_to_vec()),
        ("batch_moved", moved.encode_to_vec()),
        ("batch_generated", generated.encode_to_vec()),
        ("batch_unwrapped", unwrapped.encode_to_vec()),
        ("batch_created", made.encode_to_vec()),
        ("batch_given", given.encode_to_vec()),
        ("batch_destroyed", destroyed.encode_to_vec()),
        ("grant", v1::GetGrantResponse { grant: Some(grant) }.encode_to_vec()),
        ("grants", grants.encode_to_vec()),
        ("permissions", v1::TestPermissionsResponse { permissions: vec![tested] }.encode_to_vec()),
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
    for (name, text) in [
        ("tenant", "tenants/acme"),
        ("key", "tenants/acme/keys/app"),
        ("part", "acme"),
        ("bad", "a/b"),
        ("index", "tenants/acme/indexes/users.email"),
        ("uid", "07000000000000000000000000000001"),
        ("grant", "tenants/acme/grants/07000000000000000000000000000001"),
        ("cluster_grant", "grants/07000000000000000000000000000001"),
    ] {
        seeds.push(("client_name", name.to_owned(), text.as_bytes().to_vec()));
    }
    seeds
}
