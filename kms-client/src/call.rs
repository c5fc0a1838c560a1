//! One call: its time limit, its attempts, and where each goes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::endpoints::Endpoints;
use crate::random::Random;
use crate::retry::{Again, Budget, back_off};
use crate::time::Time;

/// How one service is called.
pub(crate) struct Caller<T> {
    pub(crate) endpoints: Endpoints<T>,
    pub(crate) budget: Budget,
    pub(crate) attempts_max: u32,
    /// For all attempts of a call and the waits between them.
    pub(crate) limit: Duration,
    pub(crate) time: Arc<dyn Time>,
    pub(crate) random: Arc<dyn Random>,
}

/// One attempt.
pub(crate) struct Attempt<T> {
    pub(crate) endpoint: T,
    /// How many there were before.
    pub(crate) previous: u32,
    /// What is left of the call's time.
    pub(crate) left: Duration,
}

impl<T: Clone> Caller<T> {
    /// Makes attempts until one succeeds or no other may. `late` makes the error of a call whose time is over.
    ///
    /// Every call may be repeated: one that changes something brings the same `request_id` each time.
    pub(crate) async fn call<R, F>(
        &self,
        attempt: impl Fn(Attempt<T>) -> F,
        late: impl Fn(&T) -> Error,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<R, Error>>,
    {
        let deadline = self.time.now() + self.limit;
        let (mut attempts, mut repetitions) = (0, 0);
        let mut index = self.endpoints.choose(self.time.now());
        // Since the last wait.
        let mut asked = Vec::new();
        loop {
            let endpoint = self.endpoints.get(index);
            let left = deadline.saturating_sub(self.time.now());
            let answer = attempt(Attempt { endpoint: endpoint.clone(), previous: attempts, left });
            attempts += 1;
            asked.push(index);
            let answered = tokio::select! {
                biased;
                answered = answer => answered,
                () = self.time.pass(left) => {
                    // It may be gone without a word: the next call asks another, if there is one.
                    self.endpoints.failed(index, self.time.now(), &*self.random);
                    return Err(late(endpoint).after(attempts));
                }
            };
            let error = match answered {
                Ok(answer) => {
                    self.endpoints.answered(index);
                    self.budget.answered();
                    return Ok(answer);
                }
                Err(error) => error.after(attempts),
            };
            let now = self.time.now();
            let wait = match error.again() {
                Again::No => {
                    if error.is_own_deadline() {
                        self.endpoints.failed(index, now, &*self.random);
                    } else {
                        // It answered, if not what was hoped for.
                        self.endpoints.answered(index);
                    }
                    return Err(error);
                }
                Again::Later(wait) => {
                    self.endpoints.answered(index);
                    wait
                }
                Again::Elsewhere { later_here } => {
                    self.endpoints.failed(index, now, &*self.random);
                    // At most once for each address, and no burden on the one that failed: outside of the budget.
                    if let Some(other) = self.endpoints.another(now, &asked).filter(|_| now < deadline) {
                        index = other;
                        continue;
                    }
                    if !later_here {
                        return Err(error);
                    }
                    None
                }
            };
            repetitions += 1;
            // A connection that was lost while nobody used it is met by the next call, which is repeated once in any
            // case: else a caller of few calls would soon have no budget for what is not the service's trouble.
            let is_free = repetitions == 1 && matches!(error.again(), Again::Elsewhere { .. });
            let may_repeat = is_free || self.budget.failed();
            if repetitions >= self.attempts_max || !may_repeat {
                return Err(error);
            }
            let wait = wait.unwrap_or_else(|| back_off(repetitions, &*self.random));
            // An error now is worth more than the same one later.
            if now + wait >= deadline {
                return Err(error);
            }
            self.time.pass(wait).await;
            asked.clear();
            index = self.endpoints.choose(self.time.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::random::tests::Fixed;
    use crate::time::tests::Virtual;
    use std::sync::Mutex;

    const LATER: Again = Again::Later(None);
    const GONE: Again = Again::Elsewhere { later_here: true };
    const REFUSED: Again = Again::Elsewhere { later_here: false };

    /// A caller of addresses `a`, `b`..., and what became of its calls.
    struct Bench {
        caller: Caller<&'static str>,
        time: Virtual,
        /// Address, previous attempts, milliseconds since the beginning, milliseconds left.
        seen: Mutex<Vec<(&'static str, u32, u128, u128)>>,
    }

    impl Bench {
        fn new(addresses: &[&'static str]) -> Self {
            let time = Virtual::default();
            let caller = Caller {
                endpoints: Endpoints::new(addresses.to_vec()),
                budget: Budget::full(),
                attempts_max: 3,
                limit: Duration::from_secs(2),
                time: Arc::new(time.clone()),
                // No jitter.
                random: Arc::new(Fixed(1 << 19)),
            };
            Self { caller, time, seen: Mutex::default() }
        }

        /// Calls; attempts end as the list says for address and number, the first that fits.
        async fn call(&self, ends: impl Fn(&str, u32) -> Result<u32, Again>) -> Result<u32, Error> {
            let attempt = |attempt: Attempt<&'static str>| {
                let now = self.time.now().as_millis();
                let seen = (attempt.endpoint, attempt.previous, now, attempt.left.as_millis());
                self.seen.lock().unwrap().push(seen);
                let end = ends(attempt.endpoint, attempt.previous);
                async move { end.map_err(Error::again_for_tests) }
            };
            self.caller.call(attempt, |_| Error::deadline("Test", "a", self.caller.limit)).await
        }

        fn seen(&self) -> Vec<(&'static str, u32, u128, u128)> {
            std::mem::take(&mut self.seen.lock().unwrap())
        }
    }

    #[tokio::test]
    async fn a_call_is_made_three_times_with_growing_waits_and_what_is_left_of_the_time() {
        let bench = Bench::new(&["a"]);
        let error = bench.call(|_, _| Err(LATER)).await.unwrap_err();
        assert_eq!(bench.seen(), [("a", 0, 0, 2000), ("a", 1, 20, 1980), ("a", 2, 60, 1940)]);
        assert_eq!(error.attempts(), 3);
    }

    #[tokio::test]
    async fn one_that_answers_nothing_in_time_is_not_asked_again_at_once() {
        let bench = Bench::new(&["a", "b"]);
        let asked = Mutex::new(Vec::new());
        let never = |attempt: Attempt<&'static str>| {
            asked.lock().unwrap().push(attempt.endpoint);
            std::future::pending::<Result<u32, Error>>()
        };
        for _ in 0..2 {
            let late = |_: &&'static str| Error::deadline("Test", "a", bench.caller.limit);
            assert_eq!(bench.caller.call(never, late).await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        }
        assert_eq!(*asked.lock().unwrap(), ["a", "b"]);
    }

    #[tokio::test]
    async fn what_succeeds_at_last_is_an_answer() {
        let bench = Bench::new(&["a"]);
        assert_eq!(bench.call(|_, n| if n < 2 { Err(LATER) } else { Ok(n) }).await.unwrap(), 2);
        assert_eq!(bench.seen().len(), 3);
    }

    #[tokio::test]
    async fn what_is_not_to_be_repeated_is_not() {
        let bench = Bench::new(&["a", "b"]);
        let error = bench.call(|_, _| Err(Again::No)).await.unwrap_err();
        assert_eq!((bench.seen().len(), error.attempts()), (1, 1));
    }

    #[tokio::test]
    async fn the_servers_wait_is_kept_and_one_beyond_the_deadline_ends_the_call_at_once() {
        let bench = Bench::new(&["a"]);
        let asks = |wait| Err(Again::Later(Some(Duration::from_millis(wait))));
        bench.call(|_, n| if n == 0 { asks(700) } else { Ok(1) }).await.unwrap();
        assert_eq!(bench.seen(), [("a", 0, 0, 2000), ("a", 1, 700, 1300)]);
        let before = bench.time.now();
        bench.call(|_, _| asks(2000)).await.unwrap_err();
        assert_eq!((bench.seen().len(), bench.time.now()), (1, before));
    }

    #[tokio::test]
    async fn an_attempt_that_does_not_end_is_cut_off_at_the_deadline_of_the_call() {
        let bench = Bench::new(&["a"]);
        let hangs = |attempt: Attempt<&'static str>| {
            let first = attempt.previous == 0;
            async move {
                if first {
                    Err(Error::again_for_tests(LATER))
                } else {
                    std::future::pending::<Result<u32, Error>>().await
                }
            }
        };
        let error = bench.caller.call(hangs, |_| Error::deadline("Test", "a", bench.caller.limit)).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::DeadlineExceeded, 2));
        assert_eq!(bench.time.now(), Duration::from_secs(2), "not later, and not twice");
    }

    #[tokio::test]
    async fn another_address_is_asked_at_once_and_stays() {
        let bench = Bench::new(&["a", "b"]);
        let a_is_gone = |address: &str, _| if address == "a" { Err(GONE) } else { Ok(1) };
        bench.call(a_is_gone).await.unwrap();
        assert_eq!(bench.seen(), [("a", 0, 0, 2000), ("b", 1, 0, 2000)]);
        bench.call(a_is_gone).await.unwrap();
        assert_eq!(bench.seen(), [("b", 0, 0, 2000)]);
        bench.time.advance(Duration::from_secs(100));
        bench.call(|_, _| Ok(1)).await.unwrap();
        assert_eq!(bench.seen()[0].0, "b", "nobody goes back while it answers");
    }

    #[tokio::test]
    async fn when_all_addresses_fail_all_are_asked_before_each_wait_is_over() {
        let bench = Bench::new(&["a", "b"]);
        let error = bench.call(|_, _| Err(GONE)).await.unwrap_err();
        let order: Vec<_> = bench.seen().iter().map(|seen| (seen.0, seen.2)).collect();
        assert_eq!(order, [("a", 0), ("b", 0), ("a", 20), ("b", 60)], "both at once; then, at rest, in turn");
        assert_eq!(error.attempts(), 4);
    }

    #[tokio::test]
    async fn what_tls_refuses_is_tried_elsewhere_and_not_again() {
        let bench = Bench::new(&["a", "b"]);
        bench.call(|_, _| Err(REFUSED)).await.unwrap_err();
        assert_eq!(bench.seen().len(), 2);
        let alone = Bench::new(&["a"]);
        alone.call(|_, _| Err(REFUSED)).await.unwrap_err();
        assert_eq!(alone.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_service_in_trouble_is_not_called_three_times_by_everybody() {
        let bench = Bench::new(&["a"]);
        let mut made = Vec::new();
        for _ in 0..5 {
            bench.call(|_, _| Err(LATER)).await.unwrap_err();
            made.push(bench.seen().len());
        }
        assert_eq!(made, [3, 2, 1, 1, 1]);
        for _ in 0..100 {
            bench.call(|_, _| Ok(1)).await.unwrap();
        }
        bench.seen();
        bench.call(|_, _| Err(LATER)).await.unwrap_err();
        assert_eq!(bench.seen().len(), 3);
    }

    #[tokio::test]
    async fn a_lost_connection_is_made_good_once_without_the_budget() {
        let bench = Bench::new(&["a"]);
        for _ in 0..100 {
            bench.call(|_, n| if n == 0 { Err(GONE) } else { Ok(1) }).await.unwrap();
            bench.caller.budget.failed();
        }
        bench.seen();
        bench.call(|_, _| Err(GONE)).await.unwrap_err();
        assert_eq!(bench.seen().len(), 2);
    }

    #[tokio::test]
    async fn with_one_attempt_nothing_is_repeated_here() {
        let mut bench = Bench::new(&["a"]);
        bench.caller.attempts_max = 1;
        bench.call(|_, _| Err(LATER)).await.unwrap_err();
        assert_eq!(bench.seen().len(), 1);
    }
}
