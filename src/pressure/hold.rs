//! Hysteresis of a level: when it demands again, and how much. What it is for is told at
//! [`Level`].
//!
//! An account is kept of what was shed and does not show in the usage yet. It is paid back when more is put into the
//! reapers than the usage grows by: that went where the shed entries had been.
//!
//! ```text
//!      reused = entries that came · bytes of one − growth of usage         at least 0
//!      outstanding = what was shed − reused − 2 · growth of usage          at least 0
//!      demand = usage − low mark − outstanding
//! ```
//!
//! If usage grows though something is outstanding, then maybe it is not coming: it lies between live entries, in pieces
//! that the allocator cannot use, or handles and readers keep it. So growth takes three times as much from the reapers
//! as it is itself. By that the live entries come to be so much below the low mark as the usage gets above the high
//! one, times two; and not more by far than is missing, as they would if what is on its way did not count.

use super::source::Level;
use crate::reap::Reaped;
use std::time::Duration;

/// The part of the limit by which usage has to grow before there is another demand.
const STEP: u64 = 256;
/// The part of the entries that have to come anew before their coming makes another demand.
const REFILL: usize = 64;
/// What growth of the usage takes from the account, times itself.
const DISTRUST: u64 = 2;

/// What was so at the last demand.
#[derive(Clone, Copy, Debug)]
struct Last {
    used: u64,
    /// Entries before it was dealt with.
    before: usize,
    /// And after it.
    after: usize,
    /// Bytes shed that do not show in the usage, when it had been dealt with.
    outstanding: u64,
    /// When to try again, if a reaper had to stop.
    again: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Hold {
    last: Option<Last>,
    /// The bytes that an entry counts for, of those removed last. 0 if that is not known.
    each: u64,
}

impl Hold {
    /// The bytes that `level` demands at this time, when the reapers hold so many entries.
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
            // More was shed than is missing: that is still to show.
            return None;
        }
        self.last = Some(Last { used: level.used, before: count, after: count, outstanding, again: None });
        Some(wanted)
    }

    /// Something was shed, and the reapers hold so many entries now. `again`: it is worth while to try at that time.
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
        // Marks at 90,000 and 80,000; a step is 390.
        Level::new(used, 100_000, Marks::new(0.9, 0.8))
    }

    /// A demand was met to the entry.
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
        // Below the mark, and above it again.
        assert_eq!(ask(&mut hold, 90_000, 800), None);
        assert_eq!(ask(&mut hold, 90_001, 800), Some(10_001));
    }

    #[test]
    fn growth_while_the_shed_is_on_its_way_demands_in_proportion() {
        let mut hold = Hold::default();
        assert_eq!(ask(&mut hold, 91_000, 910), Some(11_000));
        shed(&mut hold, 11_000);
        // All that came took new memory.
        assert_eq!(ask(&mut hold, 92_000, 810), Some(3000));
        shed(&mut hold, 3000);
        // Half of what came took memory of what was shed.
        assert_eq!(ask(&mut hold, 92_400, 788), Some(1600));
    }

    #[test]
    fn entries_that_take_the_place_of_the_shed_demand_without_growth() {
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
    fn more_shed_than_was_missing_is_remembered() {
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
