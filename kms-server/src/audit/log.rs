//! The log: appends leaves, commits them in groups, and says when they are durable.
//!
//! A leaf gets its index when it is appended, and is durable some microseconds later with all that
//! were appended beside it. Nobody waits in between: connections are held back instead
//! (`hold.rs`). Where the disk syncs fast, a core writes the group itself when it has nothing else
//! to do; else the log's own thread does.
//!
//! **Invariant:** after a failed write or sync nothing more is written until restart
//! (`a_failed_write_fails_everything_after_it`).

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::crypto::FrameMacKey;
use crate::crypto::log_mac::{FIRST_PREVIOUS_MAC, FrameMac};
use crate::noun::{Clock, UnixMillis};

use super::frame::FramePayload;
use super::leaf::{LEAF_BYTES_MAX, Leaf, Outcome, StoredLeaf, write_leaf};
use super::replay::{ReplayError, dek_destructions, verify_before};
use super::segment::{SegmentWriter, Tail, make_spare};

/// The log takes no more leaves, or not now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LogFailed {
    /// A write or sync failed, or the log was closed.
    #[error("the audit log cannot be written")]
    Failed,
    /// More waits to be written than memory is set aside for.
    #[error("the audit log is behind")]
    Behind,
    /// A leaf longer than the format allows.
    #[error("the audit record is too long")]
    TooLong,
}

/// Which leaves are durable, and the MAC of the frame that ends there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Anchor {
    /// Leaves.
    pub size: u64,
    /// The MAC of the last frame.
    pub mac: FrameMac,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The node's name, in every leaf.
    pub node: String,
    /// The log's C2SP origin.
    pub origin: String,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Whether idle cores write groups themselves while the disk is fast. Needs
    /// [`Log::flush_when_idle`] to be called by them.
    pub flush_on_cores: bool,
}

/// The audit log of this node.
pub struct Log {
    settings: LogSettings,
    key: FrameMacKey,
    clock: Arc<dyn Clock>,
    pending: Mutex<Pending>,
    writer: Mutex<SegmentWriter>,
    anchor: Mutex<Anchor>,
    /// Leaves that are durable.
    durable: AtomicU64,
    /// Index of the first leaf in the segment now written to.
    segment: AtomicU64,
    failed: AtomicBool,
    waiting: Mutex<Vec<(u64, Arc<AtomicWaker>)>>,
    /// A smoothed time of one write and sync, in nanoseconds.
    sync_nanos: AtomicU64,
    thread: Signal,
    joined: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Pending {
    /// Full ones, oldest first.
    full: VecDeque<FramePayload>,
    open: FramePayload,
    bytes: usize,
    since: UnixMillis,
    closed: bool,
}

#[derive(Default)]
struct Signal {
    state: Mutex<ThreadState>,
    changed: Condvar,
}

#[derive(Default)]
struct ThreadState {
    wanted: bool,
    stop: bool,
}

impl Log {
    /// Makes a new log in a directory that does not exist yet.
    pub fn create(dir: &Path, settings: LogSettings, key: FrameMacKey, clock: Arc<dyn Clock>) -> io::Result<Arc<Self>> {
        let writer = SegmentWriter::create(dir, settings.origin_hash(), settings.segment_bytes, FIRST_PREVIOUS_MAC)?;
        Self::start(settings, key, clock, writer, Anchor { size: 0, mac: FIRST_PREVIOUS_MAC })
    }

    /// Goes on with a log at its tail, as `replay` found it. If bytes behind it are torn, a first leaf
    /// takes their place, durably, and tells how many. What must be said before all else is `said_first`.
    pub fn resume(
        dir: &Path,
        settings: LogSettings,
        key: FrameMacKey,
        clock: Arc<dyn Clock>,
        tail: Tail,
        torn_bytes: u64,
        said_first: Option<Leaf>,
    ) -> io::Result<Arc<Self>> {
        let mut writer = SegmentWriter::resume(dir, settings.origin_hash(), settings.segment_bytes, tail)?;
        let mut anchor = Anchor { size: tail.next, mac: tail.previous };
        let torn = (torn_bytes > 0).then(|| Leaf { bytes: Some(torn_bytes), ..Leaf::of("TornTail") });
        let mut payload = FramePayload::new(tail.next);
        for leaf in [said_first, torn.map(|torn| torn.ended(Outcome::Ok))].into_iter().flatten() {
            let (index, leaf) = (payload.end(), Leaf { n: Some(settings.node.clone().into()), ..leaf });
            payload.push(|out| write_leaf(index, clock.now(), &leaf.members(), out));
        }
        if payload.count() == 0 {
            writer.clear_ahead(&[])?;
        } else {
            let end = payload.end();
            let (frame, mac) = payload.seal(&key, &tail.previous);
            writer.write_over_torn(&frame, mac)?;
            anchor = Anchor { size: end, mac };
        }
        Self::start(settings, key, clock, writer, anchor)
    }

    fn start(
        settings: LogSettings,
        key: FrameMacKey,
        clock: Arc<dyn Clock>,
        writer: SegmentWriter,
        anchor: Anchor,
    ) -> io::Result<Arc<Self>> {
        let pending =
            Pending { full: VecDeque::new(), open: FramePayload::new(anchor.size), bytes: 0, since: 0, closed: false };
        let log = Arc::new(Self {
            settings,
            key,
            clock,
            pending: Mutex::new(pending),
            segment: AtomicU64::new(writer.first()),
            writer: Mutex::new(writer),
            anchor: Mutex::new(anchor),
            durable: AtomicU64::new(anchor.size),
            failed: AtomicBool::new(false),
            waiting: Mutex::default(),
            sync_nanos: AtomicU64::new(0),
            thread: Signal::default(),
            joined: Mutex::default(),
        });
        let for_thread = Arc::clone(&log);
        let thread = std::thread::Builder::new().name("kms-log".into()).spawn(move || for_thread.run_thread())?;
        *lock(&log.joined) = Some(thread);
        Ok(log)
    }

    /// Appends a leaf and returns its index. It is not durable yet.
    pub fn append(&self, leaf: Leaf) -> Result<u64, LogFailed> {
        self.append_stored(leaf).map(|stored| stored.index)
    }

    /// Appends a leaf and returns it as it will be stored. It is not durable yet.
    pub fn append_stored(&self, mut leaf: Leaf) -> Result<StoredLeaf, LogFailed> {
        leaf.n = Some(self.settings.node.clone().into());
        let members = leaf.members();
        let bytes_max = members.len() + LEAF_HEAD_BYTES_MAX;
        if bytes_max > LEAF_BYTES_MAX {
            return Err(LogFailed::TooLong);
        }
        let (index, time, wake) = {
            let mut pending = lock(&self.pending);
            self.check()?;
            if pending.closed {
                return Err(LogFailed::Failed);
            }
            // Leaves of changes are few, and one that cannot be settled stops all changes.
            if pending.bytes > PENDING_BYTES_MAX && leaf.seq.is_none() {
                return Err(LogFailed::Behind);
            }
            if !pending.open.has_room(bytes_max) {
                let next = FramePayload::new(pending.open.end());
                let full = std::mem::replace(&mut pending.open, next);
                pending.full.push_back(full);
            }
            let now = self.clock.now();
            if pending.bytes == 0 {
                pending.since = now;
            }
            let (index, before) = (pending.open.end(), pending.open.bytes());
            pending.open.push(|out| write_leaf(index, now, &members, out));
            pending.bytes += pending.open.bytes() - before;
            let overdue = pending.bytes > GROUP_BYTES_MAX || now.saturating_sub(pending.since) > GROUP_AGE_MS_MAX;
            (index, now, overdue || !self.cores_write())
        };
        if wake {
            self.wake_thread();
        }
        Ok(StoredLeaf { index, time, leaf })
    }

    /// Returns how many leaves are durable.
    pub fn durable_size(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Returns how many leaves are durable, with the MAC of the frame that ends there.
    pub fn anchor(&self) -> Anchor {
        *lock(&self.anchor)
    }

    /// Returns the index of the first leaf in the segment now written to.
    pub fn segment_first(&self) -> u64 {
        self.segment.load(Ordering::Acquire)
    }

    /// Reads the chain of destructions of managed data keys backwards from leaf `last`; see
    /// [`dek_destructions`]. Blocks.
    pub fn dek_destructions(
        &self,
        dir: &Path,
        last: u64,
        each: impl FnMut(StoredLeaf) -> bool,
    ) -> Result<usize, ReplayError> {
        dek_destructions(dir, self.settings.origin_hash(), &self.key, last, each)
    }

    /// Proves that the log is of one piece before the segment that the start began with. Blocks.
    pub fn verify_before(&self, dir: &Path, began: u64, stop: impl Fn() -> bool) -> Result<Option<usize>, ReplayError> {
        verify_before(dir, self.settings.origin_hash(), &self.key, began, stop)
    }

    /// Returns the settings.
    pub fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Answers whether the log still takes leaves.
    pub fn check(&self) -> Result<(), LogFailed> {
        if self.failed.load(Ordering::Acquire) { Err(LogFailed::Failed) } else { Ok(()) }
    }

    /// Returns when the leaf with this index is durable.
    pub async fn durable(&self, index: u64) -> Result<(), LogFailed> {
        let waker = Arc::new(AtomicWaker::new());
        let mut enrolled = false;
        std::future::poll_fn(|cx| {
            waker.register(cx.waker());
            if !enrolled {
                enrolled = true;
                self.wake_when_durable(index + 1, Arc::clone(&waker));
                // Whoever waits here need not run on a core that would write it.
                self.wake_thread();
            }
            if self.durable_size() > index {
                return Poll::Ready(Ok(()));
            }
            self.check()?;
            Poll::Pending
        })
        .await
    }

    /// Wakes once the log has this size, or failed.
    pub(super) fn wake_when_durable(&self, size: u64, waker: Arc<AtomicWaker>) {
        let mut waiting = lock(&self.waiting);
        if self.durable_size() < size && self.check().is_ok() {
            waiting.push((size, waker));
        } else {
            drop(waiting);
            waker.wake();
        }
    }

    /// To be called by a core that has nothing else to do: writes the group, if the disk is fast.
    pub fn flush_when_idle(&self) {
        if lock(&self.pending).bytes == 0 {
            return;
        }
        if self.cores_write()
            && let Ok(mut writer) = self.writer.try_lock()
        {
            self.flush(&mut writer);
        } else {
            // Slow, or another core is writing: what it leaves is the thread's.
            self.wake_thread();
        }
    }

    /// Writes what is pending and takes no more leaves.
    pub fn close(&self) {
        lock(&self.pending).closed = true;
        {
            let mut state = lock(&self.thread.state);
            state.stop = true;
            self.thread.changed.notify_all();
        }
        if let Some(thread) = lock(&self.joined).take() {
            // It ends after its last flush; a panic in it was reported where it happened.
            drop(thread.join());
        }
    }

    fn cores_write(&self) -> bool {
        self.settings.flush_on_cores && self.sync_nanos.load(Ordering::Relaxed) < INLINE_SYNC_NANOS_MAX
    }

    fn wake_thread(&self) {
        let mut state = lock(&self.thread.state);
        if !state.wanted {
            state.wanted = true;
            self.thread.changed.notify_all();
        }
    }

    fn run_thread(&self) {
        loop {
            let stop = {
                let mut state = lock(&self.thread.state);
                while !state.wanted && !state.stop {
                    state = self.thread.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.wanted = false;
                state.stop
            };
            let spare = {
                let mut writer = lock(&self.writer);
                self.flush(&mut writer);
                writer.wants_spare()
            };
            if stop {
                return;
            }
            if let Some((path, bytes)) = spare {
                make_spare_apart(path, bytes);
            }
        }
    }

    fn flush(&self, writer: &mut SegmentWriter) {
        while let Some(payload) = self.take_group() {
            if self.check().is_err() {
                return;
            }
            let (first, end) = (payload.end() - u64::from(payload.count()), payload.end());
            let (frame, mac) = payload.seal(&self.key, &writer.previous);
            #[allow(clippy::disallowed_methods)] // Measures the disk; decides nothing that a test looks at.
            let began = Instant::now();
            if let Err(error) = writer.write(&frame, first, mac) {
                self.fail(&error);
                return;
            }
            self.observe_sync(began.elapsed());
            *lock(&self.anchor) = Anchor { size: end, mac };
            self.segment.store(writer.first(), Ordering::Release);
            self.durable.store(end, Ordering::Release);
            self.wake_waiting();
        }
    }

    fn take_group(&self) -> Option<FramePayload> {
        let mut pending = lock(&self.pending);
        let group = match pending.full.pop_front() {
            Some(full) => full,
            None if pending.open.count() > 0 => {
                let next = FramePayload::new(pending.open.end());
                std::mem::replace(&mut pending.open, next)
            }
            None => return None,
        };
        // Leaves of later groups stay counted.
        pending.bytes = pending.full.iter().map(FramePayload::bytes).sum::<usize>()
            + if pending.open.count() > 0 { pending.open.bytes() } else { 0 };
        Some(group)
    }

    fn fail(&self, error: &io::Error) {
        tracing::error!(%error, "the audit log cannot be written: this node stops serving until it is restarted");
        metrics::counter!("kms_audit_write_failures_total").increment(1);
        self.failed.store(true, Ordering::Release);
        self.wake_waiting();
    }

    fn wake_waiting(&self) {
        let (durable, failed) = (self.durable_size(), self.check().is_err());
        let mut ready = Vec::new();
        lock(&self.waiting).retain(|(size, waker)| {
            let still = *size > durable && !failed;
            if !still {
                ready.push(Arc::clone(waker));
            }
            still
        });
        for waker in ready {
            waker.wake();
        }
    }

    fn observe_sync(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let before = self.sync_nanos.load(Ordering::Relaxed);
        self.sync_nanos.store(before - before / 8 + took / 8, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("durable", &self.durable_size()).finish_non_exhaustive()
    }
}

impl LogSettings {
    /// Returns what binds a segment to this log.
    pub fn origin_hash(&self) -> [u8; 32] {
        crate::crypto::sha256(self.origin.as_bytes())
    }
}

/// Makes a spare on a thread of its own: nobody's record waits for it. One that fails is tried again
/// only in the next segment; the segment itself will be made, or fail, when it is needed.
fn make_spare_apart(path: PathBuf, bytes: u64) {
    let make = move || {
        if let Err(error) = make_spare(&path, bytes) {
            tracing::warn!(%error, "no spare segment could be made for the audit log");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("kms-log-spare".into()).spawn(make) {
        tracing::warn!(%error, "no thread could be made for a spare segment of the audit log");
    }
}

/// A poisoned lock is taken as it is: every holder leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// Version, index and time with their names and commas.
const LEAF_HEAD_BYTES_MAX: usize = 64;
// A group that grew so large, or so old, does not wait for an idle core.
const GROUP_BYTES_MAX: usize = 256 << 10;
const GROUP_AGE_MS_MAX: u64 = 2;
// What may wait in memory before appends are refused.
const PENDING_BYTES_MAX: usize = 64 << 20;
// A sync slower than this would hold up what else the core could do.
const INLINE_SYNC_NANOS_MAX: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::replay::{Replayed, replay};
    use crate::crypto::ClusterSecret;
    use crate::noun::clock::SystemClock;
    use crate::noun::random::OsRandom;

    fn key(secret: &ClusterSecret) -> FrameMacKey {
        secret.frame_mac_key().unwrap()
    }

    fn secret() -> ClusterSecret {
        ClusterSecret::generate(&OsRandom::new()).unwrap()
    }

    fn settings(segment_bytes: u64) -> LogSettings {
        LogSettings { node: "node-1".into(), origin: "test/log".into(), segment_bytes, flush_on_cores: false }
    }

    fn create(dir: &Path, secret: &ClusterSecret, segment_bytes: u64) -> Arc<Log> {
        Log::create(&dir.join("seg"), settings(segment_bytes), key(secret), Arc::new(SystemClock)).unwrap()
    }

    fn read(dir: &Path, secret: &ClusterSecret, anchor: Anchor) -> Result<Replayed, crate::audit::replay::ReplayError> {
        replay(&dir.join("seg"), settings(0).origin_hash(), &key(secret), anchor, anchor.size, &[])
    }

    const BEGIN: Anchor = Anchor { size: 0, mac: FIRST_PREVIOUS_MAC };

    fn mutation(seq: u64) -> Leaf {
        Leaf { seq: Some(seq), ..Leaf::of("Test") }
    }

    #[tokio::test]
    async fn leaves_are_durable_in_order_and_across_segments() {
        let (dir, secret) = (tempfile::tempdir().unwrap(), secret());
        let log = create(dir.path(), &secret, 4096);
        for seq in 0..200 {
            let index = log.append(mutation(seq)).unwrap();
            assert_eq!(index, seq);
            log.durable(index).await.unwrap();
        }
        let anchor = log.anchor();
        log.close();
        assert!(super::super::segment::list(&dir.path().join("seg")).unwrap().len() > 2);
        let read = read(dir.path(), &secret, BEGIN).unwrap();
        assert_eq!(read.mutations.len(), 200);
        assert_eq!((read.tail.next, read.tail.previous), (anchor.size, anchor.mac));
        assert_eq!(read.torn_bytes, 0);
    }

    #[tokio::test]
    async fn a_log_goes_on_where_it_ended() {
        let (dir, secret) = (tempfile::tempdir().unwrap(), secret());
        let log = create(dir.path(), &secret, 1 << 16);
        log.append(mutation(1)).unwrap();
        log.close();
        let tail = read(dir.path(), &secret, BEGIN).unwrap().tail;
        let log =
            Log::resume(&dir.path().join("seg"), settings(1 << 16), key(&secret), Arc::new(SystemClock), tail, 0, None)
                .unwrap();
        assert_eq!(log.append(mutation(2)).unwrap(), 1);
        log.close();
        assert_eq!(read(dir.path(), &secret, BEGIN).unwrap().mutations.len(), 2);
    }

    #[tokio::test]
    async fn a_closed_log_takes_no_more_and_has_lost_nothing() {
        let (dir, secret) = (tempfile::tempdir().unwrap(), secret());
        let log = create(dir.path(), &secret, 1 << 16);
        for seq in 0..50 {
            log.append(mutation(seq)).unwrap();
        }
        log.close();
        assert_eq!(log.append(mutation(51)), Err(LogFailed::Failed));
        assert_eq!(read(dir.path(), &secret, BEGIN).unwrap().mutations.len(), 50);
    }

    #[tokio::test]
    async fn a_failed_write_fails_everything_after_it() {
        let (dir, secret) = (tempfile::tempdir().unwrap(), secret());
        let log = create(dir.path(), &secret, 1 << 16);
        let first = log.append(mutation(1)).unwrap();
        log.durable(first).await.unwrap();
        lock(&log.writer).make_writes_fail();
        let second = log.append(mutation(2)).unwrap();
        assert_eq!(log.durable(second).await, Err(LogFailed::Failed));
        assert_eq!(log.append(mutation(3)), Err(LogFailed::Failed));
        assert_eq!(log.durable_size(), 1);
        log.close();
        assert_eq!(read(dir.path(), &secret, BEGIN).unwrap().mutations.len(), 1);
    }

    #[test]
    fn a_leaf_that_is_too_long_is_refused_and_takes_no_index() {
        let (dir, secret) = (tempfile::tempdir().unwrap(), secret());
        let log = create(dir.path(), &secret, 1 << 16);
        let long = Leaf { why: Some("x".repeat(65_536).into()), ..Leaf::of("Test") };
        assert_eq!(log.append(long), Err(LogFailed::TooLong));
        assert_eq!(log.append(mutation(1)), Ok(0));
        log.close();
    }

    #[tokio::test]
    async fn a_group_too_large_for_one_frame_is_written_as_several() {
        let (dir, secret) = (tempfile::tempdir().unwrap(), secret());
        let log = create(dir.path(), &secret, 1 << 20);
        {
            // While the writer is taken nothing is flushed, so the group grows past 4 MiB.
            let _writer = lock(&log.writer);
            for seq in 0..100 {
                let why = Some("x".repeat(60_000).into());
                log.append(Leaf { why, ..mutation(seq) }).unwrap();
            }
        }
        log.durable(99).await.unwrap();
        log.close();
        assert_eq!(read(dir.path(), &secret, BEGIN).unwrap().mutations.len(), 100);
    }
}
