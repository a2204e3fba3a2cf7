//! Handles: owned, counted references to entries.

#![allow(unsafe_code)]

pub(crate) mod entry;
pub(crate) mod listener;
pub(crate) mod local;

pub use entry::Entry;

use crate::domain::put_last;
use crate::node::Node;
use crate::util::clock::Stamp;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// A counted reference to an entry. Key and value stay valid and in place for as long as the handle exists,
/// even if the entry leaves the registry, or the registry is dropped.
///
/// A handle is one word wide, and so is `Option<Handle>`. It dereferences to the value.
///
/// Taking, cloning and dropping a handle each write the entry's count. If many threads do so with the same
/// entry, see [`LocalHandles`](crate::LocalHandles).
///
/// When an entry has left the registry and its last handle is dropped, the entry is handed over to its domain
/// for destruction. The thread that drops the handle does not run the value's `Drop`. The exception is an entry
/// whose registry has been dropped: then the drop of the last handle may run the value's `Drop` on this thread.
///
/// ```
/// use epoch_registry::Registry;
///
/// let registry = Registry::new();
/// let handle = registry.insert_and_get("a".to_string(), 1);
/// registry.remove("a");
/// drop(registry);
/// assert_eq!((handle.key().as_str(), *handle), ("a", 1));
/// ```
pub struct Handle<K: 'static, V: 'static> {
    /// Owns one reference.
    node: NonNull<Node<K, V>>,
    /// The drop of the last handle leads to the drop of key and value.
    _owns: PhantomData<Node<K, V>>,
}

// SAFETY: a handle gives `&K` and `&V` to its thread, while other threads may have them too (`Sync`). The drop
// of a handle may lead to the drop of key and value on any thread (`Send`).
unsafe impl<K: Send + Sync, V: Send + Sync> Send for Handle<K, V> {}
// SAFETY: a shared handle can be cloned, and the clone can be dropped on another thread, so the reasons for
// `Send` apply.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for Handle<K, V> {}

/// A handle may move: key and value stay in place.
impl<K, V> Unpin for Handle<K, V> {}

impl<K, V> Handle<K, V> {
    /// Makes a handle from a reference that was taken before.
    ///
    /// # Safety
    ///
    /// The caller owns one reference to the node and passes it to the handle.
    pub(crate) unsafe fn from_reference(node: NonNull<Node<K, V>>) -> Self {
        Handle { node, _owns: PhantomData }
    }

    pub(crate) fn node(&self) -> NonNull<Node<K, V>> {
        self.node
    }

    /// Returns the half of the key's hash that the node keeps.
    pub(crate) fn hash(&self) -> u32 {
        self.get().header.hash()
    }

    /// Returns the time at which the entry was inserted.
    pub(crate) fn stamp(&self) -> Stamp {
        self.get().header.stamp()
    }

    /// Returns the bytes that the entry counts for.
    pub(crate) fn weight(&self) -> u64 {
        self.get().header.weight.bytes()
    }

    pub(crate) fn get(&self) -> &Node<K, V> {
        // SAFETY: R1 (the handle holds a reference).
        unsafe { self.node.as_ref() }
    }

    /// Returns the key.
    pub fn key(&self) -> &K {
        self.get().key()
    }

    /// Returns the value.
    pub fn value(&self) -> &V {
        self.get().value()
    }

    /// Returns whether the entry has left the registry, for any reason, or the registry has been dropped. Once
    /// this is true, it stays true.
    ///
    /// (If the value is itself a handle, this method is that of the outer handle. Use
    /// `handle.value().is_unlinked()` for the inner one.)
    pub fn is_unlinked(&self) -> bool {
        self.get().header.refs.is_unlinked()
    }

    /// Returns whether both handles are to the same entry, not only to equal ones.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl<K, V> Clone for Handle<K, V> {
    #[inline]
    fn clone(&self) -> Self {
        self.get().header.refs.get();
        Handle { node: self.node, _owns: PhantomData }
    }
}

impl<K, V> Drop for Handle<K, V> {
    #[inline]
    fn drop(&mut self) {
        if self.get().header.refs.put() {
            // SAFETY: R2 (this was the last reference, so this thread owns the node alone).
            unsafe { put_last(self.node.cast()) };
        }
    }
}

impl<K, V> Deref for Handle<K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        self.value()
    }
}

impl<K, V> AsRef<V> for Handle<K, V> {
    fn as_ref(&self) -> &V {
        self.value()
    }
}

impl<K, V: fmt::Debug> fmt::Debug for Handle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl<K, V: fmt::Display> fmt::Display for Handle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl<K, V: PartialEq> PartialEq for Handle<K, V> {
    /// Compares the values.
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<K, V: Eq> Eq for Handle<K, V> {}

impl<K, V: Hash> Hash for Handle<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<K, V: PartialOrd> PartialOrd for Handle<K, V> {
    /// Compares the values.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<K, V: Ord> Ord for Handle<K, V> {
    /// Compares the values.
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// A handle compares and hashes as its value does, so a set or map of handles can be searched by a value.
///
/// # Examples
///
/// ```
/// use std::collections::BTreeSet;
///
/// let registry = epoch_registry::Registry::from([(1, "one"), (2, "two")]);
/// let handles: BTreeSet<_> = registry.pin().iter().filter_map(|entry| entry.handle()).collect();
/// assert_eq!(*handles.get(&"two").unwrap().key(), 2);
/// ```
impl<K, V> Borrow<V> for Handle<K, V> {
    fn borrow(&self) -> &V {
        self.value()
    }
}
