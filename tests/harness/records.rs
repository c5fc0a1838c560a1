//! Reads the audit log as an outsider does, and holds it against the replies that callers got.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kms_server::audit::frame::{Found, SEGMENT_HEAD_BYTES, find};
use kms_server::audit::replay::read_unverified;
use kms_server::audit::{Outcome, Phase, StoredLeaf};

use crate::{Ledger, Reply, Site};

/// Every member a leaf can have, in the only order it can have them.
const MEMBERS: &str = "v i t n op ph log cluster ten tuid kn key kv did sub by2 net rid bid ctx cnt fail ids from to \
    size root backup was ref by tkc keys deks lease files bytes hits epoch upto backend mref ev assurance rule why in \
    seq pm pd px rh res";

/// An audit log that was read.
#[derive(Debug)]
pub struct Records {
    /// Its leaves, in order.
    pub leaves: Vec<StoredLeaf>,
}

/// How many replies have their record.
#[derive(Debug, Default)]
pub struct Held {
    /// Successes that callers got.
    pub replies: usize,
    /// Those of them that have a record of success.
    pub with_record: usize,
    /// Those of them that have none.
    pub without: Vec<Reply>,
}

impl Records {
    /// Reads the log of a site, whether or not its daemon runs.
    pub fn read(site: &Site) -> Result<Self> {
        let leaves = read_unverified(&site.log_dir()).context("reading the audit log")?;
        Ok(Self { leaves })
    }

    /// Returns the leaves of one operation with one outcome.
    pub fn of<'a>(&'a self, op: &'a str, outcome: Outcome) -> impl Iterator<Item = &'a StoredLeaf> {
        self.leaves
            .iter()
            .filter(move |stored| stored.leaf.op.as_deref() == Some(op) && stored.leaf.res == Some(outcome))
    }

    /// Returns the record that says a tenant can never be used again.
    pub fn fenced(&self, tenant: &str) -> Option<&StoredLeaf> {
        self.leaves.iter().find(|stored| {
            let leaf = &stored.leaf;
            leaf.ph == Some(Phase::Fenced)
                && leaf.op.as_deref() == Some("DestroyTenant")
                && leaf.ten.as_deref() == Some(tenant)
        })
    }

    /// Looks up the record of every success in a ledger.
    pub fn hold(&self, ledger: &Ledger) -> Held {
        let mut by_request: HashMap<&str, Vec<&StoredLeaf>> = HashMap::new();
        let mut by_intent = HashMap::new();
        for stored in &self.leaves {
            if let Some(id) = &stored.leaf.rid {
                by_request.entry(id).or_default().push(stored);
            }
            if let Some(intent) = stored.leaf.in_ {
                by_intent.insert(intent, stored);
            }
        }
        let is_success = |stored: &StoredLeaf| matches!(stored.leaf.res, Some(Outcome::Ok | Outcome::Recovered));
        let records_success = |stored: &&StoredLeaf| match stored.leaf.ph {
            // A batch of which no item could be done is answered all the same.
            None if stored.leaf.cnt.is_some() => true,
            Some(Phase::Intent) => by_intent.get(&stored.index).is_some_and(|outcome| is_success(outcome)),
            _ => is_success(stored),
        };
        let mut held = Held::default();
        for reply in ledger.successes() {
            let records = reply.request_id.as_deref().and_then(|id| by_request.get(id));
            let ours = |stored: &&StoredLeaf| stored.leaf.op.as_deref().is_some_and(|op| is_record_of(reply.op, op));
            held.replies += 1;
            // A mutation's outcome may or may not repeat the request id of its intent.
            if records
                .is_some_and(|records| records.iter().copied().filter(ours).any(|stored| records_success(&stored)))
            {
                held.with_record += 1;
            } else {
                held.without.push(reply);
            }
        }
        held
    }

    /// Checks what holds for every log: indices without a gap, and one chain of mutations, each
    /// with an intent before it.
    pub fn check_chains(&self) -> Result<()> {
        // The last mutation that was carried out: its index and number; and the last destruction's index.
        let mut last: Option<(u64, u64)> = None;
        let mut last_destruction = None;
        for (place, stored) in self.leaves.iter().enumerate() {
            let (index, leaf) = (stored.index, &stored.leaf);
            ensure!(index == place as u64, "leaf {place} has index {index}");
            if leaf.ph == Some(Phase::Intent) {
                ensure!(leaf.res.is_none(), "the intent {index} has an outcome");
                ensure!(leaf.seq.is_some(), "the intent {index} has no number");
                continue;
            }
            ensure!(leaf.res.is_some(), "leaf {index} does not say how it ended");
            let Some(seq) = leaf.seq else { continue };
            let intent = leaf.in_.and_then(|intent| self.leaves.get(usize::try_from(intent).ok()?));
            let intent = intent.with_context(|| format!("the outcome {index} has no intent"))?;
            ensure!(intent.index < index, "the outcome {index} comes before its intent");
            ensure!(
                intent.leaf.ph == Some(Phase::Intent),
                "the outcome {index} goes on from something that is no intent"
            );
            ensure!(
                (&intent.leaf.op, intent.leaf.seq) == (&leaf.op, Some(seq)),
                "the outcome {index} goes on from another mutation"
            );
            if !matches!(leaf.res, Some(Outcome::Ok | Outcome::Recovered)) {
                continue;
            }
            ensure!(
                leaf.rh.is_some() || leaf.res == Some(Outcome::Recovered),
                "the outcome {index} has no hash of its row"
            );
            if let Some((last_index, last_seq)) = last {
                ensure!(seq == last_seq + 1, "the outcome {index} has number {seq}, the one before it {last_seq}");
                ensure!(
                    leaf.pm == Some(last_index),
                    "the outcome {index} does not name {last_index}, the one before it"
                );
            }
            last = Some((index, seq));
            if leaf.ph == Some(Phase::Fenced) {
                ensure!(
                    leaf.pd == last_destruction,
                    "the destruction {index} names {:?}, not {last_destruction:?}",
                    leaf.pd
                );
                last_destruction = Some(index);
            }
        }
        Ok(())
    }
}

/// Returns whether a record's `op` can be that of a reply to this RPC.
fn is_record_of(rpc: &str, op: &str) -> bool {
    // Without a wait nothing is scheduled: what was done is the destruction itself.
    op == rpc || (rpc == "ScheduleKeyDestruction" && matches!(op, "DestroyKey" | "DestroyKeyVersion"))
}

/// Returns the bytes of every leaf of a site's log, as they are stored.
pub fn lines(site: &Site) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (_, segment) in segments(&site.log_dir())? {
        let mut at = SEGMENT_HEAD_BYTES;
        while let Some(Found::Frame(frame)) = segment.get(at..).map(find) {
            for leaf in frame.leaves().context("a frame is made of leaves")? {
                lines.push(String::from_utf8(leaf.to_owned()).context("a leaf is text")?);
            }
            at += frame.bytes;
        }
    }
    Ok(lines)
}

/// Returns where in the log's last segment the next frame begins.
pub fn end_in_segment(site: &Site) -> Result<u64> {
    let (_, segment) = segments(&site.log_dir())?.pop().context("a log has a segment")?;
    let mut at = SEGMENT_HEAD_BYTES;
    while let Some(Found::Frame(frame)) = segment.get(at..).map(find) {
        at += frame.bytes;
    }
    Ok(at as u64)
}

/// Checks that a leaf, as it is stored, has only known members, each once, in their order.
pub fn check_members(line: &str) -> Result<()> {
    let mut known = MEMBERS.split_ascii_whitespace();
    let mut rest = line.strip_prefix('{').with_context(|| format!("no object: {line}"))?;
    loop {
        let (name, value) = rest
            .strip_prefix('"')
            .and_then(|rest| rest.split_once("\":"))
            .with_context(|| format!("no member: {rest}"))?;
        ensure!(known.any(|member| member == name), "member `{name}` is unknown, or not in its place: {line}");
        let mut values = serde_json::Deserializer::from_str(value).into_iter::<serde_json::Value>();
        values.next().context("a member has a value")??;
        rest = &value[values.byte_offset()..];
        match rest {
            "}" => return Ok(()),
            _ => rest = rest.strip_prefix(',').with_context(|| format!("a space, or no comma: {rest}"))?,
        }
    }
}

fn segments(dir: &Path) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).context("reading the audit log")? {
        let entry = entry?;
        let name = entry.file_name();
        // A spare segment has a name that is no number.
        if let Some(first) = name.to_str().filter(|name| name.len() == 20).and_then(|name| name.parse().ok()) {
            segments.push((first, fs::read(entry.path())?));
        }
    }
    if segments.is_empty() {
        bail!("there is no segment in {}", dir.display());
    }
    segments.sort_unstable_by_key(|(first, _)| *first);
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_and_in_order() {
        check_members(r#"{"v":1,"i":0,"t":1,"op":"Start","was":["a,b",3],"res":"OK"}"#).unwrap();
        for bad in [
            r#"{"v":1,"t":1,"i":0}"#,
            r#"{"v":1,"i":0,"i":0}"#,
            r#"{"v":1,"new":0}"#,
            r#"{"v":1, "i":0}"#,
            r#"{"v":1,"i":0"#,
            "[]",
        ] {
            assert!(check_members(bad).is_err(), "{bad}");
        }
    }
}
