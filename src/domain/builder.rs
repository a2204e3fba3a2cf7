//! Settings of a domain.

use super::Domain;
use super::background::{Background, REAP_EVERY};
use super::backup::{self, Backup};
use super::budget::{Budget, WhenFull};
use super::inner::{Inner, Settings};
use super::job::{Executor, ReclaimJob};
use super::reclaimer::{ReclaimThread, Reclaimer};
use super::stall::{StallHandler, StallReport};
use crate::sync;
use crate::util::clock::{ManualClock, Stopwatch};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Settings of a new [`Domain`].
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

/// Who reclaims, beside the callers of `reclaim` and `barrier`.
enum Who {
    /// Writers, and a backup thread.
    Default,
    Writers,
    Nobody,
    Thread,
    Executor(Box<dyn Fn(ReclaimJob) + Send + Sync>),
}

/// As the Linux kernel's (`rcu_cpu_stall_timeout`).
const STALL_AFTER: Duration = Duration::from_secs(21);

/// With less, each look at a grace period would make a report.
const SHORTEST_STALL: Duration = Duration::from_millis(1);

impl DomainBuilder {
    pub(super) fn new() -> Self {
        DomainBuilder {
            name: None,
            // A model says itself which threads it has.
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

    /// The domain's name, in panics, reports and the name of its reclaimer thread.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether the domain has a thread of its own that runs destructors and callbacks, promptly, so that writers run none. It
    /// is started at once, and joined when the domain is torn down or [stopped](Domain::stop_reclaimer).
    ///
    /// `false` means [`writers_only`](Self::writers_only). By default neither is so: writers share the work, and a thread that
    /// is started when something waits ends the waiting after the last write: see [`Domain`].
    pub fn reclaimer(mut self, on: bool) -> Self {
        self.who = if on { Who::Thread } else { Who::Writers };
        self
    }

    /// Leaves reclamation to writers, each of which destroys a bounded number of objects, and to explicit calls. There is no
    /// thread: what was removed last stays until the next write, [`reclaim`](Domain::reclaim) or
    /// [`barrier`](Domain::barrier). For programs that may start no threads, or that fork and go on in the child.
    pub fn writers_only(mut self) -> Self {
        self.who = Who::Writers;
        self
    }

    /// Has destructors and callbacks run by an executor of yours: `spawn` is given a [job](ReclaimJob) when there is
    /// something to do and none is under way, and must have it run elsewhere. Writers and threads that drop handles call it,
    /// outside every lock; a panic in it is contained. [`ReclaimJob`] says how each kind of executor runs it, and what happens to
    /// a job that is dropped.
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

    /// Leaves reclamation to explicit calls of [`Domain::reclaim`] and [`Domain::barrier`]: no write runs a destructor,
    /// unless the backlog is beyond half of its limit.
    pub fn manual(mut self) -> Self {
        self.who = Who::Nobody;
        self
    }

    /// The most objects that may wait to be destroyed: see [`Backlog`](crate::Backlog). No limit by default; at least 1.
    ///
    /// At half of it, the soft mark, writers assist whoever else reclaims, and expedite the grace period. At the limit it
    /// is as [`when_full`](Self::when_full) says. Shards take up to a fourth of it in advance, so it may show before all
    /// of it is used.
    ///
    /// What is not held to it: entries whose last handle goes after their grace period (they wait for nobody), and the
    /// entries of a registry that is dropped (they do not wait at all).
    pub fn backlog_objects(mut self, limit: usize) -> Self {
        self.objects = Some((limit as u64).max(1));
        self
    }

    /// The most bytes that may wait to be destroyed, as [`backlog_objects`](Self::backlog_objects). An entry that takes
    /// more than half of that counts for half. Tables that were replaced by others are counted, but not held to it.
    pub fn backlog_bytes(mut self, limit: usize) -> Self {
        self.bytes = Some((limit as u64).max(2));
        self
    }

    /// What becomes of a removal for which there is no room in the backlog. By default it goes on.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.when_full = policy;
        self
    }

    /// How long a grace period that something waits for may last before it is reported: 21 seconds by default, 1 ms at least.
    /// It is reported once within 10% of that, and again after twice that time, four times, and so on.
    ///
    /// What drives reclamation notices it: a thread of the domain's, a job on an executor, a caller that waits for a grace
    /// period, a writer. Without any of these, it is not noticed.
    pub fn stall_after(mut self, threshold: Duration) -> Self {
        self.stall_after = threshold.max(SHORTEST_STALL);
        self
    }

    /// What is done with the report of a grace period that lasts too long. By default it is logged as a warning, by the
    /// `log` crate. It runs where destructors run, outside every lock, and must not wait for a grace period; a panic in
    /// it is contained.
    pub fn on_stall(mut self, handler: impl Fn(&StallReport) + Send + Sync + 'static) -> Self {
        self.on_stall = Box::new(handler);
        self
    }

    /// How often reapers are called that were [added](Domain::add_reaper) to the domain: every 100 ms by default. An interval
    /// shorter than 1 ms counts as 1 ms, and one longer than a day as a day. They are called again at once for as long as
    /// they have more to do.
    pub fn reap_every(mut self, interval: Duration) -> Self {
        self.reap_every = interval;
        self
    }

    /// Measures grace periods and stalls by a clock that moves only when told to. For tests.
    pub fn manual_clock(mut self, clock: ManualClock) -> Self {
        self.clock = Stopwatch::Manual(clock);
        self
    }

    /// A backup thread, as domains have by default outside of models.
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
    /// If a reclaimer thread is [asked for](Self::reclaimer) and cannot be started.
    pub fn build(self) -> Domain {
        let DomainBuilder { name, who, objects, bytes, when_full, stall_after, reap_every, on_stall, clock } = self;
        let writers_share = !matches!(who, Who::Nobody);
        let background = Background::new(reap_every);
        let settings = Settings { writers_share, clock, background, on_stall: Some(on_stall) };
        let domain = Domain(Inner::new(name, stall_after, Budget::new(objects, bytes, when_full), settings));
        let weak = Arc::downgrade(&domain.0);
        let thread = format!("{}{}", domain.name(), backup::SUFFIX);
        let reclaimer = match who {
            Who::Writers | Who::Nobody => return domain,
            Who::Default => Reclaimer::Backup(Backup::new(thread, weak)),
            Who::Thread => Reclaimer::Thread(ReclaimThread::start(thread, weak).expect("starting the reclaimer")),
            Who::Executor(spawn) => {
                let backup = (!cfg!(loom)).then(|| sync::Arc::new(Backup::new(thread, weak.clone())));
                Reclaimer::Executor(Executor::new(spawn, weak, backup))
            }
        };
        assert!(domain.0.reclaimer.set(reclaimer).is_ok(), "it is set once");
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
