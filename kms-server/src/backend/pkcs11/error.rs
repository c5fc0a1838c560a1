//! Why a token did not do it: what was found, what was expected, what to check.
//!
//! **Invariant:** paths, labels, serial numbers and the codes of the module are fine here; a PIN or a key never is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::message::Step;
use crate::backend::BackendError;
use crate::backend::software::error::SoftwareError;
use crate::noun::{EpochNumber, Uid};

/// Which token of which module, as errors name them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Where {
    pub(super) module: PathBuf,
    pub(super) token: String,
}

impl std::fmt::Display for Where {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "token {:?} of {}", self.token, self.module.display())
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Pkcs11Error {
    // What says nothing about the key.
    #[error("the process for the module cannot be started: check the limits of processes and memory")]
    Launch { source: io::Error },
    #[error(
        "the process of {place} died in a call; it is started anew: if that goes on, check the module with the maker's own tools, such as pkcs11-tool --module {} --list-slots", .place.module.display()
    )]
    Died { place: Where },
    #[error(
        "{place} did not answer within {} s; its process is started anew: check that the module reaches its device", .limit.as_secs_f64()
    )]
    Hung { place: Where, limit: Duration },
    #[error("the process of {place} answered what is no answer; it is started anew: check the module")]
    Garbled { place: Where },
    #[error(
        "the process of {place} failed {failures} times in a row and is not started again before {} ms have passed: check the module", .wait.as_millis()
    )]
    Waiting { place: Where, failures: u32, wait: Duration },
    #[error("{place} did not come to this call within {} s: it is slow, or too much is asked of it at once", .limit.as_secs_f64())]
    Busy { place: Where, limit: Duration },
    #[error("the queue of the module has ended")]
    Ended,
    #[error(
        "the module {} cannot be loaded: {why}: check backend.pkcs11_module, and that this user may read the library and all it needs", .module.display()
    )]
    Load { module: PathBuf, why: String },
    #[error(
        "there is no token {:?} at {}, but {found}: check that the device is connected and on, backend.pkcs11_token, and the configuration of the module", .place.token, .place.module.display()
    )]
    NoToken { place: Where, found: String },
    #[error("{} has more than one token with the label {:?}: give each a label of its own", .place.module.display(), .place.token)]
    SeveralTokens { place: Where },
    #[error("{place} does not work: {} returned {code}: check that the device is connected and on", .step.function())]
    Trouble { place: Where, step: Step, code: String },
    #[error("what the backend keeps on this machine cannot be read or written")]
    Note { source: SoftwareError },
    #[error("the directory {} cannot be used", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("another process is logging in to {place}: try again")]
    LoginElsewhere { place: Where },
    #[error("there is no room for a key in locked memory: raise RLIMIT_MEMLOCK")]
    NoRoom { source: crate::crypto::arena::ArenaFull },

    // Who we are was not accepted.
    #[error("the PIN of the token's user cannot be read")]
    PinFile { source: SoftwareError },
    #[error(
        "{place} did not take the PIN in {}: C_Login returned {code}. It is not tried again, because tokens lock themselves after a few wrong PINs: put the right one there; if the token itself locked the PIN, its security officer sets a new one", .pin_file.display()
    )]
    PinRefused { place: Where, pin_file: PathBuf, code: String },
    #[error(
        "the PIN was not taken by the token before and has not changed since; it is not tried again, because tokens lock themselves after a few wrong PINs: put the right one into the PIN file. If this one is right now, remove {}", .note.display()
    )]
    PinRefusedBefore { note: PathBuf },
    #[error(
        "a login with this PIN was begun twice and never ended, and the token may have counted both; it is not tried again: check the token and the PIN, then remove {}", .note.display()
    )]
    LoginUnfinished { note: PathBuf },
    #[error("{} is not what was written there, and could hide a PIN that the token did not take: check the PIN, then remove it", .note.display())]
    NoteDamaged { note: PathBuf },
    #[error(
        "{place} says that one more wrong PIN locks it, so no PIN is tried: check the PIN in {} with the maker's own tools, such as pkcs11-tool --login --test; after a login that worked this goes on", .pin_file.display()
    )]
    FinalTry { place: Where, pin_file: PathBuf },
    #[error("{place} says that its user's PIN is locked: its security officer sets a new one")]
    Locked { place: Where },
    #[error("{place} has no PIN for its user yet: its security officer sets one")]
    NoUserPin { place: Where },

    // An answer.
    #[error(
        "{place} has no key {label}: if the key was moved, put it back with that label and its id; if the token is another one, check backend.pkcs11_token"
    )]
    Absent { place: Where, label: String },
    #[error(
        "{place} has more than one key {label}, so nobody can say which is meant: look which wraps the epoch, and remove the others"
    )]
    Several { place: Where, label: String },
    #[error("the key {label} of {place} is disabled: its attributes CKA_ENCRYPT and CKA_DECRYPT do not let it be used")]
    Disabled { place: Where, label: String },
    #[error(
        "the key {label} of {place} is not fit for a master key: {why}; remove it, so that one is made as it must be"
    )]
    Unfit { place: Where, label: String, why: String },
    #[error("{place} does not do what is needed with the key {label}: {why}")]
    NotAllowed { place: Where, label: String, why: String },
    #[error("this version of the master key was destroyed, or its destruction was begun: {} says so", .note.display())]
    Destroyed { note: PathBuf },
    #[error(
        "{place} has no key {label} to destroy, nor a sign here that it was destroyed: connect the token that has it, or give the key up by hand"
    )]
    NothingToDestroy { place: Where, label: String },
    #[error("{0:?} is not a reference to a key of a token")]
    Reference(String),
    #[error("this backend serves cluster {ours}, not cluster {asked}")]
    OtherCluster { ours: Uid, asked: Uid },
    #[error("the key {label} is not that of epoch {epoch} of this cluster")]
    OtherEpoch { label: String, epoch: EpochNumber },
    #[error("nothing is scheduled here: a key of a token is destroyed at once, or not at all")]
    NothingScheduled,
}

impl Pkcs11Error {
    pub(super) fn note(source: SoftwareError) -> Self {
        Pkcs11Error::Note { source }
    }
}

/// The one table. *Denied* is an answer of the token about the key; a daemon that gets it again and again locks itself,
/// so nothing else may be called so.
impl From<Pkcs11Error> for BackendError {
    fn from(error: Pkcs11Error) -> Self {
        match &error {
            Pkcs11Error::PinFile { source: SoftwareError::Io { .. } }
            | Pkcs11Error::Launch { .. }
            | Pkcs11Error::Died { .. }
            | Pkcs11Error::Hung { .. }
            | Pkcs11Error::Garbled { .. }
            | Pkcs11Error::Waiting { .. }
            | Pkcs11Error::Busy { .. }
            | Pkcs11Error::Ended
            | Pkcs11Error::Load { .. }
            | Pkcs11Error::NoToken { .. }
            | Pkcs11Error::SeveralTokens { .. }
            | Pkcs11Error::Trouble { .. }
            | Pkcs11Error::Note { .. }
            | Pkcs11Error::Directory { .. }
            | Pkcs11Error::LoginElsewhere { .. }
            | Pkcs11Error::NoRoom { .. } => BackendError::Unavailable(error.into()),
            Pkcs11Error::PinFile { .. }
            | Pkcs11Error::PinRefused { .. }
            | Pkcs11Error::PinRefusedBefore { .. }
            | Pkcs11Error::LoginUnfinished { .. }
            | Pkcs11Error::NoteDamaged { .. }
            | Pkcs11Error::FinalTry { .. }
            | Pkcs11Error::Locked { .. }
            | Pkcs11Error::NoUserPin { .. } => BackendError::Credentials(error.into()),
            Pkcs11Error::Absent { .. }
            | Pkcs11Error::Several { .. }
            | Pkcs11Error::Disabled { .. }
            | Pkcs11Error::Unfit { .. }
            | Pkcs11Error::NotAllowed { .. }
            | Pkcs11Error::Destroyed { .. }
            | Pkcs11Error::NothingToDestroy { .. }
            | Pkcs11Error::Reference(_)
            | Pkcs11Error::OtherCluster { .. }
            | Pkcs11Error::OtherEpoch { .. }
            | Pkcs11Error::NothingScheduled => BackendError::Denied(error.into()),
        }
    }
}
