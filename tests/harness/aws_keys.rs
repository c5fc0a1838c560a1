//! The states of KMS keys as AWS keeps them: moto lets disabled and deleted keys decrypt, and never deletes.
//!
//! On a clock that the test moves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The states of all keys of one moto.
#[derive(Clone, Default)]
pub struct AwsKeys(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    states: BTreeMap<String, State>,
    aliases: BTreeMap<String, String>,
    moved: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Disabled,
    /// Deleted at a time in seconds of Unix.
    Pending(u64),
}

/// What AWS answers instead of doing it: a code and its words.
pub(crate) type Refusal = (&'static str, String);

impl AwsKeys {
    /// Moves the clock on.
    pub fn pass(&self, time: Duration) {
        self.known().moved += time;
    }

    /// Answers whether the key that a request names lets it through.
    pub(crate) fn judge(&self, operation: &str, request: &Value) -> Result<(), Refusal> {
        let known = self.known();
        let Some(key) = known.named(request) else { return Ok(()) };
        let state = known.states.get(&key).copied();
        if known.is_gone(state) {
            return Err(("NotFoundException", format!("Key '{key}' does not exist")));
        }
        let pending = || ("KMSInvalidStateException", format!("{key} is pending deletion."));
        match (operation, state) {
            ("DescribeKey" | "ListResourceTags", _) => Ok(()),
            ("CancelKeyDeletion", Some(State::Pending(_))) => Ok(()),
            ("CancelKeyDeletion", _) => Err(("KMSInvalidStateException", format!("{key} is not pending deletion."))),
            (_, Some(State::Pending(_))) => Err(pending()),
            ("Encrypt" | "Decrypt", Some(State::Disabled)) => Err(("DisabledException", format!("{key} is disabled."))),
            _ => Ok(()),
        }
    }

    /// Takes in what moto did, and puts into its answer what AWS would say.
    pub(crate) fn done(&self, operation: &str, request: &Value, answer: &mut Value) {
        let mut known = self.known();
        let Some(key) = known.named(request) else { return };
        match operation {
            "CreateAlias" => {
                if let Some(alias) = request["AliasName"].as_str() {
                    known.aliases.insert(alias.to_owned(), key);
                }
            }
            "DisableKey" | "CancelKeyDeletion" => {
                known.states.insert(key, State::Disabled);
            }
            "EnableKey" => {
                known.states.remove(&key);
            }
            "ScheduleKeyDeletion" => {
                let days = request["PendingWindowInDays"].as_u64().unwrap_or(30);
                let at = known.now() + days * 24 * 3600;
                known.states.insert(key, State::Pending(at));
                answer["DeletionDate"] = json!(at);
                answer["KeyState"] = json!("PendingDeletion");
            }
            "DescribeKey" => {
                let data = &mut answer["KeyMetadata"];
                let (state, date) = match known.states.get(&key) {
                    None => ("Enabled", Value::Null),
                    Some(State::Disabled) => ("Disabled", Value::Null),
                    Some(State::Pending(at)) => ("PendingDeletion", json!(at)),
                };
                data["KeyState"] = json!(state);
                data["Enabled"] = json!(state == "Enabled");
                data["DeletionDate"] = date;
            }
            _ => {}
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Returns the id of the key that a request is about.
    fn named(&self, request: &Value) -> Option<String> {
        let name = request["KeyId"].as_str().or(request["TargetKeyId"].as_str())?;
        match name.split_once("alias/") {
            Some((_, alias)) => self.aliases.get(&format!("alias/{alias}")).cloned(),
            None => Some(name.rsplit('/').next().unwrap_or(name).to_owned()),
        }
    }

    fn is_gone(&self, state: Option<State>) -> bool {
        matches!(state, Some(State::Pending(at)) if self.now() >= at)
    }

    #[expect(clippy::disallowed_methods, reason = "where the clock begins that the test moves")]
    fn now(&self) -> u64 {
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.moved).as_secs()
    }
}
