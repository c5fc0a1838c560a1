//! Policies are explained and checked, and read again.

use crate::World;
use crate::fake::{Fault, refusal};

/// Bindings that are in order.
pub const BINDINGS: &[u8] = br#"
[[binding]]
id = "app"
roles = ["encrypter"]
principals = ["spiffe://example.com/app"]
tenants = ["*"]
keys = ["*"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_and_what_is_not_is_explained() {
    let world = World::new().await;
    let ran = world.run("policy explain --action Encrypt --action Decrypt --key app").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""));
    assert_eq!(
        String::from_utf8(ran.stdout).unwrap(),
        "\
Encrypt on tenants/acme/keys/app: allowed by test-all
Decrypt on tenants/acme/keys/app: denied by default
  needed: a binding with the role decrypter
  at-night: outside its networks
  old: expired
"
    );
    let allowed = world.run("policy explain --action Lock --cluster").await.text();
    assert_eq!(allowed, "Lock on the cluster: allowed by test-all\n");
    let field = world.run("policy explain --action Decrypt --field permissions.0.needed").await;
    assert_eq!((field.code, field.stdout.as_slice()), (3, &b"a binding with the role decrypter\n"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_policy_may_see_is_asked_with() {
    let world = World::new().await;
    for (line, parts) in [
        ("--key app", &[r#"principal: """#, r#"resource: "tenants/acme/keys/app""#, r#"address: """#][..]),
        ("--key app --tenant other", &[r#"resource: "tenants/other/keys/app""#]),
        ("--index email", &[r#"resource: "tenants/acme/indexes/email""#]),
        ("--tenant other", &[r#"resource: "tenants/other""#]),
        ("--cluster", &[r#"resource: """#]),
        (
            "--as spiffe://example.com/bob --ip 2001:db8::1 --strength token --strength mfa --context a=b",
            &[
                r#"principal: "spiffe://example.com/bob""#,
                r#"address: "2001:db8::1""#,
                r#"strength: ["token", "mfa"]"#,
                r#"encryption_context: {"a""#,
                r#"resource: "tenants/acme""#,
            ],
        ),
    ] {
        world.fake.take_calls();
        world.run(&format!("policy explain --action Encrypt {line}")).await.text();
        let request = world.fake.requests().pop().unwrap();
        for part in parts {
            assert!(request.contains(part), "{line}: {part} is not in {request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    for line in [
        "policy explain",
        "policy explain --key app",
        "policy explain --action Encrypt --key app --index email",
        "policy explain --action Encrypt --key keys/app",
        "policy explain --action Encrypt --ip here",
        "policy explain --action Encrypt --strength password",
        "policy explain --action Encrypt --context a=1 --context a=2",
    ] {
        let ran = world.run(line).await;
        assert_eq!((ran.code, ran.stdout.len()), (2, 0), "{line}: {}", ran.stderr);
    }
    assert!(world.fake.requests().is_empty());
    world.fake.fail([Fault::Status(refusal(tonic::Code::PermissionDenied, "POLICY_DENIED", "not allowed"))]);
    let ran = world.run("policy explain --as spiffe://example.com/bob --action Decrypt --key app").await;
    assert_eq!((ran.code, ran.stdout.len()), (3, 0));
    assert!(ran.stderr.contains("allows TestPermissions on this server"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_policies_are_checked_without_a_server_and_without_settings() {
    let world = World::new().await;
    world.write("good.toml", BINDINGS);
    // Settings that cannot be read are no hindrance.
    world.write(".kms-dev/client.toml", b"nonsense");
    let ran = world.run("policy check good.toml").await;
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!((ran.code, text.as_str()), (0, "1 file, no mistakes\n"));
    // What is in form, and still no policy.
    world.write(
        "idle.toml",
        &[BINDINGS, b"\n[[binding]]\nid = \"x\"\nroles = [\"ownr\"]\nprincipals = []\ntenants = []\n"].concat(),
    );
    let ran = world.run("policy check idle.toml").await;
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.code == 1 && text.contains("unknown role"), "{text}");
    world.write("torn.toml", b"\n[[binding]\nid = 1\n");
    let ran = world.run("policy check torn.toml").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.starts_with("torn.toml:2:") && text.lines().count() == 1, "{text}");
    let json = world.run("policy check torn.toml --output json").await;
    let text = String::from_utf8(json.stdout).unwrap();
    assert_eq!(json.code, 1);
    for part in ["\"files\": 1,", "\"file\": \"torn.toml\",", "\"line\": 2,", "\"remedy\": "] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    world.write("notes.txt", b"hello");
    let ran = world.run("policy check good.toml notes.txt").await;
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.code == 1 && text.contains("notes.txt: neither bindings nor policies: "), "{text}");
    world.write("bytes.cedar", &[0xff, 0xfe]);
    for (line, says) in
        [("policy check none.toml", "cannot read none.toml"), ("policy check bytes.cedar", "byte 0 is no UTF-8")]
    {
        let ran = world.run(line).await;
        assert_eq!((ran.code, ran.stdout.len()), (1, 0));
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
    assert!(world.fake.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_reads_its_settings_again() {
    let world = World::new().await;
    let shown = "changed          bindings certificate\nneeds a restart  listen\n";
    assert_eq!(world.run("operator reload").await.text(), shown);
    let tried = world.run("operator reload --dry-run").await;
    assert_eq!(String::from_utf8(tried.stdout).unwrap(), shown);
    assert_eq!(tried.stderr, "note: this was a dry run: nothing was put in force\n");
    let tried: Vec<bool> =
        world.fake.requests().iter().map(|request| request.contains("validate_only: true")).collect();
    assert_eq!(tried, [false, true]);
    let refused = refusal(tonic::Code::FailedPrecondition, "RELOAD_FAILED", "bindings.toml:3:1: no such role");
    world.fake.fail([Fault::Status(refused)]);
    let ran = world.run("operator reload").await;
    assert_eq!((ran.code, ran.stdout.len()), (5, 0));
    assert_eq!(
        ran.stderr,
        "error: bindings.toml:3:1: no such role\nreason: RELOAD_FAILED (FAILED_PRECONDITION)\nhint: mend the file that it \
         names, and try again: the server goes on as before\nrequest: r-1\n"
    );
}
