//! The way of a retired node from an open bag to its destructor.
//!
//! ```text
//!  open bags ─collect_dirty─▶ closed bags ─┐
//!  (one per shard,                         ├─collect─▶ waiting ─grace period over─▶ ready ─take─▶ running ─▶ destroyed
//!  under its lock)            callbacks ───┘           (batches, in the order       ▲             (parts, up
//!                                                      of their tickets)            │             to a budget)
//!                             orphans ──────collect─────────────────────────────────┘
//! ```
//!
//! A *batch* is what was collected at one time. Its *ticket* is the number of the grace period that it waits for. A
//! *part* is what a thread has taken from a batch to destroy. An *orphan* is a node that lost its last reference
//! after its grace period (see [`header`](super::header)).
//!
//! # The writer
//!
//! A writer retires nodes, and pays for that with a share of the reclamation.
//!
//! 1. It holds the shard lock. It unlinks a node and puts it into the shard's open bag.
//! 2. If it has opened the bag, and the shard is not dirty yet, it adds the shard to the domain's list of dirty shards.
//! 3. If the bag is full now, it closes the bag: it pushes the bag onto the domain's closed bags.
//! 4. It releases the shard lock. If it has marked the shard as dirty or has closed a bag, it goes on with 5. (In a
//!    domain where writers alone reclaim, other writes also go on now and then.)
//! 5. It wakes the reclaimer, if the domain has one.
//! 6. It makes at most one round, and none where a reclaimer thread, or a job that keeps up, does the work. In that
//!    round it destroys up to twice as many objects as its closed bags hold, or 256 if that is more. Beyond the soft
//!    mark of the backlog it makes up to four rounds, whatever else reclaims (see [`Inner::assist`]).
//!
//! A thread that drops a last handle after the grace period pushes the node onto the orphans, and a caller of
//! `Domain::call` queues a callback. Both then wake the reclaimer. Neither makes a round.
//!
//! # A round
//!
//! Any thread may make a round: a writer, the reclaimer, or a caller of `Domain::reclaim`. Several rounds may be in
//! step 6 at the same time.
//!
//! 1. It closes open bags of dirty shards. It holds the lock `collecting`, and takes one shard lock after the other.
//!    [`Collect`] says which bags it closes: with `All` it waits for these locks, with `Free` it does not (except
//!    for the shards of closed registries), and with `Closed` it skips this step.
//! 2. It takes the domain's lock. If another thread holds that lock, the round ends here, unless it is expedited.
//! 3. It takes all closed bags and callbacks. They become one batch, whose grace period begins now: after the bags
//!    were taken, and under the same lock. It takes all orphans. They become a batch that is ready at once.
//! 4. It tries to end the newest grace period: it advances the epoch up to twice, and asks the sessions for a
//!    quiescent state. It makes the batches ready whose grace period is over.
//! 5. It takes a part of the oldest ready batch, and releases the domain's lock. It wakes sleeping threads, and, if
//!    batches are left, the reclaimer.
//! 6. It destroys the part, without any lock. Then it takes the domain's lock, puts the rest of the part back, marks
//!    the part as finished, and releases the lock. Again it wakes sleeping threads, and, if batches are left, the
//!    reclaimer.
//! 7. It repeats 6 with further parts until it has destroyed as many objects as its budget allows, or nothing is
//!    ready.
//!
//! # The reclaimer: a thread, or a job on an executor
//!
//! The reclaimer makes rounds, so that writers need not, and so that the last removal is not left over.
//!
//! 1. It makes a round. It also closes open bags, but only those of shards whose lock is free.
//! 2. It calls the domain's reapers, if they are due.
//! 3. If batches are ready, it makes the next round at once. If batches only wait for grace periods, it naps: 50 µs
//!    at first, up to 2 ms, twice as long each time that a round has destroyed nothing. A wake ends the nap of a
//!    thread, not of a job.
//! 4. If nothing is left, the thread parks until it is woken, and the job ends. A later wake gives the executor a
//!    new job.
//!
//! In a domain of default settings, a backup thread does this less often: see [`backup`](super::backup).
//!
//! # The barrier
//!
//! A barrier waits until everything retired before its call is destroyed, and helps with that.
//!
//! 1. It closes the open bags of all dirty shards. It waits for another collector, and for shard locks.
//! 2. It takes the domain's lock. It makes a batch of what it finds, or else only begins a grace period. The number
//!    of that grace period is its *target*. Everything that was retired before has a ticket up to the target.
//! 3. It tries to end the newest grace period, as in step 4 of a round.
//! 4. It takes ready parts with a ticket up to the target, and destroys them without any lock. It takes nothing with
//!    a higher ticket, so other threads that retire more do not delay it.
//! 5. It returns if nothing with a ticket up to the target waits, is ready or is running, and the grace period is
//!    over.
//! 6. Otherwise, if other threads run parts, it sleeps until one of them finishes. It pauses, and goes on with 3.
//!
//! docs/ordering.md, "Why a barrier misses nothing", has the proof.
//!
//! # What wakes what
//!
//! | event | what it wakes | which thread does it |
//! |---|---|---|
//! | a shard becomes dirty, or a bag is closed | the reclaimer | the writer, without the lock ([`Inner::assist`]) |
//! | a last handle is dropped after the grace period | the reclaimer | the thread that drops it (`put_last`) |
//! | a callback is queued | the reclaimer | the caller ([`Inner::push_call`]) |
//! | the domain's lock is released while batches are left | the reclaimer | a round, a barrier ([`Inner::unlock`]) |
//! | a part is finished | sleepers on `finished`: barriers, ends of registries | the thread that ran it (`unlock`) |
//! | a grace period is to end | sessions, at their next read | a round, a barrier, a poll ([`Inner::advance`]) |
//! | a reader leaves its critical section | nothing | rounds, barriers and polls look again by themselves |
//!
//! # Locks
//!
//! - The lock `collecting` is taken before the locks of shards. Under a shard lock (within the `Eq` of a key) it is
//!   only tried.
//! - No shard lock is taken under the domain's lock. The reverse happens in one place: the `Eq` of a key, which runs
//!   under a shard lock, may poll a grace period, read figures, or drop a handle or a registry.
//! - No destructor, callback or other user code runs under any of these locks, except that `Eq` and what it calls.
//!
//! # Chains of destructors
//!
//! A destructor may put the last reference of another node. If that node is of the same domain, it is left to the
//! run that called the destructor, and belongs to the same part. So a chain of any length is destroyed by a loop,
//! without recursion, and a barrier waits for the whole chain.

#![allow(unsafe_code)]

use super::Inner;
use super::backlog::Backlog;
use super::bag::Bags;
use super::frame::{Orphan, Running};
use super::grace::Grace;
use super::header::shard_of;
use super::header::{Reclaimed, RegistryHeader, amount_of};
use super::stall::Stall;
use super::state::{Batch, Callback, DomainState, Pending};
use crate::node::Header;
use crate::sync::atomic::Ordering;
use crate::sync::{self, MutexGuard, Pause};
use crate::util::panics::contain;
use crate::util::reentrancy::shard_locked;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// The most objects that are destroyed between two looks at the state of the domain.
const PART: usize = 4096;

/// Which open bags a round closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Collect {
    /// None.
    Closed,
    /// Those of dirty shards whose lock is free.
    Free,
    /// Those of all dirty shards. The round waits for their locks.
    All,
}

impl Inner {
    /// Closes open bags of dirty shards. The caller holds no lock.
    pub(super) fn collect_dirty(&self, collect: Collect) {
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

    /// Takes the shards of a registry that has closed out of the dirty list, which would keep the registry alive.
    ///
    /// A registry may be dropped in the `Eq` of a key. Then this thread holds a shard lock for which another
    /// collector may wait. So it does not wait for that collector, and leaves the list to the next write to that
    /// shard.
    pub(crate) fn collect_dropped(&self) {
        let collecting = if shard_locked() { self.collecting.try_lock() } else { Some(self.collecting.lock()) };
        if collecting.is_some() {
            self.dirty.collect(false);
        }
    }

    /// Takes what was handed over since the last call. Orphans are ready at once. Closed bags and callbacks become a
    /// batch, whose grace period begins here. Returns the number of that grace period, or `None` if there is no such
    /// batch.
    pub(super) fn collect(&self, state: &mut DomainState) -> Option<u64> {
        let orphans = self.orphans.take();
        if !orphans.is_empty() {
            state.add_orphans(orphans);
        }
        let bags = self.closed.take();
        let (mut calls, last_call) = {
            let mut calls = self.calls.lock();
            self.count(&mut calls);
            (std::mem::take(&mut calls.queue), calls.last)
        };
        if bags.is_empty() && calls.is_empty() {
            return None;
        }
        // `Batch::calls` holds the next callback last.
        calls.reverse();
        // The grace period begins after the bags were taken: everything in the batch is unlinked by now. See
        // docs/ordering.md, "Grace periods".
        let ticket = self.begin_grace_period(state);
        state.waiting.push_back(Batch { ticket, bags, calls, last_call, ..Batch::default() });
        let figures = &mut state.figures;
        figures.batches += 1;
        figures.peak = figures.peak.max(self.waiting.get());
        Some(ticket)
    }

    /// Begins a grace period, and returns its number.
    pub(super) fn begin_grace_period(&self, state: &mut DomainState) -> u64 {
        let number = state.begin_period(self.settings.clock.now());
        let pin = self.pin();
        Grace::begin(&self.grace, number, pin.guard());
        // Move the marker from this thread's collector bag to the collector's queue, where any thread finds it.
        pin.guard().flush();
        number
    }

    /// Tries to end the newest grace period, and makes batches ready. If no reader is in the way, two advances of
    /// the epoch end it. Each advance needs a new pin, since a pin blocks its own second advance.
    pub(super) fn advance(&self, state: &mut MutexGuard<'_, DomainState>) {
        for _ in 0..2 {
            if self.grace.completed() >= state.begun {
                break;
            }
            self.pin().guard().flush();
            // Ask the sessions to pin again at their next read.
            // ORDERING: Relaxed. The session's new pin has the fences that it needs; this is only the request for
            // it.
            self.quiesce.fetch_add(1, Ordering::Relaxed);
        }
        let before = state.last_call_over;
        state.promote_ready(self.grace.completed(), || self.settings.clock.now());
        if state.last_call_over > before {
            // ORDERING: Release, pairs with the Acquire in `poll_call`: everything that was done in the critical sections
            // that the grace period waited for happens before the poll returns. Only the holder of the domain's lock
            // stores it, so it does not go back.
            self.last_call_over.store(state.last_call_over, Ordering::Release);
        }
    }

    /// Checks the oldest grace period that something waits for. Returns a report if it has stalled.
    pub(super) fn stalled(&self, state: &mut DomainState) -> Option<Stall> {
        // Not under a shard lock (within an `Eq`): the handler of reports is user code.
        let (number, begun) = state.awaited_period().filter(|_| !shard_locked())?;
        let lasted = self.settings.clock.now().saturating_sub(begun);
        let stall = state.watchdog.look(number, lasted, &self.readers)?;
        state.figures.stalls += 1;
        Some(stall)
    }

    /// Releases the domain's lock, and wakes what waits for that. Returns the stage of what is left.
    pub(super) fn unlock(&self, mut state: MutexGuard<'_, DomainState>) -> Pending {
        let left = state.left();
        // The lock of the callbacks orders this with `push_call`: the store below does not hide a callback that is
        // given at the same time.
        let calls = self.calls.lock();
        // ORDERING: Relaxed, both: hints. They are stored under the locks, so their last values are right.
        self.ready.store(left == Pending::Ready, Ordering::Relaxed);
        self.unfinished.store(left != Pending::Nothing || !calls.queue.is_empty(), Ordering::Relaxed);
        drop(calls);
        if state.sleepers > 0 {
            self.finished.notify_all();
        }
        // (Not under a shard lock, within an `Eq`: a waker is user code. The next round calls it.)
        let done = if shard_locked() { Vec::new() } else { state.take_done_barriers() };
        drop(state);
        for waiter in done {
            contain(|| waiter.wake());
        }
        if left != Pending::Nothing {
            // While this thread had the lock or a part, the reclaimer may have found nothing and gone to sleep.
            self.wake();
        }
        left
    }

    /// Destroys up to `budget` objects of `batch`. Also destroys the nodes whose last references the destructors
    /// put. Returns how many objects it has destroyed, and how much of the backlog that is.
    ///
    /// # Safety
    ///
    /// The batch's grace period is over, or its nodes are of closed registries. No reader can be in a closed
    /// registry, as guards and sessions borrow the registry.
    unsafe fn destroy(&self, frame: &Running, batch: &mut Batch, budget: usize) -> Destroyed {
        let mut done = Destroyed::default();
        while done.objects < budget {
            let left = budget - done.objects;
            if let Some(mut bag) = batch.bags.pop() {
                let (before, is_counted) = (bag.amount(), bag.is_counted);
                // SAFETY: Q2 (the bag holds a node that is not destroyed, so it keeps the shard alive).
                let registry = unsafe { bag.shard().as_ref() }.registry_pointer();
                // SAFETY: Q2 (the bag holds a node that is not destroyed, so it keeps the header alive).
                let this = unsafe { registry.as_ref() };
                this.enter();
                // SAFETY: the visit keeps the registry; the caller guarantees that no reader can reach the bag's
                // nodes.
                let reclaimed = unsafe { (this.operations.reclaim)(&mut bag, left) };
                let mut amount = before;
                amount -= bag.amount();
                done.objects += amount.objects as usize;
                if is_counted {
                    done.amount += amount;
                }
                if bag.is_empty() {
                    // SAFETY: the visit keeps the registry, and `reclaim` has taken all nodes from the bag.
                    let emptied = unsafe { (this.operations.recycle)(bag) };
                    self.bags.put(emptied);
                } else {
                    batch.bags.push_front(bag);
                }
                // SAFETY: pairs with the `enter` above; neither `this` nor `registry` is used afterwards.
                unsafe { RegistryHeader::leave(registry, reclaimed) };
            } else if let Some(orphan) = batch.orphans.pop() {
                // SAFETY: R2 (the batch owns the orphan).
                let amount = unsafe { amount_of(orphan) };
                // SAFETY: R2 (the batch owns the orphan, whose grace period is over).
                unsafe { destroy_orphan(orphan) };
                done.objects += 1;
                done.amount += amount;
            } else if let Some(call) = batch.calls.pop() {
                // A replaced table counts as no object, and with its bytes.
                done.objects += call.amount.objects as usize;
                done.amount += call.amount;
                done.panics += u64::from(call.run(self));
            } else {
                break;
            }
            // Go on with a chain of destructors: nodes and objects whose last references the destructors above have put.
            // The backlog does not count these, unless the budget is used up and they are left over.
            let next = || frame.orphans.borrow_mut().pop();
            while let Some(orphan) = next() {
                if done.objects >= budget {
                    self.leave_over(orphan, batch);
                    continue;
                }
                match orphan {
                    // SAFETY: R2 (the destructor has left the node to this run, which owns it; its own grace period was
                    // over before its table's reference was put).
                    Orphan::Node(node) => unsafe { destroy_orphan(node) },
                    Orphan::Object(object) => done.panics += u64::from(object.run(self)),
                }
                done.objects += 1;
            }
        }
        done
    }

    /// Adds an orphan of this run, for which the budget is used up, to the batch and the backlog.
    fn leave_over(&self, orphan: Orphan, batch: &mut Batch) {
        let amount = match &orphan {
            // SAFETY: R2 (the destructor has left the node to this run, which owns it).
            Orphan::Node(node) => unsafe { amount_of(*node) },
            Orphan::Object(_) => Backlog::one(0),
        };
        self.budget.charge_unchecked(amount);
        self.waiting.add(amount);
        match orphan {
            Orphan::Node(node) => batch.orphans.push(node),
            Orphan::Object(object) => batch.calls.push(Callback::of_object(object, amount)),
        }
    }

    /// Destroys up to `budget` objects of `batch`, a part that this thread has taken. Then destroys what the
    /// destructors have left behind of closed registries. Returns how many objects it has destroyed.
    fn run(&self, frame: &Running, mut batch: Batch, mut budget: usize) -> usize {
        let mut total = 0;
        loop {
            let number = batch.number;
            // SAFETY: the part comes from `ready`, so its grace period is over; or its nodes are of closed
            // registries (it comes from `extract` or `running_batch`).
            let done = frame.destroy(|| unsafe { self.destroy(frame, &mut batch, budget.min(PART)) });
            total += done.objects;
            budget = budget.saturating_sub(done.objects);
            self.waiting.subtract(done.amount);
            // The place is given back after the subtraction, so that everything counted in `waiting` has its place.
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
            // Perhaps no other thread ever looks for what a closed registry has left, even if it was closed only a
            // moment ago.
            // - If the thread that ends the registry takes this lock first: it has closed the registry, so
            //   `is_closed` returns true here, and this thread takes the rest.
            // - If this thread takes the lock first: the other thread finds in the queues what was put back here.
            let next = if has_cascade || has_closed { state.extract(is_closed) } else { None };
            state.finish(number);
            self.unlock(state);
            match next {
                Some(more) => (batch, budget) = (more, usize::MAX),
                None => return total,
            }
        }
    }

    /// Makes a round. It closes open bags whose shard lock is free, tries to end grace periods, and destroys up to
    /// `budget` objects that are ready. Returns what is left, and how many objects it has destroyed.
    ///
    /// Destroys nothing if another thread holds the domain's lock, in a destructor or callback of the same domain,
    /// and in an `Eq` under a shard lock.
    pub(crate) fn try_reclaim(&self, budget: usize) -> (Pending, usize) {
        self.round(budget, Collect::Free, false)
    }

    /// Makes a round for a caller that calls again at once if grace periods are not over. Closes all open bags.
    pub(super) fn try_reclaim_expedited(&self, budget: usize) -> (Pending, usize) {
        self.round(budget, Collect::All, true)
    }

    /// Makes a round for `Domain::reclaim`. Closes all open bags. Returns how many objects it has destroyed.
    pub(super) fn reclaim(&self, budget: usize) -> usize {
        self.round(budget, Collect::All, false).1
    }

    /// Makes a round: see the module. Returns what is left, and how many objects it has destroyed.
    pub(super) fn round(&self, budget: usize, collect: Collect, expedited: bool) -> (Pending, usize) {
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
            // A shard that is still in the list has a bag to be collected: its lock was taken.
            (if self.dirty.is_empty() { left } else { left.max(Pending::Waiting) }, done)
        });
        self.report(stall);
        if round.is_ok() {
            self.after_round();
        }
        round.unwrap_or((Pending::Waiting, 0))
    }

    /// Destroys everything that a closed registry has retired, and the nodes in `live`, which were still in it. They
    /// need no grace period: a closed registry has no readers.
    pub(crate) fn destroy_closed(&self, registry: NonNull<RegistryHeader>, live: Bags) {
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
            // This thread is already reclaiming in this domain. `Running::enter` has told that run that there is
            // more to do, so hand the nodes over to it.
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

    /// Waits until no other thread has nodes of a closed registry in hand. So everything that the registry has
    /// retired is destroyed when its drop returns.
    ///
    /// Waits for a second at most, as the destructors of those threads may wait for what the caller holds. Does not
    /// wait where such a destructor may be waiting for this thread.
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

    /// Waits until everything retired before this call is destroyed, and helps: see the module.
    pub(crate) fn barrier(&self) {
        // What was retired before is in the open bag of a dirty shard, or in the hands of a collector, for which
        // this waits (Q1). Or it was handed over already.
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
                    // In the frame: this may call the executor, and a job that it runs at once must not wait for the
                    // part that this thread has in hand.
                    self.unlock(state);
                    self.run(frame, batch, usize::MAX)
                });
                debug_assert!(helped.is_ok(), "`Domain::barrier` refuses calls within a destructor or callback");
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

    /// Collects what was handed over, and tries to end the newest grace period, without running anything. Returns
    /// whether something is ready.
    pub(super) fn press_on(&self) -> bool {
        if let Some(mut state) = self.state.try_lock() {
            self.collect(&mut state);
            self.advance(&mut state);
            self.unlock(state);
        }
        // ORDERING: Relaxed, a hint.
        self.ready.load(Ordering::Relaxed)
    }

    /// Destroys and runs everything that is left, at the end of the domain, which has no readers any more.
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
                    // SAFETY: the domain has no readers any more, so every grace period is over.
                    frame.destroy(|| unsafe { self.destroy(frame, &mut batch, usize::MAX) });
                }
            }
        });
    }

    /// Returns the amount that waits to be destroyed. Collects first what was retired since the last round. Within
    /// an `Eq`, under a shard lock, it leaves the open bags alone.
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

/// The result of [`Inner::destroy`].
#[derive(Default)]
struct Destroyed {
    /// The objects destroyed, including those of chains.
    objects: usize,
    /// The part of the backlog that is destroyed.
    amount: Backlog,
    /// The number of callbacks that panicked.
    panics: u64,
}

fn is_closed(registry: NonNull<RegistryHeader>) -> bool {
    // SAFETY: Q2 (callers have a node of the registry that is not destroyed).
    unsafe { registry.as_ref() }.is_closed()
}

/// Destroys an orphan.
///
/// # Safety
///
/// The caller owns the node (R2), whose grace period is over.
unsafe fn destroy_orphan(orphan: NonNull<Header>) {
    // SAFETY: R2 (the caller owns the node, so it is not freed).
    let shard = unsafe { shard_of(orphan) };
    // SAFETY: Q2 (the node is not destroyed, so it keeps its shard alive).
    let registry = unsafe { shard.as_ref() }.registry_pointer();
    // SAFETY: Q2 (the node is not destroyed, so it keeps the header alive).
    let this = unsafe { registry.as_ref() };
    this.enter();
    // SAFETY: R2 (the caller owns the node), and the visit keeps the registry.
    let panics = unsafe { (this.operations.destroy)(orphan) };
    // SAFETY: pairs with the `enter` above; neither `this` nor `registry` is used afterwards.
    unsafe { RegistryHeader::leave(registry, Reclaimed { destroyed: 1, panics }) };
}
