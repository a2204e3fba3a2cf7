//! Jobs for an executor of the user's, and how they sleep.

use super::Inner;
use super::backup::Backup;
use super::state::Pending;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, park_for, thread};
use crate::util::clock::coarse_ticks;
use crate::util::panics::contain;
use crate::util::reentrancy::shard_locked;
use std::cell::Cell;
use std::fmt;
use std::future::{self, Future};
use std::pin::pin;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Between two looks at a grace period that readers hold up: the shortest and the longest sleep.
const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(2);
/// Objects that are destroyed between two looks at the time.
const STRIDE: usize = 256;
/// How long one call of a job works, as long as it leaves more to do: at first, and at most.
const SLICE: Duration = Duration::from_millis(1);
const LONGEST_SLICE: Duration = Duration::from_millis(8);
/// The longest time to sleep that [`ReclaimJob::step`] asks for: nothing wakes its caller.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// How long to sleep while readers are in the way: longer each time that nothing comes of it.
pub(super) struct Naps(Duration);

impl Naps {
    pub(super) fn new() -> Self {
        Naps(SHORT_NAP)
    }

    /// The time to the next round, after one that destroyed so much. `None` if nothing is left.
    pub(super) fn after(&mut self, domain: &Inner, left: Pending, done: usize) -> Option<Duration> {
        if done > 0 || domain.budget.is_pressed() {
            self.0 = SHORT_NAP;
        }
        match left {
            Pending::Nothing => None,
            Pending::Ready => Some(Duration::ZERO),
            Pending::Waiting => {
                let nap = self.0;
                self.0 = (nap * 2).min(LONG_NAP);
                Some(nap)
            }
        }
    }
}

/// The shorter of two times to wait, where there may be none.
pub(super) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The user's executor, as the domain holds it.
pub(crate) struct Executor {
    spawn: Box<dyn Fn(ReclaimJob) + Send + Sync>,
    domain: Weak<Inner>,
    job: Arc<JobState>,
    stop: AtomicBool,
    /// Takes over when a job is dropped before its end. `None` in models.
    backup: Option<Arc<Backup>>,
    has_told: AtomicBool,
}

thread_local! {
    /// This thread is handing a job over.
    static IN_SPAWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in an executor's `spawn`.
pub(crate) fn in_spawn() -> bool {
    IN_SPAWN.get()
}

/// Whether a job is under way, and whether it is to make another round.
struct JobState {
    /// `NONE`, `UNDER_WAY` or `WOKEN`.
    stage: AtomicUsize,
    /// What a job that sleeps is woken by. Locked for a moment.
    sleeper: Mutex<Option<Sleeper>>,
    /// The last round left more than it had time for. (Of std's types, as the next: hints, which no model is about.)
    is_behind: std::sync::atomic::AtomicBool,
    /// The coarse tick in which it became `WOKEN`.
    woken: AtomicU64,
    /// How often a shard has had its share of removals since the last look at what was retired.
    owed: AtomicU64,
}

/// Such shares, of 128 objects, from which on the job counts as behind.
const MUCH: u64 = 16;

/// Coarse ticks, of 4 ms, for which a job may be woken and not run before it counts as behind.
const LATE: u64 = 5;

const NONE: usize = 0;
const UNDER_WAY: usize = 1;
const WOKEN: usize = 2;

enum Sleeper {
    Thread(thread::Thread),
    Task(Waker),
}

impl JobState {
    /// Has `sleeper` woken by the next wake. True if there was one since the last round began.
    fn sleep(&self, sleeper: Sleeper) -> bool {
        if cfg!(loom) {
            // A sleep in a model is a yield, which nothing needs to end.
            return false;
        }
        let old = self.sleeper.lock().replace(sleeper);
        // A waker is the executor's: dropped without the lock.
        drop(old);
        // The lock orders it: either the waker, which marks `stage` before, finds the sleeper, or this finds the mark.
        // ORDERING: Acquire, pairs with the AcqRel in `Executor::wake`.
        self.stage.load(Ordering::Acquire) == WOKEN
    }

    /// Whether writers are to help: the job has more to do than it has time for, or is not run.
    fn is_behind(&self) -> bool {
        // ORDERING: Relaxed (all of it), hints.
        let is_late = || {
            let since = coarse_ticks().saturating_sub(self.woken.load(Relaxed));
            // (Time does not pass in a model.)
            !cfg!(loom) && self.stage.load(Ordering::Relaxed) == WOKEN && since > LATE
        };
        self.is_behind.load(Relaxed) || self.owed.load(Relaxed) > MUCH || is_late()
    }

    fn rouse(&self) {
        if cfg!(loom) {
            return;
        }
        let sleeper = self.sleeper.lock().take();
        match sleeper {
            Some(Sleeper::Thread(thread)) => thread.unpark(),
            Some(Sleeper::Task(waker)) => waker.wake(),
            None => {}
        }
    }
}

impl Executor {
    pub(crate) fn new(
        spawn: Box<dyn Fn(ReclaimJob) + Send + Sync>,
        domain: Weak<Inner>,
        backup: Option<Arc<Backup>>,
    ) -> Self {
        let (stage, sleeper) = (AtomicUsize::new(NONE), Mutex::new(None));
        let job = Arc::new(JobState { stage, sleeper, is_behind: false.into(), woken: 0.into(), owed: 0.into() });
        let (stop, has_told) = (AtomicBool::new(false), AtomicBool::new(false));
        Executor { spawn, domain, job, stop, backup, has_told }
    }

    /// Whether no job is under way.
    pub(super) fn is_idle(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.job.stage.load(Ordering::Relaxed) == NONE
    }

    /// Whether writers are to help the job that is under way. `due`: the caller's shard has had a share of removals.
    pub(super) fn is_behind(&self, due: bool) -> bool {
        if due {
            // ORDERING: Relaxed, a hint.
            self.job.owed.fetch_add(1, Relaxed);
        }
        self.job.is_behind()
    }

    pub(super) fn is_stopped(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release in `stop`.
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self, wait: bool) {
        // ORDERING: Release, pairs with the Acquire in `is_stopped`.
        self.stop.store(true, Ordering::Release);
        if let Some(backup) = &self.backup {
            backup.stop(wait);
        }
    }

    pub(super) fn wake(&self) {
        // No code of the user's under a shard lock, within an `Eq`: the next write sees to it.
        // ORDERING: Relaxed, a hint: a job that is spawned nevertheless does no harm.
        if shard_locked() || self.stop.load(Ordering::Relaxed) {
            return;
        }
        // ORDERING: AcqRel, pairs with itself in `round`: the round that follows finds what it is woken for.
        let before = self.job.stage.swap(WOKEN, Ordering::AcqRel);
        if before != WOKEN {
            self.job.woken.store(coarse_ticks(), Relaxed);
        }
        match before {
            NONE => {
                let job = ReclaimJob {
                    domain: Weak::clone(&self.domain),
                    state: Arc::clone(&self.job),
                    backup: self.backup.clone(),
                    ended: false,
                    naps: Naps::new(),
                    slice: SLICE,
                };
                // The user's code. If it panics, or drops the job, the next caller that wakes spawns another.
                let outer = IN_SPAWN.replace(true);
                contain(|| (self.spawn)(job));
                IN_SPAWN.set(outer);
            }
            // It may be asleep. A waker is the executor's code.
            UNDER_WAY => {
                contain(|| self.job.rouse());
            }
            _ => {}
        }
    }

    /// Logs, once, that another thread does its work.
    pub(super) fn tell_of_backup(&self, domain: &str) {
        // ORDERING: Relaxed, only whether it is the first.
        if !self.has_told.swap(true, Ordering::Relaxed) {
            contain(|| {
                log::warn!(
                    target: "epoch_registry",
                    "domain `{domain}`: its executor has dropped a reclaim job before its end; a thread reclaims while it has none"
                );
            });
        }
    }
}

/// A domain's reclamation, for an executor of the user's to run: see
/// [`DomainBuilder::executor`](crate::DomainBuilder::executor).
///
/// There is one at a time, from when something is retired until nothing is left to do. It does not keep the domain from
/// being torn down.
///
/// | executor | run the job by |
/// |---|---|
/// | threads that may block | [`run`](Self::run) |
/// | an async runtime | [`run_with`](Self::run_with) and the runtime's sleep function |
/// | a loop of the program's own | [`step`](Self::step) |
///
/// Writers destroy nothing, as long as the job keeps up. While it is behind, they share the work, as they do without an
/// executor: when it has left more to do than it had time for, when some thousand objects were retired since it last looked, or
/// when it has not run for 20 ms since it was woken.
///
/// A job that is dropped before its end, as when its runtime shuts down, leaves its work to a thread, which the domain
/// starts for that, and logs a warning, once. The next write gives the executor another job. (A job that is forgotten
/// holds reclamation up: there is one at a time.)
#[must_use = "nothing is reclaimed unless the job runs"]
pub struct ReclaimJob {
    domain: Weak<Inner>,
    state: Arc<JobState>,
    backup: Option<Arc<Backup>>,
    /// It has said that it has ended; whatever the state is, is another's.
    ended: bool,
    naps: Naps,
    /// How long the next step may work.
    slice: Duration,
}

/// Between two rounds of a job.
struct Wait {
    time: Duration,
    /// Nothing waits to be destroyed. What comes ends the wait.
    until_woken: bool,
}

impl ReclaimJob {
    /// Destroys what is ready, for about a millisecond. Returns the time after which to call it again, 20 ms at most, or
    /// `None` if nothing is left to do, which ends the job. Zero means that more is ready.
    ///
    /// It keeps up with writers where the caller sleeps for a millisecond in spite of a zero, as timers do: a call works
    /// twice as long as the one before, up to 8 ms, as long as it leaves more to do. (A single destructor takes its own
    /// time.)
    ///
    /// # Progress
    ///
    /// Does not wait for readers.
    pub fn step(&mut self) -> Option<Duration> {
        let Wait { time: wait, .. } = self.round(self.slice)?;
        let longer = if wait.is_zero() { self.slice * 2 } else { SLICE };
        self.slice = longer.min(LONGEST_SLICE);
        Some(wait.min(LONGEST_WAIT))
    }

    /// Works for a slice of time, as long as more is ready. Returns the wait before the next round.
    fn round(&mut self, slice: Duration) -> Option<Wait> {
        if self.ended {
            return None;
        }
        // Before the round: what comes during it is for the next.
        // ORDERING: AcqRel, pairs with itself in `wake`.
        self.state.stage.swap(UNDER_WAY, Ordering::AcqRel);
        let domain = self.domain.upgrade().filter(|domain| domain.is_reclaimer_on())?;
        let begun = Instant::now();
        let drive = || {
            // ORDERING: Relaxed, a hint.
            self.state.owed.store(0, Relaxed);
            domain.try_reclaim(STRIDE)
        };
        let (mut left, mut done) = drive();
        // (Models are deterministic.)
        while !cfg!(loom) && left == Pending::Ready && done > 0 && begun.elapsed() < slice {
            (left, done) = drive();
        }
        // ORDERING: Relaxed, a hint.
        self.state.is_behind.store(left == Pending::Ready, Relaxed);
        let (nap, reap) = (self.naps.after(&domain, left, done), domain.reap());
        // Within `spawn` there is no background to wait in for the next time that reapers are called.
        let nap = if in_spawn() { nap } else { sooner(nap, reap) };
        drop(domain);
        // ORDERING: AcqRel, as before: either this sees that it was woken, or the waker sees that there is none.
        let end = || self.state.stage.compare_exchange(UNDER_WAY, NONE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.ended = nap.is_none() && end();
        if self.ended {
            return None;
        }
        // A round that leaves something has woken its own job. That is no reason to end a wait, and it is a short one.
        Some(Wait { time: nap.unwrap_or(Duration::ZERO), until_woken: left == Pending::Nothing })
    }

    /// Makes rounds until nothing is left to do, asleep in between for as long as readers are in the way.
    ///
    /// Where it would wait for itself, in a destructor or callback or in a critical section of the same domain, it
    /// returns at once, and leaves what is left to the next job. (An executor may run it within `spawn`, which is called
    /// from anywhere.)
    pub fn run(mut self) {
        while !self.domain.upgrade().is_some_and(|domain| domain.would_wait_for_itself()) {
            let Some(Wait { time, until_woken }) = self.round(SLICE) else { return };
            let is_woken = until_woken && self.state.sleep(Sleeper::Thread(thread::current()));
            // (In a model, each wait is a yield.)
            if (cfg!(loom) || !time.is_zero()) && !is_woken {
                // (An unpark that is meant for something else ends it too.)
                park_for(time);
            }
        }
    }

    /// Makes rounds until nothing is left to do, as a future for an async runtime. `sleep` is the runtime's own sleep function.
    ///
    /// One poll works for about a millisecond, so that other tasks have their turn. If more is ready then, the task wakes itself
    /// and is polled again. Else it sleeps until readers may have left, until reapers are due, or until something is removed.
    ///
    /// The future is `Send` if `sleep` and what it returns are.
    ///
    /// On tokio (`examples/tokio` of the repository has it whole, with tests):
    ///
    /// ```text
    /// let runtime = tokio::runtime::Handle::current();
    /// let domain = Domain::builder()
    ///     .executor(move |job| drop(runtime.spawn(job.run_with(tokio::time::sleep))))
    ///     .build();
    /// ```
    ///
    /// By hand, with a future that sleeps at once:
    ///
    /// ```
    /// use epoch_registry::{Domain, Registry};
    /// use std::pin::pin;
    /// use std::sync::{Mutex, mpsc};
    /// use std::task::{Context, Poll, Waker};
    ///
    /// let (send, jobs) = mpsc::channel();
    /// let domain = Domain::builder().executor(move |job| send.send(job).unwrap()).build();
    /// let registry = Registry::builder().domain(domain).build();
    /// registry.insert(1, "one");
    /// registry.remove(&1);
    ///
    /// let job = jobs.recv().unwrap().run_with(|wait| async move { std::thread::sleep(wait) });
    /// let mut job = pin!(job);
    /// while job.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
    /// assert_eq!(registry.stats().freed, 1);
    /// ```
    pub fn run_with<S, F>(self, mut sleep: S) -> impl Future<Output = ()>
    where
        S: FnMut(Duration) -> F,
        F: Future<Output = ()>,
    {
        let mut job = self;
        async move {
            while let Some(Wait { time, until_woken }) = job.round(SLICE) {
                if time.is_zero() {
                    let mut has_yielded = false;
                    future::poll_fn(|context| {
                        if std::mem::replace(&mut has_yielded, true) {
                            return Poll::Ready(());
                        }
                        context.waker().wake_by_ref();
                        Poll::Pending
                    })
                    .await;
                } else {
                    let (mut slept, state) = (pin!(sleep(time)), &job.state);
                    future::poll_fn(|context| {
                        let is_woken = until_woken && state.sleep(Sleeper::Task(context.waker().clone()));
                        if is_woken { Poll::Ready(()) } else { slept.as_mut().poll(context) }
                    })
                    .await;
                }
            }
        }
    }
}

impl Drop for ReclaimJob {
    fn drop(&mut self) {
        if !self.ended {
            // ORDERING: AcqRel, pairs with that in `wake`.
            self.state.is_behind.store(false, Relaxed);
            self.state.stage.swap(NONE, Ordering::AcqRel);
            if let Some(backup) = &self.backup {
                backup.wake();
            }
        }
    }
}

impl fmt::Debug for ReclaimJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReclaimJob").finish_non_exhaustive()
    }
}
