//! How our nouns are called in Cedar. The types are those of `schema.cedarschema`.

use cedar_policy::{EntityId, EntityTypeName, EntityUid};

use super::{Action, Resource};
use crate::noun::{Principal, TenantName};

/// The names of the types and actions, parsed once.
pub(super) struct Vocabulary {
    principal: EntityTypeName,
    group: EntityTypeName,
    cluster: EntityTypeName,
    tenant: EntityTypeName,
    key: EntityTypeName,
    index: EntityTypeName,
    tenant_scope: EntityTypeName,
    key_scope: EntityTypeName,
    index_scope: EntityTypeName,
    actions: Vec<EntityUid>,
}

impl Vocabulary {
    pub fn new() -> Self {
        let name =
            |text: &str| -> EntityTypeName { text.parse().expect("the names in this file are Cedar identifiers") };
        let action = name("Action");
        Self {
            principal: name("Principal"),
            group: name("Group"),
            cluster: name("Cluster"),
            tenant: name("Tenant"),
            key: name("Key"),
            index: name("Index"),
            tenant_scope: name("TenantScope"),
            key_scope: name("KeyScope"),
            index_scope: name("IndexScope"),
            actions: Action::ALL.iter().map(|a| uid(&action, a.as_str())).collect(),
        }
    }

    pub fn principal(&self, principal: &Principal) -> EntityUid {
        uid(&self.principal, principal.as_str())
    }

    pub fn group(&self, name: &str) -> EntityUid {
        uid(&self.group, name)
    }

    pub fn action(&self, action: Action) -> Option<&EntityUid> {
        self.actions.get(action as usize)
    }

    pub fn cluster(&self) -> EntityUid {
        uid(&self.cluster, "cluster")
    }

    pub fn tenant(&self, tenant: &TenantName) -> EntityUid {
        uid(&self.tenant, &format!("tenants/{tenant}"))
    }

    pub fn resource(&self, resource: &Resource) -> EntityUid {
        let of_type = match resource {
            Resource::Cluster => &self.cluster,
            Resource::Tenant(_) => &self.tenant,
            Resource::Key(..) => &self.key,
            Resource::Index(..) => &self.index,
        };
        uid(of_type, &resource.to_string())
    }

    pub fn tenant_scope(&self, binding: &str) -> EntityUid {
        uid(&self.tenant_scope, binding)
    }

    pub fn key_scope(&self, binding: &str) -> EntityUid {
        uid(&self.key_scope, binding)
    }

    pub fn index_scope(&self, binding: &str) -> EntityUid {
        uid(&self.index_scope, binding)
    }
}

fn uid(of_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of_type.clone(), EntityId::new(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_found_under_its_own_name() {
        let vocabulary = Vocabulary::new();
        for &action in Action::ALL {
            let uid = vocabulary.action(action).unwrap();
            assert_eq!(uid.to_string(), format!("Action::\"{action}\""));
        }
    }
}
