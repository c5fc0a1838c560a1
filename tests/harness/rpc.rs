//! Each request of the API as a value that knows its RPC: so that a table of requests is a table.

use kms_proto::v1;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Which of the daemon's listeners an RPC is served on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listener {
    /// For applications.
    Services,
    /// For the people who run it.
    Operator,
}

/// The request of one RPC.
pub trait Rpc: Send + Sized + 'static {
    /// The RPC's name, as the audit log has it.
    const NAME: &'static str;
    /// Where it is served.
    const LISTENER: Listener;
    /// Its response.
    type Response: Send + 'static;

    /// Sends it.
    fn send(self, channel: Channel) -> impl Future<Output = Result<Response<Self::Response>, Status>> + Send {
        self.send_with(channel, &[])
    }

    /// Sends it with these `authorization` headers.
    fn send_with(
        self,
        channel: Channel,
        authorization: &[MetadataValue<Ascii>],
    ) -> impl Future<Output = Result<Response<Self::Response>, Status>> + Send;
}

macro_rules! rpcs {
    ($($listener:ident $module:ident::$Client:ident { $($method:ident: $Name:ident($Request:ident) -> $Response:ident,)* })*) => {
        $($(
            impl Rpc for v1::$Request {
                const NAME: &'static str = stringify!($Name);
                const LISTENER: Listener = Listener::$listener;
                type Response = v1::$Response;

                async fn send_with(
                    self,
                    channel: Channel,
                    authorization: &[MetadataValue<Ascii>],
                ) -> Result<Response<v1::$Response>, Status> {
                    let mut request = Request::new(self);
                    for value in authorization {
                        request.metadata_mut().append("authorization", value.clone());
                    }
                    v1::$module::$Client::new(channel).$method(request).await
                }
            }
        )*)*

        /// The names of all RPCs.
        pub const NAMES: &[&str] = &[$($(stringify!($Name),)*)*];
    };
}

rpcs! {
    Services crypto_service_client::CryptoServiceClient {
        encrypt: Encrypt(EncryptRequest) -> EncryptResponse,
        decrypt: Decrypt(DecryptRequest) -> DecryptResponse,
        re_encrypt: ReEncrypt(ReEncryptRequest) -> ReEncryptResponse,
        generate_data_key: GenerateDataKey(GenerateDataKeyRequest) -> GenerateDataKeyResponse,
        decrypt_data_key: DecryptDataKey(DecryptDataKeyRequest) -> DecryptDataKeyResponse,
        create_data_key: CreateDataKey(CreateDataKeyRequest) -> CreateDataKeyResponse,
        get_data_key: GetDataKey(GetDataKeyRequest) -> GetDataKeyResponse,
        destroy_data_key: DestroyDataKey(DestroyDataKeyRequest) -> DestroyDataKeyResponse,
        generate_mac: GenerateMac(GenerateMacRequest) -> GenerateMacResponse,
        verify_mac: VerifyMac(VerifyMacRequest) -> VerifyMacResponse,
        get_index_key: GetIndexKey(GetIndexKeyRequest) -> GetIndexKeyResponse,
        batch_encrypt: BatchEncrypt(BatchEncryptRequest) -> BatchEncryptResponse,
        batch_decrypt: BatchDecrypt(BatchDecryptRequest) -> BatchDecryptResponse,
        batch_re_encrypt: BatchReEncrypt(BatchReEncryptRequest) -> BatchReEncryptResponse,
        batch_generate_data_keys: BatchGenerateDataKeys(BatchGenerateDataKeysRequest) -> BatchGenerateDataKeysResponse,
        batch_decrypt_data_keys: BatchDecryptDataKeys(BatchDecryptDataKeysRequest) -> BatchDecryptDataKeysResponse,
        batch_create_data_keys: BatchCreateDataKeys(BatchCreateDataKeysRequest) -> BatchCreateDataKeysResponse,
        batch_get_data_keys: BatchGetDataKeys(BatchGetDataKeysRequest) -> BatchGetDataKeysResponse,
        batch_destroy_data_keys: BatchDestroyDataKeys(BatchDestroyDataKeysRequest) -> BatchDestroyDataKeysResponse,
        batch_generate_macs: BatchGenerateMacs(BatchGenerateMacsRequest) -> BatchGenerateMacsResponse,
        batch_verify_macs: BatchVerifyMacs(BatchVerifyMacsRequest) -> BatchVerifyMacsResponse,
    }
    Services tenant_service_client::TenantServiceClient {
        create_tenant: CreateTenant(CreateTenantRequest) -> CreateTenantResponse,
        get_tenant: GetTenant(GetTenantRequest) -> GetTenantResponse,
        list_tenants: ListTenants(ListTenantsRequest) -> ListTenantsResponse,
        update_tenant: UpdateTenant(UpdateTenantRequest) -> UpdateTenantResponse,
        suspend_tenant: SuspendTenant(SuspendTenantRequest) -> SuspendTenantResponse,
        resume_tenant: ResumeTenant(ResumeTenantRequest) -> ResumeTenantResponse,
        destroy_tenant: DestroyTenant(DestroyTenantRequest) -> DestroyTenantResponse,
        cancel_tenant_destruction: CancelTenantDestruction(CancelTenantDestructionRequest) -> CancelTenantDestructionResponse,
    }
    Services key_service_client::KeyServiceClient {
        create_key: CreateKey(CreateKeyRequest) -> CreateKeyResponse,
        get_key: GetKey(GetKeyRequest) -> GetKeyResponse,
        list_keys: ListKeys(ListKeysRequest) -> ListKeysResponse,
        update_key: UpdateKey(UpdateKeyRequest) -> UpdateKeyResponse,
        enable_key: EnableKey(EnableKeyRequest) -> EnableKeyResponse,
        disable_key: DisableKey(DisableKeyRequest) -> DisableKeyResponse,
        rotate_key: RotateKey(RotateKeyRequest) -> RotateKeyResponse,
        list_key_versions: ListKeyVersions(ListKeyVersionsRequest) -> ListKeyVersionsResponse,
        schedule_key_destruction: ScheduleKeyDestruction(ScheduleKeyDestructionRequest) -> ScheduleKeyDestructionResponse,
        cancel_key_destruction: CancelKeyDestruction(CancelKeyDestructionRequest) -> CancelKeyDestructionResponse,
        list_data_keys: ListDataKeys(ListDataKeysRequest) -> ListDataKeysResponse,
    }
    Services access_service_client::AccessServiceClient {
        get_caller_identity: GetCallerIdentity(GetCallerIdentityRequest) -> GetCallerIdentityResponse,
        test_permissions: TestPermissions(TestPermissionsRequest) -> TestPermissionsResponse,
        request_grant: RequestGrant(RequestGrantRequest) -> RequestGrantResponse,
        approve_grant: ApproveGrant(ApproveGrantRequest) -> ApproveGrantResponse,
        revoke_grant: RevokeGrant(RevokeGrantRequest) -> RevokeGrantResponse,
        get_grant: GetGrant(GetGrantRequest) -> GetGrantResponse,
        list_grants: ListGrants(ListGrantsRequest) -> ListGrantsResponse,
    }
    Operator operator_service_client::OperatorServiceClient {
        get_status: GetStatus(GetStatusRequest) -> GetStatusResponse,
        lock: Lock(LockRequest) -> LockResponse,
        unlock: Unlock(UnlockRequest) -> UnlockResponse,
        export_keystore: ExportKeystore(ExportKeystoreRequest) -> ExportKeystoreResponse,
        reload: Reload(ReloadRequest) -> ReloadResponse,
    }
}
