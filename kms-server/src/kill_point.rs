//! Named places at which a test lets the process die, as `kill -9` would.
//!
//! They exist only in builds with debug assertions: elsewhere [`pass`] and [`pass_with`] are empty.
//! There, one place is armed by a setting (`KMS_SERVER_KILL_POINT=name[:count]`), and whoever passes
//! it for the `count`th time dies. The list here is the only one: the crash test goes through it, so
//! that a new place is tested without a further line.

/// When in the life of a daemon a place is passed: what a test must do to get there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// While `kms-server init` makes a cluster.
    Init,
    /// By a start after a death at the other place.
    StartAfter(Point),
    /// By every change.
    Change,
    /// By changes that close a gate.
    Gate,
    /// By destructions.
    Destruction,
    /// By records, of whatever they are.
    Log,
    /// By a daemon that was told to stop.
    Stop,
    /// By a destruction whose date has come.
    Due,
    /// By requests for managed data keys.
    DataKeys,
    /// By moving managed data keys to another version.
    Rewrap,
}

macro_rules! points {
    ($($(#[$doc:meta])* $Name:ident = $name:literal in $stage:expr,)*) => {
        /// A place to die at.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Point { $($(#[$doc])* $Name,)* }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Point] = &[$(Point::$Name,)*];

            /// Returns its name, which arms it.
            pub fn name(self) -> &'static str {
                match self { $(Point::$Name => $name,)* }
            }

            /// Returns when it is passed.
            pub fn stage(self) -> Stage {
                match self { $(Point::$Name => $stage,)* }
            }
        }
    };
}

points! {
    /// The first version of the master key is in the keystore.
    InitKeystore = "init-keystore" in Stage::Init,
    /// The log has its first segment, and no record.
    InitLog = "init-log" in Stage::Init,
    /// The intent of the first epoch is durable.
    InitIntent = "init-intent" in Stage::Init,
    /// The store exists, and is empty.
    InitStore = "init-store" in Stage::Init,
    /// The store has its first batch.
    InitBatch = "init-batch" in Stage::Init,
    /// The first outcome is durable.
    InitOutcome = "init-outcome" in Stage::Init,

    /// One intent of a group is in the log's memory.
    IntentAppended = "intent-appended" in Stage::Change,
    /// All intents of a group are durable.
    IntentsDurable = "intents-durable" in Stage::Change,
    /// The gate is closed; some may still be inside.
    GateClosed = "gate-closed" in Stage::Gate,
    /// Nobody is inside.
    GateDrained = "gate-drained" in Stage::Gate,
    /// The batch is made.
    BatchReady = "batch-ready" in Stage::Change,
    /// The store's writer has the batch, and has written nothing of it.
    BatchUnwritten = "batch-unwritten" in Stage::Change,
    /// The batch is durable, and only the store's writer knows.
    BatchWritten = "batch-written" in Stage::Change,
    /// The batch is durable.
    BatchDurable = "batch-durable" in Stage::Change,
    /// Memory is as the store.
    MemorySettled = "memory-settled" in Stage::Change,
    /// One outcome of a group is in the log's memory.
    OutcomeAppended = "outcome-appended" in Stage::Change,
    /// All outcomes of a group are durable.
    OutcomesDurable = "outcomes-durable" in Stage::Change,
    /// One reply of a group is on its way, perhaps after others.
    ReplyDue = "reply-due" in Stage::Change,

    /// A frame is written but for its last byte: more than the record that tells of it will cover.
    FrameTorn = "frame-torn" in Stage::Log,
    /// A frame is written and not synced.
    FrameUnsynced = "frame-unsynced" in Stage::Log,
    /// A frame is durable, and nobody was told.
    FrameDurable = "frame-durable" in Stage::Log,
    /// The frame has no room in the segment.
    SegmentFull = "segment-full" in Stage::Log,
    /// The next segment has a durable head and no name.
    SegmentHeaded = "segment-headed" in Stage::Log,
    /// The next segment has its name, perhaps not durably.
    SegmentNamed = "segment-named" in Stage::Log,
    /// The next segment is there, and holds no frame.
    SegmentRolled = "segment-rolled" in Stage::Log,
    /// A spare segment is of zeros, and has no name.
    SpareMade = "spare-made" in Stage::Log,
    /// A spare segment has its name.
    SpareNamed = "spare-named" in Stage::Log,

    /// All changes are made; the store's anchor lies behind.
    AnchorDue = "anchor-due" in Stage::Stop,
    /// The anchor lies at the log's end.
    AnchorMoved = "anchor-moved" in Stage::Stop,
    /// The log is closed; the store is not.
    LogClosed = "log-closed" in Stage::Stop,

    /// Half of an entry of the ledger is written.
    LedgerTorn = "ledger-torn" in Stage::Destruction,
    /// An entry of the ledger is durable.
    LedgerDurable = "ledger-durable" in Stage::Destruction,

    /// A torn tail is gone but for a mark; nothing tells of it yet.
    TailMarked = "tail-marked" in Stage::StartAfter(Point::FrameTorn),
    /// A record tells of a torn tail.
    TailTold = "tail-told" in Stage::StartAfter(Point::FrameTorn),
    /// The log was read; nothing is settled.
    LogRead = "log-read" in Stage::StartAfter(Point::IntentsDurable),
    /// The ledger has every destruction of the log.
    LedgerComplete = "ledger-complete" in Stage::StartAfter(Point::LedgerTorn),
    /// One outcome that a crash left out is durable, and it says ABORTED.
    LeafAborted = "leaf-aborted" in Stage::StartAfter(Point::IntentsDurable),
    /// One outcome that a crash left out is durable, and it says RECOVERED.
    LeafRecovered = "leaf-recovered" in Stage::StartAfter(Point::BatchWritten),
    /// All is settled; the start is not recorded.
    AllSettled = "all-settled" in Stage::StartAfter(Point::MemorySettled),
    /// The start is recorded; nothing is served.
    StartRecorded = "start-recorded" in Stage::StartAfter(Point::MemorySettled),

    /// New managed data keys are wrapped, and not stored.
    DataKeysReady = "data-keys-ready" in Stage::DataKeys,
    /// New managed data keys are durable, and no record tells of them.
    DataKeysDurable = "data-keys-durable" in Stage::DataKeys,
    /// A page of managed data keys is wrapped anew, and not stored.
    RewrapReady = "rewrap-ready" in Stage::Rewrap,
    /// A page of managed data keys is moved.
    RewrapDurable = "rewrap-durable" in Stage::Rewrap,
    /// The end of a job is on record, and the job still there.
    RewrapTold = "rewrap-told" in Stage::Rewrap,

    /// A date that has come was found.
    DueFound = "due-found" in Stage::Due,
    /// What was due is destroyed.
    DueDone = "due-done" in Stage::Due,
}

/// Dies here if this place is armed.
#[inline(always)]
pub(crate) fn pass(point: Point) {
    pass_with(point, || {});
}

/// Dies here if this place is armed, and does one more thing before.
#[inline(always)]
pub(crate) fn pass_with(point: Point, last: impl FnOnce()) {
    #[cfg(debug_assertions)]
    armed::pass(point, last);
    #[cfg(not(debug_assertions))]
    let _ = (point, last);
}

#[cfg(debug_assertions)]
pub use armed::{Trigger, arm};

#[cfg(debug_assertions)]
mod armed {
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    /// Which place to die at, and at which pass of it: `name` or `name:count`.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Trigger {
        /// The place.
        pub point: Point,
        /// The pass, from 1.
        pub count: u32,
    }

    impl FromStr for Trigger {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            let (name, count) = text.split_once(':').unwrap_or((text, "1"));
            let point = Point::ALL.iter().find(|point| point.name() == name);
            let known = || Point::ALL.iter().map(|point| point.name()).collect::<Vec<_>>().join(", ");
            let point = *point.ok_or_else(|| format!("{name:?} is no place to die at; these are: {}", known()))?;
            let count = count.parse().ok().filter(|count| *count > 0);
            Ok(Self { point, count: count.ok_or_else(|| "the count is a number from 1".to_owned())? })
        }
    }

    static ARMED: OnceLock<(Point, AtomicU32)> = OnceLock::new();

    /// Arms a place for the life of this process. Only the first call counts.
    pub fn arm(trigger: Trigger) {
        ARMED.get_or_init(|| (trigger.point, AtomicU32::new(trigger.count)));
    }

    pub(super) fn pass(point: Point, last: impl FnOnce()) {
        let Some((armed, left)) = ARMED.get() else { return };
        if *armed != point || left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        last();
        tracing::warn!(point = point.name(), "dying here, as was asked for");
        // No destructor, no buffer, no other thread gets a turn. A process may always kill itself.
        kill_process(getpid(), Signal::KILL).expect("a process may signal itself");
        loop {
            std::thread::park();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_trigger_names_a_place_and_a_pass() {
            let of = |text: &str| text.parse::<Trigger>();
            assert_eq!(of("batch-written"), Ok(Trigger { point: Point::BatchWritten, count: 1 }));
            assert_eq!(of("frame-torn:7"), Ok(Trigger { point: Point::FrameTorn, count: 7 }));
            for wrong in ["", "batch", "batch-written:", "batch-written:0", "batch-written:x", "batch-written:-1"] {
                assert!(of(wrong).is_err(), "{wrong:?}");
            }
            for point in Point::ALL {
                let same_name = Point::ALL.iter().filter(|other| other.name() == point.name()).count();
                assert_eq!((of(point.name()).map(|trigger| trigger.point), same_name), (Ok(*point), 1));
            }
        }
    }
}
