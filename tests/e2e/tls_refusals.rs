//! Whom TLS does not let in learns why by an alert, and the operator by metric and log.
//!
//! The clients here are as eager as those of TLS 1.3 may be: they send before they have read, so that
//! a connection that is closed too early is reset, and the alert lost.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kms_tests::request::encrypt;
use kms_tests::{Authority, Daemon, Identity, patiently, run_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error, RootCertStore, SupportedProtocolVersion, version};

use crate::{ACME_KEY, Expected, World};

static TLS12: [&SupportedProtocolVersion; 1] = [&version::TLS12];
static TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// A client that TLS does not let in, and what it shall be told.
struct Case {
    what: &'static str,
    identity: Option<Identity>,
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: &'static [u8],
    alert: AlertDescription,
    reason: &'static str,
}

#[tokio::test]
async fn every_refusal_is_an_alert_that_arrives_and_a_reason_that_is_counted() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    let (ours, foreign) = (site.authority(), Authority::new()?);
    let app = site.principal("app");
    let case = |what, identity, alert, reason| Case { what, identity, versions: &TLS13, alpn: b"h2", alert, reason };
    use AlertDescription as A;
    let cases = [
        case("no certificate", None, A::CertificateRequired, "no_certificate"),
        case("an expired one", Some(ours.expired_client(&app)?), A::CertificateExpired, "certificate_expired"),
        case("a foreign one", Some(foreign.client(&app)?), A::UnknownCA, "unknown_authority"),
        case("one for servers", Some(ours.server_with(&app)?), A::UnsupportedCertificate, "wrong_purpose"),
        Case { versions: &TLS12, ..case("TLS 1.2", Some(ours.client(&app)?), A::ProtocolVersion, "protocol_version") },
        Case { alpn: b"http/1.1", ..case("HTTP/1", Some(ours.client(&app)?), A::NoApplicationProtocol, "no_http2") },
    ];
    let mut expected = Expected::of("TLS refusals");
    for Case { what, identity, versions, alpn, alert, reason } in cases {
        for address in [world.daemon.services(), world.daemon.operator()] {
            let before = refused(&world.daemon, reason).await?;
            // One connection may be lucky.
            for _ in 0..8 {
                let got = alert_of(address, &ours.pem(), identity.as_ref(), versions, alpn).await?;
                expected.row(got == Some(alert), what, &format!("{alert:?}"), &format!("{got:?}"));
            }
            counted(&world.daemon, reason, before + 8.0).await?;
        }
    }
    expected.check();
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    // The log has told of the first ones, with their reason.
    let said = site.output().text();
    for reason in ["no_certificate", "certificate_expired"] {
        ensure!(said.contains(&format!(r#""reason":"{reason}""#)), "the log does not say {reason}");
    }
    let told = said.matches("TLS refused a connection").count();
    println!("96 refusals: {told} lines in the log");
    ensure!(told <= 40, "{told} lines");
    world.finish().await
}

#[tokio::test]
async fn what_is_no_tls_and_who_says_nothing_is_closed_without_a_reset() -> Result<()> {
    let world = World::new().await?;
    let address = world.daemon.services();
    let before = refused(&world.daemon, "not_tls").await?;
    let plain: [&[u8]; 3] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0; 60_000],
    ];
    for greeting in plain {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(greeting).await?;
        let mut answer = Vec::new();
        // An error here would be a reset.
        patiently("the end of a connection without TLS", stream.read_to_end(&mut answer)).await??;
        ensure!(answer.is_empty() || answer[0] == 21, "not an alert: {answer:?}");
    }
    counted(&world.daemon, "not_tls", before + 3.0).await?;

    let (timeout, closed) = (refused(&world.daemon, "timeout").await?, refused(&world.daemon, "closed").await?);
    let mut silent = TcpStream::connect(address).await?;
    drop(TcpStream::connect(address).await?);
    counted(&world.daemon, "closed", closed + 1.0).await?;
    let mut answer = Vec::new();
    patiently("the end of a silent connection", silent.read_to_end(&mut answer)).await??;
    ensure!(answer.is_empty());
    counted(&world.daemon, "timeout", timeout + 1.0).await?;

    // A client that does not know our authority says so.
    let before = refused(&world.daemon, "refused_by_peer").await?;
    let got = alert_of(address, &Authority::new()?.pem(), None, &TLS13, b"h2").await;
    ensure!(got.is_err());
    counted(&world.daemon, "refused_by_peer", before + 1.0).await?;
    world.finish().await
}

/// The same as another implementation sees it.
#[tokio::test]
async fn openssl_shows_the_alerts_too() -> Result<()> {
    let world = World::new().await?;
    let site = world.daemon.site();
    let foreign = Authority::new()?.client(&site.principal("app"))?;
    let expired = site.authority().expired_client(&site.principal("app"))?;
    for (name, identity) in [("foreign", &foreign), ("expired", &expired)] {
        site.write(&format!("{name}.pem"), &identity.certificate)?;
        site.write_secret(&format!("{name}.key"), &identity.key)?;
    }
    for (arguments, alert) in [
        ("-alpn h2", 116),
        ("-alpn h2 -cert foreign.pem -key foreign.key", 48),
        ("-alpn h2 -cert expired.pem -key expired.key", 45),
        ("-alpn h2 -tls1_2", 70),
        ("-alpn http/1.1", 120),
    ] {
        let mut openssl = tokio::process::Command::new("openssl");
        openssl.args(["s_client", "-ign_eof", "-CAfile", "ca.pem", "-connect", world.daemon.services()]);
        openssl.args(arguments.split(' ')).current_dir(site.dir());
        let ended = match run_with(&mut openssl, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await {
            Ok(ended) => ended,
            Err(error) if error.root_cause().to_string().contains("No such file") => {
                println!("openssl is not here");
                break;
            }
            Err(error) => return Err(error),
        };
        let wanted = format!("SSL alert number {alert}");
        ensure!(ended.stderr.contains(&wanted), "{arguments}: no {wanted:?} in {}", ended.stderr);
    }
    world.finish().await
}

/// Connects, sends before it reads, and returns the alert that it gets, if it gets one.
async fn alert_of(
    address: &str,
    ca: &str,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[u8],
) -> Result<Option<AlertDescription>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?,
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connecting =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, stream).into_fallible();
    let (error, mut stream) = match patiently("a handshake", connecting).await? {
        Err(refused) => refused,
        Ok(mut stream) => {
            // More than what the server reads at once, so that something lies unread when it closes.
            let sent = async {
                stream.write_all(&[0; 100_000]).await?;
                stream.flush().await
            };
            patiently("what is sent at once", sent).await?.context("who sends is cut off before it can read")?;
            let read = patiently("the answer", stream.read(&mut [0; 64])).await?;
            (read.err().context("it was let in, or closed without a word")?, stream.into_inner().0)
        }
    };
    let alert = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Some(*alert),
        Some(other) => return Err(anyhow::anyhow!("{other}")),
        None => None,
    };
    // Behind the alert there is an end and no reset, which would have thrown it away elsewhere.
    let rest = patiently("the end of the connection", stream.read_to_end(&mut Vec::new())).await?;
    rest.context("a reset behind the alert")?;
    Ok(alert)
}

async fn refused(daemon: &Daemon, reason: &str) -> Result<f64> {
    daemon.metric(&format!("kms_tls_refused_total{{reason=\"{reason}\"}}")).await
}

/// Waits until so many were counted: a client may know before the server has counted it.
async fn counted(daemon: &Daemon, reason: &str, count: f64) -> Result<()> {
    let reached = async {
        while refused(daemon, reason).await? < count {}
        anyhow::Ok(())
    };
    patiently(&format!("{count} refusals as {reason}"), reached).await??;
    ensure!(refused(daemon, reason).await? == count, "more were counted than there were");
    Ok(())
}
