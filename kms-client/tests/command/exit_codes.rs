//! Every documented exit code, by a command that ends with it. 8 is kept for what is not there yet.

use std::io::Read;
use std::process::Stdio;

use crate::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_failure_has_its_exit_code() {
    let world = World::new().await;
    let sealed = world.run_with("encrypt --key app", b"hello").await.data();
    world.write("sealed", &sealed);
    world.write("foreign.pem", crate::fake::Ca::new().pem().as_bytes());
    for (line, code) in [
        ("whoami", 0),
        ("help exit-codes", 0),
        ("encrypt --key strange", 1),
        ("decrypt --key app --context other=1 --in sealed", 1),
        ("decrypt --key app --in no-such-file", 1),
        ("encrypt", 2),
        ("encrypt --key no/such/form", 2),
        ("whoami --config none.toml", 2),
        ("whoami --ca-file none.pem", 2),
        ("whoami --profile none", 2),
        ("tenant destroy acme", 2),
        ("encrypt --key denied", 3),
        ("key get missing", 4),
        ("key create taken", 5),
        ("encrypt --key disabled", 5),
        ("key rotate conflicting", 5),
        ("encrypt --key overloaded", 6),
        ("encrypt --key slow --timeout 500ms", 6),
        ("whoami --address https://127.0.0.1:1", 6),
        ("data-key create --key partly --count 3", 7),
        // Where all failed, as the first would have alone.
        ("data-key create --key erased --count 3", 5),
        ("data-key create --key erased --count 1 --uid-only", 5),
        ("data-key get 09010000000000000000000000000000 09020000000000000000000000000000 --key people", 4),
        (
            "data-key destroy 09020000000000000000000000000000 09010000000000000000000000000000 --key people --yes --name people",
            5,
        ),
        ("data-key get 09010000000000000000000000000000 --key people", 4),
        ("data-key destroy 09020000000000000000000000000000 --key people --yes --name people", 5),
        ("whoami --ca-file foreign.pem", 6),
    ] {
        let ran = world.run(line).await;
        assert_eq!(ran.code, code, "{line}: {}", ran.stderr);
        assert_eq!(ran.stderr.is_empty(), code == 0, "{line}: {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_lists_them() {
    let world = World::new().await;
    let text = world.run("help exit-codes").await.text();
    let codes: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.get(..5)?.trim().split(' ').next().filter(|word| !word.is_empty()))
        .collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "130"]);
    assert_eq!(world.run("exit-codes").await.text(), text);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_with_130_and_says_how_to_go_on() {
    let world = World::new().await;
    let mut command = world.command("key rotate slow --timeout 1h --request-id c-1");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The server has the call, so the command waits.
    while world.fake.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(kill.unwrap().success());
    let ended = tokio::task::spawn_blocking(move || {
        let status = child.wait().unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status.code(), stderr)
    });
    let (code, stderr) = ended.await.unwrap();
    assert_eq!(code, Some(130), "{stderr}");
    assert_eq!(
        stderr,
        "error: interrupted\nhint: the change may have been made: look, or repeat the command with --request-id c-1, \
         which does it once\n"
    );
}
