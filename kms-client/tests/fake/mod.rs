//! A service that stores nothing and answers by rules that a test can read: real mutual TLS, no real cryptography.
//!
//! A "ciphertext" is a header, what it is bound to as text, and the plaintext with all bits turned. Keys of some names
//! fail: see `verdict`; and what `faults` holds happens to the next calls, whatever they are.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test may")]

pub mod access;
mod crypto;
pub mod refusing;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kms_proto::v1::access_service_server::AccessServiceServer;
use kms_proto::v1::crypto_service_server::CryptoServiceServer;
use kms_proto::v1::key_service_server::{KeyService, KeyServiceServer};
use kms_proto::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use kms_proto::v1::tenant_service_server::{TenantService, TenantServiceServer};
use kms_proto::v1::*;
use prost_types::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A certificate and its private key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A throw-away CA.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Self {
        Self::named("test CA")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for 127.0.0.1, valid from 2020 until a year.
    pub fn server(&self, until_year: i32) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        self.sign(params)
    }

    pub fn client(&self) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://example.com/test".try_into().unwrap())];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The running service, on both listeners at once.
pub struct Fake {
    pub ca: Arc<Ca>,
    pub address: String,
    /// Every call, failed ones too.
    pub calls: Arc<Mutex<Vec<Call>>>,
    /// What happens to the next calls, in place of an answer.
    pub faults: Arc<Mutex<VecDeque<Fault>>>,
}

/// A call as it came in.
#[derive(Clone, Debug)]
pub struct Call {
    /// The `Debug` of the request.
    pub request: String,
    /// `grpc-timeout`.
    pub timeout: Option<String>,
    /// `grpc-previous-rpc-attempts`.
    pub previous: Option<String>,
}

impl Call {
    /// Returns the `request_id` of a change.
    pub fn request_id(&self) -> &str {
        let (_, rest) = self.request.split_once("request_id: \"").unwrap();
        rest.split('"').next().unwrap()
    }
}

pub enum Fault {
    /// The call gets this.
    Status(Status),
    /// All connections through a wire break, and no answer comes.
    Cut(Arc<wire::Wire>),
    /// It is carried out as if nothing were.
    None,
}

impl Fake {
    pub async fn start() -> Self {
        Self::start_until(4000).await
    }

    /// Starts with a server certificate that is valid until a year.
    pub async fn start_until(year: i32) -> Self {
        let ca = Ca::new();
        let server = ca.server(year);
        Self::start_as(Arc::new(ca), server).await
    }

    /// Starts another address of the service.
    pub async fn start_beside(&self) -> Self {
        Self::start_as(self.ca.clone(), self.ca.server(4000)).await
    }

    async fn start_as(ca: Arc<Ca>, server: Pair) -> Self {
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = format!("https://{}", incoming.local_addr().unwrap());
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(server.certificate, server.key))
            .client_ca_root(Certificate::from_pem(ca.pem()));
        let rules = Rules::default();
        let (calls, faults) = (rules.calls.clone(), rules.faults.clone());
        let router = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(CryptoServiceServer::new(rules.clone()))
            .add_service(TenantServiceServer::new(rules.clone()))
            .add_service(KeyServiceServer::new(rules.clone()))
            .add_service(AccessServiceServer::new(rules.clone()))
            .add_service(OperatorServiceServer::new(rules));
        tokio::spawn(router.serve_with_incoming(incoming));
        Self { ca, address, calls, faults }
    }

    /// Sets what happens to the next calls.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.faults.lock().unwrap() = faults.into_iter().collect();
    }

    /// Returns the calls since the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Returns the requests that had come, as text.
    pub fn requests(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|call| call.request.clone()).collect()
    }
}

/// 2026-01-02T03:04:05Z
pub const TIME: Timestamp = Timestamp { seconds: 1_767_323_045, nanos: 0 };
/// 5 minutes later.
pub const LEASE_END: Timestamp = Timestamp { seconds: 1_767_323_345, nanos: 0 };
/// 5 minutes.
pub const LEASE: prost_types::Duration = prost_types::Duration { seconds: 300, nanos: 0 };

#[derive(Clone, Default)]
struct Rules {
    calls: Arc<Mutex<Vec<Call>>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Rules {
    /// Notes a call, and lets happen to it what is set.
    async fn meet<T: std::fmt::Debug>(&self, request: Request<T>) -> Result<T, Status> {
        let header = |name| request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (timeout, previous) = (header("grpc-timeout"), header("grpc-previous-rpc-attempts"));
        let request = request.into_inner();
        self.calls.lock().unwrap().push(Call { request: format!("{request:?}"), timeout, previous });
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            None | Some(Fault::None) => Ok(request),
            Some(Fault::Status(status)) => Err(status),
            Some(Fault::Cut(wire)) => {
                wire.cut();
                std::future::pending().await
            }
        }
    }
}

/// Fails for what is named so.
async fn verdict(name: &str) -> Result<(), Status> {
    match name.rsplit('/').next().unwrap() {
        "missing" => Err(refusal(Code::NotFound, "KEY_NOT_FOUND", "there is no such key")),
        "denied" => Err(refusal(Code::PermissionDenied, "POLICY_DENIED", "not allowed")),
        "disabled" => Err(refusal(Code::FailedPrecondition, "KEY_DISABLED", "the key is disabled")),
        "taken" => Err(refusal(Code::AlreadyExists, "KEY_ALREADY_EXISTS", "there is such a key")),
        "overloaded" => Err(refusal(Code::Unavailable, "OVERLOADED", "too much work at once")),
        "conflicting" => Err(refusal(Code::Aborted, "CONFLICT", "somebody else changed it at the same time")),
        "strange" => Err(refusal(Code::Internal, "INTERNAL", "a \u{1b}[2Jmistake")),
        "slow" => std::future::pending().await,
        _ => Ok(()),
    }
}

pub fn refusal(code: Code, reason: &str, message: &str) -> Status {
    Status::with_error_details(code, message, details(reason))
}

/// A refusal that says when to come again.
pub fn refusal_until(code: Code, reason: &str, wait: Duration) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(wait));
    Status::with_error_details(code, "not now", details)
}

fn details(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, "kms.v1", [("request_id".to_owned(), "r-1".to_owned())])
}

type Pairs = BTreeMap<String, String>;

const MAGIC: [u8; 3] = [0x92, 0x6b, 0x35];

fn seal(kind: u8, key: &str, pairs: &Pairs, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let bound = format!("{key} {pairs:?} {aad:?}");
    let mut blob = [&MAGIC[..], &[1, kind], &(bound.len() as u16).to_be_bytes(), bound.as_bytes()].concat();
    blob.extend(plaintext.iter().map(|byte| !byte));
    blob
}

fn open(kind: u8, key: &str, pairs: &Pairs, aad: &[u8], blob: &[u8]) -> Result<Vec<u8>, Status> {
    let head = seal(kind, key, pairs, aad, b"");
    match blob.strip_prefix(&head[..]) {
        Some(sealed) => Ok(sealed.iter().map(|byte| !byte).collect()),
        None => Err(refusal(Code::InvalidArgument, "DECRYPT_FAILED", "the ciphertext does not open")),
    }
}

fn tenant(name: &str, state: TenantState) -> Option<Tenant> {
    Some(Tenant {
        name: name.to_owned(),
        uid: "0".repeat(32),
        state: state.into(),
        create_time: Some(TIME),
        destroy_time: (state == TenantState::PendingDestruction).then_some(TIME),
        fence_time: (state == TenantState::Fenced).then_some(TIME),
        etag: "e1".to_owned(),
        data_key_lease: (state != TenantState::Fenced).then_some(LEASE),
    })
}

#[tonic::async_trait]
impl TenantService for Rules {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.tenant_id).await?;
        let name = format!("tenants/{}", r.tenant_id);
        let mut made = tenant(&name, TenantState::Active).unwrap();
        made.data_key_lease = r.data_key_lease.or(made.data_key_lease);
        Ok(Response::new(CreateTenantResponse { tenant: Some(made) }))
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<GetTenantResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.name).await?;
        Ok(Response::new(GetTenantResponse { tenant: tenant(&r.name, TenantState::Active) }))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let r = self.meet(request).await?;
        let (names, next_page_token) = page(r.page_size, &r.page_token);
        let tenants = names.filter_map(|n| tenant(&format!("tenants/t{n}"), TenantState::Active)).collect();
        Ok(Response::new(ListTenantsResponse { tenants, next_page_token }))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let r = self.meet(request).await?;
        assert_eq!(r.update_mask.unwrap().paths, ["data_key_lease"]);
        let given = r.tenant.unwrap();
        let tenant =
            Tenant { data_key_lease: given.data_key_lease, ..tenant(&given.name, TenantState::Active).unwrap() };
        Ok(Response::new(UpdateTenantResponse { tenant: Some(tenant) }))
    }

    async fn suspend_tenant(
        &self,
        request: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        let r = self.meet(request).await?;
        let tenant = tenant(&r.name, TenantState::Suspended);
        Ok(Response::new(SuspendTenantResponse { tenant, lease_end_time: Some(LEASE_END) }))
    }

    async fn resume_tenant(
        &self,
        request: Request<ResumeTenantRequest>,
    ) -> Result<Response<ResumeTenantResponse>, Status> {
        let r = self.meet(request).await?;
        Ok(Response::new(ResumeTenantResponse { tenant: tenant(&r.name, TenantState::Active) }))
    }

    async fn destroy_tenant(
        &self,
        request: Request<DestroyTenantRequest>,
    ) -> Result<Response<DestroyTenantResponse>, Status> {
        let r = self.meet(request).await?;
        let at_once = r.wait.is_some_and(|wait| wait.seconds == 0);
        let state = if at_once { TenantState::Fenced } else { TenantState::PendingDestruction };
        let tenant = tenant(&r.name, state);
        Ok(Response::new(DestroyTenantResponse { tenant, lease_end_time: Some(LEASE_END) }))
    }

    async fn cancel_tenant_destruction(
        &self,
        request: Request<CancelTenantDestructionRequest>,
    ) -> Result<Response<CancelTenantDestructionResponse>, Status> {
        let r = self.meet(request).await?;
        Ok(Response::new(CancelTenantDestructionResponse { tenant: tenant(&r.name, TenantState::Suspended) }))
    }
}

/// A page of the numbers below 5.
fn page(size: i32, token: &str) -> (std::ops::Range<usize>, String) {
    let first = token.parse().unwrap_or(0);
    let end = 5.min(first + if size == 0 { 2 } else { size as usize });
    (first..end, if end < 5 { end.to_string() } else { String::new() })
}

fn key(name: &str, state: KeyState, primary_version: u32, labels: Pairs) -> Option<Key> {
    Some(Key {
        name: name.split("/versions/").next().unwrap().to_owned(),
        uid: "1".repeat(32),
        purpose: KeyPurpose::Encrypt.into(),
        state: state.into(),
        primary_version,
        labels,
        create_time: Some(TIME),
        update_time: Some(TIME),
        destroy_time: (state == KeyState::PendingDestruction).then_some(TIME),
        etag: "e1".to_owned(),
    })
}

fn version(name: &str, state: KeyState) -> Option<KeyVersion> {
    let (_, number) = name.split_once("/versions/")?;
    Some(KeyVersion {
        name: name.to_owned(),
        version: number.parse().unwrap(),
        state: state.into(),
        create_time: Some(TIME),
        destroy_time: (state == KeyState::PendingDestruction).then_some(TIME),
        etag: "e1".to_owned(),
        data_key_count: None,
    })
}

/// A key and, if the name is one's, a version, of which only the named changes its state.
fn changed(name: &str, state: KeyState) -> (Option<Key>, Option<KeyVersion>) {
    let version = version(name, state);
    let key_state = if version.is_some() { KeyState::Enabled } else { state };
    (key(name, key_state, 3, Pairs::new()), version)
}

#[tonic::async_trait]
impl KeyService for Rules {
    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Result<Response<CreateKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key_id).await?;
        let name = format!("{}/keys/{}", r.parent, r.key_id);
        let key = Key { purpose: r.purpose, ..key(&name, KeyState::Enabled, 1, r.labels).unwrap() };
        Ok(Response::new(CreateKeyResponse { key: Some(key) }))
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<GetKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.name).await?;
        Ok(Response::new(GetKeyResponse { key: key(&r.name, KeyState::Enabled, 1, Pairs::new()) }))
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        let r = self.meet(request).await?;
        let (names, next_page_token) = page(r.page_size, &r.page_token);
        let name = |n| format!("{}/keys/k{n}", r.parent);
        let keys = names.filter_map(|n| key(&name(n), KeyState::Enabled, 1, Pairs::new())).collect();
        Ok(Response::new(ListKeysResponse { keys, next_page_token }))
    }

    async fn update_key(&self, request: Request<UpdateKeyRequest>) -> Result<Response<UpdateKeyResponse>, Status> {
        let r = self.meet(request).await?;
        assert_eq!(r.update_mask.unwrap().paths, ["labels"]);
        let given = r.key.unwrap();
        Ok(Response::new(UpdateKeyResponse { key: key(&given.name, KeyState::Enabled, 1, given.labels) }))
    }

    async fn enable_key(&self, request: Request<EnableKeyRequest>) -> Result<Response<EnableKeyResponse>, Status> {
        let r = self.meet(request).await?;
        let (key, version) = changed(&r.name, KeyState::Enabled);
        Ok(Response::new(EnableKeyResponse { key, version }))
    }

    async fn disable_key(&self, request: Request<DisableKeyRequest>) -> Result<Response<DisableKeyResponse>, Status> {
        let r = self.meet(request).await?;
        let (key, version) = changed(&r.name, KeyState::Disabled);
        Ok(Response::new(DisableKeyResponse { key, version, lease_end_time: Some(LEASE_END) }))
    }

    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Result<Response<RotateKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.name).await?;
        let version = version(&format!("{}/versions/2", r.name), KeyState::Enabled);
        Ok(Response::new(RotateKeyResponse { key: key(&r.name, KeyState::Enabled, 2, Pairs::new()), version }))
    }

    async fn list_key_versions(
        &self,
        request: Request<ListKeyVersionsRequest>,
    ) -> Result<Response<ListKeyVersionsResponse>, Status> {
        let r = self.meet(request).await?;
        let (numbers, next_page_token) = page(r.page_size, &r.page_token);
        let name = |n| format!("{}/versions/{}", r.parent, n + 1);
        let is_managed = r.parent.ends_with("/managed");
        let with_count = |n| {
            let data_key_count = is_managed.then_some(n as u64 * 100);
            Some(KeyVersion { data_key_count, ..version(&name(n), KeyState::Enabled)? })
        };
        let key_versions = numbers.filter_map(with_count).collect();
        Ok(Response::new(ListKeyVersionsResponse { key_versions, next_page_token }))
    }

    async fn schedule_key_destruction(
        &self,
        request: Request<ScheduleKeyDestructionRequest>,
    ) -> Result<Response<ScheduleKeyDestructionResponse>, Status> {
        let r = self.meet(request).await?;
        let at_once = r.wait.is_some_and(|wait| wait.seconds == 0);
        let state = if at_once { KeyState::Destroyed } else { KeyState::PendingDestruction };
        let (key, version) = changed(&r.name, state);
        Ok(Response::new(ScheduleKeyDestructionResponse { key, version, lease_end_time: Some(LEASE_END) }))
    }

    async fn cancel_key_destruction(
        &self,
        request: Request<CancelKeyDestructionRequest>,
    ) -> Result<Response<CancelKeyDestructionResponse>, Status> {
        let r = self.meet(request).await?;
        let (key, version) = changed(&r.name, KeyState::Disabled);
        Ok(Response::new(CancelKeyDestructionResponse { key, version }))
    }

    async fn list_data_keys(
        &self,
        request: Request<ListDataKeysRequest>,
    ) -> Result<Response<ListDataKeysResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.parent).await?;
        let (numbers, next_page_token) = page(r.page_size, &r.page_token);
        let data_keys = numbers.map(crypto::managed).collect();
        Ok(Response::new(ListDataKeysResponse { data_keys, next_page_token }))
    }
}

#[tonic::async_trait]
impl OperatorService for Rules {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(LockResponse {}))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(UnlockResponse {}))
    }

    async fn export_keystore(
        &self,
        request: Request<ExportKeystoreRequest>,
    ) -> Result<Response<ExportKeystoreResponse>, Status> {
        self.meet(request).await?;
        let file = |name: &str| KeystoreFile { name: name.to_owned(), content: b"kms1hsm".to_vec() };
        Ok(Response::new(ExportKeystoreResponse { serial: 3, files: vec![file("one.kms1hsm"), file("two.kms1hsm")] }))
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<ReloadResponse>, Status> {
        self.meet(request).await?;
        let (changed, need_restart) =
            (vec!["bindings".to_owned(), "certificate".to_owned()], vec!["listen".to_owned()]);
        Ok(Response::new(ReloadResponse { changed, need_restart }))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(GetStatusResponse {
            version: "0.1.0".to_owned(),
            cluster_uid: "2".repeat(32),
            node: "node-1".to_owned(),
            state: ServerState::Serving.into(),
            start_time: Some(TIME),
            epoch: Some(EpochStatus { number: 1, uid: "3".repeat(32), create_time: Some(TIME) }),
            backend: Some(BackendStatus {
                kind: "software".to_owned(),
                detail: "keystore file, 1 master-key version".to_owned(),
                assurance: "software-file".to_owned(),
                reachable: true,
                probe_time: None,
            }),
            memory: Some(MemoryStatus { protection: "memfd_secret".to_owned(), slots_used: 3, slots_max: 1024 }),
            audit_log: Some(AuditLogStatus { origin: "example.com/kms/log-1".to_owned(), size: 42 }),
            store: Some(StoreStatus { kind: "memory".to_owned(), seq: 7 }),
            caches: vec![CacheStatus { name: "tenants".to_owned(), entries: 1, entries_max: 100 }],
            warnings: vec!["the store is in memory: all is lost at a restart".to_owned()],
        }))
    }
}
