//! Reads, mixes and writes on 1, 2, 4, ... threads, up to one per core.
//!
//! A result is the time of one operation on one thread. It stays constant if threads do not slow each other down. Ours
//! reads by a session, and the peers with one pin or one lock per read. Writes are the same as in the mixes, without
//! handles.

use super::Results;
use super::mixes::{draw_operations, lane};
use crate::cases::{Case, Idiom};
use crate::harness::interleave_weighed;
use crate::keys::{Draw, Pattern, Value};
use crate::peers::Map;
use crate::peers::dashmap::Dash;
use crate::peers::locks::{Exclusive, Shared};
use crate::peers::ours::Ours;
use crate::peers::papaya::Papaya;
use crate::peers::scc::{Index, Scc};
use crate::plan::Plan;
use std::sync::Arc;

/// The workloads, with the number of reads in 100 operations.
const WORKS: [(&str, u64); 4] =
    [("reads", 100), ("95 reads, 5 writes", 95), ("50 reads, 50 writes", 50), ("writes", 0)];

/// Returns the powers of two below the number of cores, and the number of cores.
fn threads(plan: &Plan) -> Vec<usize> {
    let mut threads: Vec<usize> = (0..).map(|power| 1 << power).take_while(|&threads| threads < plan.cores).collect();
    threads.push(plan.cores);
    threads
}

type Held = Arc<u64>;

pub fn run(plan: &Plan, results: &mut Results) {
    for &size in plan.sizes.iter().filter(|&&size| size == 1_000 || size == 1_000_000) {
        let (ours, papaya) = (Ours::<u64>::filled(size), Papaya::<u64, Held>::filled(size));
        let (index, scc) = (Index::<u64, Held>::filled(size), Scc::<u64, Held>::filled(size));
        let dashmap = Dash::<u64, Held>::filled(size);
        let (rwlock, mutex) = (Shared::<u64, Held>::filled(size), Exclusive::<u64, Held>::filled(size));
        let lanes = || {
            vec![
                lane(&ours, Idiom::Session),
                lane(&papaya, Idiom::Each),
                lane(&index, Idiom::Each),
                lane(&scc, Idiom::Each),
                lane(&dashmap, Idiom::Each),
                lane(&rwlock, Idiom::Each),
                lane(&mutex, Idiom::Each),
            ]
        };
        let (draw, count) = (Draw::new(Pattern::Uniform, size), plan.amount(65_536, 1_024));
        for (work, reads) in WORKS {
            for threads in threads(plan) {
                let operations = |round, thread| draw_operations(&draw, reads, size, count, threads, round, thread);
                let series = interleave_weighed(threads, plan.rounds(11), operations, lanes);
                let what = format!("peers hold {}, uniform", Held::name());
                results.add(Case { group: "scaling", work, what, size, threads }, "ns/operation", series);
            }
        }
    }
}
