//! Moves managed data keys to the newest version of their key after a rotation, in the background.
//!
//! A job is a row, so that it goes on after a restart. A step moves a page of rows, with their
//! counters and the job itself, in one batch; the tenant's turn is held for one step at a time.
//!
//! **Invariant:** a data key that was destroyed does not come back: a step replaces just the rows it
//! read, and holds the turn that a destruction needs (`a_destroyed_one_does_not_come_back`).

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::{Leaf, Outcome};
use crate::crypto::{Header, Kind};
use crate::kill_point::{Point, pass};
use crate::noun::{DekUid, KeyName, KeyVersion, TenantName, Uid};
use crate::rows;
use crate::store::{Batch, Precondition, RowKey, Write};

use super::super::load::{InUse, Want, Which};
use super::super::view::KeyPurpose;
use super::super::{Error, Keyring, Who, row_key};
use super::row::LivingDek;
use super::writer::BreakOnPanic;
use super::{Counting, DekRow, tell_of_damage};

/// Goes round the jobs.
pub struct Rewrapper {
    keyring: Arc<Keyring>,
    /// What is known of a job beside its row.
    known: HashMap<(Uid, Uid), Known>,
}

/// How far a pass is, which is stored only with rows that it moved.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The job's row that this is about.
    rev: u64,
    cursor: Option<DekUid>,
    left: u64,
    /// Not before then.
    parked: Option<Instant>,
    /// How long the last wait was, since something was moved.
    waited: Duration,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// So many rows were looked at.
    looked: usize,
    /// So many were moved.
    moved: u64,
    then: Then,
}

/// How a job goes on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Then {
    /// Behind the cursor.
    On,
    /// Not: it is done, or gone.
    Done,
    /// Later: nothing can be moved for now.
    #[default]
    Parked,
}

impl Rewrapper {
    /// Makes one for a cluster.
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring, known: HashMap::new() }
    }

    /// Works until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let keyring = Arc::clone(&self.keyring);
        let _watch = BreakOnPanic(&keyring);
        while !stop.is_cancelled() {
            // What may free a job is noticed while others go on.
            if keyring.rewrap.notified().now_or_never().is_some() {
                self.unpark();
            }
            let looked = match self.round(&stop).await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "the jobs that move managed data keys cannot be read");
                    0
                }
            };
            if looked > 0 {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = keyring.rewrap.notified() => self.unpark(),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn unpark(&mut self) {
        for known in self.known.values_mut() {
            (known.parked, known.waited) = (None, Duration::ZERO);
        }
    }

    /// Makes one step of every job; returns how many rows were looked at.
    pub(in crate::keyring) async fn round(&mut self, stop: &CancellationToken) -> Result<usize, Error> {
        let prefix = row_key::rewrap_jobs();
        let (mut after, mut looked_at, mut jobs) = (None::<Vec<u8>>, 0, BTreeSet::new());
        loop {
            let page = self.keyring.store.list(prefix.family, &prefix.key, after.as_deref(), JOBS_PAGE).await?;
            for (place, _) in &page.rows {
                let job = row_key::parse_rewrap_job(place).ok_or(Error::Damaged("a row among jobs that is none"))?;
                jobs.insert(job);
                if stop.is_cancelled() {
                    return Ok(looked_at);
                }
                let began = Instant::now();
                let step = self.step_or_park(job).await;
                if step.looked > 0 {
                    self.pace(step.looked, began, stop).await;
                }
                looked_at += if step.then == Then::Parked { 0 } else { step.looked.max(1) };
            }
            match page.rows.last() {
                Some((place, _)) if page.more => after = Some(place.clone()),
                Some(_) | None => break,
            }
        }
        self.known.retain(|job, _| jobs.contains(job));
        metrics::gauge!("kms_rewrap_jobs").set(jobs.len() as f64);
        Ok(looked_at)
    }

    /// Waits as long as the rate asks.
    async fn pace(&self, rows: usize, began: Instant, stop: &CancellationToken) {
        let due = Duration::from_secs_f64(rows as f64 / f64::from(self.keyring.settings.rewraps_per_second.max(1)));
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(began + due) => {}
        }
    }

    async fn step_or_park(&mut self, job: (Uid, Uid)) -> Step {
        let known = self.known.entry(job).or_default();
        if known.parked.is_some_and(|until| Instant::now() < until) {
            return Step::default();
        }
        let step = self.keyring.rewrap_step(job, known).await.unwrap_or_else(|error| {
            match error {
                // Suspended, disabled, or about to be destroyed: that is somebody's will.
                Error::TenantState(_) | Error::KeyState(_) | Error::VersionState(_) => {}
                error => {
                    tracing::error!(tenant = %job.0, key = %job.1, %error, "managed data keys cannot be moved for now");
                }
            }
            Step::default()
        });
        if step.moved > 0 {
            known.waited = Duration::ZERO;
        }
        match step.then {
            Then::On => known.parked = None,
            Then::Done => drop(self.known.remove(&job)),
            Then::Parked => {
                known.waited = (known.waited * 2).clamp(PARKED_MIN, PARKED_MAX);
                known.parked = Some(Instant::now() + known.waited);
            }
        }
        step
    }
}

/// A job whose key is in use, with its tenant's turn held.
struct Held<'a> {
    tenant: &'a TenantName,
    name: &'a KeyName,
    place: RowKey,
    record: Vec<u8>,
    job: rows::RewrapJob,
    primary: InUse,
}

impl Keyring {
    /// The write that begins to move a key's managed data keys, and what must still hold.
    pub(in crate::keyring) async fn new_rewrap_job(
        &self,
        tenant: (&TenantName, Uid),
        key: (&KeyName, Uid),
    ) -> Result<(Precondition, Write), Error> {
        let place = row_key::rewrap_job(tenant.1, key.1);
        let before = self.read_cluster_row::<rows::RewrapJob>(&place).await?;
        let job = rows::RewrapJob {
            rev: before.as_ref().map_or(0, |(_, job)| job.rev) + 1,
            cursor: Vec::new(),
            begun_ms: self.clock.now(),
            moved: 0,
            left: 0,
            tenant: tenant.0.to_string(),
            key: key.0.to_string(),
        };
        let record = self.seal_cluster_row(&place, &job);
        Ok((Precondition::of(place.clone(), before.map(|(record, _)| record)), Write::Put(place, record)))
    }

    /// Makes one step of a job.
    async fn rewrap_step(&self, (tenant_uid, key_uid): (Uid, Uid), known: &mut Known) -> Result<Step, Error> {
        self.check_whole()?;
        let place = row_key::rewrap_job(tenant_uid, key_uid);
        let Some((_, job)) = self.read_cluster_row::<rows::RewrapJob>(&place).await? else { return Ok(DONE) };
        let tenant: TenantName = job.tenant.parse().map_err(|_| Error::Damaged("a tenant name that is none"))?;
        let name: KeyName = job.key.parse().map_err(|_| Error::Damaged("a key name that is none"))?;
        let (entry, turn) = self.cache.take_turn(&tenant).await;
        let step = async {
            // Read again: now nobody changes it.
            let found = self.read_cluster_row::<rows::RewrapJob>(&place).await?;
            let Some((record, job)) = found else { return Ok(DONE) };
            let want = Want { key: &name, purpose: KeyPurpose::Managed, which: Which::Primary };
            let primary = self.enter_in_turn(&entry, &tenant, &[want]).await?;
            if primary.tenant_uid() != tenant_uid || primary.key().uid() != key_uid {
                return Err(Error::Damaged("a job of another key"));
            }
            let held = Held { tenant: &tenant, name: &name, place, record, job, primary };
            self.rewrap_page(&entry, held, known).await
        }
        .await;
        drop(turn);
        self.cache.drop_if_idle(&tenant);
        step
    }

    async fn rewrap_page(
        &self,
        entry: &Arc<super::super::cache::Entry>,
        held: Held<'_>,
        known: &mut Known,
    ) -> Result<Step, Error> {
        let (tenant_uid, to) = (held.primary.tenant_uid(), held.primary.key());
        let key_uid = to.uid();
        if known.rev != held.job.rev {
            let cursor = DekUid::from_slice(&held.job.cursor);
            *known = Known { rev: held.job.rev, cursor, left: held.job.left, ..Known::default() };
        }
        let prefix = row_key::deks(tenant_uid, key_uid);
        let after = known.cursor.map(|uid| row_key::dek(tenant_uid, key_uid, uid).key);
        let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), PAGE_ROWS).await?;
        let looked = page.rows.len();

        let (mut counting, mut batch) = (Counting::of(tenant_uid), Batch::default());
        counting.read(self, key_uid, to.version()).await?;
        // Each old version of the page, if it may be used.
        let mut old: HashMap<KeyVersion, Option<InUse>> = HashMap::new();
        let (mut cursor, mut left, mut moved) = (known.cursor, known.left, 0);
        for (place, record) in page.rows {
            let uid = row_key::parse_dek(&place).ok_or(Error::Damaged("a row among data keys that is none"))?;
            cursor = Some(uid);
            let dek = match DekRow::parse(key_uid, &record) {
                Ok(DekRow::Living(dek)) if dek.version != to.version() => dek,
                Ok(DekRow::Living(_) | DekRow::Destroyed(_)) => continue,
                Err(_) => {
                    tell_of_damage(&uid, "it is none, and cannot be moved");
                    left += 1;
                    continue;
                }
            };
            if let MapEntry::Vacant(unknown) = old.entry(dek.version) {
                let which = Which::Of(Header { kind: Kind::WrappedDek, key_id: key_uid, version: dek.version });
                let want = Want { key: held.name, purpose: KeyPurpose::Managed, which };
                let in_use = match self.enter_in_turn(entry, held.tenant, &[want]).await {
                    Ok(in_use) => Some(in_use),
                    Err(Error::VersionState(_)) => None,
                    Err(Error::Open(_)) => {
                        tell_of_damage(&uid, "it lies under a version that never was");
                        None
                    }
                    Err(error) => return Err(error),
                };
                if in_use.is_some() {
                    counting.read(self, key_uid, dek.version).await?;
                }
                unknown.insert(in_use);
            }
            let Some(from) = old.get(&dek.version).and_then(Option::as_ref).map(InUse::key) else {
                left += 1;
                continue;
            };
            let unwrapped =
                from.kek().unwrap_managed_dek(key_uid, dek.version, held.tenant, &uid, &dek.context, &dek.blob);
            let Ok(unwrapped) = unwrapped else {
                tell_of_damage(&uid, "it does not open, and cannot be moved");
                left += 1;
                continue;
            };
            let blob = to.kek().wrap_managed_dek(
                key_uid,
                to.version(),
                held.tenant,
                &uid,
                &dek.context,
                &unwrapped,
                &*self.rng,
            );
            counting.add(key_uid, dek.version, -1)?;
            counting.add(key_uid, to.version(), 1)?;
            let at = row_key::dek(tenant_uid, key_uid, uid);
            let row = LivingDek { context: dek.context, blob, version: to.version() };
            batch.preconditions.push(Precondition::Equals(at.clone(), record));
            batch.writes.push(Write::Put(at, row.to_bytes()));
            moved += 1;
        }
        let next = rows::RewrapJob {
            rev: held.job.rev + 1,
            cursor: cursor.map(|uid| uid.as_bytes().to_vec()).unwrap_or_default(),
            moved: held.job.moved + moved,
            left,
            ..held.job.clone()
        };
        let mut record = held.record.clone();
        if moved > 0 {
            counting.write(self, &mut batch.preconditions, &mut batch.writes).await?;
            record = self.seal_cluster_row(&held.place, &next);
            batch.preconditions.push(Precondition::Equals(held.place.clone(), held.record.clone()));
            batch.writes.push(Write::Put(held.place.clone(), record.clone()));
            pass(Point::RewrapReady);
            self.commit_or_break(batch).await?;
            pass(Point::RewrapDurable);
            metrics::counter!("kms_rewrapped_total").increment(moved);
            known.rev = next.rev;
        }
        (known.cursor, known.left) = (cursor, left);
        if page.more {
            return Ok(Step { looked, moved, then: Then::On });
        }
        let held = Held { job: next, record, ..held };
        Ok(Step { looked, moved, then: self.end_pass(held, known).await? })
    }

    /// At the end of the rows: the job is done if nothing is left, and begins again later if not.
    async fn end_pass(&self, held: Held<'_>, known: &mut Known) -> Result<Then, Error> {
        let (tenant_uid, to) = (held.primary.tenant_uid(), held.primary.key());
        let left = std::mem::take(&mut known.left);
        known.cursor = None;
        if left > 0 {
            return Ok(Then::Parked);
        }
        let counts = self.deks_of_key(tenant_uid, to.uid()).await?;
        if counts.iter().any(|(version, _)| *version != to.version()) {
            metrics::counter!("kms_store_damage_total").increment(1);
            return Err(Error::Damaged("a version counts managed data keys that are not there"));
        }
        // On record before the job is gone: a crash in between says it twice, never not at all.
        let leaf = Leaf {
            ten: Some(held.tenant.to_string().into()),
            tuid: Some(tenant_uid.to_string().into()),
            kn: Some(held.name.to_string().into()),
            key: Some(to.uid().to_string().into()),
            kv: Some(to.version().get()),
            cnt: Some(held.job.moved),
            ..Leaf::of("RewrapDone")
        };
        let index = self.log.append(Who::service().sign(leaf.ended(Outcome::Ok)))?;
        self.log.durable(index).await?;
        pass(Point::RewrapTold);
        let batch = Batch {
            preconditions: vec![Precondition::Equals(held.place.clone(), held.record)],
            writes: vec![Write::Delete(held.place)],
        };
        self.commit_or_break(batch).await?;
        tracing::info!(tenant = %held.tenant, key = %held.name, moved = held.job.moved, "all managed data keys are moved");
        Ok(Then::Done)
    }
}

/// The job is done, or gone.
const DONE: Step = Step { looked: 0, moved: 0, then: Then::Done };
/// The most rows of a step: the turn is held meanwhile.
const PAGE_ROWS: usize = 250;
const JOBS_PAGE: usize = 256;
const LOOK_EVERY: Duration = Duration::from_secs(5);
const PARKED_MIN: Duration = Duration::from_secs(60);
const PARKED_MAX: Duration = Duration::from_secs(3600);
