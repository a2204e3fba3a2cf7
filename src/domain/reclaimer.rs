//! Those who reclaim so that neither writers nor the droppers of handles need to: a thread of the domain's own, or jobs on
//! an executor of the user's.

use super::Inner;
use super::state::Left;
use super::thread::shard_locked;
use crate::node::contain;
use crate::sync::atomic::Ordering;
use crate::sync::{self, Arc, AtomicBool, AtomicUsize, Mutex, park_for, thread};
use std::cell::Cell;
use std::fmt;
use std::sync::Weak;
use std::time::Duration;

/// Objects that are destroyed between two looks at the rest of the world.
const ROUND: usize = 1024;
/// Between two looks at a grace period that readers hold up: the shortest and the longest sleep.
const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(2);

/// What a domain has beside its writers.
pub(crate) enum Reclaimer {
    Thread(ReclaimThread),
    Executor(Executor),
}

impl Reclaimer {
    /// Says that there is something to do. Lock-free; for a thread, a system call if it is asleep.
    pub(crate) fn wake(&self) {
        match self {
            Reclaimer::Thread(thread) => thread.wake(),
            Reclaimer::Executor(executor) => executor.wake(),
        }
    }

    /// For writers that come by. False if nobody is at it: an executor drops the jobs that it is given.
    pub(crate) fn nudge(&self) -> bool {
        match self {
            // It sleeps only when there was nothing to do, and is woken by what comes then.
            Reclaimer::Thread(_) => true,
            Reclaimer::Executor(executor) => {
                // ORDERING: Relaxed, a hint.
                let idle = || executor.job.0.load(Ordering::Relaxed) == NONE;
                if idle() {
                    executor.wake();
                }
                !idle()
            }
        }
    }

    /// Whether it has not been stopped.
    pub(crate) fn is_on(&self) -> bool {
        let stop = match self {
            Reclaimer::Thread(thread) => &thread.signal.stop,
            Reclaimer::Executor(executor) => &executor.stop,
        };
        // ORDERING: Acquire, pairs with the Release in `stop`.
        !stop.load(Ordering::Acquire)
    }

    /// Ends it. Waits for a thread to end, unless that is the caller itself, which then ends by itself; not for the job of
    /// an executor, which ends with its round.
    pub(crate) fn stop(&self) {
        match self {
            Reclaimer::Thread(thread) => thread.stop(),
            // ORDERING: Release, pairs with the Acquire in `is_on`.
            Reclaimer::Executor(executor) => executor.stop.store(true, Ordering::Release),
        }
    }
}

/// How long to sleep while readers are in the way: longer each time that nothing comes of it.
struct Naps(Duration);

impl Naps {
    fn new() -> Self {
        Naps(SHORT_NAP)
    }

    /// The time to the next round, after one that destroyed so much. `None` if nothing is left.
    fn after(&mut self, domain: &Inner, left: Left, done: usize) -> Option<Duration> {
        if done > 0 || domain.budget.is_pressed() {
            self.0 = SHORT_NAP;
        }
        match left {
            Left::Nothing => None,
            Left::Ready => Some(Duration::ZERO),
            Left::Waiting => {
                let nap = self.0;
                self.0 = (nap * 2).min(LONG_NAP);
                Some(nap)
            }
        }
    }
}

/// The shorter of two times to wait, where there may be none.
fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The thread, as the domain holds it.
pub(crate) struct ReclaimThread {
    thread: thread::Thread,
    join: Mutex<Option<thread::JoinHandle<()>>>,
    signal: Arc<Signal>,
}

/// What the thread looks at before it parks. (That it was unparked is not enough: the destructors that it runs may park
/// too, in a channel or a lock of std's, and take that for theirs.)
struct Signal {
    wake: AtomicBool,
    stop: AtomicBool,
}

impl ReclaimThread {
    /// Starts the thread. It holds the domain weakly, so that the domain's last user ends it.
    pub(crate) fn start(name: String, domain: Weak<Inner>) -> std::io::Result<ReclaimThread> {
        let signal = Arc::new(Signal { wake: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let received = Arc::clone(&signal);
        let join = thread::Builder::new().name(name).spawn(move || work(&domain, &received))?;
        Ok(ReclaimThread { thread: join.thread().clone(), join: Mutex::new(Some(join)), signal })
    }

    fn wake(&self) {
        // ORDERING: AcqRel, pairs with that in `work`: the thread finds what it is woken for. If it has been told already and
        // has not looked yet, it will; whoever told it unparks it.
        let told = self.signal.wake.swap(true, Ordering::AcqRel);
        if !told && self.thread.id() != thread::current().id() {
            self.thread.unpark();
        }
    }

    fn stop(&self) {
        // ORDERING: Release, pairs with the Acquire in `work`.
        self.signal.stop.store(true, Ordering::Release);
        self.wake();
        if self.thread.id() == thread::current().id() {
            return;
        }
        // The lock is held meanwhile: whoever else stops it waits too.
        let mut join = self.join.lock();
        if let Some(join) = join.take() {
            // It contains the panics of destructors; a panic of its own would be a bug in this crate.
            join.join().expect("the reclaimer thread does not panic");
        }
    }
}

fn work(domain: &Weak<Inner>, signal: &Signal) {
    let mut naps = Naps::new();
    loop {
        // Before the round: what comes during it is for the next. And before the look at `stop`, which is set before.
        // ORDERING: AcqRel, pairs with that in `wake`.
        signal.wake.swap(false, Ordering::AcqRel);
        // ORDERING: Acquire, pairs with the Release in `stop`.
        if signal.stop.load(Ordering::Acquire) {
            return;
        }
        let Some(domain) = domain.upgrade() else { return };
        let (left, done) = domain.drive(ROUND);
        let nap = sooner(naps.after(&domain, left, done), domain.reap());
        // Not held while asleep. If this was the last one, the domain ends here, on this thread.
        drop(domain);
        match nap {
            Some(Duration::ZERO) => {}
            Some(nap) => park_for(nap),
            None => {
                // ORDERING: AcqRel, pairs with that in `wake`, which comes before the unpark: what this exchange does
                // not see yet ends the park that follows.
                while !signal.wake.swap(false, Ordering::AcqRel) {
                    thread::park();
                }
            }
        }
    }
}

/// The user's executor, as the domain holds it.
pub(crate) struct Executor {
    spawn: Box<dyn Fn(ReclaimJob) + Send + Sync>,
    domain: Weak<Inner>,
    job: Arc<JobState>,
    stop: AtomicBool,
}

thread_local! {
    /// This thread is handing a job over.
    static IN_SPAWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether a job is under way, and whether it is to make another round.
struct JobState(AtomicUsize);

const NONE: usize = 0;
const UNDER_WAY: usize = 1;
const WOKEN: usize = 2;

impl Executor {
    pub(crate) fn new(spawn: Box<dyn Fn(ReclaimJob) + Send + Sync>, domain: Weak<Inner>) -> Self {
        Executor { spawn, domain, job: Arc::new(JobState(AtomicUsize::new(NONE))), stop: AtomicBool::new(false) }
    }

    fn wake(&self) {
        // No code of the user's under a shard lock, within an `Eq`: the next write sees to it.
        // ORDERING: Relaxed, a hint: a job that is spawned nevertheless does no harm.
        if shard_locked() || self.stop.load(Ordering::Relaxed) {
            return;
        }
        // ORDERING: AcqRel, pairs with itself in `step`: the round that follows finds what it is woken for.
        if self.job.0.swap(WOKEN, Ordering::AcqRel) == NONE {
            let (domain, state) = (Weak::clone(&self.domain), Arc::clone(&self.job));
            let job = ReclaimJob { domain, state, ended: false, naps: Naps::new() };
            // The user's code. If it panics, or drops the job, the next who wakes spawns another.
            let outer = IN_SPAWN.replace(true);
            contain(|| (self.spawn)(job));
            IN_SPAWN.set(outer);
        }
    }
}

/// A domain's reclamation, for an executor of the user's to run: see
/// [`DomainBuilder::executor`](crate::DomainBuilder::executor).
///
/// There is one at a time, from when something is retired until nothing is left to do. It does not keep the domain from
/// being torn down. Dropped, it leaves what is left to the next.
#[must_use = "nothing is reclaimed unless the job runs"]
pub struct ReclaimJob {
    domain: Weak<Inner>,
    state: Arc<JobState>,
    /// It has said that it has ended; whatever the state is, is another's.
    ended: bool,
    naps: Naps,
}

impl ReclaimJob {
    /// One round: destroys up to 1,024 objects. Returns the time after which to call it again, or `None` if nothing is
    /// left to do, which ends the job. For an executor that must not be blocked: sleep in its own way in between.
    ///
    /// # Progress
    ///
    /// Does not wait for readers.
    pub fn step(&mut self) -> Option<Duration> {
        if self.ended {
            return None;
        }
        // Before the round: what comes during it is for the next.
        // ORDERING: AcqRel, pairs with itself in `wake`.
        self.state.0.swap(UNDER_WAY, Ordering::AcqRel);
        let domain = self.domain.upgrade().filter(|domain| domain.is_reclaimer_on())?;
        let (left, done) = domain.drive(ROUND);
        let (nap, reap) = (self.naps.after(&domain, left, done), domain.reap());
        // Within `spawn` there is no background to wait in for the next time that reapers are called.
        let nap = if IN_SPAWN.get() { nap } else { sooner(nap, reap) };
        drop(domain);
        // ORDERING: AcqRel, as before: either this sees that it was woken, or whoever wakes sees that there is none.
        let end = || self.state.0.compare_exchange(UNDER_WAY, NONE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.ended = nap.is_none() && end();
        if self.ended { None } else { nap.or(Some(Duration::ZERO)) }
    }

    /// Makes rounds until nothing is left to do, asleep in between for as long as readers are in the way.
    ///
    /// Where it would wait for itself, in a destructor or callback or in a critical section of the same domain, it
    /// returns at once, and leaves what is left to the next job. (An executor may run it within `spawn`, which is called
    /// from anywhere.)
    pub fn run(mut self) {
        while !self.domain.upgrade().is_some_and(|domain| domain.would_wait_for_itself()) {
            match self.step() {
                Some(nap) => sync::sleep(nap),
                None => return,
            }
        }
    }
}

impl Drop for ReclaimJob {
    fn drop(&mut self) {
        if !self.ended {
            // ORDERING: Release, pairs with the AcqRel in `wake`.
            self.state.0.store(NONE, Ordering::Release);
        }
    }
}

impl fmt::Debug for ReclaimJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReclaimJob").finish_non_exhaustive()
    }
}
