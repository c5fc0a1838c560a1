//! What a tenant looks like after each step: pure, and much simpler than the service.

use std::collections::BTreeMap;

use kms_proto::v1::{KeyState, TenantState};
use kms_tests::Random;

/// A tenant as its states tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tenant {
    pub state: TenantState,
    /// Nothing of it is told any more once it is destroyed.
    pub keys: BTreeMap<String, Key>,
}

/// A key; version `n` is at place `n - 1`, and the last one seals.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    pub state: KeyState,
    pub versions: Vec<KeyState>,
}

/// The name of a tenant's one key for managed data keys.
pub const MANAGED: &str = "m";

/// A change. Keys by name, versions by number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    CreateTenant,
    Suspend,
    Resume,
    DestroyTenant,
    ScheduleTenant,
    CancelTenant,
    CreateKey(String),
    CreateManaged,
    Rotate(String),
    Enable(String, Option<u32>),
    Disable(String, Option<u32>),
    Destroy(String, Option<u32>),
    Schedule(String, Option<u32>),
    Cancel(String, Option<u32>),
}

impl Step {
    /// Whether nobody may be inside while it is made.
    pub fn closes_gate(&self) -> bool {
        !matches!(self, Step::CreateTenant | Step::CreateKey(_) | Step::CreateManaged | Step::Rotate(_))
    }
}

impl Tenant {
    /// Returns whether what this version sealed opens.
    pub fn opens(&self, key: &str, version: u32) -> bool {
        let key = self.keys.get(key);
        let version_opens =
            |key: &Key| key.versions.get(version as usize - 1).is_some_and(|state| *state == KeyState::Enabled);
        self.state == TenantState::Active && key.is_some_and(|key| key.state == KeyState::Enabled && version_opens(key))
    }

    /// Returns whether there is, or was, this version of a key.
    pub fn has(&self, key: &str, version: u32) -> bool {
        let has_version = |key: &Key| key.versions.len() >= version as usize;
        self.state == TenantState::Fenced || self.keys.get(key).is_some_and(has_version)
    }

    /// Returns the keys that seal.
    pub fn sealing(&self) -> Vec<String> {
        let seals = |name: &&String| self.opens(name, self.keys[*name].versions.len() as u32);
        self.keys.keys().filter(|name| *name != MANAGED).filter(seals).cloned().collect()
    }

    /// Returns whether managed data keys may be there, used or not.
    pub fn has_data_keys(&self) -> bool {
        self.keys.get(MANAGED).is_some_and(|key| key.state != KeyState::Destroyed)
    }

    /// Returns whether managed data keys are made and given out.
    pub fn gives_data_keys(&self) -> bool {
        // Its versions are all enabled: no step disables one.
        self.opens(MANAGED, 1)
    }

    /// Returns every step that may be taken.
    pub fn steps(&self) -> Vec<Step> {
        match self.state {
            TenantState::Active => {}
            TenantState::Suspended => {
                return vec![Step::Resume, Step::Resume, Step::DestroyTenant, Step::ScheduleTenant];
            }
            TenantState::PendingDestruction => return vec![Step::CancelTenant],
            _ => return Vec::new(),
        }
        let mut steps = vec![Step::Suspend, Step::DestroyTenant, Step::ScheduleTenant];
        if !self.keys.contains_key(MANAGED) {
            steps.extend([Step::CreateManaged, Step::CreateManaged, Step::CreateManaged]);
        }
        let others = self.keys.keys().filter(|name| *name != MANAGED).count();
        if others < KEYS_MAX {
            let name = format!("k{others}");
            steps.extend([Step::CreateKey(name.clone()), Step::CreateKey(name)]);
        }
        for (name, key) in &self.keys {
            steps.extend(steps_of(name, None, key.state, false));
            if key.state == KeyState::Enabled && key.versions.len() < VERSIONS_MAX {
                steps.extend([Step::Rotate(name.clone()), Step::Rotate(name.clone())]);
            }
            // Whether a version of it may go depends on how far its data keys are moved.
            if name == MANAGED {
                continue;
            }
            for (number, state) in (1..).zip(&key.versions) {
                let is_primary = number as usize == key.versions.len();
                if key.state != KeyState::Destroyed {
                    steps.extend(steps_of(name, Some(number), *state, is_primary));
                }
            }
        }
        steps
    }

    /// Returns what the tenant is after a step that may be taken.
    pub fn after(before: Option<&Self>, step: &Step) -> Self {
        let Some(tenant) = before else {
            return Self { state: TenantState::Active, keys: BTreeMap::new() };
        };
        let mut next = tenant.clone();
        match step {
            Step::CreateTenant | Step::Resume => next.state = TenantState::Active,
            Step::Suspend | Step::CancelTenant => next.state = TenantState::Suspended,
            Step::DestroyTenant => next = Self { state: TenantState::Fenced, keys: BTreeMap::new() },
            Step::ScheduleTenant => next.state = TenantState::PendingDestruction,
            Step::CreateKey(name) => {
                next.keys.insert(name.clone(), Key { state: KeyState::Enabled, versions: vec![KeyState::Enabled] });
            }
            Step::CreateManaged => next = next.with_managed(),
            Step::Rotate(name) => next.key(name).versions.push(KeyState::Enabled),
            Step::Enable(name, version) => next.set(name, *version, KeyState::Enabled),
            Step::Disable(name, version) | Step::Cancel(name, version) => next.set(name, *version, KeyState::Disabled),
            Step::Schedule(name, version) => next.set(name, *version, KeyState::PendingDestruction),
            Step::Destroy(name, version) => {
                next.set(name, *version, KeyState::Destroyed);
                if version.is_none() {
                    next.key(name).versions.fill(KeyState::Destroyed);
                }
            }
        }
        next
    }

    fn with_managed(mut self) -> Self {
        let key = Key { state: KeyState::Enabled, versions: vec![KeyState::Enabled] };
        self.keys.insert(MANAGED.to_owned(), key);
        self
    }

    fn key(&mut self, name: &str) -> &mut Key {
        self.keys.get_mut(name).expect("a step is taken only on keys that are there")
    }

    fn set(&mut self, name: &str, version: Option<u32>, state: KeyState) {
        let key = self.key(name);
        match version {
            None => key.state = state,
            Some(number) => key.versions[number as usize - 1] = state,
        }
    }
}

fn steps_of(name: &str, version: Option<u32>, state: KeyState, is_primary: bool) -> Vec<Step> {
    let name = || name.to_owned();
    let mut steps = match state {
        KeyState::Enabled => vec![Step::Disable(name(), version)],
        KeyState::Disabled => vec![Step::Enable(name(), version), Step::Enable(name(), version)],
        KeyState::PendingDestruction => return vec![Step::Cancel(name(), version)],
        KeyState::Destroyed | KeyState::Unspecified => return Vec::new(),
    };
    if !is_primary {
        steps.extend([Step::Destroy(name(), version), Step::Schedule(name(), version)]);
    }
    steps
}

/// Chooses a step of a kind, or nothing if there is none.
pub fn choose(random: &mut Random, steps: &[Step], is_wanted: impl Fn(&Step) -> bool) -> Option<Step> {
    let wanted: Vec<&Step> = steps.iter().filter(|step| is_wanted(step)).collect();
    random.one_of(&wanted).map(|step| (*step).clone())
}

const KEYS_MAX: usize = 3;
const VERSIONS_MAX: usize = 5;
