//! What a shard counts.

use crate::sync::AtomicU64;
use crate::sync::atomic::Ordering;

/// Statistics, written under the lock and read without it.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) inserted: Count,
    pub(crate) removed: Count,
    pub(crate) replaced: Count,
    pub(crate) reaped: Count,
    pub(crate) evicted: Count,
    pub(crate) resizes: Count,
    /// Nodes in the shard.
    pub(crate) live: Count,
    /// Nodes that the shard takes before it grows.
    pub(crate) capacity: Count,
    /// Bytes that its tables take.
    pub(crate) bytes: Count,
}

pub(crate) struct Count(AtomicU64);

impl Default for Count {
    fn default() -> Self {
        Count(AtomicU64::new(0))
    }
}

impl Count {
    /// Under the shard lock.
    pub(crate) fn add(&self, by: u64) {
        // ORDERING: Relaxed, a statistic. No addition is lost: the lock keeps writers apart.
        self.0.store(self.0.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, to: u64) {
        // ORDERING: Relaxed, a statistic.
        self.0.store(to, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.0.load(Ordering::Relaxed)
    }
}
