//! Runs one of the main paths, so that its instructions can be counted. `.ci/instructions` counts and compares them,
//! and `.ci/locked` counts the locked instructions of writes.
//!
//! `instructions PATH N` runs an operation N times, after a setup that does not depend on N. So the difference
//! between two runs is the cost of the operation. The result does not depend on time, randomness or the C library:
//!
//! - Keys are hashed with fixed seeds.
//! - Memory is reclaimed only by explicit calls.
//! - Memory is allocated from one block and never freed.

use ahash::RandomState;
use epoch_registry::{Domain, Registry};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// An allocator that hands out consecutive pieces of one block.
struct Pieces {
    block: AtomicPtr<u8>,
    used: AtomicUsize,
}

const BLOCK: usize = 512 << 20;

// SAFETY: pieces are disjoint, aligned as requested (the block is aligned to 4096, the largest alignment served), and
// never reused.
unsafe impl GlobalAlloc for Pieces {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: Relaxed, here and below, because this program has one thread.
        if self.block.load(Relaxed).is_null() {
            // SAFETY: the size of the layout is not zero.
            self.block.store(unsafe { System.alloc(Layout::from_size_align(BLOCK, 4096).unwrap()) }, Relaxed);
        }
        let begin = self.used.load(Relaxed).next_multiple_of(layout.align());
        if begin + layout.size() > BLOCK || layout.align() > 4096 {
            return null_mut();
        }
        self.used.store(begin + layout.size(), Relaxed);
        self.block.load(Relaxed).wrapping_add(begin)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `GlobalAlloc::alloc_zeroed`, which is the contract of `alloc`.
        let piece = unsafe { self.alloc(layout) };
        if !piece.is_null() {
            // SAFETY: the piece is not null and has `layout.size()` bytes.
            unsafe { piece.write_bytes(0, layout.size()) };
        }
        piece
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static PIECES: Pieces = Pieces { block: AtomicPtr::new(null_mut()), used: AtomicUsize::new(0) };

const KEYS: u64 = 1000;
/// Added to a present key, gives an absent key.
const ABSENT: u64 = 1 << 32;
/// The number of keys from `ABSENT` on that are available to paths that only insert or only remove. It bounds the
/// operations of such a run.
const FRESH: u64 = 1 << 16;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (path, n) = (arguments.next().unwrap_or_default(), arguments.next());
    let n: u64 = n.and_then(|n| n.parse().ok()).expect("usage: instructions PATH N");
    let removes = path == "delete" || path == "remove";
    let grows = path == "add" || path == "try_insert" || removes;
    assert!(!grows || n <= FRESH, "N is at most {FRESH}");
    let capacity = if grows { 2 * FRESH } else { 2 * KEYS };
    let domain = Domain::builder().name("instructions").manual().build();
    let registry = Registry::<u64, u64>::builder()
        .domain(domain.clone())
        .shards(16)
        .capacity(capacity as usize)
        .hasher(RandomState::with_seeds(1, 2, 3, 4))
        .build();
    for key in 0..KEYS {
        registry.try_insert(key, key).unwrap();
    }
    if removes {
        (ABSENT..ABSENT + FRESH).for_each(|key| registry.add(key, key).unwrap());
    }
    let keys = (0..n).map(|i| i * 7919 % KEYS);
    let fresh = ABSENT..ABSENT + n;
    let sum: u64 = match path.as_str() {
        "session_get_hit" => {
            let mut reader = registry.reader();
            keys.map(|key| reader.get(black_box(&key)).map_or(0, |entry| *entry)).sum()
        }
        "session_get_miss" => {
            let mut reader = registry.reader();
            keys.map(|key| reader.get(black_box(&(key + ABSENT))).map_or(0, |entry| *entry)).sum()
        }
        "guard_get_hit" => {
            let guard = registry.pin();
            keys.map(|key| guard.get(black_box(&key)).map_or(0, |entry| *entry)).sum()
        }
        "pinned_get_hit" => keys.map(|key| registry.pin().get(black_box(&key)).map_or(0, |entry| *entry)).sum(),
        "lookup_and_put" => {
            let mut reader = registry.reader();
            keys.map(|key| reader.lookup(black_box(&key)).map_or(0, |entry| *entry)).sum()
        }
        "with_hit" => keys.map(|key| registry.with(black_box(&key), |entry| *entry).unwrap_or(0)).sum(),
        "get_or_insert_hit" => keys.map(|key| *registry.get_or_insert_with(black_box(key), || 0)).sum(),
        "pinned_lookup_and_put" => keys.map(|key| registry.lookup(black_box(&key)).map_or(0, |entry| *entry)).sum(),
        "batch_of_16" => {
            let guard = registry.pin();
            let batch: Vec<u64> = (0..16).map(|i| i * 61 % KEYS).collect();
            let mut sum = 0;
            for _ in 0..n / 16 {
                guard.get_batch(black_box(&batch), |_, entry| sum += entry.map_or(0, |entry| *entry));
            }
            sum
        }
        "try_insert_and_remove" => {
            let each = |key| {
                drop(black_box(registry.try_insert(key + ABSENT, key)));
                *registry.remove(&(key + ABSENT)).unwrap()
            };
            keys.map(each).sum()
        }
        "try_insert" => fresh.map(|key| u64::from(registry.try_insert(key, key).is_ok())).sum(),
        "remove" => fresh.map(|key| *registry.remove(&key).unwrap()).sum(),
        "add" => fresh.map(|key| u64::from(registry.add(key, key).is_ok())).sum(),
        "delete" => fresh.map(|key| u64::from(registry.delete(&key))).sum(),
        "add_and_delete" => {
            let each = |key| {
                let added = registry.add(key + ABSENT, key).is_ok();
                u64::from(added & registry.delete(&(key + ABSENT)))
            };
            keys.map(each).sum()
        }
        // One walk of all entries counts as `KEYS` operations.
        "iterate" => {
            let guard = registry.pin();
            (0..n / KEYS).map(|_| guard.iter().map(|entry| *entry).sum::<u64>()).sum()
        }
        "set" => keys.map(|key| u64::from(registry.set(key, key))).sum(),
        "insert" => keys.map(|key| *registry.insert(key, key).unwrap()).sum(),
        "remove_and_destroy" => {
            let mut sum = 0;
            for key in keys {
                drop(black_box(registry.try_insert(key + ABSENT, key)));
                sum += *registry.remove(&(key + ABSENT)).unwrap();
                if key % 64 == 0 {
                    domain.reclaim(usize::MAX);
                }
            }
            sum
        }
        other => panic!("there is no path `{other}`"),
    };
    black_box(sum);
    // The registry is leaked, so that its teardown is not counted.
    std::mem::forget(registry);
}
