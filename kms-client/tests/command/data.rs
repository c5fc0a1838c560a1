//! Encrypting and decrypting: data on stdout and nothing else, secrets in files of one's own.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::World;

const CONTEXT: &str = "--context table=users --context id=42 --aad-file aad";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_decrypts_byte_for_byte() {
    let world = World::new().await;
    world.write("aad", b"\0aad");
    for plaintext in [&b"hello"[..], b"", b"\xff\x00\n"] {
        let sealed = world.run_with(&format!("encrypt --key app {CONTEXT}"), plaintext).await.text();
        assert!(sealed.starts_with("kms1") && sealed.ends_with('\n'), "{sealed}");
        let opened = world.run_with(&format!("decrypt --key app {CONTEXT}"), sealed.as_bytes()).await;
        assert_eq!(opened.data(), plaintext);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_ciphertexts_come_out_and_go_in() {
    let world = World::new().await;
    let sealed = world.run_with("encrypt --key tenants/acme/keys/app --raw", b"hello").await.data();
    assert_eq!(sealed[..3], [0x92, 0x6b, 0x35]);
    assert_eq!(world.run_with("decrypt --key app", &sealed).await.data(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_and_written_and_plaintext_is_for_ones_own_eyes() {
    let world = World::new().await;
    world.write("plain", b"hello");
    assert_eq!(world.run("encrypt --key app --in plain --out sealed").await.text(), "");
    assert!(world.read("sealed").starts_with(b"kms1"));
    world.write("opened", b"there was something that others could read");
    assert_eq!(world.run("decrypt --key app --in sealed --out opened").await.text(), "");
    assert_eq!(world.read("opened"), b"hello");
    #[cfg(unix)]
    assert_eq!(world.mode("opened"), 0o600);
    assert_eq!(world.run("decrypt --key app --in sealed --out -").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_the_message_of_the_api() {
    let world = World::new().await;
    let sealed = world.run_with("encrypt --key app --output json", b"hello").await.text();
    assert!(sealed.starts_with("{\n  \"ciphertext\": \"kms1") && sealed.ends_with("\",\n  \"keyVersion\": 1\n}\n"));
    let raw = world.run_with("encrypt --key app", b"hello").await.data();
    let opened = world.run_with("--output json decrypt --key app", &raw).await.text();
    assert_eq!(opened, "{\n  \"plaintext\": \"aGVsbG8=\",\n  \"keyVersion\": 1,\n  \"stale\": false\n}\n");
    let refused = world.run_with("encrypt --key app --raw --output json", b"hello").await;
    assert_eq!((refused.code, refused.stdout.len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_noted_on_stderr() {
    let world = World::new().await;
    let sealed = world.run_with("encrypt --key rotated", b"hello").await.data();
    let opened = world.run_with("decrypt --key rotated", &sealed).await;
    assert_eq!((opened.code, &opened.stdout[..]), (0, &b"hello"[..]));
    assert_eq!(
        opened.stderr,
        "note: this was under version 1, which is no longer primary: `kms re-encrypt` moves it\n"
    );
    assert_eq!(world.run_with("decrypt --key rotated --output json", &sealed).await.stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn re_encrypt_moves_to_another_key_and_keeps_what_is_not_said() {
    let world = World::new().await;
    let sealed = world.run_with("encrypt --key app --context a=1", b"hello").await.data();
    let moved = world.run_with("re-encrypt --key app --context a=1 --to-key other", &sealed).await.data();
    assert_eq!(world.run_with("decrypt --key other --context a=1", &moved).await.data(), b"hello");
    let moved = world.run_with("re-encrypt --key app --context a=1 --to-context b=2", &sealed).await.data();
    assert_eq!(world.run_with("decrypt --key app --context b=2", &moved).await.data(), b"hello");
    let same = world.run_with("re-encrypt --key app --context a=1 --output json", &sealed).await.text();
    assert!(same.contains("\"keyVersion\": 2,\n  \"sourceKeyVersion\": 1\n"), "{same}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_keys_are_made_in_files_or_on_stdout_and_unwrapped() {
    let world = World::new().await;
    let clear = BASE64_STANDARD.encode([7; 32]);
    let shown = world.run("data-key generate --key app").await.text();
    assert!(shown.starts_with(&format!("data key     {clear}\nwrapped      kms1")), "{shown}");
    assert!(shown.ends_with("\nkey version  1\nlease        5m\n"), "{shown}");

    let quiet = world.run("data-key generate --key app --data-key-out dek --wrapped-out wrapped").await;
    assert_eq!(quiet.text(), "");
    assert_eq!(world.read("dek"), [7; 32]);
    #[cfg(unix)]
    assert_eq!(world.mode("dek"), 0o600);
    let unwrapped = world.run("data-key decrypt --key app --in wrapped").await.text();
    assert_eq!(unwrapped, clear.clone() + "\n");
    assert_eq!(world.run("data-key decrypt --key app --in wrapped --raw").await.data(), [7; 32]);

    let partly = world.run("data-key generate --key app --data-key-out dek").await.text();
    assert!(!partly.contains(&clear) && partly.contains("kms1"), "{partly}");

    let wrapped = world.run("data-key generate-wrapped --key app").await.data();
    assert_eq!(world.run_with("data-key decrypt --key app", &wrapped).await.text(), clear + "\n");
    let json = world.run("data-key generate-wrapped --key app --output json").await.text();
    assert!(json.starts_with("{\n  \"plaintext\": \"\",\n  \"wrappedDataKey\": \"kms1"), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_error() {
    let world = World::new().await;
    let mut command = world.command("exit-codes");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = tokio::task::spawn_blocking(move || command.stdout(writer).output().unwrap()).await.unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}
