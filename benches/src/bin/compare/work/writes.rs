//! Writes by one thread: inserts into a presized map, removals, churn at constant size, and replacements. Ours is
//! written in three ways: without handles, with handles, and many keys in one call (except for churn, which goes key
//! by key).
//!
//! Destructors: a peer that drops a removed value in the operation pays for the drop here. A peer that drops it later
//! pays only for the drops before the end of the turn. `Drops` tells which of the two applies. The group `dropped`
//! measures until the last drop.

use super::Results;
use super::reads::seed;
use crate::cases::{Case, Idiom};
use crate::harness::{Lane, Sample, interleave_weighed};
use crate::keys::{Draw, Pattern, Value};
use crate::peers::ours::{Handles, Ours};
use crate::peers::{Map, of_every_map, of_every_writer};
use crate::plan::Plan;
use benches::Xorshift;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Returns a case on one thread, whose peers hold `V`.
pub fn case<V: Value>(group: &'static str, work: &'static str, size: usize) -> Case {
    Case { group, work, what: format!("peers hold {}", V::name()), size, threads: 1 }
}

fn new_lane<M: Map<u64>, T>(turn: impl FnMut(&T) -> Sample + 'static) -> Lane<'static, T> {
    Lane { drops: Some(M::DROPS), ..Lane::new(M::NAME, Idiom::Each, M::KIND, turn) }
}

/// Runs a turn on one map after another, as many as it takes for about 16,384 operations.
fn several(size: usize, mut one: impl FnMut() -> (Duration, u64)) -> Sample {
    let maps = (16_384 / size).max(1);
    let (mut time, mut sum) = (Duration::ZERO, 0);
    for _ in 0..maps {
        let (took, count) = one();
        time += took;
        sum += count;
    }
    Sample::new(time, maps * size, sum)
}

fn insert_lane<M: Map<u64>>() -> Lane<'static, Vec<u64>> {
    new_lane::<M, _>(|keys: &Vec<u64>| {
        several(keys.len(), || {
            let map = M::with_capacity(keys.len());
            let begin = Instant::now();
            let inserted = map.insert_all(keys.iter().map(|&key| (key, key)));
            let time = begin.elapsed();
            map.destroy();
            (time, inserted as u64)
        })
    })
}

fn remove_lane<M: Map<u64>>() -> Lane<'static, Vec<u64>> {
    new_lane::<M, _>(|keys: &Vec<u64>| {
        several(keys.len(), || {
            let map = M::filled(keys.len());
            let begin = Instant::now();
            let removed = map.remove_all(keys.iter());
            let time = begin.elapsed();
            map.destroy();
            (time, removed as u64)
        })
    })
}

fn churn_lane<M: Map<u64> + 'static>(size: usize) -> Lane<'static, Vec<(u64, u64)>> {
    let map = M::filled(size);
    new_lane::<M, _>(move |changes: &Vec<(u64, u64)>| {
        let begin = Instant::now();
        let changed = changes.iter().filter(|&&(old, new)| map.remove(&old) && map.insert(new, new)).count();
        Sample::new(begin.elapsed(), changes.len(), changed as u64)
    })
}

fn replace_lane<M: Map<u64> + 'static>(size: usize) -> Lane<'static, Vec<u64>> {
    let map = M::filled(size);
    new_lane::<M, _>(move |keys: &Vec<u64>| {
        let begin = Instant::now();
        map.replace_all(keys.iter().map(|&key| (key, key)));
        Sample::new(begin.elapsed(), keys.len(), 0)
    })
}

/// Returns the numbers below `size` in an order that depends on the seed.
pub fn shuffled(size: usize, seed: u64) -> Vec<u64> {
    let mut random = Xorshift::new(seed);
    let mut numbers: Vec<_> = (0..size as u64).collect();
    (1..size).rev().for_each(|index| numbers.swap(index, random.below(index as u64 + 1) as usize));
    numbers
}

pub fn run(plan: &Plan, results: &mut Results) {
    for &size in plan.sizes.iter().filter(|&&size| size <= 1_000_000) {
        of_values::<Arc<u64>>(plan, size, results);
        of_values::<u64>(plan, size, results);
    }
}

fn of_values<V: Value>(plan: &Plan, size: usize, results: &mut Results) {
    let whole = plan.rounds(if size <= 100_000 { 21 } else { 5 });
    let keys = |round, thread| shuffled(size, seed(round, thread));
    let series = interleave_weighed(1, whole, keys, || of_every_writer!(V, insert_lane()));
    results.add(case::<V>("writes", "insert into a sized map", size), "ns/insert", series);
    let series = interleave_weighed(1, whole, keys, || of_every_writer!(V, remove_lane()));
    results.add(case::<V>("writes", "remove", size), "ns/remove", series);

    let (rounds, count) = (plan.rounds(21), plan.amount(32_768, 1_024));
    let live = Mutex::new((Xorshift::new(5), (0..size as u64).collect::<Vec<_>>(), size as u64));
    let changes = |_, _| {
        let (random, live, next) = &mut *live.lock().expect("no contender panics");
        let change = |_| {
            let place = random.below(live.len() as u64) as usize;
            *next += 1;
            (std::mem::replace(&mut live[place], *next), *next)
        };
        (0..count).map(change).collect()
    };
    let lanes = || {
        let mut lanes = of_every_map!(V, churn_lane(size));
        lanes.insert(1, churn_lane::<Ours<u64, V::Bare, Handles>>(size));
        lanes
    };
    let series = interleave_weighed(1, rounds, changes, lanes);
    results.add(case::<V>("writes", "churn: remove and insert", size), "ns/pair", series);

    let draw = Draw::new(Pattern::Uniform, size);
    let keys = |round, thread| draw.keys(count, seed(round, thread));
    let series = interleave_weighed(1, rounds, keys, || of_every_writer!(V, replace_lane(size)));
    results.add(case::<V>("writes", "replace", size), "ns/replace", series);
}
