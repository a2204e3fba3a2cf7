//! The introductory example of the RCU literature: 8 threads look up 1,000 endpoints, ten million times each. The peers
//! are a spinlock, a mutex and a reader-writer lock.

use super::Results;
use super::reads::seed;
use crate::cases::{Case, Idiom, Kind};
use crate::harness::{Lane, Sample, interleave};
use crate::keys::{Draw, Pattern};
use crate::peers::locks::{Exclusive, Shared};
use crate::peers::ours::Ours;
use crate::peers::{Map, Reads, hasher};
use crate::plan::Plan;
use ahash::RandomState;
use hashbrown::HashMap;
use std::cell::UnsafeCell;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const ENDPOINTS: usize = 1_000;
const THREADS: usize = 8;
/// The number of lookups of each thread in a turn.
const LOOKUPS: usize = 10_000_000;
/// The number of keys that a thread draws for a turn. It looks all of them up again and again.
const KEYS: usize = 16_384;

/// A map behind a test-and-test-and-set spinlock. After long spinning a thread yields: with more threads than cores,
/// the holder of the lock may be waiting for a core.
struct Spinning {
    locked: AtomicBool,
    map: UnsafeCell<HashMap<u64, u64, RandomState>>,
}

// SAFETY: the map is only accessed while the lock is held.
unsafe impl Sync for Spinning {}

impl Spinning {
    fn filled() -> Spinning {
        let mut map = HashMap::with_capacity_and_hasher(ENDPOINTS, hasher());
        map.extend((0..ENDPOINTS as u64).map(|number| (number, number)));
        Spinning { locked: AtomicBool::new(false), map: UnsafeCell::new(map) }
    }

    #[inline]
    fn get(&self, key: &u64) -> Option<u64> {
        // ORDERING: Acquire, pairs with the Release below, so that the previous section is visible. Relaxed while
        // spinning, because the swap follows.
        while self.locked.swap(true, Ordering::Acquire) {
            let mut spins = 0_u32;
            while self.locked.load(Ordering::Relaxed) {
                spins += 1;
                if spins & 4095 == 0 { std::thread::yield_now() } else { spin_loop() }
            }
        }
        // SAFETY: this thread holds the lock.
        let value = unsafe { &*self.map.get() }.get(key).copied();
        self.locked.store(false, Ordering::Release);
        value
    }
}

/// Looks the keys up `times` times, so often that the threads overlap however they are scheduled.
fn lookups(keys: &[u64], times: usize, mut read: impl FnMut(&u64) -> Option<u64>) -> Sample {
    let (begin, mut sum) = (Instant::now(), 0_u64);
    for _ in 0..times {
        sum = black_box(keys).iter().fold(sum, |sum, key| sum.wrapping_add(read(key).unwrap_or(1)));
    }
    Sample::new(begin.elapsed(), keys.len() * times, sum)
}

pub fn case() -> Case {
    let what = "u64 keys, uniform".into();
    Case { group: "seed", work: "lookups of endpoints", what, size: ENDPOINTS, threads: THREADS }
}

pub fn run(plan: &Plan, results: &mut Results) {
    let ours = Ours::<u64>::filled(ENDPOINTS);
    let (spinlock, mutex) = (Spinning::filled(), Exclusive::<u64, u64>::filled(ENDPOINTS));
    let rwlock = Shared::<u64, u64>::filled(ENDPOINTS);
    let draw = Draw::new(Pattern::Uniform, ENDPOINTS);
    let times = plan.amount(LOOKUPS / KEYS, 1);
    let keys = |round, thread| draw.keys(plan.amount(KEYS, 1_024), seed(round, thread));
    let lanes = || {
        vec![
            Lane::new("ours", Idiom::Session, Kind::Ours, |keys: &Vec<u64>| lookups(keys, times, ours.session::<1>())),
            Lane::new("ours", Idiom::Each, Kind::Ours, |keys: &Vec<u64>| lookups(keys, times, |key| ours.get(key))),
            Lane::new("spinlock", Idiom::Each, Kind::Locking, |keys: &Vec<u64>| {
                lookups(keys, times, |key| spinlock.get(key))
            }),
            Lane::new("mutex", Idiom::Each, Kind::Locking, |keys: &Vec<u64>| {
                lookups(keys, times, |key| mutex.get(key))
            }),
            Lane::new("reader-writer lock", Idiom::Each, Kind::Locking, |keys: &Vec<u64>| {
                lookups(keys, times, |key| rwlock.get(key))
            }),
        ]
    };
    results.add(case(), "ns/lookup", interleave(THREADS, plan.rounds(3), keys, lanes));
}
