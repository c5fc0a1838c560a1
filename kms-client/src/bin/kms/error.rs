//! What a person is told when something fails: what, why, and what to do.

use kms_client::{Error, ErrorKind, ItemError};
use kms_proto::v1::ErrorReason;
use serde::Serialize;

use crate::exit::Exit;
use crate::hint::{self, Subject};

/// A failure, ready to be told.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    message: Box<str>,
    code: &'static str,
    reason: Option<Box<str>>,
    cause: Option<Box<str>>,
    hint: Option<Box<str>>,
    request_id: Option<Box<str>>,
    change_id: Option<Box<str>>,
    attempts: u32,
}

impl Failure {
    fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into().into(),
            code,
            reason: None,
            cause: None,
            hint: None,
            request_id: None,
            change_id: None,
            attempts: 0,
        }
    }

    /// The command line or the settings are wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "USAGE", message)
    }

    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Other, "OTHER", message)
    }

    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "INTERRUPTED", "interrupted")
    }

    pub fn pipe_closed() -> Self {
        Self::new(Exit::PipeClosed, "OTHER", "nobody reads the output")
    }

    /// A batch was carried out, and none of its items succeeded: it ends as the first of them would have ended alone.
    pub fn all(count: usize, first: &ItemError, subject: &Subject) -> Self {
        let message = match count {
            1 => first.message().to_owned(),
            _ => format!("{count} of {count} failed, the first of them since {}", first.message()),
        };
        let mut failure = Self::new(Exit::of(first.kind(), first.reason()), code(first.kind()), message);
        failure.reason = first.reason().map(Into::into);
        let known = first.reason().and_then(ErrorReason::from_reason);
        failure.hint = known.map(|reason| hint::of(reason, None, subject).into());
        failure
    }

    /// A batch was carried out, but not for all of its items.
    pub fn partly(failed: usize, of: usize) -> Self {
        Self::new(Exit::Partly, "PARTLY_FAILED", format!("{failed} of {of} failed"))
            .hint("what is printed is good, and what failed is told with its reason")
    }

    /// A grant is for something else than what was looked at. As the server would say it, which was not asked.
    pub fn grant_changed(seen: &str, subject: &Subject) -> Self {
        let message = format!("the grant is for something else than what has the hash {seen}");
        let mut failure = Self::new(Exit::Conflict, code(ErrorKind::Conflict), message);
        failure.reason = Some("GRANT_CHANGED".into());
        failure.hint(hint::of(ErrorReason::GrantChanged, Some("ApproveGrant"), subject))
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// Tells beside it what was done all the same.
    #[must_use]
    pub fn though(mut self, done: &str) -> Self {
        self.message = format!("{}; {done}", self.message).into();
        self
    }

    fn of(error: &Error, subject: &Subject) -> Self {
        let mut failure = Self::new(Exit::of(error.kind(), error.reason()), code(error.kind()), error.message());
        failure.reason = error.reason().map(Into::into);
        failure.request_id = error.request_id().map(Into::into);
        failure.change_id = error.change_id().map(|id| id.to_string().into());
        failure.attempts = error.attempts();
        // What was found, where no answer says it. Settings have it in their message.
        let is_broken = matches!(error.kind(), ErrorKind::Connection | ErrorKind::Tls | ErrorKind::Unauthenticated);
        if is_broken && failure.request_id.is_none() {
            failure.cause = root_cause(error).map(Into::into);
        }
        let known = error.reason().and_then(ErrorReason::from_reason);
        failure.hint = match known {
            Some(reason) => Some(hint::of(reason, error.operation(), subject).into()),
            None => error.hint().map(Into::into),
        };
        // Nobody knows what became of it.
        let is_open =
            matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Connection | ErrorKind::Unavailable);
        if let Some(id) = error.change_id().filter(|_| is_open) {
            let hint = failure.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
            failure.hint = Some(format!("{hint}repeated with --request-id {id}, the change is made once").into());
        }
        failure
    }

    /// Returns the lines for a terminal.
    pub fn lines(&self) -> String {
        let mut text = format!("error: {}\n", printable(&self.message));
        if let Some(reason) = &self.reason {
            text += &format!("reason: {reason} ({})", self.code);
            if let Some(cause) = &self.cause {
                text += &format!(": {}", printable(cause));
            }
            if self.attempts > 1 {
                text += &format!(", after {} attempts", self.attempts);
            }
            text.push('\n');
        }
        if let Some(hint) = &self.hint {
            text += &format!("hint: {}\n", printable(hint));
        }
        if let Some(id) = &self.request_id {
            text += &format!("request: {}\n", printable(id));
        }
        if let Some(id) = &self.change_id {
            text += &format!("change: {}\n", printable(id));
        }
        text
    }

    /// Returns the object for scripts.
    pub fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Object {
            error: Fields,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            code: &'static str,
            message: Box<str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<Box<str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cause: Option<Box<str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hint: Option<Box<str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<Box<str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            change_id: Option<Box<str>>,
            attempts: u32,
            exit_code: u8,
        }
        Object {
            error: Fields {
                code: self.code,
                message: self.message.clone(),
                reason: self.reason.clone(),
                cause: self.cause.clone(),
                hint: self.hint.clone(),
                request_id: self.request_id.clone(),
                change_id: self.change_id.clone(),
                attempts: self.attempts,
                exit_code: self.exit.code(),
            },
        }
    }
}

/// Says what a call was about, so that the hint can name it.
pub trait About<T> {
    fn about(self, subject: &Subject) -> Result<T, Failure>;
}

impl<T> About<T> for Result<T, Error> {
    fn about(self, subject: &Subject) -> Result<T, Failure> {
        self.map_err(|error| Failure::of(&error, subject))
    }
}

/// Returns what lies at the bottom of an error.
fn root_cause(error: &Error) -> Option<String> {
    let mut next = std::error::Error::source(error);
    let mut text = None;
    for _ in 0..CHAIN_MAX {
        let Some(here) = next else { break };
        text = Some(here.to_string());
        next = here.source();
    }
    text
}

/// An error may name itself as its source.
const CHAIN_MAX: usize = 16;

/// Returns a kind in the words of gRPC, and in ours where no answer came.
fn code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidArgument => "INVALID_ARGUMENT",
        ErrorKind::Unauthenticated => "UNAUTHENTICATED",
        ErrorKind::PermissionDenied => "PERMISSION_DENIED",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::AlreadyExists => "ALREADY_EXISTS",
        ErrorKind::FailedPrecondition => "FAILED_PRECONDITION",
        ErrorKind::Conflict => "ABORTED",
        ErrorKind::ResourceExhausted => "RESOURCE_EXHAUSTED",
        ErrorKind::Unavailable => "UNAVAILABLE",
        ErrorKind::DeadlineExceeded => "DEADLINE_EXCEEDED",
        ErrorKind::Internal => "INTERNAL",
        ErrorKind::Unimplemented => "UNIMPLEMENTED",
        ErrorKind::Connection => "CONNECTION",
        ErrorKind::Tls => "TLS",
        ErrorKind::Config => "CONFIG",
        _ => "OTHER",
    }
}

/// Writes control characters out, and those that turn the direction of writing, so that no text from elsewhere (a label, a
/// message, a reason) moves the cursor of a terminal or looks like another.
pub fn printable(text: &str) -> String {
    let moves = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().flat_map(|c| if moves(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_as_what_why_and_what_to_do() {
        let mut failure = Failure::new(Exit::Conflict, "FAILED_PRECONDITION", "the key is disabled").hint("enable it");
        failure.reason = Some("KEY_DISABLED".into());
        failure.request_id = Some("r-1".into());
        assert_eq!(
            failure.lines(),
            "error: the key is disabled\nreason: KEY_DISABLED (FAILED_PRECONDITION)\nhint: enable it\nrequest: r-1\n"
        );
        assert_eq!(
            serde_json::to_string(&failure.json()).unwrap(),
            r#"{"error":{"code":"FAILED_PRECONDITION","message":"the key is disabled","reason":"KEY_DISABLED","hint":"enable it","requestId":"r-1","attempts":0,"exitCode":5}}"#
        );
        assert_eq!(Failure::usage("no").lines(), "error: no\n");
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}ä"), "a\\u{1b}[2J\\nb\\u{9b}ä");
        assert_eq!(printable("\u{202e}emca\u{2066}"), "\\u{202e}emca\\u{2066}");
    }
}
