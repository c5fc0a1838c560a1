//! What is asked of a daemon whose rows were edited: everything that a tenant's application may ask of its own, and the
//! things of the tenant whose rows were put in their place.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use kms_proto::v1;
use kms_tests::request::*;
use prost::Message as _;

use super::judge::Outcome;
use super::probes::{Scene, lists, of};
use super::requests::{open_one, openers, secret_of};
use super::rows::Edit;
use super::tenants::{APP, COMMON, INDEX, LEAVING, MAC, ONLY, ROWS, Tenant, What};

/// One question.
struct Ask {
    rpc: &'static str,
    message: Vec<u8>,
    /// The key that it is about.
    key: String,
    due: Due,
}

/// What may be answered, if it is answered.
enum Due {
    /// What was answered before the edit.
    Same,
    /// This.
    Secret(Vec<u8>),
    /// Something under a key of the tenant's own.
    OwnKey,
    /// Anything that shows nothing of another's.
    Anything,
    /// Nothing.
    Never,
}

/// What was answered before any edit, by tenant and request.
pub type Before = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn asks(own: &Tenant, other: &Tenant) -> Vec<Ask> {
    let mut asks = Vec::new();
    let mut ask = |rpc, message, key: &str, due| asks.push(Ask { rpc, message, key: key.to_owned(), due });
    for thing in &own.things {
        for (rpc, _) in openers(thing.what).iter().filter(|(rpc, _)| *rpc != "DestroyDataKey") {
            let message = open_one(rpc, &own.key_of(thing), &of(thing), &thing.pairs);
            let due = match *rpc {
                "ReEncrypt" => Due::OwnKey,
                "VerifyMac" => Due::Anything,
                _ => Due::Secret(thing.secret.clone()),
            };
            ask(*rpc, message, thing.key, due);
        }
    }
    // Under one's own name, and under that which the key has there.
    for thing in &other.things {
        for (rpc, _) in openers(thing.what) {
            let key = own.key(if thing.key == ONLY { &other.only } else { thing.key });
            ask(*rpc, open_one(rpc, &key, &of(thing), &thing.pairs), thing.key, Due::Never);
        }
    }
    ask("GetKey", get_key(&own.key(&other.only)).encode_to_vec(), ONLY, Due::Never);
    ask("ListKeyVersions", list_key_versions(&own.key(&other.only), 0, "").encode_to_vec(), ONLY, Due::Never);
    ask("Encrypt", encrypt(&own.key(&other.only), b"x", &COMMON).encode_to_vec(), ONLY, Due::Never);
    for (rpc, message) in lists(own) {
        let keys = [APP, ROWS, MAC, LEAVING, &own.only];
        let name = |key: &&&str| message.ends_with(own.key(key).as_bytes());
        let key = keys.iter().find(name).map_or("", |key| if *key == own.only { ONLY } else { key });
        ask(rpc, message, if rpc == "ListDataKeys" { ROWS } else { key }, Due::Same);
    }
    ask("GetIndexKey", get_index_key(&format!("{}/indexes/{INDEX}", own.name())).encode_to_vec(), "", Due::Same);
    ask("Encrypt", encrypt(&own.key(APP), b"x", &COMMON).encode_to_vec(), APP, Due::OwnKey);
    ask("GenerateDataKey", generate_data_key(&own.key(APP), &COMMON).encode_to_vec(), APP, Due::OwnKey);
    for of in [own, other] {
        // A MAC of the same message, which under another's key would be another's.
        if let Some(thing) = of.things.iter().find(|thing| thing.what == What::Mac) {
            let mut request = generate_mac(&own.key(MAC), &thing.secret, &COMMON);
            request.aad = thing.aad.clone();
            ask("GenerateMac", request.encode_to_vec(), MAC, Due::Same);
        }
    }
    let repeated = own.repeatable(&own.key("other-rows"), &own.request_id).encode_to_vec();
    ask("CreateDataKey", repeated, "other-rows", Due::Same);
    let rehearsed = v1::CreateKeyRequest { validate_only: true, ..create_key(&own.name(), "new") };
    ask("CreateKey", rehearsed.encode_to_vec(), "", Due::Anything);
    let cancelled =
        v1::CancelKeyDestructionRequest { validate_only: true, ..cancel_key_destruction(&own.key(LEAVING)) };
    ask("CancelKeyDestruction", cancelled.encode_to_vec(), LEAVING, Due::Anything);
    asks
}

/// How an edit came out.
#[derive(Debug, Default)]
pub struct Told {
    /// Calls that read what was edited.
    pub touched: usize,
    /// Those of them that should have been answered, and were refused.
    pub refused: usize,
}

impl Scene {
    /// Asks everything as one tenant, beside another. Without an edit, what is answered is what will be due.
    pub async fn survey(&self, a: usize, b: usize, edit: Option<&Edit>, before: &Before) -> Result<(Told, Before)> {
        let own = &self.tenants[a];
        let what = edit.map_or("before any edit".to_owned(), |edit| format!("{}, {:?}", edit.what, edit.role));
        let (mut told, mut answers) = (Told::default(), Before::new());
        for ask in asks(own, &self.tenants[b]) {
            let Ask { rpc, message, key, due } = ask;
            let is_touched = edit.is_some_and(|edit| edit.touches(&key) || matches!(due, Due::Never));
            told.touched += usize::from(is_touched);
            let answer = match self.send(&self.apps[a], &own.id, &what, rpc, &message).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    let reason = Outcome::of(&status, &[]).reason;
                    anyhow::ensure!(!reason.is_empty(), "{what}: {rpc} as {}: {status:?}", own.id);
                    if edit.is_none() && !matches!(due, Due::Never) {
                        anyhow::bail!("{what}: {rpc} as {}: {status:?}", own.id);
                    }
                    told.refused += usize::from(is_touched && !matches!(due, Due::Never));
                    continue;
                }
            };
            let place = (a, [rpc.as_bytes(), &message].concat());
            // Nothing tells of a row that is gone, nor of one that was the right one before: what is answered then is
            // less than before, or of before, and one's own.
            let is_less = edit.is_some_and(|edit| edit.what == "older" || edit.what == "moved" && edit.b == a);
            let right = match &due {
                Due::Never => false,
                Due::Anything => true,
                Due::Secret(secret) => secret_of(rpc, &answer)? == *secret,
                Due::OwnKey => blob_of(rpc, &answer)?.get(5..21).is_some_and(|uid| {
                    let uid = hex::encode(uid);
                    own.keys.values().any(|own| *own == uid)
                }),
                // That nothing of another's is in it was looked at.
                Due::Same => edit.is_none() || is_less || before.get(&place) == Some(&answer),
            };
            if !right {
                self.judge
                    .leak(format!("{what}: {rpc} about {key:?} as {} with the rows of {}", own.id, self.tenants[b].id));
            }
            if edit.is_none() {
                answers.insert(place, answer);
            }
        }
        Ok((told, answers))
    }
}

fn blob_of(rpc: &str, answer: &[u8]) -> Result<Vec<u8>> {
    Ok(match rpc {
        "ReEncrypt" => secret_of(rpc, answer).context("a blob")?,
        "Encrypt" => v1::EncryptResponse::decode(answer)?.ciphertext,
        _ => v1::GenerateDataKeyResponse::decode(answer)?.wrapped_data_key,
    })
}
