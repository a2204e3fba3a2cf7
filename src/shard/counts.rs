//! The statistics of a shard.

use crate::reap::Cause;
use crate::shard::evict::Bounds;
use crate::sync::AtomicU64;
use crate::sync::atomic::Ordering;
use crate::table::Table;
use crate::util::clock::Time;
use std::sync::atomic::AtomicBool;

/// The statistics of a shard. Writers update them under the shard lock; any thread reads them without it.
///
/// The fields that most writes change come first.
#[repr(C, align(64))]
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) inserted: Count,
    /// The number of nodes in the shard.
    pub(crate) live: Count,
    /// The sum of the weights of these nodes, in bytes.
    pub(crate) weight: Sum,
    pub(crate) removed: Count,
    pub(crate) replaced: Count,
    pub(crate) reaped: Count,
    pub(crate) expired: Count,
    pub(crate) evicted: Count,
    pub(crate) resizes: Count,
    /// The number of nodes at which the table grows.
    pub(crate) capacity: Count,
    /// The bytes that the shard's tables occupy.
    pub(crate) bytes: Count,
    /// The bound on the number of nodes. `usize::MAX` means that there is none.
    pub(crate) max_entries: Count,
    /// The bound on the weight of the nodes, in bytes. `u64::MAX` means that there is none.
    pub(crate) max_weight: Count,
    /// Whether a resize is under way. Not modelled by loom: only a hint.
    resizing: AtomicBool,
    /// The earliest time at which an entry may have expired, or `Time::ZERO` while the timers are being purged.
    pub(crate) due: NextDue,
}

/// A time that the holder of the shard lock sets, and any thread reads.
pub(crate) struct NextDue(AtomicU64);

impl Default for NextDue {
    fn default() -> Self {
        NextDue(AtomicU64::new(Time::NEVER.word()))
    }
}

impl NextDue {
    /// Sets the time. The caller holds the shard lock.
    pub(crate) fn set(&self, due: Time) {
        // ORDERING: Relaxed, a hint (see `get`).
        if self.get() != due {
            self.0.store(due.word(), Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Time {
        // ORDERING: Relaxed, a hint. A reaper that acts on it takes the shard lock and then looks at the timers
        // themselves.
        Time::of_word(self.0.load(Ordering::Relaxed))
    }
}

impl Counts {
    /// Returns the counts of a shard with an empty table.
    pub(crate) fn new<K, V>(table: Table<K, V>, bounds: Bounds) -> Self {
        let counts = Counts::default();
        counts.capacity.set(Table::<K, V>::limit(table.buckets()) as u64);
        counts.bytes.set(table.bytes() as u64);
        counts.set_bounds(bounds);
        counts
    }

    /// Records the bounds. The caller holds the shard lock, or the shard is not in use yet.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        self.max_entries.set(bounds.entries as u64);
        self.max_weight.set(bounds.weight);
    }

    /// Returns the bound on the number of nodes, if there is one.
    pub(crate) fn entry_bound(&self) -> Option<usize> {
        Some(self.max_entries.get() as usize).filter(|&bound| bound != usize::MAX)
    }

    /// Returns the bound on the weight of the nodes, in bytes, if there is one.
    pub(crate) fn weight_bound(&self) -> Option<u64> {
        Some(self.max_weight.get()).filter(|&bound| bound != u64::MAX)
    }

    /// Records whether a resize is under way. The caller holds the shard lock.
    pub(crate) fn set_resizing(&self, resizing: bool) {
        // ORDERING: Relaxed, a hint.
        self.resizing.store(resizing, Ordering::Relaxed);
    }

    pub(crate) fn is_resizing(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.resizing.load(Ordering::Relaxed)
    }

    /// Records that a node of this weight has left for this cause. The caller holds the shard lock.
    #[inline]
    pub(crate) fn leave(&self, cause: Cause, weight: u64) {
        self.live.subtract(1);
        self.weight.subtract(weight);
        self.left(cause).add(1);
    }

    /// Returns the counter of the nodes that left for this cause.
    #[inline]
    pub(crate) fn left(&self, cause: Cause) -> &Count {
        match cause {
            Cause::Removed => &self.removed,
            Cause::Replaced => &self.replaced,
            Cause::Expired | Cause::Idle => &self.expired,
            Cause::Capacity => &self.evicted,
            Cause::Reaped | Cause::Pressure => &self.reaped,
        }
    }
}

/// A sum that may exceed 64 bits. It keeps its full value, so it is exact again after enough is subtracted.
#[derive(Default)]
pub(crate) struct Sum {
    /// The sum modulo 2^64.
    low: Count,
    /// The sum divided by 2^64, rounded down.
    wraps: Count,
}

impl Sum {
    /// Adds `by`. The caller holds the shard lock.
    #[inline]
    pub(crate) fn add(&self, by: u64) {
        let (sum, has_wrapped) = self.low.get().overflowing_add(by);
        self.low.set(sum);
        if has_wrapped {
            self.wraps.add(1);
        }
    }

    /// Subtracts `by`. The caller holds the shard lock.
    #[inline]
    pub(crate) fn subtract(&self, by: u64) {
        let (sum, has_wrapped) = self.low.get().overflowing_sub(by);
        self.low.set(sum);
        if has_wrapped {
            self.wraps.subtract(1);
        }
    }

    /// Sets the sum to zero. The caller holds the shard lock.
    pub(crate) fn clear(&self) {
        self.low.set(0);
        self.wraps.set(0);
    }

    /// Returns the sum, or `u64::MAX` if the sum exceeds 64 bits.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        if self.wraps.get() == 0 { self.low.get() } else { u64::MAX }
    }
}

/// A counter that the holder of the shard lock changes, and any thread reads.
pub(crate) struct Count(AtomicU64);

impl Default for Count {
    fn default() -> Self {
        Count(AtomicU64::new(0))
    }
}

impl Count {
    /// Subtracts `by`, modulo 2^64. The caller holds the shard lock.
    #[inline]
    pub(crate) fn subtract(&self, by: u64) {
        // ORDERING: Relaxed, a statistic. The shard lock keeps writers apart, as in `add`.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
    }

    /// Adds `by`, modulo 2^64. The caller holds the shard lock.
    #[inline]
    pub(crate) fn add(&self, by: u64) {
        // ORDERING: Relaxed, a statistic. A separate load and store lose no addition: the shard lock keeps
        // writers apart.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set(&self, to: u64) {
        // ORDERING: Relaxed, a statistic.
        self.0.store(to, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.0.load(Ordering::Relaxed)
    }
}
