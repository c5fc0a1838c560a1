//! Bearer tokens over the wire: whom they stand for beside a client certificate, what is refused and by which word, and
//! keys that an issuer serves, well or badly.

use anyhow::{Result, ensure};
use kms_proto::v1::{GetCallerIdentityRequest, GetStatusRequest};
use kms_tests::records::Records;
use kms_tests::request::encrypt;
use kms_tests::{Authority, KeyServer, Served, Site, TokenIssuer, now, patiently};
use serde_json::json;
use tonic::Code;

use crate::reload::reload;
use crate::{ACME_KEY, Expected, World, refused};

/// The settings of an issuer `https://<name>`.
fn issuer(name: &str, keys: &str, certificate: &str) -> String {
    format!(
        "\n[[issuer]]\nissuer = \"https://{name}\"\naudiences = [\"kms\"]\nalgorithms = [\"ES256\"]\n{keys}\n\
         principal = \"spiffe://test.example/{{sub}}\"\ncertificate = {certificate}\n"
    )
}

async fn world(site: Site, issuers: &[String]) -> Result<World> {
    site.write("kms.toml", &(site.read("kms.toml")? + &issuers.concat()))?;
    World::at(site).await
}

#[tokio::test]
async fn a_token_says_who_asks_and_a_bad_one_is_refused_whatever_the_certificate_is_good_for() -> Result<()> {
    let site = Site::temporary()?;
    let [same, gateway, any] =
        ["https://same", "https://gateway", "https://any"].map(|name| TokenIssuer::new(name, "a"));
    let (same, gateway, any) = (same?, gateway?, any?);
    for (name, issuer) in [("same", &same), ("gateway", &gateway), ("any", &any)] {
        site.write(&format!("{name}.json"), &issuer.jwks())?;
    }
    let file = |name: &str| format!("jwks_file = \"{name}.json\"");
    let gateways = format!("[{:?}]", site.principal("gateway"));
    let issuers = [
        issuer("same", &file("same"), "\"same\""),
        issuer("gateway", &file("gateway"), &gateways),
        issuer("any", &file("any"), "\"any\""),
    ];
    let world = world(site, &issuers).await?;
    let site = world.daemon.site();
    let nobody = world.daemon.caller_with(Some(&site.authority().client_of(&[])?))?;
    let (at_gateway, stranger) = (world.daemon.caller("gateway")?, world.daemon.caller("stranger")?);
    let mut expected = Expected::of("callers with tokens");
    let good = [
        ("a token of its own", &world.app, same.token("app")?),
        ("by a gateway", &at_gateway, gateway.token("app")?),
        ("by anybody", &stranger, any.token("app")?),
        ("by a certificate without a name", &nobody, any.token("app")?),
    ];
    let mut tokens = Vec::new();
    for (what, caller, token) in good {
        let caller = caller.with_token(&token)?;
        tokens.push(token);
        // Twice: verified, and remembered.
        for _ in 0..2 {
            expected.works(what, caller.ask(encrypt(ACME_KEY, b"x", &[])).await);
        }
        let me = caller.ask(GetCallerIdentityRequest {}).await;
        let right = me.as_ref().is_ok_and(|me| me.principal == site.principal("app"));
        expected.row(right, what, "app", &format!("{me:?}"));
    }
    // The operator's listener takes them too, and they give nobody more than he is bound to.
    let status = world.admin.with_token(&same.token("admin")?)?.ask(GetStatusRequest {}).await;
    expected.works("the administrator's status", status);
    let status = stranger.with_token(&any.token("app")?)?.ask(GetStatusRequest {}).await;
    expected.refused("the application's status", Code::PermissionDenied, "POLICY_DENIED", status);
    expected.refused(
        "a certificate without a name, alone",
        Code::Unauthenticated,
        "NO_IDENTITY",
        nobody.ask(encrypt(ACME_KEY, b"x", &[])).await,
    );

    let app = |other: serde_json::Value| same.token_with("app", &other);
    let flipped = same.token("app")?.replace(".e", ".f");
    let stolen_key = TokenIssuer::new("https://same", "a")?;
    let unsigned =
        same.sign(&json!({"alg": "none"}), &json!({"iss": "https://same", "sub": "app", "exp": now() + 60}))?;
    let claims = json!({"iss": "https://same", "aud": "kms", "sub": "app", "exp": now() + 60});
    let bad: Vec<(&str, &kms_tests::Caller, Vec<String>)> = vec![
        ("expired", &world.app, vec![app(json!({"exp": now() - 100}))?]),
        ("not_yet_valid", &world.app, vec![app(json!({"nbf": now() + 100}))?]),
        ("lifetime", &world.app, vec![app(json!({"exp": now() + 90_000}))?]),
        ("audience", &world.app, vec![app(json!({"aud": "other"}))?]),
        ("issuer", &world.app, vec![app(json!({"iss": "https://evil"}))?]),
        ("malformed", &world.app, vec![flipped]),
        ("malformed", &world.app, vec!["x".into()]),
        ("signature", &world.app, vec![stolen_key.token("app")?]),
        ("unknown_key", &world.app, vec![TokenIssuer::new("https://same", "b")?.token("app")?]),
        ("algorithm", &world.app, vec![unsigned]),
        ("critical", &world.app, vec![same.sign(&json!({"alg": "ES256", "kid": "a", "crit": ["b64"]}), &claims)?]),
        ("type", &world.app, vec![same.sign(&json!({"alg": "ES256", "kid": "a", "typ": "dpop+jwt"}), &claims)?]),
        ("subject", &world.app, vec![same.token("../app")?]),
        ("presenter", &world.app, vec![same.token("admin")?]),
        ("presenter", &at_gateway, vec![same.token("app")?]),
        ("presenter", &stranger, vec![gateway.token("app")?]),
        ("presenter", &nobody, vec![gateway.token("app")?]),
        ("too_long", &world.app, vec![app(json!({"x": "y".repeat(6_200)}))?]),
        ("several_headers", &world.app, vec![same.token("app")?, same.token("app")?]),
    ];
    let mut words = Vec::new();
    for (word, caller, values) in &bad {
        let values: Vec<String> = values.iter().map(|token| format!("Bearer {token}")).collect();
        let caller = caller.authorized(&values.iter().map(String::as_str).collect::<Vec<_>>())?;
        let got = caller.ask(encrypt(ACME_KEY, b"x", &[])).await;
        expected.refused(word, Code::Unauthenticated, "TOKEN_INVALID", got);
        words.push(format!("TOKEN_INVALID:{word}"));
        tokens.extend(values.iter().map(|value| value.trim_start_matches("Bearer ").to_owned()));
    }
    let basic = world.app.authorized(&["Basic YXBwOmFwcA=="])?.ask(encrypt(ACME_KEY, b"x", &[])).await;
    expected.refused("another scheme", Code::Unauthenticated, "TOKEN_INVALID", basic);
    words.push("TOKEN_INVALID:scheme".into());
    expected.check();
    let count = world.daemon.metric("kms_tokens_refused_total{reason=\"presenter\"}").await?;
    ensure!(count == 4.0, "{count} tokens of the wrong presenter");

    let site = world.daemon.stop().await?;
    let records = Records::read(&site)?;
    let leaves = || records.leaves.iter().map(|stored| &stored.leaf);
    let why: Vec<&str> =
        leaves().filter_map(|leaf| leaf.why.as_deref()).filter(|why| why.starts_with("TOKEN")).collect();
    ensure!(why == words, "{why:?} are not {words:?}");
    let shown = |text: &str| {
        let by_app = |leaf: &&kms_server::audit::Leaf| {
            leaf.op.as_deref() == Some("Encrypt") && leaf.sub.as_deref() == Some(&*site.principal("app"))
        };
        leaves().filter(by_app).filter(|leaf| leaf.ev.as_deref() == Some(text)).count()
    };
    ensure!(shown(&format!("token presented by {}", site.principal("gateway"))) == 2);
    ensure!(shown(&format!("token presented by {}", site.principal("stranger"))) == 2);
    ensure!(shown("token presented by a certificate without a principal") == 2);
    // No part of a token that only its holder should have is anywhere: not in what was said, and not in the log.
    let mut kept = site.output().text();
    for line in kms_tests::records::lines(&site)? {
        kept.push_str(&String::from_utf8_lossy(line.as_ref()));
    }
    for token in tokens.iter().filter(|token| token.len() > 40) {
        let signature = token.rsplit('.').next().unwrap_or_default();
        ensure!(!kept.contains(signature) && !kept.contains(&token[..40]), "a token was kept");
    }
    crate::world::check(&site)
}

#[tokio::test]
async fn keys_are_fetched_again_when_an_issuer_has_new_ones() -> Result<()> {
    let (site, authority) = (Site::temporary()?, Authority::new()?);
    let server = KeyServer::start(&authority).await?;
    let keys: Vec<TokenIssuer> =
        ["a", "b", "c"].into_iter().map(|kid| TokenIssuer::new("https://idp", kid)).collect::<Result<_>>()?;
    site.write("idp-ca.pem", &authority.pem())?;
    let at = format!("jwks_url = {:?}\njwks_ca_file = \"idp-ca.pem\"", server.url("/keys"));
    server.serve("/keys", Served::Body(keys[0].jwks()));
    let world = world(site, &[issuer("idp", &at, "\"same\"")]).await?;
    let tokens: Vec<String> = keys.iter().map(|key| key.token("app")).collect::<Result<_>>()?;
    let ask = async |token: &str| {
        Ok::<_, anyhow::Error>(world.app.with_token(token)?.ask(encrypt(ACME_KEY, b"x", &[])).await)
    };
    for _ in 0..50 {
        ask(&tokens[0]).await??;
    }
    let before = server.times("/keys");
    ensure!(before == 1, "{before} fetches of keys that were there");

    // The first token of another key brings it about, and waits for it.
    server.serve("/keys", Served::Body(keys[1].jwks()));
    for _ in 0..20 {
        ask(&tokens[1]).await??;
    }
    ensure!(server.times("/keys") == before + 1, "{} fetches for a new key", server.times("/keys") - before);
    // What the old one has signed is over, though it was remembered.
    refused(Code::Unauthenticated, "TOKEN_INVALID", ask(&tokens[0]).await?);
    // A third one within the minute is not fetched for, however many ask.
    server.serve("/keys", Served::Body(keys[2].jwks()));
    for _ in 0..20 {
        refused(Code::Unauthenticated, "TOKEN_INVALID", ask(&tokens[2]).await?);
    }
    ensure!(server.times("/keys") == before + 1, "more than one fetch in a minute");
    // Keys that were fetched go over a reload, also of another rule of their issuer, when nobody serves them.
    server.serve("/keys", Served::Status("503 Service Unavailable"));
    let site = world.daemon.site();
    site.write("kms.toml", &(site.read("kms.toml")? + "clock_skew = \"30 s\"\n"))?;
    reload(&world.daemon).await?;
    ensure!(site.output().text().contains(r#""changed":"issuer""#));
    ask(&tokens[1]).await??;
    world.finish().await
}

#[tokio::test]
async fn a_daemon_starts_without_the_keys_of_an_issuer_and_takes_them_when_they_come() -> Result<()> {
    let (site, authority) = (Site::temporary()?, Authority::new()?);
    let server = KeyServer::start(&authority).await?;
    let idp = TokenIssuer::new("https://idp", "a")?;
    site.write("idp-ca.pem", &authority.pem())?;
    let at = format!("jwks_url = {:?}\njwks_ca_file = \"idp-ca.pem\"", server.url("/keys"));
    let world = world(site, &[issuer("idp", &at, "\"same\"")]).await?;
    let caller = world.app.with_token(&idp.token("app")?)?;
    refused(Code::Unauthenticated, "TOKEN_INVALID", caller.ask(encrypt(ACME_KEY, b"x", &[])).await);
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    server.serve("/keys", Served::Body(idp.jwks()));
    // A reload fetches anew, and what asks meanwhile waits for it.
    let site = world.daemon.site();
    site.write("kms.toml", &(site.read("kms.toml")? + "clock_skew = \"30 s\"\n"))?;
    reload(&world.daemon).await?;
    caller.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    world.finish().await
}

#[tokio::test]
async fn servers_of_keys_that_do_wrong_give_no_keys_and_harm_nobody() -> Result<()> {
    let (site, authority, foreign) = (Site::temporary()?, Authority::new()?, Authority::new()?);
    let (server, stranger) = (KeyServer::start(&authority).await?, KeyServer::start(&foreign).await?);
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let idp = |name: &str| TokenIssuer::new(&format!("https://{name}"), "a");
    let names = ["good", "slow", "huge", "garbage", "redirect", "error", "empty", "foreign", "plain", "closed"];
    let issuers: Vec<TokenIssuer> = names.into_iter().map(idp).collect::<Result<_>>()?;
    let jwks =
        |name: &str| names.iter().position(|other| *other == name).map(|at| issuers[at].jwks()).unwrap_or_default();
    server.serve("/good", Served::Body(jwks("good")));
    server.serve("/slow", Served::Silence);
    server.serve("/huge", Served::Body(format!("{}{}", " ".repeat(300 << 10), jwks("huge"))));
    server.serve("/garbage", Served::Body("<html>keys</html>".into()));
    server.serve("/redirect", Served::Status("302 Found\r\nLocation: /good"));
    server.serve("/error", Served::Status("500 Internal Server Error"));
    server.serve("/empty", Served::Body("{\"keys\":[]}".into()));
    stranger.serve("/foreign", Served::Body(jwks("foreign")));
    site.write("idp-ca.pem", &authority.pem())?;
    let settings: Vec<String> = names
        .iter()
        .map(|name| {
            let url = match *name {
                "foreign" => stranger.url("/foreign"),
                "plain" => format!("https://localhost:{}/", plain.local_addr().map(|at| at.port()).unwrap_or(1)),
                "closed" => "https://localhost:1/".to_owned(),
                other => server.url(&format!("/{other}")),
            };
            issuer(name, &format!("jwks_url = {url:?}\njwks_ca_file = \"idp-ca.pem\""), "\"same\"")
        })
        .collect();
    let world = world(site, &settings).await?;
    let mut expected = Expected::of("servers of keys");
    let mut asking = tokio::task::JoinSet::new();
    for (name, issuer) in names.into_iter().zip(&issuers) {
        let caller = world.app.with_token(&issuer.token("app")?)?;
        asking.spawn(async move { (name, caller.ask(encrypt(ACME_KEY, b"x", &[])).await) });
    }
    for (name, got) in patiently("answers", asking.join_all()).await? {
        match name {
            "good" => expected.works(name, got),
            _ => expected.refused(name, Code::Unauthenticated, "TOKEN_INVALID", got),
        }
    }
    expected.check();
    let said = world.daemon.site().output().text();
    for why in
        ["it has more than 262144 bytes", "it answered 302 Found", "it answered 500", "not JSON", "not within 5 s"]
    {
        ensure!(said.contains(why), "the log does not say {why:?}");
    }
    // Neither http nor a file that is none is taken at all.
    let site = world.daemon.stop().await?;
    let text = site.read("kms.toml")?;
    for (from, to, why) in [
        ("jwks_url = \"https://localhost:1/\"", "jwks_url = \"http://localhost:1/\"", "is no https URL"),
        ("jwks_ca_file = \"idp-ca.pem\"", "jwks_ca_file = \"none.pem\"", "none.pem: it cannot be read"),
        ("algorithms = [\"ES256\"]", "algorithms = [\"HS256\"]", "is no algorithm for tokens here"),
    ] {
        site.write("kms.toml", &text.replace(from, to))?;
        let ended = site.refused_serve().await?;
        ensure!(ended.code == Some(1) && ended.stderr.contains(why), "{why}: {}", ended.stderr);
    }
    crate::world::check(&site)
}
