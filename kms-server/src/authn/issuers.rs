//! The issuers whose tokens are taken, with their keys and what was verified lately; and who a request is of, by its
//! client certificate and its token together.
//!
//! Made anew at each reload, with its memory of tokens; keys that were fetched go over where their source is the same.
//!
//! **Invariants:** a request with a token that is not right is refused, whatever its certificate is good for. A token is
//! remembered only after it was verified, under the keys that verified it, and no longer than it lasts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio_rustls::rustls::ClientConfig;

use super::identity::NoIdentity;
use super::issuer::{IssuerSettings, KeySource, Presenter};
use super::jwks::{InvalidKeySet, JWKS_BYTES_MAX, KeySet};
use super::keys_by_url::KeysByUrl;
use super::tls::TlsError;
use super::token::{InvalidToken, Read, Shown};
use super::{keys_by_url, pem};
use crate::crypto::sha256;
use crate::noun::{Clock, Principal, Strength, UnixMillis};

/// All issuers.
#[derive(Default)]
pub struct Issuers {
    issuers: Vec<Issuer>,
    print: [u8; 32],
    verified: Verified,
}

pub(super) struct Issuer {
    pub(super) settings: IssuerSettings,
    /// None until they were had.
    pub(super) keys: ArcSwapOption<KeySet>,
    /// How they are had, if not from a file.
    pub(super) by_url: Option<KeysByUrl>,
}

/// Who a request is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Identified {
    /// Who.
    pub principal: Principal,
    /// How that was proved.
    pub strength: Strength,
    /// Whose certificate it came with, if that is somebody.
    pub certificate: Option<Principal>,
}

/// Why nobody was identified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotIdentified {
    /// There is no token, and the certificate names nobody.
    Certificate(NoIdentity),
    /// The token is not taken.
    Token(InvalidToken),
}

impl Identified {
    /// Is whom a certificate names.
    pub fn by_certificate(principal: Principal) -> Self {
        Self { certificate: Some(principal.clone()), principal, strength: Strength::CERTIFICATE }
    }

    /// Says in a record who presented the token, if that is not its own principal.
    pub fn presented_by(&self) -> Option<Arc<str>> {
        let is_own = self.strength.has(Strength::CERTIFICATE);
        (!is_own).then(|| match &self.certificate {
            Some(principal) => format!("token presented by {principal}").into(),
            None => "token presented by a certificate without a principal".into(),
        })
    }
}

impl Issuers {
    /// Reads their files. Keys that are served by URL are fetched later ([`Issuers::keep_keys_fresh`]).
    pub fn read(settings: &[IssuerSettings]) -> Result<Self, TlsError> {
        let mut print = Vec::new();
        let mut issuers = Vec::with_capacity(settings.len());
        for settings in settings {
            let (keys, by_url, bytes) = match &settings.keys {
                KeySource::File(path) => {
                    let (keys, bytes) = keys_of(path)?;
                    (Some(Arc::new(keys)), None, bytes)
                }
                KeySource::Url(url, authorities) => {
                    let (config, roots) = client_config(authorities.as_deref())?;
                    // What the machine has is not what was set.
                    let set = if authorities.is_some() { roots.concat() } else { Vec::new() };
                    (None, Some(KeysByUrl::new(url.clone(), config, roots)), set)
                }
            };
            print.extend_from_slice(&sha256(format!("{settings:?}").as_bytes()));
            print.extend_from_slice(&sha256(&bytes));
            issuers.push(Issuer { settings: settings.clone(), keys: ArcSwapOption::new(keys), by_url });
        }
        Ok(Self { issuers, print: sha256(&print), verified: Verified::default() })
    }

    /// Tells one reading from another.
    pub fn print(&self) -> [u8; 32] {
        self.print
    }

    /// Takes the keys that were fetched for another, where they would be fetched from the same place.
    pub fn inherit(&self, other: &Self) {
        for issuer in &self.issuers {
            let before = other.issuers.iter().find(|before| before.settings.issuer == issuer.settings.issuer);
            if let Some(before) = before
                && let (Some(by_url), Some(by_url_before)) = (&issuer.by_url, &before.by_url)
                && by_url.inherit(by_url_before)
            {
                issuer.keys.store(before.keys.load_full());
            }
        }
    }

    /// Fetches keys that are served by URL, again and again. Never returns.
    pub async fn keep_keys_fresh(&self, clock: &dyn Clock) {
        futures_util::future::join_all(self.issuers.iter().map(|issuer| keys_by_url::keep_fresh(issuer, clock))).await;
        std::future::pending::<()>().await;
    }

    /// Says who a request is of, by the principal of its certificate and its token, if it has one.
    pub async fn identify(
        &self,
        certificate: &Result<Principal, NoIdentity>,
        token: Option<&str>,
        clock: &dyn Clock,
    ) -> Result<Identified, NotIdentified> {
        let Some(token) = token else {
            return certificate.clone().map(Identified::by_certificate).map_err(NotIdentified::Certificate);
        };
        let name = sha256(token.as_bytes());
        let remembered = self.verified.get(&name, clock.now(), &self.issuers);
        let (number, shown) = match remembered {
            Some(known) => known,
            None => self.verify(name, token, clock).await.map_err(NotIdentified::Token)?,
        };
        let Shown { principal, strength, .. } = &*shown;
        let is_own = certificate.as_ref().is_ok_and(|own| own == principal);
        let may_present = match (self.issuers.get(number).map(|issuer| &issuer.settings.presenter), certificate) {
            (Some(Presenter::Any), _) => true,
            (Some(Presenter::Same), _) => is_own,
            (Some(Presenter::These(list)), Ok(own)) => list.contains(own),
            (Some(Presenter::These(_)), Err(_)) | (None, _) => false,
        };
        if !may_present {
            return Err(NotIdentified::Token(InvalidToken::Presenter));
        }
        let strength = if is_own { strength.and(Strength::CERTIFICATE) } else { *strength };
        Ok(Identified { principal: principal.clone(), strength, certificate: certificate.as_ref().ok().cloned() })
    }

    async fn verify(
        &self,
        name: [u8; 32],
        token: &str,
        clock: &dyn Clock,
    ) -> Result<(usize, Arc<Shown>), InvalidToken> {
        let read = Read::new(token)?;
        let found = self.issuers.iter().enumerate().find(|(_, issuer)| issuer.settings.issuer == read.issuer());
        let (number, issuer) = found.ok_or(InvalidToken::Issuer)?;
        let once = || {
            let keys = issuer.keys.load_full().ok_or(InvalidToken::NoKeys)?;
            let shown = Arc::new(read.verify(&issuer.settings, &keys, clock.now())?);
            self.verified.add(name, Entry { issuer: number, keys, shown: Arc::clone(&shown) }, clock.now());
            Ok((number, shown))
        };
        match once() {
            // Its issuer may have a new key.
            Err(InvalidToken::Key | InvalidToken::NoKeys) if keys_by_url::ask(issuer, clock.since_boot()).await => {
                once()
            }
            other => other,
        }
    }
}

/// Tokens that were verified, by their SHA-256: what is in memory cannot be presented.
struct Verified([Mutex<HashMap<[u8; 32], Entry>>; SHARDS]);

#[derive(Clone)]
struct Entry {
    issuer: usize,
    keys: Arc<KeySet>,
    shown: Arc<Shown>,
}

impl Default for Verified {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Verified {
    fn get(&self, name: &[u8; 32], now: UnixMillis, issuers: &[Issuer]) -> Option<(usize, Arc<Shown>)> {
        let mut shard = self.0[usize::from(name[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.get(name)?;
        let keys = issuers.get(entry.issuer)?.keys.load();
        let by_these = keys.as_ref().is_some_and(|keys| Arc::ptr_eq(keys, &entry.keys));
        if by_these && now < entry.shown.until {
            return Some((entry.issuer, Arc::clone(&entry.shown)));
        }
        shard.remove(name);
        None
    }

    fn add(&self, name: [u8; 32], entry: Entry, now: UnixMillis) {
        let mut shard = self.0[usize::from(name[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= SHARD_TOKENS_MAX {
            shard.retain(|_, entry| now < entry.shown.until);
        }
        if shard.len() >= SHARD_TOKENS_MAX {
            // They are verified again when they come again.
            shard.clear();
        }
        shard.insert(name, entry);
    }
}

const SHARDS: usize = 16;
const SHARD_TOKENS_MAX: usize = 1024;

fn keys_of(path: &Path) -> Result<(KeySet, Vec<u8>), TlsError> {
    let bytes = pem::read_with(path, JWKS_BYTES_MAX as u64, |mode| {
        // Who can write it can be anybody that its issuer may vouch for.
        if mode & 0o022 == 0 {
            return Ok(());
        }
        let what = format!("it can be written by others (mode {mode:04o})");
        Err(TlsError::new(path, what, "take that away with `chmod go-w`"))
    })?;
    let (keys, left_out) = KeySet::read(&bytes).map_err(|error| refused(path, &error))?;
    for why in left_out {
        tracing::warn!(file = %path.display(), "{why}");
    }
    Ok((keys, bytes))
}

fn refused(path: &Path, error: &InvalidKeySet) -> TlsError {
    TlsError::new(path, error.to_string(), "give the issuer's JWK set, with RSA, EC or Ed25519 public keys")
}

fn client_config(authorities: Option<&Path>) -> Result<(Arc<ClientConfig>, Vec<[u8; 32]>), TlsError> {
    let found = match authorities {
        Some(path) => pem::certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let config = keys_by_url::client_config(&found).ok_or_else(|| {
        let what = "there is no authority to believe an issuer's server by".to_owned();
        let remedy = "give jwks_ca_file, or install this machine's certificates (ca-certificates)".to_owned();
        TlsError { file: authorities.map(Path::to_owned), what, remedy }
    })?;
    let mut roots: Vec<[u8; 32]> = found.iter().map(|root| sha256(root)).collect();
    roots.sort_unstable();
    Ok((config, roots))
}

#[cfg(test)]
mod tests;
