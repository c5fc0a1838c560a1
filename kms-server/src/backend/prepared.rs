//! The one place that joins vendors to the settings that name them.

use std::sync::Arc;

use super::aws_kms::AwsKms;
use super::pkcs11::{Launcher, Pkcs11Hsm};
use super::software::{SoftwareHsm, TimerPause};
use super::{BackendError, BackendKind, BackendSettings, MasterKeyBackend};
use crate::noun::{Random, Uid};

/// A backend that was made ready for use: what it needs of this process lives as long as this. It is
/// made first of all, while a process has nothing yet that a foreign module's process could inherit.
#[derive(Clone)]
pub struct Prepared {
    settings: BackendSettings,
    /// What starts the process of a PKCS#11 module.
    launcher: Option<Launcher>,
}

/// Makes a backend ready for use.
pub fn prepare(settings: &BackendSettings) -> std::io::Result<Prepared> {
    let launcher = match settings.kind {
        BackendKind::Software { .. } | BackendKind::AwsKms(_) => None,
        BackendKind::Pkcs11(_) => Some(Launcher::start()?),
    };
    Ok(Prepared { settings: settings.clone(), launcher })
}

impl Prepared {
    /// The same for a module's process that another program starts: for tests, which are not `kms-server`.
    pub fn with_launcher(settings: BackendSettings, launcher: Launcher) -> Self {
        Self { settings, launcher: Some(launcher) }
    }

    /// Returns the backend's kind, as epoch rows and the audit log name it.
    pub fn kind(&self) -> &'static str {
        self.settings.kind_name()
    }

    /// Makes what a backend needs before its first version; the master key itself comes with the
    /// first `create_version`. May be called again: what is there stays.
    pub async fn init(&self, rng: Arc<dyn Random>) -> Result<(), BackendError> {
        let dir = &self.settings.dir;
        match &self.settings.kind {
            BackendKind::Software { pin_file, .. } => SoftwareHsm::init(dir, pin_file, rng).await,
            BackendKind::AwsKms(settings) => AwsKms::init(dir, settings).await,
            BackendKind::Pkcs11(settings) => Pkcs11Hsm::init(dir, settings, self.launcher()?, rng).await,
        }
    }

    /// Opens the backend of a cluster. The one place that names vendors. It is reached for only
    /// when it is used: an outage shows in the first call, and in `status`.
    pub fn open(&self, cluster: Uid, rng: Arc<dyn Random>) -> Result<Arc<dyn MasterKeyBackend>, BackendError> {
        let dir = &self.settings.dir;
        Ok(match &self.settings.kind {
            BackendKind::Software { pin_file, pin_cost } => {
                Arc::new(SoftwareHsm::open(dir, pin_file, cluster, *pin_cost, rng, Arc::new(TimerPause)))
            }
            BackendKind::AwsKms(settings) => Arc::new(AwsKms::open(settings, cluster)),
            BackendKind::Pkcs11(settings) => Arc::new(Pkcs11Hsm::open(dir, settings, cluster, self.launcher()?, rng)),
        })
    }

    fn launcher(&self) -> Result<Launcher, BackendError> {
        self.launcher.clone().ok_or(BackendError::Unavailable("it was not prepared".into()))
    }
}
