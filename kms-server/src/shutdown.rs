//! When to stop: SIGTERM or SIGINT; a second one ends the wait for what is still under way.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop the daemon.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken so that a write past the limit of file sizes is an error and not the end.
    _file_size: Signal,
}

impl StopSignals {
    /// Begins to listen. From here on these signals end nothing by themselves.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Returns when the next one came.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
