//! A global budget for the bytes of messages in flight.
//!
//! A gRPC message says its length in its first five bytes. That many are taken from the budget
//! before any of it is buffered, and given back when its reply has been sent: whoever opens many
//! streams, and sends slowly or never reads, gets OVERLOADED instead of the service's memory. An
//! answer that may be larger than its request takes its own bytes as well, before it is made.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// The bytes of all messages in flight.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// Makes a budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

/// What a request took, for itself and for its answer; given back when the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Share(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Share {
    /// Takes bytes beside what was taken before. Takes none if there are not as many.
    pub(super) fn take(&self, budget: &Budget, bytes: usize) -> bool {
        let Some(permit) = budget.take(bytes) else { return false };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *taken {
            Some(before) => before.merge(permit),
            None => *taken = Some(permit),
        }
        true
    }
}

/// A request's body that takes its message's bytes from the budget before it is read.
pub(super) struct Budgeted {
    inner: Incoming,
    budget: Budget,
    share: Share,
    /// The first bytes, until all five were seen.
    head: Vec<u8>,
    taken: bool,
}

impl Budgeted {
    pub(super) fn new(inner: Incoming, budget: Budget, share: Share) -> Self {
        Self { inner, budget, share, head: Vec::with_capacity(PREFIX_BYTES), taken: false }
    }

    /// Looks at what came; takes the bytes once the length is known.
    fn see(&mut self, data: &[u8]) -> Result<(), Status> {
        if self.taken {
            return Ok(());
        }
        let missing = PREFIX_BYTES - self.head.len();
        self.head.extend_from_slice(&data[..missing.min(data.len())]);
        let Some(length) = self.head.get(1..PREFIX_BYTES).and_then(|length| length.first_chunk::<4>()) else {
            return Ok(());
        };
        self.taken = true;
        // One that is too long is refused by the decoder, which buffers nothing of it.
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).min(super::MESSAGE_BYTES_MAX);
        if self.share.take(&self.budget, length) {
            Ok(())
        } else {
            Err(Status::unavailable("too many bytes are in flight"))
        }
    }
}

impl HttpBody for Budgeted {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.see(data)
        {
            return Poll::Ready(Some(Err(status.into())));
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A reply's body that keeps what its request took until it was sent.
pub(super) struct Keeping {
    inner: tonic::body::Body,
    _share: Share,
}

impl Keeping {
    pub(super) fn new(inner: tonic::body::Body, share: Share) -> Self {
        Self { inner, _share: share }
    }
}

impl HttpBody for Keeping {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

const PREFIX_BYTES: usize = 5;
const UNIT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_finite_and_comes_back() {
        let budget = Budget::new(8 << 10);
        let first = budget.take(5 << 10).unwrap();
        assert!(budget.take(4 << 10).is_none());
        assert!(budget.take(3 << 10).is_some());
        drop(first);
        assert!(budget.take(8 << 10).is_some());
    }

    #[test]
    fn a_share_grows_by_its_answer_and_gives_all_back() {
        let budget = Budget::new(8 << 10);
        let share = Share::default();
        assert!(share.take(&budget, 3 << 10));
        assert!(!share.take(&budget, 6 << 10), "more than there is");
        assert!(share.take(&budget, 5 << 10));
        assert!(budget.take(1).is_none(), "all is taken");
        drop(share.clone());
        assert!(budget.take(1).is_none(), "and kept while anybody holds the share");
        drop(share);
        assert!(budget.take(8 << 10).is_some());
    }
}
