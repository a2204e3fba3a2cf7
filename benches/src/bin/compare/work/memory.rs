//! Bytes that an entry takes, by an allocator that counts.

use super::Results;
use super::writes::case;
use crate::cases::{Idiom, Kind, Series};
use crate::keys::Value;
use crate::peers::{Map, hasher, of_every_map};
use crate::plan::Plan;
use epoch_registry::{Domain, Registry};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub const REQUESTED: &str = "bytes requested";

/// The system's allocator, which counts while it is told to.
pub struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static REQUESTED_BYTES: AtomicUsize = AtomicUsize::new(0);
static TAKEN_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What glibc's malloc takes for a request: a word more, in steps of 16 bytes, 32 at least.
fn taken(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16).max(32)
}

/// Counts bytes that come, or (negated) go.
fn count(sign: isize, bytes: usize) {
    // ORDERING: Relaxed, here and below: figures that order nothing.
    if COUNTING.load(Ordering::Relaxed) {
        REQUESTED_BYTES.fetch_add(bytes.wrapping_mul(sign as usize), Ordering::Relaxed);
        TAKEN_BYTES.fetch_add(taken(bytes).wrapping_mul(sign as usize), Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-1, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(-1, layout.size());
        count(1, size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes for each entry of what `fill` makes: requested, and taken.
fn weigh<T>(size: usize, fill: impl FnOnce() -> T) -> [f64; 2] {
    REQUESTED_BYTES.store(0, Ordering::Relaxed);
    TAKEN_BYTES.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::Relaxed);
    let filled = fill();
    COUNTING.store(false, Ordering::Relaxed);
    drop(filled);
    [&REQUESTED_BYTES, &TAKEN_BYTES].map(|bytes| bytes.load(Ordering::Relaxed) as f64 / size as f64)
}

struct Weighed {
    name: &'static str,
    kind: Kind,
    bytes: [f64; 2],
}

fn weighed<M: Map<u64>>(size: usize) -> Weighed {
    Weighed { name: M::NAME, kind: M::KIND, bytes: weigh(size, || M::filled(size)) }
}

/// A registry with a bound on its entries, ages, idle times, and a listener.
fn full(size: usize) -> Registry<u64, u64> {
    let day = Duration::from_secs(86_400);
    let builder = Registry::builder().domain(Domain::new()).hasher(hasher()).capacity(size);
    let registry = builder.max_entries(2 * size).max_age(day).max_idle(day).listener(|_, _| ()).build();
    (0..size as u64).for_each(|number| drop(registry.insert(number, number)));
    assert_eq!(registry.len(), size);
    registry
}

pub fn run(plan: &Plan, results: &mut Results) {
    let size = plan.amount(1_000_000, 2_000);
    of_values::<Arc<u64>>(size, results);
    of_values::<u64>(size, results);
}

fn of_values<V: Value>(size: usize, results: &mut Results) {
    let mut all: Vec<Weighed> = of_every_map!(V, weighed(size));
    all.insert(
        1,
        Weighed { name: "ours, with bounds, ages and listener", kind: Kind::Ours, bytes: weigh(size, || full(size)) },
    );
    for (point, work) in [REQUESTED, "bytes with malloc's own (glibc)"].into_iter().enumerate() {
        let series = all.iter().map(|weighed| Series {
            name: weighed.name,
            idiom: Idiom::Each,
            kind: weighed.kind,
            rounds: vec![weighed.bytes[point]],
        });
        results.add(case::<V>("memory", work, size), "bytes/entry", series.collect());
    }
}
