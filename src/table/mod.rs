//! A table: a power of two of buckets, and how to find a node in it.
//!
//! A node's *home* is the bucket that the low bits of its hash choose. If the home is full the node lives in the next
//! bucket with room, and every bucket on the way counts it as overflow; so a lookup ends at the first bucket whose
//! count is zero, which is nearly always the home.
//!
//! A resize moves the nodes home by home to a *next* table, while lookups and writes go on.
//!
//! # Invariants
//!
//! - **T1** The pointer in a root is that of a table which is there for as long as a critical section that read it is
//!   open: a table is retired after the root has left it, or after its every home has moved.
//! - **T2** `next` is set before the first home is marked as moved, and then never changes.
//! - **T3** While a resize is under way the old table changes only by moves: a home's nodes are first published in the
//!   next table; then the home is marked as moved and the tags of its nodes in that bucket are cleared, by one store;
//!   then the tags of those that live further on. So a lookup that reads the home's control word after the mark goes on
//!   to the next table, and one that read it before and then finds nothing further on must look at it again.
//!   A node that has moved can be reached by the next table alone: unlinking it there is enough.
//! - **T4** A home that has not moved has no nodes in the next table: writers move a home before they use it.

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

/// What precedes the buckets.
struct Head<K, V> {
    /// The table that this one is being moved to (T2), packed as in [`Root`].
    next: AtomicPtr<Bucket<Node<K, V>>>,
}

/// A table, by its first bucket and its size, in one word: buckets are aligned to 64 bytes, which leaves six bits for how
/// far all ones but the top are to be shifted for the mask of their numbers.
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

// SAFETY: a table is a pointer to atomics; what it holds is governed by the registry's own bounds.
unsafe impl<K: Send, V: Send> Send for Table<K, V> {}

/// Where a shard's lookups begin.
pub(crate) struct Root<K, V>(AtomicPtr<Bucket<Node<K, V>>>);

impl<K, V> Root<K, V> {
    pub(crate) fn new(table: Table<K, V>) -> Self {
        Root(AtomicPtr::new(table.packed.as_ptr()))
    }

    #[inline]
    pub(crate) fn load(&self) -> Table<K, V> {
        // ORDERING: Acquire, pairs with the Release in `store`: the table's memory is initialised.
        let packed = self.0.load(Ordering::Acquire);
        // SAFETY: only `new` and `store` write it.
        Table { packed: unsafe { NonNull::new_unchecked(packed) } }
    }

    /// Under the shard lock.
    pub(crate) fn store(&self, table: Table<K, V>) {
        // ORDERING: Release, pairs with the Acquire in `load`.
        self.0.store(table.packed.as_ptr(), Ordering::Release);
    }
}

/// The roots of all shards, as readers have them at hand.
pub(crate) struct Roots<'r, K, V> {
    roots: &'r [Root<K, V>],
    /// How far to shift 32 bits of hash so that the number of the shard is left.
    shift: u32,
}

impl<K, V> Clone for Roots<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Roots<'_, K, V> {}

impl<'r, K, V> Roots<'r, K, V> {
    /// # Safety
    ///
    /// There are 2^(32 - `shift`) roots.
    #[inline]
    pub(crate) unsafe fn new(roots: &'r [Root<K, V>], shift: u32) -> Self {
        debug_assert_eq!(roots.len(), 1 << (32 - shift));
        Roots { roots, shift }
    }

    /// The roots of all shards.
    pub(crate) fn all(self) -> &'r [Root<K, V>] {
        self.roots
    }

    /// The number of the shard that `hash` belongs to. By the top of its low half, the bottom of which chooses the bucket: so a
    /// node's own half of the hash is enough to find it again.
    #[inline]
    pub(crate) fn index(self, hash: u64) -> usize {
        (u64::from(hash as u32) >> self.shift) as usize
    }

    /// The table in which a lookup of `hash` begins.
    #[inline]
    pub(crate) fn table(self, hash: u64) -> Table<K, V> {
        // SAFETY: by the promise of `new`, the index is below the number of roots.
        unsafe { self.roots.get_unchecked(self.index(hash)) }.load()
    }
}

const SHIFT_MASK: usize = 63;

impl<K, V> Table<K, V> {
    /// The most nodes that a table of so many buckets takes before it grows: three slots of four.
    pub(crate) fn limit(buckets: usize) -> usize {
        buckets * SLOTS * 3 / 4
    }

    /// The number of nodes at which this table grows.
    #[inline]
    pub(crate) fn grows_at(self) -> usize {
        Self::limit(self.buckets())
    }

    /// The number of buckets that takes `nodes`.
    ///
    /// # Panics
    ///
    /// If no such table fits the address space.
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

    /// An empty table of `buckets`, a power of two.
    pub(crate) fn new(buckets: usize) -> Self {
        debug_assert!(buckets.is_power_of_two());
        let (layout, offset) = Self::layout(buckets);
        let init = |memory: *mut u8| {
            let head = Head::<K, V> { next: AtomicPtr::new(ptr::null_mut()) };
            // SAFETY: the layout begins with a head.
            unsafe { memory.cast::<Head<K, V>>().write(head) };
            // SAFETY: the layout has its buckets from `offset` on.
            let first = unsafe { memory.add(offset) }.cast::<Bucket<Node<K, V>>>();
            for index in 0..buckets {
                // SAFETY: there are so many.
                let bucket = unsafe { first.add(index) };
                // SAFETY: as before.
                unsafe { bucket.write(Bucket::new()) };
            }
        };
        // SAFETY: the size is above zero, and zero is an initialised head and bucket: atomics and null pointers.
        let memory = unsafe { alloc_zeroed(layout, init) };
        // SAFETY: the offset lies within the allocation.
        let first = unsafe { memory.add(offset) }.cast::<Bucket<Node<K, V>>>();
        let shift = usize::BITS - 1 - buckets.trailing_zeros();
        let packed = first.map_addr(|address| address | shift as usize);
        // SAFETY: the allocation is not null.
        Table { packed: unsafe { NonNull::new_unchecked(packed) } }
    }

    /// Frees the table. The nodes are not its own.
    ///
    /// # Safety
    ///
    /// Nobody uses the table any more (T1).
    pub(crate) unsafe fn free(self) {
        let buckets = self.buckets();
        let (layout, offset) = Self::layout(buckets);
        // SAFETY: the allocation begins so far before the first bucket.
        let memory = unsafe { self.first().cast::<u8>().sub(offset) };
        let destroy = |memory: *mut u8| {
            // SAFETY: `new` initialised the head.
            unsafe { memory.cast::<Head<K, V>>().drop_in_place() };
            let first = self.first();
            for index in 0..buckets {
                // SAFETY: `new` initialised so many buckets.
                let bucket = unsafe { first.add(index) };
                // SAFETY: as before.
                unsafe { bucket.drop_in_place() };
            }
        };
        // SAFETY: `new` allocated it with this layout; the caller's promise.
        unsafe { dealloc_zeroed(memory, layout, destroy) };
    }

    #[inline]
    fn first(self) -> *mut Bucket<Node<K, V>> {
        self.packed.as_ptr().map_addr(|address| address & !SHIFT_MASK)
    }

    #[inline]
    pub(crate) fn mask(self) -> usize {
        // The word as it is, as a shift looks at its low bits alone.
        (usize::MAX >> 1).wrapping_shr(self.packed.addr().get() as u32)
    }

    /// The bucket that nodes of `hash` belong to. By the half of the hash that they keep.
    #[inline]
    pub(crate) fn home(self, hash: u64) -> usize {
        hash as u32 as usize & self.mask()
    }

    pub(crate) fn buckets(self) -> usize {
        self.mask() + 1
    }

    /// Bytes that the table takes.
    pub(crate) fn bytes(self) -> usize {
        Self::layout(self.buckets()).0.size()
    }

    /// Brings the line of a hash's home into the cache.
    #[inline]
    pub(crate) fn prefetch(self, hash: u64) {
        prefetch::to_read(self.home_address(hash));
    }

    /// The same, for a write. The table need not be there any more.
    #[inline]
    pub(crate) fn prefetch_to_write(self, hash: u64) {
        prefetch::to_write::<0, _>(self.home_address(hash));
    }

    /// Where the home of a hash is, or was.
    #[inline]
    fn home_address(self, hash: u64) -> *const Bucket<Node<K, V>> {
        self.first().wrapping_add(self.home(hash))
    }

    /// Brings the line of the node that a lookup of `hash` will most likely look at into the cache.
    #[inline]
    pub(crate) fn prefetch_node(self, hash: u64) {
        let bucket = self.bucket(self.home(hash));
        if let Some(slot) = bucket.control().matching(Tag::of(hash)).next() {
            prefetch::to_read(bucket.slot(slot));
        }
    }

    /// The same, for a write.
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
        // SAFETY: `new` initialised it, and T1 keeps the table for as long as the caller uses it.
        unsafe { &*bucket }
    }

    fn head(&self) -> &Head<K, V> {
        let (_, offset) = Self::layout(self.buckets());
        // SAFETY: the allocation begins so far before the first bucket.
        let head = unsafe { self.first().cast::<u8>().sub(offset) }.cast::<Head<K, V>>();
        // SAFETY: `new` initialised it; T1.
        unsafe { &*head }
    }

    /// The table that this one is moving to. `None` before a resize.
    pub(crate) fn next(self) -> Option<Table<K, V>> {
        // ORDERING: Acquire, pairs with the Release in `set_next`. (A reader that saw a mark has it by that already.)
        let packed = self.head().next.load(Ordering::Acquire);
        NonNull::new(packed).map(|packed| Table { packed })
    }

    /// Under the shard lock, once (T2).
    pub(crate) fn set_next(self, next: Table<K, V>) {
        // ORDERING: Release, pairs with the Acquire in `next`.
        self.head().next.store(next.packed.as_ptr(), Ordering::Release);
    }
}
