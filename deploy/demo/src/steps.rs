//! The steps of the demo: what each does, and what has to come of it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kms_client::{KeyPurpose, KeyRef, Labels, TenantRef, TenantState};
use kms_server::audit::{Outcome, StoredLeaf};
use kms_tests::records::{self, Records};
use kms_tests::{Binding, Daemon, Settings, Site};

use crate::application::{Application, IN_FLIGHT_MAX, Replies};
use crate::story::{Showed, expect, grouped, milliseconds, rate, timed};
use crate::table::{Cell, Table};

/// The encrypted table's name in the demo's folder.
pub const ENCRYPTED: &str = "customers.encrypted.csv";
/// The name of each tenant's key.
const KEY: &str = "customers";

/// A table of two tenants, one of whom stays and one leaves.
pub struct Demo {
    folder: PathBuf,
    plain: Table,
    replies: Replies,
    /// The tenant who stays.
    pub stays: Party,
    /// The tenant who leaves.
    pub leaves: Party,
}

/// One of the two tenants.
pub struct Party {
    tenant: TenantRef,
    key: KeyRef,
    /// Its secret values.
    cells: Vec<Cell>,
}

impl Party {
    fn of(table: &Table, tenant: &str) -> Result<Self> {
        let cells = table.secret_cells(tenant);
        Ok(Self { tenant: TenantRef::new(tenant)?, key: KeyRef::new(tenant, KEY)?, cells })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.tenant.tenant()
    }

    /// Returns the name of its application.
    fn application(&self) -> String {
        format!("{}-app", self.name())
    }

    /// Returns its ciphertexts, each in its own cell.
    fn in_place(&self) -> Vec<(Cell, Cell)> {
        self.cells.iter().map(|cell| (*cell, *cell)).collect()
    }
}

impl Demo {
    /// Prepares the demo for a table, which was read from `input`.
    pub fn with(plain: Table, input: &str, folder: &Path) -> Result<Self> {
        let tenants = plain.tenants();
        let [stays, leaves] = &tenants[..] else {
            bail!("{input}: {} tenants, where the demo needs two", tenants.len());
        };
        let (stays, leaves) = (Party::of(&plain, stays)?, Party::of(&plain, leaves)?);
        Ok(Self { folder: folder.to_owned(), plain, replies: Replies::default(), stays, leaves })
    }

    /// Says what the demo is about.
    pub fn about(&self, input: &str) -> [String; 2] {
        let rows = |party: &Party| format!("{}: {} customers", party.name(), self.plain.rows_of(party.name()));
        [
            format!("{}; {}.", rows(&self.stays), rows(&self.leaves)),
            format!("Secret columns: {}. From {input}.", self.plain.secret_columns().join(", ")),
        ]
    }

    /// Connects as a tenant's application.
    pub async fn connect(&self, daemon: &Daemon, party: &Party) -> Result<Application> {
        Ok(Application::new(daemon.client(&party.application()).await?, party.key.clone(), &self.replies))
    }

    /// Makes a cluster with `init`, binds each application to its tenant, and serves.
    pub async fn start(&self) -> Result<(Daemon, Showed)> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(format!("removing what an earlier run left in {}", self.folder.display()));
            }
            Ok(()) | Err(_) => {}
        }
        // As the daemon is by default, but for the waits: nobody watches a demo for 7 days.
        let settings = Settings { segment_bytes: 4 << 20, pin_memory_kib: 65_536, ..Settings::default() };
        let site = Site::kept(&self.folder, "demo.example", &settings)?;
        site.init().await?;
        for party in [&self.stays, &self.leaves] {
            site.bind(&Binding {
                id: &party.application(),
                roles: &["encrypter", "decrypter", "reencrypter"],
                principals: &[&site.principal(&party.application())],
                tenants: &[party.name()],
                keys: &[KEY],
                indexes: &[],
            })?;
        }
        let principal = site.principal(&self.stays.application());
        let daemon = site.start().await?;
        let status = daemon.client("admin").await?.status().await?;
        let epoch = status.epoch.context("a status names the epoch")?.number;
        let memory = status.memory.context("a status says how keys lie in memory")?.protection;
        let did = vec![
            format!("Master key in the software HSM, epoch {epoch} and audit log: made by `init`."),
            format!("Serving on {} over mutual TLS; keys in locked memory ({memory}).", daemon.services()),
            format!("Each application has a certificate, such as {principal}."),
        ];
        Ok((daemon, Showed { did, proves: "it runs from nothing, and lets nobody in without a certificate." }))
    }

    /// Creates the tenants and their keys.
    pub async fn create(&self, daemon: &Daemon) -> Result<((), Showed)> {
        let admin = daemon.client("admin").await?;
        let mut did = Vec::new();
        for party in [&self.stays, &self.leaves] {
            let tenant = admin.create_tenant(&party.tenant).await?;
            let key = admin.create_key(&party.key, KeyPurpose::Encrypt, Labels::new()).await?;
            did.push(format!("{}, version {}, under tenant {}.", key.name, key.primary_version, tenant.uid));
        }
        let administrator = Application::new(admin, self.stays.key.clone(), &self.replies);
        ensure!(administrator.may_not_seal().await?, "the administrator could use a key, which nobody allowed");
        let proves = "a tenant is a key hierarchy of its own; who administers it cannot use it.";
        Ok(((), Showed { did, proves }))
    }

    /// Encrypts the table into a file.
    pub async fn seal(&self, stays: &Application, leaves: &Application) -> Result<(Table, Showed)> {
        let mut sealed = self.plain.clone();
        let (_, took) = timed(async {
            stays.seal(&self.plain, &self.stays.cells, &mut sealed).await?;
            leaves.seal(&self.plain, &self.leaves.cells, &mut sealed).await
        })
        .await?;
        sealed.write(&self.encrypted())?;
        let cells: Vec<Cell> = [&self.stays.cells[..], &self.leaves.cells].concat();
        let distinct: HashSet<&str> = cells.iter().map(|cell| sealed.value(*cell)).collect();
        expect("different ciphertexts", distinct.len(), cells.len())?;
        // Short values, such as "x", may stand anywhere by chance.
        let values = cells.iter().map(|cell| self.plain.value(*cell));
        let secrets: Vec<&str> = values.filter(|value| value.chars().count() >= 6).collect();
        let text = fs::read_to_string(self.encrypted())?;
        let seen = secrets.iter().filter(|value| text.contains(**value)).count();
        expect("secret values to be read in the encrypted file", seen, 0)?;
        let example: String = sealed.value(cells[0]).chars().take(40).collect();
        let did = vec![
            format!("{} values, {} different ciphertexts.", grouped(cells.len()), grouped(distinct.len())),
            format!("{} with {IN_FLIGHT_MAX} calls at a time.", rate(cells.len(), took)),
            format!("0 of {} secret values can be read in the file; one is now {example}...", grouped(secrets.len())),
        ];
        // The file is what counts from here on.
        let sealed = Table::read(&self.encrypted())?;
        Ok((sealed, Showed { did, proves: "the database needs no secret, and equal values do not look equal." }))
    }

    /// Decrypts the encrypted table and compares.
    pub async fn read_back(&self, sealed: &Table, stays: &Application, leaves: &Application) -> Result<((), Showed)> {
        let (opened, took) = timed(async {
            let of_stays = stays.open(sealed, &self.stays.cells, &self.plain).await?;
            let of_leaves = leaves.open(sealed, &self.leaves.cells, &self.plain).await?;
            expect("values that are stale before any rotation", of_stays.stale + of_leaves.stale, 0)?;
            Ok(of_stays.equal + of_leaves.equal)
        })
        .await?;
        expect("values that are what they were", opened, self.values())?;
        let did = vec![
            format!("{} of {} values are what they were.", grouped(opened), grouped(self.values())),
            format!("{} with {IN_FLIGHT_MAX} calls at a time.", rate(opened, took)),
        ];
        Ok(((), Showed { did, proves: "nothing is lost on the way through the service and a file." }))
    }

    /// Lets each application try the other tenant's ciphertexts.
    pub async fn neighbour(&self, sealed: &Table, stays: &Application, leaves: &Application) -> Result<((), Showed)> {
        let mut did = Vec::new();
        for (app, thief, owner) in [(leaves, &self.leaves, &self.stays), (stays, &self.stays, &self.leaves)] {
            let places = owner.in_place();
            let by_policy = app.is_refused(&owner.key, sealed, &places, "POLICY_DENIED").await?;
            expect("refusals by policy", by_policy, places.len())?;
            // Its own key it may use, and that does not help.
            let by_key = app.is_refused(&thief.key, sealed, &places, "DECRYPT_FAILED").await?;
            expect("refusals by cryptography", by_key, places.len())?;
            let (all, name) = (grouped(places.len()), owner.name());
            did.push(format!(
                "{} tries {all} values of {name}: with that key {} of {all} refused, with its own {} of {all}.",
                thief.name(),
                grouped(by_policy),
                grouped(by_key)
            ));
        }
        let theirs = leaves.refusal(&self.stays.key, sealed, self.stays.cells[0]).await?;
        let nobodys = leaves.refusal(&KeyRef::new("no-such-tenant", KEY)?, sealed, self.stays.cells[0]).await?;
        let alike = (theirs.reason(), theirs.message()) == (nobodys.reason(), nobodys.message());
        ensure!(alike, "a refusal tells whether a tenant exists");
        did.push("A tenant that is there and one that is not are refused in the same words.".to_owned());
        let proves = "tenants are kept apart twice: by permission, and by keys that do not fit.";
        Ok(((), Showed { did, proves }))
    }

    /// Tries each ciphertext as if it stood in the next row of its column.
    pub async fn swapped(&self, sealed: &Table, app: &Application) -> Result<((), Showed)> {
        let cells = &self.stays.cells;
        let next = |cell: &Cell| cells.iter().find(|other| other.column == cell.column && other.row > cell.row);
        let places: Vec<(Cell, Cell)> = cells.iter().filter_map(|cell| Some((*cell, *next(cell)?))).collect();
        let refused = app.is_refused(&self.stays.key, sealed, &places, "DECRYPT_FAILED").await?;
        expect("refusals", refused, places.len())?;
        let all = grouped(places.len());
        let did =
            vec![format!("{} of {all} refused, though application and key are the right ones.", grouped(refused))];
        Ok(((), Showed { did, proves: "who can write the database cannot move a value to another customer." }))
    }

    /// Rotates the key of the tenant who stays.
    pub async fn rotate(&self, daemon: &Daemon, sealed: &Table, app: &Application) -> Result<((), Showed)> {
        let admin = daemon.client("admin").await?;
        let (rotated, took) = timed(async { Ok(admin.rotate_key(&self.stays.key).await?) }).await?;
        let opened = app.open(sealed, &self.stays.cells, &self.plain).await?;
        let all = self.stays.cells.len();
        expect("old values that open", opened.equal, all)?;
        expect("old values that are told to be stale", opened.stale, all)?;
        let did = vec![
            format!("Version {} is primary after {}.", rotated.version.version, milliseconds(took)),
            format!("{} of {} old values open, all marked stale.", grouped(opened.equal), grouped(all)),
        ];
        Ok(((), Showed { did, proves: "a new key takes effect at once, and nothing old is locked out." }))
    }

    /// Moves every value of the tenant who stays to the new version.
    pub async fn re_encrypt(&self, sealed: &mut Table, app: &Application) -> Result<((), Showed)> {
        let cells = &self.stays.cells;
        let (_, took) = timed(app.re_encrypt(sealed, cells)).await?;
        sealed.write(&self.encrypted())?;
        *sealed = Table::read(&self.encrypted())?;
        let opened = app.open(sealed, cells, &self.plain).await?;
        expect("values that open", opened.equal, cells.len())?;
        expect("values that are still stale", opened.stale, 0)?;
        let did = vec![
            format!("{} of {} moved and open, 0 are stale.", grouped(opened.equal), grouped(cells.len())),
            format!("{} with {IN_FLIGHT_MAX} calls at a time.", rate(cells.len(), took)),
        ];
        Ok(((), Showed { did, proves: "a rotation can be finished without the plaintext leaving the service." }))
    }

    /// Stops the daemon and starts it again.
    pub async fn restart(&self, daemon: Daemon, sealed: &Table) -> Result<(Daemon, Showed)> {
        let (daemon, took) = timed(daemon.restart()).await?;
        let mut opened = 0;
        for party in [&self.stays, &self.leaves] {
            opened += self.connect(&daemon, party).await?.open(sealed, &party.cells, &self.plain).await?.equal;
        }
        expect("values that open", opened, self.values())?;
        let did = vec![
            format!("Stopped with exit code 0 and serving again after {:.2} s.", took.as_secs_f64()),
            format!("{} of {} values open.", grouped(opened), grouped(self.values())),
        ];
        let proves = "what it acknowledged lies on disk, wrapped; memory held nothing that is missed.";
        Ok((daemon, Showed { did, proves }))
    }

    /// Destroys the tenant who leaves.
    pub async fn erase(&self, daemon: &Daemon, sealed: &Table) -> Result<((), Showed)> {
        let (stays, leaves) = (&self.stays, &self.leaves);
        let admin = daemon.client("admin").await?;
        let (stays_app, leaves_app) = (self.connect(daemon, stays).await?, self.connect(daemon, leaves).await?);
        // The last time that it works, and the keys are in memory.
        leaves_app.open(sealed, &leaves.cells, &self.plain).await?;
        let destroy = admin.destroy_tenant(&leaves.tenant, Some(Duration::ZERO));
        let (tenant, took) = timed(async { Ok(destroy.await?) }).await?;
        ensure!(tenant.state == TenantState::Fenced, "the tenant is {:?} and not fenced", tenant.state);
        let places = leaves.in_place();
        let refused = leaves_app.is_refused(&leaves.key, sealed, &places, "TENANT_DESTROYED").await?;
        expect("values that are refused", refused, places.len())?;
        let opened = stays_app.open(sealed, &stays.cells, &self.plain).await?.equal;
        expect("values of the other tenant that open", opened, stays.cells.len())?;
        let again =
            admin.create_tenant(&leaves.tenant).await.err().context("a destroyed tenant could be made again")?;
        ensure!(again.reason() == Some("NAME_WAS_DESTROYED"), "making it again was refused with {again}");
        let did = vec![
            format!("Fenced after {}: its key is deleted from the store and wiped from memory.", milliseconds(took)),
            format!(
                "{} of {} of its values are refused; its name is never used again.",
                grouped(refused),
                grouped(places.len())
            ),
            format!("{} of {} values of {} still open.", grouped(opened), grouped(stays.cells.len()), stays.name()),
        ];
        let proves = "the service can never open anything of it again: its key is deleted, not marked.";
        Ok(((), Showed { did, proves }))
    }

    /// Stops the daemon, holds the log against all that happened, and returns an excerpt of it.
    pub async fn stop(&self, daemon: Daemon) -> Result<(Vec<String>, Showed)> {
        let site = daemon.stop().await?;
        let records = Records::read(&site)?;
        records.check_chains()?;
        let is_use =
            |stored: &&StoredLeaf| matches!(stored.leaf.op.as_deref(), Some("Encrypt" | "Decrypt" | "ReEncrypt"));
        let uses = records.leaves.iter().filter(is_use).count();
        // Who is denied more than a hundred times a second is told of in a sum.
        let sums = records.leaves.iter().filter(|stored| stored.leaf.op.as_deref() == Some("Refusals"));
        let summed: u64 = sums.filter_map(|stored| stored.leaf.cnt).sum();
        let recorded = uses + usize::try_from(summed)?;
        expect("records of encrypting, decrypting and re-encrypting", recorded, self.replies.count())?;
        let name = self.leaves.name();
        let fence = records.fenced(name).context("the log has no FENCED record")?.index;
        let successes = |above: bool| {
            let of_it =
                |stored: &&StoredLeaf| stored.leaf.ten.as_deref() == Some(name) && stored.leaf.res == Some(Outcome::Ok);
            let there = |stored: &&StoredLeaf| if above { stored.index > fence } else { stored.index < fence };
            records.leaves.iter().filter(is_use).filter(of_it).filter(there).count()
        };
        let (before, after) = (successes(false), successes(true));
        expect(&format!("successes of {name} above its FENCED record"), after, 0)?;
        let did = vec![
            format!(
                "Exit code 0. {} replies to applications: {} records, and {} refusals told of in a sum.",
                grouped(self.replies.count()),
                grouped(uses),
                grouped(recorded - uses)
            ),
            format!(
                "{name}: {} successes before its FENCED record at index {fence}, {after} above it.",
                grouped(before)
            ),
        ];
        let excerpt = excerpt(&records::lines(&site)?, name, fence)?;
        Ok((excerpt, Showed { did, proves: "each reply has its record, and none of who left lies above its fence." }))
    }

    fn encrypted(&self) -> PathBuf {
        self.folder.join(ENCRYPTED)
    }

    /// Returns how many secret values there are.
    fn values(&self) -> usize {
        self.stays.cells.len() + self.leaves.cells.len()
    }
}

/// Picks the records that are worth a look.
fn excerpt(lines: &[String], name: &str, fence: u64) -> Result<Vec<String>> {
    let fenced = lines.get(usize::try_from(fence)?).context("the log has its own records")?;
    let is_opened = |line: &&String| line.contains(r#""op":"Decrypt""#) && line.contains(r#""res":"OK""#);
    let is_denied = |line: &&String| line.contains(r#""op":"Decrypt""#) && line.contains(r#""res":"DENIED""#);
    let mut excerpt = vec!["From the audit log, byte for byte.".to_owned()];
    for (what, line) in [
        ("A value was opened:".to_owned(), lines.iter().rfind(is_opened)),
        ("Another tenant's was not:".to_owned(), lines.iter().find(is_denied)),
        (format!("{name} can never be used again:"), Some(fenced)),
    ] {
        excerpt.push(what);
        excerpt.push(format!("  {}", line.context("the log has a record of each kind")?));
    }
    Ok(excerpt)
}
