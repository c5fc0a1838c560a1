//! `kms grant`

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use kms_client::{ContentHash, GrantRef, GrantState, GrantWhat, Operation, TenantRef};

use crate::app::App;
use crate::change::CreationArgs;
use crate::confirm::{self, Approval};
use crate::duration;
use crate::error::{About, Failure, printable};
use crate::hint::Subject;
use crate::json::{self, time_text};
use crate::output::{fields, rows};
use crate::tenant::{Paging, cut_off};

/// Asks for access, approves it, and takes it back
///
/// A grant is what one person may do because a second one agreed: a role in a tenant for a time, or
/// one exact operation once. A role is asked for here; an operation by --request-approval of the
/// command that does it: `kms tenant destroy`, `kms key destroy` or `kms operator export-keystore`.
///
/// NAME is tenants/TENANT/grants/UID, or grants/UID for what concerns no tenant.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Grant {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Request(Request),
    List(List),
    /// Shows a grant
    Get(Named),
    Approve(Approve),
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Named {
    /// The grant: tenants/TENANT/grants/UID or grants/UID
    #[arg(id = "grant", value_name = "NAME")]
    name: GrantRef,
}

/// Asks a second person for a role in the tenant, for a time
///
/// It takes the role `staff`. Once somebody with the role `approver` has approved it, and until its
/// time is over, you may do there what the role may.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Request {
    /// The role
    #[arg(long, value_enum, value_name = "ROLE")]
    role: Role,
    /// Why, for whoever approves it; the tenant may read it
    #[arg(long, value_name = "REASON")]
    reason: String,
    /// For how long from the approval, such as 1h
    #[arg(long = "for", value_name = "DURATION", value_parser = some_time)]
    length: Duration,
    #[command(flatten)]
    change: CreationArgs,
}

/// Roles that can be had by a grant.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Makes ciphertexts, data keys and MACs
    Encrypter,
    /// Opens what an encrypter made
    Decrypter,
    /// Moves ciphertexts to the primary version
    Reencrypter,
    /// Manages keys without using them
    KeyAdmin,
    /// Manages tenants
    TenantAdmin,
    /// Reads names and states
    Auditor,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Encrypter => "encrypter",
            Self::Decrypter => "decrypter",
            Self::Reencrypter => "reencrypter",
            Self::KeyAdmin => "key-admin",
            Self::TenantAdmin => "tenant-admin",
            Self::Auditor => "auditor",
        }
    }
}

/// Lists the grants of the tenant, or without a tenant those of the cluster
///
/// Those of the last 30 days, whatever became of them.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct List {
    /// Those that concern no tenant, also where the settings name one
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    paging: Paging,
}

/// Approves a grant that somebody else asked for
///
/// Shows what it is for, and asks on a terminal; scripts give --yes, and --content-hash with what
/// `kms grant get --field contentHash` showed to whoever decided. It takes the role `approver`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Approve {
    #[command(flatten)]
    grant: Named,
    /// Does not ask; for scripts
    #[arg(long)]
    yes: bool,
    /// Only if what it is for has this hash
    #[arg(long, value_name = "HASH")]
    content_hash: Option<ContentHash>,
    #[command(flatten)]
    change: CreationArgs,
}

/// Takes a grant back, or a request for one
///
/// Once this has ended, nothing begins by it any more. It takes one of the roles `staff`, `approver`
/// and `tenant-admin`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Revoke {
    #[command(flatten)]
    grant: Named,
    #[command(flatten)]
    change: CreationArgs,
}

/// Parses a time that is not zero.
fn some_time(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err("a role is had for some time, such as 1h".to_owned()),
        length => Ok(length),
    }
}

impl Grant {
    pub async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        match self.command {
            Command::Request(command) => command.run(app).await,
            Command::List(command) => command.run(app).await,
            Command::Get(named) => {
                let found = app.client()?.get_grant(&named.name).await.about(&about(&named.name))?;
                app.output.show(&json::Grant::from(&found), || table(&found))
            }
            Command::Approve(command) => command.run(app).await,
            Command::Revoke(command) => {
                let name = &command.grant.name;
                let revoked = command.change.decision(app.client()?.revoke_grant(name)).await.about(&about(name))?;
                show(app, &revoked, &command.change)
            }
        }
    }
}

impl Request {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let tenant = app.default_tenant()?;
        let asked = app.client()?.request_role(&tenant, self.role.as_str(), self.length, &self.reason);
        let asked = self.change.creation(asked).await.about(&Subject::tenant(&tenant))?;
        show(app, &asked, &self.change)?;
        if let Some(name) = &asked.name {
            app.output.note(&format!("have somebody with the role `approver` run `kms grant approve {name}`"));
        }
        Ok(())
    }
}

impl List {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let tenant = if self.cluster || app.settings.tenant.is_none() { None } else { Some(app.default_tenant()?) };
        let subject = tenant.as_ref().map_or_else(Subject::none, Subject::tenant);
        let after = self.paging.page_token.clone().map(Into::into);
        let page = app.client()?.list_all_grants(tenant.as_ref(), self.paging.limit, after).await.about(&subject)?;
        app.output.show(&json::Grants::from(&page), || {
            let row = |grant: &kms_client::Grant| {
                [
                    name(grant),
                    state(grant),
                    short(&grant.what),
                    grant.requester.clone(),
                    time_text(grant.expire_time),
                    grant.reason.clone(),
                ]
            };
            rows(["GRANT", "STATE", "FOR", "REQUESTER", "EXPIRES", "REASON"], page.items.iter().map(row))
        })?;
        cut_off(app, &page);
        Ok(())
    }
}

impl Approve {
    async fn run(self, app: &mut App<'_>) -> Result<(), Failure> {
        let (client, name) = (app.client()?, &self.grant.name);
        let grant = client.get_grant(name).await.about(&about(name))?;
        if grant.what == GrantWhat::Unknown {
            return Err(Failure::other("this grant is for something that this version of `kms` cannot show")
                .hint("nothing was approved: take a newer version of `kms`"));
        }
        if let Some(pinned) = self.content_hash.as_ref().filter(|pinned| **pinned != grant.content_hash) {
            return Err(Failure::grant_changed(pinned.as_str(), &about(name)));
        }
        let asks = format!(
            "{} asks to {}.\nReason: {}",
            printable(&grant.requester),
            sentence(&grant.what),
            printable(&grant.reason)
        );
        // A dry run approves nothing.
        if !self.change.dry_run {
            if self.yes {
                app.output.note(&asks.replace('\n', " "));
            } else {
                confirm::approval(&Approval {
                    asks: &asks,
                    short: &to_type(&grant.what),
                    place: &app.settings.place(),
                })?;
            }
        }
        let approved = self.change.decision(client.approve_grant(name, &grant.content_hash)).await;
        show(app, &approved.about(&about(name))?, &self.change)
    }
}

/// Asks for a second person instead of doing it.
#[derive(Debug, Args)]
pub struct ApprovalArgs {
    /// Asks a second person to approve exactly this, for a reason, instead of doing it
    #[arg(long, value_name = "REASON")]
    request_approval: Option<String>,
}

impl ApprovalArgs {
    /// Returns why it is asked for, if it is.
    pub fn reason(&self) -> Option<&str> {
        self.request_approval.as_deref()
    }
}

/// Asks a second person to approve an operation.
pub async fn request_operation(
    app: &mut App<'_>,
    operation: &Operation,
    reason: &str,
    change: &CreationArgs,
    subject: &Subject,
) -> Result<(), Failure> {
    let asked = change.creation(app.client()?.request_operation(operation, reason)).await.about(subject)?;
    show(app, &asked, change)?;
    if let Some(name) = &asked.name {
        app.output.note(&format!(
            "nothing was done yet: have somebody with the role `approver` run `kms grant approve {name}`, then repeat this \
             command without --request-approval within an hour"
        ));
    }
    Ok(())
}

fn about(grant: &GrantRef) -> Subject {
    grant.tenant().map_or_else(Subject::none, Subject::tenant)
}

/// Shows what has become of a grant.
fn show(app: &mut App<'_>, grant: &kms_client::Grant, change: &CreationArgs) -> Result<(), Failure> {
    app.output.show_change(&json::Grant::from(grant), || table(grant))?;
    change.note(app);
    Ok(())
}

fn table(grant: &kms_client::Grant) -> String {
    fields([
        ("name", grant.name.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("state", state(grant)),
        ("to", sentence(&grant.what)),
        ("requester", grant.requester.clone()),
        ("reason", grant.reason.clone()),
        ("content hash", grant.content_hash.to_string()),
        ("requested", time_text(grant.request_time)),
        ("expires", time_text(grant.expire_time)),
        ("approver", grant.approver.clone().unwrap_or_default()),
        ("approved", grant.approve_time.map(time_text).unwrap_or_default()),
        ("revoker", grant.revoker.clone().unwrap_or_default()),
        ("ended", grant.end_time.map(time_text).unwrap_or_default()),
    ])
}

fn name(grant: &kms_client::Grant) -> String {
    grant.name.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn state(grant: &kms_client::Grant) -> String {
    match grant.state {
        GrantState::Unknown(number) => number.to_string(),
        state => state.as_str().to_owned(),
    }
}

/// What a grant is for, in one word.
fn short(what: &GrantWhat) -> String {
    match what {
        GrantWhat::Role(role) => role.role.clone(),
        GrantWhat::Operation(operation) => operation.as_str().to_owned(),
        // Of a newer server.
        _ => "?".to_owned(),
    }
}

/// What a grant is for, as it goes on after "to".
fn sentence(what: &GrantWhat) -> String {
    let operation = match what {
        GrantWhat::Role(role) => {
            let length = duration::exact(role.duration);
            return format!("have the role {} in {} for {length}", printable(&role.role), role.tenant);
        }
        GrantWhat::Operation(operation) => operation,
        _ => return "do what this version of `kms` cannot show".to_owned(),
    };
    let (what, wait, etag) = match operation {
        Operation::DestroyTenant { tenant, wait, etag } => (format!("{tenant} with all its keys"), wait, etag),
        Operation::ScheduleKeyDestruction { key, version, wait, etag } => (full(key, *version), wait, etag),
        Operation::ExportKeystore => return "make copies of the keystore files".to_owned(),
        _ => return "do what this version of `kms` cannot show".to_owned(),
    };
    let condition = etag.as_ref().map(|etag| format!(", while its etag is {}", printable(etag.as_str())));
    format!("destroy {what} {}{}", confirm::when(*wait), condition.unwrap_or_default())
}

fn full(key: &kms_client::KeyRef, version: Option<kms_client::VersionNumber>) -> String {
    version.map_or_else(|| key.to_string(), |version| format!("{key}/versions/{version}"))
}

/// What is typed to approve it: the last part of the name of what it is about.
fn to_type(what: &GrantWhat) -> String {
    let tenant = |tenant: &TenantRef| tenant.tenant().to_owned();
    match what {
        GrantWhat::Role(role) => tenant(&role.tenant),
        GrantWhat::Operation(Operation::DestroyTenant { tenant: destroyed, .. }) => tenant(destroyed),
        GrantWhat::Operation(Operation::ScheduleKeyDestruction { key, version, .. }) => match version {
            Some(version) => format!("{}/versions/{version}", key.key()),
            None => key.key().to_owned(),
        },
        _ => "keystore".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_asked_for_some_time() {
        assert_eq!(some_time("1h"), Ok(Duration::from_secs(3_600)));
        for bad in ["0s", "0h", "soon", "-1h", ""] {
            assert!(some_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_roles_are_named_as_the_server_names_them() {
        for role in Role::value_variants() {
            assert_eq!(role.to_possible_value().unwrap().get_name(), role.as_str());
        }
    }

    #[test]
    fn everything_of_an_operation_is_shown_to_who_approves_it() {
        let (tenant, key) = (TenantRef::new("acme").unwrap(), kms_client::KeyRef::new("acme", "app").unwrap());
        let etag = Some("e1\u{1b}".parse().unwrap());
        let version = Some("3".parse().unwrap());
        for (operation, says, typed) in [
            (
                Operation::DestroyTenant { tenant, wait: Some(Duration::ZERO), etag: None },
                "destroy tenants/acme with all its keys now, without a wait",
                "acme",
            ),
            (
                Operation::ScheduleKeyDestruction {
                    key: key.clone(),
                    version,
                    wait: Some(Duration::from_secs(60)),
                    etag,
                },
                "destroy tenants/acme/keys/app/versions/3 after 1m, while its etag is e1\\u{1b}",
                "app/versions/3",
            ),
            (
                Operation::ScheduleKeyDestruction { key, version: None, wait: None, etag: None },
                "destroy tenants/acme/keys/app after the server's default wait",
                "app",
            ),
            (Operation::ExportKeystore, "make copies of the keystore files", "keystore"),
        ] {
            let what = GrantWhat::Operation(operation);
            assert_eq!((sentence(&what).as_str(), to_type(&what).as_str()), (says, typed));
        }
    }
}
