//! The backup thread: it reclaims what writers or an executor leave, after the last write, or when the executor
//! drops its job.
//!
//! - A writer that retires something wakes the thread: [`wake`](Backup::wake). While the thread is awake or naps, a
//!   wake costs a fence and a load. A parked thread is unparked. If there is no thread, the writer starts one.
//! - The thread naps for a tick and looks. If something waits, it makes a round of reclamation, as a writer does,
//!   unless a writer has just made one and left nothing ready. After [`QUIET`] looks in a row that find nothing, it
//!   parks. After a minute in which it stays parked, it ends. A later wake starts another thread.
//! - [`stop`](Backup::stop) ends the thread for good.
//!
//! The word `state` says where the thread is:
//!
//! | from | to | by |
//! |---|---|---|
//! | `AWAKE` | `PARKED` | the thread, before it parks |
//! | `PARKED` | `AWAKE` | a waker, which unparks the thread, or the thread, which goes on |
//! | `PARKED` | `NONE` | the thread, before it ends |
//! | `NONE` | `AWAKE` | a waker, which starts a thread |
//! | `AWAKE` | `NONE` | a waker that cannot start the thread, or that finds itself in a forked child |
//! | any | `STOPPED` | `stop`; final |
//!
//! Each step but the last is an exchange. If several wakers try the same step, only the one whose exchange succeeds
//! unparks or starts the thread.
//!
//! No wake is lost:
//!
//! 1. The thread sets `PARKED`, and then looks once more for something that waits.
//! 2. A waker retires something, and then loads `state`.
//! 3. Both have a SeqCst fence between the two steps. If the thread's fence comes first, the waker sees `PARKED`
//!    and unparks the thread. If the waker's fence comes first, the thread sees what was retired.

use super::Inner;
use super::background;
use super::reclaimer::Reclaimer;
use super::state::Pending;
use super::thread::{set_works_for, works_for};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, AtomicUsize, Mutex, fence, park_for, thread};
use crate::util::clock::coarse_ticks;
use crate::util::panics::contain;
use crate::util::reentrancy::shard_locked;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The time between two looks.
const TICK: Duration = Duration::from_millis(10);
/// The number of looks in a row that find nothing before the thread parks. (In a model, naps are yields.)
const QUIET: u32 = if cfg!(loom) { 1 } else { 8 };
/// How long a parked thread stays before it ends. (Time does not pass in a model.)
const LINGER: Option<Duration> = if cfg!(loom) {
    None
} else if cfg!(test) {
    Some(Duration::from_millis(100))
} else {
    Some(Duration::from_secs(60))
};
/// The coarse ticks, of 4 ms, between two attempts to start a thread that the system refuses.
const RETRY: u64 = 250;
/// The coarse ticks, of 4 ms, for which a writer's round counts as recent: less than [`TICK`] in all.
const RECENT: u64 = 1;
/// The number of objects that are destroyed between two looks at `state`.
const ROUND: usize = 1024;

/// There is no thread.
const NONE: usize = 0;
/// The thread looks, or naps between two looks, or is being started.
const AWAKE: usize = 1;
/// The thread waits to be unparked.
const PARKED: usize = 2;
/// There is no thread, and there will be none.
const STOPPED: usize = 3;

/// The backup thread, as the domain holds it.
pub(crate) struct Backup {
    name: String,
    domain: Weak<Inner>,
    state: Arc<AtomicUsize>,
    /// The thread to unpark. Locked for a moment, and while the thread is started.
    running: Mutex<Option<Started>>,
    /// Locked while the thread is started, and while `stop` waits for it.
    join: Mutex<Option<thread::JoinHandle<()>>>,
    /// The coarse tick from which on a start may be tried again. Not modelled by loom: only a hint, as is
    /// `has_warned`.
    retry: AtomicU64,
    has_warned: AtomicBool,
}

#[derive(Clone)]
struct Started {
    thread: thread::Thread,
    /// The process that started the thread. A forked child has a copy of this value, but no such thread.
    process: u32,
}

impl Backup {
    pub(crate) fn new(name: String, domain: Weak<Inner>) -> Self {
        Backup {
            name,
            domain,
            state: Arc::new(AtomicUsize::new(NONE)),
            running: Mutex::new(None),
            join: Mutex::new(None),
            retry: AtomicU64::new(0),
            has_warned: AtomicBool::new(false),
        }
    }

    /// Tells the thread that something waits. The caller has published it before.
    ///
    /// # Progress
    ///
    /// A fence and a load while the thread is awake. Else one of the callers makes a system call.
    pub(crate) fn wake(&self) {
        // ORDERING: SeqCst, pairs with the fence in `park`: see the module's documentation.
        fence(Ordering::SeqCst);
        self.wake_hint();
    }

    /// As [`wake`](Self::wake), for a caller that has published nothing.
    #[inline]
    pub(crate) fn wake_hint(&self) {
        // ORDERING: Relaxed, ordered by the fence in `wake`. For callers without the fence it is a hint.
        match self.state.load(Ordering::Relaxed) {
            PARKED => self.unpark(),
            NONE => self.start(),
            _ => {}
        }
    }

    /// Returns whether the thread exists or is being started, and will look.
    pub(super) fn is_awake(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.state.load(Ordering::Relaxed) == AWAKE
    }

    /// Ends the thread's nap: something is ready, and callers wait for it.
    #[cold]
    pub(crate) fn hurry(&self) {
        self.wake();
        let running = self.running.lock().clone();
        let running = running.filter(|running| running.process == std::process::id());
        running.into_iter().for_each(|running| running.thread.unpark());
    }

    #[cold]
    fn unpark(&self) {
        if !exchange(&self.state, PARKED, AWAKE) {
            return;
        }
        let running = self.running.lock().clone();
        match running {
            Some(Started { thread, process }) if process == std::process::id() => thread.unpark(),
            // In a forked child, which has no such thread.
            _ => {
                if exchange(&self.state, AWAKE, NONE) {
                    self.start();
                }
            }
        }
    }

    #[cold]
    fn start(&self) {
        // ORDERING: Relaxed (all accesses of `retry` and `has_warned`), hints.
        if self.domain.strong_count() == 0 || coarse_ticks() < self.retry.load(Relaxed) {
            return;
        }
        // If the lock is taken, another thread starts this one, or stops it.
        let Some(mut join) = self.join.try_lock() else { return };
        if !exchange(&self.state, NONE, AWAKE) {
            return;
        }
        let (domain, state) = (Weak::clone(&self.domain), Arc::clone(&self.state));
        // Locked before the thread is there, so that a waker that finds it parked also finds it in `running`.
        let mut running = self.running.lock();
        let error = match thread::Builder::new().name(self.name.clone()).spawn(move || work(&domain, &state)) {
            Ok(handle) => {
                let process = std::process::id();
                let before = running.replace(Started { thread: handle.thread().clone(), process });
                let old = join.replace(handle);
                // The thread before this one has ended. In a forked child it was the parent's: there is nothing to
                // detach, so its handle is forgotten.
                if before.is_some_and(|before| before.process != process) {
                    std::mem::forget(old);
                }
                return;
            }
            Err(error) => error,
        };
        // ORDERING: Relaxed, a hint: when to try again.
        self.retry.store(coarse_ticks() + RETRY, Relaxed);
        exchange(&self.state, AWAKE, NONE);
        drop((running, join));
        // A logger is user code. It is not called under a shard lock, within the `Eq` of a key.
        if !shard_locked() && !self.has_warned.swap(true, Relaxed) {
            let domain = self.name.trim_end_matches(SUFFIX);
            contain(|| {
                log::warn!(
                    target: "epoch_registry",
                    "domain `{domain}`: cannot start the reclaimer thread ({error}); writers reclaim alone and retry"
                );
            });
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        // ORDERING: Acquire, pairs with the AcqRel in `stop`.
        self.state.load(Ordering::Acquire) == STOPPED
    }

    /// Ends the thread for good. If `wait` is set, waits for the thread, unless it is the caller or belongs to
    /// another process.
    pub(crate) fn stop(&self, wait: bool) {
        // ORDERING: AcqRel, pairs with the Acquire loads in `work` and `park`.
        self.state.swap(STOPPED, Ordering::AcqRel);
        let Some(Started { thread, process }) = self.running.lock().clone() else { return };
        if process != std::process::id() || works_for(&*self.state) {
            return;
        }
        thread.unpark();
        if wait {
            // Locked during the join, so that another caller waits too.
            let mut join = self.join.lock();
            if let Some(handle) = join.take() {
                // The thread contains the panics of destructors. A panic of its own is a bug in this crate.
                handle.join().expect("the reclaimer thread does not panic");
            }
        }
    }
}

/// The suffix that follows the domain's name in the thread's name.
pub(super) const SUFFIX: &str = "-reclaim";

fn exchange(state: &AtomicUsize, from: usize, to: usize) -> bool {
    // ORDERING: AcqRel, pairs with itself: a thread that sees a step also sees what was done before the step.
    state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

fn work(domain: &Weak<Inner>, state: &AtomicUsize) {
    background::enter_for_good();
    set_works_for(state);
    let (mut quiet, mut nap) = (0, TICK);
    loop {
        if !nap.is_zero() {
            park_for(nap);
        }
        // ORDERING: Acquire, pairs with the AcqRel in `stop`.
        if state.load(Ordering::Acquire) == STOPPED {
            return;
        }
        let Some(held) = domain.upgrade() else { return };
        let LookResult { left, reap } = held.back_up();
        // The thread does not hold the domain while it sleeps. If this is the last reference, the domain is torn
        // down here, on this thread.
        drop(held);
        quiet = if left.is_none() { quiet + 1 } else { 0 };
        nap = match reap {
            _ if left == Some(Pending::Ready) => Duration::ZERO,
            Some(Duration::ZERO) => Duration::ZERO,
            reap if quiet < QUIET => reap.map_or(TICK, |reap| reap.min(TICK)),
            reap => match park(domain, state, reap) {
                Parked::Woken => {
                    quiet = 0;
                    TICK
                }
                Parked::ForReapers => Duration::ZERO,
                Parked::ForNothing => return,
            },
        };
    }
}

/// The result of one look.
struct LookResult {
    /// What is left to do. `None` if nothing waited.
    left: Option<Pending>,
    /// The time until the next call of reapers, if there are any.
    reap: Option<Duration>,
}

impl Inner {
    fn needs_backup(&self) -> bool {
        self.has_work() && self.reclaimer.get().is_some_and(Reclaimer::needs_backup)
    }

    /// Makes one look.
    fn back_up(&self) -> LookResult {
        let Some(reclaimer) = self.reclaimer.get().filter(|reclaimer| reclaimer.needs_backup()) else {
            return LookResult { left: None, reap: None };
        };
        let waits = self.has_work();
        if waits || self.has_reapers() {
            reclaimer.tell_of_backup(&self.name);
        }
        let left = waits.then(|| if self.is_left_to_writers() { Pending::Waiting } else { self.try_reclaim(ROUND).0 });
        LookResult { left, reap: self.reap() }
    }

    /// Returns whether a writer has just made a round, and has left nothing that is ready. The thread that
    /// allocates the next values is the best one to destroy the old ones.
    fn is_left_to_writers(&self) -> bool {
        // ORDERING: Relaxed, a hint: a wrong answer delays reclamation by one more tick.
        let since = coarse_ticks().saturating_sub(self.last_round.load(Ordering::Relaxed));
        !cfg!(loom) && since <= RECENT && self.state.try_lock().is_none_or(|state| state.left() != Pending::Ready)
    }
}

/// Why the thread is no longer parked.
enum Parked {
    Woken,
    /// The time has come to call reapers.
    ForReapers,
    /// Nothing has waited for a long time. The thread ends.
    ForNothing,
}

/// Parks until something waits: for at most `reap` if there are reapers, else for at most `LINGER`.
fn park(domain: &Weak<Inner>, state: &AtomicUsize, reap: Option<Duration>) -> Parked {
    if !exchange(state, AWAKE, PARKED) {
        return Parked::Woken;
    }
    // ORDERING: SeqCst, pairs with the fence in `wake`: see the module's documentation.
    fence(Ordering::SeqCst);
    if domain.upgrade().is_none_or(|domain| domain.needs_backup()) {
        exchange(state, PARKED, AWAKE);
        return Parked::Woken;
    }
    let (since, limit) = (Instant::now(), reap.or(LINGER));
    loop {
        // ORDERING: Acquire, pairs with the AcqRel of the waker's exchange, and with that of `stop`.
        if state.load(Ordering::Acquire) != PARKED {
            return Parked::Woken;
        }
        match limit.map(|limit| limit.saturating_sub(since.elapsed())) {
            None => thread::park(),
            Some(Duration::ZERO) if reap.is_some() => {
                exchange(state, PARKED, AWAKE);
                return Parked::ForReapers;
            }
            Some(Duration::ZERO) if exchange(state, PARKED, NONE) => return Parked::ForNothing,
            Some(Duration::ZERO) => return Parked::Woken,
            Some(left) => park_for(left),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Domain;
    use std::sync::mpsc::channel;

    /// In tests `LINGER` is a hundred milliseconds instead of a minute. So the thread ends, and is started again.
    #[test]
    fn a_thread_that_has_ended_is_started_again() {
        let domain = Domain::new();
        for _ in 0..3 {
            let (send, ran) = channel();
            domain.call(move || send.send(thread::current().id()).unwrap());
            let by = ran.recv_timeout(Duration::from_secs(5)).expect("the callback runs with no further call");
            assert_ne!(by, thread::current().id());
            let Some(Reclaimer::Backup(backup)) = domain.inner().reclaimer.get() else {
                panic!("a domain with default settings has a backup");
            };
            let end = Instant::now() + Duration::from_secs(5);
            while backup.state.load(Ordering::SeqCst) != NONE {
                assert!(Instant::now() < end, "the thread does not end");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
