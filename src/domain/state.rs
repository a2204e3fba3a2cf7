//! What a domain's lock guards: batches and where they stand, grace periods that are under way, and the figures.

#![allow(unsafe_code)]

use super::backlog::Backlog;
use super::bag::Bags;
use super::header::RegistryHeader;
use super::header::shard_of;
use super::histogram::Histogram;
use super::stall::Watchdog;
use crate::node::Header;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::time::Duration;

/// A deferred closure.
pub(crate) struct Callback {
    pub(crate) run: Box<dyn FnOnce() + Send>,
    /// What it counts for.
    pub(crate) amount: Backlog,
}

impl Callback {
    pub(crate) fn new(f: impl FnOnce() + Send + 'static, amount: Backlog) -> Self {
        Callback { run: Box::new(f), amount }
    }
}

/// What waits for one grace period, and then for its turn. Also a part of that, in the hands of the thread that destroys it.
#[derive(Default)]
pub(crate) struct Batch {
    /// The number of its grace period.
    pub(super) ticket: u64,
    /// Tells it from other parts, while a thread has it in hand.
    pub(super) number: u64,
    pub(super) bags: Bags,
    /// The next one last.
    pub(super) calls: Vec<Callback>,
    /// These do not wait for a grace period.
    pub(super) orphans: Vec<NonNull<Header>>,
}

// SAFETY: bags and callbacks are `Send`; orphans are owned by the batch, and its users see to it that keys and values may be
// sent.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.bags.is_empty() && self.calls.is_empty() && self.orphans.is_empty()
    }

    /// Whether a node is among it whose registry satisfies `belongs`.
    pub(super) fn has_any(&self, belongs: impl Fn(NonNull<RegistryHeader>) -> bool) -> bool {
        // SAFETY: Q2, the nodes are in the bag.
        self.bags.iter().any(|bag| belongs(unsafe { bag.shard().as_ref() }.registry_pointer()))
            || self.orphans.iter().any(|&orphan| {
                // SAFETY: the batch owns it.
                let shard = unsafe { shard_of(orphan) };
                // SAFETY: Q2, the node is not destroyed.
                belongs(unsafe { shard.as_ref() }.registry_pointer())
            })
    }

    /// Takes about so many objects out, in order: a bag at least, or the callbacks, or the orphans.
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

    /// Puts what is left of a part back.
    fn put_back(&mut self, mut part: Batch) {
        let mut bags = std::mem::take(&mut part.bags);
        bags.append(std::mem::take(&mut self.bags));
        self.bags = bags;
        self.calls.append(&mut part.calls);
        self.orphans.append(&mut part.orphans);
    }
}

/// A part that a thread is destroying.
pub(super) struct InHand {
    ticket: u64,
    number: u64,
    /// Of its first nodes. Compared, and not followed.
    registries: [Option<NonNull<RegistryHeader>>; 2],
    /// There may be nodes of other registries too.
    is_mixed: bool,
}

// SAFETY: the addresses are only compared.
unsafe impl Send for InHand {}

impl InHand {
    fn of(part: &Batch) -> Self {
        let mut hand = InHand { ticket: part.ticket, number: part.number, registries: [None; 2], is_mixed: false };
        // SAFETY: Q2, the nodes are in the bag.
        let of_bags = part.bags.iter().map(|bag| unsafe { bag.shard().as_ref() }.registry_pointer());
        let of_orphans = part.orphans.iter().map(|&orphan| {
            // SAFETY: the part owns it.
            let shard = unsafe { shard_of(orphan) };
            // SAFETY: Q2, the node is not destroyed.
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

    /// Whether nodes of this registry may be among it.
    fn may_hold(&self, registry: NonNull<RegistryHeader>) -> bool {
        self.is_mixed || self.registries.contains(&Some(registry))
    }
}

/// A grace period that was not seen to be over.
struct Period {
    number: u64,
    /// By the domain's clock.
    begun: Duration,
}

/// What is left to do after a round of reclamation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Pending {
    Nothing,
    /// Batches whose grace period is not over.
    Waiting,
    /// Batches that could be destroyed now.
    Ready,
}

/// See [`DomainStats`](crate::DomainStats).
#[derive(Default)]
pub(crate) struct Figures {
    pub(super) peak: Backlog,
    pub(super) batches: u64,
    pub(super) expedited: u64,
    pub(super) latency: Histogram,
    pub(super) stalls: u64,
}

pub(crate) struct State {
    /// The newest grace period that has begun.
    pub(super) begun: u64,
    /// In the order of their numbers.
    periods: VecDeque<Period>,
    /// Grace periods up to this one are expedited.
    pub(super) expedite: u64,
    /// In the order of their tickets, as is `ready`.
    pub(super) waiting: VecDeque<Batch>,
    pub(super) ready: VecDeque<Batch>,
    /// The parts of batches that some thread is destroying now.
    pub(super) running: Vec<InHand>,
    /// Parts that were ever in hand.
    parts: u64,
    /// Callers that wait for a grace period, or in a barrier.
    pub(super) waiters: usize,
    /// Those in a barrier that are asleep.
    pub(super) sleepers: usize,
    pub(super) watchdog: Watchdog,
    pub(super) figures: Figures,
}

impl State {
    pub(super) fn new(watchdog: Watchdog) -> Self {
        State {
            begun: 0,
            periods: VecDeque::new(),
            expedite: 0,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            running: Vec::new(),
            parts: 0,
            waiters: 0,
            sleepers: 0,
            watchdog,
            figures: Figures::default(),
        }
    }

    /// Whether nothing is left of what was given a ticket up to `newest`.
    pub(super) fn is_done(&self, newest: u64) -> bool {
        // Both queues are in the order of their tickets.
        let fronts = [self.waiting.front(), self.ready.front()].into_iter().flatten();
        let mut tickets = fronts.map(|batch| batch.ticket).chain(self.running.iter().map(|hand| hand.ticket));
        tickets.all(|ticket| ticket > newest)
    }

    pub(super) fn left(&self) -> Pending {
        match (self.ready.is_empty(), self.waiting.is_empty()) {
            (false, _) => Pending::Ready,
            (true, false) => Pending::Waiting,
            (true, true) => Pending::Nothing,
        }
    }

    /// The number of a grace period that begins now.
    pub(super) fn begin_period(&mut self, now: Duration) -> u64 {
        self.begun += 1;
        self.periods.push_back(Period { number: self.begun, begun: now });
        self.begun
    }

    /// Enters the grace periods that are over into the figures, and makes every batch ready that waited for them.
    pub(super) fn promote_ready(&mut self, completed: u64, now: impl FnOnce() -> Duration) {
        while self.waiting.front().is_some_and(|batch| batch.ticket <= completed) {
            let Some(batch) = self.waiting.pop_front() else { break };
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

    /// The oldest grace period that was not seen to be over, and its beginning, if something waits for it.
    pub(super) fn awaited_period(&self) -> Option<(u64, Duration)> {
        let awaited = self.waiters > 0 || !self.waiting.is_empty();
        self.periods.front().filter(|_| awaited).map(|period| (period.number, period.begun))
    }

    /// Makes nodes that wait for no grace period ready.
    pub(super) fn add_orphans(&mut self, orphans: Vec<NonNull<Header>>) {
        self.ready.push_back(Batch { ticket: self.begun, orphans, ..Batch::default() });
    }

    /// About `budget` objects that are ready and whose ticket is no higher than `newest`. Their ticket counts as running
    /// until [`finish`](Self::finish).
    pub(super) fn take(&mut self, newest: u64, budget: usize) -> Option<Batch> {
        let oldest = self.ready.front_mut().filter(|batch| batch.ticket <= newest)?;
        let part = oldest.split_off(budget);
        if oldest.is_empty() {
            self.ready.pop_front();
        }
        Some(self.hand_out(part))
    }

    /// Puts what is left of a part that was taken back, to be the next.
    pub(super) fn put_back(&mut self, part: Batch) {
        let place = self.ready.partition_point(|ready| ready.ticket < part.ticket);
        match self.ready.get_mut(place) {
            Some(rest) if rest.ticket == part.ticket => rest.put_back(part),
            _ => self.ready.insert(place, part),
        }
    }

    /// Takes out all nodes whose registry satisfies `belongs`, from wherever they wait, as one running batch.
    pub(super) fn extract(&mut self, belongs: impl Fn(NonNull<RegistryHeader>) -> bool) -> Option<Batch> {
        let mut found = Batch { ticket: u64::MAX, ..Batch::default() };
        for batch in self.waiting.iter_mut().chain(&mut self.ready) {
            // SAFETY: Q2, the nodes are in the bag.
            let bags = batch.bags.extract(|bag| belongs(unsafe { bag.shard().as_ref() }.registry_pointer()));
            let before = found.orphans.len();
            batch.orphans.retain(|&orphan| {
                // SAFETY: the batch owns it.
                let shard = unsafe { shard_of(orphan) };
                // SAFETY: Q2, the node is not destroyed.
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

    /// An empty batch, whose ticket counts as running until `finish`.
    pub(super) fn running_batch(&mut self) -> Batch {
        let batch = Batch { ticket: self.begun, ..Batch::default() };
        self.hand_out(batch)
    }

    fn hand_out(&mut self, mut part: Batch) -> Batch {
        self.parts += 1;
        part.number = self.parts;
        self.running.push(InHand::of(&part));
        part
    }

    /// Whether a thread may be destroying nodes of this registry.
    pub(super) fn is_in_hand(&self, registry: NonNull<RegistryHeader>) -> bool {
        self.running.iter().any(|hand| hand.may_hold(registry))
    }

    pub(super) fn finish(&mut self, number: u64) {
        if let Some(index) = self.running.iter().position(|hand| hand.number == number) {
            self.running.swap_remove(index);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A state with batches of so many callbacks that are ready, by their tickets.
    fn state(ready: &[(u64, usize)]) -> State {
        let mut state = State::new(Watchdog::new(Duration::from_secs(1)));
        for &(ticket, len) in ready {
            let calls = (0..len).map(|_| Callback::new(|| (), Backlog::one(0))).collect();
            state.ready.push_back(Batch { ticket, calls, ..Batch::default() });
        }
        state
    }

    #[test]
    fn what_is_left_of_a_part_is_the_next_and_not_done() {
        let mut state = state(&[(1, 1), (3, 5)]);
        let part = state.take(u64::MAX, 10).unwrap();
        assert!(state.ready.len() == 1 && !state.is_done(1), "it is running");
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
    fn nothing_is_taken_beyond_the_ticket_that_is_asked_for() {
        let mut state = state(&[(1, 2), (2, 2)]);
        let part = state.take(1, 10).unwrap();
        assert_eq!((part.ticket, part.calls.len()), (1, 2));
        assert!(state.take(1, 10).is_none());
        assert_eq!(state.left(), Pending::Ready);
    }

    #[test]
    fn a_batch_that_ripens_late_comes_before_what_is_younger() {
        let mut state = state(&[(2, 1)]);
        let calls = vec![Callback::new(|| (), Backlog::one(0))];
        state.waiting.push_back(Batch { ticket: 1, calls, ..Batch::default() });
        state.promote_ready(1, Duration::default);
        assert_eq!(state.ready.iter().map(|batch| batch.ticket).collect::<Vec<_>>(), [1, 2]);
    }
}
