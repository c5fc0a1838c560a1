//! Requests, short to write: a table of them should read as one.

use std::collections::BTreeMap;

use kms_proto::v1;
use prost_types::Duration;

/// A request of CryptoService.Encrypt.
pub fn encrypt(key: &str, plaintext: &[u8], context: &[(&str, &str)]) -> v1::EncryptRequest {
    v1::EncryptRequest {
        key: key.into(),
        plaintext: plaintext.into(),
        encryption_context: pairs(context),
        aad: Vec::new(),
    }
}

/// A request of CryptoService.Decrypt.
pub fn decrypt(key: &str, ciphertext: &[u8], context: &[(&str, &str)]) -> v1::DecryptRequest {
    v1::DecryptRequest {
        key: key.into(),
        ciphertext: ciphertext.into(),
        encryption_context: pairs(context),
        aad: Vec::new(),
    }
}

/// A request of CryptoService.ReEncrypt that keeps key and context.
pub fn re_encrypt(key: &str, ciphertext: &[u8], context: &[(&str, &str)]) -> v1::ReEncryptRequest {
    v1::ReEncryptRequest {
        key: key.into(),
        ciphertext: ciphertext.into(),
        encryption_context: pairs(context),
        ..v1::ReEncryptRequest::default()
    }
}

/// A request of CryptoService.ReEncrypt to another key and context.
pub fn move_to(
    key: &str,
    ciphertext: &[u8],
    context: &[(&str, &str)],
    to_key: &str,
    to_context: &[(&str, &str)],
) -> v1::ReEncryptRequest {
    let destination = v1::Destination { key: to_key.into(), encryption_context: pairs(to_context), aad: Vec::new() };
    v1::ReEncryptRequest { destination: Some(destination), ..re_encrypt(key, ciphertext, context) }
}

/// A request of CryptoService.GenerateDataKey.
pub fn generate_data_key(key: &str, context: &[(&str, &str)]) -> v1::GenerateDataKeyRequest {
    v1::GenerateDataKeyRequest {
        key: key.into(),
        encryption_context: pairs(context),
        ..v1::GenerateDataKeyRequest::default()
    }
}

/// A request of CryptoService.DecryptDataKey.
pub fn decrypt_data_key(key: &str, wrapped: &[u8], context: &[(&str, &str)]) -> v1::DecryptDataKeyRequest {
    v1::DecryptDataKeyRequest {
        key: key.into(),
        wrapped_data_key: wrapped.into(),
        encryption_context: pairs(context),
        aad: Vec::new(),
    }
}

/// A request of CryptoService.CreateDataKey.
pub fn create_data_key(key: &str, context: &[(&str, &str)]) -> v1::CreateDataKeyRequest {
    v1::CreateDataKeyRequest { key: key.into(), encryption_context: pairs(context), ..Default::default() }
}

/// A request of CryptoService.GetDataKey.
pub fn get_data_key(key: &str, uid: &[u8], context: &[(&str, &str)]) -> v1::GetDataKeyRequest {
    v1::GetDataKeyRequest { key: key.into(), uid: uid.into(), encryption_context: pairs(context), aad: Vec::new() }
}

/// A request of CryptoService.DestroyDataKey.
pub fn destroy_data_key(key: &str, uid: &[u8]) -> v1::DestroyDataKeyRequest {
    v1::DestroyDataKeyRequest { key: key.into(), uid: uid.into(), ..Default::default() }
}

/// A request of CryptoService.GenerateMac.
pub fn generate_mac(key: &str, message: &[u8], context: &[(&str, &str)]) -> v1::GenerateMacRequest {
    v1::GenerateMacRequest {
        key: key.into(),
        message: message.into(),
        encryption_context: pairs(context),
        aad: Vec::new(),
    }
}

/// A request of CryptoService.VerifyMac.
pub fn verify_mac(key: &str, message: &[u8], mac: &[u8], context: &[(&str, &str)]) -> v1::VerifyMacRequest {
    v1::VerifyMacRequest {
        key: key.into(),
        message: message.into(),
        mac: mac.into(),
        encryption_context: pairs(context),
        aad: Vec::new(),
    }
}

/// A request of CryptoService.GetIndexKey.
pub fn get_index_key(index: &str) -> v1::GetIndexKeyRequest {
    v1::GetIndexKeyRequest { index: index.into() }
}

/// A request of CryptoService.BatchEncrypt.
pub fn batch_encrypt(key: &str, plaintexts: &[&[u8]], context: &[(&str, &str)]) -> v1::BatchEncryptRequest {
    let item = |bytes: &&[u8]| v1::BatchEncryptItem { plaintext: bytes.to_vec(), aad: Vec::new() };
    let items = plaintexts.iter().map(item).collect();
    v1::BatchEncryptRequest { key: key.into(), encryption_context: pairs(context), items }
}

/// A request of CryptoService.BatchDecrypt.
pub fn batch_decrypt(key: &str, blobs: &[Vec<u8>], context: &[(&str, &str)]) -> v1::BatchDecryptRequest {
    let item = |blob: &Vec<u8>| v1::BatchDecryptItem { ciphertext: blob.clone(), aad: Vec::new() };
    let items = blobs.iter().map(item).collect();
    v1::BatchDecryptRequest { key: key.into(), encryption_context: pairs(context), items }
}

/// A request of CryptoService.BatchReEncrypt that keeps key and context.
pub fn batch_re_encrypt(key: &str, blobs: &[Vec<u8>], context: &[(&str, &str)]) -> v1::BatchReEncryptRequest {
    let item = |blob: &Vec<u8>| v1::BatchReEncryptItem { ciphertext: blob.clone(), ..Default::default() };
    let items = blobs.iter().map(item).collect();
    v1::BatchReEncryptRequest { key: key.into(), encryption_context: pairs(context), destination: None, items }
}

/// A request of CryptoService.BatchGenerateDataKeys.
pub fn batch_generate_data_keys(key: &str, count: usize, context: &[(&str, &str)]) -> v1::BatchGenerateDataKeysRequest {
    let items = vec![v1::BatchGenerateDataKeysItem::default(); count];
    v1::BatchGenerateDataKeysRequest {
        key: key.into(),
        encryption_context: pairs(context),
        items,
        omit_plaintext: false,
    }
}

/// A request of CryptoService.BatchDecryptDataKeys.
pub fn batch_decrypt_data_keys(
    key: &str,
    wrapped: &[Vec<u8>],
    context: &[(&str, &str)],
) -> v1::BatchDecryptDataKeysRequest {
    let item = |blob: &Vec<u8>| v1::BatchDecryptDataKeysItem { wrapped_data_key: blob.clone(), aad: Vec::new() };
    let items = wrapped.iter().map(item).collect();
    v1::BatchDecryptDataKeysRequest { key: key.into(), encryption_context: pairs(context), items }
}

/// A request of CryptoService.BatchCreateDataKeys.
pub fn batch_create_data_keys(key: &str, count: usize, context: &[(&str, &str)]) -> v1::BatchCreateDataKeysRequest {
    let items = vec![v1::BatchCreateDataKeysItem::default(); count];
    v1::BatchCreateDataKeysRequest { key: key.into(), encryption_context: pairs(context), items, ..Default::default() }
}

/// A request of CryptoService.BatchGetDataKeys.
pub fn batch_get_data_keys(key: &str, uids: &[Vec<u8>], context: &[(&str, &str)]) -> v1::BatchGetDataKeysRequest {
    let items = uids.iter().map(|uid| v1::BatchGetDataKeysItem { uid: uid.clone(), aad: Vec::new() }).collect();
    v1::BatchGetDataKeysRequest { key: key.into(), encryption_context: pairs(context), items }
}

/// A request of CryptoService.BatchDestroyDataKeys.
pub fn batch_destroy_data_keys(key: &str, uids: &[Vec<u8>]) -> v1::BatchDestroyDataKeysRequest {
    let items = uids.iter().map(|uid| v1::BatchDestroyDataKeysItem { uid: uid.clone() }).collect();
    v1::BatchDestroyDataKeysRequest { key: key.into(), items, ..Default::default() }
}

/// A request of CryptoService.BatchGenerateMacs.
pub fn batch_generate_macs(key: &str, messages: &[&[u8]], context: &[(&str, &str)]) -> v1::BatchGenerateMacsRequest {
    let item = |bytes: &&[u8]| v1::BatchGenerateMacsItem { message: bytes.to_vec(), aad: Vec::new() };
    let items = messages.iter().map(item).collect();
    v1::BatchGenerateMacsRequest { key: key.into(), encryption_context: pairs(context), items }
}

/// A request of CryptoService.BatchVerifyMacs.
pub fn batch_verify_macs(
    key: &str,
    messages: &[(&[u8], Vec<u8>)],
    context: &[(&str, &str)],
) -> v1::BatchVerifyMacsRequest {
    let item = |(message, mac): &(&[u8], Vec<u8>)| v1::BatchVerifyMacsItem {
        message: message.to_vec(),
        mac: mac.clone(),
        aad: Vec::new(),
    };
    let items = messages.iter().map(item).collect();
    v1::BatchVerifyMacsRequest { key: key.into(), encryption_context: pairs(context), items }
}

/// A request of TenantService.CreateTenant.
pub fn create_tenant(tenant_id: &str) -> v1::CreateTenantRequest {
    v1::CreateTenantRequest { tenant_id: tenant_id.into(), ..Default::default() }
}

/// A request of TenantService.GetTenant.
pub fn get_tenant(name: &str) -> v1::GetTenantRequest {
    v1::GetTenantRequest { name: name.into() }
}

/// A request of TenantService.ListTenants.
pub fn list_tenants(page_size: i32, page_token: &str) -> v1::ListTenantsRequest {
    v1::ListTenantsRequest { page_size, page_token: page_token.into() }
}

/// A request of TenantService.UpdateTenant.
pub fn update_tenant(name: &str, lease: Option<Duration>) -> v1::UpdateTenantRequest {
    let tenant = v1::Tenant { name: name.into(), data_key_lease: lease, ..Default::default() };
    let update_mask = prost_types::FieldMask { paths: vec!["data_key_lease".into()] };
    v1::UpdateTenantRequest { tenant: Some(tenant), update_mask: Some(update_mask), ..Default::default() }
}

/// A request of TenantService.SuspendTenant.
pub fn suspend_tenant(name: &str) -> v1::SuspendTenantRequest {
    v1::SuspendTenantRequest { name: name.into(), ..Default::default() }
}

/// A request of TenantService.ResumeTenant.
pub fn resume_tenant(name: &str) -> v1::ResumeTenantRequest {
    v1::ResumeTenantRequest { name: name.into(), ..Default::default() }
}

/// A request of TenantService.DestroyTenant.
pub fn destroy_tenant(name: &str, wait: Option<Duration>) -> v1::DestroyTenantRequest {
    v1::DestroyTenantRequest { name: name.into(), wait, ..Default::default() }
}

/// A request of TenantService.CancelTenantDestruction.
pub fn cancel_tenant_destruction(name: &str) -> v1::CancelTenantDestructionRequest {
    v1::CancelTenantDestructionRequest { name: name.into(), ..Default::default() }
}

/// A request of KeyService.CreateKey for purpose ENCRYPT.
pub fn create_key(parent: &str, key_id: &str) -> v1::CreateKeyRequest {
    create_key_for(parent, key_id, v1::KeyPurpose::Encrypt.into())
}

/// A request of KeyService.CreateKey for any purpose.
pub fn create_key_for(parent: &str, key_id: &str, purpose: i32) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        parent: parent.into(),
        key_id: key_id.into(),
        purpose,
        labels: BTreeMap::new(),
        ..Default::default()
    }
}

/// A request of KeyService.GetKey.
pub fn get_key(name: &str) -> v1::GetKeyRequest {
    v1::GetKeyRequest { name: name.into() }
}

/// A request of KeyService.ListKeys.
pub fn list_keys(parent: &str, page_size: i32, page_token: &str) -> v1::ListKeysRequest {
    v1::ListKeysRequest { parent: parent.into(), page_size, page_token: page_token.into() }
}

/// A request of KeyService.UpdateKey.
pub fn update_key(name: &str, labels: &[(&str, &str)], mask: &[&str]) -> v1::UpdateKeyRequest {
    let key = v1::Key { name: name.into(), labels: pairs(labels), ..v1::Key::default() };
    let update_mask = prost_types::FieldMask { paths: mask.iter().map(|path| (*path).to_owned()).collect() };
    v1::UpdateKeyRequest { key: Some(key), update_mask: Some(update_mask), ..Default::default() }
}

/// A request of KeyService.EnableKey.
pub fn enable_key(name: &str) -> v1::EnableKeyRequest {
    v1::EnableKeyRequest { name: name.into(), ..Default::default() }
}

/// A request of KeyService.DisableKey.
pub fn disable_key(name: &str) -> v1::DisableKeyRequest {
    v1::DisableKeyRequest { name: name.into(), ..Default::default() }
}

/// A request of KeyService.RotateKey.
pub fn rotate_key(name: &str) -> v1::RotateKeyRequest {
    v1::RotateKeyRequest { name: name.into(), ..Default::default() }
}

/// A request of KeyService.ListKeyVersions.
pub fn list_key_versions(parent: &str, page_size: i32, page_token: &str) -> v1::ListKeyVersionsRequest {
    v1::ListKeyVersionsRequest { parent: parent.into(), page_size, page_token: page_token.into() }
}

/// A request of KeyService.ScheduleKeyDestruction.
pub fn schedule_key_destruction(name: &str, wait: Option<Duration>) -> v1::ScheduleKeyDestructionRequest {
    v1::ScheduleKeyDestructionRequest { name: name.into(), wait, ..Default::default() }
}

/// A request of KeyService.CancelKeyDestruction.
pub fn cancel_key_destruction(name: &str) -> v1::CancelKeyDestructionRequest {
    v1::CancelKeyDestructionRequest { name: name.into(), ..Default::default() }
}

/// A request of KeyService.ListDataKeys.
pub fn list_data_keys(parent: &str, page_size: i32, page_token: &str) -> v1::ListDataKeysRequest {
    v1::ListDataKeysRequest { parent: parent.into(), page_size, page_token: page_token.into() }
}

/// A wait in seconds.
pub fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// A request of AccessService.TestPermissions.
pub fn test_permissions(principal: &str, resource: &str, actions: &[&str]) -> v1::TestPermissionsRequest {
    v1::TestPermissionsRequest {
        principal: principal.into(),
        resource: resource.into(),
        actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        ..v1::TestPermissionsRequest::default()
    }
}

/// A request of AccessService.RequestGrant, for a role.
pub fn request_role(tenant: &str, role: &str, seconds: i64, reason: &str) -> v1::RequestGrantRequest {
    let duration = Some(Duration { seconds, nanos: 0 });
    let role = v1::RoleGrant { tenant: tenant.into(), role: role.into(), duration };
    let what = Some(v1::request_grant_request::What::Role(role));
    v1::RequestGrantRequest { what, reason: reason.into(), ..v1::RequestGrantRequest::default() }
}

/// A request of AccessService.RequestGrant, for an operation.
pub fn request_operation(operation: v1::operation::Operation, reason: &str) -> v1::RequestGrantRequest {
    let operation = v1::Operation { operation: Some(operation) };
    let what = Some(v1::request_grant_request::What::Operation(operation));
    v1::RequestGrantRequest { what, reason: reason.into(), ..v1::RequestGrantRequest::default() }
}

/// A request of AccessService.ApproveGrant, of what was looked at.
pub fn approve_grant(grant: &v1::Grant) -> v1::ApproveGrantRequest {
    let (name, content_hash) = (grant.name.clone(), grant.content_hash.clone());
    v1::ApproveGrantRequest { name, content_hash, ..v1::ApproveGrantRequest::default() }
}

/// A request of AccessService.RevokeGrant.
pub fn revoke_grant(grant: &v1::Grant) -> v1::RevokeGrantRequest {
    v1::RevokeGrantRequest { name: grant.name.clone(), ..v1::RevokeGrantRequest::default() }
}

/// A request of AccessService.GetGrant.
pub fn get_grant(name: &str) -> v1::GetGrantRequest {
    v1::GetGrantRequest { name: name.into() }
}

/// A request of AccessService.ListGrants.
pub fn list_grants(parent: &str) -> v1::ListGrantsRequest {
    v1::ListGrantsRequest { parent: parent.into(), ..v1::ListGrantsRequest::default() }
}

/// An encryption context, or labels.
pub fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
