//! What fuzzing calls of the edge: requests, the names in them, and page tokens.

use std::sync::LazyLock;

use prost::Message;

use super::batch::Batch;
use super::pipeline::Operation;
use super::{
    caller_identity, cancel_key_destruction, create_key, create_tenant, decrypt, decrypt_data_key, destroy_tenant,
    encrypt, generate_data_key,
};
use super::{create_data_key, destroy_data_key, get_data_key, list_data_keys};
use super::{decide_grant, read_grants, reload, request_grant, test_permissions};
use super::{export_keystore, lock_node};
use super::{generate_mac, get_index_key, set_key_state, tenant_state, update_key, update_tenant, verify_mac};
use super::{
    get_key, get_status, get_tenant, list_key_versions, list_keys, list_tenants, re_encrypt, rotate_key,
    schedule_key_destruction,
};
use super::{parse, status};
use crate::crypto::PageTokenKey;
use crate::fuzzing::KEYS;
use crate::noun::{KeyName, TenantName};

/// A request: a byte that says of which RPC, then its message.
pub(crate) fn request(data: &[u8]) {
    let Some((number, message)) = data.split_first() else { return };
    let (_, parse) = OPERATIONS[usize::from(*number) % OPERATIONS.len()];
    parse(message);
}

type Operations = [(&'static str, fn(&[u8])); 52];

macro_rules! operations {
    ($($Operation:path,)*) => { [$((<$Operation as Operation>::NAME, take::<$Operation>),)*] };
}

/// Every RPC. **Invariant:** none is missing; the test is `every_rpc_is_fuzzed`.
pub(crate) const OPERATIONS: Operations = operations! {
    encrypt::Encrypt,
    decrypt::Decrypt,
    re_encrypt::ReEncrypt,
    generate_data_key::GenerateDataKey,
    decrypt_data_key::DecryptDataKey,
    create_data_key::CreateDataKey,
    get_data_key::GetDataKey,
    destroy_data_key::DestroyDataKey,
    generate_mac::GenerateMac,
    verify_mac::VerifyMac,
    get_index_key::GetIndexKey,
    Batch<encrypt::BatchEncrypt>,
    Batch<decrypt::BatchDecrypt>,
    Batch<re_encrypt::BatchReEncrypt>,
    Batch<generate_data_key::BatchGenerateDataKeys>,
    Batch<decrypt_data_key::BatchDecryptDataKeys>,
    create_data_key::BatchCreateDataKeys,
    get_data_key::BatchGetDataKeys,
    destroy_data_key::BatchDestroyDataKeys,
    Batch<generate_mac::BatchGenerateMacs>,
    Batch<verify_mac::BatchVerifyMacs>,
    create_tenant::CreateTenant,
    get_tenant::GetTenant,
    list_tenants::ListTenants,
    update_tenant::UpdateTenant,
    tenant_state::SuspendTenant,
    tenant_state::ResumeTenant,
    destroy_tenant::DestroyTenant,
    tenant_state::CancelTenantDestruction,
    create_key::CreateKey,
    get_key::GetKey,
    list_keys::ListKeys,
    update_key::UpdateKey,
    set_key_state::EnableKey,
    set_key_state::DisableKey,
    rotate_key::RotateKey,
    list_key_versions::ListKeyVersions,
    schedule_key_destruction::ScheduleKeyDestruction,
    cancel_key_destruction::CancelKeyDestruction,
    list_data_keys::ListDataKeys,
    caller_identity::GetCallerIdentity,
    get_status::GetStatus,
    lock_node::Lock,
    lock_node::Unlock,
    export_keystore::ExportKeystore,
    reload::Reload,
    test_permissions::TestPermissions,
    request_grant::RequestGrant,
    decide_grant::ApproveGrant,
    decide_grant::RevokeGrant,
    read_grants::GetGrant,
    read_grants::ListGrants,
};

/// Takes a message as far as the road goes before anything is looked up.
fn take<O: Operation>(message: &[u8])
where
    O::Wire: Message + Default,
{
    let Ok(wire) = O::Wire::decode(message) else { return };
    match O::parse(wire) {
        Ok(operation) => {
            assert!(!operation.asks().is_empty(), "what asks for nothing is allowed nothing");
            let leaf = operation.about();
            assert!(leaf.ten.is_none_or(|tenant| tenant.parse::<TenantName>().is_ok()), "a record names a tenant");
            assert!(leaf.kn.is_none_or(|key| key.parse::<KeyName>().is_ok()), "a record names a key");
        }
        Err(error) => drop((status::why(&error), status::status(&error, "a request"))),
    }
}

/// The name of a tenant, of a key or of a version.
pub(crate) fn resource_names(text: &str) {
    if let Ok(tenant) = parse::tenant("name", text) {
        assert_eq!(format!("tenants/{tenant}"), text);
    }
    if let Ok((tenant, key)) = parse::key("name", text) {
        assert_eq!(format!("tenants/{tenant}/keys/{key}"), text);
    }
    if let Ok((tenant, index)) = parse::index("index", text) {
        assert_eq!(format!("tenants/{tenant}/indexes/{index}"), text);
    }
    if let Ok(path) = parse::key_or_version("name", text) {
        let version = path.version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        assert_eq!(format!("tenants/{}/keys/{}{version}", path.tenant, path.key), text);
    }
}

/// A page token, of which only what this service made is taken.
pub(crate) fn page_token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(page) = parse::page(10, text.to_owned())
    {
        drop((page.of::<TenantName>(&KEY, LISTING), page.of::<KeyName>(&KEY, LISTING), page.of::<u32>(&KEY, LISTING)));
    }
    // And whatever is in one that this service made.
    if let Ok(page) = parse::page(10, parse::token(&KEY, LISTING, data)) {
        let place = page.of::<TenantName>(&KEY, LISTING);
        let is_name = std::str::from_utf8(data).is_ok_and(|text| text.parse::<TenantName>().is_ok());
        assert_eq!(place.is_ok_and(|place| place.is_some()), is_name);
        assert!(page.of::<TenantName>(&KEY, "another").is_err(), "a token of another list");
    }
}

const LISTING: &str = "ListTenants spiffe://example.com/admin";
static KEY: LazyLock<PageTokenKey> =
    LazyLock::new(|| KEYS.cluster.page_token_key().expect("there is room for one key"));

#[cfg(test)]
pub(crate) mod tests;
