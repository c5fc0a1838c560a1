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
    "exitCode": 5
  }
}
"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_failure_has_its_exit_code() {
    let world = World::new().await;
    for (line, code) in [
        ("whoami", 0),
        ("encrypt --key strange", 1),
        ("encrypt", 2),
        ("encrypt --key no/such/form", 2),
        ("whoami --config none.toml", 2),
        ("whoami --ca-file none.pem", 2),
        ("encrypt --key denied", 3),
        ("key get missing", 4),
        ("key create taken", 5),
        ("encrypt --key overloaded", 6),
        ("encrypt --key slow --timeout 500ms", 6),
        ("whoami --address https://127.0.0.1:1", 6),
    ] {
        assert_eq!(world.run(line).await.code, code, "{line}");
    }
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
        "error: cannot reach https://127.0.0.1:1: connection refused\nhint: check that the server is running and that \
         the port is right\n"
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
