//! Whom a connection is let in as: TLS settings and the mapping of names, replaced as one.
//!
//! A connection that was let in stays while whoever it is would be let in again. When this is
//! replaced each connection is woken and asks again, with the certificate that its peer showed; one
//! that would be refused now, or would be somebody else, ends at once. Its peer comes back, if it
//! can, through the handshake.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::handshake::Refusal;
use crate::authn::{IdentityMapping, NoIdentity, ServerTls, identify};
use crate::noun::{Principal, UnixMillis};

/// Who is let in, and as whom.
pub struct Trust {
    pub(super) tls: ServerTls,
    identities: IdentityMapping,
    replaced: CancellationToken,
}

impl Trust {
    /// Puts it together.
    pub fn new(tls: ServerTls, identities: IdentityMapping) -> Self {
        Self { tls, identities, replaced: CancellationToken::new() }
    }

    /// Tells whether it lets in whom another lets in: then nobody need be asked again.
    fn is_like(&self, other: &Self) -> bool {
        self.tls.authorities == other.tls.authorities && self.identities == other.identities
    }

    fn identity(&self, chain: &[CertificateDer<'_>]) -> Result<Principal, NoIdentity> {
        chain.first().ok_or(NoIdentity::NoSan).and_then(|certificate| identify(certificate, &self.identities))
    }
}

/// The trust in force.
pub struct TrustInForce(ArcSwap<Trust>);

impl TrustInForce {
    /// Begins with one.
    pub fn new(trust: Trust) -> Self {
        Self(ArcSwap::from_pointee(trust))
    }

    /// Returns the one in force.
    pub(super) fn now(&self) -> Arc<Trust> {
        self.0.load_full()
    }

    /// Puts another in force, for connections to come and for those that are there.
    pub fn replace(&self, trust: Trust) {
        // In this order: whoever is woken finds the new one.
        self.0.swap(Arc::new(trust)).replaced.cancel();
    }
}

/// Why a connection was let in, to be asked again.
pub(super) struct Admission {
    in_force: Arc<TrustInForce>,
    by: Arc<Trust>,
    chain: Vec<CertificateDer<'static>>,
    identity: Arc<Result<Principal, NoIdentity>>,
}

/// Why a connection may not stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NotAnymore {
    #[error("its certificate is not accepted any more: {0}")]
    Refused(Refusal),
    #[error("its certificate is somebody else's now")]
    SomebodyElse,
}

impl Admission {
    /// Notes by what a peer was let in, with the certificates that it showed.
    pub fn new(in_force: &Arc<TrustInForce>, by: Arc<Trust>, chain: &[CertificateDer<'_>]) -> Self {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let identity = Arc::new(by.identity(&chain));
        Self { in_force: Arc::clone(in_force), by, chain, identity }
    }

    /// Returns who it is.
    pub fn identity(&self) -> &Arc<Result<Principal, NoIdentity>> {
        &self.identity
    }

    /// Returns once something else is in force than what it was let in by.
    pub async fn replaced(&self) {
        self.by.replaced.cancelled().await;
    }

    /// Asks whether it would be let in again, as the same.
    pub fn ask_again(&mut self, now: UnixMillis) -> Result<(), NotAnymore> {
        let before = std::mem::replace(&mut self.by, self.in_force.now());
        if self.by.is_like(&before) {
            return Ok(());
        }
        self.by
            .tls
            .check_client(&self.chain, now)
            .map_err(|error| NotAnymore::Refused(Refusal::of_certificate(&error)))?;
        if self.by.identity(&self.chain) == *self.identity { Ok(()) } else { Err(NotAnymore::SomebodyElse) }
    }
}
