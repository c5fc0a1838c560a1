//! An issuer of bearer tokens, and a server of its keys by https on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Authority;

/// Issues tokens that are signed with ES256.
pub struct TokenIssuer {
    name: String,
    kid: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl TokenIssuer {
    /// Makes an issuer of this name, with a new key of this id.
    pub fn new(name: &str, kid: &str) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a test's own keys")]
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("a key"))?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).map_err(|_| anyhow!("a key"))?;
        Ok(Self { name: name.to_owned(), kid: kid.to_owned(), key, random })
    }

    /// Returns its public key as a JWK set.
    pub fn jwks(&self) -> String {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, "x": x, "y": y}]}).to_string()
    }

    /// Issues a good token for a subject.
    pub fn token(&self, sub: &str) -> Result<String> {
        self.token_with(sub, &json!({}))
    }

    /// Issues a token for a subject, with other claims than the usual; null takes one away.
    pub fn token_with(&self, sub: &str, other: &Value) -> Result<String> {
        let now = now();
        let mut claims =
            json!({"iss": self.name, "aud": "kms", "sub": sub, "iat": now - 5, "nbf": now - 5, "exp": now + 3600});
        for (name, value) in other.as_object().context("claims are an object")? {
            claims[name] = value.clone();
        }
        self.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": self.kid}), &claims)
    }

    /// Signs any header and claims.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature = self.key.sign(&self.random, message.as_bytes()).map_err(|_| anyhow!("a signature"))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Returns the time in seconds.
#[expect(clippy::disallowed_methods, reason = "a token is good by the clock of the machine")]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a path of a [`KeyServer`] answers.
#[derive(Clone, Debug)]
pub enum Served {
    /// 200 and this.
    Body(String),
    /// This status, with these headers.
    Status(&'static str),
    /// Nothing, ever.
    Silence,
}

type Paths = Arc<Mutex<BTreeMap<String, (Served, usize)>>>;

/// Serves keys by https on loopback, and many things that are none.
pub struct KeyServer {
    address: String,
    paths: Paths,
    serving: JoinHandle<()>,
}

impl KeyServer {
    /// Starts one with a certificate for `localhost` by this authority.
    pub async fn start(authority: &Authority) -> Result<Self> {
        let identity = authority.server()?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
            )?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("localhost:{}", listener.local_addr()?.port());
        let paths = Paths::default();
        let served = Arc::clone(&paths);
        let serving = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    let mut bytes = [0; 1024];
                    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                        match stream.read(&mut bytes).await {
                            Ok(read) if read > 0 => head.extend_from_slice(&bytes[..read]),
                            _ => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    let found = {
                        let mut paths = served.lock().unwrap_or_else(PoisonError::into_inner);
                        paths.get_mut(&path).map(|(found, times)| {
                            *times += 1;
                            found.clone()
                        })
                    };
                    let answer = match found {
                        Some(Served::Body(body)) => {
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                        }
                        Some(Served::Status(status)) => format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
                        Some(Served::Silence) => return std::future::pending().await,
                        None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                    };
                    drop(stream.write_all(answer.as_bytes()).await);
                    drop(stream.shutdown().await);
                });
            }
        });
        Ok(Self { address, paths, serving })
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Says what a path answers from now on.
    pub fn serve(&self, path: &str, served: Served) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let times = paths.get(path).map_or(0, |(_, times)| *times);
        paths.insert(path.to_owned(), (served, times));
    }

    /// Returns how often a path was asked for.
    pub fn times(&self, path: &str) -> usize {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).get(path).map_or(0, |(_, times)| *times)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
