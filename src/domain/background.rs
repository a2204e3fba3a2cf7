//! Reapers that a domain's reclaimer calls every now and then.

use super::Inner;
use crate::node::contain;
use crate::reaper::Reaper;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// Between two calls of a reaper that had nothing left to do, unless the user says otherwise.
pub(super) const REAP_EVERY: Duration = Duration::from_millis(100);

/// Entries that a reaper looks at before the next has its turn.
const BUDGET: usize = 1024;

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
        // (Lest a time overflow.)
        let every = every.min(Duration::from_secs(24 * 3600));
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

    /// Some of them have more to do.
    fn hurry(&self) {
        self.round().next = Instant::now();
    }
}

impl Inner {
    pub(super) fn add_reaper(&self, reaper: Weak<dyn Reaper>) {
        self.settings.background.add(reaper);
        self.wake();
    }

    /// Calls the reapers, if it is time. Returns when it is time again, if there are any.
    pub(super) fn reap(&self) -> Option<Duration> {
        let due = match self.settings.background.due()? {
            Ok(due) => due,
            Err(until) => return Some(until),
        };
        let mut more = false;
        for reaper in due {
            let panics = contain(|| {
                let reaped = reaper.expire(BUDGET);
                more |= reaped.examined >= BUDGET && !reaped.stopped;
            });
            // Its end is the user's code as well, if this was the last to hold it.
            let panics = panics + contain(|| drop(reaper));
            // ORDERING: Relaxed, a statistic.
            self.panics.fetch_add(panics.into(), Relaxed);
        }
        if more {
            self.settings.background.hurry();
            return Some(Duration::ZERO);
        }
        Some(self.settings.background.every)
    }
}
