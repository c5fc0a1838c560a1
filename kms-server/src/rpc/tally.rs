//! What the record says of many items: how many, how many failed and why, and which blobs they were.
//!
//! ```text
//! cnt    items                          fail   those that failed; left out if none did
//! ids    base64 of 16 bytes for each item: the first of its blob's commitment, zeros if there is none;
//!        of what is moved under one key 32, of the blob that was given and the one that was made
//! why    cause positions (;cause positions)*   such as DECRYPT_FAILED:tag 0,7;WRONG_KIND 3
//! ```
//! Positions count from 0 within the leaf, as `ids` do.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Error;
use super::status;
use crate::audit::{Leaf, Outcome};
use crate::crypto::chain::commitment_of;
use crate::noun::KeyName;

/// By which blobs the record of a batch names its items.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ids {
    /// By none: a MAC may be what somebody proves himself with.
    None,
    /// By those that were given.
    Given,
    /// By those that were made.
    Made,
    /// By both, of each item the one that was given and then the one that was made.
    Both,
    /// By those that were given, and by those that were made under this key in a leaf of their own.
    BothApart(KeyName),
}

/// What the record calls an item by.
pub(super) type Id = [u8; 16];

/// Returns what the record calls a blob by: the beginning of its commitment, zeros if it has none.
pub(super) fn id_of(blob: &[u8]) -> Id {
    commitment_of(blob).and_then(|commitment| commitment.first_chunk().copied()).unwrap_or_default()
}

/// What became of the items of one part.
pub(super) struct Tally {
    failed: usize,
    given: Vec<Id>,
    made: Vec<Id>,
    causes: BTreeMap<String, Vec<usize>>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { failed: 0, given: Vec::new(), made: Vec::new(), causes: BTreeMap::new() }
    }

    /// Counts an item that was done.
    pub(super) fn done(&mut self, given: Id, made: Id) {
        self.given.push(given);
        self.made.push(made);
    }

    /// Counts an item that was not.
    pub(super) fn failed(&mut self, error: &Error, given: Id) {
        self.causes.entry(status::why(error)).or_default().push(self.given.len());
        self.failed += 1;
        self.done(given, Id::default());
    }

    /// Says how the part ended: only where no item was done, it failed.
    pub(super) fn outcome(&self) -> Outcome {
        if self.failed == self.given.len() { Outcome::Failed } else { Outcome::Ok }
    }

    /// Returns the leaves of the part, given what they say of the keys that opened and that sealed: one
    /// leaf, or two where blobs went to another key.
    pub(super) fn leaves(self, by: &Ids, opened: Leaf, sealed: Leaf) -> Vec<Leaf> {
        let leaf = |ids: Option<&[Id]>, used: Leaf| Leaf {
            cnt: Some(count(self.given.len())),
            fail: Some(count(self.failed)).filter(|failed| *failed > 0),
            ids: ids.map(|ids| STANDARD.encode(ids.as_flattened()).into()),
            why: (self.failed > 0).then(|| self.why().into()),
            ..used
        };
        match by {
            Ids::None => vec![leaf(None, if sealed.key.is_some() { sealed } else { opened })],
            Ids::Given => vec![leaf(Some(&self.given), opened)],
            Ids::Made => vec![leaf(Some(&self.made), sealed)],
            Ids::Both => {
                let both: Vec<_> =
                    self.given.iter().zip(&self.made).flat_map(|(given, made)| [*given, *made]).collect();
                vec![leaf(Some(&both), sealed)]
            }
            Ids::BothApart(to) => {
                let kn = Some(to.to_string().into());
                vec![leaf(Some(&self.given), opened), Leaf { kn, ..leaf(Some(&self.made), sealed) }]
            }
        }
    }

    /// Returns the leaf of a part that was about managed data keys, which are named by their uids.
    pub(super) fn leaf_of_uids(self, used: Leaf) -> Leaf {
        let [leaf] = <[Leaf; 1]>::try_from(self.leaves(&Ids::Given, used, Leaf::default()))
            .expect("what names its items by what was given has one leaf");
        leaf
    }

    fn why(&self) -> String {
        let cause = |(cause, positions): (&String, &Vec<usize>)| {
            let positions: Vec<String> = positions.iter().map(usize::to_string).collect();
            format!("{cause} {}", positions.join(","))
        };
        self.causes.iter().map(cause).collect::<Vec<_>>().join(";")
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::leaf::LEAF_BYTES_MAX;
    use crate::crypto::OpenError;
    use crate::keyring;
    use crate::rpc::batch::PART_ITEMS;

    fn tag() -> Error {
        keyring::Error::Open(OpenError::Tag).into()
    }

    #[test]
    fn causes_are_told_with_the_positions_of_their_items() {
        let mut tally = Tally::new();
        tally.failed(&tag(), [1; 16]);
        tally.done([2; 16], [3; 16]);
        tally.failed(&keyring::Error::WrongKind.into(), Id::default());
        tally.failed(&tag(), [4; 16]);
        assert_eq!(tally.outcome(), Outcome::Ok);
        let leaves = tally.leaves(&Ids::Given, Leaf { kv: Some(7), ..Leaf::default() }, Leaf::default());
        let ids = STANDARD.encode([[1; 16], [2; 16], [0; 16], [4; 16]].as_flattened());
        let expected = Leaf {
            kv: Some(7),
            cnt: Some(4),
            fail: Some(3),
            ids: Some(ids.into()),
            why: Some("DECRYPT_FAILED:tag 0,3;WRONG_KIND 2".into()),
            ..Leaf::default()
        };
        assert_eq!(leaves, [expected]);
    }

    #[test]
    fn only_a_part_of_which_nothing_was_done_has_failed() {
        let mut tally = Tally::new();
        tally.failed(&tag(), [1; 16]);
        assert_eq!(tally.outcome(), Outcome::Failed);
        tally.done([2; 16], [3; 16]);
        assert_eq!(tally.outcome(), Outcome::Ok);
        let mut tally = Tally::new();
        tally.done([2; 16], [3; 16]);
        let [leaf] = &tally.leaves(&Ids::Both, Leaf::default(), Leaf::default())[..] else { panic!("one leaf") };
        assert_eq!((leaf.fail, &leaf.why), (None, &None));
        assert_eq!(leaf.ids.as_deref(), Some(&*STANDARD.encode([[2; 16], [3; 16]].as_flattened())));
    }

    #[test]
    fn what_is_moved_to_another_key_has_a_leaf_under_each() {
        let mut tally = Tally::new();
        tally.done([2; 16], [3; 16]);
        let to = "to".parse().unwrap();
        let under = |kv| Leaf { kv: Some(kv), ..Leaf::default() };
        let leaves = tally.leaves(&Ids::BothApart(to), under(1), under(2));
        let told: Vec<_> = leaves.iter().map(|leaf| (leaf.kv, leaf.kn.as_deref(), leaf.ids.as_deref())).collect();
        let ids = [[2_u8; 16], [3; 16]].map(|id| STANDARD.encode(id));
        assert_eq!(told, [(Some(1), None, Some(&*ids[0])), (Some(2), Some("to"), Some(&*ids[1]))]);
    }

    #[test]
    fn the_record_of_a_part_in_which_all_went_wrong_is_far_from_the_limit() {
        let causes = [
            OpenError::Short,
            OpenError::Magic,
            OpenError::Suite,
            OpenError::Kind,
            OpenError::Key,
            OpenError::Version,
            OpenError::Commitment,
            OpenError::Tag,
            OpenError::Length,
            OpenError::Mac,
        ];
        let mut tally = Tally::new();
        for item in 0..PART_ITEMS {
            tally.failed(&keyring::Error::Open(causes[item % causes.len()]).into(), [0xff; 16]);
        }
        let leaves = tally.leaves(&Ids::Both, Leaf::default(), Leaf::default());
        let bytes = serde_json::to_vec(&leaves[0]).unwrap().len();
        println!("the longest leaf of {PART_ITEMS} items: {bytes} bytes");
        assert!(bytes < LEAF_BYTES_MAX - 16_384, "{bytes}");
    }
}
