//! The thread that ends the waiting where others reclaim: after the last write, or when an executor drops its job.
//!
//! - A writer that retires something wakes the thread: [`wake`](Backup::wake). While the thread is awake or naps, that is
//!   one load. A parked thread is unparked; where there is no thread, the writer starts one.
//! - The thread naps for a tick and looks. If something waits, it makes a round of reclamation, as any writer does. After
//!   [`QUIET`] looks that found nothing it parks, and after a minute of that it ends. A further wake starts another.
//! - [`stop`](Backup::stop) ends it for good.
//!
//! The word `state` says where the thread is. Only the thread goes from `AWAKE` to `PARKED` and from there to `NONE`. A waker
//! goes from `PARKED` or `NONE` to `AWAKE`; the one whose exchange succeeds unparks or starts. `STOPPED` is final.
//!
//! No wake is lost. The thread says that it parks, and then looks once more; a waker retires, and then looks at `state`. Both
//! have a SeqCst fence between the two steps. If the thread's fence comes first, the waker sees `PARKED` and unparks; if
//! the waker's comes first, the thread sees what was retired.

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

/// Between two looks.
const TICK: Duration = Duration::from_millis(10);
/// Looks in a row that find nothing before the thread parks. (In a model, naps are yields.)
const QUIET: u32 = if cfg!(loom) { 1 } else { 8 };
/// How long a parked thread stays. (Time does not pass in a model.)
const LINGER: Option<Duration> = if cfg!(loom) {
    None
} else if cfg!(test) {
    Some(Duration::from_millis(100))
} else {
    Some(Duration::from_secs(60))
};
/// Coarse ticks, of 4 ms, between two attempts to start a thread where the system refuses.
const RETRY: u64 = 250;
/// Coarse ticks, of 4 ms, for which a round of a writer is recent: less than [`TICK`] in all.
const RECENT: u64 = 1;
/// Objects that are destroyed between two looks at `state`.
const ROUND: usize = 1024;

/// There is no thread.
const NONE: usize = 0;
/// It looks, or naps between two looks, or is being started.
const AWAKE: usize = 1;
/// It waits to be unparked.
const PARKED: usize = 2;
/// There is none, and there will be none.
const STOPPED: usize = 3;

/// The thread, as the domain holds it.
pub(crate) struct Backup {
    name: String,
    domain: Weak<Inner>,
    state: Arc<AtomicUsize>,
    /// Whom to unpark. Locked for a moment, and while the thread is started.
    running: Mutex<Option<Started>>,
    /// Locked while the thread is started, or waited for by `stop`.
    join: Mutex<Option<thread::JoinHandle<()>>>,
    /// The coarse tick from which on a start may be tried again. (Of std's types: no model is about that.)
    retry: AtomicU64,
    has_warned: AtomicBool,
}

#[derive(Clone)]
struct Started {
    thread: thread::Thread,
    /// The process that started it. A child has a copy of this, and no such thread.
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

    /// Says that something waits. The caller has published it.
    ///
    /// # Progress
    ///
    /// A fence and a load, while the thread is awake. Else a system call, by one caller.
    pub(crate) fn wake(&self) {
        // ORDERING: SeqCst, pairs with the fence in `park`: see the module.
        fence(Ordering::SeqCst);
        self.wake_hint();
    }

    /// As [`wake`](Self::wake), for a caller that comes by and has published nothing.
    #[inline]
    pub(crate) fn wake_hint(&self) {
        // ORDERING: Relaxed, ordered by the fence in `wake`.
        match self.state.load(Ordering::Relaxed) {
            PARKED => self.unpark(),
            NONE => self.start(),
            _ => {}
        }
    }

    /// Whether the thread is there, or being started, and will look.
    pub(super) fn is_awake(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.state.load(Ordering::Relaxed) == AWAKE
    }

    /// Ends a nap: something is ready, and callers wait for it.
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
            // A forked child.
            _ => {
                if exchange(&self.state, AWAKE, NONE) {
                    self.start();
                }
            }
        }
    }

    #[cold]
    fn start(&self) {
        // ORDERING: Relaxed (all of `retry` and `has_warned`), hints.
        if self.domain.strong_count() == 0 || coarse_ticks() < self.retry.load(Relaxed) {
            return;
        }
        // Another thread starts it, or has stopped it.
        let Some(mut join) = self.join.try_lock() else { return };
        if !exchange(&self.state, NONE, AWAKE) {
            return;
        }
        let (domain, state) = (Weak::clone(&self.domain), Arc::clone(&self.state));
        // Locked, so that a waker that finds the thread parked finds it here.
        let mut running = self.running.lock();
        let error = match thread::Builder::new().name(self.name.clone()).spawn(move || work(&domain, &state)) {
            Ok(handle) => {
                let process = std::process::id();
                let before = running.replace(Started { thread: handle.thread().clone(), process });
                let old = join.replace(handle);
                // The one before has ended. If it is the parent's of a forked child, there is nothing to detach.
                if before.is_some_and(|before| before.process != process) {
                    std::mem::forget(old);
                }
                return;
            }
            Err(error) => error,
        };
        self.retry.store(coarse_ticks() + RETRY, Relaxed);
        exchange(&self.state, AWAKE, NONE);
        drop((running, join));
        // A logger is the user's code: not under a shard lock, within an `Eq`.
        if !shard_locked() && !self.has_warned.swap(true, Relaxed) {
            let domain = self.name.trim_end_matches(SUFFIX);
            contain(|| {
                log::warn!(
                    target: "epoch_registry",
                    "domain `{domain}`: its reclaimer thread cannot be started ({error}); writers reclaim alone, and try again"
                );
            });
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        // ORDERING: Acquire, pairs with the AcqRel in `stop`.
        self.state.load(Ordering::Acquire) == STOPPED
    }

    /// Ends the thread for good. Waits for it if that is wanted, and it is not the caller.
    pub(crate) fn stop(&self, wait: bool) {
        // ORDERING: AcqRel, pairs with the Acquire loads in `work` and `park`.
        self.state.swap(STOPPED, Ordering::AcqRel);
        let Some(Started { thread, process }) = self.running.lock().clone() else { return };
        if process != std::process::id() || works_for(&*self.state) {
            return;
        }
        thread.unpark();
        if wait {
            // Locked meanwhile: another caller waits too.
            let mut join = self.join.lock();
            if let Some(handle) = join.take() {
                // It contains the panics of destructors; a panic of its own would be a bug in this crate.
                handle.join().expect("the reclaimer thread does not panic");
            }
        }
    }
}

/// What follows the domain's name in the thread's.
pub(super) const SUFFIX: &str = "-reclaim";

fn exchange(state: &AtomicUsize, from: usize, to: usize) -> bool {
    // ORDERING: AcqRel, pairs with itself: what was done before the thread was woken, parked or ended is seen after that.
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
        let Look { left, reap } = held.back_up();
        // Not held while asleep. If this was the last one, the domain ends here, on this thread.
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

/// What a look has come to.
struct Look {
    /// What is left, if anything waited.
    left: Option<Pending>,
    /// The time to the next call of reapers, if there are any.
    reap: Option<Duration>,
}

impl Inner {
    fn needs_backup(&self) -> bool {
        self.has_work() && self.reclaimer.get().is_some_and(Reclaimer::needs_backup)
    }

    /// One look of the thread.
    fn back_up(&self) -> Look {
        let Some(reclaimer) = self.reclaimer.get().filter(|reclaimer| reclaimer.needs_backup()) else {
            return Look { left: None, reap: None };
        };
        let waits = self.has_work();
        if waits || self.has_reapers() {
            reclaimer.tell_of_backup(&self.name);
        }
        let left = waits.then(|| if self.is_left_to_writers() { Pending::Waiting } else { self.try_reclaim(ROUND).0 });
        Look { left, reap: self.reap() }
    }

    /// Whether a writer has made a round just now, and has left nothing that is ready: values are best destroyed by the
    /// thread that allocates the next ones.
    fn is_left_to_writers(&self) -> bool {
        // ORDERING: Relaxed, a hint: what is left to writers in vain waits for a tick more.
        let since = coarse_ticks().saturating_sub(self.last_round.load(Ordering::Relaxed));
        !cfg!(loom) && since <= RECENT && self.state.try_lock().is_none_or(|state| state.left() != Pending::Ready)
    }
}

/// Why the thread is parked no more.
enum Parked {
    Woken,
    /// The time has come to call reapers.
    ForReapers,
    /// Nothing has come for long. The thread is to end.
    ForNothing,
}

/// Parks until something waits, or for so long at the most.
fn park(domain: &Weak<Inner>, state: &AtomicUsize, reap: Option<Duration>) -> Parked {
    if !exchange(state, AWAKE, PARKED) {
        return Parked::Woken;
    }
    // ORDERING: SeqCst, pairs with the fence in `wake`: see the module.
    fence(Ordering::SeqCst);
    if domain.upgrade().is_none_or(|domain| domain.needs_backup()) {
        exchange(state, PARKED, AWAKE);
        return Parked::Woken;
    }
    let (since, limit) = (Instant::now(), reap.or(LINGER));
    loop {
        // ORDERING: Acquire, pairs with the AcqRel of the waker's exchange, and of `stop`.
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

    /// An hour is as a hundred milliseconds here: the thread ends, and is started anew.
    #[test]
    fn a_thread_that_has_ended_is_started_again() {
        let domain = Domain::new();
        for _ in 0..3 {
            let (send, ran) = channel();
            domain.call(move || send.send(thread::current().id()).unwrap());
            let by = ran.recv_timeout(Duration::from_secs(5)).expect("the callback runs with no further call");
            assert_ne!(by, thread::current().id());
            let Some(Reclaimer::Backup(backup)) = domain.inner().reclaimer.get() else {
                panic!("a domain of default settings has a backup");
            };
            let end = Instant::now() + Duration::from_secs(5);
            while backup.state.load(Ordering::SeqCst) != NONE {
                assert!(Instant::now() < end, "the thread does not end");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
