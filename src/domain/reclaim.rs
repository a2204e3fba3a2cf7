//! The way from a closed bag to the destructor: who does what, in which order, and what wakes what.
//!
//! ```text
//!  open bags ──collect_dirty──▶ closed bags ─┐
//!  (one a shard, under its lock)             ├─collect──▶ waiting ──grace period over──▶ ready ──take──▶ running ──▶ destroyed
//!                               callbacks ───┘            (batches, by the number          (parts, of a budget)
//!                               orphans ─────────────────▶ of their grace period)
//! ```
//!
//! - **A writer** unlinks a node under the lock of its shard and puts it into the shard's open bag. The first node in a bag marks
//!   the shard as dirty. When the bag is full, the writer closes it: it pushes the bag onto the domain's closed bags. After
//!   the lock it does its share: one round of reclamation, in which it destroys twice as many objects as it closed.
//! - **A round** takes the closed bags, the callbacks and the orphans under the domain's lock. What must wait becomes a batch,
//!   whose grace period begins. The round pushes the newest grace period on, makes batches ready whose grace period is over,
//!   takes a part of those, and destroys it without any lock.
//! - **The reclaimer thread, and a job on an executor**, make rounds in which open bags are collected as well: as long as
//!   something is ready at once, else after a nap. A writer, or the drop of a last handle, wakes them when something begins
//!   to wait. A round that leaves something wakes them too.
//! - **A barrier** collects the open bags of all dirty shards, and waits for their locks. Then it begins a grace period,
//!   whose number is its target: what was retired before has a ticket up to that. It destroys what is ready up to its
//!   target, and nothing beyond it, and sleeps while other threads destroy the rest. Each thread that finishes a part
//!   notifies the sleepers.
//!
//! No lock of a shard is taken under the domain's lock, nor the reverse. The lock for collecting is taken before either. No
//! destructor, callback or other code of the user's runs under any of them.
//!
//! A destructor may put the last handle of a further node. Such a node is left to the run that the destructor is part
//! of, and belongs to the same batch: a barrier waits for whole chains of them, and a chain of any length is destroyed
//! by a loop and not by recursion.

#![allow(unsafe_code)]

use super::Inner;
use super::backlog::Backlog;
use super::bag::Bags;
use super::grace::Grace;
use super::header::shard_of;
use super::header::{Reclaimed, RegistryHeader, amount_of};
use super::stall::Stall;
use super::state::{Batch, Pending, State};
use super::thread::Running;
use crate::node::Header;
use crate::sync::atomic::Ordering;
use crate::sync::{self, MutexGuard, Pause};
use crate::util::panics::contain;
use crate::util::reentrancy::shard_locked;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// Objects that are destroyed between two looks at the state of the domain.
const PART: usize = 4096;

/// Which open bags a round collects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Collect {
    /// None.
    Closed,
    /// Those of shards whose lock is free.
    Free,
    /// All.
    All,
}

impl Inner {
    /// Has open bags closed. Not under any lock.
    fn collect_dirty(&self, collect: Collect) {
        debug_assert!(!shard_locked());
        if collect == Collect::Closed || self.dirty.is_empty() && collect == Collect::Free {
            return;
        }
        let collecting = match collect {
            Collect::All => Some(self.collecting.lock()),
            _ => self.collecting.try_lock(),
        };
        if collecting.is_some() {
            self.dirty.collect(collect == Collect::All);
        }
    }

    /// Takes the shards of a registry that is closed out of the dirty list, which would keep it.
    ///
    /// In the `Eq` of a key, under the lock of a shard for which another collector may wait, it does not wait for that one. The
    /// next write to that shard sees to it.
    pub(crate) fn collect_dropped(&self) {
        let collecting = if shard_locked() { self.collecting.try_lock() } else { Some(self.collecting.lock()) };
        if collecting.is_some() {
            self.dirty.collect(false);
        }
    }

    /// Takes what was handed over since the last look: what must wait goes into a new batch whose grace period begins here;
    /// what need not wait becomes ready. Returns the number of that grace period, if there is one.
    pub(super) fn collect(&self, state: &mut State) -> Option<u64> {
        let orphans = self.orphans.take();
        if !orphans.is_empty() {
            state.add_orphans(orphans);
        }
        let bags = self.closed.take();
        let mut calls = std::mem::take(&mut *self.calls.lock());
        if bags.is_empty() && calls.is_empty() {
            return None;
        }
        calls.reverse();
        let ticket = self.begin_grace_period(state);
        state.waiting.push_back(Batch { ticket, bags, calls, ..Batch::default() });
        let figures = &mut state.figures;
        figures.batches += 1;
        figures.peak = figures.peak.max(self.waiting.get());
        Some(ticket)
    }

    fn begin_grace_period(&self, state: &mut State) -> u64 {
        let number = state.begin_period(self.settings.clock.now());
        let pin = self.pin();
        Grace::begin(&self.grace, number, pin.guard());
        // Out of this thread's bag, where no other thread would find it.
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
        state.promote_ready(self.grace.completed(), || self.settings.clock.now());
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

    fn unlock(&self, state: MutexGuard<'_, State>) -> Pending {
        let left = state.left();
        // Under the lock of the callbacks too, as in `push_call`: what was given meanwhile is not forgotten.
        let calls = self.calls.lock();
        // ORDERING: Relaxed, both: hints, that end up right by the locks.
        self.ready.store(left == Pending::Ready, Ordering::Relaxed);
        self.unfinished.store(left != Pending::Nothing || !calls.is_empty(), Ordering::Relaxed);
        drop(calls);
        if state.sleepers > 0 {
            self.finished.notify_all();
        }
        drop(state);
        if left != Pending::Nothing {
            // The reclaimer may have found nothing while this thread had it.
            self.wake();
        }
        left
    }

    /// Destroys up to `budget` objects of `batch`, and the nodes whose last handles their destructors put. Returns how
    /// many it destroyed, and how much that is of the backlog.
    ///
    /// # Safety
    ///
    /// The batch's grace period is over, or its nodes are of closed registries, which no reader can be in: guards and
    /// sessions borrow the registry.
    unsafe fn destroy(&self, frame: &Running, batch: &mut Batch, budget: usize) -> Destroyed {
        let mut done = Destroyed::default();
        while done.objects < budget {
            let left = budget - done.objects;
            if let Some(mut bag) = batch.bags.pop() {
                let (before, is_counted) = (bag.amount(), bag.is_counted);
                // SAFETY: Q2, the bag holds a node that is not destroyed.
                let registry = unsafe { bag.shard().as_ref() }.registry_pointer();
                // SAFETY: as said.
                let this = unsafe { registry.as_ref() };
                this.enter();
                // SAFETY: the visit keeps the registry; the caller's promise.
                let reclaimed = unsafe { (this.operations.reclaim)(&mut bag, left) };
                let mut amount = before;
                amount -= bag.amount();
                done.objects += amount.objects as usize;
                if is_counted {
                    done.amount += amount;
                }
                if bag.is_empty() {
                    // SAFETY: the visit keeps the registry, and `reclaim` is through with the bag.
                    let emptied = unsafe { (this.operations.recycle)(bag) };
                    self.bags.put(emptied);
                } else {
                    batch.bags.push_front(bag);
                }
                // SAFETY: pairs with `enter`.
                unsafe { RegistryHeader::leave(registry, reclaimed) };
            } else if let Some(orphan) = batch.orphans.pop() {
                // SAFETY: the batch owns it.
                let amount = unsafe { amount_of(orphan) };
                // SAFETY: as said.
                unsafe { destroy_orphan(orphan) };
                done.objects += 1;
                done.amount += amount;
            } else if let Some(call) = batch.calls.pop() {
                done.panics += u64::from(contain(call.run));
                // (A table counts by its bytes alone.)
                done.objects += call.amount.objects as usize;
                done.amount += call.amount;
            } else {
                break;
            }
            // A chain of destructors goes on here. Its nodes are counted for none of the backlog, unless they are left over.
            loop {
                let orphan = frame.orphans.borrow_mut().pop();
                let Some(orphan) = orphan else { break };
                if done.objects >= budget {
                    // SAFETY: it was left to this run, which owns it.
                    let amount = unsafe { amount_of(orphan) };
                    self.budget.charge_unchecked(amount);
                    self.waiting.add(amount);
                    batch.orphans.push(orphan);
                } else {
                    // SAFETY: it was left to this run, which owns it. It needs no grace period: no reader has reached it since
                    // its own.
                    unsafe { destroy_orphan(orphan) };
                    done.objects += 1;
                }
            }
        }
        done
    }

    /// Destroys up to `budget` objects of `batch`, a part that was taken, and what its destructors leave behind of closed
    /// registries. Returns how many objects that was.
    fn run(&self, frame: &Running, mut batch: Batch, mut budget: usize) -> usize {
        let mut total = 0;
        loop {
            let number = batch.number;
            // SAFETY: callers take it from `ready`, or `extract` it for a closed registry.
            let done = frame.destroy(|| unsafe { self.destroy(frame, &mut batch, budget.min(PART)) });
            total += done.objects;
            budget = budget.saturating_sub(done.objects);
            self.waiting.subtract(done.amount);
            // After that: what is counted as waiting has its place.
            self.budget.give_back(done.amount);
            if done.panics > 0 {
                // ORDERING: Relaxed, a statistic.
                self.panics.fetch_add(done.panics, Ordering::Relaxed);
            }
            if budget > 0 && !batch.is_empty() {
                continue;
            }
            let mut state = self.state.lock();
            let has_cascade = frame.cascade.take();
            if has_cascade {
                self.collect(&mut state);
            }
            let has_closed = batch.has_any(is_closed);
            if !batch.is_empty() {
                state.put_back(batch);
            }
            // No other thread may ever come by for what a closed registry left, or closed meanwhile. Its end looks in the queues
            // after it has closed it, and under this lock: it finds what is put back before, and this finds it closed after.
            let next = if has_cascade || has_closed { state.extract(is_closed) } else { None };
            state.finish(number);
            self.unlock(state);
            match next {
                Some(more) => (batch, budget) = (more, usize::MAX),
                None => return total,
            }
        }
    }

    /// One round of reclamation by a writer: of what was handed over. See [`try_reclaim`](Self::try_reclaim).
    pub(super) fn try_reclaim_closed(&self, budget: usize, expedited: bool) -> (Pending, usize) {
        self.round(budget, Collect::Closed, expedited)
    }

    /// One round of reclamation: collects what was retired, tries to end grace periods, and destroys up to `budget`
    /// objects that are ready. Returns without waiting if another thread is at it. Does not destroy anything within a
    /// destructor or callback of the same domain, nor within an `Eq` under a shard lock. Returns what is left, and how
    /// many were destroyed.
    pub(crate) fn try_reclaim(&self, budget: usize) -> (Pending, usize) {
        self.round(budget, Collect::Free, false)
    }

    /// The same, for a caller that will be back at once if grace periods are not over: it collects all open bags.
    pub(super) fn try_reclaim_expedited(&self, budget: usize) -> (Pending, usize) {
        self.round(budget, Collect::All, true)
    }

    /// The same, on request: it collects all open bags.
    pub(super) fn reclaim(&self, budget: usize) -> usize {
        self.round(budget, Collect::All, false).1
    }

    fn round(&self, budget: usize, collect: Collect, expedited: bool) -> (Pending, usize) {
        if shard_locked() {
            return (Pending::Waiting, 0);
        }
        let mut stall = None;
        let round = Running::enter(self, |frame| {
            self.collect_dirty(collect);
            let state = if expedited { Some(self.state.lock()) } else { self.state.try_lock() };
            let Some(mut state) = state else { return (Pending::Waiting, 0) };
            self.collect(&mut state);
            if expedited {
                state.expedite = state.begun;
            }
            self.advance(&mut state);
            stall = self.stalled(&mut state);
            let mut batch = if budget > 0 { state.take(u64::MAX, budget) } else { None };
            let mut left = self.unlock(state);
            let mut done = 0;
            while let Some(part) = batch {
                done += self.run(frame, part, budget - done);
                let mut state = self.state.lock();
                batch = if done < budget { state.take(u64::MAX, budget - done) } else { None };
                left = state.left();
            }
            // A shard whose lock was taken has a bag that is still to be collected.
            (if self.dirty.is_empty() { left } else { left.max(Pending::Waiting) }, done)
        });
        self.report(stall);
        if round.is_ok() {
            self.after_round();
        }
        round.unwrap_or((Pending::Waiting, 0))
    }

    /// Destroys all that a closed registry has retired, and the nodes in `live`, which it still held, without a grace
    /// period, which they do not need: nothing can be reading a registry that is gone.
    pub(crate) fn expedite(&self, registry: NonNull<RegistryHeader>, live: Bags) {
        let mut kept = Some(live);
        let entered = Running::enter(self, |frame| {
            let mut state = self.state.lock();
            self.collect(&mut state);
            let mut batch = state.extract(|found| found == registry);
            let live = kept.take().unwrap_or_default();
            if !live.is_empty() {
                batch.get_or_insert_with(|| state.running_batch()).bags.append(live);
            }
            self.unlock(state);
            if let Some(batch) = batch {
                self.run(frame, batch, usize::MAX);
            }
        });
        if entered.is_err() {
            // Within a destructor of this domain the thread's own loop, further up, will see to it.
            let mut bags = kept.unwrap_or_default();
            while let Some(mut bag) = bags.pop() {
                if !std::mem::replace(&mut bag.is_counted, true) {
                    self.budget.charge_unchecked(bag.amount());
                    self.waiting.add(bag.amount());
                }
                self.closed.push(bag);
            }
        } else {
            self.after_round();
        }
    }

    /// Waits for threads that have nodes of a closed registry in hand: what was retired before is destroyed when the registry's
    /// drop returns. For a second at the most, as their destructors may wait for what the caller has; and not where such a
    /// destructor may be waiting for this thread.
    pub(crate) fn wait_for_hands(&self, registry: NonNull<RegistryHeader>) {
        if shard_locked() || Running::is_anywhere() {
            return;
        }
        let since = Instant::now();
        let mut state = self.state.lock();
        while state.is_in_hand(registry) && (cfg!(loom) || since.elapsed() < Duration::from_secs(1)) {
            state.sleepers += 1;
            sync::wait_for(&self.finished, &mut state, Duration::from_millis(1));
            state.sleepers -= 1;
        }
    }

    /// Waits until everything retired before is destroyed, and helps.
    ///
    /// Its own work is bounded by that: it takes nothing with a ticket beyond its target.
    pub(crate) fn barrier(&self) {
        // What was retired before is in an open bag of a shard that is dirty, or in the hands of a collector, for which this
        // waits (Q1); or it was handed over already.
        self.collect_dirty(Collect::All);
        let mut state = self.state.lock();
        let begun = self.collect(&mut state);
        let target = begun.unwrap_or_else(|| self.begin_grace_period(&mut state));
        state.waiters += 1;
        let mut pause = Pause::new();
        loop {
            self.advance(&mut state);
            while let Some(batch) = state.take(target, PART) {
                let helped = Running::enter(self, |frame| {
                    // In the frame: an executor that is woken must not wait for the batch that is in hand here.
                    self.unlock(state);
                    self.run(frame, batch, usize::MAX)
                });
                debug_assert!(helped.is_ok(), "a barrier within a callback is refused before");
                state = self.state.lock();
            }
            if state.is_done(target) && self.grace.completed() >= target {
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

    /// Has what was given to [`call`](super::Domain::call) and the like begin its grace period, and pushes that on, without
    /// running anything. True if something is ready.
    pub(super) fn press_on(&self) -> bool {
        if let Some(mut state) = self.state.try_lock() {
            self.collect(&mut state);
            self.advance(&mut state);
            self.unlock(state);
        }
        // ORDERING: Relaxed, a hint.
        self.ready.load(Ordering::Relaxed)
    }

    /// Runs all that is left, when no reader can be there any more.
    pub(super) fn drain(&self) {
        let _ = Running::enter(self, |frame| {
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
                    frame.destroy(|| unsafe { self.destroy(frame, &mut batch, usize::MAX) });
                }
            }
        });
    }

    /// All that waits to be destroyed, after a look at what was retired since the last. (It looks only where it may: see
    /// [`try_reclaim`](Self::try_reclaim).)
    pub(super) fn backlog(&self) -> Backlog {
        if !shard_locked() {
            self.collect_dirty(Collect::All);
        }
        let mut state = self.state.lock();
        self.collect(&mut state);
        self.unlock(state);
        self.waiting.get()
    }
}

/// What a run has done.
#[derive(Default)]
struct Destroyed {
    /// Objects, those of chains among them.
    objects: usize,
    /// What of the backlog is done with.
    amount: Backlog,
    /// Callbacks that panicked.
    panics: u64,
}

fn is_closed(registry: NonNull<RegistryHeader>) -> bool {
    // SAFETY: Q2, callers have a node of it that is not destroyed.
    unsafe { registry.as_ref() }.is_closed()
}

/// # Safety
///
/// The caller owns the node (R2), whose grace period is over.
unsafe fn destroy_orphan(orphan: NonNull<Header>) {
    // SAFETY: the caller owns it.
    let shard = unsafe { shard_of(orphan) };
    // SAFETY: Q2, the node is not destroyed.
    let registry = unsafe { shard.as_ref() }.registry_pointer();
    // SAFETY: as said.
    let this = unsafe { registry.as_ref() };
    this.enter();
    // SAFETY: the caller owns it, and the visit keeps the registry.
    let panics = unsafe { (this.operations.destroy)(orphan) };
    // SAFETY: pairs with `enter`.
    unsafe { RegistryHeader::leave(registry, Reclaimed { destroyed: 1, panics }) };
}
