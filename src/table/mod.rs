//! The hash table: an array of buckets whose length is a power of two.
//!
//! The low bits of a node's hash choose a bucket, the node's *home*. If the home is full, the node lives in the
//! next bucket with room, and every bucket on the way counts it as overflow. So a lookup ends at the first
//! bucket whose overflow count is zero. Nearly always that is the home.
//!
//! A resize moves the nodes, home by home, to a *next* table. Lookups and writes continue during the resize.
//!
//! # Invariants
//!
//! - **T1** A table that a reader has loaded from a root stays valid until the reader's critical section
//!   closes. A table is retired only after all of its homes have moved and the root points to another table.
//! - **T2** `next` is set before the first home is marked as moved, and never changes afterwards.
//! - **T3** During a resize the old table changes only by moves. A move of a home has three steps, in this
//!   order:
//!   1. The writer publishes the nodes of the home in the next table.
//!   2. By one store, it marks the home as moved and clears the tags of the home's nodes in the home bucket.
//!   3. It clears the tags of the home's nodes in later buckets.
//!
//!   A lookup that loads the control word of the home after step 2 continues in the next table. A lookup that
//!   loaded it before step 2, and finds nothing in later buckets, must load it again. A node that has moved can
//!   be reached only through the next table, so it is enough to unlink it there.
//! - **T4** A home that has not moved has no nodes in the next table: a writer moves a home before it uses it.

#![allow(unsafe_code)]

pub(crate) mod bucket;
mod change;
mod find;
mod visit;

pub(crate) use change::{Located, Position};
pub(crate) use visit::Walk;

use crate::node::Node;
use crate::sync::atomic::Ordering;
use crate::sync::{AtomicPtr, alloc_zeroed, dealloc_zeroed};
use crate::table::bucket::{Bucket, SLOTS, Tag};
use crate::util::prefetch;
use std::alloc::Layout;
use std::ptr::{self, NonNull};

/// The part of the allocation before the buckets.
struct Head<K, V> {
    /// The table to which this table is being moved (T2), packed as in [`Root`].
    next: AtomicPtr<Bucket<Node<K, V>>>,
}

/// A table: the address of its first bucket and its size, packed into one word.
///
/// Buckets are aligned to 64 bytes, which leaves six bits. These hold how far `usize::MAX >> 1` must be shifted
/// right to give the mask of the bucket numbers.
pub(crate) struct Table<K, V> {
    packed: NonNull<Bucket<Node<K, V>>>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Table<K, V> {}

impl<K, V> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.packed == other.packed
    }
}

// SAFETY: a table is a pointer to atomics. The registry puts its own bounds on the nodes that the table holds.
unsafe impl<K: Send, V: Send> Send for Table<K, V> {}

/// The word at which a shard's lookups start: it points to the shard's table.
pub(crate) struct Root<K, V>(AtomicPtr<Bucket<Node<K, V>>>);

impl<K, V> Root<K, V> {
    pub(crate) fn new(table: Table<K, V>) -> Self {
        Root(AtomicPtr::new(table.packed.as_ptr()))
    }

    #[inline]
    pub(crate) fn load(&self) -> Table<K, V> {
        // ORDERING: Acquire, pairs with the Release in `store`: the table's memory is initialised.
        let packed = self.0.load(Ordering::Acquire);
        // SAFETY: not null, as only `new` and `store` write the word, from the pointer of a table.
        Table { packed: unsafe { NonNull::new_unchecked(packed) } }
    }

    /// Makes `table` the shard's table. Called under the shard lock.
    pub(crate) fn store(&self, table: Table<K, V>) {
        // ORDERING: Release, pairs with the Acquire in `load`.
        self.0.store(table.packed.as_ptr(), Ordering::Release);
    }
}

/// The roots of all shards, in the form that readers keep at hand.
pub(crate) struct Roots<'r, K, V> {
    roots: &'r [Root<K, V>],
    /// How far to shift the low 32 bits of a hash to get the number of the shard.
    shift: u32,
}

impl<K, V> Clone for Roots<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Roots<'_, K, V> {}

impl<'r, K, V> Roots<'r, K, V> {
    /// Returns the roots and the shift as one value.
    ///
    /// # Safety
    ///
    /// There are 2^(32 - `shift`) roots.
    #[inline]
    pub(crate) unsafe fn new(roots: &'r [Root<K, V>], shift: u32) -> Self {
        debug_assert_eq!(roots.len(), 1 << (32 - shift));
        Roots { roots, shift }
    }

    /// Returns the roots of all shards.
    pub(crate) fn all(self) -> &'r [Root<K, V>] {
        self.roots
    }

    /// Returns the number of the shard of `hash`. The top bits of the hash's low half choose the shard, the
    /// bottom bits choose the bucket. So the half that a node keeps is enough to find the node again.
    #[inline]
    pub(crate) fn index(self, hash: u64) -> usize {
        (u64::from(hash as u32) >> self.shift) as usize
    }

    /// Returns the table in which a lookup of `hash` starts.
    #[inline]
    pub(crate) fn table(self, hash: u64) -> Table<K, V> {
        // SAFETY: the caller of `new` guarantees 2^(32 - `shift`) roots, so the index is in bounds.
        unsafe { self.roots.get_unchecked(self.index(hash)) }.load()
    }
}

const SHIFT_MASK: usize = 63;

impl<K, V> Table<K, V> {
    /// Returns the number of nodes that a table of this many buckets holds before it grows: three quarters of
    /// its slots.
    pub(crate) fn limit(buckets: usize) -> usize {
        buckets * SLOTS * 3 / 4
    }

    /// Returns the number of nodes at which this table grows.
    #[inline]
    pub(crate) fn grows_at(self) -> usize {
        Self::limit(self.buckets())
    }

    /// Returns the number of buckets of a table that holds `nodes`.
    ///
    /// # Panics
    ///
    /// Panics if no such table fits the address space.
    pub(crate) fn buckets_for(nodes: usize) -> usize {
        let needed = (nodes as u128 * 4).div_ceil(SLOTS as u128 * 3).max(1);
        let buckets =
            usize::try_from(needed).ok().and_then(usize::checked_next_power_of_two).expect("capacity overflow");
        assert!(Self::limit(buckets) >= nodes && Self::checked_layout(buckets).is_some(), "capacity overflow");
        buckets
    }

    fn checked_layout(buckets: usize) -> Option<(Layout, usize)> {
        let array = Layout::array::<Bucket<Node<K, V>>>(buckets).ok()?;
        Layout::new::<Head<K, V>>().extend(array).ok()
    }

    fn layout(buckets: usize) -> (Layout, usize) {
        Self::checked_layout(buckets).expect("a table fits the address space")
    }

    /// Returns an empty table with this number of buckets, a power of two.
    pub(crate) fn new(buckets: usize) -> Self {
        debug_assert!(buckets.is_power_of_two());
        let (layout, offset) = Self::layout(buckets);
        let init = |memory: *mut u8| {
            let head = Head::<K, V> { next: AtomicPtr::new(ptr::null_mut()) };
            // SAFETY: the layout starts with a head.
            unsafe { memory.cast::<Head<K, V>>().write(head) };
            // SAFETY: the buckets start at `offset` in the layout.
            let first = unsafe { memory.add(offset) }.cast::<Bucket<Node<K, V>>>();
            for index in 0..buckets {
                // SAFETY: the layout has `buckets` buckets, and the index is below that.
                let bucket = unsafe { first.add(index) };
                // SAFETY: the bucket is within the allocation and aligned.
                unsafe { bucket.write(Bucket::new()) };
            }
        };
        // SAFETY: the size is not zero. Zero bytes are an initialised head and initialised buckets: atomics and
        // null pointers.
        let memory = unsafe { alloc_zeroed(layout, init) };
        // SAFETY: the offset is within the allocation.
        let first = unsafe { memory.add(offset) }.cast::<Bucket<Node<K, V>>>();
        let shift = usize::BITS - 1 - buckets.trailing_zeros();
        let packed = first.map_addr(|address| address | shift as usize);
        // SAFETY: the allocation is not null.
        Table { packed: unsafe { NonNull::new_unchecked(packed) } }
    }

    /// Frees the table. Does not free its nodes.
    ///
    /// # Safety
    ///
    /// No thread uses the table any more (T1).
    pub(crate) unsafe fn free(self) {
        let buckets = self.buckets();
        let (layout, offset) = Self::layout(buckets);
        // SAFETY: the allocation starts `offset` bytes before the first bucket.
        let memory = unsafe { self.first().cast::<u8>().sub(offset) };
        let destroy = |memory: *mut u8| {
            // SAFETY: `new` initialised the head.
            unsafe { memory.cast::<Head<K, V>>().drop_in_place() };
            let first = self.first();
            for index in 0..buckets {
                // SAFETY: the table has `buckets` buckets, and the index is below that.
                let bucket = unsafe { first.add(index) };
                // SAFETY: `new` initialised the bucket, and no thread uses it any more (T1).
                unsafe { bucket.drop_in_place() };
            }
        };
        // SAFETY: `new` allocated the memory with this layout. The caller guarantees that no thread uses the
        // table any more (T1).
        unsafe { dealloc_zeroed(memory, layout, destroy) };
    }

    #[inline]
    fn first(self) -> *mut Bucket<Node<K, V>> {
        self.packed.as_ptr().map_addr(|address| address & !SHIFT_MASK)
    }

    #[inline]
    pub(crate) fn mask(self) -> usize {
        // The address bits need no masking: the shift uses only the low bits of the word.
        (usize::MAX >> 1).wrapping_shr(self.packed.addr().get() as u32)
    }

    /// Returns the home of `hash`. It depends only on the low half of the hash, which the node keeps.
    #[inline]
    pub(crate) fn home(self, hash: u64) -> usize {
        hash as u32 as usize & self.mask()
    }

    pub(crate) fn buckets(self) -> usize {
        self.mask() + 1
    }

    /// Returns the number of bytes that the table takes.
    pub(crate) fn bytes(self) -> usize {
        Self::layout(self.buckets()).0.size()
    }

    /// Prefetches the cache line of the hash's home, to read it.
    #[inline]
    pub(crate) fn prefetch(self, hash: u64) {
        prefetch::to_read(self.home_address(hash));
    }

    /// Prefetches the cache line of the hash's home, to write it. The table may have been freed.
    #[inline]
    pub(crate) fn prefetch_to_write(self, hash: u64) {
        prefetch::to_write::<0, _>(self.home_address(hash));
    }

    /// Returns the address of the hash's home. The table may have been freed.
    #[inline]
    fn home_address(self, hash: u64) -> *const Bucket<Node<K, V>> {
        self.first().wrapping_add(self.home(hash))
    }

    /// Prefetches the node that a lookup of `hash` will most likely read.
    #[inline]
    pub(crate) fn prefetch_node(self, hash: u64) {
        let bucket = self.bucket(self.home(hash));
        if let Some(slot) = bucket.control().matching(Tag::of(hash)).next() {
            prefetch::to_read(bucket.slot(slot));
        }
    }

    /// Prefetches the node that a lookup of `hash` will most likely find, to write it.
    #[inline]
    pub(crate) fn prefetch_node_to_write(self, hash: u64) {
        let bucket = self.bucket(self.home(hash));
        if let Some(slot) = bucket.control().matching(Tag::of(hash)).next() {
            prefetch::to_write::<0, _>(bucket.slot(slot));
        }
    }

    #[inline]
    fn bucket(&self, index: usize) -> &Bucket<Node<K, V>> {
        debug_assert!(index <= self.mask());
        // SAFETY: the index is below the number of buckets.
        let bucket = unsafe { self.first().add(index) };
        // SAFETY: `new` initialised the bucket, and the table stays valid while the caller uses it (T1).
        unsafe { &*bucket }
    }

    fn head(&self) -> &Head<K, V> {
        let (_, offset) = Self::layout(self.buckets());
        // SAFETY: the allocation starts `offset` bytes before the first bucket.
        let head = unsafe { self.first().cast::<u8>().sub(offset) }.cast::<Head<K, V>>();
        // SAFETY: `new` initialised the head, and the table stays valid while the caller uses it (T1).
        unsafe { &*head }
    }

    /// Returns the table to which this table is being moved. `None` before a resize.
    pub(crate) fn next(self) -> Option<Table<K, V>> {
        // ORDERING: Acquire, pairs with the Release in `set_next`. (A reader that has loaded a moved mark is
        // already ordered after `set_next` by that load.)
        let packed = self.head().next.load(Ordering::Acquire);
        NonNull::new(packed).map(|packed| Table { packed })
    }

    /// Sets the table to which this table is being moved. Called once, under the shard lock (T2).
    pub(crate) fn set_next(self, next: Table<K, V>) {
        // ORDERING: Release, pairs with the Acquire in `next`.
        self.head().next.store(next.packed.as_ptr(), Ordering::Release);
    }
}
