//! What TLS refuses, as a person is told it: what, why, what to do. The servers are rustls'.

use tokio_rustls::rustls::CertificateError;

use crate::World;
use crate::fake::{Ca, refusing};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_certificate_is_told_with_its_reason() {
    let world = World::new().await;
    for (why, message, reason, hint) in [
        (
            CertificateError::Expired,
            "refused the client certificate: it has expired",
            "CLIENT_CERTIFICATE_EXPIRED (UNAUTHENTICATED): received fatal alert: CertificateExpired",
            "renew the client certificate",
        ),
        (
            CertificateError::UnknownIssuer,
            "it was not issued by a CA that the server trusts",
            "CLIENT_CA_UNKNOWN (UNAUTHENTICATED): received fatal alert: UnknownCA",
            "take a certificate of the CA that the server trusts",
        ),
        (
            CertificateError::Revoked,
            "it was revoked",
            "CLIENT_CERTIFICATE_REVOKED (UNAUTHENTICATED): received fatal alert: CertificateRevoked",
            "ask whoever runs the CA",
        ),
        (
            CertificateError::BadEncoding,
            "refused the client certificate",
            "CLIENT_CERTIFICATE_REFUSED (UNAUTHENTICATED): received fatal alert: BadCertificate",
            "for client authentication",
        ),
    ] {
        let address = refusing::start(&world.fake.ca, why).await;
        let ran = world.run(&format!("whoami --address {address}")).await;
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert!(lines[0].starts_with(&format!("error: {address} ")) && lines[0].contains(message), "{lines:?}");
        assert_eq!(lines[1], format!("reason: {reason}"));
        assert!(lines[2].starts_with("hint: ") && lines[2].contains(hint), "{lines:?}");
        assert_eq!(lines.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_right_one_is_told() {
    let world = World::new().await;
    world.write("foreign.pem", Ca::new().pem().as_bytes());
    let http1 = refusing::start_speaking(&world.fake.ca, b"http/1.1").await;
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_address = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut tcp, _)) = plain.accept() {
            let _ = std::io::Write::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = std::io::Read::read_to_end(&mut tcp, &mut Vec::new());
        }
    });
    for (line, reason) in [
        ("whoami --ca-file foreign.pem".to_owned(), "SERVER_CA_UNKNOWN (TLS): invalid peer certificate"),
        ("whoami --server-name kms.example.com".to_owned(), "SERVER_NAME_MISMATCH (TLS): invalid peer certificate"),
        (format!("whoami --address {http1}"), "NO_HTTP2 (TLS): "),
        (format!("whoami --address {plain_address}"), "NO_TLS (TLS): received corrupt message"),
        ("whoami --address https://kms.invalid:1".to_owned(), "HOST_UNKNOWN (CONNECTION): "),
    ] {
        let ran = world.run(&line).await;
        assert_eq!(ran.code, 6, "{line}: {}", ran.stderr);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert!(lines[0].starts_with("error: cannot reach https://"), "{line}: {lines:?}");
        assert!(lines[1].starts_with(&format!("reason: {reason}")), "{line}: {lines:?}");
        assert!(lines[2].starts_with("hint: ") && lines.len() == 3, "{line}: {lines:?}");
    }
}
