//! The TLS handshake of an accepted connection: it succeeds, or the peer is told why not by an
//! alert, and the operator by a word from a closed list.
//!
//! With TLS 1.3 a client has finished its own handshake when the server judges its certificate: it
//! may have sent its first request already. A socket that is closed with such bytes unread is
//! reset, and a reset throws away what lies unread on the other side, the alert. So a refused
//! connection is first shut in our direction, and then read until the peer has closed it too, within
//! bounds.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{CertificateError, Error, PeerIncompatible, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Why TLS did not let a peer in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Refusal {
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate has expired, or is not valid yet.
    CertificateExpired,
    /// Its certificate is not of an authority that we accept.
    UnknownAuthority,
    /// Its certificate was revoked, or nobody can say whether it was.
    Revoked,
    /// Its certificate is for something else than a client.
    WrongPurpose,
    /// Its certificate cannot be used for another reason.
    BadCertificate,
    /// It speaks no version of TLS that is allowed here.
    ProtocolVersion,
    /// It does not offer HTTP/2.
    NoHttp2,
    /// What it sent is no TLS: plain HTTP, mostly.
    NotTls,
    /// It did not get to the end in time.
    Timeout,
    /// It closed the connection without a word.
    Closed,
    /// It refused us: our certificate, mostly.
    RefusedByPeer,
    /// It broke the protocol in another way.
    Protocol,
}

impl Refusal {
    /// All of them, each once.
    pub const ALL: [Self; 13] = [
        Self::NoCertificate,
        Self::CertificateExpired,
        Self::UnknownAuthority,
        Self::Revoked,
        Self::WrongPurpose,
        Self::BadCertificate,
        Self::ProtocolVersion,
        Self::NoHttp2,
        Self::NotTls,
        Self::Timeout,
        Self::Closed,
        Self::RefusedByPeer,
        Self::Protocol,
    ];

    /// Returns the word for it, in metrics and the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::CertificateExpired => "certificate_expired",
            Self::UnknownAuthority => "unknown_authority",
            Self::Revoked => "certificate_revoked",
            Self::WrongPurpose => "wrong_purpose",
            Self::BadCertificate => "bad_certificate",
            Self::ProtocolVersion => "protocol_version",
            Self::NoHttp2 => "no_http2",
            Self::NotTls => "not_tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Protocol => "protocol",
        }
    }

    /// Returns what an error of the handshake means.
    fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            // The socket's own: the peer left, by an end or by a reset.
            return Self::Closed;
        };
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => Self::ProtocolVersion,
            Error::NoApplicationProtocol => Self::NoHttp2,
            Error::InvalidMessage(_) => Self::NotTls,
            Error::AlertReceived(_) => Self::RefusedByPeer,
            // What else a library may say in a later version, too.
            _ => Self::Protocol,
        }
    }

    /// Returns what is wrong with a client's certificate.
    pub(super) fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
                Self::CertificateExpired
            }
            E::UnknownIssuer => Self::UnknownAuthority,
            E::Revoked
            | E::UnknownRevocationStatus
            | E::ExpiredRevocationList
            | E::ExpiredRevocationListContext { .. } => Self::Revoked,
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::WrongPurpose,
            _ => Self::BadCertificate,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A peer that was not let in. It was told so by an alert, where TLS has one for it.
pub(super) struct Refused<S> {
    pub(super) refusal: Refusal,
    pub(super) error: io::Error,
    /// Its connection, where there is still somebody.
    stream: Option<S>,
}

/// Shakes hands.
pub(super) async fn shake_hands<S>(
    stream: S,
    config: Arc<ServerConfig>,
    time_max: Duration,
) -> Result<TlsStream<S>, Refused<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shaking = TlsAcceptor::from(config).accept(stream).into_fallible();
    match tokio::time::timeout(time_max, shaking).await {
        Ok(Ok(stream)) => Ok(stream),
        // The alert was written in the same moment as it failed.
        Ok(Err((error, stream))) => Err(Refused { refusal: Refusal::of(&error), error, stream: Some(stream) }),
        Err(_) => Err(Refused { refusal: Refusal::Timeout, error: io::ErrorKind::TimedOut.into(), stream: None }),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Refused<S> {
    /// Ends the connection so that what was written arrives.
    pub(super) async fn part(self) {
        let Some(mut stream) = self.stream else { return };
        let end = Instant::now() + PARTING_TIME_MAX;
        let (mut unread, mut left) = ([0; 4096], PARTING_BYTES_MAX);
        if !matches!(timeout_at(end, stream.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        while left > 0 {
            match timeout_at(end, stream.read(&mut unread)).await {
                Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
                _ => return,
            }
        }
    }
}

/// What a refused peer may still send before its connection is cut.
const PARTING_BYTES_MAX: usize = 256 << 10;
const PARTING_TIME_MAX: Duration = Duration::from_secs(2);
