//! What TLS refuses has a reason of its own, also when the server's alert comes after the client's handshake, as it
//! does in TLS 1.3. The servers here are rustls', and send the alerts that it sends.

use kms_client::{Error, ErrorKind, KeyRef};
use tokio_rustls::rustls::CertificateError;

use crate::connection::settings;
use crate::fake::{Ca, Fake, refusing};

fn refused(error: &Error, reason: &str) {
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unauthenticated, Some(reason)), "{error:?}");
    assert!(error.message().contains("refused the client certificate"), "{error}");
    assert!(error.hint().is_some() && !error.is_retryable(), "{error}");
    assert_eq!(error.attempts(), 1, "it would be refused again");
    let cause = std::error::Error::source(error).unwrap().to_string();
    assert!(cause.starts_with("received fatal alert"), "{cause}");
}

#[tokio::test]
async fn every_alert_about_our_certificate_is_told_apart() {
    let ca = Ca::new();
    for (why, reason) in [
        (CertificateError::Expired, "CLIENT_CERTIFICATE_EXPIRED"),
        (CertificateError::UnknownIssuer, "CLIENT_CA_UNKNOWN"),
        (CertificateError::Revoked, "CLIENT_CERTIFICATE_REVOKED"),
        (CertificateError::BadEncoding, "CLIENT_CERTIFICATE_REFUSED"),
        (CertificateError::BadSignature, "CLIENT_CERTIFICATE_REFUSED"),
        (CertificateError::InvalidPurpose, "CLIENT_CERTIFICATE_REFUSED"),
        (CertificateError::ApplicationVerificationFailure, "CLIENT_CERTIFICATE_REFUSED"),
    ] {
        let address = refusing::start(&ca, why).await;
        refused(&settings(address, &ca, ca.client()).connect().await.unwrap_err(), reason);
    }
}

#[tokio::test]
async fn an_alert_is_read_also_where_a_reset_follows_it() {
    let ca = Ca::new();
    let address = refusing::start_resetting(&ca, CertificateError::Expired).await;
    for _ in 0..20 {
        let error = settings(address.clone(), &ca, ca.client()).connect().await.unwrap_err();
        refused(&error, "CLIENT_CERTIFICATE_EXPIRED");
    }
}

#[tokio::test]
async fn every_call_at_once_on_a_refused_connection_is_told_why() {
    let ca = Ca::new();
    let address = refusing::start(&ca, CertificateError::Expired).await;
    let kms = settings(address, &ca, ca.client()).connect_lazy().unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let kms = kms.clone();
        calls.spawn(async move { kms.get_key(&KeyRef::new("acme", "app").unwrap()).await.unwrap_err() });
    }
    for error in calls.join_all().await {
        refused(&error, "CLIENT_CERTIFICATE_EXPIRED");
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_by_the_service_too() {
    let fake = Fake::start().await;
    let error = settings(fake.address.clone(), &fake.ca, Ca::named("another CA").client()).connect().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Unauthenticated, 1), "{error:?}");
}

#[tokio::test]
async fn what_speaks_tls_but_not_http2_is_told() {
    let ca = Ca::new();
    for protocol in [&b"http/1.1"[..], b""] {
        let address = refusing::start_speaking(&ca, protocol).await;
        let error = settings(address, &ca, ca.client()).connect().await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Tls, Some("NO_HTTP2")), "{error:?}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let ca = Ca::new();
    let error = settings("https://kms.invalid:1".to_owned(), &ca, ca.client()).connect().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Connection, Some("HOST_UNKNOWN")), "{error:?}");
}
