//! Calls that are repeated, meant for one state only, or only tried.

use anyhow::{Context as _, Result};
use kms_proto::v1;
use kms_server::audit::{Outcome, Phase};
use kms_tests::records::Records;
use kms_tests::request::*;

use crate::{ACME, ACME_KEY, GLOBEX, World};

fn rotate_under(id: &str) -> v1::RotateKeyRequest {
    v1::RotateKeyRequest { request_id: id.into(), ..rotate_key(ACME_KEY) }
}

fn destroy_under(id: &str) -> v1::DestroyTenantRequest {
    v1::DestroyTenantRequest { request_id: id.into(), ..destroy_tenant(GLOBEX, seconds(0)) }
}

#[tokio::test]
async fn a_repeated_change_is_made_once_over_restarts_and_crashes() -> Result<()> {
    let world = World::new().await?;
    let first = world.admin.ask(rotate_under("r-1")).await?;
    assert_eq!(world.admin.ask(rotate_under("r-1")).await?, first);
    let gone = world.admin.ask(destroy_under("d-1")).await?;
    let world = world.crash().await?;
    assert_eq!(world.admin.ask(rotate_under("r-1")).await?, first);
    assert_eq!(world.admin.ask(destroy_under("d-1")).await?, gone, "what is gone is told as it was told");
    let world = world.restart().await?;
    assert_eq!(world.admin.ask(rotate_under("r-1")).await?, first);
    // Another id is another change, and another call under the first is refused.
    assert_eq!(world.admin.ask(rotate_under("r-2")).await?.key.context("a key")?.primary_version, 3);
    let etag = first.key.context("a key")?.etag;
    let other = v1::RotateKeyRequest { etag, ..rotate_under("r-1") };
    let refused = world.admin.ask(other).await.expect_err("another call under the same id");
    assert!(refused.is("REQUEST_ID_REUSED"), "{refused}");
    let refused = world.admin.ask(rotate_under("r 1")).await.expect_err("an id with a space");
    assert!(refused.is("FIELD_INVALID"), "{refused}");

    let records = Records::read(world.daemon.site())?;
    let rotations: Vec<_> = records.of("RotateKey", Outcome::Ok).collect();
    let made: Vec<_> = rotations.iter().filter(|stored| stored.leaf.seq.is_some()).collect();
    let repeated: Vec<_> = rotations.iter().filter(|stored| stored.leaf.why.as_deref() == Some("REPEATED")).collect();
    assert_eq!((made.len(), repeated.len()), (2, 3));
    assert!(repeated.iter().all(|stored| stored.leaf.ref_ == made[0].leaf.in_), "each names what was made");
    let fences = records.of("DestroyTenant", Outcome::Ok).filter(|stored| stored.leaf.ph == Some(Phase::Fenced));
    assert_eq!(fences.count(), 1);
    world.finish().await
}

#[tokio::test]
async fn a_change_is_made_only_of_the_state_that_its_etag_names() -> Result<()> {
    let world = World::new().await?;
    let key = world.admin.ask(get_key(ACME_KEY)).await?.key.context("a key")?;
    let label = |etag: &str| {
        let mut request = update_key(ACME_KEY, &[("team", "billing")], &["labels"]);
        request.key.as_mut().expect("it has a key").etag = etag.into();
        request
    };
    let updated = world.admin.ask(label(&key.etag)).await?.key.context("a key")?;
    assert_ne!(updated.etag, key.etag);
    let refused = world.admin.ask(label(&key.etag)).await.expect_err("the etag of before");
    assert!(refused.is("ETAG_MISMATCH"), "{refused}");
    assert_eq!(world.admin.ask(get_key(ACME_KEY)).await?.key.context("a key")?, updated);
    let refused = world.admin.ask(label("x")).await.expect_err("no etag");
    assert!(refused.is("FIELD_INVALID"), "{refused}");
    world.finish().await
}

#[tokio::test]
async fn what_is_only_validated_changes_nothing_and_is_on_record() -> Result<()> {
    let world = World::new().await?;
    let before = world.admin.ask(get_tenant(ACME)).await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    let shown = v1::DestroyTenantRequest { validate_only: true, ..destroy_tenant(ACME, seconds(0)) };
    let shown = world.admin.ask(shown).await?.tenant.context("a tenant")?;
    assert_eq!((shown.state(), shown.etag.as_str()), (v1::TenantState::Fenced, ""));
    assert_eq!(world.admin.ask(get_tenant(ACME)).await?, before);
    assert_eq!(world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext, b"kept");
    let shown = v1::CreateTenantRequest { validate_only: true, ..create_tenant("initech") };
    let shown = world.admin.ask(shown).await?.tenant.context("a tenant")?;
    assert_eq!((shown.name.as_str(), shown.uid.as_str()), ("tenants/initech", ""));
    assert!(world.admin.ask(get_tenant("tenants/initech")).await.expect_err("not made").is("TENANT_NOT_FOUND"));
    // It needs the permission, and fails as the call would.
    let mut taken = create_tenant("acme");
    taken.validate_only = true;
    assert!(world.admin.ask(taken).await.expect_err("taken").is("TENANT_ALREADY_EXISTS"));
    let mut rotate = rotate_key(ACME_KEY);
    rotate.validate_only = true;
    assert!(world.app.ask(rotate).await.expect_err("not allowed").is("POLICY_DENIED"));

    let records = Records::read(world.daemon.site())?;
    for op in ["DestroyTenant", "CreateTenant"] {
        let told = records.of(op, Outcome::Ok).filter(|stored| stored.leaf.why.as_deref() == Some("VALIDATED"));
        assert_eq!(told.count(), 1, "{op}");
    }
    world.finish().await
}
