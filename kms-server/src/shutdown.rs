//! When to stop: SIGTERM or SIGINT; a second one ends the wait for what is still under way. And
//! when to read again what can change: SIGHUP.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop the daemon.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken so that a write past the limit of file sizes is an error and not the end.
    _file_size: Signal,
    /// One came, and somebody else is to hear of it.
    put_back: bool,
}

impl StopSignals {
    /// Begins to listen. From here on these signals end nothing by themselves; one that comes before
    /// somebody waits for it is kept.
    pub fn listen() -> std::io::Result<Self> {
        // See `Hangups`: they outlive every runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
            put_back: false,
        })
    }

    /// Returns when the next one came.
    pub async fn next(&mut self) {
        if std::mem::take(&mut self.put_back) {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl StopSignals {
    /// Lets one that came be heard again by who waits next.
    pub fn put_back(&mut self) {
        self.put_back = true;
    }
}

/// The signal that asks for a reload.
pub struct Hangups(Signal);

impl Hangups {
    /// Begins to listen. From here on, and to its end, it ends the process no more. One that comes
    /// before somebody waits for it is kept.
    pub fn listen() -> std::io::Result<Self> {
        // Early, when there is no runtime yet. What tells of signals outlives the runtime in which it
        // was asked for; whichever runs when one comes passes it on.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Returns when the next one came; several at a time are one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
