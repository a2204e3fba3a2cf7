//! Operations on the whole map: iteration and teardown.

use super::Results;
use super::reads::seed;
use super::writes::{case, shuffled};
use crate::cases::{Idiom, Kind};
use crate::harness::{Lane, Sample, interleave, interleave_weighed};
use crate::keys::{Key, Value};
use crate::peers::ours::{IN_MEMORY_ORDER, Ours};
use crate::peers::{Map, Maps, of_every_map};
use crate::plan::Plan;
use std::sync::Arc;
use std::time::Instant;

pub const WALK: &str = "walk over all entries";
pub const DESTROY: &str = "destroy the whole map";

/// Measures iteration over all entries.
pub fn iteration(plan: &Plan, results: &mut Results) {
    for &size in plan.sizes.iter().filter(|&&size| size <= 1_000_000) {
        walks::<u64>(plan, size, results);
        walks::<Arc<u64>>(plan, size, results);
    }
}

fn walks<V: Value>(plan: &Plan, size: usize, results: &mut Results) {
    fn lane<'m, K: Key, M: Map<K>>(map: &'m M, size: usize) -> Lane<'m, ()> {
        Lane::new(M::NAME, Idiom::Held, M::KIND, move |()| {
            let begin = Instant::now();
            let sum = map.sum();
            Sample::new(begin.elapsed(), size, sum)
        })
    }
    fn ordered<V: Value>(map: &Ours<u64, V>, size: usize) -> Lane<'_, ()> {
        Lane::new(IN_MEMORY_ORDER, Idiom::Held, Kind::Ours, move |()| {
            let begin = Instant::now();
            let sum = map.sum_in_memory_order();
            Sample::new(begin.elapsed(), size, sum)
        })
    }
    let maps = Maps::<u64, V>::filled(size);
    let lanes = || {
        vec![
            lane(&maps.ours, size),
            ordered(&maps.ours, size),
            lane(&maps.papaya, size),
            lane(&maps.index, size),
            lane(&maps.flurry, size),
            lane(&maps.scc, size),
            lane(&maps.dashmap, size),
            lane(&maps.rwlock, size),
            lane(&maps.mutex, size),
        ]
    };
    let series = interleave(1, plan.rounds(15), |_, _| (), lanes);
    results.add(case::<V>("iteration", WALK, size), "ns/entry", series);
}

fn teardown_lane<M: Map<u64>>() -> Lane<'static, Vec<u64>> {
    Lane::new(M::NAME, Idiom::Each, M::KIND, |keys: &Vec<u64>| {
        let map = M::with_capacity(keys.len());
        keys.iter().for_each(|&key| assert!(map.insert(key, key)));
        let begin = Instant::now();
        map.destroy();
        Sample::new(begin.elapsed(), keys.len(), 0)
    })
}

/// Measures the destruction of a map of a million entries. For ours, the time includes a barrier.
pub fn teardown(plan: &Plan, results: &mut Results) {
    let size = plan.amount(1_000_000, 2_000);
    let keys = |round, thread| shuffled(size, seed(round, thread));
    let series = interleave_weighed(1, plan.rounds(5), keys, || of_every_map!(Arc<u64>, teardown_lane()));
    results.add(case::<Arc<u64>>("teardown", DESTROY, size), "ns/entry", series);
}
