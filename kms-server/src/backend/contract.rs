//! What every backend promises, as a test: each implementation calls [`check`] in one line.
//!
//! Not bound by every backend, so not tested here: the epoch's *uid*. The software HSM's wrap
//! (kind 11) binds the cluster and the epoch's number; the uid is bound by the key check value in
//! the epoch's record, which is compared after every unwrap, whatever the backend.

use std::sync::Arc;

use super::{BackendError, EpochContext, MasterKeyBackend, MasterKeyRef};
use crate::crypto::EpochKey;
use crate::noun::random::OsRandom;
use crate::noun::{EpochNumber, Uid};

/// Holds a backend without any version yet to the contract. `open` opens the same one anew, as
/// after a restart; `open_unreachable` gives one whose master key cannot be reached.
pub async fn check(
    cluster: Uid,
    open: impl Fn() -> Arc<dyn MasterKeyBackend>,
    open_unreachable: impl Fn() -> Arc<dyn MasterKeyBackend>,
) {
    let place = Place { cluster, backend: open() };

    // One context for each epoch: `create_version` is idempotent in its id.
    let next = place.context(3);
    let (first, one) = place.version(1).await;
    let (second, two) = place.version(2).await;
    let (key_of_one, key_of_two) = (key(), key());
    let wrap_of_one = place.backend.wrap(&first, &one, &key_of_one).await.unwrap();
    let wrap_of_two = place.backend.wrap(&second, &two, &key_of_two).await.unwrap();

    unwrap_of_wrap_is_the_key(&place, &first, &one, &wrap_of_one, &key_of_one).await;
    unwrap_of_wrap_is_the_key(&place, &second, &two, &wrap_of_two, &key_of_two).await;
    wrapping_twice_gives_two_ciphertexts(&place, &first, &one, &key_of_one, &wrap_of_one).await;
    another_place_is_a_wrong_key(&place, (&first, &one, &wrap_of_one), (&second, &two, &wrap_of_two)).await;
    a_changed_wrap_is_a_wrong_key(&place, &first, &one, &wrap_of_one).await;
    creating_again_gives_the_same_version(&place, &first, &one, &wrap_of_one).await;
    many_callers_at_once_are_served(&place, (&first, &one, &wrap_of_one), &key_of_one, &next, &open).await;
    unreachable_is_never_a_wrong_key(&open_unreachable(), &first, &one, &wrap_of_one).await;
    it_works_after_a_restart(&Place { cluster, backend: open() }, &first, &one, &wrap_of_one, &key_of_one).await;
    disabled_refuses_until_destroyed(&place, (&second, &two, &wrap_of_two), &key_of_two, &open).await;
    destroyed_stays_destroyed(&place, (&first, &one, &wrap_of_one), &key_of_one, &next, &open).await;
    status_says_what_it_is(&place, &open_unreachable()).await;
}

struct Place {
    cluster: Uid,
    backend: Arc<dyn MasterKeyBackend>,
}

impl Place {
    fn context(&self, epoch: u32) -> EpochContext {
        EpochContext { cluster: self.cluster, epoch_id: uid(), epoch: EpochNumber::new(epoch).unwrap() }
    }

    async fn version(&self, epoch: u32) -> (MasterKeyRef, EpochContext) {
        let context = self.context(epoch);
        let version = self.backend.create_version(&context).await.unwrap();
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
    let unwrapped = place.backend.unwrap(version, context, wrap).await.unwrap();
    assert!(same(&unwrapped, key));
}

async fn wrapping_twice_gives_two_ciphertexts(
    place: &Place,
    version: &MasterKeyRef,
    context: &EpochContext,
    key: &EpochKey,
    wrap: &[u8],
) {
    let again = place.backend.wrap(version, context, key).await.unwrap();
    assert_ne!(again, wrap);
    unwrap_of_wrap_is_the_key(place, version, context, &again, key).await;
}

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

async fn creating_again_gives_the_same_version(
    place: &Place,
    version: &MasterKeyRef,
    context: &EpochContext,
    wrap: &[u8],
) {
    assert_eq!(&place.backend.create_version(context).await.unwrap(), version);
    // And it is the same key, not a new one of that name.
    place.backend.unwrap(version, context, wrap).await.unwrap();
}

async fn many_callers_at_once_are_served(
    place: &Place,
    (version, context, wrap): Wrapped<'_>,
    key: &EpochKey,
    next: &EpochContext,
    open: &impl Fn() -> Arc<dyn MasterKeyBackend>,
) {
    let kcv = kcv(key);
    let callers = (0..16).map(|caller| {
        // Half of them share the backend, half have opened it a second time.
        let backend = if caller % 2 == 0 { Arc::clone(&place.backend) } else { open() };
        let (version, context, next, wrap) = (version.clone(), *context, *next, wrap.to_vec());
        tokio::spawn(async move {
            let unwrapped = backend.unwrap(&version, &context, &wrap).await.unwrap();
            assert!(self::kcv(&unwrapped) == kcv);
            let again = backend.wrap(&version, &context, &unwrapped).await.unwrap();
            backend.unwrap(&version, &context, &again).await.unwrap();
            backend.create_version(&next).await.unwrap()
        })
    });
    let made: Vec<_> = futures_util::future::join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert!(made.iter().all(|version| *version == made[0]), "sixteen callers make one version, not {made:?}");
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
    assert_eq!(&place.backend.create_version(context).await.unwrap(), version);
}

async fn disabled_refuses_until_destroyed(
    place: &Place,
    (version, context, wrap): Wrapped<'_>,
    key: &EpochKey,
    open: &impl Fn() -> Arc<dyn MasterKeyBackend>,
) {
    place.backend.disable_version(version).await.unwrap();
    place.backend.disable_version(version).await.unwrap();
    for backend in [&place.backend, &open()] {
        refused(backend, version, context, wrap, key).await;
    }
    place.backend.destroy_version(version).await.unwrap();
    refused(&place.backend, version, context, wrap, key).await;
}

async fn destroyed_stays_destroyed(
    place: &Place,
    (version, context, wrap): Wrapped<'_>,
    key: &EpochKey,
    next: &EpochContext,
    open: &impl Fn() -> Arc<dyn MasterKeyBackend>,
) {
    place.backend.destroy_version(version).await.unwrap();
    for backend in [&place.backend, &open()] {
        refused(backend, version, context, wrap, key).await;
        backend.destroy_version(version).await.unwrap();
        // Whether the epoch may have a version again is the backend's choice. The old key is gone.
        let _ = backend.create_version(context).await;
        assert!(backend.unwrap(version, context, wrap).await.is_err());
    }
    // The others are untouched.
    let third = place.backend.create_version(next).await.unwrap();
    let wrap_of_three = place.backend.wrap(&third, next, key).await.unwrap();
    unwrap_of_wrap_is_the_key(place, &third, next, &wrap_of_three, key).await;
}

async fn status_says_what_it_is(place: &Place, unreachable: &Arc<dyn MasterKeyBackend>) {
    let status = place.backend.status().await.unwrap();
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
    EpochKey::generate(&OsRandom::new()).unwrap()
}

fn same(one: &EpochKey, other: &EpochKey) -> bool {
    kcv(one) == kcv(other)
}

fn kcv(key: &EpochKey) -> [u8; 32] {
    key.kcv(&Uid::from_bytes([0; 16]), EpochNumber::FIRST)
}
