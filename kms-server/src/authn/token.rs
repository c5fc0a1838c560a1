//! One bearer token: a signed JWT (RFC 7519) becomes what its issuer says of its holder, or a word of why not.
//!
//! Pure: the token, its issuer's rules, keys and the time come in. Not here: who presents it, and what was verified
//! before; see `issuers`.
//!
//! **Invariant:** nothing of a token is in an error. (`the_token_matrix`)

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::issuer::IssuerSettings;
use super::jwks::KeySet;
use crate::noun::{Principal, Strength, UnixMillis};

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How long a token may be good for, in seconds: nobody can take one back.
const LIFETIME_SECONDS_MAX: f64 = 24.0 * 3600.0;

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidToken {
    /// More than one `authorization` header.
    #[error("there are several authorization headers: send one, with one token")]
    SeveralHeaders,
    /// Another scheme, or a header that is none.
    #[error("the authorization header is not `Bearer` and a token")]
    Scheme,
    /// More than [`TOKEN_BYTES_MAX`].
    #[error("the token has more than 8192 bytes: have one issued with fewer claims")]
    TooLong,
    /// It is no signed JWT, or one without what every token must have.
    #[error("the token is malformed: send a signed JWT with alg, iss, aud, exp and sub, as its issuer made it")]
    Malformed,
    /// It is a JWT for something else.
    #[error("the token is of another type: send one whose typ is JWT or at+jwt")]
    Type,
    /// It asks for something that is not done here.
    #[error("the token has a `crit` header, and none is understood here")]
    Critical,
    /// It is signed in a way that is not allowed to its issuer, or does not fit the key.
    #[error("the token's algorithm is not one that its issuer may use here, or not one of its key")]
    Algorithm,
    /// Nobody here knows who issued it.
    #[error("the token's issuer is not one that is configured here")]
    Issuer,
    /// The issuer's keys could not be had.
    #[error("the keys of the token's issuer are not known yet: try again, and see the server's log")]
    NoKeys,
    /// Its issuer has no such key.
    #[error("the token's key is not known: get a new token from its issuer")]
    Key,
    /// The signature is not of this key over these bytes.
    #[error("the token's signature is not right")]
    Signature,
    /// Its time is over.
    #[error("the token has expired: get a new one from its issuer")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet: see to the clocks of its issuer and of this server")]
    NotYetValid,
    /// It is good for too long.
    #[error("the token is good for more than 24 hours: have it issued for less")]
    Lifetime,
    /// It is for another service.
    #[error("the token is for another audience: get one for this service")]
    Audience,
    /// Its subject is nobody's name here.
    #[error(
        "the token's subject cannot be a principal: it has characters other than A-Z a-z 0-9 . _ -, or is no such account"
    )]
    Subject,
    /// Whoever presents it may not.
    #[error("the token may not be presented with this client certificate: use the certificate of its subject")]
    Presenter,
}

impl InvalidToken {
    /// All of them, each once.
    pub const ALL: [Self; 17] = [
        Self::SeveralHeaders,
        Self::Scheme,
        Self::TooLong,
        Self::Malformed,
        Self::Type,
        Self::Critical,
        Self::Algorithm,
        Self::Issuer,
        Self::NoKeys,
        Self::Key,
        Self::Signature,
        Self::Expired,
        Self::NotYetValid,
        Self::Lifetime,
        Self::Audience,
        Self::Subject,
        Self::Presenter,
    ];

    /// Returns a word for it, for metrics and the audit log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::SeveralHeaders => "several_headers",
            Self::Scheme => "scheme",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Type => "type",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::Issuer => "issuer",
            Self::NoKeys => "no_keys",
            Self::Key => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Lifetime => "lifetime",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::Presenter => "presenter",
        }
    }
}

/// Returns the token that a request carries, if it carries one.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, InvalidToken> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(InvalidToken::SeveralHeaders);
    }
    // Before anything of it is looked at.
    if value.len() > SCHEME.len() + TOKEN_BYTES_MAX {
        return Err(InvalidToken::TooLong);
    }
    let text = value.to_str().map_err(|_| InvalidToken::Scheme)?;
    let (scheme, token) = text.split_at_checked(SCHEME.len()).ok_or(InvalidToken::Scheme)?;
    if scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty() { Ok(Some(token)) } else { Err(InvalidToken::Scheme) }
}

const SCHEME: &str = "Bearer ";

/// A token whose parts were read, and nothing of it believed.
pub(super) struct Read<'a> {
    token: &'a str,
    header: Header,
    claims: Claims,
    algorithm: Algorithm,
}

/// What of the header matters. A member that is given twice is an error of the parser.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    #[serde(default)]
    amr: serde_json::Value,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// What a token shows once its signature and all of its claims are right.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) principal: Principal,
    /// [`Strength::TOKEN`], and more if it says so.
    pub(super) strength: Strength,
    /// When it is over.
    pub(super) until: UnixMillis,
}

impl<'a> Read<'a> {
    /// Takes it apart.
    pub(super) fn new(token: &'a str) -> Result<Self, InvalidToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken::TooLong);
        }
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let [header, claims, _] = parts[..] else { return Err(InvalidToken::Malformed) };
        let header: Header = part(header)?;
        if header.crit {
            return Err(InvalidToken::Critical);
        }
        let is_of_type = |typ: &String| TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ));
        if !header.typ.as_ref().is_none_or(is_of_type) {
            return Err(InvalidToken::Type);
        }
        let algorithm = header.alg.parse().map_err(|_| InvalidToken::Algorithm)?;
        Ok(Self { token, header, claims: part(claims)?, algorithm })
    }

    /// Returns who it says has issued it.
    pub(super) fn issuer(&self) -> &str {
        &self.claims.iss
    }

    /// Verifies it by the rules and the keys of that issuer.
    pub(super) fn verify(
        &self,
        issuer: &IssuerSettings,
        keys: &KeySet,
        now: UnixMillis,
    ) -> Result<Shown, InvalidToken> {
        if !issuer.algorithms.contains(&self.algorithm) {
            return Err(InvalidToken::Algorithm);
        }
        let key = keys.find(self.header.kid.as_deref()).ok_or(InvalidToken::Key)?;
        let key = key.for_algorithm(self.algorithm).ok_or(InvalidToken::Algorithm)?;
        let mut rules = Validation::new(self.algorithm);
        rules.set_issuer(&[&issuer.issuer]);
        rules.set_audience(&issuer.audiences);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are judged below, by our clock.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        jsonwebtoken::decode::<IgnoredAny>(self.token, key, &rules).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => InvalidToken::Signature,
            ErrorKind::InvalidAudience => InvalidToken::Audience,
            ErrorKind::InvalidIssuer => InvalidToken::Issuer,
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => InvalidToken::Algorithm,
            ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => InvalidToken::Audience,
            _ => InvalidToken::Malformed,
        })?;
        let until = self.check_times(issuer, now)?;
        let principal = issuer.naming.principal(&self.claims.sub).ok_or(InvalidToken::Subject)?;
        let amr = self.claims.amr.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        let has_factors = amr.into_iter().any(|method| issuer.mfa.iter().any(|shows| shows == method));
        let strength = if has_factors { Strength::TOKEN.and(Strength::MFA) } else { Strength::TOKEN };
        Ok(Shown { principal, strength, until })
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Bounded here.
    fn check_times(&self, issuer: &IssuerSettings, now: UnixMillis) -> Result<UnixMillis, InvalidToken> {
        let Claims { exp, nbf, iat, .. } = self.claims;
        if ![Some(exp), nbf, iat].into_iter().flatten().all(|time| (0.0..=SECONDS_MAX).contains(&time)) {
            return Err(InvalidToken::Malformed);
        }
        let (now, skew) = (now as f64 / 1000.0, issuer.clock_skew.as_secs_f64());
        if now >= exp + skew {
            return Err(InvalidToken::Expired);
        }
        if nbf.is_some_and(|nbf| nbf > now + skew) || iat.is_some_and(|iat| iat > now + skew) {
            return Err(InvalidToken::NotYetValid);
        }
        if exp - iat.unwrap_or(now) > LIFETIME_SECONDS_MAX || exp - now > LIFETIME_SECONDS_MAX + skew {
            return Err(InvalidToken::Lifetime);
        }
        Ok(((exp + skew) * 1000.0) as UnixMillis)
    }
}

fn part<T: for<'de> Deserialize<'de>>(encoded: &str) -> Result<T, InvalidToken> {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded);
    decoded.ok().and_then(|json| serde_json::from_slice(&json).ok()).ok_or(InvalidToken::Malformed)
}

const TYPES: [&str; 4] = ["JWT", "application/jwt", "at+jwt", "application/at+jwt"];
/// A time in the year 5138: no token is meant to have a later one.
const SECONDS_MAX: f64 = 1e11;
