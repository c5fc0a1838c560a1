//! What was answered to a change that was made under a request id, so that it can be repeated.
//!
//! The row is written in the batch of the change itself: either both are there or neither. It lies
//! under the day on which it was made, so that what is too old goes by one range a day. It holds
//! names, states and labels, which so outlive a tenant by up to two days; never anything wrapped.
//!
//! **Invariant:** what is looked up here was asked for by the same principal, after policy allowed
//! it (`another_callers_request_id_is_another`).

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use crate::crypto::sha256;
use crate::noun::{TenantName, UnixMillis};
use crate::rows;
use crate::store::{RowKey, Write};

use super::grant::GrantView;
use super::mutation::{Changed, How, Object, Placed, Plan};
use super::terms::{Asked, Etag, RequestId};
use super::view::{KeyView, TenantView, VersionView};
use super::{Change, DestroyedPart, Error, Keyring, Who, row, row_key};

/// For how long a change can be repeated, in milliseconds: 24 hours.
pub const REPEAT_MS_MAX: u64 = DAY_MS;

/// What comes of a change that was asked for.
pub(super) enum Considered {
    /// It is to be made.
    Make(Box<Plan>),
    /// It was made before, or is only to be shown.
    Answer(Box<Changed>),
}

impl Keyring {
    /// Decides what comes of a change, on its terms. The tenant's turn is held.
    pub(super) async fn consider(&self, asked: &Asked) -> Result<Considered, Error> {
        if let Some(answer) = self.answered(asked).await? {
            return Ok(Considered::Answer(Box::new(answer)));
        }
        let plan = self.plan(asked).await?;
        if asked.terms.etag.is_some_and(|etag| plan.before != Some(etag)) {
            return Err(Error::EtagMismatch);
        }
        if !asked.terms.rehearse {
            return Ok(Considered::Make(Box::new(plan)));
        }
        // Nothing of this is written; the object tells what would be.
        let creates = plan.before.is_none();
        let now = self.clock.now();
        let lease_end = plan.lease_ms.map(|lease_ms| now + lease_ms);
        let effect = (plan.effect)(&Placed { intent_index: 0, now });
        Ok(Considered::Answer(Box::new(Changed { object: effect.object, lease_end, how: How::Rehearsed { creates } })))
    }

    /// Returns the answer that this call had before.
    async fn answered(&self, asked: &Asked) -> Result<Option<Changed>, Error> {
        let Some(name) = asked.name() else { return Ok(None) };
        let Some(answer) = self.find_answer(name, &asked.hash()).await? else { return Ok(None) };
        let (object, how) = (object_of(&answer)?, How::Before(answer.intent_index));
        Ok(Some(Changed { object, lease_end: answer.lease_end_ms, how }))
    }

    /// Returns what was answered under a name, if it may still be repeated. Another call is refused.
    pub(super) async fn find_answer(&self, name: [u8; 16], hash: &[u8]) -> Result<Option<rows::Answer>, Error> {
        let now = self.clock.now();
        for day in self.days_of_answers(now).await? {
            let found = self.read_cluster_row::<rows::Answer>(&row_key::answer(day, &name)).await?;
            let Some((_, answer)) = found else { continue };
            if now.saturating_sub(answer.made_ms) >= REPEAT_MS_MAX {
                continue;
            }
            if answer.asked != hash {
                return Err(Error::RequestIdReused);
            }
            return Ok(Some(answer));
        }
        Ok(None)
    }

    /// Returns the days of which there may be answers that can be repeated: mostly two. Which they are
    /// does not follow from the clock alone, which may have been set.
    async fn days_of_answers(&self, now: UnixMillis) -> Result<Vec<u32>, Error> {
        if let Some(days) = self.days_of_answers.not_over(now) {
            return Ok(days);
        }
        let prefix = row_key::answers();
        let mut days = Vec::new();
        let mut after = None;
        while days.len() < DAYS_MAX {
            let page = self.store.list(prefix.family, &prefix.key, after.as_deref(), 1).await?;
            let Some((place, _)) = page.rows.first() else { break };
            let day = row_key::parse_answer_day(place).ok_or(Error::Damaged("a row among the answers that is none"))?;
            days.push(day);
            after = Some(row_key::answer(day, &[0xff; 16]).key);
        }
        self.days_of_answers.were_read(days);
        Ok(self.days_of_answers.not_over(now).unwrap_or_default())
    }

    /// The write that keeps the answer, if the change has an id.
    pub(super) fn answer_write(
        &self,
        asked: &Asked,
        object: &Object,
        lease_end: Option<UnixMillis>,
        placed: &Placed,
    ) -> Option<Write> {
        let answer = rows::Answer { lease_end_ms: lease_end, ..answer_of(asked.hash(), object, placed) };
        Some(self.keep_answer(&asked.name()?, &answer))
    }

    /// The write that keeps an answer under a name.
    pub(super) fn keep_answer(&self, name: &[u8; 16], answer: &rows::Answer) -> Write {
        let day = day_of(answer.made_ms);
        self.days_of_answers.add(day);
        let place = row_key::answer(day, name);
        let record = self.seal_cluster_row(&place, answer);
        Write::Put(place, record)
    }

    /// Returns the rows of the oldest day, if nothing of it can be repeated any more.
    pub(super) async fn outdated_answers(&self) -> Result<Option<RowKey>, Error> {
        let prefix = row_key::answers();
        let page = self.store.list(prefix.family, &prefix.key, None, 1).await?;
        let Some((place, _)) = page.rows.first() else { return Ok(None) };
        let day = row_key::parse_answer_day(place).ok_or(Error::Damaged("a row among the answers that is none"))?;
        Ok((day.saturating_add(1) < day_of(self.clock.now())).then(|| row_key::answers_of_day(day)))
    }
}

impl Asked {
    /// Returns what the answer is found by: of the caller, the operation and the id. None if it has
    /// no id, or changes nothing.
    pub(super) fn name(&self) -> Option<[u8; 16]> {
        let id = self.terms.request_id.as_ref().filter(|_| !self.terms.rehearse)?;
        Some(answer_name(&self.who, self.change.operation(), id, self.change.part()))
    }

    /// Returns a hash of all that was asked for.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut parts = Parts::default();
        parts.add(self.change.operation());
        parts.add_if(self.change.tenant().map(TenantName::to_string));
        parts.add_if(self.terms.etag.map(|etag| etag.to_string()));
        match &self.change {
            Change::CreateTenant { lease_ms, .. } => parts.add_if(lease_ms.map(|ms| ms.to_string())),
            Change::UpdateTenant { lease_ms, .. } => parts.add(&lease_ms.to_string()),
            Change::SuspendTenant { .. } | Change::ResumeTenant { .. } | Change::CancelTenantDestruction { .. } => {}
            Change::DestroyTenant { wait_ms, .. } => parts.add_if(wait_ms.map(|ms| ms.to_string())),
            Change::CreateKey { key, purpose, labels, .. } => {
                parts.add(key.as_str());
                parts.add(&purpose.to_row().to_string());
                parts.add_pairs(labels);
            }
            Change::UpdateKey { key, labels, .. } => {
                parts.add(key.as_str());
                parts.add_pairs(labels);
            }
            Change::RotateKey { key, .. } => parts.add(key.as_str()),
            Change::SetKeyState { key, version, .. } | Change::CancelKeyDestruction { key, version, .. } => {
                parts.add(key.as_str());
                parts.add_if(version.map(|version| version.to_string()));
            }
            Change::ScheduleKeyDestruction { key, version, wait_ms, .. } => {
                parts.add(key.as_str());
                parts.add_if(version.map(|version| version.to_string()));
                parts.add_if(wait_ms.map(|ms| ms.to_string()));
            }
            Change::DestroyDataKeys(keys) => {
                parts.add(keys.key.as_str());
                parts.add_bytes(&keys.call);
            }
            Change::RequestGrant { hash, reason, .. } => {
                parts.add_bytes(&hash.0);
                parts.add(reason);
            }
            Change::ApproveGrant { grant, hash, .. } => {
                parts.add_bytes(grant.as_bytes());
                parts.add_bytes(&hash.0);
            }
            Change::RevokeGrant { grant, .. } => parts.add_bytes(grant.as_bytes()),
            Change::UseGrant { hash } => parts.add_bytes(&hash.0),
            // Nobody asks for these with an id: the service makes them by itself.
            Change::DestroyDueTenant { .. } | Change::DestroyDueKey { .. } | Change::CarryOut { .. } => {}
        }
        parts.hash()
    }
}

/// The days of which there are answers, so that looking for one does not begin with a search of the
/// store. None goes while the process runs: that is a number for each day.
///
/// **Invariant:** all that are in the store are here, perhaps more: one is added before its first row
/// is written (`an_answer_is_found_after_a_restart_and_on_the_day_after`).
#[derive(Default)]
pub(super) struct DaysOfAnswers(Mutex<Days>);

#[derive(Default)]
struct Days {
    were_read: bool,
    days: BTreeSet<u32>,
}

impl DaysOfAnswers {
    fn add(&self, day: u32) {
        self.lock().days.insert(day);
    }

    fn were_read(&self, days: Vec<u32>) {
        let mut known = self.lock();
        known.days.extend(days);
        known.were_read = true;
    }

    /// Returns those of which something can be repeated, once the store was looked at: the day before
    /// and all after it.
    fn not_over(&self, now: UnixMillis) -> Option<Vec<u32>> {
        let known = self.lock();
        known.were_read.then(|| known.days.range(day_of(now).saturating_sub(1)..).copied().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Days> {
        self.0.lock().expect("nothing panics while it holds the days")
    }
}

/// Returns what an answer is found by: of the caller, the operation, the id, and for a call that is
/// carried out in several parts the number of the part.
pub(super) fn answer_name(who: &Who, operation: &str, id: &RequestId, part: u32) -> [u8; 16] {
    let mut parts = Parts::default();
    parts.add(who.sub.as_deref().unwrap_or_default());
    parts.add(operation);
    parts.add(id.as_str());
    if part > 0 {
        parts.add(&part.to_string());
    }
    *parts.hash().first_chunk().expect("16 of 32 bytes")
}

/// Texts one after the other, so that no two lists of them give the same bytes: each is
/// 01 || u32 length || text, one that is absent is 00.
#[derive(Default)]
pub(super) struct Parts(Vec<u8>);

impl Parts {
    pub(super) fn add(&mut self, text: &str) {
        self.add_bytes(text.as_bytes());
    }

    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        self.0.push(1);
        self.0.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn add_absent(&mut self) {
        self.0.push(0);
    }

    fn add_if(&mut self, text: Option<String>) {
        match text {
            Some(text) => self.add(&text),
            None => self.add_absent(),
        }
    }

    fn add_pairs(&mut self, pairs: &super::Labels) {
        for (name, value) in pairs {
            self.add(name);
            self.add(value);
        }
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        sha256(&self.0)
    }
}

fn answer_of(asked: [u8; 32], object: &Object, placed: &Placed) -> rows::Answer {
    let mut answer = rows::Answer {
        rev: 1,
        asked: asked.to_vec(),
        made_ms: placed.now,
        intent_index: placed.intent_index,
        ..rows::Answer::default()
    };
    match object {
        Object::Tenant(tenant) => answer.tenant = Some(tenant.to_answer()),
        Object::Key(key) => answer.key = Some(key.to_answer()),
        Object::DataKeys(part) => answer.gone_data_keys = Some(part.to_answer()),
        Object::Grant(grant) => answer.grant = Some(grant.to_answer()),
        Object::Version(key, version) => {
            answer.key = Some(key.to_answer());
            answer.version = Some(version.to_answer());
        }
    }
    answer
}

pub(super) fn object_of(answer: &rows::Answer) -> Result<Object, Error> {
    if let Some(gone) = &answer.gone_data_keys {
        return DestroyedPart::of_answer(gone).map(Object::DataKeys);
    }
    if let Some(grant) = &answer.grant {
        return GrantView::of_answer(grant).map(Object::Grant);
    }
    match (&answer.tenant, &answer.key, &answer.version) {
        (Some(tenant), None, None) => TenantView::of_answer(tenant).map(Object::Tenant),
        (None, Some(key), None) => KeyView::of_answer(key).map(Object::Key),
        (None, Some(key), Some(version)) => {
            Ok(Object::Version(KeyView::of_answer(key)?, VersionView::of_answer(version)?))
        }
        _ => Err(Error::Damaged("an answer about nothing")),
    }
}

impl TenantView {
    fn to_answer(&self) -> rows::AnsweredTenant {
        rows::AnsweredTenant {
            name: self.name.to_string(),
            uid: self.uid.as_bytes().to_vec(),
            state: self.state.to_row(),
            created_ms: self.created,
            destroy_ms: self.destroy,
            fenced_ms: self.fenced,
            lease_ms: self.lease_ms,
            etag: self.etag.as_bytes().to_vec(),
        }
    }

    fn of_answer(answer: &rows::AnsweredTenant) -> Result<Self, Error> {
        Ok(Self {
            name: answer.name.parse().map_err(|_| Error::Damaged("a tenant name that is none"))?,
            uid: row::uid(&answer.uid)?,
            state: super::TenantState::of_row(answer.state)?,
            created: answer.created_ms,
            destroy: answer.destroy_ms,
            fenced: answer.fenced_ms,
            lease_ms: answer.lease_ms,
            etag: etag(&answer.etag)?,
        })
    }
}

impl KeyView {
    fn to_answer(&self) -> rows::AnsweredKey {
        let key = rows::Key {
            rev: 0,
            uid: self.uid.as_bytes().to_vec(),
            name: self.name.to_string(),
            purpose: self.purpose.to_row(),
            state: self.state.to_row(),
            primary: self.primary.get(),
            created_ms: self.created,
            updated_ms: self.updated,
            destroy_ms: self.destroy,
            labels: super::create_key::label_rows(&self.labels),
        };
        rows::AnsweredKey { tenant: self.tenant.to_string(), key: Some(key), etag: self.etag.as_bytes().to_vec() }
    }

    fn of_answer(answer: &rows::AnsweredKey) -> Result<Self, Error> {
        let tenant = answer.tenant.parse().map_err(|_| Error::Damaged("a tenant name that is none"))?;
        let key = answer.key.as_ref().ok_or(Error::Damaged("an answer about nothing"))?;
        Self::of_row(&tenant, key, etag(&answer.etag)?)
    }
}

impl VersionView {
    fn to_answer(self) -> rows::AnsweredVersion {
        rows::AnsweredVersion {
            version: self.version.get(),
            state: self.state.to_row(),
            created_ms: self.created,
            destroy_ms: self.destroy,
            etag: self.etag.as_bytes().to_vec(),
        }
    }

    fn of_answer(answer: &rows::AnsweredVersion) -> Result<Self, Error> {
        Ok(Self {
            version: row::version(answer.version)?,
            state: super::KeyState::of_row(answer.state)?,
            created: answer.created_ms,
            destroy: answer.destroy_ms,
            data_keys: None,
            etag: etag(&answer.etag)?,
        })
    }
}

fn etag(bytes: &[u8]) -> Result<Etag, Error> {
    Etag::from_slice(bytes).ok_or(Error::Damaged("an etag that has not 16 bytes"))
}

fn day_of(now: UnixMillis) -> u32 {
    u32::try_from(now / DAY_MS).unwrap_or(u32::MAX - 1)
}

/// More days than this come only of a clock that was set again and again.
const DAYS_MAX: usize = 16;
const DAY_MS: u64 = 24 * 3600 * 1000;
