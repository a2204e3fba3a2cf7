//! How the shard that owns a node is found from the node's address.

#![allow(unsafe_code)]

use crate::node::Header;
use std::ptr::NonNull;

/// The size in bytes and the alignment of a slab. (A slab leaves the last bytes to the allocator's own header.)
///
/// With a million entries of 32 bytes, of which 99% were removed at random, slabs of 4 KiB kept 25 MB
/// allocated, and these keep 10 MB. They take 2.4% more when all entries are present.
pub(crate) const SLAB: usize = 1024;
/// Returns the address that the owner of a node's memory has stored there. In this crate it is the address of
/// the node's shard.
///
/// # Safety
///
/// The node is not freed before this returns.
pub(crate) unsafe fn owner(node: NonNull<Header>) -> NonNull<()> {
    // SAFETY: the caller guarantees that the node is not freed.
    let kind = unsafe { node.as_ref() }.kind;
    let place = if kind.is_single() {
        node.as_ptr().cast::<NonNull<()>>().wrapping_sub(1)
    } else {
        node.as_ptr().map_addr(|address| address & !(SLAB - 1)).cast::<NonNull<()>>()
    };
    // SAFETY: N4 (the owner's address lies at the start of the slab, or just before a single node).
    unsafe { *place }
}
