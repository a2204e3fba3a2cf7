//! Large tables with very few entries. A walk through such a table takes many short critical sections, not a long one.

mod common;

use common::flood::alone;
use common::*;
use epoch_registry::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

type Sparse = Registry<u64, u64>;

/// Walks through a registry, and returns how many entries it found.
type Sweep = fn(&Sparse) -> usize;

/// The capacity of the tables: 2^20 buckets, or 2^18 in a debug build, which is slower.
const CAPACITY: usize = if cfg!(debug_assertions) { 1_000_000 } else { 4_000_000 };

/// The most buckets that one critical section may walk through. The code uses fewer.
const SECTION: usize = 1 << 15;

/// The fewest calls in which a scan can walk through the whole table.
const CALLS: usize = (CAPACITY / 4) / SECTION;

/// Returns a registry with a large capacity and few entries. Most tests use one shard, because a step also ends at the
/// end of each shard.
fn sparse(shards: usize, entries: u64) -> Sparse {
    with_room_for(CAPACITY, shards, entries)
}

fn with_room_for(capacity: usize, shards: usize, entries: u64) -> Sparse {
    let registry = Registry::builder().shards(shards).capacity(capacity).domain(Domain::new()).build();
    (0..entries).for_each(|key| drop(registry.try_insert(key, key)));
    registry
}

/// Calls `step` until the walk is done, and returns the number of calls.
fn steps(mut step: impl FnMut(&mut Cursor)) -> usize {
    let (mut cursor, mut calls) = (Cursor::new(), 0);
    while !cursor.is_done() {
        step(&mut cursor);
        calls += 1;
        assert!(calls <= CAPACITY, "the walk does not end");
    }
    calls
}

#[test]
fn a_scan_of_a_sparse_table_stops_after_a_bounded_number_of_buckets() {
    let _alone = alone();
    for (shards, entries) in [(1, 0), (1, 1), (1, 50), (4, 1)] {
        let registry = sparse(shards, entries);
        for budget in [1, 64, usize::MAX] {
            let (mut met, mut empty) = (Vec::new(), 0);
            let calls = steps(|cursor| {
                let seen = registry.scan(cursor, budget, |entry| met.push(*entry));
                empty += usize::from(seen == 0);
            });
            println!(
                "{shards} shards, {entries} entries, budget {budget}: {calls} calls, {empty} of them found nothing"
            );
            assert!(calls >= CALLS, "only {calls} calls for a table of {CAPACITY}, with a budget of {budget}");
            met.sort_unstable();
            assert_eq!(met, Vec::from_iter(0..entries), "the scan did not find each entry once");
        }
    }
}

/// With a budget of zero, a scan finds nothing, and the cursor does not move.
#[test]
fn a_scan_without_a_budget_does_nothing() {
    let registry: Sparse = isolated_builder().build();
    registry.try_insert(1, 1).unwrap();
    let mut cursor = Cursor::new();
    assert_eq!((registry.scan(&mut cursor, 0, |_| panic!("a call")), cursor), (0, Cursor::new()));
}

/// In a dense table, each step finds at least as many entries as its budget.
#[test]
fn a_scan_of_a_dense_table_uses_its_budget() {
    let registry: Sparse = isolated_builder().shards(1).build();
    (0..20_000).for_each(|key| drop(registry.try_insert(key, key)));
    for budget in [1, 64, 1000] {
        steps(|cursor| {
            let seen = registry.scan(cursor, budget, |_| ());
            assert!(seen >= budget || cursor.is_done(), "{seen} of {budget}");
        });
    }
}

#[test]
fn one_step_of_a_scan_delays_no_grace_period_for_long() {
    sections_end_during("scan", |registry| {
        steps(|cursor| drop(registry.scan(cursor, 64, |_| ()).to_string()));
    });
}

#[test]
fn a_retain_over_a_sparse_table_takes_many_sections() {
    sections_end_during("retain", |registry| registry.retain(|_, _| true));
    sections_end_during("retain of nothing", |registry| registry.retain(|_, _| false));
    sections_end_during("fallible retain", |registry| {
        assert_eq!(registry.fallible().retain(&mut Cursor::new(), |_, _| true), Ok(0))
    });
}

#[test]
fn a_drain_of_a_sparse_table_takes_many_sections() {
    sections_end_during("drain", |registry| assert!(registry.drain().count() <= 1));
}

#[test]
fn reapers_of_a_sparse_table_take_many_sections() {
    sections_end_during("reap_if", |registry| assert_eq!(registry.reap_if(usize::MAX, |_| false).removed, 0));
    sections_end_during("reap_if by a budget", |registry| assert_eq!(registry.reap_if(10, |_| false).removed, 0));
    sections_end_during("reap_older_than", |registry| {
        registry.reap_older_than(Duration::from_secs(3600), usize::MAX);
    });
    sections_end_during("reap_by", |registry| {
        let nothing = policy::when::<u64, u64>(|_| false);
        registry.reap_by(&nothing, &mut Scan::new(usize::MAX));
    });
    sections_end_during("the registry's own reaper", |registry| {
        Reaper::scan(registry, &mut Scan::new(usize::MAX));
    });
}

#[test]
fn a_change_of_ages_in_a_sparse_table_takes_many_sections() {
    sections_end_during("set_max_age", |registry| registry.set_max_age(Some(Duration::from_secs(3600))));
    sections_end_during("set_max_idle", |registry| registry.set_max_idle(Some(Duration::from_secs(3600))));
}

/// Checks that grace periods begin and end while `sweep` walks through a table with one entry.
fn sections_end_during(what: &str, sweep: impl Fn(&Sparse)) {
    // One grace period could begin before the first section of the sweep.
    const ENOUGH: u64 = 2;
    let _alone = alone();
    in_time(|| {
        let registry = sparse(1, 1);
        // Touches all pages of the table. Otherwise the sweep would also pay for page faults.
        registry.retain(|_, _| true);
        let since = Instant::now();
        let mut most = 0;
        // Tries again if the other thread was not scheduled during the sweep.
        while most < ENOUGH && since.elapsed() < Duration::from_secs(2) {
            let took = Instant::now();
            let ended = grace_periods_during(registry.domain(), || sweep(&registry));
            println!("{what}: {ended} grace periods within {:?}", took.elapsed());
            most = most.max(ended);
        }
        assert!(most >= ENOUGH, "{what}: only {most} grace periods ended during a walk through {CAPACITY} places");
    });
}

/// Counts the grace periods that begin and end while `f` runs.
fn grace_periods_during(domain: &Domain, f: impl FnOnce()) -> u64 {
    let (begun, over, ended) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                let within = begun.load(SeqCst);
                let cookie = domain.start_poll();
                while !domain.poll(cookie) && !over.load(SeqCst) {
                    thread::yield_now();
                }
                if within && !over.load(SeqCst) {
                    ended.fetch_add(1, SeqCst);
                }
            }
        });
        begun.store(true, SeqCst);
        f();
        over.store(true, SeqCst);
    });
    ended.load(SeqCst)
}

/// An eviction walks through the table under the shard lock. It releases the lock now and then, so that other writers
/// can take it.
#[test]
fn an_eviction_from_a_sparse_table_lets_others_write() {
    let _alone = alone();
    in_time(|| {
        let (since, mut most) = (Instant::now(), 0);
        // One write could finish before the eviction takes the lock.
        while most < 2 && since.elapsed() < Duration::from_secs(5) {
            let registry = sparse(1, 1);
            let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(SeqCst) {
                        drop(registry.insert(0, 0));
                        written.fetch_add(u64::from(!over.load(SeqCst)), SeqCst);
                        thread::yield_now();
                    }
                });
                while written.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                let before = written.load(SeqCst);
                assert!(registry.evict(1) <= 1);
                most = most.max(written.load(SeqCst) - before);
                over.store(true, SeqCst);
            });
        }
        println!("{most} writes during one eviction");
        assert!(most >= 2, "only {most} writes during an eviction");
    });
}

/// Walks over all entries end, and find every entry, wherever it is in the table.
#[test]
fn sweeps_of_sparse_tables_find_every_entry() {
    let _alone = alone();
    in_time(|| {
        let sweeps: [(&str, Sweep); 8] = [
            ("retain", |registry| {
                let before = registry.len();
                registry.retain(|_, _| false);
                before - registry.len()
            }),
            ("fallible retain", |registry| registry.fallible().retain(&mut Cursor::new(), |_, _| false).unwrap()),
            ("drain", |registry| registry.drain().count()),
            ("reap_if", |registry| registry.reap_if(usize::MAX, |_| true).removed),
            ("reap_older_than", |registry| registry.reap_older_than(Duration::ZERO, usize::MAX).examined),
            ("reap_by", |registry| {
                registry.reap_by(&policy::when::<u64, u64>(|_| true), &mut Scan::new(usize::MAX)).removed
            }),
            ("evict", |registry| registry.evict(usize::MAX)),
            ("iter", |registry| registry.pin().iter().count()),
        ];
        let registry = with_room_for(CAPACITY / 8, 1, 0);
        for (what, sweep) in sweeps {
            (0..3).for_each(|key| drop(registry.insert(key, key)));
            assert_eq!(sweep(&registry), 3, "{what}");
            registry.clear();
            assert_eq!(sweep(&registry), 0, "{what} of an empty registry");
        }
    });
}

/// A reaper with a small budget reaches every entry, call by call.
#[test]
fn a_reaper_with_a_small_budget_reaches_every_entry() {
    let _alone = alone();
    let registry = sparse(1, 10);
    let (mut calls, mut removed) = (0, 0);
    while removed < 10 {
        removed += registry.reap_if(1, |_| true).removed;
        calls += 1;
        assert!(calls < 10_000, "{removed} of 10 were reaped");
    }
    assert!(registry.is_empty());
}
