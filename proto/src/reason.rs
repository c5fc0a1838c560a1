//! Error reasons as the texts that `google.rpc.ErrorInfo.reason` holds.

use crate::v1::ErrorReason;

/// The `google.rpc.ErrorInfo.domain` of every [`ErrorReason`].
pub const ERROR_DOMAIN: &str = "kms.v1";

impl ErrorReason {
    /// Returns the text for `ErrorInfo.reason`, such as `KEY_NOT_FOUND`.
    pub fn as_reason(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix(PREFIX).expect("buf lint holds every value to the prefix")
    }

    /// Finds the reason that `ErrorInfo.reason` gives. Nothing for a text that is none, or one that
    /// a newer server has added: go by the gRPC code then.
    pub fn from_reason(text: &str) -> Option<Self> {
        // Bounded before it is copied: it comes from outside.
        if text.len() > REASON_BYTES_MAX {
            return None;
        }
        let reason = Self::from_str_name(&[PREFIX, text].concat())?;
        (reason != Self::Unspecified).then_some(reason)
    }
}

const PREFIX: &str = "ERROR_REASON_";

/// The longest reason that `google.rpc.ErrorInfo` allows.
const REASON_BYTES_MAX: usize = 63;
