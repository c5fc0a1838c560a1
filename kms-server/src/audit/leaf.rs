//! One leaf of the audit log: a JSON object without spaces, its members always in this order,
//! absent ones left out.
//!
//! Not here: when a leaf is written. Never in a leaf: plaintext, keys, ciphertext, context values
//! or tokens. `bid` says which ciphertext was touched, `ctx` is a keyed hash of the context.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::noun::UnixMillis;

/// The longest leaf, in bytes.
pub const LEAF_BYTES_MAX: usize = 65_535;

/// How the `why` begins of a leaf that tells of what was made before, under the same request id.
pub const REPEATED: &str = "REPEATED";

/// What the `why` is of a leaf that tells of what was checked and not done.
pub const VALIDATED: &str = "VALIDATED";

/// How what a leaf tells of ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Not allowed.
    Denied,
    /// Allowed, but not done.
    Failed,
    /// Done, as was found at a later start.
    Recovered,
    /// Not done, as was found at a later start, or before anything was changed.
    Aborted,
}

/// Which step of a mutation or destruction a leaf is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing was changed yet.
    Intent,
    /// The tenant, key or version can never be used again.
    Fenced,
    /// Its key lies in no file of the store.
    Purged,
    /// No old copy of anything opens it.
    Unrecoverable,
}

macro_rules! leaf {
    ($($(#[doc = $doc:literal])+ $(#[serde($serde:meta)])? $member:ident: $Type:ty,)*) => {
        /// What a leaf says, less its version, index and time, which the log adds.
        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
        #[serde(deny_unknown_fields)]
        pub struct Leaf {
            $(
                $(#[doc = $doc])+
                $(#[serde($serde)])?
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $member: Option<$Type>,
            )*
        }
    };
}

type Text = Cow<'static, str>;

// **Invariant:** the order of these members is the order in the log; the vectors hold it.
leaf! {
    /// Node.
    n: Text,
    /// What was asked for: an RPC's name or a step of the service's own.
    op: Text,
    /// Phase.
    ph: Phase,
    /// The log's kind, in Start.
    log: Text,
    /// Cluster uid.
    cluster: Text,
    /// Tenant name as asked for.
    ten: Text,
    /// Tenant uid.
    tuid: Text,
    /// Key name as asked for.
    kn: Text,
    /// Key uid; only when looked up.
    key: Text,
    /// Key version.
    kv: u32,
    /// Managed data key uid.
    did: Text,
    /// Who.
    sub: Text,
    /// The second person.
    by2: Text,
    /// The peer's address.
    net: Text,
    /// Request id.
    rid: Text,
    /// First 16 bytes of the commitment of the blob that was touched.
    bid: Text,
    /// Keyed hash of the encryption context.
    ctx: Text,
    /// Items of a batch.
    cnt: u64,
    /// Items that failed.
    fail: u64,
    /// Their ids.
    ids: Text,
    /// Range begin.
    from: u64,
    /// Range end.
    to: u64,
    /// Tree size.
    size: u64,
    /// Tree root.
    root: Text,
    /// Backup id.
    backup: Text,
    /// Where it was in a lost log.
    was: (Text, u64),
    /// The leaf this one goes on from.
    #[serde(rename = "ref")]
    ref_: u64,
    /// The leaf that brought it about.
    by: u64,
    /// Commitment of the destroyed tenant key's wrap.
    tkc: Text,
    /// Keys destroyed.
    keys: u64,
    /// Managed data keys destroyed.
    deks: u64,
    /// When no obedient client can still hold a data key.
    lease: UnixMillis,
    /// Files searched.
    files: u64,
    /// Bytes searched, or cut off.
    bytes: u64,
    /// Places where key bytes were found.
    hits: u64,
    /// Epoch number.
    epoch: u32,
    /// Log index up to which it covers destructions.
    upto: u64,
    /// Backend kind.
    backend: Text,
    /// Master key version, as the backend calls it.
    mref: Text,
    /// Evidence.
    ev: Text,
    /// What the evidence is worth.
    assurance: Text,
    /// The binding or policy that decided.
    rule: Text,
    /// The reason.
    why: Text,
    /// The intent's index.
    #[serde(rename = "in")]
    in_: u64,
    /// Number of the mutation.
    seq: u64,
    /// Index of the previous mutation's outcome.
    pm: u64,
    /// Index of the previous destruction's outcome.
    pd: u64,
    /// Index of the previous managed-key destruction's outcome.
    px: u64,
    /// First 16 bytes of the SHA-256 of the object's main row as written.
    rh: Text,
    /// How it ended.
    res: Outcome,
}

impl Leaf {
    /// Begins a leaf about an operation.
    pub fn of(op: impl Into<Text>) -> Self {
        Self { op: Some(op.into()), ..Self::default() }
    }

    /// Tells whether it is about managed data keys that are made, or given out again.
    pub fn is_of_new_data_keys(&self) -> bool {
        matches!(self.op.as_deref(), Some("CreateDataKey" | "BatchCreateDataKeys"))
    }

    /// Tells whether it is about the destruction of managed data keys.
    pub fn is_of_destroyed_data_keys(&self) -> bool {
        matches!(self.op.as_deref(), Some("DestroyDataKey" | "BatchDestroyDataKeys"))
    }

    /// Says how it ended.
    pub fn ended(mut self, outcome: Outcome) -> Self {
        self.res = Some(outcome);
        self
    }

    /// Returns the members as JSON, without version, index and time.
    pub(super) fn members(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }
}

/// Puts version, index and time before the members: the bytes of the leaf.
pub(super) fn write_leaf(index: u64, time: UnixMillis, members: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"v\":1,\"i\":");
    out.extend_from_slice(index.to_string().as_bytes());
    out.extend_from_slice(b",\"t\":");
    out.extend_from_slice(time.to_string().as_bytes());
    out.push(if members.len() > 2 { b',' } else { b'}' });
    out.extend_from_slice(members.get(1..).filter(|rest| rest.len() > 1).unwrap_or_default());
}

/// A leaf as it lies in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredLeaf {
    /// Its index.
    pub index: u64,
    /// When it was appended.
    pub time: UnixMillis,
    /// What it says.
    pub leaf: Leaf,
}

impl StoredLeaf {
    /// Returns the stored bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_leaf(self.index, self.time, &self.leaf.members(), &mut bytes);
        bytes
    }

    /// Reads the stored bytes. `None` is no leaf of this release.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).ok()?;
        if object.remove("v")?.as_u64()? != 1 {
            return None;
        }
        let (index, time) = (object.remove("i")?.as_u64()?, object.remove("t")?.as_u64()?);
        let leaf = serde_json::from_value(serde_json::Value::Object(object)).ok()?;
        Some(Self { index, time, leaf })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_of_the_vectors_are_written_byte_for_byte() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/kms1_vectors.json")).unwrap();
        let entries = vectors["audit"]["entries"].as_array().unwrap();
        for entry in entries {
            let entry = entry.as_str().unwrap();
            let stored = StoredLeaf::parse(entry.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(stored.to_bytes()).unwrap(), entry);
        }
        println!("audit entries: {}/{} met", entries.len(), entries.len());
    }

    #[test]
    fn the_members_are_in_the_order_of_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/kms1_vectors.json")).unwrap();
        let expected: Vec<&str> =
            vectors["audit"]["leaf_order"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
        let source = include_str!("leaf.rs");
        let table = source.split_once("leaf! {\n").unwrap().1.split_once("\n}\n").unwrap().0;
        let ours: Vec<&str> = table
            .lines()
            .filter(|line| !line.trim_start().starts_with(['/', '#']))
            .filter_map(|line| line.trim().split_once(':'))
            .map(|(member, _)| member.trim_end_matches('_'))
            .collect();
        assert_eq!([&["v", "i", "t"], &ours[..]].concat(), expected);
    }

    #[test]
    fn what_comes_from_outside_cannot_break_out_of_its_member() {
        let leaf = Leaf { why: Some("\",\"res\":\"OK\n\u{0}".into()), ..Leaf::of("X") };
        let mut bytes = Vec::new();
        write_leaf(7, 9, &leaf.members(), &mut bytes);
        let read = StoredLeaf::parse(&bytes).unwrap();
        assert_eq!(read, StoredLeaf { index: 7, time: 9, leaf });
    }
}
