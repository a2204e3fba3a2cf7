//! Jobs for the user's executor, and how they sleep.

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

/// The sleep between two looks at a grace period that readers hold up: the shortest, and the longest.
const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(2);
/// The number of objects that are destroyed between two looks at the time.
const STRIDE: usize = 256;
/// How long one call of a job works while it leaves more to do: at first, and at most.
const SLICE: Duration = Duration::from_millis(1);
const LONGEST_SLICE: Duration = Duration::from_millis(8);
/// The longest time to sleep that [`ReclaimJob::step`] asks for, because nothing wakes its caller.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// The time to sleep while readers hold up a grace period. It doubles after each round that achieves nothing.
pub(super) struct Naps(Duration);

impl Naps {
    pub(super) fn new() -> Self {
        Naps(SHORT_NAP)
    }

    /// Returns the time until the next round, after a round that destroyed `done` objects. Returns `None` if
    /// nothing is left.
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

/// Returns the shorter of two waits, either of which may be absent.
pub(super) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The user's executor, as the domain holds it.
pub(crate) struct Executor {
    spawn: Box<dyn Fn(ReclaimJob) + Send + Sync>,
    domain: Weak<Inner>,
    job: Arc<JobState>,
    stop: AtomicBool,
    /// The thread that takes over when a job is dropped before its end. `None` in models.
    backup: Option<Arc<Backup>>,
    has_told: AtomicBool,
}

thread_local! {
    /// Whether this thread is in a call of an executor's `spawn`.
    static IN_SPAWN: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread is in an executor's `spawn`.
pub(crate) fn in_spawn() -> bool {
    IN_SPAWN.get()
}

/// Whether a job is under way, and whether it must make another round.
struct JobState {
    /// `NONE` (no job), `UNDER_WAY` (a job that was not woken since its last round began), or `WOKEN` (a job that
    /// must make another round).
    stage: AtomicUsize,
    /// What wakes a job that sleeps. Locked for a moment.
    sleeper: Mutex<Option<Sleeper>>,
    /// Whether the last round left more than it had time for. Not modelled by loom: only a hint, as are `woken` and
    /// `owed`.
    is_behind: std::sync::atomic::AtomicBool,
    /// The coarse tick in which `stage` became `WOKEN`.
    woken: AtomicU64,
    /// How often a shard has handed retired nodes over since the last round began.
    owed: AtomicU64,
}

/// The value of `owed` above which the job counts as behind. A shard usually hands 128 objects over.
const MUCH: u64 = 16;

/// The coarse ticks, of 4 ms, for which a woken job may not run before it counts as behind.
const LATE: u64 = 5;

const NONE: usize = 0;
const UNDER_WAY: usize = 1;
const WOKEN: usize = 2;

enum Sleeper {
    Thread(thread::Thread),
    Task(Waker),
}

impl JobState {
    /// Sets what the next wake wakes. Returns whether the job was woken since its last round began.
    fn sleep(&self, sleeper: Sleeper) -> bool {
        if cfg!(loom) {
            // A sleep in a model is a yield, which needs no wake.
            return false;
        }
        let old = self.sleeper.lock().replace(sleeper);
        // The old waker is the executor's code, so it is dropped without the lock.
        drop(old);
        // The lock orders the two threads. The thread that wakes sets `stage` before it takes the lock. Either it
        // finds the sleeper, or this load finds `WOKEN`.
        // ORDERING: Acquire, pairs with the AcqRel in `Executor::wake`.
        self.stage.load(Ordering::Acquire) == WOKEN
    }

    /// Returns whether writers must help: the job has more to do than it has time for, or does not run.
    fn is_behind(&self) -> bool {
        // ORDERING: Relaxed (all loads here), hints.
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

    /// Returns whether no job is under way.
    pub(super) fn is_idle(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.job.stage.load(Ordering::Relaxed) == NONE
    }

    /// Returns whether writers must help the job that is under way. `due`: the caller's shard has handed retired
    /// nodes over.
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
        // No user code runs under a shard lock, within the `Eq` of a key. The next write wakes the job.
        // ORDERING: Relaxed, a hint: a job that is spawned after the stop does no harm.
        if shard_locked() || self.stop.load(Ordering::Relaxed) {
            return;
        }
        // ORDERING: AcqRel, pairs with that in `round`: the round that follows sees what it is woken for.
        let before = self.job.stage.swap(WOKEN, Ordering::AcqRel);
        if before != WOKEN {
            // ORDERING: Relaxed, a hint.
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
                // `spawn` is user code. If it panics, or drops the job, the next wake spawns another job.
                let outer = IN_SPAWN.replace(true);
                contain(|| (self.spawn)(job));
                IN_SPAWN.set(outer);
            }
            // The job may be asleep. A waker is the executor's code.
            UNDER_WAY => {
                contain(|| self.job.rouse());
            }
            _ => {}
        }
    }

    /// Logs, once, that a thread does the executor's work.
    pub(super) fn tell_of_backup(&self, domain: &str) {
        // ORDERING: Relaxed, the exchange only says who is first.
        if !self.has_told.swap(true, Ordering::Relaxed) {
            contain(|| {
                log::warn!(
                    target: "epoch_registry",
                    "domain `{domain}`: a reclaim job was dropped before its end; a thread reclaims until the next job"
                );
            });
        }
    }
}

/// A domain's reclamation, for the user's executor to run: see
/// [`DomainBuilder::executor`](crate::DomainBuilder::executor).
///
/// A domain has one job at a time, from when something is retired until nothing is left to do. A job does not keep
/// the domain from being torn down.
///
/// | executor | run the job by |
/// |---|---|
/// | threads that may block | [`run`](Self::run) |
/// | an async runtime | [`run_with`](Self::run_with) and the runtime's sleep function |
/// | the program's own loop | [`step`](Self::step) |
///
/// Writers destroy nothing while the job keeps up. While it is behind, they share the work, as they do without an
/// executor. The job is behind in these cases:
///
/// - Its last round left more to do than it had time for.
/// - Some thousand objects were retired since its last round began.
/// - It was woken, and has not run for 20 ms.
///
/// If a job is dropped before its end, as when its runtime shuts down, the domain starts a thread that does the
/// job's work, and logs a warning, once. The next write gives the executor another job. (A job that is forgotten
/// holds up reclamation, because the domain has one job at a time.)
#[must_use = "nothing is reclaimed unless the job runs"]
pub struct ReclaimJob {
    domain: Weak<Inner>,
    state: Arc<JobState>,
    backup: Option<Arc<Backup>>,
    /// The job has set `stage` to `NONE`. From then on, `stage` belongs to the next job.
    ended: bool,
    naps: Naps,
    /// How long the next step may work.
    slice: Duration,
}

/// The wait between two rounds of a job.
struct Wait {
    time: Duration,
    /// Nothing waits to be destroyed. A wake ends the wait.
    until_woken: bool,
}

impl ReclaimJob {
    /// Destroys what is ready, for about a millisecond. Returns the time, at most 20 ms, after which to call it
    /// again. Zero means that more is ready. Returns `None` if nothing is left to do, which ends the job.
    ///
    /// A caller may sleep for a millisecond in spite of a zero, as timers do. So that the job keeps up with
    /// writers, each call that follows a zero works twice as long as the one before, up to 8 ms. (A destructor is
    /// not interrupted.)
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

    /// Works for a slice of time while more is ready. Returns the wait before the next round, or `None` if there is
    /// no next round.
    fn round(&mut self, slice: Duration) -> Option<Wait> {
        if self.ended {
            return None;
        }
        // Set before the round: a wake during the round is for the next one.
        // ORDERING: AcqRel, pairs with that in `wake`.
        self.state.stage.swap(UNDER_WAY, Ordering::AcqRel);
        let domain = self.domain.upgrade().filter(|domain| domain.is_reclaimer_on())?;
        let begun = Instant::now();
        let drive = || {
            // ORDERING: Relaxed, a hint.
            self.state.owed.store(0, Relaxed);
            domain.try_reclaim(STRIDE)
        };
        let (mut left, mut done) = drive();
        // (One call in a model, which must be deterministic.)
        while !cfg!(loom) && left == Pending::Ready && done > 0 && begun.elapsed() < slice {
            (left, done) = drive();
        }
        // ORDERING: Relaxed, a hint.
        self.state.is_behind.store(left == Pending::Ready, Relaxed);
        let (nap, reap) = (self.naps.after(&domain, left, done), domain.reap());
        // A job that runs within `spawn` does not wait there for the next call of reapers.
        let nap = if in_spawn() { nap } else { sooner(nap, reap) };
        drop(domain);
        // ORDERING: AcqRel, pairs with that in `wake`: either this exchange fails because the job was woken, or the
        // caller of `wake` sees `NONE` and spawns another job.
        let end = || self.state.stage.compare_exchange(UNDER_WAY, NONE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.ended = nap.is_none() && end();
        if self.ended {
            return None;
        }
        // A round that leaves something has woken its own job. That wake does not end the wait, which is short.
        Some(Wait { time: nap.unwrap_or(Duration::ZERO), until_woken: left == Pending::Nothing })
    }

    /// Makes rounds until nothing is left to do. Sleeps between rounds while readers hold up the grace period, or
    /// until reapers are due.
    ///
    /// Returns at once where it would wait for itself: in a destructor or callback, or in a critical section of the
    /// same domain. The next job does what is left. (An executor may run the job within `spawn`, which is called
    /// from anywhere.)
    pub fn run(mut self) {
        while !self.domain.upgrade().is_some_and(|domain| domain.would_wait_for_itself()) {
            let Some(Wait { time, until_woken }) = self.round(SLICE) else { return };
            let is_woken = until_woken && self.state.sleep(Sleeper::Thread(thread::current()));
            // (In a model, each wait is a yield.)
            if (cfg!(loom) || !time.is_zero()) && !is_woken {
                // (An unpark that is meant for other code ends it too.)
                park_for(time);
            }
        }
    }

    /// Makes rounds until nothing is left to do, as a future for an async runtime. `sleep` is the runtime's own
    /// sleep function.
    ///
    /// One poll works for about a millisecond, so that other tasks have their turn. If more is ready after that,
    /// the task wakes itself and is polled again. Else it sleeps until readers may have left, until reapers are
    /// due, or until something is removed.
    ///
    /// The future is `Send` if `sleep` and the future that it returns are `Send`.
    ///
    /// On tokio (`examples/tokio` of the repository has the whole program, with tests):
    ///
    /// ```text
    /// let runtime = tokio::runtime::Handle::current();
    /// let domain = Domain::builder()
    ///     .executor(move |job| drop(runtime.spawn(job.run_with(tokio::time::sleep))))
    ///     .build();
    /// ```
    ///
    /// By hand, with a future that sleeps when it is polled:
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
            // ORDERING: Relaxed for `is_behind`, a hint. AcqRel for `stage`, pairs with that in `wake`.
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
