//! Callers that hang up at any point: in the handshake, in the preface, in a header, in a message, while the reply is on its
//! way, or by taking a call back. Nothing is held up or lost by it: no place, no budget, no gate, no record.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use kms_server::audit::Outcome;
use kms_tests::cut::{Cut, CutWay};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Daemon, Refused, Settings, Site};

use crate::{ACME, ACME_KEY, GLOBEX, World, at_scale};

/// Places for callers: few, so that the loss of some would be noticed.
const PLACES: usize = 12;

/// A call whose way is cut.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// Uses a key.
    Encrypt,
    /// Changes something; by its number, each makes another.
    CreateKey(usize),
    /// Is refused, but not before its 3.5 MiB were taken from the budget: two of them are nearly all of it.
    TooLarge,
}

impl Call {
    async fn make(self, daemon: &Daemon, way: &CutWay) -> Result<Result<(), Refused>> {
        let who = if matches!(self, Self::CreateKey(_)) { "admin" } else { "app" };
        let caller = daemon.caller_by(who, &way.address())?;
        Ok(match self {
            Self::Encrypt => caller.ask(encrypt(ACME_KEY, b"secret", &[("row", "7")])).await.map(drop),
            Self::CreateKey(number) => caller.ask(create_key(GLOBEX, &format!("cut-{number}"))).await.map(drop),
            Self::TooLarge => caller.ask(encrypt(ACME_KEY, &vec![7; 7 << 19], &[])).await.map(drop),
        })
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_at_any_point_holds_nothing_up() -> Result<()> {
    let world = World::on(site()?.start_with_two_tenants().await?)?;
    let daemon = &world.daemon;

    // How many bytes such calls take when nothing is cut.
    let mut whole = BTreeMap::new();
    for (what, call) in [("Encrypt", Call::Encrypt), ("CreateKey", Call::CreateKey(0)), ("3.5 MiB", Call::TooLarge)] {
        let way = CutWay::to(daemon.services(), Cut::Never, false).await?;
        let got = call.make(daemon, &way).await?;
        let right = got.is_ok() || got.as_ref().is_err_and(|refused| refused.is("PLAINTEXT_TOO_LARGE"));
        ensure!(right, "{what}, with nothing cut: {got:?}");
        whole.insert(what, way.passed().await?);
    }

    let (mut cuts, mut answered, mut keys) = (0, 0, 1);
    for (what, samples) in
        [("Encrypt", at_scale(100, 1000)), ("CreateKey", at_scale(50, 500)), ("3.5 MiB", at_scale(6, 60))]
    {
        let (up, down) = whole[what];
        for sample in 0..samples {
            // Of every part of the way the same number, each time at another byte.
            let at = |bytes: usize| bytes * sample / samples + sample % 7;
            for (direction, reset) in [(Cut::Up(at(up)), false), (Cut::Up(at(up)), true), (Cut::Down(at(down)), true)] {
                let call = match what {
                    "Encrypt" => Call::Encrypt,
                    "CreateKey" => Call::CreateKey(keys),
                    _ => Call::TooLarge,
                };
                keys += usize::from(what == "CreateKey");
                let way = CutWay::to(daemon.services(), direction, reset).await?;
                // Whether there is an answer depends on how much of it got through.
                answered += usize::from(call.make(daemon, &way).await?.is_ok());
                way.passed().await?;
                cuts += 1;
            }
        }
    }
    println!("hung up: {cuts} times, of calls of {whole:?} bytes up and down; {answered} had their answer by then");
    holds_nothing(world, keys).await
}

#[tokio::test]
async fn a_call_that_is_taken_back_holds_nothing_up() -> Result<()> {
    let world = World::on(site()?.start_with_two_tenants().await?)?;
    let (mut taken_back, mut keys) = (0, 0);
    for round in 0..at_scale(400, 4000) {
        // On one connection, which stays: the stream is reset after another number of turns each time.
        let turns = 1 << (round % 12);
        let sealing = world.app.ask(encrypt(ACME_KEY, b"secret", &[("row", "7")]));
        taken_back += usize::from(give_up(turns, sealing).await);
        if round % 4 == 0 {
            let creating = world.admin.ask(create_key(GLOBEX, &format!("cut-{keys}")));
            taken_back += usize::from(give_up(turns, creating).await);
            keys += 1;
        }
    }
    println!("taken back: {taken_back} calls");
    ensure!(taken_back > 50, "hardly any call was taken back in time");
    holds_nothing(world, keys).await
}

/// Waits for a call for so many turns of the runtime, then drops it. Returns whether it was dropped.
async fn give_up<T>(turns: usize, call: impl Future<Output = T>) -> bool {
    let mut call = std::pin::pin!(call);
    for _ in 0..turns {
        tokio::select! {
            biased;
            _ = &mut call => return false,
            () = tokio::task::yield_now() => {}
        }
    }
    true
}

/// Checks that nothing is held by those who left, and that whatever was done has its record.
async fn holds_nothing(world: World, keys: usize) -> Result<()> {
    // Places: all but those of the callers here, at the same time. Some connections may be on their way out still.
    let mut callers = Vec::new();
    for _ in 0..PLACES - 3 {
        let let_in = async {
            loop {
                let caller = world.daemon.caller("app")?;
                if caller.ask(encrypt(ACME_KEY, b"x", &[])).await.is_ok() {
                    return anyhow::Ok(caller);
                }
            }
        };
        callers.push(kms_tests::patiently("a place for a caller", let_in).await??);
    }
    // Budget: as large a message as there may be is read, again and again.
    for _ in 0..4 {
        let got = callers[0].ask(encrypt(ACME_KEY, &vec![7; 7 << 19], &[])).await;
        ensure!(got.as_ref().is_err_and(|refused| refused.is("PLAINTEXT_TOO_LARGE")), "the budget is gone: {got:?}");
    }
    drop(callers);
    // What was done has its record, and nothing has one that was not done. What nobody waits for any more may be under way.
    let mut last = None;
    let settled = async {
        loop {
            let seen = Seen::now(&world).await?;
            let is_settled = seen.is_settled();
            last = Some(seen);
            if is_settled {
                return anyhow::Ok(());
            }
        }
    };
    let settled = kms_tests::patiently("a record of each that was executed, and of nothing else", settled).await;
    println!("afterwards, of {keys} keys: {last:?}");
    settled??;
    // Gates: a tenant is destroyed when nobody is inside any more.
    for tenant in [ACME, GLOBEX] {
        world.admin.ask(destroy_tenant(tenant, seconds(0))).await?;
    }
    ensure!(world.daemon.probe("/readyz").await? == 200, "it does not serve any more");
    world.finish().await
}

/// What was done, by several that must agree.
#[derive(Debug)]
struct Seen {
    sealed_and_counted: usize,
    sealed_and_recorded: usize,
    keys_made: usize,
    keys_made_and_recorded: usize,
}

impl Seen {
    async fn now(world: &World) -> Result<Self> {
        let metrics = world.daemon.get("/metrics").await?.1;
        let line = "kms_requests_total{method=\"Encrypt\",code=\"OK\"} ";
        let counted = metrics.lines().find_map(|found| found.strip_prefix(line)?.parse().ok());
        let (mut keys_made, mut token) = (0, String::new());
        loop {
            let page = world.admin.ask(list_keys(GLOBEX, 100, &token)).await?;
            keys_made += page.keys.iter().filter(|key| key.name.contains("/cut-")).count();
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let records = Records::read(world.daemon.site())?;
        let is_cut = |key: &str| key.starts_with("cut-");
        let created =
            records.of("CreateKey", Outcome::Ok).filter(|stored| stored.leaf.kn.as_deref().is_some_and(is_cut));
        Ok(Self {
            sealed_and_counted: counted.context("it is counted")?,
            sealed_and_recorded: records.of("Encrypt", Outcome::Ok).count(),
            keys_made,
            keys_made_and_recorded: created.count(),
        })
    }

    fn is_settled(&self) -> bool {
        (self.sealed_and_counted, self.keys_made) == (self.sealed_and_recorded, self.keys_made_and_recorded)
    }
}

fn site() -> Result<Site> {
    let site = Site::with(&Settings::default())?;
    let limits = format!("[limits]\nconnections_per_peer = {PLACES}\nbytes_in_flight = {}\n\n[log]", 8 << 20);
    site.change_settings("[log]", &limits)?;
    Ok(site)
}

trait Start {
    async fn start_with_two_tenants(self) -> Result<Daemon>;
}

impl Start for Site {
    async fn start_with_two_tenants(self) -> Result<Daemon> {
        self.init().await?;
        self.bind_app(&["encrypter"])?;
        let daemon = self.start().await?;
        let admin = daemon.caller("admin")?;
        for (tenant, name) in [("acme", ACME), ("globex", GLOBEX)] {
            admin.ask(create_tenant(tenant)).await?;
            admin.ask(create_key(name, "app")).await?;
        }
        Ok(daemon)
    }
}
