//! What is taken away is gone when the reload is done: no request that begins after that succeeds, on whatever connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use kms_tests::request::encrypt;
use kms_tests::{Authority, Binding, Caller, Daemon, Site, TokenIssuer, patiently};
use tokio::task::JoinSet;

use crate::reload::reload;
use crate::{ACME_KEY, World};

const CONNECTIONS: usize = 4;
/// How often each tries again when it is over.
const TRIES_AFTER: usize = 25;

/// Callers that ask as fast as they can, and note when each success began and ended.
struct Hammer {
    tasks: JoinSet<Vec<(Instant, Instant)>>,
    successes: Arc<AtomicUsize>,
    tries: Arc<Vec<AtomicUsize>>,
    stop: Arc<AtomicBool>,
}

impl Hammer {
    async fn start(callers: Vec<Caller>) -> Result<Self> {
        let (successes, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let tries: Arc<Vec<AtomicUsize>> = Arc::new(callers.iter().map(|_| AtomicUsize::new(0)).collect());
        let mut tasks = JoinSet::new();
        let enough = callers.len() * 50;
        for (number, caller) in callers.into_iter().enumerate() {
            let (successes, tries, stop) = (Arc::clone(&successes), Arc::clone(&tries), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = now();
                    if caller.ask(encrypt(ACME_KEY, b"x", &[])).await.is_ok() {
                        times.push((began, now()));
                        successes.fetch_add(1, Ordering::Relaxed);
                    }
                    tries[number].fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                times
            });
        }
        let warm = async {
            while successes.load(Ordering::Relaxed) < enough {
                tokio::task::yield_now().await;
            }
        };
        patiently("load before something is taken away", warm).await?;
        Ok(Self { tasks, successes, tries, stop })
    }

    /// Returns all successes, once each caller has tried often enough after this moment.
    async fn end(self) -> Result<Vec<(Instant, Instant)>> {
        let before: Vec<usize> = self.tries.iter().map(|tries| tries.load(Ordering::Relaxed)).collect();
        let enough = async {
            while self.tries.iter().zip(&before).any(|(now, before)| now.load(Ordering::Relaxed) < before + TRIES_AFTER)
            {
                tokio::task::yield_now().await;
            }
        };
        patiently("tries after something was taken away", enough).await?;
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.successes;
        Ok(patiently("the end of the load", self.tasks.join_all()).await?.concat())
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is how long it takes")]
fn now() -> Instant {
    Instant::now()
}

async fn take_away(
    daemon: &Daemon,
    what: &'static str,
    callers: Vec<Caller>,
    change: impl FnOnce(&Site) -> Result<()>,
) -> Result<String> {
    let hammer = Hammer::start(callers).await?;
    change(daemon.site())?;
    reload(daemon).await.with_context(|| what)?;
    let done = now();
    let successes = hammer.end().await?;
    let late = successes.iter().filter(|(began, _)| *began > done).count();
    ensure!(late == 0, "{what}: {late} requests that began after the reload succeeded");
    let last = successes.iter().map(|(_, ended)| ended.saturating_duration_since(done)).max().unwrap_or_default();
    Ok(format!("{what} {:.1} ms", last.as_secs_f64() * 1000.0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_taken_away_is_good_for_a_request_that_begins_after_the_reload() -> Result<()> {
    let (site, partner) = (Site::temporary()?, Authority::new()?);
    let (first, second) = (TokenIssuer::new("https://first", "a")?, TokenIssuer::new("https://second", "a")?);
    let new_key = TokenIssuer::new("https://second", "b")?;
    site.write("partner.pem", &partner.pem())?;
    site.write("ours.crl", &site.authority().revocation_list(&[])?)?;
    site.write("first.json", &first.jwks())?;
    site.write("second.json", &second.jwks())?;
    site.change_settings("client_ca_file = \"ca.pem\"", "client_ca_file = \"ca.pem\"\ncrl_files = [\"ours.crl\"]")?;
    let domain = "\n[[trust_domain]]\nname = \"partner.example\"\nca_file = \"partner.pem\"\n";
    let issuer = |name: &str| {
        format!(
            "\n[[issuer]]\nissuer = \"https://{name}\"\naudiences = [\"kms\"]\nalgorithms = [\"ES256\"]\n\
             jwks_file = \"{name}.json\"\nprincipal = \"spiffe://test.example/{name}/{{sub}}\"\ncertificate = \"any\"\n"
        )
    };
    site.write("kms.toml", &format!("{}{domain}{}{}", site.read("kms.toml")?, issuer("first"), issuer("second")))?;
    let world = World::at(site).await?;
    let daemon = &world.daemon;
    let site = daemon.site();
    let names = ["bound", "revoked", "first/ann", "second/ann"].map(|name| site.principal(name));
    let theirs = "spiffe://partner.example/app".to_owned();
    for principal in names.iter().chain([&theirs]) {
        let id = principal.rsplit("//").next().unwrap_or_default().replace(['/', '.'], "-");
        let principals: &[&str] = &[principal];
        site.bind(&Binding {
            id: &id,
            roles: &["encrypter"],
            principals,
            tenants: &["*"],
            keys: &["*"],
            indexes: &["*"],
        })?;
    }
    reload(daemon).await?;
    let connections = |make: &dyn Fn() -> Result<Caller>| (0..CONNECTIONS).map(|_| make()).collect::<Result<Vec<_>>>();
    let mut told = Vec::new();

    let callers = connections(&|| daemon.caller("bound"))?;
    told.push(
        take_away(daemon, "binding", callers, |site| {
            let text = site.read("bindings.toml")?;
            site.write("bindings.toml", &text.replace(&names[0], &site.principal("nobody")))
        })
        .await?,
    );
    let numbered = site.authority().client_numbered(&names[1], 7)?;
    let callers = connections(&|| daemon.caller_with(Some(&numbered)))?;
    told.push(
        take_away(daemon, "certificate", callers, |site| {
            site.write("ours.crl", &site.authority().revocation_list(&[7])?)
        })
        .await?,
    );
    let partners = partner.client(&theirs)?;
    let callers = connections(&|| daemon.caller_with(Some(&partners)))?;
    told.push(take_away(daemon, "trust bundle", callers, |site| site.change_settings(domain, "")).await?);
    let token = first.token("ann")?;
    let callers = connections(&|| daemon.caller("gateway")?.with_token(&token))?;
    told.push(take_away(daemon, "issuer", callers, |site| site.change_settings(&issuer("first"), "")).await?);
    let token = second.token("ann")?;
    let callers = connections(&|| daemon.caller("gateway")?.with_token(&token))?;
    told.push(take_away(daemon, "token key", callers, |site| site.write("second.json", &new_key.jwks())).await?);

    println!("revocation: {}: max time from reload to last success, {CONNECTIONS} connections each", told.join(", "));
    // Nobody else was harmed.
    world.app.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    daemon.caller("gateway")?.with_token(&new_key.token("ann")?)?.ask(encrypt(ACME_KEY, b"x", &[])).await?;
    world.finish().await
}
