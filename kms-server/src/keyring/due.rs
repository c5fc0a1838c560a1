//! Destroys what is due: reads the dates that wait, and fires those that have come.
//!
//! A date fires only after the clock has run for an hour without a step, so that a clock set
//! forward by mistake destroys nothing; and not at all in a run that began more than a day after
//! the log's last record, until it is restarted: a clock far ahead looks just like that.
//!
//! **Invariant:** nothing here ends a waiting time early (`a_clock_that_jumps_destroys_nothing`).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

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
    /// The log's last record lies too far back: no date fires in this run.
    held: bool,
}

impl ClockGuard {
    /// Begins to watch. `last_record` is when the log was written to before this start.
    pub fn new(clock: &dyn Clock, last_record: Option<UnixMillis>) -> Self {
        let held = last_record.is_some_and(|last| clock.now() > last + DOWN_MS_MAX);
        if held {
            tracing::warn!(
                "the clock is more than a day past the last audit record: no scheduled destruction is carried out in this run; check the clock and restart"
            );
        }
        Self { offset: offset(clock), steady_since: clock.since_boot(), held }
    }

    /// Looks at the clock, and answers whether dates may fire.
    pub fn is_steady(&mut self, clock: &dyn Clock) -> bool {
        let now = offset(clock);
        if now.abs_diff(self.offset) > STEP_MS_MAX {
            tracing::warn!("the clock stepped: scheduled destructions wait for an hour without a step");
            self.offset = now;
            self.steady_since = clock.since_boot();
        }
        !self.held && clock.since_boot().saturating_sub(self.steady_since) >= STEADY_TIME_MIN
    }
}

fn offset(clock: &dyn Clock) -> i128 {
    i128::from(clock.now()) - i128::try_from(clock.since_boot().as_millis()).unwrap_or(i128::MAX)
}

impl Keyring {
    /// Looks for due destructions every minute, until `stop`.
    pub async fn run_due(self: Arc<Self>, last_record: Option<UnixMillis>, stop: CancellationToken) {
        let mut guard = ClockGuard::new(&*self.clock, last_record);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // The time is taken before the look: a step after it changes nothing.
            let by = self.clock.now();
            if guard.is_steady(&*self.clock)
                && let Err(error) = self.destroy_due(by).await
            {
                tracing::error!(%error, "due destructions could not be carried out; they are tried again in a minute");
            }
        }
    }

    /// Destroys everything whose date has come by then, and returns how many that were.
    pub async fn destroy_due(&self, by: UnixMillis) -> Result<usize, Error> {
        let prefix = row_key::schedules();
        let (mut after, mut destroyed) = (None, 0);
        loop {
            let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), PAGE).await?;
            for (place, _) in &page.rows {
                let target =
                    row_key::parse_schedule(place).ok_or(Error::Damaged("a row among the dates that is none"))?;
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
        self.change(change, Terms::default(), Who::service()).await?;
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
const DOWN_MS_MAX: u64 = 24 * 3600 * 1000;
const PAGE: usize = 256;
