//! What fuzzing calls: one function for each decoder of bytes that come from outside or from disk.
//!
//! Each takes any bytes and must come back: a panic is the finding. Where a decoder has an inverse
//! it is held to it. Compiled into tests, which replay `tests/fuzz/corpus` through all of them, and
//! with the feature `fuzzing`, for the programs in `tests/fuzz`; never into a daemon that is built
//! to serve. Parsers that are private to a layer have their function there.

use std::sync::LazyLock;

use crate::authn::{IdentityMapping, identify};
use crate::crypto::context::{CONTEXT_BYTES_MAX, hash_of_caller};
use crate::crypto::keystore_file::{self, KeystoreHead, pin_of_file};
use crate::crypto::{ClusterSecret, Header, Kek, Kind, OVERHEAD_BYTES, TenantKey, WrappedKey, chain};
use crate::noun::{IndexName, KeyName, KeyVersion, Principal, Random, TenantName, Uid};
use crate::policy::{Action, Role};

/// A decoder: its name is that of its program and of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("bindings", crate::policy::fuzzing::bindings),
    ("blob", blob),
    ("certificate", certificate),
    ("context", context),
    ("frame", crate::audit::fuzzing::frame),
    ("jwks", crate::authn::fuzzing::jwks),
    ("keystore_file", keystore_file),
    ("leaf", crate::audit::fuzzing::leaf),
    ("ledger", crate::audit::fuzzing::ledger),
    ("master_key_ref", crate::backend::software::fuzzing::master_key_ref),
    ("names", names),
    ("own_policies", crate::policy::fuzzing::own_policies),
    ("page_token", crate::rpc::fuzzing::page_token),
    ("pem", crate::authn::fuzzing::pem),
    ("pin_file", pin_file),
    ("request", crate::rpc::fuzzing::request),
    ("row", crate::keyring::fuzzing::row),
    ("row_key", crate::keyring::fuzzing::row_key),
    ("segment", crate::audit::fuzzing::segment),
    ("settings", crate::config::fuzzing::settings),
    ("token", crate::authn::fuzzing::token),
];

/// Runs a target by its name.
#[allow(clippy::panic, reason = "a program for a target that does not exist is a mistake to be seen at once")]
pub fn run(name: &str, data: &[u8]) {
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        panic!("there is no target {name:?}");
    };
    target(data);
}

/// A blob from a caller: its header, and all that opens one.
fn blob(data: &[u8]) {
    if let Some(wrapped) = WrappedKey::from_slice(data) {
        assert_eq!((&wrapped.as_bytes()[..], wrapped.header()), (data, Header::parse(data)));
    }
    if let Some(commitment) = chain::commitment_of(data) {
        assert_eq!(commitment, data[48..80]);
    }
    let Ok(header) = Header::parse(data) else { return };
    assert_eq!(header.to_bytes(), data[..24], "a header is written in one way only");
    let context = hash_of_caller("acme", b"aad", [("row", "7")]).expect("it is within its limits");
    let opened = KEYS.kek.open_data(header.key_id, header.version, &context, data);
    if let Ok(plaintext) = opened {
        assert_eq!((header.kind, plaintext.expose_to_caller().len()), (Kind::Data, data.len() - OVERHEAD_BYTES));
    }
    if KEYS.kek.unwrap_dek(header.key_id, header.version, &context, data).is_ok() {
        assert_eq!((header.kind, data.len()), (Kind::WrappedDek, OVERHEAD_BYTES + 32));
    }
}

/// A client's certificate, as TLS hands it over.
fn certificate(data: &[u8]) {
    if let Ok(principal) = identify(data, &MAPPING) {
        assert_eq!(principal.as_str().parse().as_ref(), Ok(&principal));
    }
}

/// An encryption context: tenant, aad, and names and values of pairs, each behind its length.
fn context(data: &[u8]) {
    let mut rest = data;
    let tenant = String::from_utf8_lossy(take(&mut rest)).into_owned();
    let aad = take(&mut rest);
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (Ok(name), Ok(value)) = (std::str::from_utf8(take(&mut rest)), std::str::from_utf8(take(&mut rest))) else {
            return;
        };
        pairs.push((name, value));
    }
    let hash = hash_of_caller(&tenant, aad, pairs.iter().copied());
    if hash.is_ok() {
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let distinct: std::collections::BTreeMap<_, _> = pairs.iter().copied().collect();
        assert!(distinct.len() < pairs.len() || tenant.len() + aad.len() + bytes <= CONTEXT_BYTES_MAX);
        // In another order it is the same context, unless a name comes twice.
        if distinct.len() == pairs.len() {
            assert!(hash_of_caller(&tenant, aad, pairs.iter().rev().copied()) == hash);
        }
    }
}

/// Takes bytes behind a length of two bytes; what there is where there are fewer.
fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, after)) = rest.split_first_chunk::<2>() else { return std::mem::take(rest) };
    let (taken, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
    *rest = after;
    taken
}

/// A keystore file.
fn keystore_file(data: &[u8]) {
    let Ok(head) = KeystoreHead::parse(data) else { return };
    // What a forged file may ask for is bounded, but too slow for many tries.
    if head.cost.memory_kib <= 64 && head.cost.passes <= 2 && head.cost.lanes <= 2 {
        drop(keystore_file::open(data, Uid::from_bytes([7; 16]), b"a PIN"));
    }
}

/// Names of every sort, each of which is written in one way only.
fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    fn check<T: std::str::FromStr + ToString>(text: &str) {
        if let Ok(name) = text.parse::<T>() {
            assert_eq!(name.to_string(), text);
        }
    }
    check::<TenantName>(text);
    check::<KeyName>(text);
    check::<IndexName>(text);
    check::<Principal>(text);
    check::<Action>(text);
    check::<Role>(text);
    crate::rpc::fuzzing::resource_names(text);
    crate::policy::fuzzing::patterns(text);
    crate::keyring::fuzzing::terms(text);
}

/// A PIN file.
fn pin_file(data: &[u8]) {
    let pin = pin_of_file(data);
    assert!(data.starts_with(pin) && data.len() - pin.len() <= 2);
}

/// Keys that are the same in every run, so that seeds that open go on opening.
pub(crate) struct Keys {
    pub(crate) kek: Kek,
    pub(crate) tenant: TenantKey,
    pub(crate) cluster: ClusterSecret,
}

pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let room = "there is room for three keys";
    Keys {
        kek: Kek::generate(&NotRandom).expect(room),
        tenant: TenantKey::generate(&NotRandom).expect(room),
        cluster: ClusterSecret::generate(&NotRandom).expect(room),
    }
});

static MAPPING: LazyLock<IdentityMapping> = LazyLock::new(|| {
    #[derive(serde::Deserialize)]
    struct File {
        identity: IdentityMapping,
    }
    let text = "[[identity]]\ndns = \"billing.internal\"\nprincipal = \"spiffe://example.com/billing\"\n\
                [[identity]]\ncn = \"Backup job\"\nprincipal = \"spiffe://example.com/backup\"";
    toml::from_str::<File>(text).expect("it is a mapping").identity
});

/// Gives out what is not random at all: nothing that it makes is a secret.
pub(crate) struct NotRandom;

impl Random for NotRandom {
    fn fill(&self, out: &mut [u8]) {
        out.fill(0x5e);
    }
}

/// The version that seeds are made with.
pub(crate) const VERSION: KeyVersion = KeyVersion::FIRST;

#[cfg(test)]
mod tests;
