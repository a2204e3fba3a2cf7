//! Many threads at once, with exact counts, and with values that detect a use after their drop.

use crate::common::*;
use epoch_registry::{Domain, Registry, SlabSize};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

const KEYS: u64 = 512;

/// The number of a value: the key in the low bits, and a version above them.
fn number(key: u64, version: u64) -> u64 {
    version << 16 | key
}

fn key_of(number: u64) -> u64 {
    number & 0xffff
}

fn write(registry: &Registry<u64, Counted>, ledger: &Ledger, rng: &mut Rng) {
    let key = rng.below(KEYS);
    let value = || ledger.value(number(key, 1));
    match rng.below(8) {
        0 | 1 => drop(registry.try_insert(key, value())),
        2 => drop(registry.insert(key, value())),
        3 => drop(registry.update(&key, |_, old| ledger.value(number(key, (old.get() >> 16) + 1)))),
        4 => drop(registry.get_or_insert_with(key, value)),
        5 | 6 => drop(registry.remove(&key)),
        _ => drop(registry.remove_if(&key, |_, value| value.get() >> 16 > 1)),
    }
}

fn read(registry: &Registry<u64, Counted>, rng: &mut Rng) {
    let mut held = Vec::new();
    for _ in 0..64 {
        let key = rng.below(KEYS);
        match rng.below(5) {
            0 => {
                let guard = registry.pin();
                let entries: Vec<_> = (0..8).filter_map(|more| guard.get(&((key + more) % KEYS))).collect();
                thread::yield_now();
                for entry in entries {
                    assert_eq!(key_of(entry.get()), *entry.key());
                    held.extend(entry.handle());
                }
            }
            1 => held.extend(registry.lookup(&key)),
            2 => {
                let mut reader = registry.reader();
                for more in 0..32 {
                    let key = (key + more) % KEYS;
                    if let Some(entry) = reader.get(&key) {
                        assert_eq!(key_of(entry.get()), key);
                    }
                }
                held.extend(reader.lookup(&key));
            }
            3 => {
                let guard = registry.pin();
                let keys: Vec<u64> = (0..20).map(|more| (key + more) % KEYS).collect();
                guard.get_batch(&keys, |key, entry| {
                    assert!(entry.is_none_or(|entry| key_of(entry.get()) == *key));
                });
            }
            _ => {
                for entry in registry.pin().iter().take(100) {
                    assert_eq!(key_of(entry.get()), *entry.key());
                }
            }
        }
    }
    for handle in held {
        assert_eq!(key_of(handle.get()), *handle.key());
    }
}

fn storm(domain: Domain, bound: usize, slab: SlabSize) {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> =
        Registry::builder().shards(2).domain(domain).max_entries(bound).slab_size(slab).build();
    let (reaped, evicted) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + a_while();
    let going = || Instant::now() < end;
    thread::scope(|scope| {
        let (registry, ledger, reaped, evicted) = (&registry, &ledger, &reaped, &evicted);
        for seed in 0..2 {
            scope.spawn(move || {
                let mut rng = Rng::new(seed + 1);
                while going() {
                    (0..100).for_each(|_| write(registry, ledger, &mut rng));
                }
            });
            scope.spawn(move || {
                let mut rng = Rng::new(seed + 10);
                while going() {
                    read(registry, &mut rng);
                }
            });
        }
        scope.spawn(move || {
            while going() {
                let count = registry.reap_if(50, |entry| entry.get() >> 16 > 3).removed;
                reaped.fetch_add(count as u64, SeqCst);
                registry.retain(|key, _| key % 97 != 0);
                registry.drain().take(3).for_each(drop);
                evicted.fetch_add(registry.evict(2) as u64, SeqCst);
            }
        });
        // Threads that start and end during the storm.
        scope.spawn(move || {
            let mut seed = 100;
            while going() {
                seed += 1;
                let short = thread::spawn({
                    let (ledger, values) = (ledger.clone(), (0..20).map(|n| ledger.value(n)).collect::<Vec<_>>());
                    move || {
                        drop(values);
                        ledger.created()
                    }
                });
                thread::scope(|inner| {
                    inner.spawn(|| {
                        let mut rng = Rng::new(seed);
                        (0..50).for_each(|_| write(registry, ledger, &mut rng));
                        read(registry, &mut rng);
                    });
                });
                short.join().unwrap();
            }
        });
    });
    registry.domain().barrier();
    let stats = registry.stats();
    assert_eq!(ledger.live(), registry.len() as u64, "not created = dropped + live: {stats}");
    assert_eq!((stats.live, stats.backlog), (registry.len() as u64, 0), "{stats}");
    assert_eq!((stats.freed, stats.reaped), (stats.inserted - stats.live, reaped.load(SeqCst)), "{stats}");
    assert!(stats.evicted >= evicted.load(SeqCst), "{stats}");
    assert!(stats.freed > 0 && stats.removed > 0 && stats.replaced > 0, "the storm did too few writes: {stats}");
    let domain = registry.domain().clone();
    drop(registry);
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_storm_of_reads_and_writes_loses_and_leaks_nothing() {
    in_time(|| storm(Domain::new(), usize::MAX, SlabSize::Small));
}

#[test]
fn a_storm_within_a_bound_loses_and_leaks_nothing() {
    in_time(|| storm(Domain::new(), KEYS as usize / 4, SlabSize::Large));
}

#[test]
fn a_storm_with_a_reclaimer_thread_loses_and_leaks_nothing() {
    in_time(|| storm(Domain::builder().reclaimer(true).build(), usize::MAX, SlabSize::Large));
}

/// Keys are only replaced, while tables grow and shrink. No kind of read finds a key absent, and no reader sees an
/// older version after a newer one.
fn never_absent(rewrite: impl Fn(&Registry<u64, Counted>, &Ledger, u64, u64) + Sync) {
    const FIXED: u64 = 16;
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = Registry::builder().shards(1).domain(Domain::new()).build();
    for key in 0..FIXED {
        registry.try_insert(key, ledger.value(number(key, 0))).unwrap();
    }
    let stop = Stop::default();
    let end = Instant::now() + a_while();
    thread::scope(|scope| {
        let (registry, ledger, stop, rewrite) = (&registry, &ledger, &stop, &rewrite);
        let _end = stop.at_end();
        for seed in 0..3u64 {
            scope.spawn(move || {
                let mut latest = [0; FIXED as usize];
                let mut see = |key: u64, value: Option<u64>, how: &str| {
                    let value = value.unwrap_or_else(|| panic!("{key} is absent to {how}"));
                    assert_eq!(key_of(value), key);
                    let version = value >> 16;
                    assert!(version >= latest[key as usize], "{key} went back to an older version for {how}");
                    latest[key as usize] = version;
                };
                let mut reader = registry.reader();
                let mut rng = Rng::new(seed + 1);
                while !stop.stopped() {
                    for _ in 0..200 {
                        let key = rng.below(FIXED);
                        see(key, registry.pin().get(&key).map(|entry| entry.get()), "get");
                        see(key, registry.lookup(&key).map(|handle| handle.get()), "lookup");
                        see(key, reader.get(&key).map(|entry| entry.get()), "a session");
                        see(key, reader.lookup(&key).map(|handle| handle.get()), "an owned read of a session");
                        let keys = [&key, &((key + 1) % FIXED)];
                        for (key, found) in keys.into_iter().zip(registry.pin().lookup_many(keys)) {
                            see(*key, found.map(|handle| handle.get()), "a batch");
                        }
                    }
                }
            });
        }
        let resizer = scope.spawn(move || {
            while Instant::now() < end {
                for key in 1000..3000 {
                    drop(registry.try_insert(key, ledger.value(number(key, 0))));
                }
                for key in 1000..3000 {
                    drop(registry.remove(&key));
                }
                registry.shrink_to_fit();
            }
        });
        let mut version = 1;
        while !resizer.is_finished() {
            for key in 0..FIXED {
                rewrite(registry, ledger, key, version);
            }
            version += 1;
        }
    });
    assert!(registry.stats().resizes > 4, "{}", registry.stats());
    registry.domain().barrier();
    assert_eq!(ledger.live(), FIXED);
}

#[test]
fn a_replaced_key_is_never_seen_absent_or_with_an_older_value() {
    in_time(|| {
        never_absent(|registry, ledger, key, version| {
            let old = registry.insert(key, ledger.value(number(key, version))).expect("the key is never absent");
            assert_eq!(old.get(), number(key, version - 1));
        });
    });
}

#[test]
fn an_updated_key_is_never_seen_absent_or_with_an_older_value() {
    in_time(|| {
        never_absent(|registry, ledger, key, version| {
            let new = registry.update(&key, |_, old| ledger.value(old.get() + number(0, 1)));
            assert_eq!(new.expect("the key is never absent").get(), number(key, version));
        });
    });
}

#[test]
fn concurrent_updates_of_one_key_lose_no_increment() {
    let registry: Registry<u64, u64> = isolated();
    registry.try_insert(1, 0).unwrap();
    let rounds = times(5_000) as u64;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..rounds).for_each(|_| drop(registry.update(&1, |_, n| n + 1).unwrap())));
        }
    });
    assert_eq!(*registry.lookup(&1).unwrap(), 4 * rounds);
}

#[test]
fn of_concurrent_inserts_and_removes_of_one_key_exactly_one_succeeds() {
    let registry: Registry<u64, u64> = isolated();
    let rounds = times(2_000) as u64;
    let (inserted, removed, made) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let turn = std::sync::Barrier::new(3);
    thread::scope(|scope| {
        for id in 0..3 {
            let (registry, inserted, removed, made, turn) = (&registry, &inserted, &removed, &made, &turn);
            scope.spawn(move || {
                for round in 0..rounds {
                    turn.wait();
                    match registry.try_insert(round, id) {
                        Ok(_) => drop(inserted.fetch_add(1, SeqCst)),
                        Err(occupied) => assert!(*occupied.entry < 3 && occupied.value == id),
                    }
                    let entry = registry.get_or_insert_with(round + (1 << 32), || {
                        made.fetch_add(1, SeqCst);
                        id
                    });
                    assert!(registry.lookup(entry.key()).unwrap().ptr_eq(&entry), "the threads got different entries");
                    turn.wait();
                    if registry.remove(&round).is_some() {
                        removed.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!((inserted.load(SeqCst), removed.load(SeqCst), registry.len() as u64), (rounds, rounds, rounds));
    assert!(made.load(SeqCst) >= rounds);
}
