//! Grants are asked for, approved and taken back.

use crate::World;
use crate::fake::access::{CONTENT_HASH, EXPORT_UID, MISSING_UID, NEWER_UID, ROLE_UID, TENANT_UID, VERSION_UID};

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_asked_for_and_it_is_said_who_goes_on() {
    let world = World::new().await;
    let mut command = world.command("grant request --role decrypter --for 1h30m --tenant other --request-id c-1");
    command.args(["--reason", "ticket 4711"]);
    let ran = crate::Ran::from(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap());
    assert_eq!(
        String::from_utf8(ran.stdout).unwrap(),
        format!(
            "\
name          tenants/other/grants/{ROLE_UID}
state         PENDING
to            have the role decrypter in tenants/other for 1h 30m
requester     spiffe://example.com/alice
reason        ticket 4711
content hash  {CONTENT_HASH}
requested     2026-01-02T03:04:05Z
expires       2026-01-03T03:04:05Z
"
        )
    );
    let next = format!("run `kms grant approve tenants/other/grants/{ROLE_UID}`");
    assert_eq!(ran.stderr, format!("note: have somebody with the role `approver` {next}\n"));
    let request = world.fake.requests().pop().unwrap();
    for part in [r#"tenant: "tenants/other""#, r#"role: "decrypter""#, "seconds: 5400", r#"request_id: "c-1""#] {
        assert!(request.contains(part), "{part} is not in {request}");
    }
    let tried = world.run("grant request --role decrypter --for 1h --reason 4711 --dry-run").await;
    assert_eq!((tried.code, tried.stderr.as_str()), (0, "note: this was a dry run: nothing was changed\n"));
    assert!(!String::from_utf8(tried.stdout).unwrap().contains("grants/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    let grant = format!("grants/{ROLE_UID}");
    for (line, says) in [
        ("grant request --role superuser --reason a --for 1h", "decrypter, reencrypter, key-admin"),
        ("grant request --role approver --reason a --for 1h", "possible values: encrypter"),
        ("grant request --role decrypter --reason a --for 0s", "for some time, such as 1h"),
        ("grant request --role decrypter --reason a --for soon", "is no duration"),
        ("grant request --role decrypter --for 1h", "--reason <REASON>"),
        ("grant request --role decrypter --reason a --for 1h --tenant a/b", "tenants/{tenant}"),
        ("grant get acme", "tenants/{tenant}/grants/{uid} or grants/{uid}"),
        ("grant get grants/0", "it has 32 of 0-9 a-f"),
        (&format!("grant revoke tenants/a/b/{grant}"), "tenants/{tenant}/grants/{uid} or grants/{uid}"),
        (&format!("grant approve tenants//{grant} --yes"), "cannot be the name of a tenant"),
        (&format!("grant approve {grant} --yes --content-hash="), "is not empty"),
        ("operator export-keystore", "--to <DIR>"),
        ("operator export-keystore --to out --request-id c-1", "--request-approval <REASON>"),
        ("tenant destroy acme --wait 0s --request-approval", "a value is required"),
    ] {
        let ran = world.run(line).await;
        assert_eq!((ran.code, ran.stdout.len()), (2, 0), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{line}: {}", ran.stderr);
    }
    assert!(world.fake.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_shown_one_by_one_and_as_a_list() {
    let world = World::new().await;
    let shown = world.run(&format!("grant get tenants/acme/grants/{TENANT_UID}")).await.text();
    assert!(
        shown.contains(
            "to            destroy tenants/acme with all its keys now, without a wait, while its etag is e1\n"
        ),
        "{shown}"
    );
    let shown = world.run(&format!("grant get grants/{NEWER_UID}")).await.text();
    assert!(shown.contains("to            do what this version of `kms` cannot show\n"), "{shown}");
    let list = world.run("grant list").await.text();
    assert_eq!(
        list.lines().take(4).collect::<Vec<_>>(),
        [
            "GRANT                                                 STATE    FOR                     REQUESTER                   \
             EXPIRES               REASON",
            "tenants/acme/grants/00000000000000000000000000000000  PENDING  decrypter               \
             spiffe://example.com/alice  2026-01-03T03:04:05Z  ticket 4711",
            "tenants/acme/grants/11111111111111111111111111111111  PENDING  DestroyTenant           \
             spiffe://example.com/alice  2026-01-03T03:04:05Z  ticket 4711",
            "tenants/acme/grants/22222222222222222222222222222222  PENDING  ScheduleKeyDestruction  \
             spiffe://example.com/alice  2026-01-03T03:04:05Z  ticket 4711",
        ]
    );
    let some = world.run("grant list --tenant other --limit 3").await;
    assert_eq!(some.stderr, "note: there are more: --page-token 3 goes on\n");
    world.fake.take_calls();
    let of_cluster = world.run("grant list --cluster").await.text();
    assert!(of_cluster.contains(&format!("grants/{EXPORT_UID}  PENDING  ExportKeystore")), "{of_cluster}");
    assert!(world.fake.requests().pop().unwrap().contains(r#"parent: """#));
    let missing = world.run(&format!("grant get tenants/acme/grants/{MISSING_UID}")).await;
    assert_eq!(missing.code, 4);
    assert!(missing.stderr.contains("hint: `kms grant list --tenant acme` shows"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tenant_the_grants_of_the_cluster_are_listed() {
    let world = World::new().await;
    let config = String::from_utf8(world.read(".kms-dev/client.toml")).unwrap();
    world.write(".kms-dev/client.toml", config.replace("tenant = \"acme\"\n", "").as_bytes());
    world.run("grant list").await.text();
    assert_eq!(world.run("policy explain --action Lock").await.text(), "Lock on the cluster: allowed by test-all\n");
    let requests = world.fake.requests();
    assert!(requests[0].contains(r#"parent: """#) && requests[1].contains(r#"resource: """#), "{requests:?}");
    let ran = world.run("grant request --role decrypter --reason a --for 1h").await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.starts_with("error: no tenant is given\n"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_approved_as_it_was_shown() {
    let world = World::new().await;
    let ran = world.run(&format!("grant approve tenants/acme/grants/{VERSION_UID} --yes --request-id c-1")).await;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            0,
            "note: spiffe://example.com/alice asks to destroy tenants/acme/keys/app/versions/3 now, without a wait. Reason: \
             ticket 4711\n"
        )
    );
    let shown = String::from_utf8(ran.stdout).unwrap();
    assert!(shown.contains("state         APPROVED\n") && shown.contains("approver      spiffe://example.com/test\n"));
    let requests = world.fake.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].starts_with("GetGrantRequest"), "{}", requests[0]);
    let hash = format!("content_hash: \"{CONTENT_HASH}\"");
    assert!(requests[1].contains(&hash) && requests[1].contains(r#"request_id: "c-1""#), "{}", requests[1]);
    let pinned = world.run(&format!("grant approve grants/{EXPORT_UID} --yes --content-hash {CONTENT_HASH} -q")).await;
    assert_eq!(pinned.text(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_looked_at_is_not_approved() {
    let world = World::new().await;
    let other = "b".repeat(64);
    for (line, code, says) in [
        // What stdin has is not taken for an answer.
        (format!("grant approve tenants/acme/grants/{ROLE_UID}"), 2, "in a script, give --yes"),
        (format!("grant approve tenants/acme/grants/{ROLE_UID} --content-hash {CONTENT_HASH}"), 2, "give --yes"),
        (
            format!("grant approve tenants/acme/grants/{ROLE_UID} --yes --content-hash {other}"),
            5,
            "GRANT_CHANGED (ABORTED)",
        ),
        (format!("grant approve grants/{NEWER_UID} --yes"), 1, "cannot show"),
        (format!("grant approve grants/{MISSING_UID} --yes"), 4, "`kms grant list --cluster`"),
    ] {
        let ran = world.run_with(&line, b"acme\nyes\n").await;
        assert_eq!((ran.code, ran.stdout.len()), (code, 0), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{line}: {}", ran.stderr);
    }
    let requests = world.fake.requests();
    assert!(requests.iter().all(|request| request.starts_with("GetGrantRequest")), "{requests:?}");
    // A dry run asks nobody.
    let tried = world.run(&format!("grant approve tenants/acme/grants/{ROLE_UID} --dry-run")).await;
    assert_eq!((tried.code, tried.stderr.as_str()), (0, "note: this was a dry run: nothing was changed\n"));
    assert!(world.fake.requests().pop().unwrap().contains("validate_only: true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_taken_back() {
    let world = World::new().await;
    let shown = world.run(&format!("grant revoke tenants/acme/grants/{ROLE_UID}")).await.text();
    for part in ["state         REVOKED\n", "revoker       spiffe://example.com/test\n", "ended         2026-"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let request = world.fake.requests().pop().unwrap();
    assert!(request.starts_with("RevokeGrantRequest") && request.contains(ROLE_UID), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_asked_for_instead_of_being_done() {
    let world = World::new().await;
    for (line, name, to) in [
        (
            "tenant destroy acme --wait 0s --etag e7 --yes --name acme",
            format!("tenants/acme/grants/{ROLE_UID}"),
            "destroy tenants/acme with all its keys now, without a wait, while its etag is e7",
        ),
        (
            "key destroy app --wait 1h",
            format!("tenants/acme/grants/{ROLE_UID}"),
            "destroy tenants/acme/keys/app after 1h",
        ),
        (
            "key destroy tenants/other/keys/app --version 3",
            format!("tenants/other/grants/{ROLE_UID}"),
            "destroy tenants/other/keys/app/versions/3 after the server's default wait",
        ),
        ("operator export-keystore --to out", format!("grants/{ROLE_UID}"), "make copies of the keystore files"),
        ("operator export-keystore", format!("grants/{ROLE_UID}"), "make copies of the keystore files"),
    ] {
        world.fake.take_calls();
        let ran = world.run(&format!("{line} --request-approval 4711 --request-id c-1")).await;
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
        assert_eq!(
            ran.stderr,
            format!(
                "note: nothing was done yet: have somebody with the role `approver` run `kms grant approve {name}`, then \
                 repeat this command without --request-approval within an hour\n"
            )
        );
        let shown = String::from_utf8(ran.stdout).unwrap();
        assert!(
            shown.starts_with(&format!("name          {name}\nstate         PENDING\nto            {to}\n")),
            "{shown}"
        );
        let requests = world.fake.requests();
        assert_eq!(requests.len(), 1, "{line}");
        assert!(requests[0].starts_with("RequestGrantRequest") && requests[0].contains(r#"reason: "4711""#), "{line}");
        assert_eq!(requests[0].matches(r#"request_id: "c-1""#).count(), 1, "{}", requests[0]);
    }
    assert!(!world.folder.path().join("out").exists(), "nothing was done");
    let tried = world.run("tenant destroy acme --wait 0s --request-approval 4711 --dry-run").await;
    assert_eq!((tried.code, tried.stderr.as_str()), (0, "note: this was a dry run: nothing was changed\n"));
    let denied = world.run("key destroy tenants/denied/keys/app --request-approval 4711").await;
    assert_eq!(denied.code, 3);
    assert!(denied.stderr.contains("allows RequestGrant on"), "{}", denied.stderr);
}
