//! What a thread keeps of domains that were dropped. The test counts bytes, so it has a process of its own.

mod common;

use common::times;
use epoch_registry::Domain;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// An allocator that counts the bytes that are allocated.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), SeqCst);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Returns a new domain that this thread has pinned.
fn visited() -> Domain {
    let domain = Domain::builder().manual().build();
    drop(domain.pin());
    domain
}

/// A registration takes 2 KB. The one with the last domain may still exist.
#[test]
fn a_thread_keeps_nothing_of_dropped_domains() {
    let kept: Vec<_> = (0..100).map(|_| visited()).collect();
    (0..10).for_each(|_| drop(visited()));
    let before = HELD.load(SeqCst);
    (0..times(100_000)).for_each(|_| drop(visited()));
    let after_each = HELD.load(SeqCst);
    assert!(after_each < before + 10_000, "{before} bytes grew to {after_each}, domain by domain");

    let many: Vec<_> = (0..1000).map(|_| visited()).collect();
    let most = HELD.load(SeqCst);
    drop(many);
    drop(visited());
    let after_all = HELD.load(SeqCst);
    // The table of registrations keeps its capacity.
    assert!(most > before + 2_000_000 && after_all < before + 100_000, "{before}, {most}, {after_all} bytes");

    // Another thread may drop the domain. A sweep that runs only when a thread drops its own domain would miss that.
    let (held, domain) = (HELD.load(SeqCst), visited());
    std::thread::spawn(move || drop(domain)).join().unwrap();
    drop(visited());
    let after = HELD.load(SeqCst);
    assert!(after < held + 10_000, "{held} bytes grew to {after}");
    drop(kept);
}
