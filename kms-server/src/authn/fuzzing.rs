//! What fuzzing calls of the files that TLS is made of.

use std::path::Path;

use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

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
