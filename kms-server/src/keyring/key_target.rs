//! A key, or one version of it, that is to be changed: its rows as they are, and its rows anew.

use crate::audit::Leaf;
use crate::noun::{KeyName, KeyVersion};
use crate::rows;
use crate::store::{Precondition, Write};

use super::create_key::key_leaf;
use super::load::OpenTenant;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::row_key::ScheduleTarget;
use super::state::KeyState;
use super::terms::Etag;
use super::view::{KeyView, VersionView};
use super::{Error, Keyring, row, row_key};

/// What is to be changed, with all that was read of it.
pub(super) struct KeyTarget {
    pub(super) tenant: OpenTenant,
    pub(super) view: KeyView,
    /// The key's row, and its record as stored.
    pub(super) row: rows::Key,
    pub(super) record: Vec<u8>,
    /// The version, where just one is meant.
    pub(super) version: Option<VersionTarget>,
}

/// One version, with its row and its record as stored; without one it is to be stored anew.
pub(super) struct VersionTarget {
    pub(super) number: KeyVersion,
    pub(super) row: rows::KeyVersion,
    pub(super) record: Option<Vec<u8>>,
}

impl Keyring {
    /// Reads the key, and the version if one is meant.
    pub(super) async fn key_target(
        &self,
        tenant: OpenTenant,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<KeyTarget, Error> {
        let (record, row) = self.read_key(&tenant.record_mac, tenant.uid, name).await?;
        let view = KeyView::of_row(tenant.name(), &row, Etag::of(&record))?;
        let version = match version {
            None => None,
            Some(number) => {
                let found = self.read_version(&tenant.record_mac, tenant.uid, view.uid, number).await?;
                let (record, row) = found.ok_or(Error::VersionNotFound)?;
                Some(VersionTarget { number, row, record: Some(record) })
            }
        };
        Ok(KeyTarget { tenant, view, row, record, version })
    }
}

impl KeyTarget {
    pub(super) fn number(&self) -> Option<KeyVersion> {
        self.version.as_ref().map(|version| version.number)
    }

    /// Begins the leaf of its change.
    pub(super) fn leaf(&self, op: &'static str) -> Leaf {
        key_leaf(op, self.tenant.name(), &self.tenant, &self.view.name, self.view.uid, self.number())
    }

    /// Returns the state of what is meant.
    pub(super) fn state(&self) -> Result<KeyState, Error> {
        match &self.version {
            None => Ok(self.view.state),
            Some(version) => KeyState::of_row(version.row.state),
        }
    }

    /// Returns the etag of what is meant.
    pub(super) fn etag(&self) -> Etag {
        match &self.version {
            None => self.view.etag,
            Some(version) => Etag::of(version.record.as_deref().unwrap_or_default()),
        }
    }

    /// Returns its date, while it waits for one.
    pub(super) fn destroy_ms(&self) -> Option<u64> {
        self.version.as_ref().map_or(self.row.destroy_ms, |version| version.row.destroy_ms)
    }

    /// Says where its date lies.
    pub(super) fn schedule(&self) -> ScheduleTarget {
        let (tenant, key) = (self.tenant.uid, self.view.uid);
        self.number().map_or(ScheduleTarget::Key(tenant, key), |number| ScheduleTarget::KeyVersion(tenant, key, number))
    }

    /// Says that it cannot go there: what is destroyed says so, all else what the state tables say.
    pub(super) fn transition(&self, to: KeyState) -> Result<Error, Error> {
        let from = self.state()?;
        Ok(match (&self.version, from) {
            (None, KeyState::Destroyed) => Error::KeyState(from),
            (Some(_), KeyState::Destroyed) => Error::VersionState(from),
            (None, _) => Error::Transition { what: "a key", from: from.as_str(), to: to.as_str() },
            (Some(_), _) => Error::Transition { what: "a key version", from: from.as_str(), to: to.as_str() },
        })
    }

    /// Refuses unless it is in just that state, from which it may go to the other.
    pub(super) fn must_be(&self, from: KeyState, to: KeyState) -> Result<(), Error> {
        if self.state()? != from || from.to(to).is_err() { Err(self.transition(to)?) } else { Ok(()) }
    }

    /// Plans to write what is meant anew, in a state.
    pub(super) fn plan_state(
        mut self,
        intent: Leaf,
        to: KeyState,
        destroy_ms: Option<u64>,
        writes: Vec<Write>,
    ) -> Result<Plan, Error> {
        match self.version.take() {
            None => {
                self.row = rows::Key { state: to.to_row(), destroy_ms, ..self.row };
                Ok(self.plan_key(intent, writes))
            }
            Some(version) => {
                let row = rows::KeyVersion { rev: version.row.rev + 1, state: to.to_row(), destroy_ms, ..version.row };
                self.plan_version(intent, VersionTarget { row, ..version }, writes)
            }
        }
    }

    /// Plans to write the key's row anew, as it stands here now, with what else belongs to it.
    pub(super) fn plan_key(self, intent: Leaf, mut writes: Vec<Write>) -> Plan {
        let Self { tenant, view, row: key, record: before, .. } = self;
        let at = row_key::key(tenant.uid, view.uid);
        let etag = view.etag;
        let effect = move |placed: &Placed| {
            let next = rows::Key { rev: key.rev + 1, updated_ms: placed.now, ..key };
            let record = row::seal(&tenant.record_mac, tenant.version, &at, &next);
            let next =
                KeyView::of_row(tenant.name(), &next, Etag::of(&record)).expect("the row was read as a key before");
            writes.push(Write::Put(at.clone(), record.clone()));
            Effect {
                preconditions: vec![Precondition::Equals(at, before)],
                writes,
                main_row: record,
                after: After::ForgetKey(view.name),
                object: Object::Key(next),
            }
        };
        Plan { intent, before: Some(etag), lease_ms: None, effect: Box::new(effect) }
    }

    fn plan_version(self, intent: Leaf, version: VersionTarget, mut writes: Vec<Write>) -> Result<Plan, Error> {
        let Self { tenant, view: key, .. } = self;
        let VersionTarget { number, row, record: before } = version;
        let at = row_key::key_version(tenant.uid, key.uid, number);
        let record = row::seal(&tenant.record_mac, tenant.version, &at, &row);
        let etag = before.as_deref().map(Etag::of);
        let view = VersionView::of_row(&row, Etag::of(&record))?;
        writes.push(Write::Put(at.clone(), record.clone()));
        let effect = move |_: &Placed| Effect {
            preconditions: vec![Precondition::of(at, before)],
            writes,
            main_row: record,
            after: After::ForgetKey(key.name.clone()),
            object: Object::Version(key, view),
        };
        Ok(Plan { intent, before: etag, lease_ms: None, effect: Box::new(effect) })
    }
}
