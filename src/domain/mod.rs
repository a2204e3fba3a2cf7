//! Domains: one collector with its readers, and what waits for them.

mod builder;
mod grace;
mod reclaim;
mod reclaimer;
mod retire;
mod session;
mod thread;

pub(crate) use retire::{List, Registrant, RetireQueue, put_last};
pub(crate) use thread::{Pin, set_shard_locked, shard_locked};

pub use builder::DomainBuilder;
pub use session::Session;

use self::grace::Grace;
use self::reclaim::{Callback, State};
use self::reclaimer::Reclaimer;
use self::retire::Dirty;
use self::thread::Running;
use crate::clock::coarse_ticks;
use crate::sync::atomic::Ordering;
use crate::sync::epoch::Collector;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, Pause};
use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Readers and what waits for them: a grace period is a grace period *of* a domain.
///
/// Registries that share a domain share its readers: a critical section in one delays the destruction of what was
/// removed from the other. An isolated domain (the kernel's SRCU) keeps slow readers to themselves. It costs a few
/// hundred bytes, and about 2 KB for each thread that reads in it.
///
/// A `Domain` is a handle: clones mean the same domain. It is torn down when the last handle, registry, session and
/// entry handle that belongs to it is gone, and everything retired in it is destroyed then.
///
/// ```
/// use epoch_registry::{Domain, Registry};
///
/// let domain = Domain::builder().name("sessions").build();
/// let registry: Registry<u64, String> = Registry::builder().domain(domain.clone()).build();
/// registry.insert(1, "one".to_string()).unwrap();
/// registry.remove(&1);
/// domain.barrier(); // what was removed is destroyed now
/// assert_eq!(registry.stats().freed, 1);
/// ```
#[derive(Clone)]
pub struct Domain(Arc<Inner>);

pub(crate) struct Inner {
    id: u64,
    name: String,
    collector: Collector,
    grace: crate::sync::Arc<Grace>,
    /// Goes up whenever sessions are asked to announce a quiescent state.
    quiesce: CachePadded<AtomicUsize>,
    /// Retire queues that hold nodes.
    dirty: CachePadded<Dirty>,
    calls: Mutex<Vec<Callback>>,
    state: Mutex<State>,
    /// Signalled when a batch has been destroyed and somebody sleeps on it.
    finished: Condvar,
    /// A hint that `state` holds something.
    unfinished: AtomicBool,
    /// The coarse tick in which a writer last drove reclamation.
    driven: AtomicU64,
    /// Callbacks that panicked.
    panics: AtomicU64,
    reclaimer: OnceLock<Reclaimer>,
}

/// Objects that one write destroys at the most, beside its own work, where no reclaimer thread does.
const WRITERS_SHARE: usize = 128;

impl Domain {
    /// A new domain, isolated from all others, with the default settings.
    pub fn new() -> Domain {
        Domain::builder().build()
    }

    /// Configures a new domain.
    pub fn builder() -> DomainBuilder {
        DomainBuilder::new()
    }

    /// The process-wide domain, which registries use unless told otherwise. It has no reclaimer thread, and is never
    /// torn down.
    pub fn global() -> &'static Domain {
        static GLOBAL: OnceLock<Domain> = OnceLock::new();
        GLOBAL.get_or_init(|| Domain::builder().name("global").build())
    }

    /// The name given by [`DomainBuilder::name`], or `domain-` and a number.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Opens a critical section: nothing that it can reach is destroyed before the guard is dropped. Use it with
    /// [`Registry::view`](crate::Registry::view) to read several registries under one pin.
    ///
    /// # Progress
    ///
    /// Wait-free, but for the first pin of a thread, which registers it (lock-free, and allocates about 2 KB).
    pub fn pin(&self) -> DomainGuard<'_> {
        DomainGuard { pin: self.0.pin(), domain: &self.0 }
    }

    /// Registers this thread as a long-lived reader, whose reads cost no fence. See [`Session`].
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Waits until every critical section that is open now has closed.
    ///
    /// # Progress
    ///
    /// Blocks, for as long as the slowest reader stays in its critical section. It neither destroys anything nor
    /// waits for destruction; [`barrier`](Self::barrier) does.
    ///
    /// # Panics
    ///
    /// In a critical section of the same domain (a guard, or an online session of this thread), in which it would wait for
    /// itself; in a destructor or callback that any domain runs, two of which could wait for each other; and in the `Eq`
    /// of a key.
    pub fn synchronize(&self) {
        self.refuse_to_wait("synchronize");
        let number = self.0.start_poll();
        let mut pause = Pause::new();
        while !self.0.poll(number) {
            pause.pause();
        }
    }

    /// Waits until everything that was retired, or given to [`call`](Self::call), before this call, on whatever
    /// thread, has been destroyed or run. What these destructors retire in turn by dropping a last handle is included.
    ///
    /// # Progress
    ///
    /// Blocks, for a grace period and the destructors. The caller runs those that are ready and not being run.
    ///
    /// # Panics
    ///
    /// As [`synchronize`](Self::synchronize).
    pub fn barrier(&self) {
        self.refuse_to_wait("barrier");
        self.0.barrier();
    }

    /// Calls `f` after a grace period: when every critical section that is open now has closed. It runs on the reclaim
    /// side, wherever destructors run, and never on a reader; callbacks given by one thread run in their order, unless
    /// several threads reclaim. A panic in it is contained and counted.
    ///
    /// A callback that itself holds a handle of the domain (or of an entry in it) keeps the domain from being torn down,
    /// until it is run: without a reclaimer thread, see to it that somebody writes, or reclaims.
    ///
    /// # Progress
    ///
    /// Takes a short lock. Does not wait for readers.
    pub fn call(&self, f: impl FnOnce() + Send + 'static) {
        self.0.call(Box::new(f));
    }

    /// Begins a grace period, to be polled. It covers every critical section that is open now.
    pub fn start_poll(&self) -> Cookie {
        Cookie { domain: self.0.id, number: self.0.start_poll() }
    }

    /// Whether the grace period of `cookie` is over. Pushes it on, without waiting.
    ///
    /// # Panics
    ///
    /// If the cookie is another domain's.
    pub fn poll(&self, cookie: Cookie) -> bool {
        assert_eq!(cookie.domain, self.0.id, "a cookie of another domain");
        self.0.poll(cookie.number)
    }

    /// Waits for the grace period of `cookie`, for `timeout` at most. True if it is over.
    ///
    /// # Panics
    ///
    /// If the cookie is another domain's.
    pub fn poll_timeout(&self, cookie: Cookie, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut pause = Pause::new();
        while !self.poll(cookie) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            pause.pause();
        }
        true
    }

    /// Destroys up to `budget` objects that are ready, and tries to make more ready. Returns how many it destroyed.
    ///
    /// # Progress
    ///
    /// Does not wait for readers. Does nothing within a destructor or callback of the same domain, or while another
    /// thread is at it.
    pub fn reclaim(&self, budget: usize) -> usize {
        self.0.drive(budget).1
    }

    /// Objects that have been collected for destruction and still wait, for a grace period or for their turn. Retired
    /// objects that have not been collected yet are not counted.
    pub fn backlog(&self) -> usize {
        self.0.backlog()
    }

    /// Grace periods that are over.
    pub fn grace_periods(&self) -> u64 {
        self.0.grace.completed()
    }

    /// Callbacks given to [`call`](Self::call) that panicked.
    pub fn callback_panics(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.0.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    fn refuse_to_wait(&self, what: &str) {
        let name = self.name();
        assert!(!shard_locked(), "{what} within the `Eq` of a key, which runs under a shard lock");
        assert!(
            !Running::is_anywhere(),
            "{what} on domain `{name}` within a destructor or callback, of that domain or another, could wait for itself"
        );
        assert!(
            !self.0.in_critical_section(),
            "{what} on domain `{name}` within a critical section of that domain would wait for itself: \
             drop the guard, or take the session offline, first"
        );
    }
}

impl Default for Domain {
    /// The [global](Domain::global) domain.
    fn default() -> Self {
        Domain::global().clone()
    }
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Domain {}

/// Panics of destructors and callbacks are contained, and leave the domain as it was.
impl std::panic::RefUnwindSafe for Domain {}
impl std::panic::UnwindSafe for Domain {}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Inner {
    fn new(name: Option<String>) -> Arc<Self> {
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
            state: Mutex::new(State::default()),
            finished: Condvar::new(),
            unfinished: AtomicBool::new(false),
            driven: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            reclaimer: OnceLock::new(),
        })
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
        if self.reclaimer.get().is_some() {
            // The thread was woken when the first node was retired.
            return;
        }
        let now = coarse_ticks();
        // ORDERING: Relaxed. Two writers may both think it is their turn; one of them gets the lock.
        if due || self.driven.load(Ordering::Relaxed) != now {
            self.driven.store(now, Ordering::Relaxed);
            self.drive(WRITERS_SHARE);
        }
    }

    pub(crate) fn call(&self, f: Callback) {
        let mut calls = self.calls.lock();
        calls.push(f);
        // ORDERING: Relaxed, a hint to writers; under the lock, as in `unlock`.
        self.unfinished.store(true, Ordering::Relaxed);
        drop(calls);
        self.wake();
    }

    /// Takes a retire queue that has just become non-empty.
    fn enqueue(&self, queue: &RetireQueue) {
        if self.dirty.push(queue) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(reclaimer) = self.reclaimer.get() {
            reclaimer.wake();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(reclaimer) = self.reclaimer.take() {
            reclaimer.stop();
        }
        self.grace.abandon();
        self.drain();
    }
}

/// A grace period to be polled, from [`Domain::start_poll`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cookie {
    domain: u64,
    number: u64,
}

/// An open critical section of a domain, from [`Domain::pin`].
#[must_use = "the critical section ends when the guard is dropped"]
pub struct DomainGuard<'d> {
    pin: Pin,
    domain: &'d Inner,
}

impl DomainGuard<'_> {
    /// Closes the critical section and opens a new one. Nested in another of the same thread it does nothing.
    pub fn repin(&mut self) {
        self.pin.repin();
    }

    pub(crate) fn is_of(&self, domain: &Domain) -> bool {
        std::ptr::eq(self.domain, domain.inner())
    }
}

impl fmt::Debug for DomainGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainGuard").field("domain", &self.domain.name).finish()
    }
}
