//! Waits for grace periods and for barriers that destroy nothing: polls, and loops of polls.

use super::Inner;
use super::backlog::Backlog;
use super::futures::Waiter;
use super::reclaim::Collect;
use super::state::{Callback, DomainState};
use crate::sync;
use crate::sync::atomic::Ordering;

/// What a cookie or a caller waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Awaited {
    /// The grace period of this number.
    Period(u64),
    /// The grace period of the callback of this number.
    Call(u64),
}

impl Inner {
    /// Collects what was retired before this call. Returns the ticket up to which everything must be destroyed for that.
    pub(super) fn barrier_target(&self) -> u64 {
        self.collect_dirty(Collect::All);
        // So that there is a batch with this ticket: what reclaims looks for batches.
        let amount = Backlog::of(0, 0);
        self.push_call(Callback::new(|| (), amount));
        let mut state = self.state.lock();
        let begun = self.collect(&mut state);
        // If another thread has collected the callback, it is in a batch that has begun.
        let target = begun.unwrap_or(state.begun);
        self.unlock(state);
        target
    }

    /// Returns whether everything with a ticket up to `target` is destroyed. If not, the thread that destroys the last of it
    /// wakes `waiter`.
    pub(super) fn poll_barrier(&self, target: u64, waiter: &sync::Arc<Waiter>) -> bool {
        let mut state = self.state.lock();
        self.advance(&mut state);
        let is_done = state.is_done(target);
        let is_known = |state: &DomainState| state.barriers.iter().any(|(_, known)| sync::Arc::ptr_eq(known, waiter));
        if !is_done && !is_known(&state) {
            state.barriers.push((target, sync::Arc::clone(waiter)));
        }
        let stall = self.stalled(&mut state);
        self.unlock(state);
        self.report(stall);
        is_done
    }

    /// Forgets the future of a barrier, which is dropped.
    pub(super) fn forget_waiter(&self, waiter: &sync::Arc<Waiter>) {
        let mut state = self.state.lock();
        let found = state.barriers.iter().position(|(_, known)| sync::Arc::ptr_eq(known, waiter));
        let forgotten = found.map(|found| state.barriers.swap_remove(found));
        drop(state);
        drop(forgotten);
    }

    /// Begins a grace period that covers every critical section that is open now. Returns its number.
    pub(crate) fn start_poll(&self, expedited: bool) -> u64 {
        let mut state = self.state.lock();
        let number = self.begin_grace_period(&mut state);
        if expedited {
            state.expedite = number;
        }
        number
    }

    /// Advances a grace period without destroying anything. Returns whether it is over.
    pub(crate) fn poll(&self, number: u64) -> bool {
        let mut stall = None;
        if let Some(mut state) = self.state.try_lock() {
            self.advance(&mut state);
            stall = self.stalled(&mut state);
        }
        self.report(stall);
        self.grace.completed() >= number
    }

    /// Tries to end the grace period of callback number `call`, without running anything. Returns whether it is over.
    pub(crate) fn poll_call(&self, call: u64) -> bool {
        // ORDERING: Acquire, pairs with the Release in `advance`.
        if self.last_call_over.load(Ordering::Acquire) >= call {
            return true;
        }
        let mut stall = None;
        if let Some(mut state) = self.state.try_lock() {
            self.collect(&mut state);
            self.advance(&mut state);
            stall = self.stalled(&mut state);
            self.unlock(state);
        }
        self.report(stall);
        // ORDERING: Acquire, as above.
        self.last_call_over.load(Ordering::Acquire) >= call
    }

    /// Tries to end a grace period. Returns whether it is over.
    pub(super) fn poll_awaited(&self, awaited: Awaited) -> bool {
        match awaited {
            Awaited::Period(number) => self.poll(number),
            Awaited::Call(number) => self.poll_call(number),
        }
    }

    /// Waits for a grace period. Calls `give_up` after each unsuccessful check, and stops waiting if
    /// that returns true. Returns whether the grace period is over.
    pub(super) fn wait_for(
        &self,
        awaited: Awaited,
        mut pause: impl FnMut(),
        mut give_up: impl FnMut() -> bool,
    ) -> bool {
        if self.poll_awaited(awaited) {
            return true;
        }
        self.state.lock().waiters += 1;
        let over = loop {
            pause();
            if self.poll_awaited(awaited) {
                break true;
            }
            if give_up() {
                break false;
            }
        };
        self.state.lock().waiters -= 1;
        over
    }
}
