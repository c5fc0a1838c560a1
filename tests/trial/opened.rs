//! A cluster opened in this process, on the daemon's own road: lock, store, backend, log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kms_server::backend;
use kms_server::config::{Flags, Settings};
use kms_server::data_dir::DataDir;
use kms_server::keyring::Keyring;
use kms_server::keyring::open::Opening;
use kms_server::noun::clock::SystemClock;
use kms_server::noun::random::OsRandom;
use kms_server::noun::{Clock, Random, UnixMillis};
use kms_server::store::Store;
use kms_server::store::rocks::{Limits, RocksStore};
use tokio_util::sync::CancellationToken;

/// A cluster that makes changes.
pub struct Cluster {
    pub keyring: Arc<Keyring>,
    store: Arc<dyn Store>,
    stop: CancellationToken,
    mutator: tokio::task::JoinHandle<()>,
    log_dir: PathBuf,
    log_began: u64,
    /// What a torn end of the log was cut by, and told.
    pub torn_bytes: u64,
    _data_dir: DataDir,
}

pub fn now() -> UnixMillis {
    SystemClock.now()
}

pub fn settings(file: &Path) -> Result<Settings> {
    Ok(Settings::load(&Flags { config: Some(file.to_owned()), ..Flags::default() })?)
}

impl Cluster {
    pub async fn open(settings: &Settings) -> Result<Self> {
        kms_server::crypto::arena::init(1024);
        let data_dir = DataDir::take_to_serve(&settings.data_dir)?;
        // Little memory, and not the patience of a daemon: a small store opens in milliseconds.
        let limits = Limits {
            cache_bytes_max: 1 << 20,
            readers: 1,
            open_wait_max: Duration::from_secs(20),
            ..Limits::default()
        };
        let (store, salvaged) =
            RocksStore::open_or_salvage(&settings.store_dir(), &limits).context("the store cannot be opened")?;
        let store: Arc<dyn Store> = Arc::new(store);
        let rng: Arc<dyn Random> = Arc::new(OsRandom::new());
        let (prepared, for_backend) = (backend::prepare(&settings.backend)?, Arc::clone(&rng));
        let opening = Opening {
            store: Arc::clone(&store),
            salvaged_bytes: salvaged.map(|salvaged| salvaged.log_bytes),
            evidence: None,
            backend: &|cluster| prepared.open(cluster, Arc::clone(&for_backend)),
            backend_kind: prepared.kind(),
            log_dir: &settings.log_dir(),
            ledger_dir: &settings.ledger_dir(),
            node: settings.node.clone(),
            segment_bytes: settings.segment_bytes,
            flush_on_cores: false,
            settings: settings.keyring,
            roles_in_force: Box::new(|_| ()),
            clock: Arc::new(SystemClock),
            rng,
        };
        let opened = match opening.run().await {
            Ok(opened) => opened,
            Err(error) => {
                // What it says counts, and not whether a damaged store closes.
                let _ = store.close().await;
                return Err(error.into());
            }
        };
        let stop = CancellationToken::new();
        let mutator = tokio::spawn(opened.mutator.run(stop.clone()));
        Ok(Self {
            keyring: opened.keyring,
            store,
            stop,
            mutator,
            log_dir: settings.log_dir(),
            log_began: opened.log_began,
            torn_bytes: opened.settled.torn_bytes,
            _data_dir: data_dir,
        })
    }

    /// Reads what the start did not need of the log.
    pub fn verify_older_log(&self) -> Result<()> {
        self.keyring.log().verify_before(&self.log_dir, self.log_began, || false)?;
        Ok(())
    }

    /// Ends as the daemon does.
    pub async fn close(self) -> Result<()> {
        self.stop.cancel();
        self.mutator.await?;
        self.keyring.log().close();
        self.keyring.check_whole()?;
        Ok(self.store.close().await?)
    }
}
