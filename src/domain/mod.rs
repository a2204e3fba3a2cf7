//! Domains: a domain is one collector, its readers, and the retired objects that wait for them.

mod admission;
mod background;
mod backlog;
mod backup;
mod bag;
mod budget;
mod builder;
mod error;
mod frame;
mod futures;
mod grace;
mod header;
mod histogram;
mod inner;
mod job;
mod polls;
mod readers;
mod reclaim;
mod reclaimer;
mod section;
mod session;
mod stall;
mod state;
mod stats;
mod thread;

#[cfg(feature = "pressure")]
pub(crate) use background::{Calling, may_wait_for_threads};
pub(crate) use bag::{Bag, Bags};
pub(crate) use budget::{Credits, Failure, Full, IfFull};
pub(crate) use header::{Operations, Reclaimed, RegistryHeader, ShardHeader, put_last, shard_of};
pub(crate) use inner::{GLOBAL, Inner};
pub(crate) use state::Object;
pub(crate) use thread::Pin;

pub use budget::{Backlog, WhenFull};
pub use builder::DomainBuilder;
pub use error::BacklogFull;
pub use futures::{BarrierFuture, Reached};
pub use histogram::Histogram;
pub use job::ReclaimJob;
pub use readers::StalledReader;
pub(crate) use section::Sealed;
pub use section::{CriticalSection, Section};
pub use session::Session;
pub use stall::StallReport;
pub use stats::DomainStats;

use self::frame::Running;
use self::polls::Awaited;
use self::state::Callback;
use crate::reap::Reaper;
use crate::sync::Pause;
use crate::util::reentrancy::shard_locked;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// A set of readers, and the retired objects that wait for them. A grace period belongs to one domain.
///
/// Registries that share a domain share its readers: a critical section in one registry delays the destruction of
/// what was removed from the other. A domain of its own (as in the kernel's SRCU) keeps the slow readers of one
/// registry away from others. A domain costs about a kilobyte, and 2 KB for each thread that reads in it.
///
/// # Who reclaims
///
/// | built by | what destroys values | writers |
/// |---|---|---|
/// | default | writers, and a thread that does the rest after the last write | share the work |
/// | [`writers_only`](DomainBuilder::writers_only) | writers | share the work |
/// | [`reclaimer(true)`](DomainBuilder::reclaimer) | a thread | destroy nothing |
/// | [`executor`](DomainBuilder::executor) | jobs on an executor of the program's | help a job that is behind |
/// | [`manual`](DomainBuilder::manual) | [`reclaim`](Self::reclaim) and [`barrier`](Self::barrier) | destroy nothing |
///
/// Near the [limit](DomainBuilder::backlog_objects) of a backlog, writers always reclaim.
///
/// The thread of a default domain:
///
/// - The first removal starts it, or anything else that begins to wait. Its name is `<domain>-reclaim`.
/// - It looks every 10 ms while something waits, parks when nothing does, and ends when it has been parked for a
///   minute.
/// - A value is dropped within 50 ms, with no further call, once its last reference is gone and no reader is in the
///   way.
/// - If the system refuses to start the thread, that is logged as a warning, once. Writers then reclaim alone, and
///   try again after a second.
///
/// # Fork
///
/// A child process that a process forks has none of its parent's threads, and its locks may be held by threads that
/// it does not have. So the child must not use a domain or registry that existed before the fork: it must call
/// `exec` or end. This holds for default domains too, as they have a thread.
///
/// If the child is to go on, it builds its domains itself, or the program builds them with
/// [`writers_only`](DomainBuilder::writers_only). (One case is handled: if the thread of a default domain was parked
/// at the fork, the child notices that when it wakes the thread, and starts a thread of its own.)
///
/// # Teardown
///
/// A `Domain` is a handle: clones refer to the same domain. The domain is torn down when the last handle, registry,
/// session and entry handle that belongs to it is gone. Everything retired in it is destroyed then: by the call that
/// drops the last of them, or, if the domain's thread or a job is in the middle of a round, by that thread or job
/// soon after.
///
/// ```
/// use epoch_registry::{Domain, Registry};
///
/// let domain = Domain::builder().name("sessions").build();
/// let registry: Registry<u64, String> = Registry::builder().domain(domain.clone()).build();
/// registry.insert(1, "one".to_string());
/// registry.remove(&1);
/// domain.barrier(); // what was removed is destroyed now
/// assert_eq!(registry.stats().freed, 1);
/// ```
#[derive(Clone)]
pub struct Domain(Arc<Inner>);

impl Domain {
    /// Returns a new domain with the default settings, isolated from all others.
    pub fn new() -> Domain {
        Domain::builder().build()
    }

    /// Returns a builder that configures a new domain.
    pub fn builder() -> DomainBuilder {
        DomainBuilder::new()
    }

    /// Returns the process-wide domain, which a registry uses unless it is given another. It has the default
    /// settings and is never torn down: its thread ends with the process.
    pub fn global() -> &'static Domain {
        static GLOBAL: OnceLock<Domain> = OnceLock::new();
        GLOBAL.get_or_init(|| Domain::builder().name("global").build_as(true))
    }

    /// Returns the name given by [`DomainBuilder::name`], or `domain-` and a number.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Adds a reaper. The domain's thread, or a job on its executor, asks it at intervals to
    /// [expire](Reaper::expire) entries that are due. For the interval see [`DomainBuilder::reap_every`].
    ///
    /// - A job on an executor does not end while there are reapers.
    /// - The domain holds the reaper weakly, and stops calling it when it is gone.
    /// - A panic in the reaper is contained, and counted.
    /// - An executor that runs a job at once, within `spawn`, calls the reaper with each job.
    ///
    /// # Panics
    ///
    /// If the domain has neither a thread nor an executor: it was built
    /// [`writers_only`](DomainBuilder::writers_only) or [`manual`](DomainBuilder::manual), or its reclaimer was
    /// stopped.
    ///
    /// ```
    /// use epoch_registry::{Domain, ManualClock, Registry};
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// let domain = Domain::new();
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder()
    ///     .domain(domain.clone())
    ///     .max_age(Duration::from_secs(60))
    ///     .clock(clock.clone())
    ///     .build();
    /// let registry = Arc::new(registry);
    /// domain.add_reaper(&registry);
    ///
    /// registry.insert(1, "one");
    /// clock.advance(Duration::from_secs(61));
    /// while registry.stats().freed == 0 {
    ///     std::thread::yield_now();
    /// }
    /// assert!(registry.is_empty());
    /// ```
    pub fn add_reaper<R: Reaper + 'static>(&self, reaper: &Arc<R>) {
        assert!(self.0.is_reclaimer_on(), "{self:?} has neither a reclaimer thread nor an executor, to call a reaper");
        let reaper: Arc<dyn Reaper> = reaper.clone();
        self.0.add_reaper(Arc::downgrade(&reaper));
    }

    /// Opens a critical section: nothing that it can reach is destroyed before the guard is dropped. Use it with
    /// [`Registry::view`](crate::Registry::view) to read several registries under one pin.
    ///
    /// # Progress
    ///
    /// Wait-free, except for the first pin of a thread. That one registers the thread: it takes a short lock, and
    /// allocates about 2 KB.
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
    /// Blocks for as long as the slowest reader stays in its critical section. Destroys nothing, and does not wait
    /// for destruction; [`barrier`](Self::barrier) does both.
    ///
    /// # Panics
    ///
    /// Where it could wait for itself:
    ///
    /// - in a critical section of the same domain (a guard, or an online session of this thread);
    /// - in a destructor or callback that any domain runs, as two of them could wait for each other;
    /// - in the `Eq` of a key.
    pub fn synchronize(&self) {
        self.refuse_to_wait("synchronize");
        let mut pause = Pause::new();
        let number = self.0.start_poll(false);
        self.0.wait_for(Awaited::Period(number), || pause.pause(), || false);
    }

    /// Waits as [`synchronize`](Self::synchronize) does, and checks more often: about every 60 µs. `synchronize`
    /// checks less and less often, down to once a millisecond. So this returns up to a millisecond sooner where a
    /// reader takes its time.
    ///
    /// # Panics
    ///
    /// As [`synchronize`](Self::synchronize).
    pub fn synchronize_expedited(&self) {
        self.refuse_to_wait("synchronize_expedited");
        let number = self.0.start_poll(true);
        let mut pause = Pause::expedited();
        self.0.wait_for(Awaited::Period(number), || pause.pause(), || false);
    }

    /// Waits until everything that any thread retired, or gave to [`call`](Self::call), before this call has been
    /// destroyed or run. This includes what those destructors retire in turn by dropping a last handle.
    ///
    /// # Progress
    ///
    /// Blocks for a grace period and the destructors. The caller runs destructors that are ready and that no other
    /// thread runs.
    ///
    /// # Panics
    ///
    /// As [`synchronize`](Self::synchronize).
    pub fn barrier(&self) {
        self.refuse_to_wait("barrier");
        self.0.barrier();
    }

    /// Calls `f` after a grace period: when every critical section that is open now has closed.
    ///
    /// - `f` runs where destructors run, and never on a reader.
    /// - Callbacks given by one thread run in their order, unless several threads reclaim.
    /// - A panic in `f` is contained and counted.
    /// - This call runs neither `f` nor any other callback or destructor. So the caller may hold locks that `f`
    ///   takes. The exception is a domain with a [limit](DomainBuilder::backlog_objects) that it has reached: there
    ///   the call reclaims first.
    /// - A callback that holds a handle of the domain, or of an entry in it, keeps the domain from being torn down
    ///   until it has run. If the domain has neither a thread nor an executor, a write or a call of
    ///   [`reclaim`](Self::reclaim) must run it.
    ///
    /// # Progress
    ///
    /// Takes a short lock. Waits for readers only if the domain has a limit whose [policy](DomainBuilder::when_full)
    /// is to wait.
    ///
    /// If the backlog is beyond its soft mark (2,048 objects or 1 MiB, or half of a limit) while another thread (the
    /// reclaimer, a job, or a writer) destroys what is ready, the call pauses for up to a millisecond, so that a
    /// flood of calls does not outrun reclamation. It does not pause in a critical section, destructor or callback.
    /// In a domain of [writers only](DomainBuilder::writers_only) without writers, nothing slows callers down.
    pub fn call<F: FnOnce() + Send + 'static>(&self, f: F) {
        let Ok(amount) = self.0.reserve(size_of::<F>() as u64, &mut IfFull::go_on());
        self.0.push_call(Callback::new(f, amount));
        self.0.slow_down();
    }

    /// Calls `f` after a grace period, as [`call`](Self::call) does, unless the backlog has no room and its policy
    /// refuses `f`.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`], which returns the callback.
    pub fn try_call<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<(), BacklogFull<F>> {
        let Ok(amount) = self.0.reserve(size_of::<F>() as u64, &mut IfFull::fail()) else {
            return Err(BacklogFull(f));
        };
        self.0.push_call(Callback::new(f, amount));
        self.0.slow_down();
        Ok(())
    }

    /// Begins a grace period that covers every critical section that is open now. Returns a cookie to poll it with.
    pub fn start_poll(&self) -> Cookie {
        Cookie { domain: self.0.id, awaited: Awaited::Period(self.0.start_poll(false)) }
    }

    /// Returns whether the grace period of `cookie` is over. Advances it if possible, without waiting.
    ///
    /// # Panics
    ///
    /// If the cookie is of another domain.
    pub fn poll(&self, cookie: Cookie) -> bool {
        self.0.poll_awaited(self.awaited(cookie))
    }

    /// Waits for the grace period of `cookie`, but at most for `timeout`. Returns whether it is over.
    ///
    /// # Panics
    ///
    /// If the cookie is of another domain.
    pub fn poll_timeout(&self, cookie: Cookie, timeout: Duration) -> bool {
        let awaited = self.awaited(cookie);
        let since = Instant::now();
        let mut pause = Pause::new();
        self.0.wait_for(awaited, || pause.pause(), || since.elapsed() >= timeout)
    }

    /// Waits for the grace period of `cookie`.
    ///
    /// # Progress
    ///
    /// Blocks for as long as the slowest reader stays in its critical section.
    ///
    /// # Panics
    ///
    /// As [`synchronize`](Self::synchronize), and if the cookie is of another domain.
    pub fn wait(&self, cookie: Cookie) {
        self.refuse_to_wait("wait");
        let awaited = self.awaited(cookie);
        let mut pause = Pause::new();
        self.0.wait_for(awaited, || pause.pause(), || false);
    }

    /// Returns what a cookie of this domain waits for.
    fn awaited(&self, cookie: Cookie) -> Awaited {
        assert_eq!(cookie.domain, self.0.id, "a cookie of another domain");
        cookie.awaited
    }

    /// Destroys up to `budget` objects that are ready, and tries to make more ready. Returns how many it has
    /// destroyed.
    ///
    /// # Progress
    ///
    /// Does not wait for readers. Takes the locks of shards for a moment. Returns zero, and destroys nothing, in a
    /// destructor or callback of the same domain, in the `Eq` of a key, and while another thread holds the domain's
    /// lock.
    pub fn reclaim(&self, budget: usize) -> usize {
        self.0.reclaim(budget)
    }

    /// Returns the amount that waits to be destroyed: for a grace period, or because no thread has destroyed it yet.
    ///
    /// # Progress
    ///
    /// As for [`stats`](Self::stats).
    pub fn backlog(&self) -> Backlog {
        self.0.backlog()
    }

    /// Returns whether this thread is in a critical section of the domain: it has a guard, or a session that is
    /// online. For assertions, as the kernel's `rcu_read_lock_held`. While the thread exits, a critical section of
    /// another domain may count too.
    pub fn in_critical_section(&self) -> bool {
        self.0.in_critical_section()
    }

    /// Ends the domain's thread for good and waits for it, or stops the use of its executor. From then on writers
    /// share the work. Does nothing if the domain has neither.
    ///
    /// It does not wait where the thread could be waiting for the caller: in a reaper or pressure source, in an
    /// executor's `spawn`, and in a critical section of any domain. The thread then ends after its round.
    ///
    /// # Panics
    ///
    /// In a destructor or callback, which the thread may be running, and in the `Eq` of a key.
    pub fn stop_reclaimer(&self) {
        let name = self.name();
        assert!(!shard_locked(), "stop_reclaimer within the `Eq` of a key, which runs under a shard lock");
        assert!(!Running::is_anywhere(), "stop_reclaimer on domain `{name}` within a destructor or callback");
        if let Some(reclaimer) = self.0.reclaimer.get() {
            reclaimer.stop();
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Panics if a wait for readers or destructors could wait for the caller.
    pub(crate) fn refuse_to_wait(&self, what: &str) {
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

/// A domain, as an object refers to it without keeping it from being torn down.
pub(crate) struct WeakDomain(
    /// `None` for the global domain, which is never torn down.
    Option<Weak<Inner>>,
);

impl WeakDomain {
    pub(crate) const fn global() -> Self {
        WeakDomain(None)
    }

    fn new(domain: Option<Weak<Inner>>) -> Self {
        WeakDomain(domain)
    }

    /// Returns the domain, or `None` if it is torn down.
    pub(crate) fn upgrade(&self) -> Option<Domain> {
        match &self.0 {
            Some(domain) => domain.upgrade().map(Domain),
            None => Some(Domain::global().clone()),
        }
    }
}

impl Default for Domain {
    /// Returns the [global](Domain::global) domain.
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

/// Panics of destructors and callbacks are contained, and leave the domain in a valid state.
impl std::panic::RefUnwindSafe for Domain {}
impl std::panic::UnwindSafe for Domain {}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// A grace period to poll: from [`Domain::start_poll`], or from a write that retires a version of an
/// [`RcuCell`](crate::RcuCell).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cookie {
    domain: u64,
    awaited: Awaited,
}

impl Cookie {
    /// Returns the cookie of the grace period of a retired object, given the number that
    /// [`retire`](Inner::retire) has returned.
    pub(crate) fn of_retired(domain: &Inner, number: u64) -> Cookie {
        Cookie { domain: domain.id, awaited: Awaited::Call(number) }
    }

    /// Returns the cookie of a grace period that is over.
    pub(crate) fn over(domain: &Inner) -> Cookie {
        Cookie { domain: domain.id, awaited: Awaited::Call(0) }
    }
}

/// An open critical section of a domain, from [`Domain::pin`].
#[must_use = "the critical section ends when the guard is dropped"]
pub struct DomainGuard<'d> {
    pin: Pin,
    pub(super) domain: &'d Inner,
}

impl DomainGuard<'_> {
    /// Closes the critical section and opens a new one. Does nothing if it is nested in another one of the same
    /// thread.
    pub fn repin(&mut self) {
        self.pin.repin();
    }
}

impl fmt::Debug for DomainGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainGuard").field("domain", &self.domain.name).finish()
    }
}
