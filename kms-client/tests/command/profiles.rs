//! Profiles, and the completions that know of them: what needs no server.

use std::process::Command;

use crate::World;

const FILE: &str = "# mine\n[profile.prod]\naddress = \"https://kms.example.com:8443, https://kms2.example.com:8443\"\nca_file = \
                    \"ca.pem\"\ntenant = \"acme\"\n\n[profile.test]\naddress = \"https://127.0.0.1:1\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_listed_shown_and_chosen() {
    let world = World::new().await;
    world.write("c.toml", FILE.as_bytes());
    assert_eq!(
        world.run("--config c.toml profile list").await.text(),
        "USED  PROFILE  ADDRESS                                                      TENANT\n-     prod     \
         https://kms.example.com:8443, https://kms2.example.com:8443  acme\n-     test     https://127.0.0.1:1\
         \u{20}                                         -\n"
    );
    let none = world.run("--config c.toml profile show").await;
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("kms profile use PROFILE"), "{}", none.stderr);

    let used = world.run("--config c.toml profile use prod").await;
    assert_eq!((used.code, &*used.stderr), (0, "note: prod is the current profile now, in c.toml\n"));
    assert_eq!(String::from_utf8(world.read("c.toml")).unwrap(), format!("current = \"prod\"\n{FILE}"));
    let shown = world.run("--config c.toml profile show").await.text();
    assert!(shown.starts_with("name     prod\naddress  https://kms.example.com:8443"), "{shown}");
    assert!(world.run("--config c.toml profile list").await.text().contains("\n*     prod"));
    assert!(world.run("--config c.toml --profile test profile list").await.text().contains("\n*     test"));

    let wrong = world.run("--config c.toml profile use none").await;
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("it has: prod, test"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_destroys_says_where() {
    let world = World::new().await;
    // There is no terminal here to ask on; what is asked there is compared in src/bin/kms/confirm.rs.
    let ran = world.run("tenant destroy acme").await;
    assert!(ran.stderr.contains("on https://127.0.0.1") && ran.stderr.contains("(profile test)"), "{}", ran.stderr);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn choosing_a_profile_keeps_the_permissions_of_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    world.write("c.toml", FILE.as_bytes());
    let path = world.folder.path().join("c.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.run("--config c.toml profile use prod").await;
    assert_eq!(world.mode("c.toml"), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_addresses_are_tried_in_turn() {
    let world = World::new().await;
    let address = &world.fake.address;
    let mut command = world.command("whoami --field principal");
    command.env("KMS_ADDR", format!("https://127.0.0.1:1, {address}"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"spiffe://example.com/test\n"[..], &b""[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_takes_the_completions_and_completes_words() {
    let world = World::new().await;
    let script = world.run("completions bash").await.text();
    world.write("kms.bash", script.as_bytes());
    let bash = |commands: &str| {
        let commands = format!("source kms.bash\n{commands}");
        let output =
            Command::new("bash").args(["--norc", "-c", &commands]).current_dir(world.folder.path()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let checked = Command::new("bash").arg("-n").arg(world.folder.path().join("kms.bash")).status().unwrap();
    assert!(checked.success());
    let complete = |words: &str| {
        let count = words.split(' ').count();
        let last = words.split(' ').next_back().unwrap();
        let before = words.split(' ').rev().nth(1).unwrap();
        bash(&format!(
            "COMP_WORDS=({words}); COMP_CWORD={}; COMP_LINE='{words}'; COMP_POINT={}; _kms kms '{last}' {before}; echo \
             ${{COMPREPLY[*]}}",
            count - 1,
            words.len(),
        ))
    };
    assert_eq!(complete("kms ten"), "tenant\n");
    assert_eq!(complete("kms key rot"), "rotate\n");
    assert_eq!(complete("kms key rotate --dry"), "--dry-run\n");
    assert_eq!(complete("kms completions z"), "zsh\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shell_has_completions() {
    let world = World::new().await;
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = world.run(&format!("completions {shell}")).await.text();
        assert!(script.contains("cancel-destruction") && script.contains("dry-run"), "{shell}");
    }
}
