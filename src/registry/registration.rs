//! Entries that leave their registry with the object that registered them.

use crate::domain::IfFull;
use crate::handle::Handle;
use crate::reap::Cause;
use crate::registry::Registry;
use crate::registry::error::Occupied;
use crate::util::hasher::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::ops::Deref;
use std::sync::{Arc, Weak};

/// An entry that leaves its registry when this value is dropped. From [`Registry::register`], or from a handle by
/// [`Registration::of`]. Dereferences to the [`Handle`] of the entry.
///
/// The drop removes exactly this entry: not the one that has replaced it, and not one that has its key by then. If the
/// entry has left before, the drop does nothing.
///
/// A registration does not keep the registry alive. It keeps key and value, as a handle does. So do not store a
/// registration in the value of its own entry: the two would keep each other. (A service that must find or remove its
/// own entry can store its key and a [`Weak`] of the registry.)
///
/// # Panics
///
/// The drop removes an entry, as [`Registry::remove_handle`] does. It panics within the `Eq` of a key, which may run
/// under a shard lock, and if the registry's clock panics.
///
/// # Progress
///
/// The drop may block, as [`Registry::remove_handle`] does. If it drops the last `Arc` of the registry, because the
/// others were dropped while it ran, it drops the registry.
///
/// # Examples
///
/// ```
/// use epoch_registry::Registry;
/// use std::sync::Arc;
///
/// let services = Arc::new(Registry::new());
/// let echo = services.register("echo", 7).unwrap();
/// assert_eq!((*echo.key(), **echo), ("echo", 7));
/// assert!(services.register("echo", 8).is_err());
///
/// let first = services.register("time", 13).unwrap();
/// let second = services.insert("time", 37); // replaces the first
/// drop(first);
/// assert!(services.contains_key("time")); // the second stays
///
/// drop(echo);
/// assert!(!services.contains_key("echo"));
/// # drop(second);
/// ```
#[must_use = "the entry leaves the registry when the registration is dropped"]
pub struct Registration<K: Send + Sync + 'static, V: Send + Sync + 'static, S = RandomState> {
    /// Of no registry once the entry has been removed, or is to stay.
    registry: Weak<Registry<K, V, S>>,
    entry: Handle<K, V>,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Inserts an entry for as long as the returned [`Registration`] exists, unless the key is already in the registry.
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
    /// use epoch_registry::Registry;
    /// use std::sync::Arc;
    ///
    /// let ids = Arc::new(Registry::new());
    /// let mine = ids.register(7, "mine").unwrap();
    /// assert_eq!(ids.register(7, "yours").unwrap_err().entry.value(), &"mine");
    /// drop(mine);
    /// assert!(ids.is_empty());
    /// ```
    pub fn register(self: &Arc<Self>, key: K, value: V) -> Result<Registration<K, V, S>, Occupied<K, V>> {
        Ok(Registration::of(self, self.try_insert(key, value)?))
    }
}

impl<K, V, S> Registration<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns a registration of an entry that exists. If the entry is not one of `registry`, the registration removes
    /// nothing.
    ///
    /// # Progress
    ///
    /// Wait-free.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Registration, Registry};
    /// use std::sync::Arc;
    ///
    /// let registry = Arc::new(Registry::new());
    /// let registration = Registration::of(&registry, registry.get_or_insert_with("a", || 1));
    /// drop(registration);
    /// assert!(registry.is_empty());
    /// ```
    pub fn of(registry: &Arc<Registry<K, V, S>>, entry: Handle<K, V>) -> Self {
        Registration { registry: Arc::downgrade(registry), entry }
    }

    /// Returns the entry.
    pub fn handle(&self) -> &Handle<K, V> {
        &self.entry
    }

    /// Ends the registration and leaves the entry in the registry. Returns the entry.
    ///
    /// # Progress
    ///
    /// Wait-free.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = std::sync::Arc::new(epoch_registry::Registry::new());
    /// let entry = registry.register("a", 1).unwrap().keep();
    /// assert!(!entry.is_unlinked() && registry.contains_key("a"));
    /// ```
    pub fn keep(mut self) -> Handle<K, V> {
        self.registry = Weak::new();
        self.entry.clone()
    }

    /// Ends the registration and removes the entry. Returns whether the entry was in the registry.
    ///
    /// # Panics
    ///
    /// As the drop.
    ///
    /// # Progress
    ///
    /// As the drop.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = std::sync::Arc::new(epoch_registry::Registry::new());
    /// let (a, b) = (registry.register("a", 1).unwrap(), registry.register("b", 2).unwrap());
    /// registry.delete("b");
    /// assert_eq!((a.remove(), b.remove()), (true, false));
    /// ```
    pub fn remove(mut self) -> bool {
        self.leave()
    }

    /// Removes the entry, unless the registration has ended before.
    fn leave(&mut self) -> bool {
        let Some(registry) = mem::take(&mut self.registry).upgrade() else { return false };
        let Ok(removed) = registry.core.remove_exact(&self.entry, Cause::Removed, &mut IfFull::go_on());
        removed
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static, S> Drop for Registration<K, V, S> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<K: Send + Sync, V: Send + Sync, S> Deref for Registration<K, V, S> {
    type Target = Handle<K, V>;

    fn deref(&self) -> &Handle<K, V> {
        &self.entry
    }
}

impl<K: Send + Sync, V: fmt::Debug + Send + Sync, S> fmt::Debug for Registration<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.entry).finish()
    }
}
