//! Bounded maps, in two workloads: use as a cache (look a key up, insert it if absent), and hits only.

use super::Results;
use super::reads::seed;
use crate::cases::{Case, Idiom, Kind};
use crate::harness::{Lane, Sample, interleave, interleave_weighed, reads};
use crate::keys::{Draw, Pattern};
use crate::peers::bounded::{Cache, Moka, Ours, Quick};
use crate::plan::Plan;
use std::time::Instant;

fn cache_lane<'m, C: Cache>(cache: &'m C, kind: Kind) -> Lane<'m, Vec<u64>> {
    let turn = move |keys: &Vec<u64>| {
        let begin = Instant::now();
        for &key in keys {
            if cache.get(key).is_none() {
                cache.insert(key);
            }
        }
        Sample::new(begin.elapsed(), keys.len(), 0)
    };
    Lane { drops: Some(C::DROPS), ..Lane::new(C::NAME, Idiom::Each, kind, turn) }
}

fn hit_lane<'m, C: Cache>(cache: &'m C, kind: Kind) -> Lane<'m, Vec<u64>> {
    Lane::new(C::NAME, Idiom::Each, kind, move |keys: &Vec<u64>| {
        let mut sample = reads(keys, |&key| cache.get(key));
        // The contenders keep different keys, so their sums differ.
        sample.sum = 0;
        sample
    })
}

pub fn run(plan: &Plan, results: &mut Results) {
    let capacity = plan.amount(100_000, 1_000);
    let all = (Ours::bounded(capacity), Moka::bounded(capacity), Quick::bounded(capacity));
    let count = plan.amount(65_536, 1_024);
    for threads in plan.threads() {
        for (work, keys) in [("cache of a tenth of the keys, Zipf", 10 * capacity), ("hits", capacity / 2)] {
            let hits = keys < capacity;
            let draw = Draw::new(if hits { Pattern::Uniform } else { Pattern::Zipf }, keys);
            if hits {
                (0..keys as u64).for_each(|key| {
                    all.0.insert(key);
                    all.1.insert(key);
                    all.2.insert(key);
                });
            }
            let lanes = || {
                if hits {
                    let [ours, locking] = [Kind::Ours, Kind::Locking];
                    vec![hit_lane(&all.0, ours), hit_lane(&all.1, locking), hit_lane(&all.2, locking)]
                } else {
                    let [ours, locking] = [Kind::Ours, Kind::Locking];
                    vec![cache_lane(&all.0, ours), cache_lane(&all.1, locking), cache_lane(&all.2, locking)]
                }
            };
            let keys = |round, thread| draw.keys(count, seed(round, thread));
            let rounds = plan.rounds(15);
            let series = if hits {
                interleave(threads, rounds, keys, lanes)
            } else {
                interleave_weighed(threads, rounds, keys, lanes)
            };
            let case = Case { group: "bounded", work, what: "u64 keys".into(), size: capacity, threads };
            results.add(case, "ns/lookup", series);
        }
    }
}
