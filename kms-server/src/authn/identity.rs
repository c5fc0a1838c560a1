//! From a client's certificate to its principal.
//!
//! The certificate was verified in the handshake: who signed it, for what, and for how long is not
//! asked here again.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::mapping::IdentityMapping;
use crate::noun::Principal;
use crate::noun::principal::InvalidPrincipal;

/// Why a certificate gives no principal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoIdentity {
    /// It is not one well-formed X.509 certificate.
    #[error("the certificate cannot be read")]
    Unparsable,
    /// It is an authority's: its SPIFFE ID would name the authority and not a workload.
    #[error("the certificate is an authority's, not a client's")]
    Authority,
    /// It has more than one SPIFFE ID, and which one is meant is not ours to say.
    #[error("the certificate has more than one spiffe:// URI")]
    SeveralSpiffe,
    /// It has a SPIFFE ID beside another URI, which the X.509-SVID specification forbids.
    #[error("the certificate has another URI beside its spiffe:// URI")]
    OtherUriBesideSpiffe,
    /// Its SPIFFE ID is not well formed.
    #[error("the certificate's spiffe:// URI is no principal: {0}")]
    InvalidSpiffe(InvalidPrincipal),
    /// It has no name that a principal could come from.
    #[error("the certificate has no spiffe:// URI, no DNS name and no common name")]
    NoSan,
    /// It has such names, but none is a SPIFFE ID and none is mapped.
    #[error("the certificate has no spiffe:// URI and none of its names is mapped")]
    Unmapped,
    /// Its names are mapped to different principals.
    #[error("the certificate's names are mapped to different principals")]
    Ambiguous,
    /// What is trusted has changed since its connection began, and it would not be let in any more.
    #[error("the certificate is not accepted any more")]
    NotAnymore,
}

impl NoIdentity {
    /// Returns a word for it, for metrics and the audit log.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unparsable => "unparsable",
            Self::Authority => "authority",
            Self::SeveralSpiffe => "several_spiffe",
            Self::OtherUriBesideSpiffe => "other_uri",
            Self::InvalidSpiffe(_) => "invalid_spiffe",
            Self::NoSan => "no_san",
            Self::Unmapped => "unmapped",
            Self::Ambiguous => "ambiguous",
            Self::NotAnymore => "not_anymore",
        }
    }
}

/// Returns the principal of a verified client certificate: its one SPIFFE ID, or else what the
/// mapping says of its DNS names and common names.
pub fn identify(cert_der: &[u8], mapping: &IdentityMapping) -> Result<Principal, NoIdentity> {
    let certificate = read(cert_der)?;
    if let Some(principal) = spiffe_of(&certificate)? {
        return Ok(principal);
    }
    let mut names: Vec<Option<&Principal>> = Vec::new();
    for name in san_of(&certificate)? {
        if let GeneralName::DNSName(name) = name {
            names.push(mapping.by_dns(name));
        }
    }
    let common_names = certificate.subject().iter_common_name();
    names.extend(common_names.map(|cn| cn.as_str().ok().and_then(|cn| mapping.by_cn(cn))));
    if names.is_empty() {
        return Err(NoIdentity::NoSan);
    }
    let mut mapped = names.into_iter().flatten();
    let principal = mapped.next().ok_or(NoIdentity::Unmapped)?;
    if mapped.all(|other| other == principal) { Ok(principal.clone()) } else { Err(NoIdentity::Ambiguous) }
}

/// Returns the one SPIFFE ID of a client's certificate, if it has one. What it is vouched for by depends on it.
pub(super) fn spiffe_id(cert_der: &[u8]) -> Result<Option<Principal>, NoIdentity> {
    spiffe_of(&read(cert_der)?)
}

fn read(cert_der: &[u8]) -> Result<X509Certificate<'_>, NoIdentity> {
    let Ok(([], certificate)) = X509Certificate::from_der(cert_der) else {
        return Err(NoIdentity::Unparsable);
    };
    let is_authority = certificate.basic_constraints().map_err(|_| NoIdentity::Unparsable)?;
    if is_authority.is_some_and(|extension| extension.value.ca) {
        return Err(NoIdentity::Authority);
    }
    Ok(certificate)
}

fn san_of<'a, 'b>(certificate: &'a X509Certificate<'b>) -> Result<&'a [GeneralName<'b>], NoIdentity> {
    let san = certificate.subject_alternative_name().map_err(|_| NoIdentity::Unparsable)?;
    Ok(san.map_or(&[][..], |extension| &extension.value.general_names))
}

fn spiffe_of(certificate: &X509Certificate<'_>) -> Result<Option<Principal>, NoIdentity> {
    let (mut spiffe, mut other_uris) = (Vec::new(), 0_usize);
    for name in san_of(certificate)? {
        match name {
            GeneralName::URI(uri) if is_spiffe(uri) => spiffe.push(*uri),
            GeneralName::URI(_) => other_uris += 1,
            // A name that cannot be read might be a second SPIFFE ID.
            GeneralName::Invalid(..) => return Err(NoIdentity::Unparsable),
            GeneralName::DNSName(_)
            | GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => {}
        }
    }
    match (&spiffe[..], other_uris) {
        ([], _) => Ok(None),
        ([uri], 0) => uri.parse().map(Some).map_err(NoIdentity::InvalidSpiffe),
        ([_], 1..) => Err(NoIdentity::OtherUriBesideSpiffe),
        ([_, _, ..], _) => Err(NoIdentity::SeveralSpiffe),
    }
}

// The scheme of a URI has no case: in any other spelling it is a SPIFFE ID too, though a bad one.
fn is_spiffe(uri: &str) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};

    use super::super::mapping::tests::mapping;
    use super::*;

    const BILLING: &str = "spiffe://example.com/billing";

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn params(san: &[SanType], cn: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = san.to_vec();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // A second entry of one type would replace the first: by its number it is another type.
        let types = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (of_type, cn) in types.into_iter().zip(cn) {
            params.distinguished_name.push(of_type, *cn);
        }
        params
    }

    fn der(params: CertificateParams) -> Vec<u8> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn of(san: &[SanType], cn: &[&str]) -> Result<String, NoIdentity> {
        let mapping = mapping(
            r#"
            [[identity]]
            dns = "billing.internal"
            principal = "spiffe://example.com/billing"
            [[identity]]
            dns = "billing-2.internal"
            principal = "spiffe://example.com/billing"
            [[identity]]
            dns = "shipping.internal"
            principal = "spiffe://example.com/shipping"
            [[identity]]
            cn = "Backup job"
            principal = "spiffe://example.com/backup"
            [[identity]]
            cn = "Billing"
            principal = "spiffe://example.com/billing"
            "#,
        );
        identify(&der(params(san, cn)), &mapping).map(|principal| principal.to_string())
    }

    #[test]
    fn the_one_spiffe_uri_is_the_principal() {
        assert_eq!(of(&[uri(BILLING)], &[]).as_deref(), Ok(BILLING));
        let among_others = [dns("shipping.internal"), uri(BILLING), dns("x")];
        assert_eq!(of(&among_others, &["Backup job"]).as_deref(), Ok(BILLING));
    }

    #[test]
    fn several_uris_with_a_spiffe_one_among_them_are_refused() {
        let other = uri("spiffe://example.com/shipping");
        assert_eq!(of(&[uri(BILLING), other.clone()], &[]), Err(NoIdentity::SeveralSpiffe));
        assert_eq!(of(&[uri(BILLING), uri(BILLING)], &[]), Err(NoIdentity::SeveralSpiffe));
        assert_eq!(of(&[uri(BILLING), uri("SPIFFE://x/y")], &[]), Err(NoIdentity::SeveralSpiffe));
        let mixed = [uri("https://example.com/"), uri(BILLING)];
        assert_eq!(of(&mixed, &[]), Err(NoIdentity::OtherUriBesideSpiffe));
    }

    #[test]
    fn a_malformed_spiffe_uri_is_refused_and_no_other_name_takes_its_place() {
        for bad in [
            "spiffe://example.com",
            "spiffe://example.com/billing/",
            "spiffe://example.com/a?b",
            "SPIFFE://example.com/billing",
            "spiffe:example.com/billing",
        ] {
            let refused = of(&[uri(bad), dns("billing.internal")], &["Billing"]);
            assert!(matches!(refused, Err(NoIdentity::InvalidSpiffe(_))), "{bad} {refused:?}");
        }
    }

    #[test]
    fn other_names_are_a_principal_only_by_the_mapping() {
        assert_eq!(of(&[dns("billing.internal")], &[]).as_deref(), Ok(BILLING));
        assert_eq!(of(&[dns("BILLING.internal")], &[]).as_deref(), Ok(BILLING));
        assert_eq!(of(&[], &["Backup job"]).as_deref(), Ok("spiffe://example.com/backup"));
        assert_eq!(of(&[uri("urn:x:y"), dns("billing.internal")], &[]).as_deref(), Ok(BILLING));
        for (san, cn) in [
            (&[dns("billing.external")][..], &[][..]),
            (&[dns("*.internal")], &[]),
            (&[dns("a.billing.internal")], &[]),
            (&[dns("Backup job")], &[]),
            (&[], &["billing.internal"]),
            (&[], &["backup job"]),
            (&[], &[BILLING]),
            (&[dns(BILLING)], &[]),
        ] {
            assert_eq!(of(san, cn), Err(NoIdentity::Unmapped), "{san:?} {cn:?}");
        }
    }

    #[test]
    fn a_certificate_without_names_has_no_identity() {
        assert_eq!(of(&[], &[]), Err(NoIdentity::NoSan));
        let others = [uri("https://example.com/"), SanType::IpAddress([10, 0, 0, 1].into())];
        assert_eq!(of(&others, &[]), Err(NoIdentity::NoSan));
    }

    #[test]
    fn names_that_are_mapped_to_different_principals_are_refused() {
        let same = [dns("billing.internal"), dns("other"), dns("billing-2.internal")];
        assert_eq!(of(&same, &["Billing"]).as_deref(), Ok(BILLING));
        let differ = [dns("billing.internal"), dns("shipping.internal")];
        assert_eq!(of(&differ, &[]), Err(NoIdentity::Ambiguous));
        assert_eq!(of(&[dns("billing.internal")], &["Backup job"]), Err(NoIdentity::Ambiguous));
        assert_eq!(of(&[], &["Billing", "Backup job"]), Err(NoIdentity::Ambiguous));
    }

    #[test]
    fn the_certificate_of_an_authority_is_refused() {
        let mut authority = params(&[uri(BILLING)], &[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let none = IdentityMapping::default();
        assert_eq!(identify(&der(authority.clone()), &none), Err(NoIdentity::Authority));
        authority.is_ca = IsCa::ExplicitNoCa;
        assert!(identify(&der(authority), &none).is_ok());
    }

    #[test]
    fn what_is_not_one_whole_certificate_is_refused() {
        let good = der(params(&[uri(BILLING)], &[]));
        let none = IdentityMapping::default();
        assert!(identify(&good, &none).is_ok());
        let with_a_byte_more = [&good[..], &[0]].concat();
        assert_eq!(identify(&with_a_byte_more, &none), Err(NoIdentity::Unparsable));
        for end in 0..good.len() {
            assert_eq!(identify(&good[..end], &none), Err(NoIdentity::Unparsable), "{end}");
        }
    }

    #[test]
    fn no_changed_byte_makes_another_principal_out_of_thin_air() {
        // The signature would not hold; what is tested is that nothing panics, and that a SAN
        // that can no longer be read does not fall through to the mapping.
        let good = der(params(&[uri(BILLING), dns("billing.internal")], &["Backup job"]));
        let mapping = mapping("[[identity]]\ncn = \"Backup job\"\nprincipal = \"spiffe://example.com/backup\"");
        let place = good.windows(BILLING.len()).position(|at| at == BILLING.as_bytes()).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut changed = good.clone();
                changed[at] ^= 1 << bit;
                let _ = identify(&changed, &mapping);
            }
        }
        let mut not_utf8 = good;
        not_utf8[place] = 0xff;
        assert_eq!(identify(&not_utf8, &mapping), Err(NoIdentity::Unparsable));
    }
}
