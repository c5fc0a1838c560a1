//! The secret types. They have no Debug, Clone, Display or Serialize, and are wiped on drop.
//!
//! Long-lived ones lie in locked memory. What becomes public says so by name.

use ring::digest::{SHA256, digest};
use ring::hmac;
use zeroize::{Zeroize as _, Zeroizing};

use crate::noun::{KeyVersion, Random, Uid};

use super::arena::{ArenaFull, Slot};
use super::construction::{self, OpenError};
use super::context::ContextHash;
use super::header::{Header, Kind};
use super::kdf;

macro_rules! secret {
    ($($(#[$doc:meta])* $Name:ident)*) => {$(
        $(#[$doc])*
        pub struct $Name(Slot);

        impl $Name {
            /// Takes 32 bytes that `fill` writes in place, in locked memory.
            #[allow(dead_code)]
            pub(in crate::crypto) fn fill_with<E: From<ArenaFull>>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
                Slot::fill_with(fill).map(Self)
            }

            #[allow(dead_code)]
            pub(in crate::crypto) fn bytes(&self) -> &[u8; 32] {
                self.0.bytes()
            }
        }
    )*};
}

macro_rules! generated {
    ($($Name:ident)*) => {$(
        impl $Name {
            /// Makes a new one.
            pub fn generate(rng: &dyn Random) -> Result<Self, ArenaFull> {
                Self::fill_with(|bytes| {
                    rng.fill(bytes);
                    Ok(())
                })
            }
        }
    )*};
}

secret! {
    /// A version of the software HSM's master key.
    MasterKey
    /// The key of an erasure epoch.
    EpochKey
    /// The secret whose subkeys authenticate what belongs to no tenant.
    ClusterSecret
    /// One per tenant: wraps its KEKs and authenticates its records.
    TenantKey
    /// The root of a tenant's blind indexes and of its audit contexts.
    IndexRoot
    /// The secret of one key version.
    Kek
    /// The Ed25519 seed of the audit log.
    AuditSeed
    /// Authenticates records of the store.
    RecordMacKey
    /// Authenticates frames of the log.
    FrameMacKey
    /// Authenticates entries of the ledger.
    LedgerMacKey
    /// Authenticates page tokens.
    PageTokenKey
    /// Wraps audit seeds.
    WrapKey
    /// Makes context hashes in the log untestable for those without it.
    AuditCtxKey
    /// What Argon2id makes of a PIN.
    PinKey
}

generated! { MasterKey EpochKey ClusterSecret TenantKey IndexRoot Kek AuditSeed }

impl ClusterSecret {
    /// Returns the subkey for records that belong to no tenant.
    pub fn record_mac_key(&self) -> Result<RecordMacKey, ArenaFull> {
        derived(self.bytes(), b"kms1/record-mac\0").map(RecordMacKey)
    }

    /// Returns the subkey for frames of the log.
    pub fn frame_mac_key(&self) -> Result<FrameMacKey, ArenaFull> {
        derived(self.bytes(), b"kms1/frame-mac\0").map(FrameMacKey)
    }

    /// Returns the subkey for entries of the ledger.
    pub fn ledger_mac_key(&self) -> Result<LedgerMacKey, ArenaFull> {
        derived(self.bytes(), b"kms1/ledger-mac\0").map(LedgerMacKey)
    }

    /// Returns the subkey for page tokens.
    pub fn page_token_key(&self) -> Result<PageTokenKey, ArenaFull> {
        derived(self.bytes(), b"kms1/page-token\0").map(PageTokenKey)
    }

    /// Returns the subkey that wraps audit seeds.
    pub fn wrap_key(&self) -> Result<WrapKey, ArenaFull> {
        derived(self.bytes(), b"kms1/wrap\0").map(WrapKey)
    }
}

impl TenantKey {
    /// Returns the subkey for the tenant's records.
    pub fn record_mac_key(&self) -> Result<RecordMacKey, ArenaFull> {
        derived(self.bytes(), b"kms1/record-mac\0").map(RecordMacKey)
    }
}

impl IndexRoot {
    /// Returns the subkey for context hashes in the log.
    pub fn audit_ctx_key(&self) -> Result<AuditCtxKey, ArenaFull> {
        derived(self.bytes(), b"kms1/audit-ctx\0").map(AuditCtxKey)
    }
}

impl AuditCtxKey {
    /// Returns what the log shows of a context: equal for equal contexts of one tenant, and
    /// nothing to anybody else.
    pub fn shown_in_log(&self, context: &ContextHash) -> [u8; 16] {
        let mac = hmac_sha256(self.bytes(), &[context.as_bytes()]);
        *mac.first_chunk().expect("16 of 32 bytes")
    }
}

impl AuditSeed {
    /// Returns the Ed25519 public key of the seed.
    pub fn public_key(&self) -> [u8; 32] {
        let public = public_key_in_leaf(self.bytes());
        kdf::scrub_stack();
        public
    }
}

#[inline(never)]
fn public_key_in_leaf(seed: &[u8; 32]) -> [u8; 32] {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
    pair.public_key().as_ref().try_into().expect("a public key has 32 bytes")
}

impl EpochKey {
    /// Returns the epoch's key check value, which is public: it tells a wrong or substituted
    /// answer of any backend.
    pub fn kcv(&self, epoch_id: &Uid, epoch: crate::noun::EpochNumber) -> [u8; 32] {
        let mut kcv = [0; 32];
        kdf::expand(self.bytes(), &[b"kms1/epoch-kcv\0", epoch_id.as_bytes(), &epoch.to_u24()], &mut kcv);
        kdf::scrub_stack();
        kcv
    }
}

/// A plaintext on its way to the caller who may have it. Wiped on drop.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// Gives the bytes out, to be sent to the caller.
    pub fn expose_to_caller(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0)
    }
}

impl Kek {
    /// Seals a caller's data (kind 01).
    pub fn seal_data(
        &self,
        key: Uid,
        version: KeyVersion,
        context: &ContextHash,
        plaintext: &[u8],
        rng: &dyn Random,
    ) -> Vec<u8> {
        construction::seal(self.bytes(), Header { kind: Kind::Data, key_id: key, version }, context, plaintext, rng)
    }

    /// Seals what another version or key opened (kind 01).
    pub fn seal_opened(
        &self,
        key: Uid,
        version: KeyVersion,
        context: &ContextHash,
        opened: &Plaintext,
        rng: &dyn Random,
    ) -> Vec<u8> {
        self.seal_data(key, version, context, &opened.0, rng)
    }

    /// Opens a caller's data (kind 01).
    pub fn open_data(
        &self,
        key: Uid,
        version: KeyVersion,
        context: &ContextHash,
        blob: &[u8],
    ) -> Result<Plaintext, OpenError> {
        // The copy is wiped whole, also when it does not open.
        let mut copy = Zeroizing::new(blob.to_vec());
        let opened =
            construction::open(self.bytes(), Header { kind: Kind::Data, key_id: key, version }, context, &mut copy)?;
        let plaintext = Zeroizing::new(opened.to_vec());
        Ok(Plaintext(plaintext))
    }

    /// Wraps a portable data key (kind 02).
    pub fn wrap_dek(
        &self,
        key: Uid,
        version: KeyVersion,
        context: &ContextHash,
        dek: &Dek,
        rng: &dyn Random,
    ) -> Vec<u8> {
        construction::seal(self.bytes(), Header { kind: Kind::WrappedDek, key_id: key, version }, context, &*dek.0, rng)
    }

    /// Unwraps a portable data key (kind 02).
    pub fn unwrap_dek(
        &self,
        key: Uid,
        version: KeyVersion,
        context: &ContextHash,
        blob: &[u8],
    ) -> Result<Dek, OpenError> {
        let mut copy = Zeroizing::new(blob.to_vec());
        let opened = construction::open(
            self.bytes(),
            Header { kind: Kind::WrappedDek, key_id: key, version },
            context,
            &mut copy,
        )?;
        let bytes: &[u8; 32] = (&*opened).try_into().map_err(|_| OpenError::Length)?;
        Ok(Dek(Zeroizing::new(*bytes)))
    }
}

/// A data key made for a client. Lives only for the length of one call.
pub struct Dek(pub(super) Zeroizing<[u8; 32]>);

impl Dek {
    /// Makes a new one.
    pub fn generate(rng: &dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill(&mut *bytes);
        Self(bytes)
    }

    /// Gives the bytes out, to be sent to the caller.
    pub fn expose_to_caller(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Returns the id that a client's ciphertexts carry: of the key, not of its wrapping, so it
    /// survives re-wrapping.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        kdf::expand(&self.0, &[b"kms1/dek-id\0"], &mut id);
        kdf::scrub_stack();
        id
    }
}

/// Computes HMAC-SHA-256 and leaves nothing of the key on the stack.
pub(super) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let out = hmac_in_leaf(key, parts);
    kdf::scrub_stack();
    out
}

// A frame of its own: what `scrub_stack` wipes lies below its caller's.
#[inline(never)]
fn hmac_in_leaf(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Computes SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn derived(key: &[u8; 32], label: &[u8]) -> Result<Slot, ArenaFull> {
    Slot::fill_with(|out| {
        kdf::subkey(key, label, out);
        Ok(())
    })
}

/// Copies 32 opened bytes into a slot and wipes where they came from.
pub(super) fn move_into(out: &mut [u8; 32], opened: &mut [u8]) -> Result<(), OpenError> {
    if opened.len() != out.len() {
        return Err(OpenError::Length);
    }
    out.copy_from_slice(opened);
    opened.zeroize();
    Ok(())
}
impl EpochKey {
    /// Returns the bytes, for a backend that wraps them outside this process.
    pub(crate) fn expose_to_backend(&self) -> &[u8; 32] {
        self.bytes()
    }

    /// Takes what a backend outside this process unwrapped. The caller wipes its own copy.
    pub(crate) fn from_backend(unwrapped: &[u8; 32]) -> Result<Self, ArenaFull> {
        Self::fill_with(|bytes| {
            bytes.copy_from_slice(unwrapped);
            Ok(())
        })
    }
}
