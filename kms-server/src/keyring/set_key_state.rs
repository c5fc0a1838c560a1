//! Enables and disables a key or one of its versions.

use crate::audit::Leaf;
use crate::noun::{KeyName, KeyVersion, TenantName, Uid};
use crate::rows;
use crate::store::{Precondition, Write};

use super::create_key::key_leaf;
use super::load::OpenTenant;
use super::mutation::{After, Effect, Object, Placed, Plan};
use super::state::KeyState;
use super::view::{KeyView, VersionView};
use super::{Error, Keyring, row, row_key};

impl Keyring {
    pub(super) async fn plan_key_state(
        &self,
        tenant_name: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
        enabled: bool,
    ) -> Result<Plan, Error> {
        let (op, to, from) = if enabled {
            ("EnableKey", KeyState::Enabled, KeyState::Disabled)
        } else {
            ("DisableKey", KeyState::Disabled, KeyState::Enabled)
        };
        let tenant = self.open_tenant_for_change(tenant_name).await?;
        let target = self.key_target(&tenant, tenant_name, name, version).await?;
        target.must_be(from, to)?;
        let intent = key_leaf(op, tenant_name, &tenant, name, target.uid(), version);
        target.plan_state(intent, tenant_name, name, tenant, to, None, Vec::new())
    }

    /// Reads the key, and the version if one is meant.
    pub(super) async fn key_target(
        &self,
        tenant: &OpenTenant,
        tenant_name: &TenantName,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<KeyTarget, Error> {
        let (record, row) = self.read_key(&tenant.record_mac, tenant.uid, name).await?;
        let view = KeyView::of_row(tenant_name, &row)?;
        let Some(version) = version else { return Ok(KeyTarget { view, record, row, version: None }) };
        let (record_of_version, row_of_version) = self
            .read_version(&tenant.record_mac, tenant.uid, view.uid, version)
            .await?
            .ok_or(Error::VersionNotFound)?;
        Ok(KeyTarget { view, record, row, version: Some((version, record_of_version, row_of_version)) })
    }
}

/// A key, or one version of it, that is to be changed.
pub(super) struct KeyTarget {
    pub(super) view: KeyView,
    pub(super) record: Vec<u8>,
    pub(super) row: rows::Key,
    pub(super) version: Option<(KeyVersion, Vec<u8>, rows::KeyVersion)>,
}

impl KeyTarget {
    pub(super) fn uid(&self) -> Uid {
        self.view.uid
    }

    /// Returns the state of what is meant.
    pub(super) fn state(&self) -> Result<KeyState, Error> {
        match &self.version {
            None => Ok(self.view.state),
            Some((_, _, row)) => KeyState::of_row(row.state),
        }
    }

    pub(super) fn destroy_ms(&self) -> Option<u64> {
        self.version.as_ref().map_or(self.row.destroy_ms, |(_, _, row)| row.destroy_ms)
    }

    /// Says that it cannot go there: what is destroyed says so, all else what the state tables call it.
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
        self,
        intent: Leaf,
        tenant_name: &TenantName,
        name: &KeyName,
        tenant: OpenTenant,
        to: KeyState,
        destroy_ms: Option<u64>,
        writes: Vec<Write>,
    ) -> Result<Plan, Error> {
        match self.version {
            None => {
                let row = rows::Key { state: to.to_row(), destroy_ms, ..self.row };
                plan_key_row(intent, tenant_name, name, tenant, self.record, row, writes)
            }
            Some((version, record, row)) => {
                let row = rows::KeyVersion { rev: row.rev + 1, state: to.to_row(), destroy_ms, ..row };
                plan_version_row(intent, name, tenant, self.view, version, record, row, writes)
            }
        }
    }
}

/// Plans to write a key's row anew, with what else belongs to it.
pub(super) fn plan_key_row(
    intent: Leaf,
    tenant_name: &TenantName,
    name: &KeyName,
    tenant: OpenTenant,
    before: Vec<u8>,
    key: rows::Key,
    mut writes: Vec<Write>,
) -> Result<Plan, Error> {
    let at = row_key::key(tenant.uid, row::uid(&key.uid)?);
    let (tenant_name, name) = (tenant_name.clone(), name.clone());
    let effect = move |placed: &Placed| {
        let next = rows::Key { rev: key.rev + 1, updated_ms: placed.now, ..key };
        let record = row::seal(&tenant.record_mac, tenant.version, &at, &next);
        let view = KeyView::of_row(&tenant_name, &next).expect("the row was read as a key before");
        writes.push(Write::Put(at.clone(), record.clone()));
        Effect {
            preconditions: vec![Precondition::Equals(at, before)],
            writes,
            outcome: Leaf::default(),
            main_row: record,
            is_destruction: false,
            after: After::ForgetKey(name),
            object: Object::Key(view),
        }
    };
    Ok(Plan { intent, effect: Box::new(effect) })
}

#[allow(clippy::too_many_arguments)] // Each is a part of one row and its place.
fn plan_version_row(
    intent: Leaf,
    name: &KeyName,
    tenant: OpenTenant,
    key: KeyView,
    version: KeyVersion,
    before: Vec<u8>,
    row: rows::KeyVersion,
    mut writes: Vec<Write>,
) -> Result<Plan, Error> {
    let at = row_key::key_version(tenant.uid, key.uid, version);
    let record = row::seal(&tenant.record_mac, tenant.version, &at, &row);
    let view = VersionView::of_row(&row)?;
    let name = name.clone();
    writes.push(Write::Put(at.clone(), record.clone()));
    let effect = move |_: &Placed| Effect {
        preconditions: vec![Precondition::Equals(at, before)],
        writes,
        outcome: Leaf::default(),
        main_row: record,
        is_destruction: false,
        after: After::ForgetKey(name),
        object: Object::Version(key, view),
    };
    Ok(Plan { intent, effect: Box::new(effect) })
}
