//! Iteration, retain, drain and the reapers: which entries they find, how often, and what they leave.

use crate::common::*;
use epoch_registry::{Cursor, Domain, ManualClock, Registry, SlabSize};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::thread;
use std::time::{Duration, Instant};

fn filled(shards: usize, count: u64) -> Registry<u64, u64> {
    let registry = Registry::builder().shards(shards).domain(Domain::new()).build();
    (0..count).for_each(|key| drop(registry.try_insert(key, key)));
    registry
}

/// This also holds if an earlier call has stopped in the middle of a shard.
#[test]
fn a_reaper_examines_each_entry_at_most_once() {
    for shards in [1, 4] {
        for first in [0, 10, 90, 250] {
            let registry = filled(shards, 300);
            registry.reap_if(first, |_| false);
            let mut examined = HashMap::new();
            registry.reap_if(usize::MAX, |entry| {
                *examined.entry(*entry.key()).or_insert(0) += 1;
                false
            });
            assert_eq!(examined.len(), 300, "some entries were not examined");
            let most = examined.values().max().unwrap();
            assert_eq!(*most, 1, "{shards} shards, after {first}: an entry was examined {most} times");
        }
    }
}

#[test]
fn reapers_with_a_budget_reach_every_entry_in_turn() {
    let registry = filled(4, 1000);
    let mut examined = HashSet::new();
    for _ in 0..100 {
        let mut count = 0;
        registry.reap_if(20, |entry| {
            count += 1;
            examined.insert(*entry.key());
            false
        });
        assert!(count < 20 + 40, "{count} entries for a budget of 20");
    }
    assert_eq!(examined.len(), 1000);
    assert_eq!(registry.reap_if(0, |_| true).removed, 0);
}

#[test]
fn reaped_entries_count_as_reaped_and_are_destroyed_as_usual() {
    let registry: Registry<u64, Counted> = isolated();
    let ledger = Ledger::new();
    (0..300).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    let held = registry.lookup(&2).unwrap();
    assert_eq!(registry.reap_if(usize::MAX, |entry| entry.get() % 2 == 0).removed, 150);
    registry.domain().barrier();
    let stats = registry.stats();
    assert_eq!((stats.reaped, stats.removed, stats.live, stats.backlog), (150, 0, 150, 1), "{stats}");
    assert!(held.is_unlinked() && held.get() == 2 && ledger.live() == 151);
}

#[test]
fn reaping_by_age_spares_young_entries_and_removes_those_two_ticks_too_old() {
    let clock = ManualClock::new();
    let registry = Registry::builder().clock(clock.clone()).domain(Domain::new()).build();
    let age = Duration::from_millis(500);
    for key in 0..100u64 {
        registry.try_insert(key, ()).unwrap();
        clock.advance(Duration::from_millis(13));
    }
    let now = 1300;
    registry.reap_older_than(age, usize::MAX);
    for key in 0..100 {
        let old = now - key * 13;
        assert!(registry.contains_key(&key) || old > 500, "{key} is only {old} ms old");
        assert!(!registry.contains_key(&key) || old <= 534, "{key} is {old} ms old");
    }
    registry.update(&99, |_, ()| ()).unwrap();
    clock.advance(Duration::from_millis(490));
    registry.insert(98, ());
    registry.reap_older_than(age, usize::MAX);
    assert!(registry.contains_key(&99) && registry.contains_key(&98), "a replaced entry kept its old age");
    assert_eq!(registry.reap_older_than(Duration::MAX, usize::MAX).removed, 0);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(registry.reap_older_than(Duration::from_secs(3599), usize::MAX).removed, 2);
}

#[test]
fn concurrent_reapers_and_drains_remove_each_entry_once() {
    let ledger = Ledger::new();
    for _ in 0..times(10) {
        let registry: Registry<u64, Counted> = isolated();
        (0..2000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
        let removed: usize = thread::scope(|scope| {
            let ways = [
                scope.spawn(|| registry.reap_if(usize::MAX, |_| true).removed),
                scope.spawn(|| registry.drain().count()),
                scope.spawn(|| registry.reap_if(usize::MAX, |entry| entry.get() % 2 == 0).removed),
                scope.spawn(|| (0..2000).filter(|key| registry.remove(key).is_some()).count()),
            ];
            ways.into_iter().map(|way| way.join().unwrap()).sum()
        });
        assert_eq!((removed, registry.len()), (2000, 0));
        registry.domain().barrier();
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn remove_if_removes_the_entry_that_its_condition_held_for() {
    let registry = filled(1, 10);
    let mut seen = Vec::new();
    let removed = registry.remove_if(&5, |_, &value| {
        seen.push(value);
        if value == 5 {
            registry.insert(5, 50);
        }
        true
    });
    assert_eq!((removed.map(|old| *old), seen), (Some(50), vec![5, 50]));
    assert!(registry.remove_if(&6, |_, _| false).is_none() && registry.contains_key(&6));
}

#[test]
fn dropping_a_drain_leaves_the_other_entries_in_place() {
    let registry = filled(4, 1000);
    let some: Vec<u64> = registry.drain().take(300).map(|handle| *handle).collect();
    assert_eq!((registry.len(), registry.pin().iter().count()), (700, 700));
    assert!(some.iter().all(|key| !registry.contains_key(key)));
    assert_eq!(registry.drain().count(), 700);
}

#[test]
fn a_scan_by_several_threads_finds_every_entry_once() {
    let registry: Registry<u64, u64> = Registry::builder().shards(8).build();
    registry.set_many((0..10_000).map(|key| (key, key)));
    for threads in [0, 1, 3, 100] {
        let met = std::sync::Mutex::new(Vec::new());
        registry.scan_parallel(threads, |entry| met.lock().unwrap().push(*entry));
        let mut met = met.into_inner().unwrap();
        met.sort_unstable();
        assert!(met.into_iter().eq(0..10_000), "{threads} threads");
    }
    let guard = registry.pin();
    assert_eq!((0..registry.shard_count()).map(|shard| guard.iter_shard(shard).count()).sum::<usize>(), 10_000);
    let panics = std::panic::catch_unwind(|| registry.scan_parallel(2, |entry| assert_ne!(*entry, 5000, "planned")));
    assert!(panics.is_err() && registry.len() == 10_000);
}

/// Nodes in slabs of both sizes, and nodes that have allocations of their own.
#[test]
fn a_walk_in_memory_order_finds_every_entry() {
    fn check<V: Copy + Default + Send + Sync + 'static>(slab: SlabSize) {
        let registry: Registry<u64, V> = Registry::builder().shards(4).slab_size(slab).domain(Domain::new()).build();
        assert_eq!(registry.pin().iter_in_memory_order().count(), 0);
        registry.set_many((0..10_000).map(|key| (key, V::default())));
        (0..10_000).filter(|key| key % 3 == 0).for_each(|key| assert!(registry.delete(&key)));
        // A removed entry that is held is not in the walk.
        let held = registry.remove(&1).unwrap();
        registry.set_many((10_000..11_000).map(|key| (key, V::default())));
        let guard = registry.pin();
        let walk = || {
            let mut met: Vec<_> = guard.iter_in_memory_order().map(|entry| *entry.key()).collect();
            met.sort_unstable();
            met
        };
        assert!(walk().into_iter().eq((2..10_000).filter(|key| key % 3 != 0).chain(10_000..11_000)));
        drop(held);
        registry.clear();
        assert_eq!(walk(), []);
        registry.set(5, V::default());
        assert_eq!(walk(), [5]);
    }
    check::<u64>(SlabSize::Small);
    check::<u64>(SlabSize::Large);
    check::<[u64; 32]>(SlabSize::Large);
    check::<[[u64; 32]; 16]>(SlabSize::Small);
    check::<[[u64; 32]; 16]>(SlabSize::Large);
}

/// A walk does not find an expired entry. It lists all entries of a shard at one moment.
#[test]
fn a_walk_in_memory_order_lists_a_shard_at_a_time() {
    let clock = ManualClock::new();
    let registry: Registry<u64, u64> = Registry::builder()
        .shards(1)
        .clock(clock.clone())
        .max_age(Duration::from_secs(10))
        .domain(Domain::new())
        .build();
    registry.set(0, 0);
    clock.advance(Duration::from_secs(9));
    (1..100).for_each(|key| assert!(!registry.set(key, key)));
    clock.advance(Duration::from_secs(2));
    let guard = registry.pin();
    let mut walk = guard.iter_in_memory_order();
    let first = walk.next().unwrap();
    registry.set(1000, 1000);
    assert_eq!(std::iter::once(first).chain(walk).map(|entry| *entry).collect::<HashSet<_>>(), (1..100).collect());
}

/// Meanwhile, other keys overflow into the buckets that an iteration visits next.
#[test]
fn an_iteration_finds_no_entry_twice() {
    // The keys have eight neighbouring homes, and no resize happens.
    let builder = Registry::builder().shards(1).capacity(2000).hasher(FewBits { mask: 7 });
    let registry: Registry<u64, u64, FewBits> = builder.domain(Domain::new()).build();
    let stop = Stop::default();
    thread::scope(|scope| {
        let (registry, stop) = (&registry, &stop);
        scope.spawn(move || {
            let mut next = 0;
            while !stop.stopped() {
                // Each key is inserted only once.
                let keys = next..next + 60;
                keys.clone().for_each(|key| assert!(!registry.set(key, key)));
                keys.for_each(|key| assert!(registry.delete(&key)));
                next += 60;
            }
        });
        let _end = stop.at_end();
        let end = Instant::now() + a_while();
        while Instant::now() < end {
            for way in 0..2 {
                let (guard, mut met) = (registry.pin(), Vec::new());
                match way {
                    0 => met.extend(guard.iter().map(|entry| *entry)),
                    _ => guard.iter().for_each(|entry| met.push(*entry)),
                }
                met.sort_unstable();
                assert!(met.windows(2).all(|two| two[0] != two[1]), "an entry was found twice: {met:?}");
            }
        }
    });
}

/// A key of the last home overflows into the first two buckets after the walk has visited the first.
#[test]
fn an_iteration_finds_no_entry_twice_if_its_bucket_wraps_around() {
    // The table has 16 buckets of seven slots.
    const LAST: u64 = 15;
    let hasher = FewBits { mask: LAST };
    let of_home = |home: u64| (0_u64..).filter(move |key| FewBits { mask: LAST }.hash_one(key) == home);
    for by_fold in [false, true] {
        let builder = Registry::builder().shards(1).capacity(84).hasher(hasher).domain(Domain::new());
        let registry: Registry<u64, u64, FewBits> = builder.build();
        let (first, last): (Vec<_>, Vec<_>) = (of_home(0).take(7).collect(), of_home(LAST).take(8).collect());
        first.iter().chain(&last[..7]).for_each(|&key| assert!(!registry.set(key, key)));
        let (guard, mut met) = (registry.pin(), Vec::new());
        let mut meet = |entry: epoch_registry::Entry<'_, u64, u64>| {
            if met.is_empty() {
                // Both buckets are full.
                assert!(!registry.set(last[7], last[7]));
            }
            met.push(*entry);
        };
        if by_fold {
            guard.iter().for_each(&mut meet);
        } else {
            for entry in guard.iter() {
                meet(entry);
            }
        }
        assert_eq!(registry.stats().resizes, 0);
        let count = met.len();
        met.sort_unstable();
        met.dedup();
        assert_eq!((met.len(), count), (15, 15), "an entry was found twice, or one is missing");
    }
}

/// A walk does not list entries that `clear` has removed, even while `clear` still marks them.
#[test]
fn a_walk_in_memory_order_does_not_find_cleared_entries() {
    const COUNT: u64 = 200_000;
    for _ in 0..times(10) {
        let registry: Registry<u64, u64> = Registry::builder().shards(1).domain(Domain::new()).build();
        registry.set_many((0..COUNT).map(|key| (key, 0)));
        thread::scope(|scope| {
            scope.spawn(|| registry.clear());
            while registry.contains_key(&7) {
                std::hint::spin_loop();
            }
            registry.try_insert(7, 1).unwrap();
            let guard = registry.pin();
            assert!(guard.iter_in_memory_order().map(|entry| (*entry.key(), *entry)).eq([(7, 1)]));
        });
    }
}

/// The number of a cursor goes to a client and comes back, while the registry grows and shrinks.
#[test]
fn a_cursor_that_travels_as_a_number_meets_each_entry_also_during_resizes() {
    for shards in [1, 4] {
        let registry = filled(shards, 1000);
        let (mut number, mut met, mut step) = (0, HashSet::new(), 0);
        loop {
            let mut cursor = Cursor::from(number);
            registry.scan(&mut cursor, 20, |entry| _ = met.insert(*entry.key()));
            if cursor.is_done() {
                break;
            }
            number = cursor.into();
            step += 1;
            match step % 20 {
                5 => registry.set_many((10_000..20_000).map(|key| (key, key))),
                15 => registry.delete_many(&(10_000..20_000).collect::<Vec<u64>>()),
                _ => 0,
            };
        }
        assert!((0..1000).all(|key| met.contains(&key)), "{shards} shards: an entry was missed");
    }
}

#[test]
fn a_cursor_of_any_number_ends_and_meets_no_entry_twice() {
    let registry = filled(4, 1000);
    let mut rng = Rng::new(7);
    let random = (0..200).map(|_| rng.below(u64::MAX) << 33 | rng.below(u64::MAX));
    for number in (0..64).map(|bit| 1 << bit).chain([u64::MAX, u64::MAX >> 1]).chain(random) {
        let (mut cursor, mut met, mut calls) = (Cursor::from(number), HashSet::new(), 0);
        while !cursor.is_done() {
            registry.scan(&mut cursor, 50, |entry| assert!(met.insert(*entry.key()), "met twice"));
            calls += 1;
            assert!(calls < 100, "the walk from {number} does not end");
        }
        assert_eq!(number >> 63 != 0, calls == 0);
        registry.fallible().retain(&mut Cursor::from(number), |_, _| true).unwrap();
    }
    assert_eq!(registry.len(), 1000);
}
