//! The token matrix: every kind of token that is taken, and many that are not, each with the word of why.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

use super::super::issuer::tests::issuer;
use super::super::token::{TOKEN_BYTES_MAX, bearer};
use super::*;
use crate::noun::Clock;

struct At(UnixMillis);

impl Clock for At {
    fn now(&self) -> UnixMillis {
        self.0
    }

    fn since_boot(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// In the middle of 2030.
const NOW: u64 = 1_909_000_000;

/// Keys of a test, and the issuers that know their public halves.
struct Site {
    folder: tempfile::TempDir,
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    random: SystemRandom,
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, random: &SystemRandom) -> EcdsaKeyPair {
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random).unwrap()
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Site {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's own keys")]
        let random = SystemRandom::new();
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            rsa: RsaKeyPair::from_pkcs8(include_bytes!("rsa_for_tests.der")).unwrap(),
            p256: ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
            p384: ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, &random),
            ed: Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap(),
            random,
        };
        let all = json!({"keys": [site.rsa_jwk("r"), site.p256_jwk("e"), site.p384_jwk(), site.ed_jwk()]});
        site.write("all.json", &all);
        site.write("one.json", &json!({"keys": [site.p256_jwk("e")]}));
        site
    }

    fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.folder.path().join(name), value.to_string()).unwrap();
    }

    fn rsa_jwk(&self, kid: &str) -> Value {
        let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        json!({"kty": "RSA", "use": "sig", "kid": kid, "n": text(&public.n), "e": text(&public.e)})
    }

    fn p256_jwk(&self, kid: &str) -> Value {
        let (x, y) = self.p256.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": text(x), "y": text(y)})
    }

    fn p384_jwk(&self) -> Value {
        let (x, y) = self.p384.public_key().as_ref()[1..].split_at(48);
        json!({"kty": "EC", "crv": "P-384", "kid": "f", "x": text(x), "y": text(y)})
    }

    fn ed_jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "o", "x": text(self.ed.public_key().as_ref())})
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &self.random, message, &mut signature).unwrap();
            signature
        };
        match alg {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.p256.sign(&self.random, message).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&self.random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            // Signed with what everybody has.
            "HS256" => {
                let public = URL_SAFE_NO_PAD.decode(self.rsa_jwk("r")["n"].as_str().unwrap()).unwrap();
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
                ring::hmac::sign(&key, message).as_ref().to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// A token of these parts, as they are, signed by the key of `by`.
    fn raw(&self, header: &str, claims: &str, by: &str) -> String {
        let message = format!("{}.{}", text(header.as_bytes()), text(claims.as_bytes()));
        let signature = text(&self.sign(by, message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A token of the usual claims, but for these; null takes one away.
    fn token(&self, alg: &str, kid: &str, other: Value) -> String {
        let header = json!({"typ": "JWT", "alg": alg, "kid": kid});
        self.raw(&header.to_string(), &claims(other).to_string(), alg)
    }

    fn issuers(&self) -> Issuers {
        let one = |name: &str, rest: &str| {
            let text = format!("issuer = \"https://{name}\"\naudiences = [\"kms\", \"kms-2\"]\n{rest}");
            issuer(&text).unwrap().relative_to(self.folder.path())
        };
        let people = "principal = \"spiffe://x/people/{sub}\"";
        let all = "algorithms = [\"RS256\", \"PS256\", \"ES256\", \"ES384\", \"EdDSA\"]\njwks_file = \"all.json\"";
        let settings = [
            one("idp", &format!("{people}\n{all}\ncertificate = \"same\"\nmfa = [\"mfa\", \"hwk\"]")),
            one(
                "rsa-only",
                &format!("{people}\nalgorithms = [\"RS256\"]\njwks_file = \"all.json\"\ncertificate = \"any\""),
            ),
            one(
                "one-key",
                &format!("{people}\nalgorithms = [\"ES256\"]\njwks_file = \"one.json\"\ncertificate = \"any\""),
            ),
            one("gateway", &format!("{people}\n{all}\ncertificate = [\"spiffe://x/gateway\", \"spiffe://x/proxy\"]")),
            one(
                "k8s",
                &format!(
                    "kind = \"kubernetes\"\nprincipal = \"spiffe://x/ns/{{namespace}}/sa/{{name}}\"\n{all}\ncertificate = \"any\""
                ),
            ),
        ];
        Issuers::read(&settings).unwrap()
    }
}

fn claims(other: Value) -> Value {
    let mut claims =
        json!({"iss": "https://idp", "aud": "kms", "sub": "ann", "exp": NOW + 600, "iat": NOW - 10, "nbf": NOW - 10});
    for (name, value) in other.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

const ANN: &str = "spiffe://x/people/ann";

fn shown(identified: &Result<Identified, NotIdentified>) -> String {
    match identified {
        Ok(identified) => format!("{} {}", identified.principal, identified.strength),
        Err(NotIdentified::Token(invalid)) => invalid.reason().to_owned(),
        Err(NotIdentified::Certificate(none)) => format!("certificate {}", none.reason()),
    }
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // A table.
async fn the_token_matrix() {
    let site = Site::new();
    let issuers = site.issuers();
    let es = |other: Value| site.token("ES256", "e", other);
    let of = |issuer: &str, other: Value| {
        let mut other = other;
        other["iss"] = json!(format!("https://{issuer}"));
        site.token("ES256", "e", other)
    };
    let header = |header: Value, by: &str| site.raw(&header.to_string(), &claims(json!({})).to_string(), by);
    let body = |text: &str| site.raw("{\"alg\":\"ES256\",\"kid\":\"e\"}", text, "ES256");
    let service_account = |name: &str| of("k8s", json!({"sub": format!("system:serviceaccount:{name}")}));
    let (good, ok) = (es(json!({})), "spiffe://x/people/ann certificate+token");
    let long = |bytes: usize| {
        // A claim that nobody asks for makes it as long as wanted.
        let before = es(json!({"x": ""})).len();
        es(json!({"x": "y".repeat((bytes - before) * 3 / 4)}))
    };
    let flipped = |token: &str, part: usize| {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let other = if parts[part].starts_with('A') { "B" } else { "A" };
        parts[part].replace_range(0..1, other);
        parts.join(".")
    };
    let payload_of_another = {
        let (a, b) = (es(json!({})), es(json!({"sub": "bob"})));
        let (a, b): (Vec<&str>, Vec<&str>) = (a.split('.').collect(), b.split('.').collect());
        format!("{}.{}.{}", a[0], b[1], a[2])
    };
    let text_of = |claims: Value| claims.to_string();
    let cases: Vec<(&str, String, Option<&str>, &str)> = vec![
        ("RS256", site.token("RS256", "r", json!({})), Some(ANN), ok),
        ("PS256", site.token("PS256", "r", json!({})), Some(ANN), ok),
        ("ES256", good.clone(), Some(ANN), ok),
        ("ES384", site.token("ES384", "f", json!({})), Some(ANN), ok),
        ("EdDSA", site.token("EdDSA", "o", json!({})), Some(ANN), ok),
        ("no typ", header(json!({"alg": "ES256", "kid": "e"}), "ES256"), Some(ANN), ok),
        ("an access token", header(json!({"alg": "ES256", "kid": "e", "typ": "at+JWT"}), "ES256"), Some(ANN), ok),
        ("a list of audiences", es(json!({"aud": ["other", "kms-2"]})), Some(ANN), ok),
        ("neither nbf nor iat", es(json!({"nbf": null, "iat": null})), Some(ANN), ok),
        ("times with a fraction", es(json!({"exp": NOW as f64 + 0.5, "iat": NOW as f64 - 0.5})), Some(ANN), ok),
        ("within the skew", es(json!({"exp": NOW - 59, "nbf": null, "iat": null})), Some(ANN), ok),
        ("early, within the skew", es(json!({"nbf": NOW + 59, "iat": NOW + 59})), Some(ANN), ok),
        ("as long as may be", long(TOKEN_BYTES_MAX - 8), Some(ANN), ok),
        (
            "no kid and one key",
            site.raw("{\"alg\":\"ES256\"}", &text_of(claims(json!({"iss": "https://one-key"}))), "ES256"),
            Some(ANN),
            ok,
        ),
        // Time.
        ("expired", es(json!({"exp": NOW - 60, "iat": NOW - 600})), Some(ANN), "expired"),
        ("expired long ago", es(json!({"exp": 1, "iat": 0, "nbf": 0})), Some(ANN), "expired"),
        ("nbf in the future", es(json!({"nbf": NOW + 61})), Some(ANN), "not_yet_valid"),
        ("iat in the future", es(json!({"iat": NOW + 61})), Some(ANN), "not_yet_valid"),
        ("good for two days", es(json!({"exp": NOW + 2 * 86_400})), Some(ANN), "lifetime"),
        ("good for a month, at its end", es(json!({"iat": NOW - 30 * 86_400})), Some(ANN), "lifetime"),
        ("exp at the end of time", es(json!({"exp": 1e300})), Some(ANN), "malformed"),
        ("a negative exp", es(json!({"exp": -1})), Some(ANN), "malformed"),
        ("exp as text", es(json!({"exp": "soon"})), Some(ANN), "malformed"),
        ("no exp", es(json!({"exp": null})), Some(ANN), "malformed"),
        // Claims.
        ("another audience", es(json!({"aud": "other"})), Some(ANN), "audience"),
        ("a list of other audiences", es(json!({"aud": ["other", "KMS", "kms "]})), Some(ANN), "audience"),
        ("no audience", es(json!({"aud": null})), Some(ANN), "audience"),
        ("an empty list of audiences", es(json!({"aud": []})), Some(ANN), "audience"),
        ("an audience that is a number", es(json!({"aud": 7})), Some(ANN), "audience"),
        ("another issuer", es(json!({"iss": "https://evil"})), Some(ANN), "issuer"),
        ("an issuer with a slash more", es(json!({"iss": "https://idp/"})), Some(ANN), "issuer"),
        ("a list of issuers", es(json!({"iss": ["https://idp"]})), Some(ANN), "malformed"),
        ("no issuer", es(json!({"iss": null})), Some(ANN), "malformed"),
        ("no sub", es(json!({"sub": null})), Some(ANN), "malformed"),
        ("two subs", body(&text_of(claims(json!({}))).replacen('{', "{\"sub\":\"bob\",", 1)), Some(ANN), "malformed"),
        // Signature and algorithm.
        ("none", header(json!({"alg": "none"}), ""), Some(ANN), "algorithm"),
        ("None", header(json!({"alg": "None", "kid": "e"}), ""), Some(ANN), "algorithm"),
        ("HS256 with the public key", site.token("HS256", "r", json!({})), Some(ANN), "algorithm"),
        ("no alg", header(json!({"kid": "e"}), "ES256"), Some(ANN), "malformed"),
        ("an algorithm not in the list", of("rsa-only", json!({})), Some(ANN), "algorithm"),
        ("an EC key for RS256", header(json!({"alg": "RS256", "kid": "e"}), "RS256"), Some(ANN), "algorithm"),
        ("an RSA key for ES256", header(json!({"alg": "ES256", "kid": "r"}), "ES256"), Some(ANN), "algorithm"),
        ("a P-384 key for ES256", header(json!({"alg": "ES256", "kid": "f"}), "ES256"), Some(ANN), "algorithm"),
        ("signed by another key", header(json!({"alg": "RS256", "kid": "r"}), "PS256"), Some(ANN), "signature"),
        ("an unknown kid", site.token("ES256", "new", json!({})), Some(ANN), "unknown_key"),
        ("no kid and several keys", header(json!({"alg": "ES256"}), "ES256"), Some(ANN), "unknown_key"),
        ("a changed signature", flipped(&good, 2), Some(ANN), "signature"),
        ("a changed claim", payload_of_another, Some(ANN), "signature"),
        ("no signature", format!("{}.", good.rsplit_once('.').unwrap().0), Some(ANN), "signature"),
        ("an expired one with a changed signature", flipped(&es(json!({"exp": 1})), 2), Some(ANN), "signature"),
        // Header.
        ("crit", header(json!({"alg": "ES256", "kid": "e", "crit": ["exp"]}), "ES256"), Some(ANN), "critical"),
        ("an empty crit", header(json!({"alg": "ES256", "kid": "e", "crit": null}), "ES256"), Some(ANN), "critical"),
        ("another type", header(json!({"alg": "ES256", "kid": "e", "typ": "logout+jwt"}), "ES256"), Some(ANN), "type"),
        (
            "two algs",
            site.raw("{\"alg\":\"none\",\"alg\":\"ES256\",\"kid\":\"e\"}", "{}", "ES256"),
            Some(ANN),
            "malformed",
        ),
        // Form.
        ("one byte", "x".into(), Some(ANN), "malformed"),
        ("dots", "..".into(), Some(ANN), "malformed"),
        ("two parts", good.rsplit_once('.').unwrap().0.to_owned(), Some(ANN), "malformed"),
        ("four parts", format!("{good}.x"), Some(ANN), "malformed"),
        ("torn", good[..good.len() / 2].to_owned(), Some(ANN), "malformed"),
        ("garbage", "!!!.###.$$$".into(), Some(ANN), "malformed"),
        ("with padding", good.replacen('.', "=.", 1), Some(ANN), "malformed"),
        ("no JSON", site.raw("header", "claims", "ES256"), Some(ANN), "malformed"),
        ("a list for claims", body("[1]"), Some(ANN), "malformed"),
        ("too long", long(TOKEN_BYTES_MAX + 200), Some(ANN), "too_long"),
        // Subject.
        ("a sub with a slash", of("one-key", json!({"sub": "a/b"})), None, "subject"),
        ("a sub of two dots", of("one-key", json!({"sub": ".."})), None, "subject"),
        ("a sub of three dots", of("one-key", json!({"sub": "..."})), None, "subject"),
        ("an empty sub", of("one-key", json!({"sub": ""})), None, "subject"),
        ("a sub with a space", of("one-key", json!({"sub": "ann "})), None, "subject"),
        ("a sub that is encoded", of("one-key", json!({"sub": "a%2fb"})), None, "subject"),
        ("a sub in other letters", of("one-key", json!({"sub": "änn"})), None, "subject"),
        ("a sub that is a template", of("one-key", json!({"sub": "{sub}"})), None, "subject"),
        ("a sub of 255 bytes", of("one-key", json!({"sub": "a".repeat(255)})), None, "LONG"),
        ("a sub of 256 bytes", of("one-key", json!({"sub": "a".repeat(256)})), None, "subject"),
        // Certificate.
        ("same, by another", good.clone(), Some("spiffe://x/people/bob"), "presenter"),
        ("same, by nobody", good.clone(), None, "presenter"),
        ("any, by another", of("one-key", json!({})), Some("spiffe://x/y"), "spiffe://x/people/ann token"),
        ("any, by nobody", of("one-key", json!({})), None, "spiffe://x/people/ann token"),
        ("any, by itself", of("one-key", json!({})), Some(ANN), ok),
        ("a list, by one of it", of("gateway", json!({})), Some("spiffe://x/gateway"), "spiffe://x/people/ann token"),
        ("a list, by the other", of("gateway", json!({})), Some("spiffe://x/proxy"), "spiffe://x/people/ann token"),
        ("a list, by another", of("gateway", json!({})), Some("spiffe://x/gateway2"), "presenter"),
        ("a list, by its own", of("gateway", json!({})), Some(ANN), "presenter"),
        ("a list, by nobody", of("gateway", json!({})), None, "presenter"),
        // Kubernetes.
        ("a service account", service_account("shop:web-1.0"), None, "spiffe://x/ns/shop/sa/web-1.0 token"),
        ("a service account with a colon", service_account("shop:web:x"), None, "subject"),
        ("a service account without a name", service_account("shop:"), None, "subject"),
        ("a service account of no namespace", service_account(":web"), None, "subject"),
        ("a service account of half a name", service_account("shop"), None, "subject"),
        ("a service account of dots", service_account("..:web"), None, "subject"),
        ("a service account with a slash", service_account("a/sa/b:c"), None, "subject"),
        ("a user of Kubernetes", of("k8s", json!({"sub": "system:node:web"})), None, "subject"),
        // Factors.
        ("mfa", es(json!({"amr": ["pwd", "mfa"]})), Some(ANN), "spiffe://x/people/ann certificate+token+mfa"),
        ("hwk", es(json!({"amr": ["hwk"]})), Some(ANN), "spiffe://x/people/ann certificate+token+mfa"),
        ("one factor", es(json!({"amr": ["pwd"]})), Some(ANN), ok),
        (
            "hwk, where it counts for nothing",
            of("one-key", json!({"amr": ["hwk"]})),
            None,
            "spiffe://x/people/ann token",
        ),
        ("amr that is no list", es(json!({"amr": "mfa"})), Some(ANN), ok),
        ("amr in other letters", es(json!({"amr": ["MFA", 7]})), Some(ANN), ok),
    ];
    let at = At(NOW * 1000);
    let mut wrong = Vec::new();
    for (what, token, certificate, expected) in &cases {
        let certificate = certificate.map(|name| name.parse().unwrap()).ok_or(NoIdentity::NoSan);
        let expected = expected.replace("LONG", &format!("spiffe://x/people/{} token", "a".repeat(255)));
        // Twice: what is remembered says the same as what was verified.
        for _ in 0..2 {
            let got = shown(&issuers.identify(&certificate, Some(token), &at).await);
            if got != expected {
                wrong.push(format!("{what}: {got}, expected {expected}"));
            }
        }
    }
    println!("jwt: {}/{} as expected", cases.len() - wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn what_was_verified_is_over_when_it_is_over() {
    let site = Site::new();
    let issuers = site.issuers();
    let ann: Result<Principal, NoIdentity> = Ok(ANN.parse().unwrap());
    let token = site.token("ES256", "e", json!({}));
    for (seconds, expected) in [(0, "token"), (600 + 59, "token"), (600 + 60, "expired"), (0, "token")] {
        let got = shown(&issuers.identify(&ann, Some(&token), &At((NOW + seconds) * 1000)).await);
        assert!(got.ends_with(expected), "{seconds}: {got}");
    }
    // Another set of keys, and nothing of before counts.
    let (other, _) = KeySet::read(json!({"keys": [site.p256_jwk("new")]}).to_string().as_bytes()).unwrap();
    issuers.issuers[0].keys.store(Some(Arc::new(other)));
    assert_eq!(shown(&issuers.identify(&ann, Some(&token), &At(NOW * 1000)).await), "unknown_key");
    issuers.issuers[0].keys.store(None);
    assert_eq!(shown(&issuers.identify(&ann, Some(&token), &At(NOW * 1000)).await), "no_keys");
}

#[test]
fn tokens_that_are_remembered_are_bounded() {
    let site = Site::new();
    let issuers = site.issuers();
    let keys = issuers.issuers[0].keys.load_full().unwrap();
    let shown = |until| Arc::new(Shown { principal: ANN.parse().unwrap(), strength: Strength::TOKEN, until });
    for number in 0..100_000_u32 {
        let entry = Entry { issuer: 0, keys: Arc::clone(&keys), shown: shown(u64::from(number % 2) * 1000) };
        issuers.verified.add(sha256(&number.to_be_bytes()), entry, 500);
    }
    for shard in &issuers.verified.0 {
        assert!(shard.lock().unwrap().len() <= SHARD_TOKENS_MAX);
    }
}

#[tokio::test]
async fn a_remembered_token_is_cheap() {
    let site = Site::new();
    let (issuers, at) = (site.issuers(), At(NOW * 1000));
    let ann: Result<Principal, NoIdentity> = Ok(ANN.parse().unwrap());
    let token = site.token("RS256", "r", json!({"groups": vec!["a-group-of-people"; 20]}));
    issuers.identify(&ann, Some(&token), &at).await.unwrap();
    let time = async |what: &str, rounds: u32| {
        let began = tokio::time::Instant::now();
        for _ in 0..rounds {
            if what == "hash" {
                std::hint::black_box(sha256(token.as_bytes()));
            } else {
                issuers.identify(&ann, Some(&token), &at).await.unwrap();
            }
        }
        began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
    };
    let (hash, all) = (time("hash", 20_000).await, time("all", 20_000).await);
    println!("a remembered token of {} bytes: {all:.2} us, of which its hash {hash:.2} us", token.len());
}

#[test]
fn one_header_has_one_token() {
    let headers = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        bearer(&headers).map(|token| token.map(str::to_owned))
    };
    assert_eq!(headers(&[]), Ok(None));
    assert_eq!(headers(&["Bearer a.b.c"]), Ok(Some("a.b.c".into())));
    assert_eq!(headers(&["bearer a.b.c"]), Ok(Some("a.b.c".into())));
    for bad in ["", "Bearer", "Bearer ", "Basic YTpi", "a.b.c", "Bearer\ta"] {
        assert_eq!(headers(&[bad]), Err(InvalidToken::Scheme), "{bad:?}");
    }
    assert_eq!(headers(&["Bearer a.b.c", "Bearer a.b.c"]), Err(InvalidToken::SeveralHeaders));
    assert_eq!(headers(&["Bearer a.b.c", "Basic YTpi"]), Err(InvalidToken::SeveralHeaders));
    let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
    assert_eq!(headers(&[&long]), Err(InvalidToken::TooLong));
}

#[test]
fn every_reason_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<&str> = InvalidToken::ALL.map(InvalidToken::reason).into();
    assert_eq!(words.len(), InvalidToken::ALL.len());
}

#[test]
fn keys_that_others_can_replace_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    let path = site.folder.path().join("one.json");
    let read = || keys_of(&path).map(drop).map_err(|error| error.to_string());
    read().unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(read().unwrap_err().contains("it can be written by others (mode 0666)"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, "{\"keys\":[]}").unwrap();
    assert!(read().unwrap_err().contains("none of its 0 keys"));
    std::fs::remove_file(&path).unwrap();
    assert!(read().unwrap_err().contains("it cannot be read"));
}
