//! Weak handles: references that keep neither the entry nor the registry alive.

#![allow(unsafe_code)]

use crate::handle::{Entry, Handle};
use crate::registry::Registry;
use crate::registry::core::CoreReference;
use crate::shard::weak::WeakLink;
use std::fmt;
use std::sync::{Arc, Weak};

/// A reference to an entry that keeps neither the entry nor its registry alive. From [`Registry::downgrade`].
///
/// [`upgrade`](Self::upgrade) returns a handle for as long as exactly this entry is in the registry: not the one that has
/// replaced it, and not one that has its key by then. So an object can hold a reference to its own entry, or to others
/// that may leave.
///
/// The first weak handle to an entry takes about 100 bytes, until the entry leaves. The others share them. In a shard with
/// such entries, each write takes some nanoseconds more. Other shards pay nothing.
///
/// # Examples
///
/// ```
/// use epoch_registry::{Registry, WeakHandle};
/// use std::sync::OnceLock;
///
/// struct Actor {
///     me: OnceLock<WeakHandle<u64, Actor>>,
/// }
///
/// let actors: Registry<u64, Actor> = Registry::new();
/// let actor = actors.insert_and_get(7, Actor { me: OnceLock::new() });
/// let _ = actor.me.set(actors.downgrade(&actor));
///
/// assert!(actor.me.get().unwrap().upgrade().unwrap().ptr_eq(&actor));
/// actors.remove(&7);
/// assert!(actor.me.get().unwrap().upgrade().is_none());
/// ```
pub struct WeakHandle<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    /// Keeps the core from being closed during an upgrade.
    registry: Weak<CoreReference<K, V>>,
    link: Arc<WeakLink>,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns a weak handle to an entry. If the entry has left the registry, or is of another registry, the weak handle
    /// refers to nothing.
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// let first = registry.insert_and_get("a", 1);
    /// let weak = registry.downgrade(&first);
    /// assert_eq!(weak.upgrade().as_deref(), Some(&1));
    /// registry.set("a", 2);
    /// assert!(weak.upgrade().is_none()); // the first entry has left
    /// ```
    pub fn downgrade(&self, entry: &Handle<K, V>) -> WeakHandle<K, V> {
        WeakHandle { registry: self.core.downgrade(), link: self.core.link(entry) }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> WeakHandle<K, V> {
    /// Returns a weak handle that refers to nothing.
    pub fn new() -> Self {
        WeakHandle { registry: Weak::new(), link: Arc::new(WeakLink::cut_off()) }
    }

    /// Returns a handle to the entry, or `None` if it has left the registry or has expired, or if the registry has been
    /// dropped. At the moment at which the entry leaves, it may give a handle for some instructions longer.
    ///
    /// This is no [use](crate::Builder#uses) of the entry.
    ///
    /// # Progress
    ///
    /// Lock-free. It counts itself as a holder of the registry, so upgrades by many threads write one cache line of the
    /// registry. If the registry is dropped meanwhile, the end of the registry runs on this thread.
    pub fn upgrade(&self) -> Option<Handle<K, V>> {
        let registry = self.registry.upgrade()?;
        let core = registry.core();
        let _section = core.header.domain.inner().pin();
        let node = self.link.node()?;
        // SAFETY: Y1 and B2 (the link was not cut when this critical section followed it, and the section is open).
        let is_there = unsafe { core.is_there(node, core.time_to_read()) };
        // SAFETY: the node was found by its link, within the critical section that is still open.
        is_there.then(|| unsafe { Entry::new(node) })?.handle()
    }

    /// Returns whether both refer to the same entry, which may have left since, or one is a clone of the other. Two that were
    /// made of an entry after it had left are different.
    ///
    /// # Progress
    ///
    /// Wait-free.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// let (one, two) = (registry.insert_and_get("a", 1), registry.insert_and_get("b", 1));
    /// let weak = registry.downgrade(&one);
    /// assert!(weak.ptr_eq(&registry.downgrade(&one)));
    /// assert!(!weak.ptr_eq(&registry.downgrade(&two)));
    /// ```
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Clone for WeakHandle<K, V> {
    fn clone(&self) -> Self {
        WeakHandle { registry: Weak::clone(&self.registry), link: Arc::clone(&self.link) }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Default for WeakHandle<K, V> {
    fn default() -> Self {
        WeakHandle::new()
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> fmt::Debug for WeakHandle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(WeakHandle)")
    }
}
