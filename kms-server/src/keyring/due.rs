//! Destroys what is due: reads the dates that wait, and fires those that have come.
//!
//! A date fires only after the clock has run for an hour without a step, so that a clock set
//! forward by mistake destroys nothing; and for a day, if it is more than a day past the log's last
//! record at a start, or stepped by more than that: then people have a day to look at it. The log
//! tells of that, so that a restart does not end it.
//!
//! **Invariant:** nothing here ends a waiting time early (`a_clock_that_jumps_destroys_nothing`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::audit::{Leaf, Outcome};
use crate::kill_point::{Point, pass};
use crate::noun::{Clock, TenantName, UnixMillis};
use crate::rows;

use super::row_key::ScheduleTarget;
use super::{Change, Error, Keyring, Terms, Who, row_key};

/// Whether the clock may be believed about dates.
#[derive(Debug)]
pub struct ClockGuard {
    /// Wall clock less time since boot, when it last stepped.
    offset: i128,
    /// Time since boot when it last stepped.
    steady_since: Duration,
    /// It lies so far from where it was that an hour proves nothing.
    held: bool,
}

/// What a look at the clock found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Clocked {
    /// Dates may fire.
    Steady,
    /// Not yet.
    Waiting,
    /// Not for a day, since now.
    Held,
    /// Dates may fire again, since now.
    Trusted,
}

/// Tells whether the clock is so far past the log's last record that it may be wrong.
pub(super) fn is_far_past(now: UnixMillis, last_record: Option<UnixMillis>) -> bool {
    last_record.is_some_and(|last| now > last + FAR_MS)
}

impl ClockGuard {
    /// Begins to watch a clock, which may be held from the start.
    pub fn new(clock: &dyn Clock, held: bool) -> Self {
        Self { offset: offset(clock), steady_since: clock.since_boot(), held }
    }

    /// Looks at the clock, and answers whether dates may fire.
    pub fn look(&mut self, clock: &dyn Clock) -> Clocked {
        let now = offset(clock);
        let step = now.abs_diff(self.offset);
        if step > STEP_MS_MAX {
            tracing::warn!("the clock stepped: scheduled destructions wait for an hour without a step");
            self.offset = now;
            self.steady_since = clock.since_boot();
            if step > u128::from(FAR_MS) && !std::mem::replace(&mut self.held, true) {
                return Clocked::Held;
            }
        }
        let needed = if self.held { HELD_TIME } else { STEADY_TIME_MIN };
        if clock.since_boot().saturating_sub(self.steady_since) < needed {
            return Clocked::Waiting;
        }
        if std::mem::replace(&mut self.held, false) { Clocked::Trusted } else { Clocked::Steady }
    }
}

fn offset(clock: &dyn Clock) -> i128 {
    i128::from(clock.now()) - i128::try_from(clock.since_boot().as_millis()).unwrap_or(i128::MAX)
}

impl Keyring {
    /// Looks for due destructions every minute, until `stop`.
    pub async fn run_due(self: Arc<Self>, clock_held: bool, stop: CancellationToken) {
        let mut guard = ClockGuard::new(&*self.clock, clock_held);
        let mut untold = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // The time is taken before the look: a step after it changes nothing.
            let by = self.clock.now();
            let clocked = guard.look(&*self.clock);
            match clocked {
                Clocked::Held => untold = Some(CLOCK_HELD),
                Clocked::Trusted => untold = Some(CLOCK_TRUSTED),
                Clocked::Waiting | Clocked::Steady => {}
            }
            // What a restart must know is in the log before anything follows from it.
            if let Some(op) = untold {
                if self.tell_of_clock(op).await.is_err() {
                    continue;
                }
                untold = None;
            }
            if matches!(clocked, Clocked::Held | Clocked::Waiting) {
                continue;
            }
            if let Err(error) = self.destroy_due(by).await {
                tracing::error!(%error, "due destructions could not be carried out; they are tried again in a minute");
            }
        }
    }

    /// Says in the log, durably, whether dates wait for a day.
    pub(super) async fn tell_of_clock(&self, op: &'static str) -> Result<(), Error> {
        let is_held = op == CLOCK_HELD;
        if is_held {
            tracing::warn!("{HELD_MESSAGE}");
            self.clock_held.store(true, Ordering::Release);
        }
        let index = self.log.append(Leaf::of(op).ended(Outcome::Ok))?;
        self.log.durable(index).await?;
        // Only what is on record ends it: the store's position may say so from now on.
        self.clock_held.store(is_held, Ordering::Release);
        Ok(())
    }

    /// Destroys everything whose date has come by then, and returns how many that were.
    pub async fn destroy_due(&self, by: UnixMillis) -> Result<usize, Error> {
        let prefix = row_key::schedules();
        let (mut after, mut destroyed) = (None, 0);
        loop {
            let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), PAGE).await?;
            for (place, _) in &page.rows {
                let Some(target) = row_key::parse_schedule(place) else {
                    tracing::error!("a row among the dates is none");
                    continue;
                };
                match self.destroy_if_due(target, by).await {
                    Ok(true) => destroyed += 1,
                    Ok(false) => {}
                    // One bad date must not keep the others from coming.
                    Err(error) => tracing::error!(%error, ?target, "a due destruction was not carried out"),
                }
            }
            match page.rows.last() {
                Some((place, _)) if page.more => after = Some(place.clone()),
                Some(_) | None => return Ok(destroyed),
            }
        }
    }

    async fn destroy_if_due(&self, target: ScheduleTarget, by: UnixMillis) -> Result<bool, Error> {
        let Some((_, schedule)) = self.read_cluster_row::<rows::Schedule>(&row_key::schedule(target)).await? else {
            return Ok(false);
        };
        if schedule.due_ms > by {
            return Ok(false);
        }
        let (ScheduleTarget::Tenant(tenant)
        | ScheduleTarget::Key(tenant, _)
        | ScheduleTarget::KeyVersion(tenant, _, _)) = target;
        let Some(name) = self.tenant_name_of(tenant).await? else { return Ok(false) };
        let change = match target {
            ScheduleTarget::Tenant(_) => Change::DestroyDueTenant { tenant: name, by },
            ScheduleTarget::Key(_, key) => {
                Change::DestroyDueKey { key: self.key_name_of(&name, key).await?, tenant: name, version: None, by }
            }
            ScheduleTarget::KeyVersion(_, key, version) => Change::DestroyDueKey {
                key: self.key_name_of(&name, key).await?,
                tenant: name,
                version: Some(version),
                by,
            },
        };
        pass(Point::DueFound);
        self.change(change, Terms::default(), Who::service()).await?;
        pass(Point::DueDone);
        Ok(true)
    }

    async fn tenant_name_of(&self, uid: crate::noun::Uid) -> Result<Option<TenantName>, Error> {
        let Some(record) = self.store.get(&row_key::tenant(uid)).await? else { return Ok(None) };
        // Not verified here: it only says where to look, and what is found there is.
        let tenant: rows::Tenant = super::row::peek(&record)?;
        tenant.name.parse().map(Some).map_err(|_| Error::Damaged("a tenant name that is none"))
    }

    async fn key_name_of(&self, tenant: &TenantName, key: crate::noun::Uid) -> Result<crate::noun::KeyName, Error> {
        let opened = self.open_tenant(tenant).await?;
        let (_, row) = self.read_key_by_uid(&opened.record_mac, opened.uid, key).await?;
        row.name.parse().map_err(|_| Error::Damaged("a key name that is none"))
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(60);
const STEADY_TIME_MIN: Duration = Duration::from_secs(3600);
const STEP_MS_MAX: u128 = 60_000;
const FAR_MS: u64 = 24 * 3600 * 1000;
const HELD_TIME: Duration = Duration::from_secs(24 * 3600);

/// What the log says when dates begin to wait for a day, and when they no longer do.
pub(super) const CLOCK_HELD: &str = "ClockHeld";
pub(super) const CLOCK_TRUSTED: &str = "ClockTrusted";
/// What people are told of it.
pub const HELD_MESSAGE: &str = "the clock is more than a day from where it was: scheduled destructions wait until it has run for a day without a step; check it";
const PAGE: usize = 256;
