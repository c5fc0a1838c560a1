//! What a daemon asks of the system: locked memory for keys, and descriptors for files and connections.

use crate::crypto::arena::{self, Protection};
use crate::keyring::KeyringSettings;
use crate::rpc::accept::ConnectionLimits;

/// Returns how many secrets lie in locked memory when all is full.
pub(crate) fn slots_wanted(settings: &KeyringSettings) -> usize {
    settings.keys_max + SECRETS_OF_TENANT * settings.tenants_max + SLOTS_APART
}

/// Makes the locked memory, and fits what is kept in it to what the system gave. Returns that, and
/// what an operator should look at.
pub(super) fn prepare_memory(wanted: KeyringSettings) -> (KeyringSettings, Vec<String>) {
    let slots_wanted = slots_wanted(&wanted);
    let memory = arena::init(slots_wanted);
    tracing::info!(protection = memory.protection.describe(), slots = memory.slots, "memory for keys");
    let mut warnings = Vec::new();
    let mut settings = wanted;
    if memory.slots < slots_wanted {
        let fits =
            |count: usize| (count * memory.slots.saturating_sub(SLOTS_APART) / (slots_wanted - SLOTS_APART)).max(8);
        settings = KeyringSettings { keys_max: fits(wanted.keys_max), tenants_max: fits(wanted.tenants_max), ..wanted };
        warnings.push(format!(
            "locked memory has room for {} of {slots_wanted} secrets: {} keys and {} tenants stay in memory; raise RLIMIT_MEMLOCK",
            memory.slots, settings.keys_max, settings.tenants_max
        ));
    }
    if memory.protection == Protection::Unlocked {
        warnings.push("keys lie in memory that is not locked: raise RLIMIT_MEMLOCK".to_owned());
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    (settings, warnings)
}

/// Raises the limit of open files to what is allowed, and keeps connections below it: the log and
/// the store need files of their own, whatever happens on the network.
pub(super) fn prepare_files(wanted: ConnectionLimits, warnings: &mut Vec<String>) -> ConnectionLimits {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let files =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let total = wanted.total.min(files.saturating_sub(FILES_APART).max(16));
    if total < wanted.total {
        let warning = format!(
            "the limit of open files ({files}) allows {total} connections, not {}: raise RLIMIT_NOFILE",
            wanted.total
        );
        tracing::warn!("{warning}");
        warnings.push(warning);
    }
    ConnectionLimits { total, per_peer: wanted.per_peer.min(total) }
}

/// Tenant key, record MAC, index root, audit contexts.
const SECRETS_OF_TENANT: usize = 4;
/// Epoch, cluster, and what is opened for the length of a call.
const SLOTS_APART: usize = 64;
/// Files of the store, the log, operators and probes.
pub(crate) const FILES_APART: usize = 512;
