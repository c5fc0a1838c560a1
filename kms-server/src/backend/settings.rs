//! Which backend holds the master key, and where: the settings of each.

use std::path::{Path, PathBuf};

use super::software;
use crate::crypto::keystore_file::PinCost;

/// Which backend holds the master key, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendSettings {
    /// What the backend keeps on this machine: the software HSM its keystore files, others notes.
    pub dir: PathBuf,
    /// Which one.
    pub kind: BackendKind,
}

/// The backends there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackendKind {
    /// Keystore files under a PIN.
    Software {
        /// The file with the PIN: best on another disk, or a credential of the service manager.
        pin_file: PathBuf,
        /// What a try of the PIN costs, for keystore files made from now on.
        pin_cost: PinCost,
    },
    /// Amazon's key management service.
    AwsKms(AwsKmsSettings),
    /// A hardware module.
    Pkcs11(Pkcs11Settings),
}

/// Where the keys are in AWS, and as whom they are used. Credentials come by AWS's default chain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AwsKmsSettings {
    /// The region; else as AWS's tools find it.
    pub region: Option<String>,
    /// Another address than the region's: a VPC endpoint, or a test's.
    pub endpoint_url: Option<String>,
    /// The role that makes, disables and destroys keys, assumed for such a call alone; else the
    /// daemon's own.
    pub roll_role_arn: Option<String>,
    /// A key that somebody made, to be taken for the next epoch instead of making one.
    pub key_arn: Option<String>,
    /// How long AWS waits before it deletes a key: 7 to 30 days.
    pub deletion_days: u32,
}

/// Which token of which module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pkcs11Settings {
    /// The module: a shared library.
    pub module: PathBuf,
    /// The label of the token.
    pub token: String,
    /// The file with the PIN of its user.
    pub pin_file: PathBuf,
    /// How epoch keys are wrapped.
    pub mechanism: Pkcs11Mechanism,
}

/// How a token wraps epoch keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pkcs11Mechanism {
    /// AES-GCM if the token has it, else AES-CBC with padding.
    Auto,
    /// `CKM_AES_GCM`.
    AesGcm,
    /// `CKM_AES_CBC_PAD`, with a check value inside.
    AesCbcPad,
}

impl BackendSettings {
    /// Returns the backend's kind, as epoch rows and the audit log name it.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            BackendKind::Software { .. } => software::KIND,
            BackendKind::AwsKms(_) => AWS_KMS,
            BackendKind::Pkcs11(_) => PKCS11,
        }
    }

    /// Returns the file of the PIN, where there is one.
    pub fn pin_file(&self) -> Option<&Path> {
        match &self.kind {
            BackendKind::Software { pin_file, .. } => Some(pin_file),
            BackendKind::AwsKms(_) => None,
            BackendKind::Pkcs11(settings) => Some(&settings.pin_file),
        }
    }
}

/// The kind of the backend in AWS.
pub(super) const AWS_KMS: &str = "aws-kms";
/// The kind of the backend of hardware modules.
pub(super) const PKCS11: &str = "pkcs11";
