//! Names that are none, of everything that has one.

use anyhow::Result;
use kms_tests::request::*;
use tonic::Code::{InvalidArgument, NotFound};

use crate::{ACME, ACME_KEY, Expected, World};

#[tokio::test]
async fn names_that_are_none() -> Result<()> {
    let world = World::new().await?;
    let (admin, app) = (&world.admin, &world.app);
    let mut expected = Expected::of("names that are none");
    let (long, longest) = ("x".repeat(65), "x".repeat(64));

    for id in ["", "-a", ".a", "_a", "~a", "a/b", "a b", "a*", "*", "é", "a\0", "a\n", "..", &long] {
        let got = admin.ask(create_tenant(id)).await;
        expected.refused(&format!("CreateTenant {id:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(create_key(ACME, id)).await;
        expected.refused(&format!("CreateKey {id:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    for id in ["a", "0", "A.b_c~d-e", &longest] {
        expected.works(&format!("CreateTenant {id:?}"), admin.ask(create_tenant(id)).await);
        expected.works(&format!("CreateKey {id:?}"), admin.ask(create_key(ACME, id)).await);
    }
    for key in [
        "",
        "app",
        "tenants",
        "tenants/acme",
        "tenants/acme/",
        "tenants/acme/keys",
        "tenants/acme/keys/",
        "tenants//keys/app",
        "tenants/acme/keys/app/",
        "/tenants/acme/keys/app",
        "tenants/acme/keys/app/versions/1",
        "tenants/acme/key/app",
        "Tenants/acme/keys/app",
        "tenants/acme/Keys/app",
        "tenants/acme/keys/app ",
        "tenants/ac me/keys/app",
        "tenants/acme/keys/../app",
        "tenants/acme/keys/*",
        "tenants/*/keys/app",
        "tenants/-/keys/app",
        "tenants/acme/keys/app\0",
        "tenants/acme/keys/äpp",
        "spiffe://test.example/app",
    ] {
        let got = app.ask(encrypt(key, b"x", &[])).await;
        expected.refused(&format!("Encrypt {key:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(get_key(key)).await;
        expected.refused(&format!("GetKey {key:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    for version in ["0", "01", "-1", "+1", "1.0", "x", "", "16777216", "4294967297", "18446744073709551617"] {
        let name = format!("{ACME_KEY}/versions/{version}");
        let got = admin.ask(disable_key(&name)).await;
        expected.refused(&format!("DisableKey version {version:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    let got = admin.ask(disable_key(&format!("{ACME_KEY}/versions/16777215"))).await;
    expected.refused("the greatest version there can be", NotFound, "VERSION_NOT_FOUND", got);
    for tenant in ["", "acme", "tenants/", "tenants/acme/", "tenants/acme/keys/app", "tenants/a b"] {
        let got = admin.ask(get_tenant(tenant)).await;
        expected.refused(&format!("GetTenant {tenant:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(create_key(tenant, "new")).await;
        expected.refused(&format!("CreateKey in {tenant:?}"), InvalidArgument, "FIELD_INVALID", got);
        let got = admin.ask(list_keys(tenant, 0, "")).await;
        expected.refused(&format!("ListKeys of {tenant:?}"), InvalidArgument, "FIELD_INVALID", got);
    }
    expected.check();
    world.finish().await
}
