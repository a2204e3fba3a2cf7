//! Lookups that do not count as a use of the entry.

#![allow(unsafe_code)]

use crate::handle::{Entry, Handle};
use crate::registry::Registry;
use crate::registry::owned_reader::OwnedReader;
use crate::registry::reader::Reader;
use crate::registry::view::{View, hash_of};
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};

impl<K, V, S> View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry of `key`, as [`get`](Self::get) does, without a use of the entry: it leaves no mark for
    /// [eviction](crate::Builder::max_entries), does not prolong a life that ends by
    /// [idleness](crate::Builder::max_idle), and is not [counted](crate::Builder::count_hits) as a hit or a miss.
    ///
    /// An expired entry is absent, as for `get`.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().max_idle(Duration::from_secs(16)).clock(clock.clone()).build();
    /// registry.set("a", 1);
    /// for _ in 0..18 {
    ///     assert_eq!(registry.pin().peek("a").as_deref(), Some(&1));
    ///     clock.advance(Duration::from_secs(1));
    /// }
    /// assert!(registry.pin().peek("a").is_none());
    /// ```
    #[inline]
    pub fn peek<Q>(&self, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.peek_hashed(hash_of(self.hasher, key), key)
    }

    /// As [`peek`](Self::peek), given the hash of the key. Any hash is harmless.
    #[inline]
    pub(super) fn peek_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.check();
        let node = self.roots.table(hash).find(hash, |node| key.equivalent(node.key()))?;
        // SAFETY: the node was found in the critical section in which the view is used, and which is still open.
        let is_there = unsafe { self.core.is_there(node, self.core.time_to_read()) };
        // SAFETY: the node was found in that critical section. The entry borrows the view.
        is_there.then(|| unsafe { Entry::new(node) })
    }
}

impl<K, V, S> Reader<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry of `key` without a use of the entry, as [`View::peek`] does. It is borrowed until the next
    /// read.
    ///
    /// # Progress
    ///
    /// As [`get`](Self::get).
    #[inline]
    pub fn peek<Q>(&mut self, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().peek(key)
    }
}

impl<K, V, S> OwnedReader<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry of `key` without a use of the entry, as [`View::peek`] does. It is borrowed until the next
    /// read.
    ///
    /// # Progress
    ///
    /// As [`get`](Self::get).
    #[inline]
    pub fn peek<Q>(&mut self, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().peek(key)
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns a handle to the entry of `key` without a use of the entry, as [`View::peek`] does. `None` if the key is
    /// not in the registry.
    ///
    /// # Progress
    ///
    /// As [`pin`](Self::pin): the read opens a critical section of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = epoch_registry::Registry::builder().shards(1).max_entries(2).build();
    /// cache.set("a", 1);
    /// cache.set("b", 2);
    /// cache.lookup("a");
    /// cache.peek("b");
    /// cache.set("c", 3);
    /// assert!(cache.peek("a").is_some() && cache.peek("b").is_none());
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.peek_handle(hash_of(&self.hasher, key), key)
    }

    /// As [`peek`](Self::peek), given the hash of the key.
    pub(super) fn peek_handle<Q>(&self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.pin().peek_hashed(hash, key).map(Entry::into_handle)
    }
}
