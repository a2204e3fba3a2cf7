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
/// What it shows stays valid for the whole of the borrow, also when the entry is removed or replaced meanwhile.
pub struct Entry<'g, K, V> {
    /// Found in a table, within a critical section that outlasts `'g` (B2). Not a reference: a handle made from it may
    /// be the one whose drop leads to the node's destruction.
    node: NonNull<Node<K, V>>,
    _section: PhantomData<&'g Node<K, V>>,
}

// SAFETY: an entry is a shared reference to key and value.
unsafe impl<K: Sync, V: Sync> Send for Entry<'_, K, V> {}
// SAFETY: as for `Send`.
unsafe impl<K: Sync, V: Sync> Sync for Entry<'_, K, V> {}

impl<'g, K, V> Entry<'g, K, V> {
    /// # Safety
    ///
    /// `node` was found in a table, within a critical section that outlasts `'g`.
    pub(crate) unsafe fn new(node: NonNull<Node<K, V>>) -> Self {
        Entry { node, _section: PhantomData }
    }

    fn node(self) -> &'g Node<K, V> {
        // SAFETY: B2, by the promise of `new`.
        unsafe { self.node.as_ref() }
    }

    /// The key.
    pub fn key(self) -> &'g K {
        self.node().key()
    }

    /// The value.
    pub fn value(self) -> &'g V {
        self.node().value()
    }

    /// Whether the entry has left the registry, in whatever way. Once true, it stays true.
    pub fn is_unlinked(self) -> bool {
        self.node().header.refs.is_unlinked()
    }

    /// A handle, which outlives the critical section. `None` if the entry has left the registry.
    #[inline]
    pub fn handle(self) -> Option<Handle<K, V>> {
        // SAFETY: the reference just taken is the handle's.
        self.node().header.refs.get_unless_unlinked().then(|| unsafe { Handle::from_reference(self.node) })
    }

    /// A handle on the entry, in the registry or not.
    #[inline]
    pub(crate) fn into_handle(self) -> Handle<K, V> {
        self.node().header.refs.get();
        // SAFETY: the reference just taken is the handle's. It could be taken without a question, as the table's own is
        // put a grace period after the unlink (R1), and this critical section is still open.
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
