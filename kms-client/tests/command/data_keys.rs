//! Managed data keys, several data keys at once, MACs and keys of indexes, as they are used in a shell.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::World;

/// Uids of which the second byte says what is wrong with them: see `fake/crypto.rs`.
pub const UID: &str = "09000000000000000000000000000000";
pub const OTHER_UID: &str = "08000000000000000000000000000001";
pub const MISSING_UID: &str = "09010000000000000000000000000000";

/// A data key that is the same byte all along, in base64.
fn clear(byte: u8) -> String {
    BASE64_STANDARD.encode([byte; 32])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_data_key_is_made_and_given_out() {
    let world = World::new().await;
    assert_eq!(
        world.run("data-key create --key people --context table=people").await.text(),
        format!(
            "uid          07000000000000000000000000000000\ndata key     {}\nkey version  1\nlease        5m\n",
            clear(7)
        )
    );
    assert_eq!(
        world.run("data-key create --key people --uid-only").await.text(),
        "uid          07000000000000000000000000000000\nkey version  1\n"
    );
    let shown = world.run("data-key create --key people --data-key-out dek").await.text();
    assert!(shown.starts_with("uid ") && !shown.contains(&clear(7)), "{shown}");
    assert_eq!(world.read("dek"), [7; 32]);
    #[cfg(unix)]
    assert_eq!(world.mode("dek"), 0o600);

    let uid_of_json = world.run("data-key create --key people --field uid").await.text();
    for uid in [UID, uid_of_json.trim_end()] {
        let byte = if uid == UID { 9 } else { 7 };
        assert_eq!(world.run(&format!("data-key get {uid} --key people")).await.text(), clear(byte) + "\n");
        assert_eq!(world.run(&format!("data-key get {uid} --key people --raw")).await.data(), [byte; 32]);
    }
    assert_eq!(world.run(&format!("data-key get {UID} --key people --out dek")).await.text(), "");
    assert_eq!(world.read("dek"), (clear(9) + "\n").as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_and_cannot_be_shown_is_not_lost() {
    let world = World::new().await;
    let uid = "07000000000000000000000000000000";
    for line in ["--data-key-out no/such/folder", "--field none", "--field none --uid-only"] {
        let ran = world.run(&format!("data-key create --key people {line}")).await;
        assert!(ran.code != 0 && ran.stdout.is_empty(), "{line}");
        let told = format!("; the data key is made all the same, its uid is {uid}\n");
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(&told), "{line}: {}", ran.stderr);
    }
    let ran = world.run("--output json data-key create --key people --data-key-out no/such/folder").await;
    assert!(ran.stderr.contains(&format!("its uid is {uid}\"")), "{}", ran.stderr);
    for line in ["", "--uid-only"] {
        let ran =
            world.run(&format!("data-key create --key people --count 2 --request-id c-1 --field none {line}")).await;
        assert!(ran.stderr.contains("; the data keys are made all the same: --request-id c-1 gives them again\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_made_one_a_line() {
    let world = World::new().await;
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let made = lines(world.run("data-key create --key people --count 100").await.text());
    assert_eq!((made.len(), &made[99]), (100, &format!("07000000000000000000000000000063\t{}", clear(7))));
    let uids = lines(world.run("data-key create --key people --count 2 --uid-only").await.text());
    assert_eq!(uids, ["07000000000000000000000000000000", "07000000000000000000000000000001"]);
    let generated = lines(world.run("data-key generate --key app --count 3").await.text());
    let (wrapped, data_key) = generated[2].split_once('\t').unwrap();
    assert_eq!((generated.len(), data_key), (3, &*clear(7)));
    assert_eq!(world.run_with("data-key decrypt --key app", wrapped.as_bytes()).await.text(), clear(7) + "\n");
    assert_eq!(world.run("data-key generate-wrapped --key app --count 2 --out wrapped").await.text(), "");
    assert_eq!(world.read("wrapped"), format!("{wrapped}\n{wrapped}\n").as_bytes());
    assert_eq!(world.run("data-key generate-wrapped --key app --count 2 --raw").await.code, 2);
    let calls = world.fake.take_calls();
    assert!(calls.iter().filter(|call| call.request.starts_with("Batch")).count() == 4, "one call each");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_had_is_told_beside_what_could() {
    let world = World::new().await;
    let ran = world.run(&format!("data-key get {OTHER_UID} {MISSING_UID} {UID} --key people")).await;
    assert_eq!(ran.code, 7);
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), format!("{OTHER_UID}\t{}\n{UID}\t{}\n", clear(8), clear(9)));
    assert_eq!(
        ran.stderr,
        format!(
            "error: {MISSING_UID}: there is no such data key (DATA_KEY_NOT_FOUND)\nerror: 1 of 3 failed\nhint: what is \
             printed is good, and what failed is told with its reason\n"
        )
    );
    let ran = world.run("data-key create --key partly --count 3").await;
    assert_eq!((ran.code, ran.stdout.iter().filter(|byte| **byte == b'\n').count()), (7, 2));
    assert!(ran.stderr.starts_with("error: data key 2: the data key is destroyed (DATA_KEY_DESTROYED)\n"));
    let ran = world.run("data-key create --key erased --count 2").await;
    assert_eq!((ran.code, ran.stdout.len()), (5, 0));
    assert_eq!(
        ran.stderr,
        "error: data key 1: the data key is destroyed (DATA_KEY_DESTROYED)\nerror: data key 2: the data key is \
         destroyed (DATA_KEY_DESTROYED)\nerror: 2 of 2 failed, the first of them since the data key is \
         destroyed\nreason: DATA_KEY_DESTROYED (FAILED_PRECONDITION)\nhint: this is final: what was sealed with this \
         data key cannot be opened again\n"
    );
    let both = format!("data-key get {UID} {OTHER_UID} --key people");
    assert_eq!(world.run(&format!("{both} --out keys")).await.text(), "");
    #[cfg(unix)]
    assert_eq!(world.mode("keys"), 0o600);
    assert_eq!(world.run(&format!("{both} --raw")).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_data_keys_are_destroyed_and_listed() {
    let world = World::new().await;
    let one = format!("data-key destroy {UID} --key people --yes --name");
    for name in [UID, "people"] {
        assert_eq!(
            world.run(&format!("{one} {name}")).await.text(),
            format!("uid         {UID}\ndestroyed   2026-01-02T03:04:05Z\nleases end  2026-01-02T03:09:05Z\n")
        );
    }
    assert_eq!(world.run(&format!("{one} people --quiet")).await.text(), "");
    let several = format!("data-key destroy {UID} {MISSING_UID} --key people --yes --name");
    let ran = world.run(&format!("{several} people")).await;
    assert_eq!(ran.code, 7);
    assert_eq!(
        String::from_utf8(ran.stdout).unwrap(),
        format!(
            "UID                               DESTROYED             LEASES-END\n{UID}  2026-01-02T03:04:05Z  \
             2026-01-02T03:09:05Z\n"
        )
    );
    assert_eq!(world.run(&format!("{several} {UID}")).await.code, 2, "of several, the key's name is asked for");

    let listed = world.run("data-key list --key people --limit 2").await;
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        "UID                               STATE      VERSION  CREATED               \
         DESTROYED\n07000000000000000000000000000000  ENABLED    1        2026-01-02T03:04:05Z  \
         -\n07000000000000000000000000000001  DESTROYED  -        2026-01-02T03:04:05Z  2026-01-02T03:04:05Z\n"
    );
    assert_eq!(listed.stderr, "note: there are more: --page-token 2 goes on\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mac_is_made_and_verified() {
    let world = World::new().await;
    let mac = world.run_with("mac generate --key app --context a=1", b"hello").await.text();
    assert!(mac.starts_with("kms1") && mac.len() == 77, "{mac}");
    world.write("mac", mac.as_bytes());
    let given = format!("--mac {}", mac.trim_end());
    for how in ["--mac-file mac", &given] {
        let verify = format!("mac verify --key app --context a=1 {how}");
        assert_eq!(world.run_with(&verify, b"hello").await.text(), "key version  1\n");
        assert_eq!(world.run_with(&format!("{verify} --quiet"), b"hello").await.text(), "");
        let wrong = world.run_with(&verify, b"hallo").await;
        assert_eq!((wrong.code, wrong.stdout.len()), (1, 0));
        assert!(wrong.stderr.contains("reason: MAC_INVALID (INVALID_ARGUMENT)\n"), "{}", wrong.stderr);
    }
    let mac = world.run_with("mac generate --key rotated --raw", b"").await.data();
    world.write("mac", &mac);
    let stale = world.run_with("mac verify --key rotated --mac-file mac", b"").await;
    assert_eq!((stale.code, &*stale.stderr), (0, "note: this was made by version 1, which is no longer primary\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_an_index_is_given_out() {
    let world = World::new().await;
    assert_eq!(world.run("index-key get users.email").await.text(), clear(7) + "\n");
    assert_eq!(world.run("index-key get tenants/acme/indexes/users.email --raw").await.data(), [7; 32]);
    assert_eq!(world.run("index-key get users.email --out key").await.text(), "");
    #[cfg(unix)]
    assert_eq!(world.mode("key"), 0o600);
    let denied = world.run("index-key get denied").await;
    assert!(
        denied.code == 3 && denied.stderr.contains("GetIndexKey on tenants/acme/indexes/denied"),
        "{}",
        denied.stderr
    );
}
