//! What went wrong when no answer came: a fixed list, told from the types of the errors below and never from their
//! texts. Each says what, why and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

use crate::ErrorKind;

/// Why a server could not be reached, or a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    HostUnknown,
    Refused,
    NoRoute,
    ConnectTimeout,
    Closed,
    Failed,
    ServerCaUnknown,
    ServerNameMismatch,
    ServerCertificateExpired,
    ServerCertificateNotYetValid,
    ServerCertificateInvalid,
    NoTls,
    NoHttp2,
    NoCommonTls,
    TlsFailed,
    ClientCertificateRequired,
    ClientCertificateExpired,
    ClientCaUnknown,
    ClientCertificateRevoked,
    ClientCertificateRefused,
}

impl Trouble {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 20] = [
        Self::HostUnknown,
        Self::Refused,
        Self::NoRoute,
        Self::ConnectTimeout,
        Self::Closed,
        Self::Failed,
        Self::ServerCaUnknown,
        Self::ServerNameMismatch,
        Self::ServerCertificateExpired,
        Self::ServerCertificateNotYetValid,
        Self::ServerCertificateInvalid,
        Self::NoTls,
        Self::NoHttp2,
        Self::NoCommonTls,
        Self::TlsFailed,
        Self::ClientCertificateRequired,
        Self::ClientCertificateExpired,
        Self::ClientCaUnknown,
        Self::ClientCertificateRevoked,
        Self::ClientCertificateRefused,
    ];

    /// Tells what an error of a socket, or of TLS on it, means.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        if let Some(tls) = tls_error(error) {
            return Self::of_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::NoRoute,
            io::ErrorKind::TimedOut => Self::ConnectTimeout,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Failed,
        }
    }

    pub(crate) fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                // A bad signature: a CA of the same name with another key, one that was made anew.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::ServerCaUnknown,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::ServerNameMismatch
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::ServerCertificateExpired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::ServerCertificateNotYetValid
                }
                _ => Self::ServerCertificateInvalid,
            },
            rustls::Error::InvalidMessage(_) => Self::NoTls,
            rustls::Error::NoApplicationProtocol => Self::NoHttp2,
            rustls::Error::PeerIncompatible(_) => Self::NoCommonTls,
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert),
            _ => Self::TlsFailed,
        }
    }

    /// In TLS 1.3 the server judges the client's certificate after the client's handshake is over, so these may come
    /// when the first answer is read.
    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::ClientCertificateRequired,
            AlertDescription::CertificateExpired => Self::ClientCertificateExpired,
            AlertDescription::UnknownCA => Self::ClientCaUnknown,
            AlertDescription::CertificateRevoked => Self::ClientCertificateRevoked,
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => Self::ClientCertificateRefused,
            AlertDescription::NoApplicationProtocol => Self::NoHttp2,
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity => Self::NoCommonTls,
            AlertDescription::UnrecognisedName => Self::ServerNameMismatch,
            _ => Self::TlsFailed,
        }
    }

    /// Returns the reason, in the form that the API's reasons have. Stable.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::HostUnknown => "HOST_UNKNOWN",
            Self::Refused => "CONNECTION_REFUSED",
            Self::NoRoute => "NO_ROUTE",
            Self::ConnectTimeout => "CONNECT_TIMEOUT",
            Self::Closed => "CONNECTION_CLOSED",
            Self::Failed => "CONNECTION_FAILED",
            Self::ServerCaUnknown => "SERVER_CA_UNKNOWN",
            Self::ServerNameMismatch => "SERVER_NAME_MISMATCH",
            Self::ServerCertificateExpired => "SERVER_CERTIFICATE_EXPIRED",
            Self::ServerCertificateNotYetValid => "SERVER_CERTIFICATE_NOT_YET_VALID",
            Self::ServerCertificateInvalid => "SERVER_CERTIFICATE_INVALID",
            Self::NoTls => "NO_TLS",
            Self::NoHttp2 => "NO_HTTP2",
            Self::NoCommonTls => "NO_COMMON_TLS",
            Self::TlsFailed => "TLS_FAILED",
            Self::ClientCertificateRequired => "CLIENT_CERTIFICATE_REQUIRED",
            Self::ClientCertificateExpired => "CLIENT_CERTIFICATE_EXPIRED",
            Self::ClientCaUnknown => "CLIENT_CA_UNKNOWN",
            Self::ClientCertificateRevoked => "CLIENT_CERTIFICATE_REVOKED",
            Self::ClientCertificateRefused => "CLIENT_CERTIFICATE_REFUSED",
        }
    }

    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::HostUnknown | Self::Refused | Self::NoRoute | Self::ConnectTimeout | Self::Closed | Self::Failed => {
                ErrorKind::Connection
            }
            Self::ServerCaUnknown
            | Self::ServerNameMismatch
            | Self::ServerCertificateExpired
            | Self::ServerCertificateNotYetValid
            | Self::ServerCertificateInvalid
            | Self::NoTls
            | Self::NoHttp2
            | Self::NoCommonTls
            | Self::TlsFailed => ErrorKind::Tls,
            Self::ClientCertificateRequired
            | Self::ClientCertificateExpired
            | Self::ClientCaUnknown
            | Self::ClientCertificateRevoked
            | Self::ClientCertificateRefused => ErrorKind::Unauthenticated,
        }
    }

    /// Returns whether waiting may be enough: what TLS refuses, it refuses again.
    pub(crate) fn may_pass(self) -> bool {
        self.kind() == ErrorKind::Connection
    }

    pub(crate) fn message(self, address: &str) -> String {
        let what = match self {
            Self::HostUnknown => "the host's name has no address",
            Self::Refused => "connection refused",
            Self::NoRoute => "no route to the host",
            Self::ConnectTimeout => "no connection within the time limit",
            Self::Closed => return format!("the connection to {address} was closed"),
            Self::Failed => return format!("the connection to {address} failed"),
            Self::ServerCaUnknown => "the server's certificate was not issued by a CA that is trusted here",
            Self::ServerNameMismatch => "the server's certificate is for another name",
            Self::ServerCertificateExpired => "the server's certificate has expired",
            Self::ServerCertificateNotYetValid => "the server's certificate is not valid yet",
            Self::ServerCertificateInvalid => "the server's certificate is not acceptable",
            Self::NoTls => "what listens there does not speak TLS",
            Self::NoHttp2 => "what listens there speaks TLS, but not HTTP/2",
            Self::NoCommonTls => "client and server have no TLS version or cipher suite in common",
            Self::TlsFailed => "TLS failed",
            Self::ClientCertificateRequired => return format!("{address} asks for a client certificate and got none"),
            Self::ClientCertificateExpired => {
                return format!("{address} refused the client certificate: it has expired");
            }
            Self::ClientCaUnknown => {
                return format!(
                    "{address} refused the client certificate: it was not issued by a CA that the server trusts"
                );
            }
            Self::ClientCertificateRevoked => {
                return format!("{address} refused the client certificate: it was revoked");
            }
            Self::ClientCertificateRefused => return format!("{address} refused the client certificate"),
        };
        format!("cannot reach {address}: {what}")
    }

    pub(crate) fn what_to_check(self) -> &'static str {
        match self {
            Self::HostUnknown => "check the spelling of the address, and DNS",
            Self::Refused => "check that the server is running and that the port is right",
            Self::NoRoute | Self::ConnectTimeout => "check the address, the network, and any firewall in between",
            Self::Closed => {
                "if this was the first call, the server may not accept the client certificate; else it may be \
                 restarting"
            }
            Self::Failed => "the source of this error says more",
            Self::ServerCaUnknown => "check that the CA file is the one that issued the server's certificate",
            Self::ServerNameMismatch => {
                "use a name that the certificate is for, or set the server name if the address must differ"
            }
            Self::ServerCertificateExpired | Self::ServerCertificateNotYetValid => {
                "check the clocks of both machines, and renew the server's certificate"
            }
            Self::ServerCertificateInvalid => "look at the server's certificate: the source of this error says more",
            Self::NoTls | Self::NoHttp2 => "check that the port is the one of the gRPC listener",
            Self::NoCommonTls => "update the older of the two: the service speaks TLS 1.3",
            Self::TlsFailed => "the source of this error, and the server's log, say more",
            Self::ClientCertificateRequired => "set the client certificate and its key",
            Self::ClientCertificateExpired => "renew the client certificate, and check the clocks of both machines",
            Self::ClientCaUnknown => {
                "take a certificate of the CA that the server trusts for clients (its client_ca_file)"
            }
            Self::ClientCertificateRevoked => "ask whoever runs the CA for another certificate",
            Self::ClientCertificateRefused => {
                "check that the certificate is for client authentication and valid now; the server's log says more"
            }
        }
    }
}

/// Finds the error of TLS in one of a socket.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    // An io::Error skips the error that it was made of when asked for its source.
    let mut next: Option<&(dyn StdError + 'static)> = error.get_ref().map(|inside| inside as _);
    // Bounded, as an error may name itself as its source.
    for _ in 0..CHAIN_MAX {
        let here = next?;
        if let Some(tls) = here.downcast_ref() {
            return Some(tls);
        }
        let inside = here.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|inside| inside as _).or_else(|| here.source());
    }
    None
}

/// A trouble with what was found, for the chain of sources of an error.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) trouble: Trouble,
    text: String,
}

impl Found {
    pub(crate) fn new(trouble: Trouble, text: impl Into<String>) -> Self {
        Self { trouble, text: text.into() }
    }

    pub(crate) fn of_io(error: &io::Error) -> Self {
        Self::new(Trouble::of_io(error), error.to_string())
    }

    /// Finds one in a chain of sources.
    pub(crate) fn within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        for _ in 0..CHAIN_MAX {
            let here = next?;
            if let Some(found) = here.downcast_ref() {
                return Some(found);
            }
            next = here.source();
        }
        None
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Found {}

const CHAIN_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_error_of_tls_is_found_in_one_of_a_socket() {
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert_eq!(Trouble::of_io(&error), Trouble::ClientCertificateRequired);
        assert_eq!(Trouble::of_io(&io::Error::other("received fatal alert: UnknownCA")), Trouble::Failed);
    }

    #[test]
    fn every_alert_about_the_clients_certificate_is_named() {
        for (alert, trouble) in [
            (AlertDescription::CertificateRequired, Trouble::ClientCertificateRequired),
            (AlertDescription::CertificateExpired, Trouble::ClientCertificateExpired),
            (AlertDescription::UnknownCA, Trouble::ClientCaUnknown),
            (AlertDescription::CertificateRevoked, Trouble::ClientCertificateRevoked),
            (AlertDescription::BadCertificate, Trouble::ClientCertificateRefused),
            (AlertDescription::DecryptError, Trouble::ClientCertificateRefused),
            (AlertDescription::NoApplicationProtocol, Trouble::NoHttp2),
            (AlertDescription::ProtocolVersion, Trouble::NoCommonTls),
            (AlertDescription::InternalError, Trouble::TlsFailed),
        ] {
            assert_eq!(Trouble::of_tls(&rustls::Error::AlertReceived(alert)), trouble, "{alert:?}");
        }
    }

    #[test]
    fn every_trouble_has_a_reason_of_its_own_and_says_what_to_do() {
        let reasons: BTreeSet<_> = Trouble::ALL.map(Trouble::reason).into();
        assert_eq!(reasons.len(), Trouble::ALL.len());
        for trouble in Trouble::ALL {
            let message = trouble.message("https://kms:1");
            assert!(message.contains("https://kms:1") && !message.ends_with('.'), "{message}");
            assert!(trouble.what_to_check().len() > 15, "{trouble:?}");
            assert_eq!(trouble.may_pass(), trouble.kind() == ErrorKind::Connection);
        }
    }
}
