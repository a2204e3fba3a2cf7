//! The memory that a flood of writes takes. The tests count the allocations of their process, so they have a process of
//! their own.

mod common;

use common::flood::*;
use common::*;
use epoch_registry::{Domain, Registry};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The system's allocator, with a count of the bytes that are allocated and of their peak.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls go to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(BYTES.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;

/// The memory that a flood may usually take beyond what is live.
const USUAL: usize = 16 * MIB;
/// The memory that it may take if a thread is descheduled at a bad moment.
const MOST: usize = 64 * MIB;
/// The memory at which a flood is ended early.
const TOO_MUCH: usize = 256 * MIB;

/// The bytes that are allocated now beyond `before`.
fn more_than(before: usize) -> usize {
    BYTES.load(Relaxed).saturating_sub(before)
}

/// Checks that memory stays near `live` bytes while `works` run.
fn stays_near(what: &str, live: usize, works: &[Work<'_>]) {
    let before = BYTES.load(Relaxed);
    let time = Duration::from_millis(times(700) as u64);
    PEAK.store(before, Relaxed);
    let samples =
        amid(works, || Samples::take(time, (live + TOO_MUCH) as u64, || more_than(before).saturating_sub(live) as u64));
    let peak = PEAK.load(Relaxed).saturating_sub(before + live);
    let usual = samples.usual_most() as usize;
    println!("{what}: beyond {live} bytes, at most {usual} for nine tenths of the time, and {peak} at any time");
    assert!(usual < USUAL && peak < MOST, "{what}: {usual} and {peak} bytes more than what is live");
}

type Small = Registry<u64, [u8; 64]>;

/// A session that looks keys up in a loop.
fn reading<'w>(registry: &'w Small, keys: u64) -> Work<'w> {
    Box::new(move |n| {
        let mut reader = registry.reader();
        for key in 0..50_000 {
            assert!(reader.get(&((n + key) % keys)).is_none_or(|value| value[0] < 2));
        }
    })
}

fn replacing<'w>(registry: &'w Small, keys: u64) -> Work<'w> {
    thread_local!(static RNG: RefCell<Option<Rng>> = const { RefCell::new(None) });
    Box::new(move |n| {
        let key = RNG.with_borrow_mut(|rng| rng.get_or_insert_with(|| Rng::new(n + keys)).below(keys));
        drop(registry.insert(key, [1; 64]));
    })
}

/// A key-value server: two writers at full speed, and a session that reads.
#[test]
fn a_server_takes_little_more_than_its_live_entries() {
    const KEYS: u64 = 10_000;
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let registry: Small = Registry::builder().domain(builder.build()).build();
            (0..KEYS).for_each(|key| drop(registry.try_insert(key, [0; 64])));
            let works = [replacing(&registry, KEYS), replacing(&registry, KEYS), reading(&registry, KEYS)];
            stays_near(&format!("a server, {driver}"), 0, &works);
        }
    });
}

/// The same server in the global domain, as in most programs.
#[test]
fn a_server_in_the_global_domain_takes_little_more_than_its_live_entries() {
    const KEYS: u64 = 10_000;
    let _alone = alone();
    in_time(|| {
        let registry = Small::new();
        (0..KEYS).for_each(|key| drop(registry.try_insert(key, [0; 64])));
        let works = [replacing(&registry, KEYS), replacing(&registry, KEYS), reading(&registry, KEYS)];
        stays_near("a server in the global domain", 0, &works);
    });
}

/// A cache of 1 MiB whose keys hardly ever come again.
#[test]
fn a_cache_bounded_by_weight_takes_little_more_than_its_bound() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let registry: Small = Registry::builder().domain(builder.build()).max_weight(MIB as u64).build();
            let works = [replacing(&registry, 1 << 30), replacing(&registry, 1 << 30), reading(&registry, 1 << 30)];
            stays_near(&format!("a cache, {driver}"), 2 * MIB, &works);
        }
    });
}

/// The values take 4 KiB each, but the registry has no weigher.
#[test]
fn large_values_take_little_more_than_the_live_entries() {
    const KEYS: u64 = 100;
    let _alone = alone();
    in_time(|| {
        let registry: Registry<u64, Box<[u8; 4096]>> = Registry::builder().domain(Domain::new()).build();
        let writer = || -> Work<'_> { Box::new(|n| drop(registry.insert(n % KEYS, Box::new([1; 4096])))) };
        stays_near("large values", MIB, &[writer(), writer()]);
    });
}

/// The callbacks hold memory, and one writer runs beside them.
#[test]
fn callbacks_take_little_more_than_the_live_entries() {
    let _alone = alone();
    in_time(|| {
        let registry = Small::builder().domain(Domain::new()).build();
        let caller = || -> Work<'_> {
            Box::new(|_| {
                let value = [1u8; 256];
                registry.domain().call(move || assert_eq!(std::hint::black_box(value)[0], 1));
            })
        };
        stays_near("callbacks", MIB, &[caller(), replacing(&registry, 10)]);
    });
}

/// One thread inserts and clears in rounds. No other thread delays it.
#[test]
fn refilling_and_clearing_many_times_takes_the_memory_of_a_few_rounds() {
    const ROUND: u64 = 100_000;
    let _alone = alone();
    in_time(|| {
        let registry: Registry<u64, u64> = isolated_builder().build();
        let before = BYTES.load(Relaxed);
        let fill = || (0..ROUND).for_each(|key| drop(registry.try_insert(key, key)));
        fill();
        let one = more_than(before);
        PEAK.store(0, Relaxed);
        for round in 0..times(10) {
            registry.clear();
            fill();
            let most = PEAK.load(Relaxed).saturating_sub(before);
            assert!(most <= 4 * one, "{most} bytes after {round} rounds that need {one} each");
        }
        println!("{} bytes at most, in rounds of {one}", PEAK.load(Relaxed).saturating_sub(before));
    });
}
