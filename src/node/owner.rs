//! How a node is led back to the shard that owns it.

#![allow(unsafe_code)]

use crate::node::Header;
use std::ptr::NonNull;

/// Bytes of a slab, and what it is aligned to.
///
/// Of a million entries of 32 bytes, 99% were removed at random: 4 KiB kept 25 MB allocated, and this 10. It takes 2.4% more when
/// all are there.
pub(crate) const SLAB: usize = 1024;
/// Returns the address that the owner of a node's memory has put there: for this crate, that of the node's shard.
///
/// # Safety
///
/// The node is not freed before this returns.
pub(crate) unsafe fn owner(node: NonNull<Header>) -> NonNull<()> {
    // SAFETY: the caller's promise.
    let kind = unsafe { node.as_ref() }.kind;
    let place = if kind.is_single() {
        node.as_ptr().cast::<NonNull<()>>().wrapping_sub(1)
    } else {
        node.as_ptr().map_addr(|address| address & !(SLAB - 1)).cast::<NonNull<()>>()
    };
    // SAFETY: N4: the owner's address lies there.
    unsafe { *place }
}
