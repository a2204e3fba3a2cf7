//! A set of keys: a registry without values.

use crate::handle::Handle;
use crate::registry::Registry;
use crate::util::hasher::RandomState;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// A concurrent set of shared, reference-counted keys, with lock-free reads: a [`Registry`] without values.
///
/// It has the methods that a set is used for most. All else is in the [registry](Self::registry) behind it: sessions,
/// guards, iteration, batches, reapers and statistics. A set with settings is made of a registry that was
/// [built](Registry::builder).
///
/// A handle keeps its key, so a set of strings is also an interner:
///
/// ```
/// use epoch_registry::RegistrySet;
///
/// let names: RegistrySet<String> = RegistrySet::new();
/// let one = names.get_or_insert_by_ref("ada");
/// let two = names.get_or_insert_by_ref("ada");
/// assert!(one.ptr_eq(&two) && one.key() == "ada");
/// ```
///
/// # Examples
///
/// ```
/// use epoch_registry::{Registry, RegistrySet};
///
/// let seen = RegistrySet::from(Registry::builder().max_entries(1000).build());
/// assert!(seen.insert(7) && !seen.insert(7));
/// assert!(seen.contains(&7) && !seen.contains(&8));
/// assert_eq!(seen.registry().pin().keys().count(), 1);
/// assert!(seen.remove(&7) && seen.is_empty());
/// ```
pub struct RegistrySet<K: Send + Sync + 'static, S = RandomState> {
    registry: Registry<K, (), S>,
}

impl<K> RegistrySet<K>
where
    K: Hash + Eq + Send + Sync + 'static,
{
    /// Returns an empty set in the [global](crate::Domain::global) domain, with the default settings.
    pub fn new() -> Self {
        RegistrySet { registry: Registry::new() }
    }
}

impl<K, S> RegistrySet<K, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the registry behind the set.
    pub fn registry(&self) -> &Registry<K, (), S> {
        &self.registry
    }

    /// Returns the registry, and gives up the set.
    pub fn into_registry(self) -> Registry<K, (), S> {
        self.registry
    }

    /// Adds a key. Returns whether it was absent. A key that is present stays, and the new one is dropped.
    ///
    /// # Progress
    ///
    /// As [`Registry::insert`].
    pub fn insert(&self, key: K) -> bool {
        self.registry.add(key, ()).is_ok()
    }

    /// Returns whether `key` is in the set.
    ///
    /// # Progress
    ///
    /// As [`Registry::contains_key`].
    #[inline]
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.contains_key(key)
    }

    /// Returns a handle to the key of the set that is equivalent to `key`.
    ///
    /// # Progress
    ///
    /// As [`Registry::lookup`].
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<Handle<K, ()>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.lookup(key)
    }

    /// Returns a handle to the key of the set that equals `key`. If there is none, adds `key`.
    ///
    /// # Progress
    ///
    /// As [`Registry::get_or_insert_with`].
    pub fn get_or_insert(&self, key: K) -> Handle<K, ()> {
        self.registry.get_or_insert_with(key, || ())
    }

    /// Returns a handle to the key of the set that is equivalent to `key`. If there is none, makes one and adds it.
    ///
    /// # Panics
    ///
    /// As [`Registry::get_or_insert_by_ref`].
    ///
    /// # Progress
    ///
    /// As [`Registry::get_or_insert_with`].
    pub fn get_or_insert_by_ref<'q, Q>(&self, key: &'q Q) -> Handle<K, ()>
    where
        K: From<&'q Q>,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.get_or_insert_by_ref(key, || ())
    }

    /// Removes a key. Returns whether it was in the set.
    ///
    /// # Progress
    ///
    /// As [`Registry::delete`].
    pub fn remove<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.delete(key)
    }

    /// Removes a key. Returns a handle to it, or `None` if it was not in the set.
    ///
    /// # Progress
    ///
    /// As [`Registry::remove`].
    pub fn take<Q>(&self, key: &Q) -> Option<Handle<K, ()>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.remove(key)
    }

    /// Removes all keys for which `keep` returns false, as [`Registry::retain`] does.
    ///
    /// # Progress
    ///
    /// As [`Registry::retain`].
    pub fn retain(&self, mut keep: impl FnMut(&K) -> bool) {
        self.registry.retain(|key, ()| keep(key));
    }

    /// Removes all keys, as [`Registry::clear`] does.
    ///
    /// # Progress
    ///
    /// As [`Registry::clear`].
    pub fn clear(&self) {
        self.registry.clear();
    }

    /// Returns the number of keys, as [`Registry::len`] does.
    pub fn len(&self) -> usize {
        self.registry.len()
    }

    /// Returns whether the set has no keys, as [`Registry::is_empty`] does.
    pub fn is_empty(&self) -> bool {
        self.registry.is_empty()
    }
}

/// Returns the keys of a registry as a set.
impl<K: Send + Sync, S> From<Registry<K, (), S>> for RegistrySet<K, S> {
    fn from(registry: Registry<K, (), S>) -> Self {
        RegistrySet { registry }
    }
}

impl<K, S> Default for RegistrySet<K, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    S: BuildHasher + Default,
{
    fn default() -> Self {
        RegistrySet { registry: Registry::default() }
    }
}

/// Adds keys as [`RegistrySet::insert`] does: a key that is present stays.
impl<K, S> Extend<K> for &RegistrySet<K, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    S: BuildHasher,
{
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        for key in keys {
            self.insert(key);
        }
    }
}

/// Adds keys as [`RegistrySet::insert`] does: a key that is present stays.
impl<K, S> Extend<K> for RegistrySet<K, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    S: BuildHasher,
{
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        (&*self).extend(keys);
    }
}

/// Makes a set with the default settings.
impl<K, S> FromIterator<K> for RegistrySet<K, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    S: BuildHasher + Default,
{
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let set = RegistrySet::default();
        (&set).extend(keys);
        set
    }
}

/// Makes a set with the default settings.
impl<K, const N: usize> From<[K; N]> for RegistrySet<K>
where
    K: Hash + Eq + Send + Sync + 'static,
{
    fn from(keys: [K; N]) -> Self {
        keys.into_iter().collect()
    }
}

impl<K: Send + Sync, S> fmt::Debug for RegistrySet<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySet").field("registry", &self.registry).finish()
    }
}
