//! That every RPC is fuzzed, and the seeds of requests.

use std::collections::BTreeSet;

use prost::Message as _;

use super::OPERATIONS;
use crate::crypto::context::hash_of_caller;
use crate::fuzzing::{KEYS, NotRandom, VERSION};
use crate::noun::Uid;

/// The seeds of requests begin with a request's number here: an RPC that is added has one too.
#[test]
fn every_rpc_is_fuzzed() {
    let descriptor = prost_types::FileDescriptorSet::decode(kms_proto::FILE_DESCRIPTOR_SET).unwrap();
    let ours = descriptor.file.iter().filter(|file| file.package() == "kms.v1");
    let rpcs: BTreeSet<&str> =
        ours.flat_map(|file| &file.service).flat_map(|service| &service.method).map(|method| method.name()).collect();
    let fuzzed: BTreeSet<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(fuzzed, rpcs);
}

/// One for each RPC, with all fields that some RPC has; what an RPC has not it skips.
pub(crate) fn requests(add: &mut impl FnMut(&'static str, &str, &[u8])) {
    use kms_proto::v1;
    let (key, tenant) = ("tenants/acme/keys/app".to_owned(), "tenants/acme".to_owned());
    let pairs: std::collections::BTreeMap<_, _> = [("row".to_owned(), "7".to_owned())].into();
    let context = hash_of_caller("acme", b"aad", [("row", "7")]).unwrap();
    let blob = KEYS.kek.seal_data(Uid::from_bytes([7; 16]), VERSION, &context, b"hello", &NotRandom);
    let wait = Some(prost_types::Duration { seconds: 3600, nanos: 1 });
    for (number, (name, _)) in OPERATIONS.iter().enumerate() {
        let message = match *name {
            "CreateTenant" => {
                v1::CreateTenantRequest { tenant_id: "acme".into(), request_id: "r-1".into(), ..Default::default() }
                    .encode_to_vec()
            }
            "ListTenants" => v1::ListTenantsRequest { page_size: 7, page_token: "AQ".into() }.encode_to_vec(),
            "DestroyTenant" => {
                v1::DestroyTenantRequest { name: tenant.clone(), wait, ..Default::default() }.encode_to_vec()
            }
            "ScheduleKeyDestruction" => {
                v1::ScheduleKeyDestructionRequest { name: key.clone(), wait, ..Default::default() }.encode_to_vec()
            }
            "CreateKey" => v1::CreateKeyRequest {
                parent: tenant.clone(),
                key_id: "app".into(),
                purpose: v1::KeyPurpose::Encrypt.into(),
                labels: pairs.clone(),
                ..Default::default()
            }
            .encode_to_vec(),
            "ListKeys" => {
                v1::ListKeysRequest { parent: tenant.clone(), page_size: 7, page_token: "AQ".into() }.encode_to_vec()
            }
            "UpdateKey" => v1::UpdateKeyRequest {
                key: Some(v1::Key { name: key.clone(), labels: pairs.clone(), ..Default::default() }),
                update_mask: Some(prost_types::FieldMask { paths: vec!["labels".into()] }),
                ..Default::default()
            }
            .encode_to_vec(),
            "ReEncrypt" => v1::ReEncryptRequest {
                key: key.clone(),
                ciphertext: blob.clone(),
                encryption_context: pairs.clone(),
                aad: b"aad".into(),
                destination: Some(v1::Destination { key: key.clone(), ..Default::default() }),
            }
            .encode_to_vec(),
            "UpdateTenant" => v1::UpdateTenantRequest {
                tenant: Some(v1::Tenant { name: tenant.clone(), data_key_lease: wait, ..Default::default() }),
                update_mask: Some(prost_types::FieldMask { paths: vec!["data_key_lease".into()] }),
                ..Default::default()
            }
            .encode_to_vec(),
            "GetIndexKey" => v1::GetIndexKeyRequest { index: format!("{tenant}/indexes/mail") }.encode_to_vec(),
            "BatchReEncrypt" => v1::BatchReEncryptRequest {
                key: key.clone(),
                encryption_context: pairs.clone(),
                destination: Some(v1::BatchDestination { key: key.clone(), encryption_context: pairs.clone() }),
                items: vec![
                    v1::BatchReEncryptItem {
                        ciphertext: blob.clone(),
                        aad: b"aad".into(),
                        destination_aad: b"another".into(),
                    };
                    2
                ],
            }
            .encode_to_vec(),
            // Items are the third or the fourth field, and some have a byte of omit_plaintext before them.
            "BatchGenerateDataKeys" | "BatchCreateDataKeys" => v1::BatchGenerateDataKeysRequest {
                key: key.clone(),
                omit_plaintext: true,
                encryption_context: pairs.clone(),
                items: vec![v1::BatchGenerateDataKeysItem { aad: b"aad".into() }; 2],
            }
            .encode_to_vec(),
            name if name.starts_with("Batch") => v1::BatchVerifyMacsRequest {
                key: key.clone(),
                encryption_context: pairs.clone(),
                items: vec![
                    v1::BatchVerifyMacsItem { message: blob.clone(), mac: b"mac".into(), aad: b"aad".into() };
                    2
                ],
            }
            .encode_to_vec(),
            name if name.contains("Tenant") => v1::GetTenantRequest { name: tenant.clone() }.encode_to_vec(),
            name if name.contains("Key") && !name.contains("DataKey") => {
                v1::GetKeyRequest { name: format!("{key}/versions/1") }.encode_to_vec()
            }
            _ => v1::DecryptRequest {
                key: key.clone(),
                ciphertext: blob.clone(),
                encryption_context: pairs.clone(),
                aad: b"aad".into(),
            }
            .encode_to_vec(),
        };
        add("request", name, &[&[number as u8][..], &message].concat());
    }
}
