//! Whether somebody may do something, and why.

use std::fmt;
use std::net::IpAddr;

use kms_proto::v1;
use kms_proto::v1::access_service_client::AccessServiceClient;
use tonic::transport::Channel;

use crate::client::ANSWER_BYTES_MAX;
use crate::{Client, Context, Error, IndexRef, KeyRef, TenantRef};

/// What is asked about some actions: whether they are allowed.
///
/// ```no_run
/// # use kms_client::{Client, Error, KeyRef, PermissionTest};
/// # async fn f(kms: Client, key: KeyRef) -> Result<(), Error> {
/// let tested = kms.test_permissions(PermissionTest::new(["Encrypt", "Decrypt"]).on(key)).await?;
/// for permission in tested {
///     println!("{}: {}, by {}", permission.action, permission.allowed, permission.rule);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct PermissionTest {
    actions: Vec<String>,
    resource: Resource,
    principal: Option<String>,
    address: Option<IpAddr>,
    strength: Vec<String>,
    context: Context,
}

/// What an action is done to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// What belongs to no tenant.
    #[default]
    Cluster,
    /// A tenant.
    Tenant(TenantRef),
    /// A key.
    Key(KeyRef),
    /// A blind index.
    Index(IndexRef),
}

impl From<TenantRef> for Resource {
    fn from(tenant: TenantRef) -> Self {
        Self::Tenant(tenant)
    }
}

impl From<KeyRef> for Resource {
    fn from(key: KeyRef) -> Self {
        Self::Key(key)
    }
}

impl From<IndexRef> for Resource {
    fn from(index: IndexRef) -> Self {
        Self::Index(index)
    }
}

/// As it is named; the cluster as `the cluster`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Tenant(tenant) => tenant.fmt(f),
            Self::Key(key) => key.fmt(f),
            Self::Index(index) => index.fmt(f),
        }
    }
}

impl PermissionTest {
    /// Asks about actions: names of RPCs, such as `Decrypt`. A batch has the action of its single form.
    pub fn new<A: Into<String>>(actions: impl IntoIterator<Item = A>) -> Self {
        Self { actions: actions.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets what they are done to: the cluster unless set.
    pub fn on(mut self, resource: impl Into<Resource>) -> Self {
        self.resource = resource.into();
        self
    }

    /// Sets who does them, such as `spiffe://example.com/billing`: the caller unless set. To ask of others takes the action
    /// `TestPermissions`.
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Sets from where: the caller's own address unless set.
    pub fn address(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Sets by which proofs, of `certificate`, `token` and `mfa`: the caller's own, or for another a certificate, unless set.
    pub fn strength<P: Into<String>>(mut self, proofs: impl IntoIterator<Item = P>) -> Self {
        self.strength = proofs.into_iter().map(Into::into).collect();
        self
    }

    /// Sets with which encryption context. Only its pairs are asked about.
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }
}

/// Whether an action is allowed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestedPermission {
    /// The action.
    pub action: String,
    /// Whether it is allowed.
    pub allowed: bool,
    /// The binding, policy or grant that decided; `default` where none did.
    pub rule: String,
    /// What would be needed, where it is not allowed and the server can tell.
    pub needed: Option<String>,
    /// Rules that came near, the nearest first.
    pub considered: Vec<ConsideredRule>,
}

/// What a rule says to an action.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsideredRule {
    /// The id of the binding, policy or grant.
    pub rule: String,
    /// What it says, such as `expired`.
    pub verdict: String,
}

impl Client {
    /// Asks whether actions are allowed, which rule decided and what would be needed: an answer for each action, in their
    /// order. Every caller may ask it of itself.
    pub async fn test_permissions(&self, test: PermissionTest) -> Result<Vec<TestedPermission>, Error> {
        let PermissionTest { actions, resource, principal, address, strength, context } = test;
        let (count, resource) = (actions.len(), resource_name(&resource));
        let request = v1::TestPermissionsRequest {
            principal: principal.unwrap_or_default(),
            resource,
            actions,
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            strength,
            encryption_context: context.pairs,
        };
        let send = |c, r| async move { stub(c).test_permissions(r).await };
        read_tested(self.call("TestPermissions", request, send).await?, count)
    }
}

fn resource_name(resource: &Resource) -> String {
    match resource {
        Resource::Cluster => String::new(),
        Resource::Tenant(_) | Resource::Key(_) | Resource::Index(_) => resource.to_string(),
    }
}

/// Reads as many answers as were asked for: one too few, and what was not answered would be taken for allowed.
pub(crate) fn read_tested(answer: v1::TestPermissionsResponse, count: usize) -> Result<Vec<TestedPermission>, Error> {
    if answer.permissions.len() != count {
        return Err(Error::malformed("permissions"));
    }
    let considered = |rule: v1::ConsideredRule| ConsideredRule { rule: rule.rule, verdict: rule.verdict };
    let tested = answer.permissions.into_iter().map(|tested| TestedPermission {
        action: tested.action,
        allowed: tested.allowed,
        rule: tested.rule,
        needed: Some(tested.needed).filter(|needed| !needed.is_empty()),
        considered: tested.considered.into_iter().map(considered).collect(),
    });
    Ok(tested.collect())
}

fn stub(channel: Channel) -> AccessServiceClient<Channel> {
    AccessServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_as_the_api_names_it() {
        let tenant = TenantRef::new("acme").unwrap();
        assert_eq!(resource_name(&Resource::Cluster), "");
        assert_eq!(resource_name(&tenant.key("app").unwrap().into()), "tenants/acme/keys/app");
        assert_eq!(resource_name(&tenant.index("email").unwrap().into()), "tenants/acme/indexes/email");
        assert_eq!(resource_name(&tenant.into()), "tenants/acme");
    }

    #[test]
    fn an_action_without_an_answer_is_an_error() {
        let one = v1::TestedPermission { allowed: true, ..Default::default() };
        let answer = v1::TestPermissionsResponse { permissions: vec![one] };
        assert_eq!(read_tested(answer.clone(), 1).unwrap().len(), 1);
        assert!(read_tested(answer.clone(), 2).is_err() && read_tested(answer, 0).is_err());
    }

    #[test]
    fn what_is_asked_shows_no_value_of_the_context() {
        let test = PermissionTest::new(["Decrypt"]).context(Context::from([("name", "Erika")]));
        assert!(!format!("{test:?}").contains("Erika"));
    }
}
