//! Domains: one collector with its readers, and what waits for them.

mod admission;
mod background;
mod backlog;
mod backup;
mod bag;
mod budget;
mod builder;
mod error;
mod grace;
mod header;
mod histogram;
mod inner;
mod job;
mod readers;
mod reclaim;
mod reclaimer;
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
pub(crate) use inner::Inner;
pub(crate) use thread::Pin;

pub use budget::{Backlog, WhenFull};
pub use builder::DomainBuilder;
pub use error::BacklogFull;
pub use histogram::Histogram;
pub use job::ReclaimJob;
pub use readers::StalledReader;
pub use session::Session;
pub use stall::StallReport;
pub use stats::DomainStats;

use self::state::Callback;
use self::thread::Running;
use crate::reap::Reaper;
use crate::sync::Pause;
use crate::util::reentrancy::shard_locked;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Readers and what waits for them: a grace period is a grace period *of* a domain.
///
/// Registries that share a domain share its readers: a critical section in one delays the destruction of what was
/// removed from the other. An isolated domain (the kernel's SRCU) keeps slow readers to themselves. It costs about
/// a kilobyte, and 2 KB for each thread that reads in it.
///
/// # Who reclaims
///
/// | built by | what destroys values | writers |
/// |---|---|---|
/// | default | writers, and a thread that ends the waiting after the last write | share the work |
/// | [`writers_only`](DomainBuilder::writers_only) | writers | share the work |
/// | [`reclaimer(true)`](DomainBuilder::reclaimer) | a thread | destroy nothing |
/// | [`executor`](DomainBuilder::executor) | jobs on an executor of the program's | help a job that is behind |
/// | [`manual`](DomainBuilder::manual) | [`reclaim`](Self::reclaim) and [`barrier`](Self::barrier) | destroy nothing |
///
/// (Near the [limit](DomainBuilder::backlog_objects) of a backlog, writers always reclaim.)
///
/// The thread of a default domain is started by the first removal, or whatever else begins to wait. It is named
/// `<domain>-reclaim`, looks every 10 ms while something waits, parks when nothing does, and ends after a minute of that.
/// A value is dropped within 50 ms of when its last reference is gone and no reader is in the way, with no further call. If
/// the system gives no thread, that is logged as a warning, once; writers reclaim alone, and try again after a second.
///
/// # Fork
///
/// A child that a process forks has none of the threads of its parent, and every lock as another thread left it. So it must
/// not use a domain or registry of before, but replace itself (`exec`) or end. That goes for default domains too, which have
/// a thread. A program that forks and goes on in the child builds its domains with
/// [`writers_only`](DomainBuilder::writers_only), or in the child. (A child that is forked while the thread of a default domain is
/// parked finds that out when it wakes that, and starts a thread of its own.)
///
/// A `Domain` is a handle: clones mean the same domain. It is torn down when the last handle, registry, session and
/// entry handle that belongs to it is gone, and everything retired in it is destroyed then: by that call, or, if its thread or
/// a job is in the middle of a round, by that soon after.
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
    /// A new domain, isolated from all others, with the default settings.
    pub fn new() -> Domain {
        Domain::builder().build()
    }

    /// Configures a new domain.
    pub fn builder() -> DomainBuilder {
        DomainBuilder::new()
    }

    /// The process-wide domain, which registries use unless told otherwise. It has the default settings, and is never torn
    /// down: its thread is still there when the process exits, and ends with it.
    pub fn global() -> &'static Domain {
        static GLOBAL: OnceLock<Domain> = OnceLock::new();
        GLOBAL.get_or_init(|| Domain::builder().name("global").build())
    }

    /// The name given by [`DomainBuilder::name`], or `domain-` and a number.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Has a reaper asked to [expire](Reaper::expire) what is due, at intervals, by the domain's thread or a job on its executor
    /// (which then does not end): see [`DomainBuilder::reap_every`]. It is held weakly, and asked no more when it is gone. A
    /// panic in it is contained, and counted. (An executor that runs a job at once, within `spawn`, asks it with each job.)
    ///
    /// # Panics
    ///
    /// If the domain has neither thread nor executor: it was built [`writers_only`](DomainBuilder::writers_only) or
    /// [`manual`](DomainBuilder::manual), or its reclaimer was stopped.
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
    /// Wait-free, but for the first pin of a thread, which registers it (under a short lock, and allocates about 2 KB).
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
        let mut pause = Pause::new();
        let number = self.0.start_poll(false);
        self.0.wait_for(number, || pause.pause(), || false);
    }

    /// As [`synchronize`](Self::synchronize), asking more often: about every 60 µs, where `synchronize` asks ever less
    /// often, down to once a millisecond. So it returns up to a millisecond sooner where a reader takes its time.
    ///
    /// # Panics
    ///
    /// As [`synchronize`](Self::synchronize).
    pub fn synchronize_expedited(&self) {
        self.refuse_to_wait("synchronize_expedited");
        let number = self.0.start_poll(true);
        let mut pause = Pause::expedited();
        self.0.wait_for(number, || pause.pause(), || false);
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
    /// The caller runs neither `f` nor anything else, so it may hold locks that `f` takes (unless the domain has a
    /// [limit](DomainBuilder::backlog_objects), and is at it).
    ///
    /// A callback that itself holds a handle of the domain (or of an entry in it) keeps the domain from being torn down until it
    /// is run. Where neither thread nor executor runs it, a write or a call of [`reclaim`](Self::reclaim) must.
    ///
    /// # Progress
    ///
    /// Takes a short lock. Does not wait for readers, unless the domain has a [limit](DomainBuilder::when_full) of which
    /// that is the policy. While more than some thousand objects wait and another thread destroys them (the reclaimer, a
    /// job, or a writer), it pauses for up to a millisecond, so that a flood of calls does not outrun reclamation. It does
    /// not pause in a critical section, destructor or callback. (In a domain of [writers only](DomainBuilder::writers_only)
    /// without writers, nothing slows callers down.)
    pub fn call<F: FnOnce() + Send + 'static>(&self, f: F) {
        let amount = Backlog::one(self.0.budget.weigh(size_of::<F>()));
        if !self.0.budget.take(amount) {
            let Ok(()) = self.0.make_room(amount.bytes, &mut IfFull::go_on());
        }
        self.0.push_call(Callback::new(f, amount));
        self.0.slow_down();
    }

    /// As [`call`](Self::call), unless there is no room in the backlog and its policy is to refuse.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`], with the callback.
    pub fn try_call<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<(), BacklogFull<F>> {
        let amount = Backlog::one(self.0.budget.weigh(size_of::<F>()));
        if !self.0.budget.take(amount) && self.0.make_room(amount.bytes, &mut IfFull::fail()).is_err() {
            return Err(BacklogFull(f));
        }
        self.0.push_call(Callback::new(f, amount));
        self.0.slow_down();
        Ok(())
    }

    /// Begins a grace period, to be polled. It covers every critical section that is open now.
    pub fn start_poll(&self) -> Cookie {
        Cookie { domain: self.0.id, number: self.0.start_poll(false) }
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
        assert_eq!(cookie.domain, self.0.id, "a cookie of another domain");
        let since = Instant::now();
        let mut pause = Pause::new();
        self.0.wait_for(cookie.number, || pause.pause(), || since.elapsed() >= timeout)
    }

    /// Destroys up to `budget` objects that are ready, and tries to make more ready. Returns how many it destroyed.
    ///
    /// # Progress
    ///
    /// Does not wait for readers. Does nothing within a destructor or callback of the same domain, or while another
    /// thread is at it.
    pub fn reclaim(&self, budget: usize) -> usize {
        self.0.reclaim(budget)
    }

    /// What waits to be destroyed, for a grace period or for its turn.
    ///
    /// # Progress
    ///
    /// As [`stats`](Self::stats).
    pub fn backlog(&self) -> Backlog {
        self.0.backlog()
    }

    /// Whether this thread is in a critical section of the domain: has a guard, or a session that is online. (While the
    /// thread exits, also one of another domain may count.) For assertions, as the kernel's `rcu_read_lock_held`.
    pub fn in_critical_section(&self) -> bool {
        self.0.in_critical_section()
    }

    /// Ends the domain's thread for good and waits for it, or ends the use of the executor. From then on writers share the work.
    /// Without either it does nothing.
    ///
    /// Where the thread could be waiting for the caller, it does not wait, and the thread ends after its round: in a reaper or
    /// pressure source, in an executor's `spawn`, and in a critical section of any domain.
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
