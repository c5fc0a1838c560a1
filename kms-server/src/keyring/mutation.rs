//! The one road of every change: intent, batch, outcome.
//!
//! One group at a time (design 8): plans are made and their preconditions checked -> intents,
//! durable -> gates that must be closed are closed and drained -> one store batch with `seq` and
//! `anchor` -> memory is changed, gates opened or fenced -> outcomes, durable -> a destruction's
//! entry in the ledger, durable -> replies -> the next group. The decision page `0002-mutations.md` walks through every crash in between.
//!
//! **Invariants:**
//! - while serving, only this file, `upkeep.rs` and the two of managed data keys commit to the store;
//! - a group holds the turns of its tenants from before its plans until its gates stand as they
//!   will, so that what a plan read is still so when its batch is applied;
//! - a change that closes a gate is alone in its group: if it cannot drain, no number of another
//!   change depends on it;
//! - once the store failed nothing more is tried: whether that batch is durable, the next start
//!   tells from its `seq`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::audit::{Leaf, Ledger, LogFailed, Outcome, Phase};
use crate::kill_point::{Point, pass};
use crate::noun::{DekUid, KeyName, Uid, UnixMillis};
use crate::rows;
use crate::store::{Batch, Precondition, StoreError, Write};

use super::answered::Considered;
use super::cache::Entry;
use super::grant::{GrantView, RoleInForce};
use super::group::{GROUP_MAX, Job, next_group};
use super::position::Position;
use super::settle::destroys;
use super::terms::{Asked, Etag, Terms};
use super::view::{KeyView, TenantView, VersionView};
use super::{Change, DestroyedPart, Error, GateUse, Keyring, Who, row, row_key};

/// What a change looks like now that it is done, and its leaf.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The object.
    pub object: Object,
    /// When nobody who keeps to leases holds a data key any more that the change took away.
    pub lease_end: Option<UnixMillis>,
    /// How that came to be.
    pub how: How,
}

/// How an answer to a change came to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// It was made now; the index of its outcome, which is durable.
    Made(u64),
    /// It was made before, under the same request id; the index of its intent.
    Before(u64),
    /// It was not made: this is what would be.
    Rehearsed {
        /// Of something that is not there yet.
        creates: bool,
    },
}

/// What a change was about.
#[derive(Clone, Debug)]
pub enum Object {
    /// A tenant.
    Tenant(TenantView),
    /// A key.
    Key(KeyView),
    /// A version of a key.
    Version(KeyView, VersionView),
    /// Managed data keys.
    DataKeys(DestroyedPart),
    /// A grant.
    Grant(GrantView),
}

/// A change ready to be made.
pub(super) struct Plan {
    /// What the intent says; who asked is added.
    pub(super) intent: Leaf,
    /// The object as it was found; none for what is to be created.
    pub(super) before: Option<Etag>,
    /// How long somebody may still hold a data key that the change takes away, in milliseconds; none if
    /// it takes none away.
    pub(super) lease_ms: Option<u64>,
    /// Makes the writes, once it is known where in the log the intent is.
    pub(super) effect: Box<dyn FnOnce(&Placed) -> Effect + Send + Sync>,
}

impl Plan {
    /// Says that it takes the use of keys away, which somebody may hold for so long.
    pub(super) fn takes_away(self, lease_ms: u64) -> Self {
        Self { lease_ms: Some(lease_ms), ..self }
    }
}

/// Where and when a change is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) intent_index: u64,
    pub(super) now: UnixMillis,
}

/// The writes of a change, and what follows from them.
pub(super) struct Effect {
    pub(super) preconditions: Vec<Precondition>,
    pub(super) writes: Vec<Write>,
    /// The object's main row as written.
    pub(super) main_row: Vec<u8>,
    pub(super) after: After,
    pub(super) object: Object,
}

/// What happens in memory once the batch is durable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// The key is loaded anew when it is asked for.
    ForgetKey(KeyName),
    /// The tenant is loaded anew when it is asked for.
    ForgetTenant,
    /// The tenant is never let in again.
    Fence,
    /// These managed data keys are not given out any more, wherever they were read.
    DeksDestroyed(Vec<DekUid>),
    /// This role is in force, from when the outcome is durable.
    GrantBegan(RoleInForce),
    /// This grant is not in force any more.
    GrantEnded(Uid),
}

/// Makes all changes, one group after the other.
pub struct Mutator {
    pub(super) keyring: Arc<Keyring>,
    jobs: mpsc::Receiver<Job>,
    pub(super) position: Position,
    ledger: Ledger,
    pub(super) looked_at_answers: Option<tokio::time::Instant>,
    /// The last leaf that nobody waited for.
    pub(super) appended: Option<u64>,
    pub(super) broken: bool,
}

/// A change of the group now being made.
struct Making {
    asked: Asked,
    reply: oneshot::Sender<Result<Changed, Error>>,
    entry: Arc<Entry>,
    _turn: OwnedMutexGuard<()>,
    plan: Box<Plan>,
}

impl Mutator {
    pub(super) fn new(keyring: Arc<Keyring>, jobs: mpsc::Receiver<Job>, position: Position, ledger: Ledger) -> Self {
        Self { keyring, jobs, position, ledger, looked_at_answers: None, appended: None, broken: false }
    }

    /// Works until `stop`, finishes what waits, and leaves the store's anchor at the log's end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                tokio::select! {
                    biased;
                    job = self.jobs.recv() => match job {
                        Some(job) => waiting.push_back(job),
                        None => break,
                    },
                    () = stop.cancelled() => self.jobs.close(),
                    () = tokio::time::sleep(ANCHOR_EVERY) => {
                        self.follow_segments().await;
                        self.forget_answers().await;
                    }
                }
            }
            while waiting.len() < GROUP_MAX
                && let Ok(job) = self.jobs.try_recv()
            {
                waiting.push_back(job);
            }
            let group = next_group(&mut waiting);
            if !group.is_empty() {
                self.make(group).await;
                self.forget_answers().await;
            }
        }
        self.move_anchor().await;
    }

    /// Makes one change outside the loop: while the cluster is being opened.
    pub(super) async fn make_one(&mut self, change: Change, who: Who) -> Result<Changed, Error> {
        let (reply, answer) = oneshot::channel();
        self.make(vec![Job { asked: Asked { change, terms: Terms::default(), who }, reply, _room: None }]).await;
        answer.await.unwrap_or(Err(Error::ShuttingDown))
    }

    /// Returns the ledger.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns the keyring whose changes it makes.
    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    async fn make(&mut self, group: Vec<Job>) {
        let mut makings = Vec::with_capacity(group.len());
        for job in group {
            if let Some(making) = self.plan(job).await {
                makings.push(making);
            }
        }
        if makings.is_empty() {
            return;
        }
        if let Err((fault, makings)) = self.make_planned(makings).await {
            for making in makings {
                answer(making.reply, Err(fault.into()));
            }
        }
    }

    /// Takes the tenant's turn and plans; what is not to be made is answered here.
    async fn plan(&mut self, job: Job) -> Option<Making> {
        let Job { asked, reply, _room } = job;
        if self.broken || self.keyring.is_broken() {
            answer(reply, Err(broken()));
            return None;
        }
        let (entry, turn) = self.keyring.take_turn(asked.change.tenant()).await;
        let settled = match self.keyring.consider(&asked).await {
            Ok(Considered::Make(plan)) => return Some(Making { asked, reply, entry, _turn: turn, plan }),
            Ok(Considered::Answer(changed)) => Ok(*changed),
            Err(error) => Err(error),
        };
        drop(turn);
        if let Some(tenant) = asked.change.tenant() {
            self.keyring.cache.drop_if_idle(tenant);
        }
        answer(reply, settled);
        None
    }

    async fn make_planned(&mut self, makings: Vec<Making>) -> Result<(), (Fault, Vec<Making>)> {
        // Intents, durable before anything changes.
        let mut intents = Vec::with_capacity(makings.len());
        for (making, seq) in makings.iter().zip(self.position.seq + 1..) {
            // A start that has to settle it learns the length of the lease from here.
            let lease = making.plan.lease_ms.map(|lease_ms| self.keyring.clock.now() + lease_ms);
            let leaf = Leaf { ph: Some(Phase::Intent), seq: Some(seq), lease, ..making.signed() };
            match self.keyring.log.append(leaf) {
                Ok(index) => {
                    intents.push(index);
                    pass(Point::IntentAppended);
                }
                Err(failed) => {
                    let leaves: Vec<Leaf> = makings.iter().map(Making::signed).collect();
                    self.abort(&leaves, &intents, "LOG");
                    return Err((Fault::Log(failed), makings));
                }
            }
        }
        if let Some(last) = intents.last()
            && let Err(failed) = self.keyring.log.durable(*last).await
        {
            self.break_off();
            return Err((Fault::Log(failed), makings));
        }

        pass(Point::IntentsDurable);
        if let [making] = &makings[..]
            && making.asked.change.gate_use() == GateUse::Closed
            && let Err(fault) = close_and_drain(&making.entry).await
        {
            self.abort(&[making.signed()], &intents, "DRAIN");
            return Err((fault, makings));
        }

        // One batch.
        let now = self.keyring.clock.now();
        let mut batch = Batch::default();
        let mut made = Vec::with_capacity(makings.len());
        for (making, intent_index) in makings.into_iter().zip(&intents) {
            let Making { asked, reply, entry, _turn, plan } = making;
            let placed = Placed { intent_index: *intent_index, now };
            let (lease_ms, gate_use) = (plan.lease_ms, asked.change.gate_use());
            // What is not taken away before the gate was drained may be given out until then.
            let margin = if gate_use == GateUse::DrainedAfter { DRAIN_MS } else { 0 };
            let lease_end = lease_ms.map(|lease_ms| now + lease_ms + margin);
            let effect = (plan.effect)(&placed);
            batch.preconditions.extend(effect.preconditions);
            batch.writes.extend(effect.writes);
            batch.writes.extend(self.keyring.answer_write(&asked, &effect.object, lease_end, &placed));
            let intent = asked.who.sign(plan.intent);
            made.push(Made {
                gate_use,
                lets_rewrap: asked.change.lets_rewrap(),
                reply,
                entry,
                _turn,
                intent,
                lease_ms,
                lease_end,
                main_row: effect.main_row,
                after: effect.after,
                object: effect.object,
            });
        }
        let count = made.len() as u64;
        let position = self.next_position(self.position.seq + count, intents.first().copied());
        position.join(&mut batch, &self.position);
        pass(Point::BatchReady);
        if let Err(error) = self.keyring.store.commit(batch).await {
            self.refuse_all(made, &intents, &error);
            return Ok(());
        }
        pass(Point::BatchDurable);
        let before = std::mem::replace(&mut self.position, position);
        self.keyring.seq.store(self.position.seq, Ordering::Relaxed);

        // Memory, before anybody is let in again.
        for made in &made {
            made.settle_entry();
            self.keyring.end_grant(&made.after);
            if made.lets_rewrap {
                self.keyring.rewrap.notify_one();
            }
        }

        if let [alone] = &mut made[..]
            && alone.gate_use == GateUse::DrainedAfter
        {
            if close_and_drain(&alone.entry).await.is_err() {
                // Done, but somebody may still be giving it out: nothing says that it is gone before the
                // next start does.
                self.break_off();
                for made in made {
                    answer(made.reply, Err(broken()));
                }
                return Ok(());
            }
            // It counts from when the last one was given out, should that have taken so long.
            alone.lease_end = alone.lease_end.max(alone.lease_ms.map(|lease_ms| self.keyring.clock.now() + lease_ms));
            reopen(&alone.entry);
        }

        pass(Point::MemorySettled);

        // Outcomes, durable before any reply.
        let mut indices = Vec::with_capacity(made.len());
        let mut destruction = None;
        for ((made, intent), seq) in made.iter().zip(&intents).zip(before.seq + 1..) {
            match self.keyring.log.append_stored(self.outcome(made, *intent, seq)) {
                Ok(stored) => {
                    self.position.last_mutation = Some(stored.index);
                    indices.push(stored.index);
                    if made.is_destruction() {
                        self.position.last_destruction = Some(stored.index);
                        destruction = Some(stored);
                    } else if made.destroys_deks() {
                        self.position.last_dek_destruction = Some(stored.index);
                    }
                    pass(Point::OutcomeAppended);
                }
                Err(_) => break,
            }
        }
        let durable = match indices.last() {
            Some(last) if indices.len() == made.len() => self.keyring.log.durable(*last).await,
            Some(_) | None => Err(LogFailed::Failed),
        };
        pass(Point::OutcomesDurable);
        if durable.is_ok() {
            made.iter().for_each(|made| self.keyring.begin_grant(&made.after));
        }
        if durable.is_err() {
            // Done, but not recorded: the next start records it.
            self.break_off();
        } else if let Some(stored) = destruction
            && let Err(error) = self.ledger.append(&stored)
        {
            // Done and recorded, but not twice: the next start reads it from the log again, for the
            // store's position stays where it is.
            tracing::error!(%error, "the ledger cannot be written: this node makes no more changes until it is restarted");
            self.break_off();
        }
        for (place, made) in made.into_iter().enumerate() {
            pass(Point::ReplyDue);
            let (lease_end, how) = (made.lease_end, How::Made(indices.get(place).copied().unwrap_or_default()));
            let changed = durable.map(|()| Changed { object: made.object, lease_end, how }).map_err(Error::from);
            answer(made.reply, changed);
        }
        Ok(())
    }

    /// A refused batch changed nothing; a failed one perhaps did, and nobody may go on.
    fn refuse_all(&mut self, made: Vec<Made>, intents: &[u64], error: &StoreError) {
        match error {
            StoreError::Conflict(place) => {
                // The turns were held, so this is somebody else's hand in the store.
                tracing::error!(family = place.family.name(), "a row changed between a plan and its batch");
                let leaves: Vec<Leaf> = made.iter().map(|made| made.intent.clone()).collect();
                self.abort(&leaves, intents, "CONFLICT");
                for made in made {
                    if made.gate_use == GateUse::Closed {
                        reopen(&made.entry);
                    }
                    answer(made.reply, Err(Error::Conflict));
                }
            }
            StoreError::Failed(cause) => {
                tracing::error!(%cause, "the store failed: this node makes no more changes until it is restarted");
                self.break_off();
                // A closed gate stays closed: nobody knows what the store holds.
                for made in made {
                    answer(made.reply, Err(broken()));
                }
            }
        }
    }

    /// Says of intents that nothing came of them, so that their numbers may be used again. They
    /// lie in the log before any leaf that does.
    fn abort(&mut self, leaves: &[Leaf], intents: &[u64], why: &'static str) {
        for ((leaf, intent), seq) in leaves.iter().zip(intents).zip(self.position.seq + 1..) {
            let aborted = Leaf { in_: Some(*intent), seq: Some(seq), why: Some(why.into()), ..leaf.clone() }
                .ended(Outcome::Aborted);
            match self.keyring.log.append(aborted) {
                Ok(index) => self.appended = Some(index),
                // Without that leaf no number may be used again: the next start settles it.
                Err(_) => self.break_off(),
            }
        }
    }

    pub(super) fn break_off(&mut self) {
        self.broken = true;
        self.keyring.mark_broken();
    }

    fn outcome(&self, made: &Made, intent: u64, seq: u64) -> Leaf {
        let mut leaf = made.intent.clone();
        leaf.n = None;
        leaf.ph = made.is_destruction().then_some(Phase::Fenced);
        leaf.lease = made.lease_end;
        leaf.in_ = Some(intent);
        leaf.seq = Some(seq);
        leaf.pm = self.position.last_mutation;
        if made.is_destruction() {
            leaf.pd = self.position.last_destruction;
        }
        if made.destroys_deks() {
            leaf.px = self.position.last_dek_destruction;
        }
        leaf.rh = Some(Etag::of(&made.main_row).to_string().into());
        leaf.ended(Outcome::Ok)
    }

    pub(super) fn next_position(&self, seq: u64, first_intent: Option<u64>) -> Position {
        // In this order: a segment that begins in between is followed once more, not once less.
        let segment = self.keyring.log.segment_first();
        let anchor = self.keyring.log.anchor();
        let place = row_key::position();
        let message = rows::Position {
            rev: self.position.rev + 1,
            seq,
            anchor_size: anchor.size,
            anchor_mac: anchor.mac.to_vec(),
            last_mutation_index: self.position.last_mutation,
            last_destruction_index: self.position.last_destruction,
            first_intent_index: first_intent,
            ledger_mac: self.ledger.mac().to_vec(),
            clock_held: self.keyring.clock_is_held(),
            last_dek_destruction_index: self.position.last_dek_destruction,
        };
        let record = row::seal(&self.keyring.cluster.record_mac, self.keyring.cluster.secret_version, &place, &message);
        Position { rev: message.rev, seq, record, segment, ..self.position.clone() }
    }
}

impl Drop for Mutator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("making changes ended in a panic: this node makes no more until it is restarted");
            self.keyring.mark_broken();
        }
    }
}

impl Making {
    /// What the intent says, and every leaf after it.
    fn signed(&self) -> Leaf {
        self.asked.who.sign(self.plan.intent.clone())
    }
}

/// Why no change of a group was made.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Log(LogFailed),
    Drain,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Log(failed) => Error::Log(failed),
            Fault::Drain => Error::Overloaded,
        }
    }
}

pub(super) fn broken() -> Error {
    Error::Store(StoreError::Failed("it failed before; this node makes no more changes until it is restarted".into()))
}

/// A change whose batch is on its way.
struct Made {
    gate_use: GateUse,
    lets_rewrap: bool,
    reply: oneshot::Sender<Result<Changed, Error>>,
    entry: Arc<Entry>,
    _turn: OwnedMutexGuard<()>,
    intent: Leaf,
    lease_ms: Option<u64>,
    lease_end: Option<UnixMillis>,
    main_row: Vec<u8>,
    after: After,
    object: Object,
}

impl Made {
    fn is_destruction(&self) -> bool {
        destroys(&self.intent)
    }

    fn destroys_deks(&self) -> bool {
        self.intent.is_of_destroyed_data_keys()
    }

    fn settle_entry(&self) {
        match &self.after {
            After::Nothing => {}
            After::ForgetKey(key) => {
                if let Some(tenant) = self.entry.loaded.load_full() {
                    tenant.forget_key(key);
                }
            }
            After::ForgetTenant => self.entry.forget(),
            After::Fence => {
                self.entry.forget();
                self.entry.gate.fence();
            }
            After::DeksDestroyed(uids) => self.entry.destroyed_deks.note(uids),
            // The keyring's to settle.
            After::GrantBegan(_) | After::GrantEnded(_) => {}
        }
        if self.gate_use == GateUse::Closed {
            reopen(&self.entry);
        }
    }
}

/// Closes the gate and waits, for a bounded time, until nobody is inside.
async fn close_and_drain(entry: &Arc<Entry>) -> Result<(), Fault> {
    entry.gate.close();
    pass(Point::GateClosed);
    if tokio::time::timeout(DRAIN_TIME_MAX, entry.gate.drained()).await.is_err() {
        reopen(entry);
        return Err(Fault::Drain);
    }
    pass(Point::GateDrained);
    Ok(())
}

/// Opens the gate if the tenant is in memory, else lets the next one load it.
fn reopen(entry: &Entry) {
    if entry.loaded.load().is_some() {
        entry.gate.open();
    } else {
        entry.gate.unload();
    }
}

fn answer(reply: oneshot::Sender<Result<Changed, Error>>, answer: Result<Changed, Error>) {
    // Who asked may have gone; the change is made all the same.
    drop(reply.send(answer));
}

/// How long a change waits for those inside; they never wait for anything themselves.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a batch and the drain behind it take, at most as a rule.
const DRAIN_MS: u64 = 1_000;
const ANCHOR_EVERY: Duration = Duration::from_secs(1);
