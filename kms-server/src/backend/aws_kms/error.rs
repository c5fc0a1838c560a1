//! Why AWS did not do it, and what that means: one table, from AWS's codes to [`BackendError`].
//!
//! **Invariant:** a message names the key, the operation, AWS's code and request id; never a credential. AWS's own
//! words are quoted only where it knew who asks: what it says of a wrong signature may repeat a session token.

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId as _;

use super::super::BackendError;

/// What a failed call means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// The ciphertext is not of this key and context.
    WrongKey,
    /// AWS knew us and refused.
    Denied,
    /// What was named is not there: [`Class::Denied`], unless somebody looked whether it is.
    NotFound,
    /// The name is taken.
    Taken,
    /// The key's state does not allow it. Which state, `DescribeKey` says.
    State,
    /// AWS did not accept who we are.
    Credentials,
    /// Not reached, or not able now.
    Unavailable,
    /// An answer that none of these is. Whether the key works tells what it means.
    Unclear,
    /// It answered with what it cannot have been given.
    WrongAnswer,
}

/// Why AWS did not do it.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(super) struct AwsError {
    pub(super) class: Class,
    said: String,
}

impl AwsError {
    pub(super) fn new(class: Class, said: impl Into<String>) -> Self {
        Self { class, said: said.into() }
    }

    pub(super) fn denied(said: impl Into<String>) -> Self {
        Self::new(Class::Denied, said)
    }

    pub(super) fn unavailable(said: impl Into<String>) -> Self {
        Self::new(Class::Unavailable, said)
    }

    pub(super) fn wrong_answer(said: impl Into<String>) -> Self {
        Self::new(Class::WrongAnswer, said)
    }

    pub(super) fn reclassed(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// Adds what is known beside what AWS said.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.said.push_str("; ");
        self.said.push_str(more);
        self
    }

    /// Takes in how a call ended that AWS did not do.
    pub(super) fn of<E: ProvideErrorMetadata>(call: &Call<'_>, error: &SdkError<E, HttpResponse>) -> Self {
        let (class, what) = match error {
            SdkError::ServiceError(answer) => {
                let (code, status) = (answer.err().code(), answer.raw().status().as_u16());
                let class = class_of(code, status);
                let mut what = code.map_or_else(|| format!("HTTP {status}"), |code| plain(code, CODE_CHARS_MAX));
                if let (Class::Denied | Class::State | Class::NotFound, Some(words)) = (class, answer.err().message()) {
                    what = format!("{what}: {}", plain(words, WORDS_CHARS_MAX));
                }
                (class, what)
            }
            // The source may quote the answer, which may be a key.
            SdkError::ResponseError(answer) => {
                let status = answer.raw().status().as_u16();
                (Class::Unavailable, format!("an answer that cannot be read (HTTP {status}): is it cut short?"))
            }
            SdkError::TimeoutError(_) => (Class::Unavailable, "no answer in time".to_owned()),
            SdkError::DispatchFailure(failure) => {
                let why = failure.as_connector_error().map(|error| plain(&chain_of(error), WORDS_CHARS_MAX));
                (Class::Unavailable, format!("not reached: {}", why.as_deref().unwrap_or("no connection")))
            }
            SdkError::ConstructionFailure(_) => {
                (Class::Unavailable, "the request could not be made: is backend.aws_region a region?".to_owned())
            }
            _ => (Class::Unavailable, "it failed in a way that is not known here".to_owned()),
        };
        let id = error.request_id().map(|id| format!(" (request {})", plain(id, CODE_CHARS_MAX))).unwrap_or_default();
        let advice = advice_for(class);
        Self { class, said: format!("{call}: {what}{id}; {advice}") }
    }
}

/// A call, as messages name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// Such as `Decrypt`.
    pub(super) operation: &'static str,
    /// The key's ARN, or the alias.
    pub(super) key: &'a str,
    /// Where it was sent.
    pub(super) place: &'a str,
}

impl std::fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AWS KMS {} of {} at {}", self.operation, self.key, self.place)
    }
}

/// The one table.
fn class_of(code: Option<&str>, status: u16) -> Class {
    match code.unwrap_or_default() {
        "InvalidCiphertextException" | "IncorrectKeyException" => Class::WrongKey,
        "NotFoundException" => Class::NotFound,
        "AlreadyExistsException" => Class::Taken,
        "KMSInvalidStateException" => Class::State,
        "AccessDeniedException"
        | "AccessDenied"
        | "DisabledException"
        | "InvalidKeyUsageException"
        | "KeyUsageMismatch"
        | "TagException"
        | "MalformedPolicyDocumentException"
        | "UnsupportedOperationException" => Class::Denied,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "NotAuthorized"
        | "OptInRequired" => Class::Credentials,
        // The answer's own form says it: what is busy, broken or cut short is no judgement of a key.
        _ if status >= 500 || status == 429 || status == 408 || (200..300).contains(&status) => Class::Unavailable,
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "LimitExceededException"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "InternalFailure"
        | "InternalError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "ConflictException" => Class::Unavailable,
        // Keys that live in somebody's own store, which is not to be reached now.
        code if code.starts_with("CustomKeyStore") || code.starts_with("CloudHsm") || code.starts_with("Xks") => {
            Class::Unavailable
        }
        _ => Class::Unclear,
    }
}

fn advice_for(class: Class) -> &'static str {
    match class {
        Class::WrongKey => "what is stored was wrapped by another key, or for another cluster or epoch",
        Class::Denied => "check the role's policy (deploy/aws), the key's policy, and that the key is enabled",
        Class::NotFound => "check account and region, and whether the key was deleted",
        Class::Taken => "another process was first",
        Class::State => "check the key's state in AWS",
        Class::Credentials => {
            "check the credentials that this process finds (environment, profile, role of the machine), and its clock"
        }
        Class::Unavailable => {
            "check the network, backend.aws_region, backend.aws_endpoint_url and AWS's own state, and try again"
        }
        Class::Unclear => "check that it is AWS KMS that answers there",
        Class::WrongAnswer => "check that it is AWS KMS that answers there, and what lies between",
    }
}

impl From<AwsError> for BackendError {
    fn from(error: AwsError) -> Self {
        match error.class {
            Class::WrongKey => BackendError::WrongKey,
            Class::WrongAnswer => {
                // The word of the joint has no place for a cause.
                tracing::error!("{error}");
                BackendError::WrongAnswer
            }
            Class::Denied | Class::NotFound | Class::Taken | Class::State => BackendError::Denied(error.into()),
            Class::Credentials => BackendError::Credentials(error.into()),
            Class::Unavailable | Class::Unclear => BackendError::Unavailable(error.into()),
        }
    }
}

/// Returns an error with its causes on one line, without what may quote a secret.
pub(super) fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    let mut said = all.take(CAUSES_MAX).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    for quote in MAY_QUOTE {
        if let Some(at) = said.to_ascii_lowercase().find(quote) {
            said.truncate(at);
        }
    }
    plain(&said, WORDS_CHARS_MAX)
}

/// Returns foreign words as they may stand in one line of a log.
fn plain(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// Behind these, what AWS says of a signature repeats the request, and what a program of the operator's wrote.
const MAY_QUOTE: [&str; 3] = ["canonical string", "string-to-sign", "stderr"];
const CAUSES_MAX: usize = 8;
const WORDS_CHARS_MAX: usize = 400;
const CODE_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::ErrorMetadata;
    use aws_sdk_kms::operation::decrypt::DecryptError;

    use super::*;

    const CALL: Call<'static> = Call { operation: "Decrypt", key: "arn:aws:kms:r:1:key/k", place: "r" };

    /// What AWS answers, in words, and what it means.
    const TABLE: [(Option<&str>, u16, Class); 34] = [
        (Some("InvalidCiphertextException"), 400, Class::WrongKey),
        (Some("IncorrectKeyException"), 400, Class::WrongKey),
        (Some("AccessDeniedException"), 400, Class::Denied),
        (Some("AccessDenied"), 403, Class::Denied),
        (Some("DisabledException"), 400, Class::Denied),
        (Some("InvalidKeyUsageException"), 400, Class::Denied),
        (Some("NotFoundException"), 400, Class::NotFound),
        (Some("AlreadyExistsException"), 400, Class::Taken),
        (Some("KMSInvalidStateException"), 400, Class::State),
        (Some("UnrecognizedClientException"), 400, Class::Credentials),
        (Some("InvalidClientTokenId"), 403, Class::Credentials),
        (Some("InvalidSignatureException"), 400, Class::Credentials),
        (Some("SignatureDoesNotMatch"), 403, Class::Credentials),
        (Some("IncompleteSignature"), 400, Class::Credentials),
        (Some("MissingAuthenticationTokenException"), 400, Class::Credentials),
        (Some("ExpiredTokenException"), 400, Class::Credentials),
        (Some("ExpiredToken"), 403, Class::Credentials),
        (Some("ThrottlingException"), 400, Class::Unavailable),
        (Some("TooManyRequestsException"), 429, Class::Unavailable),
        (Some("LimitExceededException"), 400, Class::Unavailable),
        (Some("KMSInternalException"), 500, Class::Unavailable),
        (Some("KeyUnavailableException"), 500, Class::Unavailable),
        (Some("DependencyTimeoutException"), 503, Class::Unavailable),
        (Some("ServiceUnavailableException"), 503, Class::Unavailable),
        (Some("CustomKeyStoreInvalidStateException"), 400, Class::Unavailable),
        (Some("XksProxyUriUnreachableException"), 400, Class::Unavailable),
        (Some("WhatIsYetToCome"), 503, Class::Unavailable),
        (None, 502, Class::Unavailable),
        (None, 429, Class::Unavailable),
        (None, 200, Class::Unavailable),
        // A proxy's own page, and what AWS may add: no judgement of a key.
        (None, 403, Class::Unclear),
        (None, 404, Class::Unclear),
        (Some("ValidationException"), 400, Class::Unclear),
        (Some("WhatIsYetToCome"), 400, Class::Unclear),
    ];

    #[test]
    fn every_answer_has_its_meaning() {
        for (code, status, class) in TABLE {
            assert_eq!(class_of(code, status), class, "{code:?}, HTTP {status}");
        }
    }

    fn answered(code: &str, words: &str) -> AwsError {
        let raw = HttpResponse::new(400.try_into().unwrap(), "".into());
        let error = DecryptError::generic(ErrorMetadata::builder().code(code).message(words).build());
        AwsError::of(&CALL, &SdkError::service_error(error, raw))
    }

    #[test]
    fn a_message_names_key_operation_and_code() {
        let said = answered("AccessDeniedException", "User: arn:aws:iam::1:user/u is not\nauthorized").to_string();
        for part in ["Decrypt", CALL.key, "AccessDeniedException", "is not authorized", "deploy/aws"] {
            assert!(said.contains(part), "{part:?} in {said:?}");
        }
    }

    #[test]
    fn a_refused_signature_is_not_quoted() {
        let words = "The Canonical String for this request should have been 'x-amz-security-token:SECRET'";
        for code in ["InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"] {
            let error = answered(code, words);
            assert!(!format!("{error} {error:?}").contains("SECRET"));
            assert!(matches!(BackendError::from(error), BackendError::Credentials(_)));
        }
        let quoting = AwsError::unavailable(format!("no: {words}"));
        assert_eq!(chain_of(&quoting), "no: The ");
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        let raw = HttpResponse::new(200.try_into().unwrap(), "{\"Plaintext\":\"SECRET".into());
        let error = SdkError::<DecryptError, _>::response_error("at SECRET", raw);
        let error = AwsError::of(&CALL, &error);
        assert_eq!(error.class, Class::Unavailable);
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }
}
