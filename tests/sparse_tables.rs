//! Large tables with hardly anything in them: to go through one takes many short critical sections, and not a long one.

mod common;

use common::flood::alone;
use common::*;
use epoch_registry::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

type Sparse = Registry<u64, u64>;

/// Goes through a registry. Returns how many entries it met.
type Sweep = fn(&Sparse) -> usize;

/// Entries that there is room for. (2^18 buckets, or 2^20 where it does not take long.)
const CAPACITY: usize = if cfg!(debug_assertions) { 1_000_000 } else { 4_000_000 };

/// Buckets that one critical section may go through, generously.
const SECTION: usize = 1 << 15;

/// Calls that it takes at the least to go through all of them.
const CALLS: usize = (CAPACITY / 4) / SECTION;

/// A registry with much room, and few entries. It has one shard: a step ends at the end of each shard.
fn sparse(shards: usize, entries: u64) -> Sparse {
    with_room_for(CAPACITY, shards, entries)
}

fn with_room_for(capacity: usize, shards: usize, entries: u64) -> Sparse {
    let registry = Registry::builder().shards(shards).capacity(capacity).domain(Domain::new()).build();
    (0..entries).for_each(|key| drop(registry.try_insert(key, key)));
    registry
}

/// Calls `step` until the walk is at its end. Returns how many calls that took.
fn steps(mut step: impl FnMut(&mut Cursor)) -> usize {
    let (mut cursor, mut calls) = (Cursor::new(), 0);
    while !cursor.is_done() {
        step(&mut cursor);
        calls += 1;
        assert!(calls <= CAPACITY, "there is no end to the walk");
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
            println!("{shards} shards, {entries} entries, budget {budget}: {calls} calls, {empty} of them met nothing");
            assert!(calls >= CALLS, "{calls} calls, for a table of {CAPACITY}, with a budget of {budget}");
            met.sort_unstable();
            assert_eq!(met, Vec::from_iter(0..entries), "each is met once");
        }
    }
}

/// A budget of nothing does nothing, and goes on where it stood.
#[test]
fn a_scan_without_a_budget_does_nothing() {
    let registry: Sparse = isolated_builder().build();
    registry.try_insert(1, 1).unwrap();
    let mut cursor = Cursor::new();
    assert_eq!((registry.scan(&mut cursor, 0, |_| panic!("a call")), cursor), (0, Cursor::new()));
}

/// Where entries are dense, a step meets as many as it was told, and no fewer.
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
fn one_step_of_a_scan_holds_no_grace_period_up_for_long() {
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

/// Grace periods begin and end while `sweep` goes through a table with one entry.
fn sections_end_during(what: &str, sweep: impl Fn(&Sparse)) {
    // (One could begin before the sweep's first section.)
    const ENOUGH: u64 = 2;
    let _alone = alone();
    within_a_minute(|| {
        let registry = sparse(1, 1);
        // (In a table that was never read, each page is met for the first time.)
        registry.retain(|_, _| true);
        let since = Instant::now();
        let mut most = 0;
        // Where the other thread is not scheduled meanwhile, once more.
        while most < ENOUGH && since.elapsed() < Duration::from_secs(2) {
            let took = Instant::now();
            let ended = grace_periods_during(registry.domain(), || sweep(&registry));
            println!("{what}: {ended} grace periods within {:?}", took.elapsed());
            most = most.max(ended);
        }
        assert!(most >= ENOUGH, "{what}: {most} grace periods ended while it went through {CAPACITY} places");
    });
}

/// How many grace periods both begin and end while `f` runs.
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

/// What goes through the table under the lock lets others have it in between.
#[test]
fn an_eviction_from_a_sparse_table_lets_others_write() {
    let _alone = alone();
    within_a_minute(|| {
        let (since, mut most) = (Instant::now(), 0);
        // (One could be done before the eviction takes the lock.)
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
        assert!(most >= 2, "{most} writes during an eviction");
    });
}

/// The loops over all entries end, and find what there is, wherever it is.
#[test]
fn sweeps_of_sparse_tables_find_what_there_is() {
    let _alone = alone();
    within_a_minute(|| {
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
            assert_eq!(sweep(&registry), 0, "{what}, of nothing");
        }
    });
}

/// A reaper with a small budget comes round to every entry, call by call.
#[test]
fn a_reaper_with_a_small_budget_comes_round() {
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
