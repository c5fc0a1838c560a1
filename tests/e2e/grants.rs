//! Staff access case by case, and what takes two persons: as staff, approvers, tenants and auditors see it.

use anyhow::{Context as _, Result, ensure};
use kms_proto::v1::operation::Operation;
use kms_proto::v1::{self, GrantState};
use kms_server::audit::{Leaf, Outcome};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Caller, Refused, Settings, Site, patiently};
use tonic::Code;

use crate::{ACME, ACME_KEY, Expected, GLOBEX_KEY, World, refused};

/// A world with staff: ada asks, bob approves, carol may do both.
async fn staffed(settings: &Settings) -> Result<(World, [Caller; 3])> {
    let site = Site::with(settings)?;
    site.init().await?;
    site.bind_app(&["encrypter", "decrypter"])?;
    site.bind_persons(&[("ada", &["staff"]), ("bob", &["approver"]), ("carol", &["staff", "approver"])])?;
    let world = World::on(site.start().await?)?;
    for (tenant, name) in [("acme", ACME), ("globex", "tenants/globex")] {
        world.admin.ask(create_tenant(tenant)).await?;
        world.admin.ask(create_key(name, "app")).await?;
    }
    let persons = ["ada", "bob", "carol"].map(|name| world.daemon.caller(name));
    let [ada, bob, carol] = persons;
    Ok((world, [ada?, bob?, carol?]))
}

async fn ask(caller: &Caller, request: v1::RequestGrantRequest) -> Result<v1::Grant> {
    caller.ask(request).await?.grant.context("a grant")
}

/// The records of grants, as the tenant's own slice has them.
fn slice(site: &Site, tenant: &str) -> Result<Vec<Leaf>> {
    let all = Records::read(site)?.leaves.into_iter().map(|stored| stored.leaf);
    let of_grants = |leaf: &Leaf| leaf.op.as_deref().is_some_and(|op| op.ends_with("Grant"));
    Ok(all.filter(|leaf| leaf.ten.as_deref() == Some(tenant) && of_grants(leaf) && leaf.ph.is_none()).collect())
}

#[tokio::test]
async fn staff_opens_a_tenants_data_only_while_a_second_person_lets_it() -> Result<()> {
    let (world, [ada, bob, carol]) = staffed(&Settings::default()).await?;
    let sealed = world.app.ask(encrypt(ACME_KEY, b"DE89 3704", &[])).await?.ciphertext;
    let open = |caller: &Caller| {
        let (caller, request) = (caller.clone(), decrypt(ACME_KEY, &sealed, &[]));
        async move { caller.ask(request).await.map(|opened| opened.plaintext) }
    };
    let denied = |got: Result<Vec<u8>, Refused>| refused(Code::PermissionDenied, "POLICY_DENIED", got);
    denied(open(&ada).await);

    let grant = ask(&ada, request_role(ACME, "decrypter", 3600, "ticket 4711")).await?;
    ensure!(grant.state() == GrantState::Pending && grant.requester == world.daemon.site().principal("ada"));
    denied(open(&ada).await);
    refused(Code::PermissionDenied, "POLICY_DENIED", ada.ask(approve_grant(&grant)).await);
    let other = v1::Grant { content_hash: "0".repeat(64), ..grant.clone() };
    refused(Code::Aborted, "GRANT_CHANGED", bob.ask(approve_grant(&other)).await);
    let own = ask(&carol, request_role(ACME, "decrypter", 3600, "my own")).await?;
    refused(Code::PermissionDenied, "SECOND_PERSON_REQUIRED", carol.ask(approve_grant(&own)).await);

    bob.ask(approve_grant(&grant)).await?;
    ensure!(open(&ada).await? == b"DE89 3704");
    // Nobody else, nothing else, nowhere else.
    denied(open(&bob).await);
    denied(open(&carol).await);
    refused(Code::PermissionDenied, "POLICY_DENIED", ada.ask(encrypt(ACME_KEY, b"x", &[])).await);
    refused(Code::PermissionDenied, "POLICY_DENIED", ada.ask(decrypt(GLOBEX_KEY, &sealed, &[])).await);
    refused(Code::PermissionDenied, "POLICY_DENIED", ada.ask(get_index_key("tenants/acme/indexes/mail")).await);
    let me = ada.ask(v1::GetCallerIdentityRequest {}).await?;
    let rule = format!("grant/{}", grant.name.rsplit('/').next().unwrap_or_default());
    ensure!(me.bindings.iter().any(|binding| binding.id == rule && binding.roles == ["decrypter"]), "{me:?}");

    // Over a restart; and no longer than ada is staff.
    let world = world.restart().await?;
    let [ada, bob] = ["ada", "bob"].map(|name| world.daemon.caller(name));
    let (ada, bob) = (ada?, bob?);
    ensure!(open(&ada).await? == b"DE89 3704");
    let site = world.daemon.site();
    let given = site.read("bindings.toml")?;
    site.write(
        "bindings.toml",
        &given.replace("id = \"ada\"\nroles = [\"staff\"]", "id = \"ada\"\nroles = [\"approver\"]"),
    )?;
    world.admin.ask(v1::ReloadRequest::default()).await?;
    denied(open(&ada).await);
    site.write("bindings.toml", &given)?;
    world.admin.ask(v1::ReloadRequest::default()).await?;
    ensure!(open(&ada).await? == b"DE89 3704");

    // Taken back; and one that ends by itself.
    bob.ask(revoke_grant(&grant)).await?;
    denied(open(&ada).await);
    refused(Code::FailedPrecondition, "GRANT_STATE", bob.ask(approve_grant(&grant)).await);
    let short = ask(&ada, request_role(ACME, "decrypter", 1, "ticket 4712")).await?;
    bob.ask(approve_grant(&short)).await?;
    patiently("a grant to end", async { while open(&ada).await.is_ok() {} }).await?;
    let listed = bob.ask(list_grants(ACME)).await?.grants;
    let state = |grant: &v1::Grant| listed.iter().find(|one| one.name == grant.name).map(v1::Grant::state);
    ensure!(state(&short) == Some(GrantState::Expired) && state(&grant) == Some(GrantState::Revoked), "{listed:?}");

    let [ada, bob] = ["ada", "bob"].map(|name| site.principal(name));
    let site = world.daemon.stop().await?;
    let told = slice(&site, "acme")?;
    let ok = |leaf: &&Leaf| leaf.res == Some(Outcome::Ok);
    let told: Vec<_> = told
        .iter()
        .filter(ok)
        .filter(|leaf| leaf.ev.as_deref().is_some_and(|ev| ev.ends_with("role decrypter for 3600 s: ticket 4711")))
        .map(|leaf| (leaf.op.as_deref(), leaf.sub.as_deref(), leaf.by2.as_deref()))
        .collect();
    let (ada, bob) = (Some(&*ada), Some(&*bob));
    let steps = [(Some("RequestGrant"), ada, None), (Some("ApproveGrant"), bob, ada), (Some("RevokeGrant"), bob, ada)];
    ensure!(told == steps, "{told:?}");
    let opened =
        Records::read(&site)?.of("Decrypt", Outcome::Ok).filter(|one| one.leaf.rule.as_deref() == Some(&*rule)).count();
    ensure!(opened == 3, "{opened}");
    println!(
        "staff access: steps on record 3/3 with both names, opened by the grant {opened}, refused before, beside and after"
    );
    crate::world::check(&site)
}

#[tokio::test]
async fn an_operation_that_takes_two_is_carried_out_as_it_was_approved_and_once() -> Result<()> {
    let settings = Settings { wait_min: "7d".into(), ..Settings::default() };
    let (world, [_, bob, _]) = staffed(&settings).await?;
    let admin = &world.admin;
    let mut expected = Expected::of("two persons");
    let now = || destroy_tenant(ACME, seconds(0));
    let too_short = (Code::InvalidArgument, "WAIT_TOO_SHORT");
    expected.refused("alone", too_short.0, too_short.1, admin.ask(now()).await);
    let grant = ask(admin, request_operation(Operation::DestroyTenant(now()), "they left")).await?;
    expected.refused("before it is approved", too_short.0, too_short.1, admin.ask(now()).await);
    expected.refused(
        "approved by who asked",
        Code::PermissionDenied,
        "POLICY_DENIED",
        admin.ask(approve_grant(&grant)).await,
    );
    bob.ask(approve_grant(&grant)).await?;
    let changed = destroy_tenant(ACME, seconds(1));
    expected.refused("another wait", too_short.0, too_short.1, admin.ask(changed).await);
    expected.refused(
        "another tenant",
        too_short.0,
        too_short.1,
        admin.ask(destroy_tenant("tenants/globex", seconds(0))).await,
    );
    let of_key = schedule_key_destruction(ACME_KEY, seconds(0));
    expected.refused("another operation", too_short.0, too_short.1, admin.ask(of_key).await);
    expected.refused("another caller", Code::PermissionDenied, "POLICY_DENIED", bob.ask(now()).await);
    let once = v1::DestroyTenantRequest { request_id: "once".into(), ..now() };
    expected.works("as it was approved", admin.ask(once.clone()).await);
    expected.works("repeated", admin.ask(once).await);
    expected.refused("again", Code::FailedPrecondition, "TENANT_DESTROYED", admin.ask(now()).await);

    // What concerns no tenant.
    let export = v1::ExportKeystoreRequest { validate_only: false };
    let grant = ask(admin, request_operation(Operation::ExportKeystore(export), "a copy for the safe")).await?;
    expected.refused("an export alone", Code::FailedPrecondition, "APPROVAL_REQUIRED", admin.ask(export).await);
    bob.ask(approve_grant(&grant)).await?;
    expected.works("an export that is only tried", admin.ask(v1::ExportKeystoreRequest { validate_only: true }).await);
    expected.works("an export that two agreed on", admin.ask(export).await);
    expected.refused("a second one", Code::FailedPrecondition, "APPROVAL_REQUIRED", admin.ask(export).await);
    let used = bob.ask(get_grant(&grant.name)).await?.grant.context("a grant")?;
    expected.row(used.state() == GrantState::Used, "the grant", "USED", &format!("{used:?}"));

    // Bad requests.
    let field = (Code::InvalidArgument, "FIELD_INVALID");
    let with_id = v1::DestroyTenantRequest { request_id: "1".into(), ..now() };
    for (what, request) in [
        ("nothing is asked for", v1::RequestGrantRequest { reason: "r".into(), ..Default::default() }),
        ("a role that leads to more", request_role(ACME, "approver", 60, "r")),
        ("no role", request_role(ACME, "owner", 60, "r")),
        ("no time", request_role(ACME, "decrypter", 0, "r")),
        ("more time than there is", request_role(ACME, "decrypter", 8 * 24 * 3600, "r")),
        ("more time than the setting", request_role(ACME, "decrypter", 13 * 3600, "r")),
        ("no reason", request_role(ACME, "decrypter", 60, "")),
        ("a reason that turns around", request_role(ACME, "decrypter", 60, "\u{202e}4711")),
        ("a request id inside", request_operation(Operation::DestroyTenant(with_id), "r")),
    ] {
        let carol = world.daemon.caller("carol")?;
        // The reason of a field comes before any permission.
        let got = if what.contains("inside") { admin.ask(request).await } else { carol.ask(request).await };
        expected.refused(what, field.0, field.1, got);
    }
    for name in ["grants/1", "tenants/acme/grants", "tenants//grants/00000000000000000000000000000000", ""] {
        expected.refused(name, field.0, field.1, bob.ask(get_grant(name)).await);
    }
    let unknown = format!("grants/{}", "0".repeat(32));
    expected.refused("no such grant", Code::NotFound, "GRANT_NOT_FOUND", bob.ask(get_grant(&unknown)).await);
    expected.check();

    let (admin, bob) = (world.daemon.site().principal("admin"), world.daemon.site().principal("bob"));
    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let fenced = &records.fenced("acme").context("a fence")?.leaf;
    ensure!(fenced.sub.as_deref() == Some(&*admin) && fenced.by2.as_deref() == Some(&*bob), "{fenced:?}");
    ensure!(fenced.ev.as_deref().is_some_and(|ev| ev.ends_with(": they left")), "{fenced:?}");
    crate::world::check(&site)
}
