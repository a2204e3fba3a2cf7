//! The functions behind [`Operations`](crate::domain::Operations): what the domain does with shards whose key and
//! value types it does not know.

#![allow(unsafe_code)]

use crate::domain::{Bag, Reclaimed, ShardHeader, shard_of};
use crate::node::{Header, Node};
use crate::shard::Shard;
use crate::util::prefetch;
use std::ptr::NonNull;

/// How many nodes ahead of the current one are prefetched.
const AHEAD: usize = 16;

/// Closes the open bag of a shard. Returns false if the lock is taken and `wait` is not set.
///
/// # Safety
///
/// As for [`Operations::collect`](crate::domain::Operations), with a shard of nodes of `K` and `V`.
pub(crate) unsafe fn collect<K, V>(shard: NonNull<ShardHeader>, wait: bool) -> bool
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller guarantees that this is a shard of these types, and that it is not freed during the
    // call.
    let shard = unsafe { shard.cast::<Shard<K, V>>().as_ref() };
    let state = if wait { Some(shard.lock_state()) } else { shard.state.try_lock() };
    let Some(mut state) = state else { return false };
    state.is_dirty = false;
    state.close_bag(shard.domain().inner());
    true
}

/// Takes up to `budget` nodes from a bag, puts the table's reference of each, and destroys those without a
/// handle.
///
/// # Safety
///
/// As for [`Operations::reclaim`](crate::domain::Operations), with a bag of nodes of `K` and `V`.
pub(crate) unsafe fn reclaim<K, V>(bag: &mut Bag, budget: usize) -> Reclaimed {
    let mut done = Reclaimed::default();
    for ahead in 0..AHEAD {
        bag.peek(ahead).into_iter().for_each(|node| prefetch::to_write::<0, _>(node.as_ptr()));
    }
    for _ in 0..budget {
        bag.peek(AHEAD).into_iter().for_each(|node| prefetch::to_write::<0, _>(node.as_ptr()));
        // SAFETY: R1 (the bag holds the table's reference of the node).
        let Some(node) = bag.take(|node| unsafe { node.as_ref() }.weight.bytes()) else { break };
        // SAFETY: R1 (the table's reference of the node is not put yet).
        let refs = unsafe { &raw const (*node.as_ptr()).refs };
        // SAFETY: R1 (the table's reference is not put yet). If handles are left, the node may be gone after this
        // call.
        if unsafe { &*refs }.put_tables() {
            // SAFETY: R2 (this thread owns the node), and the caller guarantees that it is a node of these types.
            done.panics += unsafe { Node::<K, V>::destroy(node) };
            // SAFETY: R2 (this thread owns the node, and so its slot).
            unsafe { &*refs }.set_free();
            bag.push_free(node);
            done.destroyed += 1;
        }
    }
    done
}

/// Gives the slots of destroyed nodes back to their shard. Returns the bag if the shard does not keep it.
///
/// # Safety
///
/// As for [`Operations::recycle`](crate::domain::Operations), with a bag of nodes of `K` and `V`.
pub(crate) unsafe fn recycle<K, V>(bag: Box<Bag>) -> Option<Box<Bag>>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller holds a visit of the registry (Q2), so the shard is not freed during the call. It has
    // these types.
    let shard = unsafe { bag.shard().cast::<Shard<K, V>>().as_ref() };
    // SAFETY: the caller guarantees that the nodes of the bag were of this shard, and that the free ones are
    // destroyed.
    unsafe { shard.lock_state().recycle(bag) }
}

/// Destroys one node, and gives its slot back to its shard. Returns how many drops panicked.
///
/// # Safety
///
/// As for [`Operations::destroy`](crate::domain::Operations), with a node of `K` and `V`.
pub(crate) unsafe fn destroy<K, V>(node: NonNull<Header>) -> u32
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller owns the node (R2), so it is not freed before this returns.
    let shard = unsafe { shard_of(node) };
    // SAFETY: the caller holds a visit of the registry (Q2), so the shard is not freed during the call. It has
    // these types.
    let shard = unsafe { shard.cast::<Shard<K, V>>().as_ref() };
    // SAFETY: the caller owns the node (R2), which is a node of these types. Its slot is freed below.
    let panics = unsafe { Node::<K, V>::destroy(node) };
    // SAFETY: the node was of this shard and is destroyed.
    unsafe { shard.lock_state().free(node) };
    panics
}
