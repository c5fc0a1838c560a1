//! REMEMBER: the audit log, written before every reply.
//!
//! Not here: what is worth a leaf; `rpc::pipeline` and `keyring::mutation` decide that. Tiles,
//! checkpoints and summaries come later; until then every refusal is a leaf of its own and no
//! segment is deleted.
//!
//! **Invariant:** no byte of a reply leaves before its leaf is durable (`hold`).

pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod hold;
pub mod leaf;
pub mod ledger;
pub mod log;
pub mod replay;
pub mod segment;
mod unrecorded;

pub use hold::{HeldStream, Hold};
pub use leaf::{Leaf, Outcome, Phase, StoredLeaf};
pub use ledger::{Ledger, LedgerError};
pub use log::{Anchor, Log, LogFailed, LogSettings};
pub use unrecorded::Unrecorded;
