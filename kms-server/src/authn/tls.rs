//! The TLS side of the server: from PEM files to a configuration that demands a client certificate.
//!
//! Made anew at each reload; the old one stays if the new one is refused.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertRevocationListError, CertificateError, Error, InconsistentKeys, OtherError, RootCertStore, ServerConfig,
    version,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::pem;
use super::trust_domain::{ByTrustDomain, TrustDomainFiles};
use crate::crypto::sha256;
use crate::noun::UnixMillis;

/// Where the server's identity and its clients' authorities lie.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The server's certificate, followed by those of its intermediate authorities.
    pub cert_chain: PathBuf,
    /// The private key of that certificate. Nobody but its owner and group may read the file.
    pub key: PathBuf,
    /// The authorities that clients' certificates must come from.
    pub client_cas: Vec<PathBuf>,
    /// Their revocation lists. With any list given, every authority that signs a certificate in a
    /// client's chain needs one, and none may be past its next update: what cannot be checked is
    /// refused.
    pub crls: Vec<PathBuf>,
    /// Trust domains with authorities of their own, which the others vouch for no name of.
    pub trust_domains: Vec<TrustDomainFiles>,
    /// Whether clients may speak TLS 1.2. Off by default.
    pub allow_tls12: bool,
}

/// A file that is not taken: which, what is wrong with it, and what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsError {
    /// The file, if it is one file's fault.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl TlsError {
    pub(super) fn new(file: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for TlsError {}

/// The TLS side of the server, made of one reading of its files.
pub struct ServerTls {
    /// How to shake hands.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the server's own certificate, as `openssl x509 -fingerprint -sha256` shows it.
    pub certificate: [u8; 32],
    /// SHA-256 of all certificates of authorities, then all revocation lists, in their order; and of those of trust
    /// domains with their names.
    pub authorities: [u8; 32],
    clients: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Asks of a certificate that was shown before, its own first, whether it would be let in now.
    pub fn check_client(&self, chain: &[CertificateDer<'_>], now: UnixMillis) -> Result<(), CertificateError> {
        let (own, intermediates) = chain.split_first().ok_or(CertificateError::BadEncoding)?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now));
        match self.clients.verify_client_cert(own, intermediates, now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(error)) => Err(error),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error)))),
        }
    }
}

/// Makes the server's TLS configuration: TLS 1.3 with client certificates, HTTP/2 only.
pub fn server_tls(files: &TlsFiles) -> Result<ServerTls, TlsError> {
    let (cert_chain, key) = (pem::certificates(&files.cert_chain)?, pem::private_key(&files.key)?);
    let certificate = cert_chain.first().map(|own| sha256(own)).unwrap_or_default();
    let (clients, authorities) = client_verifier(files)?;
    let versions: &[_] = if files.allow_tls12 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| TlsError {
            file: None,
            what: format!("no cipher suite fits: {error}"),
            remedy: "this is a fault of this build".into(),
        })?
        .with_client_cert_verifier(Arc::clone(&clients))
        .with_single_cert(cert_chain, key)
        .map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::new(
                &files.key,
                format!("it is not the key of the first certificate in {}", files.cert_chain.display()),
                "give the key and the chain of one certificate, the server's own first",
            ),
            Error::InvalidCertificate(_) => TlsError::new(
                &files.cert_chain,
                format!("its first certificate cannot be used: {error}"),
                "have it issued again, for a server",
            ),
            other => TlsError::new(
                &files.key,
                format!("its private key cannot be used: {other}"),
                "use an ECDSA P-256 or P-384, Ed25519 or RSA (2048 bits or more) key",
            ),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption. A resumed session is not asked for its certificate again: what was revoked
    // or has expired since would come back in. A full handshake costs 200 us of a connection that
    // lives for minutes.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // No early data: it can be replayed. This is rustls's default, and must stay.
    config.max_early_data_size = 0;
    Ok(ServerTls { config: Arc::new(config), certificate, authorities, clients })
}

fn client_verifier(files: &TlsFiles) -> Result<(Arc<dyn ClientCertVerifier>, [u8; 32]), TlsError> {
    let (others, mut read) = verifier(&files.client_cas, &files.crls)?;
    let mut domains = HashMap::new();
    for TrustDomainFiles { name, ca, crls } in &files.trust_domains {
        let (verifier, bundle) = verifier(std::slice::from_ref(ca), crls)?;
        // Which bundle is whose is part of what is in force.
        read.extend_from_slice(&sha256(name.as_bytes()));
        read.extend_from_slice(&sha256(&bundle));
        domains.insert(name.clone(), verifier);
    }
    Ok((Arc::new(ByTrustDomain::new(others, domains)), sha256(&read)))
}

/// Returns what verifies by these authorities and lists, and all that was read of them.
fn verifier(authorities: &[PathBuf], lists: &[PathBuf]) -> Result<(Arc<dyn ClientCertVerifier>, Vec<u8>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut read: Vec<u8> = Vec::new();
    for path in authorities {
        for (number, certificate) in pem::certificates(path)?.into_iter().enumerate() {
            let number = number + 1;
            if !is_authority(&certificate) {
                // As a trust anchor it would be believed whatever it signed.
                let what = format!("certificate {number} in it is not an authority's");
                let remedy = "give the certificates of the authorities that sign your clients'";
                return Err(TlsError::new(path, what, remedy));
            }
            read.extend_from_slice(&certificate);
            roots.add(certificate).map_err(|error| {
                let what = format!("certificate {number} in it cannot be used: {error}");
                TlsError::new(path, what, "remove it, or have it issued again")
            })?;
        }
    }
    let mut crls = Vec::new();
    for path in lists {
        for crl in pem::revocation_lists(path)? {
            if !is_revocation_list(&crl) {
                let what = "a revocation list in it cannot be read";
                return Err(TlsError::new(path, what, "download it again"));
            }
            read.extend_from_slice(&crl);
            crls.push(crl);
        }
    }
    // Revocation is checked for the whole chain and an unknown status is refused, both by default.
    // A list past its next update is an unknown status too: whoever keeps the new one from us
    // would keep a revoked certificate alive.
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .with_crls(crls)
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| {
            use tokio_rustls::rustls::server::VerifierBuilderError;
            let (what, remedy) = match error {
                VerifierBuilderError::NoRootAnchors => (
                    "there is no authority for clients' certificates".to_owned(),
                    "name at least one file of authorities",
                ),
                VerifierBuilderError::InvalidCrl(error) => {
                    (format!("a revocation list cannot be used: {}", said(&error)), "download it again")
                }
                other => (format!("clients cannot be verified: {other}"), "check these files"),
            };
            TlsError { file: None, what, remedy: remedy.into() }
        })?;
    Ok((clients, read))
}

fn said(error: &CertRevocationListError) -> String {
    Error::InvalidCertRevocationList(error.clone()).to_string()
}

fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(rest, c)| rest.is_empty() && c.is_ca())
}

fn is_revocation_list(crl: &CertificateRevocationListDer<'_>) -> bool {
    CertificateRevocationList::from_der(crl).is_ok_and(|(rest, _)| rest.is_empty())
}

#[cfg(test)]
mod tests;
