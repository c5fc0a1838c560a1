//! Rows of a stopped daemon's store, told by whose and what they are, and what somebody with the disk might do to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kms_server::rows;
use kms_server::store::rocks::{Limits, RocksStore};
use kms_server::store::{Batch, Family, PAGE_ROWS_MAX, RowKey, Store as _, Write};
use kms_tests::{Random, Site, damage};
use prost::Message as _;

use super::tenants::Tenant;

/// What a row is of: its kind, the name of its key if it has one, and what tells it from its like.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Role {
    pub kind: &'static str,
    pub key: String,
    pub detail: Vec<u8>,
}

/// The rows of each tenant.
pub type Rows = Vec<BTreeMap<Role, (RowKey, Vec<u8>)>>;

/// The kinds of rows that are of a tenant.
pub const ROW_KINDS: [&str; 9] =
    ["tenant", "tenant name", "key name", "key", "key version", "data key", "schedule", "counter", "kept answer"];

/// What is done to rows.
pub const EDITS: [&str; 10] = [
    "swapped",
    "copied",
    "moved",
    "carried over",
    "bit flipped",
    "message replaced",
    "older",
    "a key with its rows",
    "a whole tenant",
    "all swapped",
];

/// One edit, of rows that `a` has or shall have, with those of `b`.
#[derive(Clone, Debug)]
pub struct Edit {
    pub a: usize,
    pub b: usize,
    pub what: &'static str,
    pub role: Role,
}

/// Copies of the parts of a stopped site that change while it serves.
pub struct Copy(Vec<(PathBuf, BTreeMap<PathBuf, Vec<u8>>)>);

impl Copy {
    /// Reads them.
    pub fn of(site: &Site) -> Result<Self> {
        let parts = ["store", "seg", "ledger"].map(|part| site.path("data").join(part));
        Ok(Self(parts.into_iter().map(|part| Ok((part.clone(), damage::contents(&part)?))).collect::<Result<_>>()?))
    }

    /// Puts them back.
    pub fn put(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        for (part, files) in &self.0 {
            for file in damage::contents(part)?.keys() {
                std::fs::remove_file(part.join(file))?;
            }
            for (file, bytes) in files {
                let path = part.join(file);
                std::fs::write(&path, bytes)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            }
        }
        Ok(())
    }
}

fn open(site: &Site) -> Result<RocksStore> {
    let limits = Limits { cache_bytes_max: 1 << 20, readers: 1, ..Limits::default() };
    RocksStore::open(&site.path("data/store"), &limits).context("the store of a stopped daemon")
}

/// Reads all rows that are of tenants.
pub async fn read(site: &Site, tenants: &[Tenant]) -> Result<Rows> {
    let store = open(site)?;
    let by_uid: HashMap<Vec<u8>, usize> = tenants
        .iter()
        .enumerate()
        .map(|(number, tenant)| (hex::decode(&tenant.uid).unwrap_or_default(), number))
        .collect();
    let mut found: Rows = vec![BTreeMap::new(); tenants.len()];
    for family in Family::ALL {
        let mut after = None::<Vec<u8>>;
        loop {
            let page = store.list(family, &[], after.as_deref(), PAGE_ROWS_MAX).await?;
            after = page.rows.last().map(|(place, _)| place.clone()).filter(|_| page.more);
            for (place, value) in page.rows {
                if let Some((whose, role)) = role_of(family, &place, &value, tenants, &by_uid) {
                    found[whose].insert(role, (RowKey::new(family, place), value));
                }
            }
            if after.is_none() {
                break;
            }
        }
    }
    store.close().await?;
    Ok(found)
}

/// Says whose a row is, and what.
fn role_of(
    family: Family,
    place: &[u8],
    value: &[u8],
    tenants: &[Tenant],
    by_uid: &HashMap<Vec<u8>, usize>,
) -> Option<(usize, Role)> {
    let role = |kind, key: String, detail: &[u8]| Role { kind, key, detail: detail.into() };
    let key_of = |whose: usize, uid: &[u8]| {
        let uid = hex::encode(uid);
        let name = tenants[whose].keys.iter().find(|(_, of)| **of == uid).map(|(name, _)| name)?;
        Some(common_name(&tenants[whose], name))
    };
    let whose = |at: usize| by_uid.get(place.get(at..at + 16)?).copied();
    match (family, place.first()?) {
        (Family::Root, b't') => Some((whose(1)?, role("tenant", String::new(), &[]))),
        (Family::Name, 0) => {
            let number = tenants.iter().position(|tenant| tenant.id.as_bytes() == &place[1..])?;
            Some((number, role("tenant name", String::new(), &[])))
        }
        (Family::Name, _) => {
            let name = std::str::from_utf8(place.get(17..)?).ok()?;
            Some((whose(1)?, role("key name", common_name(&tenants[whose(1)?], name), &[])))
        }
        (Family::Key, _) => {
            let (number, rest) = (whose(0)?, place.get(32..)?);
            let kind = if rest == [0] { "key" } else { "key version" };
            Some((number, role(kind, key_of(number, &place[16..32])?, rest)))
        }
        // The fifth of a call is the fifth of another.
        (Family::Dek, _) => {
            let number = whose(0)?;
            let at = tenants[number].things.iter().position(|thing| thing.bytes == place[32..]).unwrap_or(usize::MAX);
            Some((number, role("data key", key_of(number, &place[16..32])?, &at.to_be_bytes())))
        }
        (Family::Ops, 1) => {
            let number = whose(1)?;
            Some((number, role("schedule", key_of(number, place.get(17..33)?)?, &place[33..])))
        }
        (Family::Ops, 2) => Some((whose(1)?, role("counter", String::new(), &[]))),
        (Family::Ops, 4) => {
            let number = whose(1)?;
            Some((number, role("counter", key_of(number, place.get(17..33)?)?, &place[33..])))
        }
        (Family::Ops, 3) => {
            let answer = rows::Answer::decode(value.get(4..value.len().checked_sub(32)?)?).ok()?;
            let prefix = answer.new_data_keys?.uid_prefix;
            let number = tenants.iter().position(|tenant| tenant.repeated.starts_with(&prefix))?;
            Some((number, role("kept answer", "other-rows".to_owned(), &[])))
        }
        _ => None,
    }
}

/// The name of a key as all tenants' keys are named.
fn common_name(tenant: &Tenant, name: &str) -> String {
    if name == tenant.only { super::tenants::ONLY.to_owned() } else { name.to_owned() }
}

impl Edit {
    /// Chooses rows for each pair of tenants: every edit of every kind of row, in turn.
    pub fn choose(pairs: &[(usize, usize)], rows: &Rows, older: &Rows, first: usize, random: &mut Random) -> Vec<Self> {
        let mut turns = Vec::new();
        for what in EDITS {
            let kinds = if EDITS[..7].contains(&what) { &ROW_KINDS[..] } else { &ROW_KINDS[..1] };
            turns.extend(kinds.iter().map(|kind| (what, *kind)));
        }
        let mut edits = Vec::new();
        let mut turn = first;
        for &(a, b) in pairs {
            // What nobody ever changed has no older row.
            loop {
                let (what, kind) = turns[turn % turns.len()];
                turn += 1;
                let is_older = |role: &Role| older[a].get(role).is_some_and(|old| old.1 != rows[a][role].1);
                let fits = |role: &&Role| {
                    role.kind == kind && rows[b].contains_key(role) && (what != "older" || is_older(role))
                };
                let roles: Vec<&Role> = rows[a].keys().filter(fits).collect();
                if let Some(role) = random.one_of(&roles) {
                    edits.push(Self { a, b, what, role: (*role).clone() });
                    break;
                }
            }
        }
        edits
    }

    /// Returns what is written for it.
    fn writes(&self, tenants: &[Tenant], rows: &Rows, older: &Rows, random: &mut Random) -> Vec<Write> {
        let (of_a, of_b) = (&rows[self.a], &rows[self.b]);
        let ((a_place, a_value), (b_place, b_value)) = (&of_a[&self.role], &of_b[&self.role]);
        let put = |place: &RowKey, value: &[u8]| Write::Put(place.clone(), value.to_vec());
        let over = |place: &RowKey| self.carried(place, &tenants[self.a], &tenants[self.b]);
        match self.what {
            "swapped" => vec![put(a_place, b_value), put(b_place, a_value)],
            "copied" => vec![put(a_place, b_value)],
            "moved" => vec![put(a_place, b_value), Write::Delete(b_place.clone())],
            "carried over" => vec![put(&over(b_place), b_value)],
            "bit flipped" => {
                let (mut value, bit) = (a_value.clone(), random.below(a_value.len() * 8));
                value[bit / 8] ^= 1 << (bit % 8);
                vec![put(a_place, &value)]
            }
            "message replaced" => vec![put(a_place, &replaced(a_value, b_value))],
            "older" => vec![put(a_place, &older[self.a][&self.role].1)],
            "a key with its rows" => {
                let key = [super::tenants::ONLY, "app", "rows", "mac"][random.below(4)];
                let with = of_b.iter().filter(|(role, _)| role.key == key && role.kind != "schedule");
                with.map(|(_, (place, value))| put(&self.under(place, tenants), value)).collect()
            }
            "a whole tenant" => {
                let name = Role { kind: "tenant name", key: String::new(), detail: Vec::new() };
                let others = of_b.iter().filter(|(role, _)| **role != name && role.kind != "kept answer");
                let mut writes: Vec<_> = of_a
                    .iter()
                    .filter(|(role, _)| **role != name)
                    .map(|(_, (place, _))| Write::Delete(place.clone()))
                    .collect();
                writes.extend(others.map(|(_, (place, value))| put(&self.under(place, tenants), value)));
                writes
            }
            _ => {
                let both = of_a.iter().filter_map(|(role, mine)| Some((mine, of_b.get(role)?)));
                both.flat_map(|(mine, theirs)| [put(&mine.0, &theirs.1), put(&theirs.0, &mine.1)]).collect()
            }
        }
    }

    /// The place of a row of `b`, where `a` would have it: under the tenant, and under the key of that name.
    fn carried(&self, place: &RowKey, a: &Tenant, b: &Tenant) -> RowKey {
        let mut key = replace(&place.key, &b.uid, &a.uid);
        for (name, uid) in &b.keys {
            if let Some(mine) = a.keys.get(name) {
                key = replace(&key, uid, mine);
            }
        }
        RowKey::new(place.family, key)
    }

    /// The same, with the key still under its own uid.
    fn under(&self, place: &RowKey, tenants: &[Tenant]) -> RowKey {
        RowKey::new(place.family, replace(&place.key, &tenants[self.b].uid, &tenants[self.a].uid))
    }

    /// Tells whether a call about a key, or about none, reads what was edited.
    pub fn touches(&self, key: &str) -> bool {
        let whole = !EDITS[..7].contains(&self.what) || ["tenant", "tenant name"].contains(&self.role.kind);
        whole || self.role.key == key
    }
}

/// Makes the edits in a stopped store. Returns how many rows they write.
pub async fn make(
    site: &Site,
    edits: &[Edit],
    tenants: &[Tenant],
    (rows, older): (&Rows, &Rows),
    random: &mut Random,
) -> Result<usize> {
    let store = open(site)?;
    let mut places = BTreeSet::new();
    for edit in edits {
        let writes = edit.writes(tenants, rows, older, random);
        for write in &writes {
            let (Write::Put(row, _) | Write::Delete(row) | Write::DeletePrefix(row)) = write;
            places.insert(row.clone());
        }
        store.commit(Batch { preconditions: Vec::new(), writes }).await?;
    }
    store.close().await?;
    Ok(places.len())
}

/// The message of another record between one's own head and MAC; of a data key, its wrapping beside one's own context.
fn replaced(mine: &[u8], theirs: &[u8]) -> Vec<u8> {
    let (head, tail) = if mine.first() == Some(&2) { (33, 0) } else { (4, 32) };
    [&mine[..head], &theirs[head..theirs.len() - tail], &mine[mine.len() - tail..]].concat()
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (hex::decode(from).unwrap_or_default(), hex::decode(to).unwrap_or_default());
    let mut bytes = bytes.to_vec();
    if let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + to.len()].copy_from_slice(&to);
    }
    bytes
}
