//! AWS KMS: a symmetric KMS key for each epoch, which wraps and unwraps the epoch key and never leaves AWS.
//!
//! A key for each epoch and not one that AWS rotates: AWS never deletes rotated material, so that only the deletion of
//! a whole key ends an epoch for good. A wrap is `Encrypt` of the 32 bytes, bound by its encryption context to cluster,
//! epoch and the epoch's uid.
//!
//! Two roles, so that a daemon that was taken over cannot destroy: `serve` (Encrypt, Decrypt, DescribeKey) are the
//! credentials that the process finds; `roll` makes, disables and deletes, and where `backend.aws_roll_role_arn` is set
//! it is assumed for such a call alone. Their policies are in deploy/aws.
//!
//! Limits: 2 s to connect, 3 s for a try, 3 tries, 8 s for a call with all of its steps, credentials included. No
//! HTTP proxy is used.

mod calls;
mod create;
mod destroy;
mod error;
mod names;
mod session;

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use async_trait::async_trait;

use super::settings::AWS_KMS;
use super::{
    Assurance, AwsKmsSettings, BackendError, BackendStatus, Destruction, EpochContext, MasterKeyBackend, MasterKeyRef,
    VersionState,
};
use crate::crypto::EpochKey;
use crate::noun::{EpochNumber, Uid};

use calls::State;
use error::{AwsError, Class};
use names::KeyArn;
use session::{Role, Session, within};

/// AWS KMS.
pub(super) struct AwsKms {
    settings: AwsKmsSettings,
    cluster: Uid,
}

impl AwsKms {
    /// Makes the directory that a data directory has for its backend. All that is in it is where the master key is.
    pub(super) async fn init(dir: &Path, _settings: &AwsKmsSettings) -> Result<(), BackendError> {
        let dir = dir.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let note = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(NOTE_FILE));
            match note {
                Ok(mut file) => file.write_all(NOTE.as_bytes()).and_then(|()| file.sync_all()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
            }?;
            std::fs::File::open(&dir)?.sync_all()
        });
        let made = made.await.unwrap_or_else(|ended| Err(std::io::Error::other(ended)));
        made.map_err(|error| BackendError::Unavailable(error.into()))
    }

    /// Names the settings and the cluster. AWS is asked by calls alone.
    pub(super) fn open(settings: &AwsKmsSettings, cluster: Uid) -> Self {
        Self { settings: settings.clone(), cluster }
    }

    async fn session(&self, role: Role, key: Option<&KeyArn>) -> Result<Session, AwsError> {
        Session::begin(&self.settings, role, &format!("kms1-{}", self.cluster), key).await
    }

    /// Does something with a key, as one of the two roles.
    async fn with_key<T>(
        &self,
        role: Role,
        what: &'static str,
        version: &MasterKeyRef,
        work: impl AsyncFnOnce(&Session, &KeyArn) -> Result<T, AwsError>,
    ) -> Result<T, BackendError> {
        let key = KeyArn::of(version)?;
        let call = async { work(&self.session(role, Some(&key)).await?, &key).await };
        Ok(within(|| format!("{what} {key} in AWS KMS"), call).await?)
    }
}

#[async_trait]
impl MasterKeyBackend for AwsKms {
    async fn create_version(&self, context: &EpochContext) -> Result<MasterKeyRef, BackendError> {
        if context.cluster != self.cluster {
            let said = format!("this backend serves cluster {}, not cluster {}", self.cluster, context.cluster);
            return Err(AwsError::denied(said).into());
        }
        let adopted = self.settings.key_arn.as_deref().map(KeyArn::parse).transpose()?;
        let call = async {
            let session = self.session(Role::Roll, adopted.as_ref()).await?;
            create::create(&session, &self.settings, self.cluster, context.epoch).await
        };
        let made = within(|| format!("making the key of epoch {} in AWS KMS", context.epoch.get()), call).await?;
        if let Some((key, error)) = made.left_over {
            tracing::warn!(%key, "another process made the key of this epoch first, and ours is left over: {error}");
        }
        Ok(MasterKeyRef(made.key.as_str().to_owned()))
    }

    async fn wrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        key: &EpochKey,
    ) -> Result<Vec<u8>, BackendError> {
        self.with_key(Role::Serve, "wrapping by", version, async |session, arn| {
            let wrapped = session.encrypt(arn, names::encryption_context(context), key.expose_to_backend()).await;
            match wrapped {
                Err(error) if error.class == Class::State => Err(judged(session, arn, error).await),
                wrapped => wrapped,
            }
        })
        .await
    }

    async fn unwrap(
        &self,
        version: &MasterKeyRef,
        context: &EpochContext,
        wrapped: &[u8],
    ) -> Result<EpochKey, BackendError> {
        self.with_key(Role::Serve, "unwrapping by", version, async |session, arn| {
            let error = if calls::is_ciphertext(wrapped) {
                match session.decrypt(arn, names::encryption_context(context), wrapped).await {
                    Ok(key) => return Ok(key),
                    Err(error) => error,
                }
            } else {
                AwsError::new(Class::Unclear, format!("AWS makes no ciphertext of {} bytes", wrapped.len()))
            };
            Err(match error.class {
                Class::State => judged(session, arn, error).await,
                Class::Unclear => tried(session, arn, context, error).await,
                _ => error,
            })
        })
        .await
    }

    async fn disable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        self.with_key(Role::Roll, "disabling", version, async |session, key| session.disable(key).await).await
    }

    async fn enable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        self.with_key(Role::Roll, "enabling", version, async |session, key| session.enable(key).await).await
    }

    async fn destroy_version(&self, version: &MasterKeyRef) -> Result<Destruction, BackendError> {
        let at = self
            .with_key(Role::Roll, "ordering the deletion of", version, async |session, key| {
                destroy::destroy(session, key, self.cluster, self.settings.deletion_days).await
            })
            .await?;
        Ok(Destruction::Scheduled { at })
    }

    async fn cancel_destruction(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        self.with_key(Role::Roll, "cancelling the deletion of", version, async |session, key| {
            destroy::cancel(session, key).await
        })
        .await
    }

    async fn describe_version(&self, version: &MasterKeyRef) -> Result<VersionState, BackendError> {
        self.with_key(Role::Serve, "describing", version, async |session, key| {
            Ok(match session.find(key.as_str()).await?.map(|found| found.state) {
                None => VersionState::Absent,
                Some(State::Enabled) => VersionState::Enabled,
                Some(State::PendingDeletion(Some(at))) => VersionState::DestructionScheduled { at },
                Some(State::Disabled | State::PendingDeletion(None)) => VersionState::Disabled,
                Some(State::NotNow(state)) => {
                    return Err(AwsError::unavailable(format!("{key} cannot be used now: AWS says {state}")));
                }
            })
        })
        .await
    }

    async fn status(&self) -> Result<BackendStatus, BackendError> {
        // Whatever it says of this key, it was reached and knew us. The first epoch's is asked for, because there is
        // always a name for it, and nothing that serves may ask for less.
        let call = async {
            let session = self.session(Role::Serve, None).await?;
            let known = match session.find(&names::alias(self.cluster, EpochNumber::FIRST)).await {
                Ok(Some(found)) => format!(", account {}", found.arn.account()),
                Ok(None) => String::new(),
                Err(error) if error.class == Class::Denied => ", where DescribeKey is not allowed".to_owned(),
                Err(error) => return Err(error),
            };
            Ok(format!("AWS KMS at {}{known}", session.place))
        };
        let detail = within(|| "asking AWS KMS for its state".to_owned(), call).await?;
        Ok(BackendStatus { kind: AWS_KMS, detail, assurance: Assurance::CloudKms })
    }
}

/// Says what it means that a key's state did not allow something.
async fn judged(session: &Session, key: &KeyArn, error: AwsError) -> AwsError {
    match session.describe(key.as_str()).await.map(|found| found.state) {
        Ok(State::Disabled) => error.reclassed(Class::Denied).and("it is disabled"),
        Ok(State::PendingDeletion(_)) => error.reclassed(Class::Denied).and("it is to be deleted"),
        Ok(State::Enabled) => error.reclassed(Class::Unavailable).and("it is enabled by now: try again"),
        Ok(State::NotNow(state)) => error.reclassed(Class::Unavailable).and(&format!("it is {state}")),
        // A right that is missing there says nothing of the key.
        Err(unknown) if matches!(unknown.class, Class::Denied) => {
            error.reclassed(Class::Unavailable).and("and DescribeKey is refused")
        }
        Err(unknown) => unknown,
    }
}

/// Says what an unclear answer means: where the key opens what it has just sealed, the wrap was at fault. The block is
/// sealed for another purpose than epoch keys are, so that it can never be taken for one.
async fn tried(session: &Session, key: &KeyArn, context: &EpochContext, unclear: AwsError) -> AwsError {
    let mut purpose = names::encryption_context(context);
    purpose.insert("kms1".to_owned(), "probe".to_owned());
    let works = async {
        let sealed = session.encrypt(key, purpose.clone(), &PROBE).await?;
        session.decrypt(key, purpose, &sealed).await
    };
    match works.await {
        Ok(opened) if *opened.expose_to_backend() == PROBE => unclear.reclassed(Class::WrongKey),
        Ok(_) => AwsError::wrong_answer(format!("{key} does not give back what it was given")),
        Err(error) if error.class == Class::State => judged(session, key, error).await,
        // Nor does a right to seal that is missing.
        Err(error) if matches!(error.class, Class::WrongKey | Class::Unclear | Class::Denied) => {
            unclear.reclassed(Class::Unavailable)
        }
        Err(error) => error,
    }
}

/// Nothing secret: it only has to come back.
const PROBE: [u8; 32] = [0x5a; 32];

const NOTE_FILE: &str = "README";
const NOTE: &str = "The master key of this cluster is in AWS KMS, a KMS key for each epoch, with the aliases\n\
    alias/kms1-<cluster>-<epoch>. Nothing here needs a backup. Without those keys all data is lost:\n\
    never delete one that kms-server did not retire.\n";
