//! An issuer of bearer tokens, from the settings: which of its tokens are taken, and whom they stand for.
//!
//! ```toml
//! [[issuer]]
//! issuer = "https://idp.example.com"               # the `iss` claim, exactly
//! audiences = ["kms.example.com"]                  # `aud` must hold one of them
//! algorithms = ["RS256", "ES256", "EdDSA"]         # no others
//! jwks_file = "jwks.json"                          # or jwks_url, with optional jwks_ca_file
//! principal = "spiffe://example.com/people/{sub}"  # kind = "kubernetes": {namespace} and {name}
//! certificate = "same"                             # or a list of principals, or "any"
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;

use crate::noun::Principal;
use crate::noun::principal::InvalidPrincipal;

/// The most issuers.
pub const ISSUERS_MAX: usize = 64;
/// The longest claim or name that is compared, in bytes.
const TEXT_BYTES_MAX: usize = 512;
const LIST_MAX: usize = 1_000;
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// An issuer of tokens.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Form")]
pub struct IssuerSettings {
    /// The `iss` claim of its tokens.
    pub issuer: String,
    /// What `aud` must hold one of.
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub keys: KeySource,
    /// Whom a token stands for.
    pub naming: Naming,
    /// Who may present its tokens.
    pub presenter: Presenter,
    /// The values of `amr` that show more than one factor.
    pub mfa: Vec<String>,
    /// How far its clock may be from ours.
    pub clock_skew: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeySource {
    /// In a file, which is read at the start and at each reload.
    File(PathBuf),
    /// Where the issuer serves them, believed by these authorities or by those of the machine.
    Url(Uri, Option<PathBuf>),
}

/// How a principal is made of a subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Naming {
    is_kubernetes: bool,
    trust_domain: String,
    /// Segments of the path; what begins with a brace is filled in, as a whole.
    segments: Vec<String>,
}

/// Who may present a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Presenter {
    /// The holder of a certificate for the token's own principal.
    Same,
    /// The holder of a certificate for one of these, such as a gateway.
    These(Vec<Principal>),
    /// The holder of any certificate that is let in.
    Any,
}

/// An issuer that is not taken, with the rule it broke.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidIssuer {
    /// A text is empty, too long, or there are too many.
    #[error("`{0}` is empty or too long; write 1 to 512 bytes each, and at most 1000 of a list")]
    Text(&'static str),
    /// An algorithm that no token is taken with.
    #[error(
        "{0:?} is no algorithm for tokens here; write some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
    )]
    Algorithm(String),
    /// No place of keys, or two.
    #[error("an [[issuer]] has either `jwks_file` or `jwks_url`; `jwks_ca_file` goes with the latter")]
    Keys,
    /// Keys that anybody on the way could replace.
    #[error(
        "{0:?} is no https URL; write one such as https://idp.example.com/keys, without user, query of secrets or fragment"
    )]
    Url(String),
    /// A kind that is none.
    #[error("{0:?} is no kind of issuer; leave it out, or write kind = \"kubernetes\"")]
    Kind(String),
    /// A template without what it is filled with.
    #[error("the principal must have {0}, each as a whole segment of the path and once, and no other braces")]
    Template(&'static str),
    /// A template that gives no principals, or a name of a list that is none.
    #[error("bad principal: {0}; write a SPIFFE ID, as spiffe://example.com/people/{{sub}}")]
    Principal(#[from] InvalidPrincipal),
    /// A rule for certificates that is none.
    #[error("certificate = {0:?} is no rule; write \"same\", \"any\", or a list of principals")]
    Certificate(String),
    /// A clock skew that is none, or too much.
    #[error("{0:?} is no clock skew; write a time from 0 s to 5 m, such as \"60 s\"")]
    ClockSkew(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<String>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    jwks_ca_file: Option<PathBuf>,
    kind: Option<String>,
    principal: String,
    certificate: CertificateForm,
    mfa: Option<Vec<String>>,
    clock_skew: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CertificateForm {
    Word(String),
    List(Vec<String>),
}

/// The fields of the table, for who misspells one.
pub const FIELDS: [&str; 11] = [
    "issuer",
    "audiences",
    "algorithms",
    "jwks_file",
    "jwks_url",
    "jwks_ca_file",
    "kind",
    "principal",
    "certificate",
    "mfa",
    "clock_skew",
];

impl TryFrom<Form> for IssuerSettings {
    type Error = InvalidIssuer;

    fn try_from(form: Form) -> Result<Self, InvalidIssuer> {
        let is_text = |text: &String| (1..=TEXT_BYTES_MAX).contains(&text.len());
        let is_list = |list: &[String]| (1..=LIST_MAX).contains(&list.len()) && list.iter().all(is_text);
        if !is_text(&form.issuer) {
            return Err(InvalidIssuer::Text("issuer"));
        }
        if !is_list(&form.audiences) {
            return Err(InvalidIssuer::Text("audiences"));
        }
        if !is_list(&form.algorithms) {
            return Err(InvalidIssuer::Text("algorithms"));
        }
        let keys = match (form.jwks_file, form.jwks_url, form.jwks_ca_file) {
            (Some(file), None, None) => KeySource::File(file),
            (None, Some(url), ca) => KeySource::Url(https_url(&url)?, ca),
            (Some(_), _, _) | (None, None, _) => return Err(InvalidIssuer::Keys),
        };
        let presenter = match form.certificate {
            CertificateForm::Word(word) => match &*word {
                "same" => Presenter::Same,
                "any" => Presenter::Any,
                _ => return Err(InvalidIssuer::Certificate(word)),
            },
            CertificateForm::List(list) if !is_list(&list) => return Err(InvalidIssuer::Text("certificate")),
            CertificateForm::List(list) => {
                Presenter::These(list.iter().map(|name| name.parse()).collect::<Result<_, _>>()?)
            }
        };
        let mfa = form.mfa.unwrap_or_else(|| vec!["mfa".to_owned()]);
        if mfa.len() > LIST_MAX || !mfa.iter().all(is_text) {
            return Err(InvalidIssuer::Text("mfa"));
        }
        let is_kubernetes = match form.kind.as_deref() {
            None => false,
            Some("kubernetes") => true,
            Some(other) => return Err(InvalidIssuer::Kind(other.to_owned())),
        };
        Ok(Self {
            issuer: form.issuer,
            audiences: form.audiences,
            algorithms: form.algorithms.iter().map(|name| algorithm(name)).collect::<Result<_, _>>()?,
            keys,
            naming: Naming::read(&form.principal, is_kubernetes)?,
            presenter,
            mfa,
            clock_skew: form.clock_skew.as_deref().map_or(Ok(CLOCK_SKEW_DEFAULT), clock_skew)?,
        })
    }
}

// A shared secret is no way to tell who signed: whoever verifies could have.
fn algorithm(name: &str) -> Result<Algorithm, InvalidIssuer> {
    let known: Option<Algorithm> = name.parse().ok();
    let known = known.filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac);
    known.ok_or_else(|| InvalidIssuer::Algorithm(name.to_owned()))
}

fn https_url(text: &str) -> Result<Uri, InvalidIssuer> {
    let uri: Option<Uri> = if text.len() <= TEXT_BYTES_MAX { text.parse().ok() } else { None };
    let is_https = |uri: &Uri| {
        uri.scheme_str() == Some("https")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    uri.filter(is_https).ok_or_else(|| InvalidIssuer::Url(text.chars().take(TEXT_BYTES_MAX).collect()))
}

fn clock_skew(text: &str) -> Result<Duration, InvalidIssuer> {
    let skew = text.parse::<jiff::SignedDuration>().ok().and_then(|skew| Duration::try_from(skew).ok());
    skew.filter(|skew| *skew <= CLOCK_SKEW_MAX).ok_or_else(|| InvalidIssuer::ClockSkew(text.to_owned()))
}

const CLOCK_SKEW_DEFAULT: Duration = Duration::from_secs(60);

impl IssuerSettings {
    /// Takes paths as relative to a folder.
    pub fn relative_to(mut self, base: &Path) -> Self {
        match &mut self.keys {
            KeySource::File(path) | KeySource::Url(_, Some(path)) => *path = base.join(&*path),
            KeySource::Url(_, None) => {}
        }
        self
    }

    /// Returns the file that it names, if any.
    pub fn file(&self) -> Option<&Path> {
        match &self.keys {
            KeySource::File(path) | KeySource::Url(_, Some(path)) => Some(path),
            KeySource::Url(_, None) => None,
        }
    }
}

impl Naming {
    fn read(template: &str, is_kubernetes: bool) -> Result<Self, InvalidIssuer> {
        let wanted: &[&str] = if is_kubernetes { &[NAMESPACE, NAME] } else { &[SUB] };
        let said = if is_kubernetes { "{namespace} and {name}" } else { "{sub}" };
        let segments: Vec<String> = template.split('/').skip(3).map(str::to_owned).collect();
        let filled = wanted.iter().fold(template.to_owned(), |text, hole| text.replace(hole, "x"));
        // A hole is a whole segment: else two subjects could be written into one name in two ways.
        let is_whole = |hole: &&str| segments.iter().filter(|segment| segment == hole).count() == 1;
        let braces = wanted.len() * 2;
        if !wanted.iter().all(is_whole) || template.matches(['{', '}']).count() != braces {
            return Err(InvalidIssuer::Template(said));
        }
        let trust_domain = filled.parse::<Principal>()?.trust_domain().to_owned();
        Ok(Self { is_kubernetes, trust_domain, segments })
    }

    /// Returns the principal of a subject, if there is one.
    pub(super) fn principal(&self, sub: &str) -> Option<Principal> {
        let holes: Vec<(&str, &str)> = if self.is_kubernetes {
            let (namespace, name) = sub.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
            vec![(NAMESPACE, namespace), (NAME, name)]
        } else {
            vec![(SUB, sub)]
        };
        if !holes.iter().all(|(_, filling)| is_segment(filling)) {
            return None;
        }
        let filled = self.segments.iter().map(|segment| {
            holes.iter().find(|(hole, _)| hole == segment).map_or(segment.as_str(), |(_, filling)| filling)
        });
        format!("spiffe://{}/{}", self.trust_domain, filled.collect::<Vec<_>>().join("/")).parse().ok()
    }
}

/// What a subject may be made of. Nothing of it is ever replaced or left out: two subjects would be one principal.
fn is_segment(text: &str) -> bool {
    let of_segment = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=SUB_BYTES_MAX).contains(&text.len()) && text.bytes().all(of_segment) && !text.bytes().all(|b| b == b'.')
}

const SUB: &str = "{sub}";
const NAMESPACE: &str = "{namespace}";
const NAME: &str = "{name}";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// The longest subject, or part of one, in bytes.
const SUB_BYTES_MAX: usize = 255;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reads an issuer as the settings would.
    pub fn issuer(text: &str) -> Result<IssuerSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    const GOOD: &str = r#"
        issuer = "https://idp.example.com"
        audiences = ["kms"]
        algorithms = ["ES256"]
        jwks_file = "jwks.json"
        principal = "spiffe://example.com/people/{sub}"
        certificate = "same"
    "#;

    #[test]
    fn an_issuer_with_a_mistake_is_refused_with_its_reason() {
        let good = issuer(GOOD).unwrap();
        assert_eq!((good.clock_skew, &good.mfa[..]), (Duration::from_secs(60), &["mfa".to_owned()][..]));
        for (from, to, why) in [
            ("\"ES256\"", "\"HS256\"", "\"HS256\" is no algorithm for tokens"),
            ("\"ES256\"", "\"none\"", "\"none\" is no algorithm for tokens"),
            ("[\"ES256\"]", "[]", "`algorithms` is empty"),
            ("[\"kms\"]", "[]", "`audiences` is empty"),
            ("\"kms\"", "\"\"", "`audiences` is empty"),
            ("jwks_file = \"jwks.json\"", "", "either `jwks_file` or `jwks_url`"),
            ("jwks_file =", "jwks_url = \"https://a/b\"\njwks_file =", "either `jwks_file` or `jwks_url`"),
            ("jwks_file = \"jwks.json\"", "jwks_url = \"http://a/b\"", "is no https URL"),
            ("jwks_file = \"jwks.json\"", "jwks_url = \"https://u:p@a/b\"", "is no https URL"),
            ("jwks_file = \"jwks.json\"", "jwks_url = \"/b\"", "is no https URL"),
            ("jwks_file =", "jwks_ca_file = \"a\"\njwks_file =", "either `jwks_file` or `jwks_url`"),
            ("people/{sub}", "people", "the principal must have {sub}"),
            ("people/{sub}", "people-{sub}", "as a whole segment"),
            ("people/{sub}", "{sub}/{sub}", "and once"),
            ("people/{sub}", "{sub}/{name}", "no other braces"),
            ("example.com/people/{sub}", "{sub}/people", "as a whole segment"),
            ("example.com/people", "Example.com/people", "bad principal: a trust domain"),
            ("spiffe://", "https://", "bad principal"),
            ("\"same\"", "\"some\"", "is no rule"),
            ("\"same\"", "[]", "`certificate` is empty"),
            ("\"same\"", "[\"gateway\"]", "bad principal"),
            ("certificate =", "clock_skew = \"6 m\"\ncertificate =", "is no clock skew"),
            ("certificate =", "clock_skew = \"-1 s\"\ncertificate =", "is no clock skew"),
            ("certificate =", "kind = \"github\"\ncertificate =", "is no kind of issuer"),
            ("certificate =", "kind = \"kubernetes\"\ncertificate =", "must have {namespace} and {name}"),
            ("certificate =", "secret = \"x\"\ncertificate =", "unknown field `secret`"),
            ("certificate = \"same\"", "", "missing field `certificate`"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let told = issuer(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(told.contains(why), "{to}: {told}");
        }
        // What is offered where a field is misspelt is what there is.
        let all = issuer(&format!("{GOOD}\nx = 1")).unwrap_err();
        assert!(FIELDS.iter().all(|field| all.contains(&format!("`{field}`"))), "{all}");
    }
}
