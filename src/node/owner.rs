//! How the shard that owns a node is found from the node's address.

#![allow(unsafe_code)]

use crate::node::Header;
use std::ptr::NonNull;

/// The size of a registry's slabs: the blocks of memory that hold its entries, as set by
/// [`Builder::slab_size`](crate::Builder::slab_size).
///
/// A slab is allocated as one piece, aligned to its size, and holds entries of one shard. It is freed when its last entry is
/// destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SlabSize {
    /// Slabs of 1 KiB: a quarter of a page. The default.
    #[default]
    Small,
    /// Slabs of 4 KiB: a page, the kernel's order 0.
    Large,
}

impl SlabSize {
    /// Returns the size of a slab in bytes, which is also its alignment. (A slab leaves the last bytes to the allocator's own
    /// header.)
    #[inline]
    pub(crate) const fn bytes(self) -> usize {
        match self {
            SlabSize::Small => 1024,
            SlabSize::Large => 4096,
        }
    }
}

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
        let slab = kind.slab().bytes();
        node.as_ptr().map_addr(|address| address & !(slab - 1)).cast::<NonNull<()>>()
    };
    // SAFETY: N4 (the owner's address lies at the start of the slab, or just before a single node).
    unsafe { *place }
}
