//! Memory of tables and slabs that is freed, and capacities that are too large.

mod common;

use common::*;
use epoch_registry::{Registry, SlabSize};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// An allocator that counts, for each thread, the bytes that the thread has allocated and not freed.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    HELD.with(|held| held.set(held.get() + bytes));
}

// SAFETY: all calls go to the system's allocator. The counter needs no destructor and no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// In these tests one thread does everything, as the domain has no thread.
fn held() -> isize {
    HELD.with(Cell::get)
}

/// A slab is freed when its last entry has gone. So little stays after removals in the order of insertion. After removals
/// at random, at most a slab stays for each entry that is left, and large slabs keep more than small ones.
#[test]
fn slabs_of_either_size_are_freed_when_their_entries_have_gone() {
    const ENTRIES: u64 = 50_000;
    /// What a shard may keep beside the slabs of its entries: a slab for its next entries, bags, and timers.
    const KEPT: isize = 16 << 10;
    let last: &dyn Fn(u64) -> bool = &|key| key >= ENTRIES / 100 * 99;
    let random: &dyn Fn(u64) -> bool = &|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (1 << 32) / 100;

    let left = |slab, keeps: &dyn Fn(u64) -> bool| {
        let registry: Registry<u64, u64> = isolated_builder().slab_size(slab).build();
        let size = if slab == SlabSize::Small { 1024 } else { 4096 };
        let shards = registry.shard_count() as isize;
        // The bytes of slabs and bags.
        let used = || held() - registry.table_bytes() as isize;
        let fill = || (0..ENTRIES).for_each(|key| assert!(!registry.set(key, key)));
        let reduce_to = |keeps: &dyn Fn(u64) -> bool| {
            registry.retain(|key, _| keeps(*key));
            registry.domain().barrier();
            registry.shrink_to_fit();
            registry.domain().barrier();
        };
        // The first round allocates the bags, which the domain keeps.
        fill();
        reduce_to(&|_| false);
        let before = used();
        fill();
        // The tables that have grown are freed then.
        registry.domain().barrier();
        let full = used() - before;
        assert!((31 * ENTRIES as isize..36 * ENTRIES as isize).contains(&full), "{slab:?}: {full} bytes");
        reduce_to(keeps);
        let (left, entries) = (used() - before, registry.len() as isize);
        println!("{slab:?}: {full} bytes, {left} bytes left with {entries} entries");
        assert!(left < entries * size + shards * KEPT, "{slab:?}: {left} bytes left with {entries} entries");
        reduce_to(&|_| false);
        assert!(used() - before < shards * KEPT, "{slab:?}: {} bytes left without entries", used() - before);
        left * 100 / full
    };
    let (small, large) = (left(SlabSize::Small, last), left(SlabSize::Large, last));
    assert!(small <= 5 && large <= 5, "in the order of insertion: {small}% and {large}% left");
    let (small, large) = (left(SlabSize::Small, random), left(SlabSize::Large, random));
    assert!(small <= 35 && large > 2 * small, "at random: {small}% and {large}% left");
}

#[test]
fn shrink_to_fit_frees_what_an_empty_registry_does_not_need() {
    let registry: Registry<u64, u64> = isolated_builder().capacity(1_000_000).build();
    let smallest = isolated::<u64, u64>().table_bytes();
    registry.shrink_to_fit();
    assert!(registry.table_bytes() <= 4 * smallest, "{} left", registry.table_bytes());
}

#[test]
fn a_sweep_that_empties_a_registry_frees_its_tables() {
    let registry: Registry<u64, u64> = isolated();
    let smallest = registry.table_bytes();
    let sweeps: [&dyn Fn(); 3] =
        [&|| registry.retain(|_, _| false), &|| assert_eq!(registry.drain().count(), 50_000), &|| {
            assert_eq!(registry.reap_if(usize::MAX, |_| true).removed, 50_000)
        }];
    for sweep in sweeps {
        (0..50_000).for_each(|key| drop(registry.try_insert(key, key)));
        sweep();
        assert!(registry.is_empty());
        assert!(registry.table_bytes() <= 16 * smallest, "{} left, of {smallest}", registry.table_bytes());
    }
}

/// The least capacity of the tests that is beyond the address space, for any number of bytes an entry.
const BEYOND: usize = usize::MAX / if usize::BITS == 64 { 8 } else { 2 };

/// std's collections do the same.
#[test]
fn a_capacity_beyond_the_address_space_panics() {
    for capacity in [usize::MAX, usize::MAX / 2, BEYOND] {
        for build in [true, false] {
            let (done, result) = channel();
            thread::spawn(move || {
                let message = panic_of(|| match build {
                    true => drop(isolated_builder::<u64, u64>().capacity(capacity).build()),
                    false => isolated::<u64, u64>().reserve(capacity),
                });
                done.send(message).unwrap();
            });
            assert!(
                result.recv_timeout(Duration::from_secs(5)).is_ok(),
                "the call with capacity {capacity:x} did not return"
            );
        }
    }
}

#[test]
fn a_reserve_that_panics_leaves_the_registry_unchanged() {
    let registry: Registry<u64, u64> = isolated();
    (0..100).for_each(|key| drop(registry.try_insert(key, key)));
    panic_of(|| registry.reserve(BEYOND));
    assert!((0..100).all(|key| registry.contains_key(&key)));
    registry.clear();
    assert!(registry.is_empty());
    assert!((0..1000).all(|key| registry.try_insert(key, key).is_ok()));
}
