//! The daemon is killed, again and again, while callers change and use what it keeps: nothing that
//! was acknowledged is lost, no destroyed tenant comes back, no reply is without its record.
//!
//! A round: callers work until the daemon is killed from outside, or dies by itself at a named place;
//! it is started again and held against the journals. `KMS_TESTS_SEED` makes a run again, as far as
//! the choices go: when what is carried out remains with the machine.

mod data_keys;
mod journal;
mod model;
mod points;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use kms_server::audit::Phase;
use kms_tests::records::Records;
use kms_tests::stored::StoredDataKeys;
use kms_tests::{Daemon, Random, Reply, Settings, Site, patiently, seed};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::at_scale;
use journal::{Journal, Mix};

const WORKERS: usize = 4;
/// Rounds on one site: what is kept is looked at after each, so it must not grow for ever.
const ROUNDS_OF_SITE: usize = 50;

/// What was counted over many rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    rounds: usize,
    acknowledged: usize,
    in_doubt: usize,
    done_in_doubt: usize,
    opened: usize,
    of_data_keys: usize,
    repeated: usize,
    given_out: usize,
    lost: usize,
    resurrected: usize,
    replies: usize,
    without_record: usize,
}

impl Tally {
    fn print(&self, what: &str) {
        let Self { rounds, acknowledged, in_doubt, done_in_doubt, opened, .. } = self;
        println!(
            "{what}: rounds {rounds}, acknowledged writes {acknowledged}, lost {}, resurrected {}, replies {}, without a record {}",
            self.lost, self.resurrected, self.replies, self.without_record
        );
        println!(
            "{what}: writes without an answer {in_doubt}, of which done {done_in_doubt}; ciphertexts opened after a restart {opened}"
        );
        println!(
            "{what}: calls that made or destroyed managed data keys {}, without an answer and sent again {}; data keys given out after a restart {}",
            self.of_data_keys, self.repeated, self.given_out
        );
    }

    fn add(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.acknowledged += other.acknowledged;
        self.in_doubt += other.in_doubt;
        self.done_in_doubt += other.done_in_doubt;
        self.opened += other.opened;
        self.of_data_keys += other.of_data_keys;
        self.repeated += other.repeated;
        self.given_out += other.given_out;
        self.lost += other.lost;
        self.resurrected += other.resurrected;
        self.replies += other.replies;
        self.without_record += other.without_record;
    }

    fn check(&self) {
        assert_eq!((self.lost, self.resurrected, self.without_record), (0, 0, 0), "{self:?}");
    }
}

/// A site, and what its callers know of it.
struct Campaign {
    journals: Vec<Journal>,
    random: Random,
    tally: Tally,
    wrongs: Vec<String>,
}

impl Campaign {
    /// Makes a site whose log has small segments, so that they end often.
    async fn begin(mut random: Random) -> Result<(Self, Site)> {
        let site = Site::with(&Settings { segment_bytes: 1 << 16, ..Settings::default() })?;
        site.init().await?;
        site.bind_app(&["encrypter", "decrypter", "eraser"])?;
        let journals = (0..WORKERS).map(|number| Journal::new(number, random.fork())).collect();
        Ok((Self { journals, random, tally: Tally::default(), wrongs: Vec::new() }, site))
    }

    /// Lets the callers work on a daemon. Returns what hears of each acknowledged write, and of the end of all.
    fn work(&mut self, daemon: &Daemon, mix: Mix) -> Result<Working> {
        let (tell, heard) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for mut journal in self.journals.drain(..) {
            let (admin, app, tell) = (daemon.caller("admin")?, daemon.caller("app")?, tell.clone());
            tasks.spawn(async move {
                let ended = journal.work(&admin, &app, mix, &tell).await;
                (journal, ended)
            });
        }
        Ok(Working { tasks, heard })
    }

    /// Takes the journals back from callers whose daemon is dead.
    async fn ended(&mut self, working: Working) -> Result<()> {
        let mut ended = patiently("the end of the callers", working.tasks.join_all()).await?;
        ended.sort_by_key(|(journal, _)| journal.number);
        for (journal, ended) in ended {
            self.journals.push(journal);
            self.wrongs.extend(ended.err().map(|error| format!("{error:#}")));
        }
        Ok(())
    }

    /// Holds what a daemon says after its start against the journals.
    async fn verify(&mut self, daemon: &Daemon) -> Result<()> {
        let mut tasks = JoinSet::new();
        for mut journal in self.journals.drain(..) {
            let (admin, app) = (daemon.caller("admin")?, daemon.caller("app")?);
            tasks.spawn(async move {
                let found = journal.verify(&admin, &app).await;
                (journal, found)
            });
        }
        let mut found = patiently("looking at all that was kept", tasks.join_all()).await?;
        found.sort_by_key(|(journal, _)| journal.number);
        for (journal, found) in found {
            let found = found.with_context(|| format!("verifying; it said:\n{}", daemon.site().output().tail()))?;
            self.tally.acknowledged += found.acknowledged;
            self.tally.in_doubt += found.in_doubt;
            self.tally.done_in_doubt += found.done_in_doubt;
            self.tally.opened += found.opened;
            self.tally.of_data_keys += found.acknowledged_of_data_keys;
            self.tally.repeated += found.repeated;
            self.tally.given_out += found.given_out;
            self.tally.lost += found.lost.len();
            self.tally.resurrected += found.resurrected.len();
            self.wrongs.extend(found.lost.into_iter().chain(found.resurrected));
            self.journals.push(journal);
        }
        self.tally.rounds += 1;
        Ok(())
    }

    /// Stops the daemon, and holds the log against all replies and against itself.
    async fn finish(mut self, daemon: Daemon) -> Result<Tally> {
        let site = daemon.stop().await?;
        StoredDataKeys::read(&site).await?.check_counters()?;
        let records = Records::read(&site)?;
        records.check_chains()?;
        check_settled(&records)?;
        let without = without_record(&records, &site.ledger().replies());
        self.tally.replies = site.ledger().replies().len();
        self.tally.without_record = without.len();
        self.wrongs.extend(without.iter().map(|reply| format!("no record: {reply:?}")));
        crate::world::check(&site)?;
        ensure!(self.wrongs.is_empty(), "{} wrongs:\n{}", self.wrongs.len(), self.wrongs.join("\n"));
        Ok(self.tally)
    }
}

/// Callers at work.
struct Working {
    tasks: JoinSet<(Journal, Result<()>)>,
    heard: mpsc::UnboundedReceiver<()>,
}

impl Working {
    /// Returns once so many more writes were acknowledged, or all callers have ended.
    async fn more(&mut self, writes: usize) -> Result<()> {
        let heard = async {
            for _ in 0..writes {
                if self.heard.recv().await.is_none() {
                    return;
                }
            }
        };
        patiently(&format!("{writes} acknowledged writes"), heard).await
    }
}

/// Every intent has just one outcome, once a start has settled what crashes left.
fn check_settled(records: &Records) -> Result<()> {
    let mut outcomes: BTreeMap<u64, usize> = BTreeMap::new();
    for intent in records.leaves.iter().filter_map(|stored| stored.leaf.in_) {
        *outcomes.entry(intent).or_default() += 1;
    }
    for stored in records.leaves.iter().filter(|stored| stored.leaf.ph == Some(Phase::Intent)) {
        let count = outcomes.get(&stored.index).copied().unwrap_or(0);
        ensure!(count == 1, "the intent {} has {count} outcomes", stored.index);
    }
    Ok(())
}

/// Replies of the daemon, successes and refusals, without a record of the same request.
fn without_record(records: &Records, replies: &[Reply]) -> Vec<Reply> {
    let recorded: BTreeSet<&str> = records.leaves.iter().filter_map(|stored| stored.leaf.rid.as_deref()).collect();
    let has_record = |reply: &&Reply| reply.request_id.as_deref().is_some_and(|id| recorded.contains(id));
    replies.iter().filter(|reply| !has_record(reply)).cloned().collect()
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9_under_load() -> Result<()> {
    let seed = seed();
    println!("crash: seed {seed}");
    let mut random = Random::new(seed);
    let mut total = Tally::default();
    for site_number in 0..at_scale(1, 20) {
        let (mut campaign, site) = Campaign::begin(random.fork()).await?;
        let mut daemon = site.start().await?;
        for _ in 0..ROUNDS_OF_SITE {
            let mut working = campaign.work(&daemon, Mix::All)?;
            let writes = campaign.random.below(60);
            working.more(writes).await?;
            let site = daemon.kill().await?;
            campaign.ended(working).await?;
            daemon = site.start().await?;
            campaign.verify(&daemon).await?;
        }
        let tally = campaign.finish(daemon).await.with_context(|| format!("seed {seed}, site {site_number}"))?;
        total.add(tally);
    }
    total.print("crash");
    total.check();
    assert!(total.acknowledged > total.rounds * 10 && total.in_doubt > 0 && total.opened > total.rounds);
    assert!(total.of_data_keys > total.rounds && total.repeated > 0 && total.given_out > total.rounds);
    Ok(())
}
