//! A tenant's gate: one atomic of state and in-flight count.
//!
//! A request enters, uses the key, and leaves when its audit record has its index. A change of
//! state closes the gate, waits until everybody has left, commits, and opens it again; a fence
//! closes it for ever. Between entering and leaving nobody waits for anything but a turn of the runtime
//! (and who makes or moves data keys for the store, with the turn that a closing needs), so a wait is short.
//!
//! **Invariant:** nobody enters unless the state is OPEN, and a gate leaves FENCED and EVICTED
//! never (`a_fenced_gate_never_opens`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

/// What a gate says to those who come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
pub enum GateState {
    /// Nothing is loaded: load first.
    Unloaded = 0,
    /// Enter.
    Open = 1,
    /// A change is under way: wait for its turn to end.
    Closed = 2,
    /// The tenant was destroyed.
    Fenced = 3,
    /// This entry left the cache: look the tenant up again.
    Evicted = 4,
}

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// State in the high half, count in the low half.
    word: AtomicU64,
    drained: AtomicWaker,
}

/// Somebody inside. Leaves when dropped.
#[derive(Debug)]
pub struct Inside<G: AsRef<Gate>>(Arc<G>);

impl Gate {
    /// Enters, if the gate is open.
    pub fn enter<G: AsRef<Gate>>(this: &Arc<G>) -> Result<Inside<G>, GateState> {
        let gate = this.as_ref().as_ref();
        let mut word = gate.word.load(Ordering::Acquire);
        loop {
            match state_of(word) {
                GateState::Open => {
                    match gate.word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return Ok(Inside(Arc::clone(this))),
                        Err(now) => word = now,
                    }
                }
                closed => return Err(closed),
            }
        }
    }

    /// Returns the state.
    pub fn state(&self) -> GateState {
        state_of(self.word.load(Ordering::Acquire))
    }

    /// Opens it after a load. Only for whoever holds the entry's turn.
    pub fn open(&self) {
        self.change(GateState::Open);
    }

    /// Closes it; those inside stay until they leave. Only for whoever holds the entry's turn.
    pub fn close(&self) {
        self.change(GateState::Closed);
    }

    /// Closes it and forgets what was loaded, once it is drained. Only for whoever holds the turn.
    pub fn unload(&self) {
        self.change(GateState::Unloaded);
    }

    /// Closes it for ever.
    pub fn fence(&self) {
        self.change(GateState::Fenced);
    }

    /// Takes the entry out of use, if nobody is inside and no change is under way.
    pub fn evict(&self) -> bool {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let evictable = matches!(state_of(word), GateState::Open | GateState::Unloaded | GateState::Fenced)
                && count_of(word) == 0;
            if !evictable {
                return false;
            }
            match self.word.compare_exchange_weak(
                word,
                (GateState::Evicted as u64) << 32,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Returns when nobody is inside any more. The gate must not be open.
    pub async fn drained(&self) {
        std::future::poll_fn(|cx| {
            self.drained.register(cx.waker());
            if count_of(self.word.load(Ordering::Acquire)) == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn change(&self, next: GateState) {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let final_state = matches!(state_of(word), GateState::Fenced | GateState::Evicted);
            if final_state {
                return;
            }
            match self.word.compare_exchange_weak(
                word,
                (next as u64) << 32 | count_of(word),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
}

impl<G: AsRef<Gate>> Drop for Inside<G> {
    fn drop(&mut self) {
        let gate = self.0.as_ref().as_ref();
        let before = gate.word.fetch_sub(1, Ordering::AcqRel);
        if count_of(before) == 1 && state_of(before) != GateState::Open {
            gate.drained.wake();
        }
    }
}

fn state_of(word: u64) -> GateState {
    match word >> 32 {
        0 => GateState::Unloaded,
        1 => GateState::Open,
        2 => GateState::Closed,
        3 => GateState::Fenced,
        _ => GateState::Evicted,
    }
}

const fn count_of(word: u64) -> u64 {
    word & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[derive(Debug, Default)]
    struct Entry(Gate);
    impl AsRef<Gate> for Entry {
        fn as_ref(&self) -> &Gate {
            &self.0
        }
    }

    #[test]
    fn only_an_open_gate_lets_in() {
        let entry = Arc::new(Entry::default());
        assert_eq!(Gate::enter(&entry).unwrap_err(), GateState::Unloaded);
        entry.0.open();
        let inside = Gate::enter(&entry).unwrap();
        entry.0.close();
        assert_eq!(Gate::enter(&entry).unwrap_err(), GateState::Closed);
        drop(inside);
        entry.0.open();
        assert!(Gate::enter(&entry).is_ok());
    }

    #[test]
    fn a_fenced_gate_never_opens() {
        let entry = Arc::new(Entry::default());
        entry.0.open();
        entry.0.fence();
        entry.0.open();
        entry.0.unload();
        assert_eq!(Gate::enter(&entry).unwrap_err(), GateState::Fenced);
    }

    #[test]
    fn nobody_is_evicted_from_under() {
        let entry = Arc::new(Entry::default());
        entry.0.open();
        let inside = Gate::enter(&entry).unwrap();
        assert!(!entry.0.evict(), "somebody is inside");
        drop(inside);
        entry.0.close();
        assert!(!entry.0.evict(), "a change is under way");
        entry.0.open();
        assert!(entry.0.evict());
        entry.0.open();
        assert_eq!(Gate::enter(&entry).unwrap_err(), GateState::Evicted);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn once_drained_nobody_is_inside() {
        for _ in 0..200 {
            let entry = Arc::new(Entry::default());
            entry.0.open();
            let fenced = Arc::new(AtomicBool::new(false));
            let users: Vec<_> = (0..4)
                .map(|_| {
                    let (entry, fenced) = (Arc::clone(&entry), Arc::clone(&fenced));
                    tokio::spawn(async move {
                        let mut uses = 0;
                        while let Ok(_inside) = Gate::enter(&entry) {
                            assert!(!fenced.load(Ordering::SeqCst), "inside after the drain");
                            uses += 1;
                            if uses % 64 == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            entry.0.close();
            entry.0.drained().await;
            fenced.store(true, Ordering::SeqCst);
            entry.0.fence();
            for user in users {
                user.await.unwrap();
            }
        }
    }
}
