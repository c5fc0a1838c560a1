//! The certificate matrix: every kind of client certificate, and what it is good for. Trust bundles among them: which
//! authority vouches for whose names.

use anyhow::{Result, ensure};
use kms_proto::v1::GetCallerIdentityRequest;
use kms_tests::{Authority, Identity, Site};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, SanType, date_time_ymd};
use tonic::Code;

use crate::reload::reload;
use crate::{Expected, World};

/// What a certificate is good for.
enum Good {
    For(String),
    /// TLS lets it in, and it names nobody.
    Nobody,
    /// TLS does not let it in.
    No,
}

const IDENTITIES: &str = r#"
[[identity]]
dns = "billing.internal"
principal = "spiffe://test.example/billing"
[[identity]]
cn = "Backup job"
principal = "spiffe://test.example/backup"

[[trust_domain]]
name = "partner.example"
ca_file = "partner.pem"
crl_files = ["partner.crl"]
"#;

fn uri(text: &str) -> Result<SanType> {
    Ok(SanType::URI(text.try_into()?))
}

fn dns(text: &str) -> Result<SanType> {
    Ok(SanType::DnsName(text.try_into()?))
}

fn of(san: Vec<SanType>) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.subject_alt_names = san
}

async fn judge(expected: &mut Expected, world: &World, what: &str, identity: &Identity, good: &Good) -> Result<()> {
    let got = world.daemon.caller_with(Some(identity))?.ask(GetCallerIdentityRequest {}).await;
    let (right, wanted) = match good {
        Good::For(principal) => (got.as_ref().is_ok_and(|me| me.principal == *principal), principal.as_str()),
        Good::Nobody => {
            let is_nobody = got.as_ref().is_err_and(|no| no.code == Code::Unauthenticated && no.is("NO_IDENTITY"));
            (is_nobody, "NO_IDENTITY")
        }
        Good::No => (got.as_ref().is_err_and(|no| no.reason.is_none()), "no connection"),
    };
    expected.row(right, what, wanted, &format!("{got:?}"));
    Ok(())
}

#[tokio::test]
async fn every_kind_of_certificate_is_good_for_what_it_says_and_no_more() -> Result<()> {
    let (site, partner, foreign) = (Site::temporary()?, Authority::new()?, Authority::new()?);
    site.write("partner.pem", &partner.pem())?;
    site.write("partner.crl", &partner.revocation_list(&[67])?)?;
    site.write("ours.crl", &site.authority().revocation_list(&[66])?)?;
    site.change_settings("client_ca_file = \"ca.pem\"", "client_ca_file = \"ca.pem\"\ncrl_files = [\"ours.crl\"]")?;
    site.write("kms.toml", &(site.read("kms.toml")? + IDENTITIES))?;
    let world = World::at(site).await?;
    let site = world.daemon.site();
    let (ours, app) = (site.authority(), site.principal("app"));
    let theirs = "spiffe://partner.example/app";
    let known = |principal: &str| Good::For(principal.to_owned());
    let mapped = dns("billing.internal")?;
    let two = vec![uri(&app)?, uri(&site.principal("other"))?];
    let with_theirs = vec![uri(&app)?, uri(theirs)?];
    let cases: Vec<(&str, Identity, Good)> = vec![
        ("one SPIFFE ID", ours.client(&app)?, known(&app)),
        ("with a DNS name beside", ours.client_with(of(vec![uri(&app)?, mapped.clone()]))?, known(&app)),
        ("two SPIFFE IDs", ours.client_with(of(two))?, Good::Nobody),
        ("the same one twice", ours.client_of(&[&app, &app])?, Good::Nobody),
        ("another URI beside", ours.client_of(&[&app, "https://x.example/"])?, Good::Nobody),
        ("a SPIFFE ID that is none", ours.client_of(&["spiffe://Test.example/app"])?, Good::Nobody),
        ("no name", ours.client_of(&[])?, Good::Nobody),
        ("a mapped DNS name", ours.client_with(of(vec![mapped.clone()]))?, known("spiffe://test.example/billing")),
        ("a wildcard over it", ours.client_with(of(vec![dns("*.internal")?]))?, Good::Nobody),
        ("a name below it", ours.client_with(of(vec![dns("a.billing.internal")?]))?, Good::Nobody),
        (
            "a mapped common name",
            ours.client_with(|params| params.distinguished_name.push(DnType::CommonName, "Backup job"))?,
            known("spiffe://test.example/backup"),
        ),
        (
            "one in other letters",
            ours.client_with(|params| params.distinguished_name.push(DnType::CommonName, "backup job"))?,
            Good::Nobody,
        ),
        ("for servers", ours.server_with(&app)?, Good::No),
        (
            "for code",
            ours.client_with(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            })?,
            Good::No,
        ),
        ("expired", ours.expired_client(&app)?, Good::No),
        ("not valid yet", ours.client_with(|params| params.not_before = date_time_ymd(4000, 1, 1))?, Good::No),
        ("revoked", ours.client_numbered(&app, 66)?, Good::No),
        ("with the serial of another authority's revoked one", ours.client_numbered(&app, 67)?, known(&app)),
        ("of an unknown authority", foreign.client(&app)?, Good::No),
        (
            "an authority's own",
            ours.client_with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))?,
            Good::No,
        ),
        // Trust domains.
        ("a partner's by its authority", partner.client(theirs)?, known(theirs)),
        ("a partner's by ours", ours.client(theirs)?, Good::No),
        ("ours by the partner's authority", partner.client(&app)?, Good::No),
        (
            "a third domain's by ours",
            ours.client("spiffe://a.partner.example/x")?,
            known("spiffe://a.partner.example/x"),
        ),
        ("a third domain's by the partner's", partner.client("spiffe://a.partner.example/x")?, Good::No),
        ("a partner's, revoked", partner.client_numbered(theirs, 67)?, Good::No),
        ("a mapped DNS name by the partner's authority", partner.client_with(of(vec![mapped]))?, Good::No),
        ("no name by the partner's authority", partner.client_of(&[])?, Good::No),
        ("two names by the partner's authority", partner.client_with(of(with_theirs.clone()))?, Good::No),
        ("two names by ours, one the partner's", ours.client_with(of(with_theirs))?, Good::Nobody),
    ];
    let mut expected = Expected::of("certificates");
    for (what, identity, good) in &cases {
        judge(&mut expected, &world, what, identity, good).await?;
    }
    // Who is connected when his bundle changes is asked again.
    let partners = world.daemon.caller_with(Some(&partner.client(theirs)?))?;
    partners.ask(GetCallerIdentityRequest {}).await?;
    // A list that another has signed says nothing of who was revoked, and nothing is let in by it.
    site.write("partner.crl", &foreign.revocation_list(&[])?)?;
    reload(&world.daemon).await?;
    let got = partners.ask(GetCallerIdentityRequest {}).await;
    expected.row(got.is_err(), "connected, when the list is another's", "no success", &format!("{got:?}"));
    judge(&mut expected, &world, "with a list of another authority", &partner.client(theirs)?, &Good::No).await?;
    judge(&mut expected, &world, "another domain's meanwhile", &ours.client(&app)?, &known(&app)).await?;
    // Without a bundle of its own it is a domain as all others.
    site.write("kms.toml", site.read("kms.toml")?.split("[[trust_domain]]").next().unwrap_or_default())?;
    reload(&world.daemon).await?;
    judge(&mut expected, &world, "a partner's by ours, without a bundle", &ours.client(theirs)?, &known(theirs))
        .await?;
    judge(&mut expected, &world, "a partner's by its own, without one", &partner.client(theirs)?, &Good::No).await?;
    expected.check();
    ensure!(site.output().text().contains(r#""changed":"authorities""#));
    world.finish().await
}
