//! The only table from an error to what the caller sees: code, reason, sentence.
//!
//! The sentence is fixed but for limits and states; ids and names are not in it. Forged, torn and
//! wrong-context ciphertexts are one reason. The log's record has the exact cause ([`why`]).

use kms_proto::ERROR_DOMAIN;
use kms_proto::v1::{ErrorReason as Reason, ItemError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::error::Error;
use crate::crypto::OpenError;
use crate::keyring::{self, KeyState, TenantState};

/// Returns code and reason of an error.
pub(super) fn code_and_reason(error: &Error) -> (Code, Reason) {
    match error {
        Error::NoIdentity(_) => (Code::Unauthenticated, Reason::NoIdentity),
        Error::Token(_) => (Code::Unauthenticated, Reason::TokenInvalid),
        Error::Field { .. } => (Code::InvalidArgument, Reason::FieldInvalid),
        Error::Context(_) | Error::OtherContext | Error::ItemAad => (Code::InvalidArgument, Reason::ContextInvalid),
        Error::PlaintextTooLarge => (Code::InvalidArgument, Reason::PlaintextTooLarge),
        Error::AnswerTooLarge => (Code::ResourceExhausted, Reason::MessageTooLarge),
        Error::RateLimited { .. } => (Code::ResourceExhausted, Reason::RateLimited),
        Error::Overloaded => (Code::Unavailable, Reason::Overloaded),
        Error::Mac(_) => (Code::InvalidArgument, Reason::MacInvalid),
        Error::PageToken => (Code::InvalidArgument, Reason::PageTokenInvalid),
        Error::Denied(_) => (Code::PermissionDenied, Reason::PolicyDenied),
        Error::FanOut { .. } => (Code::PermissionDenied, Reason::FanOutExceeded),
        Error::Deadline => (Code::DeadlineExceeded, Reason::Deadline),
        Error::ReloadFailed(_) => (Code::FailedPrecondition, Reason::ReloadFailed),
        Error::ExportNotSupported => (Code::FailedPrecondition, Reason::ExportNotSupported),
        Error::MarkerFailed => (Code::Internal, Reason::Internal),
        Error::Locking => (Code::Unavailable, Reason::Locked),
        Error::Keyring(error) => of_keyring(error),
    }
}

fn of_keyring(error: &keyring::Error) -> (Code, Reason) {
    use keyring::Error as E;
    match error {
        E::TenantNotFound => (Code::NotFound, Reason::TenantNotFound),
        E::KeyNotFound => (Code::NotFound, Reason::KeyNotFound),
        E::VersionNotFound => (Code::NotFound, Reason::VersionNotFound),
        E::DataKeyNotFound | E::DataKeysGone(_) => (Code::NotFound, Reason::DataKeyNotFound),
        E::DataKeyDestroyed => (Code::FailedPrecondition, Reason::DataKeyDestroyed),
        E::VersionInUse(_) => (Code::FailedPrecondition, Reason::VersionInUse),
        E::TenantExists => (Code::AlreadyExists, Reason::TenantAlreadyExists),
        E::KeyExists => (Code::AlreadyExists, Reason::KeyAlreadyExists),
        E::NameWasDestroyed => (Code::FailedPrecondition, Reason::NameWasDestroyed),
        E::TenantState(state) => (Code::FailedPrecondition, of_tenant_state(*state)),
        E::KeyState(state) => (Code::FailedPrecondition, of_key_state(*state)),
        E::VersionState(state) => (Code::FailedPrecondition, of_version_state(*state)),
        E::Transition { .. } | E::PrimaryVersion => (Code::FailedPrecondition, Reason::StateConflict),
        E::VersionsExhausted => (Code::FailedPrecondition, Reason::VersionsExhausted),
        E::WaitTooShort(_) => (Code::InvalidArgument, Reason::WaitTooShort),
        E::GrantNotFound => (Code::NotFound, Reason::GrantNotFound),
        E::GrantState(_) => (Code::FailedPrecondition, Reason::GrantState),
        E::SecondPersonRequired => (Code::PermissionDenied, Reason::SecondPersonRequired),
        E::GrantChanged => (Code::Aborted, Reason::GrantChanged),
        E::GrantTooLong(_) => (Code::InvalidArgument, Reason::FieldInvalid),
        E::TooManyGrants => (Code::ResourceExhausted, Reason::GrantState),
        E::ApprovalRequired => (Code::FailedPrecondition, Reason::ApprovalRequired),
        E::WaitTooLong(_) => (Code::InvalidArgument, Reason::WaitTooLong),
        E::PurposeNotSupported => (Code::InvalidArgument, Reason::PurposeNotSupported),
        E::WrongKind => (Code::InvalidArgument, Reason::WrongKind),
        E::Open(OpenError::ArenaFull) | E::CacheFull => (Code::Unavailable, Reason::CacheFull),
        E::Open(_) => (Code::InvalidArgument, Reason::DecryptFailed),
        E::Conflict => (Code::Aborted, Reason::Conflict),
        E::RequestIdReused => (Code::InvalidArgument, Reason::RequestIdReused),
        E::EtagMismatch => (Code::Aborted, Reason::EtagMismatch),
        E::Overloaded => (Code::Unavailable, Reason::Overloaded),
        E::ShuttingDown => (Code::Unavailable, Reason::ShuttingDown),
        E::Log(_) => (Code::Unavailable, Reason::AuditUnavailable),
        E::Store(_) => (Code::Unavailable, Reason::StoreUnavailable),
        E::Backend(_) => (Code::Unavailable, Reason::BackendUnavailable),
        E::Damaged(_) => (Code::Internal, Reason::Internal),
    }
}

fn of_tenant_state(state: TenantState) -> Reason {
    match state {
        // An active tenant is no obstacle; that it was named as one is a fault of ours.
        TenantState::Active => Reason::Internal,
        TenantState::Suspended => Reason::TenantSuspended,
        TenantState::PendingDestruction => Reason::TenantPendingDestruction,
        TenantState::Fenced | TenantState::Purged | TenantState::Unrecoverable => Reason::TenantDestroyed,
    }
}

fn of_key_state(state: KeyState) -> Reason {
    match state {
        KeyState::Enabled => Reason::Internal,
        KeyState::Disabled => Reason::KeyDisabled,
        KeyState::PendingDestruction => Reason::KeyPendingDestruction,
        KeyState::Destroyed => Reason::KeyDestroyed,
    }
}

fn of_version_state(state: KeyState) -> Reason {
    match state {
        KeyState::Enabled => Reason::Internal,
        KeyState::Disabled => Reason::VersionDisabled,
        KeyState::PendingDestruction => Reason::VersionPendingDestruction,
        KeyState::Destroyed => Reason::VersionDestroyed,
    }
}

/// Returns the sentence for the caller.
fn sentence(error: &Error) -> String {
    match error {
        Error::Keyring(error) => sentence_of_keyring(error),
        other => other.to_string(),
    }
}

fn sentence_of_keyring(error: &keyring::Error) -> String {
    match error {
        keyring::Error::Open(_) => "the ciphertext does not open with this key and encryption context".to_owned(),
        keyring::Error::Damaged(_) => "internal error; the server's log has the cause".to_owned(),
        keyring::Error::Store(_) => "the store is unavailable".to_owned(),
        keyring::Error::Backend(_) => "the master key backend is unavailable".to_owned(),
        other => other.to_string(),
    }
}

/// Makes the error of one item of a batch.
pub(super) fn item_error(error: &Error) -> ItemError {
    let (code, reason) = code_and_reason(error);
    ItemError { code: code.into(), reason: reason.into(), message: sentence(error) }
}

/// As [`item_error`], of an error that several items share.
pub(super) fn item_error_of_keyring(error: &keyring::Error) -> ItemError {
    let (code, reason) = of_keyring(error);
    ItemError { code: code.into(), reason: reason.into(), message: sentence_of_keyring(error) }
}

/// Returns what the audit record says: the reason, and for a blob or MAC that is not right the cause.
pub(super) fn why(error: &Error) -> String {
    let (_, reason) = code_and_reason(error);
    match error {
        Error::Keyring(keyring::Error::Open(cause)) | Error::Mac(cause) => format!("{}:{cause}", reason.as_reason()),
        Error::Token(cause) => format!("{}:{}", reason.as_reason(), cause.reason()),
        Error::NoIdentity(cause) => format!("{}:{}", reason.as_reason(), cause.reason()),
        _ => reason.as_reason().to_owned(),
    }
}

/// Returns the reason of an error, as it is told.
pub(super) fn reason(error: &Error) -> &'static str {
    code_and_reason(error).1.as_reason()
}

/// Makes the status of an error.
pub(super) fn status(error: &Error, request_id: &str) -> Status {
    let (code, reason) = code_and_reason(error);
    if let Error::RateLimited { wait, .. } = error {
        let mut details = details_of(reason, request_id);
        details.set_retry_info(Some(*wait));
        return Status::with_error_details(code, sentence(error), details);
    }
    with_reason(code, reason, &sentence(error), request_id)
}

/// Makes a status with its reason.
pub(super) fn with_reason(code: Code, reason: Reason, sentence: &str, request_id: &str) -> Status {
    Status::with_error_details(code, sentence, details_of(reason, request_id))
}

fn details_of(reason: Reason, request_id: &str) -> ErrorDetails {
    let metadata = [("request_id".to_owned(), request_id.to_owned())];
    ErrorDetails::with_error_info(reason.as_reason(), ERROR_DOMAIN, metadata)
}
