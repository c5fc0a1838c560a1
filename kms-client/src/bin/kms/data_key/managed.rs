//! The managed ones: `kms data-key create`, `get`, `destroy` and `list`.

use std::path::PathBuf;

use clap::Args;
use kms_client::DataKeyUid;

use super::{Count, base64, finish, lines};
use crate::app::App;
use crate::change::CreationArgs;
use crate::confirm::{Confirm, What};
use crate::duration;
use crate::error::{About, Failure};
use crate::hint::Subject;
use crate::input::uid;
use crate::json::{self, time_text};
use crate::key::state;
use crate::output::{fields, rows};
use crate::sink::{self, BinaryOut, Secrecy, base64_line};
use crate::tenant::{Paging, cut_off};
use crate::under::{Prepared, Under};

/// Makes a data key that the service stores
///
/// Keep the uid beside the object: with it and the same context, `kms data-key get` gives out the
/// data key again. With --count, each line has a uid, a tab, and the data key.
///
///     kms data-key create --key people --context table=people --count 100
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Create {
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    count: Count,
    /// Gives only the uid, for a record that somebody else will seal
    #[arg(long)]
    uid_only: bool,
    /// Writes the data key, 32 bytes, to a file that only you can read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["count", "uid_only", "dry_run"])]
    data_key_out: Option<PathBuf>,
    #[command(flatten)]
    change: CreationArgs,
}

/// Gives out managed data keys
///
/// The context must be the one that they were created with. Prints a data key in base64, or its 32
/// bytes with --raw; of several, each line has a uid, a tab, and the data key, in the order in which
/// they were asked for. What cannot be had is told on stderr, with exit code 7 if others can. A file
/// that they are written to can be read only by you.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Get {
    /// The uid, 32 hexadecimal digits, or in base64 as JSON has it; may be given again
    #[arg(value_name = "UID", required = true, value_parser = uid)]
    uids: Vec<DataKeyUid>,
    #[command(flatten)]
    under: Under,
    #[command(flatten)]
    out: BinaryOut,
}

/// Destroys managed data keys, at once and for ever
///
/// What was sealed with them can then be opened only by who still holds them, until the leases end.
///
/// Asks for the uid on a terminal, or for the name of the key if they are several; scripts give
/// --yes --name KEY.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Destroy {
    /// The uid, 32 hexadecimal digits, or in base64 as JSON has it; may be given again
    #[arg(value_name = "UID", required = true, value_parser = uid)]
    uids: Vec<DataKeyUid>,
    /// The key that they are under: tenants/TENANT/keys/KEY, or KEY with --tenant
    #[arg(long, value_name = "KEY")]
    key: String,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: CreationArgs,
}

/// Lists the managed data keys of a key, destroyed ones too
///
/// The oldest come first. No data key is given out.
#[derive(Debug, Args)]
pub struct List {
    /// The key that they are under: tenants/TENANT/keys/KEY, or KEY with --tenant
    #[arg(long, value_name = "KEY")]
    key: String,
    #[command(flatten)]
    paging: Paging,
}

impl Create {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.count.items() {
            Some(items) => self.many(app, items).await,
            None => self.one(app).await,
        }
    }

    async fn one(&self, app: &mut App<'_>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        let id = self.change.begin();
        if self.change.dry_run {
            let rehearsed = client.create_data_key(&key, &context).validate_only().await.about(&subject)?;
            app.output.show(&json::CreatedDataKey::rehearsed(rehearsed), || {
                fields([("key version", rehearsed.to_string())])
            })?;
            self.change.note(app);
            return Ok(());
        }
        if self.uid_only {
            let made = client.create_data_key_uid(&key, &context).request_id(id).await.about(&subject)?;
            let shown = app.output.show(&json::CreatedDataKey::uid(&made), || {
                fields([("uid", made.uid.to_string()), ("key version", made.key_version.to_string())])
            });
            return shown.map_err(|failure| failure.though(&kept(made.uid)));
        }
        let made = client.create_data_key(&key, &context).request_id(id).await.about(&subject)?;
        self.show(app, &made).map_err(|failure| failure.though(&kept(made.uid)))
    }

    fn show(&self, app: &mut App<'_>, made: &kms_client::CreatedDataKey) -> Result<(), Failure> {
        let data_key = made.data_key.expose();
        if let Some(file) = &self.data_key_out {
            sink::write(Some(file), Secrecy::Secret, data_key, true)?;
        }
        // What went to a file is not shown again.
        let shown: &[u8] = if self.data_key_out.is_some() { &[] } else { data_key };
        app.output.show(&json::CreatedDataKey::new(made, shown), || {
            fields([
                ("uid", made.uid.to_string()),
                ("data key", base64_line(shown).trim_end().to_owned()),
                ("key version", made.key_version.to_string()),
                ("lease", duration::exact(made.lease.length())),
            ])
        })
    }

    async fn many(&self, app: &mut App<'_>, items: Vec<kms_client::NewDataKey>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        let id = self.change.begin();
        // Their uids would be too many for a message.
        let kept = format!("the data keys are made all the same: --request-id {id} gives them again");
        let name = |index: usize| format!("data key {}", index + 1);
        if self.change.dry_run {
            let creation = client.create_data_key_batch(&key, &context, items).validate_only();
            let results = creation.await.about(&subject)?;
            app.output.show(&json::Batch::rehearsed(&results), String::new)?;
            self.change.note(app);
            return finish(app, &subject, &results, name);
        }
        if self.uid_only {
            let creation = client.create_data_key_uid_batch(&key, &context, items).request_id(id);
            let results = creation.await.about(&subject)?;
            let lines = lines(&results, |made, line| line.push_str(&made.uid.to_string()));
            let shown = app.output.show(&json::Batch::uids(&results), || lines.to_string());
            shown.map_err(|failure| failure.though(&kept))?;
            return finish(app, &subject, &results, name);
        }
        let creation = client.create_data_key_batch(&key, &context, items).request_id(id);
        let results = creation.await.about(&subject)?;
        let lines = lines(&results, |made, line| {
            line.push_str(&made.uid.to_string());
            line.push('\t');
            base64(line, made.data_key.expose());
        });
        let shown = app.output.show(&json::Batch::created(&results), || lines.to_string());
        shown.map_err(|failure| failure.though(&kept))?;
        finish(app, &subject, &results, name)
    }
}

/// Says what is to be kept, when it could not be shown: without its uid a data key is lost.
fn kept(uid: DataKeyUid) -> String {
    format!("the data key is made all the same, its uid is {uid}")
}

impl Get {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let Prepared { client, key, context, subject } = self.under.prepare(app)?;
        if let [uid] = self.uids[..] {
            let given = client.get_data_key(&key, uid, &context).await.about(&subject)?;
            let answer = json::GivenDataKey::from(&given);
            return self.out.write(app, Secrecy::Secret, given.data_key.expose(), &answer);
        }
        self.out.check_lines()?;
        let uids = self.uids.iter().copied();
        let results = client.get_data_key_batch(&key, &context, uids).await.about(&subject)?;
        let lines = lines(
            self.uids.iter().zip(&results).map(|(uid, result)| Some((uid, result.as_ref().ok()?))),
            |(uid, given), line| {
                line.push_str(&uid.to_string());
                line.push('\t');
                base64(line, given.data_key.expose());
            },
        );
        self.out.write_lines(app, Secrecy::Secret, &lines, &json::Batch::given(&results))?;
        finish(app, &subject, &results, |index| self.uids[index].to_string())
    }
}

impl Destroy {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let key = app.key(&self.key)?;
        let (client, subject) = (app.client()?, Subject::key(&key));
        // A dry run destroys nothing.
        if !self.change.dry_run {
            let (what, short, full) = match self.uids[..] {
                [uid] => (format!("the data key {uid}"), uid.to_string(), key.key().to_owned()),
                _ => (format!("{} data keys", self.uids.len()), key.key().to_owned(), key.to_string()),
            };
            let effect =
                format!("This destroys {what} of {key} now.\nThen what was sealed with it cannot be opened again.");
            let place = &*app.settings.place();
            self.confirm.check(&What { effect: &effect, short: &short, full: &full, place })?;
        }
        if let [uid] = self.uids[..] {
            let destruction = self.change.destruction(client.destroy_data_key(&key, uid));
            let destroyed = destruction.await.about(&subject)?;
            app.output.show_change(&json::DestroyedDataKey::from(&destroyed), || {
                fields([
                    ("uid", uid.to_string()),
                    ("destroyed", time_text(destroyed.destroy_time)),
                    ("leases end", destroyed.lease_end_time.map(time_text).unwrap_or_default()),
                ])
            })?;
            self.change.note(app);
            return Ok(());
        }
        let destruction = self.change.destruction(client.destroy_data_key_batch(&key, self.uids.iter().copied()));
        let results = destruction.await.about(&subject)?;
        app.output.show_change(&json::Batch::destroyed(&results), || {
            let good = self.uids.iter().zip(&results).filter_map(|(uid, result)| Some((uid, result.as_ref().ok()?)));
            let row = |(uid, destroyed): (&DataKeyUid, &kms_client::DestroyedDataKey)| {
                let lease_end = destroyed.lease_end_time.map(time_text).unwrap_or_default();
                [uid.to_string(), time_text(destroyed.destroy_time), lease_end]
            };
            rows(["UID", "DESTROYED", "LEASES-END"], good.map(row))
        })?;
        self.change.note(app);
        finish(app, &subject, &results, |index| self.uids[index].to_string())
    }
}

impl List {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let key = app.key(&self.key)?;
        let after = self.paging.page_token.clone().map(Into::into);
        let page = app.client()?.list_all_data_keys(&key, self.paging.limit, after).await.about(&Subject::key(&key))?;
        app.output.show(&json::DataKeys::from(&page), || {
            let row = |data_key: &kms_client::ManagedDataKey| {
                [
                    data_key.uid.to_string(),
                    state(data_key.state),
                    data_key.key_version.map(|version| version.to_string()).unwrap_or_default(),
                    time_text(data_key.create_time),
                    data_key.destroy_time.map(time_text).unwrap_or_default(),
                ]
            };
            rows(["UID", "STATE", "VERSION", "CREATED", "DESTROYED"], page.items.iter().map(row))
        })?;
        cut_off(app, &page);
        Ok(())
    }
}
