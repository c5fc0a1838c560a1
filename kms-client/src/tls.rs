//! Whom to trust and who we are: certificates, read again when their files change.
//!
//! The CA file, and the pair of certificate and key, are taken over each as a whole or not at all: what cannot be used
//! leaves in force what was there, with a warning and until it is mended. A connection keeps what it was made with.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{Digest, SHA256, digest};
use tokio_rustls::rustls::crypto::ring as provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::Error;

/// Something in PEM: a file, or what it would hold.
pub(crate) enum Pem {
    File(PathBuf),
    Bytes(Zeroizing<Vec<u8>>),
}

/// Where certificates come from.
pub(crate) struct Sources {
    pub(crate) ca: Pem,
    pub(crate) certificate: Pem,
    pub(crate) key: Pem,
}

/// The certificates in force.
pub(crate) struct Credentials {
    sources: Sources,
    state: Mutex<State>,
}

struct State {
    roots: Part<Arc<RootCertStore>>,
    identity: Part<Arc<CertifiedKey>>,
    config: Arc<ClientConfig>,
    next_look: Duration,
}

/// One thing that is replaced as a whole.
struct Part<T> {
    value: T,
    /// What was last seen in its files, also if it could not be used: it is told once.
    seen: Seen,
    problem: Option<String>,
}

/// The digest of files; of the failure, where they cannot be read.
type Seen = [u8; 32];

impl Credentials {
    /// Reads them for the first time, when everything must be right.
    pub(crate) fn load(sources: Sources) -> Result<Self, Error> {
        let ca = sources.ca.read("CA certificate")?;
        let roots = Part { value: parse_roots(&sources, &ca)?, seen: seen(&[&ca]), problem: None };
        let (certificate, key) = sources.read_identity()?;
        let value = parse_identity(&sources, &certificate, &key)?;
        let identity = Part { value, seen: seen(&[&certificate, &key]), problem: None };
        let config = config(&roots.value, &identity.value);
        Ok(Self { sources, state: Mutex::new(State { roots, identity, config, next_look: LOOK_INTERVAL }) })
    }

    /// Returns what a new connection uses. Reads the files, so it blocks.
    pub(crate) fn refresh(&self) -> Arc<ClientConfig> {
        let mut state = self.state();
        let State { roots, identity, config: current, .. } = &mut *state;
        let ca = self.sources.ca.read("CA certificate");
        let changed_roots = roots.replace(ca.map(|ca| (seen(&[&ca]), ca)), |ca| parse_roots(&self.sources, &ca));
        let pair = self.sources.read_identity();
        let changed_identity = identity
            .replace(pair.map(|(certificate, key)| (seen(&[&certificate, &key]), (certificate, key))), |pair| {
                parse_identity(&self.sources, &pair.0, &pair.1)
            });
        if changed_roots || changed_identity {
            *current = config(&roots.value, &identity.value);
            tracing::info!("certificates were read again: new connections use them");
        }
        current.clone()
    }

    /// Returns whether it is time to look at the files; once, and then not for a while.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        if !self.sources.has_files() {
            return false;
        }
        let mut state = self.state();
        let due = now >= state.next_look;
        if due {
            state.next_look = now + LOOK_INTERVAL;
        }
        due
    }

    /// Returns what is wrong with the files as they are now, while what was there before is still used.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.state();
        let problems = [state.roots.problem.as_deref(), state.identity.problem.as_deref()];
        let problems: Vec<&str> = problems.into_iter().flatten().collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in there is half done after a panic: each part is replaced by one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Part<T> {
    /// Takes over what is new and good. Returns whether it did.
    fn replace<B>(&mut self, read: Result<(Seen, B), Error>, parse: impl FnOnce(B) -> Result<T, Error>) -> bool {
        let (now_seen, parsed) = match read {
            Ok((now_seen, _)) if now_seen == self.seen => return false,
            Ok((now_seen, bytes)) => (now_seen, parse(bytes)),
            Err(error) => (seen(&[error.message().as_bytes()]), Err(error)),
        };
        if now_seen == self.seen {
            return false;
        }
        self.seen = now_seen;
        match parsed {
            Ok(value) => {
                self.value = value;
                self.problem = None;
                true
            }
            Err(error) => {
                let problem = error.message().to_owned();
                tracing::warn!(problem, "a certificate file cannot be used: what it held before is used on");
                self.problem = Some(problem);
                false
            }
        }
    }
}

impl Sources {
    fn read_identity(&self) -> Result<(Bytes, Bytes), Error> {
        Ok((self.certificate.read("client certificate")?, self.key.read("private key")?))
    }

    fn has_files(&self) -> bool {
        [&self.ca, &self.certificate, &self.key].iter().any(|pem| matches!(pem, Pem::File(_)))
    }
}

impl Pem {
    fn read(&self, noun: &str) -> Result<Bytes, Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => {
                let mut pem = Zeroizing::new(Vec::with_capacity(16 << 10));
                std::fs::File::open(path)
                    .and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut pem))
                    .map_err(|error| Error::config(format!("cannot read the {noun} {}: {error}", path.display())))?;
                Ok(pem)
            }
        }
    }
}

/// What a source holds, a key perhaps.
type Bytes = Zeroizing<Vec<u8>>;

/// What is told of a source.
struct Named<'a>(&'a Pem, &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Pem::Bytes(_) => f.write_str(self.1),
            Pem::File(path) => write!(f, "{}", path.display()),
        }
    }
}

fn certificates(pem: &[u8], name: &Named<'_>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        // A block that is no certificate would be skipped in silence.
        Ok(certificates) if certificates.is_empty() => Err(Error::config(format!("{name} has no certificate in PEM"))),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(Error::config(format!("{name} is not whole: {error}"))),
    }
}

fn parse_roots(sources: &Sources, pem: &[u8]) -> Result<Arc<RootCertStore>, Error> {
    let name = Named(&sources.ca, "the CA certificate");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, &name)? {
        roots.add(certificate).map_err(|error| unusable(&name, error))?;
    }
    Ok(Arc::new(roots))
}

fn parse_identity(sources: &Sources, certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let name = Named(&sources.certificate, "the client certificate");
    let chain = certificates(certificate, &name)?;
    let key_name = Named(&sources.key, "the private key");
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| Error::config(format!("{key_name} has no private key in PEM")))?;
    let pair = CertifiedKey::from_der(chain, key, &provider::default_provider()).map_err(|error| {
        Error::config(format!("{name} and {key_name} cannot be used together"))
            .with_hint("check that they are whole, and that the private key is the certificate's")
            .caused_by(error)
    })?;
    Ok(Arc::new(pair))
}

fn unusable(name: &Named<'_>, error: tokio_rustls::rustls::Error) -> Error {
    Error::config(format!("{name} has a certificate that cannot be used: {error}")).caused_by(error)
}

fn config(roots: &Arc<RootCertStore>, identity: &Arc<CertifiedKey>) -> Arc<ClientConfig> {
    // Named, so that no other crate of the program decides which provider it is.
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots.clone())
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Arc::new(config)
}

fn seen(parts: &[&[u8]]) -> Seen {
    let each: Vec<u8> = parts.iter().flat_map(|part| bytes(&digest(&SHA256, part))).collect();
    bytes(&digest(&SHA256, &each))
}

fn bytes(digest: &Digest) -> Seen {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// HTTP/2, as ALPN names it.
pub(crate) const HTTP2: &[u8] = b"h2";
/// How often the files are looked at while nothing is connected anew, so that a broken one is told in time.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// More than any chain of certificates has.
const PEM_BYTES_MAX: u64 = 1 << 20;
