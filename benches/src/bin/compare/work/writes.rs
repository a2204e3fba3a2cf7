//! Writes by one thread: insert into a map made for so many, remove, churn at steady size, replace; iteration; teardown.

use super::Results;
use super::reads::seed;
use crate::cases::{Case, Idiom};
use crate::harness::{Lane, Sample, interleave};
use crate::keys::{Draw, Key, Pattern, Value};
use crate::peers::{Map, Maps, of_every_map};
use crate::plan::Plan;
use benches::Xorshift;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a case of one thread is called, whose peers hold `V`.
pub fn case<V: Value>(group: &'static str, work: &'static str, size: usize) -> Case {
    let values = std::any::type_name::<V>().contains("Arc");
    let what = if values { "peers hold Arc<u64>" } else { "peers hold u64" };
    Case { group, work, what: what.into(), size, threads: 1 }
}

fn new_lane<M: Map<u64>, T>(turn: impl FnMut(&T) -> Sample + 'static) -> Lane<'static, T> {
    Lane::new(M::NAME, Idiom::Each, M::KIND, turn)
}

/// So many maps are made in a turn that it has some operations.
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
            let inserted = keys.iter().filter(|&&key| map.insert(key, key)).count();
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
            let removed = keys.iter().filter(|&key| map.remove(key)).count();
            let time = begin.elapsed();
            map.destroy();
            (time, removed as u64)
        })
    })
}

fn teardown_lane<M: Map<u64>>() -> Lane<'static, Vec<u64>> {
    new_lane::<M, _>(|keys: &Vec<u64>| {
        let map = M::with_capacity(keys.len());
        keys.iter().for_each(|&key| assert!(map.insert(key, key)));
        let begin = Instant::now();
        map.destroy();
        Sample::new(begin.elapsed(), keys.len(), 0)
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
        keys.iter().for_each(|&key| map.replace(key, key));
        Sample::new(begin.elapsed(), keys.len(), 0)
    })
}

/// The numbers below `size`, in an order of their own for each seed.
fn shuffled(size: usize, seed: u64) -> Vec<u64> {
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
    let series = interleave(1, whole, keys, || of_every_map!(V, insert_lane()));
    results.add(case::<V>("writes", "insert into a sized map", size), "ns/insert", series);
    let series = interleave(1, whole, keys, || of_every_map!(V, remove_lane()));
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
    let series = interleave(1, rounds, changes, || of_every_map!(V, churn_lane(size)));
    results.add(case::<V>("writes", "churn: remove and insert", size), "ns/pair", series);

    let draw = Draw::new(Pattern::Uniform, size);
    let keys = |round, thread| draw.keys(count, seed(round, thread));
    let series = interleave(1, rounds, keys, || of_every_map!(V, replace_lane(size)));
    results.add(case::<V>("writes", "replace", size), "ns/replace", series);
}

/// Walks over all entries.
pub fn iteration(plan: &Plan, results: &mut Results) {
    fn lane<'m, K: Key, M: Map<K>>(map: &'m M, size: usize) -> Lane<'m, ()> {
        Lane::new(M::NAME, Idiom::Held, M::KIND, move |()| {
            let begin = Instant::now();
            let sum = map.sum();
            Sample::new(begin.elapsed(), size, sum)
        })
    }
    for &size in plan.sizes.iter().filter(|&&size| size <= 1_000_000) {
        let maps = Maps::<u64, u64>::filled(size);
        let lanes = || {
            vec![
                lane(&maps.ours, size),
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
        results.add(case::<u64>("iteration", "walk over all entries", size), "ns/entry", series);
    }
}

/// Destroys a map of a million entries; ours to the end of the barrier.
pub fn teardown(plan: &Plan, results: &mut Results) {
    let size = plan.amount(1_000_000, 2_000);
    let keys = |round, thread| shuffled(size, seed(round, thread));
    let series = interleave(1, plan.rounds(5), keys, || of_every_map!(Arc<u64>, teardown_lane()));
    results.add(case::<Arc<u64>>("teardown", "destroy the whole map", size), "ns/entry", series);
}
