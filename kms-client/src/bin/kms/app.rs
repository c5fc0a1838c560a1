//! What every command is given: the settings, the output, and how names are understood.

use kms_client::{Client, IndexRef, KeyRef, TenantRef};

use crate::config::Settings;
use crate::error::Failure;
use crate::output::Output;

pub struct App<'a> {
    pub settings: Settings,
    pub output: &'a mut Output,
}

impl App<'_> {
    pub fn client(&self) -> Result<Client, Failure> {
        self.settings.client()
    }

    /// Understands `tenants/acme` and `acme`.
    pub fn tenant(&self, name: &str) -> Result<TenantRef, Failure> {
        let parsed = if name.contains('/') { name.parse() } else { TenantRef::new(name) };
        parsed.map_err(|error| Failure::usage(error.message()))
    }

    /// Returns the tenant of the settings.
    pub fn default_tenant(&self) -> Result<TenantRef, Failure> {
        match &self.settings.tenant {
            Some(tenant) => self.tenant(tenant),
            None => Err(Failure::usage("no tenant is given").hint("--tenant TENANT, or KMS_TENANT")),
        }
    }

    /// Understands `tenants/acme/keys/app`, and `app` of the settings' tenant.
    pub fn key(&self, name: &str) -> Result<KeyRef, Failure> {
        let parsed = if name.contains('/') { name.parse() } else { self.tenant_of("key", "keys", name)?.key(name) };
        parsed.map_err(|error| Failure::usage(error.message()))
    }

    /// Understands `tenants/acme/indexes/users.email`, and `users.email` of the settings' tenant.
    pub fn index(&self, name: &str) -> Result<IndexRef, Failure> {
        let parsed =
            if name.contains('/') { name.parse() } else { self.tenant_of("index", "indexes", name)?.index(name) };
        parsed.map_err(|error| Failure::usage(error.message()))
    }

    /// Returns the tenant of what is given without one.
    fn tenant_of(&self, noun: &str, collection: &str, name: &str) -> Result<TenantRef, Failure> {
        if self.settings.tenant.is_none() {
            return Err(Failure::usage(format!("{name:?} is the {noun} of which tenant?"))
                .hint(format!("write tenants/TENANT/{collection}/{name}, or give --tenant TENANT or KMS_TENANT")));
        }
        self.default_tenant()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn names_are_understood_in_full_and_in_short() {
        let mut output = Output::default();
        let mut app = App { settings: Settings::default(), output: &mut output };
        assert_eq!(app.tenant("acme").unwrap(), app.tenant("tenants/acme").unwrap());
        assert_eq!(app.key("tenants/acme/keys/app").unwrap().to_string(), "tenants/acme/keys/app");
        assert_eq!(app.key("app").unwrap_err().exit, Exit::Usage);
        assert_eq!(app.default_tenant().unwrap_err().exit, Exit::Usage);

        app.settings.tenant = Some("acme".to_owned());
        assert_eq!(app.key("app").unwrap().to_string(), "tenants/acme/keys/app");
        assert_eq!(app.key("tenants/other/keys/app").unwrap().tenant().tenant(), "other");
        assert!(app.key("keys/app").is_err());
        assert_eq!(app.index("email").unwrap().to_string(), "tenants/acme/indexes/email");
        assert_eq!(app.index("tenants/other/indexes/email").unwrap().tenant().tenant(), "other");
        assert!(app.index("tenants/acme/keys/email").is_err());
    }
}
