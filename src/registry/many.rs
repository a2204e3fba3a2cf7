//! Writes of many keys at once, whose cache misses overlap.
//!
//! A write is a chain of cache misses, most of them under the shard lock. A batch hashes a chunk of keys and
//! prefetches the lines of all their buckets, then the nodes, and only then writes, one key after the other. A
//! batch is not a transaction: other threads see each write by itself.

use crate::domain::IfFull;
use crate::handle::Handle;
use crate::registry::Registry;
use crate::registry::view::hash_of;
use crate::shard::write::Wanted;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};

/// The number of keys whose cache misses overlap, as for reads.
const WIDTH: usize = 32;

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Inserts entries, and replaces entries with the same keys. Returns how many were replaced.
    ///
    /// Works as a [`set`](Self::set) of each entry, in order. Faster if the registry does not fit the processor's
    /// caches. If `entries` or other user code panics, up to 32 entries that were already taken from `entries`
    /// are not inserted.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert), for one entry at a time.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// assert_eq!(registry.set_many((0..100).map(|key| (key, key))), 0);
    /// assert_eq!(registry.set_many([(7, 0), (1000, 0)]), 1);
    /// assert_eq!(registry.len(), 101);
    /// ```
    pub fn set_many(&self, entries: impl IntoIterator<Item = (K, V)>) -> usize {
        let mut entries = entries.into_iter();
        let (mut chunk, mut replaced) = (Vec::with_capacity(WIDTH), 0);
        loop {
            chunk.extend(entries.by_ref().take(WIDTH).map(|(key, value)| (self.hash_to_write(&key), key, value)));
            if chunk.is_empty() {
                return replaced;
            }
            self.core.prefetch_nodes(chunk.iter().map(|(hash, ..)| *hash));
            for (hash, key, value) in chunk.drain(..) {
                let unpublished = self.core.prepare(hash, key, value);
                let Ok(published) = self.core.replace(unpublished, Wanted::NONE, IfFull::go_on());
                replaced += usize::from(published.old.is_some());
            }
        }
    }

    /// Removes the entries of `keys`. Returns how many there were.
    ///
    /// Works as a [`delete`](Self::delete) of each key, in order. Faster if the registry does not fit the
    /// processor's caches.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert), for one entry at a time.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// registry.set_many((0..100).map(|key| (key, key)));
    /// assert_eq!(registry.delete_many(&[1, 2, 1000]), 2);
    /// assert_eq!(registry.len(), 98);
    /// ```
    pub fn delete_many<'k, Q>(&self, keys: impl IntoIterator<Item = &'k Q>) -> usize
    where
        Q: Hash + Equivalent<K> + ?Sized + 'k,
    {
        let mut deleted = 0;
        self.for_each_to_remove(keys, |hash, key| {
            let Ok(left) = self.core.remove(hash, |found| key.equivalent(found), false, IfFull::go_on());
            deleted += usize::from(left.is_some());
        });
        deleted
    }

    /// Removes the entries of `keys`, and calls `each` with every key and its entry, in order.
    ///
    /// Works as a [`remove`](Self::remove) of each key. Faster if the registry does not fit the processor's
    /// caches.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert), for one entry at a time. `each` runs outside every lock.
    pub fn remove_many<'k, Q>(
        &self,
        keys: impl IntoIterator<Item = &'k Q>,
        mut each: impl FnMut(&'k Q, Option<Handle<K, V>>),
    ) where
        Q: Hash + Equivalent<K> + ?Sized + 'k,
    {
        self.for_each_to_remove(keys, |hash, key| {
            let Ok(left) = self.core.remove(hash, |found| key.equivalent(found), true, IfFull::go_on());
            each(key, left.into_handle());
        });
    }

    /// Calls `remove` with every key and its hash, after it has prefetched their lines.
    fn for_each_to_remove<'k, Q>(&self, keys: impl IntoIterator<Item = &'k Q>, mut remove: impl FnMut(u64, &'k Q))
    where
        Q: Hash + Equivalent<K> + ?Sized + 'k,
    {
        let mut keys = keys.into_iter();
        let mut chunk = Vec::with_capacity(WIDTH);
        loop {
            chunk.extend(keys.by_ref().take(WIDTH).map(|key| (self.hash_to_write(key), key)));
            if chunk.is_empty() {
                return;
            }
            self.core.prefetch_nodes(chunk.iter().map(|(hash, _)| *hash));
            chunk.drain(..).for_each(|(hash, key)| remove(hash, key));
        }
    }

    /// Returns the hash of a key that is about to be written, and prefetches its bucket.
    fn hash_to_write<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        let hash = hash_of(&self.hasher, key);
        self.core.prefetch_to_write(hash);
        hash
    }
}

/// Inserts entries as [`Registry::set_many`] does.
impl<K, V, S> Extend<(K, V)> for &Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        self.set_many(entries);
    }
}

/// Inserts entries as [`Registry::set_many`] does.
impl<K, V, S> Extend<(K, V)> for Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        self.set_many(entries);
    }
}

/// Makes a registry with the default settings, and inserts entries as [`Registry::set_many`] does.
///
/// # Examples
///
/// ```
/// let registry: epoch_registry::Registry<_, _> = ["a", "bc", "d"].map(|text| (text, text.len())).into_iter().collect();
/// assert_eq!(*registry.lookup("bc").unwrap(), 2);
/// ```
impl<K, V, S> FromIterator<(K, V)> for Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Default,
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let registry = Registry::default();
        registry.set_many(entries);
        registry
    }
}

/// Makes a registry with the default settings. Of two entries with the same key, the second replaces the first.
///
/// # Examples
///
/// ```
/// let registry = epoch_registry::Registry::from([("a", 1), ("b", 2)]);
/// assert_eq!(registry.len(), 2);
/// ```
impl<K, V, const N: usize> From<[(K, V); N]> for Registry<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}
