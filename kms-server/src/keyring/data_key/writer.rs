//! Makes managed data keys for those who ask, so that who hangs up loses only the reply: T turn, E
//! gate, A answers, W wrapping, B batch, L leaves, R reply; see the decision page.
//!
//! Requests for one tenant that come while its turn is taken are made together; those of different
//! tenants do not wait for each other.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::kill_point::{Point, pass};
use crate::noun::TenantName;
use crate::store::{Batch, Precondition, StoreError};

use super::super::cache::Entry;
use super::super::load::{InUse, Want, Which};
use super::super::mutation::broken;
use super::super::view::KeyPurpose;
use super::super::{Error, Keyring, Who};
use super::Counting;
use super::create::{Created, MadeDataKeys, NewDataKeys, Prepared, place_of};

/// A request that waits.
pub(in crate::keyring) struct Job {
    new: NewDataKeys,
    who: Who,
    reply: oneshot::Sender<Result<Created, Error>>,
}

impl Keyring {
    /// Makes managed data keys, and returns when they are durable and their records have indices.
    pub async fn create_data_keys(&self, new: NewDataKeys, who: Who) -> Result<Created, Error> {
        let (reply, answer) = oneshot::channel();
        self.new_data_keys.try_send(Job { new, who, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::ShuttingDown,
        })?;
        answer.await.unwrap_or(Err(Error::ShuttingDown))
    }
}

/// Makes all managed data keys.
pub struct DataKeyWriter {
    keyring: Arc<Keyring>,
    jobs: mpsc::Receiver<Job>,
}

impl DataKeyWriter {
    pub(in crate::keyring) fn new(keyring: Arc<Keyring>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { keyring, jobs }
    }

    /// Works until `stop`, and finishes what waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let keyring = Arc::clone(&self.keyring);
        let _watch = BreakOnPanic(&keyring);
        // Those that wait for the ones under way of their tenant.
        let mut waiting: HashMap<TenantName, Vec<Job>> = HashMap::new();
        let mut under_way = FuturesUnordered::new();
        let (mut open, mut stopping) = (true, false);
        while open || !under_way.is_empty() {
            tokio::select! {
                biased;
                Some(tenant) = under_way.next(), if !under_way.is_empty() => {
                    let next = waiting.get_mut(&tenant).map(take_some).unwrap_or_default();
                    if next.is_empty() {
                        waiting.remove(&tenant);
                    } else {
                        under_way.push(keyring.make_data_keys(tenant, next));
                    }
                }
                job = self.jobs.recv(), if open && under_way.len() < TENANTS_AT_ONCE_MAX => match job {
                    Some(job) => match waiting.entry(job.new.tenant.clone()) {
                        MapEntry::Occupied(before) if before.get().len() >= WAITING_MAX => {
                            drop(job.reply.send(Err(Error::Overloaded)));
                        }
                        MapEntry::Occupied(mut before) => before.get_mut().push(job),
                        MapEntry::Vacant(none) => {
                            let tenant = none.key().clone();
                            none.insert(Vec::new());
                            under_way.push(keyring.make_data_keys(tenant, vec![job]));
                        }
                    },
                    None => open = false,
                },
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.jobs.close();
                }
            }
        }
    }
}

/// Takes from the front as much as goes into one batch.
fn take_some(waiting: &mut Vec<Job>) -> Vec<Job> {
    let mut keys = 0;
    let fits = |job: &&Job| {
        keys += job.new.contexts.len();
        keys <= KEYS_AT_ONCE_MAX
    };
    let count = waiting.iter().take_while(fits).count().max(1);
    waiting.drain(..count.min(waiting.len())).collect()
}

/// A request whose keys are made and not durable yet.
struct Making {
    job: Job,
    prepared: Prepared,
    in_use: InUse,
    preconditions: Vec<Precondition>,
}

impl Keyring {
    /// Makes what is asked of one tenant; returns the tenant.
    async fn make_data_keys(&self, tenant: TenantName, mut jobs: Vec<Job>) -> TenantName {
        while !jobs.is_empty() {
            // Of two with one id the second finds the answer of the first.
            let mut names = HashSet::new();
            let is_first = |job: &Job| job.new.answer_name(&job.who).is_none_or(|name| names.insert(name));
            let (together, later) = jobs.into_iter().partition(is_first);
            jobs = later;
            self.make_together(&tenant, together).await;
        }
        self.cache.drop_if_idle(&tenant);
        tenant
    }

    async fn make_together(&self, tenant: &TenantName, jobs: Vec<Job>) {
        let (entry, _turn) = self.cache.take_turn(tenant).await;
        // One whose caller has gone was promised nothing.
        let jobs = jobs.into_iter().filter(|job| !job.reply.is_closed());
        let mut makings = Vec::new();
        for job in jobs {
            match self.prepare_data_keys(&entry, &job).await {
                Ok(Ok((prepared, in_use, preconditions))) => {
                    makings.push(Making { job, prepared, in_use, preconditions });
                }
                Ok(Err(created)) => drop(job.reply.send(Ok(created))),
                Err(error) => drop(job.reply.send(Err(error))),
            }
        }
        match self.commit_data_keys(&mut makings).await {
            Ok(()) => {}
            // What is wrong with one is not the others' fault: perhaps an answer came in between, in
            // another tenant under the same id. Who it was is found one by one.
            Err(Error::Conflict | Error::Damaged(_)) if makings.len() > 1 => {
                for mut making in makings {
                    match self.commit_data_keys(std::slice::from_mut(&mut making)).await {
                        Ok(()) => self.tell_of_data_keys(making),
                        Err(error) => drop(making.job.reply.send(Err(error))),
                    }
                }
                return;
            }
            Err(error) => {
                let mut error = Some(error);
                for making in makings {
                    drop(making.job.reply.send(Err(error.take().unwrap_or_else(broken))));
                }
                return;
            }
        }
        for making in makings {
            self.tell_of_data_keys(making);
        }
    }

    /// Answers from before, or makes the keys of one request.
    #[allow(clippy::type_complexity)] // Used once, right above.
    async fn prepare_data_keys(
        &self,
        entry: &Arc<Entry>,
        job: &Job,
    ) -> Result<Result<(Prepared, InUse, Vec<Precondition>), Created>, Error> {
        self.check_whole()?;
        let Job { new, who, .. } = job;
        let want = Want { key: &new.key, purpose: KeyPurpose::Managed, which: Which::Primary };
        let in_use = self.enter_in_turn(entry, &new.tenant, &[want]).await?;
        if new.rehearse {
            return Ok(Err(Created::Rehearsed(in_use.key().version())));
        }
        let name = new.answer_name(who);
        let asked = name.is_some().then(|| new.hash(&in_use));
        if let (Some(name), Some(asked)) = (name, &asked)
            && let Some(answer) = self.find_answer(name, asked).await?
        {
            return new.answered(&answer).map(Err);
        }
        let mut prepared = new.prepare(self, &in_use).await;
        // Uids of one request differ from all others', if the first does.
        let mut preconditions: Vec<_> =
            prepared.writes.first().map(|write| Precondition::Absent(place_of(write).clone())).into_iter().collect();
        if let (Some(name), Some(asked)) = (name, asked)
            && !prepared.writes.is_empty()
        {
            let answer = new.answer(asked, self.clock.now(), &prepared.uids);
            let keep = self.keep_answer(&name, &answer);
            let read = self.store.get(place_of(&keep)).await?;
            preconditions.push(Precondition::of(place_of(&keep).clone(), read));
            prepared.writes.push(keep);
        }
        Ok(Ok((prepared, in_use, preconditions)))
    }

    /// Makes all of them durable, with their counters.
    async fn commit_data_keys(&self, makings: &mut [Making]) -> Result<(), Error> {
        // What one alone writes is not needed again.
        let alone = makings.len() == 1;
        let Some(first) = makings.first() else { return Ok(()) };
        let mut batch = Batch::default();
        let mut counting = Counting::of(first.in_use.tenant_uid());
        for Making { job, prepared, in_use, preconditions } in makings {
            let one = in_use.key();
            let good = i64::try_from(job.new.good()).map_err(|_| Error::Overloaded)?;
            if good > 0 {
                counting.read(self, one.uid(), one.version()).await?;
                counting.add(one.uid(), one.version(), good)?;
            }
            if alone {
                batch.preconditions.append(preconditions);
                batch.writes.append(&mut prepared.writes);
            } else {
                batch.preconditions.extend_from_slice(preconditions);
                batch.writes.extend_from_slice(&prepared.writes);
            }
        }
        if batch.writes.is_empty() {
            return Ok(());
        }
        counting.write(self, &mut batch.preconditions, &mut batch.writes).await?;
        pass(Point::DataKeysReady);
        self.commit_or_break(batch).await?;
        pass(Point::DataKeysDurable);
        Ok(())
    }

    /// Makes a batch durable. Where that is not known, nobody makes changes any more.
    pub(super) async fn commit_or_break(&self, batch: Batch) -> Result<(), Error> {
        let committed = self.store.commit(batch).await;
        if let Err(error @ StoreError::Failed(_)) = &committed {
            tracing::error!(%error, "the store failed: this node makes no more changes until it is restarted");
            self.mark_broken();
        }
        Ok(committed?)
    }

    /// Appends the records of keys that are durable, and answers.
    fn tell_of_data_keys(&self, making: Making) {
        let Making { job: Job { new, who, reply }, prepared, in_use, .. } = making;
        let (version, lease_ms) = (in_use.key().version(), in_use.lease_ms());
        let mut told = Err(Error::Overloaded);
        for leaf in prepared.leaves {
            let leaf = crate::audit::Leaf { op: Some(new.operation.into()), ..leaf };
            told = self.log.append(who.sign(leaf)).map_err(Error::from);
            if told.is_err() {
                break;
            }
        }
        drop(in_use);
        let made = told.map(|index| Created::Made(MadeDataKeys { version, lease_ms, keys: prepared.keys, index }));
        drop(reply.send(made));
    }
}

/// Nobody may make changes after a panic in the middle of one.
pub(super) struct BreakOnPanic<'a>(pub(super) &'a Keyring);

impl Drop for BreakOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "making or moving data keys ended in a panic: this node makes no more changes until it is restarted"
            );
            self.0.mark_broken();
        }
    }
}

/// The most tenants whose requests are worked on at once.
const TENANTS_AT_ONCE_MAX: usize = 256;
/// The most requests of one tenant that wait.
const WAITING_MAX: usize = 1_024;
/// The most data keys that go into one batch, unless one request has more.
const KEYS_AT_ONCE_MAX: usize = 10_000;
