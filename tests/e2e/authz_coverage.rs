//! Every RPC asks for permission and leaves a record, whoever calls: taken from the descriptors of the API and the reviewed
//! matrix of roles, so that an RPC that is added and forgotten anywhere fails here by its name.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use kms_proto::v1;
use kms_server::audit::{Outcome, StoredLeaf};
use kms_server::policy::Action;
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::wire::send_bytes;
use kms_tests::{Binding, Caller, Daemon, Listener, NAMES, ON_INDEXES, Refused, Site};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::Expected;

/// The reviewed matrix: who may ask for what.
const MATRIX: &str = include_str!("../../kms-server/src/policy/matrix.golden");

/// Served without permission and without records.
const EXCEPTIONS: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The actions on managed data keys.
const MANAGED: [&str; 4] = ["CreateDataKey", "GetDataKey", "DestroyDataKey", "ListDataKeys"];

/// A uid that nothing has.
const NO_UID: &str = "00000000000000000000000000000000";

/// An RPC as the descriptors have it.
pub struct Method {
    service: String,
    /// Its name.
    pub name: String,
}

impl Method {
    /// Where it is called.
    pub fn path(&self) -> &'static str {
        // A path is static to tonic; there are some dozens.
        Box::leak(format!("/{}/{}", self.service, self.name).into_boxed_str())
    }

    /// Where it is served.
    pub fn listener(&self) -> Listener {
        if self.service == "kms.v1.OperatorService" { Listener::Operator } else { Listener::Services }
    }
}

/// Returns the action that an RPC asks for: its own name, and of a batch that of its single form.
fn action_of(rpc: &str) -> &str {
    rpc.strip_prefix("Batch").map_or(rpc, |many| many.strip_suffix('s').unwrap_or(many))
}

/// Returns all RPCs but the exceptions.
pub fn methods() -> Vec<Method> {
    let set = FileDescriptorSet::decode(kms_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let service_name = format!("{}.{}", file.package(), service.name());
            if EXCEPTIONS.contains(&&*service_name) {
                continue;
            }
            methods.extend(
                service.method.iter().map(|m| Method { service: service_name.clone(), name: m.name().to_owned() }),
            );
        }
    }
    methods
}

/// The roles, and for each action those that a binding to everything gives it to.
fn matrix() -> (Vec<&'static str>, BTreeMap<&'static str, Vec<bool>>) {
    let mut lines = MATRIX.lines().filter(|line| !line.starts_with('#'));
    let roles: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let rows = lines.map(|line| {
        let mut cells = line.split_whitespace();
        (cells.next().unwrap(), cells.map(|cell| cell.ends_with('w')).collect())
    });
    (roles, rows.collect())
}

#[test]
fn every_rpc_has_its_row_in_the_matrix_and_every_row_its_rpc() {
    let (roles, rows) = matrix();
    let rpcs: BTreeSet<String> = methods().into_iter().map(|method| method.name).collect();
    for rpc in &rpcs {
        let action = action_of(rpc);
        let row = rows.get(action).unwrap_or_else(|| panic!("{rpc} has no row in matrix.golden"));
        assert_eq!(row.len(), roles.len(), "{rpc}");
        assert!(action.parse::<Action>().is_ok(), "{rpc} is no action of policy");
        assert!(row.contains(&true), "nobody may ask for {rpc}");
    }
    let actions: BTreeSet<&str> = rows.keys().copied().collect();
    assert_eq!(actions, rpcs.iter().map(|rpc| action_of(rpc)).collect(), "an action without an RPC");
    assert_eq!(NAMES.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), rpcs, "the tests' list of RPCs");
    println!("matrix: {} RPCs x {} roles", rpcs.len(), roles.len());
}

/// Reads the log as it grows.
struct Tail {
    seen: usize,
}

impl Tail {
    /// Returns what was recorded since the last time.
    fn more(&mut self, site: &Site) -> Result<Vec<StoredLeaf>> {
        let leaves = Records::read(site)?.leaves;
        let more = leaves.get(self.seen..).unwrap_or_default().to_vec();
        self.seen = leaves.len();
        Ok(more)
    }
}

#[tokio::test]
async fn every_rpc_asks_policy_and_leaves_a_record() -> Result<()> {
    let (roles, rows) = matrix();
    let site = Site::temporary()?;
    site.init().await?;
    for role in &roles {
        let on_keys = !["tenant-admin", "operator", "staff", "approver"].contains(role);
        let (id, principal) = (format!("only-{role}"), site.principal(role));
        let keys: &[&str] = if on_keys { &["*"] } else { &[] };
        let indexes: &[&str] = if ON_INDEXES.contains(role) { &["*"] } else { &[] };
        site.bind(&Binding { id: &id, roles: &[role], principals: &[&principal], tenants: &["*"], keys, indexes })?;
    }
    site.bind_app(&["encrypter"])?;
    let daemon = site.start().await?;
    let callers: Vec<Caller> = roles.iter().map(|role| daemon.caller(role)).collect::<Result<_>>()?;
    let stranger = daemon.caller("stranger")?;
    let nobody = daemon.caller_with(Some(&daemon.site().authority().client_of(&[])?))?;
    let mut expected = Expected::of("permission and record of every RPC");
    let (mut allowed, mut denied) = (0, 0);

    for (number, method) in methods().into_iter().enumerate() {
        let tenant = format!("tenants/t{number}");
        let made = Made::prepare(&daemon, &method.name, &tenant).await?;
        let theirs = made.request(&method.name, &tenant);
        let nobodys = made.request(&method.name, "tenants/none");
        let row = rows
            .get(action_of(&method.name))
            .with_context(|| format!("{} has no row in matrix.golden", method.name))?;
        let mut tail = Tail { seen: 0 };
        tail.more(daemon.site())?;

        // Whoever may not: nothing was looked up, so that what is there and what is not look alike.
        let may_not = roles.iter().zip(&callers).zip(row).filter(|(_, may)| !**may).map(|(who, _)| (*who.0, who.1));
        let mut refused: Vec<(&str, &Caller, Code, &str)> =
            may_not.map(|(role, caller)| (role, caller, Code::PermissionDenied, "POLICY_DENIED")).collect();
        if method.name != "GetCallerIdentity" {
            refused.push(("stranger", &stranger, Code::PermissionDenied, "POLICY_DENIED"));
        }
        refused.push(("", &nobody, Code::Unauthenticated, "NO_IDENTITY"));
        for (who, caller, code, reason) in refused {
            let mut seen: Vec<(Option<Refused>, Vec<StoredLeaf>)> = Vec::new();
            for request in [&theirs, &nobodys] {
                let got = send_bytes(caller.channel(method.listener()), method.path(), request).await;
                expected.refused(&format!("{} as {who:?}", method.name), code, reason, got.clone());
                seen.push((got.err(), tail.more(daemon.site())?));
                denied += 1;
            }
            let principal = (!who.is_empty()).then(|| daemon.site().principal(who));
            for (_, leaves) in &seen {
                let right = matches!(&leaves[..], [one] if one.leaf.op.as_deref() == Some(&*method.name)
                    && one.leaf.res == Some(Outcome::Denied)
                    && one.leaf.sub.as_deref() == principal.as_deref()
                    && one.leaf.net.as_deref() == Some("127.0.0.1")
                    && one.leaf.rid.is_some()
                    // Only names: nothing that a look-up would know.
                    && (&one.leaf.key, &one.leaf.tuid, &one.leaf.ctx) == (&None, &None, &None));
                let what = format!("{} as {who:?}: the record", method.name);
                expected.row(right, &what, "one denial, of names only", &format!("{leaves:?}"));
            }
            let alike = seen[0].0 == seen[1].0;
            let what = format!("{} as {who:?}: a tenant that exists", method.name);
            expected.row(alike, &what, &format!("{:?}", seen[1].0), &format!("{:?}", seen[0].0));
        }

        // Whoever may: the first does it, the others may find it done.
        let may = roles.iter().zip(&callers).zip(row).filter(|(_, may)| **may);
        for (place, ((role, caller), _)) in may.enumerate() {
            let got = send_bytes(caller.channel(method.listener()), method.path(), &theirs).await;
            let leaves = tail.more(daemon.site())?;
            let principal = daemon.site().principal(role);
            let of_it = |leaf: &&StoredLeaf| {
                leaf.leaf.op.as_deref() == Some(&*method.name) && leaf.leaf.sub.as_deref() == Some(&*principal)
            };
            let end = leaves.iter().filter(of_it).filter_map(|leaf| leaf.leaf.res).next_back();
            let rule = leaves.iter().find(of_it).and_then(|leaf| leaf.leaf.rule.clone());
            let right = match &got {
                // What a batch was to do may be done already: it is answered all the same.
                Ok(_) if method.name.starts_with("Batch") && place > 0 => end.is_some_and(|end| end != Outcome::Denied),
                Ok(_) => end == Some(Outcome::Ok),
                // It takes a second person, whom nobody asked.
                Err(refused) if refused.is("APPROVAL_REQUIRED") => end == Some(Outcome::Failed),
                Err(refused) => place > 0 && !refused.is("POLICY_DENIED") && end == Some(Outcome::Failed),
            };
            let what = format!("{} as {role:?}, who may", method.name);
            let ours = rule.as_deref() == Some(&*format!("only-{role}")) || rule.as_deref() == Some("self");
            let ours = ours || got.is_err();
            expected.row(right && ours, &what, "an answer and its record", &format!("{got:?}, recorded {leaves:?}"));
            allowed += 1;
        }
    }
    // The exceptions are what they are said to be: health answers, and leaves no record.
    let mut tail = Tail { seen: 0 };
    tail.more(daemon.site())?;
    let got = send_bytes(callers[0].channel(Listener::Services), "/grpc.health.v1.Health/Check", b"").await;
    expected.row(
        got.is_ok() && tail.more(daemon.site())?.is_empty(),
        "health",
        "an answer without a record",
        "another",
    );
    println!(
        "authorization: {} RPCs; {denied} calls by those who may not, {allowed} by those who may",
        methods().len()
    );
    expected.check();
    crate::world::check(&daemon.stop().await?)
}

/// What there is for an RPC to work on.
#[derive(Default)]
struct Made {
    blob: Vec<u8>,
    wrapped: Vec<u8>,
    mac: Vec<u8>,
    uid: Vec<u8>,
    grant: v1::Grant,
}

impl Made {
    /// Makes a tenant with a key of each purpose, in the state from which the RPC goes on.
    async fn prepare(daemon: &Daemon, rpc: &str, tenant: &str) -> Result<Self> {
        let (admin, app) = (daemon.caller("admin")?, daemon.caller("app")?);
        let key = format!("{tenant}/keys/app");
        if rpc == "CreateTenant" {
            return Ok(Self::default());
        }
        admin.ask(create_tenant(tenant.trim_start_matches("tenants/"))).await?;
        if rpc == "CreateKey" {
            return Ok(Self::default());
        }
        admin.ask(create_key(tenant, "app")).await?;
        let blob = app.ask(encrypt(&key, b"x", &[])).await?.ciphertext;
        let wrapped = app.ask(generate_data_key(&key, &[])).await?.wrapped_data_key;
        let (mut mac, mut uid) = (Vec::new(), Vec::new());
        if rpc.contains("Mac") {
            admin.ask(create_key_for(tenant, "mac", v1::KeyPurpose::Mac.into())).await?;
            mac = app.ask(generate_mac(&format!("{tenant}/keys/mac"), b"x", &[])).await?.mac;
        }
        if MANAGED.contains(&action_of(rpc)) {
            admin.ask(create_key_for(tenant, "managed", v1::KeyPurpose::Managed.into())).await?;
            uid = app.ask(create_data_key(&format!("{tenant}/keys/managed"), &[])).await?.uid;
        }
        let mut grant = v1::Grant::default();
        if ["ApproveGrant", "RevokeGrant", "GetGrant"].contains(&rpc) {
            let asked = daemon.caller("staff")?.ask(request_role(tenant, "decrypter", 60, "a test")).await?;
            grant = asked.grant.context("a grant")?;
        }
        match rpc {
            "ResumeTenant" => drop(admin.ask(suspend_tenant(tenant)).await?),
            "CancelTenantDestruction" => drop(admin.ask(destroy_tenant(tenant, None)).await?),
            "EnableKey" => drop(admin.ask(disable_key(&key)).await?),
            "CancelKeyDestruction" => drop(admin.ask(schedule_key_destruction(&key, None)).await?),
            _ => {}
        }
        Ok(Self { blob, wrapped, mac, uid, grant })
    }

    /// Returns the message of a request about this tenant.
    fn request(&self, rpc: &str, tenant: &str) -> Vec<u8> {
        let key = &format!("{tenant}/keys/app");
        // Of another tenant it is a name like any other.
        let uid = self.grant.name.rsplit('/').next().filter(|uid| !uid.is_empty()).unwrap_or(NO_UID);
        let content_hash = Some(&self.grant.content_hash).filter(|hash| !hash.is_empty());
        let grant = v1::Grant {
            name: format!("{tenant}/grants/{uid}"),
            content_hash: content_hash.cloned().unwrap_or_else(|| NO_UID.repeat(2)),
            ..v1::Grant::default()
        };
        let (mac_key, managed) = (&format!("{tenant}/keys/mac"), &format!("{tenant}/keys/managed"));
        match rpc {
            "CreateDataKey" => create_data_key(managed, &[]).encode_to_vec(),
            "GetDataKey" => get_data_key(managed, &self.uid, &[]).encode_to_vec(),
            "DestroyDataKey" => destroy_data_key(managed, &self.uid).encode_to_vec(),
            "ListDataKeys" => list_data_keys(managed, 0, "").encode_to_vec(),
            "GenerateMac" => generate_mac(mac_key, b"x", &[]).encode_to_vec(),
            "VerifyMac" => verify_mac(mac_key, b"x", &self.mac, &[]).encode_to_vec(),
            "GetIndexKey" => get_index_key(&format!("{tenant}/indexes/mail")).encode_to_vec(),
            "BatchEncrypt" => batch_encrypt(key, &[b"x"], &[]).encode_to_vec(),
            "BatchDecrypt" => batch_decrypt(key, std::slice::from_ref(&self.blob), &[]).encode_to_vec(),
            "BatchReEncrypt" => batch_re_encrypt(key, std::slice::from_ref(&self.blob), &[]).encode_to_vec(),
            "BatchGenerateDataKeys" => batch_generate_data_keys(key, 1, &[]).encode_to_vec(),
            "BatchDecryptDataKeys" => {
                batch_decrypt_data_keys(key, std::slice::from_ref(&self.wrapped), &[]).encode_to_vec()
            }
            "BatchCreateDataKeys" => batch_create_data_keys(managed, 1, &[]).encode_to_vec(),
            "BatchGetDataKeys" => batch_get_data_keys(managed, std::slice::from_ref(&self.uid), &[]).encode_to_vec(),
            "BatchDestroyDataKeys" => batch_destroy_data_keys(managed, std::slice::from_ref(&self.uid)).encode_to_vec(),
            "BatchGenerateMacs" => batch_generate_macs(mac_key, &[b"x"], &[]).encode_to_vec(),
            "BatchVerifyMacs" => batch_verify_macs(mac_key, &[(b"x", self.mac.clone())], &[]).encode_to_vec(),
            "UpdateTenant" => update_tenant(tenant, seconds(60)).encode_to_vec(),
            "Encrypt" => encrypt(key, b"x", &[]).encode_to_vec(),
            "Decrypt" => decrypt(key, &self.blob, &[]).encode_to_vec(),
            "ReEncrypt" => re_encrypt(key, &self.blob, &[]).encode_to_vec(),
            "GenerateDataKey" => generate_data_key(key, &[]).encode_to_vec(),
            "DecryptDataKey" => decrypt_data_key(key, &self.wrapped, &[]).encode_to_vec(),
            "CreateTenant" => create_tenant(tenant.trim_start_matches("tenants/")).encode_to_vec(),
            "GetTenant" => get_tenant(tenant).encode_to_vec(),
            "ListTenants" => list_tenants(0, "").encode_to_vec(),
            "SuspendTenant" => suspend_tenant(tenant).encode_to_vec(),
            "ResumeTenant" => resume_tenant(tenant).encode_to_vec(),
            "DestroyTenant" => destroy_tenant(tenant, seconds(0)).encode_to_vec(),
            "CancelTenantDestruction" => cancel_tenant_destruction(tenant).encode_to_vec(),
            "CreateKey" => create_key(tenant, "app").encode_to_vec(),
            "GetKey" => get_key(key).encode_to_vec(),
            "ListKeys" => list_keys(tenant, 0, "").encode_to_vec(),
            "UpdateKey" => update_key(key, &[("a", "b")], &["labels"]).encode_to_vec(),
            "EnableKey" => enable_key(key).encode_to_vec(),
            "DisableKey" => disable_key(key).encode_to_vec(),
            "RotateKey" => rotate_key(key).encode_to_vec(),
            "ListKeyVersions" => list_key_versions(key, 0, "").encode_to_vec(),
            "ScheduleKeyDestruction" => schedule_key_destruction(key, None).encode_to_vec(),
            "CancelKeyDestruction" => cancel_key_destruction(key).encode_to_vec(),
            "GetCallerIdentity" => v1::GetCallerIdentityRequest {}.encode_to_vec(),
            "TestPermissions" => test_permissions("spiffe://example.com/app", tenant, &["GetTenant"]).encode_to_vec(),
            "RequestGrant" => request_role(tenant, "decrypter", 60, "a test").encode_to_vec(),
            "ApproveGrant" => approve_grant(&grant).encode_to_vec(),
            "RevokeGrant" => revoke_grant(&grant).encode_to_vec(),
            "GetGrant" => get_grant(&grant.name).encode_to_vec(),
            "ListGrants" => list_grants(tenant).encode_to_vec(),
            "Reload" => v1::ReloadRequest { validate_only: true }.encode_to_vec(),
            "GetStatus" => v1::GetStatusRequest {}.encode_to_vec(),
            // The others are still to come.
            "Lock" => v1::LockRequest { validate_only: true }.encode_to_vec(),
            "Unlock" => v1::UnlockRequest { validate_only: true }.encode_to_vec(),
            "ExportKeystore" => v1::ExportKeystoreRequest { validate_only: true }.encode_to_vec(),
            other => panic!("{other}: say here what a request of it is, so that it is called"),
        }
    }
}
