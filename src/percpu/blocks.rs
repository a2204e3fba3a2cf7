//! The memory of per-thread counts: each thread owns a block, which has a slot for each column.
//!
//! ```text
//!             column 0   column 1   column 2
//!           ┌──────────┬──────────┬──────────┬─ ─
//!  block 0  │ total    │ total    │ total    │      written by the thread that owns the block
//!           ├──────────┼──────────┼──────────┼─ ─
//!  block 1  │ total    │ total    │              free: its thread has ended, and the next new thread takes it
//!           ├──────────┼──────────┼──────────┼─ ─
//!  block 2  │ total    │ total    │ total    │
//!           └──────────┴──────────┴──────────┴─ ─
//! ```
//!
//! A [`Column`] is what one counter owns. The actors:
//!
//! - **A thread that counts** changes its own slot by a relaxed load and a relaxed store. It finds the slot by the two
//!   words of `MINE`. Its first count takes a block from the list, a free one if there is one. If the block is too short
//!   for the column, the thread copies the block to a longer one, under the lock.
//! - **A thread that ends** gives its block back with all its totals. Nothing is added up, so nothing is lost, and there
//!   are never more blocks than threads at one time.
//! - **A thread that sums** holds the lock, and loads the column's total in each block.
//! - **A thread that drops a column** holds the lock, sets the column's slots to zero, and gives the index back. A later
//!   column takes it.
//!
//! A slot's total is never moved elsewhere and never reset while its column lives. So a sum has each count that happens
//! before it exactly once, and each concurrent one at most once.
//!
//! A thread has no slot in three cases, and the caller then counts elsewhere: the thread's `OWNER` is destroyed already,
//! because the thread exits; the thread is in this module already, because the program's allocator counts; or, in a model,
//! its `MINE` is gone.
//!
//! # Invariants
//!
//! - **U1** `MINE` of a thread is empty, or it holds the slots of the block that the thread owns, with their number.
//! - **U2** The slots of a block are freed by the thread that owns the block alone, after it has put others in their place
//!   under the lock and in its `MINE`.
//! - **U3** Threads that do not own a block use its slots under the lock alone.

#![allow(unsafe_code)]

use crate::sync::atomic::Ordering;
use crate::sync::{AtomicU64, AtomicUsize, GlobalRef, Mutex, const_fn, const_thread_local, global, thread_local};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ptr::{self, NonNull};

/// The count of one thread in one column. Only the thread that owns the block writes it, unless the column is being
/// dropped or the block is being copied.
#[repr(C, align(16))]
pub(crate) struct Slot {
    /// What the block's threads have added, modulo 2^64.
    total: AtomicU64,
    /// The part of `total` that a [`Counter`](super::Counter) has flushed.
    flushed: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Slot { total: AtomicU64::new(0), flushed: AtomicU64::new(0) }
    }

    /// Adds `by`, modulo 2^64. The caller owns the block. Returns the new total.
    #[inline(always)]
    pub(crate) fn add(&self, by: u64) -> u64 {
        // ORDERING: Relaxed, both. The owner is the only writer, so a load and a store lose nothing. A thread that sums
        // sees each store that happens before its load.
        let total = self.total.load(Ordering::Relaxed).wrapping_add(by);
        self.total.store(total, Ordering::Relaxed);
        total
    }

    /// Returns what is not flushed of the slot's `total`, modulo 2^64. The caller owns the block.
    #[inline(always)]
    pub(super) fn unflushed(&self, total: u64) -> u64 {
        // ORDERING: Relaxed, only the owner uses it.
        total.wrapping_sub(self.flushed.load(Ordering::Relaxed))
    }

    /// Records that all of `total` is flushed. The caller owns the block.
    pub(super) fn set_flushed(&self, total: u64) {
        // ORDERING: Relaxed, only the owner uses it.
        self.flushed.store(total, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        // ORDERING: Relaxed. A count that happens before this load is seen by coherence.
        self.total.load(Ordering::Relaxed)
    }

    /// Sets the slot to zero. The caller holds the lock, and drops the column.
    fn clear(&self) {
        // ORDERING: Relaxed, both. All counts in the column happen before the drop of the column. The owner uses the
        // slot again for a column that takes this index under the lock, and acquires that in `Column::index`.
        self.total.store(0, Ordering::Relaxed);
        self.flushed.store(0, Ordering::Relaxed);
    }

    /// Takes what another slot holds. The caller owns both blocks, and holds the lock.
    fn copy(&self, from: &Slot) {
        // ORDERING: Relaxed, all. They are the owner's own stores, or stores that the lock or `Column::index` orders. The
        // lock orders these for threads that sum.
        self.total.store(from.total.load(Ordering::Relaxed), Ordering::Relaxed);
        self.flushed.store(from.flushed.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Slots that fill two cache lines, because processors fetch them in pairs.
#[repr(C, align(128))]
struct Lines([Slot; Lines::SLOTS]);

impl Lines {
    const SLOTS: usize = 8;
}

// There is no padding, so that the slots of a block are an array.
const _: () = assert!(size_of::<Lines>() == Lines::SLOTS * size_of::<Slot>());

/// The slots of a block.
struct Slots {
    /// From `Box::into_raw`, so that a thread may keep a pointer to the slots while this is moved.
    lines: NonNull<[Lines]>,
}

// SAFETY: it owns its slots, which are atomics.
unsafe impl Send for Slots {}

impl Slots {
    /// Returns `len` slots or more, all zero.
    fn new(len: usize) -> Slots {
        // A power of two, so that the amortized cost of a further counter is constant.
        let lines = if len == 0 { 0 } else { len.next_power_of_two().div_ceil(Lines::SLOTS) };
        let line = |_| Lines(std::array::from_fn(|_| Slot::new()));
        let lines = Box::into_raw((0..lines).map(line).collect());
        Slots { lines: NonNull::new(lines).expect("a box is not null") }
    }

    fn len(&self) -> usize {
        self.lines.len() * Lines::SLOTS
    }

    fn first(&self) -> *const Slot {
        self.lines.as_ptr().cast_const().cast()
    }

    fn get(&self, index: usize) -> Option<&Slot> {
        // SAFETY: `self` owns the lines.
        let lines = unsafe { self.lines.as_ref() };
        lines.get(index / Lines::SLOTS).map(|line| &line.0[index % Lines::SLOTS])
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`. The owner of the block has put other slots in their place, or there is no owner
        // any more (U2), so nothing uses the slots.
        drop(unsafe { Box::from_raw(self.lines.as_ptr()) });
    }
}

/// All blocks.
struct Blocks {
    list: Mutex<List>,
    /// The number of blocks. It is changed under the lock, and read without it.
    count: AtomicUsize,
}

/// What the lock guards. (User code that may run under the lock: the program's allocator.)
struct List {
    blocks: Vec<Slots>,
    /// The blocks whose threads have ended.
    free_blocks: Vec<usize>,
    /// The number of indices that were ever given to a column.
    indices: usize,
    /// The indices whose columns were dropped, the lowest first, so that blocks stay short.
    free_indices: BinaryHeap<Reverse<usize>>,
}

global! {
    static BLOCKS: Blocks = Blocks::new();
}

impl Blocks {
    const_fn! {
        fn new() -> Blocks {
            let list = List { blocks: Vec::new(), free_blocks: Vec::new(), indices: 0, free_indices: BinaryHeap::new() };
            Blocks { list: Mutex::new(list), count: AtomicUsize::new(0) }
        }
    }

    /// Calls `f` under the lock. If the program's allocator counts meanwhile, it gets no slot that would need the lock.
    fn locked<R>(&self, f: impl FnOnce(&mut List) -> R) -> R {
        let _busy = Busy::begin();
        f(&mut self.list.lock())
    }
}

/// Returns the number of blocks: the largest number of threads that have counted at one time.
pub(super) fn block_count() -> usize {
    // ORDERING: Relaxed. If a count happens before this load, so does the store of a number that has its block.
    BLOCKS.get().count.load(Ordering::Relaxed)
}

/// Where a thread finds its slots.
struct Mine {
    slots: Cell<*const Slot>,
    len: Cell<usize>,
    /// Whether the thread is in this module, and may hold the lock.
    busy: Cell<bool>,
}

const_thread_local! {
    static MINE: Mine = Mine { slots: Cell::new(ptr::null()), len: Cell::new(0), busy: Cell::new(false) };
}

impl Mine {
    /// Sets the thread's slots (U1).
    fn set(slots: &Slots) {
        // (`MINE` is destroyed before its thread ends only in a model.)
        let _ = MINE.try_with(|mine| {
            mine.slots.set(slots.first());
            mine.len.set(slots.len());
        });
    }

    /// Takes the thread's slots from it (U1).
    fn clear() {
        let _ = MINE.try_with(|mine| {
            mine.slots.set(ptr::null());
            mine.len.set(0);
        });
    }
}

/// Marks the thread as busy in this module, as long as it lives.
struct Busy {
    outer: bool,
}

impl Busy {
    fn begin() -> Busy {
        Busy { outer: MINE.try_with(|mine| mine.busy.replace(true)).unwrap_or(true) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = MINE.try_with(|mine| mine.busy.set(self.outer));
    }
}

thread_local! {
    /// Owns the thread's block. Its destructor gives the block back.
    static OWNER: Owner = Owner::new();
}

struct Owner {
    blocks: GlobalRef<Blocks>,
    /// The index of the block in the list.
    block: usize,
}

impl Owner {
    /// Takes a free block for the calling thread, or a new one.
    ///
    /// (If a destructor of a key of the C library counts as the first of its thread, std may never drop this. The block
    /// is then not given back. Its counts are not lost.)
    fn new() -> Owner {
        let blocks = BLOCKS.get();
        let block = blocks.locked(|list| {
            let block = list.free_blocks.pop().unwrap_or_else(|| {
                list.blocks.push(Slots::new(0));
                // ORDERING: Relaxed, see `block_count`.
                blocks.count.store(list.blocks.len(), Ordering::Relaxed);
                // So that no later push allocates, and a thread that ends never fails.
                let missing = list.blocks.len() - list.free_blocks.len();
                list.free_blocks.reserve(missing);
                list.blocks.len() - 1
            });
            let slots = &list.blocks[block];
            Mine::set(slots);
            block
        });
        Owner { blocks, block }
    }

    /// Returns the slot of the thread's block with this index. Makes the block longer if it is too short.
    fn slot(&self, index: usize) -> NonNull<Slot> {
        let current = || MINE.try_with(|mine| (mine.slots.get(), mine.len.get())).unwrap_or((ptr::null(), 0));
        if index >= current().1 {
            let longer = Slots::new(index + 1);
            let old = self.blocks.locked(|list| {
                let slots = &mut list.blocks[self.block];
                for at in 0..slots.len() {
                    let pair = slots.get(at).zip(longer.get(at));
                    let (from, to) = pair.expect("the longer block has more slots");
                    to.copy(from);
                }
                // Between the copy and this, nothing counts: there is no allocation.
                Mine::set(&longer);
                std::mem::replace(slots, longer)
            });
            drop(old);
        }
        let first = NonNull::new(current().0.cast_mut()).expect("the thread has slots, and is in `find`");
        // SAFETY: U1 (there are more than `index` slots now).
        unsafe { first.add(index) }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        Mine::clear();
        self.blocks.locked(|list| list.free_blocks.push(self.block));
    }
}

/// One count of each thread, and their sum.
pub(crate) struct Column {
    /// Its index in each block, or [`UNASSIGNED`](Self::UNASSIGNED).
    index: AtomicUsize,
}

impl Column {
    /// The index of a column that no thread has counted in. No block has so many slots.
    const UNASSIGNED: usize = usize::MAX;

    const_fn! {
        pub(crate) fn new() -> Column {
            Column { index: AtomicUsize::new(Column::UNASSIGNED) }
        }
    }

    #[inline(always)]
    fn index(&self) -> usize {
        // ORDERING: Acquire, pairs with the Release in `assigned`. If the index belonged to a column before, the drop of
        // that column has set the slots to zero under the lock: this thread must see its own slot so.
        self.index.load(Ordering::Acquire)
    }

    /// Calls `f` with the calling thread's slot. Returns `None` if the thread has none.
    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Slot) -> R) -> Option<R> {
        let index = self.index();
        let (slots, len) = MINE.try_with(|mine| (mine.slots.get(), mine.len.get())).unwrap_or((ptr::null(), 0));
        let slot = if index < len {
            // SAFETY: U1 (there are `len` slots).
            unsafe { slots.add(index) }
        } else {
            self.find()?.as_ptr().cast_const()
        };
        // SAFETY: U2 (this thread owns the block, and does not replace its slots in `f`).
        Some(f(unsafe { &*slot }))
    }

    /// Returns the calling thread's slot. Gives the column an index and the thread a block, as far as they have none.
    #[cold]
    #[inline(never)]
    fn find(&self) -> Option<NonNull<Slot>> {
        let busy = Busy::begin();
        if busy.outer {
            return None;
        }
        let index = self.assigned();
        OWNER.try_with(|owner| owner.slot(index)).ok()
    }

    /// Returns the column's index. Gives it one if it has none.
    fn assigned(&self) -> usize {
        let index = self.index();
        if index != Column::UNASSIGNED {
            return index;
        }
        BLOCKS.get().locked(|list| {
            // ORDERING: Relaxed, written under the lock.
            let index = self.index.load(Ordering::Relaxed);
            if index != Column::UNASSIGNED {
                return index;
            }
            let index = list.free_indices.pop().map_or(list.indices, |Reverse(index)| index);
            list.indices = list.indices.max(index + 1);
            // ORDERING: Release, pairs with the Acquire in `index`.
            self.index.store(index, Ordering::Release);
            index
        })
    }

    /// Returns the sum of all threads' totals, modulo 2^64. It has each count that happens before the call exactly once,
    /// and each concurrent one at most once.
    pub(crate) fn sum(&self) -> u64 {
        let index = self.index();
        if index == Column::UNASSIGNED {
            return 0;
        }
        BLOCKS.get().locked(|list| {
            let slots = list.blocks.iter().filter_map(|slots| slots.get(index));
            slots.fold(0_u64, |sum, slot| sum.wrapping_add(slot.get()))
        })
    }
}

impl Drop for Column {
    fn drop(&mut self) {
        let index = self.index();
        if index == Column::UNASSIGNED {
            return;
        }
        BLOCKS.get().locked(|list| {
            for slot in list.blocks.iter().filter_map(|slots| slots.get(index)) {
                slot.clear();
            }
            list.free_indices.push(Reverse(index));
        });
    }
}
