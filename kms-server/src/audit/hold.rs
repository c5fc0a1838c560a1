//! Holds a connection's bytes back until its last record is durable.
//!
//! The one place that enforces "no reply leaves before its record": a wrapper of the TCP stream,
//! below TLS, that refuses to write. Whatever a handler does, no byte of its reply can pass.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::log::{Log, LogFailed};

/// What a connection waits for. Shared between its stream and the requests on it.
#[derive(Debug, Default)]
pub struct Hold {
    /// The log must be durable up to this size.
    size: AtomicU64,
    waker: Arc<AtomicWaker>,
    /// The size for which the waker stands in the log's list.
    enrolled: AtomicU64,
    /// There is an answer that has no record: nothing may be sent any more.
    severed: AtomicBool,
}

impl Hold {
    /// Holds the connection until the leaf with this index is durable.
    pub fn until_durable(&self, index: u64) {
        self.size.fetch_max(index + 1, Ordering::AcqRel);
    }

    /// Lets no byte pass any more: an answer could not be recorded.
    pub fn sever(&self) {
        self.severed.store(true, Ordering::Release);
    }

    fn poll(&self, log: &Log, cx: &Context<'_>) -> Poll<Result<(), LogFailed>> {
        if self.severed.load(Ordering::Acquire) {
            return Poll::Ready(Err(LogFailed::Failed));
        }
        let size = self.size.load(Ordering::Acquire);
        if log.durable_size() >= size {
            return log.check().map_or_else(|failed| Poll::Ready(Err(failed)), |()| Poll::Ready(Ok(())));
        }
        self.waker.register(cx.waker());
        // One entry per connection and batch: enrol again only when the last entry was used up.
        if self.enrolled.load(Ordering::Acquire) <= log.durable_size() {
            self.enrolled.store(size, Ordering::Release);
            log.wake_when_durable(size, Arc::clone(&self.waker));
        }
        // It may have become durable, or failed, in between.
        log.check()?;
        if log.durable_size() >= size { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// A stream whose writes wait for the log.
#[derive(Debug)]
pub struct HeldStream<S> {
    inner: S,
    log: Option<Arc<Log>>,
    hold: Arc<Hold>,
}

impl<S> HeldStream<S> {
    /// Wraps a stream. Where there is no log there are no records, and nothing to wait for.
    pub fn new(inner: S, log: Option<Arc<Log>>) -> Self {
        Self { inner, log, hold: Arc::new(Hold::default()) }
    }

    /// Returns what its requests use to hold it.
    pub fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    fn poll_hold(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(log) = &self.log else { return Poll::Ready(Ok(())) };
        self.hold.poll(log, cx).map_err(io::Error::other)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeldStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeldStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_hold(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.inner).poll_write(cx, buf),
            Poll::Ready(Err(failed)) => Poll::Ready(Err(failed)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_hold(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
            Poll::Ready(Err(failed)) => Poll::Ready(Err(failed)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::audit::{Leaf, LogSettings};
    use crate::crypto::ClusterSecret;
    use crate::noun::clock::SystemClock;
    use crate::noun::random::OsRandom;

    fn log(dir: &Path) -> Arc<Log> {
        let key = ClusterSecret::generate(&OsRandom::new()).unwrap().frame_mac_key().unwrap();
        let settings =
            LogSettings { node: "n".into(), origin: "test/log".into(), segment_bytes: 1 << 16, flush_on_cores: false };
        Log::create(&dir.join("seg"), settings, key, Arc::new(SystemClock)).unwrap()
    }

    /// Tries to write once, and answers whether a byte passed.
    async fn passes(stream: &mut HeldStream<tokio::io::DuplexStream>) -> Option<bool> {
        poll_fn(|cx| match Pin::new(&mut *stream).poll_write(cx, b"x") {
            Poll::Ready(Ok(_)) => Poll::Ready(Some(true)),
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Pending => Poll::Ready(Some(false)),
        })
        .await
    }

    #[tokio::test]
    async fn no_byte_passes_before_the_last_record_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let (near, mut far) = duplex(64);
        let mut held = HeldStream::new(near, Some(Arc::clone(&log)));
        assert_eq!(passes(&mut held).await, Some(true), "nothing to wait for");
        // As if the third record of three were this connection's.
        held.hold().until_durable(2);
        assert_eq!(passes(&mut held).await, Some(false));
        for _ in 0..2 {
            let index = log.append(Leaf::of("Test")).unwrap();
            log.durable(index).await.unwrap();
            assert_eq!(passes(&mut held).await, Some(false), "two of three");
        }
        // It is woken, and not only found free by asking again.
        let writing = tokio::spawn(async move { held.write_all(b"y").await });
        let index = log.append(Leaf::of("Test")).unwrap();
        log.durable(index).await.unwrap();
        writing.await.unwrap().unwrap();
        let mut got = [0; 2];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"xy");
        log.close();
    }

    #[tokio::test]
    async fn a_severed_connection_never_sends_again() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let (near, _far) = duplex(64);
        let mut held = HeldStream::new(near, Some(Arc::clone(&log)));
        held.hold().sever();
        assert_eq!(passes(&mut held).await, None);
        log.close();
    }
}
