//! What a registry of a million entries takes, and what is left of it when nearly all of them are reaped.
//!
//! `cargo run --release --example memory`. Counts every byte asked of the allocator. Exits with an error if what is
//! left is a tenth or more.

#![allow(unsafe_code)]

use epoch_registry::{Domain, ManualClock, Registry};
use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The system's allocator, with a count of the bytes in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator, as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: Relaxed (all of this file), a count.
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ENTRIES: u64 = 1_000_000;

fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

fn main() -> ExitCode {
    let mut fits = true;
    for (title, by_age) in [("99% reaped by age", true), ("99% reaped at random", false)] {
        let before = in_use();
        let (clock, domain) = (ManualClock::new(), Domain::new());
        let registry = Registry::builder().domain(domain.clone()).clock(clock.clone()).build();
        for key in 0..ENTRIES {
            if key == ENTRIES / 100 * 99 {
                clock.advance(Duration::from_secs(60));
            }
            assert!(registry.insert(key, key).is_ok(), "keys differ");
        }
        domain.barrier();
        let full = in_use() - before;
        let reaped = if by_age {
            registry.reap_older_than(Duration::from_secs(30), usize::MAX).removed
        } else {
            registry
                .reap_if(usize::MAX, |entry| entry.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 >= (1 << 32) / 100)
                .removed
        };
        domain.barrier();
        let left = in_use() - before;
        println!("{title}:");
        println!("  {ENTRIES} entries of u64 to u64: {:.1} bytes each", full as f64 / ENTRIES as f64);
        println!("  {reaped} reaped, {} left: {:.1}% of the memory", registry.len(), 100.0 * left as f64 / full as f64);
        fits &= left * 10 < full;
        drop(registry);
        drop(domain);
        println!("  {} bytes left when the registry is gone", in_use() - before);
    }
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
