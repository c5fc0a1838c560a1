//! Judges what came back to a probe: whether it shows anything of another tenant, and whether it tells what is there
//! from what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kms_proto::v1::ItemError;
use kms_tests::needle::{Needle, Search};
use tonic::Status;
use tonic::metadata::KeyAndValueRef;
use tonic_types::StatusExt as _;

/// All that a refused caller sees, but for what names the request, and with the names that it gave itself left out.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Outcome {
    pub code: i32,
    pub reason: String,
    pub said: String,
}

impl Outcome {
    /// Takes a refusal.
    pub fn of(status: &Status, names: &[String]) -> Self {
        let info = status.get_details_error_info();
        let (mut reason, mut request_id) = (String::new(), String::new());
        if let Some(mut info) = info {
            request_id = info.metadata.remove("request_id").unwrap_or_default();
            reason = info.reason;
        }
        let details = String::from_utf8_lossy(status.details()).into_owned();
        let mut said = format!("{} / {details}", status.message());
        for name in names.iter().chain([&request_id]).filter(|name| !name.is_empty()) {
            said = said.replace(name, "*");
        }
        Self { code: status.code().into(), reason, said }
    }

    /// Takes the error of an item.
    pub fn of_item(error: &ItemError) -> Self {
        let reason = error.reason().as_reason().to_owned();
        Self { code: error.code, reason, said: error.message.clone() }
    }
}

/// Everything that came back, to be searched.
pub fn bytes_of(answer: &Result<tonic::Response<Vec<u8>>, Status>) -> Vec<u8> {
    let (mut bytes, metadata) = match answer {
        Ok(response) => (response.get_ref().clone(), response.metadata()),
        Err(status) => ([status.message().as_bytes(), status.details()].concat(), status.metadata()),
    };
    for pair in metadata.iter() {
        match pair {
            KeyAndValueRef::Ascii(_, value) => bytes.extend(value.as_encoded_bytes()),
            KeyAndValueRef::Binary(_, value) => bytes.extend(value.as_encoded_bytes()),
        }
    }
    bytes
}

/// Counts probes, and collects what is wrong.
pub struct Judge {
    search: Search<'static>,
    found: Mutex<Found>,
}

/// What was counted and found.
#[derive(Default)]
pub struct Found {
    pub over_the_wire: usize,
    pub edited_rows: usize,
    pub by_kind: BTreeMap<&'static str, usize>,
    /// Of those that touched edited rows, by the kind of row.
    pub by_row: BTreeMap<&'static str, usize>,
    pub by_rpc: BTreeMap<&'static str, usize>,
    pub leaks: Vec<String>,
    pub opened: usize,
    /// What probes of what exists, and of what does not, were told.
    told: BTreeMap<(&'static str, &'static str), [BTreeSet<Outcome>; 2]>,
}

impl Judge {
    /// Looks for these. They stay for the rest of the test.
    pub fn new(needles: Vec<Needle>) -> Self {
        let search = Search::for_all(Vec::leak(needles));
        Self { search, found: Mutex::default() }
    }

    /// Counts probes of a kind over the wire.
    pub fn count(&self, kind: &'static str, rpc: &'static str, probes: usize) {
        let mut found = self.found();
        found.over_the_wire += probes;
        *found.by_kind.entry(kind).or_default() += probes;
        *found.by_rpc.entry(rpc).or_default() += probes;
    }

    /// Counts probes that touched an edited row.
    pub fn count_edited(&self, edit: &'static str, row: &'static str, probes: usize) {
        let mut found = self.found();
        found.edited_rows += probes;
        *found.by_kind.entry(edit).or_default() += probes;
        *found.by_row.entry(row).or_default() += probes;
    }

    /// Counts what its owner opened.
    pub fn opened(&self, things: usize) {
        self.found().opened += things;
    }

    /// Notes a leak.
    pub fn leak(&self, what: impl Into<String>) {
        let what = what.into();
        let mut found = self.found();
        if found.leaks.len() < 20 {
            println!("isolation: leak: {what}");
        }
        found.leaks.push(what);
    }

    /// Looks for all that is another's than this tenant's, and was not in the request itself.
    pub fn search(&self, what: &str, own: &str, request: &[u8], answer: &[u8]) {
        let others = |place: &str, bytes: &[u8]| {
            let mut found = self.search.find_in(place, bytes);
            found.retain(|one| one.split_once(": ").is_none_or(|(whose, _)| whose != own));
            found
        };
        let mut found = others("", answer);
        if !found.is_empty() {
            let given: BTreeSet<String> = others("", request).into_iter().collect();
            found.retain(|one| !given.contains(one));
        }
        for one in found {
            self.leak(format!("{what}: to {own:?}: {one}the answer"));
        }
    }

    /// Notes what was told of something that exists, or that does not.
    pub fn told(&self, kind: &'static str, rpc: &'static str, exists: bool, outcome: Outcome) {
        self.found().told.entry((kind, rpc)).or_default()[usize::from(!exists)].insert(outcome);
    }

    /// Compares what was told of what exists with what was told of what does not. Returns how many ways there are to
    /// ask.
    pub fn compare(&self) -> usize {
        let mut found = self.found();
        let mut wrong = Vec::new();
        for ((kind, rpc), [there, not_there]) in &found.told {
            // Each is seen often enough that one of the two missing is a fault of the test.
            if there != not_there {
                wrong.push(format!("{kind}: {rpc}: of what exists {there:?}, of what does not {not_there:?}"));
            }
        }
        found.leaks.extend(wrong);
        found.told.len()
    }

    /// Returns what was found so far.
    pub fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
