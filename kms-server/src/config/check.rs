//! Everything that can be told of settings before they are used: the settings themselves, and what they name.

use std::error::Error as _;
use std::net::TcpListener;
use std::path::Path;

use super::draft::Draft;
use super::{Flags, Settings};
use crate::authn::inspect::inspect;
use crate::authn::{Issuers, TlsError};
use crate::backend::{self, BackendError};
use crate::data_dir::DataDir;
use crate::mistake::Mistake;
use crate::noun::random::OsRandom;
use crate::noun::{Clock, Uid};
use crate::policy::{File, Files, Policy};

/// What was found.
#[derive(Debug, Default, serde::Serialize)]
pub struct Checked {
    /// What keeps the daemon from starting, or from being of use.
    pub mistakes: Vec<Mistake>,
    /// What somebody should know.
    pub notes: Vec<String>,
    /// What was looked at and is right.
    pub checked: Vec<String>,
}

impl Checked {
    /// Returns one line that says what was looked at.
    pub fn summary(&self) -> String {
        format!("ok: {}", self.checked.join("; "))
    }

    fn mistake(&mut self, file: impl Into<String>, what: impl Into<String>, why: impl Into<String>, remedy: &str) {
        let (file, what, why) = (file.into(), what.into(), why.into());
        self.mistakes.push(Mistake { file, place: None, what, why, remedy: remedy.to_owned() });
    }

    fn tls_mistake(&mut self, settings: &Settings, error: TlsError) {
        let file = error.file.as_deref().unwrap_or(&settings.data_dir).display().to_string();
        let why = "callers and daemon know each other by these files".to_owned();
        self.mistakes.push(Mistake { file, place: None, what: error.what, why, remedy: error.remedy });
    }
}

/// Looks at all that the settings say, and at what they name. Changes nothing, and takes nothing from a daemon that runs.
pub async fn check(flags: &Flags, clock: &dyn Clock) -> Checked {
    let (settings, mut draft) = Settings::draft(flags);
    let mut checked = Checked::default();
    if !draft.legible {
        // What is missing may stand in what could not be read.
        checked.mistakes = draft.mistakes;
        return checked;
    }
    checked.count_settings(&draft, flags.config.as_deref());
    checked.addresses(&settings, &mut draft);
    checked.mistakes.append(&mut draft.mistakes);
    checked.tls(&settings, &draft, flags, clock);
    let has_cluster = if settings.data_dir.as_os_str().is_empty() { false } else { checked.data_dir(&settings) };
    checked.bindings(&settings, has_cluster);
    if has_cluster {
        checked.backend(&settings).await;
    }
    checked
}

impl Checked {
    pub(crate) fn count_settings(&mut self, draft: &Draft, file: Option<&Path>) {
        let set = super::SETTINGS.iter().filter(|setting| draft.is_set(&setting.full_name())).count();
        let all = super::SETTINGS.len();
        let file = file.map_or("no file of settings".to_owned(), |file| file.display().to_string());
        self.checked.push(format!("{file}, {set} of {all} settings set"));
    }

    pub(crate) fn addresses(&mut self, settings: &Settings, draft: &mut Draft) {
        let listeners = [
            ("listen.services", settings.services),
            ("listen.operator", settings.operator),
            ("listen.probes", settings.probes),
        ];
        for (name, address) in listeners {
            let Err(error) = TcpListener::bind(address) else { continue };
            if error.kind() == std::io::ErrorKind::AddrInUse {
                self.notes.push(format!("{name} = {address} is in use now: by the daemon itself, if it runs"));
            } else {
                let what = format!("{name} = {address} cannot be listened on");
                draft.contradiction(name, what, &error.to_string(), "give a free address of this machine");
            }
        }
        self.checked.push(format!("addresses {}, {}, {}", settings.services, settings.operator, settings.probes));
    }

    pub(crate) fn tls(&mut self, settings: &Settings, draft: &Draft, flags: &Flags, clock: &dyn Clock) {
        let Some(files) = &settings.tls else {
            if draft.is_missing("tls.certificate_file") && draft.is_missing("tls.key_file") {
                let remedy = "set tls.certificate_file, tls.key_file and tls.client_ca_file";
                let file = flags.config.as_ref().map_or("settings".to_owned(), |file| file.display().to_string());
                self.mistake(file, "there are no certificates", "everything is mutual TLS", remedy);
            }
            return;
        };
        let inspected = inspect(files, clock.now());
        for error in inspected.mistakes {
            self.tls_mistake(settings, error);
        }
        self.notes.extend(inspected.notes.iter().map(TlsError::to_string));
        self.checked.extend(inspected.certificate.map(|certificate| format!("certificate {certificate}")));
        match Issuers::read(&settings.issuers) {
            Ok(_) if settings.issuers.is_empty() => {}
            Ok(_) => self.checked.push(format!("issuers of tokens: {}", settings.issuers.len())),
            Err(error) => {
                let file = flags.config.as_ref().map_or("settings".to_owned(), |file| file.display().to_string());
                self.mistake(file, "an [[issuer]] cannot be used", error.to_string(), "correct it");
            }
        }
    }

    pub(crate) fn data_dir(&mut self, settings: &Settings) -> bool {
        let dir = settings.data_dir.display().to_string();
        match DataDir::look(&settings.data_dir) {
            Ok(true) => {
                self.checked.push(format!("cluster in {dir}"));
                true
            }
            Ok(false) => {
                self.notes
                    .push(format!("{dir} holds no cluster yet: `kms-server init` makes one, with bindings and PIN"));
                false
            }
            Err(error) => {
                self.mistake(dir, "the data directory is not in order", error.to_string(), "serve refuses it as it is");
                false
            }
        }
    }

    pub(crate) fn bindings(&mut self, settings: &Settings, has_cluster: bool) {
        let path = &settings.bindings_file;
        let label = path.display().to_string();
        match crate::reload::read_bindings(path) {
            Ok(text) => {
                let own = self.own_policies(settings);
                let own: Vec<File<'_>> = own.iter().map(|(label, text)| File { label, text }).collect();
                let bindings = File { label: &label, text: &text };
                let mistakes = Policy::mistakes(&Files { bindings, own: &own, pairs: &settings.context_pairs });
                if mistakes.is_empty() {
                    self.checked.push(format!("bindings {label}"));
                    self.checked.extend(own.iter().map(|file| format!("policies {}", file.label)));
                }
                self.mistakes.extend(mistakes);
            }
            // `init` makes them.
            Err(_) if !has_cluster && !path.exists() => {}
            Err(error) => {
                let why = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
                self.mistake(
                    label,
                    "the bindings cannot be used",
                    why,
                    "see that this user, and nobody else, owns them",
                );
            }
        }
    }

    /// Returns the files of own policies that can be read, by their labels.
    fn own_policies(&mut self, settings: &Settings) -> Vec<(String, String)> {
        let mut own = Vec::new();
        for path in &settings.cedar_files {
            let label = path.display().to_string();
            match crate::reload::read_policies(path) {
                Ok(text) => own.push((label, text)),
                Err(error) => {
                    let why = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
                    let remedy = "see that this user, and nobody else, owns them";
                    self.mistake(label, "the policies cannot be used", why, remedy);
                }
            }
        }
        own
    }

    /// All but the PIN itself, which only a start tries: a check that did could be used to guess it.
    async fn backend(&mut self, settings: &Settings) {
        let prepared = backend::prepare(&settings.backend).map_err(|error| BackendError::Unavailable(error.into()));
        let rng = std::sync::Arc::new(OsRandom::new());
        let opened = prepared.and_then(|prepared| prepared.open(Uid::from_bytes([0; 16]), rng));
        let status = match opened {
            Ok(backend) => backend.status().await,
            Err(error) => Err(error),
        };
        match status {
            Ok(status) => self.checked.push(status.detail),
            Err(error) => {
                let why = error.source().map(backend::chain_of).unwrap_or_default();
                self.mistake("backend", "the master key cannot be used", why, "put it right before the next start");
            }
        }
    }
}
