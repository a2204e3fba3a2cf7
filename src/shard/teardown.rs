//! The end of a registry: the teardown of the nodes that its shards still hold.

#![allow(unsafe_code)]

use crate::domain::{Bag, Bags};
use crate::node::{Header, Node};
use crate::shard::Shard;
use crate::shard::evict::Evicted;
use crate::shard::slab::Sweep;
use crate::shard::write::handle_on;
use crate::sync::BAG;
use std::ptr::NonNull;

impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Hands over the retired nodes, and begins to visit the others. No thread reads or writes the shard any
    /// more.
    ///
    /// It does not take the lock by [`ShardRef::lock`](crate::shard::ShardRef::lock), which would panic if the
    /// registry is dropped in an `Eq`, under a shard lock of another registry.
    pub(crate) fn begin_teardown(&self) -> Teardown {
        let mut state = self.state.lock();
        state.close_bag(self.domain().inner());
        if state.lies_in_slabs() {
            return Teardown::BySlab(state.slabs.begin_sweep());
        }
        Teardown::ByTable(state.table.nodes().into_iter().map(NonNull::cast).collect())
    }

    /// Frees all nodes in the table that have no handle left. For nodes whose destruction runs no user code.
    /// Returns how many it frees.
    ///
    /// # Safety
    ///
    /// The registry is being dropped. The caller holds a visit of it (Q2), and has begun a teardown by slab.
    pub(crate) unsafe fn destroy_all(&self) -> u64 {
        debug_assert!(!Node::<K, V>::NEEDS_DROP);
        self.state.lock().slabs.sweep_all(|refs| refs.put_of_dropped_registry())
    }

    /// Unlinks some of the nodes that are still in the table, and returns them in bags. Returns no bag when no
    /// node is left. Adds a handle to each node to `left`, if it is given: the caller tells the listener before it
    /// destroys the bags.
    ///
    /// # Safety
    ///
    /// The registry is being dropped.
    pub(crate) unsafe fn unlink_some(&self, teardown: &mut Teardown, mut left: Option<&mut Evicted<'_, K, V>>) -> Bags {
        let (mut bags, mut open) = (Bags::default(), None::<Box<Bag>>);
        let header = NonNull::from(&self.header);
        let mut unlink = |node: NonNull<Header>| {
            // SAFETY: R1 (the table's reference is not put before the node is retired).
            let this = unsafe { node.as_ref() };
            this.refs.set_unlinked();
            if let Some(left) = &mut left {
                // SAFETY: R1 (the table's reference belongs to this thread, and is not put before the bag is destroyed).
                left.push(|| unsafe { handle_on(node.cast()) });
            }
            let uncounted = || {
                let mut bag = self.domain().inner().new_bag(header);
                bag.is_counted = false;
                bag
            };
            let full = Bag::fill(&mut open, uncounted, node, this.weight.bytes());
            let is_full = full.is_some();
            full.into_iter().for_each(|bag| bags.push(bag));
            is_full
        };
        match teardown {
            Teardown::BySlab(sweep) => {
                let state = self.state.lock();
                let mut full = 0;
                while full < TEARDOWN {
                    let Some(node) = state.slabs.next_in_table(sweep) else { break };
                    full += usize::from(unlink(node));
                }
            }
            Teardown::ByTable(nodes) => {
                let rest = nodes.len().saturating_sub(TEARDOWN * BAG);
                for node in nodes.drain(rest..) {
                    unlink(node);
                }
            }
        }
        open.into_iter().for_each(|bag| bags.push(bag));
        bags
    }

    /// Frees the tables and the empty slabs.
    ///
    /// # Safety
    ///
    /// The registry is being dropped, no node is in its tables, and this is called once.
    pub(crate) unsafe fn end_teardown(&self) {
        let mut state = self.state.lock();
        state.slabs.retire();
        for table in state.resize.iter().map(|resize| resize.to).chain([state.table]) {
            // SAFETY: the caller guarantees that no reader and no writer is left, and calls this once.
            unsafe { table.free() };
        }
        self.domain().inner().budget.give_back_credits(std::mem::take(&mut state.credits));
        (state.timers, state.hand, state.spare) = (Box::default(), Box::default(), None);
    }
}

/// The number of bags that one call of `unlink_some` fills.
const TEARDOWN: usize = 16;

/// The progress of a shard's teardown.
pub(crate) enum Teardown {
    /// The nodes are visited slab by slab.
    BySlab(Sweep),
    /// The nodes that are left, where the slabs cannot be visited: nodes with allocations of their own, or slabs
    /// of two kinds.
    ByTable(Vec<NonNull<Header>>),
}

impl Teardown {
    /// Returns whether the nodes are visited slab by slab.
    pub(crate) fn is_by_slab(&self) -> bool {
        matches!(self, Teardown::BySlab(_))
    }
}
