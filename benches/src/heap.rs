//! The system's allocator, with a count of the bytes in use and of their peak.
//!
//! A program that counts declares `#[global_allocator] static ALLOCATOR: heap::Counting = heap::Counting;`. Nothing is
//! counted before [`start`]: until then an allocation costs one load more.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

/// The system's allocator, which counts between [`start`] and [`stop`].
#[derive(Debug)]
pub struct Counting;

// ORDERING: Relaxed for all of these: figures that order nothing.
static COUNTING: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static TAKEN: AtomicIsize = AtomicIsize::new(0);

/// Bytes since [`start`]. They are negative where more was freed than allocated.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// Allocated and not freed, as requested.
    pub in_use: isize,
    /// The largest `in_use` so far.
    pub peak: isize,
    /// As `in_use`, with what glibc's malloc adds.
    pub taken: isize,
}

/// Begins to count, from zero.
pub fn start() {
    for figure in [&IN_USE, &PEAK, &TAKEN] {
        figure.store(0, Relaxed);
    }
    COUNTING.store(true, Relaxed);
}

/// The count so far.
pub fn bytes() -> Bytes {
    Bytes { in_use: IN_USE.load(Relaxed), peak: PEAK.load(Relaxed), taken: TAKEN.load(Relaxed) }
}

/// Begins a new peak, at what is in use now.
pub fn restart_peak() {
    PEAK.store(IN_USE.load(Relaxed), Relaxed);
}

/// Stops counting. Returns the count.
pub fn stop() -> Bytes {
    COUNTING.store(false, Relaxed);
    bytes()
}

/// What glibc's malloc takes for a request: a word more, in steps of 16 bytes, 32 at least.
fn taken(bytes: usize) -> isize {
    (bytes + 8).next_multiple_of(16).max(32) as isize
}

fn allocated(bytes: usize) {
    if COUNTING.load(Relaxed) {
        let in_use = IN_USE.fetch_add(bytes as isize, Relaxed) + bytes as isize;
        PEAK.fetch_max(in_use, Relaxed);
        TAKEN.fetch_add(taken(bytes), Relaxed);
    }
}

fn freed(bytes: usize) {
    if COUNTING.load(Relaxed) {
        IN_USE.fetch_sub(bytes as isize, Relaxed);
        TAKEN.fetch_sub(taken(bytes), Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        freed(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        freed(layout.size());
        allocated(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
