//! `kms-server init`: makes a cluster on this machine.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use crate::audit::LogSettings;
use crate::backend::Prepared;
use crate::config::Settings;
use crate::crypto::arena;
use crate::data_dir::DataDir;
use crate::keyring::init::Birth;
use crate::noun::clock::SystemClock;
use crate::noun::random::OsRandom;
use crate::noun::{Principal, Random, Uid};
use crate::server::{StoreKind, slots_wanted};

/// What was made, for people and programs.
#[derive(Debug, serde::Serialize)]
pub struct Made {
    /// The cluster's uid.
    pub cluster: String,
    /// The log's C2SP origin.
    pub origin: String,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// The backend's kind.
    pub backend: &'static str,
    /// The file with the PIN, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_file: Option<PathBuf>,
    /// Who may do what.
    pub bindings_file: PathBuf,
    /// Whether the bindings were there already and were left alone.
    pub bindings_kept: bool,
}

/// Makes a cluster whose first administrator is `admin`.
pub async fn init(
    settings: &Settings,
    store: StoreKind,
    prepared: &Prepared,
    admin: &Principal,
) -> anyhow::Result<Made> {
    let ours = settings.named_files();
    let _data_dir = DataDir::take_for_init(&settings.data_dir, &ours)?;
    // First, and inert alone: an init that ends here can be run again, one that ends later has its
    // administrator.
    let bindings_kept = write_first_binding(settings, admin)?;
    // As large as a daemon wants it: `dev` goes on in this process.
    arena::init(slots_wanted(&settings.keyring));
    let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
    let cluster = Uid::generate(&*rng);
    prepared.init(Arc::clone(&rng)).await.context("the master key backend could not be made")?;
    let backend = prepared.open(cluster, Arc::clone(&rng))?;
    let origin = settings.origin.clone().unwrap_or_else(|| format!("kms-{cluster}/audit/{}", settings.node));
    let birth = Birth {
        cluster,
        backend_kind: prepared.kind(),
        backend: &*backend,
        log_dir: &settings.log_dir(),
        log: LogSettings {
            node: settings.node.clone(),
            origin: origin.clone(),
            segment_bytes: settings.segment_bytes,
            flush_on_cores: false,
        },
        clock: Arc::new(SystemClock),
        rng: &*rng,
    };
    let made =
        birth.run(|| async { store.create(&settings.store_dir()).map_err(crate::keyring::Error::Store) }).await?;
    store.release(&*made).await?;
    Ok(Made {
        cluster: cluster.to_string(),
        origin,
        data_dir: settings.data_dir.clone(),
        backend: prepared.kind(),
        pin_file: settings.backend.pin_file().map(Into::into),
        bindings_file: settings.bindings_file.clone(),
        bindings_kept,
    })
}

fn write_first_binding(settings: &Settings, admin: &Principal) -> anyhow::Result<bool> {
    let text = format!(
        "# Who may do what. Deny by default; read at start, SIGHUP and change. README.md describes the roles.\n\
         # Administrators manage tenants and keys, and use none of them.\n\n\
         [[binding]]\nid = \"first-administrator\"\n\
         roles = [\"tenant-admin\", \"key-admin\", \"auditor\", \"operator\"]\n\
         principals = [\"{admin}\"]\ntenants = [\"*\"]\nkeys = [\"*\"]\n"
    );
    let path = &settings.bindings_file;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("writing {}", path.display()))?;
            Ok(false)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(true),
        Err(error) => Err(error).with_context(|| format!("writing {}", path.display())),
    }
}
