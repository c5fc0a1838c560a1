//! What is told when something fails, and how the command ends.

use crate::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_as_what_why_and_what_to_do() {
    let world = World::new().await;
    let ran = world.run("encrypt --key disabled").await;
    assert_eq!((ran.code, ran.stdout.len()), (5, 0));
    assert_eq!(
        ran.stderr,
        "error: the key is disabled\nreason: KEY_DISABLED (FAILED_PRECONDITION)\nhint: `kms key enable \
         tenants/acme/keys/disabled` enables it\nrequest: r-1\n"
    );
    let ran = world.run("encrypt --key disabled --output json").await;
    assert_eq!((ran.code, ran.stdout.len()), (5, 0));
    assert_eq!(
        ran.stderr,
        r#"{
  "error": {
    "code": "FAILED_PRECONDITION",
    "message": "the key is disabled",
    "reason": "KEY_DISABLED",
    "hint": "`kms key enable tenants/acme/keys/disabled` enables it",
    "requestId": "r-1",
    "attempts": 1,
    "exitCode": 5
  }
}
"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_says_what_to_check() {
    let world = World::new().await;
    let sealed = world.run_with("encrypt --key app", b"hello").await.data();
    let ran = world.run_with("decrypt --key app --context a=1", &sealed).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("hint: same key, context and aad as when it was encrypted?"), "{}", ran.stderr);
    let ran = world.run_with("decrypt --key app", b"hello").await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("begins with kms1"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_named_with_what_to_check() {
    let world = World::new().await;
    let ran = world.run("whoami --address https://127.0.0.1:1").await;
    assert_eq!(
        ran.stderr,
        "error: cannot reach https://127.0.0.1:1: connection refused\nreason: CONNECTION_REFUSED (CONNECTION): \
         Connection refused (os error 111), after 3 attempts\nhint: check that the server is running and that the \
         port is right\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_of_a_server_moves_no_cursor() {
    let world = World::new().await;
    let ran = world.run("encrypt --key strange").await;
    assert!(ran.stderr.starts_with("error: a \\u{1b}[2Jmistake\n"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn destroying_without_a_terminal_needs_the_name() {
    let world = World::new().await;
    for (line, says) in [
        ("tenant destroy acme", "in a script, give --yes --name acme"),
        ("key destroy app", "in a script, give --yes --name app"),
        ("key destroy app --version 3", "in a script, give --yes --name app/versions/3"),
        ("tenant destroy acme --yes --name other", "nothing was done"),
        ("key destroy app --version 3 --yes --name app", "nothing was done"),
        (
            "data-key destroy 09000000000000000000000000000000 --key app",
            "--yes --name 09000000000000000000000000000000",
        ),
        ("data-key destroy 09000000000000000000000000000000 --key app --yes --name other", "nothing was done"),
    ] {
        // What stdin has is not taken for an answer.
        let ran = world.run_with(line, b"acme\napp\n").await;
        assert_eq!(ran.code, 2, "{line}");
        assert!(ran.stderr.contains(says), "{line}: {}", ran.stderr);
    }
    assert!(world.fake.requests().is_empty(), "nothing was asked of the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let world = World::new().await;
    let run = |line: &str, tenant: &str| {
        let mut command = world.command(line);
        command.env("KMS_TENANT", tenant).env("KMS_OUTPUT", "json");
        tokio::task::spawn_blocking(move || String::from_utf8(command.output().unwrap().stdout).unwrap())
    };
    let from_environment = run("key get app", "from-env").await.unwrap();
    assert!(from_environment.contains("\"tenants/from-env/keys/app\""), "{from_environment}");
    let from_flag = run("key get app --tenant from-flag --output table", "from-env").await.unwrap();
    assert!(from_flag.starts_with("name             tenants/from-flag/keys/app\n"), "{from_flag}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_json_is_told_of_misuse_in_json() {
    let world = World::new().await;
    for line in ["key rotat app --output json", "--output=json key rotat app"] {
        let ran = world.run(line).await;
        assert_eq!((ran.code, ran.stdout.len()), (2, 0));
        assert_eq!(
            ran.stderr,
            r#"{
  "error": {
    "code": "USAGE",
    "message": "unrecognized subcommand 'rotat'",
    "hint": "a similar subcommand exists: 'rotate'",
    "attempts": 0,
    "exitCode": 2
  }
}
"#
        );
    }
    assert!(world.run("key rotat app").await.stderr.starts_with("error: unrecognized subcommand 'rotat'\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_which_nobody_knows_can_be_repeated_safely() {
    let world = World::new().await;
    let ran = world.run("key rotate overloaded --request-id c-1").await;
    assert_eq!(ran.code, 6);
    assert!(ran.stderr.contains("UNAVAILABLE), after 3 attempts\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("; repeated with --request-id c-1, the change is made once\n"), "{}", ran.stderr);
    let ran = world.run("key rotate slow --timeout 300ms --output json").await;
    assert!(ran.stderr.contains("repeated with --request-id "), "{}", ran.stderr);
    let denied = world.run("key rotate denied").await;
    assert!(!denied.stderr.contains("--request-id"), "{}", denied.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_the_servers_and_asks_nobody() {
    let world = World::new().await;
    for line in [
        "tenant create acme",
        "tenant update acme --data-key-lease 1h",
        "tenant suspend acme",
        "tenant resume acme",
        "tenant destroy acme",
        "tenant cancel-destruction acme",
        "key create app",
        "key update app --no-labels",
        "key enable app",
        "key disable app --version 2",
        "key rotate app",
        "key destroy app",
        "key destroy app --version 2",
        "key cancel-destruction app",
        "data-key destroy 09000000000000000000000000000000 --key app",
        "data-key destroy 09000000000000000000000000000000 09000000000000000000000000000001 --key app",
    ] {
        let ran = world.run(&format!("{line} --dry-run --request-id c-1")).await;
        assert_eq!((ran.code, &*ran.stderr), (0, "note: this was a dry run: nothing was changed\n"), "{line}");
        let calls = world.fake.take_calls();
        assert_eq!(calls.len(), 1, "{line}");
        let asked = &calls[0].request;
        assert!(asked.contains("validate_only: true") && asked.contains("request_id: \"c-1\""), "{line}: {asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_makes_no_data_key() {
    let world = World::new().await;
    for (line, shown) in [
        ("data-key create --key people", "key version  1\n"),
        ("data-key create --key people --uid-only", "key version  1\n"),
        ("data-key create --key people --count 2", ""),
    ] {
        let ran = world.run(&format!("{line} --dry-run")).await;
        assert_eq!((ran.code, &*ran.stderr), (0, "note: this was a dry run: nothing was changed\n"), "{line}");
        assert_eq!(String::from_utf8(ran.stdout).unwrap(), shown, "{line}");
        assert!(world.fake.take_calls()[0].request.contains("validate_only: true"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_is_sent_as_it_was_shown() {
    let world = World::new().await;
    let shown = world.run("key get app --field etag").await.text();
    world.run(&format!("key disable app --etag {shown}")).await.text();
    let asked = world.fake.requests().pop().unwrap();
    assert!(asked.contains("etag: \"e1\"") && asked.contains("validate_only: false"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_field_or_nothing_is_printed_on_demand() {
    let world = World::new().await;
    assert_eq!(world.run("key get app --field primaryVersion").await.text(), "1\n");
    assert_eq!(world.run("key versions app --field keyVersions.1.state").await.text(), "KEY_STATE_ENABLED\n");
    assert_eq!(world.run_with("encrypt --key app --field keyVersion", b"x").await.text(), "1\n");
    let ran = world.run("key get app --field stat").await;
    assert_eq!((ran.code, ran.stdout.len()), (2, 0));
    assert!(ran.stderr.contains("there are: createTime, etag, labels, name,"), "{}", ran.stderr);
    assert_eq!(world.run("key rotate app --quiet").await.text(), "");
    assert_eq!(world.run("tenant destroy acme --yes --name acme -q").await.text(), "");
    assert_eq!(world.run("key rotate app -q --field key.name").await.code, 2, "what is asked for by name is printed");
    assert!(!world.run("key get app -q").await.text().is_empty(), "a look is no change");
}
