//! A server that speaks TLS as rustls does, and refuses every client's certificate for a reason that a test chooses.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use super::Ca;

/// Starts one, and returns its address.
pub async fn start(ca: &Ca, why: CertificateError) -> String {
    start_with(ca, Arc::new(Refusing::because(why)), b"h2", Parting::Orderly).await
}

/// Starts one that sends its alert and then resets the connection, as a server does that closes with bytes unread.
pub async fn start_resetting(ca: &Ca, why: CertificateError) -> String {
    start_with(ca, Arc::new(Refusing::because(why)), b"h2", Parting::Reset).await
}

/// Starts one that speaks another protocol than HTTP/2 inside of TLS, or none that it names.
pub async fn start_speaking(ca: &Ca, protocol: &[u8]) -> String {
    let anybody = tokio_rustls::rustls::server::WebPkiClientVerifier::no_client_auth();
    start_with(ca, anybody, protocol, Parting::Orderly).await
}

/// What follows the alert.
#[derive(Clone, Copy)]
enum Parting {
    /// The client may send on; it is the first to close.
    Orderly,
    Reset,
}

async fn start_with(ca: &Ca, verifier: Arc<dyn ClientCertVerifier>, protocol: &[u8], parting: Parting) -> String {
    let server = ca.server(4000);
    let chain = vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    if !protocol.is_empty() {
        config.alpn_protocols = vec![protocol.to_vec()];
    }
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut rest = Vec::new();
                // When it fails, the alert is sent.
                match (acceptor.accept(tcp).into_fallible().await, parting) {
                    (Ok(mut tls), _) => drop(tls.read_to_end(&mut rest).await),
                    (Err((_, tcp)), Parting::Reset) => tcp.set_zero_linger().unwrap(),
                    (Err((_, mut tcp)), Parting::Orderly) => {
                        let _ = tcp.shutdown().await;
                        let _ = tcp.read_to_end(&mut rest).await;
                    }
                }
            });
        }
    });
    address
}

#[derive(Debug)]
struct Refusing {
    why: CertificateError,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Refusing {
    fn because(why: CertificateError) -> Self {
        Self { why, algorithms: ring::default_provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for Refusing {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(Error::InvalidCertificate(self.why.clone()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
