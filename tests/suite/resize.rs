//! Tables grow and shrink while other threads read, remove, iterate and scan.

use crate::common::*;
use epoch_registry::{Cursor, Domain, Registry};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

/// Keys that stay in the registry during a whole test. Passing keys, which are inserted and removed, are larger.
const STABLE: u64 = 500;
const PASSING: std::ops::Range<u64> = 10_000..12_000;

fn with_stable_keys(mask: u64, ledger: &Ledger) -> Registry<u64, Counted, FewBits> {
    let registry = Registry::builder().shards(2).hasher(FewBits { mask }).domain(Domain::new()).build();
    for key in 0..STABLE {
        registry.try_insert(key, ledger.value(key)).unwrap();
    }
    registry
}

/// Runs `check` on two threads while the tables grow and shrink in several cycles.
fn while_it_resizes(mask: u64, check: impl Fn(&Registry<u64, Counted, FewBits>, &mut Rng) + Sync) {
    let ledger = Ledger::new();
    let registry = with_stable_keys(mask, &ledger);
    let stop = Stop::default();
    let end = Instant::now() + a_while();
    thread::scope(|scope| {
        let (registry, stop, check) = (&registry, &stop, &check);
        let _end = stop.at_end();
        for seed in 1..3 {
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                while !stop.stopped() {
                    check(registry, &mut rng);
                }
            });
        }
        let mut cycles = 0;
        while cycles < 3 || Instant::now() < end {
            for key in PASSING {
                registry.try_insert(key, ledger.value(key)).unwrap();
            }
            match cycles % 3 {
                0 => PASSING.for_each(|key| assert_eq!(registry.remove(&key).unwrap().get(), key)),
                1 => registry.retain(|&key, _| key < STABLE),
                _ => assert_eq!(registry.reap_if(usize::MAX, |entry| entry.get() >= STABLE).removed, PASSING.count()),
            }
            registry.shrink_to_fit();
            cycles += 1;
        }
    });
    assert!(registry.stats().resizes >= 6, "{}", registry.stats());
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.len() as u64), (STABLE, STABLE));
}

#[test]
fn stable_keys_are_always_found_during_resizes() {
    in_time(|| {
        while_it_resizes(u64::MAX, |registry, rng| {
            let mut reader = registry.reader();
            for _ in 0..500 {
                let key = rng.below(STABLE);
                assert_eq!(registry.pin().get(&key).expect("get").get(), key);
                assert_eq!(registry.lookup(&key).expect("lookup").get(), key);
                assert_eq!(reader.get(&key).expect("session").get(), key);
                assert!(!reader.contains_key(&(key + STABLE)));
            }
        });
    });
}

/// There are at most 64 homes. So buckets overflow, and resizes move chains of buckets.
#[test]
fn stable_keys_are_always_found_during_resizes_with_a_poor_hash() {
    in_time(|| {
        while_it_resizes(0x7f_0000_003f, |registry, rng| {
            let keys: [u64; 20] = std::array::from_fn(|_| rng.below(STABLE));
            let guard = registry.pin();
            for (key, found) in keys.iter().zip(guard.get_many(keys.each_ref())) {
                assert_eq!(found.expect("get_many").get(), *key);
            }
        });
    });
}

/// Iterates by a loop, by `fold`, and in memory order.
fn an_iteration_meets_every_stable_key_once(mask: u64) {
    in_time(|| {
        while_it_resizes(mask, |registry, rng| {
            let (guard, mut met) = (registry.pin(), HashMap::new());
            match rng.below(3) {
                0 => guard.iter().for_each(|entry| *met.entry(entry.get()).or_insert(0) += 1),
                1 => {
                    for entry in guard.iter() {
                        *met.entry(entry.get()).or_insert(0) += 1;
                    }
                }
                _ => guard.iter_in_memory_order().for_each(|entry| *met.entry(entry.get()).or_insert(0) += 1),
            }
            let times = (0..STABLE).map(|key| met.get(&key).copied().unwrap_or(0));
            assert!(times.eq((0..STABLE).map(|_| 1)), "a stable key was missed, or found twice");
        });
    });
}

#[test]
fn an_iteration_finds_every_stable_key_once_during_resizes() {
    an_iteration_meets_every_stable_key_once(u64::MAX);
}

#[test]
fn an_iteration_finds_every_stable_key_once_with_a_poor_hash() {
    an_iteration_meets_every_stable_key_once(0xff00_0000_0000_01ff);
}

#[test]
fn a_scan_in_chunks_across_resizes_misses_no_stable_key() {
    in_time(|| {
        while_it_resizes(u64::MAX, |registry, rng| {
            let (mut cursor, mut met) = (Cursor::new(), HashSet::new());
            while !cursor.is_done() {
                registry.scan(&mut cursor, 1 + rng.below(50) as usize, |entry| {
                    met.insert(entry.get());
                });
                if rng.below(8) == 0 {
                    thread::yield_now();
                }
            }
            assert!((0..STABLE).all(|key| met.contains(&key)), "the scan missed a stable key");
        });
    });
}

/// Scans and iterations of a registry that only grows.
#[test]
fn while_tables_only_grow_every_stable_key_is_found_exactly_once() {
    let ledger = Ledger::new();
    for _ in 0..times(5) {
        let registry = with_stable_keys(u64::MAX, &ledger);
        let stop = Stop::default();
        let rounds = AtomicU64::new(0);
        thread::scope(|scope| {
            let (registry, stop, rounds) = (&registry, &stop, &rounds);
            let _end = stop.at_end();
            for chunk in [usize::MAX, 7] {
                scope.spawn(move || {
                    while !stop.stopped() {
                        let mut met = HashMap::new();
                        if chunk == usize::MAX {
                            registry.pin().iter().for_each(|entry| *met.entry(entry.get()).or_insert(0) += 1);
                        } else {
                            let mut cursor = Cursor::new();
                            while !cursor.is_done() {
                                registry.scan(&mut cursor, chunk, |entry| *met.entry(entry.get()).or_insert(0) += 1);
                            }
                        }
                        assert!(
                            (0..STABLE).all(|key| met.get(&key) == Some(&1)),
                            "a stable key was missed, or found twice"
                        );
                        assert!(met.values().all(|&times| times == 1), "a new key was found twice");
                        rounds.fetch_add(1, SeqCst);
                    }
                });
            }
            for key in PASSING {
                registry.try_insert(key, ledger.value(key)).unwrap();
            }
            let before = rounds.load(SeqCst);
            assert!(soon(|| stop.stopped() || rounds.load(SeqCst) > before));
        });
    }
}

#[test]
fn a_guard_opened_before_several_resizes_still_reads() {
    let ledger = Ledger::new();
    let registry = with_stable_keys(u64::MAX, &ledger);
    let guard = registry.pin();
    let entries: Vec<_> = guard.iter().collect();
    let mut rest = guard.iter();
    assert!(rest.next().is_some());
    for _ in 0..2 {
        thread::scope(|scope| {
            scope.spawn(|| {
                PASSING.for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
                PASSING.for_each(|key| drop(registry.remove(&key)));
                registry.shrink_to_fit();
            });
        });
        for key in 0..STABLE {
            assert_eq!(guard.get(&key).unwrap().get(), key);
        }
    }
    assert!(rest.count() >= STABLE as usize - 1);
    assert_eq!(entries.len() as u64, STABLE);
    assert!(entries.iter().all(|entry| entry.get() == *entry.key()));
}

#[test]
fn inserts_and_removes_of_many_threads_during_resizes_all_take_effect() {
    let registry: Registry<u64, Counted> = Registry::builder().shards(1).domain(Domain::new()).build();
    let ledger = Ledger::new();
    thread::scope(|scope| {
        for id in 0..4u64 {
            let (registry, ledger) = (&registry, &ledger);
            scope.spawn(move || {
                for cycle in 0..times(4) as u64 {
                    let keys = (0..2000).map(|n| n * 4 + id);
                    for key in keys.clone() {
                        assert!(registry.try_insert(key, ledger.value(key + cycle)).is_ok());
                    }
                    for key in keys {
                        assert_eq!(registry.remove(&key).map(|handle| handle.get()), Some(key + cycle));
                    }
                }
            });
        }
    });
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.len()), (0, 0));
}

#[test]
fn table_memory_follows_the_number_of_entries_up_and_down() {
    let registry: Registry<u64, u64> = Registry::builder().shards(2).domain(Domain::new()).build();
    let empty = registry.table_bytes();
    for _ in 0..3 {
        (0..20_000).for_each(|key| drop(registry.try_insert(key, key)));
        let full = registry.table_bytes();
        assert!(full > 20_000 * 8 && full < 20_000 * 80, "{full} bytes for 20,000 entries");
        assert!(registry.capacity() >= 20_000);
        (0..20_000).for_each(|key| drop(registry.remove(&key)));
        assert!(registry.table_bytes() < full / 8, "{} bytes for no entries", registry.table_bytes());
    }
    (0..20_000).for_each(|key| drop(registry.try_insert(key, key)));
    registry.clear();
    assert_eq!(registry.table_bytes(), empty, "clear did not free the tables");
}
