//! Bindings, groups and own policies put together into a policy, so that a request finds its few quickly.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{Authorizer, Entity, EntityUid};

use super::bindings::{Binding, Group, Tenants};
use super::entities::Vocabulary;
use super::network::Network;
use super::own::Own;
use super::pairs::PairNames;
use super::remembered::Remembered;
use super::rule::{Caller, Grant, Grantee, NETWORKS_TOLD_MAX, Rule};
use super::templates::{Scopes, Templates};
use super::{Policy, PolicyError, RULE_DEFAULT, RULE_SELF};
use crate::noun::{Principal, TenantName};

/// What is known of a caller while bindings and groups are gone through.
#[derive(Default)]
struct Found {
    parents: HashSet<EntityUid>,
    groups: Vec<Arc<str>>,
    grantees: Vec<usize>,
}

impl Policy {
    pub(super) fn assemble(
        bindings: Vec<Binding>,
        groups: Vec<Group>,
        own: Option<Own>,
        pair_names: PairNames,
        templates: &Templates,
    ) -> Result<Self, PolicyError> {
        let vocabulary = Vocabulary::new();
        let mut rules: Vec<Rule> = Vec::with_capacity(bindings.len());
        let mut by_tenant: HashMap<TenantName, Vec<usize>> = HashMap::new();
        let mut grantees: Vec<Grantee> = Vec::new();
        let mut grantee_of: HashMap<EntityUid, usize> = HashMap::new();
        let mut callers: HashMap<Principal, Found> = HashMap::new();
        for (number, binding) in bindings.into_iter().enumerate() {
            let id = &*binding.id;
            let everywhere = matches!(binding.tenants, Tenants::Every);
            let scopes = Scopes {
                cluster: everywhere.then(|| vocabulary.cluster()),
                tenants: Some(vocabulary.tenant_scope(id)),
                keys: binding.keys.as_ref().map(|_| vocabulary.key_scope(id)),
                indexes: binding.indexes.as_ref().map(|_| vocabulary.index_scope(id)),
            };
            let of_principals = binding.principals.iter().map(|p| (vocabulary.principal(p), Some(p)));
            let of_groups = binding.groups.iter().map(|name| (vocabulary.group(name), None));
            for (uid, principal) in of_principals.chain(of_groups) {
                let links = templates.link(id, &binding.roles, &uid, &scopes)?;
                let index = *grantee_of.entry(uid).or_insert_with(|| {
                    grantees.push(Grantee::default());
                    grantees.len() - 1
                });
                if let Some(principal) = principal {
                    let found = callers.entry(principal.clone()).or_default();
                    if !found.grantees.contains(&index) {
                        found.grantees.push(index);
                    }
                }
                let grant = Grant { binding: number, links };
                if let Some(grantee) = grantees.get_mut(index) {
                    let list = if everywhere { &mut grantee.everywhere } else { &mut grantee.somewhere };
                    list.push(grant);
                }
            }
            if let Tenants::Named(tenants) = &binding.tenants {
                for tenant in tenants {
                    by_tenant.entry(tenant.clone()).or_default().push(number);
                }
            }
            rules.push(Rule {
                id: binding.id,
                roles: binding.roles,
                tenants: binding.tenants,
                keys: binding.keys,
                indexes: binding.indexes,
                networks: binding.networks,
                from: binding.from,
                expires: binding.expires,
                strength: binding.strength,
                context: binding.context,
                fan_out: binding.fan_out,
                scopes,
            });
        }
        for group in groups {
            let uid = vocabulary.group(&group.name);
            let index = grantee_of.get(&uid).copied();
            // A group that no binding lists gives nothing: who is only there stays unknown, unless own policies ask.
            if index.is_none() && own.is_none() {
                continue;
            }
            for member in group.members {
                let found = callers.entry(member).or_default();
                found.parents.insert(uid.clone());
                found.grantees.extend(index);
                if own.is_some() {
                    found.groups.push(Arc::clone(&group.name));
                }
            }
        }
        let rules_of = |of: &[usize]| {
            let grants = of.iter().filter_map(|&index| grantees.get(index)).flat_map(Grantee::grants);
            grants.filter_map(|grant| rules.get(grant.binding)).collect::<Vec<&Rule>>()
        };
        let callers = callers
            .into_iter()
            .enumerate()
            .map(|(number, (principal, found))| {
                let (mut networks, mut pairs): (Vec<Network>, Vec<Arc<str>>) = Default::default();
                for rule in rules_of(&found.grantees) {
                    for network in rule.networks.as_deref().unwrap_or_default() {
                        // One more than can be told apart is as good as all of them.
                        if networks.len() <= NETWORKS_TOLD_MAX && !networks.contains(network) {
                            networks.push(*network);
                        }
                    }
                    for wanted in &rule.context {
                        if !pairs.contains(&wanted.name) {
                            pairs.push(Arc::clone(&wanted.name));
                        }
                    }
                }
                let Found { parents, groups, grantees } = found;
                let entity = Entity::new_no_attrs(vocabulary.principal(&principal), parents);
                (principal, Caller { number, entity, grantees, groups, networks, pairs })
            })
            .collect();
        Ok(Self {
            authorizer: Authorizer::new(),
            vocabulary,
            own,
            pairs: pair_names,
            bindings: rules,
            callers,
            grantees,
            by_tenant,
            remembered: Remembered::new(),
            print: [0; 32],
            rule_default: RULE_DEFAULT.into(),
            rule_self: RULE_SELF.into(),
        })
    }
}
