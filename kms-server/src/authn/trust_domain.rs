//! Trust bundles: which authorities vouch for which names.
//!
//! ```toml
//! [[trust_domain]]
//! name = "example.com"
//! ca_file = "example.com.pem"
//! crl_files = ["example.com.crl"]
//! ```
//!
//! A certificate whose SPIFFE ID lies in such a domain is believed by that domain's authorities and lists alone. All others,
//! also those without a SPIFFE ID, are believed by the authorities of `tls.client_ca_file` alone, which vouch for no name in
//! a domain that has its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::identity::spiffe_id;
use crate::noun::Principal;
use crate::noun::principal::InvalidPrincipal;

/// The most trust domains with authorities of their own.
pub const TRUST_DOMAINS_MAX: usize = 256;

/// A trust domain and where its authorities lie: one `[[trust_domain]]` of the settings.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Form")]
pub struct TrustDomainFiles {
    /// Its name, such as `example.com`.
    pub name: String,
    /// The authorities that vouch for its names.
    pub ca: PathBuf,
    /// Their revocation lists.
    pub crls: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    name: String,
    ca_file: PathBuf,
    #[serde(default)]
    crl_files: Vec<PathBuf>,
}

/// The fields of the table, for who misspells one.
pub const FIELDS: [&str; 3] = ["name", "ca_file", "crl_files"];

/// A name that is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no name of a trust domain: {1}; write it like example.com")]
pub struct InvalidTrustDomain(String, InvalidPrincipal);

impl TryFrom<Form> for TrustDomainFiles {
    type Error = InvalidTrustDomain;

    fn try_from(Form { name, ca_file: ca, crl_files: crls }: Form) -> Result<Self, InvalidTrustDomain> {
        // A slash in it would be the beginning of a path.
        match format!("spiffe://{name}/x").parse::<Principal>() {
            Ok(principal) if principal.trust_domain() == name => Ok(Self { name, ca, crls }),
            Ok(_) => Err(InvalidTrustDomain(name, InvalidPrincipal::TrustDomain)),
            Err(error) => Err(InvalidTrustDomain(name, error)),
        }
    }
}

impl TrustDomainFiles {
    /// Takes paths as relative to a folder.
    pub fn relative_to(self, base: &Path) -> Self {
        let crls = self.crls.iter().map(|path| base.join(path)).collect();
        Self { ca: base.join(&self.ca), crls, ..self }
    }
}

/// Asks, for each certificate, the authorities that may vouch for its name.
#[derive(Debug)]
pub(super) struct ByTrustDomain {
    /// For every name without authorities of its own.
    others: Arc<dyn ClientCertVerifier>,
    domains: HashMap<String, Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
}

impl ByTrustDomain {
    pub(super) fn new(
        others: Arc<dyn ClientCertVerifier>,
        domains: HashMap<String, Arc<dyn ClientCertVerifier>>,
    ) -> Self {
        // A client may choose its certificate by these: it may come with any.
        let mut hints = others.root_hint_subjects().to_vec();
        hints.extend(domains.values().flat_map(|verifier| verifier.root_hint_subjects().iter().cloned()));
        Self { others, domains, hints }
    }

    fn of(&self, certificate: &CertificateDer<'_>) -> &Arc<dyn ClientCertVerifier> {
        // The one reading of its name, by which it becomes a principal too. One that names nobody is nobody's of a domain.
        let domain = spiffe_id(certificate).ok().flatten();
        domain.and_then(|principal| self.domains.get(principal.trust_domain())).unwrap_or(&self.others)
    }
}

/// Says of a certificate that none of our authorities has signed that its authority is unknown, also
/// where it has the name of one of ours: the client is told by the alert, and "decryption failed"
/// would send its owner looking for another fault than having made the authority anew.
impl ClientCertVerifier for ByTrustDomain {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.of(own).verify_client_cert(own, intermediates, now).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.of(certificate).verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.of(certificate).verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.others.requires_raw_public_keys()
    }
}
