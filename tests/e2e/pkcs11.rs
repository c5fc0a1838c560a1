//! The master key in a token: SoftHSM2 in the place of a hardware module, with the process of its own that it would have.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kms_proto::v1::{BackendStatus, GetStatusRequest};
use kms_tests::request::*;
use kms_tests::{Daemon, Ended, Site, SoftHsm, command, patiently, run};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::bad_surroundings::refuses;
use crate::{ACME_KEY, Expected, Load, World, at_scale, world};

const PIN: &str = "481516";
const WRONG_PIN: &str = "234213";

/// A site whose master key is to be in a token.
async fn site() -> Result<(Site, SoftHsm)> {
    let site = Site::temporary()?;
    let hsm = SoftHsm::of(&site, PIN).await?;
    Ok((site, hsm))
}

/// Runs `kms-trial` on a token of its own.
async fn trial(words: &[&str], more: &[&str]) -> Result<Ended> {
    let folder = tempfile::Builder::new().prefix("kms-").tempdir()?;
    let hsm = SoftHsm::new(&folder.path().join("softhsm"))?;
    hsm.make_token("kms", PIN).await?;
    private(&folder.path().join("pin"), PIN)?;
    private(&folder.path().join("wrong-pin"), WRONG_PIN)?;
    let (variable, value) = hsm.variable();
    let mut trial = command("kms-trial")?;
    trial.args(words).arg(hsm.module()).arg(folder.path()).args(more).env(variable, value);
    let ended = run(&mut trial).await?;
    print!("{}", String::from_utf8_lossy(&ended.stdout));
    ended.success()
}

fn private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[tokio::test]
async fn a_token_keeps_the_contract_with_either_mechanism() -> Result<()> {
    for mechanism in ["aes-gcm", "aes-cbc-pad", "auto"] {
        let ended = trial(&["contract", "pkcs11", mechanism], &[]).await?;
        let said = String::from_utf8(ended.stdout)?;
        ensure!(said.contains(&format!("contract: pkcs11 ({mechanism}) 14/14 kept")), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn many_callers_go_through_the_queue() -> Result<()> {
    let calls = "1000";
    let ended = trial(&["queue", "pkcs11"], &["64", calls]).await?;
    let said = String::from_utf8(ended.stdout)?;
    ensure!(said.contains(" failed 0, "), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_daemon_serves_with_a_token_that_comes_and_goes() -> Result<()> {
    let (site, hsm) = site().await?;
    let mut expected = Expected::of("a master key in a token");
    let world = World::at(site).await?;
    let blob = world.app.ask(encrypt(ACME_KEY, b"kept", &[])).await?.ciphertext;
    let keys = hsm.keys("kms", PIN).await?;
    let words = ["kms1-", "-00000001", "AES length 32", "never extractable", "local"];
    let right = words.iter().all(|word| keys.contains(word)) && keys.matches("Secret Key Object").count() == 1;
    expected.row(right, "the token, as another program sees it", "one key that never leaves it", &keys);

    let world = world.restart().await?;
    let opened = world.app.ask(decrypt(ACME_KEY, &blob, &[])).await?.plaintext;
    expected.row(opened == b"kept", "a restart", "what was sealed before", "something else");
    let status = backend_status(&world).await?;
    let right = status.reachable && status.assurance == "hsm-token" && status.detail.contains("\"kms\"");
    expected.row(right, "the status", "reachable, hsm-token, the token's name", &format!("{status:?}"));

    hsm.pull()?;
    let status = backend_status(&world).await?;
    expected.row(!status.reachable, "the status without the token", "not reachable", &format!("{status:?}"));
    let served = world.app.ask(encrypt(ACME_KEY, b"without", &[])).await;
    expected.row(served.is_ok(), "a request without the token", "success", &format!("{served:?}"));
    hsm.put_back()?;
    let status = backend_status(&world).await?;
    expected.row(status.reachable, "the status with the token again", "reachable", &format!("{status:?}"));

    let site = world.daemon.stop().await?;
    hsm.pull()?;
    let began = Instant::now();
    let ended = site.refused_serve().await?;
    let took = began.elapsed();
    refuses(&mut expected, "a start without the token", &["no token", "kms", "check"], &ended);
    println!("a start without the token ended after {:.1} s", took.as_secs_f64());
    expected.row(took < Duration::from_secs(10), "its end", "within 10 s", &format!("{took:?}"));
    hsm.put_back()?;
    // Nothing that was in the way has used up a try of the PIN.
    let world = World::on(site.start().await?)?;
    expected.check();
    world.finish().await
}

async fn backend_status(world: &World) -> Result<BackendStatus> {
    world.admin.ask(GetStatusRequest {}).await?.backend.context("a status of the backend")
}

#[tokio::test]
async fn a_module_that_dies_or_hangs_fails_no_request() -> Result<()> {
    let (site, _hsm) = site().await?;
    let world = World::at(site).await?;
    let launcher = child_of(world.daemon.pid()?, "kms-launcher")?;
    let callers = (0..8).map(|_| world.daemon.caller("app")).collect::<Result<Vec<_>>>()?;
    let load =
        Load::start(
            callers,
            |caller, _| async move { caller.ask(encrypt(ACME_KEY, b"under load", &[])).await.map(drop) },
        );
    load.more(100).await?;

    let (kills, mut slowest) = (at_scale(5, 50), Duration::ZERO);
    for kill in 1..=kills {
        let module = child_of(launcher, "kms-module")?;
        let began = Instant::now();
        signal(module, Signal::KILL)?;
        world.daemon.site().output().says_times(BACK, kill).await?;
        slowest = slowest.max(began.elapsed());
        ensure!(child_of(launcher, "kms-module")? != module, "it is another one");
        ensure!(backend_status(&world).await?.reachable, "and it answers");
    }
    println!("killed {kills} times: back after at most {} ms", slowest.as_millis());

    let module = child_of(launcher, "kms-module")?;
    signal(module, Signal::STOP)?;
    let began = Instant::now();
    let status = backend_status(&world).await?;
    ensure!(!status.reachable, "a module that hangs is not reached: {status:?}");
    world.daemon.site().output().says_times(BACK, kills + 1).await?;
    println!("hung: replaced after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(began.elapsed() < Duration::from_secs(8), "a hang ends before 8 s");
    ensure!(backend_status(&world).await?.reachable, "and then it answers");

    // The launcher itself: there is a new one.
    signal(launcher, Signal::KILL)?;
    world.daemon.site().output().says_times(BACK, kills + 2).await?;
    let again = child_of(world.daemon.pid()?, "kms-launcher")?;
    ensure!(again != launcher, "it is another one");

    // What stops a daemon ends neither of the two.
    let module = child_of(again, "kms-module")?;
    for stop in [Signal::INT, Signal::TERM, Signal::HUP] {
        signal(again, stop)?;
        signal(module, stop)?;
    }
    ensure!(backend_status(&world).await?.reachable && child_of(again, "kms-module")? == module, "they go on");

    let ended = load.stop().await?;
    let failed = ended.iter().filter(|ended| ended.is_err()).count();
    let done: usize = ended.iter().flatten().sum();
    println!("meanwhile: {done} requests, failed {failed}");
    ensure!(failed == 0, "{ended:?}");

    let site = world.daemon.kill().await?;
    for (process, name) in [(again, "kms-launcher"), (module, "kms-module")] {
        patiently(&format!("the end of {name} after its daemon was killed"), end_of(process, name)).await?;
    }
    let world = World::on(site.start().await?)?;
    world.finish().await
}

/// What the daemon says once a module that died is open again.
const BACK: &str = "the process of the HSM's module is back";

#[tokio::test]
async fn the_processes_of_a_module_inherit_nothing_and_are_as_protected() -> Result<()> {
    let (site, _hsm) = site().await?;
    let world = World::at(site).await?;
    let launcher = child_of(world.daemon.pid()?, "kms-launcher")?;
    let module = child_of(launcher, "kms-module")?;
    for process in [launcher, module] {
        inherits_nothing(process, &world)?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        ensure!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{status}");
    }
    // Also those that are started while the daemon has all its files and connections.
    signal(launcher, Signal::KILL)?;
    world.daemon.site().output().says_times(BACK, 1).await?;
    let launcher = child_of(world.daemon.pid()?, "kms-launcher")?;
    inherits_nothing(launcher, &world)?;
    inherits_nothing(child_of(launcher, "kms-module")?, &world)?;
    world.finish().await
}

/// Checks that a process has streams of its own, and none that the daemon has but the one between the two.
fn inherits_nothing(process: i32, world: &World) -> Result<()> {
    let open = |process: &str, from: u32| -> Result<BTreeSet<String>> {
        let entries = std::fs::read_dir(format!("/proc/{process}/fd"))?;
        let of = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            // What is read here may be closed at the same time.
            let target = std::fs::read_link(entry.path()).ok()?;
            (number >= from).then(|| target.to_string_lossy().into_owned())
        };
        Ok(entries.filter_map(of).collect())
    };
    let daemon = world.daemon.pid()?.to_string();
    if std::fs::read_dir(format!("/proc/{process}/fd")).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    {
        // It cannot be looked into but by root: then that is what is shown of it.
        println!("process {process}: as protected as the daemon; what it has open only root sees");
        return Ok(());
    }
    // What this test has been left by whoever runs it, such as the pipe of a job server, it passes on to the daemon.
    let passed_on: BTreeSet<_> = open("self", 3)?.intersection(&open(&daemon, 3)?).cloned().collect();
    let (daemon, own) = (open(&daemon, 0)?, open(&process.to_string(), 0)?);
    let is_harmless = |target: &String| HARMLESS.contains(&target.as_str()) || passed_on.contains(target);
    let shared: Vec<_> = daemon.intersection(&own).filter(|target| !is_harmless(target)).collect();
    ensure!(shared.is_empty(), "process {process} has {shared:?} of the daemon");
    Ok(())
}

/// Has nobody's data.
const HARMLESS: [&str; 3] = ["/dev/null", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"];

#[tokio::test]
async fn a_wrong_pin_is_tried_once_however_often_the_daemon_starts() -> Result<()> {
    let (site, hsm) = site().await?;
    let mut expected = Expected::of("a wrong PIN of a token");
    // Between the daemon and its module is one that writes down all calls.
    let calls = site.path("calls");
    site.set_variable("PKCS11SPY", &hsm.module().display().to_string());
    site.set_variable("PKCS11SPY_OUTPUT", &calls.display().to_string());
    let own = hsm.module().display().to_string();
    site.change_settings(&own, &SoftHsm::spy()?.display().to_string())?;
    let logins = || -> Result<usize> {
        let text = String::from_utf8_lossy(&std::fs::read(&calls).context("the calls of the module")?).into_owned();
        Ok(text.lines().filter(|line| line.ends_with(": C_Login")).count())
    };
    let daemon = Daemon::fresh_on(site).await?;
    let site = daemon.stop().await?;
    let before = logins()?;
    // Two of init, which believes that there is no key only from a second session.
    expected.row(before == 3, "init and a start", "3 logins", &before.to_string());

    site.write_secret("pin", WRONG_PIN)?;
    for (start, words) in [
        (1, &["did not take the PIN", "CKR_PIN_INCORRECT", "pin"][..]),
        (2, &["is not tried again", "pkcs11-login"]),
        (3, &["is not tried again", "pkcs11-login"]),
    ] {
        let ended = site.refused_serve().await?;
        refuses(&mut expected, &format!("a wrong PIN, start {start}"), words, &ended);
        let said = ended.stderr.contains(WRONG_PIN);
        expected.row(!said, "what it says", "not the PIN", "the PIN");
        let count = logins()? - before;
        expected.row(count == 1, &format!("logins after start {start}"), "1", &count.to_string());
    }
    println!("a wrong PIN, 3 starts: {} C_Login", logins()? - before);
    let checked = run(&mut site.command("config check")?).await?;
    expected.row(checked.code == Some(0), "config check", "success", &checked.stderr);
    expected.row(logins()? == before + 1, "config check", "no login", "a login");

    site.write_secret("pin", PIN)?;
    let daemon = site.start().await.context("the right PIN")?;
    let note = daemon.site().path("data/hsm/pkcs11-login");
    expected.row(!note.exists(), "the right PIN", "no note any more", "a note");
    let site = daemon.stop().await?;

    // The PIN of the token is changed, and then that of the file.
    hsm.change_pin("kms", PIN, "777888").await?;
    refuses(&mut expected, "a PIN that is old", &["did not take the PIN"], &site.refused_serve().await?);
    site.write_secret("pin", "777888")?;
    let site = site.start().await.context("the new PIN")?.stop().await?;
    world::check(&site)?;

    // A login that was begun and did not end, as after a power cut; and a note that somebody spoilt.
    std::fs::write(&note, "kms1-pkcs11-login 1 trying 1\n")?;
    std::fs::set_permissions(&note, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let site = site.start().await.context("a login that did not end before")?.stop().await?;
    private(&note, "spoilt\n")?;
    refuses(&mut expected, "a note that is spoilt", &["pkcs11-login", "remove it"], &site.refused_serve().await?);

    expected.check();
    Ok(())
}

fn signal(process: i32, signal: Signal) -> Result<()> {
    let process = Pid::from_raw(process).context("an id")?;
    kill_process(process, signal).with_context(|| format!("sending {signal:?}"))
}

/// Returns when a process has ended.
async fn end_of(process: i32, name: &str) {
    let is_there = || std::fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm.trim() == name);
    while is_there() {
        tokio::task::yield_now().await;
    }
}

/// Returns the id of a process by its parent and name.
fn child_of(parent: i32, name: &str) -> Result<i32> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that has ended meanwhile is none.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.split_once(" (").and_then(|(_, rest)| rest.rsplit_once(") ")) else { continue };
        let words: Vec<&str> = rest.split(' ').collect();
        if head == name && words[0] != "Z" && words[1] == parent.to_string() {
            return Ok(id);
        }
    }
    anyhow::bail!("process {parent} has no child {name}")
}
