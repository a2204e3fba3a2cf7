//! The work of one reaper in a round, by the rule of the Linux kernel's `do_shrink_slab`.
//!
//! ```text
//!              count >> priority                          deferred
//!      delta = ───────────────── · 4      total = min( ────────────── + delta, 2 · count )
//!                    seeks                              2 ^ priority
//! ```
//!
//! The total is scanned in batches. If the rest is less than a batch, it is scanned only if the reaper has no
//! more entries than that. Else it is deferred to a later round, like the work that a stopped reaper left undone.
//! So mild rounds do not scan a small reaper entry by entry, and its share is not lost either.

use super::demand::FIRST;

/// What a reaper has to scan in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Share {
    delta: u64,
    pub(super) total: u64,
    count: u64,
    deferred: u64,
}

impl Share {
    pub(super) fn of(count: u64, seeks: u32, priority: u32, deferred: u64) -> Share {
        let priority = priority.min(FIRST);
        let delta = match seeks {
            0 => count / 2,
            seeks => (count >> priority).saturating_mul(4) / u64::from(seeks),
        };
        let total = (deferred >> priority).saturating_add(delta).min(count.saturating_mul(2));
        Share { delta, total, count, deferred }
    }

    /// Returns how many entries the next scan may examine when `left` are left to do. `None`: no further scan.
    pub(super) fn batch(&self, left: u64, batch: u64) -> Option<u64> {
        (left > 0 && (left >= batch || left >= self.count)).then_some(left.min(batch))
    }

    /// Returns what is deferred after `scanned` entries were scanned.
    pub(super) fn deferred(&self, scanned: u64) -> u64 {
        self.deferred.saturating_add(self.delta).saturating_sub(scanned).min(self.count.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::Share;

    #[test]
    fn shares_are_those_of_the_kernel() {
        // (Count, seeks, priority, deferred), (delta, total).
        let table = [
            ((1 << 20, 2, 12, 0), (512, 512)),
            ((1 << 20, 1, 12, 0), (1024, 1024)),
            ((1 << 20, 4, 12, 0), (256, 256)),
            ((1 << 20, 3, 10, 0), (1365, 1365)),
            ((1 << 20, 0, 12, 0), (524_288, 524_288)),
            ((4095, 2, 12, 0), (0, 0)),
            ((4095, 2, 12, 8191), (0, 1)),
            ((1000, 2, 1, 0), (1000, 1000)),
            ((1000, 2, 0, 0), (2000, 2000)),
            ((1000, 1, 0, 0), (4000, 2000)),
            ((1000, 2, 3, 800), (250, 350)),
            ((1000, 2, 99, 0), (0, 0)),
            ((u64::MAX, 1, 0, u64::MAX), (u64::MAX, u64::MAX)),
        ];
        for ((count, seeks, priority, deferred), (delta, total)) in table {
            let share = Share::of(count, seeks, priority, deferred);
            assert_eq!((share.delta, share.total), (delta, total), "{share:?}");
        }
    }

    #[test]
    fn a_rest_is_scanned_only_if_there_are_no_more_entries() {
        let share = Share::of(1000, 2, 2, 0);
        assert_eq!((share.batch(500, 128), share.batch(128, 128), share.batch(116, 128)), (Some(128), Some(128), None));
        let small = Share::of(10, 2, 0, 0);
        assert_eq!((small.batch(20, 128), small.batch(9, 128), small.batch(0, 128)), (Some(20), None, None));
    }

    #[test]
    fn deferred_work_is_bounded() {
        let share = Share::of(1000, 2, 2, 300);
        assert_eq!((share.deferred(0), share.deferred(384), share.deferred(900)), (800, 416, 0));
        assert_eq!(Share::of(1000, 2, 2, 1900).deferred(0), 2000);
    }
}
