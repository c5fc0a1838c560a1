//! Why a request is refused: everything that can go wrong on the road of an RPC.

use std::time::Duration;

use crate::authn::{InvalidToken, NoIdentity};
use crate::crypto::{InvalidContext, OpenError};
use crate::keyring;
use crate::policy::Action;

/// Why a request was not done. `status.rs` says what the caller sees of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody could be identified.
    #[error("no identity: {0}")]
    NoIdentity(#[from] NoIdentity),
    /// The bearer token is not taken.
    #[error("{0}")]
    Token(InvalidToken),
    /// A field is not what it must be.
    #[error("{field}: {rule}")]
    Field {
        /// The field, as the .proto names it.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The encryption context is not one.
    #[error("{0}")]
    Context(#[from] InvalidContext),
    /// The destination's context is another, where it may not be.
    #[error("a data key may go to another key, but never to another encryption context")]
    OtherContext,
    /// The aad of an item of a batch is too long.
    #[error("the aad of an item has at most 256 bytes")]
    ItemAad,
    /// The plaintext or message is too long.
    #[error("a plaintext or message has at most 65,536 bytes")]
    PlaintextTooLarge,
    /// The answer would be longer than a message may be.
    #[error("the answer would have more than 4 MiB: use smaller batches")]
    AnswerTooLarge,
    /// Too many bytes are in flight.
    #[error("too many bytes are in flight")]
    Overloaded,
    /// More often than the settings allow.
    #[error("more operations of one {of} than this service allows in a second: try again in {} ms", .wait.as_millis().max(1))]
    RateLimited {
        /// Principal or tenant.
        of: &'static str,
        /// When it would be let in.
        wait: Duration,
    },
    /// A MAC is not right.
    #[error("the MAC is not of this message, key and encryption context")]
    Mac(#[source] OpenError),
    /// The page token is not of this listing.
    #[error("the page token is not of this listing")]
    PageToken,
    /// Policy does not allow it.
    #[error("{}", denied(*.0))]
    Denied(Option<Action>),
    /// What was to be read again is not in order.
    #[error("nothing was reloaded: {0}")]
    ReloadFailed(String),
    /// The rule that allows it lets its principal reach no more tenants for now.
    #[error("this caller reached as many tenants as it may in its window of time")]
    FanOut {
        /// It is the first for a while: an alarm.
        alarm: bool,
    },
    /// The backend's keys never leave it.
    #[error("the keys of this master key backend never leave it")]
    ExportNotSupported,
    /// The marker of a lock could not be written.
    #[error("this node locks itself, but the marker could not be written: it would serve after a restart")]
    MarkerFailed,
    /// The node is about to be locked.
    #[error("this node is being locked")]
    Locking,
    /// The keyring refused.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// It took too long.
    #[error("it took longer than a request may; a change that was asked for may still be made")]
    Deadline,
}

/// Says what is not allowed, and how to ask for it.
fn denied(action: Option<Action>) -> String {
    let Some(action) = action else { return "not allowed".to_owned() };
    format!(
        "not allowed: {action} needs a binding or a grant; TestPermissions says what would be needed, an operator adds bindings"
    )
}

impl Error {
    /// Says of a blob that did not open that it was a MAC.
    pub(super) fn of_mac(self) -> Self {
        match self {
            Error::Keyring(keyring::Error::Open(cause)) => Error::Mac(cause),
            other => other,
        }
    }
}
