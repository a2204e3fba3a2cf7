//! Those who destroy what is ready, and those who wait for it.
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
use super::budget::Backlog;
use super::grace::Grace;
use super::retire::{List, Registrant, RetireQueue};
use super::stall::Stall;
use super::state::{Batch, Left, State};
use super::thread::{Running, shard_locked};
use crate::sync::atomic::Ordering;
use crate::sync::{self, MutexGuard, Pause};
use std::ptr::NonNull;

/// Objects that are destroyed between two accounts of it.
const ACCOUNT: usize = 4096;

impl Inner {
    /// Empties the retire queues: nodes that must wait, and callbacks, go into a new batch whose grace period is begun
    /// here; nodes that need not wait become ready.
    pub(super) fn collect(&self, state: &mut State) {
        let mut limbo = Batch { ticket: state.begun + 1, ..Batch::default() };
        let mut ready = Batch { ticket: state.begun, ..Batch::default() };
        self.dirty.take(|queue, wait, done| {
            if !wait.is_empty() {
                limbo.lists.push((queue, wait));
            }
            if !done.is_empty() {
                ready.lists.push((queue, done));
            }
        });
        limbo.calls = std::mem::take(&mut *self.calls.lock());
        // They are taken from the end.
        limbo.calls.reverse();
        if !ready.is_empty() {
            state.count(&ready);
            state.ready.push_back(ready);
        }
        if !limbo.is_empty() {
            state.count(&limbo);
            self.begin_grace_period(state);
            state.waiting.push_back(limbo);
        }
    }

    fn begin_grace_period(&self, state: &mut State) -> u64 {
        let number = state.begin_period(self.settings.clock.now());
        let pin = self.pin();
        Grace::begin(&self.grace, number, pin.guard());
        // Out of this thread's bag, where nobody else would find it.
        pin.guard().flush();
        number
    }

    /// Tries to bring the newest grace period to its end. Two advances of the epoch do, if no reader is in the way, and
    /// each needs a pin of its own, since a pin blocks its own second advance.
    fn advance(&self, state: &mut MutexGuard<'_, State>) {
        for _ in 0..2 {
            if self.grace.completed() >= state.begun {
                break;
            }
            self.pin().guard().flush();
            // Sessions pin anew at their next read.
            // ORDERING: Relaxed. That pin has all the fences it needs; this only asks for it.
            self.quiesce.fetch_add(1, Ordering::Relaxed);
        }
        state.ripen(self.grace.completed(), || self.settings.clock.now());
    }

    /// Looks at the grace period that everything waits for.
    fn stalled(&self, state: &mut State) -> Option<Stall> {
        // No report is handed out under a shard lock, within an `Eq`.
        let (number, begun) = state.awaited_period().filter(|_| !shard_locked())?;
        let lasted = self.settings.clock.now().saturating_sub(begun);
        let stall = state.watchdog.look(number, lasted, &self.readers)?;
        state.figures.stalls += 1;
        Some(stall)
    }

    fn unlock(&self, mut state: MutexGuard<'_, State>) -> Left {
        let left = state.left();
        let figures = &mut state.figures;
        figures.peak = figures.peak.max(figures.backlog);
        // Under the lock of the callbacks too, as in `push_call`: what was given meanwhile is not forgotten.
        let calls = self.calls.lock();
        // ORDERING: Relaxed, a hint to writers, that ends up right by the locks.
        self.unfinished.store(left != Left::Nothing || !calls.is_empty(), Ordering::Relaxed);
        drop(calls);
        if state.sleepers > 0 {
            self.finished.notify_all();
        }
        drop(state);
        if left != Left::Nothing {
            // The reclaimer may have found nothing while this thread had it.
            self.wake();
        }
        left
    }

    /// Destroys `batch`, or as much of it as `budget` allows, and all that its destructors leave behind of closed
    /// registries. Returns how much that was.
    fn run(&self, frame: &Running, mut batch: Batch, mut budget: usize) -> usize {
        let mut total = 0;
        loop {
            let ticket = batch.ticket;
            // SAFETY: callers take it from `ready`, or `extract` it for a closed registrant, which no reader can be in:
            // guards and sessions borrow the registry.
            let (mut done, panics) = unsafe { batch.run(budget.min(ACCOUNT)) };
            loop {
                let orphan = frame.orphans.borrow_mut().pop();
                let Some(orphan) = orphan else { break };
                // SAFETY: it was left to this run, and is in no list (N2).
                let queue = unsafe { orphan.as_ref() }.owner();
                let mut list = List::one(orphan);
                batch.uncounted += list.amount();
                if (done.objects as usize) < budget {
                    // SAFETY: without references, it needs no grace period: no reader has reached it since its own.
                    done += unsafe { list.reclaim(queue, 1) };
                } else {
                    batch.lists.push((queue, list));
                }
            }
            total += done.objects as usize;
            budget = budget.saturating_sub(done.objects as usize);
            let never_counted = batch.uncounted.min(done);
            batch.uncounted -= never_counted;
            done -= never_counted;
            if panics > 0 {
                // ORDERING: Relaxed, a statistic.
                self.panics.fetch_add(panics, Ordering::Relaxed);
            }
            let mut state = self.state.lock();
            state.figures.backlog -= done;
            // After that: what is counted in the figures has its place.
            self.budget.give_back(done);
            if budget > 0 && !batch.is_empty() {
                self.unlock(state);
                continue;
            }
            let cascade = frame.cascade.take();
            if cascade {
                self.collect(&mut state);
            }
            let left_over = !batch.is_empty();
            if left_over {
                let uncounted = std::mem::take(&mut batch.uncounted);
                self.budget.overrun(uncounted);
                state.figures.backlog += uncounted;
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
        self.round(budget, false)
    }

    /// As [`drive`](Self::drive), for one that will be back at once if grace periods are not over.
    pub(super) fn drive_expedited(&self, budget: usize) -> (Left, usize) {
        self.round(budget, true)
    }

    fn round(&self, budget: usize, expedited: bool) -> (Left, usize) {
        if shard_locked() {
            return (Left::Waiting, 0);
        }
        let mut stall = None;
        let round = Running::enter(self, |frame| {
            let Some(mut state) = self.state.try_lock() else {
                return (Left::Waiting, 0);
            };
            self.collect(&mut state);
            if expedited {
                state.expedite = state.begun;
            }
            self.advance(&mut state);
            stall = self.stalled(&mut state);
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
        self.report(stall);
        if round.is_ok() {
            self.after_round();
        }
        round.unwrap_or((Left::Waiting, 0))
    }

    /// Destroys all that a closed registrant has retired, and the `live` nodes that it still held, without a grace
    /// period, which they do not need: nobody can be reading a registry that is gone.
    pub(crate) fn expedite(&self, registrant: NonNull<Registrant>, mut live: Vec<(NonNull<RetireQueue>, List)>) {
        live.retain(|(_, list)| !list.is_empty());
        let mut kept = Some(live);
        let entered = Running::enter(self, |frame| {
            let mut state = self.state.lock();
            self.collect(&mut state);
            let mut batch = state.extract(|found| NonNull::from(found) == registrant);
            let live = kept.take().unwrap_or_default();
            if !live.is_empty() {
                let batch = batch.get_or_insert_with(|| state.running_batch());
                batch.uncounted += live.iter().map(|(_, list)| list.amount()).sum();
                batch.lists.extend(live);
            }
            self.unlock(state);
            if let Some(batch) = batch {
                self.run(frame, batch, usize::MAX);
            }
        });
        if entered.is_err() {
            // Within a destructor of this domain the thread's own loop, further up, will see to it.
            for (queue, list) in kept.into_iter().flatten() {
                self.budget.overrun(list.amount());
                // SAFETY: Q2, its nodes are in the list.
                let queue = unsafe { queue.as_ref() };
                // SAFETY: the nodes are the caller's, who unlinked them and keeps the registrant.
                unsafe { queue.push(list) };
            }
        } else {
            self.after_round();
        }
    }

    /// Waits until everything retired before is destroyed, and helps.
    pub(crate) fn barrier(&self) {
        let mut state = self.state.lock();
        self.collect(&mut state);
        // Q1: what was retired before, but is in a queue that is still about to become dirty, can be collected after
        // this grace period. (It overlaps with that of what was collected just now.)
        let collectable = self.begin_grace_period(&mut state);
        state.waiters += 1;
        let mut target = None;
        let mut pause = Pause::new();
        loop {
            self.collect(&mut state);
            self.advance(&mut state);
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
                state.waiters -= 1;
                self.unlock(state);
                return;
            }
            let stall = self.stalled(&mut state);
            if !state.running.is_empty() {
                state.sleepers += 1;
                sync::wait_for(&self.finished, &mut state, pause.interval());
                state.sleepers -= 1;
            }
            self.unlock(state);
            self.report(stall);
            pause.pause();
            state = self.state.lock();
        }
    }

    /// Begins a grace period that covers every critical section open now. Returns its number.
    pub(crate) fn start_poll(&self, expedited: bool) -> u64 {
        let mut state = self.state.lock();
        let number = self.begin_grace_period(&mut state);
        if expedited {
            state.expedite = number;
        }
        number
    }

    /// Pushes a grace period on, without destroying anything. True if it is over.
    pub(crate) fn poll(&self, number: u64) -> bool {
        let mut stall = None;
        if let Some(mut state) = self.state.try_lock() {
            self.advance(&mut state);
            stall = self.stalled(&mut state);
        }
        self.report(stall);
        self.grace.completed() >= number
    }

    /// Waits for a grace period that has begun, until `give_up` says so after a look at it.
    pub(super) fn wait_for(&self, number: u64, mut pause: impl FnMut(), mut give_up: impl FnMut() -> bool) -> bool {
        if self.poll(number) {
            return true;
        }
        self.state.lock().waiters += 1;
        let over = loop {
            pause();
            if self.poll(number) {
                break true;
            }
            if give_up() {
                break false;
            }
        };
        self.state.lock().waiters -= 1;
        over
    }

    /// Runs all that is left, when no reader can be there any more.
    pub(super) fn drain(&self) {
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

    /// All that waits to be destroyed, after a look at what was retired since the last. (It looks only where it may: see
    /// [`drive`](Self::drive).)
    pub(super) fn backlog(&self) -> Backlog {
        let mut state = self.state.lock();
        self.collect(&mut state);
        let backlog = state.figures.backlog;
        self.unlock(state);
        backlog
    }
}
