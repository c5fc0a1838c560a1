//! Managed data keys (DEKs): made under a key of purpose MANAGED, kept wrapped in the store, given
//! out by uid, destroyed one by one, moved to the newest version after a rotation.
//!
//! The decision page `0011-managed-data-keys.md` has the whole protocol, and every crash in it.
//!
//! **Invariants:**
//! - whoever writes rows of a tenant's DEKs, or their counters, holds the tenant's turn, and nobody
//!   waits for a turn while inside a gate;
//! - a DEK's row and the counters that count it change in one batch, so they agree at every moment
//!   (`the_counters_are_what_a_scan_counts`).

mod counts;
mod create;
mod destroy;
mod destroyed;
mod get;
mod list;
mod rewrap;
mod row;
mod settle;
mod writer;

use crate::noun::DekUid;

pub use create::{Created, MadeDataKey, MadeDataKeys, NewDataKeys};
pub use destroy::{DataKeysToDestroy, DestroyedDataKeys, DestroyedPart, DonePart, Gone, Undone};
pub use get::{GotDataKey, GotDataKeys};
pub use list::DataKeyView;
pub use rewrap::Rewrapper;
pub use writer::DataKeyWriter;

pub(super) use counts::Counting;
pub(super) use destroyed::DestroyedDeks;
pub(super) use row::DekRow;
pub(super) use settle::lost_data_keys;
pub(super) use writer::Job;

/// Says that the row of a managed data key is damaged: the service alone writes such rows.
fn tell_of_damage(uid: &DekUid, what: &str) {
    tracing::error!(%uid, what, "a managed data key is damaged");
    metrics::counter!("kms_store_damage_total").increment(1);
}

/// The most items that are told of in one leaf, and the most rows that one step re-wraps.
pub const ITEMS_PER_LEAF: usize = 1_000;
