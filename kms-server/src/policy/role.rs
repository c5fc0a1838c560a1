//! A role: the name of a set of permission templates.

use std::fmt;
use std::str::FromStr;

/// What a binding gives. What each role may do is said in `templates.cedar` and nowhere else.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Makes ciphertexts, wrapped keys and MACs.
    Encrypter,
    /// Opens what an encrypter made.
    Decrypter,
    /// Moves ciphertexts to the primary version.
    Reencrypter,
    /// Destroys single managed data keys.
    Eraser,
    /// Manages keys without using them.
    KeyAdmin,
    /// Manages tenants.
    TenantAdmin,
    /// Reads names and states.
    Auditor,
    /// Runs the service.
    Operator,
    /// Asks for access, case by case.
    Staff,
    /// Says yes to what staff asks for.
    Approver,
}

impl Role {
    /// All roles, each once.
    pub const ALL: [Self; 10] = [
        Self::Encrypter,
        Self::Decrypter,
        Self::Reencrypter,
        Self::Eraser,
        Self::KeyAdmin,
        Self::TenantAdmin,
        Self::Auditor,
        Self::Operator,
        Self::Staff,
        Self::Approver,
    ];

    /// Returns the name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypter => "encrypter",
            Self::Decrypter => "decrypter",
            Self::Reencrypter => "reencrypter",
            Self::Eraser => "eraser",
            Self::KeyAdmin => "key-admin",
            Self::TenantAdmin => "tenant-admin",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::Staff => "staff",
            Self::Approver => "approver",
        }
    }
}

impl Role {
    /// Tells whether any of its actions is asked of a key.
    pub const fn acts_on_keys(self) -> bool {
        match self {
            Self::Encrypter | Self::Decrypter | Self::Reencrypter | Self::Eraser | Self::KeyAdmin | Self::Auditor => {
                true
            }
            Self::TenantAdmin | Self::Operator | Self::Staff | Self::Approver => false,
        }
    }

    /// Tells whether a grant can give it: not what runs the service, nor what has to do with grants, nor what destroys at once.
    pub const fn can_be_granted(self) -> bool {
        match self {
            Self::Encrypter
            | Self::Decrypter
            | Self::Reencrypter
            | Self::KeyAdmin
            | Self::TenantAdmin
            | Self::Auditor => true,
            Self::Eraser | Self::Operator | Self::Staff | Self::Approver => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no role.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no role has this name")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}
