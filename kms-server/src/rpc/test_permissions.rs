//! TestPermissions: whether a principal may do something, which rule decided, and what would be needed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kms_proto::v1;

use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation, about};
use crate::audit::Leaf;
use crate::noun::{Principal, Strength};
use crate::policy::{self, Action, Considered, Explanation, Resource, Whose};

pub(super) struct TestPermissions {
    /// None is the caller.
    principal: Option<Principal>,
    resource: Resource,
    actions: Vec<Action>,
    address: Option<IpAddr>,
    strength: Option<Strength>,
    context: BTreeMap<String, String>,
}

impl Operation for TestPermissions {
    type Wire = v1::TestPermissionsRequest;
    type Reply = v1::TestPermissionsResponse;
    const NAME: &'static str = "TestPermissions";

    fn parse(wire: v1::TestPermissionsRequest) -> Result<Self, Error> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let principal = given(&wire.principal).map(|text| {
            let rule = "must be a SPIFFE ID, as spiffe://example.com/billing, or empty for the caller";
            text.parse().map_err(|_| Error::Field { field: "principal", rule })
        });
        let address = given(&wire.address).map(|text| {
            text.parse().map_err(|_| Error::Field { field: "address", rule: "must be an IP address, or empty" })
        });
        let strength = wire.strength.iter().map(|text| {
            let rule = "must be some of certificate, token, mfa, or none";
            text.parse::<Strength>().map_err(|_| Error::Field { field: "strength", rule })
        });
        let strength = strength.collect::<Result<Vec<_>, _>>()?.into_iter().reduce(Strength::and);
        if !(1..=ACTIONS_MAX).contains(&wire.actions.len()) {
            return Err(Error::Field { field: "actions", rule: "must be 1 to 100" });
        }
        let action = |text: &String| {
            text.parse().map_err(|_| Error::Field {
                field: "actions",
                rule: "must be names of RPCs, such as Decrypt; a batch has that of its single form",
            })
        };
        Ok(Self {
            principal: principal.transpose()?,
            resource: resource(&wire.resource)?,
            actions: wire.actions.iter().map(action).collect::<Result<_, _>>()?,
            address: address.transpose()?,
            strength,
            context: wire.encryption_context,
        })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        // Of itself everybody may ask.
        let action = if self.principal.is_none() { Action::GetCallerIdentity } else { Action::TestPermissions };
        vec![(action, Resource::Cluster)]
    }

    fn about(&self) -> Leaf {
        let of = self.principal.as_ref().map(|principal| format!("of {principal}").into());
        Leaf { ev: of, ..about(Some(&self.resource)) }
    }

    fn operations(&self) -> usize {
        self.actions.len()
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::TestPermissionsResponse>, Failed> {
        let own = self.principal.is_none();
        let principal = self.principal.as_ref().unwrap_or(call.principal);
        let net = self.address.or(call.who.net).ok_or(Error::Denied(None))?;
        let strength = self.strength.unwrap_or(if own { call.strength } else { Strength::CERTIFICATE });
        let pairs = Some(&self.context).filter(|context| !context.is_empty());
        let mut permissions = Vec::with_capacity(self.actions.len());
        for &action in &self.actions {
            let (now, resource) = (call.now, &self.resource);
            let request = policy::Request { principal, strength, net, now, action, resource, pairs };
            // Of what others have nobody is told who only asks for himself.
            let whose = if own { Whose::TheirOwn } else { Whose::Everybodys };
            permissions.push(tested(call.api.policy.explain(&request, whose), action));
            // It looks at all bindings: others on this core go on in between.
            tokio::task::yield_now().await;
        }
        Ok(Done::read(v1::TestPermissionsResponse { permissions }))
    }
}

fn tested(explained: Explanation, action: Action) -> v1::TestedPermission {
    let Explanation { decision, reasons, needed } = explained;
    let considered =
        |reason: Considered| v1::ConsideredRule { rule: reason.rule.to_string(), verdict: reason.verdict.to_string() };
    v1::TestedPermission {
        action: action.as_str().to_owned(),
        allowed: decision.allowed,
        rule: decision.rule.to_string(),
        needed,
        considered: reasons.into_iter().map(considered).collect(),
    }
}

fn resource(text: &str) -> Result<Resource, Error> {
    if text.is_empty() {
        return Ok(Resource::Cluster);
    }
    let rule = "must be tenants/{tenant}, tenants/{tenant}/keys/{key}, tenants/{tenant}/indexes/{index}, or empty";
    let read = || {
        if let Ok((tenant, key)) = parse::key("resource", text) {
            return Some(Resource::Key(tenant, key));
        }
        if let Ok((tenant, index)) = parse::index("resource", text) {
            return Some(Resource::Index(tenant, index));
        }
        parse::tenant("resource", text).ok().map(Resource::Tenant)
    };
    read().ok_or(Error::Field { field: "resource", rule })
}

const ACTIONS_MAX: usize = 100;
