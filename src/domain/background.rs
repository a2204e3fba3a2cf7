//! Reapers that a domain's reclaimer calls at intervals, and the mark of a thread that calls them.

use super::Inner;
use super::reclaimer::in_spawn;
use super::thread::{Running, in_any_section};
use crate::reap::Reaper;
use crate::sync::const_thread_local;
use crate::util::panics::contain;
use crate::util::reentrancy::shard_locked;
use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// Between two calls of a reaper that had nothing left to do, unless the user says otherwise.
pub(super) const REAP_EVERY: Duration = Duration::from_millis(100);

/// The interval is no shorter than this: a reclaimer that called reapers all the time would do nothing else.
const SHORTEST: Duration = Duration::from_millis(1);

/// Entries that a reaper looks at before the next has its turn.
const BUDGET: usize = 1024;

const_thread_local! {
    /// Calls of reapers, of pressure sources and of the code around them that this thread is in the middle of. A thread of the
    /// crate's own counts as one, for its whole life.
    static DEPTH: Cell<usize> = Cell::new(0);
}

/// A call of reapers, as long as it is there.
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

/// Says that this thread is one that calls reapers, to its end.
pub(crate) fn enter_for_good() {
    std::mem::forget(Calling::enter());
}

/// Whether this thread may wait for a thread that calls reapers or runs destructors. It may not where such a thread could
/// wait for it in turn: in a reaper, pressure source or executor's `spawn`, in a destructor or callback, in the `Eq` of a key,
/// and in a critical section of any domain.
pub(crate) fn may_wait_for_threads() -> bool {
    let called = DEPTH.with(Cell::get) > 0 || in_spawn();
    !called && !Running::is_anywhere() && !shard_locked() && !in_any_section()
}

/// The reapers of a domain. (Of std's types: whoever has none has nothing to do with them, and models have none.)
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
        // At most a day, so that no time overflows.
        let every = every.clamp(SHORTEST, Duration::from_secs(24 * 3600));
        Background { every, any: AtomicBool::new(false), round: Mutex::new(round) }
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        // Nothing panics under this lock.
        self.round.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, reaper: Weak<dyn Reaper>) {
        let mut round = self.round();
        round.reapers.push(reaper);
        round.next = Instant::now();
        // ORDERING: Relaxed: whoever is woken for it finds it, by that.
        self.any.store(true, Relaxed);
    }

    /// The reapers whose turn it is, or when that is. `None` if there are none.
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

    /// Some of them have something to do after this time.
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

    /// Whether there are reapers to be called.
    pub(super) fn has_reapers(&self) -> bool {
        // ORDERING: Relaxed, as in `Background::add`.
        self.settings.background.any.load(Relaxed)
    }

    /// Calls the reapers, if it is time. Returns when it is time again, if there are any.
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
            // Its end is the user's code as well, if this was the last to hold it.
            let panics = panics + contain(|| drop(reaper));
            // ORDERING: Relaxed, a statistic.
            self.panics.fetch_add(panics.into(), Relaxed);
        }
        if more {
            self.settings.background.hurry(Duration::ZERO);
            return Some(Duration::ZERO);
        }
        self.settings.background.hurry(idle);
        // What was removed is to be destroyed: another round is due at once.
        Some(if removed { Duration::ZERO } else { idle })
    }

    /// Has the reapers called within this time.
    pub(crate) fn reap_within(&self, time: Duration) {
        self.settings.background.hurry(time);
        self.wake();
    }
}
