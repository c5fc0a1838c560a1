//! One caller's journal: what was acknowledged to him, and the one write he has no answer to.
//!
//! Each caller has tenants of his own, so that his journal is the whole truth about them.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use kms_proto::v1::{KeyState, TenantState};
use kms_tests::request::*;
use kms_tests::{Caller, Random, Refused, Rpc};
use tokio::sync::mpsc::UnboundedSender;

use super::data_keys::{self, DataKeys};
use super::model::{Key, MANAGED, Step, Tenant, choose};
use crate::data_keys::create_managed;

/// Which changes are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mix {
    All,
    /// Only such as close a gate, where there is one to be made.
    Gates,
    /// Only such as close none.
    NoGates,
}

/// A ciphertext that was sealed with an acknowledged reply.
#[derive(Clone, Debug)]
struct Blob {
    tenant: String,
    key: String,
    version: u32,
    bytes: Vec<u8>,
    plaintext: Vec<u8>,
}

/// A write without an answer.
#[derive(Clone, Debug)]
struct Doubt {
    tenant: String,
    step: Step,
    after: Tenant,
}

/// What one caller knows.
pub struct Journal {
    pub number: usize,
    random: Random,
    tenants: BTreeMap<String, Tenant>,
    blobs: Vec<Blob>,
    doubt: Option<Doubt>,
    data_keys: DataKeys,
    acknowledged: usize,
    made: usize,
}

/// What a look at the daemon found.
#[derive(Debug, Default)]
pub struct Found {
    pub acknowledged: usize,
    pub in_doubt: usize,
    pub done_in_doubt: usize,
    pub opened: usize,
    /// Calls that made or destroyed managed data keys.
    pub acknowledged_of_data_keys: usize,
    /// Such calls that had no answer, and were sent again.
    pub repeated: usize,
    /// Managed data keys that were given out.
    pub given_out: usize,
    pub lost: Vec<String>,
    pub resurrected: Vec<String>,
}

/// How a call ended.
pub enum Ended<T> {
    Done(T),
    Refused(Refused),
    /// The daemon is gone: nobody knows.
    Broken,
}

pub async fn call<R: Rpc>(caller: &Caller, request: R) -> Ended<R::Response> {
    match caller.ask(request).await {
        Ok(reply) => Ended::Done(reply),
        Err(refused) if refused.reason.is_some() => Ended::Refused(refused),
        Err(_) => Ended::Broken,
    }
}

impl Journal {
    pub fn new(number: usize, mut random: Random) -> Self {
        let (tenants, blobs) = (BTreeMap::new(), Vec::new());
        let data_keys = DataKeys::new(number, random.fork());
        Self { number, random, tenants, blobs, doubt: None, data_keys, acknowledged: 0, made: 0 }
    }

    /// Changes and uses tenants until the daemon is gone. Whatever else is refused is an error.
    pub async fn work(&mut self, admin: &Caller, app: &Caller, mix: Mix, tell: &UnboundedSender<()>) -> Result<()> {
        for _ in 0..STEPS_MAX {
            let (name, step) = self.choose(mix);
            let after = Tenant::after(self.tenants.get(&name), &step);
            let sealing = self.choose_sealing(&name);
            let plaintext = self.random.next().to_be_bytes().to_vec();
            let asking = self.data_keys.choose(&self.tenants, &name);
            let (changed, sealed, told) = tokio::join!(
                make(admin, &name, &step),
                seal(app, sealing.as_ref(), plaintext.clone()),
                data_keys::ask(app, asking.as_ref())
            );
            // Told only when the change is entered too: the journal must stay true to the end.
            let heard = match (asking, told) {
                (Some(asking), Some(told)) => self.data_keys.hear(asking, told, &name),
                _ => Ok(()),
            };

            if let (Some((tenant, key)), Some(sealed)) = (sealing, sealed) {
                match sealed {
                    Ended::Done((bytes, version)) => self.keep(Blob { tenant, key, version, bytes, plaintext }),
                    // The change at the same time may have taken the use away.
                    Ended::Refused(_) if tenant == name => {}
                    Ended::Refused(refused) => bail!("sealing with {tenant} {key}: {refused}"),
                    Ended::Broken => {}
                }
            }
            match changed {
                Ended::Done(()) => {
                    self.tenants.insert(name, after);
                    self.acknowledged += 1;
                    let _ = tell.send(()); // Nobody may count any more.
                }
                Ended::Refused(refused) => bail!("{step:?} of {name}: {refused}"),
                Ended::Broken => {
                    self.doubt = Some(Doubt { tenant: name, step, after });
                    return heard;
                }
            }
            heard?;
            if let Some(blob) = self.random.one_of(&self.blobs).cloned() {
                match call(app, decrypt(&blob.key_path(), &blob.bytes, CONTEXT)).await {
                    Ended::Broken => return Ok(()),
                    Ended::Done(reply) => ensure!(self.opens(&blob) && reply.plaintext == blob.plaintext, "{blob:?}"),
                    Ended::Refused(refused) => ensure!(!self.opens(&blob), "{refused}: {blob:?}"),
                }
            }
        }
        bail!("the daemon lived through {STEPS_MAX} steps")
    }

    fn choose(&mut self, mix: Mix) -> (String, Step) {
        let living: Vec<String> = self
            .tenants
            .iter()
            .filter(|(_, tenant)| !tenant.steps().is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        let wanted = |step: &Step| match mix {
            Mix::All => true,
            Mix::Gates => step.closes_gate(),
            Mix::NoGates => !step.closes_gate(),
        };
        let may_create = living.len() < LIVING_MAX && mix != Mix::Gates;
        let found = living.len() >= LIVING_MIN || !may_create;
        if found && (!may_create || self.random.below(8) != 0) {
            // Some tenant has such a step; not always the first that is looked at.
            for _ in 0..20 {
                let Some(name) = self.random.one_of(&living).cloned() else { break };
                let steps = self.tenants[&name].steps();
                // A tenant is not destroyed as often as all else is done: it ends what it has.
                let rare = matches!(mix, Mix::All | Mix::Gates) && self.random.below(4) != 0;
                let often = |step: &Step| wanted(step) && !(rare && *step == Step::DestroyTenant);
                if let Some(step) = choose(&mut self.random, &steps, often) {
                    return (name, step);
                }
            }
        }
        self.made += 1;
        (format!("w{}-{}", self.number, self.made), Step::CreateTenant)
    }

    /// Chooses a key to seal with, of the tenant that is being changed or of another.
    fn choose_sealing(&mut self, name: &str) -> Option<(String, String)> {
        let same = self.random.below(2) == 0;
        let sealing: Vec<(String, String)> = self
            .tenants
            .iter()
            .filter(|(tenant, _)| !same || *tenant == name)
            .flat_map(|(tenant, model)| model.sealing().into_iter().map(|key| (tenant.clone(), key)))
            .collect();
        self.random.one_of(&sealing).cloned()
    }

    fn keep(&mut self, blob: Blob) {
        if self.blobs.len() < BLOBS_MAX {
            self.blobs.push(blob);
        } else {
            let place = self.random.below(BLOBS_MAX);
            self.blobs[place] = blob;
        }
    }

    fn opens(&self, blob: &Blob) -> bool {
        self.tenants.get(&blob.tenant).is_some_and(|tenant| tenant.opens(&blob.key, blob.version))
    }

    /// Holds a daemon that was started again against the journal.
    pub async fn verify(&mut self, admin: &Caller, app: &Caller) -> Result<Found> {
        let mut found = Found { acknowledged: std::mem::take(&mut self.acknowledged), ..Found::default() };
        if let Some(Doubt { tenant, step, after }) = self.doubt.take() {
            found.in_doubt += 1;
            let (now, before) = (look(admin, &tenant).await?, self.tenants.get(&tenant));
            // A version whose making nobody was told of may have been used by then; either is right, a mixture is not.
            if now.as_ref() == Some(&after) {
                found.done_in_doubt += 1;
                self.tenants.insert(tenant, after);
            } else if now.as_ref() != before {
                found.lost.push(format!("{step:?} of {tenant} was half done: {before:?}, then {now:?}"));
            }
        }
        for (name, expected) in &self.tenants {
            let now = look(admin, name).await?;
            if now.as_ref() == Some(expected) {
                continue;
            }
            let told = format!("{name}: {expected:?} was acknowledged, but it is {now:?}");
            if expected.state == TenantState::Fenced { &mut found.resurrected } else { &mut found.lost }.push(told);
        }
        for blob in &self.blobs {
            // A version that sealed is there, whether or not its making was answered.
            if !self.tenants.get(&blob.tenant).is_some_and(|tenant| tenant.has(&blob.key, blob.version)) {
                found.lost.push(format!("what sealed it is not there: {blob:?}"));
            }
            let opened = call(app, decrypt(&blob.key_path(), &blob.bytes, CONTEXT)).await;
            match (self.opens(blob), opened) {
                (true, Ended::Done(reply)) if reply.plaintext == blob.plaintext => found.opened += 1,
                (false, Ended::Refused(refused)) if refused.code == tonic::Code::FailedPrecondition => {}
                (true, Ended::Refused(refused)) => found.lost.push(format!("{refused}: {blob:?}")),
                (_, Ended::Done(_)) => found.resurrected.push(format!("it opened: {blob:?}")),
                (false, Ended::Refused(refused)) => found.lost.push(format!("{refused}: {blob:?}")),
                (_, Ended::Broken) => bail!("the daemon died"),
            }
        }
        self.data_keys.verify(admin, app, &self.tenants, &mut found).await?;
        // The name of one that is destroyed is given to nobody.
        let destroyed = self.tenants.iter().filter(|(_, tenant)| tenant.state == TenantState::Fenced);
        let destroyed: Vec<&String> = destroyed.map(|(name, _)| name).collect();
        if let Some(name) = self.random.one_of(&destroyed)
            && !matches!(call(admin, create_tenant(name)).await, Ended::Refused(refused) if refused.is("NAME_WAS_DESTROYED"))
        {
            found.resurrected.push(format!("the name {name} was given again"));
        }
        Ok(found)
    }
}

impl Blob {
    fn key_path(&self) -> String {
        format!("tenants/{}/keys/{}", self.tenant, self.key)
    }
}

/// Seals with a key, if there is one.
async fn seal(app: &Caller, key: Option<&(String, String)>, plaintext: Vec<u8>) -> Option<Ended<(Vec<u8>, u32)>> {
    let (tenant, key) = key?;
    let sealed = call(app, encrypt(&format!("tenants/{tenant}/keys/{key}"), &plaintext, CONTEXT)).await;
    Some(match sealed {
        Ended::Done(reply) => Ended::Done((reply.ciphertext, reply.key_version)),
        Ended::Refused(refused) => Ended::Refused(refused),
        Ended::Broken => Ended::Broken,
    })
}

/// Asks for a change.
async fn make(admin: &Caller, tenant: &str, step: &Step) -> Ended<()> {
    async fn ask<R: Rpc>(admin: &Caller, request: R) -> Ended<()> {
        match call(admin, request).await {
            Ended::Done(_) => Ended::Done(()),
            Ended::Refused(refused) => Ended::Refused(refused),
            Ended::Broken => Ended::Broken,
        }
    }
    let name = format!("tenants/{tenant}");
    let path = |key: &str, version: &Option<u32>| match version {
        None => format!("{name}/keys/{key}"),
        Some(number) => format!("{name}/keys/{key}/versions/{number}"),
    };
    match step {
        Step::CreateTenant => ask(admin, create_tenant(tenant)).await,
        Step::Suspend => ask(admin, suspend_tenant(&name)).await,
        Step::Resume => ask(admin, resume_tenant(&name)).await,
        Step::DestroyTenant => ask(admin, destroy_tenant(&name, seconds(0))).await,
        Step::ScheduleTenant => ask(admin, destroy_tenant(&name, None)).await,
        Step::CancelTenant => ask(admin, cancel_tenant_destruction(&name)).await,
        Step::CreateKey(key) => ask(admin, create_key(&name, key)).await,
        Step::CreateManaged => ask(admin, create_managed(&name, MANAGED)).await,
        Step::Rotate(key) => ask(admin, rotate_key(&path(key, &None))).await,
        Step::Enable(key, version) => ask(admin, enable_key(&path(key, version))).await,
        Step::Disable(key, version) => ask(admin, disable_key(&path(key, version))).await,
        Step::Destroy(key, version) => ask(admin, schedule_key_destruction(&path(key, version), seconds(0))).await,
        Step::Schedule(key, version) => ask(admin, schedule_key_destruction(&path(key, version), None)).await,
        Step::Cancel(key, version) => ask(admin, cancel_key_destruction(&path(key, version))).await,
    }
}

/// Returns what the daemon says of a tenant, or nothing if there never was one.
async fn look(admin: &Caller, tenant: &str) -> Result<Option<Tenant>> {
    let name = format!("tenants/{tenant}");
    let told = match admin.ask(get_tenant(&name)).await {
        Ok(reply) => reply.tenant.unwrap_or_default(),
        Err(refused) if refused.is("TENANT_NOT_FOUND") => return Ok(None),
        Err(refused) => bail!("{name}: {refused}"),
    };
    let mut keys = BTreeMap::new();
    if told.state() != TenantState::Fenced {
        let listed = admin.ask(list_keys(&name, 100, "")).await?;
        for key in listed.keys {
            let listed = admin.ask(list_key_versions(&key.name, 100, "")).await?;
            let versions: Vec<KeyState> = listed.key_versions.iter().map(|version| version.state()).collect();
            ensure!(key.primary_version as usize == versions.len(), "{}: its primary is not its newest", key.name);
            let short = key.name.rsplit('/').next().unwrap_or_default().to_owned();
            keys.insert(short, Key { state: key.state(), versions });
        }
    }
    Ok(Some(Tenant { state: told.state(), keys }))
}

const CONTEXT: &[(&str, &str)] = &[("row", "7")];
/// An end for a daemon that does not die.
const STEPS_MAX: usize = 5_000;
const BLOBS_MAX: usize = 48;
const LIVING_MIN: usize = 2;
const LIVING_MAX: usize = 5;
