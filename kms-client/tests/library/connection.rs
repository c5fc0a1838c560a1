//! What goes wrong on the way to the server is told apart, with what to check.

use std::time::Duration;

use kms_client::{Client, ClientBuilder, Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::builder;
use crate::fake::{Ca, Fake, Pair};

async fn fails(builder: ClientBuilder, kind: ErrorKind, reason: &str) -> Error {
    let error = builder.connect().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (kind, Some(reason)), "{error:?}");
    assert!(std::error::Error::source(&error).is_some() && error.hint().is_some());
    // What TLS refuses, it refuses again.
    let passes = kind == ErrorKind::Connection;
    assert_eq!((error.is_retryable(), error.attempts() > 1), (passes, passes && reason != "CONNECT_TIMEOUT"));
    error
}

pub fn settings(address: String, ca: &Ca, identity: Pair) -> ClientBuilder {
    Client::builder(address).ca_pem(ca.pem()).identity_pem(identity.certificate, identity.key)
}

#[tokio::test]
async fn nobody_listens() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error =
        fails(settings(format!("https://{address}"), &ca, ca.client()), ErrorKind::Connection, "CONNECTION_REFUSED")
            .await;
    assert_eq!(error.message(), format!("cannot reach https://{address}: connection refused"));
}

#[tokio::test]
async fn the_server_is_of_another_ca() {
    let fake = Fake::start().await;
    // Also when it has the same name, as a CA that was made anew has.
    for other in [Ca::new(), Ca::named("another CA")] {
        let error = fails(builder(&fake).ca_pem(other.pem()), ErrorKind::Tls, "SERVER_CA_UNKNOWN").await;
        assert!(error.message().contains("not issued by a CA that is trusted here"), "{error}");
    }
}

#[tokio::test]
async fn the_server_has_another_name() {
    let fake = Fake::start().await;
    let error = fails(builder(&fake).server_name("kms.example.com"), ErrorKind::Tls, "SERVER_NAME_MISMATCH").await;
    assert!(error.message().contains("certificate is for another name"), "{error}");
}

#[tokio::test]
async fn the_certificate_of_the_server_has_expired() {
    let fake = Fake::start_until(2021).await;
    let error = fails(builder(&fake), ErrorKind::Tls, "SERVER_CERTIFICATE_EXPIRED").await;
    assert!(error.message().contains("has expired"), "{error}");
}

#[tokio::test]
async fn the_server_does_not_speak_tls() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = fails(settings(format!("https://{address}"), &ca, ca.client()), ErrorKind::Tls, "NO_TLS").await;
    assert!(error.message().contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn the_server_hangs_up() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let error =
        fails(settings(format!("https://{address}"), &ca, ca.client()), ErrorKind::Connection, "CONNECTION_CLOSED")
            .await;
    assert_eq!(error.message(), format!("the connection to https://{address} was closed"));
}

#[tokio::test]
async fn the_server_says_nothing() {
    let ca = Ca::new();
    // The kernel accepts; nobody answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = settings(format!("https://{address}"), &ca, ca.client()).timeout(Duration::from_millis(300));
    let error = fails(settings, ErrorKind::Connection, "CONNECT_TIMEOUT").await;
    assert!(error.message().contains("no connection within the time limit"), "{error}");
    drop(listener);
}

#[tokio::test]
async fn a_private_key_that_is_not_the_certificates_is_a_matter_of_settings() {
    let fake = Fake::start().await;
    let (mine, other) = (fake.ca.client(), fake.ca.client());
    let error = builder(&fake).identity_pem(mine.certificate, other.key).connect_lazy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.hint().unwrap().contains("private key is the certificate's"), "{error}");
}

#[tokio::test]
async fn without_an_operator_address_there_is_no_status() {
    let fake = Fake::start().await;
    let kms = settings(fake.address.clone(), &fake.ca, fake.ca.client()).connect_lazy().unwrap();
    assert_eq!(kms.status().await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn files_are_read_and_one_that_is_missing_is_named() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let identity = fake.ca.client();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca = write("ca.pem", &fake.ca.pem());
    let certificate = write("me.pem", &identity.certificate);
    let missing = folder.path().join("no.key");
    let files = |key| Client::builder(&fake.address).ca_file(&ca).identity_files(&certificate, key);
    let error = files(missing).connect_lazy().unwrap_err();
    assert!(
        error.message().starts_with("cannot read the private key ") && error.message().contains("no.key"),
        "{error}"
    );
    files(write("me.key", &identity.key)).connect().await.unwrap();
}
