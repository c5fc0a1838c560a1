//! What went wrong when no answer came: told from the texts of the errors below, since neither the HTTP/2 library nor
//! the TLS library lets its types be found through the others. It decides nothing but what people are told.
//!
//! `tests/library/connection.rs` provokes what can be provoked over a real connection, so a text that changes is
//! noticed there.

use std::error::Error as StdError;
use std::io;

/// Why a server could not be reached, or a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    UnknownHost,
    Refused,
    NoRoute,
    ConnectTimeout,
    UnknownCa,
    WrongName,
    ServerCertificateExpired,
    ServerCertificateInvalid,
    NoTls,
    NoHttp2,
    NoClientCertificate,
    ClientCertificateRefused,
    NoCommonTls,
    Closed,
    Other,
}

impl Trouble {
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        let text = chain(error);
        SIGNS.iter().find(|(sign, _)| text.contains(sign)).map_or(Self::Other, |(_, trouble)| *trouble)
    }

    pub(crate) fn message(self, address: &str) -> String {
        let what = match self {
            Self::UnknownHost => "the host's name has no address",
            Self::Refused => "connection refused",
            Self::NoRoute => "no route to the host",
            Self::ConnectTimeout => "no connection within the time limit",
            Self::UnknownCa => "the server's certificate was not issued by a CA that is trusted here",
            Self::WrongName => "the server's certificate is for another name",
            Self::ServerCertificateExpired => "the server's certificate has expired or is not valid yet",
            Self::ServerCertificateInvalid => "the server's certificate is not acceptable",
            Self::NoTls => "what listens there does not speak TLS",
            Self::NoHttp2 => "what listens there speaks TLS, but not HTTP/2",
            Self::NoClientCertificate => "the server asks for a client certificate",
            Self::ClientCertificateRefused => "the server refused the client certificate",
            Self::NoCommonTls => "client and server have no TLS version or cipher suite in common",
            Self::Closed => return format!("the connection to {address} was closed"),
            Self::Other => return format!("the connection to {address} failed"),
        };
        format!("cannot reach {address}: {what}")
    }

    pub(crate) fn what_to_check(self) -> &'static str {
        match self {
            Self::UnknownHost => "check the spelling of the address, and DNS",
            Self::Refused => "check that the server is running and that the port is right",
            Self::NoRoute | Self::ConnectTimeout => "check the address, the network, and any firewall in between",
            Self::UnknownCa => "check that the CA file is the one that issued the server's certificate",
            Self::WrongName => {
                "use a name that the certificate is for, or set the server name if the address must differ"
            }
            Self::ServerCertificateExpired => "check the clocks of both machines, and renew the server's certificate",
            Self::ServerCertificateInvalid => "look at the server's certificate: the source of this error says more",
            Self::NoTls | Self::NoHttp2 => "check that the port is the one of the gRPC listener",
            Self::NoClientCertificate => "set the client certificate and its key",
            Self::ClientCertificateRefused => {
                "check that the client certificate is valid now and was issued by the CA that the server trusts for \
                 clients"
            }
            Self::NoCommonTls => "update the older of the two",
            Self::Closed => {
                "if this was the first call, the server may not accept the client certificate; else it may be \
                 restarting"
            }
            Self::Other => "the source of this error says more",
        }
    }

    /// Returns whether waiting may be enough.
    pub(crate) fn may_pass(self) -> bool {
        match self {
            Self::UnknownHost | Self::Refused | Self::NoRoute | Self::ConnectTimeout | Self::Closed | Self::Other => {
                true
            }
            Self::UnknownCa
            | Self::WrongName
            | Self::ServerCertificateExpired
            | Self::ServerCertificateInvalid
            | Self::NoTls
            | Self::NoHttp2
            | Self::NoClientCertificate
            | Self::ClientCertificateRefused
            | Self::NoCommonTls => false,
        }
    }
}

/// What shows in the chain of errors, the more telling first: a refused certificate also closes the connection.
const SIGNS: &[(&str, Trouble)] = &[
    ("dns error", Trouble::UnknownHost),
    ("Connection refused", Trouble::Refused),
    ("invalid peer certificate: UnknownIssuer", Trouble::UnknownCa),
    // A CA of the same name with another key: one that was made anew.
    ("invalid peer certificate: BadSignature", Trouble::UnknownCa),
    ("invalid peer certificate: certificate not valid for name", Trouble::WrongName),
    ("invalid peer certificate: NotValidForName", Trouble::WrongName),
    ("invalid peer certificate: certificate expired", Trouble::ServerCertificateExpired),
    ("invalid peer certificate: certificate not valid yet", Trouble::ServerCertificateExpired),
    ("invalid peer certificate: Expired", Trouble::ServerCertificateExpired),
    ("invalid peer certificate", Trouble::ServerCertificateInvalid),
    ("received corrupt message of type InvalidContentType", Trouble::NoTls),
    ("HTTP/2 was not negotiated", Trouble::NoHttp2),
    ("fatal alert: NoApplicationProtocol", Trouble::NoHttp2),
    ("fatal alert: CertificateRequired", Trouble::NoClientCertificate),
    ("fatal alert: ProtocolVersion", Trouble::NoCommonTls),
    ("fatal alert: HandshakeFailure", Trouble::NoCommonTls),
    ("fatal alert: UnknownCA", Trouble::ClientCertificateRefused),
    ("fatal alert: BadCertificate", Trouble::ClientCertificateRefused),
    ("fatal alert: UnsupportedCertificate", Trouble::ClientCertificateRefused),
    ("fatal alert: CertificateRevoked", Trouble::ClientCertificateRefused),
    ("fatal alert: CertificateExpired", Trouble::ClientCertificateRefused),
    ("fatal alert: CertificateUnknown", Trouble::ClientCertificateRefused),
    ("fatal alert: DecryptError", Trouble::ClientCertificateRefused),
    ("fatal alert: AccessDenied", Trouble::ClientCertificateRefused),
    ("unreachable", Trouble::NoRoute),
    ("No route to host", Trouble::NoRoute),
    ("TLS handshake timeout", Trouble::ConnectTimeout),
    ("timed out", Trouble::ConnectTimeout),
    ("deadline has elapsed", Trouble::ConnectTimeout),
    ("Connection reset", Trouble::Closed),
    ("Broken pipe", Trouble::Closed),
    ("connection closed", Trouble::Closed),
    ("closed before", Trouble::Closed),
    ("tls handshake eof", Trouble::Closed),
    ("close_notify", Trouble::Closed),
    ("stream closed", Trouble::Closed),
    ("operation was canceled", Trouble::Closed),
];

/// Returns the texts of an error and of all below it.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    // Bounded, as an error may name itself as its source.
    for _ in 0..CHAIN_MAX {
        let Some(error) = next else { break };
        text.push_str(&error.to_string());
        text.push('\n');
        // io::Error skips the error it was made of when asked for its source.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|inside| inside as _).or_else(|| error.source());
    }
    text
}

const CHAIN_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_inside_an_io_error_is_seen() {
        let inner = io::Error::other("received fatal alert: CertificateRequired");
        assert_eq!(Trouble::of(&io::Error::other(inner)), Trouble::NoClientCertificate);
    }

    #[test]
    fn what_is_not_known_says_so() {
        let trouble = Trouble::of(&io::Error::other("?"));
        assert_eq!(trouble, Trouble::Other);
        assert_eq!(trouble.message("https://kms:1"), "the connection to https://kms:1 failed");
    }

    #[test]
    fn a_refused_certificate_is_told_before_the_closing_that_follows_it() {
        let error = io::Error::other("connection closed: received fatal alert: UnknownCA");
        assert_eq!(Trouble::of(&error), Trouble::ClientCertificateRefused);
    }
}
