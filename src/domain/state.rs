//! What a domain's lock guards: batches and where they stand, grace periods that are under way, and the figures.

#![allow(unsafe_code)]

use super::budget::Backlog;
use super::histogram::Histogram;
use super::retire::{List, Registrant, RetireQueue};
use super::stall::Watchdog;
use crate::node::contain;
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

/// Retired nodes, by the shard that they come from, and callbacks.
#[derive(Default)]
pub(crate) struct Batch {
    pub(super) ticket: u64,
    pub(super) lists: Vec<(NonNull<RetireQueue>, List)>,
    pub(super) calls: Vec<Callback>,
    /// What of it has never been counted in the backlog.
    pub(super) uncounted: Backlog,
}

// SAFETY: retire queues are `Sync`, lists and callbacks are `Send`.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.calls.is_empty()
    }

    pub(super) fn amount(&self) -> Backlog {
        let lists: Backlog = self.lists.iter().map(|(_, list)| list.amount()).sum();
        let calls: Backlog = self.calls.iter().map(|call| call.amount).sum();
        [lists, calls].into_iter().sum()
    }

    /// Destroys up to `budget` nodes and runs callbacks, each of which counts as one (but for tables, which are cheap). Returns how much that was, and
    /// how many callbacks panicked.
    ///
    /// # Safety
    ///
    /// The batch's grace period is over.
    pub(super) unsafe fn run(&mut self, budget: usize) -> (Backlog, u64) {
        let (mut done, mut panics) = (Backlog::default(), 0);
        while (done.objects as usize) < budget {
            if let Some((queue, list)) = self.lists.last_mut() {
                // SAFETY: the grace period is over, and batches hold each node once and no empty list.
                done += unsafe { list.reclaim(*queue, budget - done.objects as usize) };
                if list.is_empty() {
                    self.lists.pop();
                }
            } else if let Some(call) = self.calls.pop() {
                panics += u64::from(contain(call.run));
                done += call.amount;
            } else {
                break;
            }
        }
        (done, panics)
    }
}

/// A grace period that was not seen to be over.
struct Period {
    number: u64,
    /// By the domain's clock.
    begun: Duration,
}

/// What is left to do after a round of reclamation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    Nothing,
    /// Batches whose grace period is not over.
    Waiting,
    /// Batches that could be destroyed now.
    Ready,
}

/// See [`DomainStats`](crate::DomainStats).
#[derive(Default)]
pub(crate) struct Figures {
    pub(super) backlog: Backlog,
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
    /// In the order of their numbers.
    pub(super) waiting: VecDeque<Batch>,
    pub(super) ready: VecDeque<Batch>,
    /// The tickets of the batches that some thread is destroying now.
    pub(super) running: Vec<u64>,
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
            waiters: 0,
            sleepers: 0,
            watchdog,
            figures: Figures::default(),
        }
    }

    pub(super) fn oldest_ticket(&self) -> Option<u64> {
        let batches = self.waiting.iter().chain(&self.ready).map(|batch| batch.ticket);
        batches.chain(self.running.iter().copied()).min()
    }

    pub(super) fn left(&self) -> Left {
        match (self.ready.is_empty(), self.waiting.is_empty()) {
            (false, _) => Left::Ready,
            (true, false) => Left::Waiting,
            (true, true) => Left::Nothing,
        }
    }

    /// The number of a grace period that begins now.
    pub(super) fn begin_period(&mut self, now: Duration) -> u64 {
        self.begun += 1;
        self.periods.push_back(Period { number: self.begun, begun: now });
        self.begun
    }

    /// Enters the grace periods that are over into the figures, and makes every batch ready that waited for them.
    pub(super) fn ripen(&mut self, completed: u64, now: impl FnOnce() -> Duration) {
        while self.waiting.front().is_some_and(|batch| batch.ticket <= completed) {
            self.ready.extend(self.waiting.pop_front());
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

    /// A batch that was collected.
    pub(super) fn count(&mut self, batch: &Batch) {
        self.figures.backlog += batch.amount();
        self.figures.batches += 1;
    }

    /// The next ready batch, whose ticket counts as running until `finish`.
    pub(super) fn take(&mut self) -> Option<Batch> {
        let batch = self.ready.pop_front()?;
        self.running.push(batch.ticket);
        Some(batch)
    }

    /// All lists that `belongs` says yes to, from wherever they wait, as one running batch.
    pub(super) fn extract(&mut self, belongs: impl Fn(&Registrant) -> bool) -> Option<Batch> {
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

    /// An empty batch, whose ticket counts as running until `finish`.
    pub(super) fn running_batch(&mut self) -> Batch {
        self.running.push(self.begun);
        Batch { ticket: self.begun, ..Batch::default() }
    }

    pub(super) fn finish(&mut self, ticket: u64) {
        if let Some(index) = self.running.iter().position(|&running| running == ticket) {
            self.running.swap_remove(index);
        }
    }
}
