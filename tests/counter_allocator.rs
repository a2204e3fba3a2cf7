//! A global allocator that counts its calls with a `Counter`. The crate itself allocates when a thread counts for the first
//! time, so the counter is called from within its own steps.

use epoch_registry::Counter;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::thread;

struct Counting;

static COUNTED: Counter = Counter::with_batch(16);
static EXACT: AtomicI64 = AtomicI64::new(0);

// SAFETY: it allocates by `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTED.increment();
        EXACT.fetch_add(1, SeqCst);
        // SAFETY: the caller guarantees what `System` needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        COUNTED.decrement();
        EXACT.fetch_sub(1, SeqCst);
        // SAFETY: the caller guarantees what `System` needs.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_allocator_that_counts_neither_deadlocks_nor_loses_a_count() {
    for round in 0..100 {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(move || {
                    // Other counters have blocks grow.
                    let counters: Vec<_> = (0..round * 5).map(|_| Counter::new()).collect();
                    counters.iter().for_each(Counter::increment);
                    assert!(counters.iter().all(|counter| counter.sum() == 1));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    // The test harness has a thread that allocates at times, so one look may meet it at work. A lost count would stay lost.
    let is_exact = (0..1000).any(|_| {
        thread::yield_now();
        COUNTED.sum() == EXACT.load(SeqCst)
    });
    assert!(is_exact, "{} counted, of {}", COUNTED.sum(), EXACT.load(SeqCst));
}
