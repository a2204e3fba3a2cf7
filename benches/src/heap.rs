//! The system's allocator, extended by counts of the bytes in use and of their peak.
//!
//! To use it, a program declares `#[global_allocator] static ALLOCATOR: heap::Counting = heap::Counting;`. Counting
//! begins at [`start`]. Before that, each allocation costs one extra load.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

/// The system's allocator, which counts between [`start`] and [`stop`].
#[derive(Debug)]
pub struct Counting;

// ORDERING: Relaxed for all accesses to these statics: they are statistics, and order nothing.
static COUNTING: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static TAKEN: AtomicIsize = AtomicIsize::new(0);

/// Byte counts since [`start`]. A count is negative if the program freed more than it allocated.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// Bytes allocated and not freed, by their requested sizes.
    pub in_use: isize,
    /// The largest value of `in_use` so far.
    pub peak: isize,
    /// `in_use` with the overhead of glibc's malloc.
    pub taken: isize,
}

/// Starts counting from zero.
pub fn start() {
    for figure in [&IN_USE, &PEAK, &TAKEN] {
        figure.store(0, Relaxed);
    }
    COUNTING.store(true, Relaxed);
}

/// Returns the counts so far.
pub fn bytes() -> Bytes {
    Bytes { in_use: IN_USE.load(Relaxed), peak: PEAK.load(Relaxed), taken: TAKEN.load(Relaxed) }
}

/// Resets the peak to the bytes now in use.
pub fn restart_peak() {
    PEAK.store(IN_USE.load(Relaxed), Relaxed);
}

/// Stops counting, and returns the counts.
pub fn stop() -> Bytes {
    COUNTING.store(false, Relaxed);
    bytes()
}

/// Returns the bytes that glibc's malloc takes for a request: one word more, rounded up to 16 bytes, and at least 32.
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

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // SAFETY: the caller upholds the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // SAFETY: the caller upholds the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        freed(layout.size());
        // SAFETY: the pointer comes from `System`, and the caller upholds the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        freed(layout.size());
        allocated(size);
        // SAFETY: the pointer comes from `System`, and the caller upholds the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
