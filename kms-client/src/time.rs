//! Time, as calls need it: passed in, so that tests of waits and deadlines are exact and take none.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A clock that only goes forward, and waits by it.
pub(crate) trait Time: Send + Sync {
    /// Returns how long it is since some beginning.
    fn now(&self) -> Duration;

    /// Ends after a while.
    fn pass(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The time of the runtime.
pub(crate) struct TokioTime(tokio::time::Instant);

impl TokioTime {
    pub(crate) fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Time for TokioTime {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn pass(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(wait))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A clock that stands still but for what is waited for, which is over at once. Whoever waits for two things at
    /// a time gets the first that is ready, so a call that does not end runs into its limit.
    #[derive(Clone, Default)]
    pub(crate) struct Virtual {
        now: Arc<Mutex<Duration>>,
    }

    impl Virtual {
        pub(crate) fn advance(&self, by: Duration) {
            *self.now.lock().unwrap() += by;
        }
    }

    impl Time for Virtual {
        fn now(&self) -> Duration {
            *self.now.lock().unwrap()
        }

        fn pass(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let time = self.clone();
            Box::pin(async move { time.advance(wait) })
        }
    }
}
