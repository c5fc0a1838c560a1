//! The client's settings: where the server is, whom to trust, who we are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};
use zeroize::Zeroizing;

use crate::Error;
use crate::client::{Client, Target};

/// Settings of a [`Client`]. Made by [`Client::builder`].
///
/// Needed are a CA ([`ca_file`](Self::ca_file) or [`ca_pem`](Self::ca_pem)) and an identity
/// ([`identity_files`](Self::identity_files) or [`identity_pem`](Self::identity_pem)). Files are read once, when the
/// client is made: a renewed certificate needs a new client.
#[must_use]
pub struct ClientBuilder {
    address: String,
    operator_address: Option<String>,
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
    timeout: Duration,
}

enum Pem {
    File(PathBuf),
    Bytes(Zeroizing<Vec<u8>>),
}

impl ClientBuilder {
    pub(crate) fn new(address: String) -> Self {
        Self { address, operator_address: None, ca: None, identity: None, server_name: None, timeout: TIMEOUT_DEFAULT }
    }

    /// Sets the file with the certificates, in PEM, of the CAs that may have issued the server's certificate. No
    /// other CA is trusted, not even the system's.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(path.into()));
        self
    }

    /// As [`ca_file`](Self::ca_file), from memory.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Pem::Bytes(Zeroizing::new(pem.into())));
        self
    }

    /// Sets the files, in PEM, of the client's certificate (with its intermediates) and of its private key.
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// As [`identity_files`](Self::identity_files), from memory.
    pub fn identity_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let [certificate, key] = [certificate.into(), key.into()].map(|pem| Pem::Bytes(Zeroizing::new(pem)));
        self.identity = Some((certificate, key));
        self
    }

    /// Sets the name that the server's certificate must be for, where the address has another.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets the address of the operator listener, which [`Client::status`] asks. The same CA, identity and server
    /// name hold for it.
    pub fn operator_endpoint(mut self, address: impl Into<String>) -> Self {
        self.operator_address = Some(address.into());
        self
    }

    /// Sets the time limit of every call, connecting included; 2 seconds unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the client and tries it: connects, and asks the server whom it takes us for. Fails now if the server
    /// cannot be reached, is not the right one, or does not accept our certificate. (In TLS 1.3 the last is told only
    /// after the handshake, so that connecting alone would not notice it.)
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.connect_lazy()?;
        client.whoami().await?;
        Ok(client)
    }

    /// Makes the client without connecting: the first call does. Fails only if the settings are wrong.
    ///
    /// To be called inside a tokio runtime, which the client then lives on.
    pub fn connect_lazy(self) -> Result<Client, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::config("a client can be made only inside a tokio runtime"));
        }
        if self.timeout.is_zero() {
            return Err(Error::config("the time limit is zero: no call could succeed"));
        }
        let tls = self.tls()?;
        let service = self.target(&self.address, &tls)?;
        let operator = self.operator_address.as_deref().map(|address| self.target(address, &tls)).transpose()?;
        Ok(Client::new(service, operator, self.timeout))
    }

    fn tls(&self) -> Result<ClientTlsConfig, Error> {
        let Some(ca) = &self.ca else {
            return Err(Error::config("no CA certificate is set").with_hint("it says which servers to trust"));
        };
        let Some((certificate, key)) = &self.identity else {
            return Err(Error::config("no client certificate is set")
                .with_hint("the service knows its callers by their certificates"));
        };
        let ca_pem = ca.read("CA certificate")?;
        // A block that is no certificate would be skipped in silence, and every server distrusted.
        if !contains(&ca_pem, "-----BEGIN CERTIFICATE-----") {
            return Err(Error::config(format!("{} has no certificate in PEM", ca.name("the CA certificate"))));
        }
        let certificate_pem = certificate.read("client certificate")?;
        if !contains(&certificate_pem, "-----BEGIN CERTIFICATE-----") {
            let name = certificate.name("the client certificate");
            return Err(Error::config(format!("{name} has no certificate in PEM")));
        }
        let key_pem = key.read("private key")?;
        if !contains(&key_pem, "PRIVATE KEY-----") {
            return Err(Error::config(format!("{} has no private key in PEM", key.name("the private key"))));
        }
        let identity = Identity::from_pem(certificate_pem.as_slice(), key_pem.as_slice());
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca_pem.as_slice()))
            .identity(identity)
            .timeout(self.connect_timeout());
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        Ok(tls)
    }

    fn target(&self, address: &str, tls: &ClientTlsConfig) -> Result<Target, Error> {
        let uri = parse_address(address)?;
        let endpoint = Endpoint::from(uri)
            .tls_config(tls.clone())
            .map_err(|error| {
                Error::config("the certificates, the private key or the server name cannot be used")
                    .with_hint("check that they are whole, and that the private key is the certificate's")
                    .caused_by(error)
            })?
            .user_agent(concat!("kms-client/", env!("CARGO_PKG_VERSION")))
            .expect("it is a good header")
            .connect_timeout(self.connect_timeout())
            // Finds a dead connection by itself, and keeps a busy one alive through NAT.
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        Ok(Target { address: address.to_owned(), channel: endpoint.connect_lazy() })
    }

    /// A little less than a call has, so that the error says that the server was not reached, not only that it did
    /// not answer.
    fn connect_timeout(&self) -> Duration {
        self.timeout.mul_f32(0.75)
    }
}

impl Pem {
    fn read(&self, noun: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => read_file(path)
                .map_err(|error| Error::config(format!("cannot read the {noun} {}: {error}", path.display()))),
        }
    }

    fn name(&self, noun: &str) -> String {
        match self {
            Self::Bytes(_) => noun.to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut pem = Zeroizing::new(Vec::with_capacity(16 << 10));
    std::fs::File::open(path)?.take(PEM_BYTES_MAX).read_to_end(&mut pem)?;
    Ok(pem)
}

fn contains(pem: &[u8], text: &str) -> bool {
    pem.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Takes `https://host` or `https://host:port`, and nothing besides.
fn parse_address(address: &str) -> Result<Uri, Error> {
    const FORM: &str = "an address is https://host:port";
    let uri: Uri =
        address.parse().map_err(|_| Error::config(format!("{address:?} is not an address")).with_hint(FORM))?;
    let refuse = |why: &str| Err(Error::config(format!("{address:?} {why}")).with_hint(FORM));
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => return refuse("is not encrypted: the service is reached over mutual TLS only"),
        _ => return refuse("does not begin with https://"),
    }
    if uri.host().is_none_or(str::is_empty) {
        return refuse("names no host");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refuse("names a user: the caller is known by its certificate");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return refuse("has a path");
    }
    Ok(uri)
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("address", &self.address)
            .field("operator_address", &self.operator_address)
            .field("server_name", &self.server_name)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// More than any chain of certificates has.
const PEM_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn only_https_with_a_host_is_an_address() {
        for good in ["https://kms", "https://kms:8443", "https://127.0.0.1:8443/", "https://[::1]:8443"] {
            parse_address(good).unwrap();
        }
        for bad in [
            "",
            "kms:8443",
            "kms",
            "http://127.0.0.1:1",
            "grpc://kms:1",
            "https://",
            "https://a b",
            "https://u@kms:1",
            "https://kms/path",
            "https://kms/?q",
            "unix:///run/kms.sock",
        ] {
            let error = parse_address(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let builder = || Client::builder("https://kms:8443");
        let certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let cases = [
            (builder(), "no CA certificate is set"),
            (builder().ca_pem("x"), "no client certificate is set"),
            (builder().ca_pem("x").identity_pem("", ""), "the CA certificate has no certificate in PEM"),
            (builder().ca_pem(certificate).identity_pem("x", ""), "the client certificate has no certificate in PEM"),
            (builder().ca_pem(certificate).identity_pem(certificate, "x"), "the private key has no private key in PEM"),
            (builder().ca_file("no/such.pem").identity_pem("", ""), "cannot read the CA certificate no/such.pem"),
            (builder().timeout(Duration::ZERO), "the time limit is zero"),
        ];
        for (builder, says) in cases {
            let error = builder.connect_lazy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{says}");
            assert!(error.message().starts_with(says), "{error}");
        }
    }

    #[test]
    fn outside_a_runtime_it_fails_and_does_not_panic() {
        let error = Client::builder("https://kms:8443").connect_lazy().unwrap_err();
        assert!(error.message().contains("tokio runtime"), "{error}");
    }

    #[test]
    fn debug_shows_no_key() {
        let builder = Client::builder("https://kms:8443").identity_pem("canary", "canary");
        assert!(!format!("{builder:?}").contains("canary"));
    }
}
