//! Counts that all threads change: a counter, against one atomic and a sharded array of atomics; and the references to one
//! object, against those of an `Arc`.

use super::Results;
use crate::cases::{Case, Idiom, Kind, Series};
use crate::harness::{Lane, Sample, interleave};
use crate::plan::Plan;
use crossbeam_utils::CachePadded;
use epoch_registry::{Counter, Domain, PercpuRef};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

pub const COUNT: &str = "count";
pub const READ: &str = "read while others count";
pub const REFER: &str = "take and put a reference";

/// The names of the peers that count.
pub const ATOMIC: &str = "one AtomicU64";
pub const SHARDED: &str = "sharded AtomicU64";

/// Atomics on cache lines of their own, more than there are cores. A thread counts in the one of its number.
struct Sharded(Vec<CachePadded<AtomicU64>>);

impl Sharded {
    fn new(cores: usize) -> Sharded {
        Sharded((0..(4 * cores).next_power_of_two()).map(|_| CachePadded::default()).collect())
    }

    #[inline]
    fn increment(&self) {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        thread_local! {
            static NUMBER: Cell<usize> = const { Cell::new(0) };
        }
        let mut number = NUMBER.get();
        if number == 0 {
            // ORDERING: Relaxed, only the number matters.
            number = NEXT.fetch_add(1, Ordering::Relaxed);
            NUMBER.set(number);
        }
        // ORDERING: Relaxed, a count.
        self.0[number & (self.0.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self) -> u64 {
        // ORDERING: Relaxed, a count.
        self.0.iter().fold(0, |sum, shard| sum.wrapping_add(shard.load(Ordering::Relaxed)))
    }
}

/// Times `operation`.
#[inline(always)]
fn repeat(times: usize, mut operation: impl FnMut()) -> Sample {
    let begin = Instant::now();
    for _ in 0..times {
        operation();
    }
    Sample::new(begin.elapsed(), times, times as u64)
}

pub fn case(work: &'static str, threads: usize) -> Case {
    Case { group: "counter", work, what: "all threads the same".into(), size: 1, threads }
}

/// Measures contenders that have no input.
fn measure<'m>(
    plan: &Plan,
    results: &mut Results,
    work: &'static str,
    threads: usize,
    lanes: impl Fn() -> Vec<Lane<'m, ()>> + Sync,
) {
    let series: Vec<Series> = interleave(threads, plan.rounds(31), |_, _| (), lanes);
    results.add(case(work, threads), "ns/operation", series);
}

pub fn run(plan: &Plan, results: &mut Results) {
    let times = plan.amount(1 << 20, 4_096);
    let each = Idiom::Each;
    let (counter, atomic, sharded) = (Counter::new(), CachePadded::new(AtomicU64::new(0)), Sharded::new(plan.cores));
    let (counter, atomic, sharded) = (&counter, &atomic, &sharded);
    for threads in plan.threads() {
        let count = || {
            vec![
                Lane::new("ours", each, Kind::Ours, |&(): &()| repeat(times, || black_box(counter).increment())),
                Lane::new(ATOMIC, each, Kind::LockFree, |&(): &()| {
                    repeat(times, || _ = black_box(atomic).fetch_add(1, Ordering::Relaxed))
                }),
                Lane::new(SHARDED, each, Kind::LockFree, |&(): &()| repeat(times, || black_box(sharded).increment())),
            ]
        };
        measure(plan, results, COUNT, threads, count);
        // One read in 64 operations.
        let read = || {
            let every = |n: &mut usize| {
                *n += 1;
                n.is_multiple_of(64)
            };
            let (mut ours, mut one, mut many) = (0, 0, 0);
            vec![
                Lane::new("ours, approx", each, Kind::Ours, move |&(): &()| {
                    repeat(times, || match every(&mut ours) {
                        true => _ = black_box(black_box(counter).approx()),
                        false => black_box(counter).increment(),
                    })
                }),
                Lane::new(ATOMIC, each, Kind::LockFree, move |&(): &()| {
                    repeat(times, || match every(&mut one) {
                        true => _ = black_box(black_box(atomic).load(Ordering::Relaxed)),
                        false => _ = black_box(atomic).fetch_add(1, Ordering::Relaxed),
                    })
                }),
                Lane::new(SHARDED, each, Kind::LockFree, move |&(): &()| {
                    repeat(times, || match every(&mut many) {
                        true => _ = black_box(black_box(sharded).sum()),
                        false => black_box(sharded).increment(),
                    })
                }),
            ]
        };
        measure(plan, results, READ, threads, read);
    }
    let domain = Domain::new();
    let (references, arc) = (PercpuRef::new(&domain), Arc::new(0_u64));
    let (references, arc) = (&references, &arc);
    for threads in plan.threads() {
        let refer = || {
            let mut session = domain.session();
            vec![
                Lane::new("ours", Idiom::Session, Kind::Ours, move |&(): &()| {
                    repeat(times, || {
                        let reference = black_box(references).try_get_live_in(&session.section());
                        let reference = black_box(reference).expect("it is live");
                        reference.put_in(&session.section());
                    })
                }),
                Lane::new("ours", each, Kind::Ours, |&(): &()| {
                    repeat(times, || drop(black_box(black_box(references).try_get_live())))
                }),
                Lane::new("Arc", each, Kind::LockFree, |&(): &()| {
                    repeat(times, || drop(black_box(Arc::clone(black_box(arc)))))
                }),
            ]
        };
        measure(plan, results, REFER, threads, refer);
    }
}
