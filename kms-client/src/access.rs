//! Who the server takes the caller for, and what is bound to it.

use std::time::SystemTime;

use kms_proto::v1;
use kms_proto::v1::access_service_client::AccessServiceClient;
use tonic::transport::Channel;

use crate::client::ANSWER_BYTES_MAX;
use crate::wire::time_or_none;
use crate::{Client, Error};

/// Answer of [`Client::whoami`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallerIdentity {
    /// The caller's name in bindings and in the audit log, such as `spiffe://example.com/billing`.
    pub principal: String,
    /// How it proved that.
    pub auth_method: AuthMethod,
    /// The proofs behind it: of `certificate`, `token` and `mfa`.
    pub strength: Vec<String>,
    /// The bindings that are in force for it now and from where it calls, and roles by a grant, whose id is `grant/{uid}`.
    /// None: every other call is refused.
    pub bindings: Vec<Binding>,
}

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMethod {
    /// A client certificate.
    Mtls,
    /// A bearer token, on a connection with another's certificate.
    Token,
    /// A bearer token and a client certificate, both the caller's.
    MtlsAndToken,
    /// One that this version of the library does not know, with its number.
    Unknown(i32),
}

impl AuthMethod {
    /// Returns the method as the API names it, such as `MTLS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "MTLS",
            Self::Token => "TOKEN",
            Self::MtlsAndToken => "MTLS_AND_TOKEN",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    fn from_wire(number: i32) -> Self {
        match v1::AuthMethod::try_from(number) {
            Ok(v1::AuthMethod::Mtls) => Self::Mtls,
            Ok(v1::AuthMethod::Token) => Self::Token,
            Ok(v1::AuthMethod::MtlsAndToken) => Self::MtlsAndToken,
            Ok(v1::AuthMethod::Unspecified) | Err(_) => Self::Unknown(number),
        }
    }
}

/// Links roles to principals, for some tenants and keys: the part of it that concerns the caller. Or a grant that is in
/// force, in the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// The id of the binding, which the audit log gives as the rule that decided.
    pub id: String,
    /// Names of permission templates, such as `encrypter`.
    pub roles: Vec<String>,
    /// Tenants that it covers: names, or `*` for all.
    pub tenants: Vec<String>,
    /// Keys of those tenants that it covers: names, `prefix*`, or `*` for all.
    pub keys: Vec<String>,
    /// When it ends; `None` for never.
    pub expire_time: Option<SystemTime>,
}

impl Client {
    /// Asks whom the server takes the caller for, and what is bound to it: the first thing to try.
    pub async fn whoami(&self) -> Result<CallerIdentity, Error> {
        let request = v1::GetCallerIdentityRequest {};
        let answer =
            self.call("GetCallerIdentity", request, |c, r| async move { stub(c).get_caller_identity(r).await }).await?;
        CallerIdentity::from_wire(answer)
    }
}

impl CallerIdentity {
    pub(crate) fn from_wire(answer: v1::GetCallerIdentityResponse) -> Result<Self, Error> {
        let bindings: Result<_, Error> = answer
            .bindings
            .into_iter()
            .map(|binding| {
                Ok(Binding {
                    id: binding.id,
                    roles: binding.roles,
                    tenants: binding.tenants,
                    keys: binding.keys,
                    expire_time: time_or_none(binding.expire_time, "binding.expire_time")?,
                })
            })
            .collect();
        Ok(Self {
            principal: answer.principal,
            auth_method: AuthMethod::from_wire(answer.auth_method),
            strength: answer.strength,
            bindings: bindings?,
        })
    }
}

fn stub(channel: Channel) -> AccessServiceClient<Channel> {
    AccessServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_api_is_known() {
        for number in 1..=3 {
            let name = v1::AuthMethod::try_from(number).unwrap().as_str_name();
            assert_eq!(format!("AUTH_METHOD_{}", AuthMethod::from_wire(number).as_str()), name);
        }
        assert!(v1::AuthMethod::try_from(4).is_err(), "teach AuthMethod the new one");
        assert_eq!(AuthMethod::from_wire(4), AuthMethod::Unknown(4));
    }
}
