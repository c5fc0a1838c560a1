//! `kms-server doctor`: looks, offline, at everything that a daemon needs, and says of each whether it is right and what
//! to do. A line for each check.
//!
//! It takes nothing from a daemon that runs: what such a one holds is not looked into, and that is said. Where none runs
//! it opens the store as a start does, and has the backend unwrap the current epoch's key and wrap and unwrap another.

use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

use crate::backend::{EpochWrap, MasterKeyBackend, Prepared};
use crate::config::check::Checked;
use crate::config::{Flags, Settings};
use crate::crypto::EpochKey;
use crate::crypto::arena::{self, Protection, SLOT_BYTES};
use crate::data_dir::{DataDir, DataDirError};
use crate::keyring::open::Unverified;
use crate::lock;
use crate::noun::random::OsRandom;
use crate::noun::{Clock, Random, Uid};
use crate::protections::Protections;
use crate::server::{FILES_APART, StoreKind, slots_wanted};

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It is right.
    Ok,
    /// The daemon starts, but somebody should look at it.
    Warning,
    /// The daemon does not start, or is of no use.
    Failure,
}

impl Health {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Failure => "failure",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub status: Health,
    /// What was found, and what to do about it.
    pub message: String,
}

/// All findings, in the order of a start.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Diagnosis {
    /// The findings.
    pub checks: Vec<Finding>,
}

impl Diagnosis {
    /// Returns the worst of all.
    pub fn worst(&self) -> Health {
        let is = |status| self.checks.iter().any(|finding| finding.status == status);
        match (is(Health::Failure), is(Health::Warning)) {
            (true, _) => Health::Failure,
            (false, true) => Health::Warning,
            (false, false) => Health::Ok,
        }
    }

    fn add(&mut self, check: &'static str, status: Health, message: impl Into<String>) {
        self.checks.push(Finding { check, status, message: message.into() });
    }

    /// Takes over what the check of settings found: each mistake is a failure, each note a warning.
    fn take(&mut self, check: &'static str, found: Checked) {
        for mistake in &found.mistakes {
            self.add(check, Health::Failure, mistake.to_string());
        }
        for note in found.notes {
            self.add(check, Health::Warning, note);
        }
        if found.mistakes.is_empty() && !found.checked.is_empty() {
            self.add(check, Health::Ok, found.checked.join("; "));
        }
    }
}

/// Looks at everything. `prepare` makes the backend ready, if the settings are good enough for that.
pub async fn examine(
    flags: &Flags,
    store: &StoreKind,
    protections: &Protections,
    clock: &dyn Clock,
    prepare: impl FnOnce(&Settings) -> std::io::Result<Prepared>,
) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let (settings, mut draft) = Settings::draft(flags);
    let mut found = Checked::default();
    found.count_settings(&draft, flags.config.as_deref());
    found.mistakes.append(&mut draft.mistakes);
    let is_usable = found.mistakes.is_empty();
    diagnosis.take("settings", found);
    if !is_usable {
        // What the settings name is not known for sure.
        return diagnosis;
    }
    let mut found = Checked::default();
    found.addresses(&settings, &mut draft);
    found.mistakes.append(&mut draft.mistakes);
    diagnosis.take("addresses", found);
    let mut found = Checked::default();
    found.tls(&settings, &draft, flags, clock);
    diagnosis.take("tls", found);
    diagnosis.process(&settings, protections);
    let mut found = Checked::default();
    let has_cluster = found.data_dir(&settings);
    diagnosis.take("data directory", found);
    let mut found = Checked::default();
    found.bindings(&settings, has_cluster);
    diagnosis.take("bindings", found);
    diagnosis.places(&settings);
    let prepared = prepare(&settings);
    match prepared {
        Ok(prepared) => diagnosis.master_key(&settings, store, &prepared, has_cluster).await,
        Err(error) => diagnosis.add("backend", Health::Failure, format!("it could not be made ready: {error}")),
    }
    diagnosis
}

impl Diagnosis {
    /// What the system gives this process. The daemon may be given something else by its service manager.
    fn process(&mut self, settings: &Settings, protections: &Protections) {
        let files = getrlimit(Resource::Nofile).maximum;
        let wanted = u64::try_from(settings.connections.total.saturating_add(FILES_APART)).unwrap_or(u64::MAX);
        if files.is_none_or(|files| files >= wanted) {
            self.add("open files", Health::Ok, format!("the limit allows {} connections", settings.connections.total));
        } else {
            let files = files.unwrap_or_default();
            let message = format!(
                "the limit of {files} is less than {wanted}, for limits.connections: raise RLIMIT_NOFILE (LimitNOFILE= of systemd)"
            );
            self.add("open files", Health::Warning, message);
        }
        let slots = slots_wanted(&settings.keyring);
        let memory = arena::init(slots);
        let bytes = slots * SLOT_BYTES;
        if memory.protection == Protection::Unlocked || memory.slots < slots {
            let message = format!(
                "there is room for {} of {slots} keys, {}: raise RLIMIT_MEMLOCK to {bytes} bytes (LimitMEMLOCK= of systemd)",
                memory.slots,
                memory.protection.describe()
            );
            self.add("memory for keys", Health::Warning, message);
        } else {
            self.add("memory for keys", Health::Ok, format!("{}, {slots} keys", memory.protection.describe()));
        }
        let mut is_whole = true;
        for warning in protections.warnings() {
            is_whole = false;
            self.add("process", Health::Warning, warning);
        }
        if is_whole {
            self.add("process", Health::Ok, protections.describe(memory.protection.describe()));
        }
    }

    /// Where things lie, and how much room there is.
    fn places(&mut self, settings: &Settings) {
        if let Some(pin_file) = settings.backend.pin_file() {
            let is_beside = |dir: &Path| pin_file.starts_with(dir);
            let real = settings
                .data_dir
                .canonicalize()
                .is_ok_and(|dir| pin_file.canonicalize().is_ok_and(|file| file.starts_with(dir)));
            if is_beside(&settings.data_dir) || real {
                let message = format!(
                    "{} lies beside the data: whoever copies the directory has both; set backend.pin_file to a file on another disk, or to a credential of the service manager",
                    pin_file.display()
                );
                self.add("PIN", Health::Warning, message);
            } else {
                self.add("PIN", Health::Ok, format!("{} lies apart from the data", pin_file.display()));
            }
        }
        match rustix::fs::statvfs(&settings.data_dir) {
            Ok(found) => {
                let free = found.f_bavail.saturating_mul(found.f_frsize);
                let least = settings.segment_bytes.saturating_mul(SEGMENTS_FREE_MIN);
                let (status, advice) = if free < least {
                    (Health::Warning, ": nothing is answered that cannot be recorded, so make room before it is full")
                } else {
                    (Health::Ok, "")
                };
                self.add("disk", status, format!("{} MiB free for data{advice}", free >> 20));
            }
            Err(error) if error == rustix::io::Errno::NOENT => {}
            Err(error) => self.add("disk", Health::Failure, format!("{}: {error}", settings.data_dir.display())),
        }
        match lock::is_marked(&settings.data_dir) {
            Ok(false) => {}
            Ok(true) => {
                let message =
                    "an operator locked this node: it starts, and refuses every call until `kms operator unlock`";
                self.add("lock", Health::Warning, message);
            }
            Err(error) => self.add("lock", Health::Failure, format!("whether it is locked cannot be read: {error}")),
        }
    }

    /// The store, and a real round trip with what holds the master key.
    async fn master_key(&mut self, settings: &Settings, store: &StoreKind, prepared: &Prepared, has_cluster: bool) {
        let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
        if !has_cluster {
            return self.reach(prepared, rng, Health::Warning).await;
        }
        let _data_dir = match DataDir::take_to_serve(&settings.data_dir) {
            Ok(taken) => taken,
            Err(DataDirError::Taken(_)) => {
                self.add(
                    "store",
                    Health::Warning,
                    "a kms-server has it open, so it was not looked into: `kms status` asks that one",
                );
                return self.reach(prepared, rng, Health::Failure).await;
            }
            Err(error) => return self.add("store", Health::Failure, error.to_string()),
        };
        let opened = match store.open_as_it_is(&settings.store_dir()) {
            Ok(opened) => opened,
            Err(error) => {
                self.add(
                    "store",
                    Health::Failure,
                    format!("it cannot be opened: {error:#}; a start may salvage what a crash left"),
                );
                return self.reach(prepared, rng, Health::Failure).await;
            }
        };
        match Unverified::read(&*opened, &settings.log_dir()).await {
            Ok(unverified) => {
                let epoch = unverified.epoch_wrap.context.epoch;
                self.add("store", Health::Ok, format!("{} opens; epoch {epoch}", settings.store_dir().display()));
                self.round_trip(prepared, &unverified, rng).await;
            }
            Err(error) => self.add("store", Health::Failure, format!("{:#}", anyhow::Error::from(error))),
        }
        if let Err(error) = opened.close().await {
            self.add("store", Health::Failure, format!("it cannot be closed: {error}"));
        }
    }

    async fn round_trip(&mut self, prepared: &Prepared, unverified: &Unverified, rng: Arc<dyn Random>) {
        let Unverified { backend_kind, epoch_wrap, .. } = unverified;
        if backend_kind != prepared.kind() {
            let message = format!(
                "the cluster was made with the backend {backend_kind}, and backend.kind is {}",
                prepared.kind()
            );
            return self.add("backend", Health::Failure, message);
        }
        let tried = async {
            let backend = prepared.open(epoch_wrap.context.cluster, Arc::clone(&rng))?;
            drop(epoch_wrap.open(&*backend).await?);
            let fresh =
                EpochKey::generate(&*rng).map_err(|full| crate::backend::BackendError::Unavailable(full.into()))?;
            EpochWrap::make(&*backend, epoch_wrap.version.clone(), epoch_wrap.context, &fresh).await?;
            backend.status().await
        };
        match tried.await {
            Ok(status) => {
                let EpochWrap { version, context, .. } = epoch_wrap;
                let message = format!(
                    "{}: gave the key of epoch {}, wrapped and unwrapped another, under {}; {}",
                    status.kind, context.epoch, version.0, status.detail
                );
                self.add("backend", Health::Ok, message);
            }
            Err(error) => self.add("backend", Health::Failure, format!("a start would fail: {}", error.chain())),
        }
    }

    /// Asks whether the backend is there, where nothing is known that it could unwrap.
    async fn reach(&mut self, prepared: &Prepared, rng: Arc<dyn Random>, if_not: Health) {
        let asked = async {
            let backend: Arc<dyn MasterKeyBackend> = prepared.open(Uid::from_bytes([0; 16]), rng)?;
            backend.status().await
        };
        match asked.await {
            Ok(status) => self.add("backend", Health::Ok, format!("{}: {}", status.kind, status.detail)),
            Err(error) => self.add("backend", if_not, error.chain()),
        }
    }
}

/// The log makes a spare segment before it needs one.
const SEGMENTS_FREE_MIN: u64 = 8;
