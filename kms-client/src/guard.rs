//! Takes a panic of the transport for an answer that cannot be read.
//!
//! tonic 0.14 panics where a server's `grpc-status-details-bin` is no base64 (grpc-rust#2618): a server that is broken, or
//! not ours, must not end the program that asked it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use tonic::Status;

/// Waits for a call. Nothing of it is used again after a panic.
pub(crate) async fn guarded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let mut call = pin!(call);
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err(Status::internal("the server's answer cannot be read"))))
    })
    .await
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::codegen::http::{HeaderMap, HeaderValue};

    use super::*;

    #[tokio::test]
    async fn details_that_are_no_base64_are_an_error_and_no_panic() {
        let answer = async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("3"));
            trailers.insert("grpc-status-details-bin", HeaderValue::from_static("a/b"));
            Err::<(), Status>(Status::from_header_map(&trailers).unwrap())
        };
        assert_eq!(guarded(answer).await.unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn what_comes_well_passes() {
        assert_eq!(guarded(async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(guarded::<()>(async { Err(Status::not_found("x")) }).await.unwrap_err().code(), Code::NotFound);
    }
}
