//! What every command that changes something is given.

use std::time::SystemTime;

use clap::Args;
use kms_client::{Change, Creation, Decision, Destruction, Etag, RequestId, Withdrawn};

use crate::app::App;
use crate::interrupt;

/// For what creates something, and what is decided about a grant.
#[derive(Debug, Args)]
pub struct CreationArgs {
    /// Changes nothing: shows what the answer would be
    #[arg(long)]
    pub dry_run: bool,
    /// The id of this intended change: repeated with the same, it is done once [default: a new one]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<RequestId>,
}

/// For what changes an object that exists.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub change: CreationArgs,
    /// Only if the object has this etag: nobody changed it since it was shown
    #[arg(long, value_name = "ETAG")]
    pub etag: Option<Etag>,
}

impl CreationArgs {
    pub fn creation<T>(&self, creation: Creation<T>) -> Creation<T> {
        let creation = creation.request_id(self.begin());
        if self.dry_run { creation.validate_only() } else { creation }
    }

    pub fn destruction<T>(&self, destruction: Destruction<T>) -> Destruction<T> {
        let destruction = destruction.request_id(self.begin());
        if self.dry_run { destruction.validate_only() } else { destruction }
    }

    pub fn decision<T>(&self, decision: Decision<T>) -> Decision<T> {
        let decision = decision.request_id(self.begin());
        if self.dry_run { decision.validate_only() } else { decision }
    }

    /// Says beside the result that nothing was changed.
    pub fn note(&self, app: &mut App<'_>) {
        if self.dry_run {
            app.output.note("this was a dry run: nothing was changed");
        }
    }

    /// Chooses the id before the change is asked for: whoever interrupts it is told.
    pub fn begin(&self) -> RequestId {
        let id = self.request_id.clone().unwrap_or_else(RequestId::random);
        if !self.dry_run {
            interrupt::change_begins(&id);
        }
        id
    }
}

impl ChangeArgs {
    pub fn change<T>(&self, change: Change<T>) -> Change<T> {
        let change = change.request_id(self.change.begin()).etag_of(self.etag.as_ref());
        if self.change.dry_run { change.validate_only() } else { change }
    }
}

/// What a change answers: the object, and for what takes it out of use, when the last lease from before ends.
pub trait Outcome<T> {
    fn into_parts(self) -> (T, Option<SystemTime>);
}

impl<T> Outcome<T> for T {
    fn into_parts(self) -> (T, Option<SystemTime>) {
        (self, None)
    }
}

impl<T> Outcome<T> for Withdrawn<T> {
    fn into_parts(self) -> (T, Option<SystemTime>) {
        (self.object, self.lease_end_time)
    }
}
