//! The settings of a domain.

use super::Domain;
use super::background::{Background, REAP_EVERY};
use super::backup::{self, Backup};
use super::budget::{Budget, WhenFull};
use super::inner::{DomainSettings, Inner};
use super::job::{Executor, ReclaimJob};
use super::reclaimer::{ReclaimThread, Reclaimer};
use super::stall::{StallHandler, StallReport};
use crate::sync;
use crate::util::clock::{ManualClock, Stopwatch};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The settings of a new [`Domain`].
pub struct DomainBuilder {
    name: Option<String>,
    who: Who,
    objects: Option<u64>,
    bytes: Option<u64>,
    when_full: WhenFull,
    stall_after: Duration,
    reap_every: Duration,
    on_stall: StallHandler,
    clock: Stopwatch,
}

/// Who reclaims, besides the callers of `reclaim` and `barrier`.
enum Who {
    /// Writers, and a backup thread.
    Default,
    Writers,
    Nobody,
    Thread,
    Executor(Box<dyn Fn(ReclaimJob) + Send + Sync>),
}

/// The default threshold of stall reports, that of the Linux kernel (`rcu_cpu_stall_timeout`).
const STALL_AFTER: Duration = Duration::from_secs(21);

/// The shortest threshold of stall reports. With less, each look at a grace period would make a report.
const SHORTEST_STALL: Duration = Duration::from_millis(1);

impl DomainBuilder {
    pub(super) fn new() -> Self {
        DomainBuilder {
            name: None,
            // A model sets its threads itself.
            who: if cfg!(loom) { Who::Writers } else { Who::Default },
            objects: None,
            bytes: None,
            when_full: WhenFull::Grow,
            stall_after: STALL_AFTER,
            reap_every: REAP_EVERY,
            on_stall: Box::new(|report| log::warn!(target: "epoch_registry", "{report}")),
            clock: Stopwatch::Real(Instant::now()),
        }
    }

    /// Sets the domain's name, which appears in panics, in reports and in the name of the reclaimer thread.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the domain has a thread of its own that runs destructors and callbacks promptly, so that
    /// writers run none. The thread is started at once. It is joined when the domain is torn down or its reclaimer
    /// is [stopped](Domain::stop_reclaimer).
    ///
    /// `false` means [`writers_only`](Self::writers_only). The default is neither: writers share the work, and a
    /// thread, started when something waits, reclaims what is left after the last write. See [`Domain`].
    pub fn reclaimer(mut self, on: bool) -> Self {
        self.who = if on { Who::Thread } else { Who::Writers };
        self
    }

    /// Leaves reclamation to writers, each of which destroys a bounded number of objects, and to explicit calls.
    /// There is no thread: what was removed last stays until the next write, [`reclaim`](Domain::reclaim) or
    /// [`barrier`](Domain::barrier). For programs that must not start threads, or that fork and continue in the
    /// child.
    pub fn writers_only(mut self) -> Self {
        self.who = Who::Writers;
        self
    }

    /// Sets the caller's executor, which runs destructors and callbacks. `spawn` receives a [job](ReclaimJob) when
    /// there is something to do and no job is under way, and must hand the job over, to be run elsewhere. Writers
    /// and threads that drop handles call `spawn`, outside every lock. A panic in it is contained. [`ReclaimJob`]
    /// says how each kind of executor runs a job, and what happens to a job that is dropped.
    ///
    /// ```
    /// use epoch_registry::{Domain, Registry};
    ///
    /// let (send, jobs) = std::sync::mpsc::channel();
    /// let pool = std::thread::spawn(move || jobs.iter().for_each(epoch_registry::ReclaimJob::run));
    /// let domain = Domain::builder().executor(move |job| send.send(job).unwrap()).build();
    ///
    /// let registry = Registry::builder().domain(domain.clone()).build();
    /// registry.insert(1, "one");
    /// registry.remove(&1);
    /// while registry.stats().freed == 0 {
    ///     std::thread::yield_now();
    /// }
    /// drop((registry, domain));
    /// pool.join().unwrap();
    /// ```
    pub fn executor(mut self, spawn: impl Fn(ReclaimJob) + Send + Sync + 'static) -> Self {
        self.who = Who::Executor(Box::new(spawn));
        self
    }

    /// Leaves reclamation to explicit calls of [`Domain::reclaim`] and [`Domain::barrier`]. No write runs a
    /// destructor, unless the backlog is beyond half of its limit.
    pub fn manual(mut self) -> Self {
        self.who = Who::Nobody;
        self
    }

    /// Sets the largest number of objects that may wait to be destroyed: see [`Backlog`](crate::Backlog). No limit
    /// by default; at least 1.
    ///
    /// - From half of the limit on (the soft mark), writers assist in reclamation, even if a thread or an executor
    ///   reclaims, and expedite the grace period.
    /// - At the limit, the policy of [`when_full`](Self::when_full) applies. Shards take up to a fourth of the
    ///   limit in advance, so the policy may apply before the whole limit is used.
    ///
    /// The limit does not apply to entries whose last handle is dropped after their grace period (they do not wait
    /// for readers), nor to the entries of a registry that is dropped (they do not wait at all).
    pub fn backlog_objects(mut self, limit: usize) -> Self {
        self.objects = Some((limit as u64).max(1));
        self
    }

    /// Sets the largest number of bytes that may wait to be destroyed. Otherwise as
    /// [`backlog_objects`](Self::backlog_objects); at least 2. An entry that takes more than half of the limit
    /// counts for half. Tables that a resize has replaced are counted, but are never refused.
    pub fn backlog_bytes(mut self, limit: usize) -> Self {
        self.bytes = Some((limit as u64).max(2));
        self
    }

    /// Sets what happens to a removal for which there is no room in the backlog. By default it proceeds.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.when_full = policy;
        self
    }

    /// Sets how long a grace period that something waits for may last before it is reported: 21 seconds by default,
    /// at least 1 ms. The first report is made within 10% of that time. Further reports follow twice that time
    /// later, then four times that time later, and so on.
    ///
    /// Whatever drives reclamation notices a stall: the domain's thread, a job on an executor, a caller that waits
    /// for a grace period, a writer. Without any of these, a stall is not noticed.
    pub fn stall_after(mut self, threshold: Duration) -> Self {
        self.stall_after = threshold.max(SHORTEST_STALL);
        self
    }

    /// Sets the handler of reports of grace periods that last too long. By default a report is logged as a warning,
    /// by the `log` crate. The handler runs where destructors run, outside every lock, and must not wait for a
    /// grace period. A panic in it is contained.
    pub fn on_stall(mut self, handler: impl Fn(&StallReport) + Send + Sync + 'static) -> Self {
        self.on_stall = Box::new(handler);
        self
    }

    /// Sets how often the domain calls the reapers that were [added](Domain::add_reaper) to it: every 100 ms by
    /// default, at least 1 ms, at most a day. The domain calls them again at once while they have more to do.
    pub fn reap_every(mut self, interval: Duration) -> Self {
        self.reap_every = interval;
        self
    }

    /// Sets a clock that moves only when told to, by which grace periods and stalls are measured. For tests.
    pub fn manual_clock(mut self, clock: ManualClock) -> Self {
        self.clock = Stopwatch::Manual(clock);
        self
    }

    /// Sets a backup thread, which domains have by default outside of models.
    #[cfg(loom)]
    #[doc(hidden)]
    pub fn backup(mut self) -> Self {
        self.who = Who::Default;
        self
    }

    /// Builds the domain.
    ///
    /// # Panics
    ///
    /// If a reclaimer thread is [requested](Self::reclaimer) and the system cannot start it.
    pub fn build(self) -> Domain {
        self.build_as(false)
    }

    /// Builds the global domain, if `is_global`, or else another one.
    pub(super) fn build_as(self, is_global: bool) -> Domain {
        let DomainBuilder { name, who, objects, bytes, when_full, stall_after, reap_every, on_stall, clock } = self;
        let writers_share = !matches!(who, Who::Nobody);
        let background = Background::new(reap_every);
        let settings = DomainSettings { writers_share, clock, background, on_stall: Some(on_stall) };
        let domain = Domain(Inner::new(is_global, name, stall_after, Budget::new(objects, bytes, when_full), settings));
        let weak = Arc::downgrade(&domain.0);
        let thread = format!("{}{}", domain.name(), backup::SUFFIX);
        let reclaimer = match who {
            Who::Writers | Who::Nobody => return domain,
            Who::Default => Reclaimer::Backup(Backup::new(thread, weak)),
            Who::Thread => Reclaimer::Thread(ReclaimThread::start(thread, weak).expect("cannot start the reclaimer")),
            Who::Executor(spawn) => {
                let backup = (!cfg!(loom)).then(|| sync::Arc::new(Backup::new(thread, weak.clone())));
                Reclaimer::Executor(Executor::new(spawn, weak, backup))
            }
        };
        assert!(domain.0.reclaimer.set(reclaimer).is_ok(), "the reclaimer is set once");
        domain
    }
}

impl fmt::Debug for DomainBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainBuilder")
            .field("name", &self.name)
            .field("backlog_objects", &self.objects)
            .field("backlog_bytes", &self.bytes)
            .field("when_full", &self.when_full)
            .field("stall_after", &self.stall_after)
            .finish_non_exhaustive()
    }
}
