//! Destroying a tenant is final, at once, under load: no success of it has a log index above its
//! FENCED record.

use anyhow::{Context, Result};
use kms_proto::v1::{GetCallerIdentityRequest, TenantState};
use kms_server::audit::{Outcome, Phase, StoredLeaf};
use kms_tests::records::Records;
use kms_tests::request::*;
use kms_tests::{Caller, Refused};
use tonic::Code;

use crate::{ACME_KEY, Load, World, at_scale, refused};

const CLIENTS: usize = 16;

/// Tenants that are destroyed one after another. Where a fence leaks, it leaks for microseconds: one
/// would miss it, several do not.
fn tenants() -> usize {
    at_scale(8, 400)
}

/// A tenant with something sealed for it.
#[derive(Clone)]
struct Victim {
    id: String,
    key: String,
    blob: Vec<u8>,
}

impl Victim {
    async fn create(world: &World, id: &str) -> Result<Self> {
        let key = format!("tenants/{id}/keys/app");
        world.admin.ask(create_tenant(id)).await?;
        world.admin.ask(create_key(&format!("tenants/{id}"), "app")).await?;
        let blob = world.app.ask(encrypt(&key, b"secret", &[])).await?.ciphertext;
        Ok(Self { id: id.to_owned(), key, blob })
    }

    /// Lets these callers decrypt until they are refused.
    fn under_load(&self, callers: Vec<Caller>) -> Load {
        let victim = self.clone();
        Load::start(callers, move |caller, _| {
            let victim = victim.clone();
            async move { open(&caller, &victim.key, &victim.blob).await }
        })
    }

    async fn destroy(&self, world: &World) -> Result<()> {
        let reply = world.admin.ask(destroy_tenant(&format!("tenants/{}", self.id), seconds(0))).await?;
        let tenant = reply.tenant.context("the tenant as it is now")?;
        assert_eq!((tenant.state(), tenant.fence_time.is_some()), (TenantState::Fenced, true));
        Ok(())
    }

    /// Expects that it stays refused.
    async fn stays_destroyed(&self, world: &World) -> Result<()> {
        refused(Code::FailedPrecondition, "TENANT_DESTROYED", open(&world.app, &self.key, &self.blob).await);
        let tenant = world.admin.ask(get_tenant(&format!("tenants/{}", self.id))).await?.tenant;
        assert_eq!(tenant.map(|tenant| tenant.state()), Some(TenantState::Fenced));
        refused(Code::FailedPrecondition, "NAME_WAS_DESTROYED", world.admin.ask(create_tenant(&self.id)).await);
        Ok(())
    }
}

/// Returns callers that have their connections already, so that what they do next they do at once.
async fn connected(world: &World, count: usize) -> Result<Vec<Caller>> {
    let callers = (0..count).map(|_| world.daemon.caller("app")).collect::<Result<Vec<Caller>>>()?;
    for caller in &callers {
        caller.ask(GetCallerIdentityRequest {}).await?;
    }
    Ok(callers)
}

/// Decrypts a blob and checks what comes back.
async fn open(caller: &Caller, key: &str, blob: &[u8]) -> Result<(), Refused> {
    let opened = caller.ask(decrypt(key, blob, &[])).await?;
    assert_eq!(opened.plaintext, b"secret");
    Ok(())
}

/// What the log says of a destruction.
struct Fence {
    index: u64,
    /// Successes of the tenant below and above it.
    before: usize,
    after: usize,
    refusals: usize,
}

impl Fence {
    fn read(records: &Records, tenant: &str) -> Result<Self> {
        let fenced = records.fenced(tenant).with_context(|| format!("{tenant} has no FENCED record"))?;
        let leaf = &fenced.leaf;
        assert_eq!((leaf.res, leaf.keys), (Some(Outcome::Ok), Some(1)));
        let is_commitment = leaf.tkc.as_ref().is_some_and(|tkc| tkc.len() == 64);
        assert!(is_commitment, "it names the commitment of the destroyed key");
        let is_lease = leaf.lease.is_some_and(|lease| lease > fenced.time);
        assert!(is_lease, "it says until when clients may hold data keys");
        let of_it = |stored: &&StoredLeaf| {
            // GetTenant tells that it is gone, purging is a statement: neither is a use of it.
            let leaf = &stored.leaf;
            let is_use = leaf.op.as_deref() != Some("GetTenant") && !matches!(leaf.ph, Some(Phase::Purged));
            leaf.ten.as_deref() == Some(tenant) && is_use
        };
        let successes = || records.leaves.iter().filter(of_it).filter(|stored| stored.leaf.res == Some(Outcome::Ok));
        Ok(Self {
            index: fenced.index,
            before: successes().filter(|stored| stored.index < fenced.index).count(),
            after: successes().filter(|stored| stored.index > fenced.index).count(),
            refusals: records
                .leaves
                .iter()
                .filter(of_it)
                .filter(|stored| stored.leaf.res == Some(Outcome::Failed))
                .count(),
        })
    }
}

#[tokio::test]
async fn no_success_of_a_destroyed_tenant_lies_above_its_fence() -> Result<()> {
    let world = World::new().await?;
    let neighbour = Victim::create(&world, "neighbour").await?;
    let mut victims = Vec::new();
    for number in 0..tenants() {
        victims.push(Victim::create(&world, &format!("leaves-{number}")).await?);
    }
    let for_neighbour = neighbour.under_load(connected(&world, 4).await?);
    for victim in &victims {
        let load = victim.under_load(connected(&world, CLIENTS).await?);
        load.more(10 * CLIENTS).await?;
        victim.destroy(&world).await?;
        let ends = load.ended().await?;
        assert_eq!(ends.len(), CLIENTS);
        for end in ends {
            refused(Code::FailedPrecondition, "TENANT_DESTROYED", end);
        }
    }
    // The other tenant is served as before, during and after.
    for_neighbour.more(20).await?;
    let others: usize = for_neighbour.stop().await?.into_iter().sum::<Result<usize, Refused>>()?;

    let records = Records::read(world.daemon.site())?;
    let mut above = 0;
    for victim in &victims {
        let Fence { index, before, after, refusals } = Fence::read(&records, &victim.id)?;
        println!(
            "{}: {before} successes before the fence, {after} after, fence at index {index}; {refusals} refusals",
            victim.id
        );
        assert!(before > 10 * CLIENTS && refusals >= CLIENTS);
        above += after;
    }
    println!(
        "{} tenants, {CLIENTS} clients on each: {above} successes above a fence; the other tenant had {others}",
        victims.len()
    );
    assert_eq!(above, 0);

    // It stays so, whatever happens to the daemon.
    let mut world = world.crash().await?;
    for _ in 0..2 {
        for victim in &victims {
            victim.stays_destroyed(&world).await?;
        }
        open(&world.app, &neighbour.key, &neighbour.blob).await?;
        world = world.restart().await?;
    }
    world.finish().await
}

#[tokio::test]
async fn a_tenant_that_is_destroyed_while_its_keys_are_being_loaded_is_not_served() -> Result<()> {
    let world = World::new().await?;
    let mut victims = Vec::new();
    for number in 0..tenants() {
        victims.push(Victim::create(&world, &format!("leaves-{number}")).await?);
    }
    // After a start no key is in memory: the first decryption and the destruction meet at the load.
    let world = world.restart().await?;
    for victim in &victims {
        let load = victim.under_load(connected(&world, CLIENTS).await?);
        victim.destroy(&world).await?;
        for end in load.ended().await? {
            refused(Code::FailedPrecondition, "TENANT_DESTROYED", end);
        }
    }
    let records = Records::read(world.daemon.site())?;
    for victim in &victims {
        let Fence { index, before, after, refusals } = Fence::read(&records, &victim.id)?;
        println!(
            "{}: {before} successes before the fence, {after} after, fence at index {index}; {refusals} refusals",
            victim.id
        );
        assert_eq!(after, 0);
    }
    let world = world.restart().await?;
    for victim in &victims {
        victim.stays_destroyed(&world).await?;
    }
    world.finish().await
}

#[tokio::test]
async fn a_destroyed_version_opens_nothing_above_its_record_under_load() -> Result<()> {
    let world = World::new().await?;
    let version_1 = "tenants/acme/keys/app/versions/1";
    let first = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    world.admin.ask(rotate_key(ACME_KEY)).await?;
    let second = world.app.ask(encrypt(ACME_KEY, b"secret", &[])).await?.ciphertext;
    let opening = |blob: Vec<u8>| {
        move |caller: Caller, _| {
            let blob = blob.clone();
            async move { open(&caller, ACME_KEY, &blob).await }
        }
    };
    let under_first = Load::start(connected(&world, 8).await?, opening(first));
    let under_second = Load::start(connected(&world, 4).await?, opening(second));
    under_first.more(200).await?;
    world.admin.ask(schedule_key_destruction(version_1, seconds(0))).await?;
    for end in under_first.ended().await? {
        refused(Code::FailedPrecondition, "VERSION_DESTROYED", end);
    }
    under_second.more(20).await?;
    under_second.stop().await?.into_iter().sum::<Result<usize, Refused>>()?;

    let records = Records::read(world.daemon.site())?;
    let destroyed = records.of("DestroyKeyVersion", Outcome::Ok).next().context("its record")?;
    let after = records
        .of("Decrypt", Outcome::Ok)
        .filter(|stored| stored.leaf.kv == Some(1) && stored.index > destroyed.index)
        .count();
    let before = records.of("Decrypt", Outcome::Ok).filter(|stored| stored.leaf.kv == Some(1)).count() - after;
    println!("version 1: {before} successes before its destruction, {after} after, at index {}", destroyed.index);
    assert_eq!(after, 0);
    world.finish().await
}

#[tokio::test]
async fn tenants_that_are_destroyed_together_each_have_their_fence() -> Result<()> {
    let world = World::new().await?;
    let count = 8;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let (admin, app) = (world.daemon.caller("admin")?, world.daemon.caller("app")?);
        tasks.spawn(async move {
            let (id, name) = (format!("t{number}"), format!("tenants/t{number}"));
            let key = format!("{name}/keys/k");
            admin.ask(create_tenant(&id)).await?;
            admin.ask(create_key(&name, "k")).await?;
            app.ask(encrypt(&key, b"x", &[])).await?;
            // Twice at once: one of them is too late, and says so.
            let (once, again) = tokio::join!(
                admin.ask(destroy_tenant(&name, seconds(0))),
                admin.ask(destroy_tenant(&name, seconds(0)))
            );
            for end in [&once, &again] {
                if let Err(refused) = end {
                    assert!(refused.is("TENANT_DESTROYED") || refused.is("CONFLICT"), "{refused}");
                }
            }
            assert!(once.is_ok() != again.is_ok(), "exactly one destroys: {once:?} {again:?}");
            refused(Code::FailedPrecondition, "TENANT_DESTROYED", app.ask(encrypt(&key, b"x", &[])).await);
            Ok::<(), Refused>(())
        });
    }
    for end in kms_tests::patiently("the destructions", tasks.join_all()).await? {
        end?;
    }
    let records = Records::read(world.daemon.site())?;
    for number in 0..count {
        assert!(records.fenced(&format!("t{number}")).is_some(), "t{number} has no FENCED record");
    }
    world.finish().await
}
