//! A principal: who asks, as a SPIFFE ID.
//!
//! It is the workload's name and nothing else: not a certificate's subject, not an address.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest principal, in bytes: the limit of the SPIFFE ID specification.
pub const PRINCIPAL_BYTES_MAX: usize = 2048;

/// The longest trust domain, in bytes: the limit of the SPIFFE ID specification.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Who asks: a validated SPIFFE ID `spiffe://trust-domain/path`. Nothing else is a `Principal`.
///
/// The path may not be empty: a SPIFFE ID without one names a trust domain, which is an authority
/// and not a workload. There is one spelling of each principal, so they are compared as bytes.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Principal(Arc<str>);

/// A text that is not a principal, with the rule it broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPrincipal {
    /// It has more than [`PRINCIPAL_BYTES_MAX`] bytes.
    #[error("a SPIFFE ID has at most 2048 bytes")]
    TooLong,
    /// It is a name of another kind.
    #[error("a SPIFFE ID begins with \"spiffe://\", in lower case")]
    Scheme,
    /// What lies between the scheme and the path is no trust domain.
    #[error("a trust domain is 1 to 255 of a-z 0-9 . _ - (no port, no user, no upper case)")]
    TrustDomain,
    /// There is a trust domain and nothing behind it.
    #[error("a path must follow the trust domain: without it the name is an authority's")]
    NoPath,
    /// A segment of the path is empty; a trailing slash makes one too.
    #[error("a segment of the path is empty (a trailing slash is not allowed)")]
    EmptySegment,
    /// A segment of the path is `.` or `..`.
    #[error("a segment of the path is \".\" or \"..\"")]
    DotSegment,
    /// The path has a byte outside the set; `?`, `#` and `%` are such bytes.
    #[error("a segment of the path is made of A-Z a-z 0-9 . _ - (no query, fragment or percent)")]
    PathByte,
}

impl Principal {
    /// Returns the SPIFFE ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the trust domain: what lies between `spiffe://` and the path.
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix(SCHEME).unwrap_or(&self.0);
        rest.split('/').next().unwrap_or(rest)
    }
}

const SCHEME: &str = "spiffe://";

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        if text.len() > PRINCIPAL_BYTES_MAX {
            return Err(InvalidPrincipal::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidPrincipal::Scheme)?;
        let (trust_domain, path) = match rest.split_once('/') {
            Some((trust_domain, path)) => (trust_domain, Some(path)),
            None => (rest, None),
        };
        let of_trust_domain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if trust_domain.is_empty()
            || trust_domain.len() > TRUST_DOMAIN_BYTES_MAX
            || !trust_domain.bytes().all(of_trust_domain)
        {
            return Err(InvalidPrincipal::TrustDomain);
        }
        let path = path.filter(|path| !path.is_empty()).ok_or(InvalidPrincipal::NoPath)?;
        let of_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        for segment in path.split('/') {
            match segment {
                "" => return Err(InvalidPrincipal::EmptySegment),
                "." | ".." => return Err(InvalidPrincipal::DotSegment),
                _ if !segment.bytes().all(of_path) => return Err(InvalidPrincipal::PathByte),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Principal, InvalidPrincipal> {
        text.parse()
    }

    #[test]
    fn a_principal_is_a_spiffe_id_with_a_path() {
        for good in [
            "spiffe://example.com/billing",
            "spiffe://a/b",
            "spiffe://prod_1.eu-west/ns/default/sa/Web-1.0_x",
            "spiffe://1.2.3.4/service",
            "spiffe://example.com/...",
            "spiffe://example.com/a/.b",
        ] {
            assert_eq!(parse(good).map(|p| p.to_string()).as_deref(), Ok(good));
        }
    }

    #[test]
    fn anything_else_says_which_rule_it_broke() {
        use InvalidPrincipal::*;
        for (bad, why) in [
            ("", Scheme),
            ("example.com/billing", Scheme),
            ("https://example.com/billing", Scheme),
            ("SPIFFE://example.com/billing", Scheme),
            ("spiffe:/example.com/billing", Scheme),
            (" spiffe://example.com/billing", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///billing", TrustDomain),
            ("spiffe://Example.com/billing", TrustDomain),
            ("spiffe://example.com:8443/billing", TrustDomain),
            ("spiffe://user@example.com/billing", TrustDomain),
            ("spiffe://exa%6dple.com/billing", TrustDomain),
            ("spiffe://exämple.com/billing", TrustDomain),
            ("spiffe://example.com?q=/billing", TrustDomain),
            ("spiffe://example.com", NoPath),
            ("spiffe://example.com/", NoPath),
            ("spiffe://example.com//billing", EmptySegment),
            ("spiffe://example.com/billing/", EmptySegment),
            ("spiffe://example.com/a//b", EmptySegment),
            ("spiffe://example.com/.", DotSegment),
            ("spiffe://example.com/a/../b", DotSegment),
            ("spiffe://example.com/billing?x=1", PathByte),
            ("spiffe://example.com/billing#x", PathByte),
            ("spiffe://example.com/bill%69ng", PathByte),
            ("spiffe://example.com/billing ", PathByte),
            ("spiffe://example.com/bill\0ing", PathByte),
            ("spiffe://example.com/bill~ing", PathByte),
            ("spiffe://example.com/bïlling", PathByte),
        ] {
            assert_eq!(parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn its_limits_are_255_bytes_of_trust_domain_and_2048_in_all() {
        let with_domain = |n: usize| format!("spiffe://{}/x", "d".repeat(n));
        assert!(parse(&with_domain(255)).is_ok());
        assert_eq!(parse(&with_domain(256)), Err(InvalidPrincipal::TrustDomain));
        let of_bytes = |n: usize| format!("spiffe://d/{}", "p".repeat(n - "spiffe://d/".len()));
        assert!(parse(&of_bytes(2048)).is_ok());
        assert_eq!(parse(&of_bytes(2049)), Err(InvalidPrincipal::TooLong));
    }

    #[test]
    fn a_principal_knows_its_trust_domain() {
        let principal = parse("spiffe://example.com/ns/billing").unwrap();
        assert_eq!(principal.trust_domain(), "example.com");
    }

    #[test]
    fn a_clone_shares_the_text() {
        let principal = parse("spiffe://example.com/billing").unwrap();
        assert!(std::ptr::eq(principal.as_str(), principal.clone().as_str()));
    }
}
