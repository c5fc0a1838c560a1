//! The daemon dies by itself at each of its named places, under the work that leads there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kms_proto::v1::{KeyState, TenantState};
use kms_server::kill_point::{Point, Stage};
use kms_tests::request::*;
use kms_tests::{Daemon, Ended, Random, Site, run, seed};

use super::{Campaign, Tally};
use crate::at_scale;
use crate::crash::journal::Mix;

/// Returns how often the daemons of a site said that they die there.
fn deaths(site: &Site, point: Point) -> usize {
    site.output().text().matches(&dying(point)).count()
}

/// What a daemon says before it dies.
fn dying(point: Point) -> String {
    format!("\"message\":\"dying here, as was asked for\",\"point\":\"{}\"", point.name())
}

/// Lets callers work on a daemon that is to die at a place, until it is dead.
async fn die_at_work(campaign: &mut Campaign, site: Site, point: Point, count: usize, mix: Mix) -> Result<Site> {
    let before = deaths(&site, point);
    let daemon = match Daemon::start_armed(site, &format!("{}:{count}", point.name())).await? {
        Ok(daemon) => daemon,
        // The log is written to by a start as well: a segment that was half full gets its spare then. And data keys are
        // moved from the start on.
        Err(site) => {
            let by_itself = matches!(point.stage(), Stage::Log | Stage::Rewrap);
            let died = by_itself && deaths(&site, point) == before + 1;
            ensure!(died, "it died before it served, and not at {point:?}");
            return Ok(site);
        }
    };
    let working = campaign.work(&daemon, mix)?;
    let ended = daemon.ended().await;
    campaign.ended(working).await?;
    // Where it did not die the callers know why: one that is refused what it should get stops.
    let (code, site) = ended.with_context(|| format!("callers were told {:?}", campaign.wrongs))?;
    ensure!(code.is_none() && deaths(&site, point) == before + 1, "it ended with {code:?} and not at {point:?}");
    Ok(site)
}

/// Brings a daemon to its death at a place, once.
async fn die(campaign: &mut Campaign, site: Site, point: Point, round: usize) -> Result<Site> {
    let mut up_to = |end: usize| 1 + campaign.random.below(end);
    // Both kinds of changes pass most places.
    let mix = if round.is_multiple_of(2) { Mix::NoGates } else { Mix::Gates };
    match point.stage() {
        Stage::Change => {
            let count = up_to(12);
            die_at_work(campaign, site, point, count, mix).await
        }
        Stage::Gate => {
            let count = up_to(12);
            die_at_work(campaign, site, point, count, Mix::Gates).await
        }
        Stage::Destruction => {
            let count = up_to(3);
            die_at_work(campaign, site, point, count, Mix::Gates).await
        }
        Stage::DataKeys => {
            let count = up_to(12);
            die_at_work(campaign, site, point, count, mix).await
        }
        Stage::Rewrap => {
            // Passed once for each rotation of a key that has some, and at its end.
            let count = up_to(2);
            die_at_work(campaign, site, point, count, Mix::NoGates).await
        }
        Stage::Log => {
            // A frame is written at every turn, a segment ends after hundreds.
            let of_frames = matches!(point, Point::FrameTorn | Point::FrameUnsynced | Point::FrameDurable);
            // The first is that of the start.
            let count = if of_frames { 1 + up_to(40) } else { 1 };
            die_at_work(campaign, site, point, count, Mix::All).await
        }
        Stage::Stop => {
            let daemon = Daemon::start_armed(site, point.name()).await?.map_err(|_| anyhow::anyhow!("too early"))?;
            let mut working = campaign.work(&daemon, mix)?;
            working.more(8).await?;
            daemon.terminate()?;
            let (code, site) = daemon.ended().await?;
            campaign.ended(working).await?;
            ensure!(code.is_none() && deaths(&site, point) > 0, "it ended with {code:?} and not at {point:?}");
            Ok(site)
        }
        Stage::StartAfter(first) => {
            // A torn frame of the start itself would leave nothing else to be settled.
            let of_destructions = first.stage() == Stage::Destruction;
            let mix = if of_destructions { Mix::Gates } else { mix };
            let mut site = site;
            for _ in 0..TRIES_MAX {
                let count = if of_destructions { 1 + campaign.random.below(3) } else { 2 + campaign.random.below(12) };
                site = die_at_work(campaign, site, first, count, mix).await?;
                let before = deaths(&site, point);
                match Daemon::start_armed(site, point.name()).await? {
                    Err(site) if deaths(&site, point) == before + 1 => return Ok(site),
                    // Data keys are made and moved by batches that have no outcome, and leave nothing to be settled.
                    Ok(daemon) if first == Point::BatchWritten => {
                        campaign.verify(&daemon).await?;
                        site = daemon.stop().await?;
                    }
                    _ => anyhow::bail!("it passed {} alive", point.name()),
                }
            }
            anyhow::bail!("it passed {} alive {TRIES_MAX} times", point.name())
        }
        Stage::Init | Stage::Due => anyhow::bail!("not on a site that works"),
    }
}

/// A place that only some deaths lead to is reached after so many.
const TRIES_MAX: usize = 50;

fn is_at_work(point: &&Point) -> bool {
    !matches!(point.stage(), Stage::Init | Stage::Due)
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_at_any_place_to_die() -> Result<()> {
    let seed = seed();
    println!("kill points: seed {seed}");
    let mut random = Random::new(seed);
    let (mut total, mut died) = (Tally::default(), BTreeMap::<&str, usize>::new());
    let times = at_scale(2, 20);
    for points in Point::ALL.iter().filter(is_at_work).copied().collect::<Vec<_>>().chunks(4) {
        // Some places on one site, so that what one death leaves is there at the next.
        let (mut campaign, site) = Campaign::begin(random.fork()).await?;
        let mut daemon = site.start().await?;
        let mut working = campaign.work(&daemon, Mix::All)?;
        working.more(60).await?;
        let site = daemon.kill().await?;
        campaign.ended(working).await?;
        daemon = site.start().await?;
        campaign.verify(&daemon).await?;
        for point in points {
            for round in 0..times {
                let at = || format!("seed {seed}, {}, round {round}", point.name());
                let site = daemon.stop().await?;
                let site = die(&mut campaign, site, *point, round).await.with_context(at)?;
                daemon = site.start().await.with_context(at)?;
                campaign.verify(&daemon).await.with_context(at)?;
                ensure!(campaign.wrongs.is_empty(), "{}: {:?}", at(), campaign.wrongs);
                *died.entry(point.name()).or_default() += 1;
            }
        }
        total.add(campaign.finish(daemon).await.with_context(|| format!("seed {seed}, {points:?}"))?);
    }
    for (name, times) in &died {
        println!("kill point {name}: died {times} times");
    }
    total.print("kill points");
    total.check();
    Ok(())
}

/// Runs `init` again after it was cut off, as the daemon's own messages say.
async fn init_again(site: &Site) -> Result<Ended> {
    let refused = site.refused_serve().await?;
    ensure!(refused.code.is_some(), "it serves, though nothing was finished");
    let again = site.try_init().await?;
    if again.code == Some(0) {
        return Ok(again);
    }
    let told = refused.stderr.contains("unfinished `init`") && refused.stderr.contains("hsm, seg and store");
    ensure!(told, "it does not say that `init` was cut off, and what to do: {}", refused.stderr);
    let points_there = again.stderr.contains("unfinished `init`") || again.stderr.contains("kms-server serve");
    ensure!(points_there, "it does not lead to whoever says so: {}", again.stderr);
    for part in ["hsm", "seg", "store"] {
        match std::fs::remove_dir_all(site.path("data").join(part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    site.init().await
}

#[tokio::test]
async fn an_init_that_dies_anywhere_is_finished_or_told_and_made_again() -> Result<()> {
    for point in Point::ALL.iter().filter(|point| point.stage() == Stage::Init) {
        for _ in 0..at_scale(1, 20) {
            let site = Site::temporary()?;
            let died = site.init_armed(point.name()).await?;
            let told = died.code.is_none() && died.stderr.contains(point.name());
            ensure!(told, "{}: {:?} {}", point.name(), died.code, died.stderr);
            // With its first batch a cluster is whole: a start records what was left out. Without it nothing is there.
            let whole = matches!(point, Point::InitBatch | Point::InitOutcome);
            if !whole {
                init_again(&site).await.with_context(|| point.name())?;
            }
            let daemon = site.start().await.with_context(|| point.name())?;
            daemon.caller("admin")?.ask(create_tenant("acme")).await?;
            let daemon = daemon.restart().await?;
            let site = daemon.stop().await?;
            let records = kms_tests::records::Records::read(&site)?;
            super::check_settled(&records)?;
            crate::world::check(&site)?;
        }
        println!("kill point {}: died {} times, {}", point.name(), at_scale(1, 20), "then served");
    }
    Ok(())
}

/// What is due waits for an hour with a steady clock: it is brought about by a process of its own, on a stopped site.
#[tokio::test]
async fn a_destruction_by_date_that_dies_anywhere_is_done_or_not_begun() -> Result<()> {
    let seed = seed();
    println!("kill points of dates: seed {seed}");
    let mut random = Random::new(seed);
    // Dates pass the places of changes and of gates as well.
    let is_passed =
        |point: &&Point| matches!(point.stage(), Stage::Due | Stage::Change | Stage::Gate | Stage::Destruction);
    for point in Point::ALL.iter().filter(is_passed) {
        for _ in 0..at_scale(1, 20) {
            let site = Site::temporary()?;
            site.init().await?;
            let daemon = site.start().await?;
            let admin = daemon.caller("admin")?;
            let names: Vec<String> = (0..3).map(|number| format!("t{number}")).collect();
            for name in &names {
                admin.ask(create_tenant(name)).await?;
                admin.ask(create_key(&format!("tenants/{name}"), "app")).await?;
            }
            for name in &names[..2] {
                admin.ask(destroy_tenant(&format!("tenants/{name}"), None)).await?;
            }
            admin.ask(schedule_key_destruction("tenants/t2/keys/app", None)).await?;
            let site = daemon.stop().await?;

            let pass = 1 + random.below(3);
            let mut due = kms_tests::command("kms-trial")?;
            due.arg("due").arg(site.path("kms.toml")).arg(format!("{}:{pass}", point.name()));
            let died = run(due.current_dir(site.dir())).await?;
            ensure!(died.code.is_none(), "{}: {:?} {}", point.name(), died.code, String::from_utf8_lossy(&died.stdout));

            let daemon = site.start().await.with_context(|| point.name())?;
            let admin = daemon.caller("admin")?;
            let mut destroyed = 0;
            for name in &names[..2] {
                let tenant = admin.ask(get_tenant(&format!("tenants/{name}"))).await?.tenant.unwrap_or_default();
                match tenant.state() {
                    TenantState::Fenced => destroyed += 1,
                    state => ensure!(state == TenantState::PendingDestruction, "{}: {state:?}", point.name()),
                }
            }
            let key = admin.ask(get_key("tenants/t2/keys/app")).await?.key.unwrap_or_default();
            match key.state() {
                KeyState::Destroyed => destroyed += 1,
                state => ensure!(state == KeyState::PendingDestruction, "{}: {state:?}", point.name()),
            }
            // One after the other: all before the one at which it died are done, none after it is begun.
            ensure!((pass - 1..=pass).contains(&destroyed), "{}:{pass}: {destroyed} are destroyed", point.name());
            let site = daemon.stop().await?;
            super::check_settled(&kms_tests::records::Records::read(&site)?)?;
            crate::world::check(&site)?;
        }
        println!("kill point {} of a date: died {} times", point.name(), at_scale(1, 20));
    }
    Ok(())
}

#[tokio::test]
async fn a_place_that_does_not_exist_is_refused() -> Result<()> {
    let site = Site::temporary()?;
    let ended = run(site.command("serve")?.env("KMS_SERVER_KILL_POINT", "nowhere")).await?;
    ensure!(ended.code.is_some_and(|code| code != 0) && ended.stderr.contains("nowhere"), "{ended:?}");
    Ok(())
}
