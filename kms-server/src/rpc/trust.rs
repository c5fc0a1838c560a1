//! Whom a connection is let in as, and whose tokens are taken: TLS settings, the mapping of names and the issuers of tokens,
//! replaced as one.
//!
//! A connection that was let in stays while whoever it is would be let in again. When this is
//! replaced each connection is woken and asks again, with the certificate that its peer showed; one
//! that would be refused now, or would be somebody else, ends at once. Its peer comes back, if it
//! can, through the handshake.
//!
//! **Invariant:** every request is judged by what is in force when it begins, also where its connection was not woken yet.
//! (e2e `revocation`)

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::handshake::Refusal;
use crate::authn::{Identified, IdentityMapping, Issuers, NoIdentity, NotIdentified, ServerTls, identify};
use crate::noun::{Clock, Principal, UnixMillis};

/// Who is let in, and as whom.
pub struct Trust {
    pub(super) tls: ServerTls,
    identities: IdentityMapping,
    issuers: Issuers,
    replaced: CancellationToken,
}

impl Trust {
    /// Puts it together.
    pub fn new(tls: ServerTls, identities: IdentityMapping, issuers: Issuers) -> Self {
        Self { tls, identities, issuers, replaced: CancellationToken::new() }
    }

    /// Tells whether it lets in whom another lets in: then no connection need be asked again.
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
        trust.issuers.inherit(&self.now().issuers);
        // In this order: whoever is woken finds the new one.
        self.0.swap(Arc::new(trust)).replaced.cancel();
    }

    /// Fetches the keys of issuers that serve them, of whichever issuers are in force, until `stop`.
    pub async fn keep_keys_fresh(self: Arc<Self>, clock: Arc<dyn Clock>, stop: CancellationToken) {
        loop {
            let trust = self.now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = trust.replaced.cancelled() => {}
                () = trust.issuers.keep_keys_fresh(&*clock) => {}
            }
        }
    }
}

/// Why a connection was let in, to be asked again.
pub(super) struct Admission {
    in_force: Arc<TrustInForce>,
    chain: Vec<CertificateDer<'static>>,
    identity: Result<Principal, NoIdentity>,
    judged: ArcSwap<Judged>,
}

/// What was found of a connection by one trust.
struct Judged {
    by: Arc<Trust>,
    verdict: Result<(), NotAnymore>,
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
    pub(super) fn new(in_force: &Arc<TrustInForce>, by: Arc<Trust>, chain: &[CertificateDer<'_>]) -> Self {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let identity = by.identity(&chain);
        let judged = ArcSwap::from_pointee(Judged { by, verdict: Ok(()) });
        Self { in_force: Arc::clone(in_force), chain, identity, judged }
    }

    /// Returns whom its certificate names, if that is somebody.
    pub(super) fn principal(&self) -> Option<&Principal> {
        self.identity.as_ref().ok()
    }

    /// Says who a request on it is of, that begins now.
    pub(super) async fn identify(&self, token: Option<&str>, clock: &dyn Clock) -> Result<Identified, NotIdentified> {
        self.ask(clock.now()).map_err(|_| NotIdentified::Certificate(NoIdentity::NotAnymore))?;
        match (token, &self.identity) {
            (None, Ok(principal)) => Ok(Identified::by_certificate(principal.clone())),
            (None, Err(none)) => Err(NotIdentified::Certificate(*none)),
            (Some(_), _) => self.in_force.now().issuers.identify(&self.identity, token, clock).await,
        }
    }

    /// Returns once something else is in force than what it was judged by when this was called last, or let in by.
    pub(super) async fn replaced(&self, seen: &mut Seen) {
        let by = seen.0.get_or_insert_with(|| Arc::clone(&self.judged.load().by));
        by.replaced.cancelled().await;
        seen.0 = Some(self.in_force.now());
    }

    /// Asks whether it would be let in again, as the same.
    pub(super) fn ask(&self, now: UnixMillis) -> Result<(), NotAnymore> {
        let (in_force, before) = (self.in_force.0.load(), self.judged.load());
        if Arc::ptr_eq(&in_force, &before.by) {
            return before.verdict;
        }
        let verdict = if in_force.is_like(&before.by) { before.verdict } else { self.judge(&in_force, now) };
        self.judged.store(Arc::new(Judged { by: Arc::clone(&in_force), verdict }));
        verdict
    }

    fn judge(&self, trust: &Trust, now: UnixMillis) -> Result<(), NotAnymore> {
        trust
            .tls
            .check_client(&self.chain, now)
            .map_err(|error| NotAnymore::Refused(Refusal::of_certificate(&error)))?;
        if trust.identity(&self.chain) == self.identity { Ok(()) } else { Err(NotAnymore::SomebodyElse) }
    }
}

/// Which trust somebody waits to see replaced.
#[derive(Default)]
pub(super) struct Seen(Option<Arc<Trust>>);
