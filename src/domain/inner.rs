//! The fields of a domain, and what each write does for its reclamation.

use super::WeakDomain;
use super::background::Background;
use super::backlog::{Backlog, Waiting};
use super::bag::{Bag, BagPool, ClosedBags};
use super::budget::{Budget, Failure, IfFull};
use super::frame::{Orphan, Running};
use super::grace::Grace;
use super::header::{DirtyShards, Orphans, ShardHeader};
use super::readers::Readers;
use super::reclaim::Collect;
use super::reclaimer::Reclaimer;
use super::stall::{Stall, StallHandler, StallReport, Watchdog};
use super::state::{Callback, Calls, DomainState, Object};
use crate::sync::atomic::Ordering;
use crate::sync::epoch::Collector;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, BAG, Condvar, Mutex, Pause};
use crate::util::clock::{Stopwatch, coarse_ticks};
use crate::util::panics::contain;
use crate::util::reentrancy::{shard_locked, thread_tag};
use crossbeam_utils::CachePadded;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// The shared state of a domain. [`Domain`](super::Domain) is a handle to it.
pub(crate) struct Inner {
    /// The domain itself.
    this: Weak<Inner>,
    pub(crate) id: u64,
    pub(super) name: String,
    pub(super) collector: Collector,
    pub(super) grace: crate::sync::Arc<Grace>,
    /// The number of requests so far that sessions announce a quiescent state.
    pub(super) quiesce: CachePadded<AtomicUsize>,
    /// The shards whose open bags hold nodes (Q1).
    pub(super) dirty: CachePadded<DirtyShards>,
    /// The lock of the collector of open bags. It is taken before the lock of any shard.
    pub(super) collecting: Mutex<()>,
    /// Bags that shards have handed over, and that are in no batch yet.
    pub(super) closed: CachePadded<ClosedBags>,
    /// Nodes whose last reference was put after their grace period, and that are in no batch yet.
    pub(super) orphans: CachePadded<Orphans>,
    /// Callbacks that are in no batch yet.
    pub(super) calls: Mutex<Calls>,
    /// The newest callback whose grace period is known to be over. The domain's lock guards its stores.
    pub(super) last_call_over: AtomicU64,
    /// Empty bags.
    pub(super) bags: BagPool,
    /// The amount that was handed over and is not destroyed yet.
    pub(super) waiting: Waiting,
    /// The domain's lock, with what it guards.
    pub(super) state: CachePadded<Mutex<DomainState>>,
    /// Notified whenever the domain's lock is released by `unlock`, if threads sleep on it.
    pub(super) finished: Condvar,
    /// A hint: there are batches, or callbacks that are in no batch yet.
    pub(super) unfinished: CachePadded<AtomicBool>,
    /// A hint: there are batches that can be destroyed now.
    pub(super) ready: AtomicBool,
    /// The coarse tick in which a writer last made a round.
    pub(super) last_round: CachePadded<AtomicU64>,
    /// The [tag](thread_tag) of the writer that last made a round beyond the soft mark. (Not modelled by loom: only
    /// a hint.)
    last_payer: std::sync::atomic::AtomicUsize,
    /// The coarse tick of that round. (Not modelled by loom: only a hint.)
    last_paid: std::sync::atomic::AtomicU64,
    pub(crate) budget: Budget,
    pub(super) readers: Readers,
    /// The number of callbacks, stall handlers and reapers that panicked.
    pub(super) panics: AtomicU64,
    /// The number of objects that were retired beyond the limits.
    pub(super) overruns: AtomicU64,
    pub(super) settings: DomainSettings,
    /// The thread, executor or backup thread of the domain. Not set where writers or explicit calls reclaim alone.
    pub(super) reclaimer: OnceLock<Reclaimer>,
}

/// The settings of a domain that do not change after it is built.
pub(crate) struct DomainSettings {
    /// Whether writers reclaim where no thread or job does: in all domains but manual ones.
    pub(super) writers_share: bool,
    /// The clock used to measure grace periods and stalls.
    pub(super) clock: Stopwatch,
    /// The reapers that the domain calls at intervals.
    pub(super) background: Background,
    /// The handler of stall reports. `None` only while the domain is torn down.
    pub(super) on_stall: Option<StallHandler>,
}

/// The number of the [global](super::Domain::global) domain. A constant needs it, before there is the domain.
pub(crate) const GLOBAL: u64 = 0;

/// The most objects, and bytes, of callbacks that `Inner::waiting` does not count yet. A count is two locked instructions.
const UNCOUNTED_OBJECTS: u64 = 32;
const UNCOUNTED_BYTES: u64 = 1 << 16;
/// The most objects that one write destroys, or twice the number that it has handed over if that is more.
const WRITERS_SHARE: usize = 256;
/// The same beyond the soft mark of the backlog, and the most rounds that a write makes there.
const PRESSED_SHARE: usize = 512;
const PRESSED_ROUNDS: usize = 4;
/// The most objects beyond the soft mark that one write destroys, by whichever thread they were retired.
const EXCESS_SHARE: u64 = 4096;
/// The soft mark of a domain without limits, in objects and in bytes.
const SOFT_OBJECTS: u64 = 2048;
const SOFT_BYTES: u64 = 1 << 20;
/// The longest pause of a caller of [`Domain::call`](super::Domain::call) while other threads destroy what is ready.
const CALLERS_WAIT: Duration = Duration::from_millis(1);
/// After a writer has made a round, callers expect another one from it for this many coarse ticks, of 4 ms each.
const WRITER_RETURNS: u64 = 25;

impl Inner {
    pub(super) fn new(
        is_global: bool,
        name: Option<String>,
        stall_after: Duration,
        budget: Budget,
        settings: DomainSettings,
    ) -> Arc<Self> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(GLOBAL + 1);
        // ORDERING: Relaxed, only the number matters. (Not modelled by loom: no model depends on it.)
        let id = if is_global { GLOBAL } else { NEXT.fetch_add(1, Ordering::Relaxed) };
        Arc::new_cyclic(|this| Inner {
            this: Weak::clone(this),
            id,
            name: name.unwrap_or_else(|| format!("domain-{id}")),
            collector: Collector::new(),
            grace: crate::sync::Arc::new(Grace::new()),
            quiesce: CachePadded::new(AtomicUsize::new(0)),
            dirty: CachePadded::new(DirtyShards::new()),
            collecting: Mutex::new(()),
            closed: CachePadded::new(ClosedBags::new()),
            orphans: CachePadded::new(Orphans::new()),
            calls: Mutex::new(Calls::default()),
            last_call_over: AtomicU64::new(0),
            bags: BagPool::new(),
            waiting: Waiting::default(),
            state: CachePadded::new(Mutex::new(DomainState::new(Watchdog::new(stall_after)))),
            finished: Condvar::new(),
            unfinished: CachePadded::new(AtomicBool::new(false)),
            ready: AtomicBool::new(false),
            last_round: CachePadded::new(AtomicU64::new(0)),
            last_payer: std::sync::atomic::AtomicUsize::new(0),
            last_paid: std::sync::atomic::AtomicU64::new(0),
            budget,
            readers: Readers::default(),
            panics: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
            settings,
            reclaimer: OnceLock::new(),
        })
    }

    /// Returns the number of the newest request that sessions announce a quiescent state.
    #[inline]
    pub(crate) fn asked(&self) -> usize {
        // ORDERING: Relaxed. An old value only delays the announcement: until the session pins again, it stays
        // pinned where it was.
        self.quiesce.load(Ordering::Relaxed)
    }

    /// Returns an empty bag for a shard.
    pub(crate) fn new_bag(&self, shard: NonNull<ShardHeader>) -> Box<Bag> {
        self.bags.take(shard)
    }

    /// Marks a shard as dirty: its open bag has received its first node. The caller holds the shard lock (Q1), and
    /// wakes the reclaimer after it has released the lock.
    pub(crate) fn mark_dirty(&self, shard: &ShardHeader) {
        self.dirty.add(shard);
    }

    /// Takes a closed bag from a shard. Lock-free, and allowed under a shard lock.
    pub(crate) fn hand_over(&self, bag: Box<Bag>) {
        self.waiting.add(bag.amount());
        self.closed.push(bag);
    }

    /// Returns whether something waits for a grace period or to be destroyed. Only a hint.
    pub(crate) fn has_work(&self) -> bool {
        // ORDERING: Relaxed, a hint: a round that comes later finds what this misses.
        let unfinished = self.unfinished.load(Ordering::Relaxed);
        unfinished || !self.closed.is_empty() || !self.dirty.is_empty() || !self.orphans.is_empty()
    }

    /// Returns whether a write that has retired nothing looks for something to reclaim: where no thread or job does.
    #[inline]
    pub(crate) fn do_writers_look(&self) -> bool {
        self.settings.writers_share && self.reclaimer.get().is_none()
    }

    /// Does a write's share of reclamation. The caller has released the shard lock. It has handed over `handed_over`
    /// nodes, or has opened a bag, or it is its turn to look for something to reclaim.
    #[cold]
    #[inline(never)]
    pub(crate) fn assist(&self, handed_over: usize) {
        self.wake();
        if self.is_pressed() {
            return self.assist_pressed(handed_over);
        }
        let reclaimer = self.reclaimer.get();
        if reclaimer.is_some_and(|reclaimer| reclaimer.is_on() && reclaimer.nudge(handed_over > 0)) {
            // The reclaimer sees to it. It was woken when the first node was retired.
            return;
        }
        if !self.settings.writers_share {
            return;
        }
        let is_new_tick = self.begin_tick(coarse_ticks());
        // The shard is dirty now. Its next write that comes here is the one that fills the bag. So if no thread or
        // job will collect the bag before, this write does.
        let no_one_collects = reclaimer.is_some_and(|reclaimer| !reclaimer.comes_later());
        if is_new_tick || no_one_collects && handed_over == 0 {
            self.try_reclaim(WRITERS_SHARE.max(2 * handed_over));
        } else if handed_over > 0 {
            self.round(WRITERS_SHARE.max(2 * handed_over), Collect::Closed, false);
        }
    }

    /// Does a write's share of reclamation beyond the soft mark, whatever else reclaims. The share is at least twice
    /// the number of nodes that the writer has handed over. The writer makes up to four rounds, and expedites the
    /// grace period.
    #[cold]
    fn assist_pressed(&self, handed_over: usize) {
        let now = coarse_ticks();
        // ORDERING: Relaxed, both: hints for `may_expect_writer`.
        self.last_paid.store(now, Ordering::Relaxed);
        self.last_payer.store(thread_tag(), Ordering::Relaxed);
        // In a new tick it collects the open bags of quiet shards too, as a writer below the soft mark does.
        let mut collect = if self.begin_tick(now) { Collect::Free } else { Collect::Closed };
        // Callers of `Domain::call` destroy nothing, so writers also destroy what those callers have added.
        let excess = self.waiting.get().objects.saturating_sub(SOFT_OBJECTS).min(EXCESS_SHARE);
        let mut share = PRESSED_SHARE.max(2 * handed_over).max(excess as usize);
        for _ in 0..PRESSED_ROUNDS {
            let (_, done) = self.round(share, collect, true);
            collect = Collect::Closed;
            share = share.saturating_sub(done);
            if share == 0 || !self.is_pressed() || self.in_critical_section() {
                return;
            }
        }
    }

    /// Returns whether no writer has collected open bags in this tick yet: then the caller does.
    fn begin_tick(&self, now: u64) -> bool {
        // ORDERING: Relaxed, both: hints. Two writers may both take this tick for new; one of them gets the domain's lock.
        let is_new = self.last_round.load(Ordering::Relaxed) != now;
        if is_new {
            self.last_round.store(now, Ordering::Relaxed);
        }
        is_new
    }

    /// Returns whether so much waits that writers must pay for what they retire: more than the soft mark.
    pub(super) fn is_pressed(&self) -> bool {
        if self.budget.is_limited() {
            return self.budget.is_pressed();
        }
        let Backlog { objects, bytes } = self.waiting.get();
        self.settings.writers_share && (objects > SOFT_OBJECTS || bytes > SOFT_BYTES)
    }

    /// Returns whether the domain has a thread, an executor or a backup thread that was not stopped.
    pub(super) fn is_reclaimer_on(&self) -> bool {
        self.reclaimer.get().is_some_and(Reclaimer::is_on)
    }

    /// Queues a callback whose place in the backlog is taken already.
    pub(super) fn push_call(&self, call: Callback) {
        self.queue(call);
        self.wake();
    }

    /// Queues a callback. Returns its number, and how many callbacks are queued.
    fn queue(&self, call: Callback) -> (u64, usize) {
        let mut calls = self.calls.lock();
        calls.last += 1;
        calls.uncounted += call.amount;
        calls.queue.push(call);
        if calls.uncounted.objects >= UNCOUNTED_OBJECTS || calls.uncounted.bytes >= UNCOUNTED_BYTES {
            self.count(&mut calls);
        }
        // ORDERING: Relaxed, a hint to writers. It is stored under the lock of the callbacks, as in `unlock`.
        self.unfinished.store(true, Ordering::Relaxed);
        (calls.last, calls.queue.len())
    }

    /// Adds what was queued to what waits.
    pub(super) fn count(&self, calls: &mut Calls) {
        let uncounted = std::mem::take(&mut calls.uncounted);
        if uncounted != Backlog::default() {
            self.waiting.add(uncounted);
        }
    }

    /// Takes a place in the backlog for a callback, or for an object that a writer is about to retire. If the backlog is
    /// full, waits, fails or goes on as the domain's policy and `if_full` say. The caller holds no lock.
    pub(crate) fn reserve<E: Failure>(&self, bytes: u64, if_full: &mut IfFull<E>) -> Result<Backlog, E> {
        if let Some(amount) = self.try_reserve(bytes) {
            return Ok(amount);
        }
        let amount = Backlog::one(self.budget.weigh(bytes as usize));
        self.make_room(amount.bytes, if_full)?;
        Ok(amount)
    }

    /// As [`reserve`](Self::reserve), if there is room. The caller may hold locks.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Option<Backlog> {
        let amount = Backlog::one(self.budget.weigh(bytes as usize));
        self.budget.take(amount).then_some(amount)
    }

    /// Gives back a place that is not used.
    pub(crate) fn give_back(&self, amount: Backlog) {
        self.budget.give_back(amount);
    }

    /// Retires an object, whose place in the backlog is taken already, and does a writer's share of reclamation. Returns
    /// the number of the callback. The caller holds no lock.
    pub(crate) fn retire(&self, object: Object, amount: Backlog) -> u64 {
        let (number, queued) = self.queue(Callback::of_object(object, amount));
        // The first object in the queue stands for the first node in an open bag, and as many objects as a bag holds for a
        // closed bag. Beyond the soft mark each round takes the queue. So the first object is no reason for a round there:
        // each write would make one, in vain if a reader is in the way.
        if number % BAG as u64 == 0 {
            self.assist(BAG);
        } else if queued == 1 {
            if self.is_pressed() { self.wake() } else { self.assist(0) }
        }
        number
    }

    /// Hands over an object whose last reference the caller has put: to the run that this thread is in the middle of,
    /// or to the queue. It cannot be refused.
    pub(crate) fn retire_last(&self, object: Object) {
        let Some(Orphan::Object(object)) = Running::adopt(self, Orphan::Object(object)) else { return };
        let amount = Backlog::one(0);
        self.budget.charge_unchecked(amount);
        self.push_call(Callback::of_object(object, amount));
    }

    /// Beyond the soft mark, pauses a caller of `call` while other threads have something to destroy. The caller
    /// itself destroys nothing, because it may hold locks that callbacks take.
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

    /// Returns whether another thread has made a round as a writer beyond the soft mark in the last tenth of a second.
    fn may_expect_writer(&self) -> bool {
        // ORDERING: Relaxed, both: hints. A wrong answer costs one pause, or saves one.
        self.last_payer.load(Ordering::Relaxed) != thread_tag()
            && coarse_ticks().saturating_sub(self.last_paid.load(Ordering::Relaxed)) <= WRITER_RETURNS
    }

    /// Calls `run` after a grace period, to free `bytes` bytes of the registry's own. Never refused. The caller
    /// holds no lock, since this may call the user's executor.
    pub(crate) fn defer(&self, bytes: usize, run: impl FnOnce() + Send + 'static) {
        let amount = Backlog::of(0, bytes as u64);
        self.budget.charge_unchecked(amount);
        self.push_call(Callback::new(run, amount));
    }

    pub(crate) fn downgrade(&self) -> WeakDomain {
        WeakDomain::new((self.id != GLOBAL).then(|| Weak::clone(&self.this)))
    }

    /// Calls `f`, a part of a callback or a handler. Contains its panic, and counts it.
    pub(crate) fn contained(&self, f: impl FnOnce()) {
        let panics = u64::from(contain(f));
        if panics > 0 {
            // ORDERING: Relaxed, a statistic.
            self.panics.fetch_add(panics, Ordering::Relaxed);
        }
    }

    /// Tells the domain's thread, executor or backup thread, if it has one, that something waits.
    pub(crate) fn wake(&self) {
        if let Some(reclaimer) = self.reclaimer.get() {
            reclaimer.wake();
        }
    }

    /// Returns whether this thread would wait for itself if it waited for readers or destructors.
    pub(super) fn would_wait_for_itself(&self) -> bool {
        shard_locked() || Running::is_anywhere() || self.in_critical_section()
    }

    /// Wakes an idle executor after a round, if something is left. The frame of the round is gone. It matters where
    /// the executor runs its job within `spawn`, and the round itself has called `spawn`: that job found this thread
    /// reclaiming in the same domain, and did nothing.
    pub(super) fn after_round(&self) {
        let Some(reclaimer) = self.reclaimer.get().filter(|reclaimer| reclaimer.is_on()) else { return };
        if self.has_work() {
            reclaimer.nudge(false);
        }
    }

    /// Calls the stall handler with a report, if there is one, and counts its panic. The caller holds no lock: the
    /// handler is user code.
    pub(super) fn report(&self, stall: Option<Stall>) {
        let Some(Stall { lasted, readers, repeats }) = stall else { return };
        let (backlog, waiters) = (self.waiting.get(), self.state.lock().waiters);
        let report = StallReport { domain: self.name.clone(), lasted, readers, backlog, waiters, repeats };
        let Some(handler) = &self.settings.on_stall else { return };
        Running::callback(|| self.contained(|| handler(&report)));
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
        // These closures are the user's, and any thread may be the one that drops the domain. Their panics end here.
        let handler = self.settings.on_stall.take();
        contain(|| drop(reclaimer));
        contain(|| drop(handler));
    }
}
