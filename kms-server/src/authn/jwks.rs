//! The public keys of an issuer of tokens: a JWK set (RFC 7517), from a file or from where the issuer serves it.
//!
//! Bytes in, keys out. A key that cannot be used here is left out and told of, since issuers publish keys for others
//! too; a set that cannot be read at all is an error.

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;

use crate::crypto::token_signature;

/// The largest set, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// The most keys of a set.
pub const KEYS_MAX: usize = 100;
/// The longest id of a key, in bytes.
pub const KID_BYTES_MAX: usize = 255;

/// The keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    kid: Option<Box<str>>,
    /// The algorithms that it may be used with; one alone where it says so.
    fits: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why bytes are no set of keys.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidKeySet {
    /// More than [`JWKS_BYTES_MAX`].
    #[error("it has more than 262144 bytes")]
    TooLarge,
    /// It is not what RFC 7517 says.
    #[error("it is no JWK set: {0}")]
    Form(String),
    /// More than [`KEYS_MAX`].
    #[error("it has {0} keys; at most 100 are taken")]
    TooMany(usize),
    /// None of its keys is of use.
    #[error("none of its {0} keys can verify a token here")]
    NoneFits(usize),
}

#[derive(Deserialize)]
struct Form {
    keys: Vec<serde_json::Value>,
}

/// What of a key matters here. Other members are left alone.
#[derive(Deserialize)]
struct KeyForm {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    use_: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set. Returns it with a sentence for each key that was left out.
    pub fn read(bytes: &[u8]) -> Result<(Self, Vec<String>), InvalidKeySet> {
        token_signature::install();
        if bytes.len() > JWKS_BYTES_MAX {
            return Err(InvalidKeySet::TooLarge);
        }
        // The parser's message may quote what it found, and only says where it is.
        let form: Form = serde_json::from_slice(bytes).map_err(|error| {
            InvalidKeySet::Form(format!(
                "not JSON with a list `keys`, at line {} column {}",
                error.line(),
                error.column()
            ))
        })?;
        let count = form.keys.len();
        if count > KEYS_MAX {
            return Err(InvalidKeySet::TooMany(count));
        }
        let (mut keys, mut left_out) = (Vec::<Key>::new(), Vec::new());
        for (number, value) in form.keys.into_iter().enumerate() {
            let key = match read_key(value) {
                Ok(key) => key,
                Err(why) => {
                    left_out.push(format!("key {} of it is left out: {why}", number + 1));
                    continue;
                }
            };
            if key.kid.is_some() && keys.iter().any(|other| other.kid == key.kid) {
                left_out.push(format!("key {} of it is left out: another has the same kid", number + 1));
                continue;
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(InvalidKeySet::NoneFits(count));
        }
        Ok((Self { keys }, left_out))
    }

    /// Returns a set without keys: no token is of it.
    pub(super) fn empty() -> Self {
        Self { keys: Vec::new() }
    }

    /// Returns the key that a token names, or the only one where it names none. It may still be for another algorithm.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<Found<'_>> {
        let key = match (kid, &self.keys[..]) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            (None, [one]) => Some(one),
            (None, _) => None,
        };
        key.map(Found)
    }
}

/// A key that was found.
pub(super) struct Found<'a>(&'a Key);

impl Found<'_> {
    /// Returns the key, if it is for this algorithm.
    pub(super) fn for_algorithm(&self, algorithm: Algorithm) -> Option<&DecodingKey> {
        self.0.fits.contains(&algorithm).then_some(&self.0.key)
    }
}

fn read_key(value: serde_json::Value) -> Result<Key, &'static str> {
    let form: KeyForm = serde_json::from_value(value).map_err(|_| "it is not well-formed")?;
    if form.use_.as_deref().is_some_and(|use_| use_ != "sig") {
        return Err("it is not for signatures (`use`)");
    }
    if form.key_ops.is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("it is not for verifying (`key_ops`)");
    }
    if form.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX) {
        return Err("its kid is empty or longer than 255 bytes");
    }
    let part = |part: &Option<String>, bytes: std::ops::RangeInclusive<usize>| {
        let decoded = part.as_deref().and_then(decode).filter(|decoded| bytes.contains(&decoded.len()));
        decoded.ok_or("a part of it is missing or of a wrong length")
    };
    let (key, fits) = match (&*form.kty, form.crv.as_deref()) {
        ("RSA", None) => {
            let (n, e) = (part(&form.n, RSA_BYTES)?, part(&form.e, 1..=8)?);
            // Some issuers put zeros before, which the verifier does not take.
            let [n, e] = [&n, &e].map(|part| &part[part.iter().take_while(|byte| **byte == 0).count()..]);
            (DecodingKey::from_rsa_raw_components(n, e), AlgorithmFamily::Rsa.algorithms().to_vec())
        }
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (bytes, algorithm) = if curve == "P-256" { (32, Algorithm::ES256) } else { (48, Algorithm::ES384) };
            let (x, y) = (part(&form.x, bytes..=bytes)?, part(&form.y, bytes..=bytes)?);
            (DecodingKey::from_ec_der(&[&[4][..], &x, &y].concat()), vec![algorithm])
        }
        ("OKP", Some("Ed25519")) => (DecodingKey::from_ed_der(&part(&form.x, 32..=32)?), vec![Algorithm::EdDSA]),
        _ => return Err("keys of its kind are not known here (`kty`, `crv`)"),
    };
    let fits = match form.alg {
        None => fits,
        Some(alg) => {
            let named: Option<Algorithm> = alg.parse().ok();
            let named = named.filter(|alg| fits.contains(alg)).ok_or("its `alg` is none of its kind of key")?;
            vec![named]
        }
    };
    Ok(Key { kid: form.kid.map(Into::into), fits, key })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}

/// 2048 to 8192 bits; one byte more for the zero that some put before.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(usize, Vec<String>), InvalidKeySet> {
        KeySet::read(text.as_bytes()).map(|(set, left_out)| (set.keys.len(), left_out))
    }

    fn ed(kid: &str) -> String {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{}"}}"#, "A".repeat(43))
    }

    #[test]
    fn keys_that_cannot_be_used_are_left_out_and_told_of() {
        let (one, two) = (ed("a"), ed("b"));
        let others = [
            one.clone(),
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.into(),
            r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#.into(),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(),
            r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#.into(),
            one.replace("\"kid\":\"a\"", "\"kid\":\"c\",\"use\":\"enc\""),
            one.replace("\"kid\":\"a\"", "\"kid\":\"d\",\"alg\":\"HS256\""),
            one.replace("\"kid\":\"a\"", "\"kid\":\"e\",\"key_ops\":[\"sign\"]"),
            one.replace("\"kid\":\"a\"", "\"kid\":\"\""),
            "7".into(),
        ];
        let (count, left_out) = read(&format!("{{\"keys\":[{one},{two},{}]}}", others.join(","))).unwrap();
        assert_eq!((count, left_out.len()), (2, others.len()), "{left_out:#?}");
        assert!(left_out[0].ends_with("key 3 of it is left out: another has the same kid"), "{left_out:?}");
    }

    #[test]
    fn what_is_no_set_of_keys_is_refused() {
        let many = format!("{{\"keys\":[{}]}}", (0..101).map(|n| ed(&n.to_string())).collect::<Vec<_>>().join(","));
        assert_eq!(read(&many), Err(InvalidKeySet::TooMany(101)));
        assert_eq!(read("{\"keys\":[]}"), Err(InvalidKeySet::NoneFits(0)));
        assert_eq!(read("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"), Err(InvalidKeySet::NoneFits(1)));
        assert_eq!(KeySet::read(&vec![b' '; JWKS_BYTES_MAX + 1]).map(drop), Err(InvalidKeySet::TooLarge));
        for text in ["", "[]", "{}", "<html>", "{\"keys\":7}"] {
            assert!(matches!(read(text), Err(InvalidKeySet::Form(_))), "{text}");
        }
    }
}
