//! Managed data keys, and how long any data key may be held.

use std::time::{Duration, SystemTime};

use kms_client::{Client, Context, DataKeyUid, ErrorKind, KeyState, Lease, PageRequest, RequestId};

use crate::fake::{Fake, LEASE_END, TIME};
use crate::{builder, key};

async fn start() -> (Fake, Client) {
    let fake = Fake::start().await;
    let client = builder(&fake).connect().await.unwrap();
    fake.take_calls();
    (fake, client)
}

fn context() -> Context {
    Context::from([("table", "people")]).aad("aad")
}

/// A uid of which the second byte says what is wrong with it.
fn uid(wrong: u8) -> DataKeyUid {
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (9, wrong);
    bytes.into()
}

#[tokio::test]
async fn a_managed_data_key_is_made_given_out_and_destroyed() {
    let (fake, kms) = start().await;
    let id: RequestId = "c-1".parse().unwrap();
    let made = kms.create_data_key(&key("people"), &context()).request_id(id).await.unwrap();
    assert_eq!((made.data_key.expose(), made.key_version.get()), (&[7; 32], 1));
    let asked = fake.requests().pop().unwrap();
    for part in ["c-1", "omit_plaintext: false", "validate_only: false", "\"table\": [redacted; 6 bytes]", "3 bytes"] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
    let unseen = kms.create_data_key_uid(&key("people"), &context()).await.unwrap();
    assert_eq!((unseen.uid, unseen.key_version.get()), (made.uid, 1));
    assert!(fake.requests().pop().unwrap().contains("omit_plaintext: true"));

    let given = kms.get_data_key(&key("people"), uid(0), &context()).await.unwrap();
    assert_eq!((given.data_key.expose(), given.key_version.get()), (&[9; 32], 1));
    for (uid, kind, reason) in [
        (uid(1), ErrorKind::NotFound, "DATA_KEY_NOT_FOUND"),
        (uid(2), ErrorKind::FailedPrecondition, "DATA_KEY_DESTROYED"),
    ] {
        let error = kms.get_data_key(&key("people"), uid, &context()).await.unwrap_err();
        assert_eq!((error.kind(), error.reason(), error.change_id()), (kind, Some(reason), None));
        let error = kms.destroy_data_key(&key("people"), uid).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (kind, Some(reason)));
        assert!(error.change_id().is_some());
    }

    let time = |time| SystemTime::try_from(time).unwrap();
    let destroyed = kms.destroy_data_key(&key("people"), made.uid).await.unwrap();
    assert_eq!((destroyed.destroy_time, destroyed.lease_end_time), (time(TIME), Some(time(LEASE_END))));
    // A rehearsal tells what would be answered, at its time.
    let rehearsed = kms.destroy_data_key(&key("people"), made.uid).validate_only().await.unwrap();
    assert_eq!(rehearsed, destroyed);
    assert!(fake.requests().pop().unwrap().contains("validate_only: true"));
}

#[tokio::test]
async fn a_rehearsal_makes_none_and_tells_the_version() {
    let (fake, kms) = start().await;
    assert_eq!(kms.create_data_key(&key("people"), &context()).validate_only().await.unwrap().get(), 1);
    assert_eq!(kms.create_data_key_uid(&key("people"), &context()).validate_only().await.unwrap().get(), 1);
    assert!(fake.requests().iter().all(|asked| asked.contains("validate_only: true")));
    let error = kms.create_data_key(&key("disabled"), &context()).validate_only().await.unwrap_err();
    assert_eq!(error.reason(), Some("KEY_DISABLED"));
}

#[tokio::test]
async fn all_managed_data_keys_are_listed_without_the_keys() {
    let (_fake, kms) = start().await;
    let first = kms.list_data_keys(&key("people"), PageRequest::first()).await.unwrap();
    assert_eq!((first.items.len(), first.next.is_some()), (2, true));
    let [living, destroyed] = &first.items[..] else { panic!("{first:?}") };
    assert_eq!((living.state, living.key_version.map(|n| n.get())), (KeyState::Enabled, Some(1)));
    assert_eq!((destroyed.state, destroyed.key_version), (KeyState::Destroyed, None));
    assert!(living.destroy_time.is_none() && destroyed.destroy_time == Some(destroyed.create_time));
    let all = kms.list_all_data_keys(&key("people"), 100, None).await.unwrap();
    assert_eq!((all.items.len(), all.next), (5, None));
    assert!(all.items.is_sorted_by(|a, b| a.uid < b.uid));
}

#[tokio::test]
async fn every_data_key_in_the_clear_has_its_lease_and_without_one_it_is_over() {
    let (_fake, kms) = start().await;
    for (name, length) in [("people", Duration::from_secs(300)), ("leaseless", Duration::ZERO)] {
        let (key, context) = (key(name), context());
        let made = kms.generate_data_key(&key, &context).await.unwrap();
        let leases: [Lease; 4] = [
            kms.decrypt_data_key(&key, &made.wrapped_data_key, &context).await.unwrap().lease,
            made.lease,
            kms.create_data_key(&key, &context).await.unwrap().lease,
            kms.get_data_key(&key, uid(0), &context).await.unwrap().lease,
        ];
        for lease in leases {
            assert_eq!((lease.length(), lease.is_over()), (length, length.is_zero()), "{name}");
            // Some of it is gone: the clock counts nanoseconds, and it has run since before the call.
            assert!(length.is_zero() || lease.remaining() < length, "{lease:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_whose_data_key_is_no_data_key_is_an_error() {
    let (_fake, kms) = start().await;
    let error = kms.create_data_key(&key("malformed"), &context()).await.unwrap_err();
    // It may have been made all the same: the error says by which id it is found again.
    assert_eq!((error.kind(), error.change_id().is_some()), (ErrorKind::Internal, true));
}
