//! What may be said with a change arrives: id, etag, and that nothing shall be changed.

use kms_client::{Error, RequestId, TenantRef};

use crate::fake::Fake;
use crate::{builder, key};

#[tokio::test]
async fn what_is_said_with_a_change_is_sent() -> Result<(), Error> {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await?;
    let id: RequestId = "my-change.1".parse()?;
    let seen = kms.get_key(&key("app")).await?;
    assert_eq!(seen.etag.as_ref().map(kms_client::Etag::as_str), Some("e1"));
    fake.take_calls();

    kms.disable_key(&key("app")).etag_of(seen.etag.as_ref()).request_id(id.clone()).validate_only().await?;
    kms.update_labels(&key("app"), seen.labels).etag("e7".parse()?).await?;
    kms.create_tenant(&TenantRef::new("acme")?).request_id(id).validate_only().await?;
    kms.rotate_key(&key("app")).etag_of(None).await?;
    let requests = fake.requests();
    let says = |index: usize, parts: &[&str]| {
        for part in parts {
            let request: &String = &requests[index];
            assert!(request.contains(part), "{part} is not in {request}");
        }
    };
    says(0, &[r#"request_id: "my-change.1""#, r#"etag: "e1""#, "validate_only: true"]);
    says(1, &[r#"etag: "e7""#, "validate_only: false"]);
    says(2, &[r#"request_id: "my-change.1""#, "validate_only: true"]);
    says(3, &[r#"etag: """#, "validate_only: false"]);
    Ok(())
}

#[tokio::test]
async fn what_is_not_awaited_is_not_done() {
    let fake = Fake::start().await;
    let kms = builder(&fake).connect().await.unwrap();
    fake.take_calls();
    drop(kms.rotate_key(&key("app")));
    kms.get_key(&key("app")).await.unwrap();
    assert_eq!(fake.requests().len(), 1);
}
