//! What is no request at all: unknown methods, bytes that are no message, messages over the limit.

use anyhow::Result;
use kms_tests::Listener;
use kms_tests::request::*;
use kms_tests::wire::send_bytes;
use prost::Message as _;
use tonic::Code::{InvalidArgument, ResourceExhausted, Unimplemented};

use crate::{ACME_KEY, Expected, World};

#[tokio::test]
async fn messages_that_are_none() -> Result<()> {
    let world = World::new().await?;
    let (services, operator) = (world.app.channel(Listener::Services), world.admin.channel(Listener::Operator));
    let mut expected = Expected::of("messages that are none");
    let encrypt_method = "/kms.v1.CryptoService/Encrypt";

    for (what, method) in [
        ("unknown method", "/kms.v1.CryptoService/Sign"),
        ("unknown method of the tenants", "/kms.v1.TenantService/RenameTenant"),
        ("unknown service", "/kms.v1.SecretService/Get"),
        ("unknown version", "/kms.v2.CryptoService/Encrypt"),
        ("the operator's method on the services listener", "/kms.v1.OperatorService/GetStatus"),
        ("no method", "/"),
        ("a path of another world", "/index.html"),
    ] {
        expected.refused(what, Unimplemented, "METHOD_UNKNOWN", send_bytes(services.clone(), method, b"").await);
    }
    let got = send_bytes(operator, encrypt_method, b"").await;
    expected.refused("an application's method on the operator listener", Unimplemented, "METHOD_UNKNOWN", got);

    let good = encrypt(ACME_KEY, b"x", &[("a", "b")]).encode_to_vec();
    let not_utf8 = [&[0x0a, 2, 0xff, 0xfe][..]].concat();
    for (what, bytes) in [
        ("a field cut off", &good[..good.len() - 1]),
        ("text", b"hello, is it me you are looking for?"),
        ("a length beyond the end", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a number of 11 bytes", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("a wire type that does not exist", &[0x0f]),
        ("a field of another type", &[0x08, 0x01]),
        ("a name that is no text", &not_utf8),
    ] {
        expected.refused(
            what,
            InvalidArgument,
            "MESSAGE_INVALID",
            send_bytes(services.clone(), encrypt_method, bytes).await,
        );
    }
    expected.works("the message itself", send_bytes(services.clone(), encrypt_method, &good).await);
    let unknown_field = [&good[..], &[0xfa, 0x01, 1, 7]].concat();
    expected
        .works("a field that a newer client knows", send_bytes(services.clone(), encrypt_method, &unknown_field).await);
    let got = send_bytes(services, encrypt_method, b"").await;
    expected.refused("an empty message", InvalidArgument, "FIELD_INVALID", got);
    expected.check();
    world.finish().await
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_without_taking_their_memory() -> Result<()> {
    let world = World::new().await?;
    let app = &world.app;
    let mut expected = Expected::of("messages over the limit");
    let of_bytes = |bytes: usize| {
        let mut request = encrypt(ACME_KEY, &[], &[]);
        // The plaintext's tag and its length come before it.
        let left = bytes - request.encoded_len() - 1;
        request.plaintext = vec![7; left - prost::length_delimiter_len(left)];
        assert_eq!(request.encoded_len(), bytes);
        request
    };
    let limit = 4 << 20;
    // The longest that any limit of a field allows, which every limit of messages must leave room for.
    let largest = encrypt(ACME_KEY, &[7; 65_536], &[("a", &"x".repeat(4_096)), ("b", &"y".repeat(4_000))]);
    let moved = app.ask(encrypt(ACME_KEY, &[7; 65_536], &[])).await?.ciphertext;
    let moved = move_to(ACME_KEY, &moved, &[], ACME_KEY, &[("a", &"x".repeat(4_096)), ("b", &"y".repeat(4_000))]);
    expected.works("the longest plaintext with the longest context", app.ask(largest).await);
    expected.works("the longest ciphertext to the longest context", app.ask(moved).await);
    for (what, bytes) in [("128 KiB", 128 << 10), ("1 MiB", 1 << 20), ("exactly 4 MiB", limit)] {
        let got = app.ask(of_bytes(bytes)).await;
        let right = got.as_ref().is_err_and(|r| r.is("PLAINTEXT_TOO_LARGE") || r.is("MESSAGE_TOO_LARGE"));
        expected.row(right, what, "PLAINTEXT_TOO_LARGE or MESSAGE_TOO_LARGE", &format!("{got:?}"));
    }
    for (what, bytes) in [("4 MiB and a byte", limit + 1), ("5 MiB", 5 << 20), ("16 MiB", 16 << 20)] {
        expected.refused(what, ResourceExhausted, "MESSAGE_TOO_LARGE", app.ask(of_bytes(bytes)).await);
    }
    let before = world.daemon.resident_bytes()?;
    let mut sent = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (caller, request) = (world.daemon.caller("app")?, of_bytes(32 << 20));
        sent.spawn(async move { caller.ask(request).await });
    }
    for got in sent.join_all().await {
        // Nobody waits for 32 MiB that will be refused: the connection may be gone before its reply.
        let right = got.as_ref().is_err_and(|refused| refused.reason.is_none() || refused.is("MESSAGE_TOO_LARGE"));
        expected.row(right, "one of 16 with 32 MiB each", "MESSAGE_TOO_LARGE", &format!("{got:?}"));
    }
    let grown = world.daemon.resident_bytes()?.saturating_sub(before) >> 20;
    println!("memory: 16 messages of 32 MiB at once took {grown} MiB");
    expected.row(grown < 96, "memory for 512 MiB that were refused", "less than 96 MiB", &format!("{grown} MiB"));
    expected.works("afterwards", app.ask(encrypt(ACME_KEY, b"x", &[])).await);
    expected.check();
    world.finish().await
}
