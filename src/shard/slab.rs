//! The memory of nodes: the slabs of one shard, whose slots are recycled after a grace period.
//!
//! ```text
//!  slab, 1 KiB or 4 KiB, aligned to its size
//!  ┌───────┬──────┬──────┬──────┬────────┬────────┬─ ─ ─ ─┬────────┐
//!  │ shard │ next │ prev │ free │ slot 0 │ slot 1 │       │ slot n │
//!  └───────┴──────┴──────┴──────┴────────┴────────┴─ ─ ─ ─┴────────┘
//!      ▲ node's address & !(size of the slab - 1)
//! ```
//!
//! A node is allocated and freed under the shard lock:
//!
//! 1. A writer takes a slot from the *magazine*, a bag of free slots. If the magazine is empty, the writer takes
//!    a slot that is *reserved*: the slots of a new slab are reserved at first. If none is reserved, it takes a
//!    slot from the second magazine, from the first slab that has a free slot, or from a new slab, in this order.
//! 2. The thread that reclaims a bag destroys its nodes and returns the bag to the shard. The bag becomes a
//!    magazine as it is: neither slabs nor slots are touched. If there are two magazines already, or if the bag
//!    is not half full, its slots go back to their slabs.
//! 3. A slab without used slots goes back to the global allocator. A few such slabs are kept.
//!
//! This is the magazine layer of J. Bonwick and J. Adams, "Magazines and Vmem" (2001), over the slabs of
//! Bonwick's "The Slab Allocator" (1994). Linux has it as `kmem_cache` with its sheaves.
//!
//! All slabs of a registry have one [size](SlabSize). A node of which fewer than three fit a slab has an allocation of its
//! own, which holds the shard's address just before the node. Under loom,
//! Miri and `--cfg one_node_slabs` (for sanitizers), every node has one. This memory is never recycled here, so
//! these tools detect a use after free.
//!
//! # Invariants
//!
//! - **M1** Slabs and their lists are accessed only under the shard lock, or while the shard is dropped. The
//!   address of the shard in a slab never changes.
//! - **M2** `used` of a slab counts its slots that hold a node, lie in a magazine, or are reserved. A slab is
//!   freed only when `used` is zero.
//! - **M3** A free slot's reference count is zero, without the mark of an unlinked node. The same holds for a
//!   slot that was never used. A free slot that is linked in its slab holds the offset of the next one after its
//!   kind.
//! - **M4** In the list, slabs with a free slot come first, then full ones.

#![allow(unsafe_code)]

use crate::domain::{Bag, ShardHeader};
use crate::node::owner::SlabSize;
use crate::node::refs::Refs;
use crate::node::{Header, Kind};
use crate::sync::{self, ONE_NODE_SLABS};
use crate::util::prefetch;
use std::alloc::Layout;
use std::ptr::{self, NonNull};

/// The bytes that common allocators put before an allocation. A slab is shorter by them, so that both together
/// take the [size](SlabSize) of a slab.
const MALLOC_HEADER: usize = 16;
/// If fewer nodes than this fit a slab, each node has an allocation of its own.
const FEWEST: usize = 3;

/// How nodes of one layout lie in slabs.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// The bytes from one slot to the next.
    slot: usize,
    /// The offset of the first slot.
    first: usize,
    /// The offset of the end of the last slot.
    end: usize,
    /// The kind that the nodes get, which tells how to find their shard (N4). A slab is at the node's address,
    /// rounded down to the size of a slab. In an allocation of a single node, the shard's address lies just before the
    /// node.
    kind: Kind,
    /// The layout of the allocation: of a slab, or of a single node.
    layout: Layout,
    /// The size that slabs of the registry have.
    slab: SlabSize,
}

impl Shape {
    /// Returns the shape for nodes of this layout, in slabs of this size. `has_life` says whether the layout includes
    /// a life.
    pub(crate) const fn of(node: Layout, has_life: bool, slab: SlabSize) -> Shape {
        let align = if node.align() > align_of::<Slab>() { node.align() } else { align_of::<Slab>() };
        let slot = node.size().next_multiple_of(align);
        let first = size_of::<Slab>().next_multiple_of(align);
        let slots = (slab.bytes() - MALLOC_HEADER).saturating_sub(first) / slot;
        if slots < FEWEST || ONE_NODE_SLABS {
            let first = size_of::<NonNull<ShardHeader>>().next_multiple_of(align);
            let Ok(layout) = Layout::from_size_align(first + slot, align) else {
                panic!("the node does not fit the address space")
            };
            return Shape { slot, first, end: first + slot, kind: Kind::new(None, has_life), layout, slab };
        }
        let Ok(layout) = Layout::from_size_align(slab.bytes() - MALLOC_HEADER, slab.bytes()) else { unreachable!() };
        Shape { slot, first, end: first + slots * slot, kind: Kind::new(Some(slab), has_life), layout, slab }
    }

    /// Returns the addresses of the slots of a slab.
    fn slots(&self, slab: NonNull<Slab>) -> impl Iterator<Item = *mut Header> + use<> {
        let memory = slab.as_ptr().cast::<Header>();
        (self.first..self.end).step_by(self.slot).map(move |at| memory.wrapping_byte_add(at))
    }

    /// Returns the size that slabs of the registry have.
    pub(crate) fn slab(&self) -> SlabSize {
        self.slab
    }

    /// Returns the kind of the nodes (N4).
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

/// The header of a slab, before its slots.
#[repr(C)]
struct Slab {
    /// The shard that owns this slab. It is the first field: nodes find it at the address of the slab.
    shard: NonNull<ShardHeader>,
    next: *mut Slab,
    prev: *mut Slab,
    /// The offset of the first free slot that is linked, or 0 if there is none.
    free: u16,
    /// The number of slots in use (M2).
    used: u16,
}

/// The memory of a shard's nodes. The shard lock guards it (M1).
pub(crate) struct Slabs {
    /// The bag of free slots from which slots are taken first.
    magazine: Option<Box<Bag>>,
    /// The slots from here to `reserved_end`, at the end of the newest slab, are taken when the magazine is
    /// empty.
    reserved: *mut Header,
    reserved_end: *mut Header,
    /// The next magazine.
    second: Option<Box<Bag>>,
    /// The list of slabs (M4).
    head: *mut Slab,
    tail: *mut Slab,
    /// The number of slabs in the list.
    slabs: usize,
    /// Slabs without a used slot. `next` links them, and they are in no other list.
    empty: *mut Slab,
    /// The number of these slabs.
    empties: usize,
    shape: Shape,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Slots are allocated and freed.
    Open,
    /// The nodes are being visited. Slabs stay in the list.
    Sweep,
    /// Nothing is allocated any more, and empty slabs are not kept.
    Closed,
}

/// The number of empty slabs that are kept, besides a sixteenth of the number of the others.
const KEPT: usize = 2;

// SAFETY: `Slabs` owns the slabs that it points to, and M1 keeps their users apart.
unsafe impl Send for Slabs {}

impl Slabs {
    pub(crate) fn new(shape: Shape) -> Self {
        Slabs {
            magazine: None,
            reserved: ptr::null_mut(),
            reserved_end: ptr::null_mut(),
            second: None,
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            slabs: 0,
            empty: ptr::null_mut(),
            empties: 0,
            shape,
            mode: Mode::Open,
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns a free slot for a node of `shard`. An empty magazine goes to `spare`.
    #[inline]
    pub(crate) fn alloc(&mut self, shard: NonNull<ShardHeader>, spare: &mut Option<Box<Bag>>) -> NonNull<Header> {
        if let Some(slot) = self.magazine.as_mut().and_then(|magazine| magazine.pop_free()) {
            return slot;
        }
        if self.reserved != self.reserved_end {
            return self.take_reserved();
        }
        self.alloc_from_slab(shard, spare)
    }

    /// Takes a reserved slot. There is at least one.
    #[inline]
    fn take_reserved(&mut self) -> NonNull<Header> {
        // SAFETY: there is a reserved slot, so the pointer is not null: before the first slab, both pointers are
        // null and equal.
        let slot = unsafe { NonNull::new_unchecked(self.reserved) };
        self.reserved = self.reserved.wrapping_byte_add(self.shape.slot);
        slot
    }

    #[cold]
    #[inline(never)]
    fn alloc_from_slab(&mut self, shard: NonNull<ShardHeader>, spare: &mut Option<Box<Bag>>) -> NonNull<Header> {
        if self.shape.kind.is_single() {
            return self.alloc_single(shard);
        }
        if let Some(emptied) = std::mem::replace(&mut self.magazine, self.second.take()) {
            // If there is a spare bag already, the emptied bag is dropped.
            spare.get_or_insert(emptied);
        }
        if let Some(slot) = self.magazine.as_mut().and_then(|magazine| magazine.pop_free()) {
            return slot;
        }
        let Some(mut slab) = NonNull::new(self.head).filter(|&slab| has_room(slab)) else {
            self.add_slab(shard);
            return self.take_reserved();
        };
        // SAFETY: M1 (the shard lock is held; the slab is in the list).
        let header = unsafe { slab.as_mut() };
        // SAFETY: M3 (`free` is the offset of a slot of this slab).
        let slot = unsafe { slab.byte_add(header.free.into()) }.cast::<Header>();
        // SAFETY: M3 (a free slot that is linked holds the offset of the next one).
        header.free = unsafe { next_free(slot).read() };
        header.used += 1;
        if !has_room(slab) {
            // M4: the slab is full now.
            self.unlink(slab);
            self.push_back(slab);
        }
        slot
    }

    fn alloc_single(&mut self, shard: NonNull<ShardHeader>) -> NonNull<Header> {
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { sync::alloc(self.shape.layout) };
        // SAFETY: the offset lies within the allocation.
        let slot = unsafe { memory.byte_add(self.shape.first) }.cast::<Header>();
        // SAFETY: `first` is at least the size of an address, so there is room for one before the slot.
        let place = unsafe { slot.cast::<NonNull<ShardHeader>>().sub(1) };
        // SAFETY: the place lies within the allocation, is aligned for an address, and belongs to this thread.
        unsafe { place.write(shard) };
        slot
    }

    /// Adds a slab to the list, and reserves all of its slots. Takes an empty slab that was kept, or allocates
    /// one.
    fn add_slab(&mut self, shard: NonNull<ShardHeader>) {
        let slab = match NonNull::new(self.empty) {
            Some(slab) => {
                // SAFETY: M1 (the shard lock is held; an empty slab that is kept is not freed).
                self.empty = unsafe { slab.as_ref() }.next;
                self.empties -= 1;
                slab
            }
            None => {
                // SAFETY: the layout has a size above zero.
                let slab = unsafe { sync::alloc(self.shape.layout) }.cast::<Slab>();
                for slot in self.shape.slots(slab) {
                    // SAFETY: a slot begins at this address, within the allocation.
                    let refs = unsafe { &raw mut (*slot).refs };
                    // SAFETY: the count lies within the slot, and no other thread knows of the slab.
                    unsafe { refs.write(Refs::new(0)) };
                }
                slab
            }
        };
        let used = ((self.shape.end - self.shape.first) / self.shape.slot) as u16;
        let header = Slab { shard, next: ptr::null_mut(), prev: ptr::null_mut(), free: 0, used };
        // SAFETY: the allocation begins with the header of the slab, and no slot of it is used.
        unsafe { slab.write(header) };
        self.push_back(slab);
        let memory = slab.as_ptr().cast::<Header>();
        self.reserved = memory.wrapping_byte_add(self.shape.first);
        self.reserved_end = memory.wrapping_byte_add(self.shape.end);
    }

    /// Takes back the slots of destroyed nodes: all free slots of `bag`. Keeps the bag as a magazine if there is
    /// room for one and the bag is at least half full. Returns the bag that is not needed any more, if there is
    /// one.
    ///
    /// # Safety
    ///
    /// The nodes were of this shard, and are destroyed.
    pub(crate) unsafe fn recycle(&mut self, mut bag: Box<Bag>) -> Option<Box<Bag>> {
        if !self.shape.kind.is_single() && self.mode == Mode::Open && bag.is_half_full() {
            let mut places = [&mut self.magazine, &mut self.second].into_iter();
            if let Some(place) = places.find(|place| place.as_ref().is_none_or(|magazine| !magazine.has_free())) {
                return place.replace(bag);
            }
        }
        while let Some(slot) = bag.pop_free() {
            // SAFETY: the caller guarantees that the node was of this shard and is destroyed.
            unsafe { self.free(slot) };
        }
        Some(bag)
    }

    /// Takes back the slot of a destroyed node.
    ///
    /// # Safety
    ///
    /// The node was of this shard, and is destroyed.
    pub(crate) unsafe fn free(&mut self, slot: NonNull<Header>) {
        if self.shape.kind.is_single() {
            // SAFETY: `alloc_single` put the slot at this offset of its allocation.
            let memory = unsafe { slot.byte_sub(self.shape.first) }.cast();
            // SAFETY: `alloc_single` allocated it with this layout, and the node is destroyed.
            unsafe { sync::dealloc(memory, self.shape.layout) };
            return;
        }
        // SAFETY: the slot belongs to the caller, since its node is destroyed.
        unsafe { slot.as_ref() }.refs.set_free();
        let at = slot.addr().get() & (self.shape.slab.bytes() - 1);
        // SAFETY: N4 (the slot lies in a slab of this shard, which begins at this address).
        let mut slab = unsafe { slot.byte_sub(at) }.cast::<Slab>();
        let had_room = has_room(slab);
        // SAFETY: M1 (the shard lock is held; M2 keeps the slab, as this slot is used).
        let header = unsafe { slab.as_mut() };
        // SAFETY: the slot is free and belongs to the caller, and has room for an offset (M3).
        unsafe { next_free(slot).write(header.free) };
        header.free = at as u16;
        header.used -= 1;
        if self.mode == Mode::Sweep {
            return;
        }
        if header.used == 0 {
            self.unlink(slab);
            self.retire_slab(slab);
        } else if !had_room {
            // M4: the slab has a free slot now.
            self.unlink(slab);
            self.push_front(slab);
        }
    }

    /// Keeps an empty slab that is in no list. Frees empty slabs beyond the number that is kept.
    fn retire_slab(&mut self, mut slab: NonNull<Slab>) {
        // SAFETY: M1 (the shard lock is held; the slab is in no list).
        unsafe { slab.as_mut() }.next = self.empty;
        self.empty = slab.as_ptr();
        self.empties += 1;
        // The number that is kept follows the number of slabs, also when that decreases.
        self.trim(if self.mode == Mode::Open { KEPT + self.slabs / 16 } else { 0 });
    }

    /// Gives the slots of the magazines back to their slabs, and frees all empty slabs.
    pub(crate) fn shrink(&mut self) {
        for mut magazine in [self.magazine.take(), self.second.take()].into_iter().flatten() {
            while let Some(slot) = magazine.pop_free() {
                // SAFETY: the slot is of this shard, and its node is destroyed.
                unsafe { self.free(slot) };
            }
        }
        self.trim(0);
    }

    /// Frees empty slabs until at most `kept` are left.
    fn trim(&mut self, kept: usize) {
        while self.empties > kept {
            let Some(slab) = NonNull::new(self.empty) else { return };
            // SAFETY: M1 (the shard lock is held; an empty slab that is kept is not freed).
            self.empty = unsafe { slab.as_ref() }.next;
            self.empties -= 1;
            // SAFETY: M2 (no slot of the slab is used). `add_slab` allocated it with this layout, and it is in no
            // list any more.
            unsafe { sync::dealloc(slab.cast(), self.shape.layout) };
        }
    }

    fn push_front(&mut self, mut slab: NonNull<Slab>) {
        let next = self.head;
        // SAFETY: M1 (the shard lock is held; the slab belongs to the caller, and is in no list).
        let header = unsafe { slab.as_mut() };
        (header.prev, header.next) = (ptr::null_mut(), next);
        self.head = slab.as_ptr();
        // SAFETY: M1 (the shard lock is held; the list links slabs that are not freed, and null gives `None`).
        match unsafe { next.as_mut() } {
            Some(next) => next.prev = slab.as_ptr(),
            None => self.tail = slab.as_ptr(),
        }
        self.slabs += 1;
    }

    fn push_back(&mut self, mut slab: NonNull<Slab>) {
        let prev = self.tail;
        // SAFETY: M1 (the shard lock is held; the slab belongs to the caller, and is in no list).
        let header = unsafe { slab.as_mut() };
        (header.prev, header.next) = (prev, ptr::null_mut());
        self.tail = slab.as_ptr();
        // SAFETY: M1 (the shard lock is held; the list links slabs that are not freed, and null gives `None`).
        match unsafe { prev.as_mut() } {
            Some(prev) => prev.next = slab.as_ptr(),
            None => self.head = slab.as_ptr(),
        }
        self.slabs += 1;
    }

    fn unlink(&mut self, slab: NonNull<Slab>) {
        // SAFETY: M1 (the shard lock is held; the slab is in the list).
        let Slab { prev, next, .. } = *unsafe { slab.as_ref() };
        // SAFETY: M1 (the shard lock is held; the list links slabs that are not freed, and null gives `None`).
        match unsafe { prev.as_mut() } {
            Some(prev) => prev.next = next,
            None => self.head = next,
        }
        // SAFETY: M1 (the shard lock is held; the list links slabs that are not freed, and null gives `None`).
        match unsafe { next.as_mut() } {
            Some(next) => next.prev = prev,
            None => self.tail = prev,
        }
        self.slabs -= 1;
    }

    /// Returns whether the nodes lie in slabs, and so can be visited slab by slab.
    pub(crate) fn can_sweep(&self) -> bool {
        !self.shape.kind.is_single()
    }

    /// Ends allocation, gives back all slots without a node, and begins a visit of the nodes.
    pub(crate) fn begin_sweep(&mut self) -> Sweep {
        self.mode = Mode::Sweep;
        while self.reserved != self.reserved_end {
            let slot = self.take_reserved();
            // SAFETY: the slot is of this shard and holds no node.
            unsafe { self.free(slot) };
        }
        for magazine in [self.magazine.take(), self.second.take()].into_iter().flatten() {
            // SAFETY: the slots are of this shard, and their nodes are destroyed.
            unsafe { self.recycle(magazine) };
        }
        self.first()
    }

    /// Returns the place before the first slot.
    pub(crate) fn first(&self) -> Sweep {
        Sweep { slab: self.head, at: self.shape.first }
    }

    /// Returns the next node that is in the table, or `None` at the end. The shard lock is held since
    /// [`first`](Self::first), or the mode is `Sweep`: no slab leaves the list.
    pub(crate) fn next_in_table(&self, sweep: &mut Sweep) -> Option<NonNull<Header>> {
        loop {
            let slab = NonNull::new(sweep.slab)?;
            // SAFETY: M1 (the shard lock is held; no slab has left the list).
            let header = unsafe { slab.as_ref() };
            if sweep.at == self.shape.first {
                prefetch_slab(header.next);
            }
            while sweep.at < self.shape.end {
                // SAFETY: a slot begins at this offset, within the slab.
                let slot = unsafe { slab.byte_add(sweep.at) }.cast::<Header>();
                sweep.at += self.shape.slot;
                // SAFETY: M3 (the reference count of every slot is initialised, with a node or without).
                if unsafe { slot.as_ref() }.refs.is_in_table() {
                    return Some(slot);
                }
            }
            (sweep.slab, sweep.at) = (header.next, self.shape.first);
        }
    }

    /// Calls `put` with the count of every node that is in the table. Frees the nodes for which it returns that
    /// it has put the last reference. Returns how many these are. Their slots are not linked, as nothing is
    /// allocated any more.
    pub(crate) fn sweep_all(&mut self, put: impl Fn(&Refs) -> bool) -> u64 {
        debug_assert!(self.mode == Mode::Sweep);
        let (mut freed, mut next) = (0, self.head);
        while let Some(mut slab) = NonNull::new(next) {
            // SAFETY: M1 (the shard lock is held; no slab leaves the list in the mode `Sweep`).
            let header = unsafe { slab.as_mut() };
            next = header.next;
            prefetch_slab(next);
            for slot in self.shape.slots(slab) {
                // SAFETY: a slot begins at this address, and its reference count is initialised (M3).
                let refs = unsafe { &(*slot).refs };
                if refs.is_in_table() && put(refs) {
                    refs.set_free();
                    header.used -= 1;
                    freed += 1;
                }
            }
        }
        freed
    }

    /// Ends allocation. From now on, a slab is freed as soon as it is empty.
    pub(crate) fn retire(&mut self) {
        self.begin_sweep();
        self.close();
    }

    /// Returns whether all slots are given back. Always false for nodes with allocations of their own, which are
    /// not counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.can_sweep() && self.head.is_null()
    }

    /// Ends the visit, and frees the empty slabs. From now on, a slab is freed as soon as it is empty.
    pub(crate) fn close(&mut self) {
        self.mode = Mode::Closed;
        let mut next = self.head;
        while let Some(slab) = NonNull::new(next) {
            // SAFETY: M1 (the shard lock is held; the slab is in the list).
            let header = unsafe { slab.as_ref() };
            next = header.next;
            if header.used == 0 {
                self.unlink(slab);
                self.retire_slab(slab);
            }
        }
        self.trim(0);
    }
}

/// The position of a visit of the slabs.
pub(crate) struct Sweep {
    slab: *mut Slab,
    at: usize,
}

// SAFETY: a sweep is used only under the shard lock, with the slabs that it points into.
unsafe impl Send for Sweep {}

impl Drop for Slabs {
    fn drop(&mut self) {
        // Every node of these slabs is destroyed.
        self.begin_sweep();
        self.close();
        debug_assert!(self.head.is_null() || std::thread::panicking(), "a slab still holds a node");
    }
}

/// Prefetches the first cache lines of a slab. The processor reads ahead what follows them.
#[inline]
fn prefetch_slab(slab: *const Slab) {
    if prefetch::WORKS && !slab.is_null() {
        (0..SlabSize::Small.bytes()).step_by(64).for_each(|line| prefetch::to_read(slab.wrapping_byte_add(line)));
    }
}

/// Returns whether the slab has a free slot that is linked. The caller holds the shard lock.
fn has_room(slab: NonNull<Slab>) -> bool {
    // SAFETY: M1 (the shard lock is held). The slab is in the list, or the caller has a slot of it.
    unsafe { slab.as_ref() }.free != 0
}

/// Returns the place in a free slot for the offset of the next one: after the reference count and the kind, which
/// stay as they are (M3, N4).
fn next_free(slot: NonNull<Header>) -> NonNull<u16> {
    let words = slot.cast::<u8>().as_ptr().wrapping_add(size_of::<Header>() / 2);
    // SAFETY: half of a header after the slot's address is within the slot, and not null.
    unsafe { NonNull::new_unchecked(words) }.cast()
}

#[cfg(all(test, not(any(loom, miri, one_node_slabs))))]
mod tests {
    use super::*;
    use crate::domain::shard_of;
    use crate::node::life::Deadline;
    use crate::node::usage::FirstMarks;
    use crate::node::weight::Weight;
    use crate::node::{Node, Particulars, UnpublishedNode};
    use crate::util::clock::Time;
    use std::collections::HashSet;

    /// Allocates slots for nodes of `V`, and writes a node that is in the table into each.
    fn fill<V: Clone>(slabs: &mut Slabs, value: &V, nodes: usize) -> Vec<NonNull<Header>> {
        let shard = NonNull::<u64>::dangling().cast();
        let kind = slabs.shape().kind();
        let mut spare = None;
        let mut one = || {
            let (key, value, weight) = (7_u32, value.clone(), Weight::at_least(1));
            let (time, own_end) = (Time::ZERO, Deadline::NEVER);
            let particulars = Particulars { hash: 1, time, weight, marks: FirstMarks::new(false), own_end };
            let unpublished = UnpublishedNode { key, value, particulars };
            // SAFETY: the slot is for a node of this layout.
            unsafe { unpublished.write(slabs.alloc(shard, &mut spare), kind, 1) }.cast()
        };
        (0..nodes).map(|_| one()).collect()
    }

    const SIZES: [SlabSize; 2] = [SlabSize::Small, SlabSize::Large];

    fn of<V>(size: SlabSize) -> Slabs {
        Slabs::new(Shape::of(Layout::new::<Node<u32, V>>(), false, size))
    }

    /// Returns a bag whose nodes are these, all destroyed.
    fn emptied(nodes: &[NonNull<Header>]) -> Box<Bag> {
        let mut bag = Bag::new(NonNull::<u64>::dangling().cast());
        nodes.iter().for_each(|&node| {
            bag.push(node, 0);
        });
        while let Some(node) = bag.take(|_| 0) {
            bag.push_free(node);
        }
        bag
    }

    fn free(slabs: &mut Slabs, nodes: impl IntoIterator<Item = NonNull<Header>>) {
        // SAFETY: each node is freed once, and needs no drop.
        nodes.into_iter().for_each(|node| unsafe { slabs.free(node) });
    }

    #[test]
    fn no_slot_is_allocated_twice_and_each_knows_its_shard() {
        for size in SIZES {
            let mut slabs = of::<[u64; 3]>(size);
            let mut used = HashSet::new();
            let mut nodes = Vec::new();
            for round in 0..50 {
                for node in fill(&mut slabs, &[round; 3], 100) {
                    assert!(used.insert(node) && node.addr().get().is_multiple_of(align_of::<Node<u32, [u64; 3]>>()));
                    // SAFETY: the node is not freed yet.
                    assert_eq!(unsafe { shard_of(node) }, NonNull::<u64>::dangling().cast());
                    nodes.push(node);
                }
                let gone: Vec<_> = (0..60).map(|_| nodes.swap_remove(round as usize * 7919 % nodes.len())).collect();
                gone.iter().for_each(|node| assert!(used.remove(node)));
                free(&mut slabs, gone);
            }
            free(&mut slabs, nodes);
        }
    }

    #[test]
    fn a_bag_is_recycled_as_a_magazine_and_its_slots_are_used_next() {
        for size in SIZES {
            let mut slabs = of::<u64>(size);
            let nodes = fill(&mut slabs, &0_u64, 1000);
            let before = slabs.slabs;
            // SAFETY: the nodes count as destroyed, since nothing in them needs a drop.
            assert!(unsafe { slabs.recycle(emptied(&nodes[..100])) }.is_none());
            let again: HashSet<_> = fill(&mut slabs, &0_u64, 100).into_iter().collect();
            assert!(nodes[..100].iter().all(|node| again.contains(node)) && slabs.slabs == before);
            // Two magazines are kept. The first one takes the place of an empty one. A small bag is not kept.
            // SAFETY: the nodes count as destroyed, since nothing in them needs a drop.
            let kept =
                [200..300, 300..400, 400..500, 500..510].map(|part| unsafe { slabs.recycle(emptied(&nodes[part])) });
            assert_eq!(kept.map(|bag| bag.is_none()), [false, true, false, false]);
            free(
                &mut slabs,
                again.into_iter().chain(nodes[100..200].iter().copied()).chain(nodes[510..].iter().copied()),
            );
        }
    }

    #[test]
    fn empty_slabs_are_freed_except_a_few() {
        for size in SIZES {
            let mut slabs = of::<u64>(size);
            let nodes = fill(&mut slabs, &0_u64, 100_000);
            let full = slabs.slabs;
            let bytes = full * size.bytes();
            let (least, most) = (3_200_000, if size == SlabSize::Small { 3_450_000 } else { 3_270_000 });
            assert!((least..most).contains(&bytes), "{bytes} bytes for 100,000 nodes of 32");
            free(&mut slabs, nodes.iter().copied().take(99_000));
            assert!(slabs.slabs * 85 < full && slabs.empties <= KEPT + slabs.slabs / 16, "{} slabs", slabs.slabs);
            // New nodes fill the slabs that have free slots first.
            let more = fill(&mut slabs, &0_u64, 1000);
            assert!(slabs.slabs * 45 < full, "{}", slabs.slabs);
            free(&mut slabs, nodes.into_iter().skip(99_000).chain(more));
        }
    }

    #[test]
    fn large_and_aligned_nodes_have_allocations_of_their_own() {
        #[derive(Clone)]
        #[repr(align(256))]
        struct Aligned(#[allow(dead_code)] u8);

        for size in SIZES {
            let (mut large, mut aligned) = (of::<[u8; 2000]>(size), of::<Aligned>(size));
            assert!(!large.can_sweep());
            let nodes = fill(&mut large, &[1_u8; 2000], 10);
            free(&mut large, nodes);
            let nodes = fill(&mut aligned, &Aligned(1), 40);
            assert!(nodes.iter().all(|node| node.addr().get().is_multiple_of(256)));
            free(&mut aligned, nodes);
        }
    }

    /// The builder's documentation states these limits.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_largest_slots_are_those_that_the_documentation_states() {
        for (size, largest) in [(SlabSize::Small, 320), (SlabSize::Large, 1344)] {
            let is_single = |bytes| {
                let layout = Layout::from_size_align(bytes, 8).expect("a small layout");
                Shape::of(layout, false, size).kind.is_single()
            };
            assert!(!is_single(largest) && is_single(largest + 8), "{size:?}");
        }
    }

    #[test]
    fn a_sweep_finds_each_node_in_the_table_once() {
        for size in SIZES {
            let mut slabs = of::<u64>(size);
            let nodes = fill(&mut slabs, &0_u64, 5000);
            free(&mut slabs, nodes.iter().copied().step_by(2));
            // SAFETY: the nodes are not freed yet.
            nodes.iter().skip(1).step_by(4).for_each(|node| unsafe { node.as_ref() }.refs.set_unlinked());
            let mut sweep = slabs.begin_sweep();
            let met: Vec<_> = std::iter::from_fn(|| slabs.next_in_table(&mut sweep)).collect();
            let expected: HashSet<_> = nodes.iter().copied().skip(3).step_by(4).collect();
            assert_eq!((met.len(), met.into_iter().collect::<HashSet<_>>()), (1250, expected));
            assert_eq!(slabs.sweep_all(|refs| refs.put_of_dropped_registry()), 1250);
            free(&mut slabs, nodes.into_iter().skip(1).step_by(4));
            slabs.close();
            assert!(slabs.head.is_null() && slabs.empty.is_null(), "some memory was not given back");
        }
    }
}
