//! What the domain's lock guards: the batches and their stages, the grace periods under way, and the statistics.

#![allow(unsafe_code)]

use super::Inner;
use super::backlog::Backlog;
use super::bag::Bags;
use super::futures::Waiter;
use super::header::RegistryHeader;
use super::header::shard_of;
use super::histogram::Histogram;
use super::stall::Watchdog;
use crate::node::Header;
use crate::sync;
use crate::util::panics::contain;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::time::Duration;

/// What waits for a grace period apart from the nodes of registries: a closure, from
/// [`Domain::call`](crate::Domain::call) or [`Inner::defer`](super::Inner::defer), or an [`Object`].
pub(crate) struct Callback {
    work: Work,
    /// What it counts for in the backlog.
    pub(crate) amount: Backlog,
}

enum Work {
    Call(Box<dyn FnOnce() + Send>),
    Object(Object),
}

impl Callback {
    pub(crate) fn new(f: impl FnOnce() + Send + 'static, amount: Backlog) -> Self {
        Callback { work: Work::Call(Box::new(f)), amount }
    }

    pub(crate) fn of_object(object: Object, amount: Backlog) -> Self {
        Callback { work: Work::Object(object), amount }
    }

    /// Runs it, for a run of `domain`. Returns how many panics it has contained.
    pub(super) fn run(self, domain: &Inner) -> u32 {
        match self.work {
            Work::Call(call) => contain(call),
            Work::Object(object) => object.run(domain),
        }
    }
}

/// A retired object that is in an allocation of its own, with what to do with it after its grace period.
pub(crate) struct Object {
    object: NonNull<()>,
    run: unsafe fn(NonNull<()>, &Inner),
}

// SAFETY: the creator of an `Object` guarantees that any thread may run it.
unsafe impl Send for Object {}

impl Object {
    /// # Safety
    ///
    /// Any thread may call `run` with `object` and its domain, once, after the grace period of the object.
    pub(crate) unsafe fn new(object: NonNull<()>, run: unsafe fn(NonNull<()>, &Inner)) -> Self {
        Object { object, run }
    }

    /// Runs it, for a run of `domain`. Returns how many panics it has contained.
    pub(super) fn run(self, domain: &Inner) -> u32 {
        // SAFETY: the creator of the `Object` guarantees that `run` may be called once; this consumes the `Object`.
        // The caller is a run of the domain, for which the object's grace period is over.
        contain(|| unsafe { (self.run)(self.object, domain) })
    }
}

/// The queue of callbacks that are in no batch yet.
#[derive(Default)]
pub(crate) struct Calls {
    /// What the newest of them count for, as far as it was not added to `Inner::waiting` yet.
    pub(super) uncounted: Backlog,
    /// The oldest first.
    pub(super) queue: Vec<Callback>,
    /// The number of callbacks that were ever queued. It is also the number of the newest one.
    pub(super) last: u64,
}

/// Retired objects that wait for one grace period, and then to be destroyed. Also a *part* of such a batch, which a
/// thread has taken to destroy.
#[derive(Default)]
pub(crate) struct Batch {
    /// The number of its grace period. For orphans, the newest grace period that had begun when they were collected.
    pub(super) ticket: u64,
    /// Identifies the part while a thread has it in hand.
    pub(super) number: u64,
    pub(super) bags: Bags,
    /// In reverse order: the last one runs first.
    pub(super) calls: Vec<Callback>,
    /// The number of the newest callback that was queued before the batch was made.
    pub(super) last_call: u64,
    /// Nodes that wait for no grace period: theirs is over.
    pub(super) orphans: Vec<NonNull<Header>>,
}

// SAFETY: bags and callbacks are `Send`. The batch owns its orphans, and every registry requires that its keys and
// values are `Send` and `Sync`.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.bags.is_empty() && self.calls.is_empty() && self.orphans.is_empty()
    }

    /// Returns whether the batch holds a node whose registry satisfies `belongs`.
    pub(super) fn has_any(&self, belongs: impl Fn(NonNull<RegistryHeader>) -> bool) -> bool {
        // SAFETY: Q2 (a bag in a batch holds a node that is not destroyed).
        self.bags.iter().any(|bag| belongs(unsafe { bag.shard().as_ref() }.registry_pointer()))
            || self.orphans.iter().any(|&orphan| {
                // SAFETY: the batch owns the orphan, so it is not freed.
                let shard = unsafe { shard_of(orphan) };
                // SAFETY: Q2 (the orphan is not destroyed).
                belongs(unsafe { shard.as_ref() }.registry_pointer())
            })
    }

    /// Takes about `budget` objects out, in order: whole bags, and at least one. If no bag is left, orphans. If no
    /// orphan is left either, callbacks.
    fn split_off(&mut self, budget: usize) -> Batch {
        let mut part = Batch { ticket: self.ticket, ..Batch::default() };
        let mut taken = 0;
        while taken < budget {
            let Some(bag) = self.bags.pop() else { break };
            taken += bag.amount().objects as usize;
            part.bags.push(bag);
        }
        if taken == 0 && !self.orphans.is_empty() {
            taken = budget.min(self.orphans.len());
            part.orphans = self.orphans.split_off(self.orphans.len() - taken);
        }
        if taken == 0 {
            part.calls = self.calls.split_off(self.calls.len().saturating_sub(budget));
        }
        part
    }

    /// Puts the rest of a part back, before everything else.
    fn put_back(&mut self, mut part: Batch) {
        let mut bags = std::mem::take(&mut part.bags);
        bags.append(std::mem::take(&mut self.bags));
        self.bags = bags;
        self.calls.append(&mut part.calls);
        self.orphans.append(&mut part.orphans);
    }
}

/// A part that a thread is destroying, as the other threads see it.
pub(super) struct InHand {
    ticket: u64,
    number: u64,
    /// The registries of its first nodes. These addresses are compared, and never dereferenced.
    registries: [Option<NonNull<RegistryHeader>>; 2],
    /// The part may also hold nodes of other registries.
    is_mixed: bool,
}

// SAFETY: the addresses are compared, and never dereferenced.
unsafe impl Send for InHand {}

impl InHand {
    fn of(part: &Batch) -> Self {
        let mut hand = InHand { ticket: part.ticket, number: part.number, registries: [None; 2], is_mixed: false };
        // SAFETY: Q2 (a bag in a part holds a node that is not destroyed).
        let of_bags = part.bags.iter().map(|bag| unsafe { bag.shard().as_ref() }.registry_pointer());
        let of_orphans = part.orphans.iter().map(|&orphan| {
            // SAFETY: the part owns the orphan, so it is not freed.
            let shard = unsafe { shard_of(orphan) };
            // SAFETY: Q2 (the orphan is not destroyed).
            unsafe { shard.as_ref() }.registry_pointer()
        });
        for registry in of_bags.chain(of_orphans) {
            let free = hand.registries.iter_mut().find(|known| known.is_none_or(|known| known == registry));
            match free {
                Some(place) => *place = Some(registry),
                None => {
                    hand.is_mixed = true;
                    break;
                }
            }
        }
        hand
    }

    /// Returns whether the part may hold nodes of `registry`.
    fn may_hold(&self, registry: NonNull<RegistryHeader>) -> bool {
        self.is_mixed || self.registries.contains(&Some(registry))
    }
}

/// A grace period that has begun, and whose end no thread has noticed yet.
struct Period {
    number: u64,
    /// When it began, by the domain's clock.
    begun: Duration,
}

/// What is left to do after a round of reclamation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Pending {
    /// Nothing waits.
    Nothing,
    /// Something waits, and nothing can be destroyed now.
    Waiting,
    /// There are batches that can be destroyed now.
    Ready,
}

/// The counts behind [`DomainStats`](crate::DomainStats).
#[derive(Default)]
pub(crate) struct Figures {
    pub(super) peak: Backlog,
    pub(super) batches: u64,
    pub(super) expedited: u64,
    pub(super) latency: Histogram,
    pub(super) stalls: u64,
}

/// The part of a domain that its lock guards.
pub(crate) struct DomainState {
    /// The number of the newest grace period that has begun.
    pub(super) begun: u64,
    /// Grace periods whose end no thread has noticed yet, in the order of their numbers.
    periods: VecDeque<Period>,
    /// Grace periods up to this one count as expedited.
    pub(super) expedite: u64,
    /// The newest callback whose grace period is known to be over.
    pub(super) last_call_over: u64,
    /// Batches whose grace period is not known to be over, in the order of their tickets.
    pub(super) waiting: VecDeque<Batch>,
    /// Batches that can be destroyed, in the order of their tickets.
    pub(super) ready: VecDeque<Batch>,
    /// The parts that threads are destroying now.
    pub(super) running: Vec<InHand>,
    /// The number of parts that were ever handed out.
    parts: u64,
    /// Callers that wait for a grace period or in a barrier.
    pub(super) waiters: usize,
    /// The futures of barriers, with their targets.
    pub(super) barriers: Vec<(u64, sync::Arc<Waiter>)>,
    /// Threads that sleep on `Inner::finished`: in a barrier, or at the end of a registry.
    pub(super) sleepers: usize,
    pub(super) watchdog: Watchdog,
    pub(super) figures: Figures,
}

impl DomainState {
    pub(super) fn new(watchdog: Watchdog) -> Self {
        DomainState {
            begun: 0,
            periods: VecDeque::new(),
            expedite: 0,
            last_call_over: 0,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            running: Vec::new(),
            parts: 0,
            waiters: 0,
            barriers: Vec::new(),
            sleepers: 0,
            watchdog,
            figures: Figures::default(),
        }
    }

    /// Returns whether everything with a ticket up to `newest` is destroyed.
    pub(super) fn is_done(&self, newest: u64) -> bool {
        // Both queues are in the order of their tickets, so their first batches are enough.
        let fronts = [self.waiting.front(), self.ready.front()].into_iter().flatten();
        let mut tickets = fronts.map(|batch| batch.ticket).chain(self.running.iter().map(|hand| hand.ticket));
        tickets.all(|ticket| ticket > newest)
    }

    /// Takes the futures of barriers that are done.
    pub(super) fn take_done_barriers(&mut self) -> Vec<sync::Arc<Waiter>> {
        if self.barriers.is_empty() {
            return Vec::new();
        }
        let barriers = std::mem::take(&mut self.barriers);
        let (done, left): (Vec<_>, _) = barriers.into_iter().partition(|(target, _)| self.is_done(*target));
        self.barriers = left;
        done.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Returns the stage of the batches that are queued. Parts in hand do not count.
    pub(super) fn left(&self) -> Pending {
        match (self.ready.is_empty(), self.waiting.is_empty()) {
            (false, _) => Pending::Ready,
            (true, false) => Pending::Waiting,
            (true, true) => Pending::Nothing,
        }
    }

    /// Begins a grace period, and returns its number.
    pub(super) fn begin_period(&mut self, now: Duration) -> u64 {
        self.begun += 1;
        self.periods.push_back(Period { number: self.begun, begun: now });
        self.begun
    }

    /// Makes the batches ready whose grace period is over, that is up to `completed`, and enters those grace periods
    /// into the statistics.
    pub(super) fn promote_ready(&mut self, completed: u64, now: impl FnOnce() -> Duration) {
        while self.waiting.front().is_some_and(|batch| batch.ticket <= completed) {
            let Some(batch) = self.waiting.pop_front() else { break };
            self.last_call_over = self.last_call_over.max(batch.last_call);
            let place = self.ready.partition_point(|ready| ready.ticket <= batch.ticket);
            self.ready.insert(place, batch);
        }
        let over = self.periods.iter().take_while(|period| period.number <= completed).count();
        if over > 0 {
            let now = now();
            for period in self.periods.drain(..over) {
                self.figures.latency.record(now.saturating_sub(period.begun));
                self.figures.expedited += u64::from(period.number <= self.expedite);
            }
        }
    }

    /// Returns the oldest grace period whose end was not noticed yet, and its beginning, if a batch or a caller
    /// waits.
    pub(super) fn awaited_period(&self) -> Option<(u64, Duration)> {
        let awaited = self.waiters > 0 || !self.waiting.is_empty();
        self.periods.front().filter(|_| awaited).map(|period| (period.number, period.begun))
    }

    /// Adds orphans, which are ready at once.
    pub(super) fn add_orphans(&mut self, orphans: Vec<NonNull<Header>>) {
        self.ready.push_back(Batch { ticket: self.begun, orphans, ..Batch::default() });
    }

    /// Takes about `budget` objects that are ready and whose ticket is at most `newest`. Until
    /// [`finish`](Self::finish) the part counts as running under its ticket.
    pub(super) fn take(&mut self, newest: u64, budget: usize) -> Option<Batch> {
        let oldest = self.ready.front_mut().filter(|batch| batch.ticket <= newest)?;
        let part = oldest.split_off(budget);
        if oldest.is_empty() {
            self.ready.pop_front();
        }
        Some(self.hand_out(part))
    }

    /// Puts the rest of a part back, so that it is taken next among the batches with its ticket.
    pub(super) fn put_back(&mut self, part: Batch) {
        let place = self.ready.partition_point(|ready| ready.ticket < part.ticket);
        match self.ready.get_mut(place) {
            Some(rest) if rest.ticket == part.ticket => rest.put_back(part),
            _ => self.ready.insert(place, part),
        }
    }

    /// Takes all nodes whose registry satisfies `belongs` out of both queues, as one part. It counts as running
    /// under the lowest ticket found.
    pub(super) fn extract(&mut self, belongs: impl Fn(NonNull<RegistryHeader>) -> bool) -> Option<Batch> {
        let mut found = Batch { ticket: u64::MAX, ..Batch::default() };
        for batch in self.waiting.iter_mut().chain(&mut self.ready) {
            // SAFETY: Q2 (a bag in a batch holds a node that is not destroyed).
            let bags = batch.bags.extract(|bag| belongs(unsafe { bag.shard().as_ref() }.registry_pointer()));
            let before = found.orphans.len();
            batch.orphans.retain(|&orphan| {
                // SAFETY: the batch owns the orphan, so it is not freed.
                let shard = unsafe { shard_of(orphan) };
                // SAFETY: Q2 (the orphan is not destroyed).
                let is_wanted = belongs(unsafe { shard.as_ref() }.registry_pointer());
                if is_wanted {
                    found.orphans.push(orphan);
                }
                !is_wanted
            });
            if !bags.is_empty() || found.orphans.len() > before {
                found.ticket = found.ticket.min(batch.ticket);
            }
            found.bags.append(bags);
        }
        self.waiting.retain(|batch| !batch.is_empty());
        self.ready.retain(|batch| !batch.is_empty());
        if found.is_empty() {
            return None;
        }
        Some(self.hand_out(found))
    }

    /// Returns an empty part, which counts as running under the newest ticket until [`finish`](Self::finish).
    pub(super) fn running_batch(&mut self) -> Batch {
        let batch = Batch { ticket: self.begun, ..Batch::default() };
        self.hand_out(batch)
    }

    /// Numbers a part, and records that a thread has it in hand.
    fn hand_out(&mut self, mut part: Batch) -> Batch {
        self.parts += 1;
        part.number = self.parts;
        self.running.push(InHand::of(&part));
        part
    }

    /// Returns whether a thread may be destroying nodes of `registry`.
    pub(super) fn is_in_hand(&self, registry: NonNull<RegistryHeader>) -> bool {
        self.running.iter().any(|hand| hand.may_hold(registry))
    }

    /// Records that the part of that number is destroyed or put back.
    pub(super) fn finish(&mut self, number: u64) {
        if let Some(index) = self.running.iter().position(|hand| hand.number == number) {
            self.running.swap_remove(index);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Returns a state in which the batches of callbacks `(ticket, number of callbacks)` are ready.
    fn state(ready: &[(u64, usize)]) -> DomainState {
        let mut state = DomainState::new(Watchdog::new(Duration::from_secs(1)));
        for &(ticket, len) in ready {
            let calls = (0..len).map(|_| Callback::new(|| (), Backlog::one(0))).collect();
            state.ready.push_back(Batch { ticket, calls, ..Batch::default() });
        }
        state
    }

    #[test]
    fn the_rest_of_a_part_comes_next_and_is_not_done() {
        let mut state = state(&[(1, 1), (3, 5)]);
        let part = state.take(u64::MAX, 10).unwrap();
        assert!(state.ready.len() == 1 && !state.is_done(1), "the part does not count as running");
        let number = part.number;
        state.put_back(part);
        state.finish(number);
        assert!(!state.is_done(1) && !state.is_done(2));
        let part = state.take(u64::MAX, 10).unwrap();
        assert_eq!((part.ticket, part.calls.len()), (1, 1));
        state.finish(part.number);
        assert!(state.is_done(2) && !state.is_done(3));
    }

    #[test]
    fn no_batch_beyond_the_requested_ticket_is_taken() {
        let mut state = state(&[(1, 2), (2, 2)]);
        let part = state.take(1, 10).unwrap();
        assert_eq!((part.ticket, part.calls.len()), (1, 2));
        assert!(state.take(1, 10).is_none());
        assert_eq!(state.left(), Pending::Ready);
    }

    #[test]
    fn a_batch_that_becomes_ready_late_comes_before_younger_ones() {
        let mut state = state(&[(2, 1)]);
        let calls = vec![Callback::new(|| (), Backlog::one(0))];
        state.waiting.push_back(Batch { ticket: 1, calls, ..Batch::default() });
        state.promote_ready(1, Duration::default);
        assert_eq!(state.ready.iter().map(|batch| batch.ticket).collect::<Vec<_>>(), [1, 2]);
    }
}
