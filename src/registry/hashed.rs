//! Reads and writes that are given the hash of their key.
//!
//! A program that uses one key several times hashes it once: for a read and then an insertion, in several
//! registries with the same hasher, or on another thread.

use crate::domain::IfFull;
use crate::handle::{Entry, Handle};
use crate::registry::Registry;
use crate::registry::error::Occupied;
use crate::registry::reader::Reader;
use crate::registry::view::{View, hash_of};
use crate::shard::write::Wanted;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};

/// Checks, in debug builds, that `hash` is the hash of `key`.
#[inline]
#[track_caller]
fn check_hash<Q: Hash + ?Sized>(hasher: &impl BuildHasher, hash: u64, key: &Q) {
    if cfg!(debug_assertions) {
        assert!(hash == hash_of(hasher, key), "the hash that was passed is not that of the key in this registry");
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the hash of a key, for the methods whose names end in `_hashed`.
    ///
    /// Registries with equal hashers share their hashes: clone the [hasher](Self::hasher) of one for the
    /// [builder](crate::Builder::hasher) of another. (Hashes are those of the [`Hash`] of the key. They may differ
    /// from `BuildHasher::hash_one`.)
    ///
    /// # A wrong hash
    ///
    /// Those methods panic in debug builds if the hash is not that of the key. In release builds a lookup or removal
    /// with a wrong hash does not find the key. An insertion makes an entry that lookups of its key do not find, but
    /// iteration does, and there may be two entries of one key. Nothing worse happens.
    ///
    /// # Progress
    ///
    /// Runs the key's `Hash`, and no other code.
    ///
    /// # Examples
    ///
    /// A key that is looked up, and inserted if it is absent, is hashed once:
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// let mut reader = registry.reader();
    /// for word in ["a", "b", "a"] {
    ///     let hash = registry.hash_of(word);
    ///     if reader.get_hashed(hash, word).is_none() {
    ///         registry.try_insert_hashed(hash, word.to_string(), 1).unwrap();
    ///     }
    /// }
    /// assert_eq!(registry.len(), 2);
    /// ```
    #[inline]
    pub fn hash_of<Q>(&self, key: &Q) -> u64
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        hash_of(&self.hasher, key)
    }

    /// Calls `f` with the entry of `key`, as [`with`](Self::with) does, given the [hash](Self::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Self::hash_of).
    ///
    /// # Progress
    ///
    /// As [`pin`](Self::pin).
    #[inline]
    pub fn with_hashed<Q, R>(&self, hash: u64, key: &Q, f: impl FnOnce(Entry<'_, K, V>) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        check_hash(&self.hasher, hash, key);
        self.pin().find_hashed(hash, key).map(f)
    }

    /// Returns a handle to the entry of `key`, as [`lookup`](Self::lookup) does, given the [hash](Self::hash_of) of
    /// the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Self::hash_of).
    ///
    /// # Progress
    ///
    /// As [`pin`](Self::pin).
    #[inline]
    pub fn lookup_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.with_hashed(hash, key, |entry| entry.into_handle())
    }

    /// Inserts an entry, or replaces the one that has the key, as [`insert`](Self::insert) does, given the
    /// [hash](Self::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Self::hash_of).
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_hashed(&self, hash: u64, key: K, value: V) -> Option<Handle<K, V>> {
        check_hash(&self.hasher, hash, &key);
        let unpublished = self.core.prepare(hash, key, value);
        let Ok(published) = self.core.replace(unpublished, Wanted::OLD, IfFull::go_on());
        published.old.into_handle()
    }

    /// Inserts an entry, unless the key is already in the registry, as [`try_insert`](Self::try_insert) does, given
    /// the [hash](Self::hash_of) of the key.
    ///
    /// # Errors
    ///
    /// As [`try_insert`](Self::try_insert).
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Self::hash_of).
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    pub fn try_insert_hashed(&self, hash: u64, key: K, value: V) -> Result<Handle<K, V>, Occupied<K, V>> {
        check_hash(&self.hasher, hash, &key);
        self.insert_new_and_get(hash, key, value)
    }

    /// Removes the entry of `key`, as [`remove`](Self::remove) does, given the [hash](Self::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Self::hash_of).
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::from([("a", 1)]);
    /// let hash = registry.hash_of("a");
    /// assert_eq!(registry.remove_hashed(hash, "a").map(|entry| *entry), Some(1));
    /// assert!(registry.lookup_hashed(hash, "a").is_none());
    /// ```
    pub fn remove_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        check_hash(&self.hasher, hash, key);
        let Ok(left) = self.core.remove(hash, |found| key.equivalent(found), true, IfFull::go_on());
        left.into_handle()
    }
}

impl<K, V, S> View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the hash of a key, as [`Registry::hash_of`] does.
    #[inline]
    pub fn hash_of<Q>(&self, key: &Q) -> u64
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        hash_of(self.hasher, key)
    }

    /// Returns the entry of `key`, as [`get`](Self::get) does, given the [hash](Registry::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Registry::hash_of).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::from([("a", 1)]);
    /// let guard = registry.pin();
    /// let hash = guard.hash_of("a");
    /// assert_eq!(guard.get_hashed(hash, "a").map(|entry| *entry), Some(1));
    /// ```
    #[inline(always)]
    pub fn get_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        check_hash(self.hasher, hash, key);
        self.find_hashed(hash, key)
    }

    /// Returns a handle to the entry of `key`, as [`lookup`](Self::lookup) does, given the
    /// [hash](Registry::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Registry::hash_of).
    #[inline(always)]
    pub fn lookup_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.get_hashed(hash, key).map(Entry::into_handle)
    }
}

impl<K, V, S> Reader<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry of `key`, as [`get`](Self::get) does, given the [hash](Registry::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Registry::hash_of).
    ///
    /// # Progress
    ///
    /// As [`get`](Self::get).
    #[inline(always)]
    pub fn get_hashed<Q>(&mut self, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().get_hashed(hash, key)
    }

    /// Returns a handle to the entry of `key`, as [`lookup`](Self::lookup) does, given the
    /// [hash](Registry::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Registry::hash_of).
    ///
    /// # Progress
    ///
    /// As [`lookup`](Self::lookup).
    #[inline(always)]
    pub fn lookup_hashed<Q>(&mut self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().lookup_hashed(hash, key)
    }
}
