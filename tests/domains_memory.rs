//! What a thread keeps of domains that are gone: bytes are counted, so this is one test in a process of its own.

mod common;

use common::times;
use epoch_registry::Domain;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Counts what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: as the system's, which does it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A new domain in which this thread has been.
fn visited() -> Domain {
    let domain = Domain::builder().manual().build();
    drop(domain.pin());
    domain
}

/// A registration takes 2 KB. That of the domain that was last may be there still.
#[test]
fn a_thread_keeps_nothing_of_domains_that_are_gone() {
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
    // The table keeps its room.
    assert!(most > before + 2_000_000 && after_all < before + 100_000, "{before}, {most}, {after_all} bytes");

    // A sweep that came only at the end of the domain's thread would be too late for a domain that ends on another.
    let (held, domain) = (HELD.load(SeqCst), visited());
    std::thread::spawn(move || drop(domain)).join().unwrap();
    drop(visited());
    let after = HELD.load(SeqCst);
    assert!(after < held + 10_000, "{held} bytes grew to {after}");
    drop(kept);
}
