//! The memory of timers. The tests count bytes, so they run one after another.

mod common;

use common::clocked;
use epoch_registry::Registry;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

static ALONE: Mutex<()> = Mutex::new(());

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

const SECOND: Duration = Duration::from_secs(1);

/// Returns how many bytes `change` adds to a registry with `entries` entries, none of which expires soon.
fn growth_by(entries: u64, change: impl FnOnce(&Registry<u64, u64>)) -> usize {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (builder, _clock) = clocked::<u64, u64>();
    let registry = builder.shards(1).max_age(3600 * SECOND).build();
    for key in 0..entries {
        registry.try_insert(key, key).unwrap();
    }
    let before = HELD.load(SeqCst);
    change(&registry);
    HELD.load(SeqCst).saturating_sub(before)
}

#[test]
fn timers_do_not_pile_up_by_set_max_age() {
    let growth = growth_by(1000, |registry| {
        for round in 0..500 {
            registry.set_max_age(Some((3600 + round) * SECOND));
        }
    });
    println!("set_max_age 500 times: {} KB for 1000 entries", growth / 1024);
    assert!(growth < 256 * 1024);
}

#[test]
fn timers_do_not_pile_up_while_the_clock_stands_still() {
    let growth = growth_by(10, |registry| {
        for n in 0..300_000 {
            registry.insert(1, n);
        }
        registry.domain().barrier();
    });
    println!("300000 replacements of one key: {} KB", growth / 1024);
    assert!(growth < 256 * 1024);
}

#[test]
fn the_drop_of_a_registry_frees_its_timers_although_a_handle_is_left() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (builder, _clock) = clocked::<u64, u64>();
    let before = HELD.load(SeqCst);
    let registry = builder.shards(1).max_age(36000 * SECOND).build();
    for key in 0..100_000 {
        registry.try_insert(key, key).unwrap();
    }
    let handle = registry.lookup(&1).unwrap();
    let domain = registry.domain().clone();
    drop(registry);
    domain.barrier();
    let left = HELD.load(SeqCst).saturating_sub(before);
    println!("{} KB held by one handle", left / 1024);
    drop(handle);
    assert!(left < 256 * 1024, "{left}");
}
