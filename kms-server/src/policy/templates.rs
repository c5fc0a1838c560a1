//! The permission templates: parsed, validated against the schema, linked per binding.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::LazyLock;

use cedar_policy::{
    ActionConstraint, Effect, EntityUid, PolicyId, PolicySet, PolicySetError, Schema, SlotId, Template, ValidationMode,
    Validator,
};

use super::role::Role;
use super::{Action, PolicyError, Resource};

/// At which level of the tree of resources a template permits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Level {
    Cluster,
    Tenants,
    Keys,
    Indexes,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Tenants, Self::Keys, Self::Indexes];

    /// Returns the level of a resource.
    pub const fn of(resource: &Resource) -> Self {
        match resource {
            Resource::Cluster => Self::Cluster,
            Resource::Tenant(_) => Self::Tenants,
            Resource::Key(..) => Self::Keys,
            Resource::Index(..) => Self::Indexes,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Tenants => "tenants",
            Self::Keys => "keys",
            Self::Indexes => "indexes",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a binding covers at each level, as the entity that goes into `?resource`.
pub(super) struct Scopes {
    pub cluster: Option<EntityUid>,
    pub tenants: Option<EntityUid>,
    pub keys: Option<EntityUid>,
    pub indexes: Option<EntityUid>,
}

impl Scopes {
    pub fn at(&self, level: Level) -> Option<&EntityUid> {
        match level {
            Level::Cluster => self.cluster.as_ref(),
            Level::Tenants => self.tenants.as_ref(),
            Level::Keys => self.keys.as_ref(),
            Level::Indexes => self.indexes.as_ref(),
        }
    }
}

/// All templates of a binding at one level that may permit the same actions, linked for one
/// principal or group. Each scope of a policy that Cedar looks at costs: so it gets these only.
pub(super) struct Link {
    level: Level,
    /// A bit for each of the actions.
    actions: u64,
    pub policies: PolicySet,
}

impl Link {
    /// Tells whether these are the policies with this action, at this level, in their scope. On
    /// all others Cedar would say nothing.
    pub fn is_about(&self, action: Action, level: Level) -> bool {
        self.level == level && self.actions & action_bit(action) != 0
    }
}

/// Returns the bit of an action in a set of them.
pub(super) const fn action_bit(action: Action) -> u64 {
    1 << action as u64
}

const _: () = assert!(Action::ALL.len() <= 64, "there is a bit for each action");

/// Returns a bit for each action in the scope of a template.
fn actions(template: &Template) -> u64 {
    let bits = |uids: &[EntityUid]| {
        let named = |action: &&Action| uids.iter().any(|uid| uid.id().unescaped() == action.as_str());
        Action::ALL.iter().filter(named).fold(0, |bits, &action| bits | action_bit(action))
    };
    match template.action_constraint() {
        ActionConstraint::Any => u64::MAX,
        ActionConstraint::In(uids) => bits(&uids),
        ActionConstraint::Eq(uid) => bits(&[uid]),
    }
}

/// The text of the templates that we ship.
pub(super) const TEMPLATES: &str = include_str!("templates.cedar");

/// The templates of all roles.
pub(super) struct Templates(BTreeMap<(Role, Level), Template>);

impl Templates {
    /// Returns the templates that we ship. They are read once: that costs a thousand times as much as a small file.
    pub fn shipped() -> Result<&'static Self, PolicyError> {
        static SHIPPED: LazyLock<Result<Templates, String>> =
            LazyLock::new(|| Templates::validated(TEMPLATES, include_str!("schema.cedarschema")));
        SHIPPED.as_ref().map_err(|error| PolicyError::Templates(error.clone()))
    }

    fn validated(templates: &str, schema: &str) -> Result<Self, String> {
        let (schema, _warnings) = Schema::from_cedarschema_str(schema).map_err(|error| error.to_string())?;
        let set: PolicySet = templates.parse().map_err(|error| format!("{error}"))?;
        let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
        if !result.validation_passed_without_warnings() {
            return Err(result.to_string());
        }
        let templates = Self::named(&set)?;
        match Role::ALL.into_iter().find(|&role| templates.levels(role).next().is_none()) {
            Some(role) => Err(format!("role {role} has no template")),
            None => Ok(templates),
        }
    }

    // Names the templates by their annotations. Anything else in the text is refused: it would
    // be shipped and never be asked.
    fn named(set: &PolicySet) -> Result<Self, String> {
        if let Some(policy) = set.policies().next() {
            return Err(format!("{} is no template", policy.id()));
        }
        let mut named = BTreeMap::new();
        for template in set.templates() {
            let annotation =
                |key: &str| template.annotation(key).ok_or_else(|| format!("{} has no @{key}", template.id()));
            let (role, level) = (annotation("role")?, annotation("level")?);
            let name = format!("{role}.{level}");
            if template.effect() != Effect::Permit {
                return Err(format!("{name} does not permit"));
            }
            let role = role.parse::<Role>().map_err(|error| format!("{name}: {error}"))?;
            let level = Level::ALL
                .into_iter()
                .find(|known| known.as_str() == level)
                .ok_or_else(|| format!("{name}: no level has this name"))?;
            let template = template.new_id(PolicyId::new(&name));
            if named.insert((role, level), template).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self(named))
    }

    /// Returns the levels at which a role permits anything.
    pub fn levels(&self, role: Role) -> impl Iterator<Item = Level> {
        self.0.keys().filter(move |(of, _)| *of == role).map(|&(_, level)| level)
    }

    /// Tells whether a role permits an action at a level.
    pub fn gives(&self, role: Role, level: Level, action: Action) -> bool {
        self.0.get(&(role, level)).is_some_and(|template| actions(template) & action_bit(action) != 0)
    }

    /// Links the templates of a binding's roles for one principal or group it lists.
    pub fn link(
        &self,
        binding: &str,
        roles: &[Role],
        grantee: &EntityUid,
        scopes: &Scopes,
    ) -> Result<Vec<Link>, PolicyError> {
        let refused = |error: &PolicySetError| PolicyError::Templates(error.to_string());
        let mut links: Vec<Link> = Vec::new();
        for level in Level::ALL {
            let Some(scope) = scopes.at(level) else { continue };
            let of_level: Vec<(Role, &Template, u64)> = self
                .0
                .iter()
                .filter(|((role, at), _)| *at == level && roles.contains(role))
                .map(|(&(role, _), template)| (role, template, actions(template)))
                .collect();
            // Each action goes to the set of just those templates that have it.
            let mut actions_of: BTreeMap<Vec<Role>, u64> = BTreeMap::new();
            for &action in Action::ALL {
                let acting = of_level.iter().filter(|(_, _, actions)| actions & action_bit(action) != 0);
                let acting: Vec<Role> = acting.map(|(role, ..)| *role).collect();
                *actions_of.entry(acting).or_default() |= action_bit(action);
            }
            actions_of.remove(&Vec::new());
            for (acting, actions) in actions_of {
                let mut policies = PolicySet::new();
                for (role, template, _) in of_level.iter().filter(|(role, ..)| acting.contains(role)) {
                    let slots =
                        HashMap::from([(SlotId::principal(), grantee.clone()), (SlotId::resource(), scope.clone())]);
                    let name = PolicyId::new(format!("{binding}/{role}.{level}"));
                    policies.add_template((*template).clone()).map_err(|error| refused(&error))?;
                    policies.link(template.id().clone(), name, slots).map_err(|error| refused(&error))?;
                }
                links.push(Link { level, actions, policies });
            }
        }
        Ok(links)
    }
}

#[cfg(test)]
impl Templates {
    /// Takes templates that no schema has seen, to show what happens when one fails.
    pub fn unvalidated(text: &str) -> Self {
        Self::named(&text.parse().unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Action;

    const SCHEMA: &str = include_str!("schema.cedarschema");

    #[test]
    fn the_shipped_templates_are_strictly_valid() {
        let templates = Templates::shipped().unwrap();
        assert_eq!(templates.0.len(), 17);
    }

    #[test]
    fn the_schema_knows_every_action_but_the_one_about_oneself() {
        let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).unwrap();
        assert_eq!(warnings.count(), 0);
        let mut in_schema: Vec<String> = schema.actions().map(|uid| uid.id().unescaped().into()).collect();
        let mut ours: Vec<String> =
            Action::ALL.iter().filter(|&&action| action != Action::GetCallerIdentity).map(Action::to_string).collect();
        in_schema.sort();
        ours.sort();
        assert_eq!(in_schema, ours);
    }

    #[test]
    fn templates_that_do_not_fit_are_refused() {
        let one = r#"@role("operator") @level("cluster") permit (principal in ?principal, action in [Action::"GetStatus", Action::"Lock", Action::"Unlock", Action::"ExportKeystore", Action::"Reload"], resource is Cluster in ?resource);"#;
        assert!(TEMPLATES.contains(r#"@role("operator") @level("cluster")"#));
        let without_operator = TEMPLATES.split("// --- operator").next().unwrap();
        for (why, text) in [
            ("an action that no RPC has", TEMPLATES.replace(r#"Action::"GetStatus","#, r#"Action::"GetState","#)),
            (
                "an action on a resource of another type",
                TEMPLATES.replace(r#"[Action::"GetIndexKey"]"#, r#"[Action::"Encrypt"]"#),
            ),
            ("an attribute that nothing has", TEMPLATES.replacen(");", ") when { principal.admin };", 1)),
            ("the same template twice", format!("{TEMPLATES}{one}")),
            ("a role without a template", without_operator.to_owned()),
            ("an unknown role", TEMPLATES.replace(r#""auditor""#, r#""owner""#)),
            ("an unknown level", TEMPLATES.replacen(r#"@level("keys")"#, r#"@level("key")"#, 1)),
            ("no annotation", TEMPLATES.replacen(r#"@level("keys")"#, "", 1)),
            ("a template that forbids", TEMPLATES.replacen("permit (", "forbid (", 1)),
            ("a policy without slots", format!("{TEMPLATES} permit (principal, action, resource);")),
        ] {
            assert_ne!(text, TEMPLATES, "{why}");
            assert!(Templates::validated(&text, SCHEMA).is_err(), "{why}");
        }
        assert!(Templates::validated(TEMPLATES, SCHEMA).is_ok());
    }
}
