//! `kms operator`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kms_client::{Operation, RequestId};

use crate::app::App;
use crate::change::CreationArgs;
use crate::error::{About, Failure};
use crate::grant::{self, ApprovalArgs};
use crate::hint::Subject;
use crate::json;
use crate::output::fields;

/// Orders the server to lock itself, to serve again, and to read its settings again
#[derive(Debug, Args)]
pub struct Operator {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lock(Lock),
    Unlock(Unlock),
    Reload(Reload),
    ExportKeystore(ExportKeystore),
}

impl Operator {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::Lock(lock) => lock.run(app).await,
            Command::Unlock(unlock) => unlock.run(app).await,
            Command::Reload(reload) => reload.run(app).await,
            Command::ExportKeystore(export) => export.run(app).await,
        }
    }
}

/// Wipes all keys from the server's memory: every call is refused until `unlock`
///
/// It stays locked over restarts. Calls under way have two seconds to end.
#[derive(Debug, Args)]
struct Lock {
    #[command(flatten)]
    rehearsal: Rehearsal,
}

impl Lock {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let client = app.settings.operator_client()?;
        let locked = if self.rehearsal.dry_run { client.rehearse_lock().await } else { client.lock().await };
        locked.about(&Subject::none())?;
        self.rehearsal.done(app, "it locks itself: every call is refused until `kms operator unlock`")
    }
}

/// Lets a locked server serve again, if what holds its master key gives it its key
#[derive(Debug, Args)]
struct Unlock {
    #[command(flatten)]
    rehearsal: Rehearsal,
}

impl Unlock {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let client = app.settings.operator_client()?;
        let unlocked = if self.rehearsal.dry_run { client.rehearse_unlock().await } else { client.unlock().await };
        unlocked.about(&Subject::none())?;
        self.rehearsal.done(app, "it serves")
    }
}

/// Lets the server read its settings, certificates and bindings again
///
/// As SIGHUP does, all or nothing: where something is not in order, all stays as it was. Once this
/// has ended, everything that begins is judged by what was read. Shows what is different, and which
/// settings wait for a restart.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Reload {
    /// Puts nothing in force: shows what would be different, or what is not in order
    #[arg(long)]
    dry_run: bool,
}

impl Reload {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let client = app.settings.operator_client()?;
        let reloaded = if self.dry_run { client.rehearse_reload().await } else { client.reload().await };
        let reloaded = reloaded.about(&Subject::none())?;
        app.output.show(&json::Reloaded::from(&reloaded), || {
            let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(" ") };
            fields([("changed", list(&reloaded.changed)), ("needs a restart", list(&reloaded.need_restart))])
        })?;
        if self.dry_run {
            app.output.note("this was a dry run: nothing was put in force");
        }
        Ok(())
    }
}

/// Makes copies of the keystore files of the software HSM, for a safe
///
/// Who has a copy and the PIN has the master key. Each export has a serial number, which the audit
/// log and `kms status` show: whoever destroys a version of the master key has to destroy its copies
/// too.
///
/// It takes two persons, but in `kms-server dev`: give --request-approval first, and once it is
/// approved, the same command without it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct ExportKeystore {
    /// The directory to put them in, which is made
    #[arg(long, value_name = "DIR", required_unless_present = "request_approval")]
    to: Option<PathBuf>,
    #[command(flatten)]
    approval: ApprovalArgs,
    /// With --request-approval, its id: repeated with the same, it is asked for once [default: a new one]
    #[arg(long, value_name = "ID", requires = "request_approval")]
    request_id: Option<RequestId>,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

impl ExportKeystore {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        if let Some(reason) = self.approval.reason() {
            let change = CreationArgs { dry_run: self.rehearsal.dry_run, request_id: self.request_id };
            return grant::request_operation(app, &Operation::ExportKeystore, reason, &change, &Subject::none()).await;
        }
        let client = app.settings.operator_client()?;
        if self.rehearsal.dry_run {
            client.rehearse_export_keystore().await.about(&Subject::none())?;
            return self.rehearsal.done(app, "");
        }
        // Before a serial number is used up.
        let Some(to) = self.to else { return Err(Failure::usage("--to says where to put the copies")) };
        make_directory(&to)?;
        let export = client.export_keystore().await.about(&Subject::none())?;
        let mut names = Vec::with_capacity(export.files.len());
        for file in &export.files {
            // A name comes from the server: it may not lead out of the directory.
            if Path::new(&file.name).file_name() != Some(file.name.as_ref()) {
                return Err(Failure::other(format!(
                    "the server names a file {:?}, which is no file's name",
                    file.name
                )));
            }
            write_new(&to.join(&file.name), &file.content)?;
            names.push(file.name.as_str());
        }
        let shown = json::KeystoreExport { serial: export.serial, files: &names };
        app.output.show(&shown, || {
            fields([
                ("serial", export.serial.to_string()),
                ("files", names.join(" ")),
                ("in", to.display().to_string()),
            ])
        })?;
        app.output
            .note("they hold the master key under the PIN: keep them apart from it, and from every copy of the data");
        Ok(())
    }
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| {
        Failure::usage(format!("the directory {} cannot be made: {error}", path.display()))
            .hint("give one that does not exist yet, so that copies of two exports do not mix")
    })
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|error| Failure::other(format!("{} cannot be written: {error}", path.display())))
}

/// What can be tried without doing it.
#[derive(Debug, Args)]
struct Rehearsal {
    /// Does nothing: answers whether it could be done
    #[arg(long)]
    dry_run: bool,
}

impl Rehearsal {
    fn done(&self, app: &mut App<'_>, what: &str) -> Result<(), Failure> {
        app.output.show(&json::Nothing {}, String::new)?;
        app.output.note(if self.dry_run { "this was a dry run: nothing was done" } else { what });
        Ok(())
    }
}
