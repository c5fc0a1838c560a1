//! One caller's managed data keys: those that were acknowledged, those that were destroyed, and the calls he has
//! no answer to, which he sends again under their ids.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use kms_proto::v1;
use kms_tests::request::*;
use kms_tests::{Caller, Random};

use super::journal::{Ended, Found, call};
use super::model::{MANAGED, Tenant};

/// A data key that was acknowledged.
#[derive(Clone, Debug)]
struct DataKey {
    tenant: String,
    uid: Vec<u8>,
    plaintext: Vec<u8>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Lives,
    /// A destruction was asked for, and not answered.
    InDoubt,
    Gone,
}

/// A call of the tenant's one key for data keys.
#[derive(Clone, Debug)]
pub struct Asking {
    tenant: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Create(v1::BatchCreateDataKeysRequest),
    Destroy(v1::BatchDestroyDataKeysRequest),
}

/// What came of it.
pub enum Told {
    Created(v1::BatchCreateDataKeysResponse),
    Destroyed(v1::BatchDestroyDataKeysResponse),
}

/// What one caller knows of data keys.
pub struct DataKeys {
    number: usize,
    random: Random,
    keys: Vec<DataKey>,
    doubts: Vec<Asking>,
    asked: usize,
    acknowledged: usize,
}

impl DataKeys {
    pub fn new(number: usize, random: Random) -> Self {
        Self { number, random, keys: Vec::new(), doubts: Vec::new(), asked: 0, acknowledged: 0 }
    }

    /// Chooses a call, of the tenant that is being changed or of another.
    pub fn choose(&mut self, tenants: &BTreeMap<String, Tenant>, changed: &str) -> Option<Asking> {
        let same = self.random.below(2) == 0;
        let usable = tenants.iter().filter(|(name, tenant)| (!same || *name == changed) && tenant.gives_data_keys());
        let usable: Vec<&String> = usable.map(|(name, _)| name).collect();
        let tenant = (*self.random.one_of(&usable)?).clone();
        let living: Vec<Vec<u8>> =
            self.of(&tenant).filter(|key| key.fate == Fate::Lives).map(|key| key.uid.clone()).collect();
        self.asked += 1;
        let request_id = format!("dk{}-{}", self.number, self.asked);
        let key = key_of(&tenant);
        let what = if living.len() >= LIVING_MAX || (!living.is_empty() && self.random.below(3) == 0) {
            let count = 1 + self.random.below(3.min(living.len()));
            let begin = self.random.below(living.len() - count + 1);
            let request = batch_destroy_data_keys(&key, &living[begin..begin + count]);
            What::Destroy(v1::BatchDestroyDataKeysRequest { request_id, ..request })
        } else {
            let request = batch_create_data_keys(&key, 1 + self.random.below(4), CONTEXT);
            What::Create(v1::BatchCreateDataKeysRequest { request_id, ..request })
        };
        Some(Asking { tenant, what })
    }

    /// Takes what came of a call. `changed` is the tenant that was changed at the same time.
    pub fn hear(&mut self, asking: Asking, told: Ended<Told>, changed: &str) -> Result<()> {
        match told {
            Ended::Done(told) => self.apply(&asking, told),
            // The change at the same time may have taken the use away; then nothing was done.
            Ended::Refused(_) if asking.tenant == changed => Ok(()),
            Ended::Refused(refused) => bail!("{refused}: {asking:?}"),
            Ended::Broken => {
                self.doubt(asking);
                Ok(())
            }
        }
    }

    fn apply(&mut self, asking: &Asking, told: Told) -> Result<()> {
        self.acknowledged += 1;
        match (&asking.what, told) {
            (What::Create(request), Told::Created(reply)) => {
                ensure!(reply.results.len() == request.items.len(), "{} results: {asking:?}", reply.results.len());
                for made in reply.results {
                    ensure!(made.error.is_none(), "{:?}: {asking:?}", made.error);
                    let (tenant, fate) = (asking.tenant.clone(), Fate::Lives);
                    ensure!(self.keys.iter().all(|key| key.uid != made.uid), "a uid that was given before");
                    self.keys.push(DataKey { tenant, uid: made.uid, plaintext: made.plaintext, fate });
                }
            }
            (What::Destroy(request), Told::Destroyed(reply)) => {
                for (item, result) in request.items.iter().zip(&reply.results) {
                    ensure!(result.error.is_none(), "{:?}: {asking:?}", result.error);
                    self.set(&item.uid, Fate::Gone);
                }
            }
            _ => bail!("an answer to something else"),
        }
        Ok(())
    }

    fn doubt(&mut self, asking: Asking) {
        if let What::Destroy(request) = &asking.what {
            request.items.iter().for_each(|item| self.set(&item.uid, Fate::InDoubt));
        }
        self.doubts.push(asking);
    }

    fn set(&mut self, uid: &[u8], fate: Fate) {
        if let Some(key) = self.keys.iter_mut().find(|key| key.uid == uid) {
            key.fate = fate;
        }
    }

    fn of(&self, tenant: &str) -> impl Iterator<Item = &DataKey> {
        self.keys.iter().filter(move |key| key.tenant == tenant)
    }

    /// Holds a daemon that was started again against what is known. The tenants are as they were found.
    pub async fn verify(
        &mut self,
        admin: &Caller,
        app: &Caller,
        tenants: &BTreeMap<String, Tenant>,
        found: &mut Found,
    ) -> Result<()> {
        found.acknowledged_of_data_keys += std::mem::take(&mut self.acknowledged);
        for doubt in std::mem::take(&mut self.doubts) {
            let tenant = tenants.get(&doubt.tenant);
            if !tenant.is_some_and(Tenant::has_data_keys) {
                continue; // Gone, with all that was in it.
            }
            match ask(app, Some(&doubt)).await {
                Some(Ended::Done(told)) => {
                    found.repeated += 1;
                    if let Err(error) = self.apply(&doubt, told) {
                        found.lost.push(format!("sent again: {error:#}"));
                    }
                }
                Some(Ended::Refused(refused)) if !tenant.is_some_and(Tenant::gives_data_keys) => {
                    ensure!(refused.code == tonic::Code::FailedPrecondition, "{refused}: {doubt:?}");
                    // Once it gives some again.
                    self.doubts.push(doubt);
                }
                Some(Ended::Refused(refused)) => found.lost.push(format!("sent again: {refused}: {doubt:?}")),
                Some(Ended::Broken) | None => bail!("the daemon died"),
            }
        }
        self.acknowledged = 0; // Those that were sent again count as such.
        // What was in a key that is gone is of use to nobody: one look, and no more.
        for (name, tenant) in tenants {
            self.verify_tenant(admin, app, name, tenant, found).await?;
            if !tenant.has_data_keys() {
                self.keys.retain(|key| key.tenant != *name);
            }
        }
        Ok(())
    }

    async fn verify_tenant(
        &self,
        admin: &Caller,
        app: &Caller,
        name: &str,
        tenant: &Tenant,
        found: &mut Found,
    ) -> Result<()> {
        let keys: Vec<&DataKey> = self.of(name).collect();
        let key = key_of(name);
        if tenant.has_data_keys() {
            let listed = admin.ask(list_key_versions(&key, 100, "")).await?.key_versions;
            let counted: u64 = listed.iter().map(|version| version.data_key_count.unwrap_or_default()).sum();
            let sure = keys.iter().filter(|key| key.fate == Fate::Lives).count();
            let perhaps = keys.iter().filter(|key| key.fate == Fate::InDoubt).count();
            let unheard: usize = self.doubts.iter().filter(|doubt| doubt.tenant == name).map(Asking::creates).sum();
            if !(sure..=sure + perhaps + unheard).contains(&(counted as usize)) {
                found
                    .lost
                    .push(format!("{name} counts {counted} data keys; {sure} live, {perhaps} or {unheard} more may"));
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let uids: Vec<Vec<u8>> = keys.iter().map(|key| key.uid.clone()).collect();
        let got = match call(app, batch_get_data_keys(&key, &uids, CONTEXT)).await {
            Ended::Done(got) => got,
            Ended::Broken => bail!("the daemon died"),
            Ended::Refused(refused) => {
                if tenant.gives_data_keys() || refused.code != tonic::Code::FailedPrecondition {
                    found.lost.push(format!("{refused}: data keys of {name}"));
                }
                return Ok(());
            }
        };
        if !tenant.gives_data_keys() {
            found.resurrected.push(format!("data keys of {name} are given out"));
        }
        for (key, got) in keys.iter().zip(&got.results) {
            let reason = got.error.as_ref().map(|error| error.reason());
            match (key.fate, reason) {
                (Fate::Lives | Fate::InDoubt, None) if got.plaintext == key.plaintext => found.given_out += 1,
                (Fate::Gone | Fate::InDoubt, Some(v1::ErrorReason::DataKeyNotFound)) => {}
                (Fate::Gone, None) => found.resurrected.push(format!("a data key of {name} came back: {key:?}")),
                (_, reason) => found.lost.push(format!("{reason:?}: {key:?}")),
            }
        }
        Ok(())
    }
}

impl Asking {
    /// How many it makes.
    fn creates(&self) -> usize {
        match &self.what {
            What::Create(request) => request.items.len(),
            What::Destroy(_) => 0,
        }
    }
}

/// Asks for data keys, or their destruction, if anything is asked.
pub async fn ask(app: &Caller, asking: Option<&Asking>) -> Option<Ended<Told>> {
    fn map<T>(ended: Ended<T>, told: impl FnOnce(T) -> Told) -> Ended<Told> {
        match ended {
            Ended::Done(reply) => Ended::Done(told(reply)),
            Ended::Refused(refused) => Ended::Refused(refused),
            Ended::Broken => Ended::Broken,
        }
    }
    Some(match &asking?.what {
        What::Create(request) => map(call(app, request.clone()).await, Told::Created),
        What::Destroy(request) => map(call(app, request.clone()).await, Told::Destroyed),
    })
}

fn key_of(tenant: &str) -> String {
    format!("tenants/{tenant}/keys/{MANAGED}")
}

const CONTEXT: &[(&str, &str)] = &[("row", "8")];
const LIVING_MAX: usize = 30;
