//! The owned, counted reference that a caller keeps.

#![allow(unsafe_code)]

pub(crate) mod entry;
pub(crate) mod listener;
pub(crate) mod local;

pub use entry::Entry;

use crate::domain::put_last;
use crate::node::Node;
use crate::util::clock::Stamp;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// A counted reference to an entry: its key and its value stay valid and in place for as long as the handle lives,
/// whatever becomes of the entry in the registry, and of the registry.
///
/// One word wide, and so is `Option<Handle>`. Dereferences to the value.
///
/// To take a handle, to clone it and to drop it, is to write the entry's count. Where many threads do that with the same entry,
/// see [`LocalHandles`](crate::LocalHandles).
///
/// When an entry has left the registry and its last handle is dropped, it is handed over for destruction, not destroyed
/// there and then: the thread that drops a handle does not run the value's `Drop`. (If the registry is gone as well, and
/// its domain has no other work to hang that on, it does.)
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
    /// Holds one reference.
    node: NonNull<Node<K, V>>,
    /// The last handle's drop leads to that of key and value.
    _owns: PhantomData<Node<K, V>>,
}

// SAFETY: a handle gives `&K` and `&V` to the thread it is sent to, while others may have them (`Sync`), and its drop
// may be the one that leads to the drop of key and value, wherever that runs (`Send`).
unsafe impl<K: Send + Sync, V: Send + Sync> Send for Handle<K, V> {}
// SAFETY: as for `Send`: a shared handle can be cloned, and the clone dropped elsewhere.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for Handle<K, V> {}

/// A handle may move: key and value stay where they are.
impl<K, V> Unpin for Handle<K, V> {}

impl<K, V> Handle<K, V> {
    /// # Safety
    ///
    /// The caller gives the handle one reference of its own.
    pub(crate) unsafe fn from_reference(node: NonNull<Node<K, V>>) -> Self {
        Handle { node, _owns: PhantomData }
    }

    pub(crate) fn node(&self) -> NonNull<Node<K, V>> {
        self.node
    }

    /// The half of the key's hash that the node keeps.
    pub(crate) fn hash(&self) -> u32 {
        self.get().header.hash()
    }

    /// When the entry was inserted.
    pub(crate) fn stamp(&self) -> Stamp {
        self.get().header.stamp()
    }

    /// The bytes that the entry counts for.
    pub(crate) fn weight(&self) -> u64 {
        self.get().header.weight.bytes()
    }

    pub(crate) fn get(&self) -> &Node<K, V> {
        // SAFETY: R1, the handle holds a reference.
        unsafe { self.node.as_ref() }
    }

    /// The key.
    pub fn key(&self) -> &K {
        self.get().key()
    }

    /// The value.
    pub fn value(&self) -> &V {
        self.get().value()
    }

    /// Whether the entry has left the registry, in whatever way, or with it. Once true, it stays true.
    ///
    /// (Where the value is a handle too, this is of the outer one: `handle.value().is_unlinked()` asks the other.)
    pub fn is_unlinked(&self) -> bool {
        self.get().header.refs.is_unlinked()
    }

    /// Whether both handles are of the same entry (not merely of equal ones).
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
            // SAFETY: R2.
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
