//! What every backend promises, as a test: each implementation calls [`check`] in one line, and is told how many
//! promises it kept.
//!
//! Not bound by every backend, so not tested here: the epoch's *uid*. The software HSM's wrap
//! (kind 11) binds the cluster and the epoch's number; the uid is bound by the key check value in
//! the epoch's record, which is compared after every unwrap, whatever the backend.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    BackendError, BackendStatus, Destruction, EpochContext, EpochWrap, MasterKeyBackend, MasterKeyRef, VersionState,
};
use crate::crypto::EpochKey;
use crate::noun::random::OsRandom;
use crate::noun::{EpochNumber, Uid};

/// What the contract needs of an implementation.
pub struct Subject<'a> {
    /// The cluster it is opened for.
    pub cluster: Uid,
    /// Opens the same one anew, as after a restart. It has no version yet.
    pub open: &'a (dyn Fn() -> Arc<dyn MasterKeyBackend> + Sync),
    /// Gives one whose master key cannot be reached.
    pub unreachable: &'a (dyn Fn() -> Arc<dyn MasterKeyBackend> + Sync),
    /// Gives one that is reached with credentials that are not accepted.
    pub stranger: &'a (dyn Fn() -> Arc<dyn MasterKeyBackend> + Sync),
}

/// Holds a backend to the contract, and returns the promises that it kept, in words. Panics at the first it breaks.
pub async fn check(subject: Subject<'_>) -> Vec<&'static str> {
    let Subject { cluster, open, unreachable, stranger } = subject;
    let place = Place { cluster, backend: open() };
    let mut kept = Vec::new();

    // One context for each epoch: `create_version` is idempotent in its id.
    let next = place.context(3);
    let (first, one) = place.version(1).await;
    let (second, two) = place.version(2).await;
    let (key_of_one, key_of_two) = (key(), key());
    let wrap_of_one = place.backend.wrap(&first, &one, &key_of_one).await.expect("a wrap");
    let wrap_of_two = place.backend.wrap(&second, &two, &key_of_two).await.expect("a wrap");

    unwrap_of_wrap_is_the_key(&place, &first, &one, &wrap_of_one, &key_of_one).await;
    unwrap_of_wrap_is_the_key(&place, &second, &two, &wrap_of_two, &key_of_two).await;
    kept.push("what was wrapped is unwrapped");
    wrapping_twice_gives_two_ciphertexts(&place, &first, &one, &key_of_one, &wrap_of_one).await;
    kept.push("wrapping twice gives two ciphertexts");
    another_place_is_a_wrong_key(&place, (&first, &one, &wrap_of_one), (&second, &two, &wrap_of_two)).await;
    kept.push("another cluster, epoch or version is a wrong key");
    a_changed_wrap_is_a_wrong_key(&place, &first, &one, &wrap_of_one).await;
    kept.push("a changed wrap is a wrong key");
    wrong_answers_are_found(&place, (&first, &one, &wrap_of_one), &key_of_one, &key_of_two).await;
    kept.push("a wrong answer is found by the key check value");
    creating_again_gives_the_same_version(&place, &first, &one, &wrap_of_one).await;
    kept.push("creating again gives the same version");
    many_callers_at_once_are_served(&place, (&first, &one, &wrap_of_one), &key_of_one, &next, open).await;
    kept.push("64 callers at once are served, and make one version");
    unreachable_is_never_a_wrong_key(&unreachable(), &first, &one, &wrap_of_one).await;
    kept.push("unreachable is never a wrong key, and destroys nothing");
    a_stranger_is_told_so(&stranger(), &first, &one, &wrap_of_one).await;
    kept.push("refused credentials are told from a refused key");
    it_works_after_a_restart(&Place { cluster, backend: open() }, &first, &one, &wrap_of_one, &key_of_one).await;
    kept.push("it works after a restart");
    disabled_refuses_until_enabled(&place, (&second, &two, &wrap_of_two), &key_of_two, open).await;
    kept.push("disabled refuses until it is enabled");
    destroyed_stays_destroyed(&place, (&first, &one, &wrap_of_one), &key_of_one, &next, open).await;
    kept.push("destroyed stays destroyed, and the others live");
    a_destruction_is_taken_back_or_not(&place, (&second, &two, &wrap_of_two), &key_of_two).await;
    kept.push("a destruction is taken back before its date, or never");
    status_says_what_it_is(&place, &unreachable()).await;
    kept.push("the status says what it is, and whether it is reached");
    kept
}

struct Place {
    cluster: Uid,
    backend: Arc<dyn MasterKeyBackend>,
}

impl Place {
    fn context(&self, epoch: u32) -> EpochContext {
        EpochContext { cluster: self.cluster, epoch_id: uid(), epoch: EpochNumber::new(epoch).expect("it works") }
    }

    async fn version(&self, epoch: u32) -> (MasterKeyRef, EpochContext) {
        let context = self.context(epoch);
        let version = self.backend.create_version(&context).await.expect("it works");
        assert!(!version.0.is_empty() && version.0.len() <= 2_048);
        (version, context)
    }
}

async fn unwrap_of_wrap_is_the_key(
    place: &Place,
    version: &MasterKeyRef,
    context: &EpochContext,
    wrap: &[u8],
    key: &EpochKey,
) {
    let unwrapped = place.backend.unwrap(version, context, wrap).await.expect("it works");
    assert!(same(&unwrapped, key));
}

async fn wrapping_twice_gives_two_ciphertexts(
    place: &Place,
    version: &MasterKeyRef,
    context: &EpochContext,
    key: &EpochKey,
    wrap: &[u8],
) {
    let again = place.backend.wrap(version, context, key).await.expect("it works");
    assert_ne!(again, wrap);
    unwrap_of_wrap_is_the_key(place, version, context, &again, key).await;
}

const CALLERS: usize = 64;

type Wrapped<'a> = (&'a MasterKeyRef, &'a EpochContext, &'a [u8]);

async fn another_place_is_a_wrong_key(
    place: &Place,
    (first, one, wrap_of_one): Wrapped<'_>,
    (second, two, wrap_of_two): Wrapped<'_>,
) {
    let elsewhere = EpochContext { cluster: uid(), ..*one };
    wrong_key(place, first, &elsewhere, wrap_of_one, "another cluster").await;
    wrong_key(place, first, two, wrap_of_one, "another epoch").await;
    wrong_key(place, second, one, wrap_of_one, "another version").await;
    wrong_key(place, second, two, wrap_of_one, "another version and epoch").await;
    wrong_key(place, first, one, wrap_of_two, "the wrap of another version").await;
}

async fn a_changed_wrap_is_a_wrong_key(place: &Place, version: &MasterKeyRef, context: &EpochContext, wrap: &[u8]) {
    // The head may be in clear, the ciphertext is at the end: one flip in each eighth.
    for part in 0..8 {
        let mut flipped = wrap.to_vec();
        let at = (wrap.len() - 1) * part / 7;
        flipped[at] ^= 1;
        wrong_key(place, version, context, &flipped, "a flipped bit").await;
    }
    wrong_key(place, version, context, &wrap[..wrap.len() - 1], "a wrap cut short").await;
    wrong_key(place, version, context, &[wrap, &[0]].concat(), "a byte too many").await;
    wrong_key(place, version, context, &[], "no wrap").await;
}

async fn wrong_answers_are_found(
    place: &Place,
    (version, context, wrap): Wrapped<'_>,
    key: &EpochKey,
    other: &EpochKey,
) {
    let kcv = key.kcv(&context.epoch_id, context.epoch);
    let stored = EpochWrap { version: version.clone(), context: *context, ciphertext: wrap.to_vec(), kcv };
    assert!(same(&stored.open(&*place.backend).await.expect("the right key"), key));
    for wrong in [*other.expose_to_backend(), flipped(key, 0), flipped(key, 31)] {
        let wrong = EpochKey::from_backend(&wrong).expect("room in locked memory");
        let liar = Liar(wrong, Arc::clone(&place.backend));
        assert!(matches!(stored.open(&liar).await, Err(BackendError::WrongAnswer)));
        assert!(matches!(EpochWrap::make(&liar, version.clone(), *context, key).await, Err(BackendError::WrongAnswer)));
    }
}

fn flipped(key: &EpochKey, at: usize) -> [u8; 32] {
    let mut bytes = *key.expose_to_backend();
    bytes[at] ^= 1;
    bytes
}

async fn creating_again_gives_the_same_version(
    place: &Place,
    version: &MasterKeyRef,
    context: &EpochContext,
    wrap: &[u8],
) {
    assert_eq!(&place.backend.create_version(context).await.expect("it works"), version);
    // And it is the same key, not a new one of that name.
    place.backend.unwrap(version, context, wrap).await.expect("it works");
}

async fn many_callers_at_once_are_served(
    place: &Place,
    (version, context, wrap): Wrapped<'_>,
    key: &EpochKey,
    next: &EpochContext,
    open: &(dyn Fn() -> Arc<dyn MasterKeyBackend> + Sync),
) {
    let kcv = kcv(key);
    let callers = (0..CALLERS).map(|caller| {
        // Half of them share the backend, half have opened it a second time.
        let backend = if caller % 2 == 0 { Arc::clone(&place.backend) } else { open() };
        let (version, context, next, wrap) = (version.clone(), *context, *next, wrap.to_vec());
        tokio::spawn(async move {
            let unwrapped = backend.unwrap(&version, &context, &wrap).await.expect("it works");
            assert!(self::kcv(&unwrapped) == kcv);
            let again = backend.wrap(&version, &context, &unwrapped).await.expect("it works");
            backend.unwrap(&version, &context, &again).await.expect("it works");
            backend.create_version(&next).await.expect("it works")
        })
    });
    let made: Vec<_> =
        futures_util::future::join_all(callers).await.into_iter().map(|ended| ended.expect("no panic")).collect();
    assert!(made.iter().all(|version| *version == made[0]), "they make one version, not {made:?}");
}

async fn unreachable_is_never_a_wrong_key(
    unreachable: &Arc<dyn MasterKeyBackend>,
    version: &MasterKeyRef,
    context: &EpochContext,
    wrap: &[u8],
) {
    let elsewhere = EpochContext { cluster: uid(), ..*context };
    for (context, wrap) in [(context, wrap), (&elsewhere, wrap), (context, &[])] {
        assert!(matches!(unreachable.unwrap(version, context, wrap).await, Err(BackendError::Unavailable(_))));
    }
    assert!(matches!(unreachable.wrap(version, context, &key()).await, Err(BackendError::Unavailable(_))));
    assert!(matches!(unreachable.create_version(context).await, Err(BackendError::Unavailable(_))));
    assert!(matches!(unreachable.disable_version(version).await, Err(BackendError::Unavailable(_))));
    // Above all: what could not be reached was not destroyed.
    assert!(matches!(unreachable.destroy_version(version).await, Err(BackendError::Unavailable(_))));
}

async fn it_works_after_a_restart(
    place: &Place,
    version: &MasterKeyRef,
    context: &EpochContext,
    wrap: &[u8],
    key: &EpochKey,
) {
    unwrap_of_wrap_is_the_key(place, version, context, wrap, key).await;
    assert_eq!(&place.backend.create_version(context).await.expect("it works"), version);
}

async fn disabled_refuses_until_enabled(
    place: &Place,
    (version, context, wrap): Wrapped<'_>,
    key: &EpochKey,
    open: &(dyn Fn() -> Arc<dyn MasterKeyBackend> + Sync),
) {
    assert_eq!(place.backend.describe_version(version).await.expect("a state"), VersionState::Enabled);
    // Twice: what was interrupted is done again.
    for _ in 0..2 {
        place.backend.disable_version(version).await.expect("disabled");
    }
    for backend in [&place.backend, &open()] {
        refused(backend, version, context, wrap, key).await;
        assert_eq!(backend.describe_version(version).await.expect("a state"), VersionState::Disabled);
    }
    for _ in 0..2 {
        place.backend.enable_version(version).await.expect("enabled");
    }
    unwrap_of_wrap_is_the_key(&Place { cluster: place.cluster, backend: open() }, version, context, wrap, key).await;
}

async fn destroyed_stays_destroyed(
    place: &Place,
    (version, context, wrap): Wrapped<'_>,
    key: &EpochKey,
    next: &EpochContext,
    open: &(dyn Fn() -> Arc<dyn MasterKeyBackend> + Sync),
) {
    // Also one that is disabled: that is the state in which a roll leaves it before.
    place.backend.disable_version(version).await.expect("disabled");
    let ordered = place.backend.destroy_version(version).await.expect("destroyed");
    for backend in [&place.backend, &open()] {
        refused(backend, version, context, wrap, key).await;
        assert_eq!(backend.destroy_version(version).await.expect("destroyed again"), ordered);
        assert!(backend.enable_version(version).await.is_err(), "what is destroyed is not enabled");
        let state = backend.describe_version(version).await.expect("a state");
        match ordered {
            Destruction::Done => assert_eq!(state, VersionState::Destroyed),
            Destruction::Scheduled { at } => assert_eq!(state, VersionState::DestructionScheduled { at }),
        }
        // Whether the epoch may have a version again is the backend's choice. The old key is gone.
        let _ = backend.create_version(context).await;
        assert!(backend.unwrap(version, context, wrap).await.is_err());
    }
    // The others are untouched.
    let third = place.backend.create_version(next).await.expect("it works");
    let wrap_of_three = place.backend.wrap(&third, next, key).await.expect("it works");
    unwrap_of_wrap_is_the_key(place, &third, next, &wrap_of_three, key).await;
}

/// Where a destruction has a date it can be taken back until then, and the version is disabled after that.
async fn a_destruction_is_taken_back_or_not(place: &Place, (version, context, wrap): Wrapped<'_>, key: &EpochKey) {
    let refused_to_cancel = |cancelled| matches!(cancelled, Err(BackendError::Denied(_)));
    assert!(refused_to_cancel(place.backend.cancel_destruction(version).await), "nothing was ordered");
    let ordered = place.backend.destroy_version(version).await.expect("destroyed");
    let cancelled = place.backend.cancel_destruction(version).await;
    match ordered {
        Destruction::Done => {
            assert!(refused_to_cancel(cancelled), "destroyed is destroyed");
            refused(&place.backend, version, context, wrap, key).await;
        }
        Destruction::Scheduled { .. } => {
            cancelled.expect("cancelled");
            assert_eq!(place.backend.describe_version(version).await.expect("a state"), VersionState::Disabled);
            refused(&place.backend, version, context, wrap, key).await;
            place.backend.enable_version(version).await.expect("enabled");
            unwrap_of_wrap_is_the_key(place, version, context, wrap, key).await;
        }
    }
}

async fn a_stranger_is_told_so(
    stranger: &Arc<dyn MasterKeyBackend>,
    version: &MasterKeyRef,
    context: &EpochContext,
    wrap: &[u8],
) {
    assert!(matches!(stranger.unwrap(version, context, wrap).await, Err(BackendError::Credentials(_))));
    assert!(matches!(stranger.wrap(version, context, &key()).await, Err(BackendError::Credentials(_))));
}

/// Answers everything with the same key.
struct Liar(EpochKey, Arc<dyn MasterKeyBackend>);

#[async_trait]
impl MasterKeyBackend for Liar {
    async fn create_version(&self, context: &EpochContext) -> Result<MasterKeyRef, BackendError> {
        self.1.create_version(context).await
    }
    async fn wrap(&self, version: &MasterKeyRef, to: &EpochContext, key: &EpochKey) -> Result<Vec<u8>, BackendError> {
        self.1.wrap(version, to, key).await
    }
    async fn unwrap(&self, _: &MasterKeyRef, _: &EpochContext, _: &[u8]) -> Result<EpochKey, BackendError> {
        EpochKey::from_backend(self.0.expose_to_backend()).map_err(|full| BackendError::Unavailable(full.into()))
    }
    async fn disable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        self.1.disable_version(version).await
    }
    async fn enable_version(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        self.1.enable_version(version).await
    }
    async fn destroy_version(&self, version: &MasterKeyRef) -> Result<Destruction, BackendError> {
        self.1.destroy_version(version).await
    }
    async fn cancel_destruction(&self, version: &MasterKeyRef) -> Result<(), BackendError> {
        self.1.cancel_destruction(version).await
    }
    async fn describe_version(&self, version: &MasterKeyRef) -> Result<VersionState, BackendError> {
        self.1.describe_version(version).await
    }
    async fn status(&self) -> Result<BackendStatus, BackendError> {
        self.1.status().await
    }
}

async fn status_says_what_it_is(place: &Place, unreachable: &Arc<dyn MasterKeyBackend>) {
    let status = place.backend.status().await.expect("it works");
    assert!(!status.kind.is_empty() && !status.detail.is_empty() && !status.detail.contains('\n'));
    assert!(matches!(unreachable.status().await, Err(BackendError::Unavailable(_))));
}

async fn wrong_key(place: &Place, version: &MasterKeyRef, context: &EpochContext, wrap: &[u8], what: &str) {
    match place.backend.unwrap(version, context, wrap).await {
        Err(BackendError::WrongKey) => {}
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => panic!("{what} was unwrapped"),
    }
}

async fn refused(
    backend: &Arc<dyn MasterKeyBackend>,
    version: &MasterKeyRef,
    context: &EpochContext,
    wrap: &[u8],
    key: &EpochKey,
) {
    assert!(matches!(backend.unwrap(version, context, wrap).await, Err(BackendError::Denied(_))));
    assert!(matches!(backend.wrap(version, context, key).await, Err(BackendError::Denied(_))));
}

fn uid() -> Uid {
    Uid::generate(&OsRandom::new())
}

fn key() -> EpochKey {
    EpochKey::generate(&OsRandom::new()).expect("it works")
}

fn same(one: &EpochKey, other: &EpochKey) -> bool {
    kcv(one) == kcv(other)
}

fn kcv(key: &EpochKey) -> [u8; 32] {
    key.kcv(&Uid::from_bytes([0; 16]), EpochNumber::FIRST)
}
