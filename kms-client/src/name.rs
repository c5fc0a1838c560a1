//! Names, parsed once: a value of these types is well-formed, so that a request says what its caller meant.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::Error;

/// The name of a tenant, `tenants/{tenant}`.
///
/// A tenant matches `[A-Za-z0-9][A-Za-z0-9._~-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantRef(Box<str>);

impl TenantRef {
    /// Makes the name of a tenant from its last part, such as `acme`.
    pub fn new(tenant: &str) -> Result<Self, Error> {
        check_part("tenant", tenant)?;
        Ok(Self(tenant.into()))
    }

    /// Returns the last part, such as `acme`.
    pub fn tenant(&self) -> &str {
        &self.0
    }

    /// Makes the name of a key of this tenant.
    pub fn key(&self, key: &str) -> Result<KeyRef, Error> {
        check_part("key", key)?;
        Ok(KeyRef { tenant: self.clone(), key: key.into() })
    }

    /// Makes the name of a blind index of this tenant.
    pub fn index(&self, index: &str) -> Result<IndexRef, Error> {
        check_part("index", index)?;
        Ok(IndexRef { tenant: self.clone(), index: index.into() })
    }
}

impl fmt::Display for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}", self.0)
    }
}

impl FromStr for TenantRef {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["tenants", tenant] => Self::new(tenant),
            _ => Err(Error::invalid_name(name, "tenants/{tenant}")),
        }
    }
}

/// The name of a key, `tenants/{tenant}/keys/{key}`.
///
/// Both parts match `[A-Za-z0-9][A-Za-z0-9._~-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRef {
    tenant: TenantRef,
    key: Box<str>,
}

impl KeyRef {
    /// Makes the name of a key from its parts, such as `acme` and `app`.
    pub fn new(tenant: &str, key: &str) -> Result<Self, Error> {
        TenantRef::new(tenant)?.key(key)
    }

    /// Returns the tenant that the key belongs to.
    pub fn tenant(&self) -> &TenantRef {
        &self.tenant
    }

    /// Returns the last part, such as `app`.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/keys/{}", self.tenant, self.key)
    }
}

impl FromStr for KeyRef {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["tenants", tenant, "keys", key] => Self::new(tenant, key),
            _ => Err(Error::invalid_name(name, "tenants/{tenant}/keys/{key}")),
        }
    }
}

/// The name of a blind index, `tenants/{tenant}/indexes/{index}`.
///
/// Both parts match `[A-Za-z0-9][A-Za-z0-9._~-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexRef {
    tenant: TenantRef,
    index: Box<str>,
}

impl IndexRef {
    /// Makes the name of an index from its parts, such as `acme` and `users.email`.
    pub fn new(tenant: &str, index: &str) -> Result<Self, Error> {
        TenantRef::new(tenant)?.index(index)
    }

    /// Returns the tenant that the index belongs to.
    pub fn tenant(&self) -> &TenantRef {
        &self.tenant
    }

    /// Returns the last part, such as `users.email`.
    pub fn index(&self) -> &str {
        &self.index
    }
}

impl fmt::Display for IndexRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/indexes/{}", self.tenant, self.index)
    }
}

impl FromStr for IndexRef {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["tenants", tenant, "indexes", index] => Self::new(tenant, index),
            _ => Err(Error::invalid_name(name, "tenants/{tenant}/indexes/{index}")),
        }
    }
}

/// The name of a grant: `tenants/{tenant}/grants/{uid}`, or `grants/{uid}` for what concerns no tenant.
///
/// A uid is 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef {
    tenant: Option<TenantRef>,
    uid: Box<str>,
}

impl GrantRef {
    /// Makes the name of a grant from its parts. Without a tenant it is one of the cluster.
    pub fn new(tenant: Option<&TenantRef>, uid: &str) -> Result<Self, Error> {
        if uid.len() != UID_DIGITS || !uid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid(format!(
                "{uid:?} cannot be the uid of a grant: it has {UID_DIGITS} of 0-9 a-f"
            )));
        }
        Ok(Self { tenant: tenant.cloned(), uid: uid.into() })
    }

    /// Returns the tenant that it concerns.
    pub fn tenant(&self) -> Option<&TenantRef> {
        self.tenant.as_ref()
    }

    /// Returns the last part.
    pub fn uid(&self) -> &str {
        &self.uid
    }
}

impl fmt::Display for GrantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tenant) = &self.tenant {
            write!(f, "{tenant}/")?;
        }
        write!(f, "grants/{}", self.uid)
    }
}

impl FromStr for GrantRef {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["grants", uid] => Self::new(None, uid),
            ["tenants", tenant, "grants", uid] => Self::new(Some(&TenantRef::new(tenant)?), uid),
            _ => Err(Error::invalid_name(name, "tenants/{tenant}/grants/{uid} or grants/{uid}")),
        }
    }
}

/// The number of a key version, from 1 to 16777215.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionNumber(NonZeroU32);

impl VersionNumber {
    /// Makes a version's number.
    pub fn new(number: u32) -> Result<Self, Error> {
        match NonZeroU32::new(number) {
            Some(number) if number.get() <= VERSION_MAX => Ok(Self(number)),
            _ => Err(Error::invalid(format!("a key version is a number from 1 to {VERSION_MAX}, not {number}"))),
        }
    }

    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VersionNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // Only the form that names have: no sign, no leading zero.
        match text.parse() {
            Ok(number) if text.starts_with(|first: char| ('1'..='9').contains(&first)) => Self::new(number),
            _ => Err(Error::invalid(format!("a key version is a number from 1 to {VERSION_MAX}, not {text:?}"))),
        }
    }
}

/// Checks one part of a name.
fn check_part(noun: &str, part: &str) -> Result<(), Error> {
    let starts_well = part.starts_with(|first: char| first.is_ascii_alphanumeric());
    let goes_on_well = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte));
    if starts_well && goes_on_well && part.len() <= PART_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{part:?} cannot be the name of a {noun}: 1 to {PART_BYTES_MAX} letters, digits or . _ ~ -, beginning with a \
         letter or digit"
    )))
}

const PART_BYTES_MAX: usize = 64;
const UID_DIGITS: usize = 32;
/// Versions are 24-bit numbers in every ciphertext.
const VERSION_MAX: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_name_survives_the_way_through_its_text() {
        let key: KeyRef = "tenants/acme/keys/app-1.v~2_X".parse().unwrap();
        assert_eq!((key.tenant().tenant(), key.key()), ("acme", "app-1.v~2_X"));
        assert_eq!(key.to_string(), "tenants/acme/keys/app-1.v~2_X");
        assert_eq!(key, KeyRef::new("acme", "app-1.v~2_X").unwrap());
        assert_eq!("tenants/acme".parse::<TenantRef>().unwrap(), *key.tenant());
        let index: IndexRef = "tenants/acme/indexes/users.email".parse().unwrap();
        assert_eq!((index.tenant(), index.index()), (key.tenant(), "users.email"));
        assert_eq!(index.to_string(), "tenants/acme/indexes/users.email");
    }

    #[test]
    fn a_grant_is_one_of_a_tenant_or_of_the_cluster() {
        let uid = "0123456789abcdef0123456789abcdef";
        let grant: GrantRef = format!("tenants/acme/grants/{uid}").parse().unwrap();
        assert_eq!((grant.tenant().map(TenantRef::tenant), grant.uid()), (Some("acme"), uid));
        assert_eq!(grant.to_string(), format!("tenants/acme/grants/{uid}"));
        let grant: GrantRef = format!("grants/{uid}").parse().unwrap();
        assert_eq!((grant.tenant(), grant.to_string()), (None, format!("grants/{uid}")));
        let upper = uid.to_uppercase();
        for bad in ["", "grants", "grants/", "grants/1", uid, &format!("grants/{upper}"), &format!("/grants/{uid}")] {
            assert!(bad.parse::<GrantRef>().is_err(), "{bad}");
        }
        for bad in ["tenants//grants", "tenants/a b/grants", "tenants/acme/keys", "tenants/acme/grants/x"] {
            assert!(format!("{bad}/{uid}").parse::<GrantRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_has_1_to_64_characters_of_the_allowed_ones() {
        for good in ["a", "0", &"a".repeat(64), "a.b_c~d-e"] {
            TenantRef::new(good).unwrap();
        }
        for bad in ["", &"a".repeat(65), "-a", ".", "~a", "a/b", "a b", "ä", "a\0", "a\n"] {
            let error = TenantRef::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
            KeyRef::new("acme", bad).unwrap_err();
            IndexRef::new("acme", bad).unwrap_err();
        }
    }

    #[test]
    fn another_shape_is_no_name() {
        for bad in ["app", "tenants/acme", "tenants/acme/keys/", "tenants/acme/keys/a/versions/1", "/tenants/a/keys/b"]
        {
            assert!(bad.parse::<KeyRef>().is_err(), "{bad}");
        }
        for bad in ["email", "tenants/acme/keys/email", "tenants/acme/indexes/", "tenants/acme/indexes/a/b"] {
            assert!(bad.parse::<IndexRef>().is_err(), "{bad}");
        }
        for bad in ["acme", "tenants/", "tenants/acme/", "tenants/acme/keys/app", "Tenants/acme"] {
            assert!(bad.parse::<TenantRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_is_a_24_bit_number_without_sign_or_leading_zero() {
        assert_eq!("16777215".parse::<VersionNumber>().unwrap().get(), 16_777_215);
        for bad in ["0", "16777216", "01", "+1", "-1", "", "1 ", "1.0", "99999999999"] {
            assert!(bad.parse::<VersionNumber>().is_err(), "{bad:?}");
        }
    }
}
