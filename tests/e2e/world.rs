//! Two tenants with a key each, an administrator, an application, and load on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use kms_tests::records::{self, Records};
use kms_tests::request::{create_key, create_tenant};
use kms_tests::{Caller, Daemon, Refused, Settings, Site, patiently};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A tenant.
pub const ACME: &str = "tenants/acme";
/// Its key.
pub const ACME_KEY: &str = "tenants/acme/keys/app";
/// Another tenant.
pub const GLOBEX: &str = "tenants/globex";
/// Its key, of the same name.
pub const GLOBEX_KEY: &str = "tenants/globex/keys/app";

/// A daemon with two tenants, and those who call it.
pub struct World {
    /// The daemon.
    pub daemon: Daemon,
    /// Administers all, uses no key.
    pub admin: Caller,
    /// Uses all keys, administers none.
    pub app: Caller,
}

impl World {
    /// Starts one.
    pub async fn new() -> Result<Self> {
        Self::with(&Settings::default()).await
    }

    /// Starts one with other settings.
    pub async fn with(settings: &Settings) -> Result<Self> {
        Self::at(Site::with(settings)?).await
    }

    /// Starts one on a site that was made.
    pub async fn at(site: Site) -> Result<Self> {
        let world = Self::on(Daemon::fresh_on(site).await?)?;
        for (tenant, name) in [("acme", ACME), ("globex", GLOBEX)] {
            world.admin.ask(create_tenant(tenant)).await?;
            world.admin.ask(create_key(name, "app")).await?;
        }
        Ok(world)
    }

    /// Calls a daemon that runs.
    pub fn on(daemon: Daemon) -> Result<Self> {
        Ok(Self { admin: daemon.caller("admin")?, app: daemon.caller("app")?, daemon })
    }

    /// Stops the daemon and starts it again.
    pub async fn restart(self) -> Result<Self> {
        Self::on(self.daemon.restart().await?)
    }

    /// Kills the daemon and starts it again.
    pub async fn crash(self) -> Result<Self> {
        Self::on(self.daemon.kill().await?.start().await?)
    }

    /// Stops the daemon, and checks what holds after every test.
    pub async fn finish(self) -> Result<()> {
        check(&self.daemon.stop().await?)
    }
}

/// Checks what holds for every site whose daemon has ended: every reply has its record, the log is
/// of one piece, nothing panicked.
pub fn check(site: &Site) -> Result<()> {
    let records = Records::read(site)?;
    records.check_chains()?;
    for line in records::lines(site)? {
        records::check_members(&line)?;
    }
    let held = records.hold(site.ledger());
    ensure!(
        held.without.is_empty(),
        "{} of {} replies have no record: {:?}",
        held.without.len(),
        held.replies,
        held.without
    );
    let said = site.output().text();
    ensure!(!said.contains("panicked"), "something panicked:\n{}", site.output().tail());
    Ok(())
}

/// Callers that work at the same time, each on connections of its own, until they are told to stop
/// or are refused.
pub struct Load {
    tasks: JoinSet<Result<usize, Refused>>,
    replies: Arc<AtomicUsize>,
    more: Arc<Notify>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Starts callers. Each repeats `once`, which makes one call.
    pub fn start<F, Fut>(callers: Vec<Caller>, once: F) -> Self
    where
        F: Fn(Caller, usize) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<(), Refused>> + Send,
    {
        let (replies, more, stop) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for caller in callers {
            let (replies, more, stop, once) =
                (Arc::clone(&replies), Arc::clone(&more), Arc::clone(&stop), once.clone());
            tasks.spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) && done < CALLS_MAX {
                    once(caller.clone(), done).await?;
                    done += 1;
                    replies.fetch_add(1, Ordering::Relaxed);
                    more.notify_one();
                }
                Ok(done)
            });
        }
        Self { tasks, replies, more, stop }
    }

    /// Returns once there are this many more successes.
    pub async fn more(&self, count: usize) -> Result<()> {
        let wanted = self.replies.load(Ordering::Relaxed) + count;
        let reached = async {
            while self.replies.load(Ordering::Relaxed) < wanted && !self.tasks.is_empty() {
                self.more.notified().await;
            }
        };
        patiently(&format!("{count} more replies under load"), reached).await
    }

    /// Tells all to stop after the call they are in, and returns how each ended.
    pub async fn stop(self) -> Result<Vec<Result<usize, Refused>>> {
        self.stop.store(true, Ordering::Relaxed);
        self.ended().await
    }

    /// Waits until each has ended by itself, by a refusal or after its many calls.
    pub async fn ended(self) -> Result<Vec<Result<usize, Refused>>> {
        patiently("the end of the load", self.tasks.join_all()).await
    }
}

/// The most calls of one caller under load: an end for a test whose daemon never refuses.
const CALLS_MAX: usize = 20_000;
