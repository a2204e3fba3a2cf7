//! The hysteresis of a level: when it demands again, and how many bytes. [`Level`] gives the reason for it.
//!
//! A `Hold` keeps an account of the bytes that were shed but do not show in the usage yet (`outstanding`). If the
//! new entries need more bytes than the usage grew by, they reuse the memory of shed entries. These bytes are
//! subtracted from the account.
//!
//! ```text
//!      reused = new entries · bytes per entry − growth of usage            at least 0
//!      outstanding = bytes shed − reused − 2 · growth of usage             at least 0
//!      demand = usage − low mark − outstanding
//! ```
//!
//! If the usage grows although bytes are outstanding, they may never come back: they lie between live entries in
//! pieces that the allocator cannot use, or handles and readers keep them. So each byte of growth makes the
//! reapers shed three bytes: one for the growth, and two taken from the account. If the usage rises above the
//! high mark by some amount, the live entries shrink below the low mark by twice that amount. They do not shrink
//! much further than needed, as they would if outstanding bytes did not count.

use super::source::Level;
use crate::reap::Reaped;
use std::time::Duration;

/// The usage has to grow by this part of the limit (1 / `STEP`) to cause another demand.
const STEP: u64 = 256;
/// This part of the entries (1 / `REFILL`) has to be new before a refill can cause another demand.
const REFILL: usize = 64;
/// How many bytes each byte of growth takes from the account.
const DISTRUST: u64 = 2;

/// The state at the last demand.
#[derive(Clone, Copy, Debug)]
struct Last {
    used: u64,
    /// Entries before the demand was handled.
    before: usize,
    /// Entries after it.
    after: usize,
    /// Bytes that were shed but did not show in the usage yet, after the demand was handled.
    outstanding: u64,
    /// When to try again, if a reaper stopped.
    again: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Hold {
    last: Option<Last>,
    /// Bytes per entry, of those removed last. 0 if this is not known.
    each: u64,
}

impl Hold {
    /// Returns the bytes that `level` demands now. `count` returns the number of entries in the reapers.
    pub(super) fn demand(&mut self, level: Level, now: Duration, count: impl FnOnce() -> usize) -> Option<u64> {
        if level.used <= level.high {
            self.last = None;
            return None;
        }
        let (count, mut outstanding) = (count(), 0);
        if let Some(last) = self.last {
            let come = (count.saturating_sub(last.after) as u64).saturating_mul(self.each);
            let reused = come.saturating_add(last.used).saturating_sub(level.used);
            let lost = level.used.saturating_sub(last.used).saturating_mul(DISTRUST);
            outstanding = last.outstanding.saturating_sub(reused).saturating_sub(lost);
            let has_grown = level.used > last.used.saturating_add(level.limit / STEP);
            let is_new = count > last.after.saturating_add(last.after / REFILL);
            let is_used_up = if self.each > 0 { outstanding <= last.outstanding / 2 } else { count >= last.before };
            let has_refilled = is_new && is_used_up;
            let has_stopped = last.again.is_some_and(|again| now >= again);
            if !has_grown && !has_refilled && !has_stopped {
                return None;
            }
        }
        let wanted = (level.used - level.low).saturating_sub(outstanding);
        if wanted == 0 {
            // More was shed than is needed, and does not show in the usage yet.
            return None;
        }
        self.last = Some(Last { used: level.used, before: count, after: count, outstanding, again: None });
        Some(wanted)
    }

    /// Records what was shed. `again`: when to try again, if a reaper stopped.
    pub(super) fn settle(&mut self, reaped: Reaped, again: Option<Duration>) {
        if reaped.removed > 0 {
            self.each = reaped.bytes / reaped.removed as u64;
        }
        if let Some(last) = &mut self.last {
            last.after = last.after.saturating_sub(reaped.removed);
            last.outstanding = last.outstanding.saturating_add(reaped.bytes);
            last.again = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::source::Marks;

    const EACH: u64 = 100;

    fn level(used: u64) -> Level {
        // The marks are at 90,000 and 80,000; a step is 390.
        Level::new(used, 100_000, Marks::new(0.9, 0.8))
    }

    /// Records a demand that was met exactly.
    fn shed(hold: &mut Hold, bytes: u64) {
        let mut reaped = Reaped::default();
        (reaped.removed, reaped.bytes) = ((bytes / EACH) as usize, bytes);
        hold.settle(reaped, None);
    }

    fn ask(hold: &mut Hold, used: u64, count: usize) -> Option<u64> {
        hold.demand(level(used), Duration::ZERO, || count)
    }

    #[test]
    fn nothing_is_demanded_up_to_the_mark() {
        let mut hold = Hold::default();
        assert_eq!(hold.demand(level(90_000), Duration::ZERO, || unreachable!()), None);
        assert_eq!(ask(&mut hold, 90_001, 900), Some(10_001));
    }

    #[test]
    fn the_same_usage_demands_once() {
        let mut hold = Hold::default();
        assert_eq!(ask(&mut hold, 95_000, 950), Some(15_000));
        shed(&mut hold, 15_000);
        for used in [95_000, 95_390, 90_001] {
            assert_eq!(ask(&mut hold, used, 800), None);
        }
        // Below the mark, then above it again.
        assert_eq!(ask(&mut hold, 90_000, 800), None);
        assert_eq!(ask(&mut hold, 90_001, 800), Some(10_001));
    }

    #[test]
    fn growth_while_shed_memory_is_still_being_freed_demands_in_proportion() {
        let mut hold = Hold::default();
        assert_eq!(ask(&mut hold, 91_000, 910), Some(11_000));
        shed(&mut hold, 11_000);
        // All new entries took new memory.
        assert_eq!(ask(&mut hold, 92_000, 810), Some(3000));
        shed(&mut hold, 3000);
        // Half of the new entries reused the memory of shed entries.
        assert_eq!(ask(&mut hold, 92_400, 788), Some(1600));
    }

    #[test]
    fn entries_that_replace_shed_ones_demand_without_growth() {
        let mut hold = Hold::default();
        assert_eq!(ask(&mut hold, 91_000, 910), Some(11_000));
        shed(&mut hold, 11_000);
        assert_eq!(ask(&mut hold, 91_000, 854), None);
        assert_eq!(ask(&mut hold, 91_000, 855), Some(5500));
        shed(&mut hold, 5500);
        assert_eq!(ask(&mut hold, 91_000, 854), None);
        assert_eq!(ask(&mut hold, 91_000, 855), Some(5500));
    }

    #[test]
    fn a_demand_that_found_nothing_waits_for_growth_or_new_entries() {
        let mut hold = Hold::default();
        assert_eq!(ask(&mut hold, 91_000, 640), Some(11_000));
        shed(&mut hold, 0);
        assert_eq!(ask(&mut hold, 91_000, 640), None);
        assert_eq!(ask(&mut hold, 91_000, 650), None);
        assert_eq!(ask(&mut hold, 91_000, 651), Some(11_000));
        shed(&mut hold, 0);
        assert_eq!(ask(&mut hold, 91_391, 651), Some(11_391));
    }

    #[test]
    fn memory_shed_beyond_the_demand_is_remembered() {
        let mut hold = Hold::default();
        assert_eq!(ask(&mut hold, 91_000, 910), Some(11_000));
        shed(&mut hold, 30_000);
        assert_eq!(ask(&mut hold, 92_000, 610), None);
        assert_eq!(ask(&mut hold, 97_000, 610), None);
        assert_eq!(ask(&mut hold, 98_000, 610), Some(2000));
    }

    #[test]
    fn a_reaper_that_stopped_is_tried_again_later() {
        let mut hold = Hold::default();
        assert_eq!(ask(&mut hold, 91_000, 910), Some(11_000));
        let mut reaped = Reaped::default();
        (reaped.removed, reaped.bytes) = (10, 1000);
        hold.settle(reaped, Some(Duration::from_millis(100)));
        assert_eq!(hold.demand(level(91_000), Duration::from_millis(99), || 900), None);
        assert_eq!(hold.demand(level(91_000), Duration::from_millis(100), || 900), Some(10_000));
    }
}
