//! A resource: what is asked about, by name only. Whether it exists is not known here.

use std::fmt;

use crate::noun::{IndexName, KeyName, TenantName};

/// What an action is asked of.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Resource {
    /// The whole service: `cluster`.
    Cluster,
    /// One tenant: `tenants/acme`.
    Tenant(TenantName),
    /// One key of a tenant: `tenants/acme/keys/k`.
    Key(TenantName, KeyName),
    /// One blind index of a tenant: `tenants/acme/indexes/i`.
    Index(TenantName, IndexName),
}

impl Resource {
    /// Reads a path, as it is shown.
    pub fn read(path: &str) -> Option<Self> {
        let mut parts = path.splitn(4, '/');
        Some(match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            ("cluster", None, ..) => Self::Cluster,
            ("tenants", Some(tenant), None, _) => Self::Tenant(tenant.parse().ok()?),
            ("tenants", Some(tenant), Some("keys"), Some(key)) => Self::Key(tenant.parse().ok()?, key.parse().ok()?),
            ("tenants", Some(tenant), Some("indexes"), Some(index)) => {
                Self::Index(tenant.parse().ok()?, index.parse().ok()?)
            }
            _ => return None,
        })
    }

    /// Returns the tenant that the resource is or belongs to; the cluster has none.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Cluster => None,
            Self::Tenant(tenant) | Self::Key(tenant, _) | Self::Index(tenant, _) => Some(tenant),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Tenant(tenant) => write!(f, "tenants/{tenant}"),
            Self::Key(tenant, key) => write!(f, "tenants/{tenant}/keys/{key}"),
            Self::Index(tenant, index) => write!(f, "tenants/{tenant}/indexes/{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_shown_by_its_path() {
        let tenant = || "acme".parse::<TenantName>().unwrap();
        let shown = [
            Resource::Cluster,
            Resource::Tenant(tenant()),
            Resource::Key(tenant(), "k".parse().unwrap()),
            Resource::Index(tenant(), "i".parse().unwrap()),
        ]
        .map(|resource| {
            let shown = resource.to_string();
            assert_eq!(Resource::read(&shown), Some(resource));
            shown
        });
        assert_eq!(shown, ["cluster", "tenants/acme", "tenants/acme/keys/k", "tenants/acme/indexes/i"]);
        for bad in [
            "",
            "Cluster",
            "cluster/",
            "tenants",
            "tenants/",
            "tenants/a/keys",
            "tenants/a/keys/",
            "tenants/a/keys/k/x",
        ] {
            assert_eq!(Resource::read(bad), None, "{bad}");
        }
    }
}
