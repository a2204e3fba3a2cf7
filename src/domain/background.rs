//! The reapers that a domain's reclaimer calls at intervals, and the mark of a thread that calls them.

use super::Inner;
use super::frame::Running;
use super::reclaimer::in_spawn;
use super::thread::in_any_section;
use crate::reap::Reaper;
use crate::sync::const_thread_local;
use crate::util::panics::contain;
use crate::util::reentrancy::shard_locked;
use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// The default time between two calls of a reaper that had nothing left to do.
pub(super) const REAP_EVERY: Duration = Duration::from_millis(100);

/// The shortest interval. A reclaimer that called reapers all the time would do nothing else.
const SHORTEST: Duration = Duration::from_millis(1);

/// The number of entries that a reaper examines before the next reaper has its turn.
const BUDGET: usize = 1024;

const_thread_local! {
    /// The number of nested calls, on this thread, of reapers, of pressure sources and of the code around them. A
    /// thread of this crate has one more, for its whole life.
    static DEPTH: Cell<usize> = Cell::new(0);
}

/// Marks this thread as one that calls reapers, as long as the mark lives.
pub(crate) struct Calling(());

impl Calling {
    pub(crate) fn enter() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Calling(())
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Marks this thread as one that calls reapers, until it ends.
pub(crate) fn enter_for_good() {
    std::mem::forget(Calling::enter());
}

/// Returns whether this thread may wait for a thread that calls reapers or runs destructors. It may not where such
/// a thread could wait for it in turn:
///
/// - in a reaper, pressure source or executor's `spawn`,
/// - in a destructor or callback,
/// - in the `Eq` of a key, under a shard lock,
/// - in a critical section of any domain.
pub(crate) fn may_wait_for_threads() -> bool {
    let called = DEPTH.with(Cell::get) > 0 || in_spawn();
    !called && !Running::is_anywhere() && !shard_locked() && !in_any_section()
}

/// The reapers of a domain. Not modelled by loom: models have no reapers.
pub(super) struct Background {
    every: Duration,
    any: AtomicBool,
    round: Mutex<Round>,
}

struct Round {
    reapers: Vec<Weak<dyn Reaper>>,
    next: Instant,
}

impl Background {
    pub(super) fn new(every: Duration) -> Self {
        let round = Round { reapers: Vec::new(), next: Instant::now() };
        // At most a day, so that no sum of times overflows.
        let every = every.clamp(SHORTEST, Duration::from_secs(24 * 3600));
        Background { every, any: AtomicBool::new(false), round: Mutex::new(round) }
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        // No code panics under this lock.
        self.round.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, reaper: Weak<dyn Reaper>) {
        let mut round = self.round();
        round.reapers.push(reaper);
        round.next = Instant::now();
        // ORDERING: Relaxed: the caller wakes the reclaimer next, and the wake orders this store before the
        // reclaimer's load.
        self.any.store(true, Relaxed);
    }

    /// Returns the reapers that are due, or the time until they are. Returns `None` if there are none.
    fn due(&self) -> Option<Result<Vec<Arc<dyn Reaper>>, Duration>> {
        // ORDERING: Relaxed, as in `add`.
        if !self.any.load(Relaxed) {
            return None;
        }
        let mut round = self.round();
        let now = Instant::now();
        if now < round.next {
            return Some(Err(round.next - now));
        }
        let due: Vec<_> = round.reapers.iter().filter_map(Weak::upgrade).collect();
        round.reapers.retain(|reaper| reaper.strong_count() > 0);
        round.next = now + self.every;
        if due.is_empty() {
            // ORDERING: Relaxed, as in `add`.
            self.any.store(false, Relaxed);
            return None;
        }
        Some(Ok(due))
    }

    /// Makes the reapers due after this time, if they are not due earlier.
    fn hurry(&self, after: Duration) {
        let mut round = self.round();
        round.next = round.next.min(Instant::now() + after.min(self.every));
    }
}

impl Inner {
    pub(super) fn add_reaper(&self, reaper: Weak<dyn Reaper>) {
        self.settings.background.add(reaper);
        self.wake();
    }

    /// Returns whether there are reapers to call.
    pub(super) fn has_reapers(&self) -> bool {
        // ORDERING: Relaxed, as in `Background::add`.
        self.settings.background.any.load(Relaxed)
    }

    /// Calls the reapers, if they are due. Returns the time until they are due again, or `None` if there are none.
    pub(super) fn reap(&self) -> Option<Duration> {
        let due = match self.settings.background.due()? {
            Ok(due) => due,
            Err(until) => return Some(until),
        };
        let (mut more, mut removed, mut idle) = (false, false, self.settings.background.every);
        let _calling = Calling::enter();
        for reaper in due {
            let panics = contain(|| {
                let reaped = reaper.expire(BUDGET);
                more |= reaped.examined >= BUDGET && !reaped.stopped;
                removed |= reaped.removed > 0;
                idle = reaper.due_in().map_or(idle, |due_in| idle.min(due_in));
            });
            // The drop of a reaper is user code too, if this is its last reference.
            let panics = panics + contain(|| drop(reaper));
            // ORDERING: Relaxed, a statistic.
            self.panics.fetch_add(panics.into(), Relaxed);
        }
        if more {
            self.settings.background.hurry(Duration::ZERO);
            return Some(Duration::ZERO);
        }
        self.settings.background.hurry(idle);
        // What the reapers removed must be destroyed: another round is due at once.
        Some(if removed { Duration::ZERO } else { idle })
    }

    /// Makes the reapers due within this time, and wakes the reclaimer.
    pub(crate) fn reap_within(&self, time: Duration) {
        self.settings.background.hurry(time);
        self.wake();
    }
}
