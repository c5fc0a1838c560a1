//! MACs and keys of indexes.

use std::time::Duration;

use kms_client::{Context, ErrorKind, IndexRef, Mac};

use crate::fake::Fake;
use crate::{builder, key};

#[tokio::test]
async fn a_mac_is_right_for_its_message_key_and_context_only() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    let context = Context::from([("table", "orders")]).aad("aad");
    let made = kms.generate_mac(&key("app"), b"hello", &context).await.unwrap();
    assert_eq!((made.mac.as_bytes().len(), made.key_version.get()), (56, 1));
    let verified = kms.verify_mac(&key("app"), b"hello", &made.mac, &context).await.unwrap();
    assert_eq!((verified.key_version.get(), verified.stale), (1, false));

    let forged = Mac::from([&made.mac.as_bytes()[..55], &[0]].concat());
    let (app, other, nothing) = (key("app"), key("other"), Context::new());
    for (key, message, mac, context) in [
        (&app, &b"hallo"[..], &made.mac, &context),
        (&app, b"hello", &forged, &context),
        (&other, b"hello", &made.mac, &context),
        (&app, b"hello", &made.mac, &nothing),
    ] {
        let error = kms.verify_mac(key, message, mac, context).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidArgument, Some("MAC_INVALID")));
    }
    let rotated = kms.generate_mac(&key("rotated"), b"", &nothing).await.unwrap();
    assert!(kms.verify_mac(&key("rotated"), b"", &rotated.mac, &nothing).await.unwrap().stale);
}

#[tokio::test]
async fn the_key_of_an_index_comes_with_its_lease() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    let index = IndexRef::new("acme", "users.email").unwrap();
    let given = kms.get_index_key(&index).await.unwrap();
    assert_eq!((given.index_key.expose(), given.lease.length()), (&[7; 32], Duration::from_secs(300)));
    assert!(fake.requests().pop().unwrap().contains("tenants/acme/indexes/users.email"));
    let of = |name: &str| index.tenant().index(name).unwrap();
    let denied = kms.get_index_key(&of("denied")).await.unwrap_err();
    assert_eq!(denied.reason(), Some("POLICY_DENIED"));
    assert_eq!(kms.get_index_key(&of("malformed")).await.unwrap_err().kind(), ErrorKind::Internal);
    assert!(kms.get_index_key(&of("leaseless")).await.unwrap().lease.is_over());
}
