//! What the domain does with shards, whose types it does not know: the functions behind [`Operations`](crate::domain::Operations).

#![allow(unsafe_code)]

use crate::domain::{Bag, Reclaimed, ShardHeader, shard_of};
use crate::node::{Header, Node};
use crate::shard::Shard;
use crate::util::prefetch;
use std::ptr::NonNull;

/// Nodes that the processor is asked for in advance.
const AHEAD: usize = 16;

/// # Safety
///
/// As for [`Operations::collect`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn collect<K, V>(shard: NonNull<ShardHeader>, wait: bool) -> bool
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller's promise.
    let shard = unsafe { shard.cast::<Shard<K, V>>().as_ref() };
    let state = if wait { Some(shard.state.lock()) } else { shard.state.try_lock() };
    let Some(mut state) = state else { return false };
    state.is_dirty = false;
    state.close_bag(shard.domain().inner());
    true
}

/// # Safety
///
/// As for [`Operations::reclaim`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn reclaim<K, V>(bag: &mut Bag, budget: usize) -> Reclaimed {
    let mut done = Reclaimed::default();
    for ahead in 0..AHEAD {
        bag.peek(ahead).into_iter().for_each(|node| prefetch::to_write::<0, _>(node.as_ptr()));
    }
    for _ in 0..budget {
        bag.peek(AHEAD).into_iter().for_each(|node| prefetch::to_write::<0, _>(node.as_ptr()));
        // SAFETY: the bag's nodes are there.
        let Some(node) = bag.take(|node| unsafe { node.as_ref() }.weight.bytes()) else { break };
        // SAFETY: as said.
        let refs = unsafe { &raw const (*node.as_ptr()).refs };
        // SAFETY: as said. (The node may be gone afterwards, if handles are left.)
        if unsafe { &*refs }.put_tables() {
            // SAFETY: R2, and it is a node of these types.
            done.panics += unsafe { Node::<K, V>::destroy(node) };
            // SAFETY: R2, its slot is ours.
            unsafe { &*refs }.set_free();
            bag.push_free(node);
            done.destroyed += 1;
        }
    }
    done
}

/// # Safety
///
/// As for [`Operations::recycle`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn recycle<K, V>(bag: Box<Bag>) -> Option<Box<Bag>>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller's promise.
    let shard = unsafe { bag.shard().cast::<Shard<K, V>>().as_ref() };
    // SAFETY: the caller's promise.
    unsafe { shard.state.lock().recycle(bag) }
}

/// # Safety
///
/// As for [`Operations::destroy`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn destroy<K, V>(node: NonNull<Header>) -> u32
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller's promise.
    let shard = unsafe { shard_of(node) };
    // SAFETY: the caller's promise, and it is a shard of these types.
    let shard = unsafe { shard.cast::<Shard<K, V>>().as_ref() };
    // SAFETY: the caller's promise.
    let panics = unsafe { Node::<K, V>::destroy(node) };
    // SAFETY: the node is destroyed.
    unsafe { shard.state.lock().free(node) };
    panics
}
