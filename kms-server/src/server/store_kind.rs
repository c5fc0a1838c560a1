//! Which store a daemon has.

use std::path::Path;
use std::sync::Arc;

use crate::store::memory::MemoryStore;
#[cfg(feature = "rocksdb")]
use crate::store::rocks::{Limits, RocksStore, Salvaged};
use crate::store::{Store, StoreError};

/// Which store.
#[derive(Clone)]
pub enum StoreKind {
    /// Durable, on this machine.
    #[cfg(feature = "rocksdb")]
    Local,
    /// Gone when the daemon is.
    Memory(Arc<MemoryStore>),
}

impl StoreKind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => "local",
            StoreKind::Memory(_) => "memory",
        }
    }

    pub(crate) fn create(&self, dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => {
                let made =
                    RocksStore::create(dir, &Limits::default()).map_err(|error| StoreError::Failed(error.into()))?;
                Ok(Arc::new(made))
            }
            StoreKind::Memory(store) => {
                let made = std::fs::create_dir_all(dir);
                let noted = made.and_then(|()| std::fs::write(dir.join("README"), "The rows are in memory only.\n"));
                noted.map_err(|error| StoreError::Failed(error.into()))?;
                Ok(Arc::clone(store) as Arc<dyn Store>)
            }
        }
    }

    /// Lets go of a store, so that it can be opened again: one in memory just goes on.
    pub(crate) async fn release(&self, made: &dyn Store) -> Result<(), StoreError> {
        if matches!(self, StoreKind::Memory(_)) { Ok(()) } else { made.close().await }
    }

    /// Opens it; returns how many bytes of its log were set aside because they were damaged.
    pub(super) fn open(&self, dir: &Path) -> anyhow::Result<(Arc<dyn Store>, Option<u64>)> {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => {
                let (store, salvaged) = RocksStore::open_or_salvage(dir, &Limits::default())?;
                if let Some(Salvaged { aside, log_bytes }) = &salvaged {
                    tracing::warn!(aside = %aside.display(), log_bytes, "the store's log was damaged: it was read as far as it can be, and lies aside as it was; it holds wrapped keys, remove it when all is well");
                }
                Ok((Arc::new(store), salvaged.map(|salvaged| salvaged.log_bytes)))
            }
            StoreKind::Memory(store) => {
                anyhow::ensure!(dir.is_dir(), "{} is not there", dir.display());
                Ok((Arc::clone(store) as Arc<dyn Store>, None))
            }
        }
    }

    /// Opens it without mending anything.
    pub(crate) fn open_as_it_is(&self, dir: &Path) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            #[cfg(feature = "rocksdb")]
            StoreKind::Local => Ok(Arc::new(RocksStore::open(dir, &Limits::default())?)),
            StoreKind::Memory(_) => Ok(self.open(dir)?.0),
        }
    }
}
