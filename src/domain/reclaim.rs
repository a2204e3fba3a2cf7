//! What waits for a grace period, what is ready, and those who destroy it.
//!
//! ```text
//!  retire queues ──collect──▶ waiting ──grace period over──▶ ready ──take──▶ running ──▶ destroyed
//!  (one a shard)              (batches, each with its number)      (at most a budget)
//!       └── nodes whose last handle is gone, after their grace period ──▶ ready
//! ```
//!
//! One lock guards the three lists in the middle. No destructor, callback or other code of the user's runs under it.
//! A batch carries a ticket, which is the number of its grace period; a [`barrier`](Inner::barrier) takes the newest
//! ticket there is and returns when no older one, nor that one, is in any of the lists.
//!
//! A destructor may put the last handle of a further node. Such a node is left to the run that the destructor is part
//! of, and belongs to the same batch: a barrier waits for whole chains of them, and a chain of any length is destroyed
//! by a loop and not by recursion.

#![allow(unsafe_code)]

use super::Inner;
use super::grace::Grace;
use super::retire::{List, Registrant, RetireQueue};
use super::thread::{Running, shard_locked};
use crate::node::contain;
use crate::sync::atomic::Ordering;
use crate::sync::{self, MutexGuard, Pause};
use std::collections::VecDeque;
use std::ptr::NonNull;

/// A deferred closure.
pub(crate) type Callback = Box<dyn FnOnce() + Send>;

/// What a domain's lock guards.
#[derive(Default)]
pub(crate) struct State {
    /// The newest grace period that has begun.
    begun: u64,
    /// In the order of their numbers.
    waiting: VecDeque<Batch>,
    ready: VecDeque<Batch>,
    /// The tickets of the batches that some thread is destroying now.
    running: Vec<u64>,
    /// Callers of `barrier` that are asleep.
    sleepers: usize,
}

/// Retired nodes, by the shard that they come from, and callbacks.
#[derive(Default)]
pub(crate) struct Batch {
    ticket: u64,
    lists: Vec<(NonNull<RetireQueue>, List)>,
    calls: Vec<Callback>,
}

// SAFETY: retire queues are `Sync`, lists and callbacks are `Send`.
unsafe impl Send for Batch {}

/// What is left to do after a round of [`Inner::drive`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    Nothing,
    /// Batches whose grace period is not over.
    Waiting,
    /// Batches that could be destroyed now.
    Ready,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.calls.is_empty()
    }

    fn len(&self) -> usize {
        self.lists.iter().map(|(_, list)| list.len()).sum::<usize>() + self.calls.len()
    }

    /// Destroys up to `budget` nodes and runs callbacks, each of which counts as one. Returns how many that was, and
    /// how many callbacks panicked.
    ///
    /// # Safety
    ///
    /// The batch's grace period is over.
    unsafe fn run(&mut self, budget: usize) -> (usize, u64) {
        let (mut done, mut panics) = (0, 0);
        while done < budget {
            if let Some((queue, list)) = self.lists.last_mut() {
                // SAFETY: the grace period is over, and batches hold each node once and no empty list.
                done += unsafe { list.reclaim(*queue, budget - done) };
                if list.len() == 0 {
                    self.lists.pop();
                }
            } else if let Some(call) = self.calls.pop() {
                panics += u64::from(contain(call));
                done += 1;
            } else {
                break;
            }
        }
        (done, panics)
    }
}

impl State {
    fn oldest_ticket(&self) -> Option<u64> {
        let batches = self.waiting.iter().chain(&self.ready).map(|batch| batch.ticket);
        batches.chain(self.running.iter().copied()).min()
    }

    fn left(&self) -> Left {
        match (self.ready.is_empty(), self.waiting.is_empty()) {
            (false, _) => Left::Ready,
            (true, false) => Left::Waiting,
            (true, true) => Left::Nothing,
        }
    }

    /// Makes every batch ready whose grace period is over.
    fn ripen(&mut self, completed: u64) {
        while self.waiting.front().is_some_and(|batch| batch.ticket <= completed) {
            self.ready.extend(self.waiting.pop_front());
        }
    }

    /// The next ready batch, whose ticket counts as running until `finish`.
    fn take(&mut self) -> Option<Batch> {
        let batch = self.ready.pop_front()?;
        self.running.push(batch.ticket);
        Some(batch)
    }

    /// All lists that `belongs` says yes to, from wherever they wait, as one running batch.
    fn extract(&mut self, belongs: impl Fn(&Registrant) -> bool) -> Option<Batch> {
        let mut found = Batch { ticket: u64::MAX, ..Batch::default() };
        for batch in self.waiting.iter_mut().chain(&mut self.ready) {
            let mut index = 0;
            while let Some((queue, _)) = batch.lists.get(index) {
                // SAFETY: Q2, its nodes are in the list.
                if belongs(unsafe { queue.as_ref() }.registrant()) {
                    found.lists.push(batch.lists.swap_remove(index));
                    found.ticket = found.ticket.min(batch.ticket);
                } else {
                    index += 1;
                }
            }
        }
        self.waiting.retain(|batch| !batch.is_empty());
        self.ready.retain(|batch| !batch.is_empty());
        if found.is_empty() {
            return None;
        }
        self.running.push(found.ticket);
        Some(found)
    }

    fn finish(&mut self, ticket: u64) {
        if let Some(index) = self.running.iter().position(|&running| running == ticket) {
            self.running.swap_remove(index);
        }
    }
}

impl Inner {
    /// Empties the retire queues: nodes that must wait, and callbacks, go into a new batch whose grace period is begun
    /// here; nodes that need not wait become ready.
    fn collect(&self, state: &mut State) {
        let mut limbo = Batch { ticket: state.begun + 1, ..Batch::default() };
        let mut ready = Batch { ticket: state.begun, ..Batch::default() };
        self.dirty.take(|queue, wait, done| {
            if wait.len() > 0 {
                limbo.lists.push((queue, wait));
            }
            if done.len() > 0 {
                ready.lists.push((queue, done));
            }
        });
        limbo.calls = std::mem::take(&mut *self.calls.lock());
        // They are taken from the end.
        limbo.calls.reverse();
        if !ready.is_empty() {
            state.ready.push_back(ready);
        }
        if !limbo.is_empty() {
            self.begin_grace_period(state);
            state.waiting.push_back(limbo);
        }
    }

    fn begin_grace_period(&self, state: &mut State) -> u64 {
        state.begun += 1;
        let pin = self.pin();
        Grace::begin(&self.grace, state.begun, pin.guard());
        // Out of this thread's bag, where nobody else would find it.
        pin.guard().flush();
        state.begun
    }

    /// Tries to bring the newest grace period to its end. Two advances of the epoch do, if no reader is in the way, and
    /// each needs a pin of its own, since a pin blocks its own second advance.
    fn advance(&self, state: &MutexGuard<'_, State>) {
        for _ in 0..2 {
            self.pin().guard().flush();
            if self.grace.completed() >= state.begun {
                return;
            }
            // Sessions pin anew at their next read.
            // ORDERING: Relaxed. That pin has all the fences it needs; this only asks for it.
            self.quiesce.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unlock(&self, state: MutexGuard<'_, State>) -> Left {
        let left = state.left();
        // Under the lock of the callbacks too, as in `call`: what was given meanwhile is not forgotten.
        let calls = self.calls.lock();
        // ORDERING: Relaxed, a hint to writers, that ends up right by the locks.
        self.unfinished.store(left != Left::Nothing || !calls.is_empty(), Ordering::Relaxed);
        drop(calls);
        if state.sleepers > 0 {
            self.finished.notify_all();
        }
        drop(state);
        if left != Left::Nothing {
            // The reclaimer thread may have found nothing while this thread had it.
            self.wake();
        }
        left
    }

    /// Destroys `batch`, or as much of it as `budget` allows, and all that its destructors leave behind of closed
    /// registries. Returns how much that was.
    fn run(&self, frame: &Running, mut batch: Batch, budget: usize) -> usize {
        let mut total = 0;
        let mut budget = budget;
        loop {
            let ticket = batch.ticket;
            // SAFETY: callers take it from `ready`, or `extract` it for a closed registrant, which no reader can be in:
            // guards and sessions borrow the registry.
            let (mut done, panics) = unsafe { batch.run(budget) };
            loop {
                let orphan = frame.orphans.borrow_mut().pop();
                let Some(orphan) = orphan else { break };
                // SAFETY: it was left to this run, and is in no list (N2).
                let queue = unsafe { orphan.as_ref() }.owner();
                let mut list = List::one(orphan);
                if done < budget {
                    // SAFETY: without references, it needs no grace period: no reader has reached it since its own.
                    done += unsafe { list.reclaim(queue, 1) };
                } else {
                    batch.lists.push((queue, list));
                }
            }
            total += done;
            if panics > 0 {
                // ORDERING: Relaxed, a statistic.
                self.panics.fetch_add(panics, Ordering::Relaxed);
            }
            let mut state = self.state.lock();
            let cascade = frame.cascade.take();
            if cascade {
                self.collect(&mut state);
            }
            let left_over = !batch.is_empty();
            if left_over {
                state.ready.push_front(batch);
            }
            // Nobody else may come by for what a closed registry left, or closed meanwhile.
            let next = if cascade || left_over { state.extract(Registrant::is_closed) } else { None };
            state.finish(ticket);
            self.unlock(state);
            match next {
                Some(more) => (batch, budget) = (more, usize::MAX),
                None => return total,
            }
        }
    }

    /// One round of reclamation: collects what was retired, tries to end grace periods, and destroys up to `budget`
    /// objects that are ready. Returns without waiting if another thread is at it. Does not destroy anything within a
    /// destructor or callback of the same domain, nor within an `Eq` under a shard lock. Returns what is left, and how
    /// many were destroyed.
    pub(crate) fn drive(&self, budget: usize) -> (Left, usize) {
        if shard_locked() {
            return (Left::Waiting, 0);
        }
        let round = Running::enter(self, |frame| {
            let Some(mut state) = self.state.try_lock() else {
                return (Left::Waiting, 0);
            };
            self.prepare(&mut state);
            let batch = if budget > 0 { state.take() } else { None };
            let mut left = self.unlock(state);
            let mut done = 0;
            if let Some(batch) = batch {
                done = self.run(frame, batch, budget);
                while done < budget {
                    let mut state = self.state.lock();
                    let Some(batch) = state.take() else { break };
                    drop(state);
                    done += self.run(frame, batch, budget - done);
                }
                left = self.state.lock().left();
            }
            (left, done)
        });
        round.unwrap_or((Left::Waiting, 0))
    }

    fn prepare(&self, state: &mut MutexGuard<'_, State>) {
        self.collect(state);
        if self.grace.completed() < state.begun {
            self.advance(state);
        }
        state.ripen(self.grace.completed());
    }

    /// Destroys all that a closed registrant has retired, without a grace period, which it no longer needs: nobody can
    /// be reading a registry that is gone.
    pub(crate) fn expedite(&self, registrant: NonNull<Registrant>) {
        // Within a destructor of this domain the thread's own loop, further up, will see to it.
        let _ = Running::enter(self, |frame| {
            let mut state = self.state.lock();
            self.collect(&mut state);
            let batch = state.extract(|found| NonNull::from(found) == registrant);
            self.unlock(state);
            if let Some(batch) = batch {
                self.run(frame, batch, usize::MAX);
            }
        });
    }

    /// Waits until everything retired before is destroyed, and helps.
    pub(crate) fn barrier(&self) {
        let mut state = self.state.lock();
        self.collect(&mut state);
        // Q1: what was retired before, but is in a queue that is still about to become dirty, can be collected after
        // this grace period. (It overlaps with that of what was collected just now.)
        let collectable = self.begin_grace_period(&mut state);
        let mut target = None;
        let mut pause = Pause::new();
        loop {
            self.prepare(&mut state);
            if target.is_none() && self.grace.completed() >= collectable {
                self.collect(&mut state);
                target = Some(state.begun);
            }
            while let Some(batch) = state.take() {
                self.unlock(state);
                let helped = Running::enter(self, |frame| self.run(frame, batch, usize::MAX));
                debug_assert!(helped.is_ok(), "a barrier within a callback is refused before");
                state = self.state.lock();
            }
            if target.is_some_and(|target| state.oldest_ticket().is_none_or(|oldest| oldest > target)) {
                self.unlock(state);
                return;
            }
            if !state.running.is_empty() {
                state.sleepers += 1;
                sync::wait_for(&self.finished, &mut state, pause.interval());
                state.sleepers -= 1;
            }
            self.unlock(state);
            pause.pause();
            state = self.state.lock();
        }
    }

    /// Begins a grace period that covers every critical section open now. Returns its number.
    pub(crate) fn start_poll(&self) -> u64 {
        let mut state = self.state.lock();
        self.begin_grace_period(&mut state)
    }

    /// Pushes a grace period on, without destroying anything. True if it is over.
    pub(crate) fn poll(&self, number: u64) -> bool {
        if self.grace.completed() >= number {
            return true;
        }
        if let Some(state) = self.state.try_lock() {
            self.advance(&state);
        }
        self.grace.completed() >= number
    }

    /// Runs all that is left, when no reader can be there any more.
    pub(crate) fn drain(&self) {
        let _ = Running::enter(self, |_| {
            loop {
                let mut state = self.state.lock();
                self.collect(&mut state);
                let mut batches: Vec<_> = std::mem::take(&mut state.ready).into();
                batches.extend(std::mem::take(&mut state.waiting));
                drop(state);
                if batches.is_empty() {
                    return;
                }
                for mut batch in batches {
                    // SAFETY: no reader is left, so that every grace period is over.
                    unsafe { batch.run(usize::MAX) };
                }
            }
        });
    }

    /// Objects that wait, or are ready, in batches; what is still in a retire queue is not counted.
    pub(crate) fn backlog(&self) -> usize {
        let state = self.state.lock();
        state.waiting.iter().chain(&state.ready).map(Batch::len).sum()
    }
}
