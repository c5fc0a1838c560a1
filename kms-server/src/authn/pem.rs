//! Files in PEM form, read with a bound and with errors that name the file.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::tls::TlsError;

/// The largest file of certificates or keys.
const PEM_FILE_BYTES_MAX: u64 = 1 << 20;
/// The largest revocation list: those of large authorities have tens of thousands of entries.
const CRL_FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads all certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, PEM_FILE_BYTES_MAX)?;
    let found = all::<CertificateDer<'static>>(path, &bytes)?;
    if !found.is_empty() {
        return Ok(found);
    }
    Err(if holds(&bytes, b"PRIVATE KEY-----") {
        TlsError::new(path, "it holds a private key and no certificate", "swap the two settings")
    } else {
        TlsError::new(path, "it holds no certificate", EXPECT_CERTIFICATE)
    })
}

/// Reads the one private key of a file that nobody else can read or change.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = Zeroizing::new(read_with(path, PEM_FILE_BYTES_MAX, |mode| {
        // The group may read: that is how a service manager or Kubernetes hands a key to a user
        // who is not root. Nobody else may, and nobody but the owner may put another key there.
        if mode & 0o027 == 0 {
            return Ok(());
        }
        let what = format!("users other than its owner can read or change it (mode {mode:04o})");
        Err(TlsError::new(path, what, format!("chmod 0600 {}", path.display())))
    })?);
    let mut found = all::<PrivateKeyDer<'static>>(path, &bytes)?;
    match (found.pop(), found.is_empty()) {
        (Some(key), true) => Ok(key),
        (Some(_), false) => {
            let remedy = "leave only the key of the server's certificate";
            Err(TlsError::new(path, "it holds several private keys", remedy))
        }
        (None, _) if holds(&bytes, b"ENCRYPTED") => Err(TlsError::new(
            path,
            "its private key is encrypted",
            "decrypt it (openssl pkey) and protect the file by its mode",
        )),
        (None, _) => {
            Err(TlsError::new(path, "it holds no private key", "expected a PEM file with -----BEGIN PRIVATE KEY-----"))
        }
    }
}

/// Reads all revocation lists of a file, at least one.
pub(super) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found = all(path, &read(path, CRL_FILE_BYTES_MAX)?)?;
    if found.is_empty() {
        let remedy = "expected a PEM file with -----BEGIN X509 CRL-----";
        return Err(TlsError::new(path, "it holds no revocation list", remedy));
    }
    Ok(found)
}

const EXPECT_CERTIFICATE: &str = "expected a PEM file with -----BEGIN CERTIFICATE-----";

pub(super) fn all<T: PemObject>(path: &Path, bytes: &[u8]) -> Result<Vec<T>, TlsError> {
    T::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|_| {
        // The library's message may quote lines of the file, and the file may hold a key.
        let remedy = "copy it again; each -----BEGIN line needs its -----END line";
        TlsError::new(path, "it is not a well-formed PEM file", remedy)
    })
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TlsError> {
    read_with(path, bytes_max, |_| Ok(()))
}

// The mode is that of the file that is read, not of what the path names a moment before or later.
pub(super) fn read_with(
    path: &Path,
    bytes_max: u64,
    check_mode: impl FnOnce(u32) -> Result<(), TlsError>,
) -> Result<Vec<u8>, TlsError> {
    let failed = |error: std::io::Error| {
        let what = format!("it cannot be read: {error}");
        TlsError::new(path, what, "check the path and that this user may read it")
    };
    // Asked before opening, since opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(TlsError::new(path, "it is not a file", "give the path of a PEM file"));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_mode(metadata.mode() & 0o7777)?;
    // Reserved at once: a growing buffer leaves copies of a key behind.
    let reserve = metadata.len().min(bytes_max) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(reserve).unwrap_or(0));
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("it has more than {bytes_max} bytes");
        return Err(TlsError::new(path, what, "give the path of a PEM file"));
    }
    Ok(bytes)
}
