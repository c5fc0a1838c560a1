//! The one error of the library: what failed, why, and what the caller can do.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::RequestId;
use crate::retry::Again;
use crate::trouble::{Found, Trouble};

/// Why a call failed.
///
/// [`kind`](Self::kind) is what to match on. [`reason`](Self::reason) is finer and stable too: one of the names that
/// the API lists, such as `KEY_DISABLED`.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<&'static str>,
    operation: Option<&'static str>,
    reason: Option<String>,
    request_id: Option<String>,
    change: Option<RequestId>,
    retryable: bool,
    again: Again,
    attempts: u32,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What sort of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong as it stands. Also: a ciphertext does not open.
    InvalidArgument,
    /// The caller did not prove who it is, or the server does not accept its certificate.
    Unauthenticated,
    /// No binding or grant allows this, or who asked for a grant would approve it. Says nothing about whether what was named
    /// exists.
    PermissionDenied,
    /// There is nothing of this name.
    NotFound,
    /// There is something of this name already.
    AlreadyExists,
    /// The tenant, key, version or grant is not in a state that allows this, or a second person must approve it first.
    FailedPrecondition,
    /// Somebody else changed the same thing at the same time. Nothing was done: read again, then retry.
    Conflict,
    /// More than the server takes, or more often.
    ResourceExhausted,
    /// The server cannot answer now.
    Unavailable,
    /// The time limit passed. A change may still have been carried out: read before retrying.
    DeadlineExceeded,
    /// A mistake of the server, or an answer that this library does not understand.
    Internal,
    /// The server has no such call.
    Unimplemented,
    /// The server could not be reached, or the connection broke.
    Connection,
    /// TLS was refused on this side: the server is not one that is trusted here, or what listens there is not the
    /// service.
    Tls,
    /// The client's settings are wrong. No server was asked.
    Config,
}

impl Error {
    /// Returns what sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the reason, such as `KEY_DISABLED`: one of those that the API lists, or one that a newer server has
    /// added. Where no answer came, one of this library's: `DEADLINE`, or
    ///
    /// - with [`ErrorKind::Connection`] `HOST_UNKNOWN`, `CONNECTION_REFUSED`, `NO_ROUTE`, `CONNECT_TIMEOUT`,
    ///   `CONNECTION_CLOSED`, `CONNECTION_FAILED`;
    /// - with [`ErrorKind::Tls`] `SERVER_CA_UNKNOWN`, `SERVER_NAME_MISMATCH`, `SERVER_CERTIFICATE_EXPIRED`,
    ///   `SERVER_CERTIFICATE_NOT_YET_VALID`, `SERVER_CERTIFICATE_INVALID`, `NO_TLS`, `NO_HTTP2`, `NO_COMMON_TLS`,
    ///   `TLS_FAILED`;
    /// - with [`ErrorKind::Unauthenticated`] `CLIENT_CERTIFICATE_REQUIRED`, `CLIENT_CERTIFICATE_EXPIRED`,
    ///   `CLIENT_CA_UNKNOWN`, `CLIENT_CERTIFICATE_REVOKED`, `CLIENT_CERTIFICATE_REFUSED`.
    ///
    /// `None` for wrong settings, and for an answer that is not the service's.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// Returns the id of the request, by which the server's operators find it. `None` if the server did not answer.
    /// (Not to be mixed up with the id of a change: [`change_id`](Self::change_id).)
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Returns the `request_id` that a change was sent with. Given to [`Change::request_id`](crate::Change::request_id)
    /// of the same call, it makes a repetition safe: what was carried out is not carried out again.
    pub fn change_id(&self) -> Option<&RequestId> {
        self.0.change.as_ref()
    }

    /// Returns how often the call was made. 0 if no server was asked.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Returns the call that failed, such as `Encrypt`: the name of its RPC, which is also the name of its action in
    /// policies. (A batch, such as `BatchEncrypt`, has the action of its single form.)
    pub fn operation(&self) -> Option<&str> {
        self.0.operation
    }

    /// Returns what went wrong, without the reason, the request's id and the hint that `Display` adds.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns what to check, when no answer came or one that the service does not give.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint
    }

    /// Returns whether the failure may pass by itself, so that the same call may succeed a little later. The library
    /// has tried as often as it does by itself.
    ///
    /// It does not say that nothing was done. The calls of the data plane (encrypt, decrypt, data keys and MACs) may
    /// always be repeated; a change, such as creating or destroying managed data keys, with the [`change_id`](Self::change_id) that it had.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            operation: None,
            reason: None,
            request_id: None,
            change: None,
            retryable: false,
            again: Again::No,
            attempts: 0,
            source: None,
        }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn with_hint(mut self, hint: &'static str) -> Self {
        self.0.hint = Some(hint);
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn invalid_name(name: &str, form: &str) -> Self {
        Self::invalid(format!("{name:?} is not of the form {form}"))
    }

    /// A batch has too few or too many items. As the server would say it, which was not asked.
    pub(crate) fn batch_count(operation: &'static str, what: &str) -> Self {
        let message = format!("{what}: a batch has 1 to 10,000");
        Self::batch(operation, ErrorKind::InvalidArgument, "FIELD_INVALID", message)
    }

    /// A batch is too large. As the server would say it, which was not asked.
    pub(crate) fn batch_size(operation: &'static str) -> Self {
        let message = "the batch has more than 4 MiB, which is the most for one request";
        Self::batch(operation, ErrorKind::ResourceExhausted, "MESSAGE_TOO_LARGE", message)
    }

    fn batch(operation: &'static str, kind: ErrorKind, reason: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(kind, message).with_hint("nothing was sent: make several batches of it");
        error.0.operation = Some(operation);
        error.0.reason = Some(reason.to_owned());
        error
    }

    /// An update says nothing. As the server would say it, which was not asked.
    pub(crate) fn nothing_to_update(operation: &'static str) -> Self {
        let mut error = Self::new(ErrorKind::InvalidArgument, "the settings say nothing that could be changed")
            .with_hint("nothing was sent: set at least one of them");
        error.0.operation = Some(operation);
        error.0.reason = Some("FIELD_INVALID".to_owned());
        error
    }

    /// The answer lacks something, or has something that cannot be.
    pub(crate) fn malformed(lacks: &str) -> Self {
        Self::new(ErrorKind::Internal, format!("the server's answer lacks a good value: {lacks}"))
    }

    pub(crate) fn deadline(operation: &'static str, address: &str, limit: Duration) -> Self {
        let mut error = Self::new(ErrorKind::DeadlineExceeded, format!("no answer from {address} within {limit:?}"))
            .with_hint(
                "a change may still have been carried out: repeat it with the same request id, or allow more time",
            );
        error.0.reason = Some("DEADLINE".to_owned());
        error.0.operation = Some(operation);
        error
    }

    /// What tonic made of a failed attempt. `last_break` is why the last connection broke.
    /// Tells whether the time passed here, without an answer of the server.
    pub(crate) fn is_own_deadline(&self) -> bool {
        self.kind() == ErrorKind::DeadlineExceeded && !self.is_answer()
    }

    /// Tells whether the server said it.
    pub(crate) fn is_answer(&self) -> bool {
        self.request_id().is_some()
    }

    pub(crate) fn from_status(
        operation: &'static str,
        address: &str,
        limit: Duration,
        status: Status,
        last_break: impl FnOnce() -> Option<Found>,
    ) -> Self {
        // What tonic says, in a code of its own choice, when the limit passed while it waited.
        if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
            return Self::deadline(operation, address, limit).caused_by(status);
        }
        let details = status.get_error_details();
        let info = details.error_info().cloned();
        // A status that tonic made from a broken connection has a source, one from the server has none. Cancelled
        // without details is a connection that closed under the call: no server of ours sends it.
        let from_server = info.is_some() || (status.source().is_none() && status.code() != Code::Cancelled);
        if !from_server {
            return Self::from_break(operation, address, status, last_break);
        }
        let kind = kind_of(status.code());
        let message = if status.message().is_empty() { "the server gave no explanation" } else { status.message() };
        let mut error = Self::new(kind, message);
        error.0.operation = Some(operation);
        error.0.retryable = kind == ErrorKind::Unavailable;
        let retry_info = details.retry_info().map(|info| info.retry_delay.unwrap_or_default());
        error.0.again = match kind {
            ErrorKind::Unavailable => Again::Later(None),
            // Else it is a size that will not change.
            ErrorKind::ResourceExhausted if retry_info.is_some() => Again::Later(None),
            _ => Again::No,
        };
        error.0.retryable |= error.0.again != Again::No;
        let pushback = status.metadata().get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap_or_default());
        error.0.again = error.0.again.asked(pushback, retry_info);
        match info {
            None => error.0.hint = Some("the answer lacks what the service always says: is it the right address?"),
            Some(mut info) => {
                if info.reason == "SHUTTING_DOWN" && error.0.again != Again::No {
                    error.0.again = Again::Elsewhere { later_here: true };
                } else if info.reason == "LOCKED" {
                    // For as long as somebody wants it so: another node may serve meanwhile.
                    error.0.again = Again::Elsewhere { later_here: false };
                }
                error.0.reason = is_reason(&info.reason).then_some(info.reason);
                error.0.request_id = info.metadata.remove("request_id");
            }
        }
        error
    }

    /// No answer came: no connection could be made, or it broke.
    fn from_break(
        operation: &'static str,
        address: &str,
        status: Status,
        last_break: impl FnOnce() -> Option<Found>,
    ) -> Self {
        let last = if Found::within(&status).is_some() { None } else { last_break() };
        let trouble = Found::within(&status).or(last.as_ref()).map_or(Trouble::Closed, |found| found.trouble);
        let mut error = Self::new(trouble.kind(), trouble.message(address)).with_hint(trouble.what_to_check());
        error.0.operation = Some(operation);
        error.0.reason = Some(trouble.reason().to_owned());
        error.0.retryable = trouble.may_pass();
        // What waited for a connection has waited enough: there is no time for another.
        let later_here = trouble.may_pass() && trouble != Trouble::ConnectTimeout;
        error.0.again = Again::Elsewhere { later_here };
        match last {
            // It says more than what became of it in the layers between.
            Some(found) => error.caused_by(found),
            None => error.caused_by(status),
        }
    }

    /// Returns what this says about repeating the call.
    pub(crate) fn again(&self) -> Again {
        self.0.again
    }

    pub(crate) fn after(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// The call was one of a change.
    pub(crate) fn of_change(mut self, id: RequestId) -> Self {
        self.0.change = Some(id);
        self
    }

    #[cfg(test)]
    pub(crate) fn again_for_tests(again: Again) -> Self {
        let mut error = Self::new(ErrorKind::Unavailable, "test");
        error.0.again = again;
        error
    }
}

pub(crate) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::Aborted => ErrorKind::Conflict,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Internal | Code::DataLoss | Code::Unknown | Code::Ok | Code::Cancelled => ErrorKind::Internal,
    }
}

/// Returns whether a text has the form of a reason. What has not is kept from logs and terminals.
fn is_reason(text: &str) -> bool {
    (1..=REASON_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The longest reason that `google.rpc.ErrorInfo` allows.
const REASON_BYTES_MAX: usize = 63;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&inner.message)?;
        if let Some(hint) = inner.hint {
            write!(f, "; {hint}")?;
        }
        match (&inner.reason, &inner.request_id) {
            (Some(reason), Some(id)) => write!(f, " ({reason}, request {id})"),
            (Some(reason), None) => write!(f, " ({reason})"),
            (None, Some(id)) => write!(f, " (request {id})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("operation", &inner.operation)
            .field("message", &inner.message)
            .field("reason", &inner.reason)
            .field("request_id", &inner.request_id)
            .field("change_id", &inner.change)
            .field("attempts", &inner.attempts)
            .field("source", &inner.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn from_status(status: Status) -> Error {
        Error::from_status("Encrypt", "https://kms:8443", Duration::from_secs(2), status, || None)
    }

    fn from_server(code: Code, reason: &str) -> Error {
        let metadata = [("request_id".to_owned(), "r-7".to_owned())];
        let details = ErrorDetails::with_error_info(reason, "kms.v1", metadata);
        let status = Status::with_error_details(code, "the key is disabled", details);
        from_status(status)
    }

    #[test]
    fn every_code_has_its_kind() {
        let kinds = [
            (Code::Ok, ErrorKind::Internal),
            (Code::Unknown, ErrorKind::Internal),
            (Code::InvalidArgument, ErrorKind::InvalidArgument),
            (Code::DeadlineExceeded, ErrorKind::DeadlineExceeded),
            (Code::NotFound, ErrorKind::NotFound),
            (Code::AlreadyExists, ErrorKind::AlreadyExists),
            (Code::PermissionDenied, ErrorKind::PermissionDenied),
            (Code::ResourceExhausted, ErrorKind::ResourceExhausted),
            (Code::FailedPrecondition, ErrorKind::FailedPrecondition),
            (Code::Aborted, ErrorKind::Conflict),
            (Code::OutOfRange, ErrorKind::InvalidArgument),
            (Code::Unimplemented, ErrorKind::Unimplemented),
            (Code::Internal, ErrorKind::Internal),
            (Code::Unavailable, ErrorKind::Unavailable),
            (Code::DataLoss, ErrorKind::Internal),
            (Code::Unauthenticated, ErrorKind::Unauthenticated),
        ];
        for (code, kind) in kinds {
            let error = from_server(code, "SOME_REASON");
            assert_eq!(error.kind(), kind, "{code:?}");
            assert_eq!(error.is_retryable(), kind == ErrorKind::Unavailable, "{code:?}");
        }
    }

    #[test]
    fn reason_and_request_id_come_from_the_details() {
        let error = from_server(Code::FailedPrecondition, "KEY_DISABLED");
        assert_eq!(error.reason(), Some("KEY_DISABLED"));
        assert_eq!(error.request_id(), Some("r-7"));
        assert_eq!(error.operation(), Some("Encrypt"));
        assert_eq!(error.to_string(), "Encrypt: the key is disabled (KEY_DISABLED, request r-7)");
        assert!(error.source().is_none());
    }

    #[test]
    fn what_does_not_look_like_a_reason_is_none() {
        for reason in ["", "key_disabled", "KEY DISABLED", "KEY\u{1b}[2J", &"A".repeat(64)] {
            assert_eq!(from_server(Code::Internal, reason).reason(), None, "{reason:?}");
        }
        assert_eq!(from_server(Code::Internal, "NEW_IN_2030").reason(), Some("NEW_IN_2030"));
    }

    #[test]
    fn a_status_without_details_is_still_an_answer_of_the_server() {
        let status = Status::unimplemented("");
        let error = from_status(status);
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unimplemented, None));
        assert_eq!(error.message(), "the server gave no explanation");
        assert!(error.hint().is_some_and(|hint| hint.contains("right address")));
    }

    #[test]
    fn the_timeout_of_tonic_is_a_deadline() {
        let error = from_status(Status::cancelled("Timeout expired"));
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.message(), "no answer from https://kms:8443 within 2s");
        assert_eq!((error.reason(), error.again()), (Some("DEADLINE"), Again::No));
        assert!(!error.is_retryable(), "the change may have been carried out");
    }

    #[test]
    fn a_call_that_was_cancelled_otherwise_is_a_broken_connection() {
        let status = Status::cancelled("operation was canceled");
        let error = from_status(status);
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Connection, Some("CONNECTION_CLOSED")));
        assert!(error.is_retryable());
    }

    #[test]
    fn why_the_connection_broke_is_told_where_the_status_does_not_know() {
        let expired =
            || Some(Found::new(Trouble::ClientCertificateExpired, "received fatal alert: CertificateExpired"));
        let status = Status::cancelled("operation was canceled");
        let error = Error::from_status("Encrypt", "https://kms:8443", Duration::from_secs(2), status, expired);
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unauthenticated, Some("CLIENT_CERTIFICATE_EXPIRED")));
        assert_eq!(error.source().unwrap().to_string(), "received fatal alert: CertificateExpired");
    }

    #[test]
    fn only_what_may_pass_is_repeated() {
        for code in (0..17).map(Code::from) {
            let again = from_server(code, "SOME_REASON").again();
            assert_eq!(again, if code == Code::Unavailable { Again::Later(None) } else { Again::No }, "{code:?}");
        }
        let leaving = from_server(Code::Unavailable, "SHUTTING_DOWN").again();
        assert_eq!(leaving, Again::Elsewhere { later_here: true });
    }

    #[test]
    fn an_error_can_be_sent_and_shared() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}
