//! Several addresses of one service: which is asked when one goes away, and when it comes back.

use kms_client::{ErrorKind, RequestId};
use tonic::Code;

use crate::fake::wire::Wire;
use crate::fake::{Fake, Fault, refusal};
use crate::{builder_at, key};

#[tokio::test]
async fn the_next_address_is_asked_when_one_goes_away_and_is_kept() {
    let a = Fake::start().await;
    let b = a.start_beside().await;
    let wire = Wire::to(&a.address).await;
    let kms = builder_at(&a, &wire.address).endpoint(&b.address).connect().await.unwrap();
    assert_eq!((a.take_calls().len(), b.take_calls().len()), (1, 0), "the first is asked while it answers");
    wire.remove().await;
    for _ in 0..10 {
        kms.get_key(&key("app")).await.unwrap();
    }
    assert_eq!((a.take_calls().len(), b.take_calls().len()), (0, 10));
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_call_is_made_good_elsewhere() {
    let a = Fake::start().await;
    let b = a.start_beside().await;
    let wire = Wire::to(&a.address).await;
    let kms = builder_at(&a, &wire.address).endpoint(&b.address).connect().await.unwrap();
    a.take_calls();
    a.fail([Fault::Cut(wire)]);
    kms.rotate_key(&key("app")).await.unwrap();
    let (at_a, at_b) = (a.take_calls(), b.take_calls());
    assert_eq!((at_a.len(), at_b.len()), (1, 1));
    assert_eq!(at_a[0].request_id(), at_b[0].request_id(), "one change, wherever it is asked for");
}

#[tokio::test]
async fn who_is_leaving_is_left_and_many_calls_at_once_all_succeed() {
    let a = Fake::start().await;
    let b = a.start_beside().await;
    let kms = builder_at(&a, &a.address).endpoint(&b.address).connect().await.unwrap();
    let leaving = || Fault::Status(refusal(Code::Unavailable, "SHUTTING_DOWN", "the server is stopping"));
    a.fail((0..100).map(|_| leaving()));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let kms = kms.clone();
        calls.spawn(async move { kms.get_key(&key("app")).await.map(drop) });
    }
    // More than the budget has tokens: going elsewhere does not cost any.
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(b.take_calls().len(), 50);
    a.take_calls();
    kms.get_key(&key("app")).await.unwrap();
    assert_eq!(a.take_calls().len(), 0, "it has its rest");
}

#[tokio::test]
async fn what_one_refuses_for_a_reason_is_not_asked_of_the_next() {
    let a = Fake::start().await;
    let b = a.start_beside().await;
    let kms = builder_at(&a, &a.address).endpoint(&b.address).connect().await.unwrap();
    let error = kms.get_key(&key("missing")).await.unwrap_err();
    assert_eq!((error.kind(), b.take_calls().len()), (ErrorKind::NotFound, 0));
}

#[tokio::test]
async fn when_none_is_there_the_error_says_so() {
    let a = Fake::start().await;
    let wires = [Wire::to(&a.address).await, Wire::to(&a.address).await];
    for wire in &wires {
        wire.remove().await;
    }
    let kms = builder_at(&a, &wires[0].address).endpoint(&wires[1].address).connect_lazy().unwrap();
    let error = kms.rotate_key(&key("app")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.reason(), error.attempts()),
        (ErrorKind::Connection, Some("CONNECTION_REFUSED"), 4)
    );
    assert!(error.is_retryable() && error.change_id().map(RequestId::as_str).is_some());
}
