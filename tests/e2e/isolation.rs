//! No tenant gets anything of another: 200 tenants, each with an application that is bound to it alone, and many
//! attempts to get at what is another's, over the wire and with rows of the store put in each other's place.
//!
//! A leak is a success where none is due, anything of another tenant in any byte of an answer, or an answer that tells
//! what exists elsewhere from what does not. `KMS_TESTS_SEED` makes the same choices again.

mod judge;
mod probes;
mod requests;
mod rows;
mod survey;
mod tenants;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kms_proto::v1;
use kms_tests::request::list_key_versions;
use kms_tests::{Caller, Daemon, Random, Settings, Site, patiently, seed};

use crate::at_scale;
use crate::authz_coverage::methods;
use judge::Judge;
use probes::{KINDS, Methods, Scene, lists};
use requests::OF_NO_TENANT;
use rows::{Copy, EDITS, Edit, ROW_KINDS, Rows};
use survey::{Before, Told};
use tenants::{ROWS, Tenant, each};

const TENANTS: usize = 200;
/// Probes that are sent at the same time.
const WALKERS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_gets_anything_of_another() -> Result<()> {
    let seed = seed();
    println!("isolation: seed {seed}");
    let mut random = Random::new(seed);
    let probes_min = at_scale(100_000, 1_000_000);

    // Tenants, as they are first and as they are then: so each row that changes has an older one.
    let settings = Settings { segment_bytes: 4 << 20, ..Settings::default() };
    let site = Site::with(&settings)?;
    site.change_settings("[destruction]", "[limits]\nconnections_per_peer = 2048\n\n[destruction]")?;
    site.init().await?;
    let mut all: Vec<Tenant> = (0..TENANTS).map(Tenant::new).collect();
    for tenant in &all {
        tenant.bind(&site)?;
    }
    let daemon = site.start().await?;
    let admin = daemon.caller("admin")?;
    all = each(&daemon, all, move |tenant, app| tenant.make(admin.clone(), app)).await?;
    let daemon = daemon.restart().await?;
    all = each(&daemon, all, Tenant::seal_first).await?;
    let site = daemon.stop().await?;
    let older = rows::read(&site, &all).await?;
    let daemon = site.start().await?;
    all = each(&daemon, all, Tenant::fill).await?;
    all = each(&daemon, all, until_moved).await?;
    let site = daemon.stop().await?;
    let now = rows::read(&site, &all).await?;
    let judge = Judge::new(all.iter().flat_map(Tenant::needles).collect());
    let mut scene = Arc::new(Scene::of(all, judge, &site)?);

    let copy = Copy::of(&site)?;
    let site = edited_rows(&mut scene, site, &copy, (&now, &older), &mut random).await?;
    copy.put()?;
    let daemon = site.start().await?;
    let alone = Arc::get_mut(&mut scene).context("nobody else has it")?;
    alone.call(&daemon)?;
    alone.list().await?;

    let share = probes_min.div_ceil(WALKERS);
    let walkers: Vec<_> = (0..WALKERS)
        .map(|_| {
            let (scene, random) = (Arc::clone(&scene), random.fork());
            tokio::spawn(async move { scene.walk(random, share).await })
        })
        .collect();
    for walker in walkers {
        walker.await??;
    }
    let ways = scene.judge.compare();
    // A service that lost everything would leak nothing.
    for a in 0..scene.tenants.len() {
        scene.open_all(a).await?;
    }
    ensure!(daemon.probe("/readyz").await? == 200, "it serves at the end");
    crate::world::check(&daemon.stop().await?)?;
    report(&scene, probes_min, ways)
}

/// Prints what was counted, and fails if anything leaked or was not tried.
fn report(scene: &Scene, probes_min: usize, ways: usize) -> Result<()> {
    let found = scene.judge.found();
    let (wire, edited, leaks) = (found.over_the_wire, found.edited_rows, found.leaks.len());
    println!(
        "isolation: tenants {TENANTS}, probes {} (over the wire {wire}, edited rows {edited}), by kind {:?}, leaks {leaks}",
        wire + edited,
        found.by_kind
    );
    println!(
        "isolation: {} RPCs, {ways} ways to ask whether something exists that told nothing, {} opened by their owners",
        found.by_rpc.len(),
        found.opened
    );
    let mut by_kind: BTreeMap<&str, usize> = BTreeMap::new();
    for leak in &found.leaks {
        *by_kind.entry(leak.split([':', ',']).next().unwrap_or_default()).or_default() += 1;
    }
    let shown: Vec<&String> = found.leaks.iter().take(20).collect();
    ensure!(leaks == 0, "{leaks} leaks, by kind {by_kind:?}, the first of them: {shown:#?}");
    ensure!(wire >= probes_min, "only {wire} probes were made over the wire");
    let kinds = KINDS.iter().map(|(kind, _)| kind).chain(&EDITS).map(|kind| (kind, &found.by_kind));
    let kinds = kinds.chain(ROW_KINDS.iter().map(|kind| (kind, &found.by_row)));
    let never: Vec<_> = kinds.filter(|(kind, counts)| !counts.contains_key(*kind)).map(|(kind, _)| kind).collect();
    ensure!(never.is_empty(), "these kinds of probes were never made: {never:?}");
    let never: Vec<_> = scene.methods.keys().filter(|rpc| !found.by_rpc.contains_key(*rpc)).collect();
    ensure!(never.is_empty(), "these RPCs were never probed: {never:?}");
    ensure!(found.opened > scene.tenants.len() * 20, "its owners opened too little: {}", found.opened);
    Ok(())
}

/// Edits rows of all tenants, in pairs, and asks for everything that they are read for; some rounds of it.
async fn edited_rows(
    scene: &mut Arc<Scene>,
    site: Site,
    copy: &Copy,
    (now, older): (&Rows, &Rows),
    random: &mut Random,
) -> Result<Site> {
    let daemon = site.start().await?;
    Arc::get_mut(scene).context("nobody else has it")?.call(&daemon)?;
    // A pair here is a pair in every round: what a tenant is asked depends on the other one.
    let mut order: Vec<usize> = (0..TENANTS).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    let pairs: Vec<(usize, usize)> = order.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let mut before = Before::new();
    for (_, _, answers) in survey(scene, pairs.iter().map(|pair| (*pair, None)).collect(), &Arc::default()).await? {
        before.extend(answers);
    }
    let before = Arc::new(before);
    let mut site = daemon.stop().await?;

    // What came of the edits, by what was done to what: found, or of no consequence.
    let mut ends: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    let (rounds, mut refused_starts, mut written) = (at_scale(2, 20), 0, 0);
    for round in 0..rounds {
        let mut left = vec![Edit::choose(&pairs, now, older, round * pairs.len(), random)];
        while let Some(edits) = left.pop() {
            copy.put()?;
            let rows = rows::make(&site, &edits, &scene.tenants, (now, older), random).await?;
            let daemon = match Daemon::start_unless_refused(site).await? {
                Ok(daemon) => daemon,
                // By halves, until it is alone.
                Err(refused) => {
                    site = refused;
                    if let [edit] = &edits[..] {
                        refused_starts += 1;
                        ends.entry((edit.what, edit.role.kind)).or_default().0 += 1;
                    } else {
                        let (some, others) = edits.split_at(edits.len() / 2);
                        left.extend([some.to_vec(), others.to_vec()]);
                    }
                    continue;
                }
            };
            written += rows;
            Arc::get_mut(scene).context("nobody else has it")?.call(&daemon)?;
            let edited = edits.into_iter().map(|edit| ((edit.a, edit.b), Some(edit))).collect();
            for (edit, told, _) in survey(scene, edited, &before).await? {
                let edit = edit.context("these are of edits")?;
                scene.judge.count_edited(edit.what, edit.role.kind, told.touched);
                let (seen, harmless) = ends.entry((edit.what, edit.role.kind)).or_default();
                *if told.refused > 0 { seen } else { harmless } += 1;
            }
            site = daemon.kill().await?;
        }
    }
    println!(
        "isolation: {rounds} rounds of {} edits, {written} rows written, {refused_starts} starts refused",
        pairs.len()
    );
    for ((what, kind), (seen, harmless)) in &ends {
        println!("isolation: {what}: {kind}: {seen} seen, {harmless} harmless");
    }
    Ok(site)
}

/// A pair of tenants, and what was done to their rows.
type Pair = ((usize, usize), Option<Edit>);

/// Asks everything as both tenants of each pair, many at a time.
async fn survey(
    scene: &Arc<Scene>,
    pairs: Vec<Pair>,
    before: &Arc<Before>,
) -> Result<Vec<(Option<Edit>, Told, Before)>> {
    let surveys = pairs.into_iter().map(|((a, b), edit)| {
        let (scene, before) = (Arc::clone(scene), Arc::clone(before));
        tokio::spawn(async move {
            let (mut told, mut answers) = scene.survey(a, b, edit.as_ref(), &before).await?;
            let (more, others) = scene.survey(b, a, edit.as_ref(), &before).await?;
            told.touched += more.touched;
            told.refused += more.refused;
            answers.extend(others);
            Ok::<_, anyhow::Error>((edit, told, answers))
        })
    });
    let (surveys, mut done) = (surveys.collect::<Vec<_>>(), Vec::new());
    for survey in surveys {
        done.push(survey.await??);
    }
    Ok(done)
}

/// Waits until the service has moved all data keys of a tenant to its newest version.
async fn until_moved(tenant: Tenant, app: Caller) -> Result<Tenant> {
    let request = list_key_versions(&tenant.key(ROWS), 0, "");
    let is_left =
        |versions: &[v1::KeyVersion]| versions.iter().any(|one| one.version == 1 && one.data_key_count != Some(0));
    let moved = async {
        while is_left(&app.ask(request.clone()).await?.key_versions) {}
        Ok::<_, kms_tests::Refused>(())
    };
    patiently("the move of data keys", moved).await??;
    Ok(tenant)
}

impl Scene {
    fn of(tenants: Vec<Tenant>, judge: Judge, site: &Site) -> Result<Self> {
        let known: BTreeMap<&str, &'static str> = kms_tests::NAMES.iter().map(|name| (*name, *name)).collect();
        let of = |method: &crate::authz_coverage::Method| {
            let name =
                known.get(&*method.name).with_context(|| format!("{} is not in the tests' list", method.name))?;
            Ok((*name, (method.path(), method.listener())))
        };
        let methods = methods().iter().map(of).collect::<Result<Methods>>()?;
        ensure!(OF_NO_TENANT.iter().all(|rpc| methods.contains_key(rpc)), "{OF_NO_TENANT:?}");
        let nobody = Caller::new("127.0.0.1:1", "127.0.0.1:1", &site.authority().pem(), None, site.ledger())?;
        let (stranger, lists) = (nobody.clone(), BTreeMap::new());
        Ok(Self { tenants, apps: Vec::new(), stranger, nobody, methods, lists, judge })
    }

    /// Calls a daemon that was started.
    fn call(&mut self, daemon: &Daemon) -> Result<()> {
        self.apps = self.tenants.iter().map(|tenant| daemon.caller(&tenant.app())).collect::<Result<_>>()?;
        self.stranger = daemon.caller("stranger")?;
        self.nobody = daemon.caller_with(Some(&daemon.site().authority().client_of(&[])?))?;
        Ok(())
    }

    /// Notes what lists say.
    async fn list(&mut self) -> Result<()> {
        for a in 0..self.tenants.len() {
            for (rpc, message) in lists(&self.tenants[a]) {
                let own = &self.tenants[a].id;
                let answer = self.send(&self.apps[a], own, "a list of one's own", rpc, &message).await?.into_inner();
                self.lists.insert((a, [rpc.as_bytes(), &message].concat()), answer);
            }
        }
        Ok(())
    }
}
