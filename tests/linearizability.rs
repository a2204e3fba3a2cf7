//! Records the calls of real threads and checks them. For each key, the calls have an order in which a map for one
//! thread would give the same results. No call comes before another that had returned when it began (guarantee C).

#[path = "linearizability/cells.rs"]
mod cells;
#[path = "linearizability/checker.rs"]
mod checker;
mod common;
#[path = "linearizability/history.rs"]
mod history;
#[path = "linearizability/list.rs"]
mod list;
#[path = "linearizability/operations.rs"]
mod operations;
#[path = "linearizability/worker.rs"]
mod worker;

use checker::*;
use common::*;
use epoch_registry::{Domain, RcuList, Registry, WhenFull};
use history::{Watch, of_key, overlaps, refute};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use worker::{Map, Meeting, Round, Worker};

/// What a run consisted of.
#[derive(Default, Debug)]
struct Tally {
    histories: usize,
    calls: usize,
    /// Calls on a key that overlap with an earlier one.
    overlapping: usize,
    resizes: u64,
    evictions: u64,
}

/// Good hashes, few homes with many tags, many homes with one tag, one home with one tag. The last three make chains of
/// buckets, so that lookups compare other keys on the way.
const MASKS: [u64; 4] = [!0, !0xffff_ffff | 3, 0xffff_ffff, 0];

/// The bound on entries, if there is one. It is so small that most insertions evict another entry.
const FEW: usize = 8;

/// Runs some histories on one registry.
fn round(seed: u64, histories: usize, calls: u64, tally: &mut Tally) {
    // With a limit, a write releases the shard lock to make room, and then looks the key up again.
    let refusing = seed % 3 == 0;
    let bounded = seed / 12 % 2 == 1;
    let limited = || Domain::builder().backlog_objects(8).when_full(WhenFull::Refuse).build();
    let domain = if refusing { limited() } else { Domain::new() };
    let mask = MASKS[seed as usize % MASKS.len()];
    let builder = Registry::builder().shards(1).domain(domain).hasher(FewBits { mask });
    let map: Map = if bounded { builder.max_entries(FEW) } else { builder }.build();
    let threads = 2 + seed as usize / 4 % 3;
    let (watch, meeting) = (Watch::new(), Meeting::new(threads));
    let round = Round { seed, histories, calls, map: &map, refusing, bounded, watch, meeting };
    let parts: Vec<_> = thread::scope(|scope| {
        let round = &round;
        let workers: Vec<_> = (0..threads).map(|id| scope.spawn(move || Worker::new(round, id).run())).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for number in 0..histories {
        let history: Vec<_> = parts.iter().flat_map(|part| part[number].iter().copied()).collect();
        for key in 0..3 {
            let records = of_key(&history, key);
            if let Some(picture) = refute(&records) {
                panic!(
                    "seed {seed}, history {number}, mask {mask:x}: key {key} has no order, after {tally:?}\n{picture}"
                );
            }
            tally.overlapping += overlaps(&records);
        }
        tally.histories += 1;
        tally.calls += history.len();
    }
    let stats = map.stats();
    tally.resizes += stats.resizes;
    tally.evictions += stats.evicted;
}

/// Lets only one test run at a time. Threads that do not get a core do not overlap.
static TURN: Mutex<()> = Mutex::new(());

fn rounds(rounds: usize, histories: usize, calls: u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    in_time(|| {
        let (mut tally, begun) = (Tally::default(), Instant::now());
        (0..rounds).for_each(|seed| round(seed as u64, histories, calls, &mut tally));
        println!("{tally:?}, {:.0} histories a second", tally.histories as f64 / begun.elapsed().as_secs_f64());
        // Otherwise the run would prove nothing.
        let few = (tally.histories / 10) as u64;
        assert!(tally.overlapping as u64 > few && tally.resizes > few && tally.evictions > few, "{tally:?}");
    });
}

#[test]
fn every_short_history_of_a_key_has_an_order() {
    rounds(times(2000).div_ceil(50), 50, 5);
}

#[test]
fn every_long_history_of_a_key_has_an_order() {
    rounds(times(40).div_ceil(2), 2, 1000);
}

/// Some histories on one list. Returns how many calls on a key overlap with an earlier one, and how many there are.
fn list_round(seed: u64, histories: usize, calls: u64) -> (usize, usize) {
    let list = RcuList::bidir_in(&Domain::new());
    let threads = 2 + seed as usize % 3;
    let (known, meeting) = (Default::default(), Meeting::new(threads));
    let (list, known, meeting) = (&list, &known, &meeting);
    let round = list::Round { seed, histories, calls, list, known, watch: Watch::new(), meeting };
    let parts: Vec<_> = thread::scope(|scope| {
        let round = &round;
        let workers: Vec<_> = (0..threads).map(|id| scope.spawn(move || list::Worker::new(round, id).run())).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let (mut overlapping, mut all) = (0, 0);
    for number in 0..histories {
        let history: Vec<_> = parts.iter().flat_map(|part| part[number].iter().copied()).collect();
        // The second half is what backward walks see.
        for key in 0..2 * list::KEYS {
            let records = of_key(&history, key);
            if let Some(picture) = refute(&records) {
                panic!("seed {seed}, history {number} of a list: key {key} has no order\n{picture}");
            }
            overlapping += overlaps(&records);
            all += records.len();
        }
    }
    (overlapping, all)
}

#[test]
fn every_history_of_an_entry_of_a_list_has_an_order() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    in_time(|| {
        let rounds = [(times(2000).div_ceil(50), 50, 8), (times(20).div_ceil(2), 2, 1000)];
        for (rounds, histories, calls) in rounds {
            let (mut overlapping, mut all) = (0, 0);
            for seed in 0..rounds as u64 {
                let round = list_round(seed, histories, calls);
                (overlapping, all) = (overlapping + round.0, all + round.1);
            }
            println!("{overlapping} of {all} calls overlap, in {} histories", rounds * histories);
            // Or the run had no teeth.
            assert!(overlapping > rounds * histories / 10, "{overlapping} of {all} calls overlap");
        }
    });
}

#[test]
fn the_clocks_of_all_cores_agree() {
    let (watch, latest) = (Watch::new(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..times(20_000) {
                    let before = latest.load(SeqCst);
                    let now = watch.now();
                    assert!(now >= before, "the clocks of this machine's cores disagree");
                    latest.fetch_max(now, SeqCst);
                }
            });
        }
    });
}

// Tests of the checker with known histories: for each thread its calls, as beginning, end and effect.

use Effect::*;

fn has_order(threads: &[&[(u64, u64, Effect)]]) -> bool {
    let mut calls: [Vec<Call>; THREADS] = Default::default();
    for (calls, thread) in calls.iter_mut().zip(threads) {
        calls.extend(thread.iter().map(|&(begun, ended, effect)| Call { begun, ended, effect }));
    }
    order(&calls).is_ok()
}

const PUT_1: Effect = Changed(None, Some(1));

#[test]
fn calls_one_after_another_have_one_order() {
    assert!(has_order(&[]));
    assert!(has_order(&[&[
        (0, 1, Saw(None)),
        (2, 3, SawNot(1)),
        (4, 5, PUT_1),
        (6, 7, SawSome),
        (8, 9, Changed(Some(1), Some(2))),
        (10, 11, SawNot(1)),
        (12, 13, Saw(Some(2))),
        (14, 15, Changed(Some(2), None)),
        (16, 17, Cleared),
        (18, 19, Saw(None)),
    ]]));
    assert!(!has_order(&[&[(0, 1, PUT_1), (2, 3, Cleared), (4, 5, SawSome)]]));
    assert!(!has_order(&[&[(0, 1, PUT_1), (2, 3, SawNot(1))]]));
}

#[test]
fn calls_that_overlap_may_take_effect_in_any_order() {
    // Two readers read before and after a write takes effect while it is under way.
    assert!(has_order(&[&[(0, 100, PUT_1)], &[(10, 20, Saw(None)), (50, 60, Saw(Some(1)))], &[(30, 40, Saw(None))]]));
    // The last call to begin comes first, and each of the others must wait for the one after it.
    assert!(has_order(&[
        &[(0, 100, Changed(Some(3), None))],
        &[(10, 110, Changed(Some(2), Some(3)))],
        &[(20, 120, Changed(Some(1), Some(2)))],
        &[(30, 130, PUT_1)],
    ]));
    // The first choice that fits is wrong: a reader must see the key absent before either writer puts a value there.
    assert!(has_order(&[
        &[(0, 100, PUT_1), (110, 120, Saw(None))],
        &[(0, 100, Cleared), (105, 125, Changed(None, Some(2)))],
        &[(0, 100, Saw(None))],
    ]));
    // If two times are equal, their order is unknown.
    assert!(has_order(&[&[(0, 10, PUT_1)], &[(10, 20, Saw(None))]]));
    assert!(!has_order(&[&[(0, 10, PUT_1)], &[(11, 20, Saw(None))]]));
}

#[test]
fn a_stale_read_has_no_order() {
    let replace = Changed(Some(1), Some(2));
    assert!(!has_order(&[&[(0, 10, PUT_1), (20, 30, replace)], &[(31, 40, Saw(Some(1)))]]));
    // Nor is there an order if readers disagree about a write that is under way: the second one sees the old value, or
    // absence.
    assert!(!has_order(&[&[(0, 10, PUT_1), (20, 100, replace)], &[(30, 40, Saw(Some(2)))], &[(50, 60, Saw(Some(1)))]]));
    assert!(!has_order(&[&[(0, 100, PUT_1)], &[(10, 20, Saw(Some(1)))], &[(30, 40, Saw(None))]]));
}

#[test]
fn a_lost_update_has_no_order() {
    let updates = [(20, 40, Changed(Some(1), Some(2))), (20, 40, Changed(Some(1), Some(3)))];
    assert!(!has_order(&[&[(0, 10, PUT_1), updates[0]], &[updates[1]]]));
    assert!(has_order(&[&[(0, 10, PUT_1), updates[0]], &[(20, 40, Changed(Some(2), Some(3)))]]));
}

#[test]
fn absence_during_a_replace_has_no_order() {
    let replace = (20, 40, Changed(Some(1), Some(2)));
    assert!(!has_order(&[&[(0, 10, PUT_1), replace], &[(25, 30, Saw(None))]]));
    assert!(has_order(&[&[(0, 10, PUT_1), replace], &[(25, 30, SawSome)]]));
}

#[test]
fn an_eviction_may_have_cleared_a_key_or_not() {
    let (put, evict) = ((0, 10, PUT_1), (20, 40, MayHaveCleared));
    for found in [None, Some(1)] {
        assert!(has_order(&[&[put, evict], &[(50, 60, Saw(found))]]));
    }
    // A key that was cleared does not come back, and it cannot have been cleared before the eviction began.
    assert!(!has_order(&[&[put, evict], &[(50, 60, Saw(None)), (70, 80, SawSome)]]));
    assert!(!has_order(&[&[put, evict], &[(11, 19, Saw(None))]]));
    // The eviction clears the key only once: it cannot clear both the first value and the one that replaced it.
    let replace = (41, 42, Changed(Some(1), Some(2)));
    assert!(has_order(&[&[put, evict, replace]]));
    assert!(!has_order(&[&[put, evict, replace], &[(50, 60, Saw(None))]]));
}

#[test]
fn two_inserts_of_one_key_have_no_order() {
    let inserts = [(0, 20, PUT_1), (10, 30, Changed(None, Some(2)))];
    assert!(!has_order(&[&[inserts[0]], &[inserts[1]]]));
    assert!(has_order(&[&[inserts[0]], &[inserts[1]], &[(15, 16, Changed(Some(2), None))]]));
}

#[test]
fn removing_an_absent_key_or_one_entry_twice_has_no_order() {
    let remove = |begun, ended| (begun, ended, Changed(Some(1), None));
    assert!(!has_order(&[&[remove(0, 10)]]));
    assert!(!has_order(&[&[(0, 10, PUT_1)], &[(5, 20, Changed(Some(2), None))]]));
    assert!(!has_order(&[&[(0, 10, PUT_1), remove(20, 30)], &[remove(20, 30)]]));
    assert!(has_order(&[&[(0, 10, PUT_1), remove(20, 30)], &[(15, 30, SawNot(1))]]));
}

/// Four threads whose calls all overlap have too many orders to try them all.
#[test]
fn a_long_history_without_an_order_is_refuted_soon() {
    let reads = |thread: u64| (0..2000).map(move |n| (100 + 10 * n + thread, 108 + 10 * n + thread, SawSome)).collect();
    let mut threads: [Vec<_>; THREADS] = std::array::from_fn(|thread| reads(thread as u64));
    threads[0].insert(0, (0, 10, PUT_1));
    assert!(has_order(&threads.each_ref().map(|calls| calls.as_slice())));
    threads[3].push((100_000, 100_001, Saw(None)));
    assert!(!has_order(&threads.each_ref().map(|calls| calls.as_slice())));
}
