//! The main job on real input: a customer table of two tenants, encrypted column by column through
//! the service, from the first start to a tenant's erasure.
//!
//! Everything here is as in production but its size: the real daemon in a process of its own,
//! mutual TLS, a durable store and log. What it leaves in `.kms-demo` is there to be looked at.

mod application;
mod story;
mod table;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kms_client::{KeyPurpose, KeyRef, TenantRef, TenantState};
use kms_server::audit::Outcome;
use kms_tests::records::{self, Records};
use kms_tests::{Binding, Daemon, Settings, Site};

use application::Application;
use story::{Showed, Story, expect, grouped, rate, timed};
use table::{Cell, Table};

const INPUT: &str = "deploy/demo/customers.csv";
const FOLDER: &str = ".kms-demo";
const KEY: &str = "customers";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint(&error);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "it is the one place that says why the demo failed")]
fn eprint(error: &anyhow::Error) {
    eprintln!("\nerror: {error:#}\n");
}

/// One of the two tenants.
struct Party {
    tenant: TenantRef,
    key: KeyRef,
    cells: Vec<Cell>,
}

impl Party {
    fn of(table: &Table, tenant: &str) -> Result<Self> {
        let cells = table.secret_cells(tenant);
        Ok(Self { tenant: TenantRef::new(tenant)?, key: KeyRef::new(tenant, KEY)?, cells })
    }

    /// Returns the name of its application.
    fn application(&self) -> String {
        format!("{}-app", self.tenant.tenant())
    }

    /// Connects as its application.
    async fn connect(&self, daemon: &Daemon) -> Result<Application> {
        Ok(Application::new(daemon.client(&self.application()).await?, self.key.clone()))
    }
}

async fn run() -> Result<()> {
    let plain = Table::read(Path::new(INPUT)).context("run this in the repository's folder")?;
    let tenants = plain.tenants();
    let [stays, leaves] = &tenants[..] else {
        anyhow::bail!("{INPUT}: {} tenants, where the demo needs two", tenants.len());
    };
    let (stays, leaves) = (Party::of(&plain, stays)?, Party::of(&plain, leaves)?);
    let (stays_name, leaves_name) = (stays.tenant.tenant(), leaves.tenant.tenant());
    let mut story = Story::begin(
        "A customer table, encrypted column by column",
        &[
            format!(
                "{stays_name}: {} customers; {leaves_name}: {}.",
                plain.rows_of(stays_name),
                plain.rows_of(leaves_name)
            ),
            format!("Secret columns: {}. From {INPUT}.", plain.secret_columns().join(", ")),
        ],
    );
    let encrypted_file = Path::new(FOLDER).join("customers.encrypted.csv");

    let daemon = story.step("Start the service on an empty directory", start(&stays, &leaves)).await?;
    story.step("Create two tenants with a key each", create(&daemon, [&stays, &leaves])).await?;
    let stays_app = stays.connect(&daemon).await?;
    let leaves_app = leaves.connect(&daemon).await?;
    let step = seal(&plain, [(&stays, &stays_app), (&leaves, &leaves_app)], &encrypted_file);
    story.step("Encrypt every secret value for its table, column and row", step).await?;
    let mut sealed = Table::read(&encrypted_file)?;

    story
        .step("Read the encrypted table back and decrypt it", async {
            let mut values = 0;
            let (_, took) = timed(async {
                for (party, app) in [(&stays, &stays_app), (&leaves, &leaves_app)] {
                    let opened = app.open(&sealed, &party.cells, &plain).await?;
                    expect("values that are stale before any rotation", opened.stale, 0)?;
                    values += opened.equal;
                }
                Ok(())
            })
            .await?;
            let did = format!(
                "{} of {} values are what they were; {}.",
                grouped(values),
                grouped(values),
                rate(values, took)
            );
            Ok(((), Showed { did: vec![did], proves: "nothing is lost on the way through the service and a file." }))
        })
        .await?;

    story
        .step(
            "Let the other tenant's application try",
            neighbour(&sealed, (&stays, &stays_app), (&leaves, &leaves_app)),
        )
        .await?;
    story.step("Copy ciphertexts into other rows", swapped(&sealed, &stays, &stays_app)).await?;

    let admin = daemon.client("admin").await?;
    story
        .step(&format!("Rotate the key of {stays_name}"), async {
            let (rotated, took) = timed(async { Ok(admin.rotate_key(&stays.key).await?) }).await?;
            let opened = stays_app.open(&sealed, &stays.cells, &plain).await?;
            expect("old values that open", opened.equal, stays.cells.len())?;
            expect("old values that are told to be stale", opened.stale, stays.cells.len())?;
            let did = vec![
                format!("Version {} is primary after {} ms.", rotated.version.version, took.as_millis()),
                format!(
                    "{} of {} old values open, all marked stale.",
                    grouped(opened.equal),
                    grouped(stays.cells.len())
                ),
            ];
            Ok(((), Showed { did, proves: "a new key takes effect at once, and nothing old is locked out." }))
        })
        .await?;

    story
        .step("Re-encrypt what is stale", async {
            let (_, took) = timed(stays_app.re_encrypt(&mut sealed, &stays.cells)).await?;
            sealed.write(&encrypted_file)?;
            let opened = stays_app.open(&sealed, &stays.cells, &plain).await?;
            expect("values that are still stale", opened.stale, 0)?;
            expect("values that open", opened.equal, stays.cells.len())?;
            let count = grouped(opened.equal);
            let did =
                format!("{count} of {count} moved inside the service, 0 are stale; {}.", rate(opened.equal, took));
            Ok((
                (),
                Showed {
                    did: vec![did],
                    proves: "a rotation can be finished without the plaintext leaving the service.",
                },
            ))
        })
        .await?;

    let daemon = story.step("Restart the service", restart(daemon, &sealed, &plain, [&stays, &leaves])).await?;

    story
        .step(
            &format!("Destroy the tenant {leaves_name}, who leaves"),
            erase(&daemon, &sealed, &plain, &leaves, &stays),
        )
        .await?;

    let title = "Stop the service and read its audit log";
    let (site, tell) = story.step(title, stop(daemon, &leaves)).await?;
    story.end();
    Story::tell(&tell);
    Story::tell(&[
        format!("The encrypted table:  {}", shown(&encrypted_file)),
        format!("The audit log:        {}", shown(&site.log_dir())),
        format!("Settings, bindings:   {}", shown(&site.path("kms.toml"))),
        String::new(),
    ]);
    Ok(())
}

async fn start(stays: &Party, leaves: &Party) -> Result<(Daemon, Showed)> {
    match fs::remove_dir_all(FOLDER) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(format!("removing the old {FOLDER}"))?
        }
        Ok(()) | Err(_) => {}
    }
    // As the daemon is by default, but for the smallest wait: nobody watches a demo for 7 days.
    let settings = Settings { segment_bytes: 4 << 20, pin_memory_kib: 65_536, ..Settings::default() };
    let site = Site::kept(Path::new(FOLDER), "demo.example", &settings)?;
    site.init().await?;
    for party in [stays, leaves] {
        site.bind(&Binding {
            id: &party.application(),
            roles: &["encrypter", "decrypter", "reencrypter"],
            principals: &[&site.principal(&party.application())],
            tenants: &[party.tenant.tenant()],
            keys: &[KEY],
        })?;
    }
    let principal = site.principal(&stays.application());
    let daemon = site.start().await?;
    let status = daemon.client("admin").await?.status().await?;
    let did = vec![
        format!(
            "Master key in the software HSM, epoch {}, audit log: made by `init`.",
            status.epoch.map_or(0, |epoch| epoch.number)
        ),
        format!(
            "Serving on {} over mutual TLS; keys in {}.",
            daemon.services(),
            status.memory.map_or_else(String::new, |m| m.protection)
        ),
        format!("Each application has a certificate, such as {principal}."),
    ];
    Ok((daemon, Showed { did, proves: "it runs from nothing, and lets nobody in without a certificate." }))
}

async fn create(daemon: &Daemon, parties: [&Party; 2]) -> Result<((), Showed)> {
    let admin = daemon.client("admin").await?;
    let mut did = Vec::new();
    for party in parties {
        let tenant = admin.create_tenant(&party.tenant).await?;
        let key = admin.create_key(&party.key, KeyPurpose::Encrypt, kms_client::Labels::new()).await?;
        did.push(format!("{} ({}), {} version {}", party.tenant, tenant.uid, party.key, key.primary_version));
    }
    // Who administers keys may not use them.
    let administrator = Application::new(admin, parties[0].key.clone());
    ensure!(administrator.may_not_seal().await?, "the administrator could use a key, which nobody allowed");
    Ok(((), Showed { did, proves: "a tenant is a key hierarchy of its own; who administers it cannot use it." }))
}

async fn seal(plain: &Table, parties: [(&Party, &Application); 2], file: &Path) -> Result<((), Showed)> {
    let mut sealed = plain.clone();
    let (_, took) = timed(async {
        for (party, app) in parties {
            app.seal(plain, &party.cells, &mut sealed).await?;
        }
        Ok(())
    })
    .await?;
    sealed.write(file)?;
    let cells: Vec<Cell> = parties.iter().flat_map(|(party, _)| party.cells.iter().copied()).collect();
    let distinct: HashSet<&str> = cells.iter().map(|cell| sealed.value(*cell)).collect();
    expect("different ciphertexts", distinct.len(), cells.len())?;
    // Short values, such as "x", may stand anywhere by chance.
    let secrets: Vec<&str> =
        cells.iter().map(|cell| plain.value(*cell)).filter(|value| value.chars().count() >= 6).collect();
    let text = fs::read_to_string(file)?;
    let seen = secrets.iter().filter(|value| text.contains(**value)).count();
    expect("secret values to be read in the encrypted file", seen, 0)?;
    let example = sealed.value(cells[0]).chars().take(40).collect::<String>();
    let did = vec![
        format!(
            "{} values, {} different ciphertexts; {}.",
            grouped(cells.len()),
            grouped(distinct.len()),
            rate(cells.len(), took)
        ),
        format!("0 of {} secret values can be read in the file. One looks so: {example}...", grouped(secrets.len())),
    ];
    Ok(((), Showed { did, proves: "the database needs no secret, and equal values do not look equal." }))
}

async fn neighbour(
    sealed: &Table,
    (stays, stays_app): (&Party, &Application),
    (leaves, leaves_app): (&Party, &Application),
) -> Result<((), Showed)> {
    let mut did = Vec::new();
    for (thief, owner) in [(leaves_app, stays), (stays_app, leaves)] {
        let places: Vec<(Cell, Cell)> = owner.cells.iter().map(|cell| (*cell, *cell)).collect();
        let refused = thief.is_refused(&owner.key, sealed, &places, "POLICY_DENIED").await?;
        expect("refusals by policy", refused, places.len())?;
        // Under the thief's own key it is allowed to ask, and it helps nothing.
        let refused_too = thief.is_refused(thief.key(), sealed, &places, "DECRYPT_FAILED").await?;
        expect("refusals by cryptography", refused_too, places.len())?;
        let (thief, count) = (thief.key().tenant().tenant(), grouped(places.len()));
        did.push(format!(
            "{thief} with {}'s key: {count} of {count} refused; with its own: {count} of {count}.",
            owner.tenant.tenant()
        ));
    }
    let theirs = leaves_app.refusal(&stays.key, sealed, stays.cells[0]).await?;
    let nobodys = leaves_app.refusal(&KeyRef::new("no-such-tenant", KEY)?, sealed, stays.cells[0]).await?;
    ensure!(
        (theirs.reason(), theirs.message()) == (nobodys.reason(), nobodys.message()),
        "a refusal tells whether a tenant exists"
    );
    Ok(((), Showed { did, proves: "tenants are kept apart twice: by permission, and by keys that do not fit." }))
}

async fn swapped(sealed: &Table, party: &Party, app: &Application) -> Result<((), Showed)> {
    // Each ciphertext, as if it stood in the next row of the same column.
    let next = |cell: &Cell| party.cells.iter().find(|other| other.column == cell.column && other.row > cell.row);
    let places: Vec<(Cell, Cell)> = party.cells.iter().filter_map(|cell| Some((*cell, *next(cell)?))).collect();
    let refused = app.is_refused(&party.key, sealed, &places, "DECRYPT_FAILED").await?;
    expect("refusals", refused, places.len())?;
    let did = format!(
        "{} of {} refused, though application and key are the right ones.",
        grouped(refused),
        grouped(places.len())
    );
    Ok(((), Showed { did: vec![did], proves: "who can write the database cannot move a value to another customer." }))
}

async fn restart(daemon: Daemon, sealed: &Table, plain: &Table, parties: [&Party; 2]) -> Result<(Daemon, Showed)> {
    let (daemon, took) = timed(daemon.restart()).await?;
    let mut values = 0;
    for party in parties {
        values += party.connect(&daemon).await?.open(sealed, &party.cells, plain).await?.equal;
    }
    expect("values that open", values, parties.iter().map(|party| party.cells.len()).sum())?;
    let did = vec![
        format!("Stopped with exit code 0 and serving again after {:.2} s.", took.as_secs_f64()),
        format!("{} of {} values open.", grouped(values), grouped(values)),
    ];
    Ok((
        daemon,
        Showed { did, proves: "what it acknowledged lies on disk, wrapped; memory held nothing that is missed." },
    ))
}

async fn erase(daemon: &Daemon, sealed: &Table, plain: &Table, leaves: &Party, stays: &Party) -> Result<((), Showed)> {
    let admin = daemon.client("admin").await?;
    let (leaves_app, stays_app) = (leaves.connect(daemon).await?, stays.connect(daemon).await?);
    // The last time that it works.
    leaves_app.open(sealed, &leaves.cells, plain).await?;
    let (tenant, took) = timed(async { Ok(admin.destroy_tenant(&leaves.tenant, Some(Duration::ZERO)).await?) }).await?;
    ensure!(tenant.state == TenantState::Fenced, "the tenant is {:?} and not fenced", tenant.state);
    let places: Vec<(Cell, Cell)> = leaves.cells.iter().map(|cell| (*cell, *cell)).collect();
    let refused = leaves_app.is_refused(&leaves.key, sealed, &places, "TENANT_DESTROYED").await?;
    expect("values that are refused", refused, places.len())?;
    let opened = stays_app.open(sealed, &stays.cells, plain).await?;
    expect("values of the other tenant that open", opened.equal, stays.cells.len())?;
    let again = admin.create_tenant(&leaves.tenant).await.err().context("a destroyed tenant could be made again")?;
    ensure!(again.reason() == Some("NAME_WAS_DESTROYED"), "making it again was refused with {again}");
    let did = vec![
        format!(
            "Its key is wiped from memory and deleted from the store after {} ms; the wait was set to 0 s.",
            took.as_millis()
        ),
        format!(
            "{} of {} of its values are refused; its name is never used again.",
            grouped(refused),
            grouped(places.len())
        ),
        format!(
            "{} of {} values of {} still open.",
            grouped(opened.equal),
            grouped(opened.equal),
            stays.tenant.tenant()
        ),
    ];
    Ok((
        (),
        Showed {
            did,
            proves: "one step fences who leaves: nothing of it opens here again, wherever its ciphertexts lie.",
        },
    ))
}

async fn stop(daemon: Daemon, leaves: &Party) -> Result<((Site, Vec<String>), Showed)> {
    let site = daemon.stop().await?;
    let records = Records::read(&site)?;
    records.check_chains()?;
    let name = leaves.tenant.tenant();
    let fence = records.fenced(name).context("the log has no FENCED record")?.index;
    let is_success = |stored: &&kms_server::audit::StoredLeaf| {
        stored.leaf.ten.as_deref() == Some(name) && stored.leaf.res == Some(Outcome::Ok) && stored.leaf.ph.is_none()
    };
    let before = records.leaves.iter().filter(is_success).filter(|stored| stored.index < fence).count();
    let after = records.leaves.iter().filter(is_success).filter(|stored| stored.index > fence).count();
    expect(&format!("successes of {name} above its FENCED record"), after, 0)?;
    let ended = |outcome| records.leaves.iter().filter(|stored| stored.leaf.res == Some(outcome)).count();
    let did = vec![
        format!(
            "Exit code 0. {} records: {} successes, {} denials, {} failures.",
            grouped(records.leaves.len()),
            grouped(ended(Outcome::Ok)),
            grouped(ended(Outcome::Denied)),
            grouped(ended(Outcome::Failed))
        ),
        format!("{name}: {} successes before its FENCED record (index {fence}), {after} above it.", grouped(before)),
    ];
    let lines = records::lines(&site)?;
    let fenced = usize::try_from(fence)?;
    let opened = lines.iter().rposition(|line| line.contains(r#""op":"Decrypt""#) && line.contains(r#""res":"OK""#));
    let denied = lines.iter().position(|line| line.contains(r#""res":"DENIED""#));
    let mut tell = vec!["From the audit log, as it is stored. A value that was opened:".to_owned()];
    tell.extend(opened.and_then(|at| lines.get(at)).map(|line| format!("  {line}")));
    tell.push("A denial:".to_owned());
    tell.extend(denied.and_then(|at| lines.get(at)).map(|line| format!("  {line}")));
    tell.push(format!("The record that {name} can never be used again:"));
    tell.extend(lines.get(fenced).map(|line| format!("  {line}")));
    Ok((
        (site, tell),
        Showed {
            did,
            proves: "each reply had its record before it left; the log shows that nothing opened after the fence.",
        },
    ))
}

/// Returns a path as it is seen from here, where that is possible.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::new());
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
