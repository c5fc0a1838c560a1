//! Probes over the wire: attempts of a caller to get at what is another's, chosen at random, each beside one at what
//! does not exist.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use kms_proto::v1;
use kms_tests::request::*;
use kms_tests::wire::exchange;
use kms_tests::{Caller, Listener, Random};
use prost::Message as _;
use tonic::{Response, Status};

use super::judge::{Judge, Outcome, bytes_of};
use super::requests::{Item, OF_NO_TENANT, about, open_many, open_one, openers, results, secret_of};
use super::tenants::{APP, COMMON, INDEX, LEAVING, MAC, ROWS, Tenant, Thing, What};

/// Where each RPC is called.
pub type Methods = BTreeMap<&'static str, (&'static str, Listener)>;

/// The kinds of probes, each with how often it is chosen.
pub const KINDS: [(&str, usize); 15] = [
    ("another's name", 18),
    ("a name that looks alike", 6),
    ("another's blob", 20),
    ("another key", 8),
    ("another kind", 6),
    ("spliced blobs", 14),
    ("another context", 8),
    ("to another tenant", 4),
    ("another's page token", 4),
    ("another's request id", 2),
    ("another's etag", 3),
    ("another's index", 2),
    ("no binding", 4),
    ("no principal", 2),
    ("own listings", 4),
];

/// All who take part.
pub struct Scene {
    pub tenants: Vec<Tenant>,
    /// The application of each.
    pub apps: Vec<Caller>,
    /// With a certificate and without a binding.
    pub stranger: Caller,
    /// With a certificate that names nobody.
    pub nobody: Caller,
    pub methods: Methods,
    /// What lists said before: by tenant and request.
    pub lists: BTreeMap<(usize, Vec<u8>), Vec<u8>>,
    pub judge: Judge,
}

/// Whose item it is.
#[derive(Clone, Debug)]
enum Fate {
    /// Another's, or not to be opened this way.
    Real,
    /// Nobody's, made up to look like one of those.
    MadeUp,
    /// The caller's own, with what comes out.
    Own(Vec<u8>),
}

impl Scene {
    /// Sends a message as somebody, and searches all that comes back.
    pub async fn send(
        &self,
        caller: &Caller,
        own: &str,
        what: &str,
        rpc: &str,
        message: &[u8],
    ) -> Result<Response<Vec<u8>>, Status> {
        let (path, listener) = self.methods[rpc];
        let answer = exchange(caller.channel(listener), path, message).await;
        self.judge.search(&format!("{what}: {rpc}"), own, message, &bytes_of(&answer));
        answer
    }

    /// Makes probes, at least so many.
    pub async fn walk(&self, mut random: Random, probes: usize) -> Result<()> {
        let weights: usize = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut made = 0;
        while made < probes {
            let mut at = random.below(weights);
            let chosen = KINDS.iter().find(|(_, weight)| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            });
            let kind = chosen.context("the weights add up")?.0;
            let a = random.below(self.tenants.len());
            let b = (a + 1 + random.below(self.tenants.len() - 1)) % self.tenants.len();
            made += self.probe(kind, a, b, &mut random).await.with_context(|| format!("{kind} of {b} as {a}"))?;
        }
        Ok(())
    }

    async fn probe(&self, kind: &'static str, a: usize, b: usize, random: &mut Random) -> Result<usize> {
        let (own, other) = (&self.tenants[a], &self.tenants[b]);
        match kind {
            "another's name" => self.name(kind, Some(a), &self.apps[a], other, random, "POLICY_DENIED").await,
            "no binding" => self.name(kind, None, &self.stranger, other, random, "POLICY_DENIED").await,
            "no principal" => self.name(kind, None, &self.nobody, other, random, "NO_IDENTITY").await,
            "a name that looks alike" => self.look_alike(kind, a, other, random).await,
            "another's blob" | "another key" | "another kind" | "spliced blobs" | "another context" => {
                self.things(kind, a, b, random).await
            }
            "to another tenant" => {
                let thing = pick(own, random, |thing| thing.what == What::Data && thing.pairs == pairs(&COMMON))?;
                let to = |tenant: &str, back: bool| {
                    let (from, to) = (own.key_of(thing), format!("{tenant}/keys/{APP}"));
                    let (from, to) = if back { (to, from) } else { (from, to) };
                    let request = move_to(&from, &thing.bytes, &COMMON, &to, &COMMON);
                    v1::ReEncryptRequest { aad: thing.aad.clone(), ..request }.encode_to_vec()
                };
                let (nowhere, back) = (nobodys_name(random), random.below(2) == 0);
                self.alike(
                    kind,
                    a,
                    "ReEncrypt",
                    &[&other.name(), &nowhere],
                    to(&other.name(), back),
                    to(&nowhere, back),
                )
                .await
            }
            "another's page token" => {
                let list = ["ListKeys", "ListDataKeys", "ListKeyVersions"][random.below(3)];
                // Also his own, of another list.
                let (token, of) = match random.below(4) {
                    0 => (&own.tokens[list], ["ListDataKeys", "ListKeyVersions", "ListKeys"][random.below(3)]),
                    _ => (&other.tokens[list], list),
                };
                if std::ptr::eq(token, &own.tokens[list]) && of == list {
                    return Ok(0);
                }
                let request = |token: &str| match of {
                    "ListKeys" => list_keys(&own.name(), 2, token).encode_to_vec(),
                    "ListDataKeys" => list_data_keys(&own.key(ROWS), 2, token).encode_to_vec(),
                    _ => list_key_versions(&own.key(APP), 1, token).encode_to_vec(),
                };
                let made_up = made_up_text(token, random);
                self.alike(kind, a, of, &[], request(token), request(&made_up)).await
            }
            "another's etag" => {
                let rpc = ["UpdateKey", "RotateKey", "DisableKey"][random.below(3)];
                let etag = &other.etags[random.below(other.etags.len())];
                let request = |etag: &str| etagged(rpc, &own.key(APP), etag);
                self.alike(kind, a, rpc, &[], request(etag), request(&made_up_text(etag, random))).await
            }
            "another's request id" => self.request_id(kind, a, b).await,
            "another's index" => {
                let index = [INDEX, &other.id, &other.only][random.below(3)];
                let message = get_index_key(&format!("{}/indexes/{index}", own.name())).encode_to_vec();
                let answer = self.send(&self.apps[a], &own.id, kind, "GetIndexKey", &message).await?;
                let key = v1::GetIndexKeyResponse::decode(&answer.get_ref()[..])?.plaintext;
                if (key == own.index) != (index == INDEX) {
                    self.judge.leak(format!("{kind}: the key of {index} as {}", own.id));
                }
                self.judge.count(kind, "GetIndexKey", 1);
                Ok(1)
            }
            "own listings" => {
                let lists = lists(own);
                let (rpc, message) = lists[random.below(lists.len())].clone();
                let answer = self.send(&self.apps[a], &own.id, kind, rpc, &message).await?;
                if self.lists[&(a, [rpc.as_bytes(), &message].concat())] != *answer.get_ref() {
                    self.judge.leak(format!("{kind}: {rpc} as {} is another than before", own.id));
                }
                self.judge.count(kind, rpc, 1);
                Ok(1)
            }
            other => unreachable!("{other} is no kind"),
        }
    }

    /// Sends a probe and its like of what does not exist. Both must be refused.
    async fn alike(
        &self,
        kind: &'static str,
        a: usize,
        rpc: &'static str,
        names: &[&str],
        real: Vec<u8>,
        made_up: Vec<u8>,
    ) -> Result<usize> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let own = &self.tenants[a].id;
        for (exists, message) in [(true, &real), (false, &made_up)] {
            match self.send(&self.apps[a], own, kind, rpc, message).await {
                Ok(_) => self.judge.leak(format!("{kind}: {rpc} as {own}: success")),
                Err(status) => self.refused(kind, rpc, exists, &status, &names)?,
            }
        }
        self.judge.count(kind, rpc, 1);
        Ok(1)
    }

    fn refused(
        &self,
        kind: &'static str,
        rpc: &'static str,
        exists: bool,
        status: &Status,
        names: &[String],
    ) -> Result<()> {
        let outcome = Outcome::of(status, names);
        ensure!(!outcome.reason.is_empty() && !TROUBLE.contains(&&*outcome.reason), "{kind}: {rpc}: {status:?}");
        self.judge.told(kind, rpc, exists, outcome);
        Ok(())
    }

    /// Names what is another's in any RPC.
    async fn name(
        &self,
        kind: &'static str,
        a: Option<usize>,
        caller: &Caller,
        other: &Tenant,
        random: &mut Random,
        reason: &str,
    ) -> Result<usize> {
        let rpcs: Vec<&'static str> = self.methods.keys().copied().collect();
        let rpc = rpcs[random.below(rpcs.len())];
        // That listener takes few connections.
        if self.methods[rpc].1 == Listener::Operator && a.is_some_and(|a| a >= OPERATORS) {
            return Ok(0);
        }
        let own = a.map(|a| &*self.tenants[a].id).unwrap_or_default();
        let nowhere = nobodys_name(random);
        let pair = match about(rpc, other, &other.name()) {
            Some(message) => vec![(true, message), (false, about(rpc, other, &nowhere).context("as before")?)],
            None if OF_NO_TENANT.contains(&rpc) => vec![(true, Vec::new()), (false, Vec::new())],
            None => anyhow::bail!("there is no probe of {rpc}: add one to requests.rs"),
        };
        // Whom the server takes the caller for is his own.
        if rpc == "GetCallerIdentity" && reason == "POLICY_DENIED" {
            return Ok(0);
        }
        for (exists, message) in pair {
            match self.send(caller, own, kind, rpc, &message).await {
                Ok(_) => self.judge.leak(format!("{kind}: {rpc} about {} as {own:?}: success", other.id)),
                Err(status) => {
                    let outcome = Outcome::of(&status, &[]);
                    if outcome.reason != reason {
                        self.judge.leak(format!("{kind}: {rpc} about {} as {own:?}: {status:?}", other.id));
                    }
                    self.refused(kind, rpc, exists, &status, &[other.name(), nowhere.clone(), other.id.clone()])?;
                }
            }
        }
        self.judge.count(kind, rpc, 1);
        Ok(1)
    }

    /// Names that begin in his own tenant and might end in another's.
    async fn look_alike(&self, kind: &'static str, a: usize, other: &Tenant, random: &mut Random) -> Result<usize> {
        let own = &self.tenants[a];
        let form = random.below(12);
        let nowhere = nobodys_name(random);
        let names = |id: &str| match form {
            0 => format!("{}/../{id}", own.name()),
            1 => format!("tenants/{id}/../{}", own.id),
            2 => format!("{}/{id}", own.name()),
            3 => format!("tenants/{id}/"),
            4 => format!("tenants//{id}"),
            5 => format!("/tenants/{id}"),
            6 => format!("tenants/{id}\0"),
            7 => format!("{}\0/tenants/{id}", own.name()),
            8 => format!("tenants%2f{id}"),
            9 => format!("{} tenants/{id}", own.name()),
            10 => format!("{},tenants/{id}", own.name()),
            _ => format!("tenants/{id}#{}", own.id),
        };
        let rpcs: Vec<&'static str> = self.methods.keys().copied().filter(|rpc| !OF_NO_TENANT.contains(rpc)).collect();
        let rpc = rpcs[random.below(rpcs.len())];
        let (there, not_there) = (names(&other.id), names(nowhere.trim_start_matches("tenants/")));
        let message = |name: &str| about(rpc, other, name).context("it names a tenant");
        let ids = [&*other.id, nowhere.trim_start_matches("tenants/")];
        self.alike(kind, a, rpc, &ids, message(&there)?, message(&not_there)?).await
    }

    /// Takes another's request id: what comes of it is one's own, and never what came of it there.
    async fn request_id(&self, kind: &'static str, a: usize, b: usize) -> Result<usize> {
        let (own, other) = (&self.tenants[a], &self.tenants[b]);
        let message = own.repeatable(&own.key("other-rows"), &other.request_id).encode_to_vec();
        let answer = self.send(&self.apps[a], &own.id, kind, "CreateDataKey", &message).await?;
        let made = v1::CreateDataKeyResponse::decode(&answer.get_ref()[..])?;
        if [&made.uid[..], &made.plaintext].concat() == other.repeated || made.plaintext == own.repeated[16..] {
            self.judge.leak(format!("{kind}: {} got the answer of {}", own.id, other.id));
        }
        self.judge.count(kind, "CreateDataKey", 1);
        Ok(1)
    }

    /// Tries things under his own tenant and key that are not to be opened so: alone, or many of them beside as many
    /// that nobody has, and his own, which must open.
    async fn things(&self, kind: &'static str, a: usize, b: usize, random: &mut Random) -> Result<usize> {
        let (own, other) = (&self.tenants[a], &self.tenants[b]);
        let what = [What::Data, What::DataKey, What::Managed, What::Mac][random.below(4)];
        // The same key and context there as here, or a context that only the other has.
        let common = kind != "another's blob" || random.below(3) > 0;
        let is_common = |thing: &Thing| thing.pairs == pairs(&COMMON);
        let mine = pick(own, random, |thing| thing.what == what && is_common(thing))?;
        let mut context = mine.pairs.clone();
        let (rpc, many) = openers(what)[random.below(openers(what).len())];
        let key = own.key_of(mine);
        let count = if random.below(5) < 3 { 1 } else { 8 + random.below(40) };
        let mut items: Vec<(Fate, Item)> = Vec::new();
        if kind == "another context" {
            context = match random.below(4) {
                0 => other.private().into_iter().collect(),
                1 => BTreeMap::new(),
                2 => own.private().into_iter().collect(),
                _ => mine.pairs.clone(),
            };
            if rpc == "DestroyDataKey" {
                return Ok(0);
            }
        } else if !common {
            context = other.private().into_iter().collect();
        }
        while items.iter().filter(|(fate, _)| matches!(fate, Fate::Real)).count() < count {
            let item = match kind {
                "another's blob" => {
                    let theirs = |thing: &Thing| thing.what == what && is_common(thing) == common;
                    of(pick(other, random, theirs)?)
                }
                "another key" => {
                    let elsewhere = |thing: &Thing| thing.what == what && is_common(thing) && thing.key != mine.key;
                    of(pick(own, random, elsewhere)?)
                }
                "another kind" => {
                    let whose = if random.below(2) == 0 { own } else { other };
                    let another = |thing: &Thing| {
                        let both_blobs = what != What::Managed && what != What::Mac && rpc == "ReEncrypt";
                        thing.what != what && is_common(thing) && !(both_blobs && thing.what < What::Managed)
                    };
                    of(pick(whose, random, another)?)
                }
                "spliced blobs" => {
                    let theirs = pick(other, random, |thing| thing.what == what && is_common(thing))?;
                    let second = pick(own, random, |thing| thing.what == what && is_common(thing))?;
                    let with = if random.below(4) == 0 { second } else { theirs };
                    let bytes = spliced(&mine.bytes, &with.bytes, random);
                    if own.things.iter().any(|thing| thing.bytes == bytes) {
                        continue;
                    }
                    Item { bytes, ..of(if random.below(2) == 0 { mine } else { with }) }
                }
                _ => {
                    let item =
                        of(pick(own, random, |thing| thing.what == what && thing.key == mine.key && is_common(thing))?);
                    if context == mine.pairs { Item { aad: made_up(&item.aad, random), ..item } } else { item }
                }
            };
            let nobodys = Item { bytes: made_up(&item.bytes, random), ..item.clone() };
            // It has the header of the other, so that it claims what that claims.
            let nobodys = match kind {
                "another context" => Item { bytes: item.bytes.clone(), aad: made_up(b"row-1", random), ..nobodys },
                _ => nobodys,
            };
            items.push((Fate::Real, item));
            items.push((Fate::MadeUp, nobodys));
        }
        if count == 1 {
            for (fate, item) in &items {
                let message = open_one(rpc, &key, item, &context);
                match self.send(&self.apps[a], &own.id, kind, rpc, &message).await {
                    Ok(_) => self.judge.leak(format!("{kind}: {rpc} as {} of {} opened", own.id, other.id)),
                    Err(status) => self.refused(kind, rpc, matches!(fate, Fate::Real), &status, &[])?,
                }
            }
            self.judge.count(kind, rpc, 1);
            return Ok(1);
        }
        if context == mine.pairs && many != "BatchDestroyDataKeys" {
            for _ in 0..3 {
                let good = pick(own, random, |thing| thing.what == what && thing.key == mine.key && is_common(thing))?;
                items.push((Fate::Own(good.secret.clone()), of(good)));
            }
        }
        for last in (1..items.len()).rev() {
            items.swap(last, random.below(last + 1));
        }
        let message = open_many(many, &key, items.iter().map(|(_, item)| item.clone()).collect(), &context);
        let answer = match self.send(&self.apps[a], &own.id, kind, many, &message).await {
            Ok(answer) => answer,
            // The whole batch was refused: that is one probe, and not as many as it has items.
            Err(status) => {
                self.refused(kind, many, true, &status, &[])?;
                self.refused(kind, many, false, &status, &[])?;
                self.judge.count(kind, many, 1);
                return Ok(1);
            }
        };
        let results = results(many, answer.get_ref())?;
        ensure!(results.len() == items.len(), "{many}: {} results of {}", results.len(), items.len());
        for ((fate, _), (secret, error)) in items.iter().zip(results) {
            match (fate, error) {
                (Fate::Own(expected), None) => self.own(many, own, expected, &secret)?,
                (Fate::Own(_), Some(error)) => anyhow::bail!("{kind}: {many}: his own was refused: {error:?}"),
                (fate, Some(error)) if secret.is_empty() => {
                    let outcome = Outcome::of_item(&error);
                    ensure!(!TROUBLE.contains(&&*outcome.reason), "{kind}: {many}: {error:?}");
                    self.judge.told(kind, many, matches!(fate, Fate::Real), outcome);
                }
                _ => self.judge.leak(format!("{kind}: {many} as {} of {} opened", own.id, other.id)),
            }
        }
        self.judge.count(kind, many, count);
        Ok(count)
    }

    /// Checks what came of one's own.
    fn own(&self, rpc: &str, own: &Tenant, expected: &[u8], got: &[u8]) -> Result<()> {
        let right = match rpc {
            "VerifyMac" | "BatchVerifyMacs" => true,
            // It names the key that it is under.
            "ReEncrypt" | "BatchReEncrypt" => {
                own.keys.values().any(|uid| got.get(5..21).is_some_and(|key| hex::encode(key) == *uid))
            }
            _ => got == expected,
        };
        ensure!(right, "{rpc} as {}: another came out than went in", own.id);
        self.judge.opened(1);
        Ok(())
    }

    /// Opens everything that a tenant has, as its application.
    pub async fn open_all(&self, a: usize) -> Result<()> {
        let own = &self.tenants[a];
        for thing in &own.things {
            for (rpc, _) in openers(thing.what).iter().filter(|(rpc, _)| *rpc != "DestroyDataKey") {
                let message = open_one(rpc, &own.key_of(thing), &of(thing), &thing.pairs);
                let answer = self.send(&self.apps[a], &own.id, "one's own", rpc, &message).await;
                let answer = answer.with_context(|| format!("{rpc} as {} of its own {:?}", own.id, thing.what))?;
                self.own(rpc, own, &thing.secret, &secret_of(rpc, answer.get_ref())?)?;
            }
        }
        let message = own.repeatable(&own.key("other-rows"), &own.request_id).encode_to_vec();
        let answer = self.send(&self.apps[a], &own.id, "one's own", "CreateDataKey", &message).await?;
        let made = v1::CreateDataKeyResponse::decode(&answer.get_ref()[..])?;
        ensure!([made.uid, made.plaintext].concat() == own.repeated, "a repetition as {}", own.id);
        self.judge.opened(1);
        Ok(())
    }
}

/// So many applications try the operators' listener.
const OPERATORS: usize = 12;

/// What may be an accident of the machine, and so says nothing.
pub const TROUBLE: [&str; 6] =
    ["OVERLOADED", "DEADLINE", "CACHE_FULL", "RATE_LIMITED", "MESSAGE_INVALID", "STORE_UNAVAILABLE"];

/// Lists, whose answers stay the same.
pub fn lists(own: &Tenant) -> Vec<(&'static str, Vec<u8>)> {
    let keys = [APP, ROWS, MAC, LEAVING, &own.only].map(|key| own.key(key));
    let mut lists = vec![
        ("ListKeys", list_keys(&own.name(), 0, "").encode_to_vec()),
        ("ListKeys", list_keys(&own.name(), 2, &own.tokens["ListKeys"]).encode_to_vec()),
        ("ListDataKeys", list_data_keys(&own.key(ROWS), 0, "").encode_to_vec()),
        ("GetTenant", get_tenant(&own.name()).encode_to_vec()),
        ("GetCallerIdentity", Vec::new()),
    ];
    lists.extend(keys.iter().map(|key| ("GetKey", get_key(key).encode_to_vec())));
    lists.extend(keys.iter().map(|key| ("ListKeyVersions", list_key_versions(key, 0, "").encode_to_vec())));
    lists
}

pub fn of(thing: &Thing) -> Item {
    Item { bytes: thing.bytes.clone(), message: thing.secret.clone(), aad: thing.aad.clone() }
}

pub fn pick<'a>(tenant: &'a Tenant, random: &mut Random, which: impl Fn(&Thing) -> bool) -> Result<&'a Thing> {
    let all: Vec<&Thing> = tenant.things.iter().filter(|thing| which(thing)).collect();
    random.one_of(&all).copied().context("it has such a thing")
}

/// A tenant that does not exist, named as those are that do.
fn nobodys_name(random: &mut Random) -> String {
    format!("tenants/{}-{}", ["tenant", "Tenant"][random.below(2)], 1000 + random.below(9000))
}

/// Bytes of the same length that nobody has; a blob keeps what it says of its suite, kind and version.
fn made_up(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let kept = |at: usize| match bytes.len() {
        // Of the uid of a data key, its time and its place.
        16 => !(6..12).contains(&at),
        24.. => at < 5 || (21..24).contains(&at),
        _ => false,
    };
    bytes.iter().enumerate().map(|(at, byte)| if kept(at) { *byte } else { random.next() as u8 }).collect()
}

/// Text of the same length and letters.
fn made_up_text(text: &str, random: &mut Random) -> String {
    let half = text.len() / 2;
    let digit = |byte: u8, random: &mut Random| match byte {
        b'0'..=b'9' | b'a'..=b'f' => b"0123456789abcdef"[random.below(16)],
        other => other,
    };
    let changed = text.bytes().enumerate().map(|(at, byte)| if at < half { byte } else { digit(byte, random) });
    changed.map(char::from).collect()
}

/// Parts of one in the place of the same parts of the other, cut where its fields meet or anywhere.
fn spliced(mine: &[u8], theirs: &[u8], random: &mut Random) -> Vec<u8> {
    let length = mine.len().min(theirs.len());
    let joints: Vec<usize> =
        [0, 5, 21, 24, 36, 48, 80, length.saturating_sub(16), length].into_iter().filter(|at| *at <= length).collect();
    let mut joint = || if random.below(4) == 0 { random.below(length + 1) } else { joints[random.below(joints.len())] };
    let (from, to) = (joint(), joint());
    let mut bytes = mine.to_vec();
    bytes[from.min(to)..from.max(to)].copy_from_slice(&theirs[from.min(to)..from.max(to)]);
    if bytes == mine {
        bytes[..length.min(24)].copy_from_slice(&theirs[..length.min(24)]);
    }
    bytes
}

/// A change on the condition of an etag, to be checked and not made.
fn etagged(rpc: &str, name: &str, etag: &str) -> Vec<u8> {
    let (etag, validate_only) = (etag.to_owned(), true);
    match rpc {
        "UpdateKey" => {
            let mut request = update_key(name, &[], &["labels"]);
            request.key.get_or_insert_default().etag = etag;
            v1::UpdateKeyRequest { validate_only, ..request }.encode_to_vec()
        }
        "RotateKey" => v1::RotateKeyRequest { etag, validate_only, ..rotate_key(name) }.encode_to_vec(),
        _ => v1::DisableKeyRequest { etag, validate_only, ..disable_key(name) }.encode_to_vec(),
    }
}
