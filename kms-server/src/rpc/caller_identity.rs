//! GetCallerIdentity: whom the service takes the caller for, and what is bound to it.

use kms_proto::v1::{AuthMethod, Binding, GetCallerIdentityRequest, GetCallerIdentityResponse};

use super::convert::timestamp;
use super::error::Error;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::noun::Strength;
use crate::policy::{Action, BindingView, Resource};

pub(super) struct GetCallerIdentity;

impl Operation for GetCallerIdentity {
    type Wire = GetCallerIdentityRequest;
    type Reply = GetCallerIdentityResponse;
    const NAME: &'static str = "GetCallerIdentity";

    fn parse(_: GetCallerIdentityRequest) -> Result<Self, Error> {
        Ok(Self)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetCallerIdentity, Resource::Cluster)]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<GetCallerIdentityResponse>, Failed> {
        let net = call.who.net.ok_or(Error::Denied(None))?;
        let bindings = call.api.policy.bindings_of(call.principal, net, call.now);
        Ok(Done::read(GetCallerIdentityResponse {
            principal: call.principal.to_string(),
            auth_method: auth_method(call.strength).into(),
            strength: call.strength.names().map(str::to_owned).collect(),
            bindings: bindings.into_iter().map(binding).collect(),
        }))
    }
}

fn auth_method(strength: Strength) -> AuthMethod {
    match (strength.has(Strength::CERTIFICATE), strength.has(Strength::TOKEN)) {
        (_, false) => AuthMethod::Mtls,
        (false, true) => AuthMethod::Token,
        (true, true) => AuthMethod::MtlsAndToken,
    }
}

fn binding(view: BindingView) -> Binding {
    Binding {
        id: view.id.to_string(),
        roles: view.roles.iter().map(|role| role.as_str().to_owned()).collect(),
        tenants: view.tenants,
        keys: view.keys,
        expire_time: view.expires.map(timestamp),
    }
}
