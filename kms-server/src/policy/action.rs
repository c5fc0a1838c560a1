//! An action: what is asked for, named as its RPC is.

use std::fmt;
use std::str::FromStr;

macro_rules! actions {
    ($($Action:ident,)*) => {
        /// One RPC that needs permission. Its name is the RPC's, in Cedar and in the audit log too.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[allow(missing_docs)] // Each is the RPC of that name.
        pub enum Action { $($Action,)* }

        impl Action {
            /// All actions, each once.
            pub const ALL: &[Self] = &[$(Self::$Action,)*];

            /// Returns the name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$Action => stringify!($Action),)* }
            }
        }
    };
}

actions! {
    // CryptoService
    Encrypt,
    Decrypt,
    ReEncrypt,
    GenerateDataKey,
    DecryptDataKey,
    CreateDataKey,
    GetDataKey,
    DestroyDataKey,
    GenerateMac,
    VerifyMac,
    GetIndexKey,
    // TenantService
    CreateTenant,
    GetTenant,
    ListTenants,
    UpdateTenant,
    SuspendTenant,
    ResumeTenant,
    DestroyTenant,
    CancelTenantDestruction,
    // KeyService
    CreateKey,
    GetKey,
    ListKeys,
    UpdateKey,
    EnableKey,
    DisableKey,
    RotateKey,
    ListKeyVersions,
    ScheduleKeyDestruction,
    CancelKeyDestruction,
    ListDataKeys,
    // OperatorService
    GetStatus,
    Lock,
    Unlock,
    ExportKeystore,
    Reload,
    // AccessService
    RequestGrant,
    ApproveGrant,
    RevokeGrant,
    GetGrant,
    ListGrants,
    TestPermissions,
    // Every principal may ask it about itself, so that no role has it.
    GetCallerIdentity,
}

impl Action {
    /// Tells whether it uses keys: what applications do all day, not what is done to tenants and keys.
    pub fn uses_keys(self) -> bool {
        self <= Self::GetIndexKey
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no action.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no action has this name")]
pub struct UnknownAction;

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.iter().copied().find(|action| action.as_str() == text).ok_or(UnknownAction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_read_by_the_name_of_its_rpc() {
        for &action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert_eq!("ReEncrypt".parse(), Ok(Action::ReEncrypt));
    }

    #[test]
    fn no_other_text_is_an_action() {
        for bad in ["", "encrypt", "ENCRYPT", "Encrypt ", "kms.v1.Encrypt", "*"] {
            assert_eq!(bad.parse::<Action>(), Err(UnknownAction), "{bad:?}");
        }
    }
}
