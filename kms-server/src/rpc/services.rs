//! Every RPC by name: one line each, onto the one road.

use std::sync::Arc;

use kms_proto::v1::access_service_server::AccessService;
use kms_proto::v1::crypto_service_server::CryptoService;
use kms_proto::v1::key_service_server::KeyService;
use kms_proto::v1::operator_service_server::OperatorService;
use kms_proto::v1::tenant_service_server::TenantService;
use kms_proto::v1::*;
use tonic::{Request, Response, Status};

use super::Api;
use super::batch::Batch;
use super::pipeline::{Operation, run};
use super::{
    caller_identity, cancel_key_destruction, create_key, create_tenant, decrypt, decrypt_data_key, destroy_tenant,
    encrypt, generate_data_key,
};
use super::{create_data_key, destroy_data_key, get_data_key, list_data_keys};

use super::{decide_grant, read_grants, reload, request_grant, test_permissions};
use super::{
    export_keystore, get_key, get_status, get_tenant, list_key_versions, list_keys, list_tenants, lock_node,
    re_encrypt, rotate_key, schedule_key_destruction,
};
use super::{generate_mac, get_index_key, set_key_state, tenant_state, update_key, update_tenant, verify_mac};

/// Returns the name of the RPC that a path is of.
pub(super) fn method_of(path: &str) -> Option<&'static str> {
    path.strip_prefix("/kms.v1.").and_then(|path| path.split_once('/')).and_then(|(_, method)| method_named(method))
}

/// Returns the name of the RPC that has this name: of ours, so that it may go into the log.
fn method_named(text: &str) -> Option<&'static str> {
    [CRYPTO, TENANT, KEY, ACCESS, OPERATOR].into_iter().flatten().find(|name| **name == text).copied()
}

/// The services of this node.
#[derive(Clone)]
pub(super) struct Services(pub(super) Arc<Api>);

macro_rules! service {
    ($METHODS:ident $Service:ident { $($method:ident($Request:ident) -> $Response:ident = $Operation:path;)* }) => {
        const $METHODS: &[&str] = &[$(<$Operation as Operation>::NAME,)*];

        #[tonic::async_trait]
        impl $Service for Services {
            $(
                async fn $method(&self, request: Request<$Request>) -> Result<Response<$Response>, Status> {
                    run::<$Operation>(&self.0, request).await
                }
            )*
        }
    };
}

service! { CRYPTO CryptoService {
    encrypt(EncryptRequest) -> EncryptResponse = encrypt::Encrypt;
    decrypt(DecryptRequest) -> DecryptResponse = decrypt::Decrypt;
    re_encrypt(ReEncryptRequest) -> ReEncryptResponse = re_encrypt::ReEncrypt;
    generate_data_key(GenerateDataKeyRequest) -> GenerateDataKeyResponse = generate_data_key::GenerateDataKey;
    decrypt_data_key(DecryptDataKeyRequest) -> DecryptDataKeyResponse = decrypt_data_key::DecryptDataKey;
    generate_mac(GenerateMacRequest) -> GenerateMacResponse = generate_mac::GenerateMac;
    verify_mac(VerifyMacRequest) -> VerifyMacResponse = verify_mac::VerifyMac;
    get_index_key(GetIndexKeyRequest) -> GetIndexKeyResponse = get_index_key::GetIndexKey;
    batch_encrypt(BatchEncryptRequest) -> BatchEncryptResponse = Batch<encrypt::BatchEncrypt>;
    batch_decrypt(BatchDecryptRequest) -> BatchDecryptResponse = Batch<decrypt::BatchDecrypt>;
    batch_re_encrypt(BatchReEncryptRequest) -> BatchReEncryptResponse = Batch<re_encrypt::BatchReEncrypt>;
    batch_generate_data_keys(BatchGenerateDataKeysRequest) -> BatchGenerateDataKeysResponse = Batch<generate_data_key::BatchGenerateDataKeys>;
    batch_decrypt_data_keys(BatchDecryptDataKeysRequest) -> BatchDecryptDataKeysResponse = Batch<decrypt_data_key::BatchDecryptDataKeys>;
    batch_generate_macs(BatchGenerateMacsRequest) -> BatchGenerateMacsResponse = Batch<generate_mac::BatchGenerateMacs>;
    batch_verify_macs(BatchVerifyMacsRequest) -> BatchVerifyMacsResponse = Batch<verify_mac::BatchVerifyMacs>;
    create_data_key(CreateDataKeyRequest) -> CreateDataKeyResponse = create_data_key::CreateDataKey;
    get_data_key(GetDataKeyRequest) -> GetDataKeyResponse = get_data_key::GetDataKey;
    destroy_data_key(DestroyDataKeyRequest) -> DestroyDataKeyResponse = destroy_data_key::DestroyDataKey;
    batch_create_data_keys(BatchCreateDataKeysRequest) -> BatchCreateDataKeysResponse = create_data_key::BatchCreateDataKeys;
    batch_get_data_keys(BatchGetDataKeysRequest) -> BatchGetDataKeysResponse = get_data_key::BatchGetDataKeys;
    batch_destroy_data_keys(BatchDestroyDataKeysRequest) -> BatchDestroyDataKeysResponse = destroy_data_key::BatchDestroyDataKeys;
} }

service! { TENANT TenantService {
    create_tenant(CreateTenantRequest) -> CreateTenantResponse = create_tenant::CreateTenant;
    get_tenant(GetTenantRequest) -> GetTenantResponse = get_tenant::GetTenant;
    update_tenant(UpdateTenantRequest) -> UpdateTenantResponse = update_tenant::UpdateTenant;
    list_tenants(ListTenantsRequest) -> ListTenantsResponse = list_tenants::ListTenants;
    suspend_tenant(SuspendTenantRequest) -> SuspendTenantResponse = tenant_state::SuspendTenant;
    resume_tenant(ResumeTenantRequest) -> ResumeTenantResponse = tenant_state::ResumeTenant;
    destroy_tenant(DestroyTenantRequest) -> DestroyTenantResponse = destroy_tenant::DestroyTenant;
    cancel_tenant_destruction(CancelTenantDestructionRequest) -> CancelTenantDestructionResponse = tenant_state::CancelTenantDestruction;
} }

service! { KEY KeyService {
    create_key(CreateKeyRequest) -> CreateKeyResponse = create_key::CreateKey;
    get_key(GetKeyRequest) -> GetKeyResponse = get_key::GetKey;
    list_keys(ListKeysRequest) -> ListKeysResponse = list_keys::ListKeys;
    update_key(UpdateKeyRequest) -> UpdateKeyResponse = update_key::UpdateKey;
    enable_key(EnableKeyRequest) -> EnableKeyResponse = set_key_state::EnableKey;
    disable_key(DisableKeyRequest) -> DisableKeyResponse = set_key_state::DisableKey;
    rotate_key(RotateKeyRequest) -> RotateKeyResponse = rotate_key::RotateKey;
    list_key_versions(ListKeyVersionsRequest) -> ListKeyVersionsResponse = list_key_versions::ListKeyVersions;
    schedule_key_destruction(ScheduleKeyDestructionRequest) -> ScheduleKeyDestructionResponse = schedule_key_destruction::ScheduleKeyDestruction;
    cancel_key_destruction(CancelKeyDestructionRequest) -> CancelKeyDestructionResponse = cancel_key_destruction::CancelKeyDestruction;
    list_data_keys(ListDataKeysRequest) -> ListDataKeysResponse = list_data_keys::ListDataKeys;
} }

service! { ACCESS AccessService {
    get_caller_identity(GetCallerIdentityRequest) -> GetCallerIdentityResponse = caller_identity::GetCallerIdentity;
    test_permissions(TestPermissionsRequest) -> TestPermissionsResponse = test_permissions::TestPermissions;
    request_grant(RequestGrantRequest) -> RequestGrantResponse = request_grant::RequestGrant;
    approve_grant(ApproveGrantRequest) -> ApproveGrantResponse = decide_grant::ApproveGrant;
    revoke_grant(RevokeGrantRequest) -> RevokeGrantResponse = decide_grant::RevokeGrant;
    get_grant(GetGrantRequest) -> GetGrantResponse = read_grants::GetGrant;
    list_grants(ListGrantsRequest) -> ListGrantsResponse = read_grants::ListGrants;
} }

service! { OPERATOR OperatorService {
    get_status(GetStatusRequest) -> GetStatusResponse = get_status::GetStatus;
    lock(LockRequest) -> LockResponse = lock_node::Lock;
    unlock(UnlockRequest) -> UnlockResponse = lock_node::Unlock;
    export_keystore(ExportKeystoreRequest) -> ExportKeystoreResponse = export_keystore::ExportKeystore;
    reload(ReloadRequest) -> ReloadResponse = reload::Reload;
} }
