//! Walks that several threads share: each takes whole shards.

#![allow(unsafe_code)]

use crate::handle::Entry;
use crate::registry::Registry;
use crate::registry::iter::Iter;
use crate::registry::view::View;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

impl<K, V, S> View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The entries of one shard, of those numbered from 0 to [`Registry::shard_count`]. As [`iter`](Self::iter), which goes
    /// through all of them.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn iter_shard(&self, shard: usize) -> Iter<'_, K, V> {
        self.check();
        // SAFETY: the iterator borrows this view, which is used within a critical section.
        unsafe { Iter::new(self.core, &self.roots.all()[shard..=shard]) }
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The number of shards: what was [asked for](crate::Builder::shards), rounded up to a power of two.
    pub fn shard_count(&self) -> usize {
        self.core.shards().len()
    }

    /// Calls `each` with every entry, on so many threads at a time. What is met is as for
    /// [`View::iter`](crate::View::iter), shard by shard.
    ///
    /// The threads are started for this call, and joined before it returns. Each goes through one shard after another, in a
    /// critical section of its own for each.
    ///
    /// # Panics
    ///
    /// If `each` does, after the other threads are through.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// let registry = epoch_registry::Registry::new();
    /// registry.set_many((0..1000).map(|key| (key, key)));
    /// let sum = AtomicU64::new(0);
    /// registry.scan_parallel(2, |entry| {
    ///     sum.fetch_add(*entry, Ordering::Relaxed);
    /// });
    /// assert_eq!(sum.into_inner(), 999 * 1000 / 2);
    /// ```
    pub fn scan_parallel(&self, threads: usize, each: impl Fn(Entry<'_, K, V>) + Sync)
    where
        S: Sync,
    {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                // ORDERING: Relaxed. It hands out numbers.
                let shard = next.fetch_add(1, Relaxed);
                if shard >= self.shard_count() {
                    return;
                }
                self.pin().iter_shard(shard).for_each(&each);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.clamp(1, self.shard_count()) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// As [`scan_parallel`](Self::scan_parallel), on the threads of rayon's pool. (Feature `rayon`.)
    #[cfg(feature = "rayon")]
    pub fn par_scan(&self, each: impl Fn(Entry<'_, K, V>) + Sync)
    where
        S: Sync,
    {
        use rayon::iter::{IntoParallelIterator, ParallelIterator};
        (0..self.shard_count()).into_par_iter().for_each(|shard| self.pin().iter_shard(shard).for_each(&each));
    }
}
