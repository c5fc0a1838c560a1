//! The mapping of names in certificates that are no SPIFFE IDs to principals, from the settings.
//!
//! ```toml
//! [[identity]]
//! dns = "billing.internal"                # a DNS name among the certificate's SANs
//! principal = "spiffe://example.com/billing"
//!
//! [[identity]]
//! cn = "Backup job"                       # the common name of its subject
//! principal = "spiffe://example.com/backup"
//! ```

use std::collections::HashMap;

use serde::Deserialize;

use crate::noun::Principal;
use crate::noun::principal::InvalidPrincipal;

/// The most entries of a mapping.
pub const IDENTITIES_MAX: usize = 10_000;
/// The longest DNS name, in bytes.
pub const DNS_BYTES_MAX: usize = 253;
/// The longest common name, in bytes: 64 characters of X.520 in UTF-8.
pub const CN_BYTES_MAX: usize = 256;

/// From a DNS name or common name to a principal. Empty unless the settings say otherwise.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Vec<IdentityEntry>")]
pub struct IdentityMapping {
    dns: HashMap<String, Principal>,
    cn: HashMap<String, Principal>,
}

/// One `[[identity]]` table of the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Form")]
pub struct IdentityEntry {
    name: Name,
    principal: Principal,
}

/// The fields of the table, for who misspells one.
pub const FIELDS: [&str; 3] = ["dns", "cn", "principal"];

#[derive(Clone, Debug)]
enum Name {
    Dns(String),
    Cn(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    dns: Option<String>,
    cn: Option<String>,
    principal: String,
}

/// A mapping that is not taken, with the rule it broke.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidMapping {
    /// An entry has no name, or two.
    #[error("an [[identity]] has either `dns` or `cn`; write one table for each name")]
    NotOneName,
    /// A DNS name that no certificate should be matched by.
    #[error("{0:?} is not a DNS name to match; write the whole name without a wildcard or a last dot")]
    Dns(String),
    /// A common name that is empty or too long.
    #[error("a common name has 1 to 256 bytes")]
    Cn,
    /// What it maps to is no principal.
    #[error("bad principal: {0}; write a SPIFFE ID, as spiffe://example.com/billing")]
    Principal(#[from] InvalidPrincipal),
    /// The same name again.
    #[error("{0:?} is mapped twice; remove one of the two [[identity]] tables")]
    Twice(String),
    /// More than [`IDENTITIES_MAX`] entries.
    #[error("{0} [[identity]] tables; there are at most 10000")]
    TooMany(usize),
}

impl TryFrom<Form> for IdentityEntry {
    type Error = InvalidMapping;

    fn try_from(form: Form) -> Result<Self, InvalidMapping> {
        let name = match (form.dns, form.cn) {
            (Some(dns), None) if is_dns_name(&dns) => Name::Dns(dns.to_ascii_lowercase()),
            (Some(dns), None) => {
                return Err(InvalidMapping::Dns(dns.chars().take(DNS_BYTES_MAX).collect()));
            }
            (None, Some(cn)) if (1..=CN_BYTES_MAX).contains(&cn.len()) => Name::Cn(cn),
            (None, Some(_)) => return Err(InvalidMapping::Cn),
            (Some(_), Some(_)) | (None, None) => return Err(InvalidMapping::NotOneName),
        };
        Ok(Self { name, principal: form.principal.parse()? })
    }
}

// A wildcard would let whoever holds a certificate for many hosts be any of them.
fn is_dns_name(text: &str) -> bool {
    let of_label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let is_label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(of_label);
    text.len() <= DNS_BYTES_MAX && text.split('.').all(is_label)
}

impl TryFrom<Vec<IdentityEntry>> for IdentityMapping {
    type Error = InvalidMapping;

    fn try_from(entries: Vec<IdentityEntry>) -> Result<Self, InvalidMapping> {
        if entries.len() > IDENTITIES_MAX {
            return Err(InvalidMapping::TooMany(entries.len()));
        }
        let mut mapping = Self::default();
        for IdentityEntry { name, principal } in entries {
            let (names, name) = match name {
                Name::Dns(name) => (&mut mapping.dns, name),
                Name::Cn(name) => (&mut mapping.cn, name),
            };
            if names.insert(name.clone(), principal).is_some() {
                return Err(InvalidMapping::Twice(name));
            }
        }
        Ok(mapping)
    }
}

impl IdentityMapping {
    /// Returns the principal of a DNS name, in whatever case it is written.
    pub(super) fn by_dns(&self, name: &str) -> Option<&Principal> {
        self.dns.get(&name.to_ascii_lowercase())
    }

    /// Returns the principal of a common name, compared byte by byte.
    pub(super) fn by_cn(&self, name: &str) -> Option<&Principal> {
        self.cn.get(name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Settings {
        #[serde(default)]
        identity: IdentityMapping,
    }

    /// Reads a mapping as the settings would.
    pub fn mapping(text: &str) -> IdentityMapping {
        toml::from_str::<Settings>(text).unwrap().identity
    }

    fn refused(text: &str) -> String {
        toml::from_str::<Settings>(text).unwrap_err().message().to_owned()
    }

    const BILLING: &str = r#"principal = "spiffe://example.com/billing""#;

    #[test]
    fn without_tables_nothing_is_mapped() {
        let mapping = mapping("");
        assert!(mapping.by_dns("billing.internal").is_none());
        assert!(mapping.by_cn("billing").is_none());
    }

    #[test]
    fn a_dns_name_is_matched_in_any_case_and_a_common_name_byte_by_byte() {
        let mapping = mapping(&format!(
            "[[identity]]\ndns = \"Billing.internal\"\n{BILLING}\n[[identity]]\ncn = \"Billing\"\n{BILLING}"
        ));
        assert!(mapping.by_dns("billing.internal").is_some());
        assert!(mapping.by_dns("BILLING.INTERNAL").is_some());
        assert!(mapping.by_dns("a.billing.internal").is_none());
        assert!(mapping.by_dns("internal").is_none());
        assert!(mapping.by_cn("Billing").is_some());
        assert!(mapping.by_cn("billing").is_none());
        // One kind of name is not the other.
        assert!(mapping.by_cn("Billing.internal").is_none());
        assert!(mapping.by_dns("Billing").is_none());
    }

    #[test]
    fn a_table_with_a_mistake_is_refused_with_its_reason() {
        let one = |name: &str| format!("[[identity]]\n{name}\n{BILLING}\n");
        for (text, why) in [
            (one(""), "an [[identity]] has either `dns` or `cn`; write one table for each name"),
            (
                one("dns = \"a.b\"\ncn = \"a\""),
                "an [[identity]] has either `dns` or `cn`; write one table for each name",
            ),
            (
                one("dns = \"*.internal\""),
                "\"*.internal\" is not a DNS name to match; write the whole name without a wildcard or a last dot",
            ),
            (
                one("dns = \"internal.\""),
                "\"internal.\" is not a DNS name to match; write the whole name without a wildcard or a last dot",
            ),
            (
                one("dns = \"\""),
                "\"\" is not a DNS name to match; write the whole name without a wildcard or a last dot",
            ),
            (one("cn = \"\""), "a common name has 1 to 256 bytes"),
            (one(&format!("cn = \"{}\"", "x".repeat(257))), "a common name has 1 to 256 bytes"),
            (
                "[[identity]]\ncn = \"a\"\nprincipal = \"CN=a\"".into(),
                "bad principal: a SPIFFE ID begins with \"spiffe://\", in lower case; write a SPIFFE ID, as spiffe://example.com/billing",
            ),
            (
                one("dns = \"a.b\"") + &one("dns = \"A.b\""),
                "\"a.b\" is mapped twice; remove one of the two [[identity]] tables",
            ),
            (one("uri = \"a\""), "unknown field `uri`, expected one of `dns`, `cn`, `principal`"),
            (
                (0..=IDENTITIES_MAX).map(|n| one(&format!("cn = \"{n}\""))).collect(),
                "10001 [[identity]] tables; there are at most 10000",
            ),
        ] {
            assert_eq!(refused(&text), why);
        }
    }
}
