//! What a domain consists of, and who is called upon to reclaim.

use super::background::Background;
use super::backlog::{Backlog, Waiting};
use super::bag::{Bag, BagPool, ClosedBags};
use super::budget::Budget;
use super::grace::Grace;
use super::header::{DirtyShards, Orphans, ShardHeader};
use super::readers::Readers;
use super::reclaimer::Reclaimer;
use super::stall::{Stall, StallHandler, StallReport, Watchdog};
use super::state::{Callback, State};
use super::thread::Running;
use crate::sync::atomic::Ordering;
use crate::sync::epoch::Collector;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, Pause};
use crate::util::clock::{Stopwatch, coarse_ticks};
use crate::util::panics::contain;
use crate::util::reentrancy::{shard_locked, thread_tag};
use crossbeam_utils::CachePadded;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub(crate) struct Inner {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) collector: Collector,
    pub(super) grace: crate::sync::Arc<Grace>,
    /// Goes up whenever sessions are asked to announce a quiescent state.
    pub(super) quiesce: CachePadded<AtomicUsize>,
    /// Shards whose open bags hold nodes.
    pub(super) dirty: CachePadded<DirtyShards>,
    /// Taken by the thread that collects open bags, before the locks of shards and domain.
    pub(super) collecting: Mutex<()>,
    /// Bags that were handed over, and that no batch holds yet.
    pub(super) closed: CachePadded<ClosedBags>,
    pub(super) orphans: CachePadded<Orphans>,
    pub(super) calls: Mutex<Vec<Callback>>,
    pub(super) bags: BagPool,
    /// All that was handed over and is not destroyed yet.
    pub(super) waiting: Waiting,
    pub(super) state: CachePadded<Mutex<State>>,
    /// Signalled when a batch has been destroyed and somebody sleeps on it.
    pub(super) finished: Condvar,
    /// A hint that `state` or `calls` hold something.
    pub(super) unfinished: CachePadded<AtomicBool>,
    /// A hint that something could be destroyed now.
    pub(super) ready: AtomicBool,
    /// The coarse tick in which a writer last drove reclamation.
    pub(super) last_round: CachePadded<AtomicU64>,
    /// The [tag](thread_tag) of the writer that last made a round beyond the soft mark. (Not modelled by loom: only a hint.)
    last_payer: std::sync::atomic::AtomicUsize,
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
const PRESSED_SHARE: usize = 512;
const PRESSED_ROUNDS: usize = 4;
/// Objects beyond the soft mark that one write destroys at the most, whichever thread retired them.
const EXCESS_SHARE: u64 = 4096;
/// The soft mark of a domain without limits.
const SOFT_OBJECTS: u64 = 2048;
const SOFT_BYTES: u64 = 1 << 20;
/// The longest pause of a caller of [`Domain::call`](super::Domain::call) while other threads destroy what is ready.
const CALLERS_WAIT: Duration = Duration::from_millis(1);
/// Coarse ticks, of 4 ms, for which callers expect a further round of a writer that has made one.
const WRITER_RETURNS: u64 = 25;

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
            dirty: CachePadded::new(DirtyShards::new()),
            collecting: Mutex::new(()),
            closed: CachePadded::new(ClosedBags::new()),
            orphans: CachePadded::new(Orphans::new()),
            calls: Mutex::new(Vec::new()),
            bags: BagPool::new(),
            waiting: Waiting::default(),
            state: CachePadded::new(Mutex::new(State::new(Watchdog::new(stall_after)))),
            finished: Condvar::new(),
            unfinished: CachePadded::new(AtomicBool::new(false)),
            ready: AtomicBool::new(false),
            last_round: CachePadded::new(AtomicU64::new(0)),
            last_payer: std::sync::atomic::AtomicUsize::new(0),
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

    /// An empty bag for a shard.
    pub(crate) fn new_bag(&self, shard: NonNull<ShardHeader>) -> Box<Bag> {
        self.bags.take(shard)
    }

    /// Marks a shard as dirty, whose open bag has received its first node. Under the shard lock (Q1). The caller wakes the
    /// reclaimer after the lock.
    pub(crate) fn mark_dirty(&self, shard: &ShardHeader) {
        self.dirty.add(shard);
    }

    /// Takes a bag over. Lock-free, and allowed under a shard lock.
    pub(crate) fn hand_over(&self, bag: Box<Bag>) {
        self.waiting.add(bag.amount());
        self.closed.push(bag);
    }

    /// Whether something waits for a grace period or its turn, as far as a glance tells.
    pub(crate) fn has_work(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        let unfinished = self.unfinished.load(Ordering::Relaxed);
        unfinished || !self.closed.is_empty() || !self.dirty.is_empty() || !self.orphans.is_empty()
    }

    /// Whether writes that have retired nothing look for something to reclaim: where no thread or executor does.
    #[inline]
    pub(crate) fn do_writers_look(&self) -> bool {
        self.settings.writers_share && self.reclaimer.get().is_none()
    }

    /// What a write does for reclamation, outside its lock: if it has handed over `retired` nodes, or begun to retire, or if its
    /// turn has come to look.
    #[cold]
    #[inline(never)]
    pub(crate) fn assist(&self, retired: usize) {
        self.wake();
        if self.is_pressed() {
            return self.assist_pressed(retired);
        }
        let reclaimer = self.reclaimer.get();
        if reclaimer.is_some_and(|reclaimer| reclaimer.is_on() && reclaimer.nudge(retired > 0)) {
            // It was woken when the first node was retired.
            return;
        }
        if !self.settings.writers_share {
            return;
        }
        let now = coarse_ticks();
        // ORDERING: Relaxed. Two writers may both think it is their turn; one of them gets the lock.
        let is_new_tick = self.last_round.load(Ordering::Relaxed) != now;
        // Of a shard that is dirty already, writes do not come by here until its bag is full.
        let is_alone = reclaimer.is_some_and(|reclaimer| !reclaimer.comes_later());
        if is_new_tick || is_alone && retired == 0 {
            self.last_round.store(now, Ordering::Relaxed);
            self.try_reclaim(WRITERS_SHARE.max(2 * retired));
        } else if retired > 0 {
            self.try_reclaim_closed(WRITERS_SHARE.max(2 * retired), false);
        }
    }

    /// Beyond the soft mark a writer pays for what it retires twice over, whatever else reclaims, and does not leave it at one
    /// try: the grace period is expedited.
    #[cold]
    fn assist_pressed(&self, retired: usize) {
        // ORDERING: Relaxed, both: hints, see `may_expect_writer`.
        self.last_round.store(coarse_ticks(), Ordering::Relaxed);
        self.last_payer.store(thread_tag(), Ordering::Relaxed);
        // What callers of `Domain::call` add, who destroy nothing, is destroyed by writers too.
        let excess = self.waiting.get().objects.saturating_sub(SOFT_OBJECTS).min(EXCESS_SHARE);
        let mut share = PRESSED_SHARE.max(2 * retired).max(excess as usize);
        for _ in 0..PRESSED_ROUNDS {
            let (_, done) = self.try_reclaim_closed(share, true);
            share = share.saturating_sub(done);
            if share == 0 || !self.is_pressed() || self.in_critical_section() {
                return;
            }
        }
    }

    /// Whether so much waits that writers must pay for what they retire.
    pub(super) fn is_pressed(&self) -> bool {
        if self.budget.is_limited() {
            return self.budget.is_pressed();
        }
        let Backlog { objects, bytes } = self.waiting.get();
        self.settings.writers_share && (objects > SOFT_OBJECTS || bytes > SOFT_BYTES)
    }

    pub(super) fn is_reclaimer_on(&self) -> bool {
        self.reclaimer.get().is_some_and(Reclaimer::is_on)
    }

    /// Takes a callback whose place in the backlog is taken already.
    pub(super) fn push_call(&self, call: Callback) {
        self.waiting.add(call.amount);
        let mut calls = self.calls.lock();
        calls.push(call);
        // ORDERING: Relaxed, a hint to writers; under the lock, as in `unlock`.
        self.unfinished.store(true, Ordering::Relaxed);
        drop(calls);
        self.wake();
    }

    /// Beyond the soft mark, pauses a caller of `call` while other threads have something to destroy. The caller destroys
    /// nothing itself, because it may hold locks that callbacks take.
    pub(super) fn slow_down(&self) {
        if !self.is_pressed() || self.would_wait_for_itself() {
            return;
        }
        let reclaimer = self.reclaimer.get().filter(|reclaimer| reclaimer.is_on());
        if reclaimer.is_none() && !self.may_expect_writer() || !self.press_on() {
            return;
        }
        if let Some(reclaimer) = reclaimer {
            reclaimer.hurry();
        }
        let since = Instant::now();
        let mut pause = Pause::expedited();
        while self.is_pressed() && since.elapsed() < CALLERS_WAIT && self.press_on() {
            pause.pause();
        }
    }

    /// Returns whether another thread has made a round as a writer in the last tenth of a second.
    fn may_expect_writer(&self) -> bool {
        // ORDERING: Relaxed, both: hints. A wrong answer costs one pause, or saves one.
        self.last_payer.load(Ordering::Relaxed) != thread_tag()
            && coarse_ticks().saturating_sub(self.last_round.load(Ordering::Relaxed)) <= WRITER_RETURNS
    }

    /// Calls `run` after a grace period, to free so many bytes of the registry's own. Not to be refused. Not under a lock,
    /// since it may wake an executor of the user's.
    pub(crate) fn defer(&self, bytes: usize, run: impl FnOnce() + Send + 'static) {
        let amount = Backlog::of(0, bytes as u64);
        self.budget.charge_unchecked(amount);
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
        if self.has_work() {
            reclaimer.nudge(false);
        }
    }

    /// Counts and hands out a report. Without a lock: it is the user's code.
    pub(super) fn report(&self, stall: Option<Stall>) {
        let Some(Stall { lasted, readers, repeats }) = stall else { return };
        let (backlog, waiters) = (self.waiting.get(), self.state.lock().waiters);
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
