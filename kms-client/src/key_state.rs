//! What a key is for, and where it is in its life.

use kms_proto::v1;

/// The life of a key, and of each version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// In use.
    Enabled,
    /// Refuses every use; nothing is lost.
    Disabled,
    /// Refuses every use, and its material will be destroyed at its destroy time. May be cancelled until then.
    PendingDestruction,
    /// Its material is gone.
    Destroyed,
    /// One that this version of the library does not know, with its number.
    Unknown(i32),
}

impl KeyState {
    /// Returns the state as the API names it, such as `ENABLED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
            Self::PendingDestruction => "PENDING_DESTRUCTION",
            Self::Destroyed => "DESTROYED",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    pub(crate) fn from_wire(number: i32) -> Self {
        match v1::KeyState::try_from(number) {
            Ok(v1::KeyState::Enabled) => Self::Enabled,
            Ok(v1::KeyState::Disabled) => Self::Disabled,
            Ok(v1::KeyState::PendingDestruction) => Self::PendingDestruction,
            Ok(v1::KeyState::Destroyed) => Self::Destroyed,
            Ok(v1::KeyState::Unspecified) | Err(_) => Self::Unknown(number),
        }
    }
}

/// What a key is for. Fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyPurpose {
    /// Seals small values and wraps portable data keys; the service stores nothing.
    Encrypt,
    /// Wraps managed data keys, which the service stores: the caller keeps their uids.
    Managed,
    /// Makes and verifies message authentication codes.
    Mac,
    /// One that this version of the library does not know, with its number.
    Unknown(i32),
}

impl KeyPurpose {
    /// Returns the purpose as the API names it, such as `ENCRYPT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "ENCRYPT",
            Self::Managed => "MANAGED",
            Self::Mac => "MAC",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    pub(crate) fn from_wire(number: i32) -> Self {
        match v1::KeyPurpose::try_from(number) {
            Ok(v1::KeyPurpose::Encrypt) => Self::Encrypt,
            Ok(v1::KeyPurpose::Managed) => Self::Managed,
            Ok(v1::KeyPurpose::Mac) => Self::Mac,
            Ok(v1::KeyPurpose::Unspecified) | Err(_) => Self::Unknown(number),
        }
    }

    pub(crate) fn to_wire(self) -> i32 {
        match self {
            Self::Encrypt => v1::KeyPurpose::Encrypt.into(),
            Self::Managed => v1::KeyPurpose::Managed.into(),
            Self::Mac => v1::KeyPurpose::Mac.into(),
            Self::Unknown(number) => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_api_is_known_and_another_keeps_its_number() {
        for number in 1..=4 {
            let name = v1::KeyState::try_from(number).unwrap().as_str_name();
            assert_eq!(format!("KEY_STATE_{}", KeyState::from_wire(number).as_str()), name);
        }
        assert!(v1::KeyState::try_from(5).is_err(), "teach KeyState the new one");
        assert_eq!(KeyState::from_wire(5), KeyState::Unknown(5));
    }

    #[test]
    fn every_purpose_of_the_api_is_known_and_survives_the_way_there_and_back() {
        for number in 1..=3 {
            let name = v1::KeyPurpose::try_from(number).unwrap().as_str_name();
            assert_eq!(format!("KEY_PURPOSE_{}", KeyPurpose::from_wire(number).as_str()), name);
        }
        assert!(v1::KeyPurpose::try_from(4).is_err(), "teach KeyPurpose the new one");
        for number in 0..=9 {
            assert_eq!(KeyPurpose::from_wire(number).to_wire(), number);
        }
    }
}
