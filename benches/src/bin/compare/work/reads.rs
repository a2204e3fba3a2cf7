//! Reads of a map without writers: borrowed and owned, hits and misses, single keys and batches.

use super::Results;
use crate::cases::Case;
use crate::harness::interleave;
use crate::keys::{Draw, Key, Pattern};
use crate::peers::Maps;
use crate::peers::ids::Ids;
use crate::plan::Plan;
use std::sync::Arc;

pub const BORROWED: &str = "borrowed reads";
pub const OWNED: &str = "owned reads";

/// Returns the case of a read workload.
pub fn case<K: Key>(group: &'static str, owned: bool, pattern: Pattern, size: usize, threads: usize) -> Case {
    let work = if owned { OWNED } else { BORROWED };
    Case { group, work, what: format!("{} keys, {}", K::NAME, pattern.name()), size, threads }
}

/// Returns the number of keys that a thread reads in a turn. Both the quarter that does not count and the rest are
/// multiples of 32.
fn count(plan: &Plan, size: usize) -> usize {
    plan.amount(if size <= 100_000 { 16_384 } else { 32_768 }, 1_024)
}

fn rounds(plan: &Plan, size: usize) -> usize {
    plan.rounds(match size {
        ..=100_000 => 31,
        100_001..=1_000_000 => 21,
        _ => 11,
    })
}

pub fn run(plan: &Plan, results: &mut Results) {
    for &size in &plan.sizes {
        let patterns = |pattern: &Pattern| *pattern != Pattern::Zipf || size <= 1_000_000;
        {
            let maps = Maps::<u64, u64>::filled(size);
            let ids = Ids::<u64>::filled(size);
            #[cfg(feature = "liburcu")]
            let (qsbr, memb) = (crate::peers::urcu::Qsbr::filled(size), crate::peers::urcu::Memb::filled(size));
            #[cfg(feature = "dpdk")]
            let dpdk = crate::peers::dpdk::Dpdk::filled(size);
            for pattern in [Pattern::Uniform, Pattern::Zipf, Pattern::Missing].into_iter().filter(patterns) {
                let draw = Draw::new(pattern, size);
                for threads in plan.threads() {
                    let lanes = || {
                        let mut lanes = maps.lanes(false);
                        if pattern != Pattern::Missing {
                            lanes.extend(ids.lanes(false));
                        }
                        #[cfg(feature = "liburcu")]
                        lanes.extend(qsbr.lanes().into_iter().chain(memb.lanes()));
                        #[cfg(feature = "dpdk")]
                        lanes.extend(dpdk.lanes());
                        lanes
                    };
                    let keys = |round, thread| draw.sets(count(plan, size), seed(round, thread));
                    let series = interleave(threads, rounds(plan, size), keys, lanes);
                    results.add(case::<u64>("reads", false, pattern, size, threads), "ns/read", series);
                }
            }
        }
        {
            let maps = Maps::<u64, Arc<u64>>::filled(size);
            let ids = Ids::<Arc<u64>>::filled(size);
            for pattern in [Pattern::Uniform, Pattern::Zipf].into_iter().filter(patterns) {
                let draw = Draw::new(pattern, size);
                for threads in plan.threads() {
                    let lanes = || maps.lanes(true).into_iter().chain(ids.lanes(true)).collect();
                    let keys = |round, thread| draw.sets(count(plan, size), seed(round, thread));
                    let series = interleave(threads, rounds(plan, size), keys, lanes);
                    results.add(case::<u64>("reads", true, pattern, size, threads), "ns/read", series);
                }
            }
        }
        if size <= 1_000_000 {
            of_keys::<[u8; 16]>(plan, size, results);
            of_keys::<String>(plan, size, results);
        }
    }
}

/// Measures borrowed hits by one thread, with keys of type `K`.
fn of_keys<K: Key>(plan: &Plan, size: usize, results: &mut Results) {
    let (maps, draw) = (Maps::<K, u64>::filled(size), Draw::new(Pattern::Uniform, size));
    let keys = |round, thread| draw.sets(count(plan, size), seed(round, thread));
    let series = interleave(1, rounds(plan, size), keys, || maps.lanes(false));
    results.add(case::<K>("reads", false, Pattern::Uniform, size, 1), "ns/read", series);
}

/// Measures reads of one key by all cores. With a reference count, its cache line moves between the cores.
pub fn hot(plan: &Plan, results: &mut Results) {
    let (size, draw) = (1_000, Draw::new(Pattern::Hot, 1_000));
    let (borrowed, owned) = (Maps::<u64, u64>::filled(size), Maps::<u64, Arc<u64>>::filled(size));
    for threads in plan.threads() {
        let keys = |round, thread| draw.sets(count(plan, size), seed(round, thread));
        let series = interleave(threads, rounds(plan, size), keys, || borrowed.lanes(false));
        results.add(case::<u64>("hot", false, Pattern::Hot, size, threads), "ns/read", series);
        let series = interleave(threads, rounds(plan, size), keys, || owned.lanes(true));
        results.add(case::<u64>("hot", true, Pattern::Hot, size, threads), "ns/read", series);
    }
}

/// Returns a different seed for each round of each thread.
pub fn seed(round: usize, thread: usize) -> u64 {
    (round * 64 + thread + 1) as u64
}
