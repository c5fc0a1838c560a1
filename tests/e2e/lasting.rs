//! Callers that outlive daemons: whatever breaks because a daemon was killed is asked again of the next one, and
//! nothing else is.

use anyhow::{Context as _, Result};
use kms_tests::{Caller, Daemon, Refused, Rpc};
use tokio::sync::watch;

/// Says which daemon serves.
pub struct Stage {
    tell: watch::Sender<Option<(u64, Caller)>>,
    name: &'static str,
    daemons: u64,
}

/// A caller that outlives daemons.
#[derive(Clone)]
pub struct Lasting(watch::Receiver<Option<(u64, Caller)>>);

impl Stage {
    /// Begins with nobody serving; callers will be of this name.
    pub fn new(name: &'static str) -> Self {
        Self { tell: watch::channel(None).0, name, daemons: 0 }
    }

    /// Returns a caller.
    pub fn caller(&self) -> Lasting {
        Lasting(self.tell.subscribe())
    }

    /// Sends the callers to a daemon, on connections of their own.
    pub fn up(&mut self, daemon: &Daemon) -> Result<()> {
        self.daemons += 1;
        self.tell.send_replace(Some((self.daemons, daemon.caller(self.name)?)));
        Ok(())
    }

    /// Says that the daemon is about to be killed.
    pub fn down(&self) {
        self.tell.send_replace(None);
    }
}

impl Lasting {
    /// Asks until a daemon answers. A connection that breaks while its daemon lives is an answer too: a failure.
    pub async fn ask<R: Rpc + Clone>(&mut self, request: R) -> Result<R::Response, Refused> {
        loop {
            let (number, caller) = {
                let serving = kms_tests::patiently("a daemon that serves", self.0.wait_for(Option::is_some));
                let serving = serving.await.and_then(|serving| serving.context("nobody serves any more"));
                let serving = serving.expect("a test that lets callers work lets a daemon serve");
                serving.clone().expect("it was waited for")
            };
            match caller.ask(request.clone()).await {
                Err(refused) if refused.reason.is_none() => {
                    let same = matches!(&*self.0.borrow(), Some((now, _)) if *now == number);
                    if same {
                        return Err(refused);
                    }
                }
                answered => return answered,
            }
        }
    }
}
