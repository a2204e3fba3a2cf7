//! The waits for a shard lock: the kernel's lock_stat.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The acquisitions of a shard lock that had to wait. The holder of the lock writes it; any thread reads it.
///
/// Not modelled by loom: statistics. In a model no acquisition is counted.
#[derive(Default)]
pub(crate) struct LockWaits {
    count: AtomicU64,
    /// The sum of the waits, in nanoseconds.
    total: AtomicU64,
    /// The longest wait, in nanoseconds.
    longest: AtomicU64,
}

/// The figures of [`LockWaits`].
pub(crate) struct Waited {
    pub(crate) count: u64,
    pub(crate) total: Duration,
    pub(crate) longest: Duration,
}

impl LockWaits {
    /// Adds a wait of this many nanoseconds. The caller holds the shard lock.
    pub(crate) fn add(&self, nanos: u64) {
        // ORDERING: Relaxed for all of these accesses: statistics. A separate load and store lose no addition: the
        // shard lock keeps writers apart.
        self.count.store(self.count.load(Relaxed) + 1, Relaxed);
        self.total.store(self.total.load(Relaxed).saturating_add(nanos), Relaxed);
        self.longest.store(self.longest.load(Relaxed).max(nanos), Relaxed);
    }

    pub(crate) fn get(&self) -> Waited {
        // ORDERING: Relaxed, statistics.
        let [count, total, longest] = [&self.count, &self.total, &self.longest].map(|figure| figure.load(Relaxed));
        Waited { count, total: Duration::from_nanos(total), longest: Duration::from_nanos(longest) }
    }
}
