//! Reads and writes together, on all cores. Of 100 operations 99, 95 or 50 are borrowed reads. The others alternately
//! remove a key and insert it again, so that the size stays constant. Each thread reads all keys, and writes only its
//! own.

use super::Results;
use super::reads::seed;
use crate::cases::{Case, Idiom};
use crate::harness::{Lane, Sample, interleave_weighed};
use crate::keys::{Draw, Pattern, Value};
use crate::peers::ours::{Handles, Ours};
use crate::peers::{Map, Maps};
use crate::plan::Plan;
use benches::Xorshift;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

pub const MIXES: [(&str, u64); 3] =
    [("99 reads, 1 write", 99), ("95 reads, 5 writes", 95), ("50 reads, 50 writes", 50)];

#[derive(Clone, Copy)]
pub enum Operation {
    Read(u64),
    Remove(u64),
    Insert(u64),
}

/// Returns the case of a mix, whose peers hold `V`.
pub fn case<V: Value>(work: &'static str, pattern: Pattern, size: usize, threads: usize) -> Case {
    let what = format!("peers hold {}, {}", V::name(), pattern.name());
    Case { group: "mixes", work, what, size, threads }
}

/// Returns a contender that runs the operations, and reads by this idiom.
pub fn lane<M: Map<u64>>(map: &M, idiom: Idiom) -> Lane<'_, Vec<Operation>> {
    fn turn<M: Map<u64>>(map: &M, operations: &[Operation], mut read: impl FnMut(&u64) -> Option<u64>) -> Sample {
        let (begin, mut sum) = (Instant::now(), 0_u64);
        for operation in operations {
            match operation {
                Operation::Read(key) => sum = sum.wrapping_add(read(key).unwrap_or(1)),
                Operation::Remove(key) => assert!(map.remove(key), "{}: {key} is missing", M::NAME),
                Operation::Insert(key) => assert!(map.insert(*key, *key), "{}: {key} is still present", M::NAME),
            }
        }
        let time = begin.elapsed();
        black_box(sum);
        // The sum is not compared, because it depends on the other threads.
        Sample::new(time, operations.len(), 0)
    }
    let turn = move |operations: &Vec<Operation>| match idiom {
        Idiom::Session => turn(map, operations, map.session::<2>()),
        _ => turn(map, operations, |key: &u64| map.get(key)),
    };
    Lane { drops: Some(M::DROPS), ..Lane::new(M::NAME, idiom, M::KIND, turn) }
}

pub fn run(plan: &Plan, results: &mut Results) {
    for &size in plan.sizes.iter().filter(|&&size| size <= 1_000_000) {
        of_values::<u64>(plan, size, results);
        of_values::<Arc<u64>>(plan, size, results);
    }
}

fn of_values<V: Value>(plan: &Plan, size: usize, results: &mut Results) {
    let maps = Maps::<u64, V>::filled(size);
    let handles = Ours::<u64, V::Bare, Handles>::filled(size);
    let lanes = || {
        vec![
            lane(&maps.ours, Idiom::Session),
            lane(&maps.ours, Idiom::Each),
            lane(&handles, Idiom::Session),
            lane(&maps.papaya, Idiom::Each),
            lane(&maps.index, Idiom::Each),
            lane(&maps.flurry, Idiom::Each),
            lane(&maps.scc, Idiom::Each),
            lane(&maps.dashmap, Idiom::Each),
            lane(&maps.rwlock, Idiom::Each),
            lane(&maps.mutex, Idiom::Each),
        ]
    };
    for (work, reads) in MIXES {
        for pattern in [Pattern::Uniform, Pattern::Zipf] {
            let draw = Draw::new(pattern, size);
            let (threads, count) = (plan.cores, plan.amount(65_536, 1_024));
            let operations = |round, thread| draw_operations(&draw, reads, size, count, threads, round, thread);
            let series = interleave_weighed(threads, plan.rounds(21), operations, lanes);
            results.add(case::<V>(work, pattern, size, threads), "ns/operation", series);
        }
    }
}

/// Returns the operations of one turn of one thread. On average `reads` of 100 are reads.
pub fn draw_operations(
    draw: &Draw,
    reads: u64,
    size: usize,
    count: usize,
    threads: usize,
    round: usize,
    thread: usize,
) -> Vec<Operation> {
    let mut random = Xorshift::new(!seed(round, thread));
    let mut away = None;
    // A thread owns the keys that are equal to its number modulo the number of threads.
    let own = |key: u64| {
        let own = key - key % threads as u64 + thread as u64;
        if own < size as u64 { own } else { thread as u64 }
    };
    let operation = |key| match away.take() {
        kept if random.below(100) < reads => {
            away = kept;
            Operation::Read(key)
        }
        Some(key) => Operation::Insert(key),
        None => {
            away = Some(own(key));
            Operation::Remove(own(key))
        }
    };
    let mut operations: Vec<_> = draw.numbers(count, seed(round, thread)).map(operation).collect();
    operations.extend(away.map(Operation::Insert));
    operations
}
