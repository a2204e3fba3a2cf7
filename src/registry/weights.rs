//! Entries whose weight changes.

use crate::handle::Handle;
use crate::registry::Registry;
use std::hash::{BuildHasher, Hash};

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Asks the [weigher](crate::Builder::weigher) again how many bytes this entry holds, and changes its weight. Returns
    /// the weight of the entry in bytes, with its own size.
    ///
    /// Call this when a value has changed its size: a value behind a lock, or one that counts what it refers to. If the
    /// registry then exceeds its [bound on weight](crate::Builder::max_weight), entries are evicted as by
    /// [`set_max_weight`](Self::set_max_weight), possibly this one. Until they are, the registry weighs more than the
    /// bound allows. A registry that [refuses](crate::AtCapacity::Refuse) evicts nothing, and stays beyond its bound.
    ///
    /// Nothing changes if the entry has left the registry or belongs to another one: then this returns the weight that
    /// the entry has. This does not count as a use.
    ///
    /// Of two calls for one entry at the same time, either may come last. If the value grows during the calls, call
    /// this after each change, or under the lock that guards the value (the weigher must then not take that lock).
    ///
    /// # Panics
    ///
    /// Panics if the weigher panics. Then nothing has changed.
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard, and takes it again for every few entries that it evicts. The weigher runs outside
    /// every lock.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::Registry;
    /// use std::sync::Mutex;
    ///
    /// let logs = Registry::builder().weigher(|_: &u64, log: &Mutex<String>| log.lock().unwrap().capacity()).build();
    /// let log = logs.insert_and_get(1, Mutex::new(String::new()));
    /// let empty = logs.weight();
    /// log.lock().unwrap().reserve_exact(1024);
    /// assert_eq!(logs.reweigh(&log), empty + 1024);
    /// assert_eq!(logs.weight(), empty + 1024);
    /// ```
    pub fn reweigh(&self, entry: &Handle<K, V>) -> u64 {
        self.core.reweigh(entry)
    }
}
