//! Writes of one entry, and the code that they share with their [fallible](crate::registry::fallible) forms.

use crate::domain::{Failure, IfFull};
use crate::handle::{Entry, Handle};
use crate::reap::Cause;
use crate::registry::Registry;
use crate::registry::error::Occupied;
use crate::registry::view::hash_of;
use crate::shard::write::{Departed, Published, Rejected, Wanted};
use crate::util::check;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Inserts an entry, or replaces the one that has the key. Returns the replaced entry, or `None` if the key
    /// was absent.
    ///
    /// Readers see the old entry or the new one, and never neither. An expired entry is replaced too, but counts
    /// as absent.
    ///
    /// [`set`](Self::set) does the same without a handle. [`insert_and_get`](Self::insert_and_get) returns the
    /// new entry. [`try_insert`](Self::try_insert) replaces nothing.
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard. Waits while another caller has [reserved](Self::reserve_key) the key, as it does while
    /// it makes the key's value. After the lock, as after every write, the caller may do a bounded share of
    /// the domain's reclamation. If the domain's backlog is full and its [policy](crate::WhenFull) is to wait,
    /// the caller may wait for that long.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// assert!(registry.insert("a", 1).is_none());
    /// let old = registry.insert("a", 2).unwrap();
    /// assert_eq!((*old, *registry.lookup("a").unwrap()), (1, 2));
    /// ```
    pub fn insert(&self, key: K, value: V) -> Option<Handle<K, V>> {
        let Ok(published) = self.replace_or(key, value, Wanted::OLD, IfFull::go_on());
        published.old.into_handle()
    }

    /// Inserts an entry, or replaces the one that has the key. Returns the new entry.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// let a = registry.insert_and_get("a", 1);
    /// registry.delete("a");
    /// assert_eq!(*a, 1);
    /// ```
    pub fn insert_and_get(&self, key: K, value: V) -> Handle<K, V> {
        let Ok(published) = self.replace_or(key, value, Wanted::NEW, IfFull::go_on());
        published.new.expect("the handle that was wanted")
    }

    /// Inserts an entry, unless the key is already in the registry. Returns the new entry.
    ///
    /// An expired entry does not keep its key: it is replaced.
    ///
    /// # Errors
    ///
    /// Returns [`Occupied`] if the key is already in the registry, with the rejected key and value, and the entry
    /// that has the key.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// let first = registry.try_insert("a", 1).unwrap();
    /// let occupied = registry.try_insert("a", 2).unwrap_err();
    /// assert!(occupied.value == 2 && occupied.entry.ptr_eq(&first));
    /// ```
    pub fn try_insert(&self, key: K, value: V) -> Result<Handle<K, V>, Occupied<K, V>> {
        self.insert_new_and_get(hash_of(&self.hasher, &key), key, value)
    }

    /// Inserts an entry, or replaces the one that has the key. Returns whether it replaced one.
    ///
    /// This is [`insert`](Self::insert) without a handle to the replaced entry, which saves one locked
    /// instruction.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// assert!(!registry.set("a", 1));
    /// assert!(registry.set("a", 2));
    /// assert_eq!(*registry.lookup("a").unwrap(), 2);
    /// ```
    pub fn set(&self, key: K, value: V) -> bool {
        let Ok(published) = self.replace_or(key, value, Wanted::NONE, IfFull::go_on());
        published.old.is_some()
    }

    /// Inserts an entry, unless the key is already in the registry.
    ///
    /// This is [`try_insert`](Self::try_insert) without a handle to the new entry, which saves one locked
    /// instruction.
    ///
    /// # Errors
    ///
    /// As [`try_insert`](Self::try_insert).
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// assert!(registry.add("a", 1).is_ok());
    /// assert_eq!(registry.add("a", 2).unwrap_err().value, 2);
    /// ```
    pub fn add(&self, key: K, value: V) -> Result<(), Occupied<K, V>> {
        self.insert_new(hash_of(&self.hasher, &key), key, value, Wanted::NONE)?;
        Ok(())
    }

    /// Replaces exactly this entry by one with another value, if it is still in the registry. Returns the new
    /// entry.
    ///
    /// # Errors
    ///
    /// Returns the value if the entry has left the registry, or belongs to another registry.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// let first = registry.insert_and_get("a", 1);
    /// let second = registry.replace_handle(&first, 2).unwrap();
    /// assert_eq!(registry.replace_handle(&first, 3).unwrap_err(), 3);
    /// assert_eq!(*second, 2);
    /// ```
    pub fn replace_handle(&self, entry: &Handle<K, V>, value: V) -> Result<Handle<K, V>, V>
    where
        K: Clone,
    {
        let unpublished = self.core.prepare(entry.hash().into(), entry.key().clone(), value);
        match self.core.replace_exact(entry, unpublished, &mut IfFull::go_on()) {
            Ok(published) => Ok(published.new.expect("the handle that was wanted")),
            Err(rejected) => Err(rejected.into_unpublished().value),
        }
    }

    /// Removes the entry of `key`. Returns it, or `None` if the key is not in the registry.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    pub fn remove<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let Ok(left) = self.remove_or(key, true, IfFull::go_on());
        left.into_handle()
    }

    /// Removes the entry of `key`. Returns whether the key was in the registry.
    ///
    /// This is [`remove`](Self::remove) without a handle to the entry, which saves one locked instruction.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// registry.set("a", 1);
    /// assert!(registry.delete("a"));
    /// assert!(!registry.delete("a"));
    /// ```
    pub fn delete<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let Ok(left) = self.remove_or(key, false, IfFull::go_on());
        left.is_some()
    }

    /// Removes the entry of `key` if `condition` holds for it. Returns the removed entry, or `None` if none was
    /// removed.
    ///
    /// `condition` runs outside every lock and critical section. It runs again if the entry was replaced while it
    /// ran, so that the removed entry is one for which it held.
    ///
    /// # Progress
    ///
    /// Lock-free, apart from the lock of one shard: a call retries only if another write of the same key has succeeded.
    /// Otherwise as [`insert`](Self::insert).
    pub fn remove_if<Q>(&self, key: &Q, mut condition: impl FnMut(&K, &V) -> bool) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let Ok(removed) = self.remove_if_or(key, &mut condition, IfFull::go_on());
        removed
    }

    /// Removes exactly this entry. Returns whether it was in the registry: false if it has already left, or
    /// belongs to another registry.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    pub fn remove_handle(&self, entry: &Handle<K, V>) -> bool {
        let Ok(removed) = self.core.remove_exact(entry, Cause::Removed, &mut IfFull::go_on());
        removed
    }

    /// Removes all entries, one shard at a time. Each shard is emptied at one instant.
    ///
    /// If the domain's backlog has a limit, and no room for all entries of a shard, entries are removed one by
    /// one, as by [`retain`](Self::retain).
    ///
    /// # Progress
    ///
    /// Takes the lock of every shard, one after another, for a short time each.
    pub fn clear(&self) {
        let emptied = self.core.shards().filter(|&shard| self.core.clear(shard)).count();
        if emptied < self.core.shards().len() {
            self.retain(|_, _| false);
        }
    }

    #[inline(always)]
    /// Inserts an entry, given the hash of its key, unless the key is in the registry. Returns a handle if that is wanted.
    fn insert_new(&self, hash: u64, key: K, value: V, wanted: Wanted) -> Result<Option<Handle<K, V>>, Occupied<K, V>> {
        let unpublished = self.core.prepare(hash, key, value);
        Ok(self.core.insert(unpublished, wanted)?)
    }

    /// As [`insert_new`](Self::insert_new), and returns the new entry.
    pub(super) fn insert_new_and_get(&self, hash: u64, key: K, value: V) -> Result<Handle<K, V>, Occupied<K, V>> {
        Ok(self.insert_new(hash, key, value, Wanted::NEW)?.expect("the handle that was wanted"))
    }

    /// Returns a handle to the entry of `key`, given its hash.
    pub(super) fn find_handle<Q>(&self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.pin().find_hashed(hash, key).map(Entry::into_handle)
    }

    /// Inserts or replaces an entry. Returns key and value if that fails.
    #[inline(always)]
    pub(super) fn replace_or<E: Failure>(
        &self,
        key: K,
        value: V,
        wanted: Wanted,
        if_full: IfFull<E>,
    ) -> Result<Published<K, V>, (K, V, E)> {
        let hash = hash_of(&self.hasher, &key);
        let unpublished = self.core.prepare(hash, key, value);
        self.core
            .replace(unpublished, wanted, if_full)
            .map_err(|(unpublished, full)| (unpublished.key, unpublished.value, full))
    }

    #[inline(always)]
    pub(super) fn remove_or<Q, E: Failure>(
        &self,
        key: &Q,
        wants_handle: bool,
        if_full: IfFull<E>,
    ) -> Result<Departed<K, V>, E>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = hash_of(&self.hasher, key);
        self.core.remove(hash, |found| key.equivalent(found), wants_handle, if_full)
    }

    pub(super) fn remove_if_or<Q, E: Failure>(
        &self,
        key: &Q,
        condition: &mut dyn FnMut(&K, &V) -> bool,
        mut if_full: IfFull<E>,
    ) -> Result<Option<Handle<K, V>>, E>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        loop {
            let Some(entry) = self.lookup_same(key) else { return Ok(None) };
            check::user_code();
            if !condition(entry.key(), entry.value()) {
                return Ok(None);
            }
            if self.core.remove_exact_by_key(&entry, |reserved| key.equivalent(reserved), &mut if_full)? {
                return Ok(Some(entry));
            }
        }
    }

    /// Returns a handle to the entry of `key`, for a write of that entry. As writes by key do, it compares the
    /// hash as well: a key may claim to equal one with another hash.
    pub(super) fn lookup_same<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = hash_of(&self.hasher, key);
        let found = self.pin().find_hashed(hash, key).map(Entry::into_handle)?;
        (found.hash() == hash as u32).then_some(found)
    }
}

impl<K, V> From<Rejected<K, V>> for Occupied<K, V> {
    fn from(rejected: Rejected<K, V>) -> Self {
        let Rejected { unpublished, holder } = rejected;
        Occupied { key: unpublished.key, value: unpublished.value, entry: holder }
    }
}
