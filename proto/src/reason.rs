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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::Api;

    #[test]
    fn every_reason_survives_the_way_through_its_text() {
        let api = Api::load();
        let list = api.enums.iter().find(|list| list.name == "ErrorReason").unwrap();
        for value in list.value.iter().filter(|value| value.number != 0) {
            let reason = ErrorReason::try_from(value.number).unwrap();
            assert_eq!(format!("ERROR_REASON_{}", reason.as_reason()), value.name);
            assert_eq!(ErrorReason::from_reason(reason.as_reason()), Some(reason));
        }
    }

    #[test]
    fn every_reason_is_one_that_error_info_allows() {
        let api = Api::load();
        let list = api.enums.iter().find(|list| list.name == "ErrorReason").unwrap();
        for value in &list.value {
            let text = ErrorReason::try_from(value.number).unwrap().as_reason();
            assert!((3..=REASON_BYTES_MAX).contains(&text.len()), "{text}");
            assert!(text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{text}");
            assert!(!text.starts_with('_') && !text.ends_with('_'), "{text}");
        }
    }

    #[test]
    fn another_text_is_no_reason() {
        for text in ["", "UNSPECIFIED", "key_not_found", "ERROR_REASON_KEY_NOT_FOUND", "KEY_NOT_FOUND ", "NEW_IN_2030"]
        {
            assert_eq!(ErrorReason::from_reason(text), None, "{text:?}");
        }
        assert_eq!(ErrorReason::from_reason(&"A".repeat(1 << 20)), None);
    }
}
