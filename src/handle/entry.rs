//! An entry that is borrowed within a critical section.

#![allow(unsafe_code)]

use crate::handle::Handle;
use crate::node::{Header, Node};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// An entry of a registry, borrowed within a critical section. Dereferences to the value.
///
/// The key and the value stay valid for the whole borrow, even if another thread removes or replaces the entry.
pub struct Entry<'g, K, V> {
    /// Found in a table, within a critical section that outlasts `'g` (B2). Not a reference, because a handle
    /// made from it may be the one whose drop leads to the destruction of the node.
    node: NonNull<Node<K, V>>,
    _section: PhantomData<&'g Node<K, V>>,
}

// SAFETY: an entry gives shared access to key and value, which are `Sync`.
unsafe impl<K: Sync, V: Sync> Send for Entry<'_, K, V> {}
// SAFETY: an entry gives shared access to key and value, which are `Sync`.
unsafe impl<K: Sync, V: Sync> Sync for Entry<'_, K, V> {}

impl<'g, K, V> Entry<'g, K, V> {
    /// Wraps a node that the caller has found.
    ///
    /// # Safety
    ///
    /// `node` was found in a table, within a critical section that outlasts `'g`.
    pub(crate) unsafe fn new(node: NonNull<Node<K, V>>) -> Self {
        Entry { node, _section: PhantomData }
    }

    fn node(self) -> &'g Node<K, V> {
        // SAFETY: B2 (the caller of `new` found the node within a critical section that outlasts `'g`).
        unsafe { self.node.as_ref() }
    }

    /// Returns the key.
    pub fn key(self) -> &'g K {
        self.node().key()
    }

    /// Returns the value.
    pub fn value(self) -> &'g V {
        self.node().value()
    }

    /// Returns whether the entry has left the registry, for any reason. Once this is true, it stays true.
    pub fn is_unlinked(self) -> bool {
        self.node().header.refs.is_unlinked()
    }

    /// Returns a handle to the entry, which may outlive the critical section. `None` if the entry has left the
    /// registry.
    #[inline]
    pub fn handle(self) -> Option<Handle<K, V>> {
        // SAFETY: `get_unless_unlinked` has taken a reference, which the handle now owns.
        self.node().header.refs.get_unless_unlinked().then(|| unsafe { Handle::from_reference(self.node) })
    }

    /// Returns a handle to the entry, even if the entry has left the registry.
    #[inline]
    pub(crate) fn into_handle(self) -> Handle<K, V> {
        self.node().header.refs.get();
        // SAFETY: `get` has taken a reference, which the handle now owns. The count was not zero: the table's
        // reference is put a grace period after the unlink (R1), and this critical section is still open.
        unsafe { Handle::from_reference(self.node) }
    }

    pub(crate) fn node_pointer(self) -> NonNull<Node<K, V>> {
        self.node
    }

    pub(crate) fn header(&self) -> &'g Header {
        &self.node().header
    }
}

impl<K, V> Clone for Entry<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Entry<'_, K, V> {}

impl<K, V> Deref for Entry<'_, K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        self.node().value()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Entry<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(self.key()).field(self.value()).finish()
    }
}
