//! What a domain consists of, and who is called upon to reclaim.

use super::background::Background;
use super::budget::{Backlog, Budget};
use super::grace::Grace;
use super::readers::Readers;
use super::reclaimer::Reclaimer;
use super::retire::Dirty;
use super::stall::{Stall, StallHandler, StallReport, Watchdog};
use super::state::{Callback, State};
use super::thread::{Running, shard_locked};
use crate::clock::{Stopwatch, coarse_ticks};
use crate::node::contain;
use crate::sync::atomic::Ordering;
use crate::sync::epoch::Collector;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex};
use crossbeam_utils::CachePadded;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) struct Inner {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) collector: Collector,
    pub(super) grace: crate::sync::Arc<Grace>,
    /// Goes up whenever sessions are asked to announce a quiescent state.
    pub(super) quiesce: CachePadded<AtomicUsize>,
    /// Retire queues that hold nodes.
    pub(super) dirty: CachePadded<Dirty>,
    pub(super) calls: Mutex<Vec<Callback>>,
    pub(super) state: CachePadded<Mutex<State>>,
    /// Signalled when a batch has been destroyed and somebody sleeps on it.
    pub(super) finished: Condvar,
    /// A hint that `state` or `calls` hold something.
    pub(super) unfinished: CachePadded<AtomicBool>,
    /// The coarse tick in which a writer last drove reclamation.
    driven: CachePadded<AtomicU64>,
    pub(crate) budget: Budget,
    pub(super) readers: Readers,
    /// Callbacks that panicked, and reports of stalls that did.
    pub(super) panics: AtomicU64,
    /// What was retired beyond the limits.
    pub(super) overruns: AtomicU64,
    pub(super) settings: Settings,
    pub(super) reclaimer: OnceLock<Reclaimer>,
}

/// What a domain is told when it is built, and keeps.
pub(crate) struct Settings {
    /// Whether writers reclaim as long as nobody else does.
    pub(super) writers_share: bool,
    /// What grace periods and stalls are measured by.
    pub(super) clock: Stopwatch,
    pub(super) background: Background,
    /// There until the domain is torn down.
    pub(super) on_stall: Option<StallHandler>,
}

/// Objects that one write destroys at the most, beside its own work, where no reclaimer does.
const WRITERS_SHARE: usize = 256;
/// The same where the backlog is beyond its soft mark, and how often a write tries.
const PRESSED_SHARE: usize = 1024;
const PRESSED_ROUNDS: usize = 4;

impl Inner {
    pub(super) fn new(name: Option<String>, stall_after: Duration, budget: Budget, settings: Settings) -> Arc<Self> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        // ORDERING: Relaxed, only the number matters. (std's own atomic: identity is not part of any model.)
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Inner {
            id,
            name: name.unwrap_or_else(|| format!("domain-{id}")),
            collector: Collector::new(),
            grace: crate::sync::Arc::new(Grace::new()),
            quiesce: CachePadded::new(AtomicUsize::new(0)),
            dirty: CachePadded::new(Dirty::new()),
            calls: Mutex::new(Vec::new()),
            state: CachePadded::new(Mutex::new(State::new(Watchdog::new(stall_after)))),
            finished: Condvar::new(),
            unfinished: CachePadded::new(AtomicBool::new(false)),
            driven: CachePadded::new(AtomicU64::new(0)),
            budget,
            readers: Readers::default(),
            panics: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
            settings,
            reclaimer: OnceLock::new(),
        })
    }

    /// The number of the last request that sessions announce a quiescent state.
    #[inline]
    pub(crate) fn asked(&self) -> usize {
        // ORDERING: Relaxed. An old value delays the announcement and nothing else: until it pins anew, a session stays pinned
        // where it was.
        self.quiesce.load(Ordering::Relaxed)
    }

    /// What every write does for reclamation, outside its lock: at the latest after so many removals (`due`), or in a
    /// new coarse tick of the clock, a round of it.
    #[inline]
    pub(crate) fn assist(&self, due: bool) {
        // ORDERING: Relaxed, hints.
        if due || self.unfinished.load(Ordering::Relaxed) || !self.dirty.is_empty() {
            self.assist_with_work(due);
        }
    }

    fn assist_with_work(&self, due: bool) {
        if due && self.budget.is_pressed() {
            return self.assist_pressed();
        }
        if let Some(reclaimer) = self.reclaimer.get().filter(|reclaimer| reclaimer.is_on()) {
            // It was woken when the first node was retired.
            if reclaimer.nudge() {
                return;
            }
        }
        let now = coarse_ticks();
        // ORDERING: Relaxed. Two writers may both think it is their turn; one of them gets the lock.
        if self.settings.writers_share && (due || self.driven.load(Ordering::Relaxed) != now) {
            self.driven.store(now, Ordering::Relaxed);
            self.drive(WRITERS_SHARE);
        }
    }

    /// Beyond the soft mark whoever writes reclaims, and does not leave it at one try: the grace period is expedited.
    #[cold]
    fn assist_pressed(&self) {
        for _ in 0..PRESSED_ROUNDS {
            self.drive_expedited(PRESSED_SHARE);
            if !self.budget.is_pressed() || self.in_critical_section() {
                return;
            }
        }
    }

    pub(super) fn is_reclaimer_on(&self) -> bool {
        self.reclaimer.get().is_some_and(Reclaimer::is_on)
    }

    /// Takes a callback whose place in the backlog is taken already.
    pub(super) fn push_call(&self, call: Callback) {
        let mut calls = self.calls.lock();
        calls.push(call);
        // ORDERING: Relaxed, a hint to writers; under the lock, as in `unlock`.
        self.unfinished.store(true, Ordering::Relaxed);
        drop(calls);
        self.wake();
    }

    /// Calls `run` after a grace period, to free so many bytes of the registry's own. Not to be refused. Not under a lock,
    /// since it may wake an executor of the user's.
    pub(crate) fn defer(&self, bytes: usize, run: impl FnOnce() + Send + 'static) {
        let amount = Backlog::of(0, bytes as u64);
        self.budget.overrun(amount);
        self.push_call(Callback::new(run, amount));
    }

    pub(super) fn wake(&self) {
        if let Some(reclaimer) = self.reclaimer.get() {
            reclaimer.wake();
        }
    }

    /// Whether waiting for readers or destructors on this thread could be waiting for itself.
    pub(super) fn would_wait_for_itself(&self) -> bool {
        shard_locked() || Running::is_anywhere() || self.in_critical_section()
    }

    /// After a round, with its frame gone: an executor that ran its job within `spawn`, within that round, has had nothing of
    /// it.
    pub(super) fn after_round(&self) {
        let Some(reclaimer) = self.reclaimer.get().filter(|reclaimer| reclaimer.is_on()) else { return };
        // ORDERING: Relaxed, a hint.
        if self.unfinished.load(Ordering::Relaxed) || !self.dirty.is_empty() {
            reclaimer.nudge();
        }
    }

    /// Counts and hands out a report. Without a lock: it is the user's code.
    pub(super) fn report(&self, stall: Option<Stall>) {
        let Some(Stall { lasted, readers, repeats }) = stall else { return };
        let (backlog, waiters) = {
            let state = self.state.lock();
            (state.figures.backlog, state.waiters)
        };
        let report = StallReport { domain: self.name.clone(), lasted, readers, backlog, waiters, repeats };
        let Some(handler) = &self.settings.on_stall else { return };
        let panics = u64::from(Running::callback(|| contain(|| handler(&report))));
        // ORDERING: Relaxed, a statistic.
        self.panics.fetch_add(panics, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let reclaimer = self.reclaimer.take();
        if let Some(reclaimer) = &reclaimer {
            reclaimer.stop();
        }
        self.grace.abandon();
        self.drain();
        // Closures of the user's, on anybody's thread.
        let handler = self.settings.on_stall.take();
        contain(|| drop(reclaimer));
        contain(|| drop(handler));
    }
}
