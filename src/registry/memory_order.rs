//! A walk through the entries in the order of their memory.
//!
//! [`View::iter`](crate::View::iter) goes through the tables, whose slots point to nodes anywhere: in a large
//! registry, each entry is a cache miss. This walk goes through the slabs, which the processor reads ahead. For
//! each shard it lists the nodes under the shard lock, and then returns them without a lock.

#![allow(unsafe_code)]

use crate::handle::Entry;
use crate::node::Node;
use crate::registry::core::Core;
use crate::util::clock::Time;
use crate::util::prefetch;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// How many nodes ahead a node is prefetched. The list of a shard may be larger than the caches.
const AHEAD: usize = 24;

/// An iterator over the entries of a registry in the order of their memory. Returned by
/// [`View::iter_in_memory_order`](crate::View::iter_in_memory_order).
pub struct MemoryOrder<'g, K: 'static, V: 'static> {
    core: &'g Core<K, V>,
    /// The number of the shard to list next.
    shard: usize,
    /// The nodes of the shard that was listed last.
    nodes: Vec<NonNull<Node<K, V>>>,
    /// The index of the node to return next.
    at: usize,
    /// When that shard was listed, if entries may expire.
    now: Option<Time>,
    /// Not `Send`: the critical section belongs to this thread.
    _section: PhantomData<*const ()>,
}

impl<'g, K, V> MemoryOrder<'g, K, V> {
    /// Returns an iterator over all shards.
    ///
    /// # Safety
    ///
    /// The caller is in a critical section of the core's domain that outlasts `'g`.
    pub(crate) unsafe fn new(core: &'g Core<K, V>) -> Self {
        MemoryOrder { core, shard: 0, nodes: Vec::new(), at: 0, now: None, _section: PhantomData }
    }
}

impl<'g, K, V> Iterator for MemoryOrder<'g, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Item = Entry<'g, K, V>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let Some(&node) = self.nodes.get(self.at) {
                self.at += 1;
                if let Some(ahead) = self.nodes.get(self.at + AHEAD) {
                    prefetch::to_read(ahead.as_ptr());
                }
                // SAFETY: the node was in the table within the critical section that outlasts `'g`.
                if unsafe { self.core.is_there(node, self.now) } {
                    // SAFETY: the node was in the table within the critical section that outlasts `'g`.
                    return Some(unsafe { Entry::new(node) });
                }
            }
            let shard = self.core.shards().nth(self.shard)?;
            // First, since the user's clock may panic.
            self.now = self.core.time_to_read();
            self.shard += 1;
            self.at = 0;
            self.nodes.clear();
            shard.list_in_memory_order(&mut self.nodes);
        }
    }
}

impl<K, V> FusedIterator for MemoryOrder<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
}
