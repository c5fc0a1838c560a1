//! What fuzzing calls of the files that TLS is made of, of tokens and of the keys of their issuers.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::jwks::KeySet;
use super::token::Read;
use super::{IdentityMapping, identify, pem};

/// A PEM file of certificates, of a key or of revocation lists.
pub(crate) fn pem(data: &[u8]) {
    let path = Path::new("some.pem");
    let certificates = pem::all::<CertificateDer<'static>>(path, data);
    for certificate in certificates.iter().flatten() {
        drop(identify(certificate, &IdentityMapping::default()));
    }
    drop(pem::all::<PrivateKeyDer<'static>>(path, data));
    drop(pem::all::<CertificateRevocationListDer<'static>>(path, data));
    // An error is shown to people.
    drop(certificates.map_err(|error| error.to_string()));
}

/// A set of keys, as an issuer serves it.
pub(crate) fn jwks(data: &[u8]) {
    // An error is shown to people.
    drop(KeySet::read(data).map_err(|error| error.to_string()));
}

/// A token, as a caller sends it: all that is read of it before anything of it is believed.
pub(crate) fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A part each, so that what is found is in what it says and not in how that is encoded.
    let encoded: Vec<String> = text.splitn(3, '.').map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
    for token in [text.to_owned(), encoded.join(".")] {
        if let Ok(read) = Read::new(&token) {
            assert!(!format!("{:?}", read.issuer()).is_empty());
        }
    }
}
