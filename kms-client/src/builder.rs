//! The client's settings: where the server is, whom to trust, who we are.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Endpoint, Uri};
use zeroize::Zeroizing;

use crate::Error;
use crate::call::Caller;
use crate::client::{Client, Target};
use crate::connect::{Connector, LastBreak};
use crate::endpoints::Endpoints;
use crate::random::OsRandom;
use crate::retry::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, Budget};
use crate::time::TokioTime;
use crate::tls::{Credentials, Pem, Sources};

/// Settings of a [`Client`]. Made by [`Client::builder`].
///
/// Needed are a CA ([`ca_file`](Self::ca_file) or [`ca_pem`](Self::ca_pem)) and an identity
/// ([`identity_files`](Self::identity_files) or [`identity_pem`](Self::identity_pem)). Files are read again when a
/// connection is made, and looked at every minute: a renewed certificate needs no new client. A file that cannot be used
/// leaves in force what it held before; [`Client::certificate_problem`] tells.
#[must_use]
pub struct ClientBuilder {
    addresses: Vec<String>,
    operator_address: Option<String>,
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
    timeout: Duration,
    attempts: u32,
}

impl ClientBuilder {
    pub(crate) fn new(address: String) -> Self {
        Self {
            addresses: vec![address],
            operator_address: None,
            ca: None,
            identity: None,
            server_name: None,
            timeout: TIMEOUT_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
        }
    }

    /// Adds another address of the same service. The first is asked until it cannot be reached or is leaving; then the
    /// next is, and so on in a circle. Nobody goes back to the first for its own sake.
    pub fn endpoint(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
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

    /// Sets the time limit of every call, connecting and repeating included; 2 seconds unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often a call is made that fails for a reason that may pass, the first time included: 1 to 5; 3 unless
    /// set. Waits grow from 20 ms to a second, or are what the server asks for. With 1, nothing is repeated but at
    /// another [`endpoint`](Self::endpoint).
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
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
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts) {
            return Err(Error::config(format!("{} attempts: it must be 1 to {ATTEMPTS_MAX}", self.attempts)));
        }
        let Some(ca) = self.ca else {
            return Err(Error::config("no CA certificate is set").with_hint("it says which servers to trust"));
        };
        let Some((certificate, key)) = self.identity else {
            return Err(Error::config("no client certificate is set")
                .with_hint("the service knows its callers by their certificates"));
        };
        let credentials = Arc::new(Credentials::load(Sources { ca, certificate, key })?);
        // A little less than a call has, so that the error says that the server was not reached, not only that it did
        // not answer; and each address has its share, so that there is time for the next.
        let connect_limit = |addresses: usize| self.timeout.mul_f32(0.75 / addresses as f32);
        let caller = |addresses: &[String]| -> Result<Caller<Arc<Target>>, Error> {
            let target = |address: &String| {
                target(address, self.server_name.as_deref(), &credentials, connect_limit(addresses.len()))
            };
            Ok(Caller {
                endpoints: Endpoints::new(addresses.iter().map(target).collect::<Result<_, _>>()?),
                budget: Budget::full(),
                attempts_max: self.attempts,
                limit: self.timeout,
                time: Arc::new(TokioTime::new()),
                random: Arc::new(OsRandom),
            })
        };
        let service = caller(&self.addresses)?;
        let operator = self.operator_address.map(|address| caller(&[address])).transpose()?;
        Ok(Client::new(service, operator, credentials))
    }
}

fn target(
    address: &str,
    server_name: Option<&str>,
    credentials: &Arc<Credentials>,
    limit: Duration,
) -> Result<Arc<Target>, Error> {
    let uri = parse_address(address)?;
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    let name = server_name.unwrap_or(&host);
    let server_name = ServerName::try_from(name.to_owned()).map_err(|error| {
        Error::config(format!("{name:?} cannot be the name of a server: {error}"))
            .with_hint("it is a DNS name or an IP address, as it stands in the server's certificate")
    })?;
    let last_break = LastBreak::default();
    let connector = Arc::new(Connector {
        host,
        port: uri.port_u16().unwrap_or(443),
        server_name,
        credentials: credentials.clone(),
        limit,
        last_break: last_break.clone(),
    });
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move { connector.connect().await }
    });
    // To tonic this is a plain connection, since TLS is made by the connector; requests say https all the same.
    let plain: Uri = format!("http://{}", uri.authority().map(|authority| authority.as_str()).unwrap_or_default())
        .parse()
        .expect("only the scheme is another");
    let channel = Endpoint::from(plain)
        .origin(uri)
        .user_agent(concat!("kms-client/", env!("CARGO_PKG_VERSION")))
        .expect("it is a good header")
        // Finds a dead connection by itself, and keeps a busy one alive through NAT.
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .connect_with_connector_lazy(connect);
    Ok(Arc::new(Target { address: address.to_owned(), channel, last_break }))
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
            .field("addresses", &self.addresses)
            .field("operator_address", &self.operator_address)
            .field("server_name", &self.server_name)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

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
        let certificate = rcgen::generate_simple_self_signed(["kms".to_owned()]).unwrap().cert.pem();
        let certificate = certificate.as_str();
        let torn = &certificate[..certificate.len() - 40];
        let cases = [
            (builder(), "no CA certificate is set"),
            (builder().ca_pem("x"), "no client certificate is set"),
            (builder().ca_pem("x").identity_pem("", ""), "the CA certificate has no certificate in PEM"),
            (builder().ca_pem(certificate).identity_pem("x", ""), "the client certificate has no certificate in PEM"),
            (builder().ca_pem(certificate).identity_pem(certificate, "x"), "the private key has no private key in PEM"),
            (builder().ca_file("no/such.pem").identity_pem("", ""), "cannot read the CA certificate no/such.pem"),
            (builder().ca_pem(torn).identity_pem("", ""), "the CA certificate is not whole"),
            (builder().timeout(Duration::ZERO), "the time limit is zero"),
            (builder().attempts(0), "0 attempts"),
            (builder().attempts(6), "6 attempts"),
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
