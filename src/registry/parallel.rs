//! Walks that several threads share. Each thread takes whole shards.

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
    /// Returns an iterator over the entries of one shard. [`iter`](Self::iter) goes through all shards.
    ///
    /// Shards are numbered from 0 up to, but not including, [`Registry::shard_count`].
    ///
    /// # Panics
    ///
    /// Panics if there is no such shard.
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
    /// Returns the number of shards: the number that was [set](crate::Builder::shards), rounded up to a power of
    /// two.
    pub fn shard_count(&self) -> usize {
        self.core.shards().len()
    }

    /// Calls `each` with every entry, on up to `threads` threads at a time.
    ///
    /// The calling thread is one of them. The others are started for this call, and joined before it returns.
    /// Each thread goes through one shard after another, and opens a critical section for each. Within a shard,
    /// the iteration is as consistent as [`View::iter`](crate::View::iter).
    ///
    /// # Panics
    ///
    /// Panics if `each` does, after the other threads have finished.
    ///
    /// # Examples
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
                // ORDERING: Relaxed: each call takes another number, and nothing else is shared by it.
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

    /// Calls `each` with every entry, on the threads of rayon's pool (feature `rayon`).
    ///
    /// Works as [`scan_parallel`](Self::scan_parallel), without threads of its own.
    ///
    /// # Panics
    ///
    /// Panics if `each` does.
    #[cfg(feature = "rayon")]
    pub fn par_scan(&self, each: impl Fn(Entry<'_, K, V>) + Sync)
    where
        S: Sync,
    {
        use rayon::iter::{IntoParallelIterator, ParallelIterator};
        (0..self.shard_count()).into_par_iter().for_each(|shard| self.pin().iter_shard(shard).for_each(&each));
    }
}
