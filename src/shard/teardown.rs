//! The end of a registry: what becomes of the nodes that it still holds.

#![allow(unsafe_code)]

use crate::domain::{Bag, Bags};
use crate::node::{Header, Node};
use crate::shard::Shard;
use crate::shard::slab::Sweep;
use crate::sync::BAG;
use std::ptr::NonNull;

impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Hands over what was retired, and begins to go through the nodes, of a shard that nobody reads or writes any more.
    ///
    /// (Not by `lock`: a registry may be dropped in an `Eq`, under the lock of another.)
    pub(crate) fn begin_teardown(&self) -> Teardown {
        let mut state = self.state.lock();
        state.close_bag(self.domain().inner());
        let by_slab = state.slabs.can_sweep() && state.early_slabs.is_none();
        if by_slab {
            return Teardown::BySlab(state.slabs.begin_sweep());
        }
        Teardown::ByTable(state.table.nodes().into_iter().map(NonNull::cast).collect())
    }

    /// Destroys all nodes in the table whose destruction runs no code of the user's. Returns how many.
    ///
    /// # Safety
    ///
    /// The registry is being dropped. A visit keeps it.
    pub(crate) unsafe fn destroy_all(&self) -> u64 {
        debug_assert!(!Node::<K, V>::NEEDS_DROP);
        self.state.lock().slabs.sweep_all(|refs| refs.put_of_dropped_registry())
    }

    /// Unlinks some of the nodes that are still in the table, and returns them; none when there are no more.
    ///
    /// # Safety
    ///
    /// The registry is being dropped.
    pub(crate) unsafe fn unlink_some(&self, teardown: &mut Teardown) -> Bags {
        let (mut bags, mut open) = (Bags::default(), None::<Box<Bag>>);
        let header = NonNull::from(&self.header);
        let mut unlink = |node: NonNull<Header>| {
            // SAFETY: the table's reference is still in it.
            let this = unsafe { node.as_ref() };
            this.refs.set_unlinked();
            let bag = open.get_or_insert_with(|| {
                let mut bag = self.domain().inner().new_bag(header);
                bag.is_counted = false;
                bag
            });
            let is_full = bag.push(node, this.weight.bytes());
            if is_full {
                open.take().into_iter().for_each(|bag| bags.push(bag));
            }
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

    /// Frees the tables, and the slabs that are empty.
    ///
    /// # Safety
    ///
    /// The registry is being dropped, no node is in its tables, and this is called once.
    pub(crate) unsafe fn end_teardown(&self) {
        let mut state = self.state.lock();
        state.slabs.retire();
        for table in state.resize.iter().map(|resize| resize.to).chain([state.table]) {
            // SAFETY: the caller's promise: no reader, no writer.
            unsafe { table.free() };
        }
        self.domain().inner().budget.give_back_credits(std::mem::take(&mut state.credits));
        (state.timers, state.hand, state.spare) = (Box::default(), Box::default(), None);
    }
}

/// Bags that are filled at a time, at the end of a registry.
const TEARDOWN: usize = 16;

/// How far the end of a shard has come.
pub(crate) enum Teardown {
    /// Through the slabs.
    BySlab(Sweep),
    /// The nodes that are left, where they have allocations of their own.
    ByTable(Vec<NonNull<Header>>),
}

impl Teardown {
    /// Whether nodes can be gone through slab by slab.
    pub(crate) fn is_by_slab(&self) -> bool {
        matches!(self, Teardown::BySlab(_))
    }
}
