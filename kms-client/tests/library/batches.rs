//! Batches: each item as its single call would do it, results in their order, and what is refused before it is sent.

use kms_client::{
    BatchItem, Ciphertext, Client, Context, DataKeyUid, Error, ErrorKind, ItemError, Mac, NewDataKey, ReEncryptItem,
    WrappedDataKey,
};

use crate::fake::Fake;
use crate::{builder, key};

async fn start() -> (Fake, Client) {
    let fake = Fake::start().await;
    let client = builder(&fake).connect().await.unwrap();
    fake.take_calls();
    (fake, client)
}

fn context() -> Context {
    Context::from([("table", "users")]).aad("aad")
}

/// The pairs of the context, with another aad.
fn at(aad: &str) -> Context {
    context().aad(aad)
}

/// Returns the results, each value by what a test wants of it and each error by its reason.
fn told<T, U>(results: Result<Vec<Result<T, ItemError>>, Error>, of: impl Fn(T) -> U) -> Vec<Result<U, String>> {
    let reason = |error: ItemError| error.reason().unwrap().to_owned();
    results.unwrap().into_iter().map(|result| result.map(&of).map_err(reason)).collect()
}

const TOO_LONG: [u8; 257] = [0; 257];

#[tokio::test]
async fn values_are_sealed_opened_and_moved_as_they_are_one_by_one() {
    let (_fake, kms) = start().await;
    let (app, other) = (key("app"), key("other"));
    let items =
        [BatchItem::new(&b"one"[..]), BatchItem::new(&b"two"[..]).aad("2"), BatchItem::new(&b"x"[..]).aad(TOO_LONG)];
    let sealed = told(kms.encrypt_batch(&app, &context(), items).await, |sealed| sealed.ciphertext);
    let [Ok(one), Ok(two), Err(reason)] = &sealed[..] else { panic!("{sealed:?}") };
    assert_eq!(reason, "CONTEXT_INVALID");
    // An item without an aad has the context's.
    assert_eq!(kms.decrypt(&app, one, &context()).await.unwrap().plaintext.expose(), b"one");
    assert_eq!(kms.decrypt(&app, two, &at("2")).await.unwrap().plaintext.expose(), b"two");

    let items = [BatchItem::new(two).aad("2"), BatchItem::new(two), BatchItem::new(one)];
    let opened = kms.decrypt_batch(&app, &context(), items).await;
    let opened = told(opened, |opened| (opened.plaintext.expose().to_vec(), opened.key_version.get(), opened.stale));
    let failed = Err("DECRYPT_FAILED".to_owned());
    assert_eq!(opened, [Ok((b"two".to_vec(), 1, false)), failed, Ok((b"one".to_vec(), 1, false))]);

    let moved = kms.re_encrypt_batch(&app, &context(), [one, two]).await;
    let moved = told(moved, |moved| (moved.ciphertext, moved.key_version.get(), moved.source_key_version.get()));
    assert_eq!(moved, [Ok((one.clone(), 2, 1)), Err("DECRYPT_FAILED".to_owned())]);
    let items = [ReEncryptItem::new(two).aad("2").to_aad("3"), one.into()];
    let moved = kms.re_encrypt_to_batch(&app, &context(), items, &other, &Context::new().aad("new")).await;
    let moved = told(moved, |moved| moved.ciphertext);
    let [Ok(two), Ok(one)] = &moved[..] else { panic!("{moved:?}") };
    assert_eq!(kms.decrypt(&other, two, &Context::new().aad("3")).await.unwrap().plaintext.expose(), b"two");
    assert_eq!(kms.decrypt(&other, one, &Context::new().aad("new")).await.unwrap().plaintext.expose(), b"one");
}

#[tokio::test]
async fn portable_data_keys_are_made_unwrapped_and_moved() {
    let (_fake, kms) = start().await;
    let (app, other) = (key("app"), key("other"));
    let news = || [NewDataKey::default().aad("1"), NewDataKey::default().aad(TOO_LONG), NewDataKey::default()];
    let made = told(kms.generate_data_key_batch(&app, &context(), news()).await, |made| {
        assert!(!made.lease.is_over());
        (made.data_key.expose()[0], made.wrapped_data_key, made.key_version.get())
    });
    let [Ok((7, first, 1)), Err(_), Ok((7, second, 1))] = &made[..] else { panic!("{made:?}") };
    let wrapped =
        told(kms.generate_wrapped_data_key_batch(&app, &context(), news()).await, |made| made.wrapped_data_key);
    assert_eq!(wrapped, [Ok(first.clone()), Err("CONTEXT_INVALID".to_owned()), Ok(second.clone())]);

    let items = [BatchItem::new(second), BatchItem::new(first), BatchItem::new(first).aad("1")];
    let opened = told(kms.decrypt_data_key_batch(&app, &context(), items).await, |opened| {
        assert!(!opened.lease.is_over() && !opened.stale);
        opened.data_key.expose()[0]
    });
    assert_eq!(opened, [Ok(7), Err("DECRYPT_FAILED".to_owned()), Ok(7)]);

    let moved = told(kms.re_encrypt_data_key_batch(&app, &context(), [second]).await, |moved| moved.wrapped_data_key);
    assert_eq!(moved, [Ok(second.clone())]);
    let items = [BatchItem::new(first).aad("1")];
    let moved = kms.re_encrypt_data_key_to_batch(&app, &context(), items, &other).await;
    let moved = told(moved, |moved| moved.wrapped_data_key);
    kms.decrypt_data_key(&other, moved[0].as_ref().unwrap(), &at("1")).await.unwrap();
}

#[tokio::test]
async fn managed_data_keys_are_made_given_out_and_destroyed() {
    let (fake, kms) = start().await;
    let people = key("people");
    let made = told(kms.create_data_key_batch(&people, &context(), vec![NewDataKey::default(); 3]).await, |made| {
        assert!(!made.lease.is_over() && made.key_version.get() == 1);
        (made.uid, made.data_key.expose()[0])
    });
    let uids: Vec<DataKeyUid> = made.iter().map(|made| made.as_ref().unwrap().0).collect();
    assert!(uids.is_sorted_by(|a, b| a < b) && uids.len() == 3);
    assert!(fake.requests().pop().unwrap().contains("request_id: \""), "made once, however often it is asked for");
    let unseen = kms.create_data_key_uid_batch(&people, &context(), vec![NewDataKey::default(); 2]).await;
    assert_eq!(told(unseen, |made| made.uid), [Ok(uids[0]), Ok(uids[1])]);
    let partly = kms.create_data_key_batch(&key("partly"), &context(), vec![NewDataKey::default(); 3]).await;
    let told_of = told(partly, |made| made.uid);
    assert_eq!(told_of, [Ok(uids[0]), Err("DATA_KEY_DESTROYED".to_owned()), Ok(uids[2])]);
    let news = [NewDataKey::default(), NewDataKey::default().aad(TOO_LONG)];
    let rehearsed = kms.create_data_key_batch(&people, &context(), news).validate_only().await;
    assert_eq!(told(rehearsed, |version| version.get()), [Ok(1), Err("CONTEXT_INVALID".to_owned())]);

    let mut wrong = [DataKeyUid::from([9; 16]); 3].map(<[u8; 16]>::from);
    (wrong[0][1], wrong[1][1], wrong[2][1]) = (1, 2, 0);
    let wrong = wrong.map(DataKeyUid::from);
    let given = kms.get_data_key_batch(&people, &context(), wrong).await;
    let given = told(given, |given| {
        assert!(!given.lease.is_over() && given.key_version.get() == 1);
        given.data_key.expose()[0]
    });
    let (gone, destroyed) = (Err("DATA_KEY_NOT_FOUND".to_owned()), Err("DATA_KEY_DESTROYED".to_owned()));
    assert_eq!(given, [gone.clone(), destroyed.clone(), Ok(9)]);
    let items = [BatchItem::new(wrong[2]).aad("own"), wrong[2].into()];
    assert_eq!(told(kms.get_data_key_batch(&people, &context(), items).await, |_| ()), [Ok(()), Ok(())]);
    let ended = kms.destroy_data_key_batch(&people, wrong).await;
    assert_eq!(
        told(ended, |ended| ended.lease_end_time.is_some()),
        [gone.map(|_| true), destroyed.map(|_| true), Ok(true)]
    );
}

#[tokio::test]
async fn a_repetition_that_finds_all_of_them_destroyed_says_so_of_each() {
    let (_fake, kms) = start().await;
    let (erased, news) = (key("erased"), vec![NewDataKey::default(); 2]);
    // There is no version to tell then.
    let made = kms.create_data_key_batch(&erased, &context(), news.clone()).await;
    assert_eq!(told(made, |made| made.uid), [gone(), gone()]);
    let made = kms.create_data_key_uid_batch(&erased, &context(), news).await;
    assert_eq!(told(made, |made| made.uid), [gone(), gone()]);
}

fn gone<T>() -> Result<T, String> {
    Err("DATA_KEY_DESTROYED".to_owned())
}

#[tokio::test]
async fn macs_are_made_and_verified() {
    let (_fake, kms) = start().await;
    let app = key("app");
    let items =
        [BatchItem::new(&b"one"[..]), BatchItem::new(&b"two"[..]).aad("2"), BatchItem::new(&b""[..]).aad(TOO_LONG)];
    let made = told(kms.generate_mac_batch(&app, &context(), items).await, |made| (made.mac, made.key_version.get()));
    let [Ok((one, 1)), Ok((two, 1)), Err(_)] = &made[..] else { panic!("{made:?}") };
    kms.verify_mac(&app, b"one", one, &context()).await.unwrap();
    let items =
        [BatchItem::new((&b"two"[..], two)), BatchItem::new((&b"two"[..], two)).aad("2"), (&b"one"[..], one).into()];
    let verified = kms.verify_mac_batch(&app, &context(), items).await;
    let verified = told(verified, |verified| (verified.key_version.get(), verified.stale));
    assert_eq!(verified, [Err("MAC_INVALID".to_owned()), Ok((1, false)), Ok((1, false))]);
}

#[tokio::test]
async fn what_callers_hold_is_taken_as_it_is() {
    let (_fake, kms) = start().await;
    let (app, context) = (key("app"), context());
    let (vecs, arrays, texts) = (vec![b"one".to_vec()], [*b"one"], ["one".to_owned()]);
    let of = |sealed| told(sealed, |sealed: kms_client::Encrypted| sealed.ciphertext);
    let one = of(kms.encrypt_batch(&app, &context, [&b"one"[..]]).await);
    assert_eq!(of(kms.encrypt_batch(&app, &context, &vecs).await), one);
    assert_eq!(of(kms.encrypt_batch(&app, &context, &arrays).await), one);
    assert_eq!(of(kms.encrypt_batch(&app, &context, &texts).await), one);
    assert_eq!(of(kms.encrypt_batch(&app, &context, ["one"]).await), one);
    assert_eq!(of(kms.encrypt_batch(&app, &context, vecs.iter().map(Vec::as_slice)).await), one);
    let own = vecs.iter().map(|value| BatchItem::new(value).aad("2"));
    assert_eq!(of(kms.encrypt_batch(&app, &at("2"), &vecs).await), of(kms.encrypt_batch(&app, &context, own).await));

    let made = told(kms.generate_mac_batch(&app, &context, &texts).await, |made| made.mac);
    let macs: Vec<&Mac> = made.iter().map(|mac| mac.as_ref().unwrap()).collect();
    let verified = kms.verify_mac_batch(&app, &context, vecs.iter().zip(macs)).await;
    assert_eq!(told(verified, |verified| verified.key_version.get()), [Ok(1)]);
}

/// Every batch of so many items, by the name of its RPC.
async fn all(kms: &Client, name: &str, count: usize) -> Vec<(&'static str, Option<Error>)> {
    let (key, context) = (key(name), context());
    let (ciphertext, wrapped, mac) =
        (Ciphertext::from(&[0x92; 6][..]), WrappedDataKey::from(&[0x92; 6][..]), Mac::from(vec![]));
    let uid = DataKeyUid::from([0; 16]);
    let new = || vec![NewDataKey::default(); count];
    vec![
        ("BatchEncrypt", kms.encrypt_batch(&key, &context, vec![&b""[..]; count]).await.err()),
        ("BatchDecrypt", kms.decrypt_batch(&key, &context, vec![&ciphertext; count]).await.err()),
        ("BatchReEncrypt", kms.re_encrypt_batch(&key, &context, vec![&ciphertext; count]).await.err()),
        ("BatchReEncrypt", kms.re_encrypt_data_key_batch(&key, &context, vec![&wrapped; count]).await.err()),
        ("BatchGenerateDataKeys", kms.generate_data_key_batch(&key, &context, new()).await.err()),
        ("BatchGenerateDataKeys", kms.generate_wrapped_data_key_batch(&key, &context, new()).await.err()),
        ("BatchDecryptDataKeys", kms.decrypt_data_key_batch(&key, &context, vec![&wrapped; count]).await.err()),
        ("BatchCreateDataKeys", kms.create_data_key_batch(&key, &context, new()).await.err()),
        ("BatchCreateDataKeys", kms.create_data_key_uid_batch(&key, &context, new()).await.err()),
        ("BatchCreateDataKeys", kms.create_data_key_batch(&key, &context, new()).validate_only().await.err()),
        ("BatchGetDataKeys", kms.get_data_key_batch(&key, &context, vec![uid; count]).await.err()),
        ("BatchDestroyDataKeys", kms.destroy_data_key_batch(&key, vec![uid; count]).await.err()),
        ("BatchGenerateMacs", kms.generate_mac_batch(&key, &context, vec![&b""[..]; count]).await.err()),
        ("BatchVerifyMacs", kms.verify_mac_batch(&key, &context, vec![(&b""[..], &mac); count]).await.err()),
    ]
}

#[tokio::test]
async fn too_few_and_too_many_items_are_refused_before_anything_is_sent() {
    let (fake, kms) = start().await;
    for count in [0, 10_001] {
        for (name, error) in all(&kms, "app", count).await {
            let error = error.unwrap();
            assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidArgument, Some("FIELD_INVALID")), "{name}");
            assert_eq!((error.operation(), error.attempts()), (Some(name), 0));
        }
    }
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn more_than_a_message_holds_is_refused_before_it_is_sent() {
    let (fake, kms) = start().await;
    let value = vec![0; 64 << 10];
    let error = kms.encrypt_batch(&key("app"), &context(), vec![&value[..]; 64]).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, Some("MESSAGE_TOO_LARGE")));
    assert!(fake.requests().is_empty());
    assert_eq!(kms.encrypt_batch(&key("app"), &context(), vec![&value[..]; 63]).await.unwrap().len(), 63);
    assert_eq!(
        kms.create_data_key_batch(&key("app"), &context(), vec![NewDataKey::default(); 10_000]).await.unwrap().len(),
        10_000
    );
}

#[tokio::test]
async fn another_number_of_results_than_items_is_an_error_of_the_call() {
    let (_fake, kms) = start().await;
    for (name, error) in all(&kms, "miscounting", 2).await {
        let error = error.unwrap_or_else(|| panic!("{name}"));
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Internal, None), "{name}");
        assert!(error.message().contains("as many results"), "{name}: {error}");
    }
}

#[tokio::test]
async fn what_concerns_all_items_fails_the_call() {
    let (_fake, kms) = start().await;
    for (name, error) in all(&kms, "denied", 2).await {
        let error = error.unwrap();
        assert_eq!((error.reason(), error.operation()), (Some("POLICY_DENIED"), Some(name)));
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_is_an_error() {
    let (_fake, kms) = start().await;
    let new = || vec![NewDataKey::default(); 2];
    let generated = kms.generate_data_key_batch(&key("malformed"), &context(), new()).await.unwrap_err();
    let created = kms.create_data_key_batch(&key("malformed"), &context(), new()).await.unwrap_err();
    assert_eq!((generated.kind(), created.kind()), (ErrorKind::Internal, ErrorKind::Internal));
}
