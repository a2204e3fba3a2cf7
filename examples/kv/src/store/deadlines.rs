//! Values with deadlines, for maps whose entries do not expire by themselves.

use super::Remaining;
use epoch_registry::Clock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The deadline of a value that does not expire.
const NEVER: u64 = u64::MAX;

/// A value with its deadline, in nanoseconds of the clock.
pub struct Timed {
    pub value: Box<[u8]>,
    deadline: AtomicU64,
}

/// The clock, and whether there is anything to sweep.
pub struct Deadlines {
    clock: Box<dyn Clock>,
    /// Whether a deadline was set since the last sweep, or is left from before.
    any: AtomicBool,
}

// ORDERING: Relaxed throughout. A deadline is one word, and nothing else is read by way of it. A sweep that misses a flag
// finds it a second later.
impl Deadlines {
    pub fn new(clock: impl Clock) -> Self {
        Deadlines { clock: Box::new(clock), any: AtomicBool::new(false) }
    }

    fn now(&self) -> u64 {
        self.clock.now().as_nanos() as u64
    }

    fn of(&self, ttl: Option<Duration>) -> u64 {
        let Some(ttl) = ttl else { return NEVER };
        self.any.store(true, Ordering::Relaxed);
        self.now().saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(NEVER)).min(NEVER - 1)
    }

    pub fn timed(&self, value: &[u8], ttl: Option<Duration>) -> Timed {
        Timed { value: value.into(), deadline: AtomicU64::new(self.of(ttl)) }
    }

    pub fn set_ttl(&self, timed: &Timed, ttl: Option<Duration>) {
        timed.deadline.store(self.of(ttl), Ordering::Relaxed);
    }

    /// Returns whether a value has not expired. Reads the clock only if the value may expire.
    pub fn is_live(&self, timed: &Timed) -> bool {
        let deadline = timed.deadline.load(Ordering::Relaxed);
        deadline == NEVER || self.now() < deadline
    }

    /// Returns the value, if it is there and has not expired.
    pub fn value<'v>(&self, timed: Option<&'v Timed>) -> Option<&'v [u8]> {
        timed.filter(|timed| self.is_live(timed)).map(|timed| &*timed.value)
    }

    pub fn remaining(&self, timed: Option<&Timed>) -> Remaining {
        match timed.map(|timed| timed.deadline.load(Ordering::Relaxed)) {
            None => Remaining::Absent,
            Some(NEVER) => Remaining::Unlimited,
            Some(deadline) => match deadline.saturating_sub(self.now()) {
                0 => Remaining::Absent,
                left => Remaining::For(Duration::from_nanos(left)),
            },
        }
    }

    /// Calls `retain` with a condition that tells live values, if any value may have expired.
    pub fn sweep(&self, retain: impl FnOnce(&dyn Fn(&Timed) -> bool)) {
        if !self.any.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = self.now();
        retain(&|timed| {
            let deadline = timed.deadline.load(Ordering::Relaxed);
            if deadline != NEVER {
                self.any.store(true, Ordering::Relaxed);
            }
            now < deadline
        });
    }
}
