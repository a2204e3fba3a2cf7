//! What a shard counts.

use crate::reap::Cause;
use crate::shard::evict::Bounds;
use crate::sync::AtomicU64;
use crate::sync::atomic::Ordering;
use crate::table::Table;
use crate::util::clock::Time;
use std::sync::atomic::AtomicBool;

/// Statistics, written under the lock and read without it. Those first that most writes change.
#[repr(C, align(64))]
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) inserted: Count,
    /// Nodes in the shard.
    pub(crate) live: Count,
    /// The bytes that they count for.
    pub(crate) weight: Sum,
    pub(crate) removed: Count,
    pub(crate) replaced: Count,
    pub(crate) reaped: Count,
    pub(crate) expired: Count,
    pub(crate) evicted: Count,
    pub(crate) resizes: Count,
    /// Nodes that the shard takes before it grows.
    pub(crate) capacity: Count,
    /// Bytes that its tables take.
    pub(crate) bytes: Count,
    /// The shard's bounds.
    pub(crate) max_entries: Count,
    pub(crate) max_weight: Count,
    /// A resize is under way. (Of std's type, a hint.)
    resizing: AtomicBool,
    /// When some node may have expired.
    pub(crate) due: NextDue,
}

pub(crate) struct NextDue(AtomicU64);

impl Default for NextDue {
    fn default() -> Self {
        NextDue(AtomicU64::new(Time::NEVER.word()))
    }
}

impl NextDue {
    /// Under the shard lock.
    pub(crate) fn set(&self, due: Time) {
        // ORDERING: Relaxed, a hint.
        if self.get() != due {
            self.0.store(due.word(), Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Time {
        // ORDERING: Relaxed, a hint: a reaper that looks takes the lock, and finds what there is.
        Time::of_word(self.0.load(Ordering::Relaxed))
    }
}

impl Counts {
    /// Of a shard with an empty table.
    pub(crate) fn new<K, V>(table: Table<K, V>, bounds: Bounds) -> Self {
        let counts = Counts::default();
        counts.capacity.set(Table::<K, V>::limit(table.buckets()) as u64);
        counts.bytes.set(table.bytes() as u64);
        counts.set_bounds(bounds);
        counts
    }

    /// Under the shard lock, or before the shard is used.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        self.max_entries.set(bounds.entries as u64);
        self.max_weight.set(bounds.weight);
    }

    /// Under the shard lock.
    pub(crate) fn set_resizing(&self, resizing: bool) {
        // ORDERING: Relaxed, a hint.
        self.resizing.store(resizing, Ordering::Relaxed);
    }

    pub(crate) fn is_resizing(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.resizing.load(Ordering::Relaxed)
    }

    /// Counts that a node of this weight has left. Under the shard lock.
    #[inline]
    pub(crate) fn leave(&self, cause: Cause, weight: u64) {
        self.live.subtract(1);
        self.weight.subtract(weight);
        self.left(cause).add(1);
    }

    /// Where it is counted that a node left for this cause.
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

/// A sum of amounts that may exceed what 64 bits hold, and comes right again when they are subtracted.
#[derive(Default)]
pub(crate) struct Sum {
    /// Modulo 2^64.
    low: Count,
    /// How many times 2^64 is to be added to that.
    wraps: Count,
}

impl Sum {
    /// Under the shard lock.
    #[inline]
    pub(crate) fn add(&self, by: u64) {
        let (sum, has_wrapped) = self.low.get().overflowing_add(by);
        self.low.set(sum);
        if has_wrapped {
            self.wraps.add(1);
        }
    }

    /// Under the shard lock.
    #[inline]
    pub(crate) fn subtract(&self, by: u64) {
        let (sum, has_wrapped) = self.low.get().overflowing_sub(by);
        self.low.set(sum);
        if has_wrapped {
            self.wraps.subtract(1);
        }
    }

    /// Under the shard lock.
    pub(crate) fn clear(&self) {
        self.low.set(0);
        self.wraps.set(0);
    }

    /// The sum, or the highest number if it exceeds that.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        if self.wraps.get() == 0 { self.low.get() } else { u64::MAX }
    }
}

pub(crate) struct Count(AtomicU64);

impl Default for Count {
    fn default() -> Self {
        Count(AtomicU64::new(0))
    }
}

impl Count {
    /// Under the shard lock.
    #[inline]
    pub(crate) fn subtract(&self, by: u64) {
        // ORDERING: Relaxed, as in `add`.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
    }

    /// Under the shard lock.
    #[inline]
    pub(crate) fn add(&self, by: u64) {
        // ORDERING: Relaxed, a statistic. No addition is lost: the lock keeps writers apart.
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
